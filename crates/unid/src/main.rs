//! `unid`: the only place with listening sockets, tasks, clock and signals; it joins the libraries.
//!
//! `main` decides between the two programs in this binary: the daemon, and the small parent process of each
//! VM (`unid shim`), which must stay small and so is entered before anything of the daemon is set up.

mod clock;
mod config;
mod control;
mod daemon;
mod http;
mod ingest;
mod live;
mod logging;
mod management;
mod metrics;
mod peers;
mod sampler;
mod storage;
mod vms;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    if let Some(code) = shim() {
        return code;
    }
    let flags = match config::Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => {
            // Help and version are no errors; every real one exits 1, bad flags too.
            let code = if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
            let _ = error.print();
            return code;
        }
    };
    logging::install(flags.log_format);
    let outcome = match &flags.write_man {
        Some(dir) => config::Flags::write_man(dir),
        None => flags.resolve().and_then(|config| daemon::run(&config)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("unid: {error:#}");
            ExitCode::FAILURE
        }
    }
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
