//! The page "Observability", section by section, by its own commands, addresses and words. What each part does beyond
//! them is proven where it is at home: `metrics`, `otlp`, `logs`, `stats`, `ui_api`, `vm_store`, `limits`.
//!
//! Owns nothing. A port of the page is used where this machine has it free, else another. The page runs images by name
//! (`myapp:latest`); this version runs them by path, so every `uni run` here names a file.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use black_box::otlp::Collector;
use black_box::overheard::Overheard;
use black_box::prometheus::Prometheus;
use black_box::{Daemon, bin_dir, boot_sector, eventually, guest, python, workspace};
use serde_json::{Value, json};

/// `uni run IMAGE FLAGS`; the VM's id.
fn run_image(daemon: &Daemon, image: &Path, flags: &[&str]) -> anyhow::Result<String> {
    let image = image.display().to_string();
    daemon.uni_ok(&[&["run", &image, "--memory", "32M"], flags].concat())
}

/// The same of a guest that stays.
fn run(daemon: &Daemon, name: &str) -> anyhow::Result<String> {
    run_image(daemon, &guest("hello"), &["--name", name])
}

/// The port of a listener, for `http://localhost:PORT`.
fn port(daemon: &Daemon, listener: &str) -> anyhow::Result<u16> {
    Ok(daemon.address(listener)?.rsplit_once(':').context("no port")?.1.parse()?)
}

/// Status, content type and body of an answer.
fn get(url: &str) -> anyhow::Result<(u16, String, String)> {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut answer = agent.get(url).call().with_context(|| url.to_owned())?;
    let kind = answer.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.to_owned();
    Ok((answer.status().as_u16(), kind, answer.body_mut().read_to_string()?))
}

fn get_json(url: &str) -> anyhow::Result<Value> {
    let (status, kind, body) = get(url)?;
    ensure!(status == 200 && kind == "application/json", "{url}: {status} {kind} {body}");
    Ok(serde_json::from_str(&body)?)
}

#[test]
fn prometheus_metrics() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start_at(state.path(), "--metrics-addr", 9090)?;
    let port = port(&daemon, "metrics")?;
    let (status, kind, body) = get(&format!("http://localhost:{port}/metrics"))?;
    ensure!(status == 200 && kind.starts_with("text/plain; version=0.0.4"), "{status} {kind}");
    ensure!(body.starts_with("# HELP "), "{body}");
    let (status, _, body) = get(&format!("http://localhost:{port}/health"))?;
    ensure!(status == 200 && body == "ok", "{status} {body}");
    Ok(())
}

/// The section's table: name and type.
const METRICS: [(&str, &str); 7] = [
    ("uni_vms_total", "gauge"),
    ("uni_vms_running", "gauge"),
    ("uni_vms_stopped", "gauge"),
    ("uni_vm_lifecycle_total", "counter"),
    ("uni_registry_push_total", "counter"),
    ("uni_registry_pull_total", "counter"),
    ("uni_build_info", "gauge"),
];

#[test]
fn available_metrics() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start_at(state.path(), "--metrics-addr", 9090)?;
    let port = port(&daemon, "metrics")?;
    let url = format!("http://localhost:{port}/metrics");
    let text = get(&url)?.2;
    for (name, kind) in METRICS {
        ensure!(text.lines().any(|line| line == format!("# TYPE {name} {kind}")), "{name}: {text}");
        ensure!(text.lines().any(|line| line.starts_with(name)), "no sample of {name}: {text}");
    }
    let version = daemon.uni_json(&["status"])?["version"].as_str().context("a version")?.to_owned();
    ensure!(text.contains(&format!("uni_build_info{{version=\"{version}\"}} 1\n")), "{text}");
    let says = |samples: &[&str]| {
        eventually(&format!("{samples:?}"), || {
            let text = get(&url)?.2;
            for sample in samples {
                ensure!(text.lines().any(|line| line == *sample), "{text}");
            }
            Ok(())
        })
    };
    for name in ["one", "two"] {
        run(&daemon, name)?;
    }
    daemon.uni_ok(&["stop", "one"])?;
    // the gauges follow by the poller of every 5 seconds
    says(&["uni_vms_total 2", "uni_vms_running 1", "uni_vms_stopped 1"])?;
    daemon.uni_ok(&["stop", "two", "--force"])?;
    daemon.uni_ok(&["rm", "one"])?;
    let event = |event, times| format!("uni_vm_lifecycle_total{{event=\"{event}\"}} {times}");
    let events =
        [event("create", 2), event("start", 2), event("stop", 1), event("kill", 1), event("remove", 1)];
    says(&events.each_ref().map(String::as_str))
}

/// The section's YAML.
const SCRAPE_CONFIG: &str = "scrape_configs:
  - job_name: 'unid'
    static_configs:
      - targets: ['localhost:9090']
";

#[test]
fn prometheus_scrape_config() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start_at(&state.path().join("s"), "--metrics-addr", 9090)?;
    let port = port(&daemon, "metrics")?;
    let config = SCRAPE_CONFIG.replace("9090", &port.to_string());
    let prometheus = Prometheus::start(state.path(), &config)?;
    run(&daemon, "web")?;
    for query in [
        "up{job=\"unid\"}",
        "uni_vms_total{job=\"unid\"}",
        "uni_vms_running",
        "uni_vm_lifecycle_total{event=\"start\"}",
    ] {
        eventually(query, || {
            let value = prometheus.ask(query)?;
            ensure!(value == 1.0, "{value}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn opentelemetry_tracing_vm_lifecycle_spans_and_collector_setup() -> anyhow::Result<()> {
    let collector = Collector::start("grpc", 4317).or_else(|_| Collector::start("grpc", 0))?;
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &["--trace-addr", &format!("localhost:{}", collector.port())])?;
    for name in ["one", "two"] {
        run(&daemon, name)?;
    }
    daemon.uni_ok(&["stop", "one"])?;
    daemon.uni_ok(&["stop", "two", "--force"])?;
    daemon.uni_ok(&["rm", "one"])?;
    let parts = ["vm.create", "vm.start", "vm.stop", "vm.kill", "vm.remove"];
    let spans = eventually("the spans", || {
        let spans = collector.spans();
        let names: BTreeSet<_> = spans.iter().filter_map(|span| span["name"].as_str()).collect();
        ensure!(names == parts.into_iter().chain(["vm.lifecycle"]).collect(), "{names:?}");
        Ok(spans)
    })?;
    for span in spans.iter().filter(|span| span["name"] != "vm.lifecycle") {
        let is_parent =
            |other: &&Value| other["span_id"] == span["parent_id"] && other["trace_id"] == span["trace_id"];
        let parent = spans.iter().find(is_parent).with_context(|| format!("no parent: {span}"))?;
        ensure!(parent["name"] == "vm.lifecycle", "{parent}");
    }
    // empty, the default, is off
    let state = tempfile::tempdir()?;
    for flags in [&[][..], &["--trace-addr", ""]] {
        let status = Daemon::start(state.path(), flags)?.uni_json(&["status"])?;
        ensure!(status.get("traces").is_none(), "{flags:?}: {status}");
    }
    Ok(())
}

#[test]
fn structured_json_logging_output_format() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &["--log-format", "json"])?;
    let id = run(&daemon, "web")?;
    let line = eventually("the line that the section shows", || {
        let log = daemon.log();
        let line = log.iter().find(|line| line.contains("\"from\":\"created\""));
        line.cloned().with_context(|| format!("{log:#?}"))
    })?;
    let fields: Value = serde_json::from_str(&line)?;
    let stamp = fields["ts"].as_str().context("a time")?;
    let form: String = stamp.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    ensure!(form == "0000-00-00T00:00:00.000Z", "{line}");
    let shown = format!(
        r#"{{"ts":"{stamp}","level":"INFO","msg":"vm state transition","vm_id":"{id}","from":"created","to":"starting""#
    );
    ensure!(line.starts_with(&shown), "{line} is not {shown}");
    for line in daemon.log() {
        let fields: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        ensure!(["ts", "level", "msg"].iter().all(|key| fields[key].is_string()), "{line}");
    }
    // the default is text
    let state = tempfile::tempdir()?;
    let text = Daemon::start(state.path(), &[])?;
    text.logged(&["msg=\"unid listening\""])?;
    Ok(())
}

/// A program that is ended when the test is.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How far the second block of `uni stats ... --watch` comes after the first.
fn watch(daemon: &Daemon, args: &[&str]) -> anyhow::Result<Duration> {
    let mut command = Command::new(bin_dir().join("uni"));
    command.arg("--socket").arg(daemon.socket()).args(args);
    let mut uni = Running(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?);
    let lines = BufReader::new(uni.0.stdout.take().context("no stdout")?).lines();
    let mut first = None;
    for line in lines {
        match (line?.starts_with("ID "), first) {
            (true, None) => first = Some(Instant::now()),
            (true, Some(first)) => return Ok(first.elapsed()),
            _ => {}
        }
    }
    anyhow::bail!("uni {args:?} ended")
}

#[test]
fn live_vm_stats_and_available_metrics() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let id = run(&daemon, "web")?;
    let table = daemon.uni_ok(&["stats", &id])?;
    for line in ["CPU ", "Memory ", "Net RX ", "Net TX "] {
        ensure!(table.lines().any(|shown| shown.starts_with(line)), "{line}: {table}");
    }
    ensure!(table.lines().any(|line| line == "Source  proc"), "{table}");
    let beats = std::thread::scope(|scope| -> anyhow::Result<_> {
        let default = scope.spawn(|| watch(&daemon, &["stats", &id, "--watch"]));
        let custom = watch(&daemon, &["stats", &id, "--watch", "--interval", "5s"])?;
        Ok((default.join().map_err(|_| anyhow::anyhow!("the watch panicked"))??, custom))
    })?;
    for (took, asked) in [(beats.0, 3.0), (beats.1, 5.0)] {
        ensure!((took.as_secs_f64() - asked).abs() < 1.0, "{took:?} instead of {asked} s");
    }
    Ok(())
}

#[test]
fn live_vm_stats_json_output() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let id = run(&daemon, "web")?;
    let printed = daemon.uni_ok(&["stats", &id, "--output", "json"])?;
    let stats: Value = serde_json::from_str(&printed)?;
    ensure!(stats["id"] == json!(id) && stats["source"] == "proc" && stats["cpu_pct"].is_number(), "{stats}");
    // resident memory in bytes
    let pid = daemon.uni_json(&["inspect", &id])?["pid"].as_u64().context("a pid")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let resident: f64 = resident.trim().trim_end_matches(" kB").parse()?;
    let shown = stats["mem_bytes"].as_f64().context("mem_bytes")?;
    ensure!((0.5..2.0).contains(&(shown / (resident * 1024.0))), "{shown} bytes shown, {resident} KiB held");
    for key in ["net_rx_bytes", "net_tx_bytes"] {
        ensure!(stats[key].is_u64(), "{key}: {stats}");
    }
    Ok(())
}

/// A dashboard at the page's address with one VM that has everything shown; the VM's id, and the address.
fn dashboard(state: &Path) -> anyhow::Result<(Daemon, String, String)> {
    let daemon = Daemon::start_at(state, "--ui-addr", 8080)?;
    let port = port(&daemon, "ui")?;
    let published = format!("{}:80", black_box::free_port()?);
    let id = run_image(
        &daemon,
        &guest("http"),
        &["--name", "web", "-p", &published, "-e", "MODE=prod", "-e", "DB_PASSWORD=hunter2"],
    )?;
    eventually("the console", || {
        ensure!(daemon.uni_ok(&["logs", &id])?.contains("serving HTTP"));
        Ok(())
    })?;
    Ok((daemon, id, format!("http://localhost:{port}")))
}

#[test]
fn web_dashboard_pages() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let (daemon, id, base) = dashboard(state.path())?;
    let image = guest("http").display().to_string();
    let (status, kind, list) = get(&format!("{base}/ui"))?;
    ensure!(status == 200 && kind.starts_with("text/html"), "{status} {kind}");
    for shown in [&id, "running", "Health", &image] {
        ensure!(list.contains(shown), "{shown}: {list}");
    }
    let (status, kind, page) = eventually("the second look at the VM's process", || {
        let answer = get(&format!("{base}/ui/vm/{id}"))?;
        ensure!(answer.2.contains("<dt>Source</dt><dd>proc</dd>"), "{answer:?}");
        Ok(answer)
    })?;
    ensure!(status == 200 && kind.starts_with("text/html"), "{status} {kind}");
    for shown in [
        &image,
        "<dt>Memory</dt><dd>32M</dd>",
        "<dt>Health</dt><dd>-</dd>",
        "<dt>Restart</dt><dd>never, 0 times</dd>",
        " → 80/tcp",
        "MODE=prod",
        "DB_PASSWORD=***",
        "serving HTTP",
    ] {
        ensure!(page.contains(shown), "{shown}: {page}");
    }
    ensure!(!page.contains("hunter2"), "a secret on the page");
    // read-only
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    ensure!(agent.delete(format!("{base}/ui/vm/{id}")).call()?.status() == 405);
    ensure!(daemon.uni_json(&["inspect", &id])?["state"] == "running");
    Ok(())
}

#[test]
fn web_dashboard_page_polls_every_three_seconds() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(&state.path().join("s"), &[])?;
    let id = run(&daemon, "web")?;
    let way = Overheard::start(&daemon.address("ui")?)?;
    let profile = state.path().join("profile").display().to_string();
    let browser = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"])
        .args(["--no-first-run", "--remote-debugging-port=0", &format!("--user-data-dir={profile}")])
        .arg(format!("http://127.0.0.1:{}/ui/vm/{id}", way.port()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _browser = Running(browser.context("start chromium")?);
    let path = format!("/ui/api/vm/{id}/stats");
    let asked = eventually("the page to ask again and again", || {
        let asked = way.asked(&path);
        ensure!(asked.len() >= 5, "{}", asked.len());
        Ok(asked)
    })?;
    // once when it is opened, then at each beat
    let mut beats: Vec<f64> = asked.windows(2).skip(1).map(|two| (two[1] - two[0]).as_secs_f64()).collect();
    beats.sort_by(f64::total_cmp);
    ensure!((2.5..3.5).contains(&beats[beats.len() / 2]), "{beats:?}");
    Ok(())
}

#[test]
fn web_dashboard_json_api() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let (_daemon, id, base) = dashboard(state.path())?;
    let image = guest("http").display().to_string();
    let listed = get_json(&format!("{base}/ui/api/vms"))?;
    let expected = json!([{ "id": id, "name": "web", "state": "running", "image": image, "health": "" }]);
    ensure!(listed == expected, "{listed}");
    let vm = get_json(&format!("{base}/ui/api/vm/{id}"))?;
    ensure!(vm["id"] == json!(id) && vm["memory"] == "32M" && vm["ports"][0]["guest_port"] == 80, "{vm}");
    ensure!(vm["env"] == json!(["MODE=prod", "DB_PASSWORD=***"]), "{vm}");
    let logs = get_json(&format!("{base}/ui/api/vm/{id}/logs"))?;
    ensure!(logs["logs"].as_str().is_some_and(|text| text.contains("serving HTTP")), "{logs}");
    let stats = get_json(&format!("{base}/ui/api/vm/{id}/stats"))?;
    for key in ["cpu_pct", "mem_bytes", "net_rx_bytes", "net_tx_bytes"] {
        ensure!(stats[key].is_number(), "{key}: {stats}");
    }
    Ok(())
}

/// How often a VM stands in the database.
fn rows(database: &Path, id: &str) -> anyhow::Result<i64> {
    let database =
        rusqlite::Connection::open_with_flags(database, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    Ok(database.query_row("SELECT count(*) FROM vms WHERE id = ?1", [id], |row| row.get(0))?)
}

#[test]
fn vm_persistence_sqlite() -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    let mut daemon = Daemon::start_at_home(home.path(), &[])?;
    let id = run(&daemon, "web")?;
    daemon.uni_ok(&["stop", &id])?;
    let before = daemon.uni_json(&["inspect", &id])?;
    ensure!(home.path().join(".uni/vms").join(&id).join("state.json").is_file(), "the default store");
    // the first use migrates, later ones find nothing to do
    for _ in 0..3 {
        daemon.terminate()?;
        daemon.restart_with(&["--vm-store", "sqlite"])?;
        let listed = daemon.uni_json(&["ps"])?;
        ensure!(listed.as_array().is_some_and(|vms| vms.len() == 1), "{listed}");
        ensure!(daemon.uni_json(&["inspect", &id])? == before, "{before}");
        ensure!(rows(&home.path().join(".uni/vms/vms.db"), &id)? == 1);
    }
    Ok(())
}

#[test]
fn vm_persistence_store_backends() -> anyhow::Result<()> {
    for flags in [&[][..], &["--vm-store", "file"], &["--vm-store", "sqlite"]] {
        let home = tempfile::tempdir()?;
        let daemon = Daemon::start_at_home(home.path(), flags)?;
        let id = run(&daemon, "web")?;
        let vms = home.path().join(".uni/vms");
        let (file, database) = (vms.join(&id).join("state.json"), vms.join("vms.db"));
        if flags.last() == Some(&"sqlite") {
            ensure!(!file.exists() && rows(&database, &id)? == 1, "{flags:?}");
        } else {
            let record: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
            ensure!(record["id"] == json!(id) && !database.exists(), "{flags:?}: {record}");
        }
    }
    Ok(())
}

/// A VM's record as the file store has it, of a VM that ran, was checked and was restarted.
fn record(id: &str) -> Value {
    json!({
        "id": id,
        "config": {
            "ImagePath": "/srv/myapp.img", "Memory": "256M", "CPUs": 1, "Name": "myapp",
            "HealthCheck": {"Type": "http", "Port": 8080, "Path": "/healthz", "Interval": 0, "Timeout": 0, "Retries": 0},
            "Restart": {"Policy": "on-failure", "MaxRetries": 5},
        },
        "state": "running", "health_status": "healthy", "restart_count": 2,
        "created_at": "2026-05-15T12:00:00Z", "started_at": "2026-05-15T12:00:01Z",
    })
}

fn kill(pid: &Value) -> anyhow::Result<()> {
    let pid = pid.as_u64().context("a pid")?;
    let sent = Command::new("sh").args(["-c", "kill -KILL $0", &pid.to_string()]).status()?;
    ensure!(sent.success(), "SIGKILL to {pid}: {sent}");
    eventually("it to be gone", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        ensure!(stat.is_empty() || stat.contains(") Z "), "{stat}");
        Ok(())
    })
}

#[test]
fn vm_persistence_health_status() -> anyhow::Result<()> {
    for store in ["file", "sqlite"] {
        let home = tempfile::tempdir()?;
        let known = "9f2c41d07ab3";
        let dir = home.path().join(".uni/vms").join(known);
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join("state.json"), record(known).to_string())?;
        let mut daemon = Daemon::start_at_home(home.path(), &["--vm-store", store])?;
        let id = run(&daemon, "web")?;
        let before = daemon.uni_json(&["inspect", &id])?;
        // a VM that did not outlive the daemon: its keeper, and with that QEMU
        ensure!(before["state"] == "running", "{store}: {before} {:#?}", daemon.log());
        daemon.kill()?;
        kill(&before["shim_pid"])?;
        eventually("QEMU to end", || {
            let pid = &before["pid"];
            ensure!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} lives");
            Ok(())
        })?;
        for _ in 0..2 {
            daemon.restart()?;
            let now = daemon.uni_json(&["inspect", &id])?;
            ensure!(now["state"] == "stopped" && now["daemon_recovered"] == true, "{store}: {now}");
            for key in ["created_at", "started_at", "name"] {
                ensure!(now[key] == before[key], "{store}: {key}: {before} {now}");
            }
            let vm = daemon.uni_json(&["inspect", known])?;
            ensure!(vm["state"] == "stopped" && vm["daemon_recovered"] == true, "{store}: {vm}");
            ensure!(vm["health"] == "healthy" && vm["restart_count"] == 2, "{store}: {vm}");
            let times = [&vm["created_at"], &vm["started_at"]];
            ensure!(times == ["2026-05-15T12:00:00Z", "2026-05-15T12:00:01Z"], "{store}: {vm}");
        }
    }
    Ok(())
}

#[test]
fn nightly_security_scans() -> anyhow::Result<()> {
    let python = python::venv(&["PyYAML==6.0.2"])?;
    // every scalar as it is written; else `on` would be a boolean
    let script = "import json, sys, yaml; print(json.dumps(yaml.load(open(sys.argv[1]), yaml.BaseLoader)))";
    let file = workspace().join(".github/workflows/nightly.yml");
    let output = Command::new(python).args(["-c", script]).arg(&file).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let workflow: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(workflow["on"]["schedule"] == json!([{ "cron": "0 2 * * *" }]), "{workflow}");
    let jobs = workflow["jobs"].as_object().context("no jobs")?;
    let steps: Vec<_> = jobs.values().filter_map(|job| job["steps"].as_array()).flatten().collect();
    // the page's govulncheck is of another language: these look for the same in this project's
    for command in ["cargo xtask deny", "cargo xtask audit", "cargo xtask fuzz"] {
        let runs = |step: &&&Value| step["run"].as_str().is_some_and(|run| run.starts_with(command));
        let step = steps.iter().find(runs).with_context(|| format!("no step runs {command}"))?;
        ensure!(step.get("continue-on-error").is_none(), "{step}");
    }
    let is_trivy = |step: &&&Value| {
        step["uses"].as_str().is_some_and(|uses| uses.starts_with("aquasecurity/trivy-action@"))
    };
    let trivy = &steps.iter().find(is_trivy).context("no step uses trivy")?;
    let with = &trivy["with"];
    ensure!(
        with["scan-type"] == "fs" && with["severity"] == "HIGH,CRITICAL" && with["exit-code"] == "1",
        "{with}"
    );
    Ok(())
}

/// A disk image that boots.
fn disk(dir: &Path) -> anyhow::Result<std::path::PathBuf> {
    let path = dir.join("myapp.img");
    std::fs::write(&path, boot_sector(b"up\r\n", false))?;
    Ok(path)
}

#[test]
fn resource_quotas() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(&state.path().join("s"), &[])?;
    let image = disk(state.path())?;
    let is_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    for (flags, key, value, file) in [
        (["--cpu-shares", "512"], "cpu_shares", 512, "cpu.weight"),
        (["--memory-max", "1G"], "memory_max", 1 << 30, "memory.max"),
    ] {
        let id = run_image(&daemon, &image, &flags)?;
        let vm = daemon.uni_json(&["inspect", &id])?;
        ensure!(vm["state"] == "running" && vm[key] == value, "{vm}");
        eventually("the limit, or why there is none", || {
            let warned = |words: &str| {
                let is_it = |line: &&String| line.contains("level=WARN") && line.contains(words);
                daemon.log().iter().filter(is_it).any(|line| line.contains(&id))
            };
            let held = std::fs::read_to_string(format!("/sys/fs/cgroup/uni/{id}/{file}"));
            let is_held = held.is_ok_and(|held| held.trim() == value.to_string());
            let is_told = match is_v2 {
                true => is_held || warned("qemu start: cgroup apply failed"),
                false => warned("qemu start: cgroup v2 not available, skipping resource limits"),
            };
            ensure!(is_told, "{flags:?}: {:#?}", daemon.log());
            Ok(())
        })?;
    }
    // "1-10000"
    for bad in ["10001", "-1"] {
        let refused = daemon.uni(&["run", &image.display().to_string(), &format!("--cpu-shares={bad}")])?;
        ensure!(refused.status.code() == Some(1), "{bad}: {refused:?}");
    }
    Ok(())
}

#[test]
fn io_throttling() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(&state.path().join("s"), &[])?;
    let image = disk(state.path())?;
    for (flags, key, value, option) in [
        (["--disk-iops", "1000"], "disk_iops", 1000, "throttling.iops-total=1000"),
        (["--disk-bps", "10M"], "disk_bps", 10_485_760, "throttling.bps-total=10485760"),
    ] {
        let id = run_image(&daemon, &image, &flags)?;
        let vm = daemon.uni_json(&["inspect", &id])?;
        ensure!(vm[key] == value, "{vm}");
        let line = std::fs::read(format!("/proc/{}/cmdline", vm["pid"]))?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        ensure!(line.contains(option), "{option}: {line}");
    }
    Ok(())
}
