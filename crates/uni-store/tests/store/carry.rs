//! What is carried out of a store and back: snapshots, checks, pages of an export, stores that are only looked at.

use crate::common::{DB, contents, integer, point, row_count};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use uni_store::{ExportSelection, FileReport, LineOptions, Options, Point, Snapshot, Store};
use uni_wire::line::{Mode, Precision};
use uni_wire::{FieldValue, Timestamp};

const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

fn open(dir: &Path) -> Store {
    let store = Store::open(dir, Options::default(), NOW).expect("a store");
    store.create_database(DB).expect("a database");
    store
}

/// Copies a snapshot into an empty folder, piece by piece.
fn copy(snapshot: &Snapshot, to: &Path) {
    std::fs::create_dir_all(to.join("data")).expect("a folder");
    for (n, file) in snapshot.files().iter().enumerate() {
        assert!(uni_store::is_inside(&file.path), "{}", file.path);
        let mut bytes = Vec::new();
        loop {
            let piece = snapshot.read(n, bytes.len() as u64, 1000).expect("a piece");
            if piece.is_empty() {
                break;
            }
            bytes.extend(piece);
        }
        assert_eq!(bytes.len() as u64, file.bytes);
        let path = to.join(&file.path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, bytes).expect("a copy");
    }
}

fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("a folder").flatten() {
        match entry.file_type().expect("a type").is_dir() {
            true => found.extend(tree(&entry.path())),
            false => drop(found.insert(entry.path(), std::fs::read(entry.path()).expect("a file"))),
        }
    }
    found
}

fn import(store: &Store, lines: &str) {
    let options = LineOptions {
        mode: Mode::Strict,
        precision: Precision::Nanoseconds,
        now: NOW,
        tag: None,
        max_line_bytes: None,
        watched: None,
    };
    let taken = store.append_lines(DB, lines.as_bytes(), &options, &mut |_| {}).expect("written");
    assert_eq!((taken.refused, taken.bad), (0, 0), "{lines}");
}

/// All pages of an export, and how many they are.
fn export(store: &Store, by_field: bool, max_bytes: usize) -> (String, usize) {
    let selection = ExportSelection { database: DB.to_owned(), by_field, ..ExportSelection::default() };
    let (mut all, mut cursor, mut pages) = (String::new(), None, 0);
    loop {
        let page = store.export(&selection, cursor.as_ref(), max_bytes).expect("a page");
        assert_eq!(page.damaged, Vec::<String>::new());
        all.push_str(&page.lines);
        pages += 1;
        cursor = page.next;
        if cursor.is_none() {
            return (all, pages);
        }
    }
}

fn value() -> impl Strategy<Value = (u8, FieldValue)> {
    prop_oneof![
        any::<f64>().prop_filter("finite", |v| v.is_finite()).prop_map(|v| (0, FieldValue::Float(v))),
        any::<i64>().prop_map(|v| (1, FieldValue::Integer(v))),
        any::<u64>().prop_map(|v| (2, FieldValue::Unsigned(v))),
        any::<bool>().prop_map(|v| (3, FieldValue::Boolean(v))),
        "[ -~\\n\u{e9}]{0,12}".prop_map(|v| (4, FieldValue::String(v.into()))),
    ]
}

/// A point whose fields are named after their types, so that types never clash.
fn any_point() -> impl Strategy<Value = Point> {
    let name = "[a-z ,=\u{e9}\"]{1,4}[a-z]";
    let tags = proptest::collection::btree_map(name, name, 0..3);
    let fields = proptest::collection::vec((0..2_u8, value()), 1..4);
    ("[a-c]", tags, fields, prop_oneof![any::<i64>(), 0..50_i64]).prop_map(
        |(measurement, tags, fields, time)| Point {
            measurement: measurement.into(),
            tags: tags
                .into_iter()
                .filter(|(key, _)| key != "time")
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
            fields: fields
                .into_iter()
                .map(|(n, (kind, value))| (format!("f{kind} {n}").into(), value))
                .collect(),
            time: Timestamp(time),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn an_export_in_pages_of_any_size_comes_back_as_it_was(
        points in proptest::collection::vec(any_point(), 0..60),
        max_bytes in 1..400_usize,
        flush: bool,
    ) {
        let (from, to, fields) =
            (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let store = open(from.path());
        prop_assert_eq!(store.append(DB, &points).expect("written").rejected.len(), 0);
        if flush {
            store.flush().expect("packed");
        }
        let (whole, pages) = export(&store, false, usize::MAX);
        prop_assert_eq!(pages, 1);
        prop_assert_eq!(&export(&store, false, max_bytes).0, &whole, "pages of {}", max_bytes);
        let back = open(to.path());
        import(&back, &whole);
        prop_assert_eq!(contents(&back, DB), contents(&store, DB));
        let back = open(fields.path());
        import(&back, &export(&store, true, max_bytes).0);
        prop_assert_eq!(contents(&back, DB), contents(&store, DB));
    }
}

/// Three days, two VMs, a head over segments.
fn filled(dir: &Path) -> Store {
    let store = open(dir);
    for day in 0..3 {
        let all: Vec<Point> = (0..1500)
            .flat_map(|n| {
                ["a", "b"]
                    .map(|vm| point("m", vm, &[("x", integer(n * n % 977))], day * 86_400_000_000_000 + n))
            })
            .collect();
        store.append(DB, &all).expect("written");
        if day < 2 {
            store.flush().expect("packed");
        }
    }
    store
}

#[test]
fn a_snapshot_has_everything_and_outlives_merges() {
    let (dir, to) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let store = filled(dir.path());
    let was = contents(&store, DB);
    let snapshot = store.snapshot().expect("a snapshot");
    assert!(
        snapshot.files().iter().all(|file| !file.path.starts_with("wal/")),
        "packed: {:?}",
        snapshot.files()
    );
    store.append(DB, &[point("m", "a", &[("x", integer(-1))], 0)]).expect("written");
    store.flush().expect("packed");
    let later = Timestamp::from_seconds(2_000_000_000);
    store.maintain(later).expect("kept up");
    while store.merge(later, &mut || {}).expect("merged") {}
    copy(&snapshot, &to.path().join("copy"));
    drop(snapshot);
    let copied = Store::open(&to.path().join("copy"), Options::default(), NOW).expect("a store");
    assert_eq!(contents(&copied, DB), was);
    assert_eq!(copied.recovery().set_aside, []);
    let now = store.snapshot().expect("a snapshot");
    let there = tree(&dir.path().join("data"));
    let there =
        there.keys().filter(|path| path.extension().is_some_and(|extension| extension == "seg")).count();
    assert_eq!(
        now.files().iter().filter(|file| file.path.ends_with(".seg")).count(),
        there,
        "old files are gone"
    );
}

#[test]
fn a_snapshot_as_it_is_has_the_log_and_that_of_a_folder_is_the_same() {
    let (dir, to) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let store = filled(dir.path());
    let was = contents(&store, DB);
    let snapshot = store.snapshot_as_it_is().expect("a snapshot");
    // the log is packed, and its file removed: the snapshot still has it
    store.flush().expect("packed");
    for n in 0..snapshot.files().len() {
        assert!(!snapshot.check(n).expect("readable").is_damaged());
    }
    copy(&snapshot, &to.path().join("copy"));
    let live = snapshot.files().to_vec();
    drop(snapshot);
    assert!(matches!(Snapshot::of_folder(dir.path()), Err(uni_store::OpenError::InUse { .. })));
    drop(store);
    assert!(live.iter().any(|file| file.path.starts_with("wal/") && file.bytes > 8));
    assert_eq!(
        Snapshot::of_folder(&to.path().join("copy")).expect("a snapshot").folders(),
        ["data", "data/uni", "data/uni/0", "data/uni/86400", "wal"]
    );
    let copied = Store::open(&to.path().join("copy"), Options::default(), NOW).expect("a store");
    assert_eq!(contents(&copied, DB), was);
    assert!(Snapshot::of_folder(&dir.path().join("nowhere")).is_err());
}

#[test]
fn a_store_that_is_looked_at_stays_as_it_is() {
    let dir = tempfile::tempdir().expect("a folder");
    drop(filled(dir.path()));
    // a torn tail and a damaged segment, which opening would cut off and set aside
    let log = tree(&dir.path().join("wal")).into_keys().next().expect("a log");
    let whole = std::fs::read(&log).expect("read");
    std::fs::write(&log, [&whole[..], b"torn"].concat()).expect("written");
    let segment = tree(&dir.path().join("data")).into_keys().next().expect("a segment");
    let bytes = std::fs::read(&segment).expect("read");
    std::fs::write(&segment, &bytes[..bytes.len() - 1]).expect("written");
    let before = tree(dir.path());
    {
        let store = Store::open_read_only(dir.path(), NOW).expect("a store");
        assert_eq!(row_count(&store, DB), 6000, "two of three days");
        assert_eq!(store.recovery().set_aside.len(), 2);
        store.append(DB, &[point("m", "a", &[("x", integer(1))], 5)]).expect("written to memory");
        store.flush().expect("packed into memory");
        assert!(Store::open(dir.path(), Options::default(), NOW).is_err(), "it is locked meanwhile");
    }
    assert_eq!(tree(dir.path()), before);
}

/// The reports on all files of a folder that have something to tell.
fn faults(dir: &Path) -> Vec<(usize, FileReport)> {
    let snapshot = Snapshot::of_folder(dir).expect("a snapshot");
    let reports = (0..snapshot.files().len()).map(|n| (n, snapshot.check(n).expect("readable")));
    reports.filter(|(_, report)| report.is_damaged()).collect()
}

#[test]
fn every_flipped_bit_is_found_in_a_segment() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let all: Vec<Point> = (0..40)
        .map(|n| point("m", "a", &[("x", integer(n * n)), ("s", FieldValue::String("t".into()))], n))
        .collect();
    store.append(DB, &all).expect("written");
    store.flush().expect("packed");
    drop(store);
    assert_eq!(faults(dir.path()), []);
    let segment = tree(&dir.path().join("data")).into_keys().next().expect("a segment");
    let good = std::fs::read(&segment).expect("read");
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&segment, &bytes).expect("written");
        assert_eq!(faults(dir.path()).len(), 1, "byte {at} of {}", good.len());
    }
}

#[test]
fn what_is_isolated_is_kept_and_what_is_readable_stays() {
    let dir = tempfile::tempdir().expect("a folder");
    drop(filled(dir.path()));
    let segment = tree(&dir.path().join("data")).into_keys().next().expect("a segment");
    let mut spoilt = std::fs::read(&segment).expect("read");
    spoilt[100] ^= 1;
    std::fs::write(&segment, &spoilt).expect("written");
    let found = faults(dir.path());
    let [(file, report)] = &found[..] else { panic!("{found:?}") };
    assert_eq!(report.points + report.lost_points(), 3000, "{report:?}");
    assert!((1..=1024).contains(&report.lost_points()), "{report:?}");
    assert_eq!(report.damage[0].series, "m,vm=a");
    let moved = {
        let snapshot = Snapshot::of_folder(dir.path()).expect("a snapshot");
        snapshot.isolate(*file, report).expect("moved")
    };
    assert!(moved.starts_with(dir.path().join("damaged")));
    assert_eq!(std::fs::read(moved).expect("read"), spoilt);
    assert_eq!(faults(dir.path()), []);
    let store = Store::open(dir.path(), Options::default(), NOW).expect("a store");
    assert_eq!(row_count(&store, DB) as u64, 9000 - report.lost_points());
    assert_eq!(store.recovery().set_aside, []);
}

#[test]
fn a_log_says_where_it_is_damaged_and_what_that_costs() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    for n in 0..10 {
        let rows: Vec<Point> =
            (0..7).map(|m| point("m", "a", &[("x", integer(n * 7 + m))], n * 7 + m)).collect();
        store.append(DB, &rows).expect("written");
    }
    drop(store);
    let log = tree(&dir.path().join("wal")).into_keys().next().expect("a log");
    let good = std::fs::read(&log).expect("read");
    let frame = |n: usize| {
        let length = |at: usize| u32::from_le_bytes(good[at..at + 4].try_into().expect("four")) as usize + 8;
        (0..n).fold(8, |at, _| at + length(at))
    };
    for (byte, after) in
        [(frame(4) + 9, 5), (frame(4), 5), (frame(4) + 3, 5), (frame(9) + 9, 0), (frame(0) + 2, 9)]
    {
        let mut bytes = good.clone();
        bytes[byte] ^= 4;
        std::fs::write(&log, &bytes).expect("written");
        let found = faults(dir.path());
        let [(_, report)] = &found[..] else { panic!("byte {byte}: {found:?}") };
        assert_eq!(report.points, 7 * (9 - after), "byte {byte}: {report:?}");
        assert_eq!(report.lost_points(), 7 * after, "byte {byte}: {report:?}");
        assert!(report.damage[0].at_least);
    }
    // cut short is what a kill leaves: no damage, and told
    std::fs::write(&log, &good[..good.len() - 5]).expect("written");
    assert_eq!(faults(dir.path()), []);
    let snapshot = Snapshot::of_folder(dir.path()).expect("a snapshot");
    let torn: u64 =
        (0..snapshot.files().len()).map(|n| snapshot.check(n).expect("readable").torn_bytes).sum();
    assert!(torn > 0);
}

#[test]
fn series_are_counted() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    store.create_database("empty").expect("a database");
    let all: Vec<Point> = (0..6)
        .map(|n| point(["m", "n"][n % 2], &format!("v{}", n / 2), &[("x", integer(1)), ("y", integer(2))], 0))
        .collect();
    store.append(DB, &all).expect("written");
    let counted = store.cardinality(2);
    assert_eq!((counted.series, counted.databases.len()), (6, 2));
    let uni = &counted.databases[1];
    assert_eq!((uni.name.as_str(), uni.series, uni.vms.len(), uni.vms_total), ("uni", 6, 2, 3));
    assert_eq!((uni.vms[0].series, uni.vms[0].columns), (2, 4));
    assert_eq!((uni.tags[0].key.as_str(), uni.tags[0].values, uni.tags[0].series), ("vm", 3, 6));
    assert_eq!((uni.measurements[0].series, uni.measurements[0].columns), (3, 6));
}

#[test]
fn paths_that_lead_out_are_known() {
    for path in ["", "/etc/passwd", "../x", "a/../../b", "."] {
        assert!(!uni_store::is_inside(path), "{path}");
    }
    assert!(uni_store::is_inside("data/uni/0/1.seg"));
}
