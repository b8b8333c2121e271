//! What callers rely on: refusals, retention, limits, memory, readers beside writers.

use crate::common::{DB, contents, integer, point, row_count};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;
use uni_store::{
    AppendError, Durability, Matcher, Op, OpenError, Options, PolicyError, ScanError, SeriesId, Store,
};
use uni_wire::{FieldType, FieldValue, Timestamp};

const DAY: i64 = 86_400;
const NOW: Timestamp = Timestamp::from_seconds(100 * DAY);

fn store_with(dir: &Path, options: Options) -> Store {
    let store = Store::open(dir, options, NOW).expect("the store opens");
    store.create_database(DB).expect("a database");
    store
}

fn everything() -> (Timestamp, Timestamp) {
    (Timestamp(i64::MIN), Timestamp(i64::MAX))
}

#[test]
fn a_type_conflict_refuses_its_point_alone_and_says_what_influxdb_says() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store_with(dir.path(), Options::default());
    let batch = [
        point("m", "a", &[("x", integer(1))], 1),
        point("m", "a", &[("x", FieldValue::Float(2.0)), ("new", integer(1))], 2),
        point("m", "a", &[("x", integer(3))], 3),
    ];
    let appended = store.append(DB, &batch).expect("an append");
    assert_eq!((appended.accepted, appended.rejected.len(), appended.rejected[0].index), (2, 1, 1));
    assert_eq!(
        appended.rejected[0].reason.to_string(),
        "field type conflict: input field \"x\" on measurement \"m\" is type float, already exists as type integer"
    );
    assert_eq!(store.fields(DB, "m"), [("x".to_owned(), FieldType::Integer)]);
    assert_eq!(row_count(&store, DB), 2);
    store.flush().expect("a flush");
    assert_eq!(
        store.append(DB, &batch[1..2]).expect("an append").rejected.len(),
        1,
        "segments remember types"
    );
    assert_eq!((store.stats().appended_total, store.stats().rejected_total), (2, 2));
}

#[test]
fn series_are_selected_by_matchers() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store_with(dir.path(), Options::default());
    let points = ["web-1", "web-2", "db"].map(|vm| point("m", vm, &[("x", integer(1))], 1));
    store.append(DB, &points).expect("an append");
    let names = |op, value| -> Vec<String> {
        let matcher = Matcher::new("vm", op, value).expect("a matcher");
        store.series(DB, "m", &[matcher]).iter().map(|series| series.tags[0].1.to_string()).collect()
    };
    assert_eq!(names(Op::Regex, "^web"), ["web-1", "web-2"]);
    assert_eq!(names(Op::NotRegex, "^web"), ["db"]);
    assert_eq!(names(Op::Equal, "db"), ["db"]);
    assert_eq!(names(Op::NotEqual, "db"), ["web-1", "web-2"]);
    assert!(store.series(DB, "absent", &[]).is_empty() && store.series("absent", "m", &[]).is_empty());
}

#[test]
fn retention_drops_whole_days_when_the_clock_has_moved_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options { retention: Some(Duration::from_secs(7 * 86_400)), ..Options::default() };
    let store = store_with(dir.path(), options.clone());
    let at = |day: i64| Timestamp::from_seconds(day * DAY + DAY / 2).nanos();
    for day in 95..=100 {
        store.append(DB, &[point("m", "a", &[("x", integer(day))], at(day))]).expect("an append");
    }
    store.append(DB, &[point("old", "a", &[("y", integer(1))], at(95))]).expect("an append");
    store.flush().expect("a flush");
    store.append(DB, &[point("m", "late", &[("x", integer(0))], at(95))]).expect("an append");
    let day = |n: i64| Timestamp::from_seconds(n * DAY);
    assert_eq!(store.enforce_retention(Timestamp(day(103).nanos() - 1)).expect("retention"), []);
    let dropped = store.enforce_retention(day(103)).expect("retention");
    assert_eq!(dropped.len(), 1);
    assert_eq!((dropped[0].start, dropped[0].end), (day(95), day(96)));
    assert_eq!(store.measurements(DB), ["m"]);
    assert_eq!((row_count(&store, DB), store.series(DB, "m", &[]).len()), (5, 1));
    assert!(!dir.path().join("data/uni").join((95 * DAY).to_string()).exists(), "the files are gone");
    drop(store);
    let store = Store::open(dir.path(), options.clone(), day(103)).expect("the store opens");
    assert_eq!(row_count(&store, DB), 5, "the log does not bring them back");
    drop(store);
    let store = Store::open(dir.path(), options, day(106)).expect("the store opens");
    assert_eq!(row_count(&store, DB), 2, "a store that was closed meanwhile catches up");
}

#[test]
fn what_retention_dropped_from_the_log_does_not_clash_with_a_new_type() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options { retention: Some(Duration::from_secs(86_400)), ..Options::default() };
    let store = store_with(dir.path(), options);
    let old = point("m", "a", &[("x", FieldValue::Float(0.5))], NOW.nanos());
    store.append(DB, std::slice::from_ref(&old)).expect("an append");
    let later = Timestamp::from_seconds(102 * DAY);
    assert_eq!(store.enforce_retention(later).expect("retention").len(), 1);
    assert_eq!(store.append(DB, &[old]).expect("an append").accepted, 0, "it would be dropped at once");
    let new = point("m", "a", &[("x", integer(1))], later.nanos());
    assert_eq!(store.append(DB, &[new]).expect("an append").accepted, 1);
    let before = contents(&store, DB);
    drop(store);
    let store = store_with(dir.path(), Options::default());
    assert_eq!(contents(&store, DB), before);
    assert_eq!(store.recovery().points_refused, 0);
}

#[test]
fn limits_refuse_what_is_new_and_keep_what_is_known() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store_with(dir.path(), Options { max_series: 2, max_fields: 2, ..Options::default() });
    let points = ["a", "b", "c", "a"].map(|vm| point("m", vm, &[("x", integer(1))], 1));
    let appended = store.append(DB, &points).expect("an append");
    assert_eq!((appended.accepted, appended.rejected[0].index), (3, 2));
    let wide = point("m", "a", &[("x", integer(1)), ("y", integer(1)), ("z", integer(1))], 2);
    let reason = &store.append(DB, &[wide]).expect("an append").rejected[0].reason;
    assert_eq!(reason.to_string(), "field limit of 2 reached on measurement \"m\"");
    assert_eq!(store.stats().series, 2);
}

#[test]
fn databases_have_any_name_that_is_short_and_printable() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(dir.path(), Options::default(), NOW).expect("the store opens");
    for name in ["../../escape", ".", "ümläut / slash", "%2E"] {
        store.create_database(name).expect(name);
        store.create_database(name).expect("again is fine");
        store.append(name, &[point(name, "a", &[("x", integer(1))], 1)]).expect("an append");
    }
    store.flush().expect("a flush");
    for name in ["a\nb", &"x".repeat(81)] {
        assert!(matches!(store.create_database(name), Err(PolicyError::Name { .. })), "{name:?}");
    }
    assert!(matches!(store.create_database(""), Err(PolicyError::NoName)));
    assert!(matches!(store.append("absent", &[]), Err(AppendError::NoDatabase { .. })));
    drop(store);
    let store = Store::open(dir.path(), Options::default(), NOW).expect("the store opens");
    assert_eq!(store.databases(), ["%2E", ".", "../../escape", "ümläut / slash"]);
    assert!(store.databases().iter().all(|name| row_count(&store, name) == 1));
    assert!(!dir.path().parent().expect("a folder").join("escape").exists());
}

#[test]
fn options_out_of_range_are_refused_and_the_partition_length_stays() {
    let dir = tempfile::tempdir().expect("a folder");
    let short = Options { partition_seconds: 1, ..Options::default() };
    assert!(matches!(Store::open(dir.path(), short, NOW), Err(OpenError::Option(_))));
    let hour = Options { partition_seconds: 3600, ..Options::default() };
    drop(store_with(dir.path(), hour));
    let store = store_with(dir.path(), Options::default());
    store.append(DB, &[point("m", "a", &[("x", integer(1))], 3_600_000_000_000)]).expect("an append");
    store.flush().expect("a flush");
    assert!(dir.path().join("data/uni/3600").is_dir(), "the folder keeps the length it was made with");
}

#[test]
fn the_ends_of_time_are_points_like_others() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store_with(dir.path(), Options::default());
    let points = [i64::MAX, i64::MIN, 0].map(|time| point("m", "a", &[("x", integer(time))], time));
    store.append(DB, &points).expect("an append");
    let before = contents(&store, DB);
    store.flush().expect("a flush");
    assert_eq!(contents(&store, DB), before);
    assert_eq!((row_count(&store, DB), store.stats().partitions), (3, 3));
}

#[test]
fn a_scan_ends_when_the_visitor_says_so_and_an_unknown_database_is_an_error() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store_with(dir.path(), Options::default());
    let points: Vec<_> = (0..10).map(|n| point("m", "a", &[("x", integer(n))], n)).collect();
    store.append(DB, &points).expect("an append");
    let id = store.series(DB, "m", &[])[0].id;
    let (from, to) = everything();
    let mut seen = 0;
    let mut visit = |_: Timestamp, _: &[_]| {
        seen += 1;
        if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    store.scan(DB, id, &["x"], from, to, &mut visit).expect("a scan");
    assert_eq!(seen, 3);
    let mut never = |_: Timestamp, _: &[_]| panic!("there is nothing to visit");
    store.scan(DB, id, &["absent"], from, to, &mut never).expect("a scan");
    let strange = SeriesId::from_number(id.number() + 1);
    store.scan(DB, strange, &["x"], from, to, &mut never).expect("a scan");
    store.scan(DB, id, &["x"], to, from, &mut never).expect("a scan");
    assert!(matches!(
        store.scan("absent", id, &["x"], from, to, &mut never),
        Err(ScanError::NoDatabase { .. })
    ));
}

#[test]
fn the_log_is_flushed_by_itself_so_that_the_head_stays_small() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store_with(dir.path(), Options { wal_flush_bytes: 32 << 10, ..Options::default() });
    for n in 0..40_000i64 {
        let fields = [("x", integer(n)), ("y", FieldValue::Float(n as f64 / 7.0))];
        store.append(DB, &[point("m", "a", &fields, n * 1_000_000_000)]).expect("an append");
        assert!(store.stats().wal_bytes < (64 << 10) + 4096, "without any call to maintain");
    }
    while store.merge(NOW, &mut || {}).expect("a merge") {}
    let stats = store.stats();
    assert_eq!(row_count(&store, DB), 40_000);
    assert!(stats.segments <= 8, "many small segments are merged: {stats:?}");
    assert!(stats.segment_bytes < 40_000 * 13, "a row takes less than 13 bytes: {stats:?}");
}

#[test]
fn maintain_flushes_syncs_and_drops_when_due() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options {
        durability: Durability::Interval(Duration::from_secs(5)),
        retention: Some(Duration::from_secs(86_400)),
        wal_flush_bytes: 4096,
        ..Options::default()
    };
    let store = store_with(dir.path(), options);
    let after = |seconds: i64| Timestamp(NOW.nanos() + seconds * 1_000_000_000);
    assert!(store.maintain(NOW).expect("maintenance").synced);
    assert!(!store.maintain(after(4)).expect("maintenance").synced);
    let points: Vec<_> = (0..1000).map(|n| point("m", "a", &[("x", integer(n))], NOW.nanos() + n)).collect();
    store.append_durable(DB, &points).expect("an append");
    let done = store.maintain(after(5)).expect("maintenance");
    assert!(done.synced && done.flushed && done.dropped.is_empty());
    assert_eq!((store.stats().points_in_head, store.stats().segments), (0, 1));
    assert_eq!(store.maintain(after(3 * DAY)).expect("maintenance").dropped.len(), 1);
    assert_eq!((row_count(&store, DB), store.stats().segment_bytes), (0, 0));
}

#[test]
fn readers_beside_writers_see_every_acknowledged_point() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store_with(dir.path(), Options { wal_flush_bytes: 16 << 10, ..Options::default() });
    let (acknowledged, done) = ([const { AtomicI64::new(0) }; 2], AtomicBool::new(false));
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2usize)
            .map(|writer| {
                let (store, acknowledged) = (&store, &acknowledged);
                scope.spawn(move || {
                    for n in 0..3000i64 {
                        let one = point("m", &format!("vm{writer}"), &[("x", integer(n))], n);
                        let durable = n % 500 == 0;
                        let one = [one];
                        let outcome =
                            if durable { store.append_durable(DB, &one) } else { store.append(DB, &one) };
                        outcome.expect("an append");
                        acknowledged[writer].store(n + 1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let maintainer = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                store.maintain(NOW).expect("maintenance");
                std::thread::yield_now();
            }
        });
        let reader = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                for (writer, acknowledged) in acknowledged.iter().enumerate() {
                    check_dense(&store, writer, acknowledged.load(Ordering::SeqCst));
                }
            }
        });
        writers.into_iter().for_each(|writer| writer.join().expect("a writer"));
        done.store(true, Ordering::SeqCst);
        maintainer.join().expect("the maintainer");
        reader.join().expect("the reader");
    });
    assert_eq!(row_count(&store, DB), 6000);
}

/// The series of a writer has at least the rows 0 to `acknowledged`, without a gap.
fn check_dense(store: &Store, writer: usize, acknowledged: i64) {
    let matcher = Matcher::new("vm", Op::Equal, &format!("vm{writer}")).expect("a matcher");
    let mut next = 0;
    for series in store.series(DB, "m", &[matcher]) {
        let (from, to) = everything();
        let mut visit = |time: Timestamp, values: &[Option<FieldValue>]| {
            assert_eq!((time.nanos(), &values[0]), (next, &Some(integer(next))));
            next += 1;
            ControlFlow::Continue(())
        };
        store.scan(DB, series.id, &["x"], from, to, &mut visit).expect("a scan");
    }
    assert!(next >= acknowledged, "{acknowledged} acknowledged before, {next} seen");
}
