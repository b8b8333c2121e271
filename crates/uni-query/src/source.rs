//! What the engine needs of a store: the [`Source`] trait and its small types.
//!
//! Owns the trait and nothing behind it. Never caches what a source said.

use crate::summary::{Grid, Summed, SummedVisitor};
use std::ops::ControlFlow;
use std::time::Duration;
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

    /// The name by which all other methods know the points of a policy of `db`, which exists; without a policy, those
    /// of the default one.
    ///
    /// # Errors
    /// The name of the policy that there is not.
    fn space(&self, db: &str, policy: Option<&str>) -> Result<String, String> {
        match policy {
            None | Some("autogen") => Ok(db.to_owned()),
            Some(other) => Err(other.to_owned()),
        }
    }

    /// These names for all policies of `db`.
    fn spaces(&self, db: &str) -> Vec<String> {
        vec![db.to_owned()]
    }

    /// The policies of `db`, in the order in which they were made.
    fn policies(&self, db: &str) -> Vec<Policy>;

    /// Makes, changes or drops a database or a policy.
    ///
    /// # Errors
    /// What is asked for cannot be, or cannot be done.
    fn change(&self, change: &Change) -> Result<(), SourceError>;

    /// Deletes the points of these series from the first to the second time, both included.
    ///
    /// # Errors
    /// They cannot be deleted; then none is.
    fn delete(&self, range: (Timestamp, Timestamp), doomed: &[Doomed]) -> Result<(), SourceError>;
}

/// A retention policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// How long points are kept; zero for ever.
    pub duration: Duration,
    /// The length of a shard.
    pub shard_duration: Duration,
    /// Copies.
    pub replicas: u32,
    /// Whether it is meant where none is named.
    pub is_default: bool,
}

/// What a statement says of a policy; what it leaves out is `None`. A duration of zero is for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyChange {
    /// How long points are kept.
    pub duration: Option<Duration>,
    /// The length of a shard.
    pub shard_duration: Option<Duration>,
    /// Copies.
    pub replicas: Option<u32>,
}

/// A statement about databases and policies.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the words of the statements")]
pub enum Change {
    /// `CREATE DATABASE`, maybe with the name and values of its policy. To make one that exists as it is is no error.
    CreateDatabase { name: String, with: Option<(Option<String>, PolicyChange)> },
    /// `CREATE RETENTION POLICY`. To make one that exists as it is is no error.
    CreatePolicy { db: String, name: String, change: PolicyChange, default: bool },
    /// `ALTER RETENTION POLICY`.
    AlterPolicy { db: String, name: String, change: PolicyChange, default: bool },
    /// `DROP RETENTION POLICY`; to drop one that does not exist is no error.
    DropPolicy { db: String, name: String },
    /// `DROP DATABASE`; to drop one that does not exist is no error.
    DropDatabase { name: String },
}

impl Change {
    /// The statement's words.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::CreateDatabase { .. } => "CREATE DATABASE",
            Self::CreatePolicy { .. } => "CREATE RETENTION POLICY",
            Self::AlterPolicy { .. } => "ALTER RETENTION POLICY",
            Self::DropPolicy { .. } => "DROP RETENTION POLICY",
            Self::DropDatabase { .. } => "DROP DATABASE",
        }
    }
}

/// Series of a measurement whose points are to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doomed {
    /// As [`Source::space`] gives it.
    pub space: String,
    /// The measurement.
    pub measurement: String,
    /// The series by [`Series::id`]; `None` for all.
    pub series: Option<Vec<u64>>,
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
