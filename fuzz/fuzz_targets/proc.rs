//! Any bytes as the kernel's files about a process, and as the shim's block of counters; the rules are those of the tests that replay the seeds.
#![no_main]

#[path = "../../crates/uni-host/tests/any_bytes/mod.rs"]
mod files;
#[path = "../../crates/uni-vmm/tests/any_bytes/mod.rs"]
#[expect(dead_code, reason = "each target checks one of the rules")]
mod any_bytes;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    files::check_proc(bytes);
    any_bytes::check_links(bytes);
});
