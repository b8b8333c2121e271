//! Why a line was refused, and where: InfluxDB's words and a byte position.
//!
//! Owns the wording. Never holds text of the line itself; [`LineError::reason`] borrows it when it is printed.

use core::fmt;

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineErrorKind {
    /// The line starts with a comma, or is empty.
    MissingMeasurement,
    /// Nothing follows the measurement and the tags.
    MissingFields,
    /// `,=value` or `, ` among the tags.
    MissingTagKey,
    /// `,key` or `,key=` among the tags.
    MissingTagValue,
    /// A bare `=` in a tag's value.
    InvalidTagFormat,
    /// Two tags of one key.
    DuplicateTags,
    /// More tags than [`MAX_TAGS`](super::MAX_TAGS).
    TooManyTags,
    /// `=value` among the fields.
    MissingFieldKey,
    /// `key=` among the fields.
    MissingFieldValue,
    /// The fields are not `key=value` pairs joined by commas.
    InvalidFieldFormat,
    /// A value that starts as a number and is none.
    InvalidNumber,
    /// A float beyond the range of binary64.
    InvalidFloat,
    /// An integer beyond 64 bits; the position is that of its first digit or sign.
    IntegerRange,
    /// A value that is no number, no string and no boolean.
    InvalidBoolean,
    /// A string without its closing quote.
    UnbalancedQuotes,
    /// The time stamp is not a whole number.
    BadTimestamp,
    /// The time stamp lies outside the years 1677 to 2262.
    TimestampRange,
    /// Something follows the time stamp.
    TrailingText,
    /// The line is not UTF-8.
    NotUtf8,
    /// A tag is called `time`.
    TimeTag,
    /// The only field is called `time`.
    TimeField,
}

impl LineErrorKind {
    /// InfluxDB's words for the fault, where it has some.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::MissingMeasurement => "missing measurement",
            Self::MissingFields => "missing fields",
            Self::MissingTagKey => "missing tag key",
            Self::MissingTagValue => "missing tag value",
            Self::InvalidTagFormat => "invalid tag format",
            Self::DuplicateTags => "duplicate tags",
            Self::TooManyTags => "too many tags",
            Self::MissingFieldKey => "missing field key",
            Self::MissingFieldValue => "missing field value",
            Self::InvalidFieldFormat => "invalid field format",
            Self::InvalidNumber => "invalid number",
            Self::InvalidFloat => "invalid float",
            Self::IntegerRange => "unable to parse integer: value out of range",
            Self::InvalidBoolean => "invalid boolean",
            Self::UnbalancedQuotes => "unbalanced quotes",
            Self::BadTimestamp => "bad timestamp",
            Self::TimestampRange => "time outside range -9223372036854775806 - 9223372036854775806",
            Self::TrailingText => "point is invalid",
            Self::NotUtf8 => "invalid UTF-8",
            Self::TimeTag => "invalid tag key: input tag \"time\" is invalid",
            Self::TimeField => "invalid field name: input field \"time\" is invalid",
        }
    }
}

/// A refused line. `Display` gives InfluxDB's words and the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineError {
    /// What is wrong.
    pub kind: LineErrorKind,
    /// Where, in bytes from the start of what was handed to the parser.
    pub position: usize,
}

impl LineError {
    pub(crate) const fn new(kind: LineErrorKind, position: usize) -> Self {
        Self { kind, position }
    }

    /// The reason exactly as InfluxDB words it, without a position; `line` is what was handed to the parser.
    #[must_use]
    pub const fn reason<'a>(&self, line: &'a [u8]) -> Reason<'a> {
        Reason { error: *self, line }
    }
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.kind.words(), self.position)
    }
}

impl core::error::Error for LineError {}

/// Prints InfluxDB's reason for a refused line. See [`LineError::reason`].
#[derive(Clone, Copy, Debug)]
pub struct Reason<'a> {
    error: LineError,
    line: &'a [u8],
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.error.kind {
            LineErrorKind::IntegerRange => {
                let number = integer_at(self.line, self.error.position);
                write!(
                    f,
                    "unable to parse integer {number}: strconv.ParseInt: parsing \"{number}\": value out of range"
                )
            }
            kind => f.write_str(kind.words()),
        }
    }
}

/// The digits (with sign) that start at `position`.
fn integer_at(line: &[u8], position: usize) -> &str {
    let rest = line.get(position..).unwrap_or_default();
    let len = rest.iter().position(|b| !b.is_ascii_digit() && *b != b'-').unwrap_or(rest.len());
    core::str::from_utf8(rest.get(..len).unwrap_or_default()).unwrap_or_default()
}
