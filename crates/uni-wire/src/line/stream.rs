//! Cutting a TCP stream into lines, whatever the segments.
//!
//! Owns the bytes of the one line that is not complete yet, up to a limit. Never parses, and never lets a bad
//! line spoil its neighbours: every newline ends a line, also inside quotes, as Telegraf's listener has it.

use alloc::vec::Vec;

use super::split::newline;

/// The longest line kept by default: 64 KiB, the limit of a series key in InfluxDB 1.x.
pub const DEFAULT_LINE_LIMIT_BYTES: usize = 64 * 1024;

/// Joins segments and hands out whole lines.
#[derive(Debug)]
pub struct LineBuffer {
    /// The start of a line whose end has not come yet.
    partial: Vec<u8>,
    limit_bytes: usize,
    /// Inside a line that was too long; its rest is thrown away.
    skipping: bool,
    overlong_lines: u64,
}

impl Default for LineBuffer {
    fn default() -> Self {
        Self::new(DEFAULT_LINE_LIMIT_BYTES)
    }
}

impl LineBuffer {
    /// A buffer for lines of at most `limit_bytes` bytes, the newline not counted.
    #[must_use]
    pub const fn new(limit_bytes: usize) -> Self {
        Self { partial: Vec::new(), limit_bytes, skipping: false, overlong_lines: 0 }
    }

    /// Takes a segment and calls `each` for every line it completes, in order: without its newline and the
    /// carriage return before it; blank lines and comments are left out.
    pub fn feed(&mut self, segment: &[u8], mut each: impl FnMut(&[u8])) {
        let mut rest = segment;
        while !rest.is_empty() {
            let end = newline(rest);
            let complete = end < rest.len();
            self.take(&rest[..end], complete, &mut each);
            rest = rest.get(end + 1..).unwrap_or_default();
        }
    }

    /// The stream has ended: what is left is the last line.
    pub fn finish(&mut self, mut each: impl FnMut(&[u8])) {
        self.take(b"", true, &mut each);
    }

    /// Lines dropped because they were longer than the limit.
    #[must_use]
    pub const fn overlong_lines(&self) -> u64 {
        self.overlong_lines
    }

    /// Bytes held of a line that is not complete yet.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.partial.len()
    }

    fn take(&mut self, part: &[u8], complete: bool, each: &mut impl FnMut(&[u8])) {
        if !self.skipping && self.partial.len() + part.len() > self.limit_bytes {
            self.skipping = true;
            self.overlong_lines += 1;
            self.partial = Vec::new();
        }
        if self.skipping {
            self.skipping = !complete;
        } else if !complete {
            self.partial.extend_from_slice(part);
        } else if self.partial.is_empty() {
            hand_out(part, each);
        } else {
            self.partial.extend_from_slice(part);
            hand_out(&self.partial, each);
            self.partial.clear();
        }
    }
}

fn hand_out(line: &[u8], each: &mut impl FnMut(&[u8])) {
    let line = line.strip_suffix(b"\r").unwrap_or(line).trim_ascii_start();
    if !matches!(line.first(), None | Some(b'#')) {
        each(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::String;

    fn collect(buffer: &mut LineBuffer, segments: &[&[u8]]) -> Vec<String> {
        let mut out = Vec::new();
        for segment in segments {
            buffer.feed(segment, |l| out.push(String::from_utf8_lossy(l).into_owned()));
        }
        buffer.finish(|l| out.push(String::from_utf8_lossy(l).into_owned()));
        out
    }

    #[test]
    fn lines_split_over_segments_come_whole() {
        let got = collect(&mut LineBuffer::default(), &[b"a x=1\nb x", b"=2\r", b"\n\n# no\nc x=3"]);
        assert_eq!(got, ["a x=1", "b x=2", "c x=3"]);
    }

    #[test]
    fn a_line_too_long_is_dropped_counted_and_its_neighbours_kept() {
        let mut buffer = LineBuffer::new(4);
        let got = collect(&mut buffer, &[b"a=1\n12345678", b"9\nb=2\n1234\n"]);
        assert_eq!(got, ["a=1", "b=2", "1234"]);
        assert_eq!(buffer.overlong_lines(), 1);
    }

    #[test]
    fn a_missing_quote_spoils_only_its_own_line() {
        let got = collect(&mut LineBuffer::default(), &[b"a x=\"1\nb x=2\n"]);
        assert_eq!(got, ["a x=\"1", "b x=2"]);
    }

    proptest! {
        #[test]
        fn the_cutting_of_segments_does_not_matter(
            text in "[ab#\r\n ]{0,60}", cuts in prop::collection::vec(0_usize..60, 0..6),
        ) {
            let whole = collect(&mut LineBuffer::new(5), &[text.as_bytes()]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            cuts.sort_unstable();
            let mut segments = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([text.len()]) {
                segments.push(&text.as_bytes()[from..cut]);
                from = cut;
            }
            prop_assert_eq!(collect(&mut LineBuffer::new(5), &segments), whole);
        }
    }
}
