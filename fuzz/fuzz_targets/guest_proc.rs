//! Any text as the kernel's files that an ordinary program reports from; the rules are those of the tests that replay the seeds.
#![no_main]

#[path = "../../crates/uni-guest/tests/any_proc/mod.rs"]
mod any_proc;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| any_proc::check_proc(bytes));
