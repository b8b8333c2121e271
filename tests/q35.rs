//! The path from `uni run` to `/query` on the machine with PCI.
//!
//! Owns nothing: drives `unid` and `uni` as a user does. What the guests themselves do on both machines is tested
//! in `guests.rs`, the whole path in `first_curve.rs`.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use black_box::{Daemon, eventually, free_port, guest};

/// Connections one after the other: each is some interrupts of the card.
const REQUESTS: usize = 500;
/// Connections whose client closes its half at once, while the guest is about to close its own.
const HALF_CLOSED: usize = 2000;
/// smoltcp and slirp send again after a second; a lost interrupt would show as such a wait.
const SLOWEST: Duration = Duration::from_millis(900);

fn get(port: u16, half_closed: bool) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")?;
    if half_closed {
        stream.shutdown(Shutdown::Write)?;
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_guest_on_q35_serves_is_seen_from_both_sides_and_stops_by_its_button() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &["--interval", "1s"])?;
    let port = free_port()?;
    let image = guest("http").display().to_string();
    let publish = format!("{port}:80");
    let run = ["run", &image, "--name", "web", "--memory", "32M", "--machine", "q35", "-p", &publish];
    daemon.uni_ok(&[&run[..], &["--", "--interval=1"]].concat())?;
    ensure!(daemon.uni_json(&["inspect", "web"])?["machine"] == "q35");

    for _ in 0..REQUESTS {
        let asked = Instant::now();
        let answer = get(port, false)?;
        let took = asked.elapsed();
        ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        ensure!(took < SLOWEST, "an answer took {took:?}");
    }
    two_clients_that_close_at_once_are_all_answered(port)?;
    eventually("points from both sides", || {
        daemon.number("SELECT last(rss) FROM kinfo_mem WHERE vm = 'web'")?;
        daemon.number("SELECT last(heap_live_bytes) FROM heap WHERE vm = 'web'")?;
        let served = daemon.number("SELECT last(\"2xx\") FROM http_response WHERE vm = 'web'")?;
        ensure!(served >= 500.0, "{served} answers counted");
        Ok(())
    })?;

    let stopping = Instant::now();
    daemon.uni_ok(&["stop", "web"])?;
    let took = stopping.elapsed();
    ensure!(took < Duration::from_secs(2), "stop took {took:?}");
    let stopped = daemon.uni_json(&["inspect", "web"])?;
    ensure!(stopped["state"] == "stopped" && stopped["exit_code"] == 0, "{stopped}");
    Ok(())
}

fn two_clients_that_close_at_once_are_all_answered(port: u16) -> anyhow::Result<()> {
    let client = || {
        (0..HALF_CLOSED).try_for_each(|n| {
            let answer = get(port, true).with_context(|| format!("connection {n}"))?;
            ensure!(answer.starts_with("HTTP/1.1 200 "), "connection {n}: {answer:?}");
            Ok(())
        })
    };
    std::thread::scope(|scope| {
        let clients = [scope.spawn(client), scope.spawn(client)];
        clients
            .into_iter()
            .try_for_each(|client| client.join().unwrap_or_else(|_| bail!("a client panicked")))
    })
}

/// q35 forgets a button that is pressed before the guest listens for it.
#[test]
fn a_stop_right_after_the_start_is_not_lost_on_q35() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let image = guest("hello").display().to_string();
    let run = ["run", &image, "--name", "brief", "--memory", "32M", "--machine", "q35"];
    std::thread::scope(|scope| {
        let running = scope.spawn(|| daemon.uni(&run));
        // as soon as there is something to stop
        eventually("the stop to be taken", || daemon.uni_ok(&["stop", "brief", "--time", "20"]).map(drop))?;
        running.join().map_err(|_| anyhow::anyhow!("uni run panicked"))??;
        let stopped = daemon.uni_json(&["inspect", "brief"])?;
        ensure!(stopped["state"] == "stopped" && stopped["exit_code"] == 0, "{stopped}");
        Ok(())
    })
}

#[test]
fn a_machine_that_cannot_be_is_refused_with_what_can() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let image = guest("hello").display().to_string();
    let unknown = daemon.uni(&["run", &image, "--machine", "pc"])?;
    let stderr = String::from_utf8_lossy(&unknown.stderr).into_owned();
    ensure!(unknown.status.code() == Some(1) && stderr.contains("microvm, q35"), "{stderr}");

    let disk = state.path().join("disk.img");
    let mut sector = [0_u8; 512];
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(&disk, sector)?;
    let refused = daemon.uni(&["run", &disk.display().to_string(), "--machine", "q35"])?;
    let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && stderr.contains("leave out --machine"), "{stderr}");
    Ok(())
}
