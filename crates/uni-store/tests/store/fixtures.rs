//! Folders that earlier versions wrote: they open, hold what they held, and go on.

use crate::common::{Contents, Values, contents, row_count};
use std::path::{Path, PathBuf};
use std::time::Duration;
use uni_store::{Doomed, Options, Point, PolicySpec, SeriesInfo, Store};
use uni_wire::{FieldValue, Timestamp};

const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);
const DATABASES: [&str; 2] = ["uni", "a/b %"];

/// The points of row `n` of a VM, as they were put into every fixture.
fn points(n: i64, vm: &str) -> [Point; 2] {
    let time = Timestamp(NOW.nanos() + n * 10_000_000_000);
    let eighths = n as f64 / 8.0;
    let mut fields: Vec<(Box<str>, FieldValue)> = vec![
        ("rss".into(), FieldValue::Integer(1000 + n * n)),
        ("free words".into(), FieldValue::Float(eighths)),
        ("total".into(), FieldValue::Unsigned(u64::MAX - n.unsigned_abs())),
        ("ok".into(), FieldValue::Boolean(n % 3 == 0)),
    ];
    if n % 2 == 0 {
        fields.push(("state".into(), FieldValue::String(format!("s{}", n / 7).into())));
    }
    let up = vec![("x".into(), FieldValue::Float(n as f64))];
    [
        Point { measurement: "mem ory".into(), tags: vec![("vm".into(), vm.into())], fields, time },
        Point { measurement: "up".into(), tags: Vec::new(), fields: up, time },
    ]
}

/// What was put into every fixture: in segments, in segments again, and in the log only.
fn batches() -> [Vec<(&'static str, i64, &'static str)>; 3] {
    let first = (0..40).flat_map(|n| [("uni", n, "web"), ("uni", n, "db"), ("a/b %", n, "x")]);
    let second = (30..60).flat_map(|n| [("uni", n, "web"), ("a/b %", n, "y")]);
    let third = (55..80).flat_map(|n| [("uni", n, "web"), ("uni", n, "late")]);
    [first.collect(), second.chain([("uni", 9000, "web")]).collect(), third.collect()]
}

fn expected(database: &str) -> Contents {
    let mut contents = Contents::new();
    for (_, n, vm) in batches().into_iter().flatten().filter(|(name, ..)| *name == database) {
        for point in points(n, vm) {
            let tags: Vec<String> = point.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let rows = contents.entry((point.measurement.to_string(), tags.join(","))).or_default();
            let fields = point.fields.into_iter().map(|(name, value)| (name.to_string(), value));
            rows.entry(point.time.nanos()).or_default().extend(fields.collect::<Values>());
        }
    }
    contents
}

fn fill(dir: &Path) -> Store {
    let store = Store::open(dir, Options::default(), NOW).expect("the store opens");
    DATABASES.iter().for_each(|name| store.create_database(name).expect("a database"));
    for (at, batch) in batches().into_iter().enumerate() {
        for (database, n, vm) in batch {
            assert_eq!(store.append(database, &points(n, vm)).expect("an append").accepted, 2);
        }
        if at < 2 {
            store.flush().expect("a flush");
        }
    }
    store.sync().expect("a sync");
    store
}

/// What policies, deletions and drops leave on disk, on top of [`fill`].
fn change(store: &Store) {
    let year = PolicySpec { duration: Some(Duration::from_secs(365 * 86_400)), ..PolicySpec::default() };
    store.create_policy("uni", "a year", &year, false).expect("a policy");
    store.create_database_with("gone", Some("p"), &PolicySpec::default()).expect("a database");
    store
        .append(&store.space("uni", Some("a year")).expect("a policy"), &points(3, "web"))
        .expect("an append");
    store.append(&store.space("gone", None).expect("a policy"), &points(3, "web")).expect("an append");
    let doomed = Doomed { space: "a/b %".into(), measurement: "up".into(), series: None };
    let of_web = |info: &SeriesInfo| &*info.tags[0].1 == "web";
    let series = store.series("uni", "mem ory", &[]);
    let series = series.into_iter().filter(of_web).map(|info| info.id).collect();
    let some = Doomed { space: "uni".into(), measurement: "mem ory".into(), series: Some(series) };
    let to = Timestamp(NOW.nanos() + 20 * 10_000_000_000);
    store.delete(Timestamp(i64::MIN), to, &[some]).expect("a deletion");
    store.delete(Timestamp(i64::MIN), Timestamp(i64::MAX), &[doomed]).expect("a deletion");
    store.drop_database("gone").expect("a drop");
    store.sync().expect("a sync");
}

fn check_changed(store: &Store) {
    let mut uni = expected("uni");
    let rows = uni.get_mut(&("mem ory".to_owned(), "vm=web".to_owned())).expect("a series");
    rows.retain(|time, _| *time > NOW.nanos() + 20 * 10_000_000_000);
    assert_eq!(contents(store, "uni"), uni);
    let mut other = expected("a/b %");
    other.retain(|(measurement, _), _| measurement != "up");
    assert_eq!(contents(store, "a/b %"), other);
    assert_eq!(store.databases(), ["a/b %", "uni"]);
    let policies = store.policies("uni").expect("a database");
    let year = policies.iter().find(|info| info.policy.name == "a year").expect("a policy");
    assert_eq!((year.policy.duration.as_secs(), year.is_default), (365 * 86_400, false));
    assert_eq!(row_count(store, &store.space("uni", Some("a year")).expect("a policy")), 2);
}

#[test]
fn a_folder_with_policies_and_deletions_opens_and_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    if std::env::var_os("UNI_STORE_NEW_FIXTURE").is_some() {
        change(&fill(dir.path()));
        copy(dir.path(), &fixture("v2-changed"));
    }
    let dir = tempfile::tempdir().expect("a folder");
    copy(&fixture("v2-changed"), dir.path());
    let store = Store::open(dir.path(), Options::default(), NOW).expect("the fixture opens");
    assert_eq!(store.recovery().set_aside, []);
    check_changed(&store);
    let backup = tempfile::tempdir().expect("a folder");
    store.backup(&backup.path().join("b")).expect("a backup");
    check_changed(&Store::open(&backup.path().join("b"), Options::default(), NOW).expect("the backup opens"));
    let later = Timestamp(NOW.nanos() + 1_000_000_000_000_000);
    while store.merge(later, &mut || {}).expect("a merge") {}
    check_changed(&store);
    store.maintain(NOW).expect("maintenance");
    let notes = std::fs::read_dir(dir.path().join("deleted")).expect("a folder").count();
    assert_eq!(notes, 0, "what is deleted is in no file any more");
    drop(store);
    check_changed(&Store::open(dir.path(), Options::default(), NOW).expect("it opens again"));
}

fn fixture(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(version)
}

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a fixture").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

fn check(store: &Store) {
    for database in DATABASES {
        assert_eq!(contents(store, database), expected(database), "{database}");
    }
}

#[test]
fn folders_of_every_version_open_and_go_on() {
    for version in ["v1", "v2"] {
        let dir = tempfile::tempdir().expect("a folder");
        copy(&fixture(version), dir.path());
        let store = Store::open(dir.path(), Options::default(), NOW).expect(version);
        assert_eq!((store.recovery().set_aside.len(), store.recovery().points_refused), (0, 0));
        check(&store);
        assert_eq!(store.databases(), ["a/b %", "uni"]);
        store.append("uni", &points(55, "web")).expect("an append");
        store.flush().expect("a flush");
        check(&store);
        let later =
            Timestamp(NOW.nanos() + i64::try_from(Duration::from_secs(1_000_000).as_nanos()).expect("small"));
        assert!(store.merge(later, &mut || {}).expect("a merge"));
        while store.merge(later, &mut || {}).expect("a merge") {}
        check(&store);
        drop(store);
        check(&Store::open(dir.path(), Options::default(), NOW).expect(version));
    }
}

#[test]
fn what_is_written_today_is_byte_by_byte_what_the_fixture_has() {
    let dir = tempfile::tempdir().expect("a folder");
    drop(fill(dir.path()));
    let ours = files(dir.path());
    if std::env::var_os("UNI_STORE_NEW_FIXTURE").is_some() {
        copy(dir.path(), &fixture("v2"));
    }
    // Folders of before the file `databases` opened as well; the logs and segments in them are those of today.
    let of_before = |(name, _): &(PathBuf, Vec<u8>)| name.starts_with("wal") || name.starts_with("data");
    // Segments hold packed bytes, which another release of the packer may choose otherwise.
    let plain = |files: Vec<(PathBuf, Vec<u8>)>| -> Vec<(PathBuf, Vec<u8>)> {
        files
            .into_iter()
            .filter(|(name, _)| name.extension().is_none_or(|extension| extension != "seg"))
            .filter(of_before)
            .collect()
    };
    assert!(
        plain(ours) == plain(files(&fixture("v2"))),
        "the format changed: it needs a version, and a fixture"
    );
}

#[test]
fn a_backup_is_a_store_with_everything_and_shares_its_files() {
    let dir = tempfile::tempdir().expect("a folder");
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let store = fill(&from);
    store.backup(&to).expect("a backup");
    let copy = Store::open(&to, Options::default(), NOW).expect("the backup opens");
    check(&copy);
    assert_eq!(copy.stats().points_in_head, 0);
    assert!(store.backup(&to).is_err(), "it must not be mixed with another one");
    copy.append("uni", &points(2000, "web")).expect("an append");
    check(&store);
}

/// Names and contents of all files below a folder.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(&folder).expect("a folder").flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(dir).expect("below it").to_path_buf();
                found.push((name, std::fs::read(&path).expect("a file")));
            }
        }
    }
    found.sort();
    found
}
