//! Taking points in: check, number, log, show, in this order.
//!
//! Owns the writer's side of the log. A point becomes visible only after write(2) has handed its frame to the
//! kernel, so that nothing is shown that a crash of this process could take back.

use crate::catalog::{Limits, Resolved, SeriesId, Unresolved};
use crate::error::{AppendError, FileError};
use crate::files::Files;
use crate::options::Durability;
use crate::point::{Point, RejectReason};
use crate::row::{Fields, put_field};
use crate::state::{State, partition_of};
use crate::store::Store;
use crate::wal::{Frame, Wal};
use hashbrown::{HashMap, HashSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

/// A frame is written when it has reached this size...
const FRAME_BYTES: usize = 1 << 20;
/// ...or this many points, so that readers never wait long for the lock under which points become visible.
const FRAME_POINTS: usize = 4_096;
/// Most partitions of a database: each costs files and time at every flush. Eleven years of days.
const MAX_PARTITIONS: usize = 4_096;

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Points stored.
    pub accepted: usize,
    /// Points refused, by their place in the batch, ascending.
    pub rejected: Vec<Rejected>,
}

/// A point that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its place in the batch, from 0.
    pub index: usize,
    /// Why.
    pub reason: RejectReason,
}

/// The writer's side of the log.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) wal: Wal,
    /// A sync failed: nothing may be acknowledged any more.
    pub(crate) broken: bool,
    /// Logs before the current one whose rows are in the head too (they were replayed).
    pub(crate) replayed_logs: Vec<PathBuf>,
    pub(crate) replayed_bytes: u64,
    pub(crate) defined: Defined,
    frame: Frame,
    staged: Vec<StagedRow>,
    /// The rows of `staged`, one after the other.
    rows: Vec<u8>,
    resolved: Resolved,
}

/// What the current log file has defined already.
#[derive(Debug, Default)]
pub(crate) struct Defined {
    series: HashSet<SeriesId>,
    /// For each measurement, which fields.
    fields: HashMap<u32, Vec<bool>>,
}

/// A row of the frame that is being filled.
#[derive(Debug)]
struct StagedRow {
    series: SeriesId,
    time: i64,
    /// Where in [`Writer::rows`].
    row: Range<usize>,
    brings_new: bool,
}

impl Writer {
    pub(crate) fn create(
        files: &Files,
        number: u64,
        replayed_logs: Vec<PathBuf>,
        replayed_bytes: u64,
    ) -> Result<Self, FileError> {
        Ok(Self {
            wal: Wal::create(files, number)?,
            broken: false,
            replayed_logs,
            replayed_bytes,
            defined: Defined::default(),
            frame: Frame::default(),
            staged: Vec::new(),
            rows: Vec::new(),
            resolved: Resolved::default(),
        })
    }

    /// Log bytes whose rows are in the head.
    pub(crate) const fn unflushed_bytes(&self) -> u64 {
        self.wal.bytes() + self.replayed_bytes
    }

    /// Adds the resolved point, and the definitions that the log lacks, to the frame.
    fn stage(&mut self, database: &str, point: &Point) {
        self.define(database, point);
        let start = self.rows.len();
        for (number, (_, value)) in self.resolved.fields.iter().zip(&point.fields) {
            put_field(&mut self.rows, *number, value.as_value());
        }
        let (series, time, row) = (self.resolved.series, point.time.nanos(), start..self.rows.len());
        self.frame.put_row(series.0, time, &self.rows[row.clone()]);
        self.staged.push(StagedRow { series, time, row, brings_new: self.resolved.brings_new });
    }

    fn define(&mut self, database: &str, point: &Point) {
        let (frame, resolved) = (&mut self.frame, &self.resolved);
        let known = self.defined.fields.entry(resolved.measurement).or_insert_with(|| {
            frame.define_measurement(resolved.measurement, database, &point.measurement);
            Vec::new()
        });
        for (number, (name, value)) in resolved.fields.iter().zip(&point.fields) {
            let index = *number as usize;
            if known.len() <= index {
                known.resize(index + 1, false);
            }
            if !known[index] {
                known[index] = true;
                frame.define_field(resolved.measurement, *number, value.field_type(), name);
            }
        }
        if self.defined.series.insert(resolved.series) {
            frame.define_series(resolved.series.0, resolved.measurement, &point.tags);
        }
    }

    /// Writes one entry that is no row, alone in its frame.
    pub(crate) fn write_drop(&mut self, database: &str, before: i64) -> Result<(), FileError> {
        self.frame.clear();
        self.frame.put_drop(database, before);
        let written = self.wal.write(&mut self.frame);
        self.frame.clear();
        written
    }
}

impl Store {
    /// Stores a batch of points in a database. Returns after the points are in the kernel's hands: they survive the
    /// death of this process, and from then on readers see them.
    ///
    /// Points that cannot be stored are refused one by one, the others are stored.
    ///
    /// # Errors
    /// [`AppendError`]: no such database, or the log cannot be written. Then a first part of the batch may be stored;
    /// storing the same points again changes nothing.
    pub fn append(&self, database: &str, points: &[Point]) -> Result<Appended, AppendError> {
        self.append_batch(database, points).map(|(appended, _)| appended)
    }

    /// As [`Store::append`], but under [`Durability::Always`] returns after the points are on the disk: they survive
    /// a power cut too. Concurrent callers share one `fdatasync`. (Under the other durabilities the operator has
    /// chosen not to wait, and it is the same as `append`.)
    ///
    /// # Errors
    /// As [`Store::append`]; or the sync failed, then see [`AppendError::Broken`].
    pub fn append_durable(&self, database: &str, points: &[Point]) -> Result<Appended, AppendError> {
        let (appended, written) = self.append_batch(database, points)?;
        if self.options.durability == Durability::Always && appended.accepted > 0 {
            self.sync_to(written)?;
        }
        Ok(appended)
    }

    /// The outcome, and how long the log was after it.
    fn append_batch(&self, database: &str, points: &[Point]) -> Result<(Appended, u64), AppendError> {
        if !self.has_database(database) {
            return Err(AppendError::NoDatabase { database: database.to_owned() });
        }
        let mut appended = Appended::default();
        let mut written = 0;
        let mut start = 0;
        while start < points.len() {
            self.make_room()?;
            let mut writer = self.lock_writer();
            if writer.broken {
                return Err(AppendError::Broken { dir: self.files.root().to_path_buf() });
            }
            start = self.fill_frame(&mut writer, database, points, start, &mut appended.rejected);
            appended.accepted += self.commit(&mut writer, database)?;
            written = writer.wal.written();
        }
        self.counters.appended.fetch_add(appended.accepted as u64, Ordering::Relaxed);
        self.counters.rejected.fetch_add(appended.rejected.len() as u64, Ordering::Relaxed);
        Ok((appended, written))
    }

    /// The last resort where nobody calls `maintain`, or it cannot keep up: memory stays bounded because the
    /// one who brings points packs the head.
    fn make_room(&self) -> Result<(), AppendError> {
        let limit = self.options.wal_flush_bytes.saturating_mul(2);
        if self.lock_writer().unflushed_bytes() >= limit {
            self.flush_if_larger(limit)?;
        }
        Ok(())
    }

    /// Stages points from `start` until the frame is full; returns where it stopped.
    fn fill_frame(
        &self,
        writer: &mut Writer,
        database: &str,
        points: &[Point],
        start: usize,
        rejected: &mut Vec<Rejected>,
    ) -> usize {
        for (index, point) in points.iter().enumerate().skip(start) {
            if writer.frame.len() >= FRAME_BYTES || writer.staged.len() >= FRAME_POINTS {
                return index;
            }
            match self.number(database, point, &mut writer.resolved) {
                Ok(()) => writer.stage(database, point),
                Err(reason) => rejected.push(Rejected { index, reason }),
            }
        }
        points.len()
    }

    fn number(&self, database: &str, point: &Point, out: &mut Resolved) -> Result<(), RejectReason> {
        point.check()?;
        let span = partition_of(point.time.nanos(), self.partition_seconds);
        if let Some(known) = self.read_state().databases.get(database)
            && known.spans.contains(&span)
        {
            match known.catalog.resolve(point, out) {
                Ok(()) => return Ok(()),
                Err(Unresolved::Refused(reason)) => return Err(reason),
                Err(Unresolved::New) => {}
            }
        }
        let state = &mut *self.write_state();
        number_new(state, database, span, point, (self.options.max_series, self.options.max_fields), out)
    }

    /// Logs the frame, then shows its rows; returns how many.
    fn commit(&self, writer: &mut Writer, database: &str) -> Result<usize, AppendError> {
        if writer.frame.is_empty() {
            return Ok(0);
        }
        let logged = writer.wal.write(&mut writer.frame);
        let count = writer.staged.len();
        if logged.is_ok() {
            self.show(database, &writer.staged, &writer.rows);
        } else {
            // The definitions of the lost frame are lost with it.
            writer.defined = Defined::default();
            if let Some(known) = self.write_state().databases.get_mut(database) {
                known.catalog.settle();
            }
        }
        writer.frame.clear();
        writer.staged.clear();
        writer.rows.clear();
        writer.rows.shrink_to(64 << 10);
        logged?;
        Ok(count)
    }

    fn show(&self, database: &str, rows: &[StagedRow], bytes: &[u8]) {
        let state = &mut *self.write_state();
        for row in rows {
            state.head.push(row.series, row.time, &bytes[row.row.clone()]);
        }
        if let Some(known) = state.databases.get_mut(database)
            && rows.iter().any(|row| row.brings_new)
        {
            for row in rows.iter().filter(|row| row.brings_new) {
                let fields = Fields::of(&bytes[row.row.clone()]).flatten().map(|(number, _)| number);
                known.catalog.mark_live(row.series, fields);
            }
            known.catalog.settle();
        }
    }
}

/// Gives numbers to what a point brings that is new, within the limits of series and fields.
pub(crate) fn number_new(
    state: &mut State,
    database: &str,
    span: i64,
    point: &Point,
    (max_series, max_fields): (usize, usize),
    out: &mut Resolved,
) -> Result<(), RejectReason> {
    let series_left = max_series.saturating_sub(state.series_count());
    let Some(known) = state.databases.get_mut(database) else {
        unreachable!("databases are never removed, and the caller has found this one")
    };
    if known.spans.len() >= MAX_PARTITIONS && !known.spans.contains(&span) {
        return Err(RejectReason::PartitionLimit { max: MAX_PARTITIONS });
    }
    let limits = Limits { series_left, max_series, max_fields };
    known.catalog.intern(point, &mut state.numbers, limits, out)?;
    known.spans.insert(span);
    Ok(())
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::options::Options;
    use std::fs::File;
    use std::path::Path;
    use std::sync::Arc;
    use uni_wire::{FieldValue, Timestamp};

    fn open(dir: &Path) -> Store {
        let store = Store::open(dir, Options::default(), Timestamp(0)).unwrap();
        store.create_database("uni").unwrap();
        store
    }

    fn point(measurement: &str, value: FieldValue) -> [Point; 1] {
        let fields = vec![("x".into(), value)];
        [Point { measurement: measurement.into(), tags: Vec::new(), fields, time: Timestamp(1) }]
    }

    #[test]
    fn a_failed_write_shows_nothing_and_spoils_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        store.append("uni", &point("first", FieldValue::Integer(1))).unwrap();
        let read_only = Arc::new(File::open(store.lock_writer().wal.path()).unwrap());
        let good = store.lock_writer().wal.swap_file(read_only);
        let failed = store.append("uni", &point("second", FieldValue::Integer(2)));
        assert!(matches!(failed, Err(AppendError::File { step: "write", .. })));
        assert_eq!((store.measurements("uni"), store.stats().series), (vec!["first".to_owned()], 1));
        store.lock_writer().wal.swap_file(good);
        // Another type than the lost point had: nothing of that one may linger.
        let again = store.append("uni", &point("second", FieldValue::Float(0.5))).unwrap();
        assert_eq!(again.accepted, 1);
        drop(store);
        let store = open(dir.path());
        assert_eq!(store.measurements("uni"), ["first", "second"]);
        assert_eq!((store.recovery().points_replayed, store.recovery().torn_bytes), (2, 0));
    }

    #[test]
    fn after_a_failed_sync_nothing_is_acknowledged_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        // It takes writes but cannot be synced.
        let null = File::options().write(true).open("/dev/null").unwrap();
        store.lock_writer().wal.swap_file(Arc::new(null));
        let failed = store.append_durable("uni", &point("m", FieldValue::Integer(1)));
        assert!(matches!(failed, Err(AppendError::File { step: "sync", .. })));
        let later = store.append("uni", &point("m", FieldValue::Integer(2))).unwrap_err();
        assert!(matches!(later, AppendError::Broken { .. }) && later.to_string().contains("check the disk"));
        assert!(store.sync().is_err() && store.flush().is_err());
    }
}
