//! A trace of the heap's sampled blocks, for whoever is connected to the trace's port.
//!
//! Owns what becomes of events: the order of packets, when an idle one is sent, and the end. Sans I/O: a driver hands
//! in time and carries bytes. While the client takes nothing, events wait in the bounded ring of the recorders and are
//! then dropped and counted: the program never waits. The format is [`uni_wire::memtrace`]'s.

use alloc::alloc::{alloc_zeroed, handle_alloc_error};
use alloc::boxed::Box;
use core::alloc::Layout;
use core::fmt::{self, Write as _};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use uni_wire::memtrace::{Allocation, Busy, Info, Locate, Position, Source, Version, Writer};

use super::SAMPLER;
use super::events::{Captured, Event, MicrosFn, TraceMemory};
use super::libraries::{LibraryMap, Owner};
use super::rate::SamplingRate;
use super::sampler::WORD_BYTES;
use crate::metrics::{Periodic, Registry};

/// After so long, a packet goes out that is not full.
const FLUSH_NS: u64 = 1_000_000_000;
/// How often events are looked for.
const LOOK_NS: u64 = 20_000_000;
/// Longest text of a position.
const MAX_TEXT_BYTES: usize = 32;

static RUNNING: AtomicBool = AtomicBool::new(false);
static TRACES: AtomicU64 = AtomicU64::new(0);
static EVENTS: AtomicU64 = AtomicU64::new(0);

/// How the traces fared, since the start of the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceFigures {
    /// Whether one is being taken.
    pub is_running: bool,
    /// How many were begun.
    pub traces: u64,
    /// Events that were written.
    pub events: u64,
    /// Events that found no room: the client was too slow, or too many sampled blocks are live.
    pub dropped_events: u64,
    /// Samples of `heap_by_library` that found no room.
    pub lost_samples: u64,
}

/// How the traces fared.
#[must_use]
pub fn figures() -> TraceFigures {
    TraceFigures {
        is_running: RUNNING.load(Relaxed),
        traces: TRACES.load(Relaxed),
        events: EVENTS.load(Relaxed),
        dropped_events: SAMPLER.memory().map_or(0, TraceMemory::dropped),
        lost_samples: SAMPLER.lost(),
    }
}

/// Registers `memtrace`: how the traces fared.
pub fn register_memtrace(registry: &mut Registry) {
    let source = Periodic::new("memtrace", |fields| {
        let figures = figures();
        fields
            .total("traces", figures.traces)
            .total("events", figures.events)
            .total("dropped_events", figures.dropped_events)
            .total("lost_samples", figures.lost_samples);
    });
    registry.register(source.doc("heap traces that were taken, and what found no room"));
}

/// What a trace says of the program.
#[derive(Clone, Copy, Debug)]
pub struct TraceOf<'a> {
    /// The name of the VM.
    pub vm: &'a str,
    /// The program's file or image.
    pub program: &'a str,
    /// The process; all ones where there is none.
    pub pid: u64,
    /// How much is sampled.
    pub rate: SamplingRate,
    /// Sampled blocks that may be live at one time; 20 bytes each.
    pub places: usize,
    /// Words of 8 bytes for events that wait; a power of two.
    pub ring_words: usize,
    /// Tells the time.
    pub clock: MicrosFn,
}

/// Why there is no trace. `Display` is what the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceError {
    /// One runs.
    Running,
    /// The program's allocator is another.
    NotSampled,
    /// There is no memory for it.
    NoMemory,
    /// The names do not fit.
    NameTooLong,
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "error: memtrace tracing already active; try again when it has ended",
            Self::NotSampled => "error: the program's allocator is not uni_guest::heap::Sampled",
            Self::NoMemory => "error: no memory for a trace; give the guest more",
            Self::NameTooLong => "error: the program's name is too long for a trace",
        })
    }
}

impl core::error::Error for TraceError {}

type TraceWriter = Writer<[u64; Captured::MAX_FRAMES]>;

/// A trace being taken. Dropped, it ends, whatever was not sent.
#[derive(Debug)]
pub struct Trace {
    writer: Box<TraceWriter>,
    memory: &'static TraceMemory,
    flush_at_ns: u64,
    ending: Ending,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It goes on.
    No,
    /// Nothing more is recorded.
    Draining,
    /// The last packet is complete.
    Closed,
}

impl Trace {
    /// Begins.
    ///
    /// # Errors
    /// One runs, or cannot.
    pub fn begin(of: &TraceOf<'_>, now_ns: u64) -> Result<Self, TraceError> {
        if !super::is_sampled() {
            return Err(TraceError::NotSampled);
        }
        if RUNNING.swap(true, Relaxed) {
            return Err(TraceError::Running);
        }
        let begun = Self::begin_alone(of, now_ns);
        RUNNING.store(begun.is_ok(), Relaxed);
        begun
    }

    fn begin_alone(of: &TraceOf<'_>, now_ns: u64) -> Result<Self, TraceError> {
        let mut writer = new_writer().ok_or(TraceError::NoMemory)?;
        let rate = of.rate;
        let info = Info {
            sample_rate: rate.get(),
            word_size_bits: 64,
            executable_name: of.program.as_bytes(),
            host_name: of.vm.as_bytes(),
            runtime_params: b"",
            pid: of.pid,
            start_micros: (of.clock)(),
            context:
                b"Rust program seen by uni-guest; a frame's code is the call's address in the program's file",
            initial_domain: 0,
        };
        writer.start(Version::V2, &info).map_err(|_| TraceError::NameTooLong)?;
        let make = || TraceMemory::new(of.places, of.ring_words, of.clock);
        let memory = SAMPLER.begin_trace(rate.get(), of.places, make).ok_or(TraceError::NoMemory)?;
        TRACES.fetch_add(1, Relaxed);
        Ok(Self { writer, memory, flush_at_ns: now_ns + FLUSH_NS, ending: Ending::No })
    }

    /// What to send next; `None` when there is nothing now.
    pub fn poll_transmit(&mut self, now_ns: u64) -> Option<&[u8]> {
        let map = SAMPLER.map();
        while self.writer.poll_packet(&Places(map)).is_none() {
            if !self.take_event(map) && !self.complete(now_ns) {
                return None;
            }
        }
        self.writer.poll_packet(&Places(map))
    }

    /// So many bytes of what [`poll_transmit`](Self::poll_transmit) gave were sent.
    pub fn handle_sent(&mut self, bytes: usize) {
        self.writer.handle_sent(bytes);
    }

    /// The client wants no more: what was recorded so far is sent, and then [`is_over`](Self::is_over).
    pub fn handle_end(&mut self) {
        if self.ending == Ending::No {
            SAMPLER.end_trace();
            self.ending = Ending::Draining;
        }
    }

    /// Whether everything was sent.
    pub fn is_over(&mut self) -> bool {
        self.ending == Ending::Closed && self.writer.poll_packet(&Places(SAMPLER.map())).is_none()
    }

    /// When [`poll_transmit`](Self::poll_transmit) is to be called again at the latest.
    #[must_use]
    pub const fn next_deadline(&self, now_ns: u64) -> u64 {
        now_ns + LOOK_NS
    }

    /// Returns whether there was one.
    fn take_event(&mut self, map: Option<&LibraryMap>) -> bool {
        let writer = &mut self.writer;
        let taken = self.memory.read(|micros, event| write(writer, micros, event, map).is_ok());
        EVENTS.fetch_add(u64::from(taken), Relaxed);
        // An event that found the packet full completed it: there is a packet then.
        taken || writer.poll_packet(&Places(map)).is_some()
    }

    /// Completes a packet that has waited, or the last one. Returns whether there is one.
    fn complete(&mut self, now_ns: u64) -> bool {
        match self.ending {
            Ending::Draining => {
                self.ending = Ending::Closed;
                self.writer.close().is_ok()
            }
            Ending::No if now_ns >= self.flush_at_ns => {
                self.flush_at_ns = now_ns + FLUSH_NS;
                self.writer.flush(self.memory.now_micros()) == Ok(true)
            }
            _ => false,
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        SAMPLER.end_trace();
        RUNNING.store(false, Relaxed);
    }
}

/// A writer that was not on the stack: it is larger than some stacks.
fn new_writer() -> Option<Box<TraceWriter>> {
    const LAYOUT: Layout = Layout::new::<TraceWriter>();
    if LAYOUT.size() == 0 {
        handle_alloc_error(LAYOUT);
    }
    // SAFETY: the layout is not empty. A writer of zeros is one: it holds numbers, arrays of numbers, and enumerations
    // that have a variant 0. `Writer::start`, which comes next, sets everything.
    unsafe {
        let writer = alloc_zeroed(LAYOUT).cast::<TraceWriter>();
        if writer.is_null() { None } else { Some(Box::from_raw(writer)) }
    }
}

fn write(
    writer: &mut TraceWriter,
    micros: u64,
    event: Event<'_>,
    map: Option<&LibraryMap>,
) -> Result<(), Busy> {
    match event {
        Event::Freed { serial } => writer.handle_collect(micros, u64::from(serial)),
        Event::Allocated { serial: _, size, samples, frames } => {
            let mut codes = [0; Captured::MAX_FRAMES];
            let frames = asking(frames, map);
            for (code, frame) in codes.iter_mut().zip(frames.iter().rev()) {
                *code = code_of(*frame, map);
            }
            let backtrace = codes.get(..frames.len()).unwrap_or_default();
            let length_words = size.div_ceil(WORD_BYTES);
            let allocation = Allocation { length_words, samples, source: Source::Minor, backtrace };
            writer.handle_alloc(micros, &allocation).map(|_| ())
        }
    }
}

/// The callers from the one on who asked for the memory: before it stand those who took it on its behalf.
fn asking<'a>(frames: &'a [u64], map: Option<&LibraryMap>) -> &'a [u64] {
    let owner = |frame: &u64| map.map(|map| map.owner(*frame as usize));
    let first = frames.iter().position(|frame| matches!(owner(frame), Some(Owner::Library(_))));
    first.and_then(|first| frames.get(first..)).unwrap_or(frames)
}

/// The address in the program's file, in 62 bits and not 0.
fn code_of(frame: u64, map: Option<&LibraryMap>) -> u64 {
    let address = map.map_or(frame, |map| map.offset(frame as usize) as u64);
    (address & (u64::MAX >> 2)).max(1)
}

/// Says of a frame what is known here: its address, and its library as the file.
struct Places<'a>(Option<&'a LibraryMap>);

impl Locate for Places<'_> {
    fn locate(&self, code: u64, each: &mut dyn FnMut(Position<'_>)) {
        let mut name = Text::default();
        // It fits.
        let _ = write!(name, "{code:#x}");
        let library = self.0.and_then(|map| map.name_at(code as usize)).unwrap_or("??");
        let (name, file) = (name.bytes(), library.as_bytes());
        each(Position { name, file, line: 0, start_column: 0, end_column: 0 });
    }
}

#[derive(Default)]
struct Text {
    bytes: [u8; MAX_TEXT_BYTES],
    len: usize,
}

impl Text {
    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}
