//! Bounds: of the disk, of the series of one VM, of tags, and of age.

use crate::common::{DB, contents, integer, point, row_count};
use std::path::Path;
use std::time::Duration;
use uni_store::{
    AppendError, Doomed, DropReason, Options, Point, PolicyError, PolicySpec, RejectReason, RetentionRule,
    Store,
};
use uni_wire::Timestamp;

const DAY: i64 = 86_400;
const SECOND: i64 = 1_000_000_000;
const NOW: Timestamp = Timestamp::from_seconds(100 * DAY);

fn open(dir: &Path, options: Options) -> Store {
    let store = Store::open(dir, options, NOW).expect("the store opens");
    store.create_database(DB).expect("a database");
    store
}

/// Some rows of a day, of many values that do not pack well.
fn fill(store: &Store, database: &str, day: i64) {
    let rows: Vec<Point> = (0..400i64)
        .map(|n| {
            let mixed = n.unsigned_abs().wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let value = (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9).cast_signed() ^ day;
            point("m", "a", &[("x", integer(value))], (day * DAY + n) * SECOND)
        })
        .collect();
    store.append(database, &rows).expect("an append");
    store.flush().expect("a flush");
}

#[test]
fn the_oldest_days_go_first_until_the_store_is_small_enough() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path(), Options::default());
    store.create_database("other").expect("a database");
    for day in [90, 95, 100] {
        fill(&store, DB, day);
        fill(&store, "other", day - 1);
    }
    let one = store.stats().segment_bytes / 6;
    drop(store);
    let max = one * 4 + one / 2;
    let store = open(dir.path(), Options { max_disk_bytes: Some(max), ..Options::default() });
    // It is small enough from the start.
    assert_eq!(store.stats().disk_partitions_total, 2);
    assert!(store.stats().segment_bytes + store.stats().wal_bytes <= max);
    assert_eq!((row_count(&store, DB), row_count(&store, "other")), (800, 800), "days 89 and 90 are gone");
    fill(&store, DB, 97);
    let done = store.maintain(NOW).expect("maintenance");
    let [dropped] = &done.dropped[..] else { panic!("{:?}", done.dropped) };
    assert_eq!(
        (&*dropped.database, &*dropped.policy, dropped.reason),
        ("other", "autogen", DropReason::Disk)
    );
    assert_eq!(dropped.start, Timestamp::from_seconds(94 * DAY));
    assert!(dropped.bytes > one / 2);
}

#[test]
fn where_today_alone_is_too_much_points_are_refused_until_tomorrow() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path(), Options { max_disk_bytes: Some(2000), ..Options::default() });
    fill(&store, DB, 100);
    assert_eq!(store.maintain(NOW).expect("maintenance").dropped, []);
    let refused = store.append(DB, &[point("m", "a", &[("x", integer(1))], NOW.nanos())]);
    assert!(matches!(refused, Err(AppendError::DiskLimit { max: 2000, .. })), "{refused:?}");
    assert_eq!((store.stats().refused_batches_total, row_count(&store, DB)), (1, 400));
    let tomorrow = Timestamp::from_seconds(101 * DAY);
    assert_eq!(store.maintain(tomorrow).expect("maintenance").dropped.len(), 1);
    store.append(DB, &[point("m", "a", &[("x", integer(1))], tomorrow.nanos())]).expect("there is room");
    assert_eq!(row_count(&store, DB), 1);
}

#[test]
fn one_vm_cannot_use_up_the_series_of_all() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path(), Options { max_series_per_vm: 3, ..Options::default() });
    let many: Vec<Point> =
        (0..5).map(|n| point(&format!("m{n}"), "greedy", &[("x", integer(1))], n)).collect();
    let appended = store.append(DB, &many).expect("an append");
    assert_eq!((appended.accepted, appended.rejected.len()), (3, 2));
    let reason = &appended.rejected[0].reason;
    assert_eq!(*reason, RejectReason::VmSeriesLimit { vm: "greedy".into(), max: 3 });
    assert!(reason.to_string().contains("\"greedy\""));
    let known = point("m0", "greedy", &[("y", integer(1))], 9);
    let other = point("m9", "modest", &[("x", integer(1))], 9);
    assert_eq!(store.append(DB, &[known, other]).expect("an append").accepted, 2);
    let doomed = Doomed { space: DB.into(), measurement: "m1".into(), series: None };
    store.delete(Timestamp(i64::MIN), Timestamp(i64::MAX), &[doomed]).expect("a deletion");
    assert_eq!(store.append(DB, &many[4..]).expect("an append").accepted, 1, "there is room again");
}

#[test]
fn a_point_has_so_many_tags_at_most() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path(), Options::default());
    let mut wide = point("m", "a", &[("x", integer(1))], 1);
    wide.tags = (0..257).map(|n| (format!("k{n:03}").into(), "v".into())).collect();
    let appended = store.append(DB, &[wide]).expect("an append");
    assert_eq!(appended.rejected[0].reason, RejectReason::TooManyTags { count: 257, max: 256 });
}

#[test]
fn points_are_kept_as_long_as_policy_database_and_measurement_say() {
    let dir = tempfile::tempdir().expect("a folder");
    let days = |n: u64| Duration::from_secs(n * 86_400);
    let rule = |measurement: Option<&str>, n| RetentionRule {
        database: DB.into(),
        measurement: measurement.map(str::to_owned),
        age: days(n),
    };
    let rules = vec![rule(None, 20), rule(Some("http"), 5)];
    let options = Options { retention: Some(days(50)), retention_rules: rules, ..Options::default() };
    let store = open(dir.path(), options.clone());
    store.create_database("other").expect("a database");
    let own = PolicySpec { duration: Some(days(3)), ..PolicySpec::default() };
    store.create_policy(DB, "short", &own, false).expect("a policy");
    let short = store.space(DB, Some("short")).expect("a policy");
    let shown = |db: &str| -> Vec<u64> {
        let all = store.policies(db).expect("a database");
        all.into_iter().map(|info| info.policy.duration.as_secs() / 86_400).collect()
    };
    assert_eq!((shown(DB), shown("other")), (vec![20, 3], vec![50]));
    let at = |measurement: &str, age: i64| {
        point(measurement, "a", &[("x", integer(1))], NOW.nanos() - age * DAY * SECOND)
    };
    let taken = |space: &str, points: &[Point]| {
        let appended = store.append(space, points).expect("an append");
        let old = |rejected: &uni_store::Rejected| rejected.reason == RejectReason::BeyondRetention;
        assert!(appended.rejected.iter().all(old));
        appended.accepted
    };
    assert_eq!(taken(DB, &[at("m", 19), at("m", 21), at("http", 4), at("http", 6)]), 2);
    assert_eq!(taken("other", &[at("http", 49), at("m", 51)]), 1);
    assert_eq!(taken(&short, &[at("m", 2), at("m", 4)]), 1);
    let later = Timestamp(NOW.nanos() + 3 * DAY * SECOND);
    store.maintain(later).expect("maintenance");
    let left = |space: &str| contents(&store, space).into_keys().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!((left(DB), left("other"), left(&short)), (vec![], vec![], vec![]));
    drop(store);
    assert_eq!(row_count(&open(dir.path(), options), DB), 0);
}

#[test]
fn policies_are_refused_in_influxdbs_words() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path(), Options::default());
    let hours =
        |n: u64| PolicySpec { duration: Some(Duration::from_secs(n * 3600)), ..PolicySpec::default() };
    let long_shard = PolicySpec { shard_duration: Some(Duration::from_secs(1_000_000)), ..hours(5) };
    let minute = PolicySpec { duration: Some(Duration::from_secs(60)), ..PolicySpec::default() };
    store.create_policy(DB, "p", &hours(24), false).expect("a policy");
    store.create_policy(DB, "p", &hours(24), false).expect("the same once more");
    let said = |result: Result<(), PolicyError>| result.expect_err("refused").to_string();
    assert_eq!(said(store.create_policy(DB, "p", &hours(25), false)), "retention policy already exists");
    assert_eq!(said(store.create_policy("no", "p", &hours(25), false)), "database not found: no");
    assert_eq!(said(store.alter_policy(DB, "q", &hours(25), false)), "retention policy not found: q");
    assert_eq!(
        said(store.create_policy(DB, "q", &minute, false)),
        "retention policy duration must be at least 1h0m0s"
    );
    let wide = "retention policy duration must be greater than the shard duration";
    assert_eq!(said(store.create_policy(DB, "q", &long_shard, false)), wide);
    assert_eq!(
        said(store.create_database_with(DB, None, &hours(7))),
        "retention policy conflicts with an existing policy"
    );
    store.drop_policy(DB, "autogen").expect("a drop");
    assert_eq!(said(store.space(DB, None).map(drop)), "retention policy not found: autogen");
    drop(store);
    let store = open(dir.path(), Options::default());
    assert_eq!(store.policies(DB).expect("a database").len(), 1, "what is dropped stays so");
}
