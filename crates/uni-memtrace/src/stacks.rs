//! What was summed up of each stack.
//!
//! Owns the sums of the stacks that allocated anything, side by side. Whose stacks they are is known to the trie.

/// What was summed up of exactly one stack, in sampled words.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StackSums {
    pub(crate) allocated: u64,
    /// Of them, those that are alive.
    pub(crate) live: u64,
    /// Those that were alive when the series was told last.
    told: u64,
    /// Allocations; at most as many as fit.
    pub(crate) allocations: u32,
    /// The step of the series in which `live` has changed last.
    pub(crate) step: u32,
}

#[derive(Debug)]
pub(crate) struct Stacks {
    /// The first is nobody's.
    sums: Vec<StackSums>,
    /// Who is said to have allocated there.
    sites: Vec<u32>,
}

impl Stacks {
    pub(crate) fn new() -> Self {
        Self { sums: vec![StackSums::default()], sites: vec![0] }
    }

    /// A new one; `site` is said to have allocated. Returns where it is.
    pub(crate) fn add(&mut self, site: u32) -> u32 {
        let at = u32::try_from(self.sums.len()).unwrap_or(u32::MAX);
        self.sums.push(StackSums::default());
        self.sites.push(site);
        at
    }

    pub(crate) fn get(&self, at: u32) -> StackSums {
        self.sums.get(at as usize).copied().unwrap_or_default()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut StackSums> {
        self.sums.get_mut(at as usize)
    }

    /// The site of a stack, and how much of it was and is alive: was when it was asked last.
    pub(crate) fn tell(&mut self, at: u32) -> Option<(u32, u64, u64)> {
        let (sums, site) = (self.sums.get_mut(at as usize)?, self.sites.get(at as usize)?);
        let before = std::mem::replace(&mut sums.told, sums.live);
        Some((*site, before, sums.live))
    }
}
