//! What must hold for any text as the kernel's files about a process and its machine: shared by the replay of seeds
//! here and by the fuzz target in `fuzz/`.

use uni_guest::process::{ProcessFiles, register_heap, register_process};
use uni_guest::{Registry, machine};
use uni_wire::Timestamp;
use uni_wire::line::{Mode, Precision, parse_point};

/// Whatever they say, what is made of it are good lines.
pub(crate) fn check_proc(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let read = || {
        let text = text.clone();
        move || text.clone()
    };
    let mut registry = Registry::new();
    let (stat, status) = (read(), read());
    register_process(&mut registry, move || ProcessFiles { stat: stat(), status: status() });
    register_heap(&mut registry, read());
    machine::register_tcp(&mut registry, read());
    for name in machine::busy_links(&text).take(8) {
        machine::register_link(&mut registry, name, read());
    }
    registry.collect("v", Timestamp(1), |line| {
        let line = line.strip_suffix(b"\n").expect("a whole line");
        let parsed = parse_point(line, Mode::Strict, Timestamp(0), Precision::Nanoseconds);
        assert!(parsed.is_ok(), "{}: {parsed:?}", String::from_utf8_lossy(line));
    });
}
