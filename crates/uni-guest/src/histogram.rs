//! How values are distributed, in bounded memory.
//!
//! Owns the buckets: values 0 to 7 exactly, then 8 of equal width in each doubling, up to 2^64 - 1 (496 in all). A
//! bucket is at most an eighth as wide as its lower bound, so a quantile taken for its bucket's upper end is too
//! large by less than 12.5 %, and never too small. Two histograms merge by adding their buckets: the result is the
//! histogram of the union. Recording never allocates, locks or panics.

use alloc::boxed::Box;
use alloc::vec;

use crate::source::Gate;
use crate::stripe::{Apart, Striped};

/// Buckets in a doubling, as a power of two.
const SUB_BITS: u32 = 3;
const SUB_BUCKETS: usize = 1 << SUB_BITS;
/// Buckets of a histogram.
pub const BUCKETS: usize = SUB_BUCKETS * (65 - SUB_BITS as usize);
/// After the buckets: the sum of all values.
const SUM: usize = BUCKETS;
const NUMBERS: usize = BUCKETS + 1;

/// The bucket of a value.
#[inline]
const fn bucket_of(value: u64) -> usize {
    if value < SUB_BUCKETS as u64 {
        return value as usize;
    }
    let doubling = value.ilog2() - SUB_BITS;
    // The highest four bits: 8 to 15.
    let digits = (value >> doubling) as usize;
    doubling as usize * SUB_BUCKETS + digits
}

/// The lowest and the highest value of a bucket; one beyond the last counts as the last.
#[must_use]
pub const fn bucket_bounds(bucket: usize) -> (u64, u64) {
    let bucket = if bucket < BUCKETS { bucket } else { BUCKETS - 1 };
    if bucket < 2 * SUB_BUCKETS {
        return (bucket as u64, bucket as u64);
    }
    let doubling = bucket / SUB_BUCKETS - 1;
    let low = ((SUB_BUCKETS + bucket % SUB_BUCKETS) as u64) << doubling;
    (low, low + ((1 << doubling) - 1))
}

/// The place, from 1, of a quantile among `count` sorted values: the nearest rank.
fn rank(permille: u16, count: u64) -> u64 {
    let rank = (u128::from(count) * u128::from(permille.min(1000))).div_ceil(1000);
    // Not more than `count`.
    u64::try_from(rank).unwrap_or(count).max(1)
}

/// Counts values by size, while its source is on: durations in nanoseconds, sizes in bytes. Any `u64` is in range;
/// the sum wraps at 2^64. 4 KiB, and as much again for each of eight threads with the feature `std`.
///
/// Follows no source of MirageOS, which has none; the buckets are those of HDR histograms.
#[derive(Debug)]
pub struct Histogram {
    gate: Apart<Gate>,
    numbers: Striped<NUMBERS>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// An empty histogram, off until its source is turned on.
    #[must_use]
    pub const fn new() -> Self {
        Self { gate: Apart(Gate::new()), numbers: Striped::new() }
    }

    /// Counts `value`.
    #[inline]
    pub fn record(&self, value: u64) {
        if self.gate.0.is_on() {
            let cell = self.numbers.cell();
            cell.add(bucket_of(value), 1);
            cell.add(SUM, value);
        }
    }

    /// What was recorded since boot, by all threads.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        self.numbers.add_sums(&mut snapshot.counts);
        snapshot.sum = self.numbers.sum(SUM);
        snapshot
    }

    pub(crate) const fn gate(&self) -> &Gate {
        &self.gate.0
    }
}

/// What a histogram held at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    counts: Box<[u64]>,
    sum: u64,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS].into(), sum: 0 }
    }
}

impl Snapshot {
    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.wrapping_add(*count))
    }

    /// The sum of all values; wraps at 2^64.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// An upper bound of the smallest `permille` thousandths of all values (500: the median), less than 12.5 % above
    /// the exact one; `None` if there are no values. 1000, or more, asks for the largest.
    #[must_use]
    pub fn quantile(&self, permille: u16) -> Option<u64> {
        let rank = rank(permille, self.count());
        let mut seen = 0_u64;
        let reached = |of_bucket: &u64| {
            seen = seen.wrapping_add(*of_bucket);
            seen >= rank
        };
        self.counts.iter().position(reached).map(|bucket| bucket_bounds(bucket).1)
    }

    /// Adds what another histogram holds.
    pub fn merge(&mut self, other: &Self) {
        self.combine(other, u64::wrapping_add);
    }

    /// What was added since `earlier`, a snapshot of the same histogram.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut new = self.clone();
        new.combine(earlier, u64::wrapping_sub);
        new
    }

    /// How many values lie in each doubling that has any: the doubling's lowest value (0, 1, 2, 4, ...), its highest,
    /// and the count.
    pub fn doublings(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        let bits = (0..=64_u32).map(|bits| match bits {
            0 => (0, 0),
            64 => (1 << 63, u64::MAX),
            bits => (1 << (bits - 1), (1 << bits) - 1),
        });
        bits.map(|(low, high)| {
            let buckets = self.counts.get(bucket_of(low)..=bucket_of(high)).unwrap_or_default();
            (low, high, buckets.iter().fold(0, |sum: u64, count| sum.wrapping_add(*count)))
        })
        .filter(|(.., count)| *count > 0)
    }

    fn combine(&mut self, other: &Self, with: fn(u64, u64) -> u64) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(mine, theirs)| *mine = with(*mine, *theirs));
        self.sum = with(self.sum, other.sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn filled(values: &[u64]) -> Snapshot {
        let histogram = Box::new(Histogram::new());
        histogram.gate().set(true);
        values.iter().for_each(|value| histogram.record(*value));
        histogram.snapshot()
    }

    /// All sizes of values, not only the largest.
    fn value() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0_u32..64).prop_map(|(value, shift)| value >> shift)
    }

    #[test]
    fn buckets_follow_each_other_without_gap_to_the_end() {
        let mut next = 0_u64;
        for bucket in 0..BUCKETS {
            let (low, high) = bucket_bounds(bucket);
            assert_eq!((low, bucket_of(low), bucket_of(high)), (next, bucket, bucket));
            next = high.wrapping_add(1);
        }
        assert_eq!(next, 0, "the last bucket ends at 2^64 - 1");
    }

    #[test]
    fn an_empty_histogram_has_no_quantile() {
        assert_eq!(Snapshot::default().quantile(500), None);
        assert_eq!(Snapshot::default().doublings().count(), 0);
    }

    proptest! {
        #[test]
        fn a_quantile_is_at_most_an_eighth_too_large(
            mut values in prop::collection::vec(value(), 1..200), permille in 0..=1000_u16,
        ) {
            let answer = filled(&values).quantile(permille).expect("not empty");
            values.sort_unstable();
            let rank = (usize::from(permille) * values.len()).div_ceil(1000).max(1);
            let exact = values[rank - 1];
            prop_assert!(answer >= exact);
            prop_assert!(u128::from(answer - exact) * 8 <= u128::from(exact), "{answer} for {exact}");
        }

        #[test]
        fn a_merge_is_the_histogram_of_the_union_and_since_undoes_it(
            a in prop::collection::vec(value(), 0..100), b in prop::collection::vec(value(), 0..100),
        ) {
            let union: Vec<u64> = a.iter().chain(&b).copied().collect();
            let (a, b) = (filled(&a), filled(&b));
            let mut merged = a.clone();
            merged.merge(&b);
            prop_assert_eq!(&merged, &filled(&union));
            prop_assert_eq!(merged.since(&a), b);
        }

        #[test]
        fn doublings_hold_every_value_once(values in prop::collection::vec(value(), 0..100)) {
            let snapshot = filled(&values);
            for (low, high, count) in snapshot.doublings() {
                prop_assert_eq!(values.iter().filter(|v| (low..=high).contains(v)).count() as u64, count);
            }
            prop_assert_eq!(snapshot.doublings().map(|(.., count)| count).sum::<u64>(), values.len() as u64);
            prop_assert_eq!(snapshot.count(), values.len() as u64);
        }
    }
}
