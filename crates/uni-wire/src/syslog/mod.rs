//! Syslog: messages in the shapes of RFC 3164 and RFC 5424, written, read, and framed on streams (RFC 6587).
//!
//! Owns the formats: [`Message`] writes one, `parse` reads whatever devices send, `Deframer` cuts a stream into
//! messages. Never sends, receives or reads a clock: the year of a date without one comes from the caller's time.

mod emit;
#[cfg(feature = "alloc")]
mod frame;
#[cfg(feature = "alloc")]
mod parse;

pub use emit::{Format, MAX_HOST_CHARS, MAX_MESSAGE_BYTES, MAX_TAG_CHARS, Message};
#[cfg(feature = "alloc")]
pub use frame::{DEFAULT_FRAME_LIMIT_BYTES, Deframer, Framing, write_frame};
#[cfg(feature = "alloc")]
pub use parse::{Context, Element, Parsed, parse};

/// What part of a system speaks (RFC 3164, table 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the RFC's own names say it all")]
#[repr(u8)]
pub enum Facility {
    Kern = 0,
    User = 1,
    Mail = 2,
    Daemon = 3,
    Auth = 4,
    Syslog = 5,
    Lpr = 6,
    News = 7,
    Uucp = 8,
    Clock = 9,
    AuthPriv = 10,
    Ftp = 11,
    Ntp = 12,
    LogAudit = 13,
    LogAlert = 14,
    ClockDaemon = 15,
    Local0 = 16,
    Local1 = 17,
    Local2 = 18,
    Local3 = 19,
    Local4 = 20,
    Local5 = 21,
    Local6 = 22,
    Local7 = 23,
}

impl Facility {
    /// All facilities, in the order of their codes.
    pub const ALL: [Self; 24] = [
        Self::Kern,
        Self::User,
        Self::Mail,
        Self::Daemon,
        Self::Auth,
        Self::Syslog,
        Self::Lpr,
        Self::News,
        Self::Uucp,
        Self::Clock,
        Self::AuthPriv,
        Self::Ftp,
        Self::Ntp,
        Self::LogAudit,
        Self::LogAlert,
        Self::ClockDaemon,
        Self::Local0,
        Self::Local1,
        Self::Local2,
        Self::Local3,
        Self::Local4,
        Self::Local5,
        Self::Local6,
        Self::Local7,
    ];

    /// The facility of a code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// How bad it is (RFC 3164, table 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the RFC's own names say it all")]
#[repr(u8)]
pub enum Severity {
    Emergency = 0,
    Alert = 1,
    Critical = 2,
    Error = 3,
    Warning = 4,
    Notice = 5,
    Informational = 6,
    Debug = 7,
}

impl Severity {
    /// All severities, in the order of their codes.
    pub const ALL: [Self; 8] = [
        Self::Emergency,
        Self::Alert,
        Self::Critical,
        Self::Error,
        Self::Warning,
        Self::Notice,
        Self::Informational,
        Self::Debug,
    ];

    /// The severity of a code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}
