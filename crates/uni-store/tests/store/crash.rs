//! What is left after a crash: logs cut at every byte, flipped bits, `kill -9`, two processes.

use crate::common::{DB, contents, integer, point, row_count};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use uni_store::{Doomed, OpenError, Options, PolicySpec, Store};
use uni_wire::Timestamp;

const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

fn open(dir: &Path) -> Store {
    Store::open(dir, Options::default(), NOW).expect("the store opens")
}

fn files_in(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            found.extend(files_in(&entry, extension));
        } else if entry.extension().is_some_and(|e| e == extension) {
            found.push(entry);
        }
    }
    found.sort();
    found
}

/// A store with `count` appends of one point; the length of its log after each, beginning with none.
fn logged(dir: &Path, count: i64) -> (PathBuf, Vec<u64>) {
    let store = open(dir);
    store.create_database(DB).expect("a database");
    let log = files_in(dir, "wal").pop().expect("a log");
    let length = || fs::metadata(&log).expect("a log").len();
    let mut lengths = vec![length()];
    for n in 0..count {
        let fields = [("x", integer(n)), ("text", uni_wire::FieldValue::String("some".into()))];
        store.append(DB, &[point("m", &format!("vm{}", n % 3), &fields, n)]).expect("an append");
        lengths.push(length());
    }
    (log, lengths)
}

#[test]
fn a_damaged_note_is_set_aside_and_reported_and_never_a_panic() {
    let origin = tempfile::tempdir().expect("a folder");
    let store = open(origin.path());
    store.create_database(DB).expect("a database");
    store.create_policy(DB, "week", &PolicySpec::default(), false).expect("a policy");
    let week = store.space(DB, Some("week")).expect("a policy");
    for space in [DB, &week] {
        store
            .append(
                space,
                &[point("m", "a", &[("x", integer(1))], 1), point("m", "a", &[("x", integer(2))], 2)],
            )
            .expect("an append");
    }
    store.flush().expect("a flush");
    let doomed = Doomed { space: DB.into(), measurement: "m".into(), series: None };
    store.delete(Timestamp(2), Timestamp(2), &[doomed]).expect("a deletion");
    drop(store);
    let note = files_in(origin.path(), "del").pop().expect("a note");
    let databases = origin.path().join("databases");
    for (path, rows) in [(&note, 2), (&databases, 1)] {
        let whole = fs::read(path).expect("a note");
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x04;
            fs::write(path, &bytes).expect("a damaged note");
            // Of what was to be kept how long nothing is known any more: nothing may go.
            let retention = (path == &databases).then(|| std::time::Duration::from_secs(86_400));
            match Store::open(origin.path(), Options { retention, ..Options::default() }, NOW) {
                Ok(store) => {
                    assert_eq!(store.recovery().set_aside.len(), 1, "byte {at}");
                    assert_eq!((row_count(&store, DB), row_count(&store, &week)), (rows, 2), "byte {at}");
                }
                // The byte of the version.
                Err(OpenError::NewerFormat { .. }) => {}
                Err(other) => panic!("byte {at}: {other}"),
            }
            fs::write(path, &whole).expect("a whole note");
        }
        let store = open(origin.path());
        assert_eq!((row_count(&store, DB), row_count(&store, &week)), (1, 2));
    }
}

#[test]
fn a_log_cut_at_any_byte_gives_back_the_acknowledged_prefix() {
    let origin = tempfile::tempdir().expect("a folder");
    let (log, lengths) = logged(origin.path(), 7);
    let bytes = fs::read(&log).expect("a log");
    for cut in 0..=bytes.len() {
        let dir = tempfile::tempdir().expect("a folder");
        drop(logged(dir.path(), 0));
        let log = files_in(dir.path(), "wal").pop().expect("a log");
        fs::write(&log, &bytes[..cut]).expect("a shorter log");
        let store = open(dir.path());
        let whole = lengths.iter().rposition(|length| *length <= cut as u64).unwrap_or(0);
        assert_eq!(row_count(&store, DB), whole, "cut at {cut}");
        assert_eq!(store.recovery().points_replayed, whole as u64);
        let kept = if cut < 8 { 0 } else { lengths[whole] };
        assert_eq!(store.recovery().torn_bytes, cut as u64 - kept);
        store.append(DB, &[point("m", "after", &[("x", integer(1))], 1)]).expect("an append");
        drop(store);
        assert_eq!(row_count(&open(dir.path()), DB), whole + 1, "after the cut at {cut}");
    }
}

#[test]
fn a_flipped_byte_in_the_log_costs_the_tail_which_is_kept_aside() {
    let origin = tempfile::tempdir().expect("a folder");
    let (log, lengths) = logged(origin.path(), 5);
    let bytes = fs::read(&log).expect("a log");
    for position in 8..bytes.len() {
        let dir = tempfile::tempdir().expect("a folder");
        drop(logged(dir.path(), 0));
        let log = files_in(dir.path(), "wal").pop().expect("a log");
        let mut bad = bytes.clone();
        bad[position] ^= 0x55;
        fs::write(&log, &bad).expect("a damaged log");
        let store = open(dir.path());
        let whole =
            lengths.iter().rposition(|length| *length <= position as u64).expect("the header is whole");
        assert_eq!(row_count(&store, DB), whole, "flipped at {position}");
        let aside = &store.recovery().set_aside;
        assert_eq!(aside.len(), 1);
        let tail = fs::read(&aside[0].path).expect("the tail");
        assert_eq!(tail, bad[lengths[whole] as usize..]);
    }
}

#[test]
fn zeros_after_the_last_frame_are_cut_and_not_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    let (log, _) = logged(dir.path(), 3);
    let mut bytes = fs::read(&log).expect("a log");
    bytes.extend([0; 4096]);
    fs::write(&log, bytes).expect("a longer log");
    let store = open(dir.path());
    assert_eq!((row_count(&store, DB), store.recovery().torn_bytes), (3, 4096));
    assert_eq!(store.recovery().set_aside, []);
}

#[test]
fn a_file_that_is_no_log_is_set_aside_and_one_of_the_future_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    drop(logged(dir.path(), 2));
    let strange = dir.path().join("wal/00000000000000ff.wal");
    fs::write(&strange, b"what is this?").expect("a file");
    let store = open(dir.path());
    assert_eq!((row_count(&store, DB), store.recovery().set_aside.len()), (2, 1));
    assert!(!strange.exists() && store.recovery().set_aside[0].path.exists());
    drop(store);
    fs::write(&strange, b"UNIWAL\0\x03").expect("a file");
    let error = Store::open(dir.path(), Options::default(), NOW).expect_err("a newer format");
    assert!(matches!(error, OpenError::NewerFormat { found: 3, known: 2, .. }));
    assert!(strange.exists(), "a newer program still needs it");
}

#[test]
fn a_segment_with_any_flipped_byte_is_noticed_and_never_a_panic() {
    let origin = tempfile::tempdir().expect("a folder");
    let store = open(origin.path());
    store.create_database(DB).expect("a database");
    let points: Vec<_> = (0..20).map(|n| point("m", "vm", &[("x", integer(n * n))], n * 1000)).collect();
    store.append(DB, &points).expect("an append");
    store.flush().expect("a flush");
    drop(store);
    let segment = files_in(origin.path(), "seg").pop().expect("a segment");
    let good = fs::read(&segment).expect("a segment");
    for position in 0..good.len() {
        let mut bad = good.clone();
        bad[position] ^= 0x10;
        fs::write(&segment, &bad).expect("a damaged segment");
        let Ok(store) = Store::open(origin.path(), Options::default(), NOW) else {
            assert_eq!(position, 7, "only the version byte may stop a store from opening");
            continue;
        };
        if store.recovery().set_aside.is_empty() {
            let series = store.series(DB, "m", &[]);
            let (from, to) = (Timestamp(i64::MIN), Timestamp(i64::MAX));
            let mut visit = |_: Timestamp, _: &[_]| std::ops::ControlFlow::Continue(());
            let error = store.scan(DB, series[0].id, &["x"], from, to, &mut visit).expect_err("damage");
            assert!(error.to_string().contains("is damaged at byte 8"), "{error}");
            assert_eq!(store.stats().damaged_reads_total, 1);
        } else {
            assert_eq!(row_count(&store, DB), 0);
        }
    }
}

#[test]
fn one_folder_belongs_to_one_store() {
    let dir = tempfile::tempdir().expect("a folder");
    let first = open(dir.path());
    let error = Store::open(dir.path(), Options::default(), NOW).expect_err("a second one");
    assert!(matches!(error, OpenError::InUse { .. }));
    assert!(error.to_string().contains("in use by another process"));
    drop(first);
    open(dir.path());
}

#[test]
fn what_a_flush_cut_short_left_behind_is_cleaned_up() {
    let dir = tempfile::tempdir().expect("a folder");
    let (log, _) = logged(dir.path(), 5);
    let copy = fs::read(&log).expect("a log");
    let store = open(dir.path());
    store.flush().expect("a flush");
    let before = contents(&store, DB);
    drop(store);
    // As if the process had died after the segment got its name and before the log was removed.
    fs::write(&log, copy).expect("the log");
    let segment = files_in(dir.path(), "seg").pop().expect("a segment");
    let half = PathBuf::from(format!("{}.tmp", segment.display()));
    fs::write(&half, b"half").expect("a half segment");
    let store = open(dir.path());
    assert!(!half.exists());
    assert_eq!(contents(&store, DB), before);
}

#[test]
fn a_damaged_segment_is_never_merged_away_and_the_rest_stays_readable() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    store.create_database(DB).expect("a database");
    let flush = |store: &Store, n: i64| {
        store.append(DB, &[point("m", "vm", &[("x", integer(n))], n)]).expect("an append");
        store.flush().expect("a flush");
    };
    flush(&store, 0);
    let damaged = files_in(dir.path(), "seg").pop().expect("a segment");
    let mut bytes = fs::read(&damaged).expect("a segment");
    bytes[10] ^= 1;
    fs::write(&damaged, bytes).expect("a damaged segment");
    (1..12).for_each(|n| flush(&store, n));
    assert!(damaged.exists());
    let id = store.series(DB, "m", &[])[0].id;
    let mut seen = 0;
    let mut visit = |_: Timestamp, _: &[_]| {
        seen += 1;
        std::ops::ControlFlow::Continue(())
    };
    let error = store.scan(DB, id, &["x"], Timestamp(0), Timestamp(100), &mut visit).expect_err("damage");
    assert!(error.to_string().contains("rows from there are missing"));
    assert_eq!(seen, 11);
}

#[test]
fn a_flush_that_fails_hides_nothing_and_is_tried_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    store.create_database(DB).expect("a database");
    store.append(DB, &[point("m", "vm", &[("x", integer(1))], 1)]).expect("an append");
    let in_the_way = dir.path().join("data/uni/0");
    fs::write(&in_the_way, b"").expect("a file where a folder should be");
    let error = store.flush().expect_err("no place for the segment");
    assert!(error.to_string().contains("data/uni/0"), "{error}");
    store.append(DB, &[point("m", "vm", &[("x", integer(2))], 2)]).expect("an append");
    store.append(DB, &[point("m", "vm", &[("x", integer(3))], 1)]).expect("an append");
    let before = contents(&store, DB);
    assert_eq!(before[&("m".to_owned(), "vm=vm".to_owned())][&1]["x"], integer(3), "the later write wins");
    assert!(store.flush().is_err());
    assert_eq!((contents(&store, DB), store.stats().points_in_head), (before.clone(), 3));
    drop(store);
    let store = open(dir.path());
    assert_eq!(contents(&store, DB), before);
    assert!(store.flush().is_err());
    fs::remove_file(&in_the_way).expect("out of the way");
    store.flush().expect("a flush");
    assert_eq!((contents(&store, DB), store.stats().points_in_head), (before, 0));
}

/// Set in the child: the folder it appends to.
const CHILD: &str = "UNI_STORE_TEST_CHILD_DIR";

/// Appends for ever, and says after each append how many points are acknowledged.
fn append_until_killed(dir: &Path) {
    let options = Options { wal_flush_bytes: 16 << 10, ..Options::default() };
    let store = Store::open(dir, options, NOW).expect("the store opens");
    store.create_database(DB).expect("a database");
    for n in 0.. {
        store.append(DB, &[point("m", "vm", &[("x", integer(n))], n)]).expect("an append");
        println!("acknowledged {}", n + 1);
        if n % 100 == 99 {
            store.maintain(NOW).expect("maintenance");
        }
    }
}

#[test]
fn after_kill_9_every_acknowledged_point_is_there() {
    if let Some(dir) = std::env::var_os(CHILD) {
        append_until_killed(Path::new(&dir));
    }
    for enough in [1, 700, 3000] {
        let dir = tempfile::tempdir().expect("a folder");
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "crash::after_kill_9_every_acknowledged_point_is_there", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let mut acknowledged = 0;
        let mut killed = false;
        for line in BufReader::new(child.stdout.take().expect("its output")).lines() {
            let line = line.expect("text");
            if let Some((_, count)) = line.rsplit_once("acknowledged ") {
                acknowledged = count.parse().unwrap_or(acknowledged);
            }
            if acknowledged >= enough && !killed {
                child.kill().expect("SIGKILL");
                killed = true;
            }
        }
        child.wait().expect("its end");
        let store = open(dir.path());
        let rows = i64::try_from(row_count(&store, DB)).expect("a small number");
        assert!(acknowledged >= enough);
        assert!(
            (acknowledged..=acknowledged + 1).contains(&rows),
            "{acknowledged} acknowledged, {rows} there"
        );
    }
}
