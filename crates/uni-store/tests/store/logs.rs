//! Logs against a model that is a list: random appends, flushes, merges, restarts and searches; a write-ahead log cut at
//! any byte; damage; retention; a backup.

use crate::common::folder_files;
use proptest::prelude::*;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use uni_store::{
    Durability, LogEntry, LogKind, LogPattern, LogRefusal, LogSearch, Logs, MAX_TEXT_BYTES, Options, Order,
    Store,
};
use uni_wire::Timestamp;

const PARTITION_S: i64 = 60;
const SECOND: i64 = 1_000_000_000;
const NOW: Timestamp = Timestamp::from_seconds(1_000);

fn options() -> Options {
    let partition_seconds = PARTITION_S.unsigned_abs();
    Options { partition_seconds, wal_flush_bytes: 4096, durability: Durability::Never, ..Options::default() }
}

fn open(dir: &Path) -> Store {
    Store::open(dir, options(), NOW).expect("the store opens")
}

/// What may happen to logs.
#[derive(Clone, Debug)]
enum Step {
    Append { entries: Vec<LogEntry>, durable: bool },
    Flush,
    Maintain,
    Merge,
    Reopen,
}

fn text() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "error",
        "Error",
        "disk",
        "no",
        "answer",
        "\u{e9}t\u{e9}",
        "x1",
        "a\nb",
        "",
    ]);
    prop::collection::vec(word, 0..4).prop_map(|words| words.join(" "))
}

fn entry() -> impl Strategy<Value = LogEntry> {
    let time = prop_oneof![4 => 0i64..200, 1 => Just(7), 1 => -90i64..0];
    let app = prop::sample::select(vec!["", "httpd", "db"]);
    (time, 0usize..4, 0u8..8, app, text(), any::<bool>()).prop_map(
        |(time, vm, severity, app, text, event)| LogEntry {
            time: Timestamp(time * SECOND),
            vm: ["", "web", "db", "cache"][vm].into(),
            kind: if event && severity == 6 { LogKind::Event } else { LogKind::Message },
            severity,
            facility: 3,
            app: app.into(),
            host: if event { "host".into() } else { "".into() },
            own_time: event.then_some(Timestamp(time)),
            process: if severity == 1 { "42".into() } else { "".into() },
            text: text.into(),
            ..LogEntry::default()
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (prop::collection::vec(entry(), 1..12), any::<bool>())
            .prop_map(|(entries, durable)| Step::Append { entries, durable }),
        3 => Just(Step::Flush),
        1 => Just(Step::Maintain),
        2 => Just(Step::Merge),
        2 => Just(Step::Reopen),
    ]
}

/// A search, and what it means for one entry.
#[derive(Clone, Debug)]
struct Question {
    vms: Option<Vec<&'static str>>,
    from: i64,
    to: i64,
    severity: u8,
    words: Vec<String>,
    contains: Option<&'static str>,
    pattern: Option<&'static str>,
    newest: bool,
    limit: usize,
    threads: usize,
}

fn question() -> impl Strategy<Value = Question> {
    let vms = prop::option::of(prop::sample::select(vec![vec!["web"], vec!["db", ""], vec!["nobody"]]));
    let words =
        prop::sample::select(vec!["", "", "error", "NO answer", "\u{e9}t\u{e9}", "rror", "x1", "zebra"]);
    let contains =
        prop::option::weighted(0.3, prop::sample::select(vec!["rror", "or d", " no ", "\nb", "Error"]));
    let pattern = prop::option::weighted(
        0.3,
        prop::sample::select(vec![
            "^disk",
            "answer$",
            "err.r",
            "(?i)ERROR no",
            "\\bno\\b",
            "a.b",
            "[^ ]{5}",
            "x*",
        ]),
    );
    let times = (-100i64..200, 0i64..300);
    (vms, times, 0u8..8, words, contains, pattern, any::<bool>(), 1usize..30, 1usize..4).prop_map(
        |(vms, (from, length), severity, words, contains, pattern, newest, limit, threads)| Question {
            vms,
            from: from * SECOND,
            to: (from + length) * SECOND,
            severity,
            words: vec![words.to_owned()],
            contains,
            pattern,
            newest,
            limit,
            threads,
        },
    )
}

impl Question {
    fn ask(&self, logs: &Logs) -> (Vec<LogEntry>, bool) {
        let pattern = self.pattern.map(|pattern| LogPattern::new(pattern).expect("a pattern"));
        let found = logs.search(&LogSearch {
            vms: self.vms.as_deref(),
            from: Timestamp(self.from),
            to: Timestamp(self.to),
            severity: self.severity,
            words: &self.words,
            contains: self.contains,
            pattern: pattern.as_ref(),
            order: if self.newest { Order::Newest } else { Order::Oldest },
            limit: self.limit,
            threads: self.threads,
            ..LogSearch::default()
        });
        assert!(found.fault.is_none() && !found.stopped);
        (found.entries, found.more)
    }

    fn is_met(&self, entry: &LogEntry) -> bool {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii();
        let words = |text: &str| -> Vec<String> {
            let words = text.split(|c| !is_word(c)).filter(|word| !word.is_empty());
            words.map(str::to_ascii_lowercase).collect()
        };
        let has = words(&entry.text);
        self.vms.as_ref().is_none_or(|vms| vms.contains(&&*entry.vm))
            && (self.from..=self.to).contains(&entry.time.nanos())
            && entry.severity <= self.severity
            && self.words.iter().flat_map(|text| words(text)).all(|word| has.contains(&word))
            && self.contains.is_none_or(|part| entry.text.contains(part))
            && self
                .pattern
                .is_none_or(|pattern| regex::Regex::new(pattern).expect("a pattern").is_match(&entry.text))
    }
}

/// All entries, sorted.
fn everything(logs: &Logs) -> Vec<LogEntry> {
    let found = logs.search(&LogSearch { limit: usize::MAX, ..LogSearch::default() });
    assert!(found.fault.is_none() && !found.more, "{:?}", found.fault);
    assert!(found.entries.is_sorted_by_key(|entry| (entry.time, entry.vm.clone())));
    let mut entries = found.entries;
    entries.sort();
    entries
}

/// All entries as a query language reads them, sorted.
fn scanned(logs: &Logs) -> Vec<LogEntry> {
    let mut all = Vec::new();
    for (number, series) in logs.series() {
        let mut last = None;
        let mut visit = |entry: &LogEntry| {
            assert!(last <= Some(entry.time), "times must ascend");
            assert_eq!((&entry.vm, entry.severity, &entry.app), (&series.vm, series.severity, &series.app));
            last = Some(entry.time);
            all.push(entry.clone());
            ControlFlow::Continue(())
        };
        let ever = (Timestamp(i64::MIN), Timestamp(i64::MAX));
        logs.scan(number, ever, true, &mut visit).expect("an undamaged scan");
    }
    all.sort();
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn logs_are_what_a_list_is(
        steps in prop::collection::vec(step(), 1..24),
        questions in prop::collection::vec(question(), 12),
    ) {
        let dir = tempfile::tempdir().expect("a folder");
        let mut store = open(dir.path());
        let mut model: Vec<LogEntry> = Vec::new();
        for step in steps {
            match step {
                Step::Append { entries, durable } => {
                    let logs = store.logs();
                    let appended = if durable { logs.append_durable(&entries) } else { logs.append(&entries) };
                    prop_assert_eq!(appended.expect("an append").accepted, entries.len());
                    model.extend(entries);
                }
                Step::Flush => store.logs().flush().expect("a flush"),
                Step::Maintain => drop(store.maintain(NOW).expect("maintenance")),
                Step::Merge => while store.merge(Timestamp::from_seconds(1 << 20), &mut || {}).expect("a merge") {},
                Step::Reopen => {
                    drop(store);
                    store = open(dir.path());
                    prop_assert_eq!(&store.recovery().set_aside, &[]);
                }
            }
        }
        model.sort();
        prop_assert_eq!(everything(store.logs()), model.clone());
        prop_assert_eq!(scanned(store.logs()), model.clone());
        prop_assert_eq!(store.logs().check().expect("readable files"), []);
        for question in questions {
            let (found, more) = question.ask(store.logs());
            let met: Vec<&LogEntry> = model.iter().filter(|entry| question.is_met(entry)).collect();
            prop_assert_eq!(found.len(), met.len().min(question.limit), "{:?}", question);
            prop_assert_eq!(more, met.len() > question.limit);
            prop_assert!(found.iter().all(|entry| met.contains(&entry)));
            let mut times: Vec<_> = met.iter().map(|entry| entry.time).collect();
            times.sort();
            if question.newest {
                times.reverse();
            }
            times.truncate(question.limit);
            prop_assert_eq!(found.iter().map(|entry| entry.time).collect::<Vec<_>>(), times);
        }
    }
}

/// The seconds of all entries, ascending.
pub(crate) fn times(logs: &Logs) -> Vec<i64> {
    everything(logs).iter().map(|entry| entry.time.nanos() / SECOND).collect()
}

pub(crate) fn line(n: i64) -> LogEntry {
    LogEntry {
        time: Timestamp(n * SECOND),
        vm: ["web", "db", "cache"][n.unsigned_abs() as usize % 3].into(),
        severity: 6,
        app: "httpd".into(),
        text: format!("line {n} of some").into(),
        ..LogEntry::default()
    }
}

#[test]
fn a_log_cut_at_any_byte_gives_back_the_acknowledged_prefix() {
    let origin = tempfile::tempdir().expect("a folder");
    let store = open(origin.path());
    let journal = || folder_files(&origin.path().join("logs"), "wal").pop().expect("a log");
    let mut lengths = vec![8];
    for n in 0..6 {
        store.logs().append(&[line(n)]).expect("an append");
        lengths.push(std::fs::metadata(journal()).expect("a log").len());
    }
    let bytes = std::fs::read(journal()).expect("a log");
    for cut in 0..=bytes.len() {
        for flip in [false, true] {
            let dir = tempfile::tempdir().expect("a folder");
            let wal = dir.path().join("logs/wal");
            std::fs::create_dir_all(&wal).expect("a folder");
            let mut left = bytes[..cut].to_vec();
            if flip && cut > 8 {
                left[cut - 1] ^= 0x11;
            }
            std::fs::write(wal.join(journal().file_name().expect("a name")), &left).expect("a log");
            let store = open(dir.path());
            let end = if flip && cut > 8 { cut as u64 - 1 } else { cut as u64 };
            let whole = lengths.iter().rposition(|length| *length <= end).unwrap_or(0);
            let mut expected: Vec<_> = (0i64..).take(whole).map(line).collect();
            expected.sort();
            assert_eq!(everything(store.logs()), expected, "cut at {cut}");
            store.logs().append(&[line(100)]).expect("an append");
            drop(store);
            assert_eq!(everything(open(dir.path()).logs()).len(), whole + 1, "after the cut at {cut}");
        }
    }
}

#[test]
fn a_log_that_outlives_its_flush_is_not_taken_up_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let logs_dir = dir.path().join("logs");
    let store = open(dir.path());
    store.logs().append(&(0..200).map(line).collect::<Vec<_>>()).expect("an append");
    let path = folder_files(&logs_dir, "wal").pop().expect("a log");
    let copy = std::fs::read(&path).expect("a log");
    store.logs().flush().expect("a flush");
    let before = everything(store.logs());
    drop(store);
    std::fs::write(&path, &copy).expect("the log");
    assert_eq!(everything(open(dir.path()).logs()), before);
    // as if the process had died when one of the partitions had its file and another had not
    let file = folder_files(&logs_dir, "log").pop().expect("a file");
    std::fs::remove_file(file).expect("a file less");
    std::fs::write(&path, &copy).expect("the log");
    let store = open(dir.path());
    assert_eq!(everything(store.logs()), before);
    store.logs().flush().expect("a flush");
    drop(store);
    let store = open(dir.path());
    assert_eq!(everything(store.logs()), before);
    // what was merged and came back with the names that a power cut forgot
    let files = || folder_files(&logs_dir, "log");
    for n in 200..203 {
        store.logs().append(&[line(n % 50)]).expect("an append");
        store.logs().flush().expect("a flush");
    }
    let (before, old) = (everything(store.logs()), files());
    let contents: Vec<_> = old.iter().map(|path| std::fs::read(path).expect("a file")).collect();
    while store.merge(Timestamp::from_seconds(1 << 20), &mut || {}).expect("a merge") {}
    assert!(files().len() < old.len());
    drop(store);
    old.iter().zip(contents).for_each(|(path, bytes)| std::fs::write(path, bytes).expect("a file"));
    let store = open(dir.path());
    assert_eq!(everything(store.logs()), before);
    assert!(files().len() < old.len(), "they are removed again");
}

#[test]
fn a_file_with_any_flipped_byte_is_noticed_and_never_a_panic() {
    let origin = tempfile::tempdir().expect("a folder");
    let store = open(origin.path());
    store.logs().append(&(0..20).map(line).collect::<Vec<_>>()).expect("an append");
    store.logs().flush().expect("a flush");
    drop(store);
    let path = folder_files(&origin.path().join("logs"), "log").pop().expect("a file");
    let good = std::fs::read(&path).expect("a file");
    for position in 0..good.len() {
        let mut bad = good.clone();
        bad[position] ^= 0x10;
        std::fs::write(&path, &bad).expect("a damaged file");
        let Ok(store) = Store::open(origin.path(), options(), NOW) else {
            assert_eq!(position, 7, "only the version byte may stop a store from opening");
            continue;
        };
        if store.recovery().set_aside.is_empty() {
            assert_eq!(store.logs().check().expect("it can be read").len(), 1, "flipped at {position}");
            let words = ["line".to_owned()];
            let found = store.logs().search(&LogSearch { words: &words, ..LogSearch::default() });
            assert!(found.entries.len() == 20 || found.fault.is_some(), "flipped at {position}");
            while store.merge(Timestamp::from_seconds(1 << 20), &mut || {}).expect("a merge") {}
            assert!(path.exists(), "it is not merged away");
        } else {
            assert_eq!(everything(store.logs()), []);
            std::fs::remove_dir_all(origin.path().join("damaged")).ok();
            std::fs::remove_dir_all(origin.path().join("logs/damaged")).ok();
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        }
    }
}

#[test]
fn old_partitions_go_whole_by_age_and_by_hand() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let entries: Vec<_> = (0..300).map(line).collect();
    store.logs().append(&entries[..200]).expect("an append");
    store.logs().flush().expect("a flush");
    store.logs().append(&entries[200..]).expect("an append");
    let left = |store: &Store| everything(store.logs()).iter().map(|entry| entry.time.nanos() / SECOND).min();
    let dropped = store.logs().enforce_retention(Timestamp::from_seconds(200), Some(Duration::from_secs(80)));
    assert_eq!((dropped.len(), left(&store)), (2, Some(120)));
    assert!(dropped.iter().all(|partition| partition.bytes > 0));
    let (oldest, bytes) = store.logs().oldest().expect("a partition");
    let dropped = store.logs().drop_oldest().expect("a partition");
    assert_eq!((oldest, bytes), (dropped.start, dropped.bytes));
    assert_eq!(left(&store), Some(180));
    // rows in memory are hidden at once, and never reach a file
    store.logs().enforce_retention(Timestamp::from_seconds(320), Some(Duration::from_secs(60)));
    assert_eq!(left(&store), Some(240));
    store.logs().flush().expect("a flush");
    assert_eq!((left(&store), folder_files(dir.path(), "log").len()), (Some(240), 1));
    drop(store);
    assert_eq!(left(&open(dir.path())), Some(240));
}

#[test]
fn a_backup_has_the_logs_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(&dir.path().join("from"));
    store.logs().append(&(0..100).map(line).collect::<Vec<_>>()).expect("an append");
    store.backup(&dir.path().join("to")).expect("a backup");
    let copy = open(&dir.path().join("to"));
    assert_eq!(everything(copy.logs()), everything(store.logs()));
    copy.logs().append(&[line(7)]).expect("an append");
    assert_eq!(everything(store.logs()).len(), 100);
}

#[test]
fn what_is_too_much_is_refused_and_counted() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let long = LogEntry { text: "x".repeat(MAX_TEXT_BYTES + 1).into(), ..line(1) };
    let loud = LogEntry { severity: 8, ..line(2) };
    let appended = store.logs().append(&[line(0), long, loud, line(3)]).expect("an append");
    assert_eq!(appended.refused, [(1, LogRefusal::TooLong), (2, LogRefusal::OutOfRange)]);
    assert_eq!((appended.accepted, everything(store.logs()).len()), (2, 2));
    assert_eq!((store.logs().stats().appended_total, store.logs().stats().refused_total), (2, 2));
    // one VM's programs take no other VM's room
    let many = |vm: &str, n: usize| LogEntry { vm: vm.into(), app: format!("app{n}").into(), ..line(1) };
    for n in 0..5000 {
        store.logs().append(&[many("web", n)]).expect("an append");
    }
    let refused =
        store.logs().append(&[many("web", 9999), many("db", 1), many("web", 7)]).expect("an append");
    assert_eq!(refused.refused, [(0, LogRefusal::SeriesLimit)]);
}

#[test]
fn a_head_that_cannot_be_packed_is_kept_and_bounded() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options { max_head_bytes: 20_000, ..options() };
    let store = Store::open(dir.path(), options.clone(), NOW).expect("the store opens");
    store.logs().append(&[line(1)]).expect("an append");
    let in_the_way = dir.path().join("logs/data/0");
    std::fs::create_dir_all(in_the_way.parent().expect("a folder")).expect("a folder");
    std::fs::write(&in_the_way, b"").expect("a file where a folder should be");
    let mut taken = 1;
    let batch: Vec<_> = (0..50).map(line).collect();
    let error = loop {
        match store.logs().append(&batch) {
            Ok(appended) => taken += appended.accepted,
            Err(error) => break error,
        }
        assert!(taken < 2_000, "it is bounded");
    };
    assert!(error.to_string().contains("cannot be packed"), "{error}");
    assert_eq!((everything(store.logs()).len(), store.logs().stats().refused_batches_total), (taken, 1));
    std::fs::remove_file(&in_the_way).expect("out of the way");
    store.logs().append(&batch).expect("room again");
    drop(store);
    let store = Store::open(dir.path(), options, NOW).expect("the store opens");
    assert_eq!(everything(store.logs()).len(), taken + 50);
}

/// What the fixture of version 1 has: in two files, and in the write-ahead log only.
fn kept() -> [Vec<LogEntry>; 3] {
    let event = LogEntry { kind: LogKind::Event, id: "start".into(), app: "".into(), ..line(3) };
    let said = LogEntry {
        own_time: Some(Timestamp(5)),
        host: "guest".into(),
        process: "42".into(),
        id: "ID7".into(),
        data: "[a b=\"c\"]".into(),
        severity: 3,
        facility: 23,
        text: "\u{e9}t\u{e9}\ntwo lines".into(),
        ..line(70)
    };
    [
        (0..30).map(line).chain([event]).collect(),
        (60..90).map(line).chain([said]).collect(),
        (90..95).map(line).collect(),
    ]
}

#[test]
fn a_folder_of_version_1_opens_and_is_what_is_written_today() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/logs-v1");
    let fill = |dir: &Path| {
        let store = open(dir);
        let [first, second, third] = kept();
        store.logs().append(&first).expect("an append");
        store.logs().flush().expect("a flush");
        store.logs().append(&second).expect("an append");
        store.logs().flush().expect("a flush");
        store.logs().append(&third).expect("an append");
    };
    if std::env::var_os("UNI_LOGS_NEW_FIXTURE").is_some() {
        std::fs::remove_dir_all(&fixture).ok();
        fill(&fixture);
        std::fs::remove_file(fixture.join("lock")).ok();
    }
    let dir = tempfile::tempdir().expect("a folder");
    crate::fixtures::copy(&fixture, dir.path());
    let store = open(dir.path());
    let mut expected = kept().concat();
    expected.sort();
    assert_eq!((everything(store.logs()), scanned(store.logs())), (expected.clone(), expected));
    assert_eq!((store.recovery().set_aside.len(), store.recovery().log_files), (0, 2));
    // files hold packed bytes, which another release of the packer may choose otherwise
    let anew = tempfile::tempdir().expect("a folder");
    fill(anew.path());
    let journal = |dir: &Path| {
        let paths = folder_files(&dir.join("logs"), "wal");
        paths
            .iter()
            .map(|path| (path.file_name().map(ToOwned::to_owned), std::fs::read(path).expect("a log")))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        journal(anew.path()),
        journal(&fixture),
        "the format changed: it needs a version, and a fixture"
    );
}

#[test]
fn readers_see_each_entry_once_while_files_are_written_and_merged() {
    const BATCH: usize = 20;
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let (acknowledged, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for batch in 0..150 {
                let entries: Vec<_> = (0i64..).take(BATCH).map(|n| line((batch * 7 + n) % 120)).collect();
                store.logs().append(&entries).expect("an append");
                acknowledged.fetch_add(BATCH, Ordering::SeqCst);
            }
            ended.store(true, Ordering::SeqCst);
        });
        scope.spawn(|| {
            while !ended.load(Ordering::SeqCst) {
                store.logs().flush().expect("a flush");
                store.merge(Timestamp::from_seconds(1 << 20), &mut || {}).expect("a merge");
            }
        });
        let words = ["some".to_owned()];
        while !ended.load(Ordering::SeqCst) {
            let before = acknowledged.load(Ordering::SeqCst);
            let search = LogSearch { words: &words, limit: usize::MAX, threads: 2, ..LogSearch::default() };
            let found = store.logs().search(&search);
            assert!(found.fault.is_none(), "{:?}", found.fault);
            let after = acknowledged.load(Ordering::SeqCst) + BATCH;
            assert!(
                (before..=after).contains(&found.entries.len()),
                "{before} to {after}: {}",
                found.entries.len()
            );
        }
    });
    assert_eq!(times(store.logs()).len(), acknowledged.load(Ordering::SeqCst));
}
