//! `uni stats`: figures of a busy and of an idle guest, the beat of --watch, its forms, and what is refused.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use black_box::{Daemon, bin_dir, eventually, free_port, guest};
use serde_json::Value;

fn run(daemon: &Daemon, kind: &str, name: &str, more: &[&str]) -> anyhow::Result<()> {
    let image = guest(kind).display().to_string();
    daemon.uni_ok(&[&["run", &image, "--name", name, "--memory", "32M"], more].concat())?;
    Ok(())
}

fn number(stats: &Value, key: &str) -> anyhow::Result<f64> {
    stats[key].as_f64().with_context(|| format!("no {key}: {stats}"))
}

/// A `uni` that is ended when the test is.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(daemon: &Daemon, args: &[&str]) -> anyhow::Result<Running> {
    let mut command = Command::new(bin_dir().join("uni"));
    command.arg("--socket").arg(daemon.socket()).args(args);
    Ok(Running(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?))
}

#[test]
fn a_busy_guest_and_an_idle_one_have_the_figures_they_should() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let port = free_port()?;
    run(&daemon, "http", "busy", &["-p", &format!("{port}:80")])?;
    run(&daemon, "plain", "idle", &[])?;
    let done = Arc::new(AtomicBool::new(false));
    let load = std::thread::spawn({
        let done = Arc::clone(&done);
        move || {
            while !done.load(Relaxed) {
                let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
                let _ = stream.read_to_end(&mut Vec::new());
            }
        }
    });
    let found = eventually("a busy guest that is busier than an idle one", || {
        let (busy, idle) = (daemon.uni_json(&["stats", "busy"])?, daemon.uni_json(&["stats", "idle"])?);
        let twice_idle = 2.0 * number(&idle, "cpu_pct")?;
        ensure!(number(&busy, "cpu_pct")? > twice_idle.max(1.0), "{busy} {idle}");
        ensure!(number(&busy, "net_rx_bytes")? > 10_000.0, "{busy}");
        Ok([busy, idle])
    });
    done.store(true, Relaxed);
    let _ = load.join();
    for stats in &found? {
        ensure!(stats["source"] == "proc" && stats["state"] == "running", "{stats}");
        ensure!((0.0..=800.0).contains(&number(stats, "cpu_pct")?), "{stats}");
        ensure!((4e6..1e9).contains(&number(stats, "mem_bytes")?), "{stats}");
        let time = stats["timestamp"].as_str().unwrap_or_default();
        ensure!(time.len() == 20 && time.ends_with('Z'), "{stats}");
    }
    Ok(())
}

#[test]
fn the_table_has_the_lines_of_the_contract_and_a_stopped_vm_falls_back() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    run(&daemon, "hello", "one", &[])?;
    let id = daemon.uni_json(&["inspect", "one"])?["id"].as_str().unwrap_or_default().to_owned();
    let table = daemon.uni_ok(&["stats", "one"])?;
    let names: Vec<&str> = table.lines().filter_map(|line| line.split("  ").next()).collect();
    let without_disk: Vec<&str> = names.iter().copied().filter(|name| *name != "Disk").collect();
    ensure!(without_disk == ["ID", "State", "CPU", "Memory", "Net RX", "Net TX", "Source"], "{table}");
    ensure!(table.starts_with(&format!("ID      {id}\nState   running\nCPU     ")), "{table}");
    ensure!(
        table.contains("Memory  ") && table.contains(" MiB\n") && table.ends_with("Source  proc"),
        "{table}"
    );
    daemon.uni_ok(&["stop", "one", "--force"])?;
    let zeros = format!(
        "ID      {id}\nState   stopped\nCPU     0.0%\nMemory  0 B\nNet RX  0 B\nNet TX  0 B\nSource  fallback"
    );
    let stopped = daemon.uni_ok(&["stats", "one"])?;
    ensure!(stopped == zeros, "{stopped}");
    let json = daemon.uni_ok(&["stats", "one", "--output", "json"])?;
    ensure!(json.starts_with("{\n  \"id\": ") && !json.contains("disk_bytes"), "{json}");
    Ok(())
}

#[test]
fn watching_keeps_its_beat_one_object_a_line_and_outlives_a_restart_of_the_daemon() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let mut daemon = Daemon::start(state.path(), &[])?;
    run(&daemon, "hello", "one", &[])?;
    // half a second is raised to a second
    let mut watch = spawn(&daemon, &["stats", "one", "--watch", "-i", "500ms", "--output", "json"])?;
    let mut lines = BufReader::new(watch.0.stdout.take().context("no stdout")?).lines();
    let mut next = || -> anyhow::Result<Value> {
        let line = lines.next().context("it ended")??;
        serde_json::from_str(&line).with_context(|| format!("not an object a line: {line:?}"))
    };
    next()?;
    let start = Instant::now();
    for _ in 0..4 {
        let stats = next()?;
        ensure!(stats["source"] == "proc", "{stats}");
    }
    let took = start.elapsed();
    ensure!((Duration::from_millis(3500)..Duration::from_secs(10)).contains(&took), "4 beats took {took:?}");
    daemon.restart()?;
    for _ in 0..3 {
        next()?;
    }
    daemon.uni_ok(&["rm", "one", "--force"])?;
    eventually("the watch to end with the VM", || {
        let status = watch.0.try_wait()?.context("it goes on")?;
        ensure!(status.code() == Some(1), "{status}");
        Ok(())
    })
}

#[test]
fn watching_prints_blocks_to_a_pipe_and_redraws_on_a_terminal() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    run(&daemon, "hello", "one", &[])?;
    let mut piped = spawn(&daemon, &["stats", "one", "-w", "-i", "1s"])?;
    let stdout = piped.0.stdout.take().context("no stdout")?;
    let lines: Vec<String> = BufReader::new(stdout).lines().take(17).collect::<Result<_, _>>()?;
    let text = lines.join("\n");
    ensure!(text.matches("\n\nID ").count() >= 1 && !text.contains('\x1b'), "{text:?}");
    let uni = format!(
        "{} --socket {} stats one -w -i 1s",
        bin_dir().join("uni").display(),
        daemon.socket().display()
    );
    let script = Command::new("script")
        .args(["-qec", &uni, "/dev/null"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    let mut terminal = Running(script.context("start script(1)")?);
    let mut seen = String::new();
    let mut stdout = terminal.0.stdout.take().context("no stdout")?;
    while seen.matches("Source").count() < 3 {
        let mut piece = [0; 4096];
        let n = stdout.read(&mut piece)?;
        ensure!(n > 0, "script ended: {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&piece[..n]));
    }
    ensure!(seen.starts_with("\x1b[2J\x1b[H\x1b[HID "), "{seen:?}");
    ensure!(seen.matches("\x1b[HID ").count() >= 3 && seen.contains("\x1b[K\r\n"), "{seen:?}");
    Ok(())
}

#[test]
fn bad_intervals_and_unknown_vms_are_refused() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    for (args, words) in [
        (&["stats", "nobody"][..], "\"nobody\" not found"),
        (&["stats", "nobody", "--watch"], "\"nobody\" not found"),
        (&["stats", "nobody", "-i", "soon"], "`soon` is not a duration"),
        (&["stats", "nobody", "-w", "--interval", "5x"], "`5x` is not a duration"),
        (&["stats"], "<VM>"),
    ] {
        let output = daemon.uni(args)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1) && output.stdout.is_empty(), "{args:?}: {output:?}");
        ensure!(stderr.contains(words), "{args:?}: {stderr}");
    }
    Ok(())
}
