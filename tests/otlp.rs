//! Traces of VM operations, as a real collector gets them by OTLP: gRPC and HTTP, there, gone and silent.
//!
//! Owns nothing: the collector is the harness's.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use black_box::otlp::Collector;
use black_box::{Daemon, bin_dir, eventually, free_port, guest};
use serde_json::{Value, json};

/// What an operation may take longer because of a collector that does not answer.
const SLOWER: Duration = Duration::from_secs(2);
/// What the daemon's end may take longer: the flush's deadline, and a little.
const FLUSH: Duration = Duration::from_secs(5);

/// Waits for a number of traces, by the events of their parents, and gives them in the order of their starts.
fn traces(collector: &Collector, events: &[&str]) -> anyhow::Result<Vec<Trace>> {
    eventually(&format!("traces of {events:?}"), || {
        let spans = collector.spans();
        let parents = spans.iter().filter(|span| span["name"] == "vm.lifecycle").cloned();
        let mut traces: Vec<_> =
            parents.map(|parent| Trace { children: children(&spans, &parent), parent }).collect();
        traces.sort_by_key(|trace| trace.parent["start"].as_u64());
        let found: Vec<_> = traces.iter().map(|trace| text(&trace.parent, "vm.event")).collect();
        ensure!(found == events, "{found:?}");
        Ok(traces)
    })
}

fn children(spans: &[Value], parent: &Value) -> Vec<Value> {
    let mut children: Vec<_> =
        spans.iter().filter(|span| span["parent_id"] == parent["span_id"]).cloned().collect();
    children.sort_by_key(|span| span["start"].as_u64());
    children
}

/// One operation.
#[derive(Debug)]
struct Trace {
    parent: Value,
    children: Vec<Value>,
}

impl Trace {
    /// Checks what holds for every operation, and the names of the parts.
    fn check(&self, parts: &[&str]) -> anyhow::Result<()> {
        let Self { parent, children } = self;
        let names: Vec<_> = children.iter().filter_map(|child| child["name"].as_str()).collect();
        ensure!(names == parts, "{self:#?}");
        ensure!(parent["kind"] == "SPAN_KIND_SERVER", "{parent}");
        let seconds = &parent["attributes"]["vm.duration_seconds"];
        ensure!(seconds["kind"] == "double_value", "{parent}");
        let span = (number(parent, "end")? - number(parent, "start")?) / 1e9;
        let told = seconds["value"].as_f64().context("no duration")?;
        ensure!((span - told).abs() < 0.5 && told >= 0.0, "{told} told, {span} shown");
        for child in children {
            ensure!(
                child["kind"] == "SPAN_KIND_INTERNAL" && child["trace_id"] == parent["trace_id"],
                "{self:#?}"
            );
            ensure!(number(child, "start")? >= number(parent, "start")?, "{self:#?}");
            ensure!(number(child, "end")? <= number(parent, "end")?, "{self:#?}");
        }
        Ok(())
    }

    fn succeeded(&self) -> anyhow::Result<()> {
        for span in self.children.iter().chain([&self.parent]) {
            ensure!(span["status"] == "STATUS_CODE_UNSET" && span["events"] == json!([]), "{self:#?}");
        }
        Ok(())
    }

    /// The last part and the whole failed with `message`.
    fn failed(&self, message: &str) -> anyhow::Result<()> {
        let last = self.children.last().context("no part")?;
        for span in [last, &self.parent] {
            ensure!(span["status"] == "STATUS_CODE_ERROR", "{self:#?}");
            ensure!(span["message"].as_str().is_some_and(|text| text.contains(message)), "{self:#?}");
            let event = &span["events"][0];
            ensure!(event["name"] == "exception", "{self:#?}");
            ensure!(event["attributes"]["exception.message"]["value"] == span["message"], "{self:#?}");
        }
        Ok(())
    }

    /// The parent says which VM it was about.
    fn is_about(&self, id: &str, name: &str, state: &str) -> anyhow::Result<()> {
        let said =
            [text(&self.parent, "vm.id"), text(&self.parent, "vm.name"), text(&self.parent, "vm.state")];
        ensure!(said == [id, name, state], "{said:?} instead of {:?}", [id, name, state]);
        Ok(())
    }
}

fn number(span: &Value, key: &str) -> anyhow::Result<f64> {
    span[key].as_f64().with_context(|| format!("no {key}: {span}"))
}

/// An attribute that is a string; empty when there is none.
fn text(span: &Value, name: &str) -> String {
    let attribute = &span["attributes"][name];
    let text = if attribute["kind"] == "string_value" { attribute["value"].as_str() } else { None };
    text.unwrap_or_default().to_owned()
}

/// `uni run` of a guest that stays.
fn run(daemon: &Daemon, name: &str) -> anyhow::Result<String> {
    let image = guest("http").display().to_string();
    daemon.uni_ok(&["run", &image, "--name", name, "--memory", "32M"])
}

#[test]
fn a_vm_that_removes_itself_leaves_a_trace_of_it() -> anyhow::Result<()> {
    let collector = Collector::start("grpc", 0)?;
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &["--trace-addr", &format!("127.0.0.1:{}", collector.port())])?;
    let image = guest("http").display().to_string();
    let id = daemon.uni_ok(&["run", &image, "--name", "once", "--memory", "32M", "--rm"])?;
    daemon.uni_ok(&["stop", "once"])?;
    let traces = traces(&collector, &["create", "stop", "remove"])?;
    traces[2].check(&["vm.remove"])?;
    traces[2].succeeded()?;
    traces[2].is_about(&id, "once", "stopped")
}

/// `uni` with variables.
fn uni(daemon: &Daemon, variables: &[(&str, &str)], args: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(bin_dir().join("uni"));
    command.arg("--socket").arg(daemon.socket()).args(args).envs(variables.iter().copied());
    Ok(command.stdin(Stdio::null()).output()?)
}

fn each_operation_is_a_trace(how: &str, address: impl Fn(u16) -> String, shown: &str) -> anyhow::Result<()> {
    let collector = Collector::start(how, 0)?;
    let state = tempfile::tempdir()?;
    let mut daemon = Daemon::start(state.path(), &["--trace-addr", &address(collector.port())])?;
    let image = guest("http").display().to_string();

    let first = run(&daemon, "first")?;
    daemon.uni_ok(&["stop", "first"])?;
    let second = run(&daemon, "second")?;
    daemon.uni_ok(&["stop", "second", "--force"])?;
    daemon.uni_ok(&["rm", "second"])?;
    ensure!(!daemon.uni(&["stop", "nobody"])?.status.success());
    let third = run(&daemon, "third")?;
    let refused = refused_run(&daemon)?;
    let traces =
        traces(&collector, &["create", "stop", "create", "kill", "remove", "stop", "create", "create"])?;

    let parts: [&[&str]; 8] = [
        &["vm.create", "vm.start"],
        &["vm.stop"],
        &["vm.create", "vm.start"],
        &["vm.kill"],
        &["vm.remove"],
        &["vm.stop"],
        &["vm.create", "vm.start"],
        &["vm.create"],
    ];
    for (trace, parts) in traces.iter().zip(parts) {
        trace.check(parts)?;
    }
    [0, 1, 2, 3, 4, 6].iter().try_for_each(|&at| traces[at].succeeded())?;
    traces[0].is_about(&first, "first", "running")?;
    traces[1].is_about(&first, "first", "stopped")?;
    traces[2].is_about(&second, "second", "running")?;
    traces[3].is_about(&second, "second", "stopped")?;
    traces[4].is_about(&second, "second", "stopped")?;
    traces[5].is_about("", "", "")?;
    traces[5].failed("vm \"nobody\" not found")?;
    traces[7].failed(&refused)?;
    traces[7].is_about("", "", "")?;
    let [create, start] = &traces[0].children[..] else { anyhow::bail!("{traces:#?}") };
    let asked = json!({
        "vm.image": {"kind": "string_value", "value": image}, "vm.memory": {"kind": "string_value", "value": "32M"},
        "vm.cpus": {"kind": "int_value", "value": 1}, "vm.name": {"kind": "string_value", "value": "first"},
    });
    ensure!(create["attributes"] == asked, "{create}");
    ensure!(start["attributes"] == json!({"vm.id": {"kind": "string_value", "value": first}}), "{start}");
    ensure!(
        text(&traces[3].children[0], "vm.id") == second && text(&traces[4].children[0], "vm.id") == second
    );
    let ids: BTreeSet<_> = traces.iter().map(|trace| trace.parent["trace_id"].to_string()).collect();
    ensure!(ids.len() == traces.len(), "a trace for each operation: {ids:?}");
    ensure!(traces.iter().all(|trace| trace.parent["parent_id"] == ""), "{traces:#?}");

    for request in collector.requests() {
        ensure!(request["how"] == shown && request["scope"] == "unid", "{request}");
        let service = &request["resource"];
        ensure!(service["service.name"]["value"] == "unid", "{service}");
        ensure!(daemon.uni_json(&["status"])?["version"] == service["service.version"]["value"], "{service}");
    }
    let spans = collector.spans().len();
    eventually("the counters", || {
        let counters = &daemon.uni_json(&["status"])?["traces"];
        let none = json!({"queue_full": 0, "export_failed": 0});
        ensure!(
            *counters == json!({"spans_exported_total": spans, "spans_dropped_total": none}),
            "{counters}"
        );
        Ok(())
    })?;
    readopted(&collector, &mut daemon, &third)
}

/// A daemon that was killed comes back twice: to a VM that lives, and to one that has gone.
fn readopted(collector: &Collector, daemon: &mut Daemon, id: &str) -> anyhow::Result<()> {
    let before: Vec<_> =
        collector.spans().into_iter().filter(|span| span["name"] == "vm.lifecycle").collect();
    let mut events: Vec<_> = before.iter().map(|span| text(span, "vm.event")).collect();
    for state in ["running", "stopped"] {
        let detail = daemon.uni_json(&["inspect", id])?;
        daemon.kill()?;
        if state == "stopped" {
            let qemu = detail["pid"].to_string();
            ensure!(Command::new("sh").args(["-c", "kill -KILL $0", &qemu]).status()?.success());
            eventually("the shim to end", || {
                ensure!(!lives(&detail["shim_pid"]), "it still lives");
                Ok(())
            })?;
        }
        daemon.restart()?;
        events.push("readopt".to_owned());
        let traces = traces(collector, &events.iter().map(String::as_str).collect::<Vec<_>>())?;
        let last = traces.last().context("no trace")?;
        last.check(&["vm.readopt"])?;
        last.succeeded()?;
        last.is_about(id, "third", state)?;
        ensure!(text(&last.children[0], "vm.id") == id, "{last:#?}");
    }
    Ok(())
}

/// Whether a process is there and no zombie.
fn lives(pid: &Value) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| !rest.starts_with('Z')))
}

/// A run that the daemon refuses; its message.
fn refused_run(daemon: &Daemon) -> anyhow::Result<String> {
    let image = daemon.state_dir().join("no.elf");
    std::fs::write(&image, "no image")?;
    let output = daemon.uni(&["run", &image.display().to_string()])?;
    ensure!(!output.status.success());
    let message = String::from_utf8(output.stderr)?;
    Ok(message.trim().strip_prefix("uni: run: ").context(message.clone())?.to_owned())
}

#[test]
fn each_operation_is_a_trace_by_grpc() -> anyhow::Result<()> {
    each_operation_is_a_trace("grpc", |port| format!("127.0.0.1:{port}"), "grpc")
}

#[test]
fn each_operation_is_a_trace_by_http() -> anyhow::Result<()> {
    let url = |port| format!("http://localhost:{port}");
    each_operation_is_a_trace("http", url, "/v1/traces application/x-protobuf")
}

#[test]
fn a_callers_trace_goes_on_and_a_malformed_one_costs_nothing() -> anyhow::Result<()> {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";
    let collector = Collector::start("grpc", 0)?;
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &["--trace-addr", &format!("127.0.0.1:{}", collector.port())])?;
    let sampled = format!("00-{TRACE}-{SPAN}-01");
    let not_sampled = format!("00-{TRACE}-{SPAN}-00");
    for variables in [
        &[("TRACEPARENT", sampled.as_str()), ("TRACESTATE", "vendor=1")][..],
        &[("TRACEPARENT", "00-nonsense-01")],
        &[("TRACEPARENT", &not_sampled)],
        &[("TRACESTATE", "vendor=1")],
    ] {
        ensure!(!uni(&daemon, variables, &["stop", "nobody"])?.status.success());
    }
    daemon.uni(&["rm", "nobody"])?;
    // the caller that records nothing wants nothing recorded
    let traces = traces(&collector, &["stop", "stop", "stop", "remove"])?;
    let parents: Vec<_> = traces.iter().map(|trace| &trace.parent).collect();
    ensure!(parents[0]["trace_id"] == TRACE && parents[0]["parent_id"] == SPAN, "{parents:#?}");
    ensure!(parents[0]["trace_state"] == "vendor=1" && traces[0].children.len() == 1, "{traces:#?}");
    ensure!(
        parents[1..].iter().all(|span| span["trace_id"] != TRACE && span["parent_id"] == ""),
        "{parents:#?}"
    );
    Ok(())
}

/// Runs and stops a VM; how long that took.
fn run_and_stop(daemon: &Daemon) -> anyhow::Result<Duration> {
    let start = Instant::now();
    run(daemon, "vm")?;
    daemon.uni_ok(&["stop", "vm"])?;
    daemon.uni_ok(&["rm", "vm"])?;
    Ok(start.elapsed())
}

/// Ends the daemon; how long that took.
fn end(daemon: &mut Daemon) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let status = daemon.terminate()?;
    ensure!(status.success(), "{status}: {:#?}", daemon.log());
    Ok(start.elapsed())
}

/// The same operations without traces, to compare with.
fn without_traces() -> anyhow::Result<(Duration, Duration)> {
    let state = tempfile::tempdir()?;
    let mut daemon = Daemon::start(state.path(), &[])?;
    ensure!(daemon.uni_json(&["status"])?.get("traces").is_none(), "traces are off");
    ensure!(!threads(daemon.pid())?.contains(&"unid-traces".to_owned()), "a thread for nothing");
    Ok((run_and_stop(&daemon)?, end(&mut daemon)?))
}

/// The names of a process's threads.
fn threads(pid: u32) -> anyhow::Result<Vec<String>> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))?;
    tasks.map(|task| Ok(std::fs::read_to_string(task?.path().join("comm"))?.trim().to_owned())).collect()
}

fn warnings(daemon: &Daemon, words: &str) -> usize {
    daemon.log().iter().filter(|line| line.contains(words)).count()
}

fn dropped(daemon: &Daemon) -> anyhow::Result<u64> {
    let status = daemon.uni_json(&["status"])?;
    status["traces"]["spans_dropped_total"]["export_failed"].as_u64().with_context(|| status.to_string())
}

#[test]
fn a_collector_that_is_down_delays_nothing_and_is_found_when_it_comes() -> anyhow::Result<()> {
    let (operations, ending) = without_traces()?;
    let port = free_port()?;
    let state = tempfile::tempdir()?;
    let mut daemon = Daemon::start(state.path(), &["--trace-addr", &format!("127.0.0.1:{port}")])?;
    ensure!(
        threads(daemon.pid())?.contains(&"unid-traces".to_owned()),
        "the thread that is to be absent otherwise"
    );
    let took = run_and_stop(&daemon)?;
    ensure!(took < operations + SLOWER, "{took:?} instead of {operations:?}");
    // run: 3 spans, stop and rm: 2 each
    eventually("dropped spans", || {
        let dropped = dropped(&daemon)?;
        ensure!(dropped == 7, "{dropped}");
        Ok(())
    })?;
    daemon.logged(&["traces cannot be delivered"])?;
    ensure!(warnings(&daemon, "traces cannot be delivered") == 1, "{:#?}", daemon.log());
    let collector = Collector::start("grpc", port)?;
    eventually("a delivered trace", || {
        daemon.uni(&["stop", "nobody"])?;
        ensure!(!collector.spans().is_empty(), "none");
        Ok(())
    })?;
    eventually("the recovery in the log", || {
        ensure!(warnings(&daemon, "traces are delivered again") == 1, "{:#?}", daemon.log());
        Ok(())
    })?;
    drop(collector);
    daemon.uni(&["stop", "nobody"])?;
    let took = end(&mut daemon)?;
    ensure!(took < ending + FLUSH, "{took:?} instead of {ending:?}");
    Ok(())
}

#[test]
fn a_collector_that_never_answers_delays_nothing() -> anyhow::Result<()> {
    let (operations, ending) = without_traces()?;
    // the kernel takes the connections, nobody ever reads
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let address = silent.local_addr()?;
    for address in [address.to_string(), format!("http://{address}")] {
        let state = tempfile::tempdir()?;
        let mut daemon = Daemon::start(state.path(), &["--trace-addr", &address])?;
        let took = run_and_stop(&daemon)?;
        ensure!(took < operations + SLOWER, "{address}: {took:?} instead of {operations:?}");
        eventually("dropped spans", || {
            ensure!(dropped(&daemon)? > 0, "none");
            Ok(())
        })?;
        daemon.logged(&["traces cannot be delivered"])?;
        ensure!(warnings(&daemon, "traces cannot be delivered") == 1, "{address}: {:#?}", daemon.log());
        daemon.uni(&["stop", "nobody"])?;
        let took = end(&mut daemon)?;
        ensure!(took < ending + FLUSH, "{address}: {took:?} instead of {ending:?}");
        daemon.logged(&["unid shutdown complete"])?;
        ensure!(warnings(&daemon, "unid shutdown complete") == 1, "{address}: {:#?}", daemon.log());
    }
    Ok(())
}

#[test]
fn more_spans_than_the_queue_holds_are_dropped_and_counted() -> anyhow::Result<()> {
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &["--trace-addr", &silent.local_addr()?.to_string()])?;
    let (requests, before) = (4000, Instant::now());
    call_often(&daemon, requests)?;
    let counters = daemon.uni_json(&["status"])?["traces"]["spans_dropped_total"].clone();
    // two spans each; 2048 wait, and a batch of 512 or two are on their way or given up
    let full = counters["queue_full"].as_u64().context("no counter")?;
    ensure!((8000 - 2048 - 3 * 512..=8000 - 2048).contains(&full), "{counters} after {:?}", before.elapsed());
    Ok(())
}

/// Asks to stop a VM that is not, over and over on one connection.
fn call_often(daemon: &Daemon, times: usize) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut stream = std::os::unix::net::UnixStream::connect(daemon.socket())?;
    stream.set_read_timeout(Some(black_box::PATIENCE))?;
    let mut answers = BufReader::new(stream.try_clone()?).lines();
    for id in 0..times {
        let request = json!({"jsonrpc": "2.0", "id": id, "method": "VM.Kill", "params": {"id": "nobody"}});
        writeln!(stream, "{request}")?;
        let answer: Value = serde_json::from_str(&answers.next().context("no answer")??)?;
        ensure!(answer["error"]["message"].is_string(), "{answer}");
    }
    Ok(())
}

#[test]
fn the_daemons_end_delivers_the_last_spans() -> anyhow::Result<()> {
    let collector = Collector::start("http", 0)?;
    let state = tempfile::tempdir()?;
    let url = format!("http://127.0.0.1:{}/other/path", collector.port());
    let mut daemon = Daemon::start(state.path(), &["--trace-addr", &url])?;
    daemon.uni(&["stop", "nobody"])?;
    daemon.uni(&["rm", "nobody"])?;
    // before the batch's time is over
    daemon.terminate()?;
    let traces = traces(&collector, &["stop", "remove"])?;
    traces[0].check(&["vm.stop"])?;
    ensure!(
        collector.requests()[0]["how"] == "/other/path application/x-protobuf",
        "{:?}",
        collector.requests()
    );
    Ok(())
}
