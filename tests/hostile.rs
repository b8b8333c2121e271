//! Input that means harm, in quantity: refused, counted, and nobody else notices.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use black_box::{Daemon, eventually};

/// Sent at once.
const PIECE: usize = 1 << 20;
const GIB: usize = 1 << 30;

fn peak_mib(daemon: &Daemon) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
}

fn ingest(daemon: &Daemon, figure: &str) -> anyhow::Result<u64> {
    daemon.uni_json(&["status"])?["ingest"][figure].as_u64().context(figure.to_owned())
}

/// A point that is written and read meanwhile.
fn still_serves(daemon: &Daemon, n: u32) -> anyhow::Result<()> {
    let url = format!("http://{}/write?db=uni", daemon.address("api")?);
    let answer = ureq::post(&url).send(format!("good n={n}i"))?;
    ensure!(answer.status() == 204, "{}", answer.status());
    ensure!(daemon.number("SELECT last(n) FROM good")? == f64::from(n));
    Ok(())
}

#[test]
fn a_line_of_a_gibibyte_is_one_bad_line() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let before = peak_mib(&daemon)?;
    let mut stream = TcpStream::connect(daemon.address("line")?)?;
    let piece = vec![b'x'; PIECE];
    (0..GIB / PIECE).try_for_each(|_| stream.write_all(&piece))?;
    stream.write_all(b"\nafter f=1 1700000000000000000\n")?;
    eventually("the line after it", || daemon.number("SELECT count(f) FROM after"))?;
    ensure!(ingest(&daemon, "long_lines_total")? == 1);
    let more = peak_mib(&daemon)? - before;
    ensure!(more < 32, "{more} MiB more");
    Ok(())
}

#[test]
fn a_body_without_end_is_refused_at_its_bound() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let before = peak_mib(&daemon)?;
    let mut stream = TcpStream::connect(daemon.address("api")?)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let head = "POST /write?db=uni HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes())?;
    let piece = [format!("{PIECE:x}\r\n").into_bytes(), vec![b'x'; PIECE], b"\r\n".to_vec()].concat();
    // It is told before the end, or the connection is closed under it.
    let sent = (0..GIB / PIECE).take_while(|_| stream.write_all(&piece).is_ok()).count();
    ensure!(sent < 200, "{sent} MiB were taken");
    let mut answer = String::new();
    let _reset_after_the_answer = BufReader::new(&stream).read_line(&mut answer);
    ensure!(answer.is_empty() || answer.contains("413"), "{answer}");
    still_serves(&daemon, 1)?;
    let more = peak_mib(&daemon)? - before;
    ensure!(more < 96, "{more} MiB more");
    Ok(())
}

#[test]
fn of_ten_million_series_a_hundred_thousand_are_kept_and_the_others_counted() -> anyhow::Result<()> {
    const SERIES: u64 = 10_000_000;
    const KEPT: u64 = 100_000;
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let refused = || ingest(&daemon, "refused_points_total");
    let mut stream = TcpStream::connect(daemon.address("line")?)?;
    let mut text = String::new();
    for n in 0..SERIES {
        let _ = writeln!(text, "m,s={n} f=1 1700000000000000000");
        if text.len() > PIECE {
            stream.write_all(text.as_bytes())?;
            text.clear();
        }
        if n == SERIES / 2 {
            // A series that is known, while new ones are refused.
            let mut other = TcpStream::connect(daemon.address("line")?)?;
            other.write_all(b"m,s=7 f=2 1700000001000000000\n")?;
            eventually("the point of a known series", || {
                ensure!(daemon.number("SELECT count(f) FROM m WHERE s='7'")? == 2.0);
                Ok(())
            })?;
        }
    }
    stream.write_all(text.as_bytes())?;
    drop(stream);
    eventually("all to be counted", || {
        let count = refused()?;
        ensure!((SERIES - KEPT..=SERIES).contains(&count), "{count} refused");
        Ok(())
    })?;
    let peak = peak_mib(&daemon)?;
    println!("peak {peak} MiB with {KEPT} series and {SERIES} tried");
    ensure!(peak < 400, "{peak} MiB");
    Ok(())
}

#[test]
fn ten_thousand_connections_are_bounded_and_leave_room_for_the_good() -> anyhow::Result<()> {
    const MANY: usize = 10_000;
    let state = tempfile::tempdir()?;
    let own = std::process::id().to_string();
    let raised = Command::new("prlimit").args(["--pid", &own, "--nofile=12000:"]).status()?;
    ensure!(raised.success(), "prlimit --nofile=12000");
    let daemon = Daemon::start(state.path(), &[])?;
    let mut first = TcpStream::connect(daemon.address("line")?)?;
    let line = daemon.address("line")?;
    let mut held = Vec::new();
    for _ in 0..MANY {
        held.push(TcpStream::connect(&line)?);
    }
    eventually("the refusals to be counted", || {
        let refused = ingest(&daemon, "refused_connections_total")?;
        ensure!(refused >= MANY as u64 - 1024, "{refused}");
        Ok(())
    })?;
    first.write_all(b"good,from=first n=1i 1700000000000000000\n")?;
    eventually("the good sender's point", || daemon.number("SELECT count(n) FROM good"))?;
    still_serves(&daemon, 2)?;
    drop(held);
    // The same at the HTTP listener: those beyond its bound are answered 503 or closed.
    let api = daemon.address("api")?;
    let many: Vec<TcpStream> = (0..MANY).map_while(|_| TcpStream::connect(&api).ok()).collect();
    ensure!(many.len() == MANY, "{} connections", many.len());
    let last = many.last().context("a last one")?;
    last.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut answer = Vec::new();
    let _reset = last.take(200).read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    ensure!(answer.is_empty() || answer.contains("503"), "{answer}");
    drop(many);
    eventually("room again", || still_serves(&daemon, 3))
}
