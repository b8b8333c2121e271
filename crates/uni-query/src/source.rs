//! What the engine needs of a store: the [`Source`] trait and its small types.
//!
//! Owns the trait and nothing behind it. Never caches what a source said.

use crate::summary::{Grid, Summed, SummedVisitor};
use std::ops::ControlFlow;
use uni_wire::{FieldType, FieldValue, Timestamp};

/// What is called for each point of a scan: with its time and the values of the fields asked for.
pub type Visitor<'a> = &'a mut dyn FnMut(Timestamp, &[Option<FieldValue>]) -> ControlFlow<()>;

/// Points by database, measurement and series, as the engine reads them.
///
/// A source may change between two calls (points arrive while a query runs); each call is answered by itself.
pub trait Source {
    /// The names of all databases, sorted.
    fn databases(&self) -> Vec<String>;

    /// Whether there is a database `db`.
    fn has_database(&self, db: &str) -> bool;

    /// The measurements of `db`, sorted. Empty for an unknown database.
    fn measurements(&self, db: &str) -> Vec<String>;

    /// The fields of a measurement with their types. A field that was written with two types appears twice.
    fn fields(&self, db: &str, measurement: &str) -> Vec<(String, FieldType)>;

    /// The series of a measurement. `matchers` all have to hold; they are a hint that saves work, for the engine
    /// checks every condition again itself.
    fn series(&self, db: &str, measurement: &str, matchers: &[TagMatcher]) -> Vec<Series>;

    /// Calls `visit` for every point of a series with `from <= time <= to` that has at least one of `fields`, in
    /// ascending time, with the values in the order of `fields`, until `visit` breaks.
    ///
    /// # Errors
    /// The points cannot be read.
    fn scan(
        &self,
        db: &str,
        series: u64,
        fields: &[&str],
        from: Timestamp,
        to: Timestamp,
        visit: Visitor<'_>,
    ) -> Result<(), SourceError>;

    /// As [`Source::scan`], for who adds values up by the windows of `grid` (`None`: all of them together). A source may
    /// give windows that it has summed up before in place of their points, and then must, if one is not taken, give the
    /// points; where points are gone, windows are all it gives. Points of one series come by ascending time, and
    /// so do windows among them, but for those whose points are gone.
    ///
    /// # Errors
    /// The points cannot be read.
    fn scan_summed(
        &self,
        db: &str,
        series: u64,
        fields: &[&str],
        (from, to): (Timestamp, Timestamp),
        _grid: Option<Grid>,
        visit: SummedVisitor<'_>,
    ) -> Result<(), SourceError> {
        self.scan(
            db,
            series,
            fields,
            from,
            to,
            &mut |time, values| match visit(Summed::Point(time, values)) {
                ControlFlow::Break(()) => ControlFlow::Break(()),
                ControlFlow::Continue(_) => ControlFlow::Continue(()),
            },
        )
    }

    /// Makes a database; to make one that exists is no error.
    ///
    /// # Errors
    /// The name is refused, or the database cannot be made.
    fn create_database(&self, name: &str) -> Result<(), SourceError>;
}

/// One series of a measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// What [`Source::scan`] knows it by.
    pub id: u64,
    /// The tags, key and value. A tag that a series lacks counts as the empty text.
    pub tags: Vec<(String, String)>,
}

impl Series {
    /// The value of the tag `key`, empty when the series lacks it.
    #[must_use]
    pub fn tag(&self, key: &str) -> &str {
        self.tags.iter().find(|(k, _)| k == key).map_or("", |(_, value)| value)
    }
}

/// A condition on one tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagMatcher {
    /// The tag.
    pub key: String,
    /// How it is compared.
    pub op: TagOp,
    /// A text, or a pattern in the syntax of the `regex` crate.
    pub value: String,
}

/// How a tag is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagOp {
    /// The same text.
    Equal,
    /// Another text.
    NotEqual,
    /// The pattern is found somewhere in the text.
    Regex,
    /// The pattern is found nowhere in the text.
    NotRegex,
}

/// A source could not do what it was asked; the message says what and why.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    message: String,
}

impl SourceError {
    /// An error with the text that the client shall see.
    #[must_use]
    pub fn new(message: String) -> Self {
        Self { message }
    }
}
