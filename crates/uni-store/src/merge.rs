//! Rows of one series from many places, merged by time.
//!
//! Owns the rule that later writes win, field by field: of places that have the same time, the one of higher
//! priority overwrites. Places that begin late are opened late, so a long range holds few blocks in memory.

use crate::block;
use crate::error::ScanError;
use crate::head::Chunk;
use crate::row::{Fields, Selection};
use crate::segment::Segment;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use uni_wire::FieldValue;

/// Priority of the rows that are being flushed: after every segment, before the head.
pub(crate) const FROZEN: u64 = u64::MAX - 1;
/// Priority of the head.
pub(crate) const HEAD: u64 = u64::MAX;

/// Rows of a chunk.
#[derive(Debug)]
struct ChunkRows {
    chunk: Arc<Chunk>,
    order: std::vec::IntoIter<u32>,
}

/// Rows of one series in one segment, read block by block.
#[derive(Debug)]
struct SegmentRows {
    segment: Arc<Segment>,
    /// Index of the series in the segment.
    series: usize,
    blocks: Range<usize>,
    from: i64,
    to: i64,
    file: Option<File>,
    times: Vec<i64>,
    columns: Vec<(usize, Vec<Option<FieldValue>>)>,
    next: usize,
    end: usize,
}

#[derive(Debug)]
enum Rows {
    Chunk(ChunkRows),
    Segment(SegmentRows),
}

#[derive(Debug)]
struct Place {
    priority: u64,
    /// No row is earlier.
    earliest: i64,
    rows: Rows,
}

/// Merges places; see the module.
#[derive(Debug)]
pub(crate) struct Merge {
    selection: Selection,
    /// Sorted so that the earliest is last.
    waiting: Vec<Place>,
    /// Sorted by priority.
    active: Vec<Place>,
    fault: Option<ScanError>,
}

impl Merge {
    pub(crate) const fn new(selection: Selection) -> Self {
        Self { selection, waiting: Vec::new(), active: Vec::new(), fault: None }
    }

    /// Adds rows of a chunk in the given order.
    pub(crate) fn add_chunk(&mut self, priority: u64, chunk: &Arc<Chunk>, order: Vec<u32>) {
        let Some(first) = order.first() else { return };
        let earliest = chunk.time(*first);
        let rows = Rows::Chunk(ChunkRows { chunk: Arc::clone(chunk), order: order.into_iter() });
        self.waiting.push(Place { priority, earliest, rows });
    }

    /// Adds the rows of the `series`-th series of a segment from `from` to `to`.
    pub(crate) fn add_segment(&mut self, segment: &Arc<Segment>, series: usize, from: i64, to: i64) {
        let all = &segment.series()[series].blocks;
        let blocks =
            all.partition_point(|block| block.last < from)..all.partition_point(|block| block.first <= to);
        let Some(first) = all.get(blocks.clone()).and_then(<[_]>::first) else { return };
        let rows = Rows::Segment(SegmentRows {
            segment: Arc::clone(segment),
            series,
            blocks,
            from,
            to,
            file: None,
            times: Vec::new(),
            columns: Vec::new(),
            next: 0,
            end: 0,
        });
        self.waiting.push(Place { priority: segment.number(), earliest: first.first.max(from), rows });
    }

    /// To be called once, after the last `add_`.
    pub(crate) fn start(mut self) -> Self {
        self.waiting.sort_by_key(|place| std::cmp::Reverse(place.earliest));
        self
    }

    /// The next row: its time, and in `row` its values (all `None` if it has none of the selected fields).
    pub(crate) fn next(&mut self, row: &mut [Option<FieldValue>]) -> Option<i64> {
        let time = self.next_time()?;
        row.fill(None);
        for place in &mut self.active {
            while place.rows.peek(&self.selection, &mut self.fault) == Some(time) {
                place.rows.take(&self.selection, row);
            }
        }
        self.selection.copy_repeats(row);
        Some(time)
    }

    /// Whether something could not be read so far.
    pub(crate) fn into_fault(self) -> Option<ScanError> {
        self.fault
    }

    pub(crate) const fn width(&self) -> usize {
        self.selection.width()
    }

    fn next_time(&mut self) -> Option<i64> {
        loop {
            let (selection, fault) = (&self.selection, &mut self.fault);
            let mut earliest: Option<i64> = None;
            self.active.retain_mut(|place| {
                let time = place.rows.peek(selection, fault);
                earliest = [earliest, time].into_iter().flatten().min();
                time.is_some()
            });
            match (earliest, self.waiting.last()) {
                (Some(time), Some(next)) if next.earliest > time => return Some(time),
                (_, None) => return earliest,
                _ => self.activate(),
            }
        }
    }

    fn activate(&mut self) {
        if let Some(place) = self.waiting.pop() {
            let at = self.active.partition_point(|other| other.priority < place.priority);
            self.active.insert(at, place);
        }
    }
}

impl Rows {
    fn peek(&mut self, selection: &Selection, fault: &mut Option<ScanError>) -> Option<i64> {
        match self {
            Self::Chunk(rows) => rows.order.as_slice().first().map(|index| rows.chunk.time(*index)),
            Self::Segment(rows) => rows.peek(selection, fault),
        }
    }

    /// Puts the row that was peeked at over `row`.
    fn take(&mut self, selection: &Selection, row: &mut [Option<FieldValue>]) {
        match self {
            Self::Chunk(rows) => {
                let Some(index) = rows.order.next() else { return };
                for (field, value) in Fields::of(rows.chunk.row(index)).flatten() {
                    if let Some(slot) = selection.slot(field) {
                        row[slot] = Some(value.into());
                    }
                }
            }
            Self::Segment(rows) => rows.take(row),
        }
    }
}

impl SegmentRows {
    fn peek(&mut self, selection: &Selection, fault: &mut Option<ScanError>) -> Option<i64> {
        while self.next >= self.end {
            let block = self.blocks.next()?;
            if let Err(error) = self.load(block, selection) {
                fault.get_or_insert(error);
            }
        }
        Some(self.times[self.next])
    }

    fn take(&mut self, row: &mut [Option<FieldValue>]) {
        for (slot, column) in &mut self.columns {
            if let Some(value) = column[self.next].take() {
                row[*slot] = Some(value);
            }
        }
        self.next += 1;
    }

    fn load(&mut self, block: usize, selection: &Selection) -> Result<(), ScanError> {
        (self.next, self.end) = (0, 0);
        let entry = &self.segment.series()[self.series];
        let place = &entry.blocks[block];
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(self.segment.open()?),
        };
        let bytes = self.segment.read(file, place)?;
        let slot = |column: u32| selection.slot(*entry.fields.get(column as usize)?);
        let (times, columns) = block::decode(&bytes, |column| slot(column).is_some())
            .map_err(|damaged| self.segment.damaged(place, damaged))?;
        self.columns = columns.into_iter().filter_map(|(c, values)| Some((slot(c)?, values))).collect();
        self.next = times.partition_point(|time| *time < self.from);
        self.end = times.partition_point(|time| *time <= self.to);
        self.times = times;
        Ok(())
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::catalog::SeriesId;
    use crate::head::Head;
    use crate::row::put_field;

    fn chunk(rows: &[(i64, u32, i64)]) -> Arc<Chunk> {
        let mut head = Head::default();
        for (time, field, value) in rows {
            let mut row = Vec::new();
            put_field(&mut row, *field, uni_wire::Value::Integer(*value));
            head.push(SeriesId(0), *time, &row);
        }
        Arc::clone(head.chunk(SeriesId(0)).unwrap())
    }

    #[test]
    fn the_higher_priority_wins_field_by_field() {
        let (old, new) = (chunk(&[(1, 0, 10), (1, 1, 11), (2, 0, 20)]), chunk(&[(1, 0, 99), (3, 1, 31)]));
        let mut merge = Merge::new(Selection::new(&[Some(0), Some(1)]));
        merge.add_chunk(HEAD, &new, new.order(i64::MIN, i64::MAX));
        merge.add_chunk(FROZEN, &old, old.order(i64::MIN, i64::MAX));
        let mut merge = merge.start();
        let mut row = vec![None; 2];
        let mut seen = Vec::new();
        while let Some(time) = merge.next(&mut row) {
            seen.push((time, row.clone()));
        }
        let integer = |value| Some(FieldValue::Integer(value));
        assert_eq!(
            seen,
            [(1, vec![integer(99), integer(11)]), (2, vec![integer(20), None]), (3, vec![None, integer(31)])]
        );
    }
}
