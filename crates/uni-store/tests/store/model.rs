//! The store against a model that is a sorted map: random points, flushes, restarts, clock and retention.

use crate::common::{Contents, contents};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;
use uni_store::{Durability, LineEvent, LineOptions, Options, Point, RejectReason, Store};
use uni_wire::line::{Mode, Precision};
use uni_wire::{FieldValue, Timestamp};

const DATABASES: [&str; 2] = ["uni", "a/b %"];
const PARTITION_S: i64 = 60;
const RETENTION_S: i64 = 240;
const SECOND: i64 = 1_000_000_000;

/// What may happen to a store.
#[derive(Clone, Debug)]
enum Step {
    Append { database: usize, points: Vec<Point>, durable: bool },
    Lines { database: usize, points: Vec<Point>, repeats: usize },
    Merge,
    Flush,
    Maintain,
    Reopen,
    Advance { seconds: i64 },
}

fn value() -> impl Strategy<Value = FieldValue> {
    prop_oneof![
        4 => (-3i64..3).prop_map(FieldValue::Integer),
        2 => (-4i32..4).prop_map(|n| FieldValue::Float(f64::from(n) / 2.0)),
        1 => "[ab]{0,2}".prop_map(|text| FieldValue::String(text.into())),
        1 => any::<bool>().prop_map(FieldValue::Boolean),
        1 => any::<u64>().prop_map(FieldValue::Unsigned),
    ]
}

fn point() -> impl Strategy<Value = Point> {
    let fields = prop::collection::vec((prop::sample::select(vec!["x", "y", "z"]), value()), 1..4);
    let time = prop_oneof![5 => 0i64..60, 3 => 0i64..600, 1 => Just(-1i64)];
    (0usize..2, 0usize..3, fields, time).prop_map(|(measurement, vm, fields, time)| Point {
        measurement: ["cpu", "mem ory"][measurement].into(),
        tags: if vm == 0 { vec![] } else { vec![("vm".into(), format!("vm{vm}").into())] },
        fields: fields.into_iter().map(|(name, value)| (name.into(), value)).collect(),
        time: Timestamp(time * SECOND + time % 3),
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..2, prop::collection::vec(point(), 1..12), any::<bool>())
            .prop_map(|(database, points, durable)| Step::Append { database, points, durable }),
        6 => (0usize..2, prop::collection::vec(point(), 1..6), 1usize..4)
            .prop_map(|(database, points, repeats)| Step::Lines { database, points, repeats }),
        2 => Just(Step::Merge),
        4 => Just(Step::Flush),
        1 => Just(Step::Maintain),
        2 => Just(Step::Reopen),
        1 => (0i64..90).prop_map(|seconds| Step::Advance { seconds }),
    ]
}

/// A point as a line of line protocol.
fn line(point: &Point) -> String {
    let name = |text: &str| text.replace(',', "\\,").replace(' ', "\\ ").replace('=', "\\=");
    let tags: String =
        point.tags.iter().map(|(key, value)| format!(",{}={}", name(key), name(value))).collect();
    let value = |value: &FieldValue| match value {
        FieldValue::Float(number) => format!("{number}"),
        FieldValue::Integer(number) => format!("{number}i"),
        FieldValue::Unsigned(number) => format!("{number}u"),
        FieldValue::String(text) => format!("\"{text}\""),
        FieldValue::Boolean(truth) => format!("{truth}"),
    };
    let fields: Vec<String> =
        point.fields.iter().map(|(key, v)| format!("{}={}", name(key), value(v))).collect();
    format!("{}{tags} {} {}\n", name(&point.measurement), fields.join(","), point.time.nanos())
}

/// One database of the model.
#[derive(Default)]
struct Model(Contents);

impl Model {
    fn existing_type(&self, measurement: &str, field: &str) -> Option<uni_wire::FieldType> {
        let series = self.0.iter().filter(|((name, _), _)| name == measurement);
        let mut values = series.flat_map(|(_, rows)| rows.values()).filter_map(|row| row.get(field));
        values.next().map(FieldValue::field_type)
    }

    /// Whether the point is taken.
    fn append(&mut self, point: &Point) -> bool {
        let mut types = std::collections::BTreeMap::new();
        for (name, value) in &point.fields {
            let first = *types.entry(name).or_insert_with(|| value.field_type());
            let known = self.existing_type(&point.measurement, name).unwrap_or(first);
            if known != value.field_type() {
                return false;
            }
        }
        let tags: Vec<String> = point.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let rows = self.0.entry((point.measurement.to_string(), tags.join(","))).or_default();
        let row = rows.entry(point.time.nanos()).or_default();
        for (name, value) in &point.fields {
            row.insert(name.to_string(), value.clone());
        }
        true
    }

    /// Starts of the partitions dropped.
    fn retain(&mut self, now_s: i64) -> BTreeSet<i64> {
        let mut dropped = BTreeSet::new();
        for rows in self.0.values_mut() {
            rows.retain(|time, _| {
                let start_s = time.div_euclid(PARTITION_S * SECOND) * PARTITION_S;
                let old = start_s + PARTITION_S <= now_s - RETENTION_S;
                if old {
                    dropped.insert(start_s);
                }
                !old
            });
        }
        self.0.retain(|_, rows| !rows.is_empty());
        dropped
    }
}

struct Pair {
    store: Option<Store>,
    models: [Model; 2],
    now_s: i64,
}

impl Pair {
    fn open(&mut self, dir: &Path) {
        drop(self.store.take());
        let options = Options {
            durability: Durability::Interval(Duration::from_secs(10)),
            retention: Some(Duration::from_secs(RETENTION_S.unsigned_abs())),
            partition_seconds: PARTITION_S.unsigned_abs(),
            wal_flush_bytes: 4096,
            ..Options::default()
        };
        let store = Store::open(dir, options, Timestamp::from_seconds(self.now_s)).expect("the store opens");
        assert_eq!(store.recovery().set_aside, []);
        assert_eq!((store.recovery().torn_bytes, store.recovery().hidden_columns), (0, 0));
        for database in DATABASES {
            store.create_database(database).expect("a database");
        }
        self.store = Some(store);
        for model in &mut self.models {
            model.retain(self.now_s);
        }
    }

    fn append(&mut self, database: usize, points: &[Point], durable: bool) {
        let store = self.store.as_ref().expect("open");
        let name = DATABASES[database];
        let appended = if durable { store.append_durable(name, points) } else { store.append(name, points) };
        let appended = appended.expect("the log can be written");
        let mut refused = Vec::new();
        for (index, point) in points.iter().enumerate() {
            if !self.models[database].append(point) {
                refused.push(index);
            }
        }
        let rejected: Vec<usize> = appended.rejected.iter().map(|rejected| rejected.index).collect();
        assert_eq!(rejected, refused);
        assert_eq!(appended.accepted, points.len() - refused.len());
        let conflict = |reason: &RejectReason| matches!(reason, RejectReason::FieldTypeConflict { .. });
        assert!(appended.rejected.iter().all(|rejected| conflict(&rejected.reason)));
    }

    /// The points as lines, some times over with other times and numbers, so that most of them look like one before.
    fn append_lines(&mut self, database: usize, points: &[Point], repeats: usize) {
        let mut points: Vec<Point> = points.iter().cycle().take(points.len() * repeats).cloned().collect();
        for (n, point) in (0i64..).zip(&mut points) {
            point.time = Timestamp(point.time.nanos() + n * 7 * SECOND);
            // Of a field that a line has twice, the last value is all that counts.
            let last: std::collections::BTreeMap<_, _> = point.fields.iter().cloned().collect();
            point.fields = last.into_iter().collect();
            for (_, value) in &mut point.fields {
                if let FieldValue::Integer(number) = value {
                    *number += n;
                }
            }
        }
        let body: String = points.iter().map(line).collect();
        let options = LineOptions {
            mode: Mode::Strict,
            precision: Precision::Nanoseconds,
            now: Timestamp(0),
            tag: None,
            max_line_bytes: None,
            watched: None,
        };
        let mut refused = 0;
        let mut report = |event: LineEvent<'_>| match event {
            LineEvent::Refused(RejectReason::FieldTypeConflict { .. }) => refused += 1,
            other => panic!("{other:?} of {body}"),
        };
        let store = self.store.as_ref().expect("open");
        let appended = store.append_lines(DATABASES[database], body.as_bytes(), &options, &mut report);
        let appended = appended.expect("the log can be written");
        store.wait_durable(&appended).expect("a sync");
        let taken = points.iter().filter(|point| self.models[database].append(point)).count();
        assert_eq!((appended.accepted, appended.refused, appended.bad), (taken, points.len() - taken, 0));
        assert_eq!(refused, appended.refused);
    }

    fn advance(&mut self, seconds: i64) {
        self.now_s += seconds;
        let store = self.store.as_ref().expect("open");
        let dropped = store.enforce_retention(Timestamp::from_seconds(self.now_s)).expect("retention");
        for (name, model) in DATABASES.iter().zip(&mut self.models) {
            let mine = dropped.iter().filter(|dropped| dropped.database == *name);
            let starts: BTreeSet<i64> = mine.map(|dropped| dropped.start.nanos() / SECOND).collect();
            assert_eq!(starts, model.retain(self.now_s));
        }
    }

    fn step(&mut self, step: &Step, dir: &Path) {
        match step {
            Step::Append { database, points, durable } => self.append(*database, points, *durable),
            Step::Lines { database, points, repeats } => self.append_lines(*database, points, *repeats),
            Step::Merge => {
                // As if the day were long over: whatever can be merged is.
                let later = Timestamp::from_seconds(self.now_s + 100_000);
                while self.store.as_ref().expect("open").merge(later, &mut || {}).expect("a merge") {}
            }
            Step::Flush => self.store.as_ref().expect("open").flush().expect("a flush"),
            Step::Maintain => {
                let now = Timestamp::from_seconds(self.now_s);
                self.store.as_ref().expect("open").maintain(now).expect("maintenance");
                self.models.iter_mut().for_each(|model| drop(model.retain(self.now_s)));
            }
            Step::Reopen => self.open(dir),
            Step::Advance { seconds } => self.advance(*seconds),
        }
    }

    fn check(&self) {
        let store = self.store.as_ref().expect("open");
        for (name, model) in DATABASES.iter().zip(&self.models) {
            assert_eq!(contents(store, name), model.0);
            check_fields(store, name, model);
            check_ranges(store, name, model);
        }
    }
}

fn check_fields(store: &Store, database: &str, model: &Model) {
    for measurement in store.measurements(database) {
        for (field, field_type) in store.fields(database, &measurement) {
            assert_eq!(model.existing_type(&measurement, &field), Some(field_type));
        }
    }
}

/// A scan of a part of the time and one field sees the same part of the model; `latest` is its last row.
fn check_ranges(store: &Store, database: &str, model: &Model) {
    let (from, to) = (20 * SECOND, 130 * SECOND);
    for measurement in store.measurements(database) {
        for series in store.series(database, &measurement, &[]) {
            let tags: Vec<String> = series.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let rows = &model.0[&(measurement.clone(), tags.join(","))];
            let expected: Vec<(i64, FieldValue)> = rows
                .range(from..=to)
                .filter_map(|(time, row)| Some((*time, row.get("y")?.clone())))
                .collect();
            let mut seen = Vec::new();
            let mut visit = |time: Timestamp, values: &[Option<FieldValue>]| {
                seen.push((time.nanos(), values[1].clone().expect("only rows with a value")));
                ControlFlow::Continue(())
            };
            let names = ["absent", "y"];
            store
                .scan(database, series.id, &names, Timestamp(from), Timestamp(to), &mut visit)
                .expect("a scan");
            assert_eq!(seen, expected);
            let latest = store.latest(database, series.id).expect("a scan").expect("a row");
            let last = rows.last_key_value().expect("a row");
            assert_eq!((latest.time.nanos(), latest.fields.into_iter().collect()), (*last.0, last.1.clone()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_store_shows_what_a_sorted_map_would(steps in prop::collection::vec(step(), 1..50)) {
        let dir = tempfile::tempdir().expect("a folder");
        let mut pair = Pair { store: None, models: Default::default(), now_s: 200 };
        pair.open(dir.path());
        for step in &steps {
            pair.step(step, dir.path());
            pair.check();
        }
        pair.open(dir.path());
        pair.check();
    }
}
