//! Stacks, each prefix once.
//!
//! Owns the nodes and what was summed up at each. A frame that calls itself is one node however deep it recurses.
//! Beyond the limits a stack counts for the longest prefix that is kept, and is counted as such.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// The node of the empty stack.
pub(crate) const ROOT: u32 = 0;

/// Frames that follow each other in a stack.
pub(crate) const MAX_DEPTH: usize = 4096;

/// A prefix of stacks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Node {
    /// The node of the caller. It was made earlier: its number is smaller.
    pub(crate) parent: u32,
    /// The innermost frame.
    pub(crate) frame: u32,
    /// Who is said to have allocated.
    pub(crate) site: u32,
    /// Allocations that were sampled with exactly this stack.
    pub(crate) allocations: u64,
    /// Their sampled words.
    pub(crate) allocated: u64,
    /// Of them, those that are alive.
    pub(crate) live: u64,
    /// The code that was looked for last below this node, and what was found: mostly it is looked for again.
    last_code: u64,
    last_child: u32,
}

#[derive(Debug)]
pub(crate) struct Trie {
    nodes: Vec<Node>,
    children: HashMap<u64, u32, RandomState>,
    limit: usize,
    /// Of stacks that were cut, by the limits.
    cut: u64,
}

impl Trie {
    /// A trie of at most `limit` nodes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { nodes: vec![Node::default()], children: HashMap::default(), limit, cut: 0 }
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// How many times a frame was left out because of the limits.
    pub(crate) const fn cut(&self) -> u64 {
        self.cut
    }

    pub(crate) fn node_mut(&mut self, node: u32) -> Option<&mut Node> {
        self.nodes.get_mut(node as usize)
    }

    /// The node below `parent` of the frame `code`, if it was the last one looked for there.
    #[inline]
    pub(crate) fn same_child(&self, parent: u32, code: u64) -> Option<u32> {
        let node = self.nodes.get(parent as usize)?;
        (node.last_code == code && node.last_child != ROOT).then_some(node.last_child)
    }

    /// The node below `parent` of `frame`, which has this code; `site` says who allocates there, if it is new.
    pub(crate) fn child(
        &mut self,
        parent: u32,
        code: u64,
        frame: u32,
        site: impl FnOnce(&Node) -> u32,
    ) -> u32 {
        let child = self.find_or_add(parent, frame, site);
        if let Some(node) = self.nodes.get_mut(parent as usize) {
            (node.last_code, node.last_child) = (code, child);
        }
        child
    }

    fn find_or_add(&mut self, parent: u32, frame: u32, site: impl FnOnce(&Node) -> u32) -> u32 {
        let caller = self.nodes.get(parent as usize).copied().unwrap_or_default();
        if parent != ROOT && caller.frame == frame {
            return parent;
        }
        let key = u64::from(parent) << 32 | u64::from(frame);
        if let Some(node) = self.children.get(&key) {
            return *node;
        }
        if self.nodes.len() >= self.limit {
            self.cut += 1;
            return parent;
        }
        let node = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        self.nodes.push(Node { parent, frame, site: site(&caller), ..Node::default() });
        self.children.insert(key, node);
        node
    }

    /// A stack was cut, as it is too deep.
    pub(crate) const fn count_cut(&mut self) {
        self.cut += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn stacks_are_kept_apart_as_in_a_map(
            stacks in prop::collection::vec(prop::collection::vec(0_u32..4, 0..6), 0..60),
        ) {
            let mut trie = Trie::new(usize::MAX);
            let mut model: BTreeMap<Vec<u32>, u64> = BTreeMap::new();
            for stack in &stacks {
                let node = stack.iter().fold(ROOT, |node, frame| {
                    let same = trie.same_child(node, u64::from(*frame));
                    same.unwrap_or_else(|| trie.child(node, u64::from(*frame), *frame, |_| 0))
                });
                trie.node_mut(node).expect("a node").allocated += 1;
                let mut plain = stack.clone();
                plain.dedup();
                *model.entry(plain).or_default() += 1;
            }
            let mut found = BTreeMap::new();
            for (at, node) in trie.nodes().iter().enumerate().filter(|(_, node)| node.allocated > 0) {
                let mut stack = Vec::new();
                let mut here = at as u32;
                while here != ROOT {
                    let node = trie.nodes()[here as usize];
                    prop_assert!(node.parent < here);
                    stack.insert(0, node.frame);
                    here = node.parent;
                }
                found.insert(stack, node.allocated);
            }
            prop_assert_eq!(found, model);
        }
    }

    #[test]
    fn beyond_the_limit_a_stack_counts_for_its_prefix() {
        let mut trie = Trie::new(2);
        let first = trie.child(ROOT, 1, 1, |_| 0);
        assert_eq!(trie.child(first, 2, 2, |_| 0), first);
        assert_eq!(trie.cut(), 1);
    }
}
