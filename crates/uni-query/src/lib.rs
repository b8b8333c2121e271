//! InfluxQL: text in, InfluxDB 1.x's answer out, over points that a [`Source`] lends.
//!
//! What it owns: the language (lexer, parser, meaning), the [`Source`] trait that a store is fitted to, the
//! evaluation, the [`Limits`] that bound it, and the JSON shape of the answer. What it never does: open files or
//! sockets, read a clock (the caller says what `now()` is), keep points between two calls.
//!
//! # Example
//! ```
//! use uni_query::{Changes, Epoch, Limits, Request, Timestamp, execute, memory::MemorySource};
//!
//! let mut source = MemorySource::new();
//! source.load("demo", "gc,vm=a live=10i 1000000000\ngc,vm=a live=30i 2000000000").expect("line protocol");
//! let request = Request {
//!     text: "SELECT mean(live) * 8 FROM gc",
//!     db: Some("demo"),
//!     now: Timestamp::from_seconds(10),
//!     limits: Limits::default(),
//!     changes: Changes::None,
//! };
//! let answer = execute(&source, &request).expect("parses").to_json(Some(Epoch::Seconds), false);
//! assert!(answer.contains(r#""columns":["time","mean"],"values":[[0,160]]"#));
//! ```
//!
//! # Where things are
//! Text becomes statements in `lex` and `parse`; `show` and `select` answer them; `response` and `json` hold and
//! write the answer. Differences from InfluxDB that a user can see are listed at [`execute`].

mod ast;
mod delete;
mod error;
mod eval;
mod json;
mod lex;
mod limits;
pub mod memory;
mod names;
mod parse;
mod range;
mod response;
mod run;
mod select;
mod show;
mod source;
mod summary;
mod time;

pub use error::ParseError;
pub use json::Epoch;
pub use limits::Limits;
pub use response::Response;
pub use run::{Changes, Request, execute};
pub use source::{
    Change, Doomed, Policy, PolicyChange, Series, Source, SourceError, TagMatcher, TagOp, Visitor,
};
pub use summary::{FieldSummary, Grid, Summed, SummedVisitor, WindowSum, WindowSummary};
pub use uni_wire::{FieldType, FieldValue, Timestamp};
