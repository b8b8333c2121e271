//! The store itself: what it holds, its locks, opening, databases, sync and figures.
//!
//! Locks are taken in this order and never against it:
//! 1. `maintenance`: one flush, merge or retention at a time;
//! 2. `writer`: the log and the order of points in it; held during write(2), never during fsync of the log;
//! 3. `state`: what readers see; held for memory operations only.
//!
//! `sync` stands apart: it is held only while looking at its counters.

use crate::append::Writer;
use crate::deletion::Deletion;
use crate::disk::{Disk, Lock, OsDisk};
use crate::error::{FileError, MaintainError, OpenError};
use crate::files::Files;
use crate::logs::{DroppedLogs, Logs};
use crate::options::{Durability, Options};
use crate::recovery::{self, Recovery};
use crate::retention::DroppedPartition;
use crate::state::State;
use crate::tier::TierWidth;
use hashbrown::HashMap;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use uni_wire::Timestamp;

/// An open store. Share it by reference or `Arc`; all operations take `&self`.
#[derive(Debug)]
pub struct Store {
    pub(crate) files: Files,
    pub(crate) options: Options,
    pub(crate) partition_seconds: i64,
    pub(crate) counters: Counters,
    recovery: Recovery,
    logs: Logs,
    /// Held while segments are merged; taken before all other locks.
    merging: Mutex<()>,
    /// Segments with a damaged block: never merged.
    unmergeable: Mutex<BTreeSet<u64>>,
    /// Tiers that would be empty, by number and width.
    tierless: Mutex<BTreeSet<(u64, TierWidth)>>,
    maintenance: Mutex<Maintenance>,
    writer: Mutex<Writer>,
    state: RwLock<State>,
    sync: Mutex<SyncState>,
    synced: Condvar,
    /// Held for its lock: the folder belongs to this process as long as the store lives.
    _lock: Box<dyn Lock>,
}

/// What only the one who maintains needs.
#[derive(Debug)]
pub(crate) struct Maintenance {
    /// The number that the next segment gets.
    next_segment: u64,
    /// Logs whose rows are frozen: to be removed after the frozen rows are in segments.
    pub(crate) frozen_logs: Vec<PathBuf>,
    /// Spaces that were dropped and of which a log may still have rows.
    pub(crate) logged_gone: BTreeSet<String>,
    /// Deletions whose rows some file may still have.
    pub(crate) deletions: Vec<Deletion>,
    /// Of which space and measurement everything before which partition was forgotten.
    pub(crate) forgotten: HashMap<(String, String), i64>,
    /// Logs and events that went because the disk had its fill, until they are told.
    pub(crate) dropped_logs: Vec<DroppedLogs>,
    /// What the one who maintains said last; points are refused by it.
    pub(crate) now: Option<Timestamp>,
    last_sync: Option<Timestamp>,
    /// How much had been appended when it was looked at last, and since when it has been so.
    rest: Option<(u64, Timestamp)>,
}

impl Maintenance {
    pub(crate) const fn take_number(&mut self) -> u64 {
        let number = self.next_segment;
        self.next_segment += 1;
        number
    }
}

/// A store to which nothing was appended for this long is packed and merged as if the day were over.
const REST: Duration = Duration::from_secs(15);
/// A partition that ended longer ago than this is merged into one segment.
pub(crate) const SETTLED_SECONDS: i64 = 3600;

#[derive(Debug, Default)]
struct SyncState {
    /// How much of [`crate::wal::Wal::written`] is on the disk.
    synced: u64,
    running: bool,
    failed: bool,
}

/// Figures that are counted as things happen.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) appended: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) damaged_reads: AtomicU64,
    pub(crate) refused_batches: AtomicU64,
    /// Log bytes that are frozen, and those written before this process opened the store.
    pub(crate) frozen_log_bytes: AtomicU64,
    /// Partitions dropped because of their age, and because of the bytes of all.
    pub(crate) aged_partitions: AtomicU64,
    pub(crate) disk_partitions: AtomicU64,
    /// Bytes on disk, if they are more than allowed and none can be dropped; else 0.
    pub(crate) disk_excess: AtomicU64,
    /// Something that was kept for the time after a crash may have become needless.
    pub(crate) untidy: AtomicBool,
}

/// Figures of a store at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Databases.
    pub databases: u64,
    /// Partitions dropped since the store was opened because their points were too old.
    pub aged_partitions_total: u64,
    /// Partitions dropped since the store was opened because the store took too much of the disk.
    pub disk_partitions_total: u64,
    /// Most bytes on disk, see [`Options::max_disk_bytes`]; 0 for no limit.
    pub max_disk_bytes: u64,
    /// Series of all databases.
    pub series: u64,
    /// Rows that are in memory and in the log only.
    pub points_in_head: u64,
    /// Bytes of memory that rows take which are in the log only.
    pub head_bytes: u64,
    /// Batches refused since the store was opened because memory was full, see [`Options::max_head_bytes`].
    pub refused_batches_total: u64,
    /// Bytes of log files.
    pub wal_bytes: u64,
    /// Bytes of segments.
    pub segment_bytes: u64,
    /// Bytes of tiers, which are not in [`StoreStats::segment_bytes`].
    pub tier_bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Partitions that have segments, summed over databases.
    pub partitions: u64,
    /// Points taken since the store was opened.
    pub appended_total: u64,
    /// Points refused since the store was opened.
    pub rejected_total: u64,
    /// Scans since the store was opened that met a place they could not read.
    pub damaged_reads_total: u64,
}

/// What [`Store::maintain`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// The head was packed into segments.
    pub flushed: bool,
    /// The log was synced because its interval had passed.
    pub synced: bool,
    /// Partitions dropped by retention.
    pub dropped: Vec<DroppedPartition>,
    /// Partitions of logs dropped by retention, or because the disk had its fill.
    pub dropped_logs: Vec<DroppedLogs>,
}

impl Store {
    /// Opens the store in `dir`, makes it where there is none, and replays its log.
    ///
    /// `now` decides which partitions retention drops before they are read. What recovery found is in
    /// [`Store::recovery`].
    ///
    /// # Errors
    /// [`OpenError`]: the folder is in use, not a store, of a newer format, or the file system refuses. Damaged
    /// files are no error: they are set aside and reported.
    pub fn open(dir: &Path, options: Options, now: Timestamp) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(OsDisk), dir, options, now)
    }

    /// As [`Store::open`], on another file system than that of this machine.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
        now: Timestamp,
    ) -> Result<Self, OpenError> {
        if let Some(fault) = options.fault() {
            return Err(OpenError::Option(fault));
        }
        let files = Files::create(disk, dir)?;
        let lock = files.lock()?;
        let partition_seconds = files.partition_seconds(options.partition_seconds)?.cast_signed();
        let mut recovered = recovery::recover(&files, partition_seconds, &options, now)?;
        let logs = Logs::open(&files, &options, partition_seconds, now, &mut recovered.report)?;
        let counters = Counters::default();
        counters.frozen_log_bytes.store(recovered.log_bytes, Ordering::Relaxed);
        let writer = Writer::create(&files, recovered.next_log, recovered.logs, recovered.log_bytes)?;
        let maintenance = Maintenance {
            next_segment: recovered.next_segment,
            frozen_logs: Vec::new(),
            // The logs of before have not been packed yet.
            logged_gone: recovered.state.registry.gone.keys().cloned().collect(),
            deletions: recovered.deletions,
            forgotten: HashMap::new(),
            now: None,
            dropped_logs: Vec::new(),
            last_sync: None,
            rest: None,
        };
        let store = Self {
            files,
            options,
            partition_seconds,
            counters,
            recovery: recovered.report,
            logs,
            merging: Mutex::default(),
            unmergeable: Mutex::default(),
            tierless: Mutex::default(),
            maintenance: Mutex::new(maintenance),
            writer: Mutex::new(writer),
            state: RwLock::new(recovered.state),
            sync: Mutex::default(),
            synced: Condvar::new(),
            _lock: lock,
        };
        // What the log still had of partitions that are dropped.
        store.enforce_retention(now)?;
        store.counters.untidy.store(true, Ordering::Relaxed);
        Ok(store)
    }

    /// What was found, cut off and set aside when the store was opened.
    pub const fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// The logs and events beside the points.
    pub const fn logs(&self) -> &Logs {
        &self.logs
    }

    /// Returns when everything appended so far is on the disk. Concurrent callers share one sync.
    ///
    /// # Errors
    /// [`MaintainError`]: the disk refused. From then on the store takes no more points, see
    /// [`crate::AppendError::Broken`].
    pub fn sync(&self) -> Result<(), MaintainError> {
        let written = self.lock_writer().wal.written();
        self.sync_to(written)
    }

    /// Waits until the first `written` bytes of the log are on the disk; one of the waiters does it for all.
    pub(crate) fn sync_to(&self, written: u64) -> Result<(), MaintainError> {
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
        let outcome = self.sync_log();
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

    fn sync_log(&self) -> Result<u64, FileError> {
        let (files, reached, path) = {
            let mut writer = self.lock_writer();
            (writer.wal.take_unsynced(), writer.wal.written(), writer.wal.path().to_path_buf())
        };
        files.iter().try_for_each(|file| file.sync()).map_err(|source| {
            // The kernel may have dropped what it could not write: nothing may be acknowledged any more.
            self.lock_writer().broken = true;
            FileError { step: "sync", path, source }
        })?;
        Ok(reached)
    }

    pub(crate) fn broken(&self) -> MaintainError {
        MaintainError::Broken { dir: self.files.root().to_path_buf() }
    }

    /// What a store needs to be done from time to time; call it about once a second from one thread. Packs the head
    /// when the log has reached its size, syncs when [`Durability::Interval`] asks for it, and drops what
    /// retention allows.
    ///
    /// # Errors
    /// [`MaintainError`], at the first step that fails; the next call tries again.
    pub fn maintain(&self, now: Timestamp) -> Result<Maintained, MaintainError> {
        let mut done = Maintained::default();
        let unflushed = self.lock_writer().unflushed_bytes();
        let rests = self.note_rest(now) && self.lock_writer().has_rows();
        if unflushed >= self.flush_bytes() || rests {
            self.flush()?;
            done.flushed = true;
        }
        if self.sync_is_due(now) {
            self.sync()?;
            self.logs.sync()?;
            done.synced = true;
        }
        self.logs.flush_if_large()?;
        done.dropped = self.enforce_retention(now)?;
        done.dropped_logs = self.logs.enforce_retention(now, self.options.retention);
        done.dropped_logs.append(&mut self.lock_maintenance().dropped_logs);
        self.tidy()?;
        Ok(done)
    }

    /// Looks whether something was appended since the last look; true if nothing was for [`REST`].
    fn note_rest(&self, now: Timestamp) -> bool {
        let appended = self.counters.appended.load(Ordering::Relaxed);
        let mut maintenance = self.lock_maintenance();
        match maintenance.rest {
            Some((then, since)) if then == appended => {
                now.nanos().saturating_sub(since.nanos()) >= nanos(REST)
            }
            _ => {
                maintenance.rest = Some((appended, now));
                false
            }
        }
    }

    /// Whether nothing was appended for a while, as far as [`Store::maintain`] has seen.
    pub(crate) fn is_at_rest(&self, now: Timestamp) -> bool {
        let appended = self.counters.appended.load(Ordering::Relaxed);
        let rest = self.lock_maintenance().rest;
        rest.is_some_and(|(then, since)| {
            then == appended && now.nanos().saturating_sub(since.nanos()) >= nanos(REST)
        })
    }

    fn sync_is_due(&self, now: Timestamp) -> bool {
        let interval = match self.options.durability {
            Durability::Interval(interval) => interval,
            // For points that nobody waits for, as those of a stream without acknowledgement.
            Durability::Always => Duration::from_secs(1),
            Durability::Never => return false,
        };
        let mut maintenance = self.lock_maintenance();
        let passed = maintenance.last_sync.map(|last| now.nanos().saturating_sub(last.nanos()));
        // A clock that was set back counts as time passed: syncing once too often is the cheaper mistake.
        let due = passed.is_none_or(|passed| passed < 0 || passed >= nanos(interval));
        if due {
            maintenance.last_sync = Some(now);
        }
        due
    }

    /// The figures of this moment.
    pub fn stats(&self) -> StoreStats {
        let current_log = self.lock_writer().wal.bytes();
        let state = self.read_state();
        let segments = || state.databases.values().flat_map(|d| d.partitions.values()).flatten();
        let tiers = state.databases.values().flat_map(|d| d.tiers.values()).flatten();
        let frozen = state.frozen.as_ref().map_or(0, |head| head.rows());
        let counter = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreStats {
            databases: state.registry.databases.len() as u64,
            aged_partitions_total: counter(&self.counters.aged_partitions),
            disk_partitions_total: counter(&self.counters.disk_partitions),
            max_disk_bytes: self.options.max_disk_bytes.unwrap_or(0),
            series: state.series_count() as u64,
            points_in_head: state.head.rows() + frozen,
            head_bytes: (state.head.bytes() + state.frozen.as_ref().map_or(0, |head| head.bytes())) as u64,
            refused_batches_total: counter(&self.counters.refused_batches),
            wal_bytes: current_log + counter(&self.counters.frozen_log_bytes),
            segment_bytes: segments().map(|segment| segment.bytes()).sum(),
            tier_bytes: tiers.map(|tier| tier.segment.bytes()).sum(),
            segments: segments().count() as u64,
            partitions: state.databases.values().map(|d| d.partitions.len() as u64).sum(),
            appended_total: counter(&self.counters.appended),
            rejected_total: counter(&self.counters.rejected),
            damaged_reads_total: counter(&self.counters.damaged_reads),
        }
    }

    pub(crate) fn lock_merging(&self) -> MutexGuard<'_, ()> {
        unpoisoned(self.merging.lock())
    }

    pub(crate) fn lock_unmergeable(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        unpoisoned(self.unmergeable.lock())
    }

    pub(crate) fn lock_tierless(&self) -> MutexGuard<'_, BTreeSet<(u64, TierWidth)>> {
        unpoisoned(self.tierless.lock())
    }

    pub(crate) fn count_damaged_read(&self) {
        self.counters.damaged_reads.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn lock_maintenance(&self) -> MutexGuard<'_, Maintenance> {
        unpoisoned(self.maintenance.lock())
    }

    pub(crate) fn lock_writer(&self) -> MutexGuard<'_, Writer> {
        unpoisoned(self.writer.lock())
    }

    pub(crate) fn read_state(&self) -> RwLockReadGuard<'_, State> {
        unpoisoned(self.state.read())
    }

    pub(crate) fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        unpoisoned(self.state.write())
    }
}

/// Nanoseconds, saturating.
pub(crate) fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// A lock whose holder panicked (a visitor's panic passes through no lock, so it was a fault of our own) is used
/// on: every structure behind the locks is changed in steps that are valid one by one.
fn unpoisoned<T>(result: Result<T, PoisonError<T>>) -> T {
    result.unwrap_or_else(PoisonError::into_inner)
}
