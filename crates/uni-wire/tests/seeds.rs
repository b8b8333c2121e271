//! The seeds of the fuzz targets, replayed.

use std::path::Path;

#[path = "properties/memtrace.rs"]
mod memtrace;
mod properties;

/// Feeds every seed of a target to what the target checks.
fn replay(target: &str, check: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let files: Vec<_> = std::fs::read_dir(&dir).expect("seeds").collect();
    assert!(!files.is_empty());
    for file in files {
        check(&std::fs::read(file.expect("seeds").path()).expect("a seed"));
    }
}

#[test]
fn lines() {
    replay("line", properties::check_line);
}

#[test]
fn written_lines() {
    replay("line_emit", properties::check_emit);
}

#[test]
fn commands() {
    replay("control", properties::check_control);
}

#[test]
fn messages_of_rfc_3164() {
    replay("rfc3164", properties::check_rfc3164);
}

#[test]
fn messages_of_rfc_5424() {
    replay("rfc5424", properties::check_rfc5424);
}

#[test]
fn written_messages() {
    replay("syslog_emit", properties::check_syslog_emit);
}

#[test]
fn streams() {
    replay("syslog_framing", properties::check_framing);
}

#[test]
fn heap_traces() {
    replay("memtrace", memtrace::check_decode);
}

#[test]
fn written_heap_traces() {
    replay("memtrace_write", memtrace::check_round_trip);
}
