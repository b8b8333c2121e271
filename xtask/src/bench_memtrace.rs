//! How fast `uni memtrace report` reads long heap traces, and in how much memory.
//!
//! Owns the traces' files. They are made by the bench of `uni-memtrace`; the program measured is the release `uni`, from
//! outside. Prints Markdown.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use black_box::bin_dir;

use crate::{build, step};

/// Lengths of the traces, in MB: one of an hour or two, and one of a GiB.
const MEGABYTES: [u64; 2] = [150, 1074];
/// Runs of each; the fastest counts, as other work of the machine only adds.
const RUNS: usize = 3;
/// How often the program's figures are read while it runs.
const LOOK: Duration = Duration::from_millis(2);
/// Of the kernel's figures of processor time, in seconds.
const TICK_SECONDS: f64 = 0.01;

/// What one run took.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    wall_seconds: f64,
    processor_seconds: f64,
    peak_kib: u64,
}

/// Measures and prints.
///
/// # Errors
/// When something cannot be built or run, or a report fails.
pub(crate) fn run() -> anyhow::Result<()> {
    step::run("build uni", build::cargo().args(["build", "--release", "-p", "uni"]))?;
    let dir = tempfile::Builder::new().prefix("uni-bench-").tempdir()?;
    println!(
        "| trace | MB/s | MB/s of processor time | peak memory | load | aim |\n|---|---|---|---|---|---|"
    );
    for megabytes in MEGABYTES {
        let file = dir.path().join(format!("{megabytes}.ctf"));
        make(&file, megabytes)?;
        let bytes = std::fs::metadata(&file)?.len();
        let mut best: Option<Taken> = None;
        for _ in 0..RUNS {
            let taken = report(&file)?;
            if best.is_none_or(|best| taken.wall_seconds < best.wall_seconds) {
                best = Some(taken);
            }
        }
        row(bytes, best.unwrap_or_default());
        std::fs::remove_file(&file)?;
    }
    Ok(())
}

fn row(bytes: u64, taken: Taken) {
    let megabytes = f64::from(u32::try_from(bytes / 1000).unwrap_or(u32::MAX)) / 1e3;
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "| {megabytes:.0} MB | {:.0} | {:.0} | {} MiB | {} | >= 200 MB/s, <= 300 MiB |",
        megabytes / taken.wall_seconds.max(TICK_SECONDS),
        megabytes / taken.processor_seconds.max(TICK_SECONDS),
        taken.peak_kib.div_ceil(1024),
        load.split_ascii_whitespace().next().unwrap_or("?"),
    );
}

fn make(file: &Path, megabytes: u64) -> anyhow::Result<()> {
    let mut cargo = build::cargo();
    cargo.args(["bench", "-p", "uni-memtrace", "--bench", "report", "--", "make"]);
    cargo.arg(file).arg(megabytes.to_string());
    step::run(&format!("make a trace of {megabytes} MB"), &mut cargo)
}

/// Runs the report.
fn report(file: &Path) -> anyhow::Result<Taken> {
    let uni = bin_dir().join("uni");
    let start = Instant::now();
    let mut child = Command::new(&uni)
        .args(["memtrace", "report"])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("start {}", uni.display()))?;
    let mut taken = Taken::default();
    while look(child.id(), &mut taken) {
        std::thread::sleep(LOOK);
    }
    taken.wall_seconds = start.elapsed().as_secs_f64();
    let status = child.wait()?;
    ensure!(status.success(), "uni memtrace report {} failed: {status}", file.display());
    Ok(taken)
}

/// Reads what a process has used so far. Returns whether it goes on: the processor time of one that has ended is kept
/// until it is waited for, its memory is what it was last.
fn look(pid: u32, taken: &mut Taken) -> bool {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let status = read("status");
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.split_ascii_whitespace().next()?.parse().ok());
    taken.peak_kib = taken.peak_kib.max(peak.unwrap_or(0));
    let stat = read("stat");
    // after the name in brackets: the state; the 11th and 12th after that are utime and stime
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    let state = fields.next();
    let ticks = fields.skip(10).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>();
    taken.processor_seconds = ticks * TICK_SECONDS;
    state.is_some_and(|state| state != "Z")
}
