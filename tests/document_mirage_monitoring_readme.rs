//! The README of mirage-monitoring: every command of its text, on the control port of a running guest, and what each
//! changes. Where the text names sources of MirageOS (`monitoring-experiments`, `dns`, `net-solo5`), the guest's own
//! stand for them (`agent`, `http`, `net`).
//!
//! Owns nothing. Of the text's memory trace (port 4242) nothing is asked: guests have no trace port in this version.

use std::collections::BTreeSet;
use std::net::TcpStream;

use anyhow::{Context as _, ensure};
use black_box::control::{control, until_answering};
use black_box::line_sink::{LineSink, measurement};
use black_box::{Daemon, eventually, free_port, guest};

/// A web server that reports every second, and its ports.
struct Web {
    daemon: Daemon,
    lines: LineSink,
    control: u16,
    http: u16,
    _state: tempfile::TempDir,
}

impl Web {
    fn start() -> anyhow::Result<Self> {
        let state = tempfile::tempdir()?;
        let daemon = Daemon::start(state.path(), &[])?;
        let (lines, control, http) = (LineSink::start(0)?, free_port()?, free_port()?);
        let image = guest("http").display().to_string();
        let (published, pages) = (format!("{control}:2323"), format!("{http}:80"));
        // without a management link it reports, and is adjusted, over its service link; so the test is reached
        let monitor = format!("--monitor=10.0.2.2:{}", lines.port());
        let flags = ["--memory", "32M", "--no-add-name", "--outbound", "-p", &published, "-p", &pages, "--"];
        let args = ["--name=web", "--ipv4=10.0.2.15/24", "--ipv4-gateway=10.0.2.2", "--interval=1", &monitor];
        daemon.uni_ok(&[&["run", &image, "--name", "web"][..], &flags, &args].concat())?;
        until_answering(control)?;
        Ok(Self { daemon, lines, control, http, _state: state })
    }

    /// A command that is obeyed.
    fn set(&self, command: &str) -> anyhow::Result<()> {
        let answer = control(self.control, command)?;
        ensure!(answer == "ok", "{command}: {answer}");
        Ok(())
    }

    /// The items of the answer to a question.
    fn ask(&self, command: &str) -> anyhow::Result<BTreeSet<String>> {
        let answer = control(self.control, command)?;
        let items = answer.strip_prefix("ok: ").with_context(|| format!("{command}: {answer}"))?;
        Ok(items.split(',').map(str::to_owned).collect())
    }

    /// A question's whole answer.
    fn says(&self, command: &str, items: &[&str]) -> anyhow::Result<()> {
        let said = self.ask(command)?;
        let wanted: BTreeSet<_> = items.iter().map(|&item| item.to_owned()).collect();
        ensure!(said == wanted, "{command}: {said:?} instead of {wanted:?}");
        Ok(())
    }

    /// Waits for so many lines of a source that is on.
    fn reports(&self, source: &str, times: usize) -> anyhow::Result<Vec<String>> {
        eventually(&format!("{times} reports of {source}"), || {
            let names: Vec<_> = self.lines.lines().iter().map(|line| measurement(line)).collect();
            let count = names.iter().filter(|name| *name == source).count();
            ensure!(count >= times, "{count}: {names:?}");
            Ok(names)
        })
    }

    /// Which sources report from now on; `source` is one of them.
    fn arriving(&self, source: &str) -> anyhow::Result<BTreeSet<String>> {
        // what was on its way
        self.lines.clear();
        self.reports(source, 1)?;
        std::thread::sleep(std::time::Duration::from_millis(300));
        self.lines.clear();
        Ok(self.reports(source, 2)?.into_iter().collect())
    }

    /// Lets the web server log an error.
    fn fail(&self) -> anyhow::Result<()> {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let status = agent.get(format!("http://127.0.0.1:{}/fail", self.http)).call()?.status();
        ensure!(status == 500, "{status}");
        Ok(())
    }

    /// Waits until the console has so many errors of the web server.
    fn errors(&self, times: usize) -> anyhow::Result<()> {
        eventually("errors on the console", || {
            let console = self.daemon.uni_ok(&["logs", "web"])?;
            ensure!(console.matches("[ERROR] [http]").count() == times, "{console}");
            Ok(())
        })
    }
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[test]
fn output_metrics_to_influx() -> anyhow::Result<()> {
    let web = Web::start()?;
    web.reports("heap", 4)?;
    let lines = web.lines.lines();
    ensure!(lines.iter().all(|line| line.contains(",vm=web")), "{lines:#?}");
    let heap = lines.iter().filter(|line| measurement(line) == "heap");
    let times = heap
        .map(|line| Ok(line.rsplit_once(' ').context("no time")?.1.parse::<i64>()?))
        .collect::<anyhow::Result<Vec<_>>>()?;
    for pair in times.windows(2) {
        let apart = (pair[1] - pair[0]) / 1_000_000;
        ensure!((500..2_500).contains(&apart), "every second: {times:?}");
    }
    Ok(())
}

#[test]
fn log_levels_are_set_and_inspected() -> anyhow::Result<()> {
    let web = Web::start()?;
    web.says("l", &["*:info"])?;
    web.set("L*:debug")?;
    web.says("l", &["*:debug"])?;
    ensure!(web.ask("l*")?.iter().all(|item| item.ends_with(":debug")), "{:?}", web.ask("l*")?);

    web.set("L*:info")?;
    web.set("Lagent:error")?;
    web.says("l", &["*:info", "agent:error"])?;
    web.says("lagent,http", &["agent:error", "http:info"])?;
    web.set("L*:info,agent:debug")?;
    web.says("l", &["*:info", "agent:debug"])?;
    let all = web.ask("l*")?;
    for item in ["*:info", "agent:debug", "http:info", "runtime:info", "control:info"] {
        ensure!(all.contains(item), "{item}: {all:?}");
    }
    // the text's own name, which this guest lacks, is refused and changes nothing
    let refused = control(web.control, "L*:info,monitoring-experiments:debug")?;
    ensure!(refused == "error: unknown source: monitoring-experiments", "{refused}");
    for command in ["Lmonitoring-experiments:error", "lmonitoring-experiments,dns"] {
        let refused = control(web.control, command)?;
        ensure!(refused == "error: unknown source: monitoring-experiments", "{command}: {refused}");
    }
    web.says("l", &["*:info", "agent:debug"])?;

    // a level decides what is logged
    web.fail()?;
    web.errors(1)?;
    web.set("Lhttp:quiet")?;
    web.fail()?;
    web.set("Lhttp:error")?;
    web.fail()?;
    web.errors(2)?;
    web.set("Lruntime:error")?;
    web.daemon.uni_ok(&["stop", "web"])?;
    let console = web.daemon.uni_ok(&["logs", "web"])?;
    ensure!(!console.contains("power button: stopping") && console.ends_with("web: stopped"), "{console}");
    Ok(())
}

#[test]
fn metrics_sources_are_enabled_disabled_and_inspected() -> anyhow::Result<()> {
    let web = Web::start()?;
    web.says("m", &["*:enabled"])?;
    let all = web.arriving("heap")?;
    for source in ["gc", "heap", "memory", "logs", "net", "http_response"] {
        ensure!(all.contains(source), "{source}: {all:?}");
    }
    web.set("M*:disable,memory:enable,net:enable")?;
    web.says("m", &["*:disabled", "memory:enabled", "net:enabled"])?;
    web.says("mmemory,net", &["memory:enabled", "net:enabled"])?;
    ensure!(web.arriving("memory")? == set(["memory", "net"]), "{:?}", web.arriving("memory")?);
    web.set("Mnet:disable")?;
    web.says("m", &["*:disabled", "memory:enabled"])?;
    ensure!(web.arriving("memory")? == set(["memory"]), "{:?}", web.arriving("memory")?);

    // no source has the text's tag yet, so that it only shows in the status; `link` is a tag that sources have
    web.set("Mtag:http:enable")?;
    let status = web.ask("m*")?;
    for item in ["*:disabled", "tag:http:enabled", "memory:enabled", "gc:disabled", "net:disabled"] {
        ensure!(status.contains(item), "{item}: {status:?}");
    }
    web.set("M*:disable,tag:link:enable")?;
    ensure!(web.arriving("net")? == set(["net", "net drops"]), "{:?}", web.arriving("net")?);
    // first the command for all, then the tags, then the sources, wherever they stand
    web.set("Mnet:disable,tag:link:enable,*:disable")?;
    ensure!(web.arriving("net drops")? == set(["net drops"]), "{:?}", web.arriving("net drops")?);

    for command in ["M*:disable,memory:enable,net-solo5:enable", "Mnet-solo5:disable", "mmemory,net-solo5"] {
        let refused = control(web.control, command)?;
        ensure!(refused == "error: unknown source: net-solo5", "{command}: {refused}");
    }
    ensure!(web.ask("m*")?.contains("net drops:enabled"), "a refused command changed something");
    web.set("M*:enable")?;
    ensure!(web.arriving("heap")? == all, "{:?} was {all:?}", web.arriving("heap")?);
    web.daemon.uni_ok(&["stop", "web"])?;
    let console = web.daemon.uni_ok(&["logs", "web"])?;
    ensure!(console.contains("power button: stopping"), "{console}");
    Ok(())
}

#[test]
fn each_connection_transmits_a_command() -> anyhow::Result<()> {
    let web = Web::start()?;
    // one that says nothing keeps nobody from being answered
    let _silent = TcpStream::connect(("127.0.0.1", web.control))?;
    for command in ["l", "l\n", "l*", "m", "m\r\n", "m*"] {
        let answer = control(web.control, command)?;
        ensure!(answer.starts_with("ok: *:"), "{command:?}: {answer}");
    }
    for command in ["x", "Lloud", "L*:loud", "M*:perhaps", "Mtag:http:maybe"] {
        let answer = control(web.control, command)?;
        ensure!(answer.starts_with("error: "), "{command:?}: {answer}");
    }
    web.says("l", &["*:info"])?;
    web.says("m", &["*:enabled"])
}
