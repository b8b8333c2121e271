//! Syslog in: messages of RFC 3164 and RFC 5424 from VMs' own links and from the listeners (port 5514 by default).
//!
//! Owns whose messages they are, their limits and the listeners. What a message holds is [`mod@entry`]'s business. What a
//! message says of its sender is believed only where nobody knows better.

mod entry;
mod listen;
mod recent;

pub(crate) use self::listen::{Way, serve_tcp, serve_udp};
pub(crate) use self::recent::Recent;

use std::sync::atomic::Ordering::Relaxed;

use uni_store::LogEntry;
use uni_wire::syslog::{DEFAULT_FRAME_LIMIT_BYTES as MAX_MESSAGE_BYTES, Deframer};

use super::{Ingest, Origin};
use crate::clock;

/// Who sends.
#[derive(Clone, Copy)]
pub(crate) struct Sender<'a> {
    origin: Origin<'a>,
    /// Whether a VM of this name is run here.
    is_vm: &'a (dyn Fn(&str) -> bool + Send + Sync),
    /// The program stands before the text without a colon, as MirageOS writes it.
    bare_tag: bool,
}

impl<'a> Sender<'a> {
    /// The VM of that name, over its own link.
    pub(crate) fn link(vm: &'a str) -> Self {
        Self { origin: Origin::Vm(vm), is_vm: &|_| false, bare_tag: true }
    }
}

/// Stores one datagram, which is one message.
pub(crate) fn accept(ingest: &Ingest, sender: Sender<'_>, datagram: &[u8]) {
    let mut batch = Batch::new(ingest, sender);
    batch.datagram(datagram);
    batch.store();
}

/// Messages on their way into the store.
struct Batch<'a> {
    ingest: &'a Ingest,
    sender: Sender<'a>,
    entries: Vec<LogEntry>,
}

impl<'a> Batch<'a> {
    fn new(ingest: &'a Ingest, sender: Sender<'a>) -> Self {
        Self { ingest, sender, entries: Vec::new() }
    }

    fn datagram(&mut self, datagram: &[u8]) {
        let datagram = datagram.trim_ascii_end();
        let kept = datagram.get(..MAX_MESSAGE_BYTES).unwrap_or(datagram);
        if kept.len() < datagram.len() {
            truncated(self.ingest, self.sender.origin, 1);
        }
        if !kept.is_empty() {
            self.message(kept);
        }
    }

    fn message(&mut self, message: &[u8]) {
        let counters = &self.ingest.counters;
        let number = counters.syslog_messages.fetch_add(1, Relaxed);
        let (mut entry, claimed) = entry::entry(message, clock::now(), number, self.sender.bare_tag);
        let claimed = claimed.as_deref();
        // a VM that is run here has a link of its own: what comes another way is not its word
        let (owner, is_false) = match self.sender.origin {
            Origin::Vm(name) => (Some(name), claimed.is_some_and(|claimed| claimed != name)),
            Origin::Peer(_) if claimed.is_some_and(self.sender.is_vm) => (None, true),
            Origin::Peer(_) => (claimed, false),
        };
        entry.vm = owner.unwrap_or_default().into();
        counters.renamed_points.fetch_add(is_false.into(), Relaxed);
        self.entries.push(entry);
    }

    fn store(self) {
        if let Some(kept) = self.ingest.append_logs(self.sender.origin, self.entries) {
            self.ingest.recent_messages.push(kept);
        }
    }
}

fn truncated(ingest: &Ingest, origin: Origin<'_>, messages: u64) {
    ingest.counters.syslog_truncated.fetch_add(messages, Relaxed);
    ingest
        .complain(origin, &format!("a syslog message longer than {MAX_MESSAGE_BYTES} bytes, or broken off"));
}

/// The messages of one connection, framed in either way of RFC 6587 or by NUL bytes.
#[derive(Debug)]
pub(crate) struct MessageStream {
    deframer: Deframer,
    truncated: u64,
}

impl Default for MessageStream {
    fn default() -> Self {
        Self { deframer: Deframer::new(MAX_MESSAGE_BYTES), truncated: 0 }
    }
}

impl MessageStream {
    /// Takes bytes as they came; the messages they complete are stored together.
    pub(crate) fn feed(&mut self, ingest: &Ingest, sender: Sender<'_>, bytes: &[u8]) {
        let mut batch = Batch::new(ingest, sender);
        self.deframer.feed(bytes, |message| batch.message(message));
        batch.store();
        self.count_truncated(ingest, sender);
    }

    /// The connection ended: what is left is the last message.
    pub(crate) fn finish(&mut self, ingest: &Ingest, sender: Sender<'_>) {
        let mut batch = Batch::new(ingest, sender);
        self.deframer.finish(|message| batch.message(message));
        batch.store();
        self.count_truncated(ingest, sender);
    }

    fn count_truncated(&mut self, ingest: &Ingest, sender: Sender<'_>) {
        let now = self.deframer.cut_messages();
        if now > self.truncated {
            truncated(ingest, sender.origin, now - self.truncated);
            self.truncated = now;
        }
    }
}
