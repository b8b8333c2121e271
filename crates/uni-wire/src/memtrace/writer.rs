//! Events into packets: what one domain writes.
//!
//! Owns the packet in the making, when it is complete, and what its reader knows by then. Sans I/O: packets are taken
//! by [`Writer::poll_packet`] and [`Writer::handle_sent`]. While a complete packet waits, no event is taken.

use core::fmt;

use super::cache::{Cache, MAX_MISSES};
use super::names::Files;
use super::packet::{Head, MAX_PACKET_BYTES, Packet, Tail};
use super::{Allocation, Info, MAX_SHORT_WORDS, Position, Source, TABLE, Version, event};

/// A packet is flushed if less is free, in bytes: the largest event must fit.
const MAX_EVENT_BYTES: usize = 100 + MAX_LOCATION_BYTES;
/// The longest list of positions, in bytes.
const MAX_LOCATION_BYTES: usize = 4096;
/// Bytes of a list without positions: its code and its count.
const LIST_BYTES: usize = 9;
/// Bytes of an event's first word.
const WORD_BYTES: usize = 4;
/// A packet is flushed if more new codes wait for their positions to be written.
const MAX_NEW_CODES: usize = 128;
/// A packet is flushed if it spans more, in microseconds.
const MAX_SPAN_MICROS: u64 = 30_000_000;
/// Ids that a domain gets at once (version 3).
const CHUNK: u64 = 10_000;
/// Bytes of an info packet that are no text: header of version 3, event with four NUL bytes.
const INFO_BYTES: usize = 68 + 4 + 8 + 1 + 8 + 4;

/// Finds the source positions of a frame.
pub trait Locate {
    /// Calls `each` for every position of `code`, outermost first, and for the same ones each time it is asked.
    fn locate(&self, code: u64, each: &mut dyn FnMut(Position<'_>));
}

/// The event was not taken: packets are to be taken first, then the event is to be offered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a heap trace's packet is complete and waits to be taken")
    }
}

impl core::error::Error for Busy {}

/// The texts of the info do not fit a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InfoTooLong;

impl fmt::Display for InfoTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the texts of a heap trace's info do not fit its packet of {MAX_PACKET_BYTES} bytes")
    }
}

impl core::error::Error for InfoTooLong {}

/// Ids of allocations as a domain gives them out.
#[derive(Clone, Copy, Debug, Default)]
struct Ids {
    /// The first of this packet.
    first: u64,
    next: u64,
    /// At which another chunk is needed.
    end: u64,
}

impl Ids {
    /// For a new packet. `pool` is the first id that no domain has yet.
    fn begin_packet(&mut self, version: Version, pool: &mut u64) {
        if version == Version::V2 {
            self.end = u64::MAX;
        } else if self.next == self.end {
            self.next = *pool;
            *pool += CHUNK;
            self.end = *pool;
        }
        self.first = self.next;
    }
}

/// A packet that waits to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    /// In `side`: info or locations.
    Side,
    /// In `events`.
    Events,
}

/// What all packets of a trace have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trace {
    version: Version,
    pid: u64,
    start_micros: u64,
    /// The first id that no domain has.
    pool: u64,
}

impl Trace {
    pub(super) const fn new() -> Self {
        Self { version: Version::V2, pid: 0, start_micros: 0, pool: 0 }
    }

    pub(super) const fn start(&mut self, version: Version, info: &Info<'_>) {
        *self = Self { version, pid: info.pid, start_micros: info.start_micros, pool: 0 };
    }
}

/// One domain's state. `S` is where the last backtrace is kept.
#[derive(Debug)]
pub(super) struct Domain<S> {
    id: u16,
    cache: Cache,
    files: Files,
    /// The last backtrace, as far as it fits.
    last: S,
    last_len: usize,
    ids: Ids,
    begin_micros: u64,
    end_micros: u64,
    events: Packet,
    /// Where this packet's events begin.
    events_at: usize,
    side: Packet,
    /// Codes whose positions are to be written before `events`.
    new_codes: [u64; MAX_NEW_CODES + MAX_MISSES],
    new_len: usize,
    /// Of them, those that were written.
    written: usize,
    /// When the next packet begins; set while this one is complete.
    flushing: Option<u64>,
    ready: Option<Ready>,
    /// Bytes of the ready packet that were taken.
    sent: usize,
}

impl<S: AsRef<[u64]> + AsMut<[u64]>> Domain<S> {
    pub(super) const fn new(last: S) -> Self {
        Self {
            id: 0,
            cache: Cache::new(),
            files: Files::new(),
            last,
            last_len: 0,
            ids: Ids { first: 0, next: 0, end: 0 },
            begin_micros: 0,
            end_micros: 0,
            events: Packet::new(),
            events_at: 0,
            side: Packet::new(),
            new_codes: [0; MAX_NEW_CODES + MAX_MISSES],
            new_len: 0,
            written: 0,
            flushing: None,
            ready: None,
            sent: 0,
        }
    }

    /// Begins as the domain `id` of `trace`, whatever it was before.
    pub(super) fn start(&mut self, trace: &mut Trace, id: u16) {
        self.id = id;
        self.cache.reset();
        self.files.reset();
        self.last_len = 0;
        self.ids = Ids::default();
        (self.new_len, self.written, self.sent) = (0, 0, 0);
        (self.flushing, self.ready) = (None, None);
        self.begin_packet(trace, trace.start_micros, None);
    }

    /// Makes the info packet the first that is taken.
    pub(super) fn put_info(&mut self, trace: &Trace, info: &Info<'_>) -> Result<(), InfoTooLong> {
        let texts = [info.executable_name, info.host_name, info.runtime_params, info.context];
        let len = texts.iter().fold(INFO_BYTES, |sum, text| sum.saturating_add(text.len()));
        if len > MAX_PACKET_BYTES {
            return Err(InfoTooLong);
        }
        self.side.begin(&self.head(trace, None));
        self.side.put_info(info);
        let start = info.start_micros;
        self.side.finish(&Tail { begin_micros: start, end_micros: start, first_id: 0, next_id: 0 });
        self.ready = Some(Ready::Side);
        Ok(())
    }

    pub(super) fn put_alloc(
        &mut self,
        trace: &mut Trace,
        now_micros: u64,
        alloc: &Allocation<'_>,
    ) -> Result<u64, Busy> {
        let known = self.last.as_ref().get(..self.last_len).unwrap_or_default();
        let prefix = known.iter().zip(alloc.backtrace).take_while(|(a, b)| a == b).count();
        let frames = alloc.backtrace.get(prefix..).unwrap_or_default();
        let short = (1..=MAX_SHORT_WORDS).contains(&alloc.length_words)
            && alloc.source == Source::Minor
            && alloc.samples == 1
            && frames.len() < 256;
        let code = if short { event::SHORT_ALLOC + alloc.length_words as u32 } else { event::ALLOC };
        self.begin_event(trace, now_micros, code)?;
        let id = self.ids.next;
        self.ids.next += 1;
        if !short {
            self.events.put_vint(alloc.length_words.cast_signed());
            self.events.put_vint(alloc.samples.cast_signed());
            self.events.put(&[match alloc.source {
                Source::Minor => 0,
                Source::Major => 1,
                Source::External => 2,
            }]);
        }
        self.events.put_vint(i64::try_from(prefix).unwrap_or(i64::MAX));
        self.put_frames(id, frames, short);
        self.keep_backtrace(prefix, frames);
        Ok(id)
    }

    fn put_frames(&mut self, id: u64, frames: &[u64], short: bool) {
        let count_at = self.events.len();
        self.events.put(if short { &[0] } else { &[0, 0] });
        let (new_codes, new_len) = (&mut self.new_codes, &mut self.new_len);
        let count = self.cache.put_backtrace(&mut self.events, id, frames, |code| {
            if let Some(room) = new_codes.get_mut(*new_len) {
                *room = code;
                *new_len += 1;
            }
        });
        let count = count.to_le_bytes();
        self.events.patch(count_at, if short { &count[..1] } else { &count });
    }

    fn keep_backtrace(&mut self, prefix: usize, frames: &[u64]) {
        let room = self.last.as_mut().get_mut(prefix..).unwrap_or_default();
        let kept = room.len().min(frames.len());
        room[..kept].copy_from_slice(&frames[..kept]);
        self.last_len = prefix + kept;
    }

    pub(super) fn put_reference(
        &mut self,
        trace: &mut Trace,
        now_micros: u64,
        code: u32,
        id: u64,
    ) -> Result<(), Busy> {
        self.begin_event(trace, now_micros, code)?;
        let delta = self.ids.next.wrapping_sub(1).wrapping_sub(id);
        self.events.put_vint(delta.cast_signed());
        Ok(())
    }

    fn begin_event(&mut self, trace: &Trace, now_micros: u64, code: u32) -> Result<(), Busy> {
        if self.flushing.is_some() {
            return Err(Busy);
        }
        let now = now_micros.max(self.end_micros);
        if self.events.remaining() < MAX_EVENT_BYTES
            || self.new_len > MAX_NEW_CODES
            || now - self.begin_micros > MAX_SPAN_MICROS
            || (trace.version == Version::V3 && self.ids.next == self.ids.end)
        {
            self.flushing = Some(now);
            return Err(Busy);
        }
        self.end_micros = now;
        self.events.put_event(code, now);
        Ok(())
    }

    /// Completes the packet even if nothing is in it. The next one begins where this one ended.
    pub(super) const fn complete(&mut self) -> Result<(), Busy> {
        if self.flushing.is_some() {
            return Err(Busy);
        }
        self.flushing = Some(self.end_micros);
        Ok(())
    }

    /// Completes the packet if anything is in it. The next one begins at `now_micros`.
    fn flush(&mut self, now_micros: u64) -> Result<bool, Busy> {
        if self.flushing.is_some() {
            return Err(Busy);
        }
        let any = self.events.len() > self.events_at;
        if any {
            self.flushing = Some(now_micros.max(self.end_micros));
        }
        Ok(any)
    }

    /// Bytes of the first packet that is not taken yet.
    pub(super) fn poll_packet(&mut self, trace: &Trace, symbols: &impl Locate) -> Option<&[u8]> {
        if self.ready.is_none() && self.flushing.is_some() {
            self.ready = Some(if self.written < self.new_len {
                self.write_locations(trace, symbols);
                Ready::Side
            } else {
                self.events.finish(&Tail {
                    begin_micros: self.begin_micros,
                    end_micros: self.end_micros,
                    first_id: self.ids.first,
                    next_id: self.ids.next,
                });
                Ready::Events
            });
        }
        self.packet().get(self.sent..).filter(|rest| !rest.is_empty())
    }

    fn packet(&self) -> &[u8] {
        match self.ready {
            Some(Ready::Side) => self.side.bytes(),
            Some(Ready::Events) => self.events.bytes(),
            None => &[],
        }
    }

    pub(super) fn handle_sent(&mut self, trace: &mut Trace, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes);
        if self.sent < self.packet().len() {
            return;
        }
        self.sent = 0;
        if self.ready.take() == Some(Ready::Events)
            && let Some(begin) = self.flushing.take()
        {
            (self.new_len, self.written) = (0, 0);
            let verifier = self.cache.take_verifier();
            self.begin_packet(trace, begin, Some(verifier));
        }
    }

    /// Whether a packet waits that is not wholly taken.
    #[cfg(feature = "alloc")]
    pub(super) const fn is_waiting(&self) -> bool {
        self.flushing.is_some() || self.ready.is_some()
    }

    fn begin_packet(&mut self, trace: &mut Trace, begin_micros: u64, verifier: Option<(u16, u16, u64)>) {
        (self.begin_micros, self.end_micros) = (begin_micros, begin_micros);
        self.ids.begin_packet(trace.version, &mut trace.pool);
        self.events.begin(&self.head(trace, verifier));
        self.events_at = self.events.len();
    }

    const fn head(&self, trace: &Trace, verifier: Option<(u16, u16, u64)>) -> Head {
        Head { version: trace.version, pid: trace.pid, domain: self.id, verifier }
    }

    fn write_locations(&mut self, trace: &Trace, symbols: &impl Locate) {
        self.side.begin(&self.head(trace, None));
        while self.written < self.new_len && self.side.remaining() > MAX_LOCATION_BYTES {
            let code = self.new_codes[self.written];
            let list = List::of(code, symbols);
            // the original counts the list alone: one of the longest and the event's word would not always fit
            if self.side.remaining() < WORD_BYTES + list.bytes {
                break;
            }
            self.side.put_event(event::LOCATION, self.begin_micros);
            self.write_location(code, &list, symbols);
            self.written += 1;
        }
        let (begin, first) = (self.begin_micros, self.ids.first);
        self.side.finish(&Tail { begin_micros: begin, end_micros: begin, first_id: first, next_id: first });
    }

    fn write_location(&mut self, code: u64, list: &List, symbols: &impl Locate) {
        let (side, files) = (&mut self.side, &mut self.files);
        side.put_u64(code);
        match list.count {
            Some(count) => {
                side.put(&[count]);
                symbols.locate(code, &mut |position| write_position(side, files, &position));
            }
            None => {
                side.put(&[1]);
                write_position(side, files, &Position::UNKNOWN);
            }
        }
    }
}

/// How long a frame's list of positions is.
struct List {
    /// Its positions; `None` if they are too many or too long, so that [`Position::UNKNOWN`] is written.
    count: Option<u8>,
    /// What is written with the code and the count, at most: names that the reader knows take less.
    bytes: usize,
}

impl List {
    fn of(code: u64, symbols: &impl Locate) -> Self {
        let (mut count, mut bytes) = (0_usize, 0_usize);
        symbols.locate(code, &mut |position| {
            count += 1;
            bytes = Self::bytes_with(bytes, &position);
        });
        let bytes = bytes.saturating_add(LIST_BYTES);
        match u8::try_from(count) {
            Ok(count) if bytes <= MAX_LOCATION_BYTES => Self { count: Some(count), bytes },
            _ => Self { count: None, bytes: Self::bytes_with(LIST_BYTES, &Position::UNKNOWN) },
        }
    }

    const fn bytes_with(bytes: usize, position: &Position<'_>) -> usize {
        bytes.saturating_add(6 + position.file.len() + 1 + position.name.len() + 1)
    }
}

fn write_position(packet: &mut Packet, files: &mut Files, position: &Position<'_>) {
    /// What fits no `bits` bits becomes the largest that does.
    fn clamped(value: i64, bits: u32) -> u64 {
        let most = (1 << bits) - 1;
        u64::try_from(value).map_or(most, |value| value.min(most))
    }
    let (file, name) = files.encode(position.file, position.name);
    let field = clamped(position.line, 20)
        | clamped(position.start_column, 8) << 20
        | clamped(position.end_column, 10) << 28
        | (file as u64) << 38
        | (name as u64) << 43;
    packet.put(&field.to_le_bytes()[..6]);
    if file == TABLE {
        packet.put_text(position.file);
    }
    if name == TABLE {
        packet.put_text(position.name);
    }
}

/// Writes a trace of one domain.
///
/// Needs no memory but its own: about 380 KiB and `S`, where the last backtrace is kept (`[u64; 256]`, `Vec<u64>`).
/// What is deeper is written all the same, only longer. Made by a `const fn`, so that it can be a `static` and need not
/// pass through a stack.
///
/// ```
/// use uni_wire::memtrace::{Allocation, Info, Locate, Position, Source, Version, Writer};
///
/// struct NoSymbols;
/// impl Locate for NoSymbols {
///     fn locate(&self, _code: u64, _each: &mut dyn FnMut(Position<'_>)) {}
/// }
///
/// let mut writer = Box::new(Writer::new([0; 256]));
/// let info = Info { sample_rate: 1e-4, word_size_bits: 64, executable_name: b"demo", host_name: b"vm",
///     runtime_params: b"", pid: u64::MAX, start_micros: 1_000, context: b"", initial_domain: 0 };
/// writer.start(Version::V2, &info).expect("short texts");
/// let alloc = Allocation { length_words: 3, samples: 1, source: Source::Minor, backtrace: &[4096, 8192] };
/// let id = writer.handle_alloc(2_000, &alloc).expect("room in the packet");
/// writer.handle_collect(3_000, id).expect("room in the packet");
/// writer.close().expect("no packet waits");
/// let mut trace = Vec::new();
/// while let Some(packet) = writer.poll_packet(&NoSymbols) {
///     trace.extend_from_slice(packet);
///     let taken = packet.len();
///     writer.handle_sent(taken);
/// }
/// assert!(trace.starts_with(&0xC1FC_1FC1_u32.to_le_bytes()));
/// ```
#[derive(Debug)]
pub struct Writer<S> {
    trace: Trace,
    domain: Domain<S>,
}

impl<S: AsRef<[u64]> + AsMut<[u64]>> Writer<S> {
    /// A writer that has yet to be started. `last` is room for the last backtrace.
    #[must_use]
    pub const fn new(last: S) -> Self {
        Self { trace: Trace::new(), domain: Domain::new(last) }
    }

    /// Begins a trace; what was before is forgotten. The info packet is ready at once.
    ///
    /// # Errors
    /// When the info's texts are too long: nothing may be written then.
    pub fn start(&mut self, version: Version, info: &Info<'_>) -> Result<(), InfoTooLong> {
        self.trace.start(version, info);
        self.domain.start(&mut self.trace, info.initial_domain);
        self.domain.put_info(&self.trace, info)
    }

    /// An allocation at `now_micros`. Returns its id. A time before the last event's is taken for that one's.
    ///
    /// # Errors
    /// [`Busy`] when packets must be taken first.
    pub fn handle_alloc(&mut self, now_micros: u64, alloc: &Allocation<'_>) -> Result<u64, Busy> {
        self.domain.put_alloc(&mut self.trace, now_micros, alloc)
    }

    /// The allocation `id` was moved from the young to the old.
    ///
    /// # Errors
    /// [`Busy`] when packets must be taken first.
    pub fn handle_promote(&mut self, now_micros: u64, id: u64) -> Result<(), Busy> {
        self.domain.put_reference(&mut self.trace, now_micros, event::PROMOTE, id)
    }

    /// The allocation `id` was freed.
    ///
    /// # Errors
    /// [`Busy`] when packets must be taken first.
    pub fn handle_collect(&mut self, now_micros: u64, id: u64) -> Result<(), Busy> {
        self.domain.put_reference(&mut self.trace, now_micros, event::COLLECT, id)
    }

    /// Completes the packet if there are events in it, for instance because the program is idle: whoever reads the
    /// trace would else wait for the next event. Returns whether there were any.
    ///
    /// # Errors
    /// [`Busy`] when the packet is complete already.
    pub fn flush(&mut self, now_micros: u64) -> Result<bool, Busy> {
        self.domain.flush(now_micros)
    }

    /// Completes the last packet, as the original does at the end of a trace: even if nothing is in it.
    ///
    /// # Errors
    /// [`Busy`] when packets must be taken first.
    pub const fn close(&mut self) -> Result<(), Busy> {
        self.domain.complete()
    }

    /// What there is to send: the rest of the first packet not wholly sent, or nothing. `symbols` is asked for the
    /// positions of codes that the reader has not seen, or not for long.
    pub fn poll_packet(&mut self, symbols: &impl Locate) -> Option<&[u8]> {
        self.domain.poll_packet(&self.trace, symbols)
    }

    /// So many bytes of what [`Self::poll_packet`] gave were sent.
    pub fn handle_sent(&mut self, bytes: usize) {
        self.domain.handle_sent(&mut self.trace, bytes);
    }
}
