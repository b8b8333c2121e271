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
    pub(crate) sums: u32,
    /// How many of its words were sampled.
    pub(crate) samples: u32,
}

/// A place of the ring.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The id and one, so that 0 is nobody's.
    key: u64,
    block: Block,
}

const EMPTY: Slot = Slot { key: 0, block: Block { sums: 0, samples: 0 } };

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
    pub(crate) fn insert(&mut self, id: u64, block: Block) {
        let Some(slot) = self.ring.get_mut(place(id)) else { return };
        let older = std::mem::replace(slot, Slot { key: id.wrapping_add(1), block });
        if older.key != 0 && older.key != id.wrapping_add(1) {
            self.keep(older.key - 1, older.block);
        }
    }

    /// A block was freed; `None` if it is not known.
    pub(crate) fn remove(&mut self, id: u64) -> Option<Block> {
        let slot = self.ring.get_mut(place(id))?;
        if slot.key == id.wrapping_add(1) && slot.key != 0 {
            return Some(std::mem::replace(slot, EMPTY).block);
        }
        self.old.remove(&id)
    }

    #[cfg(test)]
    fn get(&self, id: u64) -> Option<Block> {
        let slot = self.ring.get(place(id))?;
        if slot.key == id.wrapping_add(1) { Some(slot.block) } else { self.old.get(&id).copied() }
    }

    /// Blocks that are no longer followed: they count as alive for ever.
    pub(crate) const fn untracked(&self) -> u64 {
        self.untracked
    }

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
            steps in prop::collection::vec((any::<bool>(), 0_u64..40, 0_u64..3, any::<u32>()), 0..300),
        ) {
            let mut table = LiveTable::new(1000);
            let mut model = BTreeMap::new();
            for (insert, low, lap, sums) in steps {
                let id = low + lap * RING as u64;
                let block = Block { sums, samples: 1 };
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
            table.insert(lap * RING as u64, Block { sums: 1, samples: 1 });
        }
        assert_eq!(table.untracked(), 2);
        assert_eq!(table.remove(0), Some(Block { sums: 1, samples: 1 }));
        assert_eq!(table.remove(2 * RING as u64), None);
    }
}
