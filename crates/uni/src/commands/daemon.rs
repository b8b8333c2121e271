//! `uni daemon ...`: the daemon itself.

use uni_api::daemon::{LogLevel, LogLevelParams};
use uni_api::rpc::method;

use crate::args::{DaemonCommand, Format};
use crate::client::{ANSWER_WAIT, Client};
use crate::output;

/// Does what a `daemon` command says.
///
/// # Errors
/// What the daemon refuses, or its absence.
pub(super) fn run(client: &mut Client, command: DaemonCommand, format: Format) -> anyhow::Result<()> {
    match command {
        DaemonCommand::LogLevel { spec } => log_level(client, spec, format),
    }
}

fn log_level(client: &mut Client, spec: Option<String>, format: Format) -> anyhow::Result<()> {
    let params = LogLevelParams { level: spec };
    let now: LogLevel = client.call(method::DAEMON_LOG_LEVEL, &params, ANSWER_WAIT)?;
    match format {
        Format::Table => output::text(&(now.level + "\n")),
        Format::Json => output::json(&now),
    }
}
