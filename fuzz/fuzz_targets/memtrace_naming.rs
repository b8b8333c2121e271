//! Any bytes as what a guest sends of its heap trace, on their way into a file with names; the rules are those of the tests.
#![no_main]

#[path = "../../crates/uni-memtrace/tests/properties/naming.rs"]
mod naming;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| naming::check_naming(bytes));
