//! Any bytes on connections to the control port; the rules are those of the property tests.
#![no_main]

#[path = "../../crates/uni-guest/tests/properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::check_session(bytes));
