//! The events of packets.
//!
//! Owns what is known of the trace so far: its info, its domains, the positions of frames. Never keeps a packet.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::decode::{Alloc, Item, Limits, Mode, Reference};
use super::domain::Domain;
use super::header::PacketHeader;
use super::read::Bytes;
use super::{Fault, FaultKind, Info, NO_VERIFIER, Position, Source, TIME_BITS, TIME_MASK, event};

/// Where a packet lies, and what its reader wants.
pub(super) struct Place<'a> {
    pub(super) mode: Mode,
    pub(super) limits: &'a Limits,
    pub(super) offset: u64,
}

impl Place<'_> {
    /// A fault that does not stop a lenient reader.
    fn tell(&self, kind: FaultKind, at: usize, each: &mut impl FnMut(Item<'_>)) -> Result<(), FaultKind> {
        if self.mode == Mode::Strict {
            return Err(kind);
        }
        each(Item::Fault(Fault { kind, offset: self.offset + at as u64, skipped_bytes: 0 }));
        Ok(())
    }
}

/// Reads events.
#[derive(Debug)]
pub(super) struct Events {
    /// Start time and process of the info packet.
    info: Option<(u64, u64)>,
    packets: u64,
    domains: BTreeMap<u16, Box<Domain>>,
    locations: Locations,
}

/// Hashes of the positions of frames, to see whether they stay the same.
#[derive(Debug)]
struct Locations(BTreeMap<u64, u64>);

impl Events {
    pub(super) const fn new() -> Self {
        Self { info: None, packets: 0, domains: BTreeMap::new(), locations: Locations(BTreeMap::new()) }
    }

    pub(super) const fn has_info(&self) -> bool {
        self.info.is_some()
    }

    /// Bytes of the names that packets may refer to.
    fn name_bytes(&self) -> usize {
        self.domains.values().map(|domain| domain.files.text_bytes()).sum()
    }

    /// Something was missed, of whatever domain.
    pub(super) fn forget_all(&mut self) {
        self.domains.values_mut().for_each(|domain| domain.forget());
    }

    /// Reads a packet, or as much of it as is in `bytes`. Returns whether the trace goes on.
    pub(super) fn packet(
        &mut self,
        header: &PacketHeader,
        bytes: &[u8],
        place: &Place<'_>,
        each: &mut impl FnMut(Item<'_>),
    ) -> Result<bool, Fault> {
        let first = self.packets == 0;
        self.packets += 1;
        let body = Bytes(bytes.get(header.header_bytes..).unwrap_or_default());
        let fault = |kind, at: usize, skipped: usize| Fault {
            kind,
            offset: place.offset + at as u64,
            skipped_bytes: skipped as u64,
        };
        if is_info(body) {
            return match self.info {
                None => self.read_info(header, body, each).map(|()| true).or_else(|kind| {
                    let fault = fault(kind, 0, bytes.len());
                    if place.mode == Mode::Strict {
                        return Err(fault);
                    }
                    each(Item::Fault(fault));
                    Ok(true)
                }),
                Some(_) if place.mode == Mode::Strict => Err(fault(FaultKind::SecondInfo, 0, 0)),
                Some(_) => Ok(false),
            };
        }
        if first && bytes.len() == header.size_bytes {
            place.tell(FaultKind::Info, 0, each).map_err(|kind| fault(kind, 0, 0))?;
        }
        let skipped = match self.info {
            Some((_, pid)) if pid != header.pid => Some(FaultKind::OtherProcess(header.pid)),
            _ if self.domains.len() >= place.limits.domains && !self.domains.contains_key(&header.domain) => {
                Some(FaultKind::TooManyDomains(header.domain))
            }
            _ => None,
        };
        if let Some(kind) = skipped {
            each(Item::Fault(fault(kind, 0, bytes.len())));
            return Ok(true);
        }
        each(Item::Packet(*header));
        let start_micros = self.info.map_or(0, |(start, _)| start);
        let domain_count = self.domains.len() + usize::from(!self.domains.contains_key(&header.domain));
        let domain = self.domains.entry(header.domain).or_insert_with(|| Box::new(Domain::new(start_micros)));
        let frames = place.limits.frames / domain_count.max(1);
        let mut reader = PacketReader {
            header,
            frames,
            place,
            domain,
            locations: &mut self.locations,
            bytes: bytes.len(),
            next_id: header.first_id,
        };
        let mut rest = body;
        let outcome = reader.read(&mut rest, each);
        let at = bytes.len() - rest.0.len();
        reader.domain.next_id = header.next_id;
        let whole = bytes.len() == header.size_bytes;
        let kind = match outcome {
            Ok(()) | Err(FaultKind::CutEvent) if !whole => FaultKind::CutPacket,
            Ok(()) if self.name_bytes() <= place.limits.name_bytes => return Ok(true),
            Ok(()) => FaultKind::TooManyNames,
            Err(kind) => kind,
        };
        if place.mode == Mode::Strict {
            return Err(fault(kind, at, 0));
        }
        if let Some(domain) = self.domains.get_mut(&header.domain) {
            domain.forget();
        }
        each(Item::Fault(fault(kind, at, rest.0.len())));
        Ok(true)
    }

    fn read_info(
        &mut self,
        header: &PacketHeader,
        mut body: Bytes<'_>,
        each: &mut impl FnMut(Item<'_>),
    ) -> Result<(), FaultKind> {
        let info = info(header, &mut body).filter(|_| body.0.is_empty()).ok_or(FaultKind::Info)?;
        self.info = Some((info.start_micros, info.pid));
        each(Item::Packet(*header));
        each(Item::Info(info));
        Ok(())
    }
}

/// Whether the first event of a packet is the info.
fn is_info(mut body: Bytes<'_>) -> bool {
    body.u32().is_some_and(|word| word >> TIME_BITS == event::INFO)
}

fn info<'a>(header: &PacketHeader, body: &mut Bytes<'a>) -> Option<Info<'a>> {
    let time = body.u32()?;
    if u64::from(time) & TIME_MASK != header.begin_micros & TIME_MASK {
        return None;
    }
    Some(Info {
        sample_rate: f64::from_le_bytes(body.array()?),
        word_size_bits: body.u8()?,
        executable_name: body.text()?,
        host_name: body.text()?,
        runtime_params: body.text()?,
        pid: body.u64()?,
        start_micros: header.begin_micros,
        context: if header.version >= 2 { body.text()? } else { b"" },
        initial_domain: header.domain,
    })
}

/// Reads the events of one packet.
struct PacketReader<'a> {
    header: &'a PacketHeader,
    place: &'a Place<'a>,
    domain: &'a mut Domain,
    locations: &'a mut Locations,
    /// Bytes of the packet that are there.
    bytes: usize,
    next_id: u64,
    /// The deepest backtrace.
    frames: usize,
}

impl PacketReader<'_> {
    /// Reads all events. After a fault `rest` begins with the event that has it.
    fn read(&mut self, rest: &mut Bytes<'_>, each: &mut impl FnMut(Item<'_>)) -> Result<(), FaultKind> {
        self.check_beginning(each)?;
        while !rest.0.is_empty() {
            let before = *rest;
            if let Err(kind) = self.event(rest, each) {
                *rest = before;
                return Err(kind);
            }
        }
        let whole = self.bytes == self.header.size_bytes;
        if whole && self.next_id != self.header.next_id {
            self.tell(FaultKind::AllocationCount, rest, each)?;
        }
        Ok(())
    }

    fn check_beginning(&mut self, each: &mut impl FnMut(Item<'_>)) -> Result<(), FaultKind> {
        let PacketHeader { version, verifier: (slot, prediction, code), first_id, .. } = *self.header;
        let missing = first_id.saturating_sub(self.domain.next_id);
        // The original does not look at it, and version 3 has gaps.
        if version < 3 && missing > 0 && self.place.mode == Mode::Lenient {
            self.domain.forget();
            self.place.tell(FaultKind::MissingAllocations(missing), 0, each)?;
        }
        if slot != NO_VERIFIER && !self.domain.verify(slot, prediction, code) {
            self.domain.forget();
            self.domain.verify(slot, prediction, code);
            self.place.tell(FaultKind::Verifier, 0, each)?;
        }
        Ok(())
    }

    #[inline]
    fn event(&mut self, rest: &mut Bytes<'_>, each: &mut impl FnMut(Item<'_>)) -> Result<(), FaultKind> {
        let word = rest.u32().ok_or(FaultKind::CutEvent)?;
        let time_micros = self.time(u64::from(word) & TIME_MASK, rest, each)?;
        let code = word >> TIME_BITS;
        // by far the most frequent ones
        if matches!(code, event::ALLOC | 101..=116) {
            return self.alloc(code, time_micros, rest, each);
        }
        match code {
            event::COLLECT => {
                let reference = self.reference(time_micros, rest)?;
                each(Item::Collect(reference));
                Ok(())
            }
            event::PROMOTE => {
                let reference = self.reference(time_micros, rest)?;
                if reference.id.cast_signed() >= self.next_id.cast_signed() {
                    self.tell(FaultKind::PromotedUnknown, rest, each)?;
                }
                each(Item::Promote(reference));
                Ok(())
            }
            event::LOCATION => self.location(rest, each),
            event::INFO => Err(FaultKind::SecondInfo),
            code => Err(FaultKind::Event(code)),
        }
    }

    /// The whole time of an event, of which `low` are the low bits.
    #[inline]
    fn time(
        &mut self,
        low: u64,
        rest: &Bytes<'_>,
        each: &mut impl FnMut(Item<'_>),
    ) -> Result<u64, FaultKind> {
        let begin = self.header.begin_micros;
        let carry = if low < begin & TIME_MASK { TIME_MASK + 1 } else { 0 };
        let time = (begin & !TIME_MASK).wrapping_add(low + carry);
        if time > self.header.end_micros || time < begin {
            self.tell(FaultKind::EventTime, rest, each)?;
        }
        if time < self.domain.last_micros {
            self.tell(FaultKind::TimeGoesBack, rest, each)?;
            return Ok(self.domain.last_micros);
        }
        self.domain.last_micros = time;
        Ok(time)
    }

    #[inline]
    fn alloc(
        &mut self,
        code: u32,
        time_micros: u64,
        rest: &mut Bytes<'_>,
        each: &mut impl FnMut(Item<'_>),
    ) -> Result<(), FaultKind> {
        const CUT: FaultKind = FaultKind::CutEvent;
        let (length, samples, source) = if code == event::ALLOC {
            let (length, samples) = (rest.vint().ok_or(CUT)?, rest.vint().ok_or(CUT)?);
            (
                length.cast_unsigned(),
                samples.cast_unsigned(),
                match rest.u8().ok_or(CUT)? {
                    0 => Source::Minor,
                    1 => Source::Major,
                    2 => Source::External,
                    other => return Err(FaultKind::Source(other)),
                },
            )
        } else {
            (u64::from(code - event::SHORT_ALLOC), 1, Source::Minor)
        };
        let common_prefix = rest.vint().ok_or(CUT)?.cast_unsigned();
        let count = if code == event::ALLOC { rest.u16() } else { rest.u8().map(u16::from) }.ok_or(CUT)?;
        let decoded = self.domain.decode(rest, common_prefix, count, self.frames).ok_or(CUT)?;
        if decoded.cut {
            self.tell(FaultKind::TooDeep, rest, each)?;
        }
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        each(Item::Alloc(Alloc {
            time_micros,
            domain: self.header.domain,
            id,
            length_words: length,
            samples,
            source,
            common_prefix,
            shared_frames: decoded.shared,
            backtrace: &self.domain.backtrace,
        }));
        Ok(())
    }

    #[inline]
    fn reference(&self, time_micros: u64, rest: &mut Bytes<'_>) -> Result<Reference, FaultKind> {
        let delta = rest.vint().ok_or(FaultKind::CutEvent)?.cast_unsigned();
        let id = self.next_id.wrapping_sub(1).wrapping_sub(delta);
        Ok(Reference { time_micros, domain: self.header.domain, id })
    }

    fn location(&mut self, rest: &mut Bytes<'_>, each: &mut impl FnMut(Item<'_>)) -> Result<(), FaultKind> {
        let code = rest.code().ok_or(FaultKind::CutEvent)?;
        let count = rest.u8().ok_or(FaultKind::CutEvent)?;
        let limit = self.place.limits.text_bytes;
        let mut found = Vec::new();
        let mut missing = false;
        for _ in 0..count {
            let low = rest.u32().ok_or(FaultKind::CutEvent)?;
            let high = rest.u16().ok_or(FaultKind::CutEvent)?;
            let field = u64::from(low) | u64::from(high) << 32;
            let bits = |from: u32, count: u32| field >> from & ((1 << count) - 1);
            let mut too_long = false;
            let names = self.domain.files.decode(bits(38, 5) as usize, bits(43, 5) as usize, || {
                let text = rest.text()?;
                too_long |= text.len() > limit;
                Some(Arc::from(text)).filter(|_| !too_long)
            });
            let fault = if too_long { FaultKind::TextTooLong } else { FaultKind::CutEvent };
            let names = names.ok_or(fault)?;
            missing |= names.are_missing();
            let [line, start, end] = [bits(0, 20), bits(20, 8), bits(28, 10)].map(u64::cast_signed);
            found.push((names, line, start, end));
        }
        if missing && !self.domain.has_missed() {
            self.tell(FaultKind::TableIndex, rest, each)?;
        }
        let positions: Vec<Position<'_>> =
            found.iter().map(|(names, line, start, end)| names.position(*line, *start, *end)).collect();
        if !missing && let Some(kind) = self.locations.check(code, &positions, self.place.limits.locations) {
            self.tell(kind, rest, each)?;
        }
        each(Item::Location { code, positions: &positions });
        Ok(())
    }

    #[cold]
    fn tell(
        &self,
        kind: FaultKind,
        rest: &Bytes<'_>,
        each: &mut impl FnMut(Item<'_>),
    ) -> Result<(), FaultKind> {
        self.place.tell(kind, self.bytes - rest.0.len(), each)
    }
}

impl Locations {
    /// Remembers the positions of a frame, or compares them with those it had.
    fn check(&mut self, code: u64, positions: &[Position<'_>], limit: usize) -> Option<FaultKind> {
        let hash = positions.iter().fold(positions.len() as u64, |hash, position| {
            let Position { name, file, line, start_column, end_column } = position;
            let numbers = [*line, *start_column, *end_column].map(i64::to_le_bytes);
            [name, &[0][..], file, &[0], numbers.as_flattened()].into_iter().fold(hash, fnv)
        });
        match self.0.get(&code) {
            Some(known) => (*known != hash).then_some(FaultKind::LocationChanged),
            None if self.0.len() < limit => {
                self.0.insert(code, hash);
                None
            }
            None => Some(FaultKind::TooManyLocations),
        }
    }
}

/// FNV-1a, of 64 bits.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
