//! Any bytes as a heap trace that is reported on; the rules are those of the tests.
#![no_main]

#[path = "../../crates/uni-memtrace/tests/properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::check_report(bytes));
