//! Any bytes as an image and its unstripped twin, and any text as a console with a stack trace; the rules are those of the tests that replay the seeds.
#![no_main]

#[path = "../../crates/uni-vmm/tests/any_bytes/mod.rs"]
#[expect(dead_code, reason = "each target checks one of the rules")]
mod any_bytes;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| any_bytes::check_image(bytes));
