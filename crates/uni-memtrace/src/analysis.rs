//! A trace's events into sums.
//!
//! Owns what is kept while a trace is read: sums by stack, the blocks alive, the series over time, and what was wrong
//! with the trace. All of it is bounded, see [`Options`].

use std::collections::BTreeMap;

use uni_wire::memtrace::{Fault, FaultKind, Position, Source};

use crate::batch::{Batch, Event, Kind, Other, Owned, Size};
use crate::lifetime::ShortLived;
use crate::live::{Block, LiveTable};
use crate::memo::Memo;
use crate::names::Names;
use crate::path::{Hashing, Path};
use crate::series::Series;
use crate::symbols::Symbols;
use crate::trie::Trie;

/// What is wanted of a trace, and how much may be kept of it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Look at the memory so long after the start, in microseconds; what comes later is left out. All if absent.
    pub at_micros: Option<u64>,
    /// Steps of the series over time, at least 2.
    pub steps: usize,
    /// Prefixes of stacks; about 60 bytes each.
    pub stacks: usize,
    /// Blocks that are alive long; about 25 bytes each.
    pub live_blocks: usize,
    /// Places of frames with names: one a frame, and one more for each function that was inlined.
    pub frames: usize,
    /// What all names together take, in bytes.
    pub name_bytes: usize,
    /// Who knows what addresses are called that the trace does not name.
    pub names: Option<Names>,
    /// Blocks that are left out.
    pub short_lived: Option<ShortLived>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            at_micros: None,
            steps: 240,
            stacks: 1_000_000,
            live_blocks: 3_600_000,
            frames: 500_000,
            name_bytes: 32 << 20,
            names: None,
            short_lived: None,
        }
    }
}

/// What the trace says of itself.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct TraceInfo {
    /// The traced program.
    pub executable_name: String,
    /// Where it ran.
    pub host_name: String,
    /// Its process id; absent for unikernels.
    pub pid: Option<u64>,
    /// When the trace began, in microseconds since the Unix epoch.
    pub start_micros: u64,
    /// Probability with which a word is sampled.
    pub sample_rate: f64,
    /// Bits of a word.
    pub word_size_bits: u8,
    /// Anything the program wanted said.
    pub context: String,
}

/// One kind of fault: how often, where first, and what was skipped.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FaultCount {
    /// What was wrong, in words.
    pub what: String,
    /// How often.
    pub count: u64,
    /// Where it was wrong first, in bytes from the beginning.
    pub first_offset: u64,
    /// Bytes that were not read for that.
    pub skipped_bytes: u64,
}

/// Sums of a trace, in sampled words where nothing else is said.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) allocations: u64,
    pub(crate) freed: u64,
    pub(crate) promoted: u64,
    pub(crate) allocated: u64,
    pub(crate) major: u64,
    pub(crate) external: u64,
    pub(crate) live: u64,
    pub(crate) live_blocks: u64,
    pub(crate) peak: u64,
    pub(crate) peak_micros: u64,
    pub(crate) last_micros: u64,
    /// Frees of blocks whose allocation is not known.
    pub(crate) unmatched: u64,
}

/// Takes the events of a trace.
#[derive(Debug)]
pub struct Analysis {
    at_micros: Option<u64>,
    left_out: Option<ShortLived>,
    pub(crate) info: Option<TraceInfo>,
    start_micros: Option<u64>,
    pub(crate) symbols: Symbols,
    pub(crate) trie: Trie,
    pub(crate) live: LiveTable,
    pub(crate) series: Series,
    pub(crate) sums: Sums,
    hashing: Hashing,
    memo: Memo,
    /// The domain that allocated last, and its last stack.
    domain: u16,
    path: Path,
    /// The same of the other domains.
    paths: BTreeMap<u16, Path>,
    faults: BTreeMap<u64, (FaultKind, FaultCount)>,
}

impl Analysis {
    /// Nothing yet.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        Self {
            at_micros: options.at_micros,
            left_out: options.short_lived.clone(),
            info: None,
            start_micros: None,
            symbols: Symbols::new(options.name_bytes, options.frames).with_names(options.names.clone()),
            trie: Trie::new(options.stacks),
            live: LiveTable::new(options.live_blocks),
            series: Series::new(options.steps),
            sums: Sums::default(),
            hashing: Hashing::new(),
            memo: Memo::new(),
            domain: 0,
            path: Path::default(),
            paths: BTreeMap::new(),
            faults: BTreeMap::new(),
        }
    }

    /// Takes the next events of the trace.
    pub(crate) fn handle_batch(&mut self, batch: &mut Batch) {
        let mut codes = &batch.codes[..];
        let mut others = batch.others.drain(..);
        let mut take = |count: usize| {
            let (taken, rest) = codes.split_at_checked(count).unwrap_or((codes, &[]));
            codes = rest;
            taken
        };
        for event in &batch.events {
            match event.kind {
                Kind::Alloc(source) => {
                    let size = event.size();
                    self.alloc(event, source, size, take(size.new_frames));
                }
                Kind::Collect => self.collect(event.time_micros, event.id),
                Kind::Promote => {
                    if self.time(event.time_micros).is_some() && !self.is_left_out(event.id) {
                        self.sums.promoted += 1;
                    }
                }
                Kind::Other => match others.next() {
                    Some(Other::Alloc(source, size)) => {
                        self.alloc(event, source, size, take(size.new_frames));
                    }
                    Some(other) => self.other(other),
                    None => {}
                },
            }
        }
    }

    #[cold]
    fn other(&mut self, other: Other) {
        match other {
            Other::Location { code, positions } => {
                let positions: Vec<Position<'_>> = positions.iter().map(Owned::position).collect();
                self.symbols.locate(code, &positions);
            }
            Other::Packet { begin_micros, domain } => {
                // a trace whose beginning is missing starts with what there is of it
                self.start_micros.get_or_insert(begin_micros);
                self.enter(domain);
            }
            Other::Info(info) => {
                self.start_micros = Some(info.start_micros);
                self.info = Some(info);
            }
            Other::Fault(fault) => self.fault(&fault),
            // an event, which is not taken here
            Other::Alloc(..) => {}
        }
    }

    /// The trace has ended.
    pub(crate) fn finish(&mut self) {
        self.series.finish(&mut self.trie.stacks);
        self.symbols.settle();
    }

    /// Whether nothing at all could be read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.info.is_none() && self.sums.allocations == 0
    }

    /// The traced program; absent if the trace's beginning is.
    #[must_use]
    pub fn program(&self) -> Option<&str> {
        self.info.as_ref().map(|info| info.executable_name.as_str())
    }

    /// Whether the trace says how much was sampled: without it, sizes are those of the samples alone.
    #[must_use]
    pub const fn has_info(&self) -> bool {
        self.info.is_some()
    }

    /// Faults by kind, in the order in which they came first.
    #[must_use]
    pub fn faults(&self) -> Vec<FaultCount> {
        let mut faults: Vec<FaultCount> = self.faults.values().map(|(_, count)| count.clone()).collect();
        faults.sort_by_key(|fault| fault.first_offset);
        faults
    }

    /// What the limits cost, in words.
    #[must_use]
    pub fn limits_reached(&self) -> Vec<String> {
        let mut reached = Vec::new();
        if self.trie.cut() > 0 {
            reached.push(format!(
                "{} frames were left out: there are more different stacks than are kept, or deeper ones",
                self.trie.cut()
            ));
        }
        if self.live.untracked() > 0 {
            reached.push(format!(
                "{} blocks count as alive for ever: more are alive than are kept",
                self.live.untracked()
            ));
        }
        reached
    }

    /// Time since the start; `None` if that is later than what is asked for.
    #[inline]
    fn time(&mut self, time_micros: u64) -> Option<u64> {
        let time = time_micros.saturating_sub(self.start_micros.unwrap_or(time_micros));
        if self.at_micros.is_some_and(|at| time > at) {
            return None;
        }
        self.sums.last_micros = self.sums.last_micros.max(time);
        Some(time)
    }

    #[inline]
    fn is_left_out(&self, id: u64) -> bool {
        self.left_out.as_ref().is_some_and(|left_out| left_out.has(id))
    }

    #[inline]
    fn alloc(&mut self, alloc: &Event, source: Source, size: Size, new_frames: &[u64]) {
        let at = self.stack(size.shared_frames, new_frames);
        let Some(time) = self.time(alloc.time_micros) else { return };
        if self.is_left_out(alloc.id) {
            return;
        }
        self.series.reach(time, &mut self.trie.stacks);
        let samples = size.samples;
        let words = u64::from(samples);
        let Some(stack) = self.trie.stacks.get_mut(at) else { return };
        stack.allocations = stack.allocations.saturating_add(1);
        stack.allocated += words;
        stack.live += words;
        self.series.change(at, &mut stack.step);
        let sums = &mut self.sums;
        sums.allocations += 1;
        sums.allocated += words;
        sums.live += words;
        sums.live_blocks += 1;
        match source {
            Source::Minor => {}
            Source::Major => sums.major += words,
            Source::External => sums.external += words,
        }
        if sums.live > sums.peak {
            (sums.peak, sums.peak_micros) = (sums.live, time);
        }
        self.live.insert(alloc.id, Block { stack: at, samples });
    }

    #[inline]
    fn collect(&mut self, time_micros: u64, id: u64) {
        let Some(time) = self.time(time_micros) else { return };
        if self.is_left_out(id) {
            return;
        }
        let Some(Block { stack: at, samples }) = self.live.remove(id) else {
            self.sums.unmatched += 1;
            return;
        };
        let words = u64::from(samples);
        self.sums.freed += 1;
        self.sums.live = self.sums.live.saturating_sub(words);
        self.sums.live_blocks = self.sums.live_blocks.saturating_sub(1);
        self.series.reach(time, &mut self.trie.stacks);
        let Some(stack) = self.trie.stacks.get_mut(at) else { return };
        stack.live = stack.live.saturating_sub(words);
        self.series.change(at, &mut stack.step);
    }

    /// What follows is of this domain.
    fn enter(&mut self, domain: u16) {
        if self.domain != domain {
            let path = self.paths.remove(&domain).unwrap_or_default();
            self.paths.insert(self.domain, std::mem::replace(&mut self.path, path));
            self.domain = domain;
        }
    }

    /// Where the sums of an allocation's stack are.
    #[inline]
    fn stack(&mut self, shared_frames: usize, new_frames: &[u64]) -> u32 {
        let (hash, fits) = self.path.change(&self.hashing, shared_frames, new_frames);
        if !fits {
            self.trie.count_cut();
        }
        self.memo.find(hash).unwrap_or_else(|| self.look_up(hash))
    }

    /// Walks through the frames of the stack that were not looked up yet. One that was cut is not remembered: each time
    /// it comes it is counted.
    #[cold]
    fn look_up(&mut self, hash: u64) -> u32 {
        let node = loop {
            let (caller, Some(code)) = self.path.next() else { break self.path.next().0 };
            let cut = self.trie.cut();
            let node = self.trie.quick_child(caller, code).unwrap_or_else(|| {
                let frame = self.symbols.frame(code);
                let symbols = &mut self.symbols;
                self.trie.child(caller, code, frame, |node| symbols.site_of(node.site, frame))
            });
            self.path.push_node(node, self.trie.cut() > cut);
        };
        let stack = self.trie.stack_of(node);
        if self.path.is_whole() {
            self.memo.insert(hash, stack);
        }
        stack
    }

    fn fault(&mut self, fault: &Fault) {
        // kinds with different numbers inside are still one kind
        let kind = match fault.kind {
            FaultKind::OtherProcess(_) => FaultKind::OtherProcess(0),
            FaultKind::MissingAllocations(_) => FaultKind::MissingAllocations(0),
            FaultKind::Event(_) => FaultKind::Event(0),
            FaultKind::PacketSize(_) => FaultKind::PacketSize(0),
            FaultKind::Version(_) => FaultKind::Version(0),
            FaultKind::Source(_) => FaultKind::Source(0),
            FaultKind::TooManyDomains(_) => FaultKind::TooManyDomains(0),
            kind => kind,
        };
        let known = self.faults.values_mut().find(|(known, _)| *known == kind);
        match known {
            Some((_, count)) => {
                count.count += 1;
                count.skipped_bytes += fault.skipped_bytes;
            }
            None => {
                let count = FaultCount {
                    what: fault.kind.to_string(),
                    count: 1,
                    first_offset: fault.offset,
                    skipped_bytes: fault.skipped_bytes,
                };
                self.faults.insert(self.faults.len() as u64, (kind, count));
            }
        }
    }
}
