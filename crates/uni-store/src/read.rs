//! Reading: databases, measurements, fields, series, rows.
//!
//! Owns what a reader sees. The lock is held while places are collected, never while blocks are read or
//! the visitor runs.

use crate::catalog::SeriesId;
use crate::error::ScanError;
use crate::head::{Piece, Shapes};
use crate::matcher::Matcher;
use crate::merge::{FROZEN, HEAD, Merge};
use crate::segment::Segment;
use crate::selection::Selection;
use crate::state::{Database, State, partition_of};
use crate::store::Store;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uni_wire::{FieldType, FieldValue, Timestamp};

/// A series and its tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesInfo {
    /// To be given to [`Store::scan`].
    pub id: SeriesId,
    /// Sorted by key.
    pub tags: Vec<(Box<str>, Box<str>)>,
}

/// Gets each row of a scan; says whether it wants more.
pub type Visitor<'a> = dyn FnMut(Timestamp, &[Option<FieldValue>]) -> ControlFlow<()> + 'a;

/// What a series had at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The time.
    pub time: Timestamp,
    /// Fields that have a value at this time, sorted by name.
    pub fields: Vec<(String, FieldValue)>,
}

/// Where rows of a series are.
#[derive(Debug, Default)]
pub(crate) struct Places {
    pub(crate) segments: Vec<(Arc<Segment>, usize)>,
    pub(crate) pieces: Vec<(u64, Vec<Piece>, Arc<Shapes>)>,
}

impl Places {
    /// Those that reach into `from..=to`.
    pub(crate) fn of(
        state: &State,
        database: &Database,
        id: SeriesId,
        (from, to): (i64, i64),
        seconds: i64,
    ) -> Self {
        let (start_s, end_s) = (partition_of(from, seconds), partition_of(to, seconds));
        let segments = database.partitions.range(start_s..=end_s).flat_map(|(_, segments)| segments);
        let segments =
            segments.filter_map(|segment| Some((Arc::clone(segment), segment.find(id)?))).collect();
        let heads = [(FROZEN, state.frozen.as_deref()), (HEAD, Some(&state.head))];
        let pieces = |(priority, head): (u64, Option<&crate::head::Head>)| {
            let head = head?;
            Some((priority, head.get(id)?.pieces(from, to), Arc::clone(&head.shapes)))
        };
        Self { segments, pieces: heads.into_iter().filter_map(pieces).collect() }
    }

    pub(crate) fn merge(&self, selection: Selection, from: i64, to: i64) -> Merge {
        let mut merge = Merge::new(selection);
        for (segment, series) in &self.segments {
            merge.add_segment(segment, *series, from, to);
        }
        for (priority, pieces, shapes) in &self.pieces {
            let touched = |piece: &&Piece| piece.span().0 <= to && piece.span().1 >= from;
            let pieces = pieces.iter().filter(touched).cloned().collect();
            merge.add_pieces(*priority, pieces, shapes, (from, to));
        }
        merge.start()
    }
}

impl Store {
    /// All databases, sorted by name.
    pub fn databases(&self) -> Vec<String> {
        self.read_state().registry.databases.keys().cloned().collect()
    }

    /// Whether there is a database of this name.
    pub fn has_database(&self, name: &str) -> bool {
        self.read_state().registry.databases.contains_key(name)
    }

    /// Measurements that have points, sorted; none where there is no such database.
    pub fn measurements(&self, database: &str) -> Vec<String> {
        self.read_state().databases.get(database).map_or_else(Vec::new, |d| d.catalog.measurement_names())
    }

    /// Fields of a measurement with their types, sorted by name; none where there is no such measurement.
    pub fn fields(&self, database: &str, measurement: &str) -> Vec<(String, FieldType)> {
        self.read_state()
            .databases
            .get(database)
            .map_or_else(Vec::new, |d| d.catalog.live_fields(measurement))
    }

    /// Series of a measurement that all `matchers` accept, sorted by tags. All series where `matchers` is empty.
    pub fn series(&self, database: &str, measurement: &str, matchers: &[Matcher]) -> Vec<SeriesInfo> {
        let state = self.read_state();
        let Some(database) = state.databases.get(database) else { return Vec::new() };
        let matching = database.catalog.matching(measurement, matchers).into_iter();
        matching.map(|(id, series)| SeriesInfo { id, tags: series.tags.to_vec() }).collect()
    }

    /// Visits the rows of a series from `from` to `to`, both included, by ascending time, one row for each time. The
    /// visitor gets a value or `None` for each name of `fields`, in that order; rows that have none of them are
    /// left out. Of points with the same time the last written wins, field by field. The visitor may call the
    /// store.
    ///
    /// A series that is gone, and fields that do not exist, simply have no values.
    ///
    /// # Errors
    /// [`ScanError`]: no such database, or a place could not be read; then all rows from other places have been
    /// visited.
    pub fn scan(
        &self,
        database: &str,
        series: SeriesId,
        fields: &[&str],
        from: Timestamp,
        to: Timestamp,
        visit: &mut Visitor<'_>,
    ) -> Result<(), ScanError> {
        let (from, to) = (from.nanos(), to.nanos());
        if from > to {
            return Ok(());
        }
        let (places, selection) = {
            let state = self.read_state();
            let known = state.databases.get(database);
            let known = known.ok_or_else(|| ScanError::NoDatabase { database: database.to_owned() })?;
            let Some(entry) = known.catalog.get(series) else { return Ok(()) };
            let number = |name: &&str| known.catalog.field_number(&entry.measurement, name);
            let wanted: Vec<Option<u32>> = fields.iter().map(number).collect();
            let places = Places::of(&state, known, series, (from, to), self.partition_seconds);
            (places, Selection::new(&wanted))
        };
        self.visit(places.merge(selection, from, to), visit)
    }

    fn visit(&self, mut merge: Merge, visit: &mut Visitor<'_>) -> Result<(), ScanError> {
        let mut row = vec![None; merge.width()];
        while let Some(time) = merge.next(&mut row) {
            if row.iter().any(Option::is_some) && visit(Timestamp(time), &row).is_break() {
                break;
            }
        }
        let Some(fault) = merge.into_fault() else { return Ok(()) };
        self.counters.damaged_reads.fetch_add(1, Ordering::Relaxed);
        Err(fault)
    }

    /// The row of a series with the latest time; `None` if it has no rows (any more).
    ///
    /// # Errors
    /// As [`Store::scan`].
    pub fn latest(&self, database: &str, series: SeriesId) -> Result<Option<Row>, ScanError> {
        let Some((time, names)) = self.latest_time(database, series)? else { return Ok(None) };
        let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut found = None;
        self.scan(database, series, &wanted, time, time, &mut |time, values| {
            let fields = names.iter().zip(values);
            let fields = fields.filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect();
            found = Some(Row { time, fields });
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// The latest time of a series, and the fields of its measurement.
    fn latest_time(
        &self,
        database: &str,
        series: SeriesId,
    ) -> Result<Option<(Timestamp, Vec<String>)>, ScanError> {
        let state = self.read_state();
        let known = state.databases.get(database);
        let known = known.ok_or_else(|| ScanError::NoDatabase { database: database.to_owned() })?;
        let Some(entry) = known.catalog.get(series) else { return Ok(None) };
        let in_memory = [Some(&state.head), state.frozen.as_deref()].into_iter().flatten();
        let in_memory = in_memory.filter_map(|head| head.span(series)).map(|span| span.end);
        let last_of = |segment: &Arc<Segment>| segment.last_of(series);
        let mut on_disk = known.partitions.values().rev();
        let on_disk = on_disk.find_map(|segments| segments.iter().filter_map(last_of).max());
        let names = known.catalog.live_fields(&entry.measurement).into_iter().map(|(name, _)| name).collect();
        Ok(in_memory.chain(on_disk).max().map(|time| (Timestamp(time), names)))
    }
}
