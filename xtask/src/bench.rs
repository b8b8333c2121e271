//! The figures of `docs/PERFORMANCE.md`, as ratios to a baseline of the same run where there is one.
//!
//! Owns the measuring of the whole system from outside: start-up, sizes, idle cost, memory. Prints Markdown.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use black_box::{Daemon, boot_sector, eventually, guest};

use crate::{build, install};

/// Starts measured on each side, taken in turn so that a busy moment of the machine hits both.
const STARTS: usize = 15;
/// How long idle cost is watched.
const IDLE: Duration = Duration::from_secs(30);
/// How long a flood of the console is watched.
const FLOOD: Duration = Duration::from_secs(10);
/// What the guest prints first.
const FIRST_LINE_BYTES: usize = 8;

/// Runs an example of `uni-store` that measures and prints.
pub(crate) fn example(name: &str, args: &[&str]) -> anyhow::Result<()> {
    let mut command = build::cargo();
    command.args(["run", "--release", "--quiet", "-p", "uni-store", "--example", name, "--"]).args(args);
    let ended = command.status().with_context(|| format!("run the example {name}"))?;
    ensure!(ended.success(), "the example {name} ended with {ended}");
    Ok(())
}

/// The example `tiers` in a folder of its own.
pub(crate) fn tiers() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path().join("store");
    example("tiers", &[folder.to_str().context("a path of text")?, "10"])
}

/// Measures and prints.
pub(crate) fn run() -> anyhow::Result<()> {
    install::ensure(&[install::QEMU])?;
    build::all()?;
    println!("| figure | measured | aim |\n|---|---|---|");
    sizes()?;
    start_up()?;
    at_rest()?;
    flood()?;
    sampler()
}

fn row(figure: &str, measured: &str, aim: &str) {
    println!("| {figure} | {measured} | {aim} |");
}

fn sizes() -> anyhow::Result<()> {
    for name in ["hello", "http"] {
        let bytes = std::fs::metadata(guest(name))?.len();
        row(&format!("image `{name}`"), &format!("{:.0} KB", to_f64(bytes) / 1000.0), "<= 400 KB");
    }
    Ok(())
}

/// `uni run` to the first byte on the serial line, beside the same QEMU line by hand.
fn start_up() -> anyhow::Result<()> {
    let state = tempfile::Builder::new().prefix("uni-bench-").tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let (mut ours, mut by_hand) = (Vec::new(), Vec::new());
    let image = guest("hello");
    // the first start of each also reads QEMU from disk
    first_line_by_hand(&image)?;
    first_line_by_uni(&daemon, &image, 999)?;
    for n in 0..STARTS {
        by_hand.push(first_line_by_hand(&image)?);
        ours.push(first_line_by_uni(&daemon, &image, n)?);
    }
    let (ours, by_hand) = (median(ours), median(by_hand));
    let measured = format!(
        "{:.1} ms, by hand {:.1} ms: {:+.1} ms (medians of {STARTS}, in turn)",
        ours.as_secs_f64() * 1e3,
        by_hand.as_secs_f64() * 1e3,
        (ours.as_secs_f64() - by_hand.as_secs_f64()) * 1e3
    );
    row("`uni run` to first serial byte", &measured, "<= 15 ms more than by hand");
    Ok(())
}

/// The QEMU line that unid composes, less its sockets, with the serial line on stdout.
fn first_line_by_hand(image: &Path) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let mut child = Command::new("qemu-system-x86_64")
        .args([
            "-M",
            "microvm",
            "-accel",
            "tcg",
            "-cpu",
            "max",
            "-m",
            "32M",
            "-nodefaults",
            "-no-user-config",
        ])
        .args(["-display", "none", "-no-reboot", "-serial", "stdio"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .args([
            "-netdev",
            "user,id=service",
            "-device",
            "virtio-net-device,netdev=service,mac=02:75:6e:00:00:01",
        ])
        .args([
            "-netdev",
            "user,id=management",
            "-device",
            "virtio-net-device,netdev=management,mac=02:75:6e:01:00:01",
        ])
        .arg("-kernel")
        .arg(image)
        .args(["-append", "--name=bench --ipv4=10.0.2.15/24"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("start QEMU by hand")?;
    let mut first = [0; FIRST_LINE_BYTES];
    let read = child.stdout.take().context("QEMU's stdout")?.read_exact(&mut first);
    let elapsed = start.elapsed();
    child.kill()?;
    child.wait()?;
    read.context("the guest's first bytes")?;
    Ok(elapsed)
}

/// From starting the program `uni` until the guest's first bytes are in the console's file.
fn first_line_by_uni(daemon: &Daemon, image: &Path, n: usize) -> anyhow::Result<Duration> {
    let name = format!("bench{n}");
    let start = Instant::now();
    let mut run = Command::new(black_box::bin_dir().join("uni"))
        .arg("--socket")
        .arg(daemon.socket())
        .args(["run", "--name", &name, "--memory", "32M"])
        .arg(image)
        .stdout(Stdio::null())
        .spawn()?;
    let vms = daemon.state_dir().join("vms");
    let deadline = start + black_box::PATIENCE;
    while console_bytes(&vms) < FIRST_LINE_BYTES as u64 {
        ensure!(Instant::now() < deadline, "no console output of {name}");
        std::thread::sleep(Duration::from_micros(200));
    }
    let elapsed = start.elapsed();
    ensure!(run.wait()?.success(), "uni run failed");
    daemon.uni_ok(&["stop", &name, "--force"])?;
    daemon.uni_ok(&["rm", &name])?;
    Ok(elapsed)
}

/// Bytes of console of the only VM there is.
fn console_bytes(vms: &Path) -> u64 {
    let files = std::fs::read_dir(vms)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|vm| std::fs::read_dir(vm.path()).ok());
    let console = files.flatten().flatten().filter(|file| is_console(&file.file_name().to_string_lossy()));
    console.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

/// The console's pieces are `console.<offset>.log`; beside them lies the list of runs.
fn is_console(name: &str) -> bool {
    name.starts_with("console.") && name.ends_with(".log")
}

/// Three idle VMs: CPU of a guest, memory of a shim and of unid.
fn at_rest() -> anyhow::Result<()> {
    let state = tempfile::Builder::new().prefix("uni-bench-").tempdir()?;
    let daemon = Daemon::start(state.path(), &["--interval", "1s"])?;
    let mut pids = Vec::new();
    for (name, image) in [("a", "http"), ("b", "http"), ("c", "hello")] {
        let image = guest(image).display().to_string();
        daemon.uni_ok(&["run", &image, "--name", name, "--memory", "32M", "--", "--interval=1"])?;
        let detail = daemon.uni_json(&["inspect", name])?;
        let pid = |key: &str| detail[key].as_u64().with_context(|| format!("{key} in {detail}"));
        pids.push((pid("pid")?, pid("shim_pid")?));
    }
    eventually("points of all three", || daemon.number("SELECT count(heap_bytes) FROM heap WHERE vm = 'c'"))?;
    std::thread::sleep(Duration::from_secs(3));
    let before: Vec<u64> = pids.iter().map(|(qemu, _)| cpu_ticks(*qemu)).collect::<Result<_, _>>()?;
    let unid_before = cpu_ticks(daemon.pid().into())?;
    std::thread::sleep(IDLE);
    let percent = |ticks: u64| format!("{:.2} %", to_f64(ticks) / IDLE.as_secs_f64());
    for ((name, (qemu, _)), before) in ["http", "http", "hello"].iter().zip(&pids).zip(before) {
        let measured = format!(
            "{} of a core over {IDLE:?}, reporting every second",
            percent(cpu_ticks(*qemu)? - before)
        );
        row(&format!("idle guest `{name}`"), &measured, "<= 0.5 %");
    }
    row("unid with three VMs at 1 s", &percent(cpu_ticks(daemon.pid().into())? - unid_before), "-");
    let shims: Vec<u64> = pids.iter().map(|(_, shim)| rss_kib(*shim)).collect::<Result<_, _>>()?;
    let largest = shims.iter().max().copied().unwrap_or_default();
    row(
        "resident memory of a shim",
        &format!("{:.1} MiB (largest of three)", to_f64(largest) / 1024.0),
        "<= 4 MiB",
    );
    let unid = to_f64(rss_kib(daemon.pid().into())?) / 1024.0;
    row("resident memory of unid with three VMs", &format!("{unid:.1} MiB"), "<= 40 MiB");
    Ok(())
}

/// What looking at VMs from outside costs; the program prints rows of two columns.
fn sampler() -> anyhow::Result<()> {
    let output = build::cargo()
        .args(["run", "--quiet", "--release", "-p", "uni-host", "--example", "sample_cost"])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the example sample_cost failed");
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        println!("{line} - |");
    }
    Ok(())
}

/// A guest that prints at full speed: CPU of its shim and of unid, nobody reading and two following.
fn flood() -> anyhow::Result<()> {
    let state = tempfile::Builder::new().prefix("uni-bench-").tempdir()?;
    let image = state.path().join("flood.img");
    std::fs::write(&image, boot_sector(&[[b'x'; 62].as_slice(), b"\r\n"].concat(), true))?;
    let daemon = Daemon::start(&state.path().join("s"), &[])?;
    daemon.uni_ok(&["run", &image.display().to_string(), "--name", "flood", "--memory", "32M"])?;
    let detail = daemon.uni_json(&["inspect", "flood"])?;
    let shim = detail["shim_pid"].as_u64().with_context(|| format!("shim_pid in {detail}"))?;
    let percent = || -> anyhow::Result<String> {
        let before = (cpu_ticks(shim)?, cpu_ticks(daemon.pid().into())?);
        std::thread::sleep(FLOOD);
        let of_a_core = |ticks: u64| to_f64(ticks) / FLOOD.as_secs_f64();
        let (shim, unid) = (cpu_ticks(shim)? - before.0, cpu_ticks(daemon.pid().into())? - before.1);
        Ok(format!("shim {:.1} %, unid {:.1} % of a core", of_a_core(shim), of_a_core(unid)))
    };
    row("console at full speed, nobody reading", &percent()?, "<= 10 % together");
    let follow = || {
        let mut follow = Command::new(black_box::bin_dir().join("uni"));
        follow.arg("--socket").arg(daemon.socket()).args(["logs", "-f", "--tail-bytes", "0", "flood"]);
        follow.stdout(Stdio::null()).spawn()
    };
    let mut followers = [follow()?, follow()?];
    row("console at full speed, two `logs -f`", &percent()?, "<= 10 % together");
    for follower in &mut followers {
        follower.kill()?;
        follower.wait()?;
    }
    Ok(())
}

/// User and system time, in ticks of 10 ms (`proc(5)`: fields 14 and 15, counted behind the name's parenthesis).
pub(crate) fn cpu_ticks(pid: u64) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("stat")?.1.split_whitespace().collect();
    Ok(fields.get(11).context("utime")?.parse::<u64>()? + fields.get(12).context("stime")?.parse::<u64>()?)
}

fn rss_kib(pid: u64) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort();
    durations.get(durations.len() / 2).copied().unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "sizes and ticks far below 2^53")]
pub(crate) fn to_f64(value: u64) -> f64 {
    value as f64
}
