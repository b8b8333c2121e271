//! What the sampling allocator costs the guest `http` and the example `agent` while they serve: beside the bare allocator
//! and jemalloc's profiling, all in one run.
//!
//! Owns the programs it starts and the requests it makes. Instructions are counted, since another program on the
//! machine does not change them; processor time is measured in windows that take turns. Prints Markdown.

mod agent;
mod guest;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use black_box::{eventually, workspace};

use crate::bench::to_f64;
use crate::{build, install, libraries, step};

/// How much is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Extent {
    /// Windows of each program
    #[arg(long, default_value_t = 40)]
    rounds: u32,
    /// Requests in a window
    #[arg(long, default_value_t = 500)]
    requests: u32,
    /// Use the programs that are there from the run before
    #[arg(long)]
    no_build: bool,
}

/// A program that does not answer by then has failed.
const QUIET: Duration = Duration::from_secs(10);

/// Measures and prints.
pub(crate) fn run(extent: &Extent) -> anyhow::Result<()> {
    install::ensure(&[install::QEMU, install::CC, install::VALGRIND])?;
    let programs = workspace().join("target/bench-heap");
    std::fs::create_dir_all(&programs).with_context(|| format!("make {}", programs.display()))?;
    if !extent.no_build {
        build_all(&programs)?;
    }
    guest::run(&programs, extent)?;
    agent::run(&programs, extent)
}

/// The two programs, with the sampling allocator and without, and the example with jemalloc.
fn build_all(into: &Path) -> anyhow::Result<()> {
    for (name, features) in [("http", ""), ("http.bare", "guest-runtime/bench-bare")] {
        let packages = ["--profile", "guest", "-p", "http", "-p", "guest-runtime", "--bin", "http"];
        let mut image = std::fs::read(build_one(name, &packages, features, "guest/http")?)?;
        libraries::put_table(&mut image)?;
        std::fs::write(into.join(name), image)?;
    }
    for (name, features) in
        [("agent", ""), ("agent.bare", "bench-bare"), ("agent.jemalloc", "bench-jemalloc")]
    {
        let built = build_one(name, &["--release", "-p", "agent"], features, "release/agent")?;
        std::fs::copy(built, into.join(name))?;
    }
    Ok(())
}

fn build_one(name: &str, arguments: &[&str], features: &str, result: &str) -> anyhow::Result<PathBuf> {
    let target = workspace().join("target/guest-build");
    let mut cargo = build::guest_cargo(&target);
    cargo.arg("build").args(arguments).args(["--features", features]);
    step::run(&format!("build {name}"), &mut cargo)?;
    Ok(target.join(result))
}

/// A program that ends with this.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        Ok(Self(command.spawn().with_context(|| format!("start {command:?}"))?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks so often, one request after the other.
fn ask(port: u16, times: u32) -> anyhow::Result<()> {
    for _ in 0..times {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(QUIET))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        ensure!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}

/// Waits until it answers.
fn until_serving(port: u16) -> anyhow::Result<()> {
    eventually("the first answer", || ask(port, 1))
}

/// Takes whatever a connection brings, until it ends.
fn take_all(mut stream: TcpStream) {
    std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
}

/// A collector that takes everything; returns its port.
fn collector() -> anyhow::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || listener.incoming().flatten().for_each(take_all));
    Ok(port)
}

/// The order of a round: forth in one, back in the next, so that what drifts hits all alike.
fn order(round: u32, count: usize) -> Vec<usize> {
    if round.is_multiple_of(2) { (0..count).collect() } else { (0..count).rev().collect() }
}

/// How the sums of two series relate, with 95 % confidence, by the spread of the rounds.
fn ratio(of: &[f64], to: &[f64]) -> String {
    let count = to_f64(of.len() as u64);
    let mean = of.iter().sum::<f64>() / to.iter().sum::<f64>();
    let scale = to.iter().sum::<f64>() / count;
    let variance =
        of.iter().zip(to).map(|(a, b)| ((a - mean * b) / scale).powi(2)).sum::<f64>() / (count - 1.0);
    format!("{mean:.4} ± {:.4}", 1.96 * (variance / count).sqrt())
}

fn mean(series: &[f64]) -> f64 {
    series.iter().sum::<f64>() / to_f64(series.len() as u64)
}
