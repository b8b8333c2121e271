//! `uni daemon`: what is asked of the daemon itself.

use std::time::{Duration, Instant};

use serde_json::Value;
use uni_api::daemon::{LogLevel, LogLevelParams, Shutdown, ShutdownParams, Status};
use uni_api::rpc::method;

use crate::args::{DaemonCommand, DaemonStopArgs, Format};
use crate::client::{ANSWER_WAIT, Client};
use crate::output;

/// How long the daemon may take to end once it has said that it will.
const END_WAIT: Duration = Duration::from_secs(10);
/// How often that is looked at.
const END_LOOK: Duration = Duration::from_millis(20);

/// Does what the command line says.
///
/// # Errors
/// What failed.
pub(super) fn run(client: &mut Client, command: DaemonCommand, format: Format) -> anyhow::Result<()> {
    match command {
        DaemonCommand::LogLevel { spec } => log_level(client, spec, format),
        DaemonCommand::Stop(args) => stop(client, &args, format),
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

fn stop(client: &mut Client, args: &DaemonStopArgs, format: Format) -> anyhow::Result<()> {
    let status: Status = client.call(method::DAEMON_STATUS, &Value::Null, ANSWER_WAIT)?;
    let params = ShutdownParams { stop_vms: args.vms, timeout_seconds: args.vms.then_some(args.time) };
    let wait = ANSWER_WAIT + Duration::from_secs(args.time);
    let answer: Shutdown = client.call(method::DAEMON_SHUTDOWN, &params, wait)?;
    match format {
        Format::Json => output::json(&answer)?,
        Format::Table => output::text(&killed(&answer, args.time))?,
    }
    until_ended(status.pid)
}

fn killed(answer: &Shutdown, seconds: u64) -> String {
    let line = |name| format!("{name} did not stop within {seconds} s and was killed\n");
    answer.killed.iter().map(line).collect()
}

/// Returns once a new daemon can have the state directory.
fn until_ended(pid: u32) -> anyhow::Result<()> {
    let start = Instant::now();
    while is_alive(pid) {
        anyhow::ensure!(
            start.elapsed() < END_WAIT,
            "unid (process {pid}) has not ended within {END_WAIT:?}; see its log"
        );
        std::thread::sleep(END_LOOK);
    }
    Ok(())
}

/// Whether the process runs; one that has ended and was not waited for (state Z) does not.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}
