//! Any events through the writer and the reader of heap traces; the rules are those of the property tests.
#![no_main]

#[path = "../../crates/uni-wire/tests/properties/memtrace.rs"]
#[expect(dead_code, reason = "each target checks one of the rules")]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::check_round_trip(bytes));
