//! Sums as a report: totals, rows by site, function or library, and a timeline of libraries.
//!
//! Owns the step from sampled words to bytes, and what counts as whose: *self* is what a site, function or library
//! allocated for itself, *cumulative* also what was allocated by what it called.

use serde::Serialize;

use crate::analysis::{Analysis, FaultCount, TraceInfo};
use crate::trie::{Node, ROOT};

/// By what rows are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// A line of a function of a library.
    Site,
    /// A library.
    Library,
    /// A function, of whomever.
    Function,
}

/// Sums of a whole trace. Bytes are estimates.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Totals {
    /// How long the trace is, or up to when it was looked at, in seconds.
    pub duration_seconds: f64,
    /// Allocations that were sampled.
    pub sampled_allocations: u64,
    /// Of them, those that were freed.
    pub sampled_frees: u64,
    /// Of them, those that were moved to the old.
    pub sampled_promotions: u64,
    /// Of them, those that are alive at the end.
    pub sampled_live_blocks: u64,
    /// Frees of blocks whose allocation is not in the trace.
    pub unmatched_frees: u64,
    /// Allocated over all the time.
    pub allocated_bytes: u64,
    /// Of them, directly among the old.
    pub allocated_major_bytes: u64,
    /// Of them, outside the managed heap.
    pub allocated_external_bytes: u64,
    /// Alive at the end.
    pub live_bytes: u64,
    /// The most that was alive at once.
    pub peak_live_bytes: u64,
    /// When that was, in seconds after the start.
    pub peak_seconds: f64,
}

/// What one site, function or library has.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Row {
    /// The function, or the library.
    pub name: String,
    /// The source file; empty if not known, or if it is a library.
    pub file: String,
    /// The line; 0 if not known.
    pub line: u32,
    /// The library.
    pub library: String,
    /// Sampled allocations of its own.
    pub sampled_allocations: u64,
    /// Alive at the end, of its own.
    pub live_bytes: u64,
    /// Alive at the end, with what it called.
    pub cumulative_live_bytes: u64,
    /// Allocated, of its own.
    pub allocated_bytes: u64,
    /// Allocated, with what it called.
    pub cumulative_allocated_bytes: u64,
}

/// Live bytes of the largest libraries, over time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timeline {
    /// Length of a step, in seconds.
    pub step_seconds: f64,
    /// By library, the largest first; the last is all others. Values are those at the end of each step.
    pub libraries: Vec<(String, Vec<u64>)>,
    /// By site, the same.
    pub sites: Vec<(String, Vec<u64>)>,
}

/// A report of a trace.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What the trace says of itself; absent if its beginning is missing.
    pub info: Option<TraceInfo>,
    /// Sums.
    pub totals: Totals,
    /// The largest rows first: by live, then by allocated bytes.
    pub rows: Vec<Row>,
    /// How many rows were left out.
    pub rows_left_out: usize,
    /// Live bytes over time.
    pub timeline: Timeline,
    /// What was wrong with the trace.
    pub faults: Vec<FaultCount>,
    /// What was left out because of limits.
    pub limits_reached: Vec<String>,
}

/// Bytes for which a sampled word stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale(f64);

impl Scale {
    #[expect(clippy::cast_sign_loss, reason = "both factors are positive")]
    pub(crate) fn bytes(self, samples: u64) -> u64 {
        (samples as f64 * self.0).round() as u64
    }
}

/// Sums of a node with all below it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Below {
    pub(crate) allocated: u64,
    pub(crate) live: u64,
}

impl Analysis {
    pub(crate) fn scale(&self) -> Scale {
        let info = self.info.as_ref();
        let rate = info.map_or(1.0, |info| info.sample_rate);
        let rate = if rate > 0.0 && rate <= 1.0 { rate } else { 1.0 };
        let word = f64::from(info.map_or(64, |info| info.word_size_bits)) / 8.0;
        Scale(word / rate)
    }

    /// Sums of every node with all below it.
    pub(crate) fn below(&self) -> Vec<Below> {
        let nodes = self.trie.nodes();
        let sums = (0..nodes.len()).map(|at| self.trie.sums(at));
        let mut sums: Vec<Below> =
            sums.map(|sums| Below { allocated: sums.allocated, live: sums.live }).collect();
        // children come after their parents
        for at in (1..nodes.len()).rev() {
            let Below { allocated, live } = sums[at];
            let parent = &mut sums[nodes[at].parent as usize];
            parent.allocated += allocated;
            parent.live += live;
        }
        sums
    }

    /// The report, with at most `top` rows.
    #[must_use]
    pub fn report(&self, grouping: Grouping, top: usize) -> Report {
        let mut rows = self.rows(grouping);
        let rows_left_out = rows.len().saturating_sub(top);
        rows.truncate(top);
        Report {
            info: self.info.clone(),
            totals: self.totals(),
            rows,
            rows_left_out,
            timeline: self.timeline(top.clamp(1, 20)),
            faults: self.faults(),
            limits_reached: self.limits_reached(),
        }
    }

    /// Sums of the whole trace.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let (sums, scale) = (&self.sums, self.scale());
        Totals {
            duration_seconds: sums.last_micros as f64 / 1e6,
            sampled_allocations: sums.allocations,
            sampled_frees: sums.freed,
            sampled_promotions: sums.promoted,
            sampled_live_blocks: sums.live_blocks,
            unmatched_frees: sums.unmatched,
            allocated_bytes: scale.bytes(sums.allocated),
            allocated_major_bytes: scale.bytes(sums.major),
            allocated_external_bytes: scale.bytes(sums.external),
            live_bytes: scale.bytes(sums.live),
            peak_live_bytes: scale.bytes(sums.peak),
            peak_seconds: sums.peak_micros as f64 / 1e6,
        }
    }

    /// All rows that have anything, the largest first.
    #[must_use]
    pub fn rows(&self, grouping: Grouping) -> Vec<Row> {
        let groups = Groups::new(self, grouping);
        let mut sums = vec![GroupSums::default(); groups.count];
        let stacks = self.trie.nodes().iter().enumerate().map(|(at, node)| (node, self.trie.sums(at)));
        for (node, stack) in stacks.filter(|(_, stack)| stack.allocations > 0) {
            if let Some(sum) = sums.get_mut(groups.own(node)) {
                sum.allocations += u64::from(stack.allocations);
                sum.own.allocated += stack.allocated;
                sum.own.live += stack.live;
            }
        }
        self.add_cumulative(&groups, &mut sums);
        let mut found: Vec<(usize, GroupSums)> =
            sums.into_iter().enumerate().filter(|(_, sum)| sum.all.allocated > 0).collect();
        found.sort_by_key(|(_, sum)| {
            let GroupSums { own, all, .. } = sum;
            std::cmp::Reverse((own.live, own.allocated, all.live, all.allocated))
        });
        let scale = self.scale();
        found
            .into_iter()
            .map(|(group, sum)| Row {
                sampled_allocations: sum.allocations,
                live_bytes: scale.bytes(sum.own.live),
                cumulative_live_bytes: scale.bytes(sum.all.live),
                allocated_bytes: scale.bytes(sum.own.allocated),
                cumulative_allocated_bytes: scale.bytes(sum.all.allocated),
                ..groups.row(group)
            })
            .collect()
    }

    /// Adds to each group what is below its outermost occurrences: recursion counts once.
    fn add_cumulative(&self, groups: &Groups<'_>, sums: &mut [GroupSums]) {
        let (nodes, below) = (self.trie.nodes(), self.below());
        let mut on_path = vec![0_u32; groups.count];
        let mut here = Vec::new();
        // what has no stack was called by nobody
        let root = self.trie.sums(ROOT as usize);
        if let Some(node) = nodes.first()
            && let Some(sum) = sums.get_mut(groups.own(node))
        {
            sum.all = Below { allocated: root.allocated, live: root.live };
        }
        self.walk(|visit| match visit {
            Visit::Enter(at) => {
                here.clear();
                groups.of_node(at, &nodes[at], &mut here);
                for group in &here {
                    if on_path[*group] == 0 {
                        sums[*group].all.allocated += below[at].allocated;
                        sums[*group].all.live += below[at].live;
                    }
                    on_path[*group] += 1;
                }
            }
            Visit::Leave(at) => {
                here.clear();
                groups.of_node(at, &nodes[at], &mut here);
                here.iter().for_each(|group| on_path[*group] -= 1);
            }
        });
    }

    /// Visits all nodes in depth-first order.
    pub(crate) fn walk(&self, mut visit: impl FnMut(Visit)) {
        const NONE: u32 = u32::MAX;
        let nodes = self.trie.nodes();
        let mut first = vec![NONE; nodes.len()];
        let mut next = vec![NONE; nodes.len()];
        for at in (1..nodes.len()).rev() {
            let parent = nodes[at].parent as usize;
            next[at] = first[parent];
            first[parent] = at as u32;
        }
        let mut at = ROOT;
        visit(Visit::Enter(0));
        loop {
            let child = std::mem::replace(&mut first[at as usize], NONE);
            if child != NONE {
                at = child;
                visit(Visit::Enter(at as usize));
                continue;
            }
            visit(Visit::Leave(at as usize));
            if at == ROOT {
                return;
            }
            let sibling = next[at as usize];
            if sibling == NONE {
                at = nodes[at as usize].parent;
            } else {
                at = sibling;
                visit(Visit::Enter(at as usize));
            }
        }
    }

    fn timeline(&self, top: usize) -> Timeline {
        let sites = self.symbols.sites();
        let functions = self.symbols.functions();
        let library_of: Vec<usize> =
            sites.iter().map(|site| functions[site.place.function as usize].library as usize).collect();
        let groups = Groups::new(self, Grouping::Site);
        let name = |site: usize| {
            let row = groups.row(site);
            if row.file.is_empty() { row.name } else { format!("{} {}:{}", row.name, row.file, row.line) }
        };
        let library_name = |number: usize| self.symbols.text(number as u32).to_owned();
        Timeline {
            step_seconds: self.series.step_micros() as f64 / 1e6,
            libraries: self.lines(&library_of, self.symbols.text_count(), top, library_name),
            sites: self.lines(&(0..sites.len()).collect::<Vec<_>>(), sites.len(), top, name),
        }
    }

    /// Values over time of the groups that are the largest at any time, and of all others together.
    fn lines(
        &self,
        group_of: &[usize],
        count: usize,
        top: usize,
        name: impl Fn(usize) -> String,
    ) -> Vec<(String, Vec<u64>)> {
        let mut most = vec![0_u64; count];
        self.replay(group_of, count, |groups, changed| {
            if let Some(group) = changed {
                most[group] = most[group].max(groups[group]);
            }
        });
        let mut order: Vec<usize> = (0..count).filter(|group| most[*group] > 0).collect();
        order.sort_by_key(|group| std::cmp::Reverse(most[*group]));
        let others = order.len() > top;
        order.truncate(top);
        let scale = self.scale();
        let mut lines: Vec<(String, Vec<u64>)> =
            order.iter().map(|group| (name(*group), Vec::new())).collect();
        let mut rest = Vec::new();
        self.replay(group_of, count, |groups, changed| {
            if changed.is_some() {
                return;
            }
            let mut shown = 0;
            for (group, (_, values)) in order.iter().zip(&mut lines) {
                values.push(scale.bytes(groups[*group]));
                shown += groups[*group];
            }
            rest.push(scale.bytes(groups.iter().sum::<u64>() - shown));
        });
        if others {
            lines.push(("(others)".to_owned(), rest));
        }
        lines
    }

    /// Tells `each` of the values of all groups after every change, with the group that changed, and after every step.
    fn replay(&self, group_of: &[usize], count: usize, mut each: impl FnMut(&[u64], Option<usize>)) {
        let mut now = vec![0_u64; group_of.len()];
        let mut groups = vec![0_u64; count];
        for step in self.series.steps() {
            for (site, value) in &step.changed {
                let (site, group) = (*site as usize, group_of[*site as usize]);
                groups[group] = groups[group] + value - now[site];
                now[site] = *value;
                each(&groups, Some(group));
            }
            each(&groups, None);
        }
    }
}

/// What [`Analysis::walk`] comes by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Visit {
    Enter(usize),
    Leave(usize),
}

#[derive(Clone, Copy, Debug, Default)]
struct GroupSums {
    allocations: u64,
    own: Below,
    all: Below,
}

/// Numbers of groups.
struct Groups<'a> {
    analysis: &'a Analysis,
    grouping: Grouping,
    count: usize,
}

impl<'a> Groups<'a> {
    fn new(analysis: &'a Analysis, grouping: Grouping) -> Self {
        let symbols = &analysis.symbols;
        let count = match grouping {
            Grouping::Site => symbols.sites().len(),
            Grouping::Library => symbols.text_count(),
            Grouping::Function => symbols.functions().len(),
        };
        Self { analysis, grouping, count }
    }

    /// The group that allocated for itself.
    fn own(&self, node: &Node) -> usize {
        let symbols = &self.analysis.symbols;
        let site = symbols.sites()[node.site as usize];
        match self.grouping {
            Grouping::Site => node.site as usize,
            Grouping::Library => symbols.functions()[site.place.function as usize].library as usize,
            Grouping::Function if node.site == 0 => site.place.function as usize,
            Grouping::Function => {
                symbols.places(node.frame).last().map_or(site.place.function, |place| place.function) as usize
            }
        }
    }

    /// The groups that the frame of the node `at` belongs to: none for the root.
    fn of_node(&self, at: usize, node: &Node, out: &mut Vec<usize>) {
        let symbols = &self.analysis.symbols;
        match self.grouping {
            _ if at == ROOT as usize => {}
            Grouping::Site => out.push(node.site as usize),
            Grouping::Library => {
                // whose callers' it is, for what only serves
                out.push(self.own(node));
                for place in symbols.places(node.frame) {
                    out.push(symbols.functions()[place.function as usize].library as usize);
                }
            }
            Grouping::Function => {
                out.extend(symbols.places(node.frame).iter().map(|place| place.function as usize));
            }
        }
        out.sort_unstable();
        out.dedup();
    }

    fn row(&self, group: usize) -> Row {
        let symbols = &self.analysis.symbols;
        let text = |number: u32| symbols.text(number).to_owned();
        if self.grouping == Grouping::Library {
            let name = text(group as u32);
            return Row { library: name.clone(), name, ..Row::default() };
        }
        let (function, line) = match self.grouping {
            Grouping::Site => {
                let place = symbols.sites()[group].place;
                (place.function as usize, place.line)
            }
            _ => (group, 0),
        };
        let function = symbols.functions()[function];
        let [name, file, library] = [function.name, function.file, function.library].map(text);
        Row { name, file, line, library, ..Row::default() }
    }
}
