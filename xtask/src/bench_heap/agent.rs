//! The example `agent`: its own instructions, counted by callgrind, and its processor time, the kernel's work for it
//! included.
//!
//! Owns the programs. Of two runs under callgrind the difference counts: a long one less a short one is without the start
//! and the warming up.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use black_box::free_port;

use super::{Extent, Running, ask, collector, mean, order, ratio, take_all, until_serving};
use crate::bench::{cpu_ticks, to_f64};

/// Requests before those that count: enough for the profile's interval to become that of a busy program.
const WARM_UP: u32 = 3000;
/// Those that count under callgrind.
const COUNTED: u32 = 1000;
/// Ticks of processor time in a second.
const TICKS: f64 = 100.0;

/// The agent with an allocator, in a state.
struct Variant {
    name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    jemalloc: &'static str,
    traced: bool,
    /// Which one it is compared with.
    bare: usize,
}

const OFF: &[&str] = &["--heap-profile=off"];
const VARIANTS: [Variant; 6] = [
    Variant {
        name: "bare allocator (glibc)",
        program: "agent.bare",
        arguments: OFF,
        jemalloc: "",
        traced: false,
        bare: 0,
    },
    Variant {
        name: "sampled, `--heap-profile=off`",
        program: "agent",
        arguments: OFF,
        jemalloc: "",
        traced: false,
        bare: 0,
    },
    Variant {
        name: "`heap_by_library`",
        program: "agent",
        arguments: &[],
        jemalloc: "",
        traced: false,
        bare: 0,
    },
    Variant {
        name: "`heap_by_library` and a trace at 1e-4",
        program: "agent",
        arguments: &[],
        jemalloc: "",
        traced: true,
        bare: 0,
    },
    Variant {
        name: "jemalloc, profiling off",
        program: "agent.jemalloc",
        arguments: OFF,
        jemalloc: "prof:false",
        traced: false,
        bare: 4,
    },
    Variant {
        name: "jemalloc, a sample every 512 KiB",
        program: "agent.jemalloc",
        arguments: OFF,
        jemalloc: "prof:true,lg_prof_sample:19",
        traced: false,
        bare: 4,
    },
];

pub(super) fn run(programs: &Path, extent: &Extent) -> anyhow::Result<()> {
    let times = measure_times(programs, extent)?;
    println!(
        "| `agent` | its instructions a request | to the bare allocator's | processor time, us a request | to the bare allocator's |"
    );
    println!("|---|---|---|---|---|");
    let counted =
        VARIANTS.iter().map(|variant| count(variant, programs)).collect::<anyhow::Result<Vec<_>>>()?;
    for ((variant, own), time) in VARIANTS.iter().zip(&counted).zip(&times) {
        println!(
            "| {} | {own:.0} | {:.4} | {:.0} | {} |",
            variant.name,
            own / counted[variant.bare],
            mean(time),
            ratio(time, &times[variant.bare])
        );
    }
    println!();
    Ok(())
}

impl Variant {
    /// Adds what makes it this one to a command that ends with the program; returns the ports of HTTP and of the trace.
    fn finish(&self, command: &mut Command, interval: &str) -> anyhow::Result<(u16, u16)> {
        let (port, trace, monitor) = (free_port()?, free_port()?, collector()?);
        command
            .args([format!("--port={port}"), format!("--memtrace-port={trace}")])
            .args([format!("--monitor=127.0.0.1:{monitor}"), format!("--interval={interval}")])
            .args(["--monitor-adjust=0", "--metrics-port=0"])
            .args(self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if !self.jemalloc.is_empty() {
            command.env("_RJEM_MALLOC_CONF", self.jemalloc);
        }
        Ok((port, trace))
    }

    fn welcome(&self, port: u16, trace: u16) -> anyhow::Result<()> {
        until_serving(port)?;
        if self.traced {
            take_all(TcpStream::connect(("127.0.0.1", trace))?);
        }
        Ok(())
    }
}

/// Microseconds a request, by variant and window.
fn measure_times(programs: &Path, extent: &Extent) -> anyhow::Result<Vec<Vec<f64>>> {
    let mut running = Vec::new();
    for variant in &VARIANTS {
        let mut command = Command::new(programs.join(variant.program));
        let (port, trace) = variant.finish(&mut command, "10")?;
        running.push((Running::start(&mut command)?, port));
        variant.welcome(port, trace)?;
        ask(port, WARM_UP)?;
    }
    let mut times = vec![Vec::new(); VARIANTS.len()];
    for round in 0..extent.rounds {
        for at in order(round, VARIANTS.len()) {
            let (Running(child), port) = &running[at];
            let before = cpu_ticks(child.id().into())?;
            // Of a tick of 10 ms, enough have to pass.
            let requests = extent.requests * 4;
            ask(*port, requests)?;
            let ticks = cpu_ticks(child.id().into())? - before;
            times[at].push(to_f64(ticks) / TICKS * 1e6 / f64::from(requests));
        }
    }
    Ok(times)
}

/// The program's own instructions for a request.
fn count(variant: &Variant, programs: &Path) -> anyhow::Result<f64> {
    let [short, long] = [0, COUNTED].map(|more| count_all(variant, programs, WARM_UP + more));
    Ok((long? - short?) / f64::from(COUNTED))
}

fn count_all(variant: &Variant, programs: &Path, requests: u32) -> anyhow::Result<f64> {
    let dir = tempfile::Builder::new().prefix("uni-bench-").tempdir()?;
    let found = dir.path().join("callgrind");
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--quiet", &format!("--callgrind-out-file={}", found.display())]);
    command.arg(programs.join(variant.program));
    let (port, trace) = variant.finish(&mut command, "3600")?;
    let mut running = Running::start(&mut command)?;
    variant.welcome(port, trace)?;
    ask(port, requests)?;
    let pid = running.0.id().to_string();
    ensure!(Command::new("kill").args(["-TERM", &pid]).status()?.success(), "end the agent");
    running.0.wait()?;
    let text = std::fs::read_to_string(&found).context("what callgrind counted")?;
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")));
    Ok(total.context("no sum in what callgrind counted")?.trim().parse()?)
}
