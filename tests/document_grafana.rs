//! The article "Grafana for MirageOS unikernels and other VMs": what its dashboard shows of running VMs, from inside and
//! from outside under one name, asked with the queries of `/grafana.json` itself. The documents' shapes are held by
//! `grafana`.
//!
//! Owns nothing.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use black_box::{Daemon, boot_sector, eventually, free_port, guest};
use serde_json::{Value, json};

/// How long a spike of traffic lasts.
const SPIKE: Duration = Duration::from_secs(4);
/// Rates are of whole seconds, and reports come once a second: so far a curve may be off.
const BLUR_MS: i64 = 3_000;

fn start(state: &Path) -> anyhow::Result<Daemon> {
    Daemon::start(state, &["--interval", "1s"])
}

fn run(daemon: &Daemon, image: &Path, name: &str, more: &[&str]) -> anyhow::Result<()> {
    let image = image.display().to_string();
    daemon.uni_ok(&[&["run", &image, "--name", name, "--memory", "32M"], more].concat()).map(drop)
}

fn now_ms() -> anyhow::Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}

/// The dashboard, and what is chosen in its two drop-down menus.
struct Dashboard<'a> {
    daemon: &'a Daemon,
    document: Value,
    vm: &'a str,
    bridge: &'a str,
}

impl<'a> Dashboard<'a> {
    /// The dashboard that is served, on one VM and its public link.
    fn import(daemon: &'a Daemon, vm: &'a str) -> anyhow::Result<Self> {
        let document = serde_json::from_str(&daemon.get("api", "/grafana.json?schema=classic")?)?;
        Ok(Self { daemon, document, vm, bridge: "service" })
    }

    /// Asks as Grafana does for the last minute.
    fn ask(&self, query: &str) -> anyhow::Result<Vec<Series>> {
        let now = now_ms()?;
        let query = query
            .replace("$timeFilter", &format!("time >= {}ms and time <= {now}ms", now - 60_000))
            .replace("$__interval", "1s")
            .replace("$interval", "1s")
            .replace("$vm", self.vm)
            .replace("$bridge", self.bridge);
        let answer = self.daemon.query(&query)?;
        let series = answer["results"][0]["series"].as_array().cloned().unwrap_or_default();
        series.into_iter().map(|series| Series::new(&series)).collect()
    }

    /// The curves of a panel.
    fn panel(&self, title: &str) -> anyhow::Result<Vec<Series>> {
        let panels = self.document["panels"].as_array().context("no panels")?;
        let panel = panels.iter().find(|panel| panel["title"] == title);
        let targets = panel.and_then(|panel| panel["targets"].as_array());
        let mut curves = Vec::new();
        for target in targets.with_context(|| format!("no panel {title}"))? {
            curves.extend(self.ask(target["query"].as_str().context("no query")?)?);
        }
        Ok(curves)
    }

    /// The values of a drop-down menu.
    fn variable(&self, name: &str) -> anyhow::Result<BTreeSet<String>> {
        let variables = self.document["templating"]["list"].as_array().context("no variables")?;
        let variable = variables.iter().find(|variable| variable["name"] == name);
        let query = variable.and_then(|variable| variable["query"].as_str());
        let rows = self.ask(query.with_context(|| format!("no variable {name}"))?)?;
        Ok(rows.into_iter().flat_map(|series| series.texts).collect())
    }
}

/// A curve: its tags, its points, and what of its last column is text.
#[derive(Debug)]
struct Series {
    tags: Value,
    points: Vec<(i64, f64)>,
    texts: Vec<String>,
}

impl Series {
    fn new(series: &Value) -> anyhow::Result<Self> {
        let rows = series["values"].as_array().with_context(|| format!("no rows: {series}"))?;
        let points = rows.iter().filter_map(|row| Some((row[0].as_i64()?, row[1].as_f64()?))).collect();
        let texts = rows.iter().filter_map(|row| row[1].as_str().map(str::to_owned)).collect();
        Ok(Self { tags: series["tags"].clone(), points, texts })
    }

    /// The highest point.
    fn peak(&self) -> Option<(i64, f64)> {
        self.points.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The highest value before `time_ms`.
    fn before(&self, time_ms: i64) -> f64 {
        self.points.iter().filter(|(time, _)| *time < time_ms).map(|point| point.1).fold(0.0, f64::max)
    }
}

/// Asks a web server again and again, for pages and for memory; how often it answered.
fn visit(port: u16) -> anyhow::Result<u32> {
    let begin = Instant::now();
    let mut answers = 0;
    while begin.elapsed() < SPIKE {
        let page = if answers < 24 { "alloc" } else { "" };
        ureq::get(format!("http://127.0.0.1:{port}/{page}")).call()?;
        answers += 1;
    }
    Ok(answers)
}

/// The highest curve of a panel rises during the spike and not before.
fn rises(curves: &[Series], from_ms: i64, to_ms: i64, by: f64) -> anyhow::Result<()> {
    let peak = |curve: &Series| curve.peak().map_or(0.0, |peak| peak.1);
    let highest = curves.iter().max_by(|a, b| peak(a).total_cmp(&peak(b))).context("no curve")?;
    let (time, value) = highest.peak().context("no point")?;
    ensure!(
        (from_ms - BLUR_MS..to_ms + BLUR_MS).contains(&time),
        "at {time}: {from_ms} to {to_ms}: {highest:?}"
    );
    let before = highest.before(from_ms - BLUR_MS);
    ensure!(value > before + by, "{before}, then {value}: {highest:?}");
    Ok(())
}

#[test]
fn goal_and_grafana_a_spike_of_traffic_shows_inside_and_outside_under_one_name() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = start(state.path())?;
    let port = free_port()?;
    run(&daemon, &guest("http"), "web", &["-p", &format!("{port}:80"), "--", "--interval=1"])?;
    run(&daemon, &guest("http"), "idle", &["--", "--interval=1"])?;
    let dashboard = Dashboard::import(&daemon, "web")?;
    // some quiet before
    eventually("six points from inside and from outside", || {
        for (field, measurement) in [("\"2xx\"", "http_response"), ("rss", "kinfo_mem")] {
            let count =
                daemon.number(&format!("SELECT count({field}) FROM {measurement} WHERE vm = 'web'"))?;
            ensure!(count >= 6.0, "{count} of {measurement}");
        }
        Ok(())
    })?;
    let from = now_ms()?;
    let answers = visit(port)?;
    let to = now_ms()?;
    eventually("the guest to report all of it", || {
        let counted = daemon.number("SELECT last(\"2xx\") FROM http_response WHERE vm = 'web'")?;
        ensure!(counted >= f64::from(answers), "{counted} of {answers}");
        Ok(())
    })?;
    std::thread::sleep(Duration::from_secs(2));
    // from inside, from outside, and both
    rises(&dashboard.panel("HTTP Traffic")?, from, to, 2.0)?;
    rises(&dashboard.panel("Network Throughput")?, from, to, 5_000.0)?;
    for (measurement, field, by) in [("gc", "live words", 5e5), ("kinfo_mem", "rss_bytes", 4e6)] {
        let rise = |vm: &str| -> anyhow::Result<f64> {
            let extreme = |which: &str, time: &str| {
                let times = format!("time {time} {}ms", from - 500);
                let q =
                    format!("SELECT {which}(\"{field}\") FROM {measurement} WHERE vm = '{vm}' AND {times}");
                daemon.number(&q)
            };
            Ok(extreme("max", ">=")? - extreme("max", "<")?)
        };
        let (web, idle) = (rise("web")?, rise("idle")?);
        ensure!(web > by && idle < by / 4.0, "{measurement} rose by {web}, of the idle one by {idle}");
    }
    // nobody asked the other one for anything
    let idle = Dashboard::import(&daemon, "idle")?.panel("HTTP Traffic")?;
    ensure!(idle.iter().all(|curve| curve.peak().is_none_or(|peak| peak.1 == 0.0)), "{idle:?}");
    Ok(())
}

#[test]
fn grafana_four_graphs_two_menus_and_the_public_link() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = start(state.path())?;
    for name in ["web", "dns"] {
        run(&daemon, &guest("http"), name, &["--", "--interval=1"])?;
    }
    let dashboard = Dashboard::import(&daemon, "web")?;
    for title in ["Network Throughput", "Log rates", "Logs", "Memory usage", "HTTP Traffic"] {
        eventually(title, || {
            let curves = dashboard.panel(title)?;
            ensure!(!curves.is_empty(), "no curve");
            for curve in &curves {
                ensure!(!curve.points.is_empty() && curve.tags["vm"] == "web", "{curve:?}");
            }
            Ok(())
        })?;
    }
    ensure!(dashboard.variable("vm")? == ["dns", "web"].map(str::to_owned).into());
    ensure!(dashboard.variable("bridge")? == ["management", "service"].map(str::to_owned).into());
    // monitoring has a network of its own, and is not part of the traffic shown
    let bridges = |dashboard: &Dashboard<'_>| -> anyhow::Result<BTreeSet<String>> {
        let curves = dashboard.panel("Network Throughput")?;
        Ok(curves.iter().filter_map(|curve| curve.tags["bridge"].as_str().map(str::to_owned)).collect())
    };
    ensure!(bridges(&dashboard)? == BTreeSet::from(["service".to_owned()]));
    let private = Dashboard { bridge: "management", ..Dashboard::import(&daemon, "web")? };
    let sent = private.panel("Network Throughput")?;
    ensure!(sent.iter().any(|curve| curve.peak().is_some_and(|peak| peak.1 > 0.0)), "{sent:?}");
    Ok(())
}

#[test]
fn grafana_the_name_is_an_argument_of_the_unikernel() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = start(state.path())?;
    run(&daemon, &guest("hello"), "dns.example", &["--", "--interval=1"])?;
    let vm = daemon.uni_json(&["inspect", "dns.example"])?;
    let added = vm["added_args"].as_array().context("nothing added")?;
    ensure!(added.contains(&json!("--name=dns.example")), "{vm}");
    // the kernel's command line, which is what the unikernel reads
    let line = std::fs::read(format!("/proc/{}/cmdline", vm["pid"]))?;
    let line = String::from_utf8_lossy(&line).into_owned();
    ensure!(line.contains("--name=dns.example"), "{line}");
    eventually("both views under that name", || {
        daemon.number("SELECT last(\"live words\") FROM gc WHERE vm = 'dns.example'")?;
        daemon.number("SELECT last(rss) FROM kinfo_mem WHERE vm = 'dns.example'")
    })?;
    // it said so itself: nothing had to be corrected
    let status = daemon.uni_json(&["status"])?;
    ensure!(status["ingest"]["renamed_points_total"] == 0, "{status}");
    Ok(())
}

#[test]
fn other_virtual_machine_types_are_seen_from_outside() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = start(&state.path().join("s"))?;
    let image = state.path().join("other.img");
    std::fs::write(&image, boot_sector(b"no unikernel\r\n", false))?;
    run(&daemon, &image, "other", &[])?;
    let dashboard = Dashboard::import(&daemon, "other")?;
    let memory = eventually("its memory", || {
        let curves = dashboard.panel("Memory usage")?;
        ensure!(curves.len() == 1, "{curves:?}");
        Ok(curves)
    })?;
    ensure!(memory[0].peak().is_some_and(|peak| peak.1 > 4e6), "{memory:?}");
    eventually("its network and its processor", || {
        ensure!(!dashboard.panel("Network Throughput")?.is_empty() && !dashboard.panel("CPU")?.is_empty());
        Ok(())
    })?;
    for inside in ["gc", "memory", "http_response", "logs"] {
        let answer = daemon.query(&format!("SELECT * FROM {inside} WHERE vm = 'other'"))?;
        ensure!(answer["results"][0].get("series").is_none(), "{inside}: {answer}");
    }
    ensure!(dashboard.panel("HTTP Traffic")?.is_empty());
    Ok(())
}
