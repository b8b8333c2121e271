//! Stacks that were seen before, by their hash.
//!
//! Owns a table of fixed size: what finds no room displaces what came there first. Two stacks of one hash of 64 bits
//! would be taken for one.

/// Sets of entries: a power of two. All together take 1 MiB.
const SETS: usize = 1 << 14;
/// Entries of a set, which fit a line of a processor's cache.
const WAYS: usize = 4;

/// Entries that are looked at together; the newest first.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Set {
    hashes: [u64; WAYS],
    /// Where the sums of the stack are; 0 if the entry is free.
    stacks: [u32; WAYS],
}

#[derive(Debug)]
pub(crate) struct Memo(Box<[Set]>);

impl Memo {
    pub(crate) fn new() -> Self {
        Self(vec![Set::default(); SETS].into_boxed_slice())
    }

    /// Where the sums of a stack are.
    #[inline]
    pub(crate) fn find(&self, hash: u64) -> Option<u32> {
        let set = self.0.get(place(hash))?;
        // all are looked at, so that a processor need not guess which it is
        let ways = set.hashes.iter().zip(set.stacks);
        let found = ways.fold(0, |found, (known, stack)| if *known == hash { stack } else { found });
        (found != 0).then_some(found)
    }

    /// Remembers a stack.
    pub(crate) fn insert(&mut self, hash: u64, stack: u32) {
        if let Some(set) = self.0.get_mut(place(hash)) {
            set.hashes.rotate_right(1);
            set.stacks.rotate_right(1);
            (set.hashes[0], set.stacks[0]) = (hash, stack);
        }
    }
}

const fn place(hash: u64) -> usize {
    hash as usize % SETS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_keeps_its_newest() {
        let mut memo = Memo::new();
        assert_eq!(memo.find(0), None);
        let hashes: Vec<u64> = (0..6).map(|n| 7 + n * SETS as u64).collect();
        for (hash, stack) in hashes.iter().zip(1..) {
            memo.insert(*hash, stack);
        }
        let found: Vec<_> = hashes.iter().map(|hash| memo.find(*hash)).collect();
        assert_eq!(found, [None, None, Some(3), Some(4), Some(5), Some(6)]);
    }
}
