//! The shape of `uni memtrace`. Owns names, defaults and help texts; never acts.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::duration;

/// What is made of heap traces.
#[derive(Debug, Subcommand)]
pub(crate) enum MemtraceCommand {
    /// Show who holds the memory of a traced program, and who allocated most
    Report(MemtraceReportArgs),
    /// Show what changed from one trace to another
    Diff(MemtraceDiffArgs),
}

impl MemtraceCommand {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Report(_) => "memtrace report",
            Self::Diff(_) => "memtrace diff",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct MemtraceReportArgs {
    /// The trace; - is stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    #[command(flatten)]
    pub(crate) rows: MemtraceRows,

    /// Draw a flame graph: .svg or .html by the file's name
    #[arg(long, value_name = "FILE")]
    pub(crate) flamegraph: Option<PathBuf>,

    /// Write a profile for pprof, compressed; - is stdout, instead of the report
    #[arg(long, value_name = "FILE")]
    pub(crate) pprof: Option<PathBuf>,

    /// Write stacks as text, one a line, with live bytes, allocated ones if nothing is alive; - is stdout, instead of the report
    #[arg(long, value_name = "FILE")]
    pub(crate) folded: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct MemtraceDiffArgs {
    /// The trace before; - is stdin
    #[arg(value_name = "A")]
    pub(crate) before: PathBuf,

    /// The trace after
    #[arg(value_name = "B")]
    pub(crate) after: PathBuf,

    #[command(flatten)]
    pub(crate) rows: MemtraceRows,
}

/// Which rows are shown.
#[derive(Debug, Args)]
pub(crate) struct MemtraceRows {
    /// Look at the memory so long after the start, e.g. 90s, 15m, 1h [default: at the end]
    #[arg(long, value_name = "T", value_parser = duration::parse)]
    pub(crate) at: Option<Duration>,

    /// Leave out what was freed earlier than this after its allocation, e.g. 1s; reads the trace twice
    #[arg(long, value_name = "T", value_parser = duration::parse)]
    pub(crate) min_lifetime: Option<Duration>,

    /// The traced Rust program, not stripped, or the image beside its .debug.elf: what addresses in the trace are called
    #[arg(long, value_name = "FILE")]
    pub(crate) symbols: Option<PathBuf>,

    /// How many rows are shown
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) top: u32,

    /// What a row is: a line of a library's code, a library, or any function
    #[arg(long, value_enum, default_value_t = MemtraceBy::Site)]
    pub(crate) by: MemtraceBy,
}

/// What a row of a heap trace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MemtraceBy {
    // The innermost line of a stack that is in a library.
    Site,
    Library,
    Function,
}
