//! Any bytes as OTLP metrics, protobuf and JSON; the rules are those of the property tests.
#![no_main]

#[path = "../../crates/uni-intake/tests/properties/mod.rs"]
#[expect(dead_code, reason = "each target checks one of the rules")]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::check_otlp(bytes));
