//! Bytes of a trace into packets and events, in pieces of any size.
//!
//! Owns the bytes of the one packet that is not complete yet, and where reading goes on after a fault. What is in a
//! packet is read by the module `events`.

use alloc::vec::Vec;

use super::events::Events;
use super::header::{self, PacketHeader, Parsed};
use super::{Fault, FaultKind, Info, MAGIC, MAX_PACKET_BYTES, Position, Source};

/// What to do about faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The first fault is the end, as for the original reader.
    Strict,
    /// Read on as far as possible; faults are items among the others.
    Lenient,
}

/// Bounds of what a reader keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest packet, in bytes.
    pub packet_bytes: usize,
    /// Domains that are followed; each takes 160 KiB, its names and its last backtrace.
    pub domains: usize,
    /// The longest name, in bytes.
    pub text_bytes: usize,
    /// Names of all domains that a packet may still refer to, in bytes; passed by one packet at most.
    pub name_bytes: usize,
    /// The deepest backtrace. Of several domains each has its part of it.
    pub frames: usize,
    /// Frames whose positions are checked to stay the same; 16 bytes each.
    pub locations: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet_bytes: 1 << 20,
            domains: 512,
            text_bytes: 4096,
            name_bytes: 16 << 20,
            frames: 1 << 19,
            locations: 1 << 20,
        }
    }
}

/// What a trace says, in its order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Item<'a> {
    /// What the trace says of itself.
    Info(Info<'a>),
    /// A packet begins, and all up to the next comes from it.
    Packet(PacketHeader),
    /// The positions of a frame, outermost first. The same code may come again, with the same positions.
    Location {
        /// The frame.
        code: u64,
        /// None if nothing is known of it.
        positions: &'a [Position<'a>],
    },
    /// A sampled allocation.
    Alloc(Alloc<'a>),
    /// A block was moved from the young to the old.
    Promote(Reference),
    /// A block was freed.
    Collect(Reference),
    /// Something is wrong (lenient mode), or was left out as the original reader would.
    Fault(Fault),
}

/// A sampled allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alloc<'a> {
    /// When, in microseconds since the Unix epoch.
    pub time_micros: u64,
    /// In which domain.
    pub domain: u16,
    /// Its id: no other allocation of the trace has it.
    pub id: u64,
    /// Length in words, without the header word.
    pub length_words: u64,
    /// How many of its words were sampled.
    pub samples: u64,
    /// Where it lies.
    pub source: Source,
    /// Frames that are those of the domain's allocation before, as the trace says.
    pub common_prefix: u64,
    /// Frames that are those of the domain's allocation before, as it was given out.
    pub shared_frames: usize,
    /// Codes of the frames, outermost first. Code 0 is a frame that could not be known.
    pub backtrace: &'a [u64],
}

/// Something happened to a sampled block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// When, in microseconds since the Unix epoch.
    pub time_micros: u64,
    /// The domain that says so.
    pub domain: u16,
    /// The id of the allocation.
    pub id: u64,
}

/// Where reading goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At a packet.
    Packet,
    /// At the next bytes that look like a packet; those from here on did not.
    Lost { from: u64, kind: FaultKind },
    /// Nowhere: from here on it is another trace.
    Over { from: u64 },
}

/// How far one step came.
enum Step {
    /// So many bytes are done with.
    Taken(usize),
    /// So many bytes are needed at once.
    Needs(usize),
}

/// Reads a trace. [`Self::handle_bytes`] takes the next bytes, [`Self::finish`] says that there are no more.
///
/// Packets that lie in one piece are read where they are; of others at most one is kept. Whatever the bytes are, a
/// lenient reader with the usual limits takes less than 192 MiB: 84 for the caches of 512 domains, 56 for their
/// backtraces, 17 for names, and 32 for the sameness of frames. An ordinary trace takes less than 1 MiB.
#[derive(Debug)]
pub struct Decoder {
    mode: Mode,
    limits: Limits,
    state: State,
    /// The bytes before the first that is not done with.
    offset: u64,
    partial: Vec<u8>,
    /// So many bytes must be in `partial` before anything can be done with it.
    needed: usize,
    failed: Option<Fault>,
    events: Events,
}

impl Decoder {
    /// A reader with the usual limits; in strict mode with those of the original, which has few.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        let usual = Limits::default();
        let limits = match mode {
            Mode::Strict => Limits {
                packet_bytes: MAX_PACKET_BYTES,
                domains: 4096,
                name_bytes: 1 << 30,
                frames: 1 << 22,
                ..usual
            },
            Mode::Lenient => usual,
        };
        Self::with_limits(mode, limits)
    }

    /// A reader with limits of its own.
    #[must_use]
    pub const fn with_limits(mode: Mode, limits: Limits) -> Self {
        Self {
            mode,
            limits,
            state: State::Packet,
            offset: 0,
            partial: Vec::new(),
            needed: 0,
            failed: None,
            events: Events::new(),
        }
    }

    /// Bytes that were taken and are done with.
    #[must_use]
    pub const fn done_bytes(&self) -> u64 {
        self.offset
    }

    /// Takes the next bytes and calls `each` for everything they complete.
    ///
    /// # Errors
    /// The first fault in strict mode, and that one again ever after. Lenient mode has no errors.
    pub fn handle_bytes(&mut self, bytes: &[u8], mut each: impl FnMut(Item<'_>)) -> Result<(), Fault> {
        if let Some(fault) = self.failed {
            return Err(fault);
        }
        let outcome = self.take(bytes, &mut each);
        self.failed = outcome.err();
        outcome
    }

    /// The trace has ended: says what is left of it.
    ///
    /// # Errors
    /// As [`Self::handle_bytes`], in strict mode.
    pub fn finish(&mut self, mut each: impl FnMut(Item<'_>)) -> Result<(), Fault> {
        if let Some(fault) = self.failed {
            return Err(fault);
        }
        let outcome = self.end(&mut each);
        self.failed = outcome.err();
        outcome
    }

    fn take(&mut self, bytes: &[u8], each: &mut impl FnMut(Item<'_>)) -> Result<(), Fault> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.partial.is_empty() {
                match self.step(rest, each)? {
                    Step::Taken(taken) => rest = rest.get(taken..).unwrap_or_default(),
                    Step::Needs(needed) => {
                        self.needed = needed;
                        self.partial.extend_from_slice(rest);
                        return Ok(());
                    }
                }
            } else {
                let missing = self.needed.saturating_sub(self.partial.len()).max(1);
                let (more, later) = rest.split_at(missing.min(rest.len()));
                self.partial.extend_from_slice(more);
                rest = later;
                self.work_off(each)?;
            }
        }
        Ok(())
    }

    /// Goes as far as the kept bytes allow.
    fn work_off(&mut self, each: &mut impl FnMut(Item<'_>)) -> Result<(), Fault> {
        let mut kept = core::mem::take(&mut self.partial);
        let mut done = 0;
        while let Some(rest) = kept.get(done..).filter(|rest| !rest.is_empty()) {
            match self.step(rest, each)? {
                Step::Taken(taken) => done += taken,
                Step::Needs(needed) => {
                    self.needed = needed;
                    break;
                }
            }
        }
        kept.drain(..done.min(kept.len()));
        self.partial = kept;
        Ok(())
    }

    fn step(&mut self, bytes: &[u8], each: &mut impl FnMut(Item<'_>)) -> Result<Step, Fault> {
        let step = match self.state {
            State::Over { .. } => Step::Taken(bytes.len()),
            State::Lost { from, kind } => self.search(bytes, from, kind, each),
            State::Packet => match header::parse(bytes, self.limits.packet_bytes) {
                Parsed::Needs(needed) => Step::Needs(needed),
                Parsed::Wrong(kind) => {
                    if self.mode == Mode::Strict {
                        return Err(self.fault(kind, 0));
                    }
                    self.events.forget_all();
                    self.state = State::Lost { from: self.offset, kind };
                    Step::Taken(1)
                }
                Parsed::Packet(header) => self.packet(&header, bytes, each)?,
            },
        };
        if let Step::Taken(taken) = step {
            self.offset += taken as u64;
        }
        Ok(step)
    }

    fn packet(
        &mut self,
        header: &PacketHeader,
        bytes: &[u8],
        each: &mut impl FnMut(Item<'_>),
    ) -> Result<Step, Fault> {
        let Some(packet) = bytes.get(..header.size_bytes) else {
            return Ok(Step::Needs(header.size_bytes));
        };
        let place = super::events::Place { mode: self.mode, limits: &self.limits, offset: self.offset };
        if self.events.packet(header, packet, &place, each)? {
            Ok(Step::Taken(header.size_bytes))
        } else {
            self.state = State::Over { from: self.offset };
            Ok(Step::Taken(header.size_bytes))
        }
    }

    /// Looks for the next packet.
    fn search(&mut self, bytes: &[u8], from: u64, kind: FaultKind, each: &mut impl FnMut(Item<'_>)) -> Step {
        let magic = MAGIC.to_le_bytes();
        let Some(at) = bytes.windows(magic.len()).position(|window| *window == magic) else {
            return match bytes.len().saturating_sub(magic.len() - 1) {
                0 => Step::Needs(magic.len()),
                taken => Step::Taken(taken),
            };
        };
        match header::parse(bytes.get(at..).unwrap_or_default(), self.limits.packet_bytes) {
            Parsed::Needs(needed) if at == 0 => Step::Needs(needed),
            Parsed::Needs(_) => Step::Taken(at),
            Parsed::Wrong(_) => Step::Taken(at + 1),
            Parsed::Packet(_) => {
                let skipped_bytes = self.offset + at as u64 - from;
                each(Item::Fault(Fault { kind, offset: from, skipped_bytes }));
                self.state = State::Packet;
                // The packet is read in the next step, unless it is right here and nothing was to be taken.
                Step::Taken(at)
            }
        }
    }

    fn end(&mut self, each: &mut impl FnMut(Item<'_>)) -> Result<(), Fault> {
        let kept = core::mem::take(&mut self.partial);
        let end = self.offset + kept.len() as u64;
        let lost = |from: u64, kind| Fault { kind, offset: from, skipped_bytes: end - from };
        let fault = match self.state {
            State::Over { from } => lost(from, FaultKind::SecondInfo),
            State::Lost { from, kind } => lost(from, kind),
            State::Packet if end == 0 => lost(0, FaultKind::Empty),
            State::Packet if kept.is_empty() => return Ok(()),
            State::Packet => match header::parse(&kept, self.limits.packet_bytes) {
                Parsed::Packet(header) => return self.cut_packet(&header, &kept, each),
                _ => lost(self.offset, FaultKind::CutHeader),
            },
        };
        self.offset = end;
        if self.mode == Mode::Strict {
            return Err(fault);
        }
        each(Item::Fault(fault));
        Ok(())
    }

    /// The last packet is not whole. The original leaves it out; here its whole events are read.
    fn cut_packet(
        &mut self,
        header: &PacketHeader,
        bytes: &[u8],
        each: &mut impl FnMut(Item<'_>),
    ) -> Result<(), Fault> {
        let offset = self.offset;
        self.offset += bytes.len() as u64;
        if self.mode == Mode::Lenient {
            let place = super::events::Place { mode: self.mode, limits: &self.limits, offset };
            return self.events.packet(header, bytes, &place, each).map(|_| ());
        }
        if !self.events.has_info() {
            return Err(Fault { kind: FaultKind::Info, offset, skipped_bytes: bytes.len() as u64 });
        }
        let skipped_bytes = bytes.len() as u64;
        each(Item::Fault(Fault { kind: FaultKind::CutPacket, offset, skipped_bytes }));
        Ok(())
    }

    const fn fault(&self, kind: FaultKind, skipped_bytes: u64) -> Fault {
        Fault { kind, offset: self.offset, skipped_bytes }
    }
}
