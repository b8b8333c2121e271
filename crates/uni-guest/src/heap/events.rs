//! What a trace's recorders say to the one who writes it: a bounded ring without locks, and the blocks they know.
//!
//! Owns both. Who records never waits and never allocates: an event that finds no room is dropped and counted, and a
//! block whose allocation was dropped is not known either, so that nothing is freed that was never there. Of the
//! room, a quarter is for blocks that are freed: those events are small, and a lost one would look like a leak.
//!
//! The ring is of words. Who writes takes words off its head, writes them, and its first one last, which is never 0;
//! the reader takes events in the order in which their room was taken, and leaves zeros. With its room, an allocation
//! takes the next number of the trace, so numbers come in the order of the ring.

use alloc::vec::Vec;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU32, AtomicU64};

use super::table::Table;

/// Words of an event before its frames: what it is, the time, the number, the size, the samples.
const HEAD_WORDS: usize = 5;
const FREED_WORDS: usize = 3;
/// What the first word of an event says, so that it is not 0.
const ALLOCATED: u64 = 1 << 63;
const FREED: u64 = 1 << 62;

/// Microseconds since the Unix epoch; asked by whoever allocates, so it must neither allocate nor wait.
pub type MicrosFn = fn() -> u64;

/// A sampled allocation, on the stack of who records it.
#[derive(Debug)]
pub(super) struct Captured {
    size: u64,
    samples: u64,
    frames: [usize; Self::MAX_FRAMES],
    depth: usize,
}

impl Captured {
    pub(super) const MAX_FRAMES: usize = 48;

    pub(super) const fn new(size: u64, samples: u64) -> Self {
        Self { size, samples, frames: [0; Self::MAX_FRAMES], depth: 0 }
    }

    /// Adds a caller; returns whether another finds room.
    pub(super) fn push(&mut self, frame: usize) -> bool {
        if let Some(room) = self.frames.get_mut(self.depth) {
            *room = frame;
            self.depth += 1;
        }
        self.depth < Self::MAX_FRAMES
    }

    fn frames(&self) -> &[usize] {
        self.frames.get(..self.depth).unwrap_or_default()
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    /// Number `serial` of the trace; the callers, the innermost first.
    Allocated { serial: u32, size: u64, samples: u64, frames: &'a [u64] },
    /// That one was freed.
    Freed { serial: u32 },
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct TraceMemory {
    /// The blocks that the trace knows, each with the trace and its number.
    pub(super) table: Table,
    words: Vec<AtomicU64>,
    /// How many words were ever taken, and above them the number of the next allocation.
    head: AtomicU64,
    /// How many words were ever read.
    tail: AtomicU32,
    epoch: AtomicU32,
    dropped: AtomicU64,
    clock: MicrosFn,
}

impl TraceMemory {
    /// Room for so many blocks and words, powers of two. `None` if there is no memory for it.
    pub(super) fn new(places: usize, words: usize, clock: MicrosFn) -> Option<Self> {
        let mut ring = Vec::new();
        ring.try_reserve_exact(words).ok()?;
        ring.resize_with(words, AtomicU64::default);
        Some(Self {
            table: Table::new(places)?,
            words: ring,
            head: AtomicU64::new(0),
            tail: AtomicU32::new(0),
            epoch: AtomicU32::new(0),
            dropped: AtomicU64::new(0),
            clock,
        })
    }

    /// Begins another trace, whose allocations are numbered from 0; returns which one it is. Never 0.
    pub(super) fn begin(&self) -> u32 {
        let epoch = self.epoch.load(Relaxed).wrapping_add(1).max(1);
        self.epoch.store(epoch, Relaxed);
        self.head.fetch_and(u64::from(u32::MAX), AcqRel);
        epoch
    }

    /// Events since the start of the program that found no room.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    pub(super) fn drop_event(&self) {
        self.dropped.fetch_add(1, Relaxed);
    }

    pub(super) fn now_micros(&self) -> u64 {
        (self.clock)()
    }

    /// Says that a block was allocated; returns what is to be known of it.
    pub(super) fn allocate(&self, captured: &Captured) -> Option<u64> {
        let frames = captured.frames();
        let (at, serial) = self.claim(HEAD_WORDS + frames.len(), true)?;
        let body = [self.now_micros(), u64::from(serial), captured.size, captured.samples];
        let frames = frames.iter().map(|frame| *frame as u64);
        let epoch = self.epoch.load(Relaxed);
        self.write(
            at,
            ALLOCATED | (captured.depth as u64) << 32 | u64::from(epoch),
            body.into_iter().chain(frames),
        );
        Some(u64::from(epoch) << 32 | u64::from(serial))
    }

    /// Says that the block was freed of which `known` is known.
    pub(super) fn free(&self, known: u64) {
        match self.claim(FREED_WORDS, false) {
            Some((at, _)) => {
                let serial = known & u64::from(u32::MAX);
                self.write(at, FREED | known >> 32, [self.now_micros(), serial].into_iter());
            }
            None => self.drop_event(),
        }
    }

    /// Which trace a block is of.
    pub(super) const fn epoch_of(known: u64) -> u32 {
        (known >> 32) as u32
    }

    /// Takes words: where they begin, and the number of the allocation.
    fn claim(&self, words: usize, is_allocation: bool) -> Option<(u32, u32)> {
        let most = if is_allocation { self.words.len() / 4 * 3 } else { self.words.len() };
        let tail = self.tail.load(Acquire);
        let taken = self.head.fetch_update(AcqRel, Relaxed, |head| {
            let (at, serial) = (head as u32, (head >> 32) as u32);
            let used = at.wrapping_sub(tail) as usize;
            let serial = serial.wrapping_add(u32::from(is_allocation));
            (used + words <= most).then(|| u64::from(serial) << 32 | u64::from(at.wrapping_add(words as u32)))
        });
        taken.ok().map(|head| (head as u32, (head >> 32) as u32))
    }

    fn word(&self, at: u32) -> &AtomicU64 {
        &self.words[at as usize & (self.words.len() - 1)]
    }

    fn write(&self, at: u32, first: u64, body: impl Iterator<Item = u64>) {
        for (place, word) in (1..).zip(body) {
            self.word(at.wrapping_add(place)).store(word, Relaxed);
        }
        self.word(at).store(first, Release);
    }

    /// Hands the oldest event of this trace to `each` with its time, unless it says that there is no room for it.
    /// Returns whether it was taken.
    pub(super) fn read(&self, mut each: impl FnMut(u64, Event<'_>) -> bool) -> bool {
        loop {
            let at = self.tail.load(Relaxed);
            let first = self.word(at).load(Acquire);
            if first == 0 {
                return false;
            }
            let depth = if first & FREED == 0 { (first >> 32) as usize & 0xffff } else { 0 };
            let of = |place: usize| self.word(at.wrapping_add(place as u32)).load(Relaxed);
            let is_current = first as u32 == self.epoch.load(Relaxed);
            let (micros, serial) = (of(1), of(2) as u32);
            let (taken, words) = if first & FREED != 0 {
                (!is_current || each(micros, Event::Freed { serial }), FREED_WORDS)
            } else {
                let mut frames = [0; Captured::MAX_FRAMES];
                let depth = depth.min(frames.len());
                let frames = &mut frames[..depth];
                frames.iter_mut().enumerate().for_each(|(n, frame)| *frame = of(HEAD_WORDS + n));
                let event = Event::Allocated { serial, size: of(3), samples: of(4), frames };
                (!is_current || each(micros, event), HEAD_WORDS + depth)
            };
            if !taken {
                return false;
            }
            (0..words).for_each(|place| self.word(at.wrapping_add(place as u32)).store(0, Relaxed));
            self.tail.store(at.wrapping_add(words as u32), Release);
            if is_current {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn memory(words: usize) -> TraceMemory {
        let memory = TraceMemory::new(64, words, || 7).expect("memory");
        memory.begin();
        memory
    }

    fn captured(size: u64) -> Captured {
        let mut captured = Captured::new(size, 1);
        captured.push(10);
        captured.push(20);
        captured
    }

    fn drain(memory: &TraceMemory) -> Vec<(u32, Option<u64>)> {
        let mut events = Vec::new();
        while memory.read(|micros, event| {
            assert_eq!(micros, 7);
            events.push(match event {
                Event::Allocated { serial, size, samples, frames } => {
                    assert_eq!((samples, frames), (1, &[10, 20][..]));
                    (serial, Some(size))
                }
                Event::Freed { serial } => (serial, None),
            });
            true
        }) {}
        events
    }

    #[test]
    fn events_come_in_order_and_the_numbers_with_them() {
        let memory = memory(64);
        for round in 0..100_u32 {
            let known = memory.allocate(&captured(u64::from(round))).expect("room");
            memory.free(known);
            assert_eq!(drain(&memory), [(round, Some(u64::from(round))), (round, None)]);
        }
        assert_eq!(memory.dropped(), 0);
    }

    #[test]
    fn a_full_ring_refuses_and_keeps_room_for_what_is_freed() {
        let memory = memory(64);
        let known: Vec<_> = (0..20).filter_map(|size| memory.allocate(&captured(size))).collect();
        assert_eq!(known.len(), 6, "of 48 words, 7 each");
        known.iter().for_each(|known| memory.free(*known));
        assert_eq!(memory.dropped(), 0);
        // One word is left then.
        memory.free(known[0]);
        memory.free(known[0]);
        assert_eq!(memory.dropped(), 1);
        assert_eq!(drain(&memory).len(), 13);
        assert!(memory.allocate(&captured(1)).is_some());
    }

    #[test]
    fn events_of_the_trace_before_are_passed_over() {
        let memory = memory(64);
        memory.allocate(&captured(1));
        memory.begin();
        memory.allocate(&captured(2));
        assert_eq!(drain(&memory), [(0, Some(2))]);
    }

    #[test]
    fn what_is_not_taken_stays() {
        let memory = memory(64);
        memory.allocate(&captured(1));
        assert!(!memory.read(|_, _| false));
        assert_eq!(drain(&memory), [(0, Some(1))]);
    }

    #[test]
    fn two_threads_lose_nothing_that_was_taken() {
        const EACH: u64 = 20_000;
        let memory = memory(256);
        let mut seen = Vec::new();
        let taken: u64 = thread::scope(|scope| {
            let write =
                || (0..EACH).filter(|size| memory.allocate(&captured(*size)).is_some()).count() as u64;
            let writers = [scope.spawn(write), scope.spawn(write)];
            while !writers.iter().all(thread::ScopedJoinHandle::is_finished) {
                seen.extend(drain(&memory));
            }
            writers.map(|writer| writer.join().expect("no panic")).into_iter().sum()
        });
        seen.extend(drain(&memory));
        assert_eq!(seen.len() as u64, taken);
        assert!((0..).zip(&seen).all(|(n, (serial, _))| n == *serial));
    }
}
