//! Stacks, each prefix once.
//!
//! Owns the nodes, and which of them have sums. A frame that calls itself is one node however deep it recurses.
//! Beyond the limits a stack counts for the longest prefix that is kept, and is counted as such.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::stacks::{StackSums, Stacks};

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
}

/// How a node is found. The callees of a node are a list, in which the one found last comes first: mostly it is looked
/// for again, and lies beside its caller.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    /// The code of the node's frame.
    code: u64,
    /// The next callee of the same caller; [`ROOT`] if there is none.
    next: u32,
    /// The first callee.
    first: u32,
    /// Where the sums of this stack are; 0 if nothing was allocated there.
    stack: u32,
}

/// Callees that are looked at one by one, before the table is asked.
const MAX_STEPS: usize = 8;

#[derive(Debug)]
pub(crate) struct Trie {
    nodes: Vec<Node>,
    /// Of those nodes that have any.
    pub(crate) stacks: Stacks,
    links: Vec<Link>,
    children: HashMap<u64, u32, RandomState>,
    limit: usize,
    /// Of stacks that were cut, by the limits.
    cut: u64,
}

impl Trie {
    /// A trie of at most `limit` nodes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            nodes: vec![Node::default()],
            stacks: Stacks::new(),
            links: vec![Link::default()],
            children: HashMap::default(),
            limit,
            cut: 0,
        }
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// How many times a frame was left out because of the limits.
    pub(crate) const fn cut(&self) -> u64 {
        self.cut
    }

    /// What was summed up at a node.
    pub(crate) fn sums(&self, node: usize) -> StackSums {
        let at = self.links.get(node).map_or(0, |link| link.stack);
        self.stacks.get(at)
    }

    /// Where the sums of a node are, in [`Self::stacks`].
    pub(crate) fn stack_of(&mut self, node: u32) -> u32 {
        match self.links.get_mut(node as usize) {
            Some(link) if link.stack != 0 => link.stack,
            Some(link) => {
                let site = self.nodes.get(node as usize).map_or(0, |node| node.site);
                link.stack = self.stacks.add(site);
                link.stack
            }
            None => 0,
        }
    }

    /// The node below `parent` of the frame `code`, if it is quickly found.
    pub(crate) fn quick_child(&mut self, parent: u32, code: u64) -> Option<u32> {
        let caller = self.links.get(parent as usize)?;
        if parent != ROOT && caller.code == code {
            return Some(parent);
        }
        let first = caller.first;
        let (mut before, mut here) = (ROOT, first);
        for _ in 0..MAX_STEPS {
            let link = *self.links.get(here as usize)?;
            if here == ROOT {
                return None;
            }
            if link.code == code {
                if here != first {
                    self.links.get_mut(before as usize)?.next = link.next;
                    self.links.get_mut(here as usize)?.next = first;
                    self.links.get_mut(parent as usize)?.first = here;
                }
                return Some(here);
            }
            (before, here) = (here, link.next);
        }
        None
    }

    /// The node below `parent` of `frame`, which has this code; `site` says who allocates there, if it is new.
    pub(crate) fn child(
        &mut self,
        parent: u32,
        code: u64,
        frame: u32,
        site: impl FnOnce(&Node) -> u32,
    ) -> u32 {
        let known = self.nodes.len();
        let child = self.find_or_add(parent, frame, site);
        if self.nodes.len() > known
            && let Some(caller) = self.links.get_mut(parent as usize)
        {
            let next = std::mem::replace(&mut caller.first, child);
            self.links.push(Link { code, next, first: ROOT, stack: 0 });
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
        let site = site(&caller);
        self.nodes.push(Node { parent, frame, site });
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
                    let same = trie.quick_child(node, u64::from(*frame));
                    same.unwrap_or_else(|| trie.child(node, u64::from(*frame), *frame, |_| 0))
                });
                let at = trie.stack_of(node);
                trie.stacks.get_mut(at).expect("sums").allocated += 1;
                let mut plain = stack.clone();
                plain.dedup();
                *model.entry(plain).or_default() += 1;
            }
            let mut found = BTreeMap::new();
            let sums = (0..trie.nodes().len()).map(|at| (at, trie.sums(at)));
            for (at, sums) in sums.filter(|(_, sums)| sums.allocated > 0) {
                let mut stack = Vec::new();
                let mut here = at as u32;
                while here != ROOT {
                    let node = trie.nodes()[here as usize];
                    prop_assert!(node.parent < here);
                    stack.insert(0, node.frame);
                    here = node.parent;
                }
                found.insert(stack, sums.allocated);
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
