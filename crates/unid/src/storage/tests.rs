//! What a query answers is the same with tiers and without, and what is left of it when points are gone.

use super::*;
use proptest::prelude::*;
use std::path::Path;
use std::time::Duration;
use uni_query::{Changes, Epoch, Limits, Request, execute};
use uni_store::{Options, TierRetention};

const SECOND: i64 = 1_000_000_000;
/// Not a multiple of an hour: windows of an hour reach over the ends of partitions.
const PARTITION_S: i64 = 5400;
/// After all points: where queries end.
const END: Timestamp = Timestamp::from_seconds(72_000);
/// Long after all points: when all is merged.
const LATER: Timestamp = Timestamp::from_seconds(10_000_000);

/// A source without windows: what answers are measured by.
struct PointsOnly<'a>(&'a Storage);

impl Source for PointsOnly<'_> {
    fn databases(&self) -> Vec<String> {
        self.0.databases()
    }
    fn has_database(&self, db: &str) -> bool {
        self.0.has_database(db)
    }
    fn measurements(&self, db: &str) -> Vec<String> {
        self.0.measurements(db)
    }
    fn fields(&self, db: &str, measurement: &str) -> Vec<(String, FieldType)> {
        self.0.fields(db, measurement)
    }
    fn series(&self, db: &str, measurement: &str, matchers: &[TagMatcher]) -> Vec<Series> {
        self.0.series(db, measurement, matchers)
    }
    fn scan(
        &self,
        db: &str,
        series: u64,
        fields: &[&str],
        from: Timestamp,
        to: Timestamp,
        visit: &mut dyn FnMut(Timestamp, &[Option<FieldValue>]) -> ControlFlow<()>,
    ) -> Result<(), SourceError> {
        self.0.scan(db, series, fields, from, to, visit)
    }
    fn policies(&self, db: &str) -> Vec<Policy> {
        self.0.policies(db)
    }
    fn change(&self, change: &Change) -> Result<(), SourceError> {
        self.0.change(change)
    }
    fn delete(&self, range: (Timestamp, Timestamp), doomed: &[Doomed]) -> Result<(), SourceError> {
        self.0.delete(range, doomed)
    }
}

fn ask(source: &dyn Source, text: &str) -> String {
    let limits = Limits { max_points: 10_000_000, ..Limits::default() };
    let request = Request { text, db: Some("uni"), now: END, limits, changes: Changes::None };
    execute(source, &request).expect(text).to_json(Some(Epoch::Nanoseconds), false)
}

/// A stretch of points of one VM.
#[derive(Clone, Debug)]
struct Run {
    vm: u8,
    first_s: i64,
    /// Milliseconds.
    step: i64,
    count: i64,
    seed: i64,
}

#[derive(Clone, Debug)]
enum Step {
    Append(Run),
    Flush,
    Merge,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let run = (
        0u8..3,
        0i64..20_000,
        prop::sample::select(vec![1000, 7000, 10_000, 61_000, 333]),
        1i64..1200,
        0i64..99,
    )
        .prop_map(|(vm, first_s, step, count, seed)| Step::Append(Run { vm, first_s, step, count, seed }));
    prop::collection::vec(
        prop_oneof![5 => run, 2 => Just(Step::Flush), 4 => Just(Step::Merge), 1 => Just(Step::Reopen)],
        1..14,
    )
}

/// The fields of a point: integers, large and small; floats that are whole, that are not, that are zero of both signs;
/// texts and truth values; some only now and then.
fn point(run: &Run, n: i64) -> Point {
    let noise = (n + 1).wrapping_mul(run.seed.wrapping_mul(2_654_435_761) + 97).rem_euclid(1009);
    let mut fields: Vec<(Box<str>, FieldValue)> = vec![
        ("i".into(), FieldValue::Integer(noise - 500)),
        ("huge".into(), FieldValue::Integer(i64::MAX / 2 - noise)),
        ("u".into(), FieldValue::Unsigned(u64::MAX - noise.unsigned_abs())),
        ("w".into(), FieldValue::Float((noise * 4096) as f64)),
    ];
    if noise % 3 != 0 {
        fields.push(("f".into(), FieldValue::Float(noise as f64 / 10.0)));
    }
    if noise % 7 == 0 {
        fields.push(("z".into(), FieldValue::Float(if noise % 2 == 0 { 0.0 } else { -0.0 })));
        fields.push(("t".into(), FieldValue::String("text".into())));
        fields.push(("b".into(), FieldValue::Boolean(noise % 2 == 0)));
    }
    if run.seed % 5 == 0 {
        // Whole floats, but too large to be added without rounding.
        fields.push(("v".into(), FieldValue::Float((noise as f64) * 3e13)));
    }
    Point {
        measurement: "m".into(),
        tags: vec![("vm".into(), run.vm.to_string().into())],
        fields,
        time: Timestamp(run.first_s * SECOND + n * run.step * 1_000_000),
    }
}

fn options() -> Options {
    let minute_tier = TierRetention::Forever;
    Options { partition_seconds: PARTITION_S.unsigned_abs(), minute_tier, ..Options::default() }
}

fn open(dir: &Path, options: Options, now: Timestamp) -> Storage {
    let store = Store::open(dir, options, now).expect("the store opens");
    assert_eq!(store.recovery().set_aside, []);
    store.create_database("uni").expect("a database");
    Storage { store }
}

fn merge(storage: &Storage, now: Timestamp) {
    while storage.store.merge(now, &mut || {}).expect("a merge") {}
}

fn append(storage: &Storage, run: &Run) {
    let points: Vec<Point> = (0..run.count).map(|n| point(run, n)).collect();
    let appended = storage.store.append("uni", &points).expect("an append");
    assert_eq!(appended.accepted, points.len());
}

fn filled(dir: &Path, steps: &[Step]) -> Storage {
    let mut storage = Some(open(dir, options(), LATER));
    for step in steps {
        let current = storage.as_ref().expect("open");
        match step {
            Step::Append(run) => append(current, run),
            Step::Flush => current.store.flush().expect("a flush"),
            Step::Merge => {
                current.store.flush().expect("a flush");
                merge(current, LATER);
            }
            Step::Reopen => {
                drop(storage.take());
                storage = Some(open(dir, options(), LATER));
            }
        }
    }
    storage.expect("open")
}

const CALLS: [&str; 12] = [
    "count(i), sum(i), mean(i)",
    "min(i), max(i), first(i), last(i), spread(i)",
    "mean(huge), sum(huge), spread(huge), last(u), sum(u)",
    "sum(w), mean(w), count(w)",
    "sum(f), mean(f), min(f), max(f), count(f)",
    "min(z), max(z), sum(z), first(z), last(z)",
    "sum(v), mean(v), max(v)",
    "count(t), count(b), last(t), max(b), sum(i)",
    "non_negative_derivative(last(i), 1s)",
    "moving_average(mean(w), 3)",
    "median(i), mean(i)",
    "max(f)",
];
const GROUPS: [&str; 9] = [
    "GROUP BY time(6h), vm",
    "GROUP BY time(1m)",
    "GROUP BY time(5m), vm",
    "GROUP BY time(1h)",
    "GROUP BY time(2h, 1h), vm fill(none)",
    "GROUP BY time(90s) fill(previous)",
    "GROUP BY time(61m, 1m) fill(0)",
    "GROUP BY vm",
    "",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn answers_are_the_same_with_tiers_and_without(
        steps in steps(),
        from in 0i64..9000,
        length in 1000i64..16_000,
        asked in prop::collection::vec((0..CALLS.len(), 0..GROUPS.len()), 16),
    ) {
        let dir = tempfile::tempdir().expect("a folder");
        let storage = filled(dir.path(), &steps);
        for range in [
            String::new(),
            "WHERE time >= 0s AND time < 28800s".to_owned(),
            format!("WHERE time >= {from}s AND time <= {}s AND vm != '1'", from + length),
            format!("WHERE i > 100 AND time >= {from}500ms"),
        ] {
            for (calls, group) in asked.iter().map(|(calls, group)| (CALLS[*calls], GROUPS[*group])) {
                // Functions over windows need windows.
                if group.contains("time(") || !calls.contains("derivative") && !calls.contains("average") {
                    let text = format!("SELECT {calls} FROM m {range} {group}");
                    prop_assert_eq!(ask(&storage, &text), ask(&PointsOnly(&storage), &text), "{}", text);
                }
            }
        }
    }

    #[test]
    fn what_tiers_keep_of_points_that_are_gone_is_what_the_points_said(steps in steps()) {
        let (all, some) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let whole = filled(all.path(), &steps);
        let tiers = Options {
            retention: Some(Duration::from_secs(1)),
            minute_tier: TierRetention::Forever,
            hour_tier: TierRetention::Forever,
            ..options()
        };
        drop(filled(some.path(), &steps));
        // The rows are read once more before they are too old: that is when their tiers are made.
        let storage = open(some.path(), Options { retention: None, ..tiers.clone() }, LATER);
        storage.store.flush().expect("a flush");
        merge(&storage, LATER);
        drop(storage);
        let aged = open(some.path(), tiers.clone(), LATER);
        prop_assert_eq!(aged.store.stats().segments, 0);
        let same = |aged: &Storage| {
            for group in ["GROUP BY time(1m) fill(none)", "GROUP BY time(1h), vm", "GROUP BY time(7m) fill(none)"] {
                let calls = "count(i), sum(i), mean(i), min(f), max(f), first(u), last(u), spread(w), sum(w), count(z)";
                let text = format!("SELECT {calls} FROM m WHERE time >= 0s AND time < 72000s {group}");
                assert_eq!(ask(aged, &text), ask(&whole, &text), "{text}");
            }
            assert_eq!(aged.measurements("uni"), whole.measurements("uni"));
            assert_eq!(aged.series("uni", "m", &[]).len(), whole.series("uni", "m", &[]).len());
        };
        same(&aged);
        // They get the name of what stands by itself, and are found under it again.
        merge(&aged, LATER);
        same(&aged);
        drop(aged);
        same(&open(some.path(), tiers.clone(), LATER));
        // By the hour only, then nothing any more.
        let hours = Options { minute_tier: TierRetention::For(Duration::from_secs(60)), ..tiers.clone() };
        let aged = open(some.path(), hours, LATER);
        merge(&aged, LATER);
        let text = "SELECT count(i), sum(i), max(f) FROM m WHERE time >= 0s AND time < 72000s GROUP BY time(1h)";
        prop_assert_eq!(ask(&aged, text), ask(&whole, text));
        let (fine, exact) = ("SELECT sum(i) FROM m WHERE time >= 0s AND time < 72000s GROUP BY time(1m)", "SELECT sum(i) FROM m");
        prop_assert_eq!(ask(&aged, exact), ask(&whole, exact));
        prop_assert_eq!(ask(&aged, fine).contains("\"sum\""), ask(&whole, fine).contains("\"sum\""));
        drop(aged);
        let nothing = Options { minute_tier: TierRetention::WithRows, hour_tier: TierRetention::WithRows, ..tiers };
        let aged = open(some.path(), nothing, LATER);
        prop_assert_eq!((aged.store.stats().tier_bytes, aged.measurements("uni").len()), (0, 0));
    }
}
