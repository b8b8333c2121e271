//! What waits to be sent, and what was sent so lately that it may not have arrived.
//!
//! Owns the bound: when it is reached the oldest goes first, and what was lost is told to be counted. Never sends,
//! never reads a clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What a connection took this long ago counts as arrived, once the connection still stands: longer than it takes
/// to find out that a peer is gone.
const SETTLED: Duration = Duration::from_secs(15);

/// Lines that belong together and go out in one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    text: Box<str>,
    /// Sent before, over a connection that broke soon after. It is sent a second time and no third time: a collector
    /// that takes something and hangs up, again and again, would else never get further.
    again: bool,
}

impl Batch {
    pub(super) fn new(text: String) -> Self {
        Self { text: text.into_boxed_str(), again: false }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    pub(super) fn lines(&self) -> u64 {
        self.text.lines().count() as u64
    }
}

/// A queue of batches with a bound on their bytes.
#[derive(Debug)]
pub(super) struct Buffer {
    waiting: VecDeque<Batch>,
    waiting_bytes: usize,
    sent: VecDeque<(Instant, Batch)>,
    sent_bytes: usize,
    limit: usize,
}

impl Buffer {
    /// A buffer of at most `limit` bytes.
    pub(super) const fn new(limit: usize) -> Self {
        Self { waiting: VecDeque::new(), waiting_bytes: 0, sent: VecDeque::new(), sent_bytes: 0, limit }
    }

    /// Adds the newest; gives the number of lines that were dropped for it.
    pub(super) fn push(&mut self, batch: Batch) -> u64 {
        self.waiting_bytes += batch.text.len();
        self.waiting.push_back(batch);
        self.make_room()
    }

    /// The oldest that waits. It is the caller's until [`Self::sent`] or [`Self::put_back`].
    pub(super) fn take(&mut self) -> Option<Batch> {
        let batch = self.waiting.pop_front()?;
        self.waiting_bytes -= batch.text.len();
        Some(batch)
    }

    /// What was taken could not be sent; gives the number of lines that were dropped because newer ones took its place.
    pub(super) fn put_back(&mut self, batch: Batch) -> u64 {
        self.waiting_bytes += batch.text.len();
        self.waiting.push_front(batch);
        self.make_room()
    }

    /// What was taken is sent: it is kept until it is settled, in case the connection breaks.
    pub(super) fn sent(&mut self, batch: Batch, now: Instant) {
        while let Some((_, oldest)) = self.sent.pop_front_if(|(then, _)| now - *then >= SETTLED) {
            self.sent_bytes -= oldest.text.len();
        }
        if !batch.again {
            self.sent_bytes += batch.text.len();
            self.sent.push_back((now, batch));
        }
    }

    /// The connection broke: what it took lately waits again, before everything else.
    pub(super) fn recall(&mut self, now: Instant) {
        self.sent_bytes = 0;
        while let Some((then, mut batch)) = self.sent.pop_back() {
            if now - then < SETTLED {
                batch.again = true;
                self.waiting_bytes += batch.text.len();
                self.waiting.push_front(batch);
            }
        }
    }

    /// Bytes that wait.
    pub(super) const fn bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Lines that wait.
    pub(super) fn lines(&self) -> u64 {
        self.waiting.iter().map(Batch::lines).sum()
    }

    /// Copies of what was sent go first, and are no loss.
    fn make_room(&mut self) -> u64 {
        let mut lost = 0;
        while self.waiting_bytes + self.sent_bytes > self.limit {
            if let Some((_, oldest)) = self.sent.pop_front() {
                self.sent_bytes -= oldest.text.len();
            } else {
                lost += self.take().map_or(0, |oldest| oldest.lines());
            }
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(name: &str) -> Batch {
        Batch::new(format!("{name} f=1 1\n{name} f=2 2\n"))
    }

    fn names(buffer: &mut Buffer) -> Vec<String> {
        std::iter::from_fn(|| buffer.take()).map(|batch| batch.text[..1].to_owned()).collect()
    }

    #[test]
    fn the_bound_drops_the_oldest_and_tells_how_many_lines() {
        let one = batch("a").text.len();
        let mut buffer = Buffer::new(3 * one);
        assert_eq!(["a", "b", "c", "d", "e"].map(|name| buffer.push(batch(name))), [0, 0, 0, 2, 2]);
        assert_eq!((buffer.bytes(), buffer.lines()), (3 * one, 6));
        assert_eq!(names(&mut buffer), ["c", "d", "e"]);
        assert_eq!(buffer.bytes(), 0);
    }

    #[test]
    fn a_batch_larger_than_the_bound_is_lost_and_nothing_else_happens() {
        let mut buffer = Buffer::new(3);
        assert_eq!(buffer.push(batch("a")), 2);
        assert_eq!((buffer.take(), buffer.bytes()), (None, 0));
    }

    #[test]
    fn what_could_not_be_sent_is_the_first_to_go_again_and_to_be_dropped() {
        let mut buffer = Buffer::new(2 * batch("a").text.len());
        buffer.push(batch("a"));
        let taken = buffer.take().unwrap();
        assert_eq!((buffer.push(batch("b")), buffer.put_back(taken)), (0, 0));
        let taken = buffer.take().unwrap();
        assert_eq!(taken, batch("a"));
        assert_eq!(["b", "c"].map(|name| buffer.push(batch(name))), [0, 2]);
        assert_eq!(buffer.put_back(taken), 2, "newer ones have taken its place");
        assert_eq!(names(&mut buffer), ["b", "c"]);
    }

    #[test]
    fn what_was_sent_before_a_break_goes_once_more_in_order_and_only_if_it_is_recent() {
        let mut buffer = Buffer::new(1000);
        let start = Instant::now();
        for (name, second) in [("a", 0), ("b", 10), ("c", 11)] {
            buffer.push(batch(name));
            let taken = buffer.take().unwrap();
            buffer.sent(taken, start + Duration::from_secs(second));
        }
        buffer.push(batch("d"));
        let broken = start + SETTLED;
        buffer.recall(broken);
        for expected in ["b", "c"] {
            let taken = buffer.take().unwrap();
            assert!(taken.text.starts_with(expected) && taken.again);
            buffer.sent(taken, broken);
        }
        buffer.recall(broken);
        assert_eq!(names(&mut buffer), ["d"], "nothing goes a third time");
    }

    #[test]
    fn copies_of_what_was_sent_make_room_before_anything_is_lost() {
        let mut buffer = Buffer::new(2 * batch("a").text.len());
        let now = Instant::now();
        for name in ["a", "b"] {
            buffer.push(batch(name));
            let taken = buffer.take().unwrap();
            buffer.sent(taken, now);
        }
        assert_eq!(["c", "d", "e"].map(|name| buffer.push(batch(name))), [0, 0, 2]);
        buffer.recall(now);
        assert_eq!(names(&mut buffer), ["d", "e"]);
    }
}
