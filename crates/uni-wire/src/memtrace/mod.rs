//! Heap traces in memtrace's format (a subset of CTF 1.8), written and read.
//!
//! Owns the format: [`Writer`] makes the packets of one domain (versions 2 and 3), `DomainWriter` those of several,
//! byte for byte as OCaml's memtrace library would; `Decoder` reads versions 1 to 3, in pieces of any size. Never does
//! I/O, reads a clock or knows a symbol: times, ids of frames and their source positions come from the caller.
//!
//! Times are microseconds since the Unix epoch, lengths are words without the header word. A backtrace is a list of
//! frame codes, outermost caller first. A code fits 63 bits with its sign and is never 0.

mod cache;
#[cfg(feature = "alloc")]
mod decode;
#[cfg(feature = "alloc")]
mod domain;
#[cfg(feature = "alloc")]
mod domains;
#[cfg(feature = "alloc")]
mod events;
#[cfg(feature = "alloc")]
mod fault;
#[cfg(feature = "alloc")]
mod header;
mod names;
mod packet;
#[cfg(feature = "alloc")]
mod read;
#[cfg(feature = "alloc")]
mod tables;
mod writer;

#[cfg(feature = "alloc")]
pub use decode::{Alloc, Decoder, Item, Limits, Mode, Reference};
#[cfg(feature = "alloc")]
pub use domains::DomainWriter;
#[cfg(feature = "alloc")]
pub use fault::{Fault, FaultKind};
#[cfg(feature = "alloc")]
pub use header::PacketHeader;
pub use packet::MAX_PACKET_BYTES;
pub use writer::{Busy, InfoTooLong, Locate, Writer};

/// The first bytes of every packet.
const MAGIC: u32 = 0xC1FC_1FC1;
/// Slots of the cache of frames.
const SLOTS: usize = 1 << 14;
/// Most entries of a move-to-front table; also the index that says: a new one.
const TABLE: usize = 31;
/// Bits of an event's time.
const TIME_BITS: u32 = 25;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// `cache_verify_ix` of a packet without a check.
const NO_VERIFIER: u16 = 0xFFFF;
/// Short allocations are for lengths from 1 to this, in words.
const MAX_SHORT_WORDS: u64 = 16;

/// Codes of events.
mod event {
    pub(super) const INFO: u32 = 0;
    pub(super) const LOCATION: u32 = 1;
    pub(super) const ALLOC: u32 = 2;
    pub(super) const PROMOTE: u32 = 3;
    pub(super) const COLLECT: u32 = 4;
    /// Plus the length in words, 1 to 16.
    pub(super) const SHORT_ALLOC: u32 = 100;
}

/// Which format is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// What unikernels send, and every reader knows: one domain.
    V2,
    /// With a domain in each packet, and ids in chunks of 10,000 a domain.
    V3,
}

/// What a trace says of itself, in its first packet. Texts end at their first NUL byte.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Info<'a> {
    /// Probability with which a word is sampled, above 0 and at most 1.
    pub sample_rate: f64,
    /// Bits of a word.
    pub word_size_bits: u8,
    /// The traced program.
    pub executable_name: &'a [u8],
    /// Where it ran.
    pub host_name: &'a [u8],
    /// How its runtime was set up.
    pub runtime_params: &'a [u8],
    /// Its process id; all ones where there is none, as in unikernels.
    pub pid: u64,
    /// When the trace began, in microseconds since the Unix epoch.
    pub start_micros: u64,
    /// Anything the program wants said; empty when nothing.
    pub context: &'a [u8],
    /// The domain that began the trace (version 3).
    pub initial_domain: u16,
}

/// Where a sampled block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Among the young of a generational heap; or simply on the heap.
    Minor,
    /// Among the old.
    Major,
    /// Outside the managed heap.
    External,
}

/// A sampled allocation, as the writer takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation<'a> {
    /// Length in words, without the header word.
    pub length_words: u64,
    /// How many of its words were sampled, at least 1.
    pub samples: u64,
    /// Where it lies.
    pub source: Source,
    /// Codes of the frames, outermost caller first.
    pub backtrace: &'a [u64],
}

/// A place in the source text. One frame has several where functions were inlined, outermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position<'a> {
    /// The function or module around it; `??` if unknown.
    pub name: &'a [u8],
    /// The source file.
    pub file: &'a [u8],
    /// The line; 1048575 for what fits no 20 bits.
    pub line: i64,
    /// The first column; 255 for what fits no 8 bits.
    pub start_column: i64,
    /// The last column; 1023 for what fits no 10 bits.
    pub end_column: i64,
}

impl Position<'static> {
    /// What stands for a list of positions that is too long.
    pub const UNKNOWN: Self =
        Self { name: b"??", file: b"<unknown>", line: 1, start_column: 1, end_column: 1 };
}

/// As the tools print it: `NAME@FILE:LINE:START-END`, with what is no UTF-8 replaced.
impl core::fmt::Display for Position<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { name, file, line, start_column, end_column } = self;
        write_lossy(f, name)?;
        f.write_str("@")?;
        write_lossy(f, file)?;
        write!(f, ":{line}:{start_column}-{end_column}")
    }
}

fn write_lossy(f: &mut core::fmt::Formatter<'_>, bytes: &[u8]) -> core::fmt::Result {
    use core::fmt::Write as _;
    bytes.utf8_chunks().try_for_each(|chunk| {
        f.write_str(chunk.valid())?;
        if chunk.invalid().is_empty() { Ok(()) } else { f.write_char(char::REPLACEMENT_CHARACTER) }
    })
}
