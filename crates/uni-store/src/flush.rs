//! From the head to segments: freeze, write, publish, drop the log.
//!
//! Owns the order of these steps, on which nothing but time is lost when the process dies between any two:
//! until the segments have their names and are on the disk, the logs stay; logs are gone from the disk before a later
//! head is frozen, so that an old log can never be replayed over newer segments.

use crate::block::Effort;
use crate::catalog::SeriesId;
use crate::error::{FileError, MaintainError};
use crate::head::Head;
use crate::index::{SegmentHead, SeriesNames};
use crate::segment::{Segment, SegmentWriter};
use crate::state::{partition_of, partition_span};
use crate::store::{Maintenance, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// With more series than this the log grows longer before it is packed...
const SERIES_OF_A_LOG: u64 = 8_192;
/// ...up to so many times as long: beyond it starting again would take too long.
const MAX_LOGS: u64 = 3;

/// A partition of a database.
pub(crate) type Place = (String, i64);

impl Store {
    /// Packs all points that are only in memory into segments and drops their log. Readers and writers go on
    /// meanwhile.
    ///
    /// # Errors
    /// [`MaintainError`]: the file system refused. Nothing is lost and nothing hidden; the next call tries again.
    pub fn flush(&self) -> Result<(), MaintainError> {
        let mut maintenance = self.lock_maintenance();
        self.flush_locked(&mut maintenance)
    }

    /// The size of the log at which the head is packed. A log begins with the names and a whole row of every series,
    /// and a segment has an index entry for each: where there are many, that is to be shared by as many rows.
    pub(crate) fn flush_bytes(&self) -> u64 {
        let series = self.read_state().head.series_count() as u64;
        let shared = series.clamp(SERIES_OF_A_LOG, SERIES_OF_A_LOG * MAX_LOGS);
        self.options.wal_flush_bytes.saturating_mul(shared) / SERIES_OF_A_LOG
    }

    /// As [`Store::flush`], unless someone else has flushed while this caller waited for its turn.
    pub(crate) fn flush_if_larger(&self, limit: u64) -> Result<(), MaintainError> {
        let mut maintenance = self.lock_maintenance();
        if self.lock_writer().unflushed_bytes() >= limit {
            self.flush_locked(&mut maintenance)?;
        }
        Ok(())
    }

    pub(crate) fn flush_locked(&self, maintenance: &mut Maintenance) -> Result<(), MaintainError> {
        // What an earlier flush could not finish comes first.
        self.finish_frozen(maintenance)?;
        self.freeze(maintenance)?;
        self.finish_frozen(maintenance)?;
        // No log is left that is older than this flush.
        if !maintenance.logged_gone.is_empty() {
            maintenance.logged_gone.clear();
            self.counters.untidy.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Swaps the head for an empty one and the log for a new file, in one step for readers and writers.
    fn freeze(&self, maintenance: &mut Maintenance) -> Result<(), MaintainError> {
        let mut writer = self.lock_writer();
        if writer.broken {
            return Err(self.broken());
        }
        if writer.wal.is_empty() && writer.replayed_logs.is_empty() {
            return Ok(());
        }
        let old_bytes = writer.wal.bytes();
        let old_log = writer.wal.rotate(&self.files)?;
        writer.begin_log();
        maintenance.frozen_logs.append(&mut writer.replayed_logs);
        maintenance.frozen_logs.push(old_log);
        writer.replayed_bytes = 0;
        self.counters.frozen_log_bytes.fetch_add(old_bytes, Ordering::Relaxed);
        let state = &mut *self.write_state();
        state.frozen = Some(Arc::new(state.head.freeze()));
        Ok(())
    }

    /// Brings the frozen rows, if there are any, into segments.
    fn finish_frozen(&self, maintenance: &mut Maintenance) -> Result<(), MaintainError> {
        let frozen = self.read_state().frozen.clone();
        if let Some(head) = frozen {
            let written = self.write_segments(&head, maintenance)?;
            self.publish(written);
        }
        Ok(self.remove_logs(maintenance)?)
    }

    fn write_segments(
        &self,
        head: &Head,
        maintenance: &mut Maintenance,
    ) -> Result<Vec<(Place, Segment)>, MaintainError> {
        let mut written: Vec<(Place, Segment)> = Vec::new();
        for (place, series) in self.plan(head) {
            match self.write_segment(&place, head, &series, maintenance) {
                Ok(Some(segment)) => written.push((place, segment)),
                Ok(None) => {}
                Err(error) => {
                    // They will be written again, all of them.
                    written.iter().for_each(|(_, segment)| segment.retire());
                    return Err(error);
                }
            }
        }
        Ok(written)
    }

    /// Which series have rows in which partition.
    fn plan(&self, head: &Head) -> BTreeMap<Place, Vec<SeriesId>> {
        let owners: Vec<(String, Vec<SeriesId>)> = {
            let state = self.read_state();
            let databases = state.databases.iter();
            let owned = |ids: Vec<SeriesId>| ids.into_iter().filter(|id| head.get(*id).is_some()).collect();
            databases.map(|(name, d)| (name.clone(), owned(d.catalog.ids().collect()))).collect()
        };
        let mut plan: BTreeMap<Place, Vec<SeriesId>> = BTreeMap::new();
        for (name, mut ids) in owners {
            // In the order in which they first came: those of one VM lie beside each other, and share their times.
            ids.sort_unstable();
            for id in ids {
                for start_s in self.partitions_of(head, id) {
                    plan.entry((name.clone(), start_s)).or_default().push(id);
                }
            }
        }
        plan
    }

    fn partitions_of(&self, head: &Head, id: SeriesId) -> BTreeSet<i64> {
        let Some(span) = head.span(id) else { return BTreeSet::new() };
        let partition = |time: i64| partition_of(time, self.partition_seconds);
        if partition(span.start) == partition(span.end) {
            return BTreeSet::from([partition(span.start)]);
        }
        let times = head.table(id, |_| false).unwrap_or_default().times;
        times.into_iter().map(partition).collect()
    }

    fn write_segment(
        &self,
        (database, start_s): &Place,
        head: &Head,
        series: &[SeriesId],
        maintenance: &mut Maintenance,
    ) -> Result<Option<Segment>, MaintainError> {
        let (first, last) = partition_span(*start_s, self.partition_seconds);
        let number = maintenance.take_number();
        let mut writer = self.segment_writer(database, *start_s, number, Effort::Quick)?;
        for id in series {
            let table = head.table(*id, |_| true).map_err(|damaged| FileError {
                step: "read from memory, for a segment, the rows of the log in",
                path: self.files.wal_dir(),
                source: std::io::Error::new(ErrorKind::InvalidData, damaged.0),
            })?;
            let inside = table.span().is_some_and(|(from, to)| first <= from && to <= last);
            let table = if inside { table } else { table.between(first, last) };
            let fields = table.columns.iter().map(|column| column.field).collect();
            if let Some(names) = self.names(database, *id, &fields) {
                writer.put_rows(&names, &table)?;
                writer.end_series(&names);
            }
        }
        Ok(writer.finish()?)
    }

    /// A writer for a segment of a partition.
    pub(crate) fn segment_writer(
        &self,
        database: &str,
        start_s: i64,
        number: u64,
        effort: Effort,
    ) -> Result<SegmentWriter, FileError> {
        let head = SegmentHead { number, start_s, length_s: self.partition_seconds.cast_unsigned() };
        SegmentWriter::create(&self.files, self.files.segment(database, start_s, number), head, effort)
    }

    /// The names behind the numbers of a series and of those of its fields that names lead to.
    pub(crate) fn names(&self, database: &str, id: SeriesId, fields: &BTreeSet<u32>) -> Option<SeriesNames> {
        let state = self.read_state();
        let catalog = &state.databases.get(database)?.catalog;
        let series = catalog.get(id)?;
        let known = catalog.fields_by_number(&series.measurement);
        let column = |number: &u32| {
            let field = known.get(*number as usize)?;
            let named = catalog.field_number(&series.measurement, &field.name) == Some(*number);
            named.then(|| (*number, field.name.clone(), field.field_type))
        };
        let columns = fields.iter().filter_map(column).collect();
        Some(SeriesNames {
            id,
            measurement: Arc::clone(&series.measurement),
            tags: series.tags.clone(),
            columns,
        })
    }

    /// Shows the segments and hides the frozen rows in one step, so that no reader misses a row.
    fn publish(&self, written: Vec<(Place, Segment)>) {
        let state = &mut *self.write_state();
        for ((name, start_s), segment) in written {
            let Some(database) = state.databases.get_mut(&name) else {
                // Dropped while this was written; drops wait for flushes, so it cannot be.
                segment.retire();
                continue;
            };
            let segments = database.partitions.entry(start_s).or_default();
            segments.push(Arc::new(segment));
            // A merge may have finished meanwhile that took its number earlier.
            segments.sort_by_key(|segment| segment.number());
        }
        state.frozen = None;
    }

    fn remove_logs(&self, maintenance: &mut Maintenance) -> Result<(), FileError> {
        if maintenance.frozen_logs.is_empty() {
            return Ok(());
        }
        for path in &maintenance.frozen_logs {
            match self.files.disk().remove(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(FileError { step: "remove", path: path.clone(), source: error });
                }
                _ => {}
            }
        }
        self.files.sync_dir(&self.files.wal_dir())?;
        maintenance.frozen_logs.clear();
        self.counters.frozen_log_bytes.store(0, Ordering::Relaxed);
        Ok(())
    }
}
