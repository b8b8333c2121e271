//! Influx line protocol: `MEASUREMENT[,TAG=VALUE...] FIELD=VALUE[,...] [TIME]`.
//!
//! Owns the syntax both ways: [`parse_line`] with InfluxDB 1.x's rules and words, [`next_line`] and `LineBuffer`
//! that cut bytes into lines, and two writers: [`LineWriter`] for lines that every reader accepts and
//! [`write_mirage_line`] for those MirageOS writes. Never stores points and never reads a clock: the time of an
//! unstamped line is the caller's.
//!
//! Rules taken from what InfluxDB 1.x was seen to do:
//! - In names a backslash escapes a following `,`, space or `=`; before anything else it is itself. So a name
//!   cannot end in a backslash, and two backslashes before a separator still escape it.
//! - In quoted strings `\"` and `\\` are escapes, and a newline is text.
//! - A number starts with a digit, `.` or `-`. `nan`, `inf` and `+1` are refused.
//!
//! Two deliberate differences: unsigned values (`5u`) are always understood (InfluxDB 1.x only in a special
//! build), and text that is not UTF-8 is refused.

mod emit;
mod error;
mod mirage;
mod parse;
#[cfg(feature = "alloc")]
mod point;
mod quick;
mod split;
#[cfg(feature = "alloc")]
mod stream;
mod text;

pub use emit::{Framing, LineWriter};
pub use error::{LineError, LineErrorKind, Reason};
pub use mirage::{MirageValue, write_mirage_line};
pub use parse::{Field, Fields, Line, MAX_TAGS, RawValue, Tags, parse_line, parse_line_with};
#[cfg(feature = "alloc")]
pub use point::{Point, Tag, parse_point};
pub use quick::{
    Decimal, quick_boolean, quick_float, quick_integer, quick_text, quick_unsigned, quick_whole,
};
pub use split::{Lines, lines, next_line};
#[cfg(feature = "alloc")]
pub use stream::{DEFAULT_LINE_LIMIT_BYTES, LineBuffer};
pub use text::{Text, Unescaped};

use crate::Timestamp;

/// How forgiving the parser is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// As InfluxDB 1.x: used for HTTP writes, so that a client sees the same errors.
    #[default]
    Strict,
    /// For the stream of a guest: a carriage return at the end is taken off, and `name, field=1i` (a comma
    /// and no tags, as MirageOS writes a source without tags) is a line without tags.
    Lenient,
}

/// The unit of the time stamps in a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// `n`, `ns` and every unknown word.
    #[default]
    Nanoseconds,
    /// `u`.
    Microseconds,
    /// `ms`.
    Milliseconds,
    /// `s`.
    Seconds,
    /// `m`.
    Minutes,
    /// `h`.
    Hours,
    /// Seconds, milliseconds, microseconds or nanoseconds, by the size of each stamp: up to 5 000 000 000 is seconds
    /// (until 2128), and each further unit is a thousand times that. As InfluxDB 3 guesses.
    Guessed,
}

impl Precision {
    /// The meaning of `precision=` in a write request, as InfluxDB 1.x takes it: unknown words (`us` among
    /// them) are nanoseconds.
    #[must_use]
    pub fn from_query(word: &str) -> Self {
        match word {
            "u" => Self::Microseconds,
            "ms" => Self::Milliseconds,
            "s" => Self::Seconds,
            "m" => Self::Minutes,
            "h" => Self::Hours,
            _ => Self::Nanoseconds,
        }
    }

    /// Nanoseconds in the unit of `stamp`.
    const fn nanos(self, stamp: i64) -> i64 {
        match self {
            Self::Guessed => guessed_nanos(stamp.unsigned_abs()),
            Self::Nanoseconds => 1,
            Self::Microseconds => 1_000,
            Self::Milliseconds => 1_000_000,
            Self::Seconds => 1_000_000_000,
            Self::Minutes => 60_000_000_000,
            Self::Hours => 3_600_000_000_000,
        }
    }

    /// The instant that `stamp` units since the Unix epoch name; `None` outside the range of [`Timestamp`].
    #[must_use]
    pub const fn to_timestamp(self, stamp: i64) -> Option<Timestamp> {
        match stamp.checked_mul(self.nanos(stamp)) {
            Some(nanos) => Some(Timestamp(nanos)),
            None => None,
        }
    }
}

/// Nanoseconds in the unit that a stamp of this size is likely in.
const fn guessed_nanos(size: u64) -> i64 {
    if size < 5_000_000_000 {
        1_000_000_000
    } else if size < 5_000_000_000_000 {
        1_000_000
    } else if size < 5_000_000_000_000_000 {
        1_000
    } else {
        1
    }
}
