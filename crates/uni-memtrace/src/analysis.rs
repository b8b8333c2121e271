//! A trace's events into sums.
//!
//! Owns what is kept while a trace is read: sums by stack, the blocks alive, the series over time, and what was wrong
//! with the trace. All of it is bounded, see [`Options`].

use std::collections::BTreeMap;
use std::io::Read;

use uni_wire::memtrace::{Alloc, Decoder, Fault, FaultKind, Item, Mode, Source};

use crate::lifetime::ShortLived;
use crate::live::{Block, LiveTable};
use crate::names::Names;
use crate::series::Series;
use crate::symbols::Symbols;
use crate::trie::{MAX_DEPTH, ROOT, Trie};

/// Bytes read at once: two of the largest packets, few enough for a processor's cache.
const READ_BYTES: usize = 1 << 16;

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
    /// Frames with names.
    pub frames: usize,
    /// All names together, in bytes.
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
    /// By domain: the node of each prefix of its last backtrace.
    paths: BTreeMap<u16, Vec<u32>>,
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
            paths: BTreeMap::new(),
            faults: BTreeMap::new(),
        }
    }

    /// Takes the next item of the trace.
    #[inline]
    pub fn handle_item(&mut self, item: &Item<'_>) {
        match item {
            Item::Alloc(alloc) => self.alloc(alloc),
            Item::Collect(event) => self.collect(event.time_micros, event.id),
            Item::Promote(event) => {
                if self.time(event.time_micros).is_some() && !self.is_left_out(event.id) {
                    self.sums.promoted += 1;
                }
            }
            Item::Location { code, positions } => self.symbols.locate(*code, positions),
            Item::Packet(header) => {
                // a trace whose beginning is missing starts with what there is of it
                self.start_micros.get_or_insert(header.begin_micros);
            }
            Item::Info(info) => {
                self.start_micros = Some(info.start_micros);
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                self.info = Some(TraceInfo {
                    executable_name: text(info.executable_name),
                    host_name: text(info.host_name),
                    pid: (info.pid != u64::MAX).then_some(info.pid),
                    start_micros: info.start_micros,
                    sample_rate: info.sample_rate,
                    word_size_bits: info.word_size_bits,
                    context: text(info.context),
                });
            }
            Item::Fault(fault) => self.fault(fault),
        }
    }

    /// The trace has ended.
    pub fn finish(&mut self) {
        self.series.finish();
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

    fn alloc(&mut self, alloc: &Alloc<'_>) {
        let node = self.stack(alloc);
        let Some(time) = self.time(alloc.time_micros) else { return };
        if self.is_left_out(alloc.id) {
            return;
        }
        let samples = u32::try_from(alloc.samples).unwrap_or(u32::MAX);
        let words = u64::from(samples);
        let at = self.trie.sums_at(node);
        let Some(entry) = self.trie.sums_mut(at) else { return };
        entry.allocations = entry.allocations.saturating_add(1);
        entry.allocated += words;
        entry.live += words;
        let site = entry.site;
        let sums = &mut self.sums;
        sums.allocations += 1;
        sums.allocated += words;
        sums.live += words;
        sums.live_blocks += 1;
        match alloc.source {
            Source::Minor => {}
            Source::Major => sums.major += words,
            Source::External => sums.external += words,
        }
        if sums.live > sums.peak {
            (sums.peak, sums.peak_micros) = (sums.live, time);
        }
        self.live.insert(alloc.id, Block { sums: at, samples });
        self.series.change(time, site, words, false);
    }

    fn collect(&mut self, time_micros: u64, id: u64) {
        let Some(time) = self.time(time_micros) else { return };
        if self.is_left_out(id) {
            return;
        }
        let Some(Block { sums: at, samples }) = self.live.remove(id) else {
            self.sums.unmatched += 1;
            return;
        };
        let words = u64::from(samples);
        self.sums.freed += 1;
        self.sums.live = self.sums.live.saturating_sub(words);
        self.sums.live_blocks = self.sums.live_blocks.saturating_sub(1);
        let Some(entry) = self.trie.sums_mut(at) else { return };
        entry.live = entry.live.saturating_sub(words);
        let site = entry.site;
        self.series.change(time, site, words, true);
    }

    /// The node of an allocation's stack. Only the frames that are not those of the one before are looked up.
    #[inline]
    fn stack(&mut self, alloc: &Alloc<'_>) -> u32 {
        let path = self.paths.entry(alloc.domain).or_default();
        path.truncate(alloc.shared_frames);
        let known = path.len();
        let mut node = path.last().copied().unwrap_or(ROOT);
        for code in alloc.backtrace.get(known..).unwrap_or_default() {
            if path.len() >= MAX_DEPTH {
                self.trie.count_cut();
                break;
            }
            node = match self.trie.quick_child(node, *code) {
                Some(child) => child,
                None => {
                    let frame = self.symbols.frame(*code);
                    let symbols = &mut self.symbols;
                    self.trie.child(node, *code, frame, |caller| symbols.site_of(caller.site, frame))
                }
            };
            path.push(node);
        }
        node
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

/// Reads a whole trace. `progress` is told how many bytes were read so far.
///
/// # Errors
/// When reading fails. A damaged trace is read as far as possible: see [`Analysis::faults`].
pub fn read(
    mut input: impl Read,
    options: &Options,
    mut progress: impl FnMut(u64),
) -> std::io::Result<Analysis> {
    let mut analysis = Analysis::new(options);
    let mut decoder = Decoder::new(Mode::Lenient);
    let mut buffer = vec![0; READ_BYTES];
    let mut total = 0;
    loop {
        let count = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        // a lenient reader has no errors
        let _none = decoder.handle_bytes(bytes, |item| analysis.handle_item(&item));
        total += count as u64;
        progress(total);
    }
    let _none = decoder.finish(|item| analysis.handle_item(&item));
    analysis.finish();
    Ok(analysis)
}
