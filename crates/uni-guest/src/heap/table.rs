//! Which blocks are sampled, and what is known of each: a bounded table without locks, and a filter before it.
//!
//! Owns the places. Never allocates after it was made, never waits, and never decides what is sampled.
//!
//! An address has two buckets of eight places: two lines of a cache each. It takes a free place in the first lines of
//! the two, and only then in the second ones; so a table still has room for nearly everybody until it is three quarters
//! full, most places are found in a line or two, and looking in vain costs sixteen loads. The filter spares that: a count
//! for each of many more hashes of addresses, of which nearly all are zero. It is no part of the table and always
//! there, so that a look at it is all that a block costs which is not sampled.
//!
//! Who asks for an address owns the block there: nobody adds or takes the same address at the same time. That
//! the program hands a block from one thread to the other orders what is done here, too.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Places in a bucket, and in one line of a cache.
const BUCKET: usize = 8;
const LINE: usize = 4;
/// Counts of the filter, four for each place of the largest table; its hash has as many bits as a `u16`.
const FILTER_COUNTS: usize = 1 << u16::BITS;
/// A place where nothing is; and one that somebody is about to fill.
const EMPTY: u64 = 0;
const TAKEN: u64 = 1;
/// A count that has come so far stays.
const STUCK: u8 = u8::MAX;

/// The places of sampled blocks.
#[derive(Debug)]
pub(super) struct Table {
    buckets: Vec<Bucket>,
    /// How far a hash is moved to number a bucket.
    shift: u32,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket([Place; BUCKET]);

#[derive(Debug, Default)]
struct Place {
    /// The block's address, [`EMPTY`] or [`TAKEN`].
    address: AtomicU64,
    value: AtomicU64,
}

/// Spreads addresses over 64 bits, the highest best.
pub(super) const fn hash(address: usize) -> u64 {
    (address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Table {
    /// A table of at least `places`, a power of two from 64 on. `None` if there is no memory for it.
    pub(super) fn new(places: usize) -> Option<Self> {
        let count = (places / BUCKET).max(8).next_power_of_two();
        let mut buckets = Vec::new();
        buckets.try_reserve_exact(count).ok()?;
        buckets.resize_with(count, Default::default);
        Some(Self { buckets, shift: u64::BITS - count.trailing_zeros() })
    }

    pub(super) const fn places(&self) -> usize {
        self.buckets.len() * BUCKET
    }

    fn all(&self) -> impl Iterator<Item = &Place> {
        self.buckets.iter().flat_map(|bucket| &bucket.0)
    }

    /// The address's places, by lines, in the order in which they are taken.
    fn lines(&self, address: usize) -> [&[Place]; 4] {
        let hash = hash(address);
        // The second number comes from bits that the first does not use.
        let of = |bits: u64| self.buckets[(bits >> self.shift) as usize].0.split_at(LINE);
        let (first, second) = (of(hash), of(hash.rotate_left(32).wrapping_mul(0xd6e8_feb8_6659_fd93)));
        [first.0, second.0, first.1, second.1]
    }

    /// Takes a place; `fill` says what is known of the block, or nothing, and then the place is free again.
    /// Returns `false` if there is no place, or nothing was known.
    pub(super) fn insert(&self, address: usize, fill: impl FnOnce() -> Option<u64>) -> bool {
        let Some(place) = self.take_place(address) else { return false };
        let known = fill();
        if let Some(value) = known {
            place.value.store(value, Ordering::Relaxed);
        }
        place.address.store(known.map_or(EMPTY, |_| address as u64), Ordering::Release);
        known.is_some()
    }

    fn take_place(&self, address: usize) -> Option<&Place> {
        let (acquire, relaxed) = (Ordering::Acquire, Ordering::Relaxed);
        let take = |place: &&Place| {
            place.address.load(relaxed) == EMPTY
                && place.address.compare_exchange(EMPTY, TAKEN, acquire, relaxed).is_ok()
        };
        self.lines(address).into_iter().find_map(|line| line.iter().find(take))
    }

    /// Takes what is known of the block at `address` out.
    pub(super) fn remove(&self, address: usize) -> Option<u64> {
        let key = address as u64;
        let is_it = |place: &&Place| place.address.load(Ordering::Acquire) == key;
        self.lines(address).into_iter().find_map(|line| line.iter().find(is_it))?.clear(key)
    }

    /// Calls `each` with every block and what is known of it; what it returns is known from then on, or the block is
    /// taken out. What others add or take meanwhile may be seen or not. `changed` hears what was done.
    pub(super) fn retain(
        &self,
        mut each: impl FnMut(u64) -> Option<u64>,
        mut changed: impl FnMut(usize, u64, Option<u64>),
    ) {
        for place in self.all() {
            let key = place.address.load(Ordering::Acquire);
            if key <= TAKEN {
                continue;
            }
            let known = place.value.load(Ordering::Relaxed);
            let kept = each(known);
            let relaxed = Ordering::Relaxed;
            let is_done = match kept {
                Some(value) if value == known => continue,
                Some(value) => place.value.compare_exchange(known, value, relaxed, relaxed).is_ok(),
                None => place.clear(key).is_some(),
            };
            if is_done {
                changed(key as usize, known, kept);
            }
        }
    }

    /// Calls `each` with what is known of every block, as far as nobody changes it meanwhile.
    pub(super) fn for_each(&self, mut each: impl FnMut(u64)) {
        for place in self.all() {
            let key = place.address.load(Ordering::Acquire);
            let value = place.value.load(Ordering::Acquire);
            if key > TAKEN && place.address.load(Ordering::Relaxed) == key {
                each(value);
            }
        }
    }
}

impl Place {
    /// Of two who take the same block out, one gets it.
    fn clear(&self, key: u64) -> Option<u64> {
        let value = self.value.load(Ordering::Relaxed);
        self.address.compare_exchange(key, EMPTY, Ordering::AcqRel, Ordering::Relaxed).ok().map(|_| value)
    }
}

/// How many sampled blocks have a hash; zero says for certain that a block is not sampled.
#[derive(Debug)]
pub(super) struct Filter {
    counts: [AtomicU8; FILTER_COUNTS],
}

impl Filter {
    pub(super) const fn new() -> Self {
        Self { counts: [const { AtomicU8::new(0) }; FILTER_COUNTS] }
    }

    /// Blocks that lie together are counted together: a program frees mostly where it has been lately, and so few lines of
    /// the filter are in its cache. That is the factor's 4096, the distance of 16 bytes; the rest of it spreads blocks
    /// that lie on round addresses. 32 bits of an address are enough, and one multiplication.
    fn count(&self, address: usize) -> &AtomicU8 {
        const FACTOR: u32 = 4096 + 611;
        let hash = (address as u32).wrapping_mul(FACTOR) >> u16::BITS;
        &self.counts[usize::from(hash as u16)]
    }

    #[inline]
    pub(super) fn may_have(&self, address: usize) -> bool {
        self.count(address).load(Ordering::Relaxed) != 0
    }

    /// Before a block is added.
    pub(super) fn add(&self, address: usize) {
        self.change(address, |count| count.checked_add(1));
    }

    /// After a block was taken out.
    pub(super) fn subtract(&self, address: usize) {
        self.change(address, |count| if count == STUCK { None } else { count.checked_sub(1) });
    }

    fn change(&self, address: usize, change: impl Fn(u8) -> Option<u8>) {
        // A count that does not fit stays as it is.
        let _ = self.count(address).fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::chance::next;

    /// Blocks of one size side by side, as allocators lay them: an eighth is sampled, 8192 at most.
    #[test]
    fn few_blocks_pass_the_filter_in_vain_wherever_they_lie() {
        for stride in (4..=16).map(|power| 1 << power).chain([48, 80, 528, 1040, 4112]) {
            let (filter, mut chance) = (Filter::new(), 1);
            let blocks = ((64 << 20) / stride).min(65_536);
            let mut in_vain = Vec::new();
            for block in 0..blocks {
                let address = 0x7f12_3450_0000 + block * stride;
                if next(&mut chance).is_multiple_of(8) {
                    filter.add(address);
                } else {
                    in_vain.push(address);
                }
            }
            let passed = in_vain.iter().filter(|address| filter.may_have(**address)).count();
            assert!(passed * 5 < in_vain.len(), "{passed} of {} at a stride of {stride}", in_vain.len());
        }
    }
}
