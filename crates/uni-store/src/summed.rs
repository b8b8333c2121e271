//! Reading windows where they may stand for rows, and rows everywhere else.
//!
//! Owns the rule when they may. A tier stands for the rows of a series in its partition if it was made of all segments
//! that have the series there, and only where nothing in memory reaches into the window; and by itself where
//! the rows are gone. Beside tiers, blocks that know their values (`spans`). Never decides what a window is good for: who asks may refuse it and gets the rows.

use crate::catalog::SeriesId;
use crate::error::ScanError;
use crate::read::Places;
use crate::segment::Segment;
use crate::selection::Selection;
use crate::state::{Database, partition_of, partition_span};
use crate::store::Store;
use crate::tier::{Tier, WindowSummary, Windows, field_of, is_number};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use uni_wire::{FieldType, FieldValue, Timestamp};

/// Windows refused in a row, after which no more are offered: who asks needs the rows.
const MOST_REFUSED: u32 = 2;

/// The windows of a query, in nanoseconds: they begin at multiples of `every`, moved by `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Length of a window, above zero.
    pub every: i64,
    /// What the windows are moved by.
    pub offset: i64,
}

/// A row, or what many rows add up to.
#[derive(Clone, Copy, Debug)]
pub enum Summed<'a> {
    /// A row: its time and the values of the fields asked for.
    Row(Timestamp, &'a [Option<FieldValue>]),
    /// A window that lies in one window of the query (if [`WindowSummary::is_all`], that begins in one).
    Window(&'a WindowSummary),
}

/// Gets rows and windows; says whether it wants more, and of a window whether it took it. One that is not taken comes
/// again as rows, unless it is all there is.
pub type SummedVisitor<'a> = dyn FnMut(Summed<'_>) -> ControlFlow<(), bool> + 'a;

/// Tiers that have a series, each with the series' place in it; the coarsest first.
type Levels = Vec<(Arc<Tier>, usize)>;

/// What a partition has besides rows.
#[derive(Debug, Default)]
struct Offer {
    /// Stand for its rows.
    live: Levels,
    /// Stand by themselves, by the number they share.
    kept: BTreeMap<u64, Levels>,
}

impl Store {
    /// As [`Store::scan`], for who adds values up by the windows of `grid` (`None`: all together): offers windows that
    /// were added up before in place of their rows, and where rows are gone what is left of them. Rows and windows
    /// come by ascending time, but for windows of rows that are gone, which come after the rows of their partition.
    ///
    /// # Errors
    /// As [`Store::scan`].
    pub fn scan_summed(
        &self,
        database: &str,
        series: SeriesId,
        fields: &[&str],
        (from, to): (Timestamp, Timestamp),
        grid: Option<Grid>,
        visit: &mut SummedVisitor<'_>,
    ) -> Result<(), ScanError> {
        let (from, to) = (from.nanos(), to.nanos());
        if from > to {
            return Ok(());
        }
        let (places, wanted, of_numbers, offers) = {
            let state = self.read_state();
            let known = state.databases.get(database);
            let known = known.ok_or_else(|| ScanError::NoDatabase { database: database.to_owned() })?;
            let Some(entry) = known.catalog.get(series) else { return Ok(()) };
            let number = |name: &&str| known.catalog.field_number(&entry.measurement, name);
            let wanted: Vec<Option<u32>> = fields.iter().map(number).collect();
            let all = known.catalog.fields_by_number(&entry.measurement);
            let typed = |number: &u32| Some((*number, all.get(*number as usize)?.field_type));
            let wanted: Vec<_> = wanted.iter().map(|number| number.as_ref().and_then(typed)).collect();
            let of_numbers = wanted.iter().flatten().all(|(_, field_type)| is_number(*field_type));
            let places = Places::of(&state, known, series, (from, to), self.partition_seconds);
            let offers = self.offers(known, series, (from, to), of_numbers);
            (places, wanted, of_numbers, offers)
        };
        let numbers: Vec<Option<u32>> = wanted.iter().map(|field| field.map(|(number, _)| number)).collect();
        let selection = Selection::new(&numbers);
        let mut reading = Reading {
            store: self,
            places,
            selection,
            numbers,
            wanted,
            of_numbers,
            grid,
            range: (from, to),
            visit,
            refused: 0,
            stopped: false,
            fault: None,
        };
        let mut at = from;
        for (start_s, offer) in offers {
            let (first, last) = partition_span(start_s, self.partition_seconds);
            reading.rows(at, first.saturating_sub(1));
            reading.partition((first, last), (first.max(from), last.min(to)), &offer);
            match last.checked_add(1) {
                Some(after) => at = after,
                None => return reading.finish(),
            }
        }
        reading.rows(at, to);
        reading.finish()
    }

    /// What tiers offer of a series, by partition.
    fn offers(
        &self,
        database: &Database,
        series: SeriesId,
        (from, to): (i64, i64),
        of_numbers: bool,
    ) -> BTreeMap<i64, Offer> {
        let seconds = self.partition_seconds;
        let mut offers = BTreeMap::new();
        for (start_s, tiers) in database.tiers.range(partition_of(from, seconds)..=partition_of(to, seconds))
        {
            let segments = database.partitions.get(start_s).map_or(&[][..], Vec::as_slice);
            let last = segments.iter().filter(|segment| segment.find(series).is_some());
            let last = last.map(|segment| segment.number()).max();
            let is_cut = segments.iter().any(|segment| segment.cut(series).is_some());
            let mut offer = Offer::default();
            for tier in tiers {
                let Some(place) = tier.segment.find(series) else { continue };
                let (number, one) = (tier.segment.number(), (Arc::clone(tier), place));
                if tier.kept || (segments.is_empty() && tier.outlives) {
                    offer.kept.entry(number).or_default().push(one);
                } else if of_numbers && !is_cut && last.is_some_and(|last| last <= number) {
                    offer.live.push(one);
                }
            }
            let coarsest_first = |levels: &mut Levels| {
                levels.sort_by_key(|(tier, _)| std::cmp::Reverse(tier.width));
            };
            coarsest_first(&mut offer.live);
            offer.kept.values_mut().for_each(coarsest_first);
            if !offer.live.is_empty() || !offer.kept.is_empty() {
                offers.insert(*start_s, offer);
            }
        }
        offers
    }
}

/// One call of [`Store::scan_summed`].
struct Reading<'a, 'v> {
    store: &'a Store,
    places: Places,
    selection: Selection,
    numbers: Vec<Option<u32>>,
    wanted: Vec<Option<(u32, FieldType)>>,
    /// All fields that exist have numbers.
    of_numbers: bool,
    grid: Option<Grid>,
    range: (i64, i64),
    visit: &'a mut SummedVisitor<'v>,
    refused: u32,
    stopped: bool,
    fault: Option<ScanError>,
}

impl Reading<'_, '_> {
    fn finish(self) -> Result<(), ScanError> {
        let Some(fault) = self.fault else { return Ok(()) };
        self.store.count_damaged_read();
        Err(fault)
    }

    /// Visits what there is from `from` to `to`, both included: blocks that know what is asked, and rows.
    fn rows(&mut self, from: i64, to: i64) {
        let mut at = from;
        if self.of_numbers && from <= to && !self.stopped {
            for block in self.places.lone_blocks((from, to)) {
                if self.refused >= MOST_REFUSED || !self.in_one_window(block.first, block.last) {
                    continue;
                }
                let Some(window) = self.places.window_of(&block, &self.wanted) else { continue };
                self.unsummed(at, block.first.saturating_sub(1));
                at = block.first;
                if self.offer(&window) {
                    let Some(after) = block.last.checked_add(1) else { return };
                    at = after;
                }
            }
        }
        self.unsummed(at, to);
    }

    fn in_one_window(&self, first: i64, last: i64) -> bool {
        self.grid.is_none_or(|Grid { every, offset }| {
            let start =
                |time: i64| (i128::from(time) - i128::from(offset)).div_euclid(i128::from(every.max(1)));
            start(first) == start(last)
        })
    }

    /// Visits the rows from `from` to `to`, both included.
    fn unsummed(&mut self, from: i64, to: i64) {
        if from > to || self.stopped {
            return;
        }
        let mut merge = self.places.merge(self.selection.clone(), from, to);
        let mut row = vec![None; merge.width()];
        while let Some(time) = merge.next(&mut row) {
            if row.iter().any(Option::is_some) && (self.visit)(Summed::Row(Timestamp(time), &row)).is_break()
            {
                self.stopped = true;
                break;
            }
        }
        self.fault = self.fault.take().or_else(|| merge.into_fault());
    }

    /// Visits what a partition, which spans `whole`, has from `from` to `to`.
    fn partition(&mut self, whole: (i64, i64), (from, to): (i64, i64), offer: &Offer) {
        let grid = self.grid;
        let fits = |levels: &Levels| -> Levels {
            levels.iter().filter(|(tier, _)| fits(grid, tier)).cloned().collect()
        };
        let live = fits(&offer.live);
        // `None` at the end of all times.
        let mut rest = Some(from);
        for (first, last) in self.in_memory(from, to) {
            if let Some(at) = rest.filter(|at| *at < first) {
                self.settled(&live, whole, (at, first - 1));
            }
            self.rows(first, last);
            rest = last.checked_add(1);
        }
        if let Some(at) = rest {
            self.settled(&live, whole, (at, to));
        }
        for levels in offer.kept.values() {
            let mut usable = fits(levels);
            if usable.is_empty() {
                // The grid is finer: what is left counts where it begins.
                usable.extend(levels.last().cloned());
            }
            self.kept(&usable, self.range);
        }
    }

    /// The stretches between `from` and `to` that rows in memory reach into, ascending.
    fn in_memory(&self, from: i64, to: i64) -> Vec<(i64, i64)> {
        let spans =
            self.places.pieces.iter().flat_map(|(_, pieces, _)| pieces.iter().map(|piece| piece.span()));
        let mut spans: Vec<(i64, i64)> = spans
            .map(|(first, last)| (first.max(from), last.min(to)))
            .filter(|(first, last)| first <= last)
            .collect();
        spans.sort_unstable();
        spans.dedup_by(|next, so_far| {
            let joined = next.0 <= so_far.1;
            so_far.1 = if joined { so_far.1.max(next.1) } else { so_far.1 };
            joined
        });
        spans
    }

    /// Visits a stretch that nothing in memory reaches into: the windows that lie in it, and the rows beside them.
    fn settled(&mut self, levels: &[(Arc<Tier>, usize)], whole: (i64, i64), (from, to): (i64, i64)) {
        if from > to || self.stopped {
            return;
        }
        let Some((coarsest, finer)) = levels.split_first().filter(|_| self.refused < MOST_REFUSED) else {
            return self.rows(from, to);
        };
        let Some((first, last)) = inside(coarsest.0.width.nanos(), whole, (from, to)) else {
            return self.settled(finer, whole, (from, to));
        };
        self.settled(finer, whole, (from, first.saturating_sub(1)));
        if let Some(left) = self.windows(coarsest, (first, last)) {
            self.rows(left.max(first), last);
        }
        if last < to {
            self.settled(finer, whole, (last + 1, to));
        }
    }

    /// Visits windows whose rows are gone: those that begin between `from` and `to`.
    fn kept(&mut self, levels: &[(Arc<Tier>, usize)], (from, to): (i64, i64)) {
        let Some((coarsest, finer)) = levels.split_first().filter(|_| from <= to && !self.stopped) else {
            return;
        };
        let every = (i64::MIN, i64::MAX);
        let span = if finer.is_empty() {
            Some((from, to))
        } else {
            inside(coarsest.0.width.nanos(), every, (from, to))
        };
        let Some((first, last)) = span else { return self.kept(finer, (from, to)) };
        if from < first {
            self.kept(finer, (from, first - 1));
        }
        self.windows(coarsest, (first, last));
        if last < to {
            self.kept(finer, (last + 1, to));
        }
    }

    /// Offers the windows of a tier that touch `from..=to` (kept ones: that begin there); where one was not taken or
    /// could not be read, answers where it begins.
    fn windows(&mut self, (tier, series): &(Arc<Tier>, usize), (from, to): (i64, i64)) -> Option<i64> {
        let stands_alone = tier.kept || self.is_gone(tier);
        let from = if stands_alone { from } else { floor(from, tier.width.nanos()) };
        let blocks = &tier.segment.series()[*series].blocks;
        let first = blocks.partition_point(|block| block.last < from);
        let end = blocks.partition_point(|block| block.first <= to);
        let mut file = None;
        for block in first..end {
            let opened = match &file {
                Some(file) => Ok(Arc::clone(file)),
                None => tier.segment.open(),
            };
            let wanted = |code: u32| field_of(code).is_none_or(|field| self.selection.slot(field).is_some());
            let read =
                opened.and_then(|opened| tier.segment.table(&**file.insert(opened), *series, block, wanted));
            let table = match read {
                Ok(table) => table,
                Err(error) if stands_alone => {
                    self.fault.get_or_insert(error);
                    continue;
                }
                // The rows are there: they say it themselves.
                Err(_) => return Some(blocks[block].first),
            };
            let windows = Windows::new(table, tier.width, stands_alone, &self.numbers);
            for (row, start) in windows.starts().iter().enumerate() {
                if !(from..=to).contains(start) {
                    continue;
                }
                let Some(window) = windows.window(row) else { return Some(*start) };
                if !self.offer(&window) {
                    return Some(*start);
                }
            }
        }
        None
    }

    fn is_gone(&self, tier: &Tier) -> bool {
        !self
            .places
            .segments
            .iter()
            .any(|(segment, _): &(Arc<Segment>, usize)| segment.start_s() == tier.segment.start_s())
    }

    /// Whether the window was taken, or there is nothing else in its place.
    fn offer(&mut self, window: &WindowSummary) -> bool {
        if self.stopped || window.fields.iter().all(Option::is_none) {
            return true;
        }
        match (self.visit)(Summed::Window(window)) {
            ControlFlow::Break(()) => {
                self.stopped = true;
                true
            }
            ControlFlow::Continue(true) => {
                self.refused = 0;
                true
            }
            ControlFlow::Continue(false) => {
                self.refused += u32::from(!window.is_all);
                window.is_all
            }
        }
    }
}

fn floor(time: i64, width: i64) -> i64 {
    time.saturating_sub(time.rem_euclid(width))
}

/// Whether the windows of a tier lie each in one window of the grid.
fn fits(grid: Option<Grid>, tier: &Tier) -> bool {
    let width = tier.width.nanos();
    grid.is_none_or(|grid| grid.every % width == 0 && grid.offset % width == 0)
}

/// The part of `from..=to` that whole windows fill; at the ends of the partition windows are as short as it is.
fn inside(width: i64, whole: (i64, i64), (from, to): (i64, i64)) -> Option<(i64, i64)> {
    let first = if from == whole.0 || from.rem_euclid(width) == 0 {
        from
    } else {
        floor(from, width).checked_add(width)?
    };
    let last = if to == whole.1 { to } else { floor(to.checked_add(1)?, width).checked_sub(1)? };
    (first <= last).then_some((first, last))
}
