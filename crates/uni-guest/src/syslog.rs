//! A bounded queue of syslog datagrams.
//!
//! Owns the messages that wait for the network, and where they are cut. Never sends; a driver takes them one by one.
//!
//! Limits: a number of messages, and [`MAX_MESSAGE_BYTES`] times as many bytes for all of them together, however long
//! one may be.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;

pub use uni_wire::Timestamp;
use uni_wire::control::LogLevel;
use uni_wire::syslog::{Facility, Message, Severity};
pub use uni_wire::syslog::{Format, Framing, MAX_MESSAGE_BYTES};

use crate::logs::Record;

/// Messages that may wait by default: what a guest says in its first moments, before the network is up.
pub const DEFAULT_QUEUE_MESSAGES: usize = 64;

/// Where messages on a connection are cut by default: what receivers take, `unid` and rsyslog among them. In bytes.
pub const DEFAULT_STREAM_MESSAGE_BYTES: usize = 8192;

/// Clones are the same queue. A message that finds it full is dropped and counted: what began an outage is worth
/// more than its echo.
#[derive(Clone, Debug)]
pub struct SyslogQueue(Rc<RefCell<Inner>>);

#[derive(Debug)]
struct Inner {
    host: String,
    format: Format,
    waiting: VecDeque<Box<[u8]>>,
    waiting_bytes: usize,
    limit: usize,
    /// Of one message; 0: none but that of the queue.
    truncate_bytes: usize,
    dropped: u64,
}

impl SyslogQueue {
    /// A queue of at most `limit` messages from `host`.
    #[must_use]
    pub fn new(host: &str, limit: usize) -> Self {
        let format = Format::default();
        let inner = Inner {
            host: host.into(),
            format,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            limit,
            truncate_bytes: MAX_MESSAGE_BYTES,
            dropped: 0,
        };
        Self(Rc::new(RefCell::new(inner)))
    }

    /// Writes messages in `format` from now on.
    pub fn set_format(&self, format: Format) {
        if let Ok(mut inner) = self.0.try_borrow_mut() {
            inner.format = format;
        }
    }

    /// Cuts messages after so many bytes from now on, between two characters; 0: after as many as the whole queue takes.
    pub fn set_truncation(&self, bytes: usize) {
        if let Ok(mut inner) = self.0.try_borrow_mut() {
            inner.truncate_bytes = bytes;
        }
    }

    /// A sink for [`Logs::add_sink`](crate::Logs::add_sink). `clock` tells the time. What
    /// [`SinkWatch`](crate::SinkWatch) warns of is left out: a dead syslog sink must not cause more for itself.
    pub fn sink<C: Fn() -> Timestamp + 'static>(&self, clock: C) -> impl FnMut(&Record<'_>) + use<C> {
        let queue = self.clone();
        move |record| {
            if record.source != crate::sink::SOURCE || record.level != LogLevel::Warning {
                queue.push(record, clock());
            }
        }
    }

    /// Puts a message into the queue.
    pub fn push(&self, record: &Record<'_>, time: Timestamp) {
        let Ok(mut inner) = self.0.try_borrow_mut() else { return };
        let has_room = inner.waiting.len() < inner.limit;
        let datagram = if has_room { inner.render(record, time) } else { None };
        match datagram {
            Some(datagram)
                if inner.waiting_bytes + datagram.len() <= inner.max_bytes()
                    && inner.waiting.try_reserve(1).is_ok() =>
            {
                inner.waiting_bytes += datagram.len();
                inner.waiting.push_back(datagram);
            }
            _ => inner.dropped += 1,
        }
    }

    /// Offers the oldest message to `send`; it leaves the queue if `send` says that it took it. Returns whether
    /// it did, so that a caller can go on until the network is full or the queue empty.
    pub fn send_one(&self, send: impl FnOnce(&[u8]) -> bool) -> bool {
        let Some(datagram) = self.take() else { return false };
        let sent = send(&datagram);
        if !sent && let Ok(mut inner) = self.0.try_borrow_mut() {
            inner.waiting_bytes += datagram.len();
            inner.waiting.push_front(datagram);
        }
        sent
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.borrow().waiting.is_empty()
    }

    /// Messages that found the queue full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.borrow().dropped
    }

    fn take(&self) -> Option<Box<[u8]>> {
        let mut inner = self.0.try_borrow_mut().ok()?;
        let datagram = inner.waiting.pop_front()?;
        inner.waiting_bytes -= datagram.len();
        Some(datagram)
    }
}

/// The severities of MirageOS's syslog reporter.
const fn severity(level: LogLevel) -> Severity {
    match level {
        LogLevel::Error => Severity::Error,
        LogLevel::Warning => Severity::Warning,
        LogLevel::Quiet | LogLevel::App | LogLevel::Info => Severity::Informational,
        LogLevel::Debug => Severity::Debug,
    }
}

impl Inner {
    const fn max_bytes(&self) -> usize {
        self.limit.saturating_mul(MAX_MESSAGE_BYTES)
    }

    fn render(&self, record: &Record<'_>, time: Timestamp) -> Option<Box<[u8]>> {
        let message = Message {
            facility: Facility::Daemon,
            severity: severity(record.level),
            time,
            host: Some(&self.host),
            tag: record.source,
            header: None,
            tags: &[],
            text: record.message,
        };
        let limit = match self.truncate_bytes {
            0 => self.max_bytes(),
            bytes => bytes.min(self.max_bytes()),
        };
        let mut datagram = Growing(Vec::new());
        message.write(self.format, limit, &mut datagram).ok()?;
        Some(datagram.0.into_boxed_slice())
    }
}

/// A text that may find no memory.
struct Growing(Vec<u8>);

impl fmt::Write for Growing {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.try_reserve(text.len()).map_err(|_| fmt::Error)?;
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Logs;

    fn epoch() -> Timestamp {
        Timestamp::from_seconds(0)
    }

    #[test]
    fn messages_leave_in_order_and_only_when_taken() {
        let logs = Logs::default();
        let queue = SyslogQueue::new("web", 2);
        logs.add_sink(queue.sink(epoch));
        let log = logs.source("dns", "");
        ["a", "b", "c"].iter().for_each(|text| log.error(format_args!("{text}")));
        assert_eq!(queue.dropped(), 1);
        assert!(!queue.send_one(|_| false));
        assert!(queue.send_one(|d| d == b"<27>Jan  1 00:00:00 web dns: a"));
        assert!(queue.send_one(|d| d.ends_with(b"b")));
        assert!(!queue.send_one(|_| true));
        assert!(queue.is_empty());
    }

    #[test]
    fn messages_are_written_in_the_format_that_was_set() {
        let logs = Logs::default();
        let queue = SyslogQueue::new("web", 2);
        logs.add_sink(queue.sink(epoch));
        let log = logs.source("dns", "");
        queue.set_format(Format::Rfc5424);
        log.info(format_args!("a"));
        queue.set_format(Format::Mirage);
        log.info(format_args!("b"));
        assert!(queue.send_one(|d| d == b"<30>1 1970-01-01T00:00:00Z web dns - - - a"));
        assert!(queue.send_one(|d| d == b"<30>Jan 01 00:00:00 web dns b"));
    }

    #[test]
    fn messages_are_cut_where_it_was_said_and_bounded_together() {
        let logs = Logs::default();
        let queue = SyslogQueue::new("web", 4);
        logs.add_sink(queue.sink(epoch));
        let log = logs.source("dns", "");
        let text = "x".repeat(3000);
        for (truncate, bytes) in [(1024, 1024), (26, 26), (2000, 2000), (0, 3029), (9000, 3029)] {
            queue.set_truncation(truncate);
            log.info(format_args!("{text}"));
            assert!(queue.send_one(|d| d.len() == bytes), "{truncate}");
        }
        queue.set_truncation(0);
        log.info(format_args!("{text}{text}"));
        log.info(format_args!("no room is left"));
        assert_eq!(queue.dropped(), 1);
        assert!(queue.send_one(|d| d.len() == 4096));
        log.info(format_args!("now there is"));
        assert!(queue.send_one(|d| d.ends_with(b"there is")));
    }

    #[test]
    fn rfc_5424_tells_microseconds() {
        let logs = Logs::default();
        let queue = SyslogQueue::new("web", 1);
        logs.add_sink(queue.sink(|| Timestamp(1_250_009_999)));
        queue.set_format(Format::Rfc5424);
        logs.source("dns", "").info(format_args!("a"));
        assert!(queue.send_one(|d| d.starts_with(b"<30>1 1970-01-01T00:00:01.250009Z web ")));
    }

    #[test]
    fn a_warning_of_a_dead_sink_is_not_sent_to_it() {
        let logs = Logs::default();
        let queue = SyslogQueue::new("web", 2);
        logs.add_sink(queue.sink(epoch));
        let log = logs.source(crate::sink::SOURCE, "");
        log.warning(format_args!("dead"));
        assert!(queue.is_empty());
        log.info(format_args!("back"));
        assert!(queue.send_one(|d| d.ends_with(b"syslog: back")));
    }
}
