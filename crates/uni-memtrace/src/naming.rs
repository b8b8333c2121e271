//! A guest's trace as it comes into one that can be read without the guest's image: addresses get names.
//!
//! Owns the reading of what a guest sends, which nobody trusts, and its writing anew: what goes out is well-formed packet
//! by packet, whatever came in. Ids and codes stay. What is kept is bounded. Knows no file.

use std::collections::HashMap;

use uni_wire::memtrace::{
    Alloc, Allocation, Decoder, Fault, Info, Item, Limits, Locate, MAX_PACKET_BYTES, Mode, Position, Version,
    Writer,
};

/// Frames of the last backtrace that are kept: what is deeper is written again.
const DEPTH: usize = 4096;
/// Frames that are named; further ones keep what the guest says.
const MAX_NAMED: usize = 100_000;
/// What is kept of all frames together, in bytes: a trace with more ends. A name of a guest's may be named in 6 bytes
/// again and again, and takes its length each time.
const MAX_KEPT_BYTES: usize = 64 << 20;
/// Domains of a guest: as many as OCaml runs at once.
const MAX_DOMAINS: usize = 128;

/// A place of a function in its source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The function; `??` if unknown.
    pub function: String,
    /// The source file; empty if unknown.
    pub file: String,
    /// The line, from 1; 0 if unknown.
    pub line: u32,
}

/// What an address of the guest's code is, innermost place first.
pub type Resolve = Box<dyn Fn(u64) -> Vec<Frame> + Send>;

/// Takes a trace and gives it out with names.
///
/// Whatever comes in, it needs less than 256 MiB: 90 for the decoder's domains and backtraces, 16 for the names it may
/// refer to, 64 for places of frames and as much again for what their tables and the sameness of frames take. An ordinary
/// trace takes less than 2 MiB.
pub struct Naming {
    decoder: Decoder,
    /// What came before it was known what it is.
    held: Vec<u8>,
    out: Out,
}

/// What goes out.
struct Out {
    resolve: Resolve,
    writer: Box<Writer<Vec<u64>>>,
    /// None until the first packet is read.
    form: Option<Form>,
    places: Places,
    bytes: Vec<u8>,
    events: u64,
    now_micros: u64,
    fault: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Written anew.
    Named,
    /// Several domains, which only OCaml has, whose traces have names: passed on as it is.
    AsItCame,
}

/// The places of each frame, outermost first.
#[derive(Default)]
struct Places {
    by_code: HashMap<u64, Vec<Place>>,
    kept_bytes: usize,
}

struct Place {
    name: Vec<u8>,
    file: Vec<u8>,
    line: i64,
    columns: (i64, i64),
}

impl Locate for Places {
    fn locate(&self, code: u64, each: &mut dyn FnMut(Position<'_>)) {
        for place in self.by_code.get(&code).map(Vec::as_slice).unwrap_or_default() {
            let (start_column, end_column) = place.columns;
            each(Position {
                name: &place.name,
                file: &place.file,
                line: place.line,
                start_column,
                end_column,
            });
        }
    }
}

impl Places {
    fn insert(&mut self, code: u64, places: Vec<Place>) {
        let bytes = |place: &Place| size_of::<Place>() + place.name.len() + place.file.len();
        self.kept_bytes += size_of::<(u64, Vec<Place>)>() + places.iter().map(bytes).sum::<usize>();
        self.by_code.insert(code, places);
    }
}

impl Naming {
    /// One that has seen nothing. Looking an address up may take long: call [`Self::feed`] where waiting is allowed.
    #[must_use]
    pub fn new(resolve: Resolve) -> Self {
        let out = Out {
            resolve,
            writer: Box::new(Writer::new(vec![0; DEPTH])),
            form: None,
            places: Places::default(),
            bytes: Vec::new(),
            events: 0,
            now_micros: 0,
            fault: None,
        };
        let limits = Limits { packet_bytes: MAX_PACKET_BYTES, domains: MAX_DOMAINS, ..Limits::default() };
        Self { decoder: Decoder::with_limits(Mode::Strict, limits), held: Vec::new(), out }
    }

    /// Takes what came and gives what is to be kept of it: whole packets.
    ///
    /// # Errors
    /// What is wrong with the trace; nothing after that can be trusted.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let Self { decoder, out, .. } = self;
        decoder.handle_bytes(bytes, |item| out.item(&item)).map_err(|fault: Fault| fault.to_string())?;
        if let Some(fault) = out.fault {
            return Err(fault.to_owned());
        }
        match out.form {
            // less than a packet came
            None => self.held.extend_from_slice(bytes),
            Some(Form::AsItCame) => {
                let mut passed = std::mem::take(&mut self.held);
                passed.extend_from_slice(bytes);
                return Ok(passed);
            }
            Some(Form::Named) => self.held = Vec::new(),
        }
        // what came is not held back until a packet of ours is full
        out.drain();
        if out.form.is_some() && out.writer.flush(out.now_micros) == Ok(true) {
            out.drain();
        }
        Ok(std::mem::take(&mut out.bytes))
    }

    /// Events that came so far.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.out.events
    }
}

impl Out {
    fn item(&mut self, item: &Item<'_>) {
        match item {
            Item::Packet(header) => {
                self.form.get_or_insert(if header.version < 3 { Form::Named } else { Form::AsItCame });
            }
            Item::Info(info) => self.info(info),
            Item::Location { code, positions } => self.location(*code, positions),
            Item::Alloc(alloc) => self.alloc(alloc),
            Item::Promote(of) => {
                self.event(of.time_micros, |writer| writer.handle_promote(of.time_micros, of.id).is_ok());
            }
            Item::Collect(of) => {
                self.event(of.time_micros, |writer| writer.handle_collect(of.time_micros, of.id).is_ok());
            }
            // what a strict reader leaves out (packets of other processes) is left out
            Item::Fault(_) => {}
        }
    }

    fn info(&mut self, info: &Info<'_>) {
        if self.form == Some(Form::Named) && self.writer.start(Version::V2, info).is_err() {
            self.fault = Some("its texts are too long");
        }
    }

    /// A place whose name is the address itself, as `uni-guest` writes it, is looked up; any other stays.
    fn location(&mut self, code: u64, positions: &[Position<'_>]) {
        if self.form == Some(Form::AsItCame) || self.places.by_code.contains_key(&code) {
            return;
        }
        if self.places.kept_bytes > MAX_KEPT_BYTES {
            self.fault = Some("the names of its frames are longer than what is kept, 64 MiB");
            return;
        }
        let is_bare = matches!(positions, [only] if only.name == format!("{code:#x}").as_bytes());
        let named =
            if is_bare && self.places.by_code.len() < MAX_NAMED { (self.resolve)(code) } else { Vec::new() };
        let known = named.iter().any(|frame| frame.function != "??");
        let places = if known {
            named.iter().rev().map(Place::of_frame).collect()
        } else {
            positions.iter().map(Place::of_position).collect()
        };
        self.places.insert(code, places);
    }

    fn alloc(&mut self, alloc: &Alloc<'_>) {
        let Alloc { time_micros, length_words, samples, source, backtrace, id, .. } = *alloc;
        let allocation = Allocation { length_words, samples, source, backtrace };
        let mut given = id;
        self.event(time_micros, |writer| match writer.handle_alloc(time_micros, &allocation) {
            Ok(id) => {
                given = id;
                true
            }
            Err(_) => false,
        });
        if given != id {
            self.fault = Some("its allocations are not numbered from 0 on");
        }
    }

    /// Writes one event: at once, or after the packets that are complete.
    fn event(&mut self, time_micros: u64, mut write: impl FnMut(&mut Writer<Vec<u64>>) -> bool) {
        self.events += 1;
        self.now_micros = time_micros;
        if self.form == Some(Form::AsItCame) || self.fault.is_some() {
            return;
        }
        if !write(&mut self.writer) {
            self.drain();
            if !write(&mut self.writer) {
                self.fault = Some("an event does not fit a packet");
            }
        }
    }

    fn drain(&mut self) {
        while let Some(packet) = self.writer.poll_packet(&self.places) {
            let sent = packet.len();
            debug_assert!(sent <= MAX_PACKET_BYTES);
            self.bytes.extend_from_slice(packet);
            self.writer.handle_sent(sent);
        }
    }
}

impl Place {
    fn of_frame(frame: &Frame) -> Self {
        Self {
            name: frame.function.clone().into_bytes(),
            file: frame.file.clone().into_bytes(),
            line: i64::from(frame.line),
            columns: (0, 0),
        }
    }

    fn of_position(position: &Position<'_>) -> Self {
        Self {
            name: position.name.to_vec(),
            file: position.file.to_vec(),
            line: position.line,
            columns: (position.start_column, position.end_column),
        }
    }
}

impl std::fmt::Debug for Naming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Naming").field("events", &self.out.events).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uni_wire::memtrace::Source;

    struct Bare;

    impl Locate for Bare {
        fn locate(&self, code: u64, each: &mut dyn FnMut(Position<'_>)) {
            let bare = format!("{code:#x}");
            // what OCaml says of a frame is more than an address
            let name = if code == 0x30 { "Main.start" } else { &bare };
            let (start_column, end_column) = if code == 0x30 { (2, 7) } else { (0, 0) };
            each(Position { name: name.as_bytes(), file: b"web", line: 3, start_column, end_column });
        }
    }

    /// What a guest would send, flushed after every event.
    fn guests_trace() -> Vec<u8> {
        let info = Info {
            sample_rate: 0.5,
            word_size_bits: 64,
            executable_name: b"web",
            host_name: b"web",
            runtime_params: b"",
            pid: u64::MAX,
            start_micros: 1_000_000,
            context: b"",
            initial_domain: 0,
        };
        let mut writer = Writer::new(vec![0; 16]);
        writer.start(Version::V2, &info).unwrap();
        let mut trace = Vec::new();
        for event in 0..9_u64 {
            let backtrace = [0x30, 0x10, 0x20 + event];
            let allocation =
                Allocation { length_words: 3, samples: 1, source: Source::Minor, backtrace: &backtrace };
            while writer.handle_alloc(1_000_000 + event, &allocation).is_err() {
                drain(&mut writer, &mut trace);
            }
            if event % 2 == 1 {
                writer.handle_collect(1_000_000 + event, event).unwrap();
            }
            writer.flush(1_000_000 + event).unwrap();
            drain(&mut writer, &mut trace);
        }
        writer.close().unwrap();
        drain(&mut writer, &mut trace);
        trace
    }

    fn drain(writer: &mut Writer<Vec<u64>>, trace: &mut Vec<u8>) {
        while let Some(packet) = writer.poll_packet(&Bare) {
            let sent = packet.len();
            trace.extend_from_slice(packet);
            writer.handle_sent(sent);
        }
    }

    fn naming() -> Naming {
        Naming::new(Box::new(|address| {
            let frame = |function: &str, line| Frame { function: function.into(), file: "a.rs".into(), line };
            match address {
                0x10 => vec![frame("web::inner", 5), frame("web::outer", 9)],
                0x20 => vec![frame("??", 0)],
                _ => Vec::new(),
            }
        }))
    }

    /// All names by code, and the events as they are written down.
    fn told(trace: &[u8]) -> (HashMap<u64, Vec<String>>, Vec<String>) {
        let (mut names, mut events) = (HashMap::new(), Vec::new());
        let mut decoder = Decoder::new(Mode::Strict);
        let mut each = |item: Item<'_>| match item {
            Item::Location { code, positions } => {
                names.insert(code, positions.iter().map(ToString::to_string).collect());
            }
            Item::Alloc(alloc) => {
                events.push(format!("{} {} {:x?}", alloc.time_micros, alloc.id, alloc.backtrace));
            }
            Item::Collect(gone) => events.push(format!("{} -{}", gone.time_micros, gone.id)),
            _ => {}
        };
        decoder.handle_bytes(trace, &mut each).unwrap();
        decoder.finish(&mut each).unwrap();
        (names, events)
    }

    #[test]
    fn addresses_get_names_and_nothing_else_changes_however_it_comes() {
        let trace = guests_trace();
        let before = told(&trace);
        for size in [1, 7, 1000, trace.len()] {
            let mut naming = naming();
            let named: Vec<u8> = trace.chunks(size).flat_map(|piece| naming.feed(piece).unwrap()).collect();
            let (names, events) = told(&named);
            assert_eq!(events, before.1);
            assert_eq!(naming.events(), events.len() as u64);
            assert_eq!(names[&0x10], ["web::outer@a.rs:9:0-0", "web::inner@a.rs:5:0-0"], "outermost first");
            // what has no name keeps its address, and what has one keeps that
            assert_eq!(names[&0x20], before.0[&0x20]);
            assert_eq!(names[&0x30], ["Main.start@web:3:2-7"]);
        }
    }

    #[test]
    fn a_cut_trace_comes_out_as_whole_packets_and_a_damaged_one_ends() {
        let trace = guests_trace();
        for cut in (0..trace.len()).step_by(13) {
            let named = naming().feed(&trace[..cut]).unwrap();
            if !named.is_empty() {
                told(&named);
            }
        }
        for at in (0..trace.len()).step_by(3) {
            let mut damaged = trace.clone();
            damaged[at] ^= 0x55;
            let mut naming = naming();
            // whatever comes out can be read
            let named: Vec<u8> =
                damaged.chunks(64).map_while(|piece| naming.feed(piece).ok()).flatten().collect();
            if !named.is_empty() {
                told(&named);
            }
        }
        assert!(naming().feed(b"error: memtrace tracing already active\n").is_err());
    }
}
