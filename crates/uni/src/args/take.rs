//! The shape of `uni memtrace VM`: a trace taken from a guest, beside the subcommands that read one.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::MemtraceCommand;
use crate::duration;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct MemtraceArgs {
    #[command(subcommand)]
    pub(crate) command: Option<MemtraceCommand>,

    #[command(flatten)]
    pub(crate) take: TakeArgs,
}

impl MemtraceArgs {
    /// As typed, for messages.
    pub(super) const fn name(&self) -> &'static str {
        match &self.command {
            Some(command) => command.name(),
            None => "memtrace",
        }
    }
}

/// A trace to be taken.
#[derive(Debug, Args)]
pub(crate) struct TakeArgs {
    /// The VM's id, its name, or the beginning of its id; one that is called report or diff after -o, or by its id
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) vm: Option<String>,

    /// Where the trace goes; - is stdout. Until it is whole it is called FILE.part
    #[arg(short = 'o', value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// How long, e.g. 30s, 5m [default: until Ctrl-C]
    #[arg(long = "for", value_name = "D", value_parser = duration::parse)]
    pub(crate) time: Option<Duration>,

    /// Probability with which a word of memory is sampled, for this trace alone, e.g. 0.001 [default: the guest's own]
    #[arg(long, value_name = "R", value_parser = rate, allow_negative_numbers = true)]
    pub(crate) rate: Option<f64>,

    /// Take it from HOST:PORT instead, where a guest that Uni does not run gives traces; the daemon is not asked
    #[arg(long, value_name = "HOST:PORT", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) addr: Option<String>,

    /// With --rate, for a guest started with --monitor-token: a file with its token
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// A probability above 0.
fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| uni_api::heap_trace::is_rate(*rate));
    rate.ok_or_else(|| format!("`{text}` is no probability: it is above 0 and at most 1, as 0.001 is"))
}
