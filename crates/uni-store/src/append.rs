//! Taking points in: check, number, write to log and head, commit.
//!
//! Owns the writer's side of the log and the one way by which a row gets into log and head. Rows are put into the
//! head while the lock is held under which readers look; the lock is released after write(2) has handed their frame
//! to the kernel, so that nothing is shown that a crash of this process could take back. If the write fails, the rows
//! are taken back.

use crate::catalog::{Catalog, Limits, Resolved, SeriesId, Unresolved, VM_TAG};
use crate::error::{AppendError, FileError};
use crate::files::Files;
use crate::head::{Head, Undo};
use crate::options::{Durability, Options};
use crate::point::{Point, RejectReason};
use crate::routes::Routes;
use crate::row::{RowWriter, ShapeFields, put_time};
use crate::state::{State, partition_of};
use crate::store::Store;
use crate::wal::{Frame, Wal};
use hashbrown::HashMap;
use std::path::PathBuf;
use std::sync::MutexGuard;
use std::sync::RwLockWriteGuard;
use std::sync::atomic::Ordering;
use uni_wire::FieldType;

/// A frame is written when it has reached this size...
pub(crate) const FRAME_BYTES: usize = 2 << 20;
/// ...or this many points, so that readers never wait long for the lock under which points become visible.
pub(crate) const FRAME_POINTS: usize = 16_384;
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
    pub(crate) routes: Routes,
    /// Counts logs; a series whose last row is of an earlier one begins anew. Also goes on when a frame is lost.
    pub(crate) epoch: u64,
    defined: Defined,
    pub(crate) frame: Frame,
    pub(crate) undos: Vec<Undo>,
    pub(crate) scratch: Vec<u8>,
    resolved: Resolved,
    /// Rows of the frame that bring a series or fields, with their fields.
    new: Vec<(SeriesId, ShapeFields)>,
}

/// What the current log file has defined already.
#[derive(Debug, Default)]
struct Defined {
    /// For each measurement, which fields.
    fields: HashMap<u32, Vec<bool>>,
    shapes: Vec<bool>,
}

fn mark(marks: &mut Vec<bool>, index: usize) -> bool {
    if marks.len() <= index {
        marks.resize(index + 1, false);
    }
    !std::mem::replace(&mut marks[index], true)
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
            routes: Routes::default(),
            epoch: 1,
            defined: Defined::default(),
            frame: Frame::default(),
            undos: Vec::new(),
            scratch: Vec::new(),
            resolved: Resolved::default(),
            new: Vec::new(),
        })
    }

    /// Log bytes whose rows are in the head.
    pub(crate) const fn unflushed_bytes(&self) -> u64 {
        self.wal.bytes() + self.replayed_bytes
    }

    /// Whether the log has rows that are in no segment.
    pub(crate) const fn has_rows(&self) -> bool {
        !self.wal.is_empty() || self.replayed_bytes > 0
    }

    /// The log goes on in a file that defines nothing yet.
    pub(crate) fn begin_log(&mut self) {
        self.epoch += 1;
        self.defined = Defined::default();
    }

    /// Whether the frame should be written before more is put into it.
    pub(crate) fn is_full(&self) -> bool {
        self.frame.len() >= FRAME_BYTES || self.undos.len() >= FRAME_POINTS
    }

    /// Writes one entry that is no row, alone in its frame.
    pub(crate) fn write_drop(&mut self, database: &str, before: i64) -> Result<(), FileError> {
        self.frame.clear();
        self.frame.put_drop(database, before);
        let written = self.wal.write(&mut self.frame);
        self.frame.clear();
        // Bases of rows that are dropped are gone: begin anew everywhere.
        self.epoch += 1;
        written
    }

    /// Puts what a row written anew refers to into the frame, as far as this log lacks it.
    pub(crate) fn define(
        &mut self,
        database: &str,
        catalog: &Catalog,
        head: &Head,
        id: SeriesId,
        shape_number: u32,
        series_is_new: bool,
    ) {
        let (Some(shape), Some(series)) = (head.shapes.get(shape_number), catalog.get(id)) else { return };
        let frame = &mut self.frame;
        let known = self.defined.fields.entry(shape.measurement).or_insert_with(|| {
            frame.define_measurement(shape.measurement, database, &series.measurement);
            Vec::new()
        });
        if series_is_new {
            frame.define_series(id.0, shape.measurement, &series.tags);
        }
        if !mark(&mut self.defined.shapes, shape_number as usize) {
            return;
        }
        let fields = catalog.fields_by_number(&series.measurement);
        for (number, field_type) in &shape.fields {
            if mark(known, *number as usize)
                && let Some(field) = fields.get(*number as usize)
            {
                frame.define_field(shape.measurement, *number, *field_type, &field.name);
            }
        }
        frame.define_shape(shape_number, shape);
    }
}

/// A writer at work: the locks that one frame needs.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    pub(crate) store: &'a Store,
    /// Let go before `writer`: so the next writer still waits for that one, and readers are woken.
    pub(crate) state: RwLockWriteGuard<'a, State>,
    pub(crate) writer: MutexGuard<'a, Writer>,
    pub(crate) database: &'a str,
}

impl<'a> Session<'a> {
    /// Waits until there is room, then takes the locks.
    pub(crate) fn begin(store: &'a Store, database: &'a str) -> Result<Self, AppendError> {
        store.make_room()?;
        let writer = store.lock_writer();
        if writer.broken {
            return Err(AppendError::Broken { dir: store.files.root().to_path_buf() });
        }
        let state = store.write_state();
        if !state.databases.contains_key(database) {
            return Err(AppendError::NoDatabase { database: database.to_owned() });
        }
        Ok(Self { store, state, writer, database })
    }

    /// Puts a point into frame and head; returns its series.
    pub(crate) fn put_point(&mut self, point: &Point) -> Result<SeriesId, RejectReason> {
        point.check()?;
        self.number(point)?;
        let mut fields: Vec<(u32, FieldType)> = Vec::with_capacity(point.fields.len());
        let mut values = Vec::with_capacity(point.fields.len());
        let numbered = self.writer.resolved.fields.iter().zip(&point.fields);
        for (number, (_, value)) in numbered {
            fields.push((*number, value.field_type()));
            values.push(value.as_value());
        }
        keep_last(&mut fields, &mut values);
        let Resolved { series, measurement, brings_new, .. } = self.writer.resolved;
        if brings_new {
            self.writer.new.push((series, fields.as_slice().into()));
        }
        let shape = self.state.head.intern(measurement, &fields);
        self.put_row(series, shape, point.time.nanos(), |row| {
            values.iter().for_each(|value| row.value(*value));
        });
        Ok(series)
    }

    /// Turns the point's names into numbers, which are then in `writer.resolved`.
    fn number(&mut self, point: &Point) -> Result<(), RejectReason> {
        let span = partition_of(point.time.nanos(), self.store.partition_seconds);
        let out = &mut self.writer.resolved;
        if let Some(known) = self.state.databases.get(self.database)
            && known.cutoffs.refuses(&point.measurement, point.time.nanos())
        {
            return Err(RejectReason::BeyondRetention);
        }
        if let Some(known) = self.state.databases.get(self.database)
            && known.spans.contains(&span)
        {
            match known.catalog.resolve(point, out) {
                Ok(()) => return Ok(()),
                Err(Unresolved::Refused(reason)) => return Err(reason),
                Err(Unresolved::New) => {}
            }
        }
        number_new(&mut self.state, self.database, span, point, &self.store.options, out)
    }

    /// What [`Session::put_point`] has just found.
    pub(crate) fn resolved(&self) -> &Resolved {
        &self.writer.resolved
    }

    fn put_row(&mut self, id: SeriesId, shape_number: u32, time: i64, put: impl Fn(&mut RowWriter<'_>)) {
        let (writer, state) = (&mut *self.writer, &mut *self.state);
        let shapes = std::sync::Arc::clone(&state.head.shapes);
        let Some(shape) = shapes.get(shape_number) else { return };
        let series = state.head.series_mut(id);
        let series_is_new = series.epoch != writer.epoch;
        let mut anew = series.must_begin(writer.epoch, shape_number);
        let undo = loop {
            writer.scratch.clear();
            let (bytes, base, undo) = series.begin(id, anew);
            let mut row = RowWriter::new(&mut writer.scratch, base, shape, anew);
            put(&mut row);
            row.finish();
            if put_time(bytes, base, time, anew.then_some(shape_number)) {
                bytes.extend_from_slice(&writer.scratch);
                break undo;
            }
            series.abandon(&undo);
            anew = true;
        };
        series.end(time, writer.epoch);
        writer.frame.put_row(id.0, series.row(&undo));
        writer.undos.push(undo);
        state.head.count(1);
        if anew && let Some(known) = state.databases.get(self.database) {
            writer.define(self.database, &known.catalog, &state.head, id, shape_number, series_is_new);
        }
    }

    /// Logs the frame; returns how many points it had and how long the log is now. If it cannot be logged, its
    /// points are taken back.
    pub(crate) fn commit(mut self) -> Result<(usize, u64), AppendError> {
        let (writer, state) = (&mut *self.writer, &mut *self.state);
        let count = writer.undos.len();
        let logged = if writer.frame.is_empty() { Ok(()) } else { writer.wal.write(&mut writer.frame) };
        let new = std::mem::take(&mut writer.new);
        if logged.is_err() {
            state.head.undo(&writer.undos);
            writer.begin_log();
            writer.routes.clear();
        }
        if let Some(known) = state.databases.get_mut(self.database)
            && (logged.is_err() || !new.is_empty())
        {
            for (series, fields) in new.iter().filter(|_| logged.is_ok()) {
                known.catalog.mark_live(*series, fields.iter().map(|(number, _)| *number));
            }
            known.catalog.settle();
        }
        writer.frame.clear();
        writer.undos.clear();
        logged?;
        Ok((count, writer.wal.written()))
    }
}

/// Where a field occurs twice, its last value counts.
fn keep_last<T>(fields: &mut Vec<(u32, FieldType)>, values: &mut Vec<T>) {
    let mut numbers: Vec<u32> = fields.iter().map(|(number, _)| *number).collect();
    numbers.sort_unstable();
    if numbers.windows(2).all(|pair| pair[0] != pair[1]) {
        return;
    }
    let last: HashMap<u32, usize> =
        fields.iter().enumerate().map(|(at, (number, _))| (*number, at)).collect();
    let kept: Vec<bool> = fields.iter().enumerate().map(|(at, (number, _))| last[number] == at).collect();
    let mut keep = kept.iter();
    fields.retain(|_| keep.next().copied().unwrap_or(true));
    let mut keep = kept.iter();
    values.retain(|_| keep.next().copied().unwrap_or(true));
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
        if appended.accepted > 0 {
            self.make_durable(written)?;
        }
        Ok(appended)
    }

    /// Whether there is something to append to.
    pub(crate) fn check_space(&self, space: &str) -> Result<(), AppendError> {
        match self.read_state().databases.contains_key(space) {
            true => Ok(()),
            false => Err(AppendError::NoDatabase { database: space.to_owned() }),
        }
    }

    /// Waits for the disk, if the operator wants that.
    pub(crate) fn make_durable(&self, written: u64) -> Result<(), AppendError> {
        if self.options.durability == Durability::Always {
            self.sync_to(written)?;
        }
        Ok(())
    }

    /// The outcome, and how long the log was after it.
    fn append_batch(&self, database: &str, points: &[Point]) -> Result<(Appended, u64), AppendError> {
        self.check_space(database)?;
        let mut appended = Appended::default();
        let mut written = 0;
        let mut rest = points.iter().enumerate().peekable();
        while rest.peek().is_some() {
            let mut session = Session::begin(self, database)?;
            while !session.writer.is_full()
                && let Some((index, point)) = rest.next()
            {
                if let Err(reason) = session.put_point(point) {
                    appended.rejected.push(Rejected { index, reason });
                }
            }
            let (count, end) = session.commit()?;
            appended.accepted += count;
            written = end;
        }
        self.count(appended.accepted, appended.rejected.len());
        Ok((appended, written))
    }

    pub(crate) fn count(&self, accepted: usize, refused: usize) {
        self.counters.appended.fetch_add(accepted as u64, Ordering::Relaxed);
        self.counters.rejected.fetch_add(refused as u64, Ordering::Relaxed);
    }

    /// The last resort where nobody calls `maintain`, or it cannot keep up: memory stays bounded because the
    /// one who brings points packs the head.
    fn make_room(&self) -> Result<(), AppendError> {
        let excess = self.counters.disk_excess.load(Ordering::Relaxed);
        if excess > 0 {
            self.counters.refused_batches.fetch_add(1, Ordering::Relaxed);
            return Err(AppendError::DiskLimit {
                bytes: excess,
                max: self.options.max_disk_bytes.unwrap_or(0),
            });
        }
        let unflushed = self.lock_writer().unflushed_bytes();
        if unflushed < self.options.wal_flush_bytes {
            return Ok(());
        }
        // Somewhat later than `maintain` does it, but never later than there is room.
        let limit = self.flush_bytes().saturating_mul(2).min(self.options.max_head_bytes);
        if unflushed < limit {
            return Ok(());
        }
        let Err(source) = self.flush_if_larger(limit) else { return Ok(()) };
        let bytes = self.lock_writer().unflushed_bytes();
        let max = self.options.max_head_bytes;
        if bytes <= max {
            return Ok(());
        }
        self.counters.refused_batches.fetch_add(1, Ordering::Relaxed);
        Err(AppendError::Full { bytes, max, source: Box::new(source) })
    }
}

/// Gives numbers to what a point brings that is new, within the limits of series and fields.
pub(crate) fn number_new(
    state: &mut State,
    database: &str,
    span: i64,
    point: &Point,
    options: &Options,
    out: &mut Resolved,
) -> Result<(), RejectReason> {
    let &Options { max_series, max_fields, max_series_per_vm, .. } = options;
    if let Some((_, vm)) = point.tags.iter().find(|(key, _)| &**key == VM_TAG)
        && state.series_of_vm(vm) >= max_series_per_vm
        && state
            .databases
            .get(database)
            .is_some_and(|d| d.catalog.find(&point.measurement, &point.tags).is_none())
    {
        return Err(RejectReason::VmSeriesLimit { vm: vm.clone(), max: max_series_per_vm });
    }
    let series_left = max_series.saturating_sub(state.series_count());
    let Some(known) = state.databases.get_mut(database) else {
        unreachable!("the caller has found it, and still holds the lock")
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
    use crate::disk::DiskFile;
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
        let read_only: Arc<dyn DiskFile> = Arc::new(File::open(store.lock_writer().wal.path()).unwrap());
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
