//! `unid`: the only place with listening sockets, tasks, clock and signals; it joins the libraries.
//!
//! `main` decides between the two programs in this binary: the daemon, and the small parent process of each
//! VM (`unid shim`), which must stay small and so is entered before anything of the daemon is set up.

mod clock;
mod config;
mod control;
mod control_port;
mod daemon;
mod forward;
mod heap_traces;
mod http;
mod ingest;
mod live;
mod log_points;
mod logging;
mod look;
mod management;
mod messages;
mod metrics;
mod peers;
mod sampler;
mod scrape;
mod storage;
mod store_access;
mod trace;
mod vms;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use crate::config::LogFormat;

fn main() -> ExitCode {
    if let Some(code) = shim() {
        return code;
    }
    let flags = match config::Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => return usage(&error),
    };
    let levels = flags.log_level.parse::<logging::Levels>();
    let log = match logging::Log::install(flags.log_format, levels.as_ref().cloned().unwrap_or_default()) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("unid: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = match &flags.write_man {
        Some(dir) => config::Flags::write_man(dir),
        None => levels
            .context("--log-level, or the variable UNI_LOG")
            .and_then(|_| flags.resolve())
            .and_then(|config| daemon::run(&config, &log)),
    };
    if let Err(error) = &outcome {
        log.failed(error);
    }
    log.flush();
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Help and version are no errors; every real one exits 1, bad flags too.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    // the flags were not understood, but who asked for JSON reads nothing else
    if config::wants_json(std::env::args_os())
        && let Ok(log) = logging::Log::install(LogFormat::Json, logging::Levels::default())
    {
        log.failed(&anyhow::anyhow!(first_part(&error.render().to_string())));
        log.flush();
    } else {
        let _ = error.print();
    }
    ExitCode::FAILURE
}

/// What is wrong, in one line: without the usage that follows after a blank line.
fn first_part(rendered: &str) -> String {
    let part = rendered.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
    part.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `unid shim --id ID --dir DIR`, looked at by hand: argument parsers cost memory that each VM would pay.
fn shim() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != "shim" {
        return None;
    }
    let rest: Vec<_> = args.collect();
    let [id_flag, id, dir_flag, dir] = rest.as_slice() else { return Some(shim_usage()) };
    if id_flag != "--id" || dir_flag != "--dir" {
        return Some(shim_usage());
    }
    let Some(id) = id.to_str() else { return Some(shim_usage()) };
    Some(ExitCode::from(uni_vmm::shim::run(id, std::path::Path::new(dir))))
}

fn shim_usage() -> ExitCode {
    eprintln!("unid: shim: usage: unid shim --id ID --dir DIR (started by unid itself, one for each VM)");
    ExitCode::FAILURE
}
