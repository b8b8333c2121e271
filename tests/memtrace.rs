//! Heap traces taken from guests: by the command line, from VMs and from addresses, and what the page makes of them.
//!
//! Owns nothing: a real daemon, real guests, the real programs.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use black_box::control::until_answering;
use black_box::{Daemon, PATIENCE, bin_dir, eventually, free_port, guest};
use serde_json::{Value, json};
use uni_wire::memtrace::{Decoder, Item, Mode};

/// Bytes a second.
const LEAK_RATE: &str = "--leak-rate=4194304";
const TOKEN: &str = "correct-horse-battery-staple";

fn run_leaky(daemon: &Daemon, name: &str, args: &[&str]) -> anyhow::Result<String> {
    let image = guest("leaky").display().to_string();
    let run = ["run", &image, "--name", name, "--memory", "128M", "--", "--interval=1", LEAK_RATE];
    let id = daemon.uni_ok(&[&run, args].concat())?.trim().to_owned();
    eventually("the guest to answer", || daemon.uni_ok(&["metrics", name]))?;
    Ok(id)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The rate, and how many events a whole trace has.
fn read_strictly(file: &Path) -> anyhow::Result<(f64, usize)> {
    let (mut rate, mut events) = (0.0, 0);
    let mut decoder = Decoder::new(Mode::Strict);
    let mut each = |item: Item<'_>| match item {
        Item::Info(info) => rate = info.sample_rate,
        Item::Alloc(_) | Item::Promote(_) | Item::Collect(_) => events += 1,
        _ => {}
    };
    decoder.handle_bytes(&std::fs::read(file)?, &mut each)?;
    decoder.finish(&mut each)?;
    Ok((rate, events))
}

/// A figure of `/metrics` about heap traces.
fn figure(daemon: &Daemon, name: &str) -> anyhow::Result<f64> {
    let text = daemon.get("metrics", "/metrics")?;
    let value = text.lines().find_map(|line| line.strip_prefix("uni_heap_traces_")?.strip_prefix(name));
    Ok(value.with_context(|| format!("{name} in {text}"))?.trim().parse()?)
}

/// `uni` in the background; killed when dropped.
struct Taker(Option<Child>);

impl Taker {
    fn start(daemon: &Daemon, args: &[&str]) -> anyhow::Result<Self> {
        let mut uni = Command::new(bin_dir().join("uni"));
        uni.arg("--socket").arg(daemon.socket()).arg("memtrace").args(args);
        uni.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(Self(Some(uni.spawn().context("start uni")?)))
    }

    fn signal(&self, signal: rustix::process::Signal) -> anyhow::Result<()> {
        let child = self.0.as_ref().context("it runs")?;
        let pid = rustix::process::Pid::from_child(child);
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    fn end(mut self) -> anyhow::Result<Output> {
        Ok(self.0.take().context("it runs")?.wait_with_output()?)
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until a file has bytes.
fn until_filled(file: &Path) -> anyhow::Result<u64> {
    eventually("the trace to grow", || {
        let length = std::fs::metadata(file)?.len();
        ensure!(length > 500, "{length} bytes");
        Ok(length)
    })
}

#[test]
fn a_trace_names_the_leaking_function_first_and_the_page_draws_it() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(&state.path().join("s"), &["--interval", "1s"])?;
    let id = run_leaky(&daemon, "leaky", &[])?;
    let file = state.path().join("f");
    let path = file.display().to_string();
    let told = daemon.uni_json(&["memtrace", "leaky", "-o", &path, "--for", "5s", "--rate", "0.01"])?;
    let (rate, events) = read_strictly(&file)?;
    ensure!(
        rate == 0.01 && told["events"] == events && told["why"] == "its time is over",
        "{rate} {events} {told}"
    );
    let seconds = told["seconds"].as_f64().context("seconds")?;
    ensure!((4.0..12.0).contains(&seconds), "{told}");
    ensure!(!state.path().join("f.part").exists());

    let report = daemon.uni_json(&["memtrace", "report", &path])?;
    let first = &report["rows"][0];
    ensure!(first["library"] == "leaky" && first["name"] == "leaky::leak_a_little", "{first}");
    ensure!(first["file"].as_str().is_some_and(|file| file.ends_with("main.rs")), "{first}");
    let live = first["live_bytes"].as_f64().context("bytes")?;
    ensure!((0.7..1.3).contains(&(live / (5.0 * f64::from(4 << 20)))), "{live} bytes in 5 s");
    // the next trace has the guest's own rate again
    let after = state.path().join("after");
    daemon.uni_ok(&["memtrace", "leaky", "-o", &after.display().to_string(), "--for", "1s"])?;
    ensure!(read_strictly(&after)?.0 == 0.0001, "{:?}", read_strictly(&after)?);

    let kept: Value = serde_json::from_str(&daemon.get("ui", "/ui/api/vm/leaky/traces")?)?;
    let traces = kept["traces"].as_array().context("traces")?;
    ensure!(traces.len() == 2 && kept["can_take"] == false && traces[1]["running"] == false, "{kept}");
    ensure!(
        traces[0]["end"]["whole"] == true && traces[1]["bytes"] == std::fs::metadata(&file)?.len(),
        "{kept}"
    );
    let name = traces[1]["name"].as_str().context("name")?;
    let stored = daemon.state_dir().join("traces").join(&id).join(format!("{name}.ctf"));
    ensure!(std::fs::read(&stored)? == std::fs::read(&file)?, "what is kept is what was given");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&stored)?.permissions());
    ensure!(mode & 0o777 == 0o600, "{mode:o}");

    let flame = |query: &str| -> anyhow::Result<Value> {
        let path = format!("/ui/api/vm/leaky/traces/{name}/flame{query}");
        Ok(serde_json::from_str(&daemon.get("ui", &path)?)?)
    };
    let whole = flame("")?;
    let nodes = whole["nodes"].as_array().context("nodes")?;
    let leak = nodes.iter().find(|node| node["name"] == "leaky::leak_a_little").context(whole.to_string())?;
    let part = leak["live"].as_f64().context("live")? / nodes[0]["live"].as_f64().context("live")?;
    ensure!(leak["library"] == "leaky" && part > 0.9, "{part} of {leak}");
    let early = flame("?weight=allocated&at=2")?;
    let size = |flame: &Value| flame["nodes"][0]["live"].as_f64().unwrap_or_default();
    ensure!(early["weight"] == "allocated" && size(&early) < size(&whole) * 0.7, "{early}");
    // what leaked in the last seconds has not lived so long
    let old = flame("?min_lifetime=3")?;
    ensure!(size(&old) > 0.0 && size(&old) < size(&whole) * 0.6, "{old}");
    let old_report = daemon.uni_json(&["memtrace", "report", &path, "--min-lifetime", "3s"])?;
    let old_live = old_report["totals"]["live_bytes"].as_f64().context("bytes")?;
    ensure!((0.99..1.01).contains(&(old_live / size(&old))), "{old_live} {}", size(&old));
    for (path, status) in [
        (format!("/ui/api/vm/leaky/traces/{name}/flame?weight=heavy"), "400"),
        (format!("/ui/api/vm/leaky/traces/{name}/flame?at=nan"), "400"),
        (format!("/ui/api/vm/leaky/traces/{name}/flame?min_lifetime=-1"), "400"),
        (format!("/ui/api/vm/leaky/traces/{name}x/flame"), "404"),
        (format!("/ui/api/vm/leaky/traces/..%2f..%2f{id}%2f{name}/flame"), "404"),
        (format!("/ui/api/vm/nobody/traces/{name}/flame"), "404"),
    ] {
        let answer = daemon.get("ui", &path).map_err(|error| format!("{error:#}"));
        ensure!(answer.as_ref().is_err_and(|error| error.contains(status)), "{path}: {answer:?}");
    }

    // by library over time, of the VM and of all together
    for path in ["/ui/api/vm/leaky/libraries?seconds=60", "/ui/api/libraries?seconds=60"] {
        let told: Value = serde_json::from_str(&daemon.get("ui", path)?)?;
        let first = &told["libraries"][0];
        let bytes = first["bytes"].as_array().context("bytes")?;
        ensure!(
            first["library"] == "leaky" && bytes.len() == told["times"].as_array().map_or(0, Vec::len),
            "{told}"
        );
        let last = bytes.last().and_then(Value::as_f64).context("a point")?;
        ensure!(last > 10e6 && bytes.first().and_then(Value::as_f64) < Some(last), "{told}");
    }

    daemon.uni_ok(&["rm", "--force", "leaky"])?;
    ensure!(!daemon.state_dir().join("traces").join(&id).exists(), "its traces stay");
    Ok(())
}

#[test]
fn one_takes_it_the_second_is_told_and_ctrl_c_leaves_a_whole_file() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(&state.path().join("s"), &["--metrics-addr", "127.0.0.1:0"])?;
    run_leaky(&daemon, "leaky", &[])?;
    let file = state.path().join("f");
    let part = state.path().join("f.part");
    let path = file.display().to_string();
    let taker = Taker::start(&daemon, &["leaky", "-o", &path, "--rate", "0.01"])?;
    until_filled(&part)?;

    let second = daemon.uni(&["memtrace", "leaky", "-o", &state.path().join("g").display().to_string()])?;
    ensure!(!second.status.success() && text(&second).contains("one is being taken already"), "{second:?}");
    ensure!(!state.path().join("g").exists() && !state.path().join("g.part").exists());
    for (name, wanted) in [("running", 1.0), ("taken_total", 1.0), ("refused_total", 1.0), ("cut_total", 0.0)]
    {
        ensure!(figure(&daemon, name)? == wanted, "{name}: {}", figure(&daemon, name)?);
    }
    // what there is so far can be looked at
    let kept: Value = serde_json::from_str(&daemon.get("ui", "/ui/api/vm/leaky/traces")?)?;
    ensure!(kept["traces"][0]["running"] == true, "{kept}");
    let name = kept["traces"][0]["name"].as_str().context("name")?;
    let flame: Value =
        serde_json::from_str(&daemon.get("ui", &format!("/ui/api/vm/leaky/traces/{name}/flame"))?)?;
    ensure!(flame["running"] == true && flame["nodes"][0]["live"].as_f64() > Some(0.0), "{flame}");

    taker.signal(rustix::process::Signal::INT)?;
    let ended = taker.end()?;
    ensure!(
        ended.status.success() && String::from_utf8_lossy(&ended.stdout).contains("it was stopped"),
        "{ended:?}"
    );
    let (_, events) = read_strictly(&file)?;
    ensure!(file.exists() && !part.exists() && events > 0, "{events}");
    let bytes = std::fs::metadata(&file)?.len();
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    for (name, wanted) in [("running", 0.0), ("events_total", events as f64), ("bytes_total", bytes as f64)] {
        ensure!(figure(&daemon, name)? == wanted, "{name}: {} {wanted}", figure(&daemon, name)?);
    }

    // to stdout, and to a pipe whose reader leaves: the place is free again
    let all = daemon.uni(&["memtrace", "leaky", "-o", "-", "--for", "1s", "--rate", "0.01"])?;
    ensure!(all.status.success() && all.stdout.starts_with(&0xC1FC_1FC1_u32.to_le_bytes()), "{}", text(&all));
    let mut left = Taker::start(&daemon, &["leaky", "-o", "-", "--rate", "0.01"])?;
    drop(left.0.as_mut().and_then(|child| child.stdout.take()));
    left.end()?;
    eventually("the place to be free", || daemon.uni_ok(&["memtrace", "leaky", "-o", &path, "--for", "1s"]))?;
    Ok(())
}

#[test]
fn a_stalled_taker_stalls_nobody_and_gets_the_rest_when_it_goes_on() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(&state.path().join("s"), &[])?;
    run_leaky(&daemon, "leaky", &[])?;
    let file = state.path().join("f");
    let path = file.display().to_string();
    let taker = Taker::start(&daemon, &["leaky", "-o", &path, "--rate", "0.01", "--for", "4s"])?;
    let before = until_filled(&state.path().join("f.part"))?;
    taker.signal(rustix::process::Signal::STOP)?;
    // the trace goes on without it, to its end, and so do others' questions
    eventually("the trace to end", || {
        let begun = Instant::now();
        let kept: Value = serde_json::from_str(&daemon.get("ui", "/ui/api/vm/leaky/traces")?)?;
        ensure!(begun.elapsed() < Duration::from_secs(3), "an answer took {:?}", begun.elapsed());
        let trace = &kept["traces"][0];
        ensure!(trace["end"]["whole"] == true && trace["bytes"].as_u64() > Some(before), "{kept}");
        Ok(())
    })?;
    taker.signal(rustix::process::Signal::CONT)?;
    let ended = taker.end()?;
    ensure!(ended.status.success(), "{}", text(&ended));
    ensure!(read_strictly(&file)?.1 > 0 && std::fs::metadata(&file)?.len() > before);
    Ok(())
}

#[test]
fn what_cannot_be_is_refused_with_what_to_do() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(&state.path().join("s"), &[])?;
    run_leaky(&daemon, "report", &["--memtrace-port=0"])?;
    let id = daemon.uni_json(&["inspect", "report"])?["id"].as_str().context("id")?.to_owned();
    let file = state.path().join("f").display().to_string();
    let file = file.as_str();
    for (args, words) in [
        (vec!["-o", file, "--rate", "0", &id], "no probability"),
        (vec!["-o", file, "--rate", "2", &id], "no probability"),
        (vec!["-o", file, "--rate", "nan", &id], "no probability"),
        (vec!["-o", file, "--rate", "-1", &id], "no probability"),
        (vec!["-o", file, "--for", "soon", &id], "not a duration"),
        (vec!["-o", file, "--for", "25h", &id], "24h"),
        (vec![&id], "-o FILE"),
        (vec!["-o", file], "name either a VM or an address"),
        (vec!["-o", file, "--addr", "127.0.0.1:1", "--rate", "0.1"], "only that guest can be told"),
        (vec!["-o", file, "nobody"], "not found"),
        (vec!["-o", "/nowhere/f", &id], "/nowhere/f.part"),
        // VMs that are called as subcommands are
        (vec!["-o", file, "report"], "refuses connections to its TCP port 4242"),
        (vec![&id, "-o", file], "--memtrace-port=0"),
    ] {
        let output = daemon.uni(&[&["memtrace"], args.as_slice()].concat())?;
        ensure!(!output.status.success() && text(&output).contains(words), "{args:?}: {}", text(&output));
        ensure!(!Path::new(file).exists() && !state.path().join("f.part").exists(), "{args:?} leaves a file");
    }
    daemon.uni_ok(&["stop", "report", "--force"])?;
    let output = daemon.uni(&["memtrace", "-o", file, "report"])?;
    ensure!(text(&output).contains("it is stopped; only a running VM has one"), "{}", text(&output));
    Ok(())
}

#[test]
fn a_killed_daemon_leaves_the_vm_and_what_came() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let mut daemon = Daemon::start(&state.path().join("s"), &[])?;
    run_leaky(&daemon, "leaky", &[])?;
    let part = state.path().join("f.part");
    let path = state.path().join("f").display().to_string();
    let taker = Taker::start(&daemon, &["leaky", "-o", &path, "--rate", "0.01"])?;
    until_filled(&part)?;
    daemon.kill()?;
    let ended = taker.end()?;
    ensure!(!ended.status.success() && text(&ended).contains("f.part"), "{}", text(&ended));
    ensure!(read_strictly(&part)?.1 > 0, "what came can be read");
    daemon.restart()?;
    let vm = daemon.uni_json(&["inspect", "leaky"])?;
    ensure!(vm["state"] == "running", "{vm}");
    // the guest has noticed, and gives another
    eventually("another trace", || daemon.uni_ok(&["memtrace", "leaky", "-o", &path, "--for", "1s"]))?;
    let kept: Value = serde_json::from_str(&daemon.get("ui", "/ui/api/vm/leaky/traces")?)?;
    ensure!(kept["traces"].as_array().is_some_and(|traces| traces.len() >= 2), "{kept}");
    Ok(())
}

/// The example, with ports of its own; killed when dropped.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_program_that_uni_does_not_run_is_traced_at_its_address() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(&state.path().join("s"), &[])?;
    let (http, adjust, memtrace) = (free_port()?, free_port()?, free_port()?);
    let ports = [
        format!("--port={http}"),
        format!("--monitor-adjust={adjust}"),
        format!("--memtrace-port={memtrace}"),
        "--memtrace-rate=0.1".to_owned(),
    ];
    let program = bin_dir().join("agent");
    let mut agent = Command::new(&program);
    agent.args(ports).args(["--metrics-port=0", "--interval=1", "--name=shop", "--monitor"]);
    agent.arg(daemon.address("line")?).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _agent = Agent(agent.spawn().with_context(|| format!("start {}", program.display()))?);
    until_answering(adjust)?;
    let file = state.path().join("f");
    let path = file.display().to_string();
    let address = format!("127.0.0.1:{memtrace}");
    let begun = Instant::now();
    let told = daemon.uni_json(&["memtrace", "--addr", &address, "-o", &path, "--for", "2s"])?;
    ensure!(begun.elapsed() >= Duration::from_secs(2) && told["why"] == "its time is over", "{told}");
    ensure!(read_strictly(&file)?.1 == told["events"], "{told}");
    // its functions are addresses, for which the program has names
    let report = |more: &[&str]| {
        let args = ["memtrace", "report", &path, "--by", "function", "--top", "1000"];
        daemon.uni_json(&[&args, more].concat())
    };
    let named = report(&["--symbols", &program.display().to_string()])?;
    let functions = |report: &Value, wanted: fn(&Value) -> bool| {
        report["rows"].as_array().map_or(0, |rows| rows.iter().filter(|row| wanted(row)).count())
    };
    let is_address = |row: &Value| row["name"].as_str().is_some_and(|name| name.starts_with("0x"));
    // it has nobody to serve, so that what reports about it is what allocates
    let is_named = |row: &Value| row["name"].as_str().is_some_and(|name| name.contains("uni_guest::"));
    let bare = report(&[])?;
    ensure!(functions(&bare, is_address) > 0 && functions(&bare, is_named) == 0, "{bare}");
    ensure!(functions(&named, is_named) > 0, "{named}");
    // it is no trace that speaks HTTP or nothing at all
    let nobody = free_port()?;
    for (port, words) in [(nobody, "connect"), (adjust, "instead of a trace")] {
        let address = format!("127.0.0.1:{port}");
        let output = daemon.uni(&["memtrace", "--addr", &address, "-o", &path, "--for", "1s"])?;
        let told = text(&output);
        let silent = told.contains("without a trace") || told.contains("nothing came");
        ensure!(!output.status.success() && (told.contains(words) || silent), "{port}: {told}");
    }
    Ok(())
}

#[test]
fn the_page_takes_a_trace_only_where_it_may() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let token = state.path().join("token");
    std::fs::write(&token, TOKEN)?;
    let flags = ["--ui-control", "--token-file", &token.display().to_string()];
    let daemon = Daemon::start(&state.path().join("s"), &flags)?;
    run_leaky(&daemon, "leaky", &[])?;
    let ask = |headers: &[(&str, &str)], body: &Value| -> anyhow::Result<(u16, Value)> {
        let config = ureq::Agent::config_builder().http_status_as_error(false).max_idle_connections(0);
        let agent: ureq::Agent = config.timeout_global(Some(PATIENCE)).build().into();
        let url = format!("http://{}/ui/api/vm/leaky/traces", daemon.address("ui")?);
        let mut request = ureq::http::Request::builder().method("POST").uri(&url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut answer = agent.run(request.body(body.to_string())?)?;
        let text = answer.body_mut().read_to_string()?;
        Ok((answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text))))
    };
    let bearer = format!("Bearer {TOKEN}");
    let (json, bearer) = (("content-type", "application/json"), ("authorization", bearer.as_str()));
    // printf 'any:correct-horse-battery-staple' | base64
    let basic = ("authorization", "Basic YW55OmNvcnJlY3QtaG9yc2UtYmF0dGVyeS1zdGFwbGU=");
    for (headers, body, status) in [
        (vec![json], json!({}), 401),
        (vec![json, basic], json!({}), 403),
        (vec![json, bearer, ("origin", "http://evil.example.com")], json!({}), 403),
        (vec![bearer, ("content-type", "text/plain")], json!({}), 415),
        (vec![json, bearer], json!({ "for_seconds": 0 }), 400),
        (vec![json, bearer], json!({ "for_seconds": 601 }), 400),
        (vec![json, bearer], json!({ "for": 1 }), 400),
        (vec![json, bearer], json!({ "rate": 2 }), 422),
        (vec![json, bearer], json!({ "for_seconds": 2, "rate": 0.01 }), 200),
        (vec![json, bearer], json!({ "for_seconds": 1 }), 422),
    ] {
        let (got, answer) = ask(&headers, &body)?;
        ensure!(got == status, "{headers:?} {body}: {got} {answer}");
    }
    daemon.logged(&["heap trace ended", "vm=leaky", "whole=true"])?;
    daemon.logged(&["heap trace begun", "by=\"page, 127.0.0.1\""])?;
    Ok(())
}
