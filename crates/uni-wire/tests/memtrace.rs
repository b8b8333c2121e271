//! Heap traces: any events come out as they went in; recorded ones are read from any piece of them.

use std::path::Path;

use proptest::prelude::*;
use uni_wire::memtrace::{
    Allocation, Decoder, DomainWriter, FaultKind, Info, InfoTooLong, Item, Locate, Mode, Position, Source,
    Version, Writer,
};

#[path = "properties/memtrace.rs"]
mod properties;

fn recorded(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/memtrace").join(name);
    std::fs::read(path).expect("a recorded trace")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_events_come_out_as_they_went_in(bytes in prop::collection::vec(any::<u8>(), 0..6000)) {
        properties::check_round_trip(&bytes);
    }

    #[test]
    fn any_bytes_are_a_trace_or_have_a_fault(
        name in prop::sample::select(vec!["tiny-v2.ctf", "unikernel-v2.ctf", "lists-v3.ctf"]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut trace = recorded(name);
        for (at, byte) in edits {
            let at = at.index(trace.len());
            trace[at] = byte;
        }
        let cut = cut.index(trace.len());
        properties::check_decode(&trace);
        properties::check_decode(&trace[cut..]);
    }
}

/// Items but faults and packets, and kinds of faults.
fn read(trace: &[u8], mode: Mode) -> (Vec<String>, Vec<FaultKind>) {
    let (mut items, mut faults) = (Vec::new(), Vec::new());
    let mut decoder = Decoder::new(mode);
    let mut each = |item: Item<'_>| match item {
        Item::Fault(fault) => faults.push(fault.kind),
        Item::Packet(_) => {}
        item => items.push(format!("{item:?}")),
    };
    let outcome = decoder.handle_bytes(trace, &mut each).and_then(|()| decoder.finish(&mut each));
    faults.extend(outcome.err().map(|fault| fault.kind));
    (items, faults)
}

/// Where packets end, by their headers alone.
fn packet_ends(trace: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    while let Some(size) = trace.get(at + 4..at + 8) {
        at += u32::from_le_bytes(size.try_into().expect("four bytes")) as usize / 8;
        ends.push(at);
    }
    ends
}

#[test]
fn a_trace_cut_anywhere_is_read_up_to_there() {
    for (name, step) in [
        ("tiny-v2.ctf", 1),
        ("unikernel-v2.ctf", 1),
        ("lists-v2.ctf", 3),
        ("lists-v3.ctf", 3),
        ("domains-v3.ctf", 13),
        ("edges-v2.ctf", 61),
    ] {
        let trace = recorded(name);
        let (whole, faults) = fingerprints(&trace, Mode::Strict);
        assert_eq!(faults, []);
        let (mut longest, ends) = (0, packet_ends(&trace));
        for end in (0..trace.len()).step_by(step) {
            let (items, faults) = fingerprints(&trace[..end], Mode::Lenient);
            assert!(whole.starts_with(&items), "{name} cut at {end}");
            assert!(items.len() >= longest, "{name} cut at {end}: fewer items than of a shorter piece");
            longest = items.len();
            assert!(faults.len() <= 1, "{name} cut at {end}: {faults:?}");
            // only where a packet ends nothing is missed
            assert!(!faults.is_empty() || ends.contains(&end), "{name} cut at {end}");
            fingerprints(&trace[..end], Mode::Strict);
        }
        assert!(longest + 20 >= whole.len());
    }
}

/// Hashes of the items but faults and packets, and kinds of faults: as [`read`], for long traces.
fn fingerprints(trace: &[u8], mode: Mode) -> (Vec<u64>, Vec<FaultKind>) {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let (mut items, mut faults) = (Vec::new(), Vec::new());
    let mut decoder = Decoder::new(mode);
    let mut each = |item: Item<'_>| {
        let mut hasher = DefaultHasher::new();
        match item {
            Item::Fault(fault) => return faults.push(fault.kind),
            Item::Packet(_) => return,
            Item::Alloc(alloc) => {
                (alloc.time_micros, alloc.id, alloc.samples, alloc.length_words, alloc.backtrace)
                    .hash(&mut hasher);
            }
            Item::Collect(of) => (4, of.time_micros, of.id).hash(&mut hasher),
            other => format!("{other:?}").hash(&mut hasher),
        }
        items.push(hasher.finish());
    };
    let outcome = decoder.handle_bytes(trace, &mut each).and_then(|()| decoder.finish(&mut each));
    faults.extend(outcome.err().map(|fault| fault.kind));
    (items, faults)
}

#[test]
fn a_trace_without_its_beginning_is_read_from_the_next_packet_on() {
    let trace = recorded("domains-v3.ctf");
    let (whole, _) = read(&trace, Mode::Strict);
    let allocations = |items: &[String]| items.iter().filter(|item| item.starts_with("Alloc")).count();
    let (items, faults) = read(&trace[3_000..], Mode::Lenient);
    assert_eq!(faults[0], FaultKind::NoPacket);
    assert!((1..allocations(&whole)).contains(&allocations(&items)), "{} items", items.len());
}

#[test]
fn faults_are_named() {
    let tiny = recorded("tiny-v2.ctf");
    let with = |at: usize, byte: u8| {
        let mut trace = tiny.clone();
        trace[at] = byte;
        trace
    };
    let mut verified = with(285 + 39, 0);
    verified[285 + 40] = 1;
    let cases = [
        (Vec::new(), FaultKind::Empty),
        (tiny[..50].to_vec(), FaultKind::CutHeader),
        (tiny[..90].to_vec(), FaultKind::Info),
        (with(0, 0), FaultKind::NoPacket),
        (with(28, 4), FaultKind::Version(4)),
        (with(101 + 5, 0), FaultKind::PacketSize(0xC0)),
        (with(285 + 8 + 7, 1), FaultKind::PacketTimes),
        (with(285 + 58 - 1, 1), FaultKind::PacketIds),
        (with(285 + 66 + 3, 0xF0), FaultKind::Event(120)),
        (with(285 + 58, 4), FaultKind::AllocationCount),
        (with(285 + 16, 0), FaultKind::EventTime),
        (verified, FaultKind::Verifier),
        ([&tiny[..], &tiny].concat(), FaultKind::SecondInfo),
    ];
    for (n, (trace, kind)) in cases.iter().enumerate() {
        let (_, faults) = read(trace, Mode::Strict);
        assert_eq!(faults, [*kind], "case {n}");
        properties::check_decode(trace);
    }
    // what the original leaves out without an error
    assert_eq!(read(&tiny[..300 + 60], Mode::Strict).1, [FaultKind::CutPacket]);
    assert_eq!(read(&with(101 + 30, 1), Mode::Strict).1, [FaultKind::OtherProcess(0x1201)]);
}

/// One frame in one file; columns as the caller wants.
struct Columns(i64, i64);

impl Locate for Columns {
    fn locate(&self, _code: u64, each: &mut dyn FnMut(Position<'_>)) {
        each(Position { name: b"f", file: b"a.ml", line: 1, start_column: self.0, end_column: self.1 });
    }
}

const INFO: Info<'static> = Info {
    sample_rate: 1.0,
    word_size_bits: 64,
    executable_name: b"e",
    host_name: b"h",
    runtime_params: b"",
    pid: 1,
    start_micros: 1_000_000,
    context: b"",
    initial_domain: 0,
};

fn finish<S: AsRef<[u64]> + AsMut<[u64]>>(writer: &mut Writer<S>, symbols: &impl Locate) -> Vec<u8> {
    let mut trace = Vec::new();
    while let Some(packet) = writer.poll_packet(symbols) {
        trace.extend_from_slice(packet);
        let taken = packet.len();
        writer.handle_sent(taken);
    }
    trace
}

#[test]
fn a_backtrace_too_long_for_its_codes_is_cut_at_the_inner_end() {
    let mut writer = Box::new(Writer::new(vec![0; 4096]));
    writer.start(Version::V2, &INFO).expect("short");
    let deep: Vec<u64> = (1..=1000).map(|n| n * 7919).collect();
    for length_words in [1, 2] {
        let alloc = Allocation { length_words, samples: 1, source: Source::Major, backtrace: &deep };
        writer.handle_alloc(2_000_000, &alloc).expect("one packet holds both");
        if length_words == 1 {
            assert_eq!(writer.flush(2_000_000), Ok(true));
            assert!(writer.close().is_err(), "a packet waits");
            let trace = finish(&mut writer, &Columns(1, 2));
            let mut frames = 0;
            Decoder::new(Mode::Strict)
                .handle_bytes(&trace, |item| {
                    if let Item::Alloc(alloc) = item {
                        frames = alloc.backtrace.len();
                        assert_eq!(alloc.backtrace, &deep[..frames]);
                    }
                })
                .expect("a trace");
            assert_eq!(frames, 409);
        }
    }
    assert_eq!(writer.flush(2_000_000), Ok(true));
}

#[test]
fn columns_that_spill_over_do_no_more_harm_than_they_must() {
    // what releases up to 0.2.3 write for columns 300 and 1500: twelve bits each, one over the other
    let mut writer = Box::new(Writer::new([0; 16]));
    writer.start(Version::V2, &INFO).expect("short");
    for code in [4096, 8192, 12288] {
        let alloc = Allocation { length_words: 1, samples: 1, source: Source::Minor, backtrace: &[code] };
        writer.handle_alloc(1_000_001, &alloc).expect("room");
    }
    writer.close().expect("nothing waits");
    let mut trace = finish(&mut writer, &Columns(0, 1));
    let field = |start: u64, end: u64| (1 | start << 20 | end << 28).to_le_bytes();
    let clean = field(0, 1);
    let at = trace.windows(6).rposition(|window| *window == clean[..6]).expect("a later position");
    trace[at..at + 6].copy_from_slice(&field(300, 1500)[..6]);
    let (items, faults) = read(&trace, Mode::Lenient);
    assert_eq!(items.iter().filter(|item| item.starts_with("Alloc")).count(), 3, "{items:?}");
    assert_eq!(faults, [FaultKind::TableIndex]);
}

#[test]
fn an_info_too_long_is_refused() {
    let mut writer = Box::new(Writer::new([0; 1]));
    let long = vec![b'x'; 32768];
    assert_eq!(writer.start(Version::V2, &Info { context: &long, ..INFO }), Err(InfoTooLong));
}

#[test]
fn the_state_is_as_large_as_documented() {
    let bytes = size_of::<Writer<[u64; 0]>>();
    assert!((300_000..390_000).contains(&bytes), "{bytes}");
}

/// The recorded trace as version 1 has it: without the context of the info.
fn as_version_1(trace: &[u8]) -> Vec<u8> {
    let ends = packet_ends(trace);
    let mut out = Vec::new();
    let mut at = 0;
    for end in ends {
        let mut packet = trace[at..end].to_vec();
        packet[28] = 1;
        if at == 0 {
            assert_eq!(packet.pop(), Some(0), "an empty context");
            let bits = u32::try_from(packet.len() * 8).expect("small");
            packet[4..8].copy_from_slice(&bits.to_le_bytes());
        }
        out.extend(packet);
        at = end;
    }
    out
}

#[test]
fn version_1_is_read() {
    let tiny = recorded("tiny-v2.ctf");
    let (first, faults) = read(&as_version_1(&tiny), Mode::Strict);
    assert_eq!(faults, []);
    assert_eq!(first, read(&tiny, Mode::Strict).0);
}

/// Names that displace each other: a file a frame, and functions that come again.
struct ManyFiles;

impl Locate for ManyFiles {
    fn locate(&self, code: u64, each: &mut dyn FnMut(Position<'_>)) {
        let file = format!("f{code}.ml");
        each(Position { name: b"same", file: file.as_bytes(), line: 1, start_column: 0, end_column: 0 });
    }
}

#[test]
fn a_new_file_may_inherit_the_names_of_the_one_it_displaces() {
    let mut writer = Box::new(Writer::new([0; 64]));
    writer.start(Version::V2, &INFO).expect("short");
    let backtrace: Vec<u64> = (1..=32).collect();
    let alloc = Allocation { length_words: 1, samples: 1, source: Source::Minor, backtrace: &backtrace };
    writer.handle_alloc(1_000_001, &alloc).expect("room");
    writer.close().expect("nothing waits");
    let mut trace = finish(&mut writer, &ManyFiles);
    // the last file displaces the first: version 1's writer refers to that one's names then
    let end = packet_ends(&trace)[1];
    let new_name = b"f32.ml\0same\0";
    assert_eq!(trace[end - new_name.len()..end], new_name[..]);
    let field = u64::from_le_bytes(
        [&trace[end - new_name.len() - 6..][..6], &[0, 0]].concat().try_into().expect("8"),
    );
    let inherited = field & !(31 << 43);
    trace[end - new_name.len() - 6..][..6].copy_from_slice(&inherited.to_le_bytes()[..6]);
    trace.drain(end - 5..end);
    let start = packet_ends(&trace)[0];
    let bits = u32::from_le_bytes(trace[start + 4..start + 8].try_into().expect("4")) - 5 * 8;
    trace[start + 4..start + 8].copy_from_slice(&bits.to_le_bytes());
    let (items, faults) = read(&trace, Mode::Strict);
    assert_eq!(faults, []);
    assert!(
        items.iter().filter(|item| item.starts_with("Location")).all(|item| item.contains("name: [115, 97"))
    );
}

#[test]
fn each_domain_gets_its_ids_in_chunks() {
    let mut writer = DomainWriter::new(&INFO, 16).expect("short");
    let (mut trace, mut given) = (Vec::new(), Vec::new());
    let drain = |writer: &mut DomainWriter, trace: &mut Vec<u8>| {
        while let Some(packet) = writer.poll_packet(&Columns(1, 2)) {
            trace.extend_from_slice(packet);
            let taken = packet.len();
            writer.handle_sent(taken);
        }
    };
    for n in 0..25_000_u64 {
        let domain = if n % 1000 == 7 { 9 } else { 3 * u16::from(n > 12_000) };
        let alloc = Allocation {
            length_words: 1 + n % 40,
            samples: 1,
            source: Source::Minor,
            backtrace: &[1 + n % 7],
        };
        let id = loop {
            match writer.handle_alloc(domain, 1_000_000 + n, &alloc) {
                Ok(id) => break id,
                Err(_) => drain(&mut writer, &mut trace),
            }
        };
        given.push((domain, id));
    }
    writer.close().expect("nothing waits");
    drain(&mut writer, &mut trace);
    let chunks = |domain: u16| {
        let ids = given.iter().filter(|(of, _)| *of == domain).map(|(_, id)| id / 10_000);
        let mut chunks: Vec<u64> = ids.collect();
        chunks.dedup();
        chunks
    };
    // in the order in which they came to need one
    assert_eq!((chunks(0), chunks(9), chunks(3)), (vec![0, 2], vec![1], vec![3, 4]));
    let mut found = Vec::new();
    let mut decoder = Decoder::new(Mode::Strict);
    let mut each = |item: Item<'_>| {
        if let Item::Alloc(alloc) = item {
            found.push((alloc.domain, alloc.id));
        }
    };
    decoder.handle_bytes(&trace, &mut each).and_then(|()| decoder.finish(&mut each)).expect("a trace");
    assert_eq!(found, given);
}

/// Frames with one position each in a file of its own, whose lists have so many bytes.
struct Long(Vec<usize>);

impl Long {
    fn file(&self, code: u64) -> Vec<u8> {
        // code, count, numbers, two NUL bytes and the name
        let letters = self.0[usize::try_from(code).expect("small") - 1] - (8 + 1 + 6 + 2 + 1);
        let mut file = format!("{code}.").into_bytes();
        file.resize(letters, b'f');
        file
    }
}

impl Locate for Long {
    fn locate(&self, code: u64, each: &mut dyn FnMut(Position<'_>)) {
        each(Position { name: b"f", file: &self.file(code), line: 1, start_column: 2, end_column: 3 });
    }
}

fn info() -> Info<'static> {
    Info {
        sample_rate: 0.5,
        word_size_bits: 64,
        executable_name: b"long",
        host_name: b"vm",
        runtime_params: b"",
        pid: 7,
        start_micros: 1_000_000,
        context: b"",
        initial_domain: 0,
    }
}

fn drain(writer: &mut Writer<Vec<u64>>, symbols: &impl Locate, trace: &mut Vec<u8>) {
    while let Some(packet) = writer.poll_packet(symbols) {
        let len = packet.len();
        assert!(len <= uni_wire::memtrace::MAX_PACKET_BYTES);
        trace.extend_from_slice(packet);
        writer.handle_sent(len);
    }
}

#[test]
fn the_longest_list_of_positions_is_whole_however_full_its_packet_is() {
    const LONGEST: usize = 4096;
    for version in [Version::V2, Version::V3] {
        let room = 32_768 - if version == Version::V2 { 66 } else { 68 };
        for free in LONGEST - 6..=LONGEST + 10 {
            // seven events leave so much free
            let filled = room - free;
            let mut sizes = vec![filled / 7 - 4; 7];
            sizes[0] += filled % 7;
            assert!(sizes[0] <= LONGEST && sizes.iter().map(|list| list + 4).sum::<usize>() == filled);
            sizes.extend([LONGEST, 50]);
            let symbols = Long(sizes);
            let (mut writer, mut trace) = (Box::new(Writer::new(vec![0; 64])), Vec::new());
            writer.start(version, &info()).expect("short");
            drain(&mut writer, &symbols, &mut trace);
            let backtrace: Vec<u64> = (1..=9).collect();
            let alloc =
                Allocation { length_words: 1, samples: 1, source: Source::Minor, backtrace: &backtrace };
            writer.handle_alloc(1_000_001, &alloc).expect("room");
            writer.close().expect("nothing waits");
            drain(&mut writer, &symbols, &mut trace);
            let mut files = Vec::new();
            let mut decoder = Decoder::new(Mode::Strict);
            let mut each = |item: Item<'_>| {
                if let Item::Location { code, positions } = item {
                    assert_eq!((positions.len(), positions[0].name), (1, &b"f"[..]));
                    files.push((code, positions[0].file.to_vec()));
                }
            };
            decoder.handle_bytes(&trace, &mut each).expect("well-formed");
            decoder.finish(&mut each).expect("whole");
            let expected: Vec<_> = backtrace.iter().map(|code| (*code, symbols.file(*code))).collect();
            assert!(files == expected, "{free} bytes free");
        }
    }
}

#[test]
fn the_longest_event_is_whole_however_full_its_packet_is() {
    const BACKTRACE: usize = 600;
    let mut fullest = 0;
    // references of 5 and of 7 bytes fill the packet up to where an event is still taken, and beyond
    for (short, long) in (5682..=5689).flat_map(|short| (0..=6).map(move |long| (short, long))) {
        let symbols = Columns(1, 2);
        let (mut writer, mut trace) = (Box::new(Writer::new(vec![0; 1024])), Vec::new());
        writer.start(Version::V2, &info()).expect("short");
        drain(&mut writer, &symbols, &mut trace);
        let mut now = 1_000_000;
        let mut alloc = |writer: &mut Writer<Vec<u64>>, trace: &mut Vec<u8>, backtrace: &[u64]| {
            let largest = Allocation {
                length_words: u64::MAX >> 1,
                samples: 1 << 62,
                source: Source::External,
                backtrace,
            };
            now += 1;
            writer.handle_alloc(now, &largest).or_else(|_| {
                drain(writer, &symbols, trace);
                writer.handle_alloc(now, &largest)
            })
        };
        assert_eq!(alloc(&mut writer, &mut trace, &[]), Ok(0));
        for _ in 0..short {
            writer.handle_collect(1_000_001, 0).expect("room");
        }
        for _ in 0..long {
            writer.handle_collect(1_000_001, 0_u64.wrapping_sub(300)).expect("room");
        }
        let backtrace: Vec<u64> = (1..=BACKTRACE as u64).map(|n| n * 7919).collect();
        assert_eq!(alloc(&mut writer, &mut trace, &backtrace), Ok(1));
        writer.close().expect("nothing waits");
        drain(&mut writer, &symbols, &mut trace);
        let ends = packet_ends(&trace);
        fullest = ends.windows(2).map(|ends| ends[1] - ends[0]).max().unwrap_or(0).max(fullest);
        let mut found = 0;
        let mut decoder = Decoder::new(Mode::Strict);
        let mut each = |item: Item<'_>| {
            if let Item::Alloc(alloc) = item
                && alloc.id == 1
            {
                // cut as the original cuts it, at 4 KiB of codes
                assert!(backtrace.starts_with(alloc.backtrace) && alloc.backtrace.len() >= 409);
                found += 1;
            }
        };
        decoder.handle_bytes(&trace, &mut each).expect("well-formed");
        decoder.finish(&mut each).expect("whole");
        assert_eq!(found, 1, "{short} {long}");
    }
    assert!((32_600..=32_768).contains(&fullest), "{fullest}: the packets were not full");
}
