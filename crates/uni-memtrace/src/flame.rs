//! The tree of a flame graph: who called whom, with what was allocated below.
//!
//! Owns the merging of stacks by function, and what is too small to be shown. Knows nothing of drawing.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::analysis::Analysis;
use crate::report::Visit;

/// The smallest part of the whole that is shown.
const SMALLEST_PART: f64 = 1.0 / 4000.0;
/// Most nodes of a tree.
const MAX_NODES: usize = 20_000;
/// The name of what is too small.
const OTHERS: &str = "(others)";

/// A function under its callers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FlameNode {
    /// The function.
    pub name: String,
    /// Its source file; empty if not known.
    pub file: String,
    /// Its library.
    pub library: String,
    /// Allocated here and below, in bytes.
    pub allocated: u64,
    /// Alive at the end, of here and below, in bytes.
    pub live: u64,
    /// What it called, the largest first; numbers of nodes.
    pub children: Vec<usize>,
}

/// A tree. Its root is the first node, and children come after their parents.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FlameGraph {
    /// What the tree is of.
    pub title: String,
    /// The nodes.
    pub nodes: Vec<FlameNode>,
}

/// A node while it is built.
#[derive(Default)]
struct Building {
    function: u32,
    allocated: u64,
    live: u64,
    children: BTreeMap<u32, usize>,
}

impl FlameGraph {
    /// The tree of what was read.
    #[must_use]
    pub fn new(analysis: &Analysis) -> Self {
        let building = merge(analysis);
        let info = analysis.info.as_ref();
        let title = info.map_or("heap trace", |info| &info.executable_name);
        let mut graph = Self { title: title.to_owned(), nodes: vec![FlameNode::default()] };
        let scale = analysis.scale();
        let whole = building.first().map_or((0, 0), |root| (root.allocated, root.live));
        let smallest = |whole: u64| whole as f64 * SMALLEST_PART;
        if let Some(root) = graph.nodes.first_mut() {
            root.name = "all".to_owned();
            (root.allocated, root.live) = (scale.bytes(whole.0), scale.bytes(whole.1));
        }
        let mut open = std::collections::VecDeque::from([(0_usize, 0_usize)]);
        while let Some((from, to)) = open.pop_front() {
            let Some(node) = building.get(from) else { continue };
            let mut children: Vec<(usize, &Building)> =
                node.children.values().filter_map(|child| Some((*child, building.get(*child)?))).collect();
            children.sort_by_key(|(_, child)| std::cmp::Reverse((child.live, child.allocated)));
            let mut others = (0, 0);
            for (at, child) in children {
                let small =
                    (child.allocated as f64) < smallest(whole.0) && (child.live as f64) < smallest(whole.1);
                if small || graph.nodes.len() >= MAX_NODES {
                    others = (others.0 + child.allocated, others.1 + child.live);
                    continue;
                }
                let number = graph.nodes.len();
                graph.nodes.push(named(analysis, child.function, child.allocated, child.live));
                if let Some(parent) = graph.nodes.get_mut(to) {
                    parent.children.push(number);
                }
                open.push_back((at, number));
            }
            if others.0 > 0 {
                let number = graph.nodes.len();
                let (allocated, live) = (scale.bytes(others.0), scale.bytes(others.1));
                graph.nodes.push(FlameNode {
                    name: OTHERS.to_owned(),
                    allocated,
                    live,
                    ..FlameNode::default()
                });
                if let Some(parent) = graph.nodes.get_mut(to) {
                    parent.children.push(number);
                }
            }
        }
        graph
    }
}

fn named(analysis: &Analysis, function: u32, allocated: u64, live: u64) -> FlameNode {
    let (symbols, scale) = (&analysis.symbols, analysis.scale());
    let text = |number: u32| symbols.text(number).to_owned();
    let Some(function) = symbols.functions().get(function as usize) else { return FlameNode::default() };
    FlameNode {
        name: text(function.name),
        file: text(function.file),
        library: text(function.library),
        allocated: scale.bytes(allocated),
        live: scale.bytes(live),
        children: Vec::new(),
    }
}

/// The tree by functions: frames of the same function are one, inlined ones are nodes of their own.
fn merge(analysis: &Analysis) -> Vec<Building> {
    let nodes = analysis.trie.nodes();
    let mut tree = vec![Building::default()];
    let mut path = vec![0_usize];
    analysis.walk(|visit| match visit {
        Visit::Enter(at) => {
            let mut here = path.last().copied().unwrap_or(0);
            if at > 0 {
                for place in analysis.symbols.places(nodes[at].frame) {
                    if here != 0 && tree[here].function == place.function {
                        continue;
                    }
                    let new = tree.len();
                    let child = *tree[here].children.entry(place.function).or_insert(new);
                    if child == new {
                        tree.push(Building { function: place.function, ..Building::default() });
                    }
                    here = child;
                }
            }
            path.push(here);
            let sums = analysis.trie.sums(at);
            tree[here].allocated += sums.allocated;
            tree[here].live += sums.live;
        }
        Visit::Leave(_) => {
            path.pop();
        }
    });
    // children come after their parents here, too
    let parents = parents(&tree);
    for at in (1..tree.len()).rev() {
        let (allocated, live) = (tree[at].allocated, tree[at].live);
        let parent = &mut tree[parents[at]];
        parent.allocated += allocated;
        parent.live += live;
    }
    tree
}

fn parents(tree: &[Building]) -> Vec<usize> {
    let mut parents = vec![0; tree.len()];
    for (at, node) in tree.iter().enumerate() {
        node.children.values().for_each(|child| parents[*child] = at);
    }
    parents
}

impl Analysis {
    /// Stacks as folded text, one a line: functions from the outermost to the innermost with semicolons between, a
    /// blank, and bytes: those alive at the end if `live`, else all allocated ones.
    #[must_use]
    pub fn folded(&self, live: bool) -> String {
        let (nodes, scale) = (self.trie.nodes(), self.scale());
        let mut out = String::new();
        let mut line = String::new();
        let mut ends = Vec::new();
        self.walk(|visit| match visit {
            Visit::Enter(at) => {
                ends.push(line.len());
                if at > 0 {
                    for place in self.symbols.places(nodes[at].frame) {
                        if !line.is_empty() {
                            line.push(';');
                        }
                        let function = self.symbols.functions().get(place.function as usize);
                        let name = function.map_or("", |function| self.symbols.text(function.name));
                        line.extend(name.chars().map(|c| match c {
                            ';' => ':',
                            c if c.is_control() => ' ',
                            c => c,
                        }));
                    }
                }
                let sums = self.trie.sums(at);
                let words = if live { sums.live } else { sums.allocated };
                if words > 0 {
                    let stack = if line.is_empty() { "(no stack)" } else { &line };
                    let _a_string_takes_all = writeln!(out, "{stack} {}", scale.bytes(words));
                }
            }
            Visit::Leave(_) => {
                line.truncate(ends.pop().unwrap_or(0));
            }
        });
        out
    }
}
