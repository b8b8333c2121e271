//! What a heap trace says: which library holds the memory of a program, when, and by which calls.
//!
//! Owns the meaning of a trace: [`read()`] takes its events one by one, and an [`Analysis`] keeps sums by stack, never the
//! events, so that a trace of any length needs a bounded amount of memory. [`Report`], [`Diff`], [`FlameGraph`] and the
//! pprof form are made from it. Never opens a file and never reads a clock.
//!
//! A trace is a sample: a word is sampled with the probability `rate`, so a sampled word stands for `1 / rate` words.
//! All sizes are estimates by that rule, in bytes.

mod analysis;
mod batch;
mod diff;
mod flame;
mod html;
mod library;
mod lifetime;
mod live;
mod memo;
mod names;
mod naming;
mod path;
mod pprof;
mod read;
mod report;
mod series;
mod stacks;
mod svg;
mod symbols;
mod trie;

pub use analysis::{Analysis, FaultCount, Options, TraceInfo};
pub use diff::{Diff, DiffRow};
pub use flame::{FlameGraph, FlameNode};
pub use html::html;
pub use library::{Owner, owner};
pub use lifetime::ShortLived;
pub use names::Names;
pub use naming::{Frame, Naming, Resolve};
pub use pprof::pprof;
pub use read::read;
pub use report::{Grouping, Report, Row, Timeline, Totals};
pub use svg::svg;
/// How a flame graph looks, for the script.
pub const FLAME_STYLE: &str = include_str!("flame.css");
/// The script that draws a flame graph: the `.html` has it inside, and a page can use the same file.
pub const FLAME_SCRIPT: &str = include_str!("flame.js");
