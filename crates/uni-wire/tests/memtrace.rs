//! Heap traces: any events come out as they went in; recorded ones are read from any piece of them.

use std::path::Path;

use proptest::prelude::*;
use uni_wire::memtrace::{
    Allocation, Decoder, FaultKind, Info, InfoTooLong, Item, Locate, Mode, Position, Source, Version, Writer,
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
    for (name, step) in [("tiny-v2.ctf", 1), ("unikernel-v2.ctf", 3), ("domains-v3.ctf", 41)] {
        let trace = recorded(name);
        let (whole, faults) = read(&trace, Mode::Strict);
        assert_eq!(faults, []);
        let (mut longest, ends) = (0, packet_ends(&trace));
        for end in (0..trace.len()).step_by(step) {
            let (items, faults) = read(&trace[..end], Mode::Lenient);
            assert!(whole.starts_with(&items), "{name} cut at {end}");
            assert!(items.len() >= longest, "{name} cut at {end}: fewer items than of a shorter piece");
            longest = items.len();
            assert!(faults.len() <= 1, "{name} cut at {end}: {faults:?}");
            // only where a packet ends nothing is missed
            assert!(!faults.is_empty() || ends.contains(&end), "{name} cut at {end}");
            read(&trace[..end], Mode::Strict);
        }
        assert!(longest + 20 >= whole.len());
    }
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
