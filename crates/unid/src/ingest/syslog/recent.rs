//! The messages that came last, in the order of their arrival, for who follows them.
//!
//! The store orders messages by the time they carry, and a message may carry an earlier time than one that came before
//! it: who asked the store only for what is newer would miss it. Owns a bounded list; who comes too late is told how many
//! are gone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use uni_store::LogEntry;

use crate::clock;

/// Messages kept, and bytes of their texts.
const MAX_MESSAGES: usize = 4096;
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// The newest messages of all VMs.
#[derive(Debug)]
pub(crate) struct Recent(Mutex<Kept>);

#[derive(Debug)]
struct Kept {
    messages: VecDeque<Arc<LogEntry>>,
    bytes: usize,
    /// The number of the first one kept.
    first: u64,
    /// The number of the first one there was.
    start: u64,
}

impl Default for Recent {
    fn default() -> Self {
        // no number of an earlier daemon is used again
        let start = u64::try_from(clock::now().nanos()).unwrap_or(0);
        Self(Mutex::new(Kept { messages: VecDeque::new(), bytes: 0, first: start, start }))
    }
}

impl Recent {
    /// Adds messages that the store has.
    pub(super) fn push(&self, entries: Vec<LogEntry>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            kept.bytes += bytes(&entry);
            kept.messages.push_back(Arc::new(entry));
            while kept.messages.len() > MAX_MESSAGES || kept.bytes > MAX_BYTES {
                let Some(gone) = kept.messages.pop_front() else { break };
                kept.bytes -= bytes(&gone);
                kept.first += 1;
            }
        }
    }

    /// The number that the next message will have.
    pub(crate) fn next(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next()
    }

    /// The messages from number `from` on, the number of the next one, and how many between are no longer kept.
    pub(crate) fn from(&self, from: u64) -> (Vec<Arc<LogEntry>>, u64, u64) {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // a number from before the start is from an earlier daemon, which told all it had
        let missed = kept.first.saturating_sub(from.max(kept.start));
        let skipped = usize::try_from(from.saturating_sub(kept.first)).unwrap_or(usize::MAX);
        (kept.messages.iter().skip(skipped).cloned().collect(), kept.next(), missed)
    }
}

impl Kept {
    fn next(&self) -> u64 {
        self.first + self.messages.len() as u64
    }
}

fn bytes(entry: &LogEntry) -> usize {
    [&entry.text, &entry.data, &entry.process, &entry.id, &entry.host].iter().map(|text| text.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> LogEntry {
        LogEntry { text: text.into(), ..LogEntry::default() }
    }

    #[test]
    fn who_comes_late_is_told_how_many_are_gone() {
        let recent = Recent::default();
        let start = recent.next();
        recent.push((0..MAX_MESSAGES + 10).map(|n| entry(&n.to_string())).collect());
        let (messages, next, missed) = recent.from(start);
        assert_eq!((messages.len(), missed), (MAX_MESSAGES, 10));
        assert_eq!(*messages[0], entry("10"));
        assert_eq!(recent.from(next), (Vec::new(), next, 0));
        assert_eq!(recent.from(next - 1).0.len(), 1);
        assert_eq!(recent.from(next + 5), (Vec::new(), next, 0));
        assert_eq!(recent.from(5).2, 10, "an earlier daemon's number");
    }

    #[test]
    fn long_messages_are_fewer() {
        let recent = Recent::default();
        recent.push((0..9).map(|_| entry(&"x".repeat(MAX_BYTES / 4))).collect());
        assert_eq!(recent.from(0).0.len(), 4);
    }
}
