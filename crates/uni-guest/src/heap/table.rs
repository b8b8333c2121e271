//! Which blocks are sampled, and what is known of each: a bounded table without locks, and a filter before it.
//!
//! Owns the places. Never allocates after it was made, never waits, and never decides what is sampled.
//!
//! An address has two buckets of eight places, of which it takes a free one of the emptier; so a full table still has
//! room for nearly everybody until it is three quarters full, and looking in vain costs sixteen loads. The filter
//! spares that: a count for each of many more hashes of addresses, of which nearly all are zero.
//!
//! Who asks for an address owns the block there: nobody adds or takes the same address at the same time. That
//! the program hands a block from one thread to the other orders what is done here, too.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Places in a bucket: two lines of a cache.
const BUCKET: usize = 8;
/// Counts of the filter for each place.
const FILTER_RATIO: usize = 4;
/// A place where nothing is; and one that somebody is about to fill.
const EMPTY: u64 = 0;
const TAKEN: u64 = 1;
/// A count that has come so far stays.
const STUCK: u8 = u8::MAX;

/// The places of sampled blocks.
#[derive(Debug)]
pub(super) struct Table {
    buckets: Vec<[Place; BUCKET]>,
    /// How far a hash is moved to number a bucket.
    shift: u32,
}

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

    fn buckets(&self, address: usize) -> [&[Place; BUCKET]; 2] {
        let hash = hash(address);
        // The second number comes from bits that the first does not use.
        let of = |bits: u64| &self.buckets[(bits >> self.shift) as usize];
        [of(hash), of(hash.rotate_left(32).wrapping_mul(0xd6e8_feb8_6659_fd93))]
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
        let is_free = |place: &&Place| place.address.load(Ordering::Relaxed) == EMPTY;
        let mut buckets = self.buckets(address);
        let free = |bucket: &[Place; BUCKET]| bucket.iter().filter(is_free).count();
        if free(buckets[0]) < free(buckets[1]) {
            buckets.reverse();
        }
        let (acquire, relaxed) = (Ordering::Acquire, Ordering::Relaxed);
        let take = |place: &&Place| place.address.compare_exchange(EMPTY, TAKEN, acquire, relaxed).is_ok();
        buckets.into_iter().flatten().filter(is_free).find(take)
    }

    /// Takes what is known of the block at `address` out.
    pub(super) fn remove(&self, address: usize) -> Option<u64> {
        let key = address as u64;
        let place =
            self.buckets(address).into_iter().flatten().find(|p| p.address.load(Ordering::Acquire) == key)?;
        place.clear(key)
    }

    /// Calls `each` with every block and what is known of it; what it returns is known from then on, or the block is
    /// taken out. What others add or take meanwhile may be seen or not. `changed` hears what was done.
    pub(super) fn retain(
        &self,
        mut each: impl FnMut(u64) -> Option<u64>,
        mut changed: impl FnMut(usize, u64, Option<u64>),
    ) {
        for place in self.buckets.iter().flatten() {
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
        for place in self.buckets.iter().flatten() {
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
    counts: Vec<AtomicU8>,
    shift: u32,
}

impl Filter {
    /// For a table of so many places. `None` if there is no memory for it.
    pub(super) fn new(places: usize) -> Option<Self> {
        let count = (places * FILTER_RATIO).max(64).next_power_of_two();
        let mut counts = Vec::new();
        counts.try_reserve_exact(count).ok()?;
        counts.resize_with(count, AtomicU8::default);
        Some(Self { counts, shift: u64::BITS - count.trailing_zeros() })
    }

    fn count(&self, address: usize) -> Option<&AtomicU8> {
        self.counts.get((hash(address) >> self.shift) as usize)
    }

    #[inline]
    pub(super) fn may_have(&self, address: usize) -> bool {
        self.count(address).is_some_and(|count| count.load(Ordering::Relaxed) != 0)
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
        if let Some(count) = self.count(address) {
            // A count that does not fit stays as it is.
            let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
        }
    }
}
