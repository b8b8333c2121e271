//! The newest points, in memory: for each series one chunk of rows in order of arrival.
//!
//! Owns rows that are in the log and not yet in a segment. Rows stay in the compact form of `row`, so that the head
//! takes about as much memory as the log takes on disk. Never decides when it is flushed.

use crate::catalog::SeriesId;
use crate::row::Fields;
use hashbrown::HashMap;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// The rows of one series. Invariants: `times` and `ends` are of one length; `ends` ascends and its last is the
/// length of `bytes`; `ascending` holds as long as every time is later than the one before.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    times: Vec<i64>,
    ends: Vec<u32>,
    bytes: Vec<u8>,
    ascending: bool,
}

impl Default for Chunk {
    fn default() -> Self {
        Self { times: Vec::new(), ends: Vec::new(), bytes: Vec::new(), ascending: true }
    }
}

/// Room for `more` items; grows by a quarter and not to the double, because this is where the memory is.
fn grow<T>(vec: &mut Vec<T>, more: usize) {
    if vec.capacity() - vec.len() < more {
        vec.reserve_exact(more.max(vec.len() / 4).max(16));
    }
}

impl Chunk {
    fn push(&mut self, time: i64, row: &[u8]) {
        self.ascending &= self.times.last().is_none_or(|last| *last < time);
        grow(&mut self.times, 1);
        grow(&mut self.ends, 1);
        grow(&mut self.bytes, row.len());
        self.times.push(time);
        self.bytes.extend_from_slice(row);
        self.ends.push(self.bytes.len() as u32);
    }

    pub(crate) fn time(&self, index: u32) -> i64 {
        self.times[index as usize]
    }

    pub(crate) fn row(&self, index: u32) -> &[u8] {
        let index = index as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.bytes[start..self.ends[index] as usize]
    }

    /// Rows from `from` to `to`, both included, by time; rows of one time stay in order of arrival.
    pub(crate) fn order(&self, from: i64, to: i64) -> Vec<u32> {
        if self.ascending {
            let start = self.times.partition_point(|time| *time < from) as u32;
            let end = self.times.partition_point(|time| *time <= to) as u32;
            return (start..end).collect();
        }
        let inside = |index: &u32| (from..=to).contains(&self.time(*index));
        let mut order: Vec<u32> = (0..self.times.len() as u32).filter(inside).collect();
        order.sort_by_key(|index| self.time(*index));
        order
    }

    /// The fields that occur in the given rows.
    pub(crate) fn fields_in(&self, rows: &[u32]) -> BTreeSet<u32> {
        let fields = rows.iter().flat_map(|index| Fields::of(self.row(*index)));
        fields.filter_map(|field| field.ok().map(|(number, _)| number)).collect()
    }

    pub(crate) fn times(&self) -> &[i64] {
        &self.times
    }

    fn without_before(&self, time: i64) -> Self {
        let mut kept = Self::default();
        for index in 0..self.times.len() as u32 {
            if self.time(index) >= time {
                kept.push(self.time(index), self.row(index));
            }
        }
        kept
    }
}

/// All chunks. A reader holds a chunk by its `Arc`; a writer that meets such a reader copies the chunk first,
/// so neither waits for the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    chunks: HashMap<SeriesId, Arc<Chunk>>,
    rows: u64,
}

impl Head {
    pub(crate) fn push(&mut self, series: SeriesId, time: i64, row: &[u8]) {
        Arc::make_mut(self.chunks.entry(series).or_default()).push(time, row);
        self.rows += 1;
    }

    pub(crate) fn chunk(&self, series: SeriesId) -> Option<&Arc<Chunk>> {
        self.chunks.get(&series)
    }

    pub(crate) fn chunks(&self) -> impl Iterator<Item = (SeriesId, &Arc<Chunk>)> {
        self.chunks.iter().map(|(id, chunk)| (*id, chunk))
    }

    pub(crate) const fn rows(&self) -> u64 {
        self.rows
    }

    /// The span of times of a series.
    pub(crate) fn span(&self, series: SeriesId) -> Option<Range<i64>> {
        let times = self.chunks.get(&series)?.times();
        Some(*times.iter().min()?..*times.iter().max()?)
    }

    /// Drops the rows of these series that are earlier than `time`.
    pub(crate) fn drop_before(&mut self, series: &BTreeSet<SeriesId>, time: i64) {
        for id in series {
            let Some(chunk) = self.chunks.get_mut(id) else { continue };
            let kept = chunk.without_before(time);
            self.rows -= (chunk.times.len() - kept.times.len()) as u64;
            if kept.times.is_empty() {
                self.chunks.remove(id);
            } else {
                *chunk = Arc::new(kept);
            }
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn times(chunk: &Chunk, order: &[u32]) -> Vec<(i64, u8)> {
        order.iter().map(|index| (chunk.time(*index), chunk.row(*index)[0])).collect()
    }

    #[test]
    fn rows_come_out_by_time_and_of_one_time_by_arrival() {
        let mut head = Head::default();
        for (time, byte) in [(10, 0), (20, 1), (30, 2)] {
            head.push(SeriesId(1), time, &[byte]);
        }
        let chunk = Arc::clone(head.chunk(SeriesId(1)).unwrap());
        assert_eq!(times(&chunk, &chunk.order(20, 30)), [(20, 1), (30, 2)]);
        head.push(SeriesId(1), 20, &[3]);
        head.push(SeriesId(1), 5, &[4]);
        let after = head.chunk(SeriesId(1)).unwrap();
        assert_eq!(times(after, &after.order(5, 20)), [(5, 4), (10, 0), (20, 1), (20, 3)]);
        assert_eq!(chunk.times().len(), 3, "a reader keeps what it took");
    }

    #[test]
    fn dropping_leaves_later_rows_and_no_empty_chunks() {
        let mut head = Head::default();
        head.push(SeriesId(1), 10, &[0]);
        head.push(SeriesId(1), 20, &[1]);
        head.push(SeriesId(2), 10, &[2]);
        head.drop_before(&BTreeSet::from([SeriesId(1), SeriesId(2)]), 15);
        assert_eq!((head.rows(), head.chunks().count()), (1, 1));
        assert_eq!(head.span(SeriesId(1)), Some(20..20));
        head.drop_before(&BTreeSet::from([SeriesId(1)]), 25);
        assert_eq!((head.rows(), head.chunks().count()), (0, 0));
    }
}
