//! What is wrong with a trace, where, and how much of it could not be read for that.

use core::fmt;

/// A fault of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub kind: FaultKind,
    /// Where, in bytes from the beginning of the input: the packet, or the event in it.
    pub offset: u64,
    /// How many bytes were not read for that.
    pub skipped_bytes: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.offset, self.kind)?;
        match self.skipped_bytes {
            0 => Ok(()),
            n => write!(f, " ({n} bytes skipped)"),
        }
    }
}

impl core::error::Error for Fault {}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// The input has no byte.
    Empty,
    /// The input ends inside a packet's header.
    CutHeader,
    /// The input ends inside a packet.
    CutPacket,
    /// Bytes that are no packet.
    NoPacket,
    /// A version above 3.
    Version(u16),
    /// A packet's size is less than its header's, or above the limit.
    PacketSize(u32),
    /// A packet ends before it begins.
    PacketTimes,
    /// A packet's ids end before they begin.
    PacketIds,
    /// The first packet is not the info, or not well-formed.
    Info,
    /// A second info: another trace begins.
    SecondInfo,
    /// A packet of another process.
    OtherProcess(u64),
    /// More domains than the limit.
    TooManyDomains(u16),
    /// What was decoded so far is not what the writer encoded.
    Verifier,
    /// A code of an event that there is not.
    Event(u32),
    /// A packet ends inside an event.
    CutEvent,
    /// An event's time lies outside its packet.
    EventTime,
    /// Time goes back.
    TimeGoesBack,
    /// A source of an allocation that there is not.
    Source(u8),
    /// A promotion of something not yet allocated.
    PromotedUnknown,
    /// A packet has fewer or more allocations than its header says.
    AllocationCount,
    /// Allocations are missing before this packet.
    MissingAllocations(u64),
    /// Names of all domains together are longer than the limit: those of this domain are forgotten.
    TooManyNames,
    /// A text longer than the limit.
    TextTooLong,
    /// A table's index without an entry.
    TableIndex,
    /// A frame's positions differ from what was said of it before.
    LocationChanged,
    /// More frames than the limit: the innermost are left out.
    TooDeep,
    /// More known locations than the limit: their sameness is no longer checked.
    TooManyLocations,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the trace is empty"),
            Self::CutHeader => f.write_str("the trace ends inside a packet's header"),
            Self::CutPacket => f.write_str("the trace ends inside a packet"),
            Self::NoPacket => f.write_str("no packet of a heap trace"),
            Self::Version(version) => write!(f, "format version {version}, known are 1 to 3"),
            Self::PacketSize(bits) => write!(f, "a packet of {bits} bits"),
            Self::PacketTimes => f.write_str("a packet that ends before it begins"),
            Self::PacketIds => f.write_str("a packet whose ids end before they begin"),
            Self::Info => f.write_str("no well-formed info in the first packet"),
            Self::SecondInfo => f.write_str("another trace begins"),
            Self::OtherProcess(pid) => write!(f, "a packet of another process, {pid}"),
            Self::TooManyDomains(domain) => write!(f, "too many domains to follow domain {domain}"),
            Self::Verifier => {
                f.write_str("frames are not those that were written: something is missing before")
            }
            Self::Event(code) => write!(f, "no event has the code {code}"),
            Self::CutEvent => f.write_str("a packet ends inside an event"),
            Self::EventTime => f.write_str("an event's time lies outside its packet"),
            Self::TimeGoesBack => f.write_str("time goes back"),
            Self::Source(source) => write!(f, "no kind of allocation has the number {source}"),
            Self::PromotedUnknown => f.write_str("a promotion of what was not allocated"),
            Self::AllocationCount => f.write_str("not as many allocations as the packet's header says"),
            Self::MissingAllocations(count) => write!(f, "{count} allocations are missing"),
            Self::TooManyNames => f.write_str("too many names in use at one time"),
            Self::TextTooLong => f.write_str("a name is too long"),
            Self::TableIndex => f.write_str("a name that was never given"),
            Self::LocationChanged => f.write_str("a frame has other source positions than before"),
            Self::TooDeep => f.write_str("a backtrace is too deep"),
            Self::TooManyLocations => f.write_str("too many frames to check their positions"),
        }
    }
}
