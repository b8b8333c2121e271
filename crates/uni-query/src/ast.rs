//! Statements and expressions as the parser leaves them.
//!
//! Owns the shapes. Nothing here is checked against a source: names may not exist and functions may be unknown.

use crate::source::Change;
use regex::Regex;

/// One statement of a request.
#[derive(Debug)]
pub(crate) enum Statement {
    Select(Box<Select>),
    ShowDatabases,
    ShowPolicies {
        db: Option<String>,
    },
    ShowMeasurements(Show),
    ShowTagKeys(Show),
    ShowTagValues(Show),
    ShowFieldKeys(Show),
    ShowSeries(Show),
    ShowSeriesCardinality(Show),
    Change(Change),
    DropMeasurement {
        name: String,
    },
    DropSeries(Delete),
    Delete(Delete),
    /// Known to InfluxDB, not to this engine; the text says what it is.
    Unsupported(String),
}

/// What follows `DELETE` and `DROP SERIES`.
#[derive(Debug)]
pub(crate) struct Delete {
    /// Without databases and policies; empty for all measurements.
    pub(crate) from: Vec<From>,
    pub(crate) condition: Option<Expr>,
}

/// A `SELECT`.
#[derive(Debug, Default)]
pub(crate) struct Select {
    pub(crate) fields: Vec<Field>,
    pub(crate) from: Vec<From>,
    pub(crate) condition: Option<Expr>,
    pub(crate) dimensions: Vec<Expr>,
    pub(crate) fill: Fill,
    pub(crate) descending: bool,
    pub(crate) page: Page,
    /// Something in it that is understood but not supported.
    pub(crate) unsupported: Option<String>,
}

/// `LIMIT`, `OFFSET`, `SLIMIT`, `SOFFSET`; a limit of 0 is none.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Page {
    pub(crate) limit: usize,
    pub(crate) offset: usize,
    pub(crate) series_limit: usize,
    pub(crate) series_offset: usize,
}

/// The parts that the `SHOW` statements have in common.
#[derive(Debug, Default)]
pub(crate) struct Show {
    pub(crate) db: Option<String>,
    pub(crate) from: Vec<From>,
    /// `WITH KEY` or `WITH MEASUREMENT`.
    pub(crate) with: Option<NameTest>,
    pub(crate) condition: Option<Expr>,
    pub(crate) page: Page,
}

/// A condition on a name.
#[derive(Debug)]
pub(crate) enum NameTest {
    In(Vec<String>),
    NotIn(Vec<String>),
    Matches(Regex),
    MatchesNot(Regex),
}

impl NameTest {
    pub(crate) fn accepts(&self, name: &str) -> bool {
        match self {
            Self::In(names) => names.iter().any(|n| n == name),
            Self::NotIn(names) => !names.iter().any(|n| n == name),
            Self::Matches(pattern) => pattern.is_match(name),
            Self::MatchesNot(pattern) => !pattern.is_match(name),
        }
    }
}

/// A source of points: one measurement, or those that a pattern finds.
#[derive(Debug)]
pub(crate) struct From {
    pub(crate) db: Option<String>,
    pub(crate) policy: Option<String>,
    pub(crate) measurement: MeasurementName,
}

#[derive(Debug)]
pub(crate) enum MeasurementName {
    Exact(String),
    Pattern(Regex),
}

/// A column of a `SELECT`.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) expr: Expr,
    pub(crate) alias: Option<String>,
}

/// What stands in a window without points.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(crate) enum Fill {
    #[default]
    Null,
    None,
    Previous,
    Linear,
    Number(f64),
}

/// An expression.
#[derive(Debug, Clone)]
pub(crate) enum Expr {
    Ref(Ref),
    Call(Call),
    Binary {
        op: Op,
        left: Box<Self>,
        right: Box<Self>,
    },
    Number(f64),
    Integer(i64),
    Text(String),
    Bool(bool),
    /// Nanoseconds.
    Duration(i64),
    Regex(Regex),
    Wildcard(Wildcard),
}

/// A function's name, in lower case, and its arguments.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) args: Vec<Expr>,
}

/// A field or tag by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ref {
    pub(crate) name: String,
    pub(crate) cast: Option<Cast>,
}

impl Ref {
    /// The column of times, which is neither field nor tag.
    pub(crate) fn is_time(&self) -> bool {
        self.name.eq_ignore_ascii_case("time")
    }
}

/// What follows `::`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cast {
    Field,
    Tag,
    Float,
    Integer,
    Unsigned,
    String,
    Boolean,
}

/// What a `*` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wildcard {
    All,
    Fields,
    Tags,
}

/// An operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    BitAnd,
    BitOr,
    BitXor,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Match,
    MatchNot,
    And,
    Or,
}

impl Op {
    /// How tightly it binds; a larger number first.
    pub(crate) fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And => 2,
            Self::Eq
            | Self::Ne
            | Self::Lt
            | Self::Le
            | Self::Gt
            | Self::Ge
            | Self::Match
            | Self::MatchNot => 3,
            Self::Add | Self::Sub | Self::BitOr | Self::BitXor => 4,
            Self::Mul | Self::Div | Self::Mod | Self::BitAnd => 5,
        }
    }

    /// The operator that says the same with its sides exchanged, for comparisons.
    pub(crate) fn mirrored(self) -> Self {
        match self {
            Self::Lt => Self::Gt,
            Self::Le => Self::Ge,
            Self::Gt => Self::Lt,
            Self::Ge => Self::Le,
            other => other,
        }
    }
}
