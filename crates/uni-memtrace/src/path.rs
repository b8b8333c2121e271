//! The stack of a domain's last allocation, of which the next one's is a change.
//!
//! Owns its frames, a hash of every prefix, and the nodes of those prefixes that were looked up. A stack whose hash is
//! known needs no node: its frames are looked up when a stack comes that is not.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;

use crate::trie::{MAX_DEPTH, ROOT};

/// How stacks are hashed: the sum of the hashes of their frames, each by its depth. Not known to whoever writes traces.
#[derive(Debug)]
pub(crate) struct Hashing {
    seed: u64,
    /// By depth.
    factors: Box<[u64]>,
}

impl Hashing {
    pub(crate) fn new() -> Self {
        let random = RandomState::default();
        let factors = (0..MAX_DEPTH).map(|depth| random.hash_one(depth) | 1).collect();
        Self { seed: random.hash_one("seed"), factors }
    }
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    code: u64,
    /// Of the stack up to here.
    hash: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Path {
    frames: Vec<Frame>,
    /// Of the leading frames, as many as were looked up.
    nodes: Vec<u32>,
    /// Leading frames of which none was left out of the trie.
    whole: usize,
}

impl Path {
    /// Keeps the outermost `shared` frames and puts those of `codes` below. Returns the hash of the new stack, and
    /// whether it fits.
    #[inline]
    pub(crate) fn change(&mut self, hashing: &Hashing, shared: usize, codes: &[u64]) -> (u64, bool) {
        self.frames.truncate(shared);
        self.nodes.truncate(shared);
        self.whole = self.whole.min(shared);
        let Hashing { seed, factors } = hashing;
        let factors = factors.get(self.frames.len()..).unwrap_or_default();
        let kept = codes.len().min(factors.len());
        let mut hash = self.frames.last().map_or(0, |frame| frame.hash);
        self.frames.extend(codes.iter().zip(factors).map(|(code, factor)| {
            let product = u128::from(code ^ seed) * u128::from(*factor);
            hash = hash.wrapping_add((product >> 64) as u64 ^ product as u64);
            Frame { code: *code, hash }
        }));
        (hash, kept == codes.len())
    }

    /// The innermost node that was looked up, and the code of the frame below it; no code if that is the whole stack.
    pub(crate) fn next(&self) -> (u32, Option<u64>) {
        let code = self.frames.get(self.nodes.len()).map(|frame| frame.code);
        (self.nodes.last().copied().unwrap_or(ROOT), code)
    }

    /// The frame after those looked up has this node; `is_cut` if it was left out of the trie.
    pub(crate) fn push_node(&mut self, node: u32, is_cut: bool) {
        if !is_cut && self.whole == self.nodes.len() {
            self.whole += 1;
        }
        self.nodes.push(node);
    }

    /// Whether all frames were looked up and none was left out.
    pub(crate) const fn is_whole(&self) -> bool {
        self.whole == self.frames.len()
    }
}
