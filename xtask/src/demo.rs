//! The demo: `unid`, three unikernels, visitors, and a live summary.
//!
//! Owns what it started and ends it: visitors, guests, daemon. Everything it shows and checks is asked over
//! the same wires that a user has.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use black_box::{Daemon, eventually, free_port, guest, workspace};
use serde_json::Value;

use crate::load::Visitor;
use crate::{build, install, step};

/// The VMs: name, image, whether it is a web server that gets visitors.
const VMS: [(&str, &str, bool); 3] =
    [("web", "http", true), ("shop", "http", true), ("greeter", "hello", false)];
/// Guests need little; the least that leaves room for what `/alloc` keeps.
const MEMORY: &str = "32M";
/// Between two summaries where there is no terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// Runs the demo until Ctrl-C, or for `time`.
pub(crate) fn run(time: Option<Duration>, shots: Option<&Path>) -> anyhow::Result<()> {
    install::ensure(&[install::QEMU])?;
    build::all()?;
    let interrupted = on_interrupt()?;
    let state = tempfile::Builder::new().prefix("uni-demo-").tempdir().context("make a state directory")?;
    let daemon = Daemon::start(state.path(), &["--interval", "1s"])?;
    let visitors = start_vms(&daemon)?;
    eprintln!("\npage:  http://{}/ui", daemon.address("ui")?);
    eprintln!("query: http://{}/query?db=uni&q=...", daemon.address("api")?);
    eprintln!("lines: {} (Influx line protocol)", daemon.address("line")?);
    eprintln!(
        "uni:   {} --socket {} ps",
        black_box::bin_dir().join("uni").display(),
        daemon.socket().display()
    );
    eprintln!("Ctrl-C stops guests and daemon.\n");
    let shown = show(&daemon, &visitors, time, &interrupted);
    let driven = shots.map_or(Ok(()), |dir| drive_browser(&daemon, dir));
    // a run that was asked to end by itself is a test; one ended by Ctrl-C is not
    let arrived = time.map_or(Ok(()), |_| arrived(&daemon));
    stop(&daemon, visitors)?;
    shown.and(driven).and(arrived)
}

fn on_interrupt() -> anyhow::Result<Receiver<()>> {
    let (sender, receiver) = channel();
    let handler = move || {
        // after the first one nobody may be listening any more
        let _ = sender.send(());
    };
    ctrlc::set_handler(handler).context("watch for Ctrl-C")?;
    Ok(receiver)
}

fn start_vms(daemon: &Daemon) -> anyhow::Result<Vec<Visitor>> {
    let mut visitors = Vec::new();
    for (name, image, visited) in VMS {
        let image = guest(image).display().to_string();
        let mut args = vec!["run", &image, "--name", name, "--memory", MEMORY];
        let port = free_port()?;
        let publish = format!("{port}:80");
        if visited {
            args.extend(["-p", &publish]);
        }
        args.extend(["--", "--interval=1"]);
        let start = Instant::now();
        let id = daemon.uni_ok(&args)?;
        eprintln!("started {name} ({id}) in {} ms", start.elapsed().as_millis());
        if visited {
            visitors.push(Visitor::start(port));
        }
    }
    Ok(visitors)
}

/// Prints summaries until the time is over or Ctrl-C comes.
fn show(
    daemon: &Daemon,
    visitors: &[Visitor],
    time: Option<Duration>,
    interrupted: &Receiver<()>,
) -> anyhow::Result<()> {
    let terminal = std::io::stdout().is_terminal();
    let pause = if terminal { Duration::from_secs(1) } else { PLAIN_INTERVAL };
    let start = Instant::now();
    let mut drawn = 0;
    loop {
        let left = time.map(|time| time.saturating_sub(start.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(());
        }
        match interrupted.recv_timeout(left.map_or(pause, |left| left.min(pause))) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return Ok(()),
        }
        let lines = summary(daemon, visitors)?;
        if terminal && drawn > 0 {
            // up over the table drawn before, and clear from there to the end of the screen
            print!("\x1b[{drawn}A\x1b[J");
        }
        drawn = lines.len();
        println!("{}", lines.join("\n"));
    }
}

fn summary(daemon: &Daemon, visitors: &[Visitor]) -> anyhow::Result<Vec<String>> {
    let overview: Value = serde_json::from_str(&daemon.get("ui", "/ui/api/overview")?)?;
    let mut lines = vec![format!(
        "{:<10} {:<9} {:>7} {:>11} {:>11} {:>12} {:>12}",
        "VM", "STATE", "CPU %", "HOST MIB", "GUEST MIB", "RX KBIT/S", "TX KBIT/S"
    )];
    let vms = overview["vms"].as_array().cloned().unwrap_or_default();
    lines.extend(vms.iter().map(row));
    let (answers, failures) =
        visitors.iter().fold((0, 0), |(a, f), visitor| (a + visitor.answers(), f + visitor.failures()));
    lines.push(format!("visitors: {answers} answers, {failures} without"));
    Ok(lines)
}

fn row(vm: &Value) -> String {
    let number = |key: &str, divisor: f64| {
        vm[key].as_f64().map_or_else(|| "-".to_owned(), |v| format!("{:.1}", v / divisor))
    };
    format!(
        "{:<10} {:<9} {:>7} {:>11} {:>11} {:>12} {:>12}",
        vm["name"].as_str().unwrap_or("-"),
        vm["state"].as_str().unwrap_or("-"),
        number("cpu_pct", 1.0),
        number("mem_bytes", 1_048_576.0),
        number("guest_heap_bytes", 1_048_576.0),
        number("net_rx_bps", 1000.0),
        number("net_tx_bps", 1000.0),
    )
}

/// Both pages in a real browser, on the running demo.
fn drive_browser(daemon: &Daemon, shots: &Path) -> anyhow::Result<()> {
    install::ensure(&[install::CHROMIUM, install::NODE])?;
    build::page_dependencies()?;
    let base = format!("http://{}", daemon.address("ui")?);
    let shots = std::path::absolute(shots)?;
    std::fs::create_dir_all(&shots)?;
    let script = workspace().join("web/test/live.mjs");
    let mut node = Command::new("node");
    node.arg(script)
        .args(["--base", &base, "--vm", "web", "--shots"])
        .arg(&shots)
        .current_dir(workspace().join("web"));
    step::run("drive both pages in a browser", &mut node)
}

/// Says what arrived in the last 10 seconds, and fails unless every VM's inside and outside did.
fn arrived(daemon: &Daemon) -> anyhow::Result<()> {
    let mut silent = Vec::new();
    println!("\narrived in the last 10 s:");
    for (name, _, _) in VMS {
        let count = |field: &str, measurement: &str| {
            let q = format!(
                "SELECT count({field}) FROM {measurement} WHERE vm = '{name}' AND time > now() - 10s"
            );
            daemon.number(&q).unwrap_or(0.0)
        };
        let (outside, inside) = (count("rss", "kinfo_mem"), count("heap_bytes", "heap"));
        println!("{name:<10} outside {outside:>3} points, inside {inside:>3} points");
        if outside == 0.0 || inside == 0.0 {
            silent.push(name);
        }
    }
    if !silent.is_empty() {
        bail!("no points from inside or outside of: {}", silent.join(", "));
    }
    Ok(())
}

fn stop(daemon: &Daemon, visitors: Vec<Visitor>) -> anyhow::Result<()> {
    visitors.into_iter().for_each(Visitor::stop);
    for (name, _, _) in VMS {
        let start = Instant::now();
        daemon.uni_ok(&["stop", name])?;
        eprintln!("stopped {name} in {} ms", start.elapsed().as_millis());
    }
    eventually("all guests to be stopped", || {
        let status = daemon.uni_json(&["status"])?;
        anyhow::ensure!(status["running"] == 0, "{status}");
        Ok(())
    })
}
