//! The newest points, in memory: for each series the bytes that the log has of it, piece by piece.
//!
//! Owns rows that are in the log and not yet in a segment, in the form of `row`, so that the head takes about as much
//! memory as the log takes on disk. Never decides when it is flushed.

use crate::bytes::Damaged;
use crate::catalog::SeriesId;
use crate::prefetch::prefetch;
use crate::row::{Base, RowReader, Shape, ShapeFields, read_rows};
use crate::table::Table;
use hashbrown::HashMap;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use uni_wire::FieldType;

/// A piece is closed at this size: what a reader copies while it holds the lock, and what it reads at least.
const PIECE_BYTES: usize = 4096;

/// Rows of one series, in order of arrival; the first is written anew.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    bytes: Arc<[u8]>,
    rows: u32,
    first: i64,
    last: i64,
    /// Rows before this time were dropped by retention.
    from: i64,
}

/// The piece that is being written.
#[derive(Clone, Debug)]
struct Tail {
    bytes: Vec<u8>,
    rows: u32,
    first: i64,
    last: i64,
}

impl Default for Tail {
    fn default() -> Self {
        Self { bytes: Vec::new(), rows: 0, first: i64::MAX, last: i64::MIN }
    }
}

impl Tail {
    fn seal(&self) -> Piece {
        let &Self { rows, first, last, .. } = self;
        Piece { bytes: self.bytes.as_slice().into(), rows, first, last, from: i64::MIN }
    }

    #[inline]
    fn note(&mut self, time: i64) {
        self.first = self.first.min(time);
        self.last = self.last.max(time);
        self.rows += 1;
    }
}

/// The rows of one series.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeriesHead {
    pieces: Vec<Piece>,
    tail: Tail,
    /// What the next row is written against; valid for the log of `epoch` only.
    pub(crate) base: Base,
    /// The log that has the base's row; 0 for none, and then the next row must be written anew.
    pub(crate) epoch: u64,
    /// Bytes that the first piece had in the head before: mostly it becomes as long again.
    usual: u16,
}

/// What one row changed, so that it can be taken back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Undo {
    pub(crate) series: SeriesId,
    length: u32,
    sealed: bool,
}

impl SeriesHead {
    /// Whether the next row must be written anew: another log, another shape, or a piece that is full.
    #[inline]
    pub(crate) fn must_begin(&self, epoch: u64, shape: u32) -> bool {
        self.epoch != epoch || self.base.shape != shape || self.tail.bytes.len() >= PIECE_BYTES
    }

    /// Where a row goes: closes the piece before it, if the row is written `anew` and the piece is full.
    #[inline]
    pub(crate) fn begin(&mut self, id: SeriesId, anew: bool) -> (&mut Vec<u8>, &mut Base, Undo) {
        let sealed = anew && self.tail.bytes.len() >= PIECE_BYTES;
        let length = self.tail.bytes.len() as u32;
        if sealed {
            self.seal();
        }
        let bytes = &mut self.tail.bytes;
        if bytes.capacity() - bytes.len() < 64 {
            let usual = usize::from(self.usual).saturating_sub(bytes.len());
            bytes.reserve_exact(bytes.len().max(usual).clamp(128, PIECE_BYTES));
        }
        (bytes, &mut self.base, Undo { series: id, length, sealed })
    }

    /// The row that was begun is whole. `epoch`: the log it is in.
    #[inline]
    pub(crate) fn end(&mut self, time: i64, epoch: u64) {
        self.tail.note(time);
        self.epoch = epoch;
    }

    /// The bytes of the row that was begun with `undo`.
    #[inline]
    pub(crate) fn row(&self, undo: &Undo) -> &[u8] {
        let start = if undo.sealed { 0 } else { undo.length as usize };
        self.tail.bytes.get(start..).unwrap_or_default()
    }

    /// Gives up the row that was begun.
    pub(crate) fn abandon(&mut self, undo: &Undo) {
        self.tail.bytes.truncate(if undo.sealed { 0 } else { undo.length as usize });
        self.epoch = 0;
    }

    fn seal(&mut self) {
        if self.tail.rows > 0 {
            self.pieces.push(self.tail.seal());
            self.tail = Tail::default();
        }
    }

    /// Takes a row of the log as it is.
    pub(crate) fn push_raw(&mut self, row: &[u8], time: i64) {
        let anew = row.first().is_some_and(|control| control & 1 == 1);
        if anew && self.tail.bytes.len() >= PIECE_BYTES {
            self.seal();
        }
        let bytes = &mut self.tail.bytes;
        if bytes.capacity() - bytes.len() < row.len() {
            bytes.reserve_exact(bytes.len().clamp(row.len().max(128), PIECE_BYTES.max(row.len())));
        }
        bytes.extend_from_slice(row);
        self.tail.note(time);
    }

    fn undo(&mut self, undo: &Undo, shapes: &Shapes) {
        if undo.sealed {
            let Some(piece) = self.pieces.pop() else { return };
            self.tail.bytes = piece.bytes.to_vec();
        }
        self.tail.bytes.truncate(undo.length as usize);
        self.epoch = 0;
        // Rare, so the figures are simply made again.
        let mut rows = RowReader::new(&self.tail.bytes);
        let mut figures = Tail::default();
        while let Ok(Some((time, _))) = rows.next(|number| shapes.get(number)) {
            figures.note(time);
        }
        self.tail = Tail { bytes: std::mem::take(&mut self.tail.bytes), ..figures };
    }

    fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.tail.rows == 0
    }

    /// The same series without rows, and with the memory in which its next ones are made.
    fn successor(&mut self) -> Self {
        let first = self.pieces.first().map_or(self.tail.bytes.len(), |piece| piece.bytes.len());
        let base = if self.is_empty() { Base::default() } else { std::mem::take(&mut self.base) };
        Self { base, usual: u16::try_from(first + 64).unwrap_or(u16::MAX), ..Self::default() }
    }

    /// The pieces that reach into `from..=to`; the open one is copied.
    pub(crate) fn pieces(&self, from: i64, to: i64) -> Vec<Piece> {
        let touched = |piece: &&Piece| piece.first <= to && piece.last >= from.max(piece.from);
        let mut pieces: Vec<Piece> = self.pieces.iter().filter(touched).cloned().collect();
        if self.tail.rows > 0 && self.tail.first <= to && self.tail.last >= from {
            pieces.push(self.tail.seal());
        }
        pieces
    }

    /// First and last time.
    pub(crate) fn span(&self) -> Option<Range<i64>> {
        let sealed = self.pieces.iter().map(|piece| (piece.first, piece.last));
        let tail = (self.tail.rows > 0).then_some((self.tail.first, self.tail.last));
        sealed.chain(tail).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).map(|(first, last)| first..last)
    }

    fn rows(&self) -> u64 {
        self.pieces.iter().map(|piece| u64::from(piece.rows)).sum::<u64>() + u64::from(self.tail.rows)
    }

    fn drop_before(&mut self, time: i64, shapes: &Shapes) {
        self.seal();
        self.epoch = 0;
        self.pieces.retain_mut(|piece| {
            if piece.first < time && piece.last >= time {
                piece.cut(time, shapes);
            }
            piece.last >= time
        });
    }

    /// The memory it takes beside itself.
    fn bytes(&self) -> usize {
        let pieces = self.pieces.iter().map(|piece| piece.bytes.len() + size_of::<Piece>()).sum::<usize>();
        pieces + self.tail.bytes.capacity() + self.base.bytes()
    }
}

impl Piece {
    pub(crate) const fn span(&self) -> (i64, i64) {
        (self.first, self.last)
    }

    /// Adds the rows that are not dropped, with the fields that are wanted.
    pub(crate) fn read(
        &self,
        table: &mut Table,
        shapes: &Shapes,
        wanted: impl Fn(u32) -> bool,
    ) -> Result<(), Damaged> {
        if self.first >= self.from {
            return read_rows((&self.bytes, self.rows as usize), table, |number| shapes.get(number), wanted);
        }
        let mut all = Table::default();
        read_rows((&self.bytes, 0), &mut all, |number| shapes.get(number), wanted)?;
        // Dropping is by whole days: the rows that are left are few or many, but this happens once a day.
        let kept = Table::merge(vec![all]).between(self.from, i64::MAX);
        *table = Table::merge(vec![std::mem::take(table), kept]);
        Ok(())
    }

    fn times(&self, shapes: &Shapes) -> Vec<i64> {
        let mut table = Table::default();
        // What is in memory has been read or written before.
        let _ = self.read(&mut table, shapes, |_| false);
        table.times
    }

    fn cut(&mut self, time: i64, shapes: &Shapes) {
        self.from = time;
        let kept = self.times(shapes);
        self.rows = kept.len() as u32;
        // `first` stays before `from`: a piece that was cut is always read by the slow way above.
    }

    fn fields(&self, shapes: &Shapes, fields: &mut BTreeSet<u32>) {
        let mut rows = RowReader::new(&self.bytes);
        while let Ok(Some((time, shape))) = rows.next(|number| shapes.get(number)) {
            if time >= self.from {
                fields.extend(shape.fields.iter().map(|(field, _)| *field));
            }
        }
    }
}

/// The shapes of the rows of a head, by number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shapes {
    list: Vec<Arc<Shape>>,
    numbers: HashMap<u32, HashMap<ShapeFields, u32>>,
}

impl Shapes {
    #[inline]
    pub(crate) fn get(&self, number: u32) -> Option<&Shape> {
        self.list.get(number as usize).map(|shape| &**shape)
    }

    fn find(&self, measurement: u32, fields: &[(u32, FieldType)]) -> Option<u32> {
        self.numbers.get(&measurement)?.get(fields).copied()
    }

    fn add(&mut self, measurement: u32, fields: &[(u32, FieldType)]) -> u32 {
        let number = self.list.len() as u32;
        self.list.push(Arc::new(Shape::new(measurement, fields.into())));
        self.numbers.entry(measurement).or_default().insert(fields.into(), number);
        number
    }
}

/// All rows in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    /// By the number of the series, which are dense.
    series: Vec<SeriesHead>,
    pub(crate) shapes: Arc<Shapes>,
    rows: u64,
}

impl Head {
    /// A series, empty where it is new.
    #[inline]
    pub(crate) fn series_mut(&mut self, id: SeriesId) -> &mut SeriesHead {
        let index = id.0 as usize;
        if self.series.len() <= index {
            self.series.resize_with(index + 1, SeriesHead::default);
        }
        &mut self.series[index]
    }

    /// Begins to load what is needed of the series that come next and after it: first where its parts are, then, when
    /// that has arrived, the parts.
    #[inline]
    pub(crate) fn prefetch(&self, next: SeriesId, after: SeriesId) {
        if let Some(series) = self.series.get(after.0 as usize) {
            prefetch(std::slice::from_ref(series));
        }
        if let Some(series) = self.series.get(next.0 as usize) {
            series.base.prefetch();
            let bytes = &series.tail.bytes;
            prefetch(bytes.get(bytes.len().saturating_sub(1)..).unwrap_or_default());
        }
    }

    /// The shapes, and a series to write to.
    #[inline]
    pub(crate) fn shapes_and_series(&mut self, id: SeriesId) -> (&Shapes, &mut SeriesHead) {
        self.series_mut(id);
        (&self.shapes, &mut self.series[id.0 as usize])
    }

    pub(crate) fn get(&self, id: SeriesId) -> Option<&SeriesHead> {
        self.series.get(id.0 as usize).filter(|series| !series.is_empty())
    }

    pub(crate) fn intern(&mut self, measurement: u32, fields: &[(u32, FieldType)]) -> u32 {
        match self.shapes.find(measurement, fields) {
            Some(number) => number,
            // Copies the list if a reader holds it: only when a shape is new.
            None => Arc::make_mut(&mut self.shapes).add(measurement, fields),
        }
    }

    /// Rows were added to the series directly.
    #[inline]
    pub(crate) const fn count(&mut self, rows: u64) {
        self.rows += rows;
    }

    pub(crate) const fn rows(&self) -> u64 {
        self.rows
    }

    /// For how many series there is room: those that have or had rows.
    pub(crate) const fn series_count(&self) -> usize {
        self.series.len()
    }

    /// The head as it is, to be packed; what stays is empty.
    pub(crate) fn freeze(&mut self) -> Self {
        let series = self.series.iter_mut().map(SeriesHead::successor).collect();
        std::mem::replace(self, Self { series, ..Self::default() })
    }

    /// Takes rows back, the newest first.
    pub(crate) fn undo(&mut self, undos: &[Undo]) {
        let shapes = Arc::clone(&self.shapes);
        for undo in undos.iter().rev() {
            self.series_mut(undo.series).undo(undo, &shapes);
        }
        self.rows -= undos.len() as u64;
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = SeriesId> {
        let filled = self.series.iter().enumerate().filter(|(_, series)| !series.is_empty());
        filled.map(|(index, _)| SeriesId(index as u64))
    }

    /// The span of times of a series.
    pub(crate) fn span(&self, series: SeriesId) -> Option<Range<i64>> {
        self.get(series)?.span()
    }

    /// The rows of a series, by time.
    pub(crate) fn table(&self, series: SeriesId, wanted: impl Fn(u32) -> bool) -> Result<Table, Damaged> {
        let Some(series) = self.get(series) else { return Ok(Table::default()) };
        join(&series.pieces(i64::MIN, i64::MAX), &self.shapes, wanted)
    }

    /// The fields that occur in the rows of a series.
    pub(crate) fn fields(&self, series: SeriesId) -> BTreeSet<u32> {
        let mut fields = BTreeSet::new();
        if let Some(series) = self.get(series) {
            series
                .pieces(i64::MIN, i64::MAX)
                .iter()
                .for_each(|piece| piece.fields(&self.shapes, &mut fields));
        }
        fields
    }

    /// Drops the rows of these series that are earlier than `time`.
    pub(crate) fn drop_before(&mut self, series: &BTreeSet<SeriesId>, time: i64) {
        let shapes = Arc::clone(&self.shapes);
        for id in series {
            let Some(series) = self.series.get_mut(id.0 as usize) else { continue };
            if series.span().is_none_or(|span| span.start >= time) {
                continue;
            }
            let before = series.rows();
            series.drop_before(time, &shapes);
            self.rows -= before - series.rows();
        }
    }

    /// Drops all rows of these series.
    pub(crate) fn drop_series(&mut self, series: &BTreeSet<SeriesId>) {
        for id in series {
            if let Some(series) = self.series.get_mut(id.0 as usize) {
                self.rows -= std::mem::take(series).rows();
            }
        }
    }

    /// The memory it takes, in bytes, about.
    pub(crate) fn bytes(&self) -> usize {
        self.series.len() * size_of::<SeriesHead>() + self.series.iter().map(SeriesHead::bytes).sum::<usize>()
    }
}

/// Reads pieces that follow each other into one table, by time.
pub(crate) fn join(
    pieces: &[Piece],
    shapes: &Shapes,
    wanted: impl Fn(u32) -> bool,
) -> Result<Table, Damaged> {
    let mut table = Table::default();
    table.times.reserve(pieces.iter().map(|piece| piece.rows as usize).sum());
    pieces.iter().try_for_each(|piece| piece.read(&mut table, shapes, &wanted))?;
    Ok(if table.ascends() { table } else { Table::merge(vec![table]) })
}
