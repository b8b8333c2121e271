//! Any bytes as the kernel's files about a process, and as the shim's block of counters.
#![no_main]

use uni_host::proc::{Io, Stat, Status};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = Stat::parse(bytes);
    let _ = Status::parse(bytes);
    let _ = Io::parse(bytes);
    let _ = uni_vmm::links::Links::parse(bytes);
});
