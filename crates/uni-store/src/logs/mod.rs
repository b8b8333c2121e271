//! Logs and events: appended, kept in packed blocks by VM and day, found by VM, time, severity, word and pattern.
//!
//! An entry travels as a point does: [`Logs::append`] writes it to a write-ahead log (`journal`) and then shows it in the
//! *head* (`state`); [`Logs::flush`] packs the head into one immutable file for each partition of time (`file`), and drops
//! the log; `merge` makes few files of full blocks of many; [`Logs::search`] unpacks what the index and the filters of
//! words (`filter`) do not rule out, on all cores; `retention` drops whole partitions.
//!
//! What it owns: the folder `logs` of a store (`docs/format/logs.md`), which it makes with the first entry. What it never
//! does: read a clock, keep a thread, know what syslog is.

mod backup;
mod entry;
mod file;
mod filter;
mod flush;
mod index;
mod journal;
mod merge;
mod pattern;
mod recovery;
mod retention;
mod rows;
mod scan;
mod search;
mod series;
mod state;
mod units;

#[cfg(feature = "fuzz")]
pub(crate) use file::check_block;

pub use entry::{LogEntry, LogKind, LogRefusal, MAX_NAME_BYTES, MAX_PART_BYTES, MAX_TEXT_BYTES};
pub use pattern::{LogPattern, LogPatternError};
pub use retention::DroppedLogs;
pub use scan::LogVisitor;
pub use search::{Found, LogSearch, Order};
pub use series::LogSeries;

use crate::error::{AppendError, FileError, MaintainError};
use crate::files::Files;
use crate::options::{Durability, Options};
use crate::wal::{Frame, Wal};
use series::SeriesRef;
use state::State;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A frame is written when it has reached this size: what a crash can cost of a batch that is not acknowledged yet, and
/// how long readers wait.
const FRAME_BYTES: usize = 1 << 20;

/// The logs and events of a store. All operations take `&self`.
///
/// Locks are taken in this order: `merging`, `maintenance`, `writer`, `state`; `sync` stands apart.
#[derive(Debug)]
pub struct Logs {
    files: Files,
    options: Options,
    partition_seconds: i64,
    counters: Counters,
    /// Entries before this time are not shown any more.
    floor: AtomicI64,
    merging: Mutex<()>,
    maintenance: Mutex<Maintenance>,
    writer: Mutex<Writer>,
    state: RwLock<State>,
    sync: Mutex<SyncState>,
    synced: Condvar,
}

/// What only the one who maintains needs.
#[derive(Debug, Default)]
struct Maintenance {
    next_file: u64,
    /// Logs whose rows are frozen: to be removed after these are in files.
    frozen_journals: Vec<PathBuf>,
    /// The number of the last of them.
    frozen_journal: u64,
    /// Files with a damaged block: never merged.
    unmergeable: Vec<u64>,
}

/// The writer's side.
#[derive(Debug, Default)]
struct Writer {
    /// Made with the first entry.
    wal: Option<Wal>,
    next_journal: u64,
    replayed: Vec<PathBuf>,
    replayed_bytes: u64,
    /// A sync failed: nothing may be acknowledged any more.
    broken: bool,
    frame: Frame,
}

impl Writer {
    fn unflushed_bytes(&self) -> u64 {
        self.wal.as_ref().filter(|wal| !wal.is_empty()).map_or(0, Wal::bytes) + self.replayed_bytes
    }

    fn written(&self) -> u64 {
        self.wal.as_ref().map_or(0, Wal::written)
    }
}

#[derive(Debug, Default)]
struct SyncState {
    synced: u64,
    running: bool,
    failed: bool,
}

#[derive(Debug, Default)]
struct Counters {
    appended: AtomicU64,
    refused: AtomicU64,
    refused_batches: AtomicU64,
    damaged_reads: AtomicU64,
    frozen_bytes: AtomicU64,
}

/// Figures of the logs at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Entries in files.
    pub entries_in_files: u64,
    /// Entries in memory and in the write-ahead log only.
    pub entries_in_head: u64,
    /// Bytes of memory that these take.
    pub head_bytes: u64,
    /// Bytes of write-ahead logs.
    pub journal_bytes: u64,
    /// Bytes of files.
    pub file_bytes: u64,
    /// Bytes of the texts in files.
    pub raw_bytes: u64,
    /// Files.
    pub files: u64,
    /// Blocks of files.
    pub blocks: u64,
    /// Partitions that have files.
    pub partitions: u64,
    /// Entries taken since the store was opened.
    pub appended_total: u64,
    /// Entries refused since the store was opened.
    pub refused_total: u64,
    /// Batches refused since the store was opened because memory was full.
    pub refused_batches_total: u64,
    /// Blocks that could not be read since the store was opened.
    pub damaged_reads_total: u64,
}

/// What became of a batch of entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogsAppended {
    /// Entries kept.
    pub accepted: usize,
    /// Entries refused, by their place in the batch, ascending.
    pub refused: Vec<(usize, LogRefusal)>,
}

impl Logs {
    /// Keeps a batch of entries. Returns after they are in the kernel's hands: they survive the death of this process,
    /// and from then on readers see them. Entries that cannot be kept are refused one by one.
    ///
    /// # Errors
    /// [`AppendError`]: the write-ahead log cannot be written, or memory is full. Then a first part of the batch may be
    /// kept; appended again it is there twice.
    pub fn append(&self, entries: &[LogEntry]) -> Result<LogsAppended, AppendError> {
        self.append_batch(entries).map(|(appended, _)| appended)
    }

    /// As [`Logs::append`], but under [`Durability::Always`] returns after the entries are on the disk. Concurrent callers
    /// share one `fdatasync`.
    ///
    /// # Errors
    /// As [`Logs::append`]; or the sync failed.
    pub fn append_durable(&self, entries: &[LogEntry]) -> Result<LogsAppended, AppendError> {
        let (appended, written) = self.append_batch(entries)?;
        if appended.accepted > 0 && self.options.durability == Durability::Always {
            self.sync_to(written)?;
        }
        Ok(appended)
    }

    fn append_batch(&self, entries: &[LogEntry]) -> Result<(LogsAppended, u64), AppendError> {
        let mut appended = LogsAppended::default();
        let mut written = 0;
        let mut rest = entries;
        while !rest.is_empty() {
            self.make_room()?;
            let mut writer = self.lock_writer();
            if writer.broken {
                return Err(self.broken().into());
            }
            let done = entries.len() - rest.len();
            let taken = self.fill(&mut writer, rest, done, &mut appended);
            written = self.write(&mut writer, &rest[..taken], done, &appended)?;
            rest = &rest[taken..];
        }
        appended.accepted = entries.len() - appended.refused.len();
        self.counters.appended.fetch_add(appended.accepted as u64, Relaxed);
        self.counters.refused.fetch_add(appended.refused.len() as u64, Relaxed);
        Ok((appended, written))
    }

    /// Puts entries into a frame until it is full; returns how many were looked at.
    fn fill(&self, writer: &mut Writer, entries: &[LogEntry], done: usize, out: &mut LogsAppended) -> usize {
        let state = self.read_state();
        let mut payload = Vec::new();
        let mut taken = 0;
        while payload.len() < FRAME_BYTES
            && let Some(entry) = entries.get(taken)
        {
            let full = || (!state.catalog.admits(SeriesRef::of(entry))).then_some(LogRefusal::SeriesLimit);
            match entry.fault().or_else(full) {
                Some(refusal) => out.refused.push((done + taken, refusal)),
                None => journal::put(&mut payload, entry),
            }
            taken += 1;
        }
        writer.frame.clear();
        writer.frame.put_raw(&payload);
        taken
    }

    /// Logs the frame and shows its entries; returns how long the log is now.
    fn write(
        &self,
        writer: &mut Writer,
        entries: &[LogEntry],
        done: usize,
        appended: &LogsAppended,
    ) -> Result<u64, AppendError> {
        let Writer { wal, frame, next_journal, .. } = writer;
        if !frame.is_empty() {
            if wal.is_none() {
                self.files.create_dir_durably(&self.files.wal_dir())?;
                *wal = Some(Wal::create(&self.files, *next_journal)?);
                *next_journal += 1;
            }
            if let Some(wal) = wal {
                wal.write(frame)?;
            }
        }
        frame.clear();
        let mut refused = appended.refused.iter().map(|(at, _)| *at).skip_while(|at| *at < done).peekable();
        let mut state = self.write_state();
        for (at, entry) in entries.iter().enumerate() {
            if refused.next_if_eq(&(done + at)).is_none() {
                state.push(entry, self.partition_seconds);
            }
        }
        drop(state);
        Ok(writer.written())
    }

    /// Packs the head where it takes too much memory; nothing is taken where that fails.
    fn make_room(&self) -> Result<(), AppendError> {
        let max = self.options.max_head_bytes;
        let held =
            |logs: &Self| logs.lock_writer().unflushed_bytes() + logs.counters.frozen_bytes.load(Relaxed);
        // half of it, so that there is still room while files are written
        if held(self) < max / 2 {
            return Ok(());
        }
        if let Err(error) = self.flush() {
            let bytes = held(self);
            if bytes >= max {
                self.counters.refused_batches.fetch_add(1, Relaxed);
                return Err(AppendError::Full { bytes, max, source: Box::new(error) });
            }
        }
        Ok(())
    }

    /// Returns when everything appended so far is on the disk. Concurrent callers share one sync.
    ///
    /// # Errors
    /// [`MaintainError`]: the disk refused. From then on nothing more is taken.
    pub fn sync(&self) -> Result<(), MaintainError> {
        let written = self.lock_writer().written();
        self.sync_to(written)
    }

    /// Waits until the first `written` bytes of the log are on the disk; one of the waiters does it for all.
    fn sync_to(&self, written: u64) -> Result<(), MaintainError> {
        let mut sync = unpoisoned(self.sync.lock());
        loop {
            if sync.failed {
                return Err(self.broken());
            }
            if sync.synced >= written {
                return Ok(());
            }
            if !sync.running {
                break;
            }
            sync = unpoisoned(self.synced.wait(sync));
        }
        sync.running = true;
        drop(sync);
        let outcome = self.sync_journal();
        let mut sync = unpoisoned(self.sync.lock());
        sync.running = false;
        match &outcome {
            Ok(reached) => sync.synced = sync.synced.max(*reached),
            Err(_) => sync.failed = true,
        }
        drop(sync);
        self.synced.notify_all();
        Ok(outcome.map(|_| ())?)
    }

    fn sync_journal(&self) -> Result<u64, FileError> {
        let mut writer = self.lock_writer();
        let Some(wal) = &mut writer.wal else { return Ok(0) };
        let (files, reached, path) = (wal.take_unsynced(), wal.written(), wal.path().to_path_buf());
        drop(writer);
        files.iter().try_for_each(|file| file.sync()).map_err(|source| {
            // The kernel may have dropped what it could not write: nothing may be acknowledged any more.
            self.lock_writer().broken = true;
            FileError { step: "sync", path, source }
        })?;
        Ok(reached)
    }

    fn broken(&self) -> MaintainError {
        MaintainError::Broken { dir: self.files.root().to_path_buf() }
    }

    /// All VMs, kinds, severities and programs that have entries, each with its number.
    pub fn series(&self) -> Vec<(u32, Arc<LogSeries>)> {
        let state = self.read_state();
        let named = |number| Some((number, state.catalog.get(number)?));
        state.series().into_iter().filter_map(named).collect()
    }

    /// The figures of this moment.
    pub fn stats(&self) -> LogStats {
        let journal_bytes = self.lock_writer().unflushed_bytes() + self.counters.frozen_bytes.load(Relaxed);
        let state = self.read_state();
        let blocks = || state.all_files().flat_map(|file| &file.blocks);
        LogStats {
            entries_in_files: blocks().map(|block| u64::from(block.rows)).sum(),
            entries_in_head: state.head.rows() + state.frozen.rows(),
            head_bytes: (state.head.bytes + state.frozen.bytes) as u64,
            journal_bytes,
            file_bytes: state.all_files().map(|file| file.bytes).sum(),
            raw_bytes: state.all_files().map(|file| file.raw_bytes()).sum(),
            files: state.all_files().count() as u64,
            blocks: blocks().count() as u64,
            partitions: state.files.len() as u64,
            appended_total: self.counters.appended.load(Relaxed),
            refused_total: self.counters.refused.load(Relaxed),
            refused_batches_total: self.counters.refused_batches.load(Relaxed),
            damaged_reads_total: self.counters.damaged_reads.load(Relaxed),
        }
    }

    /// Folder of a partition.
    fn partition_dir(&self, start_s: i64) -> PathBuf {
        self.files.data_dir().join(start_s.to_string())
    }

    fn file_path(&self, start_s: i64, number: u64) -> PathBuf {
        self.partition_dir(start_s).join(format!("{number:016x}.log"))
    }

    fn lock_merging(&self) -> MutexGuard<'_, ()> {
        unpoisoned(self.merging.lock())
    }

    fn lock_maintenance(&self) -> MutexGuard<'_, Maintenance> {
        unpoisoned(self.maintenance.lock())
    }

    fn lock_writer(&self) -> MutexGuard<'_, Writer> {
        unpoisoned(self.writer.lock())
    }

    fn read_state(&self) -> RwLockReadGuard<'_, State> {
        unpoisoned(self.state.read())
    }

    fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        unpoisoned(self.state.write())
    }
}

/// As in `store`: what is behind the locks is changed in steps that are valid one by one.
fn unpoisoned<T>(result: Result<T, PoisonError<T>>) -> T {
    result.unwrap_or_else(PoisonError::into_inner)
}
