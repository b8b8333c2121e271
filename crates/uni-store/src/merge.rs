//! Rows of one series from many places, merged by time, for who reads.
//!
//! Owns the rule that later writes win, field by field: of places that have the same time, the one of higher
//! priority overwrites. Places that begin late are opened late, so a long range holds few blocks in memory.

use crate::disk::DiskFile;
use crate::error::ScanError;
use crate::head::{Piece, Shapes, join};
use crate::segment::Segment;
use crate::selection::Selection;
use crate::table::Table;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use uni_wire::FieldValue;

/// Priority of the rows that are being flushed: after every segment, before the head.
pub(crate) const FROZEN: u64 = u64::MAX - 1;
/// Priority of the head.
pub(crate) const HEAD: u64 = u64::MAX;

/// Where the rows of a place come from.
#[derive(Debug)]
enum Origin {
    /// Pieces that are left, by their first time, the earliest last; each with its turn of arrival.
    Memory { pieces: Vec<(usize, Piece)>, shapes: Arc<Shapes> },
    /// Blocks that are left of a series in a segment.
    Segment { segment: Arc<Segment>, series: usize, blocks: Range<usize>, file: Option<Arc<dyn DiskFile>> },
}

#[derive(Debug)]
struct Place {
    priority: u64,
    /// No row is earlier.
    earliest: i64,
    from: i64,
    to: i64,
    origin: Origin,
    /// What has been unpacked: rows `next..end` of it are still to come.
    table: Table,
    next: usize,
    end: usize,
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

    fn add(&mut self, priority: u64, earliest: i64, (from, to): (i64, i64), origin: Origin) {
        let table = Table::default();
        self.waiting.push(Place { priority, earliest, from, to, origin, table, next: 0, end: 0 });
    }

    /// Adds rows of memory from `from` to `to`.
    pub(crate) fn add_pieces(
        &mut self,
        priority: u64,
        pieces: Vec<Piece>,
        shapes: &Arc<Shapes>,
        (from, to): (i64, i64),
    ) {
        let mut pieces: Vec<(usize, Piece)> = pieces.into_iter().enumerate().collect();
        pieces.sort_by_key(|(turn, piece)| std::cmp::Reverse((piece.span().0, *turn)));
        let Some((_, first)) = pieces.last() else { return };
        let earliest = first.span().0.max(from);
        self.add(priority, earliest, (from, to), Origin::Memory { pieces, shapes: Arc::clone(shapes) });
    }

    /// Adds the rows of the `series`-th series of a segment from `from` to `to`.
    pub(crate) fn add_segment(&mut self, segment: &Arc<Segment>, series: usize, from: i64, to: i64) {
        let all = &segment.series()[series].blocks;
        let blocks =
            all.partition_point(|block| block.last < from)..all.partition_point(|block| block.first <= to);
        let Some(first) = all.get(blocks.clone()).and_then(<[_]>::first) else { return };
        let (earliest, segment) = (first.first.max(from), Arc::clone(segment));
        let priority = segment.number();
        self.add(priority, earliest, (from, to), Origin::Segment { segment, series, blocks, file: None });
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
            if place.peek(&self.selection, &mut self.fault) == Some(time) {
                place.take(&self.selection, row);
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
                let time = place.peek(selection, fault);
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

impl Place {
    fn peek(&mut self, selection: &Selection, fault: &mut Option<ScanError>) -> Option<i64> {
        while self.next >= self.end {
            match self.origin.load(|field| selection.slot(field).is_some())? {
                Ok(table) => {
                    self.next = table.times.partition_point(|time| *time < self.from);
                    self.end = table.times.partition_point(|time| *time <= self.to);
                    self.table = table;
                }
                Err(error) => {
                    fault.get_or_insert(error);
                }
            }
        }
        self.table.times.get(self.next).copied()
    }

    /// Puts the row that was peeked at over `row`.
    fn take(&mut self, selection: &Selection, row: &mut [Option<FieldValue>]) {
        for column in &self.table.columns {
            if let Some(slot) = selection.slot(column.field)
                && let Some(value) = column.get(self.next)
            {
                row[slot] = Some(value);
            }
        }
        self.next += 1;
    }
}

impl Origin {
    /// The next rows, which are later than all that were loaded before; `None` if there are no more.
    fn load(&mut self, wanted: impl Fn(u32) -> bool) -> Option<Result<Table, ScanError>> {
        match self {
            Self::Memory { pieces, shapes } => {
                let group = overlapping(pieces)?;
                Some(join(&group, shapes, wanted).map_err(|damaged| ScanError::Damaged {
                    path: PathBuf::from("memory"),
                    offset: 0,
                    what: damaged.0,
                }))
            }
            Self::Segment { segment, series, blocks, file } => {
                let block = blocks.next()?;
                let opened = match file {
                    Some(file) => Ok(Arc::clone(file)),
                    None => segment.open(),
                };
                Some(opened.and_then(|opened| segment.table(&**file.insert(opened), *series, block, wanted)))
            }
        }
    }
}

/// Takes the earliest piece, and all that reach into the same time, in order of arrival.
fn overlapping(pieces: &mut Vec<(usize, Piece)>) -> Option<Vec<Piece>> {
    let first = pieces.pop()?;
    let mut last = first.1.span().1;
    let mut group = vec![first];
    while let Some((_, piece)) = pieces.last()
        && piece.span().0 <= last
    {
        last = last.max(piece.span().1);
        group.extend(pieces.pop());
    }
    group.sort_by_key(|(turn, _)| *turn);
    Some(group.into_iter().map(|(_, piece)| piece).collect())
}
