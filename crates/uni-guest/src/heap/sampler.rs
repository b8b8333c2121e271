//! Which allocations are sampled, and what becomes of the samples.
//!
//! Owns both processes: the profile, which lasts and whose interval follows the heap's size, and a trace, which comes
//! and goes. Both are Poisson processes over the bytes that are allocated; a thread counts down to the next point of
//! either, and chance decides whose it is. Recording takes no lock, allocates nothing and never waits.
//!
//! A block that a process of interval I hits is hit with probability 1 - exp(-size/I), so it stands for the inverse
//! of that many. Each sample keeps the interval it was drawn with. When the heap grows, the interval does, and samples
//! of a finer one are kept with just the probability that makes them samples of the coarser.

use alloc::boxed::Box;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicU64};

use super::chance::{binomial, coin, exponential, hit_probability, whole};
use super::events::{Captured, TraceMemory};
use super::libraries::{LibraryMap, Owner};
use super::local::Local;
use super::owners::Owners;
use super::table::{Filter, Table};

/// The finest interval in bytes.
const FINEST_BYTES: f64 = 512.0;
/// Samples in a large heap, at least: enough to tell 5 % of it to a tenth, even of small blocks alone (with 8192, that
/// would hardly be so in 95 % of cases), and few enough for the table with a step's room to spare.
const SAMPLES: f64 = 10_000.0;
/// Steps of the interval to its double.
const STEPS: u32 = 4;
const STEP: [f64; STEPS as usize] =
    [1.0, 1.189_207_115_002_721, core::f64::consts::SQRT_2, 1.681_792_830_507_429];
/// The largest interval that busy programs are given while their heap is tiny (8 KiB), and while it is small: 2 KiB, that
/// of the least large heap. Blocks may live until it is large, and are then to be known as exactly as those to come.
const COARSEST_FLOOR: u32 = 4 * STEPS;
const SMALL_FLOOR: u32 = 2 * STEPS;
/// Heaps are small from so many bytes on, and large: then the interval is what the heap's size asks for, however busy
/// the program is.
const SMALL_BYTES: f64 = 1_048_576.0;
const LARGE_BYTES: f64 = 16.0 * 1_048_576.0;
/// Samples between two reports that cost nothing worth mentioning: a sample takes some 0.2 us, and 5 us in a guest whose
/// processor is emulated, so that at one report a second they take 0.5 % of that. And those after which nobody waits for
/// a report.
const SAMPLES_A_ROUND: u64 = 1000;
const SAMPLES_UNREPORTED: u64 = 40_000;
/// The profile is off.
const OFF: u32 = u32::MAX;
/// The coarsest interval, of 512 GiB.
const COARSEST: u32 = 30 * STEPS;
/// A thread looks at the rates whenever it has allocated so much.
const LOOK_BYTES: f64 = 65_536.0;
/// Of what a trace counts.
pub(super) const WORD_BYTES: u64 = 8;
/// How deep a library is looked for.
const MAX_PROFILE_FRAMES: usize = 64;

/// A sample of the profile in one word: size (40 bits), library (14), interval (9), whether a trace has it too (1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) size: u64,
    pub(super) library: u16,
    pub(super) interval: u32,
    /// Whether it was also a sample of the trace that was taken then: if not, nobody has to look for it there.
    pub(super) is_traced: bool,
}

impl Sample {
    const MAX_SIZE: u64 = (1 << 40) - 1;
    /// Of what no library is known.
    pub(super) const NOBODY: u16 = (1 << 14) - 1;

    pub(super) const fn pack(self) -> u64 {
        let size = if self.size > Self::MAX_SIZE { Self::MAX_SIZE } else { self.size };
        let interval = (self.interval as u64 & 0x1ff) << 1;
        (size << 24) | ((self.library as u64 & 0x3fff) << 10) | interval | self.is_traced as u64
    }

    pub(super) const fn unpack(word: u64) -> Self {
        let (library, interval) = ((word >> 10) as u16 & 0x3fff, (word >> 1) as u32 & 0x1ff);
        Self { size: word >> 24, library, interval, is_traced: word & 1 == 1 }
    }

    fn probability(self) -> f64 {
        hit_probability(self.size as f64, interval_bytes(self.interval))
    }

    /// How many blocks like this one it stands for.
    pub(super) fn objects(self) -> f64 {
        1.0 / self.probability()
    }

    /// About the bytes it stands for, cheaply.
    fn about_bytes(self) -> i64 {
        let (size, interval) = (self.size as f64, interval_bytes(self.interval));
        (size.max(interval) + size.min(interval) / 2.0) as i64
    }
}

/// The mean of the process's gaps.
pub(super) fn interval_bytes(interval: u32) -> f64 {
    let step = STEP[(interval % STEPS) as usize];
    FINEST_BYTES * step * (1_u64 << (interval / STEPS).min(60)) as f64
}

/// Points of the profile in a byte.
fn frequency(interval: u32) -> f64 {
    if interval == OFF { 0.0 } else { 1.0 / interval_bytes(interval) }
}

/// The largest interval that a busy program is given, for so many bytes.
fn coarsest_floor(live_bytes: f64) -> u32 {
    match live_bytes {
        small if small < SMALL_BYTES => COARSEST_FLOOR,
        medium if medium < LARGE_BYTES => SMALL_FLOOR,
        _ => 0,
    }
}

/// The coarsest interval that is fine enough for so many bytes.
fn fitting_interval(live_bytes: f64) -> u32 {
    let ratio = live_bytes / (SAMPLES * FINEST_BYTES);
    if ratio < 1.0 {
        return 0;
    }
    u32::try_from(whole(libm::log2(ratio) * f64::from(STEPS))).unwrap_or(COARSEST).min(COARSEST)
}

/// What was hit in one block.
#[derive(Clone, Copy, Debug, Default)]
struct Hits {
    /// The profile's interval.
    profile: Option<u32>,
    /// Words that the trace hit.
    trace: u64,
}

/// A trace as recorders see it: which one (0: none), and the probability of a word.
#[derive(Clone, Copy, Debug, PartialEq)]
struct TraceRate {
    epoch: u32,
    rate: f32,
}

impl TraceRate {
    const fn pack(self) -> u64 {
        (self.epoch as u64) << 32 | self.rate.to_bits() as u64
    }

    const fn unpack(word: u64) -> Self {
        Self { epoch: (word >> 32) as u32, rate: f32::from_bits(word as u32) }
    }

    /// Points in a byte of the process that hits each word with this probability.
    fn frequency(self) -> f64 {
        /// Of a probability of 1: every byte is hit.
        const EVERYWHERE: f64 = 1000.0;
        match f64::from(self.rate) {
            rate if rate <= 0.0 => 0.0,
            rate if rate >= 1.0 => EVERYWHERE,
            rate => -libm::log1p(-rate) / WORD_BYTES as f64,
        }
    }
}

/// Calls what it is given with the address of each caller, the innermost first, until that returns `false`; at most
/// so many.
pub(super) trait Walk: Fn(usize, &mut dyn FnMut(usize) -> bool) {}

impl<F: Fn(usize, &mut dyn FnMut(usize) -> bool)> Walk for F {}

/// Where recorders look. Without a table nothing is recorded.
#[derive(Debug)]
pub(super) struct Sampler {
    /// Of the blocks of both processes.
    filter: Filter,
    profile: AtomicPtr<Table>,
    map: AtomicPtr<LibraryMap>,
    owners: Owners,
    memory: AtomicPtr<TraceMemory>,
    /// The profile's interval and one: [`OFF`] is 0.
    interval_and_one: AtomicU32,
    trace: AtomicU64,
    /// Points of the trace in a byte, as the bits of an `f64`: a logarithm that is taken once.
    trace_frequency: AtomicU64,
    seed: AtomicU64,
    /// About the bytes that are live, by the samples.
    live_bytes: AtomicI64,
    samples: AtomicI64,
    thinning: AtomicBool,
    /// The least interval while the heap is small: it rises where much is allocated between two reports.
    floor: AtomicU32,
    /// Samples taken since the last report.
    round: AtomicU64,
    /// Samples that found no place.
    lost: AtomicU64,
    used: AtomicBool,
}

impl Sampler {
    /// All zeros, so that it takes no room in an image.
    pub(super) const fn new() -> Self {
        let none = core::ptr::null_mut();
        Self {
            filter: Filter::new(),
            profile: AtomicPtr::new(none),
            map: AtomicPtr::new(core::ptr::null_mut()),
            owners: Owners::new(),
            memory: AtomicPtr::new(core::ptr::null_mut()),
            interval_and_one: AtomicU32::new(0),
            trace: AtomicU64::new(0),
            trace_frequency: AtomicU64::new(0),
            seed: AtomicU64::new(0),
            live_bytes: AtomicI64::new(0),
            samples: AtomicI64::new(0),
            thinning: AtomicBool::new(false),
            floor: AtomicU32::new(0),
            round: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            used: AtomicBool::new(false),
        }
    }

    fn profile(&self) -> Option<&Table> {
        // SAFETY: null, or what `reserve` leaked.
        unsafe { self.profile.load(Acquire).as_ref() }
    }

    pub(super) fn map(&self) -> Option<&LibraryMap> {
        // SAFETY: null, or what `set_map` leaked.
        unsafe { self.map.load(Acquire).as_ref() }
    }

    pub(super) fn memory(&self) -> Option<&TraceMemory> {
        // SAFETY: null, or what `begin_trace` leaked.
        unsafe { self.memory.load(Acquire).as_ref() }
    }

    /// Makes room for samples; `places` is of the first call. `false` if there is no memory for it.
    fn reserve(&self, places: usize) -> bool {
        if self.profile().is_some() {
            return true;
        }
        let Some(table) = Table::new(places) else { return false };
        self.profile.store(Box::leak(Box::new(table)), Release);
        true
    }

    /// Starts the profile. `seed` begins the chance of threads that have not allocated yet. `false` if there is no
    /// memory for it.
    pub(super) fn start(&self, places: usize, seed: u64) -> bool {
        self.seed.fetch_xor(seed, Relaxed);
        let is_ready = self.reserve(places);
        self.floor.store(0, Relaxed);
        self.round.store(0, Relaxed);
        if is_ready {
            self.set_interval(0);
        }
        is_ready
    }

    /// Ends the profile; what is known of blocks is forgotten.
    pub(super) fn stop(&self) {
        self.set_interval(OFF);
        let Some(profile) = self.profile() else { return };
        profile.retain(|_| None, |address, word, _| self.forget(address, Sample::unpack(word)));
    }

    /// A report was made. Where many samples were taken since the last, blocks come and go fast, and the interval of a
    /// small heap becomes coarser; where there were few, finer again. Returns how many there were.
    pub(super) fn end_round(&self) -> u64 {
        let (taken, floor) = (self.round.swap(0, Relaxed), self.floor.load(Relaxed));
        let floor = match taken / SAMPLES_A_ROUND {
            0 if taken < SAMPLES_A_ROUND / 4 => floor.saturating_sub(STEPS / 2),
            0 => floor,
            times => floor + STEPS * (1 + times.ilog2()),
        };
        self.floor.store(floor.min(COARSEST_FLOOR), Relaxed);
        taken
    }

    /// Whether anything was ever allocated.
    pub(super) fn was_used(&self) -> bool {
        self.used.load(Relaxed)
    }

    fn interval(&self) -> u32 {
        self.interval_and_one.load(Relaxed).wrapping_sub(1)
    }

    fn set_interval(&self, interval: u32) {
        self.interval_and_one.store(interval.wrapping_add(1), Relaxed);
    }

    fn is_on(&self) -> bool {
        self.interval() != OFF
    }

    pub(super) fn set_map(&self, map: LibraryMap) {
        self.map.store(Box::leak(Box::new(map)), Release);
        self.owners.clear();
    }

    /// Samples of the profile that found no place.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Records from now on with this probability a word, until [`end_trace`](Self::end_trace). What the trace needs
    /// is made by `make`, for so many places, and kept for the next. `None` if there is no memory for it.
    pub(super) fn begin_trace(
        &self,
        rate: f64,
        places: usize,
        make: impl FnOnce() -> Option<TraceMemory>,
    ) -> Option<&TraceMemory> {
        if !self.reserve(places) {
            return None;
        }
        if self.memory().is_none() {
            self.memory.store(Box::leak(Box::new(make()?)), Release);
        }
        let memory = self.memory()?;
        self.clear_trace();
        let trace = TraceRate { epoch: memory.begin(), rate: rate as f32 };
        self.trace_frequency.store(trace.frequency().to_bits(), Relaxed);
        self.trace.store(trace.pack(), Release);
        Some(memory)
    }

    /// Blocks of the trace that live on are forgotten.
    pub(super) fn end_trace(&self) {
        self.trace.store(0, Release);
        self.clear_trace();
    }

    fn clear_trace(&self) {
        if let Some(memory) = self.memory() {
            memory.table.retain(|_| None, |address, _, _| self.filter.subtract(address));
        }
    }

    #[inline]
    pub(super) fn may_be_sampled(&self, address: usize) -> bool {
        self.filter.may_have(address)
    }

    /// A block was allocated, and the way to the next point is over. `walk` names the callers. What fell on a block that
    /// could not be allocated (its address is 0) is nobody's.
    pub(super) fn record(&self, local: &Local, address: usize, size: usize, walk: impl Walk) {
        self.used.store(true, Relaxed);
        let size = size as u64;
        let before = local.countdown.load(Relaxed).wrapping_add_unsigned(size).max(0).cast_unsigned();
        let hits = local.with_chance(&self.seed, |chance| self.draw(local, size, before.min(size), chance));
        if address == 0 {
            return;
        }
        if let (Some(interval), Some(profile)) = (hits.profile, self.profile()) {
            let (library, is_traced) = (self.library(&walk), hits.trace > 0);
            self.add(profile, address, Sample { size, library, interval, is_traced });
            self.follow(local, profile, interval);
        }
        if hits.trace > 0 {
            self.capture(address, size, hits.trace, &walk);
        }
    }

    /// What hit the block, in which the point that was counted down to lies `before` bytes from its start; and where
    /// the next point is, from the block's end.
    fn draw(&self, local: &Local, size: u64, before: u64, chance: &mut u64) -> Hits {
        let mut hits = self.drawn_before(local, chance);
        let (interval, trace) = (self.interval(), TraceRate::unpack(self.trace.load(Acquire)));
        if hits.profile.is_none()
            && interval != OFF
            && coin(chance, hit_probability((size - before) as f64, interval_bytes(interval)))
        {
            hits.profile = Some(interval);
        }
        if trace.epoch != 0 {
            let words = size.div_ceil(WORD_BYTES) - before / WORD_BYTES;
            hits.trace += binomial(chance, words.saturating_sub(hits.trace), f64::from(trace.rate));
        }
        self.count_down(local, interval, trace, chance);
        hits
    }

    /// Whose the point was that the thread counted down to, if it was one.
    fn drawn_before(&self, local: &Local, chance: &mut u64) -> Hits {
        let mut hits = Hits::default();
        if !local.is_sample.load(Relaxed) {
            return hits;
        }
        let (interval, drawn) = (local.interval.load(Relaxed), local.trace.load(Relaxed));
        if coin(chance, f64::from_bits(local.profile_share.load(Relaxed))) {
            hits.profile = self.is_on().then_some(interval);
        } else if drawn == self.trace.load(Relaxed) {
            hits.trace = 1;
        }
        hits
    }

    /// Draws the next point. One that is far away is drawn anew when the thread has come some of the way: the process
    /// has no memory, and the rates may be others by then.
    fn count_down(&self, local: &Local, interval: u32, trace: TraceRate, chance: &mut u64) {
        let profile = frequency(interval);
        let rate = profile + self.trace_frequency(trace);
        let gap = if rate > 0.0 { exponential(chance, 1.0 / rate) } else { f64::INFINITY };
        local.is_sample.store(gap <= LOOK_BYTES, Relaxed);
        local.profile_share.store((profile / rate).to_bits(), Relaxed);
        local.interval.store(interval, Relaxed);
        local.trace.store(trace.pack(), Relaxed);
        local.countdown.store(gap.min(LOOK_BYTES) as i64, Relaxed);
    }

    /// Points of the trace in a byte; `trace` was loaded before.
    fn trace_frequency(&self, trace: TraceRate) -> f64 {
        if trace.epoch == 0 { 0.0 } else { f64::from_bits(self.trace_frequency.load(Relaxed)) }
    }

    fn library(&self, walk: &impl Walk) -> u16 {
        let Some(map) = self.map() else { return Sample::NOBODY };
        let (mut found, mut on_behalf) = (None, None);
        walk(MAX_PROFILE_FRAMES, &mut |address| {
            match self.owners.find(address, |address| map.owner(address)) {
                Owner::Library(library) => found = Some(library),
                Owner::OnBehalf(library) => on_behalf = Some(library),
                Owner::Unknown => {}
            }
            found.is_none()
        });
        found.or(on_behalf).unwrap_or(Sample::NOBODY)
    }

    fn add(&self, profile: &Table, address: usize, sample: Sample) {
        self.filter.add(address);
        if profile.insert(address, || Some(sample.pack())) {
            self.samples.fetch_add(1, Relaxed);
            self.live_bytes.fetch_add(sample.about_bytes(), Relaxed);
        } else {
            self.filter.subtract(address);
            self.lost.fetch_add(1, Relaxed);
        }
    }

    fn forget(&self, address: usize, sample: Sample) {
        self.filter.subtract(address);
        self.samples.fetch_sub(1, Relaxed);
        self.live_bytes.fetch_sub(sample.about_bytes(), Relaxed);
    }

    /// The interval follows what is live, and the table's room.
    fn follow(&self, local: &Local, profile: &Table, drawn: u32) {
        let now = self.interval();
        if drawn != now || now == OFF {
            return;
        }
        if self.round.fetch_add(1, Relaxed) >= SAMPLES_UNREPORTED {
            self.end_round();
        }
        let live = self.live_bytes.load(Relaxed).max(0) as f64;
        let most = i64::try_from(profile.places() / 4 * 3).unwrap_or(i64::MAX);
        let fitting = fitting_interval(live).max(self.floor.load(Relaxed).min(coarsest_floor(live)));
        if self.samples.load(Relaxed) > most {
            local.with_chance(&self.seed, |chance| self.thin(profile, fitting.max(now + 1), chance));
        } else if fitting > now {
            local.with_chance(&self.seed, |chance| self.thin(profile, fitting, chance));
        } else if fitting + STEPS < now && self.samples.load(Relaxed) < most / 2 {
            // Those who were sampled before keep their interval; blocks to come are seen more finely.
            self.set_interval(fitting);
        }
    }

    /// Makes the interval coarser, and the samples of finer ones fewer. Whoever else is about to, goes on instead.
    fn thin(&self, profile: &Table, interval: u32, chance: &mut u64) {
        if self.thinning.swap(true, AcqRel) {
            return;
        }
        let interval = interval.min(COARSEST);
        self.set_interval(interval);
        let keep = |word| {
            let sample = Sample::unpack(word);
            if sample.interval >= interval {
                return Some(word);
            }
            let coarse = Sample { interval, ..sample };
            coin(chance, coarse.probability() / sample.probability()).then(|| coarse.pack())
        };
        profile.retain(keep, |address, before, after| match after {
            None => self.forget(address, Sample::unpack(before)),
            Some(after) => {
                let more = Sample::unpack(after).about_bytes() - Sample::unpack(before).about_bytes();
                self.live_bytes.fetch_add(more, Relaxed);
            }
        });
        self.thinning.store(false, Release);
    }

    /// What is known of a block that may be sampled is taken out: it is about to be freed, or to move.
    pub(super) fn take(&self, address: usize) -> Taken {
        let profile = self.profile().and_then(|profile| profile.remove(address)).map(Sample::unpack);
        if let Some(sample) = profile {
            self.forget(address, sample);
        }
        // Without a trace, its table is empty, but for blocks that were recorded as it ended: the next one forgets them.
        let may_be_traced = self.trace.load(Relaxed) != 0 && profile.is_none_or(|sample| sample.is_traced);
        let memory = if may_be_traced { self.memory() } else { None };
        let trace = memory.and_then(|memory| memory.table.remove(address));
        if trace.is_some() {
            self.filter.subtract(address);
        }
        Taken { profile, trace }
    }

    /// The block was freed.
    pub(super) fn freed(&self, taken: Taken) {
        let live = TraceRate::unpack(self.trace.load(Acquire)).epoch;
        if let (Some(word), Some(memory)) = (taken.trace, self.memory())
            && TraceMemory::epoch_of(word) == live
        {
            memory.free(word);
        }
    }

    /// The block was not freed after all.
    pub(super) fn restore(&self, address: usize, taken: Taken) {
        if let (Some(sample), Some(profile)) = (taken.profile, self.profile()) {
            self.add(profile, address, sample);
        }
        if let (Some(word), Some(memory)) = (taken.trace, self.memory()) {
            self.filter.add(address);
            if !memory.table.insert(address, || Some(word)) {
                self.filter.subtract(address);
            }
        }
    }

    fn capture(&self, address: usize, size: u64, samples: u64, walk: &impl Walk) {
        let Some(memory) = self.memory() else { return };
        let mut captured = Captured::new(size, samples);
        walk(Captured::MAX_FRAMES, &mut |frame| captured.push(frame));
        self.filter.add(address);
        if !memory.table.insert(address, || memory.allocate(&captured)) {
            self.filter.subtract(address);
            memory.drop_event();
        }
    }

    /// Calls `each` with every sample.
    pub(super) fn for_each(&self, mut each: impl FnMut(Sample)) {
        if let Some(profile) = self.profile() {
            profile.for_each(|word| each(Sample::unpack(word)));
        }
    }
}

/// What was known of a block.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    profile: Option<Sample>,
    trace: Option<u64>,
}
