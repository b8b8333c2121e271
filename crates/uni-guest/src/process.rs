//! What a process on Linux uses, for programs that are no unikernels.
//!
//! Owns the meaning of two files of `/proc`, and the names: those of MirageOS's `resource_usage`, as far as the files
//! tell. Never reads a file; a closure brings the text.

use alloc::rc::Rc;
use alloc::string::String;

use crate::metrics::{Fields, Periodic, Registry};

/// Linux counts processor time in hundredths of a second, whatever its own clock (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// The text of two files.
#[derive(Clone, Debug, Default)]
pub struct ProcessFiles {
    /// Of `/proc/self/stat`.
    pub stat: String,
    /// Of `/proc/self/status`.
    pub status: String,
}

/// Registers `resource_usage`: processor time in seconds, memory in KiB, page faults and switches. A number that the
/// texts do not hold is left out.
///
/// ```
/// use uni_guest::{Registry, process};
/// let mut registry = Registry::new();
/// process::register_process(&mut registry, || process::ProcessFiles {
///     stat: std::fs::read_to_string("/proc/self/stat").unwrap_or_default(),
///     status: std::fs::read_to_string("/proc/self/status").unwrap_or_default(),
/// });
/// ```
pub fn register_process(registry: &mut Registry, read: impl Fn() -> ProcessFiles + 'static) {
    let source = Periodic::new("resource_usage", move |fields| write_fields(&read(), fields));
    registry.register(source.doc("what the process uses"));
}

/// Registers `heap` (bytes), and the same figure in words under MirageOS's names, `memory` and `gc`, for a program whose
/// allocator does not count: the private memory that the process holds, be it in RAM or swapped out. That is heap,
/// stacks and the data of the program; what of it is in use nobody knows but the allocator. `read` brings
/// `/proc/self/status`. A program whose allocator does count takes [`sources::register_heap`](crate::sources::register_heap).
pub fn register_heap(registry: &mut Registry, read: impl Fn() -> String + 'static) {
    let read = Rc::new(read);
    for (name, doc, heap, unit_bytes, stack) in [
        (
            "memory",
            "private memory and main stack in words of 8 bytes",
            "memory heap words",
            8,
            Some("memory stack words"),
        ),
        ("gc", "private memory in words of 8 bytes", "heap words", 8, None),
        ("heap", "private memory in bytes", "heap_bytes", 1, None),
    ] {
        let read = Rc::clone(&read);
        let source = Periodic::new(name, move |fields| {
            let status = read();
            if let Some(kibibytes) = private_kibibytes(&status) {
                fields.count(heap, kibibytes.saturating_mul(1024) / unit_bytes);
            }
            if let (Some(key), Some(kibibytes)) = (stack, status_number(&status, "VmStk")) {
                fields.count(key, kibibytes.saturating_mul(1024) / unit_bytes);
            }
        });
        registry.register(source.doc(doc));
    }
}

fn private_kibibytes(status: &str) -> Option<u64> {
    let swapped = status_number(status, "VmSwap").unwrap_or(0);
    status_number(status, "RssAnon").map(|resident| resident.saturating_add(swapped))
}

fn write_fields(files: &ProcessFiles, fields: &mut Fields<'_>) {
    for (key, place) in [("utime", 14), ("stime", 15)] {
        if let Some(ticks) = stat_number(&files.stat, place) {
            fields.float(key, ticks as f64 / TICKS_PER_SECOND);
        }
    }
    for (key, place) in [("minflt", 10), ("majflt", 12)] {
        if let Some(number) = stat_number(&files.stat, place) {
            fields.total(key, number);
        }
    }
    if let Some(threads) = stat_number(&files.stat, 20) {
        fields.count("threads", threads);
    }
    for (key, name) in [
        ("maxrss", "VmHWM"),
        ("rss", "VmRSS"),
        ("nvcsw", "voluntary_ctxt_switches"),
        ("nivcsw", "nonvoluntary_ctxt_switches"),
    ] {
        if let Some(number) = status_number(&files.status, name) {
            fields.count(key, number);
        }
    }
}

/// A number of `stat`, by its place from 1 as `proc(5)` counts. The name, at place 2, may hold spaces and
/// parentheses.
fn stat_number(stat: &str, place: usize) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(place.checked_sub(3)?)?.parse().ok()
}

/// The number after `NAME:`.
fn status_number(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uni_wire::Timestamp;

    fn line(stat: &str, status: &str) -> String {
        let files = ProcessFiles { stat: stat.into(), status: status.into() };
        let mut registry = Registry::new();
        register_process(&mut registry, move || files.clone());
        let mut lines = String::new();
        registry.collect("v", Timestamp(1), |line| lines.push_str(&String::from_utf8_lossy(line)));
        lines
    }

    #[test]
    fn fields_are_spelled_as_mirage_spells_them() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 120 0 3 0 250 75 0 0 20 0 4 0 100 9 8";
        let status = "Name:\ta\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t6\n";
        let expected = "resource_usage,vm=v utime=2.5,stime=0.75,minflt=120i,majflt=3i,threads=4i,\
                        maxrss=2048i,rss=1024i,nvcsw=5i,nivcsw=6i 1\n";
        assert_eq!(line(stat, status), expected);
    }

    #[test]
    fn private_memory_stands_for_the_heap() {
        let heap = |status: &'static str| {
            let mut registry = Registry::new();
            register_heap(&mut registry, move || status.into());
            let mut lines = String::new();
            registry.collect("v", Timestamp(1), |line| lines.push_str(&String::from_utf8_lossy(line)));
            lines
        };
        let expected = "memory,vm=v memory\\ heap\\ words=640i,memory\\ stack\\ words=128i 1\n\
                        gc,vm=v heap\\ words=640i 1\nheap,vm=v heap_bytes=5120i 1\n";
        assert_eq!(heap("RssAnon:\t 4 kB\nVmSwap:\t 1 kB\nVmStk:\t 1 kB\n"), expected);
        assert_eq!(heap("RssAnon:\t18446744073709551615 kB\nVmSwap: 1 kB").lines().count(), 3);
        assert_eq!(heap("RssAnon: many"), "");
    }

    #[test]
    fn broken_texts_make_no_line() {
        for stat in ["", "7", "7 (a", "7 (a) S", "7 (a) S x x x x x x x x x x x x x x x x x x"] {
            assert_eq!(line(stat, "VmHWM: many\nVmRSS"), "", "{stat}");
        }
    }
}
