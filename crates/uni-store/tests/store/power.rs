//! A disk that loses power: after every operation of a run, what was not synced is forgotten, kept in part or
//! mangled, and the store is opened on what is left.
//!
//! The rule that is checked: every point that was acknowledged as durable is there; of a batch that was not, all points
//! or none; and nothing that was never appended.

use crate::common::{DB, contents, integer, point};
use crate::logs::{line, times};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use uni_store::{Disk, DiskFile, Lock, Options, Store, Summed, TierRetention};
use uni_wire::{FieldValue, Timestamp};

const NOW: Timestamp = Timestamp::from_seconds(1_000_000);

/// What a file holds: as everybody sees it, and as it is on the disk.
#[derive(Clone, Debug, Default)]
struct Content {
    seen: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
struct Inner {
    files: Vec<Content>,
    /// Names as everybody sees them, and as they are on the disk.
    names: BTreeMap<PathBuf, usize>,
    synced_names: BTreeMap<PathBuf, usize>,
    dirs: BTreeSet<PathBuf>,
    synced_dirs: BTreeSet<PathBuf>,
    /// Operations that changed something so far; after `fail_after` of them every one fails.
    operations: usize,
    fail_after: usize,
}

/// What a power cut does to that which was written and not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It is all lost.
    Nothing,
    /// All of it happened to reach the disk, names too.
    Everything,
    /// Names reached the disk, and of each file the first half of what was added.
    Half,
    /// Files have their new length, but zeros where bytes were added.
    Zeros,
    /// As `Half`, and a bit of it is flipped.
    Flipped,
}

pub(crate) const CUTS: [Cut; 5] = [Cut::Nothing, Cut::Everything, Cut::Half, Cut::Zeros, Cut::Flipped];

/// A disk in memory.
#[derive(Clone, Debug)]
pub(crate) struct FrailDisk(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct FrailFile {
    disk: FrailDisk,
    number: usize,
}

#[derive(Debug)]
struct NoLock;

impl Lock for NoLock {}

impl FrailDisk {
    pub(crate) fn new(fail_after: usize) -> Self {
        let dirs = BTreeSet::from([PathBuf::from("/")]);
        Self(Arc::new(Mutex::new(Inner {
            dirs: dirs.clone(),
            synced_dirs: dirs,
            fail_after,
            ..Inner::default()
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no test panics with it")
    }

    /// Before an operation that changes something.
    fn change(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let mut inner = self.inner();
        if inner.operations >= inner.fail_after {
            return Err(io::Error::other("the power is gone"));
        }
        inner.operations += 1;
        Ok(inner)
    }

    pub(crate) fn operations(&self) -> usize {
        self.inner().operations
    }

    /// The disk after the power came back.
    pub(crate) fn after(&self, cut: Cut) -> Self {
        let mut inner = self.inner().clone();
        if cut == Cut::Nothing {
            inner.names = inner.synced_names.clone();
            inner.dirs = inner.synced_dirs.clone();
        }
        for file in &mut inner.files {
            file.seen = left_of(file, cut);
            file.synced = file.seen.clone();
        }
        inner.synced_names = inner.names.clone();
        inner.synced_dirs = inner.dirs.clone();
        (inner.operations, inner.fail_after) = (0, usize::MAX);
        Self(Arc::new(Mutex::new(inner)))
    }
}

fn left_of(file: &Content, cut: Cut) -> Vec<u8> {
    let added = file.seen.len().saturating_sub(file.synced.len());
    let half = file.seen.len() - added.div_ceil(2);
    match cut {
        Cut::Nothing => file.synced.clone(),
        Cut::Everything => file.seen.clone(),
        Cut::Half => file.seen[..half].to_vec(),
        Cut::Zeros => {
            let mut bytes = file.seen.clone();
            let from = file.synced.len().min(bytes.len());
            bytes[from..].fill(0);
            bytes
        }
        Cut::Flipped => {
            let mut bytes = file.seen.clone();
            if added > 0 {
                let at = file.synced.len() + added / 2;
                bytes[at] ^= 0x10;
            }
            bytes
        }
    }
}

fn missing() -> io::Error {
    ErrorKind::NotFound.into()
}

impl Disk for FrailDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.change()?.dirs.extend(dir.ancestors().map(Path::to_path_buf));
        Ok(())
    }

    fn is_dir(&self, path: &Path) -> bool {
        self.inner().dirs.contains(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let inner = self.inner();
        if !inner.dirs.contains(dir) {
            return Err(missing());
        }
        let inside = inner.names.keys().chain(&inner.dirs).filter(|path| path.parent() == Some(dir)).cloned();
        Ok(inside.collect::<BTreeSet<_>>().into_iter().collect())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let number = *self.inner().names.get(path).ok_or_else(missing)?;
        Ok(Arc::new(FrailFile { disk: self.clone(), number }))
    }

    fn create(&self, path: &Path, new: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.change()?;
        if new && inner.names.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        if !path.parent().is_some_and(|dir| inner.dirs.contains(dir)) {
            return Err(missing());
        }
        let number = inner.files.len();
        inner.files.push(Content::default());
        inner.names.insert(path.to_path_buf(), number);
        Ok(Arc::new(FrailFile { disk: self.clone(), number }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.change()?;
        let number = inner.names.remove(from).ok_or_else(missing)?;
        inner.names.insert(to.to_path_buf(), number);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change()?.names.remove(path).map(|_| ()).ok_or_else(missing)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let full = !self.list(path)?.is_empty();
        if full {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        self.change()?.dirs.remove(path);
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.change()?;
        let number = *inner.names.get(from).ok_or_else(missing)?;
        inner.names.insert(to.to_path_buf(), number);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut guard = self.change()?;
        let inner = &mut *guard;
        let inside = |path: &Path| path.parent() == Some(dir);
        inner.synced_names.retain(|path, _| !inside(path));
        inner
            .synced_names
            .extend(inner.names.iter().filter(|(path, _)| inside(path)).map(|(p, n)| (p.clone(), *n)));
        inner.synced_dirs.retain(|path| !inside(path));
        inner.synced_dirs.extend(inner.dirs.iter().filter(|path| inside(path)).cloned());
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Lock>> {
        Ok(Box::new(NoLock))
    }
}

impl DiskFile for FrailFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.inner().files[self.number].seen.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let inner = self.disk.inner();
        let start = usize::try_from(offset).expect("small files");
        let bytes = inner.files[self.number].seen.get(start..start + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = self.disk.change()?;
        let seen = &mut inner.files[self.number].seen;
        let start = usize::try_from(offset).expect("small files");
        seen.resize(seen.len().max(start + bytes.len()), 0);
        seen[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let length = usize::try_from(bytes).expect("small files");
        self.disk.change()?.files[self.number].seen.resize(length, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.change()?;
        let file = &mut inner.files[self.number];
        file.synced = file.seen.clone();
        Ok(())
    }
}

/// What a run has been told is safe, and what it has merely tried.
#[derive(Debug, Default)]
struct Told {
    acknowledged: Vec<i64>,
    /// The batch that was being appended when the power went.
    unsure: Vec<i64>,
    /// The same of lines of the logs.
    lines: Vec<i64>,
    unsure_lines: Vec<i64>,
}

fn options() -> Options {
    Options { partition_seconds: 60, wal_flush_bytes: 4096, ..Options::default() }
}

/// As [`options`], but rows are dropped when they are old, and tiers are kept.
fn tiers_only() -> Options {
    Options {
        retention: Some(Duration::from_secs(1)),
        minute_tier: TierRetention::Forever,
        hour_tier: TierRetention::Forever,
        ..options()
    }
}

fn root() -> &'static Path {
    Path::new("/store")
}

/// One value a point; its time says which.
fn batch(numbers: &[i64]) -> Vec<uni_store::Point> {
    let vm = |n: i64| ["a", "b", "c"][usize::try_from(n % 3).expect("positive")];
    let one = |n: &i64| {
        point(
            "m",
            vm(*n),
            &[("x", integer(*n)), ("y", FieldValue::Float(*n as f64 / 8.0))],
            n * 1_000_000_000,
        )
    };
    numbers.iter().map(one).collect()
}

/// Appends, flushes, merges, and is told what is safe, until the power goes.
fn run(disk: &FrailDisk, told: &mut Told) -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::open_on(Arc::new(disk.clone()), root(), options(), NOW)?;
    store.create_database(DB)?;
    for round in 0..8i64 {
        let numbers: Vec<i64> = (0..5).map(|n| round * 5 + n * 37 % 200 + n * 1000).collect();
        told.unsure.clone_from(&numbers);
        let appended = store.append_durable(DB, &batch(&numbers))?;
        assert_eq!(appended.accepted, numbers.len());
        told.acknowledged.append(&mut told.unsure);
        // lines of two partitions
        told.unsure_lines = (round * 3..round * 3 + 3).map(|n| n + n % 2 * 60).collect();
        let lines: Vec<_> = told.unsure_lines.iter().map(|n| line(*n)).collect();
        assert_eq!(store.logs().append_durable(&lines)?.accepted, lines.len());
        told.lines.append(&mut told.unsure_lines);
        if round % 3 == 2 {
            store.flush()?;
            store.logs().flush()?;
        }
        if round % 7 == 6 {
            while store.merge(Timestamp(NOW.nanos() * 2), &mut || {})? {}
        }
    }
    Ok(())
}

fn present(store: &Store) -> BTreeSet<i64> {
    let mut present = BTreeSet::new();
    for rows in contents(store, DB).into_values() {
        for (time, row) in rows {
            let number = time / 1_000_000_000;
            assert_eq!(row.get("x"), Some(&integer(number)), "nothing that was never appended");
            assert_eq!(row.get("y"), Some(&FieldValue::Float(number as f64 / 8.0)));
            present.insert(number);
        }
    }
    present
}

/// Lines are there once each: all that were acknowledged, and of a batch that was not, all or none.
fn check_lines(store: &Store, told: &Told, context: &str) {
    let here = times(store.logs());
    let mut safe = told.lines.clone();
    safe.sort_unstable();
    let mut all = [&safe[..], &told.unsure_lines].concat();
    all.sort_unstable();
    assert!(here == safe || here == all, "{context}: {here:?}, not {safe:?} or {all:?}");
    store.logs().append_durable(&[line(1), line(70)]).expect(context);
    store.logs().flush().expect(context);
    assert_eq!(times(store.logs()).len(), here.len() + 2, "{context}");
}

fn check(disk: &FrailDisk, told: &Told, context: &str) {
    let store = Store::open_on(Arc::new(disk.clone()), root(), options(), NOW).expect(context);
    let here = if store.has_database(DB) { present(&store) } else { BTreeSet::new() };
    let lost: Vec<&i64> = told.acknowledged.iter().filter(|n| !here.contains(*n)).collect();
    assert!(lost.is_empty(), "{context}: acknowledged and lost: {lost:?}");
    let new: Vec<&i64> = told.unsure.iter().filter(|n| !told.acknowledged.contains(*n)).collect();
    let half = new.iter().filter(|n| here.contains(**n)).count();
    assert!(half == 0 || half == new.len(), "{context}: {half} of {} points of a batch", new.len());
    let known: BTreeSet<i64> = told.acknowledged.iter().chain(&told.unsure).copied().collect();
    assert!(here.is_subset(&known), "{context}");
    check_lines(&store, told, context);
    // It goes on, and survives a second cut on the way.
    if store.has_database(DB) {
        store.append_durable(DB, &batch(&[7777])).expect(context);
        store.flush().expect(context);
        drop(store);
        let again = disk.after(Cut::Nothing);
        let store = Store::open_on(Arc::new(again), root(), options(), NOW).expect(context);
        let mut expected = here;
        expected.insert(7777);
        assert_eq!(present(&store), expected, "{context}: once more");
    }
}

#[test]
fn at_every_operation_the_power_may_go_and_nothing_acknowledged_is_lost() {
    let whole = FrailDisk::new(usize::MAX);
    run(&whole, &mut Told::default()).expect("the power stays");
    let operations = whole.operations();
    assert!(operations > 100, "{operations} operations");
    for fail_after in 0..=operations {
        let (disk, mut told) = (FrailDisk::new(fail_after), Told::default());
        let outcome = run(&disk, &mut told);
        // What fails last may be the removal of a file that nothing needs any more: nobody is told.
        assert!(
            outcome.is_err() || fail_after + 10 > operations,
            "{outcome:?} after {fail_after} of {operations}"
        );
        for cut in CUTS {
            check(&disk.after(cut), &told, &format!("power gone at operation {fail_after}, {cut:?}"));
        }
    }
}

/// How many values rows and windows of a store stand for.
fn counted(store: &Store) -> u64 {
    let mut count = 0;
    let all = (Timestamp(i64::MIN), Timestamp(i64::MAX));
    for series in store.series(DB, "m", &[]) {
        let mut visit = |item: Summed<'_>| {
            count += match item {
                Summed::Row(..) => 1,
                Summed::Window(window) => window.fields[0].as_ref().map_or(0, |field| field.count),
            };
            ControlFlow::Continue(true)
        };
        store.scan_summed(DB, series.id, &["x"], all, None, &mut visit).expect("a scan");
    }
    count
}

const KEPT: u64 = 60;

/// Sums up, drops the rows, and keeps the tiers, until the power goes. Says when the tiers are made.
fn age(disk: &FrailDisk, made: &mut bool) -> Result<(), Box<dyn std::error::Error>> {
    let for_now = Options { retention: None, ..tiers_only() };
    let store = Store::open_on(Arc::new(disk.clone()), root(), for_now, NOW)?;
    store.create_database(DB)?;
    store.append_durable(DB, &batch(&(0..KEPT.cast_signed()).map(|n| n * 2).collect::<Vec<_>>()))?;
    store.flush()?;
    let later = Timestamp(NOW.nanos() * 2);
    while store.merge(later, &mut || {})? {}
    *made = true;
    drop(store);
    // Opening drops the rows that are too old; the first merge keeps what they left.
    let store = Store::open_on(Arc::new(disk.clone()), root(), tiers_only(), later)?;
    while store.merge(later, &mut || {})? {}
    Ok(())
}

#[test]
fn at_every_operation_the_power_may_go_and_tiers_outlive_their_rows() {
    let whole = FrailDisk::new(usize::MAX);
    age(&whole, &mut false).expect("the power stays");
    let operations = whole.operations();
    for fail_after in 0..=operations {
        let (disk, mut made) = (FrailDisk::new(fail_after), false);
        let _ = age(&disk, &mut made);
        for cut in CUTS {
            let context = format!("power gone at operation {fail_after} of {operations}, {cut:?}");
            let after = disk.after(cut);
            let later = Timestamp(NOW.nanos() * 2);
            let store = Store::open_on(Arc::new(after.clone()), root(), tiers_only(), later).expect(&context);
            if made {
                // A log that was begun may be zeros.
                let is_log = |aside: &uni_store::SetAside| aside.path.extension().is_some_and(|e| e == "wal");
                assert!(store.recovery().set_aside.iter().all(is_log), "{context}");
                assert_eq!(counted(&store), KEPT, "{context}");
                while store.merge(later, &mut || {}).expect(&context) {}
                assert_eq!((counted(&store), store.stats().segments), (KEPT, 0), "{context}");
                drop(store);
                let again = after.after(Cut::Nothing);
                let store = Store::open_on(Arc::new(again), root(), tiers_only(), later).expect(&context);
                assert_eq!(counted(&store), KEPT, "{context}: once more");
            }
        }
    }
}
