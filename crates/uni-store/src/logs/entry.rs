//! One message or event as it is put in and handed out, and what may be put in.
//!
//! Owns the limits of an entry. Never knows how it is kept.

use crate::logs::filter;
use uni_wire::Timestamp;

/// Most bytes of a text. Syslog's 8 KiB may grow fourfold where bytes that are no UTF-8 are written out.
pub const MAX_TEXT_BYTES: usize = 64 << 10;
/// Most bytes of each other part of an entry.
pub const MAX_PART_BYTES: usize = 64 << 10;
/// Most bytes of a VM's, a program's or a host's name.
pub const MAX_NAME_BYTES: usize = 1 << 10;
/// Most VMs, programs and severities that have entries, as combinations: of one VM, and of all.
pub(crate) const MAX_SERIES_OF_VM: usize = 4_096;
/// See [`MAX_SERIES_OF_VM`].
pub(crate) const MAX_SERIES: usize = 100_000;

/// What an entry is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogKind {
    /// A line that a program wrote.
    #[default]
    Message,
    /// Something that happened to a VM.
    Event,
}

/// A message or an event. Parts that it does not have are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogEntry {
    /// When, as everything is ordered by it.
    pub time: Timestamp,
    /// Whose it is; empty if nobody's.
    pub vm: Box<str>,
    /// What it is.
    pub kind: LogKind,
    /// How bad, as syslog counts: 0 (emergency) to 7 (debugging).
    pub severity: u8,
    /// Syslog's facility, 0 to 23.
    pub facility: u8,
    /// The program.
    pub app: Box<str>,
    /// The host that it names.
    pub host: Box<str>,
    /// The time that it carries, where that is known.
    pub own_time: Option<Timestamp>,
    /// The program's process.
    pub process: Box<str>,
    /// What kind of message it is; of an event, its name.
    pub id: Box<str>,
    /// Structured data as RFC 5424 writes it.
    pub data: Box<str>,
    /// The text.
    pub text: Box<str>,
}

impl LogEntry {
    /// Whether the text has all of these words, as [`crate::LogSearch::words`] means it.
    pub fn has_words(&self, words: &str) -> bool {
        let is_there =
            |word: &[u8]| filter::words(self.text.as_bytes()).any(|has| has.eq_ignore_ascii_case(word));
        filter::words(words.as_bytes()).all(is_there)
    }

    /// Why the entry cannot be kept.
    pub(crate) fn fault(&self) -> Option<LogRefusal> {
        let long = |text: &str, max: usize| text.len() > max;
        let names = [&self.vm, &self.app, &self.host];
        let parts = [&self.process, &self.id, &self.data];
        if long(&self.text, MAX_TEXT_BYTES)
            || names.into_iter().any(|name| long(name, MAX_NAME_BYTES))
            || parts.into_iter().any(|part| long(part, MAX_PART_BYTES))
        {
            return Some(LogRefusal::TooLong);
        }
        (self.severity > 7 || self.facility > 23).then_some(LogRefusal::OutOfRange)
    }
}

/// Why an entry was refused; the others of its batch are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogRefusal {
    /// A text is longer than [`MAX_TEXT_BYTES`], a name longer than [`MAX_NAME_BYTES`], another part longer than
    /// [`MAX_PART_BYTES`].
    #[error("a text of more than {MAX_TEXT_BYTES} bytes, or a name of more than {MAX_NAME_BYTES}")]
    TooLong,
    /// A severity above 7 or a facility above 23.
    #[error("a severity above 7 or a facility above 23")]
    OutOfRange,
    /// Too many different programs and severities.
    #[error("limit of {MAX_SERIES_OF_VM} programs and severities of one VM ({MAX_SERIES} of all) reached")]
    SeriesLimit,
}
