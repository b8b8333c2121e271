//! Syslog messages on a connection, as a state machine: framed, kept until the sink has acknowledged them, and sent
//! again on the next connection if it has not.
//!
//! Owns the messages that are on their way, and when to connect. Never opens a socket; a driver does, in a loop like
//! that of [`agent`](crate::agent). What a young connection acknowledges, nobody may have read: it is kept until the
//! connection has lasted a second.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use uni_wire::syslog::{Framing, write_frame};

use crate::agent::Action;
use crate::link::Link;
use crate::syslog::SyslogQueue;

/// Most messages sent and not yet acknowledged; more wait in the queue.
const MAX_UNACKNOWLEDGED: usize = 256;
/// No further message is taken while so many bytes are unacknowledged.
const MAX_UNACKNOWLEDGED_BYTES: usize = 256 * 1024;

const SECOND_NS: u64 = 1_000_000_000;

/// See the module's page. All times are of one monotonic clock, in nanoseconds.
#[derive(Debug)]
pub struct SyslogStream {
    framing: Framing,
    queue: SyslogQueue,
    link: Link,
    /// Framed messages that are being sent or not yet acknowledged, and the length of each.
    bytes: Vec<u8>,
    frames: VecDeque<usize>,
    /// How many of the bytes this connection took.
    written: usize,
    sent_messages: u64,
}

impl SyslogStream {
    /// Messages of `queue`, framed so.
    #[must_use]
    pub const fn new(framing: Framing, queue: SyslogQueue) -> Self {
        Self {
            framing,
            queue,
            link: Link::new(),
            bytes: Vec::new(),
            frames: VecDeque::new(),
            written: 0,
            sent_messages: 0,
        }
    }

    /// What to do with the connection now. After `Close` the driver calls
    /// [`handle_disconnected`](Self::handle_disconnected), as for any other end of a connection.
    pub fn poll_action(&mut self, now_ns: u64) -> Action {
        let waits = self.written < self.bytes.len() || !self.queue.is_empty();
        self.link.poll_action(now_ns, waits)
    }

    /// Whether a connection is being opened: [`poll_action`](Self::poll_action) said so, and nothing came of it yet.
    #[must_use]
    pub const fn is_connecting(&self) -> bool {
        self.link.is_connecting()
    }

    /// The connection is up.
    pub const fn handle_connected(&mut self, now_ns: u64) {
        self.link.handle_connected(now_ns);
    }

    /// The connection is gone, or did not come up. `random` is any random number.
    pub fn handle_disconnected(&mut self, now_ns: u64, random: u32) {
        self.link.handle_disconnected(now_ns, random);
        self.written = 0;
    }

    /// What to send next; `None` when nothing waits, too much is unacknowledged, or there is no connection.
    pub fn poll_transmit(&mut self) -> Option<&[u8]> {
        if !self.link.is_connected() {
            return None;
        }
        if self.written == self.bytes.len() && self.has_room() {
            self.frame_next();
        }
        self.bytes.get(self.written..).filter(|rest| !rest.is_empty())
    }

    /// The transport took the first `bytes` of [`poll_transmit`](Self::poll_transmit).
    pub fn handle_sent(&mut self, bytes: usize) {
        if bytes > 0 {
            self.written = self.written.saturating_add(bytes).min(self.bytes.len());
            self.link.handle_progress();
        }
    }

    /// Of the bytes handed to this connection, the peer has not acknowledged the last `bytes` so far. To be called in
    /// each round while connected.
    pub fn handle_unacknowledged(&mut self, now_ns: u64, bytes: usize) {
        if bytes < self.written {
            self.link.handle_acknowledged();
        }
        if !self.link.is_unread(now_ns) {
            self.forget(self.written.saturating_sub(bytes));
        }
    }

    /// When [`poll_action`](Self::poll_action) is to be called again if nothing else happens.
    #[must_use]
    pub fn next_deadline(&self, now_ns: u64) -> Option<u64> {
        // What is acknowledged in between wakes nobody.
        let look_again = (self.link.is_connected() && !self.frames.is_empty()).then(|| now_ns + SECOND_NS);
        self.link.next_deadline().into_iter().chain(look_again).min()
    }

    /// Messages that were handed to a connection.
    #[must_use]
    pub const fn sent_messages(&self) -> u64 {
        self.sent_messages
    }

    /// Whether all that was logged is out and acknowledged.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.frames.is_empty()
    }

    /// Whether there is something that the connection has not been offered.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.written < self.bytes.len() || (self.has_room() && !self.queue.is_empty())
    }

    fn has_room(&self) -> bool {
        self.frames.len() < MAX_UNACKNOWLEDGED && self.bytes.len() < MAX_UNACKNOWLEDGED_BYTES
    }

    fn frame_next(&mut self) {
        let (bytes, framing) = (&mut self.bytes, self.framing);
        let before = bytes.len();
        let framed = self.queue.send_one(|message| {
            write_frame(framing, message, bytes);
            true
        });
        if framed {
            self.sent_messages += 1;
            self.frames.push_back(self.bytes.len() - before);
        }
    }

    /// Lets go of whole messages within the first `certain` bytes.
    fn forget(&mut self, certain: usize) {
        let mut end = 0;
        while let Some(frame) = self.frames.front()
            && end + frame <= certain
        {
            end += frame;
            self.frames.pop_front();
        }
        self.bytes.drain(..end);
        self.written -= end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::Logs;
    use alloc::format;
    use alloc::string::String;
    use proptest::prelude::*;
    use uni_wire::syslog::Deframer;

    /// A log whose messages go into a stream.
    struct Bench {
        log: crate::Log,
        stream: SyslogStream,
        now_ns: u64,
    }

    impl Bench {
        fn new(framing: Framing) -> Self {
            let (logs, queue) = (Logs::default(), SyslogQueue::new("web", 1000));
            logs.add_sink(queue.sink(|| uni_wire::Timestamp::from_seconds(0)));
            Self { log: logs.source("app", ""), stream: SyslogStream::new(framing, queue), now_ns: 0 }
        }

        /// A connection that takes `most` bytes, of which the last `lost` are not acknowledged, and ends after
        /// `life_ns`. What it took.
        fn connection(&mut self, most: usize, lost: usize, life_ns: u64) -> Vec<u8> {
            let mut taken = Vec::new();
            self.now_ns += 10 * SECOND_NS;
            assert_eq!(self.stream.poll_action(self.now_ns), Action::Connect);
            self.stream.handle_connected(self.now_ns);
            while let Some(bytes) = self.stream.poll_transmit() {
                let fits = bytes.len().min(most - taken.len());
                taken.extend_from_slice(&bytes[..fits]);
                self.stream.handle_sent(fits);
                if fits == 0 {
                    break;
                }
            }
            self.now_ns += life_ns;
            self.stream.handle_unacknowledged(self.now_ns, lost.min(taken.len()));
            self.stream.handle_disconnected(self.now_ns, 0);
            taken
        }
    }

    /// The numbers in the whole messages of a connection.
    fn numbers(bytes: &[u8]) -> Vec<usize> {
        let mut numbers = Vec::new();
        Deframer::new(1024).feed(bytes, |message| {
            let text = String::from_utf8_lossy(message);
            numbers.push(text.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number"));
        });
        numbers
    }

    #[test]
    fn what_a_young_connection_acknowledged_is_sent_again() {
        let mut bench = Bench::new(Framing::OctetCounting);
        bench.log.warning(format_args!("7"));
        assert_eq!(numbers(&bench.connection(1000, 0, SECOND_NS - 1)), [7]);
        assert_eq!(numbers(&bench.connection(1000, 0, SECOND_NS)), [7]);
        assert_eq!((bench.connection(1000, 0, 0), bench.stream.is_idle()), (Vec::new(), true));
        assert_eq!(bench.stream.sent_messages(), 1);
    }

    #[test]
    fn so_many_wait_for_an_acknowledgement_and_no_more() {
        let mut bench = Bench::new(Framing::Newline);
        (0..1000).for_each(|n| bench.log.warning(format_args!("{n}")));
        let taken = numbers(&bench.connection(usize::MAX, usize::MAX, SECOND_NS));
        assert_eq!(taken.len(), MAX_UNACKNOWLEDGED);
        assert!(bench.stream.has_more(), "the next connection is offered them");
        assert_eq!(bench.stream.queue.dropped(), 0);
    }

    proptest! {
        /// Whatever becomes of connections, each message arrives, the first copies in order.
        #[test]
        fn no_message_is_lost_or_overtaken(
            connections in prop::collection::vec((0_usize..200, 0_usize..200, 0..2 * SECOND_NS, 0_usize..5), 1..20),
            counted: bool,
        ) {
            let framing = if counted { Framing::OctetCounting } else { Framing::Newline };
            let mut bench = Bench::new(framing);
            let (mut logged, mut seen) = (0, 0);
            for (most, lost, life_ns, more) in connections {
                for _ in 0..more {
                    bench.log.warning(format_args!("{logged}"));
                    logged += 1;
                }
                // Bytes that are not acknowledged may be lost.
                let mut taken = bench.connection(most, lost, life_ns);
                taken.truncate(taken.len().saturating_sub(lost));
                for number in numbers(&taken) {
                    prop_assert!(number <= seen, "{number} before {seen}");
                    seen = seen.max(number + 1);
                }
            }
            for number in numbers(&bench.connection(usize::MAX, 0, SECOND_NS)) {
                prop_assert!(number <= seen, "{}", format!("{number} before {seen}"));
                seen = seen.max(number + 1);
            }
            prop_assert_eq!(seen, logged);
            prop_assert!(bench.stream.is_idle());
        }
    }
}
