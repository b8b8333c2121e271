//! Any bytes as a line from QEMU's control socket.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(uni_vmm::qmp::parse_reply(bytes)));
