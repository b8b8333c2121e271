//! `/metrics`: from the first scrape on, through the life of real VMs, as promtool, an OpenMetrics parser and a real
//! Prometheus read it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use black_box::prometheus::Prometheus;
use black_box::{Daemon, eventually, guest, python, workspace};

fn start(state: &Path) -> anyhow::Result<Daemon> {
    Daemon::start(state, &["--metrics-addr", "127.0.0.1:0"])
}

/// Everything of a scrape: the number of each `name{labels}`.
fn scrape(daemon: &Daemon) -> anyhow::Result<BTreeMap<String, f64>> {
    let text = daemon.get("metrics", "/metrics")?;
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
            Ok((name.to_owned(), value.parse()?))
        })
        .collect()
}

fn has(daemon: &Daemon, wanted: &[(&str, f64)]) -> anyhow::Result<()> {
    let samples = scrape(daemon)?;
    for &(name, value) in wanted {
        let found = samples.get(name).copied();
        ensure!(found == Some(value), "{name}: {found:?}, not {value}");
    }
    Ok(())
}

fn event(name: &str) -> String {
    format!("uni_vm_lifecycle_total{{event=\"{name}\"}}")
}

/// The lifecycle counters: create, start, stop, kill, remove.
fn lifecycle(daemon: &Daemon, wanted: [u32; 5]) -> anyhow::Result<()> {
    let names = ["create", "start", "stop", "kill", "remove"].map(event);
    let wanted: Vec<_> = names.iter().map(String::as_str).zip(wanted.map(f64::from)).collect();
    has(daemon, &wanted)
}

fn vms(daemon: &Daemon, total: u32, running: u32, stopped: u32) -> anyhow::Result<()> {
    eventually("the poller to count the VMs", || {
        has(
            daemon,
            &[
                ("uni_vms_total", total.into()),
                ("uni_vms_running", running.into()),
                ("uni_vms_stopped", stopped.into()),
            ],
        )
    })
}

#[test]
fn the_documented_seven_are_there_at_once_and_follow_the_vms() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = start(state.path())?;
    lifecycle(&daemon, [0; 5])?;
    let version = daemon.uni_json(&["status"])?["version"].as_str().context("a version")?.to_owned();
    has(
        &daemon,
        &[
            ("uni_vms_total", 0.0),
            ("uni_vms_running", 0.0),
            ("uni_vms_stopped", 0.0),
            ("uni_registry_push_total", 0.0),
            ("uni_registry_pull_total", 0.0),
            (&format!("uni_build_info{{version=\"{version}\"}}"), 1.0),
        ],
    )?;
    let image = guest("hello").display().to_string();
    daemon.uni_ok(&["run", &image, "--name", "one", "--memory", "32M"])?;
    lifecycle(&daemon, [1, 1, 0, 0, 0])?;
    daemon.uni_ok(&["run", &image, "--name", "two", "--memory", "32M", "--rm"])?;
    vms(&daemon, 2, 2, 0)?;
    daemon.uni_ok(&["stop", "one"])?;
    lifecycle(&daemon, [2, 2, 1, 0, 0])?;
    vms(&daemon, 2, 1, 1)?;
    daemon.uni_ok(&["rm", "one"])?;
    lifecycle(&daemon, [2, 2, 1, 0, 1])?;
    daemon.uni_ok(&["stop", "two", "--force"])?;
    eventually("the VM with --rm to remove itself", || lifecycle(&daemon, [2, 2, 1, 1, 2]))?;
    vms(&daemon, 0, 0, 0)?;
    // a start that fails is no start, and its clearing away no operator's kill
    ensure!(!daemon.uni(&["run", &image, "--memory", "32M", "--", "--no-such-argument=1"])?.status.success());
    let samples = scrape(&daemon)?;
    ensure!((samples[&event("stop")], samples[&event("kill")]) == (1.0, 1.0), "{samples:?}");
    ensure!(samples[&event("start")] == 2.0, "{samples:?}");
    Ok(())
}

#[test]
fn each_vm_is_measured_while_it_lives_and_known_until_it_is_removed() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = start(state.path())?;
    let image = guest("hello").display().to_string();
    daemon.uni_ok(&["run", &image, "--name", "web", "--memory", "32M"])?;
    let samples = eventually("the VM's first sample", || {
        let samples = scrape(&daemon)?;
        ensure!(samples.get("uni_vm_memory_resident_bytes{vm=\"web\"}").is_some_and(|&bytes| bytes > 1e6));
        let sent = samples.get("uni_vm_network_transmit_bytes_total{vm=\"web\",link=\"management\"}");
        ensure!(sent.is_some_and(|&bytes| bytes > 0.0), "{sent:?}");
        Ok(samples)
    })?;
    let cpu = |mode: &str| samples[&format!("uni_vm_cpu_seconds_total{{vm=\"web\",mode=\"{mode}\"}}")];
    ensure!(cpu("user") + cpu("system") > 0.0, "{samples:?}");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs_f64();
    let age = now - samples["uni_vm_start_time_seconds{vm=\"web\"}"];
    ensure!((0.0..60.0).contains(&age), "started {age} s ago");
    let state_of = |samples: &BTreeMap<String, f64>| -> Vec<String> {
        let states =
            samples.iter().filter(|(name, value)| name.starts_with("uni_vm_state{") && **value == 1.0);
        states.map(|(name, _)| name.clone()).collect()
    };
    ensure!(state_of(&samples) == ["uni_vm_state{vm=\"web\",state=\"running\"}"], "{samples:?}");
    as_in_the_schema(&daemon.get("metrics", "/metrics")?)?;

    daemon.uni_ok(&["stop", "web", "--force"])?;
    let samples = scrape(&daemon)?;
    ensure!(state_of(&samples) == ["uni_vm_state{vm=\"web\",state=\"stopped\"}"], "{samples:?}");
    ensure!(samples["uni_vm_restarts_total{vm=\"web\"}"] == 0.0);
    let left =
        |samples: &BTreeMap<String, f64>| samples.keys().filter(|name| name.contains("vm=\"web\"")).count();
    // five states and the restarts
    ensure!(left(&samples) == 6, "{samples:?}");
    daemon.uni_ok(&["rm", "web"])?;
    ensure!(left(&scrape(&daemon)?) == 0);
    Ok(())
}

/// Kind, help and labels of metrics, by name.
type Listed = BTreeMap<String, (String, String, String)>;

/// The metrics of `a` that `b` has not, or has otherwise.
fn differ(a: &Listed, b: &Listed) -> Vec<String> {
    a.iter().filter(|(name, entry)| b.get(*name) != Some(entry)).map(|(name, _)| name.clone()).collect()
}

/// Name, kind, help and labels of every metric, from the schema and from an exposition.
fn as_in_the_schema(text: &str) -> anyhow::Result<()> {
    let schema = std::fs::read_to_string(workspace().join("schema/prometheus.toml"))?;
    let unquote = |value: &str| value.trim_matches('"').to_owned();
    let mut listed = Listed::new();
    for entry in schema.split("[[metric]]").skip(1) {
        let field = |key: &str| {
            let prefix = format!("{key} = ");
            let value = entry.lines().find_map(|line| line.strip_prefix(&prefix));
            value.map(unquote).with_context(|| format!("{key} of {entry}"))
        };
        ensure!(!field("unit")?.is_empty(), "{entry}");
        let labels = field("labels")?;
        let labels = labels.trim_matches(['[', ']']).split(", ").map(unquote).collect::<Vec<_>>().join(",");
        let known = listed.insert(field("name")?, (field("kind")?, field("help")?, labels));
        ensure!(known.is_none(), "listed twice: {entry}");
    }
    let (mut shown, mut help) = (Listed::new(), "");
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(_), Some(text)) => help = text,
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let labels = listed.get(name).map(|(_, _, labels)| labels.clone()).unwrap_or_default();
                let known = shown.insert(name.to_owned(), (kind.to_owned(), help.to_owned(), labels));
                ensure!(known.is_none(), "shown twice: {name}");
            }
            _ => {
                let (sample, labels) = line.split_once('{').unwrap_or((line, ""));
                let sample = sample.split(' ').next().unwrap_or_default();
                let family =
                    ["", "_sum", "_count"].iter().find_map(|end| listed.get(sample.strip_suffix(end)?));
                let names = labels.split("\",").filter_map(|label| Some(label.split_once("=\"")?.0));
                let names = names.collect::<Vec<_>>().join(",");
                ensure!(
                    family.is_some_and(|(_, _, wanted)| *wanted == names),
                    "labels of {line}: {family:?}"
                );
            }
        }
    }
    let (missing, unlisted) = (differ(&listed, &shown), differ(&shown, &listed));
    ensure!(missing.is_empty() && unlisted.is_empty(), "in the schema: {missing:?}; shown: {unlisted:?}");
    Ok(())
}

#[test]
fn tools_that_others_wrote_accept_both_texts() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = start(state.path())?;
    let image = guest("hello").display().to_string();
    daemon.uni_ok(&["run", &image, "--name", "web", "--memory", "32M"])?;
    eventually("the VM's first sample", || {
        ensure!(daemon.get("metrics", "/metrics")?.contains("uni_vm_cpu_seconds_total{vm=\"web\""));
        Ok(())
    })?;
    let url = format!("http://{}/metrics", daemon.address("metrics")?);
    let text = daemon.get("metrics", "/metrics")?;
    // the one complaint is about the documented name
    let said = pipe(Command::new("promtool").args(["check", "metrics"]), &text)?;
    ensure!(said.trim() == "uni_vms_total non-counter metrics should not have \"_total\" suffix", "{said}");

    let mut answer = ureq::get(&url).header("Accept", "application/openmetrics-text").call()?;
    let kind = answer.headers().get("Content-Type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    ensure!(kind == "application/openmetrics-text; version=1.0.0; charset=utf-8", "{kind}");
    let open_metrics = answer.body_mut().read_to_string()?;
    ensure!(open_metrics.ends_with("\n# EOF\n"), "{open_metrics}");
    let python = python::venv(&["prometheus_client==0.22.1"])?;
    let said = pipe(Command::new(python).args(["-c", PARSE]), &open_metrics)?;
    ensure!(said.trim() == "uni_vms_total unknown uni_vm_cpu_seconds counter", "{said}");

    // what Prometheus sends
    let file = state.path().join("packed.gz");
    let output = Command::new("curl")
        .args(["-s", "-H", "Accept-Encoding: gzip", "-D", "-", "-o"])
        .arg(&file)
        .arg(&url)
        .output()?;
    let headers = String::from_utf8_lossy(&output.stdout).to_lowercase();
    ensure!(headers.contains("content-encoding: gzip"), "{headers}");
    let unpacked = Command::new("gzip").arg("-dc").arg(&file).output()?;
    ensure!(
        String::from_utf8_lossy(&unpacked.stdout).contains("# TYPE uni_vms_total gauge\n"),
        "{unpacked:?}"
    );

    let mut health = ureq::get(format!("http://{}/health", daemon.address("metrics")?)).call()?;
    let kind = health.headers().get("Content-Type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    ensure!(kind.starts_with("text/plain"), "{kind}");
    ensure!(health.body_mut().read_to_string()? == "ok");
    Ok(())
}

/// Fails on anything that OpenMetrics forbids.
const PARSE: &str = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
kinds = {family.name: family.type for family in parse(sys.stdin.read())}
for name in ('uni_vms_total', 'uni_vm_cpu_seconds'):
    print(name, kinds[name], end=' ')
";

/// Runs `command` with `input` and gives what it said on stdout and stderr; what it thinks is in there.
fn pipe(command: &mut Command, input: &str) -> anyhow::Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    child.stdin.take().context("its stdin")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    Ok(String::from_utf8([output.stdout, output.stderr].concat())?)
}

#[test]
fn a_real_prometheus_scrapes_it() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = start(&state.path().join("s"))?;
    let port = daemon.address("metrics")?.rsplit_once(':').context("a port")?.1.to_owned();
    let prometheus = Prometheus::start(
        state.path(),
        &format!(
            "scrape_configs:\n  - job_name: 'unid'\n    static_configs:\n      - targets: ['localhost:{port}']\n"
        ),
    )?;
    let image = guest("hello").display().to_string();
    daemon.uni_ok(&["run", &image, "--name", "web", "--memory", "32M"])?;
    let is = |query: &str, wanted: f64| -> anyhow::Result<()> {
        eventually(query, || {
            let found = prometheus.ask(query)?;
            ensure!(found == wanted, "{found}, not {wanted}");
            Ok(())
        })
    };
    is("up{job=\"unid\"}", 1.0)?;
    is("uni_vms_running", 1.0)?;
    is("count(uni_vm_cpu_seconds_total{vm=\"web\"})", 2.0)?;
    is("uni_vm_lifecycle_total{event=\"start\"}", 1.0)?;
    // it negotiates OpenMetrics and gzip by itself; the daemon has counted its scrapes
    is("uni_http_requests_total{route=\"metrics\",code=\"200\"} > bool 2", 1.0)?;
    daemon.uni_ok(&["stop", "web", "--force"])?;
    is("uni_vms_stopped", 1.0)?;
    is("absent(uni_vm_cpu_seconds_total)", 1.0)?;
    Ok(())
}
