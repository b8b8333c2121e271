//! A guest's trace as it comes into one that can be read without the guest's image: addresses get names.
//!
//! Owns the reading of what a guest sends, which nobody trusts, and its writing anew: what goes out is well-formed packet
//! by packet, whatever came in. Ids and codes stay. Knows no file.

use std::collections::HashMap;

use uni_vmm::symbols::Frame;
use uni_wire::memtrace::{
    Alloc, Allocation, Decoder, Fault, Info, Item, Locate, MAX_PACKET_BYTES, Mode, Position, Version, Writer,
};

/// Frames of the last backtrace that are kept: what is deeper is written again.
const DEPTH: usize = 4096;
/// Frames that are named; further ones keep what the guest says.
const MAX_NAMED: usize = 100_000;

/// What an address of the guest's code is, innermost place first.
pub(super) type Resolve = Box<dyn Fn(u64) -> Vec<Frame> + Send>;

/// Takes a trace and gives it out with names.
pub(super) struct Naming {
    decoder: Decoder,
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
struct Places(HashMap<u64, Vec<Place>>);

struct Place {
    name: Vec<u8>,
    file: Vec<u8>,
    line: i64,
    columns: (i64, i64),
}

impl Locate for Places {
    fn locate(&self, code: u64, each: &mut dyn FnMut(Position<'_>)) {
        for place in self.0.get(&code).map(Vec::as_slice).unwrap_or_default() {
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

impl Naming {
    pub(super) fn new(resolve: Resolve) -> Self {
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
        Self { decoder: Decoder::new(Mode::Strict), out }
    }

    /// Takes what came and gives what is to be kept of it: whole packets.
    ///
    /// # Errors
    /// What is wrong with the trace; nothing after that can be trusted.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let Self { decoder, out } = self;
        decoder.handle_bytes(bytes, |item| out.item(&item)).map_err(|fault: Fault| fault.to_string())?;
        if let Some(fault) = out.fault {
            return Err(fault.to_owned());
        }
        if out.form == Some(Form::AsItCame) {
            return Ok(bytes.to_vec());
        }
        // what came is not held back until a packet of ours is full
        out.drain();
        if out.form.is_some() && out.writer.flush(out.now_micros) == Ok(true) {
            out.drain();
        }
        Ok(std::mem::take(&mut out.bytes))
    }

    /// Events that came so far.
    pub(super) const fn events(&self) -> u64 {
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
        if self.places.0.contains_key(&code) {
            return;
        }
        let is_bare = matches!(positions, [only] if only.name == format!("{code:#x}").as_bytes());
        let named =
            if is_bare && self.places.0.len() < MAX_NAMED { (self.resolve)(code) } else { Vec::new() };
        let known = named.iter().any(|frame| frame.function != "??");
        let places = if known {
            named.iter().rev().map(Place::of_frame).collect()
        } else {
            positions.iter().map(Place::of_position).collect()
        };
        self.places.0.insert(code, places);
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
