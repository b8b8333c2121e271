//! The article "All your metrics belong to influx": its set-up with `unid` in the place of Telegraf's socket listener,
//! of InfluxDB and of `albatross-influx`, and its command line given to a guest by hand.
//!
//! Owns nothing. The article's ports are used where this machine has them free, else others.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{TcpStream, UdpSocket};

use anyhow::{Context as _, ensure};
use black_box::by_hand::{MACHINES, Qemu};
use black_box::control::{control, until_answering};
use black_box::influxd::{Influxd, query, same, write};
use black_box::{Daemon, PATIENCE, eventually, free_port, guest};
use serde_json::{Value, json};

/// `unid --line-addr :8094`.
fn collector(state: &tempfile::TempDir) -> anyhow::Result<(Daemon, u16)> {
    let daemon = Daemon::start_at(state.path(), "--line-addr", 8094)?;
    let port = daemon.address("line")?.rsplit_once(':').context("no port")?.1.parse()?;
    Ok((daemon, port))
}

/// `host`, with the port only where it is not the one meant without.
fn target(host: &str, port: u16, default: u16) -> String {
    if port == default { host.to_owned() } else { format!("{host}:{port}") }
}

/// The second column of all rows of all series.
fn values(daemon: &Daemon, q: &str) -> anyhow::Result<BTreeSet<String>> {
    let answer = daemon.query(q)?;
    let series = answer["results"][0]["series"].as_array().cloned().unwrap_or_default();
    let rows = series.iter().filter_map(|series| series["values"].as_array()).flatten();
    Ok(rows.filter_map(|row| row.as_array()?.last()?.as_str().map(str::to_owned)).collect())
}

#[test]
fn required_components_a_socket_listener_that_keeps_connections() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let (daemon, port) = collector(&state)?;
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    // data_format = "influx"; one connection for all reports
    for report in 1..=3 {
        writeln!(stream, "memory,vm=my.unikernel free={report}i 160000000{report}000000000")?;
        eventually("the report", || {
            let count = daemon.number("SELECT count(free) FROM memory WHERE vm = 'my.unikernel'")?;
            ensure!(count == f64::from(report), "{count} of {report}");
            Ok(())
        })?;
    }
    // keep_alive_period: the listener's end has the timer of keep-alive probes (2) running
    let (local, remote) = (format!(":{port:04X}"), format!(":{:04X}", stream.local_addr()?.port()));
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut ours = rows.filter(|row| row.len() > 5 && row[1].ends_with(&local) && row[2].ends_with(&remote));
    let timer = ours.next().context("the connection is not in the table")?[5].to_owned();
    ensure!(timer.starts_with("02:"), "{timer}");
    Ok(())
}

#[test]
fn adding_monitoring_the_command_line_of_a_unikernel_by_hand() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let (daemon, port) = collector(&state)?;
    let sink = UdpSocket::bind("127.0.0.1:514").or_else(|_| UdpSocket::bind("127.0.0.1:0"))?;
    sink.set_read_timeout(Some(PATIENCE))?;
    // a private network with the collector's address; the syslog sink is on the same machine here
    let adjust = free_port()?;
    let management =
        format!("net=192.168.42.0/24,host=192.168.42.14,hostfwd=tcp:127.0.0.1:{adjust}-192.168.42.2:12345");
    let args = [
        "--ipv4=10.0.2.15/24".to_owned(),
        "--management-ipv4=192.168.42.2/24".to_owned(),
        format!("--monitor={}", target("192.168.42.14", port, 8094)),
        format!("--syslog={}", target("192.168.42.14", sink.local_addr()?.port(), 514)),
        "--name=my.unikernel".to_owned(),
        "--monitor-adjust=12345".to_owned(),
    ];
    let dir = tempfile::tempdir()?;
    let _guest = Qemu::boot(dir.path(), MACHINES[0], "http", &management, &args.join(" "))?;

    let mut bytes = [0; 2048];
    let (len, _) = sink.recv_from(&mut bytes)?;
    let message = String::from_utf8_lossy(&bytes[..len]).into_owned();
    ensure!(message.starts_with('<') && message.contains(" my.unikernel "), "{message}");
    until_answering(adjust)?;
    ensure!(control(adjust, "Lhttp:debug")? == "ok" && control(adjust, "l")? == "ok: *:info,http:debug");

    // "every 10 seconds"
    let times = eventually("two reports", || {
        let rows = daemon.rows("SELECT heap_bytes FROM heap WHERE vm = 'my.unikernel'")?;
        let times: Vec<_> = rows.iter().filter_map(|row| row[0].as_i64()).collect();
        ensure!(times.len() >= 2, "{times:?}");
        Ok(times)
    })?;
    ensure!((9_000..11_000).contains(&(times[1] - times[0])), "{times:?}");
    // one connection for all reports
    ensure!(daemon.number("SELECT max(reconnects) FROM agent WHERE vm = 'my.unikernel'")? == 0.0);
    // "each reported metrics includes a tag vm=<name>"
    let measurements = values(&daemon, "SHOW MEASUREMENTS")?;
    for wanted in ["gc", "memory", "logs", "net", "http_response"] {
        ensure!(measurements.contains(wanted), "{wanted}: {measurements:?}");
    }
    for measurement in &measurements {
        let series = values(&daemon, &format!("SHOW SERIES FROM \"{measurement}\""))?;
        let has_name = |series: &String| series.contains(",vm=my.unikernel");
        ensure!(!series.is_empty() && series.iter().all(has_name), "{measurement}: {series:?}");
    }
    Ok(())
}

#[test]
fn the_same_command_line_with_uni_over_the_vms_private_link() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let image = guest("http").display().to_string();
    let flags = ["run", &image, "--name", "my.unikernel", "--memory", "32M", "--no-add-name", "--"];
    // unid's end of that link has the collector's and the sink's ports
    let args = [
        "--ipv4=10.0.2.15/24",
        "--management-ipv4=10.99.0.2/24",
        "--monitor=10.99.0.1",
        "--syslog=10.99.0.1",
        "--name=my.unikernel",
        "--monitor-adjust=12345",
    ];
    daemon.uni_ok(&[&flags[..], &args].concat())?;
    let vm = daemon.uni_json(&["inspect", "my.unikernel"])?;
    ensure!(vm["args"] == json!(args) && vm.get("added_args").is_none(), "{vm}");
    eventually("metrics by TCP and a message by UDP", || {
        daemon.number("SELECT last(\"live words\") FROM gc WHERE vm = 'my.unikernel'")?;
        let rows = daemon.rows("SELECT hostname, message FROM syslog WHERE vm = 'my.unikernel'")?;
        let message = rows[0][2].as_str().unwrap_or_default();
        ensure!(rows[0][1] == "my.unikernel" && !message.is_empty(), "{rows:?}");
        Ok(())
    })
}

#[test]
fn albatross_influx_reports_from_the_host() -> anyhow::Result<()> {
    let (telegraf_state, host_state) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let (telegraf, port) = collector(&telegraf_state)?;
    let host = Daemon::start(host_state.path(), &["--influx", &target("127.0.0.1", port, 8094)])?;
    let image = guest("hello").display().to_string();
    host.uni_ok(&["run", &image, "--name", "my.unikernel", "--memory", "32M"])?;
    for (measurement, field) in
        [("kinfo_mem", "rss"), ("resource_usage", "utime"), ("interface", "host_to_vm_bytes")]
    {
        eventually(measurement, || {
            telegraf.number(&format!("SELECT last({field}) FROM {measurement} WHERE vm = 'my.unikernel'"))
        })?;
    }
    // the host's view alone is pushed; the unikernel reports itself
    ensure!(!values(&telegraf, "SHOW MEASUREMENTS")?.contains("gc"));
    Ok(())
}

#[test]
fn grafanas_influxdb_data_source_finds_what_it_asks_for() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let influxd = Influxd::start()?;
    let unid = format!("http://{}", daemon.address("api")?);
    query(influxd.url(), "", "ms", "CREATE DATABASE telegraf")?;
    let lines = "memory,vm=my.unikernel free=1i 1600000000000000000\n\
                 memory,vm=ns.nqsb.io free=3i 1600000010000000000\n\
                 interface,vm=my.unikernel,bridge=service mtu=1500i 1600000000000000000\n";
    for server in [unid.as_str(), influxd.url()] {
        write(server, "telegraf", lines)?;
        let ping = ureq::get(format!("{server}/ping")).call()?;
        ensure!(ping.status() == 204, "{server}: {ping:?}");
        ensure!(ping.headers()["x-influxdb-version"].to_str()?.starts_with("1."), "{server}: {ping:?}");
    }
    for q in [
        "SHOW measurements",
        "SHOW MEASUREMENTS LIMIT 100",
        "SHOW MEASUREMENTS WITH MEASUREMENT =~ /(?i)mem/ LIMIT 100",
        "SHOW RETENTION POLICIES on \"telegraf\"",
        "SHOW TAG KEYS FROM \"interface\"",
        "SHOW FIELD KEYS FROM \"memory\"",
        "SHOW TAG VALUES WITH KEY = \"vm\"",
        "SHOW TAG VALUES FROM \"memory\" WITH KEY = \"vm\"",
        "SELECT mean(\"free\") FROM \"memory\" WHERE time >= 1599999990000ms and time <= 1600000020000ms \
         GROUP BY time(10s), \"vm\"::tag fill(null)",
    ] {
        let (ours, theirs) = (query(&unid, "telegraf", "ms", q)?, query(influxd.url(), "telegraf", "ms", q)?);
        ensure!(theirs["results"][0]["series"].is_array(), "{q}: {theirs}");
        ensure!(same(&ours, &theirs), "{q}\n unid: {ours}\n influxd: {theirs}");
        // Grafana's default is GET
        let parameters = [("db", "telegraf"), ("epoch", "ms"), ("q", q)];
        let got: Value =
            ureq::get(format!("{unid}/query")).query_pairs(parameters).call()?.body_mut().read_json()?;
        ensure!(got == ours, "{q}: {got}");
    }
    Ok(())
}
