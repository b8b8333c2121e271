//! Any bytes through a reader of the store's files; the rules are those of the crate's `fuzz` module.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| uni_store::fuzz::check_notes(bytes));
