//! What each subcommand does: ask the daemon, print the answer.

mod console;
mod create;
mod daemon;
mod direct;
pub(crate) mod guest_control;
mod memtrace;
mod messages;
mod program;
mod stats;
mod store;
pub(crate) mod take;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::CommandFactory as _;
use serde_json::Value;
use uni_api::daemon::{Done, Status};
use uni_api::guest::ControlKind;
use uni_api::rpc::method;
use uni_api::vm::{StopParams, VmDetail, VmInfo, VmRef};

use crate::args::{Cli, Command, Format, LogSource, LogsArgs, MemtraceArgs, RmArgs, StopArgs};
use crate::client::{ANSWER_WAIT, CallError, Client};
use crate::{output, render};

/// Does what the command line says.
///
/// # Errors
/// What failed, as a chain; the caller puts the subcommand before it.
pub(crate) fn run(cli: Cli) -> anyhow::Result<()> {
    let mut client = Client::new(cli.socket()).within_trace_of(std::env::var);
    match cli.command {
        Command::Run(args) => create::run(&mut client, args, cli.output),
        Command::Ps => ps(&mut client, cli.output),
        Command::Inspect(args) => inspect(&mut client, args.vm),
        Command::Logs(args) => logs(&mut client, args, cli.output),
        Command::Stats(args) => stats::stats(&mut client, args, cli.output),
        Command::LogLevel(args) => guest_control::run(&mut client, args, ControlKind::Logs, cli.output),
        Command::Metrics(args) if args.scrape => {
            guest_control::scrape(&mut client, args.guest.vm.unwrap_or_default(), cli.output)
        }
        Command::Metrics(args) => {
            guest_control::run(&mut client, args.guest, ControlKind::Metrics, cli.output)
        }
        Command::Memtrace(MemtraceArgs { command: Some(command), .. }) => memtrace::run(&command, cli.output),
        Command::Memtrace(MemtraceArgs { command: None, take }) => take::run(&mut client, &take, cli.output),
        Command::Stop(args) => stop(&mut client, args),
        Command::Rm(args) => rm(&mut client, args),
        Command::Status => status(&mut client, cli.output),
        Command::Store { command } => store::run(&mut client, command, cli.output),
        Command::Daemon { command } => daemon::run(&mut client, command, cli.output),
        Command::Completions { shell } => completions(shell),
        Command::Man { dir } => man(&dir),
    }
}

fn logs(client: &mut Client, args: LogsArgs, format: Format) -> anyhow::Result<()> {
    match (args.misfit(), args.source) {
        (Some(flag), LogSource::Console) => bail!("{flag} is for --source syslog; a console has no messages"),
        (Some(flag), LogSource::Syslog) => bail!("{flag} is for --source console; leave it out"),
        (None, LogSource::Console) if args.vm.is_none() => {
            bail!("whose console? name a VM; only messages (--source syslog) are shown of all")
        }
        (None, LogSource::Console) => console::logs(client, args, format),
        (None, LogSource::Syslog) => messages::logs(client, args, format),
    }
}

fn ps(client: &mut Client, format: Format) -> anyhow::Result<()> {
    let vms: Vec<VmInfo> = client.call(method::VM_LIST, &Value::Null, ANSWER_WAIT)?;
    match format {
        Format::Table => output::text(&render::vms(&vms)),
        Format::Json => output::json(&vms),
    }
}

fn inspect(client: &mut Client, vm: String) -> anyhow::Result<()> {
    let detail: VmDetail = client.call(method::VM_INSPECT, &VmRef { id: vm }, ANSWER_WAIT)?;
    output::json(&detail)
}

fn status(client: &mut Client, format: Format) -> anyhow::Result<()> {
    let status: Status = client.call(method::DAEMON_STATUS, &Value::Null, ANSWER_WAIT)?;
    match format {
        Format::Table => output::text(&render::status(&status)),
        Format::Json => output::json(&status),
    }
}

fn stop(client: &mut Client, args: StopArgs) -> anyhow::Result<()> {
    let wait = ANSWER_WAIT + Duration::from_secs(args.time);
    let params = StopParams { id: args.vm.vm, force: args.force, timeout_seconds: Some(args.time) };
    let _: Done = client.call(method::VM_STOP, &params, wait)?;
    Ok(())
}

fn rm(client: &mut Client, args: RmArgs) -> anyhow::Result<()> {
    let mut vm = VmRef { id: args.vm.vm };
    if args.force {
        let found: VmInfo = client.call(method::VM_GET, &vm, ANSWER_WAIT)?;
        // By its full id from here on: a prefix might come to mean another VM.
        vm.id.clone_from(&found.id);
        if has_process(&found) {
            kill(client, &vm)?;
        }
    }
    let _: Done = client.call(method::VM_REMOVE, &vm, ANSWER_WAIT)?;
    Ok(())
}

/// Kills a VM; that it ended by itself meanwhile is no failure.
fn kill(client: &mut Client, vm: &VmRef) -> anyhow::Result<()> {
    let killed: Result<Done, CallError> = client.call(method::VM_KILL, vm, ANSWER_WAIT);
    let Err(error) = killed else { return Ok(()) };
    let now: VmInfo = client.call(method::VM_GET, vm, ANSWER_WAIT)?;
    if has_process(&now) { Err(error).context("killing it first") } else { Ok(()) }
}

fn has_process(vm: &VmInfo) -> bool {
    matches!(vm.state.as_str(), "starting" | "running" | "stopping")
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "uni", &mut script);
    output::text(&String::from_utf8_lossy(&script))
}

fn man(dir: &Path) -> anyhow::Result<()> {
    // a page's own words around the version are enough
    clap_mangen::generate_to(Cli::command().version(env!("CARGO_PKG_VERSION")), dir)
        .with_context(|| format!("writing manual pages into {}", dir.display()))
}
