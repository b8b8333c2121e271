//! Databases, retention policies, deletion and the cap of the disk: beside a real InfluxDB where it has the words, and over
//! restarts.

use anyhow::{Context as _, ensure};
use black_box::influxd::{Influxd, same};
use black_box::{Daemon, eventually};
use serde_json::Value;

/// What is asked of both: `Q` a query, `D` one of a database, `W` a write with its parameters. NOW is the time of the test.
const SCRIPT: &str = include_str!("peers/retention.txt");

/// Status and body of an answer; an empty body is null.
fn answer(response: ureq::http::Response<ureq::Body>) -> anyhow::Result<(u16, Value)> {
    let status = response.status().as_u16();
    let text = response.into_body().read_to_string()?;
    let body = if text.trim().is_empty() { Value::Null } else { serde_json::from_str(&text)? };
    Ok((status, body))
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

fn ask(url: &str, db: &str, q: &str) -> anyhow::Result<(u16, Value)> {
    let asked = agent().post(format!("{url}/query")).query("db", db).query("epoch", "ns");
    answer(asked.send_form([("q", q)])?)
}

fn write(url: &str, parameters: &str, lines: &str) -> anyhow::Result<(u16, Value)> {
    answer(agent().post(format!("{url}/write?{parameters}")).send(lines)?)
}

/// One line of the script.
fn play(url: &str, line: &str) -> anyhow::Result<(u16, Value)> {
    let (kind, rest) = line.split_once(' ').context("a kind")?;
    match kind {
        "Q" => ask(url, "", rest),
        "D" => rest.split_once(' ').context("a database").and_then(|(db, q)| ask(url, db, q)),
        "W" => rest.split_once(' ').context("parameters").and_then(|(p, lines)| write(url, p, lines)),
        other => anyhow::bail!("{other}?"),
    }
}

#[test]
fn policies_drops_and_deletions_are_answered_as_by_influxdb() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let mut daemon = Daemon::start(state.path(), &["--auto-create=false"])?;
    let influxd = Influxd::start()?;
    let url = format!("http://{}", daemon.address("api")?);
    // it has the database that points without one go to
    ensure!(ask(&url, "", "DROP DATABASE uni")?.0 == 200);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos();
    let script = SCRIPT.replace("NOW", &now.to_string());
    let lines: Vec<&str> = script.lines().filter(|line| !line.is_empty()).collect();
    ensure!(lines.len() > 100, "{} lines", lines.len());
    for line in &lines {
        let (ours, theirs) = (play(&url, line)?, play(influxd.url(), line)?);
        ensure!(ours.0 == theirs.0 && same(&ours.1, &theirs.1), "{line}:\n{ours:?}\n{theirs:?}");
    }
    // what is left is left after a crash too
    daemon.kill()?;
    daemon.restart()?;
    let url = format!("http://{}", daemon.address("api")?);
    for line in [
        "Q SHOW RETENTION POLICIES ON b",
        "D last SELECT * FROM m",
        "D last SHOW SERIES",
        "D last SELECT * FROM long.m",
    ] {
        let (ours, theirs) = (play(&url, line)?, play(influxd.url(), line)?);
        ensure!(ours.0 == theirs.0 && same(&ours.1, &theirs.1), "{line}, restarted:\n{ours:?}\n{theirs:?}");
    }
    Ok(())
}

#[test]
fn nothing_is_dropped_by_get() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let url = format!("http://{}", daemon.address("api")?);
    for q in [
        "DROP DATABASE uni",
        "DROP MEASUREMENT m",
        "DELETE FROM m",
        "DROP SERIES FROM m",
        "DROP RETENTION POLICY autogen ON uni",
    ] {
        let (status, body) =
            answer(agent().get(format!("{url}/query")).query("q", q).query("db", "uni").call()?)?;
        let error = body["results"][0]["error"].as_str().unwrap_or_default();
        ensure!(status == 200 && error.ends_with("is not allowed in a GET request: use POST"), "{q}: {body}");
    }
    ensure!(daemon.query("SHOW RETENTION POLICIES")?.to_string().contains("autogen"));
    Ok(())
}

#[test]
fn retention_by_flag_is_shown_and_old_points_are_refused_and_counted() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let flags = [
        "--retention",
        "30d",
        "--retention",
        "short=2d",
        "--retention",
        "uni/http=1d",
        "--max-series-per-vm",
        "2",
    ];
    let daemon = Daemon::start(state.path(), &[&flags[..], &["--metrics-addr", "127.0.0.1:0"]].concat())?;
    let url = format!("http://{}", daemon.address("api")?);
    ensure!(daemon.query("SHOW RETENTION POLICIES ON uni")?.to_string().contains("\"720h0m0s\""));
    ensure!(ask(&url, "", "CREATE DATABASE short")?.0 == 200);
    let shown = ask(&url, "short", "SHOW RETENTION POLICIES")?.1.to_string();
    ensure!(shown.contains("\"48h0m0s\""), "{shown}");
    let ago = |hours: u64| -> anyhow::Result<u64> {
        Ok(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs() - hours * 3600)
    };
    let lines = format!("m x=1 {}\nhttp x=1 {}\nhttp x=2 {}", ago(48)?, ago(48)?, ago(1)?);
    let (status, body) = write(&url, "db=uni&precision=s", &lines)?;
    ensure!(
        status == 400 && body["error"] == "partial write: points beyond retention policy dropped=1",
        "{body}"
    );
    let (status, body) = write(&url, "db=uni", "a,vm=v x=1\nb,vm=v x=1\nc,vm=v x=1\nc,vm=w x=1")?;
    ensure!(status == 400 && body.to_string().contains("series limit of 2 reached for vm"), "{body}");
    eventually("the refusals to be counted", || {
        let metrics = daemon.get("metrics", "/metrics")?;
        ensure!(metrics.contains("uni_ingest_refused_points_total{reason=\"too_old\"} 1"), "{metrics}");
        ensure!(
            metrics.contains("uni_ingest_refused_points_total{reason=\"vm_series_limit\"} 1"),
            "{metrics}"
        );
        Ok(())
    })
}

#[test]
fn the_cap_of_the_disk_is_honoured_and_told() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let mut daemon = Daemon::start(state.path(), &["--metrics-addr", "127.0.0.1:0"])?;
    let url = format!("http://{}", daemon.address("api")?);
    // two old days, of which each is more than what is left to today
    for day in [1_600_000_000_u64, 1_600_100_000] {
        let noise = |n: u64| (n + day).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let lines: String =
            (0..20_000).map(|n| format!("m,vm=a x={}i {}\n", noise(n) >> 1, day + n)).collect();
        ensure!(write(&url, "db=old&precision=s", &lines)?.0 == 204);
    }
    ensure!(write(&url, "db=uni", "m,vm=a x=1")?.0 == 204);
    daemon.terminate()?;
    daemon.restart_with(&["--max-disk", "300K", "--metrics-addr", "127.0.0.1:0"])?;
    let url = format!("http://{}", daemon.address("api")?);
    eventually("the oldest day to go", || {
        let metrics = daemon.get("metrics", "/metrics")?;
        let value = |name: &str| -> anyhow::Result<f64> {
            let line = metrics.lines().find(|line| line.starts_with(name)).context("no such metric")?;
            Ok(line.rsplit(' ').next().context("no value")?.parse()?)
        };
        ensure!(value("uni_store_dropped_partitions_total{reason=\"disk\"}")? >= 1.0, "{metrics}");
        ensure!(value("uni_store_disk_bytes")? <= value("uni_store_disk_limit_bytes")?, "{metrics}");
        Ok(())
    })?;
    let left = ask(&url, "old", "SELECT count(x) FROM m WHERE time < 1600050000s")?.1;
    ensure!(left["results"][0].get("series").is_none(), "the oldest goes first: {left}");
    ensure!((daemon.number("SELECT count(x) FROM m")? - 1.0).abs() < 0.5, "today stays");
    eventually("the event", || {
        let events = daemon.rows("SELECT event, text, reason FROM store")?;
        ensure!(events.iter().any(|row| row[1] == "drop_partition" && row[3] == "disk"), "{events:?}");
        Ok(())
    })?;
    daemon.logged(&["dropped old.autogen from 2020-09-13", "max-disk"])?;
    Ok(())
}
