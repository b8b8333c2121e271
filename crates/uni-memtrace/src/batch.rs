//! Events on their way from the thread that decodes to the one that sums up.
//!
//! Owns their form: a few bytes each, and of a backtrace only the frames that the one before had not. Bounded by
//! [`Batch::is_full`], and by the one item that filled it.

use uni_wire::memtrace::{Alloc, Fault, Info, Item, Position, Source};

/// Most events of a batch, few enough for a processor's cache.
const EVENTS: usize = 2048;
/// Most new frames of its backtraces.
const CODES: usize = 16_384;
/// Most bytes of the names in it.
const TEXT_BYTES: usize = 256 << 10;

/// One event, the most frequent ones in full.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    /// In microseconds since the Unix epoch.
    pub(crate) time_micros: u64,
    /// Of the allocation.
    pub(crate) id: u64,
    pub(crate) kind: Kind,
    pub(crate) domain: u16,
    /// How many of its words were sampled.
    pub(crate) samples: u32,
    /// Leading frames that are those of the domain's allocation before.
    pub(crate) shared_frames: u32,
    /// Frames after them: so many of the batch's codes.
    pub(crate) new_frames: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Alloc(Source),
    Promote,
    Collect,
    /// The next of the batch's other items.
    Other,
}

/// What is rare.
#[derive(Debug)]
pub(crate) enum Other {
    Info(crate::TraceInfo),
    /// A packet begins, at this time.
    Packet(u64),
    Location {
        code: u64,
        positions: Vec<Owned>,
    },
    Fault(Fault),
}

/// A position with its own names.
#[derive(Debug)]
pub(crate) struct Owned {
    name: Box<[u8]>,
    file: Box<[u8]>,
    numbers: [i64; 3],
}

impl Owned {
    fn new(position: &Position<'_>) -> Self {
        let Position { name, file, line, start_column, end_column } = *position;
        Self { name: name.into(), file: file.into(), numbers: [line, start_column, end_column] }
    }

    pub(crate) fn position(&self) -> Position<'_> {
        let [line, start_column, end_column] = self.numbers;
        Position { name: &self.name, file: &self.file, line, start_column, end_column }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) events: Vec<Event>,
    pub(crate) codes: Vec<u64>,
    pub(crate) others: Vec<Other>,
    text_bytes: usize,
}

impl Batch {
    #[inline]
    pub(crate) fn push(&mut self, item: &Item<'_>) {
        match item {
            Item::Alloc(alloc) => self.push_alloc(alloc),
            Item::Collect(event) => {
                self.events.push(Event::short(Kind::Collect, event.time_micros, event.id));
            }
            Item::Promote(event) => {
                self.events.push(Event::short(Kind::Promote, event.time_micros, event.id));
            }
            Item::Packet(header) => self.push_other(Other::Packet(header.begin_micros)),
            Item::Location { code, positions } => {
                let bytes =
                    |position: &Position<'_>| position.name.len() + position.file.len() + size_of::<Owned>();
                self.text_bytes += positions.iter().map(bytes).sum::<usize>();
                let positions = positions.iter().map(Owned::new).collect();
                self.push_other(Other::Location { code: *code, positions });
            }
            Item::Info(info) => self.push_other(Other::Info(read_info(info))),
            Item::Fault(fault) => self.push_other(Other::Fault(*fault)),
        }
    }

    #[inline]
    fn push_alloc(&mut self, alloc: &Alloc<'_>) {
        let new = alloc.backtrace.get(alloc.shared_frames..).unwrap_or_default();
        self.codes.extend_from_slice(new);
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        self.events.push(Event {
            time_micros: alloc.time_micros,
            id: alloc.id,
            kind: Kind::Alloc(alloc.source),
            domain: alloc.domain,
            samples: u32::try_from(alloc.samples).unwrap_or(u32::MAX),
            shared_frames: number(alloc.shared_frames),
            new_frames: number(new.len()),
        });
    }

    #[cold]
    fn push_other(&mut self, other: Other) {
        self.others.push(other);
        self.events.push(Event::short(Kind::Other, 0, 0));
    }

    /// Whether it is to be handed on before more is put in.
    #[inline]
    pub(crate) const fn is_full(&self) -> bool {
        self.events.len() >= EVENTS || self.codes.len() >= CODES || self.text_bytes >= TEXT_BYTES
    }

    /// Starts over. Room that one very deep backtrace took is given back.
    pub(crate) fn clear(&mut self) {
        self.events.clear();
        self.codes.clear();
        self.codes.shrink_to(2 * CODES);
        self.others.clear();
        self.text_bytes = 0;
    }
}

impl Event {
    const fn short(kind: Kind, time_micros: u64, id: u64) -> Self {
        Self { time_micros, id, kind, domain: 0, samples: 0, shared_frames: 0, new_frames: 0 }
    }
}

fn read_info(info: &Info<'_>) -> crate::TraceInfo {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    crate::TraceInfo {
        executable_name: text(info.executable_name),
        host_name: text(info.host_name),
        pid: (info.pid != u64::MAX).then_some(info.pid),
        start_micros: info.start_micros,
        sample_rate: info.sample_rate,
        word_size_bits: info.word_size_bits,
        context: text(info.context),
    }
}
