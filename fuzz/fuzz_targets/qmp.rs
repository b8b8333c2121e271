//! Any bytes as a line from QEMU's control socket; the rules are those of the tests that replay the seeds.
#![no_main]

#[path = "../../crates/uni-vmm/tests/any_bytes/mod.rs"]
#[expect(dead_code, reason = "each target checks one of the rules")]
mod any_bytes;

libfuzzer_sys::fuzz_target!(|line: &[u8]| any_bytes::check_reply(line));
