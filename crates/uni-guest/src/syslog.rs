//! A bounded queue of syslog datagrams.
//!
//! Owns the messages that wait for the network. Never sends; a driver takes them one by one.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

use uni_wire::Timestamp;
use uni_wire::control::LogLevel;
use uni_wire::syslog::{Facility, Message, Severity};
pub use uni_wire::syslog::{Format, Framing, MAX_MESSAGE_BYTES};

use crate::logs::Record;

/// Messages that may wait by default: what a guest says in its first moments, before the network is up.
pub const DEFAULT_QUEUE_MESSAGES: usize = 64;

/// Clones are the same queue. A message that finds it full is dropped and counted: what began an outage is worth
/// more than its echo.
#[derive(Clone, Debug)]
pub struct SyslogQueue(Rc<RefCell<Inner>>);

#[derive(Debug)]
struct Inner {
    host: String,
    format: Format,
    waiting: VecDeque<Box<[u8]>>,
    limit: usize,
    dropped: u64,
}

impl SyslogQueue {
    /// A queue of at most `limit` messages from `host`.
    #[must_use]
    pub fn new(host: &str, limit: usize) -> Self {
        let format = Format::default();
        let inner = Inner { host: host.into(), format, waiting: VecDeque::new(), limit, dropped: 0 };
        Self(Rc::new(RefCell::new(inner)))
    }

    /// Writes messages in `format` from now on.
    pub fn set_format(&self, format: Format) {
        if let Ok(mut inner) = self.0.try_borrow_mut() {
            inner.format = format;
        }
    }

    /// A sink for [`Logs::add_sink`](crate::Logs::add_sink). `clock` tells seconds since the Unix epoch. What
    /// [`SinkWatch`](crate::SinkWatch) warns of is left out: a dead syslog sink must not cause more for itself.
    pub fn sink<C: Fn() -> i64 + 'static>(&self, clock: C) -> impl FnMut(&Record<'_>) + use<C> {
        let queue = self.clone();
        move |record| {
            if record.source != crate::sink::SOURCE || record.level != LogLevel::Warning {
                queue.push(record, clock());
            }
        }
    }

    /// Puts a message into the queue.
    pub fn push(&self, record: &Record<'_>, unix_seconds: i64) {
        let Ok(mut inner) = self.0.try_borrow_mut() else { return };
        let has_room = inner.waiting.len() < inner.limit;
        let datagram = if has_room { inner.render(record, unix_seconds) } else { None };
        match datagram {
            Some(datagram) if inner.waiting.try_reserve(1).is_ok() => inner.waiting.push_back(datagram),
            _ => inner.dropped += 1,
        }
    }

    /// Offers the oldest message to `send`; it leaves the queue if `send` says that it took it. Returns whether
    /// it did, so that a caller can go on until the network is full or the queue empty.
    pub fn send_one(&self, send: impl FnOnce(&[u8]) -> bool) -> bool {
        let Some(datagram) = self.take() else { return false };
        let sent = send(&datagram);
        if !sent && let Ok(mut inner) = self.0.try_borrow_mut() {
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
        self.0.try_borrow_mut().ok()?.waiting.pop_front()
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
    fn render(&self, record: &Record<'_>, unix_seconds: i64) -> Option<Box<[u8]>> {
        let message = Message {
            facility: Facility::Daemon,
            severity: severity(record.level),
            time: Timestamp::from_seconds(unix_seconds),
            host: Some(&self.host),
            tag: record.source,
            header: None,
            tags: &[],
            text: record.message,
        };
        let mut space = [0; MAX_MESSAGE_BYTES];
        let len = message.emit(self.format, &mut space);
        let mut datagram = Vec::new();
        datagram.try_reserve_exact(len).ok()?;
        datagram.extend_from_slice(space.get(..len)?);
        Some(datagram.into_boxed_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Logs;

    #[test]
    fn messages_leave_in_order_and_only_when_taken() {
        let logs = Logs::default();
        let queue = SyslogQueue::new("web", 2);
        logs.add_sink(queue.sink(|| 0));
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
        logs.add_sink(queue.sink(|| 0));
        let log = logs.source("dns", "");
        queue.set_format(Format::Rfc5424);
        log.info(format_args!("a"));
        queue.set_format(Format::Mirage);
        log.info(format_args!("b"));
        assert!(queue.send_one(|d| d == b"<30>1 1970-01-01T00:00:00Z web dns - - - a"));
        assert!(queue.send_one(|d| d == b"<30>Jan 01 00:00:00 web dns b"));
    }

    #[test]
    fn a_warning_of_a_dead_sink_is_not_sent_to_it() {
        let logs = Logs::default();
        let queue = SyslogQueue::new("web", 2);
        logs.add_sink(queue.sink(|| 0));
        let log = logs.source(crate::sink::SOURCE, "");
        log.warning(format_args!("dead"));
        assert!(queue.is_empty());
        log.info(format_args!("back"));
        assert!(queue.send_one(|d| d.ends_with(b"syslog: back")));
    }
}
