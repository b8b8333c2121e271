//! What must hold for anything a guest sends as its trace: shared by the tests here and by the fuzz target in `fuzz/`.

use uni_memtrace::{Frame, Naming};
use uni_wire::memtrace::{Alloc, Decoder, Item, Mode};

/// Backtraces up to this depth are not cut by any writer.
const SHORT_FRAMES: usize = 300;

/// What a trace says of what happened, and the names of frames.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    events: Vec<String>,
    names: Vec<String>,
    fault: Option<String>,
}

fn told(trace: &[u8]) -> Told {
    let mut told = Told::default();
    let mut deep = false;
    let mut decoder = Decoder::new(Mode::Strict);
    let outcome = decoder.handle_bytes(trace, |item| match item {
        Item::Alloc(Alloc { time_micros, id, length_words, samples, source, backtrace, .. }) => {
            // what follows a backtrace that was cut depends on it
            deep |= backtrace.len() > SHORT_FRAMES;
            let frames = if deep { &[] } else { backtrace };
            told.events.push(format!("{time_micros} {id} {length_words} {samples} {source:?} {frames:x?}"));
        }
        Item::Promote(of) => told.events.push(format!("{} promote {}", of.time_micros, of.id)),
        Item::Collect(of) => told.events.push(format!("{} collect {}", of.time_micros, of.id)),
        Item::Location { code, positions } => {
            let positions: Vec<String> = positions.iter().map(ToString::to_string).collect();
            told.names.push(format!("{code:#x} {positions:?}"));
        }
        Item::Info(_) | Item::Packet(_) | Item::Fault(_) => {}
    });
    told.fault = outcome.err().map(|fault| fault.to_string());
    told
}

/// Whatever comes out can be read, and says what came in, up to what was wrong with it.
pub(crate) fn check_naming(bytes: &[u8]) {
    let before = told(bytes);
    for piece in [usize::MAX, 17, 1 + bytes.len() / 3] {
        let mut naming = Naming::new(Box::new(|address| {
            let frame =
                |line| Frame { function: format!("named::f{address}"), file: "named.rs".into(), line };
            if address % 2 == 0 { vec![frame(7), frame(9)] } else { Vec::new() }
        }));
        let (mut out, mut failed) = (Vec::new(), false);
        for piece in bytes.chunks(piece) {
            match naming.feed(piece) {
                Ok(named) => out.extend(named),
                Err(fault) => {
                    assert!(!fault.is_empty());
                    failed = true;
                    break;
                }
            }
        }
        let after = told(&out);
        assert_eq!(after.fault, None, "what goes out can be read");
        assert!(failed || before.fault.is_none(), "what is wrong is told");
        assert!(before.events.starts_with(&after.events), "{:#?}\n{:#?}", before.events, after.events);
        if !failed {
            assert_eq!(before.events, after.events);
        }
        let is_named = bytes.get(28).is_some_and(|version| *version < 3);
        assert!(!is_named || !after.names.iter().any(|name| is_bare(name)), "{:?}", after.names);
    }
}

/// Whether a frame that has names has kept its address instead.
fn is_bare(name: &str) -> bool {
    let Some((code, positions)) = name.split_once(' ') else { return false };
    let address = code.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
    address.is_some_and(|address| address % 2 == 0)
        && positions.starts_with(&format!("[\"{code}@"))
        && !positions.contains("\", \"")
}
