//! What is deleted of a segment, whose file never changes: ranges of time of its series, left out wherever it is read.
//!
//! Owns these ranges in memory. What is noted on disk is `deletion`'s; a merge writes what is left into a new file.

use crate::catalog::SeriesId;
use crate::error::ScanError;
use crate::index::BlockPlace;
use crate::segment::Segment;
use crate::table::Table;
use hashbrown::HashMap;
use std::sync::Arc;

/// What is deleted of one series of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cut {
    /// First and last time of what is gone, ascending and apart.
    ranges: Vec<(i64, i64)>,
    /// The latest time that is left; `None` where nothing is.
    last: Option<i64>,
}

/// What is deleted of a segment, by series.
pub(crate) type Cuts = HashMap<SeriesId, Arc<Cut>>;

impl Cut {
    /// Whether all times from `first` to `last` are gone.
    pub(crate) fn covers(&self, first: i64, last: i64) -> bool {
        self.ranges.iter().any(|range| range.0 <= first && last <= range.1)
    }

    /// Whether some time from `first` to `last` is gone.
    pub(crate) fn touches(&self, first: i64, last: i64) -> bool {
        self.ranges.iter().any(|range| range.0 <= last && first <= range.1)
    }

    fn add(&mut self, from: i64, to: i64) {
        self.ranges.push((from, to));
        self.ranges.sort_unstable();
        let mut joined: Vec<(i64, i64)> = Vec::new();
        for &(from, to) in &self.ranges {
            match joined.last_mut() {
                Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
                _ => joined.push((from, to)),
            }
        }
        self.ranges = joined;
    }

    /// The rows that are left.
    pub(crate) fn apply(&self, table: Table) -> Table {
        let (Some(first), Some(last)) = (table.times.first(), table.times.last()) else { return table };
        if !self.touches(*first, *last) {
            return table;
        }
        let mut left = Vec::new();
        let mut start = 0;
        for (from, to) in &self.ranges {
            let end = table.times.partition_point(|time| time < from);
            if start < end {
                left.push(table.slice(start, end));
            }
            start = start.max(table.times.partition_point(|time| time <= to));
        }
        if start < table.times.len() {
            left.push(table.slice(start, table.times.len()));
        }
        Table::merge(left)
    }
}

impl Segment {
    /// What is deleted of a series.
    pub(crate) fn cut(&self, id: SeriesId) -> Option<Arc<Cut>> {
        self.cuts().get(&id).cloned()
    }

    /// Whether something is deleted of a series between two times.
    pub(crate) fn is_cut(&self, id: SeriesId, first: i64, last: i64) -> bool {
        self.cut(id).is_some_and(|cut| cut.touches(first, last))
    }

    /// Whether anything is left of a series that is in the segment.
    pub(crate) fn has_rows(&self, id: SeriesId) -> bool {
        self.cut(id).is_none_or(|cut| cut.last.is_some())
    }

    /// The latest time of a series.
    pub(crate) fn last_of(&self, id: SeriesId) -> Option<i64> {
        match self.cut(id) {
            Some(cut) => cut.last,
            None => self.series()[self.find(id)?].blocks.last().map(|block| block.last),
        }
    }

    /// Whether a series has blocks between two times of which something is not deleted yet.
    pub(crate) fn has_uncut(&self, id: SeriesId, from: i64, to: i64) -> bool {
        let Some(at) = self.find(id) else { return false };
        let cut = self.cut(id);
        let done = |first: i64, last: i64| cut.as_ref().is_some_and(|cut| cut.covers(first, last));
        let mut blocks = self.series()[at].blocks.iter();
        blocks.any(|block| {
            let inside = block.first <= to && from <= block.last;
            inside && !done(block.first.max(from), block.last.min(to))
        })
    }

    /// What is deleted when the times from `from` to `to` of these series are gone too. Reads blocks of which only a
    /// part is.
    pub(crate) fn cuts_with(&self, ids: &[SeriesId], from: i64, to: i64) -> Cuts {
        let mut cuts = Cuts::clone(&self.cuts());
        for id in ids {
            let mut cut = cuts.get(id).map_or_else(Cut::default, |cut| Cut::clone(cut));
            cut.add(from, to);
            cut.last = self.last_left(*id, &cut);
            cuts.insert(*id, Arc::new(cut));
        }
        cuts
    }

    fn last_left(&self, id: SeriesId, cut: &Cut) -> Option<i64> {
        let at = self.find(id)?;
        let blocks = self.series()[at].blocks.iter().enumerate().rev();
        let mut left = blocks.filter(|(_, block)| !cut.covers(block.first, block.last));
        left.find_map(|(index, block)| {
            if !cut.touches(block.first, block.last) {
                return Some(block.last);
            }
            match self.times(at, index, block) {
                Ok(times) => times.into_iter().rev().find(|time| !cut.touches(*time, *time)),
                // What cannot be read may be there.
                Err(_) => Some(block.last),
            }
        })
    }

    fn times(&self, series: usize, block: usize, place: &BlockPlace) -> Result<Vec<i64>, ScanError> {
        debug_assert!(place.rows > 0, "the index was checked");
        let file = self.open()?;
        Ok(self.uncut_table(&*file, series, block, |_| false)?.times)
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn ranges_join_and_rows_outside_are_left() {
        let mut cut = Cut::default();
        for (from, to) in [(10, 20), (40, 50), (21, 30), (i64::MIN, 1)] {
            cut.add(from, to);
        }
        assert_eq!(cut.ranges, [(i64::MIN, 1), (10, 30), (40, 50)]);
        assert!(cut.covers(12, 30) && !cut.covers(30, 40) && cut.touches(30, 39) && !cut.touches(31, 39));
        let times =
            |from: i64, to: i64| cut.apply(Table { times: (from..=to).collect(), columns: vec![] }).times;
        assert_eq!(times(0, 3), [2, 3]);
        assert_eq!(times(8, 42), [8, 9].into_iter().chain(31..=39).collect::<Vec<_>>());
        assert_eq!((times(11, 29).len(), times(51, 55).len()), (0, 5));
    }
}
