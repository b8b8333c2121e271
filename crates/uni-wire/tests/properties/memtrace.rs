//! What must hold for heap traces, of any bytes and of any events.

use std::collections::BTreeMap;

use uni_wire::memtrace::{
    Alloc, Allocation, Busy, Decoder, DomainWriter, Fault, Info, Item, Locate, Mode, Position, Reference,
    Source, Version, Writer,
};

/// Decodes `trace` in pieces of `piece` bytes, each item as a text, and how it ended.
fn items(trace: &[u8], mode: Mode, piece: usize) -> (Vec<String>, Option<Fault>) {
    let (mut decoder, mut out) = (Decoder::new(mode), Vec::new());
    let mut each = |item: Item<'_>| out.push(format!("{item:?}"));
    let outcome = trace
        .chunks(piece.max(1))
        .try_for_each(|bytes| decoder.handle_bytes(bytes, &mut each))
        .and_then(|()| decoder.finish(&mut each));
    assert!(outcome.is_err() || decoder.done_bytes() == trace.len() as u64);
    (out, outcome.err())
}

/// Decoding never panics; the lenient reader has no errors, skips no more than there is, and tells of more than the
/// strict one, in whatever pieces the bytes come.
pub(crate) fn check_decode(bytes: &[u8]) {
    let strict = items(bytes, Mode::Strict, usize::MAX);
    let lenient = items(bytes, Mode::Lenient, usize::MAX);
    assert_eq!(lenient.1, None);
    for piece in [1, 7, 64 + bytes.len() / 3] {
        assert_eq!(items(bytes, Mode::Strict, piece), strict);
        assert_eq!(items(bytes, Mode::Lenient, piece), lenient);
    }
    let mut skipped = 0;
    let mut decoder = Decoder::new(Mode::Lenient);
    let mut each = |item: Item<'_>| {
        if let Item::Fault(fault) = item {
            skipped += fault.skipped_bytes;
            assert!(fault.offset + fault.skipped_bytes <= bytes.len() as u64, "{fault:?}");
            assert!(!fault.to_string().is_empty());
        }
    };
    decoder.handle_bytes(bytes, &mut each).and_then(|()| decoder.finish(&mut each)).expect("no errors");
    assert!(skipped <= bytes.len() as u64);
    match strict.1 {
        None if !strict.0.iter().any(|item| item.starts_with("Fault")) => assert_eq!(strict.0, lenient.0),
        _ => {}
    }
}

/// Bytes as a source of small choices; zeros when they are used up.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn next(&mut self) -> u64 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        u64::from(*first)
    }

    fn wide(&mut self) -> u64 {
        (0..4).fold(0, |number, _| number << 8 | self.next())
    }
}

/// An event as it was given to the writer, and as it must come out.
#[derive(Debug, PartialEq)]
enum Event {
    Alloc { time: u64, domain: u16, id: u64, length: u64, samples: u64, source: Source, backtrace: Vec<u64> },
    Promote(u64, u16, u64),
    Collect(u64, u16, u64),
}

/// Positions that follow from the code alone.
struct Symbols;

impl Symbols {
    fn positions(code: u64) -> Vec<(String, String, i64, i64, i64)> {
        let line = (code % 5000).cast_signed();
        (0..code % 4)
            .map(|n| {
                let file = code / 3 % 45 + n % 2;
                (format!("M.f{}", code % 37 + n), format!("f{file}.ml"), line * 400 - 7, line, line + 3)
            })
            .collect()
    }
}

impl Locate for Symbols {
    fn locate(&self, code: u64, each: &mut dyn FnMut(Position<'_>)) {
        for (name, file, line, start_column, end_column) in Self::positions(code) {
            let (name, file) = (name.as_bytes(), file.as_bytes());
            each(Position { name, file, line, start_column, end_column });
        }
    }
}

const START: u64 = 1_700_000_000_000_000;

const INFO: Info<'static> = Info {
    sample_rate: 0.001,
    word_size_bits: 64,
    executable_name: b"any",
    host_name: b"vm",
    runtime_params: b"v=0",
    pid: u64::MAX,
    start_micros: START,
    context: b"of a test",
    initial_domain: 0,
};

/// Either writer, and what it wrote.
struct Out {
    several: Option<DomainWriter>,
    one: Box<Writer<Vec<u64>>>,
    trace: Vec<u8>,
}

impl Out {
    fn new(version: Version, several: bool, depth: usize) -> Self {
        let mut one = Box::new(Writer::new(vec![0; depth]));
        one.start(version, &INFO).expect("short texts");
        let several = several.then(|| DomainWriter::new(&INFO, depth).expect("short texts"));
        Self { several, one, trace: Vec::new() }
    }

    /// Takes packets, in pieces.
    fn drain(&mut self) {
        loop {
            let packet = match &mut self.several {
                Some(writer) => writer.poll_packet(&Symbols),
                None => self.one.poll_packet(&Symbols),
            };
            let Some(packet) = packet else { return };
            let taken = packet.len().min(1000);
            self.trace.extend_from_slice(&packet[..taken]);
            match &mut self.several {
                Some(writer) => writer.handle_sent(taken),
                None => self.one.handle_sent(taken),
            }
        }
    }

    fn offer<T>(&mut self, event: impl Fn(&mut Self) -> Result<T, Busy>) -> T {
        for _ in 0..3 {
            if let Ok(value) = event(self) {
                return value;
            }
            self.drain();
        }
        panic!("busy without a packet");
    }
}

/// Whatever events are written come out again, in both versions, from several domains, in pieces of any size.
pub(crate) fn check_round_trip(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let form = choices.next();
    let version = if form.is_multiple_of(2) { Version::V2 } else { Version::V3 };
    let several = version == Version::V3 && form & 2 != 0;
    let mut out = Out::new(version, several, if form & 4 == 0 { 8 } else { 2048 });
    let (mut events, mut ids, mut backtrace) = (Vec::new(), Vec::new(), Vec::new());
    let mut time = START;
    while !choices.0.is_empty() {
        time += match choices.next() {
            0 => 0,
            255 => choices.wide() % 100_000_000,
            n => n * 10,
        };
        let domain = if several { u16::try_from(choices.next() % 5).expect("small") } else { 0 };
        match choices.next() {
            0..40 if !ids.is_empty() => {
                let id = ids[choices.next() as usize % ids.len()];
                out.offer(|out| match &mut out.several {
                    Some(writer) => writer.handle_collect(domain, time, id),
                    None => out.one.handle_collect(time, id),
                });
                events.push(Event::Collect(time, domain, id));
            }
            40..60 if !ids.is_empty() && !several => {
                let id = ids[choices.next() as usize % ids.len()];
                out.offer(|out| out.one.handle_promote(time, id));
                events.push(Event::Promote(time, domain, id));
            }
            60 if !several => {
                out.offer(|out| out.one.flush(time));
            }
            kind => {
                change(&mut backtrace, &mut choices);
                let length = if kind < 200 { 1 + kind % 20 } else { choices.wide() << (kind % 32) };
                let samples = if kind < 220 { 1 } else { 1 + choices.next() };
                let source = match kind {
                    61..70 => Source::External,
                    70..90 => Source::Major,
                    _ => Source::Minor,
                };
                let alloc = Allocation { length_words: length, samples, source, backtrace: &backtrace };
                let id = out.offer(|out| match &mut out.several {
                    Some(writer) => writer.handle_alloc(domain, time, &alloc),
                    None => out.one.handle_alloc(time, &alloc),
                });
                ids.push(id);
                let backtrace = backtrace.clone();
                events.push(Event::Alloc { time, domain, id, length, samples, source, backtrace });
            }
        }
    }
    out.offer(|out| match &mut out.several {
        Some(writer) => writer.close(),
        None => out.one.close(),
    });
    out.drain();
    for (mode, piece) in [(Mode::Strict, usize::MAX), (Mode::Lenient, 1 + bytes.len() % 3000)] {
        assert_eq!(decode(&out.trace, mode, piece), events);
    }
}

/// Some frames less, some more; now and then a deep recursion.
fn change(backtrace: &mut Vec<u64>, choices: &mut Choices<'_>) {
    let kept = backtrace.len().saturating_sub(choices.next() as usize % 12);
    backtrace.truncate(kept.min(600));
    for _ in 0..choices.next() % 8 {
        let code = 1 + choices.next() * 0x0001_0000_1111;
        let times = if choices.next() == 9 { 300 } else { 1 };
        backtrace.extend(std::iter::repeat_n(code, times));
    }
}

fn decode(trace: &[u8], mode: Mode, piece: usize) -> Vec<Event> {
    let mut known: BTreeMap<u64, usize> = BTreeMap::new();
    let mut last: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
    let mut events = Vec::new();
    let mut decoder = Decoder::new(mode);
    let mut each = |item: Item<'_>| match item {
        Item::Info(info) => assert_eq!(info, INFO),
        Item::Packet(header) => assert!(header.size_bytes <= 32768),
        Item::Fault(fault) => panic!("{fault}"),
        Item::Location { code, positions } => {
            check_location(code, positions);
            known.insert(code, positions.len());
        }
        Item::Alloc(alloc) => {
            assert!(alloc.backtrace.iter().all(|code| known.contains_key(code)));
            let Alloc { time_micros: time, domain, id, length_words: length, samples, source, .. } = alloc;
            let backtrace = alloc.backtrace.to_vec();
            let before = last.insert(domain, backtrace.clone()).unwrap_or_default();
            assert_eq!(before[..alloc.shared_frames], backtrace[..alloc.shared_frames]);
            events.push(Event::Alloc { time, domain, id, length, samples, source, backtrace });
        }
        Item::Promote(Reference { time_micros, domain, id }) => {
            events.push(Event::Promote(time_micros, domain, id));
        }
        Item::Collect(Reference { time_micros, domain, id }) => {
            events.push(Event::Collect(time_micros, domain, id));
        }
    };
    for bytes in trace.chunks(piece.min(trace.len())) {
        decoder.handle_bytes(bytes, &mut each).expect("a whole trace");
    }
    decoder.finish(&mut each).expect("a whole trace");
    events
}

fn check_location(code: u64, positions: &[Position<'_>]) {
    let expected = Symbols::positions(code);
    assert_eq!(positions.len(), expected.len());
    for (ours, (name, file, line, start, end)) in positions.iter().zip(expected) {
        let clamp = |value: i64, most: i64| if (0..=most).contains(&value) { value } else { most };
        assert_eq!((ours.name, ours.file), (name.as_bytes(), file.as_bytes()));
        let columns = (clamp(line, 0xF_FFFF), clamp(start, 0xFF), clamp(end, 0x3FF));
        assert_eq!((ours.line, ours.start_column, ours.end_column), columns);
    }
}
