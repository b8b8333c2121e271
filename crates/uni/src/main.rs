//! `uni`: runs unikernels and shows them, by asking the daemon over its control socket.
//!
//! Owns the way from the command line to an exit status: 0, or 1 with one message on stderr. Never touches a
//! VM itself; all it knows, the daemon told it, or, of a daemon that does not run, the files of its store.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;

mod args;
mod client;
mod commands;
mod duration;
mod env_file;
mod glob;
mod moment;
mod output;
mod ports;
mod render;
mod sizes;
mod text;

fn main() -> ExitCode {
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return finish_parsing(&error),
    };
    let name = cli.command.name();
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has had enough: that is no failure.
        Err(error) if output::reader_left(&error) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("uni: {name}: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints what the parser has to say: help and version are successes, everything else is status 1.
fn finish_parsing(error: &clap::Error) -> ExitCode {
    let _a_closed_stream_is_no_news = error.print();
    if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// One message on stderr. The daemon may quote a guest's console, so a terminal is protected from it.
pub(crate) fn complain(message: &str) {
    let mut stderr = std::io::stderr().lock();
    let message = if stderr.is_terminal() { text::harmless(message) } else { message.to_owned() };
    let _nowhere_left_to_complain = writeln!(stderr, "{}", message.trim_end());
}
