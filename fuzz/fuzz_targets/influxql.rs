//! Any text through the InfluxQL parser and engine; the rules are those of the tests that replay the seeds.
#![no_main]

#[path = "../../crates/uni-query/tests/any_text/mod.rs"]
mod any_text;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| any_text::check_query(bytes));
