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
    samples: u16,
    shared_frames: u16,
    new_frames: u16,
}

/// How large an allocation is, and its backtrace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// How many of its words were sampled.
    pub(crate) samples: u32,
    /// Leading frames that are those of the domain's allocation before.
    pub(crate) shared_frames: usize,
    /// Frames after them: so many of the batch's codes.
    pub(crate) new_frames: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Of the domain whose packet it is in.
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
    /// A packet of a domain begins, at this time.
    Packet {
        begin_micros: u64,
        domain: u16,
    },
    Location {
        code: u64,
        positions: Vec<Owned>,
    },
    /// An allocation with numbers too large for an event.
    Alloc(Source, Size),
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
    #[expect(clippy::inline_always, reason = "else every event is written down and read back")]
    #[inline(always)]
    pub(crate) fn push(&mut self, item: &Item<'_>) {
        match item {
            Item::Alloc(alloc) => self.push_alloc(alloc),
            Item::Collect(event) => self.events.push(Event::new(Kind::Collect, event.time_micros, event.id)),
            Item::Promote(event) => self.events.push(Event::new(Kind::Promote, event.time_micros, event.id)),
            _ => self.push_rare(item),
        }
    }

    #[cold]
    fn push_rare(&mut self, item: &Item<'_>) {
        let other = match item {
            Item::Packet(header) => {
                Other::Packet { begin_micros: header.begin_micros, domain: header.domain }
            }
            Item::Location { code, positions } => {
                let bytes =
                    |position: &Position<'_>| position.name.len() + position.file.len() + size_of::<Owned>();
                self.text_bytes += positions.iter().map(bytes).sum::<usize>();
                Other::Location { code: *code, positions: positions.iter().map(Owned::new).collect() }
            }
            Item::Info(info) => Other::Info(read_info(info)),
            Item::Fault(fault) => Other::Fault(*fault),
            Item::Alloc(_) | Item::Collect(_) | Item::Promote(_) => return,
        };
        self.others.push(other);
        self.events.push(Event::new(Kind::Other, 0, 0));
    }

    #[inline]
    fn push_alloc(&mut self, alloc: &Alloc<'_>) {
        let new = alloc.backtrace.get(alloc.shared_frames..).unwrap_or_default();
        self.codes.extend_from_slice(new);
        let mut event = Event::new(Kind::Alloc(alloc.source), alloc.time_micros, alloc.id);
        let samples = u16::try_from(alloc.samples);
        let (shared, new_count) = (u16::try_from(alloc.shared_frames), u16::try_from(new.len()));
        if let (Ok(samples), Ok(shared), Ok(new_count)) = (samples, shared, new_count) {
            (event.samples, event.shared_frames, event.new_frames) = (samples, shared, new_count);
        } else {
            event.kind = Kind::Other;
            let samples = u32::try_from(alloc.samples).unwrap_or(u32::MAX);
            let size = Size { samples, shared_frames: alloc.shared_frames, new_frames: new.len() };
            self.others.push(Other::Alloc(alloc.source, size));
        }
        self.events.push(event);
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
    #[inline]
    const fn new(kind: Kind, time_micros: u64, id: u64) -> Self {
        Self { time_micros, id, kind, samples: 0, shared_frames: 0, new_frames: 0 }
    }

    /// Of an allocation.
    #[inline]
    pub(crate) fn size(&self) -> Size {
        Size {
            samples: self.samples.into(),
            shared_frames: self.shared_frames.into(),
            new_frames: self.new_frames.into(),
        }
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
