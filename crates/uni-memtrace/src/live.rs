//! The sampled blocks that are alive.
//!
//! Owns how they are kept: the newest in a ring, where most of them die; what survives that in a table. A block beyond
//! the limit is no longer followed, and counted.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// Places of the ring: a power of two, few enough for a processor's cache.
const RING: usize = 1 << 14;

/// A block as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Where the sums of its stack are.
    pub(crate) stack: u32,
    /// How many of its words were sampled.
    pub(crate) samples: u32,
}

/// A place of the ring: the block of an id with this remainder, in one word. 0 if there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot(u64);

const LAP_BITS: u32 = 24;
const SAMPLES_BITS: u32 = 8;
const STACK_BITS: u32 = 32;
const EMPTY: Slot = Slot(0);

impl Slot {
    /// `None` if the numbers are too large.
    fn new(id: u64, block: Block) -> Option<Self> {
        let (lap, samples) = (lap(id), u64::from(block.samples));
        (lap >> LAP_BITS == 0 && samples >> SAMPLES_BITS == 0).then(|| {
            Self(lap << (SAMPLES_BITS + STACK_BITS) | samples << STACK_BITS | u64::from(block.stack))
        })
    }

    const fn is(self, id: u64) -> bool {
        self.0 >> (SAMPLES_BITS + STACK_BITS) == lap(id)
    }

    /// The id, at this place of the ring, and the block.
    fn block(self, place: usize) -> Option<(u64, Block)> {
        let lap = (self.0 >> (SAMPLES_BITS + STACK_BITS)).checked_sub(1)?;
        let samples = (self.0 >> STACK_BITS) as u32 & ((1 << SAMPLES_BITS) - 1);
        Some((lap * RING as u64 + place as u64, Block { stack: self.0 as u32, samples }))
    }
}

/// How many times the ring went round before this id, and one.
const fn lap(id: u64) -> u64 {
    id / RING as u64 + 1
}

#[derive(Debug)]
pub(crate) struct LiveTable {
    ring: Box<[Slot]>,
    old: HashMap<u64, Block, RandomState>,
    limit: usize,
    untracked: u64,
}

impl LiveTable {
    /// A table of at most `limit` blocks besides the newest.
    pub(crate) fn new(limit: usize) -> Self {
        Self { ring: vec![EMPTY; RING].into_boxed_slice(), old: HashMap::default(), limit, untracked: 0 }
    }

    /// A block was allocated. One of the same id is replaced.
    #[inline]
    pub(crate) fn insert(&mut self, id: u64, block: Block) {
        let place = place(id);
        let Some(slot) = self.ring.get_mut(place) else { return };
        let new = Slot::new(id, block);
        if new.is_some() || slot.is(id) {
            let older = std::mem::replace(slot, new.unwrap_or(EMPTY));
            if !older.is(id)
                && let Some((id, block)) = older.block(place)
            {
                self.keep(id, block);
            }
        }
        if new.is_none() {
            self.keep(id, block);
        }
    }

    /// A block was freed; `None` if it is not known.
    #[inline]
    pub(crate) fn remove(&mut self, id: u64) -> Option<Block> {
        let place = place(id);
        let slot = self.ring.get_mut(place)?;
        if slot.is(id) {
            return std::mem::replace(slot, EMPTY).block(place).map(|(_, block)| block);
        }
        self.old.remove(&id)
    }

    #[cfg(test)]
    fn get(&self, id: u64) -> Option<Block> {
        let slot = self.ring.get(place(id)).filter(|slot| slot.is(id));
        match slot.and_then(|slot| slot.block(place(id))) {
            Some((_, block)) => Some(block),
            None => self.old.get(&id).copied(),
        }
    }

    /// Blocks that are no longer followed: they count as alive for ever.
    pub(crate) const fn untracked(&self) -> u64 {
        self.untracked
    }

    #[cold]
    fn keep(&mut self, id: u64, block: Block) {
        if self.old.len() < self.limit {
            self.old.insert(id, block);
        } else {
            self.untracked += 1;
        }
    }
}

fn place(id: u64) -> usize {
    (id % RING as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_is_a_map(
            steps in prop::collection::vec(
                (any::<bool>(), 0_u64..40, 0_u64..4, prop_oneof![0..9_u32, 250..260_u32, any::<u32>()]),
                0..300,
            ),
        ) {
            let mut table = LiveTable::new(1000);
            let mut model = BTreeMap::new();
            for (insert, low, lap, samples) in steps {
                // the last one does not fit the ring
                let id = if lap < 3 { low + lap * RING as u64 } else { u64::MAX - low };
                let block = Block { stack: !samples, samples };
                if insert {
                    // ids are given out once
                    if model.contains_key(&id) { continue }
                    table.insert(id, block);
                    model.insert(id, block);
                } else {
                    prop_assert_eq!(table.remove(id), model.remove(&id));
                }
                prop_assert_eq!(table.get(id), model.get(&id).copied());
            }
            for (id, block) in model {
                prop_assert_eq!(table.remove(id), Some(block));
            }
        }
    }

    #[test]
    fn what_is_beyond_the_limit_is_counted() {
        let mut table = LiveTable::new(2);
        for lap in 0..5 {
            table.insert(lap * RING as u64, Block { stack: 1, samples: 1 });
        }
        assert_eq!(table.untracked(), 2);
        assert_eq!(table.remove(0), Some(Block { stack: 1, samples: 1 }));
        assert_eq!(table.remove(2 * RING as u64), None);
    }
}
