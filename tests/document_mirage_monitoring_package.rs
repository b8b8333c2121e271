//! The package page of mirage-monitoring: what it says of the defaults, on a guest that is told the addresses only. The
//! commands of its control port are proven in `document_mirage_monitoring_readme`, whose text is the same.
//!
//! Owns nothing. Default ports are used where this machine has them free, else others are named. Of the page's memory
//! trace (port 4242) nothing is asked: guests have no trace port in this version.

use std::net::UdpSocket;

use anyhow::{Context as _, ensure};
use black_box::by_hand::{MACHINES, Qemu};
use black_box::control::{control, until_answering};
use black_box::influxd::{Influxd, query, write};
use black_box::line_sink::{LineSink, measurement};
use black_box::{PATIENCE, eventually, free_port};

/// An option with an address, and the port only where it is not the default.
fn option(name: &str, port: u16, default: u16) -> String {
    let port = if port == default { String::new() } else { format!(":{port}") };
    format!("--{name}=10.0.3.2{port}")
}

#[test]
fn metrics_go_to_influx_every_ten_seconds_and_logs_to_syslog_by_default() -> anyhow::Result<()> {
    let lines = LineSink::start(8094)?;
    let sink = UdpSocket::bind("127.0.0.1:514").or_else(|_| UdpSocket::bind("127.0.0.1:0"))?;
    sink.set_read_timeout(Some(PATIENCE))?;
    let (dir, adjust) = (tempfile::tempdir()?, free_port()?);
    let args = [
        "--name=web".to_owned(),
        "--management-ipv4=10.0.3.15/24".to_owned(),
        option("monitor", lines.port(), 8094),
        option("syslog", sink.local_addr()?.port(), 514),
    ];
    // the control port's default is 2323
    let management = format!("net=10.0.3.0/24,hostfwd=tcp:127.0.0.1:{adjust}-:2323");
    let guest = Qemu::boot(dir.path(), MACHINES[0], "hello", &management, &args.join(" "))?;
    until_answering(adjust)?;
    let status = control(adjust, "m*")?;
    for source in ["*:enabled", "memory:enabled", "logs:enabled", "net:enabled"] {
        ensure!(status.contains(source), "{source}: {status}");
    }
    let mut bytes = [0; 2048];
    let (len, _) = sink.recv_from(&mut bytes)?;
    ensure!(bytes[..len].starts_with(b"<"), "{}", bytes[..len].escape_ascii());

    let times = eventually("two reports", || {
        let lines = lines.lines();
        let memory = lines.iter().filter(|line| measurement(line) == "memory");
        let times: Vec<i64> = memory.filter_map(|line| line.rsplit_once(' ')?.1.parse().ok()).collect();
        ensure!(times.len() >= 2, "{lines:#?}");
        Ok(times)
    })?;
    let apart = (times[1] - times[0]) / 1_000_000;
    ensure!((9_000..11_000).contains(&apart), "{apart} ms apart: {:#?}", lines.lines());
    // the time between two reports is no reason to call the collector away
    ensure!(!guest.console().contains("not reachable"), "{}", guest.console());
    // "the Influx wire protocol", as its inventor reads it
    let influxd = Influxd::start()?;
    query(influxd.url(), "", "ms", "CREATE DATABASE telegraf")?;
    let lines = lines.lines();
    write(influxd.url(), "telegraf", &(lines.join("\n") + "\n"))?;
    let found = query(influxd.url(), "telegraf", "ms", "SELECT count(*) FROM memory WHERE vm = 'web'")?;
    let count = found["results"][0]["series"][0]["values"][0][1].as_u64().context("no count")?;
    let sent = lines.iter().filter(|line| measurement(line) == "memory").count();
    ensure!(count == u64::try_from(sent)?, "{sent} were sent: {found}");
    Ok(())
}

#[test]
fn a_unikernel_without_a_monitor_is_adjusted_all_the_same() -> anyhow::Result<()> {
    let (dir, adjust) = (tempfile::tempdir()?, free_port()?);
    let management = format!("net=10.0.3.0/24,hostfwd=tcp:127.0.0.1:{adjust}-:2323");
    let args = "--name=web --management-ipv4=10.0.3.15/24";
    let guest = Qemu::boot(dir.path(), MACHINES[0], "hello", &management, args)?;
    guest.wait_for("no monitor specified, not outputting statistics")?;
    guest.wait_for("no syslog specified, dumping on stdout")?;
    until_answering(adjust)?;
    ensure!(control(adjust, "L*:debug")? == "ok" && control(adjust, "l")? == "ok: *:debug");
    Ok(())
}
