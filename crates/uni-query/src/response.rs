//! The answer to a request: results, their series, rows and cells.
//!
//! Owns the shape in memory. How it is written is `json`'s.

use crate::error::RunError;
use crate::json::{self, Epoch};
use uni_wire::{FieldValue, Timestamp};

/// The results of the statements of one request, in their order.
#[derive(Debug)]
pub struct Response {
    pub(crate) results: Vec<StatementResult>,
}

/// What one statement gave.
#[derive(Debug)]
pub(crate) struct StatementResult {
    /// From 0.
    pub(crate) statement_id: usize,
    pub(crate) outcome: Result<Vec<Table>, String>,
}

/// One series of a result.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// Empty for the statements whose series have no name.
    pub(crate) name: String,
    /// The tags of `GROUP BY`, sorted by key.
    pub(crate) tags: Vec<(String, String)>,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<Cell>>,
}

/// One value of a row; `None` is null.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Time(Timestamp),
    Value(Option<FieldValue>),
}

impl Cell {
    pub(crate) fn text(text: impl Into<Box<str>>) -> Self {
        Self::Value(Some(FieldValue::String(text.into())))
    }
}

impl StatementResult {
    pub(crate) fn new(statement_id: usize, outcome: Result<Vec<Table>, RunError>) -> Self {
        Self { statement_id, outcome: outcome.map_err(|error| error.to_string()) }
    }
}

impl Response {
    /// The answer as InfluxDB 1.x writes it, without the newline that it puts at the end of a body.
    ///
    /// Times are integers in the unit of `epoch`, rounded towards zero; RFC 3339 texts when it is `None`. `pretty`
    /// indents by four spaces. Numbers that JSON does not have (infinities) are null.
    #[must_use]
    pub fn to_json(&self, epoch: Option<Epoch>, pretty: bool) -> String {
        json::document(&self.results, epoch, pretty)
    }

    /// The answer in pieces of at most `rows_per_chunk` rows of one series (0 is taken as 1), each a document of
    /// its own: what InfluxDB sends, a line each, when `chunked=true`. A piece that is not the last of its series,
    /// or of its statement, says `"partial":true` there.
    #[must_use]
    pub fn to_json_chunks(&self, epoch: Option<Epoch>, pretty: bool, rows_per_chunk: usize) -> Vec<String> {
        json::chunks(&self.results, epoch, pretty, rows_per_chunk.max(1))
    }

    /// The error of the first statement that failed, if one did.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.results.iter().find_map(|result| result.outcome.as_ref().err().map(String::as_str))
    }
}
