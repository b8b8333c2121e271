//! `cargo xtask`: build, guests, demo, test, conformance, bench, crash, deny, audit, fuzz: the same commands for people and for CI.
//!
//! Owns the order of steps and what must be installed for each. Never builds by other means than a person
//! would: cargo, npm, QEMU.

mod bench;
mod bench_heap;
mod bench_memtrace;
mod bench_store;
mod build;
mod conformance;
mod crash;
mod demo;
mod fuzz;
mod install;
mod libraries;
mod load;
mod parquet;
mod scan;
mod step;
mod test;
mod tools;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// Build, run and test Uni.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Boot three unikernels under load and show them on a page, until Ctrl-C
    Demo {
        /// End after this time (`30s`, `2m`); succeeds only if inside and outside of every VM arrived
        #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
        time: Option<Duration>,
        /// Also drive both pages in a browser and put screenshots into this directory
        #[arg(long, value_name = "DIR")]
        shots: Option<std::path::PathBuf>,
    },
    /// Run all tests: format, lints, docs, unit and property tests, black-box tests with real guests, browser
    Test {
        /// Leave out the tests that boot guests or drive a browser
        #[arg(long)]
        fast: bool,
    },
    /// Replay recorded cases of the programs Uni replaces: byte for byte, or different as documented
    Conformance {
        /// What the cases are about
        wire: conformance::Wire,
        /// One JSON object a line; of heap traces the folder that they are in
        file: std::path::PathBuf,
    },
    /// Build the page, the release binaries and the guests
    Build,
    /// Build the guests: target/guests/NAME.elf, and the unstripped twin NAME.debug.elf
    Guests,
    /// Measure the figures of docs/PERFORMANCE.md
    Bench {
        #[command(subcommand)]
        what: Option<Bench>,
    },
    /// Kill unid again and again under load, damage its files, and look whether all it acknowledged is there
    Crash(crash::Rounds),
    /// Check licences, banned crates, sources and security advisories of all dependencies (cargo deny)
    Deny(Database),
    /// Check all dependencies for vulnerabilities (cargo audit)
    Audit(Database),
    /// Build with the feature `parquet` and let pyarrow read what is exported
    Parquet,
    /// Run the fuzz targets, each for a time
    Fuzz {
        /// The targets; all when none is named
        targets: Vec<String>,
        /// How long each runs
        #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration, default_value = "10m")]
        time: Duration,
    },
}

/// What is measured apart from the rest.
#[derive(Debug, Subcommand)]
enum Bench {
    /// The store beside InfluxDB and Prometheus: rates, size, memory, return after a kill
    Store(bench_store::Workload),
    /// The store of logs: a GiB of lines taken in, and searched
    Logs,
    /// Queries over a month with tiers and without
    Tiers,
    /// The heap trace reader: traces of 150 MB and of a GiB, speed and memory
    Memtrace,
    /// The sampling allocator under load, beside the bare one and jemalloc's profiling: instructions and time a request
    Heap(bench_heap::Extent),
}

/// Where the security advisories come from.
#[derive(Debug, clap::Args)]
struct Database {
    /// Work offline with this checkout of the RustSec advisory database instead of fetching it
    #[arg(long, value_name = "DIR")]
    db: Option<std::path::PathBuf>,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Demo { time, shots } => demo::run(time, shots.as_deref()),
        Command::Test { fast } => test::run(fast),
        Command::Conformance { wire, file } => match conformance::run(wire, &file) {
            // the counts are the last word
            Ok(false) => return ExitCode::FAILURE,
            outcome => outcome.map(|_| ()),
        },
        Command::Build => build::all(),
        Command::Guests => build::guests(),
        Command::Bench { what: None } => bench::run(),
        Command::Bench { what: Some(Bench::Store(workload)) } => bench_store::run(&workload),
        Command::Bench { what: Some(Bench::Logs) } => bench::example("search_logs", &["1024"]),
        Command::Bench { what: Some(Bench::Tiers) } => bench::tiers(),
        Command::Bench { what: Some(Bench::Memtrace) } => bench_memtrace::run(),
        Command::Bench { what: Some(Bench::Heap(extent)) } => bench_heap::run(&extent),
        Command::Crash(rounds) => crash::run(&rounds),
        Command::Deny(from) => scan::deny(from.db.as_deref()),
        Command::Audit(from) => scan::audit(from.db.as_deref()),
        Command::Parquet => parquet::run(),
        Command::Fuzz { targets, time } => fuzz::run(&targets, time),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `30s`, `2m`, `1h`, or a bare number of seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration; write for example 30s, 2m or 1h");
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(bad()),
    };
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(seconds)).map(Duration::from_secs).ok_or_else(bad)
}
