//! Keeping the shim small although its program is the daemon's: once QEMU runs, pages of the program and its
//! libraries that start-up touched are given back. What the loop needs comes back by itself, from the page
//! cache.
//!
//! Owns which mappings may be dropped: file-backed, not writable, and without one private page, so that
//! whatever is dropped is in the file as it was. (The loader's relocated, since write-protected tables have
//! private pages, and stay.) Field meanings: proc_pid_smaps(5).

use std::ffi::c_void;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::Range;

use rustix::mm::{Advice, madvise};

/// Gives back what is only a copy of a file. A failure costs memory and nothing else.
pub(super) fn release_program_pages() {
    let Ok(smaps) = File::open("/proc/self/smaps") else { return };
    for mapping in clean_mappings(BufReader::with_capacity(4096, smaps)) {
        let start = std::ptr::with_exposed_provenance_mut::<c_void>(mapping.start);
        // SAFETY: the mapping is private, read-only, file-backed and holds no page that differs from the
        // file, so its contents after this are its contents before; this process has one thread, which does
        // not change that.
        let _ = unsafe { madvise(start, mapping.len(), Advice::LinuxDontNeed) };
    }
}

/// The address ranges that hold nothing but unchanged pages of files.
fn clean_mappings(smaps: impl BufRead) -> Vec<Range<usize>> {
    let mut candidate = None;
    let mut clean = Vec::new();
    for line in smaps.lines().map_while(Result::ok) {
        if let Some(anonymous) = line.strip_prefix("Anonymous:") {
            clean.extend(candidate.take().filter(|_| anonymous.trim() == "0 kB"));
        } else if let Some(mapping) = Mapping::parse(&line) {
            candidate = mapping.is_file_copy.then_some(mapping.range);
        }
    }
    clean
}

struct Mapping {
    range: Range<usize>,
    is_file_copy: bool,
}

impl Mapping {
    /// Parses a header line: `start-end rwxp offset device inode path`.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
        let protection = fields.next()?;
        let path = fields.nth(3).unwrap_or_default();
        let is_file_copy = matches!(protection, "r--p" | "r-xp") && path.starts_with('/');
        Some(Self { range, is_file_copy })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unchanged_read_only_pages_of_files_are_dropped() {
        let smaps = "\
1000-2000 r-xp 00000000 fe:00 12 /bin/unid\nRss: 4 kB\nAnonymous:             0 kB\nVmFlags: rd ex\n\
2000-3000 r--p 00001000 fe:00 12 /bin/unid\nAnonymous:             4 kB\n\
3000-4000 rw-p 00002000 fe:00 12 /bin/unid\nAnonymous:             0 kB\n\
4000-5000 r--p 00000000 00:00 0\nAnonymous:             0 kB\n\
5000-6000 r--s 00000000 fe:00 13 /shared\nAnonymous:             0 kB\n\
6000-8000 r--p 00000000 fe:00 14 /lib/a b (deleted)\nAnonymous:             0 kB\n\
9000-a000 r-xp 00000000 00:00 0 [vdso]\nAnonymous:             0 kB\n";
        assert_eq!(clean_mappings(smaps.as_bytes()), [0x1000..0x2000, 0x6000..0x8000]);
    }

    #[test]
    fn this_programs_own_mappings_are_understood() {
        let smaps = std::fs::read("/proc/self/smaps").unwrap();
        assert!(clean_mappings(&smaps[..]).iter().all(|mapping| mapping.start < mapping.end));
        assert!(!clean_mappings(&smaps[..]).is_empty());
    }
}
