//! Lines that wait to be sent, and those just sent, in one bounded buffer.
//!
//! Owns whole lines in the order they were made. Never splits a line, never reorders, never sends: when it is full
//! the oldest unsent lines go first and are counted, but not one that is half on its way.
//!
//! ```text
//!   base            sent              tail
//!    |--- sent ------|--- waiting ------|      offsets since boot; `base` is the start of a line
//! ```
//! What was sent stays as long as there is room, because a connection that breaks may have lost it. Of sent lines that
//! had to go, the lengths are remembered: should it turn out that they were lost, they are counted too.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;

/// The buffer.
#[derive(Debug)]
pub(crate) struct Ring {
    bytes: Vec<u8>,
    limit_bytes: usize,
    /// Bytes forgotten so far: the offset of `bytes[0]`.
    base: u64,
    /// Place in `bytes` of the next byte to send.
    sent: usize,
    /// Offset of the first byte of the newest batch.
    batch: u64,
    dropped_lines: u64,
    /// Lengths of lines that were sent and then removed, the newest last: as many as cover `limit_bytes`.
    forgotten: VecDeque<usize>,
    forgotten_bytes: usize,
}

impl Ring {
    pub(crate) const fn new(limit_bytes: usize) -> Self {
        Self {
            bytes: Vec::new(),
            limit_bytes,
            base: 0,
            sent: 0,
            batch: 0,
            dropped_lines: 0,
            forgotten: VecDeque::new(),
            forgotten_bytes: 0,
        }
    }

    /// What waits to be sent, in one piece.
    pub(crate) fn waiting(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    /// Lines that were made and are not here any more, though their way to the collector is not certain.
    pub(crate) const fn dropped_lines(&self) -> u64 {
        self.dropped_lines
    }

    /// The lines that follow are one batch: a broken connection sends the newest batch again.
    pub(crate) const fn start_batch(&mut self) {
        self.batch = self.base + self.bytes.len() as u64;
    }

    /// Adds a line, which must end in its only newline.
    pub(crate) fn push(&mut self, line: &[u8]) {
        debug_assert!(line.iter().position(|b| *b == b'\n') == line.len().checked_sub(1), "one whole line");
        if self.make_room(line.len()) && self.bytes.try_reserve(line.len()).is_ok() {
            self.bytes.extend_from_slice(line);
        } else {
            self.dropped_lines += 1;
        }
    }

    /// `bytes` more were taken by the transport.
    pub(crate) fn handle_sent(&mut self, bytes: usize) {
        self.sent = (self.sent + bytes).min(self.bytes.len());
    }

    /// The connection broke with at least `unacknowledged` bytes lost: they wait again, and so does the newest
    /// batch, which the collector may have taken without keeping it. Sending a point twice does no harm, for it has
    /// its time stamp. Goes back to the start of a line in any case.
    pub(crate) fn rewind(&mut self, unacknowledged: usize) {
        let batch = usize::try_from(self.batch.saturating_sub(self.base)).unwrap_or(usize::MAX);
        let certain = self.sent.saturating_sub(unacknowledged);
        self.count_forgotten(unacknowledged.saturating_sub(self.sent));
        self.sent = self.line_start(certain.min(batch.min(self.sent)));
    }

    /// The last `lost` bytes of the forgotten lines did not arrive.
    fn count_forgotten(&mut self, lost: usize) {
        let mut lost = lost;
        while lost > 0
            && let Some(line) = self.forgotten.pop_back()
        {
            self.dropped_lines += 1;
            lost = lost.saturating_sub(line);
        }
        self.forgotten.clear();
        self.forgotten_bytes = 0;
    }

    /// Removes the lines before `end`, which were sent.
    fn forget(&mut self, end: usize) {
        let mut start = 0;
        while start < end {
            let line = self.line_end(start) - start;
            start += line;
            if self.forgotten.try_reserve(1).is_ok() {
                self.forgotten.push_back(line);
                self.forgotten_bytes += line;
            }
        }
        while let Some(line) = self.forgotten.front().copied()
            && self.forgotten_bytes - line >= self.limit_bytes
        {
            self.forgotten.pop_front();
            self.forgotten_bytes -= line;
        }
        self.remove(0..end);
    }

    /// Makes room for a line of `need` bytes; `false` if there is none to be made.
    fn make_room(&mut self, need: usize) -> bool {
        if self.bytes.len() + need <= self.limit_bytes {
            return true;
        }
        self.forget(self.line_start(self.sent));
        let droppable = if self.sent == 0 { 0 } else { self.line_end(self.sent) };
        let mut end = droppable;
        let mut lines = 0;
        while self.bytes.len() - (end - droppable) + need > self.limit_bytes && end < self.bytes.len() {
            end = self.line_end(end);
            lines += 1;
        }
        if self.bytes.len() - (end - droppable) + need > self.limit_bytes {
            return false;
        }
        self.dropped_lines += lines;
        self.remove(droppable..end);
        true
    }

    /// Removes whole lines; the places that lie behind them move up.
    fn remove(&mut self, range: Range<usize>) {
        let gone = range.len();
        if self.sent >= range.end {
            self.sent -= gone;
        }
        self.base += gone as u64;
        self.bytes.drain(range);
    }

    /// The start of the line that the place `at` is in (or at the start of).
    fn line_start(&self, at: usize) -> usize {
        let before = self.bytes.get(..at).unwrap_or_default();
        before.iter().rposition(|b| *b == b'\n').map_or(0, |newline| newline + 1)
    }

    /// The place after the line that `at` is in.
    fn line_end(&self, at: usize) -> usize {
        let rest = self.bytes.get(at..).unwrap_or_default();
        rest.iter().position(|b| *b == b'\n').map_or(self.bytes.len(), |newline| at + newline + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;
    use proptest::prelude::*;

    fn text(ring: &Ring) -> &str {
        core::str::from_utf8(ring.waiting()).expect("text")
    }

    #[test]
    fn the_oldest_lines_go_first_and_are_counted() {
        let mut ring = Ring::new(12);
        ["aa\n", "bb\n", "cc\n", "dd\n", "eeee\n"].iter().for_each(|l| ring.push(l.as_bytes()));
        assert_eq!((text(&ring), ring.dropped_lines()), ("cc\ndd\neeee\n", 2));
    }

    #[test]
    fn a_line_half_on_its_way_is_not_dropped() {
        let mut ring = Ring::new(9);
        ["aa\n", "bb\n", "cc\n"].iter().for_each(|l| ring.push(l.as_bytes()));
        ring.handle_sent(1);
        ring.push(b"dd\n");
        assert_eq!(text(&ring), "a\ncc\ndd\n");
        assert_eq!(ring.dropped_lines(), 1);
        ring.rewind(0);
        assert_eq!(text(&ring), "aa\ncc\ndd\n");
    }

    #[test]
    fn a_broken_connection_sends_the_newest_batch_and_what_was_lost_again() {
        let mut ring = Ring::new(100);
        ring.push(b"aa\n");
        ring.start_batch();
        ring.push(b"bb\n");
        ring.push(b"cc\n");
        ring.handle_sent(8);
        ring.rewind(0);
        assert_eq!(text(&ring), "bb\ncc\n");
        ring.handle_sent(6);
        ring.rewind(7);
        assert_eq!(text(&ring), "aa\nbb\ncc\n");
    }

    #[test]
    fn a_line_that_can_never_fit_is_dropped_itself() {
        let mut ring = Ring::new(4);
        ring.push(b"aa\n");
        ring.push(b"bbbbb\n");
        assert_eq!((text(&ring), ring.dropped_lines()), ("aa\n", 1));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Batch,
        Send(usize),
        Break(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_usize..12).prop_map(Step::Push),
            1 => Just(Step::Batch),
            2 => (0_usize..40).prop_map(Step::Send),
            1 => (0_usize..40).prop_map(Step::Break),
        ]
    }

    proptest! {
        /// The collector sees whole lines, in order, and every line made was seen, is waiting, or was counted.
        #[test]
        fn no_line_is_split_or_reordered_and_losses_are_counted(
            limit in 10_usize..60, steps in prop::collection::vec(step(), 0..80),
        ) {
            let mut ring = Ring::new(limit);
            let mut made = 0_usize;
            let mut connection = String::new();
            let mut seen = alloc::collections::BTreeSet::new();
            let number = |line: &str| line.trim_start_matches('x').parse::<usize>().expect("a whole line");
            let check = |connection: &str| -> Vec<usize> { connection.lines().map(number).collect() };
            for step in steps {
                match step {
                    Step::Push(pad) => {
                        ring.push(format!("{}{made}\n", "x".repeat(pad)).as_bytes());
                        made += 1;
                    }
                    Step::Batch => ring.start_batch(),
                    Step::Send(n) => {
                        let n = n.min(ring.waiting().len());
                        connection.push_str(&text(&ring)[..n]);
                        ring.handle_sent(n);
                    }
                    Step::Break(lost) => {
                        let lost = lost.min(connection.len()).min(limit);
                        let whole = connection.rfind('\n').map_or(0, |end| end + 1);
                        let kept = whole.min(connection.len().saturating_sub(lost));
                        let kept = connection[..kept].rfind('\n').map_or(0, |end| end + 1);
                        let numbers = check(&connection[..kept]);
                        prop_assert!(numbers.is_sorted());
                        seen.extend(numbers);
                        connection.clear();
                        ring.rewind(lost);
                    }
                }
                prop_assert!(ring.bytes.len() <= limit);
            }
            connection.push_str(text(&ring));
            let numbers = check(&connection);
            prop_assert!(numbers.is_sorted());
            seen.extend(numbers);
            let missing = (made - seen.len()) as u64;
            prop_assert!(missing <= ring.dropped_lines(), "{missing} missing, {} counted", ring.dropped_lines());
        }

        /// Without broken connections the count is exact.
        #[test]
        fn the_count_of_dropped_lines_is_exact(
            limit in 10_usize..60, steps in prop::collection::vec((0_usize..12, 0_usize..20), 0..60),
        ) {
            let mut ring = Ring::new(limit);
            let mut received = String::new();
            let made = steps.len();
            for (n, (pad, send)) in steps.into_iter().enumerate() {
                ring.push(format!("{}{n}\n", "x".repeat(pad)).as_bytes());
                let send = send.min(ring.waiting().len());
                received.push_str(&text(&ring)[..send]);
                ring.handle_sent(send);
            }
            received.push_str(text(&ring));
            prop_assert_eq!(received.lines().count() as u64 + ring.dropped_lines(), made as u64);
        }
    }
}
