//! Errors: of the text as a whole ([`ParseError`]) and of one statement (`RunError`).
//!
//! Owns their words, which follow InfluxDB's where it has some. Never decides what happens after an error.

use crate::source::SourceError;

/// The text is not InfluxQL, or longer or deeper than allowed. Nothing was executed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A token stands where another has to.
    #[error("error parsing query: found {found}, expected {expected} at line {line}, char {char}")]
    Found {
        /// The token as written, shortened.
        found: String,
        /// What could have stood there.
        expected: String,
        /// From 1.
        line: usize,
        /// In characters, from 1.
        char: usize,
    },
    /// A token is ill-formed by itself: a pattern, a number, a string without end.
    #[error("error parsing query: {reason} at line {line}, char {char}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
        /// From 1.
        line: usize,
        /// In characters, from 1.
        char: usize,
    },
    /// The text is longer than `Limits::max_statement_bytes`.
    #[error("error parsing query: the text has {bytes} bytes, more than the allowed {limit}; split it")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

/// One statement cannot be executed; it becomes the `error` of its result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("database name required")]
    DatabaseRequired,
    #[error("database not found: {0}")]
    DatabaseNotFound(String),
    #[error("retention policy not found: {0}")]
    PolicyNotFound(String),
    #[error("undefined function {0}()")]
    UndefinedFunction(String),
    #[error("{0} is not supported")]
    Unsupported(String),
    #[error("unsupported {function} iterator type: *query.{kind}InterruptIterator")]
    FieldType { function: &'static str, kind: &'static str },
    #[error("{0}")]
    Invalid(String),
    #[error("{0} is not allowed in a request that only reads")]
    ReadOnly(&'static str),
    #[error("{0} is not allowed in a GET request: use POST")]
    AddsOnly(&'static str),
    #[error(
        "max-select-buckets limit exceeded: ({found}/{limit}); use a longer GROUP BY time() or a shorter time range"
    )]
    Buckets { found: u128, limit: usize },
    #[error(
        "max-select-point limit exceeded: more than {limit} points; use a shorter time range or more conditions"
    )]
    Points { limit: u64 },
    #[error("the answer needs more than {limit} rows or samples at once; use LIMIT or a shorter time range")]
    Rows { limit: usize },
    #[error("query interrupted: it took longer than allowed")]
    Interrupted,
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// Shorthand for an error with its own text.
pub(crate) fn invalid<T>(text: impl Into<String>) -> Result<T, RunError> {
    Err(RunError::Invalid(text.into()))
}
