//! Tiers from outside: what they are made of, when they are made again, what is left when rows are gone.

use crate::common::{DB, integer, point};
use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uni_store::{Grid, Options, Store, Summed, TierRetention};
use uni_wire::{FieldValue, Timestamp};

const SECOND: i64 = 1_000_000_000;
const HOUR: Option<Grid> = Some(Grid { every: 3600 * SECOND, offset: 0 });
/// Two days after the points: the day is over.
const LATER: Timestamp = Timestamp::from_seconds(3 * 86_400);

/// Minutes too, though a minute has few rows.
fn both() -> Options {
    Options { minute_tier: TierRetention::Forever, ..Options::default() }
}

fn open(dir: &Path, options: Options, now: Timestamp) -> Store {
    let store = Store::open(dir, options, now).expect("the store opens");
    assert_eq!(store.recovery().set_aside, []);
    store.create_database(DB).expect("a database");
    store
}

/// A point every ten seconds of the first `hours` hours of a day.
fn fill(store: &Store, hours: i64) {
    let points: Vec<_> = (0..hours * 360)
        .map(|n| {
            let fields = [("x", integer(n * n % 1000)), ("y", FieldValue::Float(n as f64 / 8.0))];
            point("m", "web", &fields, n * 10 * SECOND)
        })
        .collect();
    assert_eq!(store.append(DB, &points).expect("an append").accepted, points.len());
}

fn settle(store: &Store, now: Timestamp) {
    store.flush().expect("a flush");
    while store.merge(now, &mut || {}).expect("a merge") {}
}

/// What reading the first series by the grid met: rows, windows, and the values that they stand for.
fn read(store: &Store, grid: Option<Grid>, (from, to): (i64, i64)) -> (usize, usize, u64) {
    let series = store.series(DB, "m", &[]);
    let (mut rows, mut windows, mut values) = (0, 0, 0);
    let range = (Timestamp(from), Timestamp(to));
    let mut visit = |item: Summed<'_>| {
        match item {
            Summed::Row(..) => (rows, values) = (rows + 1, values + 1),
            Summed::Window(window) => {
                let field = window.fields[0].as_ref().expect("a field");
                (windows, values) = (windows + 1, values + field.count);
            }
        }
        ControlFlow::Continue(true)
    };
    store.scan_summed(DB, series[0].id, &["x"], range, grid, &mut visit).expect("a scan");
    (rows, windows, values)
}

fn files(dir: &Path) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(dir.join("data/uni/0"))
        .map(|entries| entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    found.sort();
    found
}

const DAY: (i64, i64) = (0, 86_400 * SECOND - 1);

#[test]
fn whole_days_are_read_by_windows_and_their_edges_by_finer_ones() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path(), both(), LATER);
    fill(&store, 24);
    assert_eq!(read(&store, HOUR, DAY), (8640, 0, 8640), "nothing is packed yet");
    settle(&store, LATER);
    assert_eq!(read(&store, HOUR, DAY), (0, 24, 8640));
    assert_eq!(read(&store, None, DAY), (0, 24, 8640));
    let minutes = Some(Grid { every: 300 * SECOND, offset: 60 * SECOND });
    assert_eq!(read(&store, minutes, DAY), (0, 1440, 8640));
    let odd = Some(Grid { every: 90 * SECOND, offset: 0 });
    assert_eq!(read(&store, odd, DAY), (8640, 0, 8640));
    // From 0:58:30 to 3:01:20: three rows, a minute, two hours, a minute, and three rows more.
    let edges = (3510 * SECOND, (3 * 3600 + 80) * SECOND);
    assert_eq!(read(&store, HOUR, edges), (6, 4, 3 + 6 + 720 + 6 + 3));
    assert!(store.stats().tier_bytes > 0);
}

#[test]
fn a_late_row_is_read_as_a_row_until_its_day_is_summed_up_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path(), both(), LATER);
    fill(&store, 24);
    settle(&store, LATER);
    let before = files(dir.path());
    store.append(DB, &[point("m", "web", &[("x", integer(7))], 5 * SECOND)]).expect("an append");
    // Only the minute of the late row is read row by row.
    assert_eq!(read(&store, HOUR, DAY), (7, 59 + 23, 8641));
    store.flush().expect("a flush");
    assert_eq!(read(&store, HOUR, DAY), (8641, 0, 8641), "the tier does not know of the new segment");
    settle(&store, LATER);
    assert_eq!(read(&store, HOUR, DAY), (0, 24, 8641));
    let after = files(dir.path());
    assert_eq!((before.len(), after.len()), (3, 3), "{before:?} {after:?}");
    assert!(before.iter().all(|name| !after.contains(name)));
}

#[test]
fn a_damaged_tier_is_made_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path(), both(), LATER);
    fill(&store, 24);
    settle(&store, LATER);
    drop(store);
    let tier = |extension: &str| -> PathBuf {
        let name = files(dir.path()).into_iter().find(|name| name.ends_with(extension)).expect("a tier");
        dir.path().join("data/uni/0").join(name)
    };
    let hour = tier(".1h");
    let good = fs::read(&hour).expect("a tier");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x11;
        fs::write(&hour, &bad).expect("a damaged tier");
        let Ok(store) = Store::open(dir.path(), both(), LATER) else {
            assert_eq!(at, 7, "only the version byte may stop a store from opening");
            continue;
        };
        let (_, _, values) = read(&store, HOUR, DAY);
        assert_eq!(values, 8640, "a byte of a tier that is wrong never shows, at {at}");
        if !store.recovery().set_aside.is_empty() {
            settle(&store, LATER);
            assert_eq!(read(&store, HOUR, DAY), (0, 24, 8640));
            break;
        }
    }
}

#[test]
fn tiers_go_with_their_rows_or_stay_as_long_as_the_operator_says() {
    let day = |n: i64| Timestamp::from_seconds(n * 86_400);
    let retention = |days: u64| Some(Duration::from_secs(days * 86_400));
    for (minute, hour) in [
        (TierRetention::WithRows, TierRetention::WithRows),
        (TierRetention::For(Duration::from_secs(10 * 86_400)), TierRetention::Forever),
    ] {
        let dir = tempfile::tempdir().expect("a folder");
        let options =
            Options { retention: retention(5), minute_tier: minute, hour_tier: hour, ..Options::default() };
        let store = open(dir.path(), options.clone(), day(2));
        fill(&store, 24);
        settle(&store, day(2));
        assert_eq!(store.enforce_retention(day(6)).expect("retention").len(), 1);
        if hour == TierRetention::WithRows {
            assert!(store.measurements(DB).is_empty());
            settle(&store, day(6));
            assert_eq!((store.stats().tier_bytes, files(dir.path())), (0, vec![]));
            continue;
        }
        assert_eq!(store.measurements(DB), ["m"]);
        assert_eq!(store.fields(DB, "m").len(), 2);
        assert_eq!(read(&store, HOUR, DAY), (0, 24, 8640));
        settle(&store, day(6));
        assert_eq!(files(dir.path()), ["0000000000000002.1h-kept", "0000000000000002.1m-kept"]);
        // A grid that is finer gets the minutes, where they begin.
        let odd = Some(Grid { every: 90 * SECOND, offset: 0 });
        assert_eq!(read(&store, odd, (30 * SECOND, 179 * SECOND)), (0, 2, 12));
        let copy = dir.path().join("copy");
        store.backup(&copy).expect("a backup");
        drop(store);
        let store = open(&copy, options.clone(), day(6));
        assert_eq!(read(&store, HOUR, DAY), (0, 24, 8640), "they are part of a backup");
        let store = open(dir.path(), options.clone(), day(6));
        assert_eq!(read(&store, HOUR, DAY), (0, 24, 8640));
        settle(&store, day(12));
        assert_eq!(files(dir.path()), ["0000000000000002.1h-kept"]);
        assert_eq!(read(&store, odd, DAY), (0, 24, 8640), "hours, where there is nothing finer");
        drop(store);
        let store = open(dir.path(), options, day(1000));
        assert_eq!(read(&store, HOUR, DAY), (0, 24, 8640));
    }
}

/// Folders with tiers that earlier versions wrote.
#[test]
fn tiers_of_every_version_are_read() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiers-v2");
    if std::env::var_os("UNI_STORE_NEW_FIXTURE").is_some() {
        let store = open(&fixture, both(), LATER);
        fill(&store, 3);
        settle(&store, LATER);
    }
    let dir = tempfile::tempdir().expect("a folder");
    copy(&fixture, dir.path());
    let store = open(dir.path(), both(), LATER);
    assert_eq!(read(&store, HOUR, DAY), (0, 3, 3 * 360));
    let series = store.series(DB, "m", &[])[0].id;
    let mut sums = BTreeMap::new();
    let range = (Timestamp(DAY.0), Timestamp(DAY.1));
    let mut visit = |item: Summed<'_>| {
        if let Summed::Window(window) = item {
            let field = window.fields[0].clone().expect("a field");
            sums.insert(
                window.start.nanos() / (3600 * SECOND),
                (field.min, field.max, field.first.1, field.last),
            );
        }
        ControlFlow::Continue(true)
    };
    store.scan_summed(DB, series, &["y"], range, HOUR, &mut visit).expect("a scan");
    let float = FieldValue::Float;
    let last = (Timestamp(7190 * SECOND), float(719.0 / 8.0));
    assert_eq!(sums[&1], (float(45.0), float(719.0 / 8.0), float(45.0), last));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a fixture").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

#[test]
fn minutes_are_summed_up_where_that_is_small_beside_the_rows() {
    for (step_ms, expected) in [(10_000, vec!["1h"]), (1000, vec!["1h", "1m"])] {
        let dir = tempfile::tempdir().expect("a folder");
        let store = open(dir.path(), Options::default(), LATER);
        let points: Vec<_> =
            (0..7200).map(|n| point("m", "a", &[("x", integer(n))], n * step_ms * 1_000_000)).collect();
        store.append(DB, &points).expect("an append");
        settle(&store, LATER);
        let mut made = files(dir.path());
        made.retain(|name| !name.ends_with("seg"));
        let ends: Vec<&str> = made.iter().filter_map(|name| name.split('.').next_back()).collect();
        assert_eq!(ends, expected);
    }
}
