//! The store against a model that is a sorted map: random points, flushes, merges, restarts, clock and retention,
//! policies, deletions and drops.

use crate::common::{Contents, contents};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;
use uni_store::{
    Doomed, Durability, LineEvent, LineOptions, Options, Point, PolicySpec, RejectReason, RetentionRule,
    SeriesInfo, Store,
};
use uni_wire::line::{Mode, Precision};
use uni_wire::{FieldType, FieldValue, Timestamp};

/// Database and policy of each space.
const SPACES: [(&str, &str); 3] = [("uni", "autogen"), ("a/b %", "autogen"), ("uni", "hour")];
const PARTITION_S: i64 = 60;
/// How long the points of each are kept.
const RETENTION_S: [i64; 3] = [240, 300, 3600];
/// How long those of `cpu` in `uni` are kept.
const CPU_S: i64 = 120;
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
    Delete { database: usize, measurement: usize, vm: Option<usize>, from: i64, to: i64 },
    Drop { database: usize, whole: bool, again: bool },
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
        6 => (0usize..3, prop::collection::vec(point(), 1..12), any::<bool>())
            .prop_map(|(database, points, durable)| Step::Append { database, points, durable }),
        6 => (0usize..3, prop::collection::vec(point(), 1..6), 1usize..4)
            .prop_map(|(database, points, repeats)| Step::Lines { database, points, repeats }),
        2 => Just(Step::Merge),
        4 => Just(Step::Flush),
        1 => Just(Step::Maintain),
        2 => Just(Step::Reopen),
        1 => (0i64..90).prop_map(|seconds| Step::Advance { seconds }),
        3 => (0usize..3, 0usize..2, prop::option::of(0usize..3), 0i64..200, 0i64..200).prop_map(
            |(database, measurement, vm, from, length)| Step::Delete {
                database, measurement, vm, from, to: from + length,
            }
        ),
        1 => (0usize..3, any::<bool>(), any::<bool>())
            .prop_map(|(database, whole, again)| Step::Drop { database, whole, again }),
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

/// One space of the model.
#[derive(Default)]
struct Model {
    rows: Contents,
    /// Types of fields that the store still has, although a deletion took their last value: until a merge.
    lingering: BTreeMap<(String, String), FieldType>,
    /// Something may be lingering.
    deleted: bool,
    /// Points before this are refused, and those of `cpu` before that.
    cutoffs: (i64, i64),
    alive: bool,
}

impl Model {
    fn existing_type(&self, measurement: &str, field: &str) -> Option<FieldType> {
        let key = (measurement.to_owned(), field.to_owned());
        self.type_of_rows(measurement, field).or_else(|| self.lingering.get(&key).copied())
    }

    fn type_of_rows(&self, measurement: &str, field: &str) -> Option<FieldType> {
        let series = self.rows.iter().filter(|((name, _), _)| name == measurement);
        let mut values = series.flat_map(|(_, rows)| rows.values()).filter_map(|row| row.get(field));
        values.next().map(FieldValue::field_type)
    }

    /// Whether the point is taken.
    fn append(&mut self, point: &Point) -> bool {
        let cutoff = if &*point.measurement == "cpu" { self.cutoffs.1 } else { self.cutoffs.0 };
        if point.time.nanos() < cutoff {
            return false;
        }
        let mut types = BTreeMap::new();
        for (name, value) in &point.fields {
            let first = *types.entry(name).or_insert_with(|| value.field_type());
            let known = self.existing_type(&point.measurement, name).unwrap_or(first);
            if known != value.field_type() {
                return false;
            }
        }
        let tags: Vec<String> = point.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let rows = self.rows.entry((point.measurement.to_string(), tags.join(","))).or_default();
        let row = rows.entry(point.time.nanos()).or_default();
        for (name, value) in &point.fields {
            row.insert(name.to_string(), value.clone());
        }
        true
    }

    /// Starts of the partitions dropped.
    fn retain(&mut self, space: usize, now_s: i64) -> BTreeSet<i64> {
        let mut dropped = BTreeSet::new();
        let start_of = |time: i64| time.div_euclid(PARTITION_S * SECOND) * PARTITION_S;
        let is_old = |time: i64, age_s: i64| start_of(time) + PARTITION_S <= now_s - age_s;
        let of_cpu = |age_s: i64| if SPACES[space].0 == "uni" { age_s.min(CPU_S) } else { age_s };
        for ((measurement, _), rows) in &mut self.rows {
            rows.retain(|time, _| {
                if is_old(*time, RETENTION_S[space]) {
                    dropped.insert(start_of(*time));
                    return false;
                }
                let forgotten = measurement == "cpu" && is_old(*time, of_cpu(RETENTION_S[space]));
                self.deleted |= forgotten;
                !forgotten
            });
        }
        self.rows.retain(|_, rows| !rows.is_empty());
        let before = |age_s: i64| (now_s - age_s) * SECOND;
        self.cutoffs = (before(RETENTION_S[space]), before(of_cpu(RETENTION_S[space])));
        dropped
    }

    fn delete(&mut self, measurement: &str, tags: Option<&str>, (from, to): (i64, i64)) {
        for ((name, of), rows) in &mut self.rows {
            if name == measurement && tags.is_none_or(|tags| tags == of) {
                rows.retain(|time, _| !(from..=to).contains(time));
            }
        }
        self.rows.retain(|_, rows| !rows.is_empty());
        self.deleted = true;
    }

    /// What the store says of types, before points are appended.
    fn look(&mut self, store: &Store, space: &str) {
        self.lingering.clear();
        for measurement in store.measurements(space) {
            for (field, field_type) in store.fields(space, &measurement) {
                self.lingering.insert((measurement.clone(), field), field_type);
            }
        }
    }
}

fn rule(database: &str, measurement: Option<&str>, age_s: i64) -> RetentionRule {
    let age = Duration::from_secs(age_s.unsigned_abs());
    RetentionRule { database: database.to_owned(), measurement: measurement.map(str::to_owned), age }
}

/// The name under which the store has a space.
fn space_name(space: usize) -> String {
    match SPACES[space] {
        (database, "autogen") => database.to_owned(),
        (database, policy) => format!("{database}\u{1}{policy}"),
    }
}

struct Pair {
    store: Option<Store>,
    models: [Model; 3],
    now_s: i64,
}

impl Pair {
    fn open(&mut self, dir: &Path) {
        drop(self.store.take());
        let options = Options {
            durability: Durability::Interval(Duration::from_secs(10)),
            retention: Some(Duration::from_secs(RETENTION_S[0].unsigned_abs())),
            retention_rules: vec![rule("a/b %", None, RETENTION_S[1]), rule("uni", Some("cpu"), CPU_S)],
            partition_seconds: PARTITION_S.unsigned_abs(),
            wal_flush_bytes: 4096,
            ..Options::default()
        };
        let store = Store::open(dir, options, Timestamp::from_seconds(self.now_s)).expect("the store opens");
        assert_eq!(store.recovery().set_aside, []);
        assert_eq!(store.recovery().torn_bytes, 0);
        if !self.models.iter().any(|model| model.deleted) {
            assert_eq!(store.recovery().hidden_columns, 0);
        }
        for (space, model) in self.models.iter().enumerate() {
            assert_eq!(store.space(SPACES[space].0, Some(SPACES[space].1)).is_ok(), model.alive);
        }
        self.store = Some(store);
        self.create();
        for (space, model) in self.models.iter_mut().enumerate() {
            model.retain(space, self.now_s);
        }
    }

    /// Makes the spaces that are missing.
    fn create(&mut self) {
        let store = self.store.as_ref().expect("open");
        for (space, (database, policy)) in SPACES.into_iter().enumerate() {
            store.create_database(database).expect("a database");
            let duration = Some(Duration::from_secs(RETENTION_S[space].unsigned_abs()));
            let spec = PolicySpec { duration, ..PolicySpec::default() };
            let own = if policy == "autogen" { PolicySpec::default() } else { spec };
            store.create_policy(database, policy, &own, false).expect("a policy");
            self.models[space].alive = true;
        }
    }

    fn drop(&mut self, space: usize, whole: bool, again: bool) {
        let store = self.store.as_ref().expect("open");
        let (database, policy) = SPACES[space];
        match whole {
            true => store.drop_database(database).expect("a drop"),
            false => store.drop_policy(database, policy).expect("a drop"),
        }
        for (other, model) in self.models.iter_mut().enumerate() {
            if other == space || whole && SPACES[other].0 == database {
                let cutoffs = model.cutoffs;
                *model = Model { cutoffs, ..Model::default() };
                assert!(store.append(&space_name(other), &[]).is_err());
            }
        }
        if again {
            self.create();
        }
    }

    fn delete(&mut self, space: usize, measurement: usize, vm: Option<usize>, range: (i64, i64)) {
        let (store, name) = (self.store.as_ref().expect("open"), space_name(space));
        let measurement = ["cpu", "mem ory"][measurement];
        let tags = vm.map(|vm| if vm == 0 { String::new() } else { format!("vm=vm{vm}") });
        let of = |info: &SeriesInfo| {
            info.tags.iter().map(|(key, value)| format!("{key}={value}")).collect::<String>()
        };
        let series = tags.as_ref().map(|tags| {
            let all = store.series(&name, measurement, &[]).into_iter();
            all.filter(|info| of(info) == *tags).map(|info| info.id).collect()
        });
        let doomed = Doomed { space: name, measurement: measurement.to_owned(), series };
        let (from, to) = (range.0 * SECOND, range.1 * SECOND);
        store.delete(Timestamp(from), Timestamp(to), &[doomed]).expect("a deletion");
        self.models[space].delete(measurement, tags.as_deref(), (from, to));
    }

    fn append(&mut self, database: usize, points: &[Point], durable: bool) {
        let store = self.store.as_ref().expect("open");
        let name = &space_name(database);
        self.models[database].look(store, name);
        let appended = if durable { store.append_durable(name, points) } else { store.append(name, points) };
        if !self.models[database].alive {
            assert!(appended.is_err());
            return;
        }
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
        let conflict = |reason: &RejectReason| {
            matches!(reason, RejectReason::FieldTypeConflict { .. } | RejectReason::BeyondRetention)
        };
        assert!(appended.rejected.iter().all(|rejected| conflict(&rejected.reason)));
    }

    /// The points as lines, some times over with other times and numbers, so that most of them look like one before.
    fn append_lines(&mut self, database: usize, points: &[Point], repeats: usize) {
        let mut points: Vec<Point> = points.iter().cycle().take(points.len() * repeats).cloned().collect();
        for (n, point) in (0i64..).zip(&mut points) {
            point.time = Timestamp(point.time.nanos() + n * 7 * SECOND);
            // Of a field that a line has twice, the last value is all that counts.
            let last: BTreeMap<_, _> = point.fields.iter().cloned().collect();
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
            LineEvent::Refused(RejectReason::FieldTypeConflict { .. } | RejectReason::BeyondRetention) => {
                refused += 1;
            }
            other => panic!("{other:?} of {body}"),
        };
        let store = self.store.as_ref().expect("open");
        let name = space_name(database);
        self.models[database].look(store, &name);
        let appended = store.append_lines(&name, body.as_bytes(), &options, &mut report);
        if !self.models[database].alive {
            assert!(appended.is_err());
            return;
        }
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
        for (space, model) in self.models.iter_mut().enumerate() {
            let mine = dropped.iter().filter(|one| (&*one.database, &*one.policy) == SPACES[space]);
            let starts: BTreeSet<i64> = mine.map(|dropped| dropped.start.nanos() / SECOND).collect();
            let before = model.deleted;
            let expected = model.retain(space, self.now_s);
            // A partition of which all is deleted may still have files.
            assert!(expected.is_subset(&starts) && (before || expected == starts), "{expected:?} {starts:?}");
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
                for (space, model) in self.models.iter_mut().enumerate() {
                    model.retain(space, self.now_s);
                }
            }
            Step::Reopen => self.open(dir),
            Step::Advance { seconds } => self.advance(*seconds),
            Step::Delete { database, measurement, vm, from, to } => {
                self.delete(*database, *measurement, *vm, (*from, *to));
            }
            Step::Drop { database, whole, again } => self.drop(*database, *whole, *again),
        }
    }

    fn check(&self) {
        let store = self.store.as_ref().expect("open");
        for (space, model) in self.models.iter().enumerate() {
            let name = &space_name(space);
            assert_eq!(contents(store, name), model.rows);
            check_fields(store, name, model);
            check_ranges(store, name, model);
        }
    }
}

fn check_fields(store: &Store, database: &str, model: &Model) {
    for measurement in store.measurements(database) {
        for (field, field_type) in store.fields(database, &measurement) {
            let known = model.type_of_rows(&measurement, &field);
            assert!(known == Some(field_type) || model.deleted && known.is_none(), "{measurement} {field}");
        }
    }
}

/// A scan of a part of the time and one field sees the same part of the model; `latest` is its last row.
fn check_ranges(store: &Store, database: &str, model: &Model) {
    let (from, to) = (20 * SECOND, 130 * SECOND);
    for measurement in store.measurements(database) {
        for series in store.series(database, &measurement, &[]) {
            let tags: Vec<String> = series.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let rows = &model.rows[&(measurement.clone(), tags.join(","))];
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
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 2000, ..ProptestConfig::default() })]

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
