//! An ordinary Linux program, observed by the library that unikernels link: `examples/agent` beside `unid` and
//! `rsyslogd`.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use black_box::control::{asks_too_fast, control, says_everything, until_answering};
use black_box::line_sink::{LineSink, measurement};
use black_box::rsyslog::Rsyslogd;
use black_box::{Daemon, bin_dir, eventually, free_port, free_udp_port};
use serde_json::{Value, json};

/// The example, under the name `agent`; dropped, it is killed.
struct Agent {
    child: Child,
    http_port: u16,
    control_port: u16,
}

impl Agent {
    /// Reports to `monitor`, with `flags` beside.
    fn start(monitor: &str, flags: &[&str]) -> anyhow::Result<Self> {
        let program = bin_dir().join("agent");
        let (http_port, control_port) = (free_port()?, free_port()?);
        let child = Command::new(&program)
            .args([format!("--port={http_port}"), format!("--monitor-adjust={control_port}")])
            .args(["--metrics-port=0", "--monitor", monitor])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {}; build it with `cargo xtask build`", program.display()))?;
        let agent = Self { child, http_port, control_port };
        until_answering(control_port)?;
        Ok(agent)
    }

    fn get(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http_port))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Commands in lines on one connection, and their answers.
    fn lines(&self, commands: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.control_port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        // cut in the middle of a command
        let (first, second) = commands.split_at(commands.len() / 2);
        stream.set_nodelay(true)?;
        stream.write_all(first.as_bytes())?;
        std::thread::sleep(Duration::from_millis(20));
        stream.write_all(second.as_bytes())?;
        let mut answers = String::new();
        stream.read_to_string(&mut answers)?;
        Ok(answers)
    }

    fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        let sent = Command::new("sh").args(["-c", "kill -TERM $0", &self.child.id().to_string()]).status()?;
        ensure!(sent.success(), "SIGTERM: {sent}");
        eventually("the example to end", || self.child.try_wait()?.context("it still runs"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is(daemon: &Daemon, q: &str, expected: f64) -> anyhow::Result<()> {
    let found = daemon.number(q)?;
    ensure!((found - expected).abs() < 0.5, "{q}: {found} instead of {expected}");
    Ok(())
}

/// Receives until a message contains `text`; gives those before it too.
fn until_message(sink: &UdpSocket, text: &str) -> anyhow::Result<Vec<String>> {
    let mut messages = Vec::new();
    let mut bytes = [0; 2048];
    loop {
        let length = sink.recv(&mut bytes).with_context(|| format!("no {text:?} in {messages:?}"))?;
        messages.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
        if messages.last().is_some_and(|message| message.contains(text)) {
            return Ok(messages);
        }
    }
}

fn syslog_sink() -> anyhow::Result<(UdpSocket, String)> {
    let sink = UdpSocket::bind("127.0.0.1:0")?;
    sink.set_read_timeout(Some(Duration::from_secs(10)))?;
    let flag = format!("--syslog={}", sink.local_addr()?);
    Ok((sink, flag))
}

#[test]
fn what_a_program_counts_and_logs_arrives_under_its_name() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let (sink, syslog) = syslog_sink()?;
    let agent = Agent::start(&daemon.address("line")?, &["--name=shop", "--interval=1", &syslog])?;
    for path in ["/", "/", "/slow", "/nothing", "/fail"] {
        agent.get(path)?;
    }
    let last =
        |field: &str, source: &str| format!("SELECT last(\"{field}\") FROM \"{source}\" WHERE vm='shop'");
    eventually("the figures of five requests", || {
        is(&daemon, &last("2xx", "http_response"), 3.0)?;
        is(&daemon, &last("4xx", "http_response"), 1.0)?;
        is(&daemon, &last("5xx", "http_response"), 1.0)?;
        is(&daemon, &last("total", "http_requests"), 5.0)?;
        is(&daemon, &last("request_ok", "http"), 4.0)?;
        is(&daemon, &last("errors", "logs"), 1.0)?;
        is(&daemon, &last("dropped_points", "agent"), 0.0)
    })?;
    ensure!(daemon.number(&last("rss", "resource_usage"))? > 100.0, "KiB of memory");
    let heap_bytes = daemon.number(&last("heap_bytes", "heap"))?;
    ensure!((50_000.0..100e6).contains(&heap_bytes), "{heap_bytes} bytes of private memory");
    // this machine's loopback carries what the test says
    let received = format!("{} AND link='lo'", last("received bytes", "net"));
    let before = daemon.number(&received)?;
    ensure!(daemon.number(&last("established state", "tcp"))? >= 2.0, "to the collector, from there");
    agent.get("/")?;
    eventually("more bytes on the loopback", || {
        let now = daemon.number(&received)?;
        ensure!(now >= before + 100.0, "{before}, then {now}");
        Ok(())
    })?;
    for (source, field, kind) in [
        ("http_response", "2xx", "integer"),
        ("http_requests", "total", "integer"),
        ("resource_usage", "utime", "float"),
        ("resource_usage", "rss", "integer"),
        ("memory", "memory heap words", "integer"),
        ("net", "transmitted packets", "integer"),
        ("tcp", "total client", "integer"),
    ] {
        let rows = daemon.rows(&format!("SHOW FIELD KEYS FROM \"{source}\""))?;
        let found =
            rows.iter().any(|row| row.first() == Some(&field.into()) && row.get(1) == Some(&kind.into()));
        ensure!(found, "{source} {field} is no {kind}: {rows:?}");
    }
    let overview: Value = serde_json::from_str(&daemon.get("ui", "/ui/api/overview")?)?;
    let sender = &overview["senders"][0];
    ensure!(sender["name"] == "shop" && sender["state"] == "reporting", "{overview}");
    ensure!(sender["log_errors"] == 1 && overview["vms"] == json!([]), "{overview}");
    let vms = daemon.get("ui", "/ui/api/vms")?;
    ensure!(!vms.contains("shop"), "it is no VM: {vms}");
    let messages = until_message(&sink, "cannot answer")?;
    let error = messages.last().context("a message")?;
    ensure!(
        error.starts_with("<27>") && error.contains(" shop http: cannot answer path=\"/fail\""),
        "{error}"
    );
    ensure!(!messages.iter().any(|message| message.contains("answered")), "debug is not shown: {messages:?}");
    Ok(())
}

#[test]
fn commands_on_the_control_port_take_effect() -> anyhow::Result<()> {
    let collector = LineSink::start(0)?;
    let (sink, syslog) = syslog_sink()?;
    let agent = Agent::start(&format!("127.0.0.1:{}", collector.port()), &["--interval=1", &syslog])?;
    agent.get("/")?;
    let heard = |source: &str| collector.lines().iter().any(|line| measurement(line) == source);
    eventually("a point of the service", || {
        ensure!(heard("http") && heard("http_requests"), "{:?}", collector.lines());
        Ok(())
    })?;

    // MirageOS's form: no newline, one command a connection
    ensure!(control(agent.control_port, "L*:debug")? == "ok");
    agent.get("/quick")?;
    until_message(&sink, "answered")?;
    ensure!(control(agent.control_port, "Mhttp:disable")? == "ok");
    let levels = control(agent.control_port, "l*")?;
    ensure!(levels.starts_with("ok: *:debug") && levels.contains("http:debug"), "{levels}");
    let metrics = control(agent.control_port, "m*")?;
    ensure!(metrics.contains("http:disabled") && metrics.contains("http_requests:enabled"), "{metrics}");
    collector.clear();
    eventually("two reports", || {
        let reports = collector.lines().iter().filter(|line| measurement(line) == "agent").count();
        ensure!(reports >= 2, "{reports}");
        Ok(())
    })?;
    ensure!(heard("http_requests") && !heard("http"), "{:?}", collector.lines());

    // lines: several on one connection, either ending, a command cut in two
    let answers = agent.lines("Msrc:http:enable\r\nLhttp:error\nlhttp\nmnothing\n")?;
    ensure!(answers == "ok\nok\nok: http:error\nerror: unknown source: nothing\n", "{answers:?}");
    eventually("points of the service again", || {
        ensure!(heard("http"), "{:?}", collector.lines());
        Ok(())
    })?;
    agent.get("/nothing")?;
    agent.get("/fail")?;
    let messages = until_message(&sink, "cannot answer")?;
    ensure!(!messages.iter().any(|message| message.contains("no such page")), "below error: {messages:?}");
    Ok(())
}

#[test]
fn every_command_is_answered_and_too_many_are_not() -> anyhow::Result<()> {
    let collector = LineSink::start(0)?;
    let agent = Agent::start(&format!("127.0.0.1:{}", collector.port()), &["--interval=1"])?;
    // the links of the machine are found with the first report
    eventually("a link", || {
        ensure!(control(agent.control_port, "mnet")?.starts_with("ok: net:enabled"), "no link");
        Ok(())
    })?;
    says_everything(agent.control_port)?;
    asks_too_fast(agent.control_port)?;
    eventually("the refusals to be counted", || {
        let lines = collector.lines();
        let told = lines.iter().rev().find(|line| measurement(line) == "agent").context("no point")?;
        ensure!(told.contains("refused_commands=") && !told.contains("refused_commands=0i"), "{told}");
        Ok(())
    })
}

#[test]
fn a_token_guards_the_control_port() -> anyhow::Result<()> {
    let port = free_port()?;
    let mut child = Command::new(bin_dir().join("agent"))
        .args([
            format!("--monitor-adjust={port}"),
            format!("--port={}", free_port()?),
            "--metrics-port=0".into(),
        ])
        .env("UNI_AGENT_MONITOR_TOKEN", "sesame")
        .stderr(Stdio::null())
        .spawn()?;
    let refused = eventually("the control port", || control(port, "l"));
    let admitted = control(port, "T sesame\nl\n");
    child.kill()?;
    child.wait()?;
    ensure!(refused?.starts_with("error"), "without the token");
    let admitted = admitted?;
    ensure!(admitted.starts_with("ok\nok"), "with the token: {admitted}");
    Ok(())
}

#[test]
fn what_is_made_while_the_collector_is_away_comes_later_with_its_own_time() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let line = format!("127.0.0.1:{}", free_port()?);
    let mut daemon = Daemon::start(state.path(), &["--line-addr", &line])?;
    let agent = Agent::start(&line, &["--name=shop", "--interval=1"])?;
    let q = "SELECT rss FROM resource_usage WHERE vm='shop'";
    eventually("points", || {
        ensure!(daemon.rows(q)?.len() >= 2);
        Ok(())
    })?;
    daemon.terminate()?;
    let away = Instant::now();
    // the service does not notice
    for _ in 0..20 {
        let start = Instant::now();
        agent.get("/")?;
        ensure!(start.elapsed() < Duration::from_secs(2), "a request took {:?}", start.elapsed());
    }
    std::thread::sleep(Duration::from_secs(4));
    daemon.restart()?;
    let away_ms = away.elapsed().as_millis() as f64;
    eventually("the points of the outage", || {
        let times: Vec<f64> = daemon.rows(q)?.iter().filter_map(|row| row.first()?.as_f64()).collect();
        let (first, last) = (times.first().context("none")?, times.last().context("none")?);
        ensure!(last - first > away_ms + 1000.0, "{times:?} span less than the {away_ms} ms of the outage");
        for pair in times.windows(2) {
            ensure!(pair[1] - pair[0] < 3500.0, "about one a second, but for {pair:?} in {times:?}");
        }
        is(&daemon, "SELECT last(total) FROM http_requests WHERE vm='shop'", 20.0)?;
        is(&daemon, "SELECT last(dropped_points) FROM agent WHERE vm='shop'", 0.0)
    })
}

#[test]
fn the_end_of_a_program_takes_its_last_figures_along() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let mut agent = Agent::start(&daemon.address("line")?, &["--name=shop", "--interval=3600"])?;
    for _ in 0..7 {
        agent.get("/")?;
    }
    let status = agent.terminate()?;
    ensure!(status.success(), "{status}");
    eventually("the last figures", || {
        is(&daemon, "SELECT last(\"2xx\") FROM http_response WHERE vm='shop'", 7.0)
    })?;
    // nobody there: no reason to stay
    let mut agent = Agent::start(&format!("127.0.0.1:{}", free_port()?), &[])?;
    let start = Instant::now();
    let status = agent.terminate()?;
    ensure!(
        status.success() && start.elapsed() < Duration::from_secs(2),
        "{status} after {:?}",
        start.elapsed()
    );
    Ok(())
}

/// A certificate for this machine's loopback address and its key, in `dir`; it is its own authority.
fn certificate(dir: &Path, name: &str) -> anyhow::Result<(String, String)> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    let path = |kind: &str| dir.join(format!("{name}.{kind}.pem")).display().to_string();
    let (cert, key) = (path("cert"), path("key"));
    std::fs::write(&cert, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    Ok((cert, key))
}

#[test]
fn rsyslogd_takes_messages_over_every_transport() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let (cert, key) = certificate(dir.path(), "sink")?;
    let (own_cert, own_key) = certificate(dir.path(), "own")?;
    let secured = |mode: &str| {
        format!(
            "global(defaultNetstreamDriver=\"ossl\" defaultNetstreamDriverCAFile=\"{own_cert}\" \
             defaultNetstreamDriverCertFile=\"{cert}\" defaultNetstreamDriverKeyFile=\"{key}\")\n\
             module(load=\"imtcp\" StreamDriver.Name=\"ossl\" StreamDriver.Mode=\"1\" StreamDriver.Authmode=\"{mode}\")\n"
        )
    };
    let ca = format!("--syslog-ca={cert}");
    let (show, with) = (format!("--syslog-cert={own_cert}"), format!("--syslog-key={own_key}"));
    let tcp = "module(load=\"imtcp\")\n".to_owned();
    let ways: [(&str, String, &[&str]); 5] = [
        ("udp", "module(load=\"imudp\")\n".to_owned(), &[]),
        ("tcp", tcp.clone(), &[]),
        ("tcp-newline", tcp, &[]),
        ("tls", secured("anon"), &[&ca]),
        // the sink asks who it is
        ("tls", secured("x509/certvalid"), &[&ca, &show, &with]),
    ];
    for (n, (transport, module, flags)) in ways.into_iter().enumerate() {
        for format in ["rfc3164", "rfc5424"] {
            let (input, port) =
                if transport == "udp" { ("imudp", free_udp_port()?) } else { ("imtcp", free_port()?) };
            let config = format!(
                "{module}input(type=\"{input}\" address=\"127.0.0.1\" port=\"{port}\")\n\
                 template(name=\"parts\" type=\"string\" \
                 string=\"%syslogfacility-text%.%syslogseverity-text%|%hostname%|%app-name%|%msg:::sp-if-no-1st-sp%%msg%\\n\")\n\
                 action(type=\"omfile\" file=\"DIR/out\" template=\"parts\")\n"
            );
            let (to, transport) =
                (format!("--syslog=127.0.0.1:{port}"), format!("--syslog-transport={transport}"));
            let format = format!("--syslog-format={format}");
            let flags = [&["--name=shop", &to, &transport, &format], flags].concat();
            let agent = Agent::start("127.0.0.1:9", &flags)?;
            // made while nobody is there
            agent.get("/nothing")?;
            let sink = Rsyslogd::start(dir.path(), &config)?;
            eventually(&format!("the message of way {n}, {transport} {format}"), || {
                let out = sink.written("out");
                let found = out
                    .lines()
                    .any(|line| line == "daemon.warning|shop|http| no such page path=\"/nothing\"");
                ensure!(found, "{out}");
                Ok(())
            })?;
        }
    }
    Ok(())
}

#[test]
fn unid_takes_messages_under_tls_and_who_is_not_trusted_gets_none() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let (cert, key) = certificate(state.path(), "sink")?;
    let (stranger, _) = certificate(state.path(), "stranger")?;
    let tls = ["--tls-cert", &cert, "--tls-key", &key, "--api-addr", "", "--syslog-tls-addr", ":0"];
    let daemon = Daemon::start(&state.path().join("s"), &tls)?;
    let address = daemon.address("syslog-tls")?;
    let start = |name: &str, ca: &str| {
        let (name, to) = (format!("--name={name}"), format!("--syslog={address}"));
        Agent::start("127.0.0.1:9", &[&name, &to, "--syslog-transport=tls", &format!("--syslog-ca={ca}")])
    };
    let (trusting, doubting) = (start("shop", &cert)?, start("doubter", &stranger)?);
    let messages = |name: &str| {
        let answer = daemon.uni_json(&["logs", name, "--source", "syslog"])?;
        answer.as_array().cloned().with_context(|| format!("no array: {answer}"))
    };
    for agent in [&trusting, &doubting] {
        agent.get("/nothing")?;
    }
    eventually("the message", || {
        let all = messages("shop")?;
        let found = all.iter().find(|message| message["message"] == "no such page path=\"/nothing\"");
        let found = found.with_context(|| format!("{all:#?}"))?;
        ensure!(found["severity"] == "warning" && found["appname"] == "http", "{found}");
        Ok(())
    })?;
    eventually("the refusals to be counted", || {
        let status = daemon.uni_json(&["status"])?;
        let refused = status["ingest"]["syslog_refused_connections_total"].as_u64();
        ensure!(refused.is_some_and(|refused| refused >= 2), "tried again and again: {status}");
        Ok(())
    })?;
    let told = daemon.uni_json(&["status"])?;
    ensure!(told["ingest"]["syslog_messages_total"].as_u64().is_some_and(|n| n >= 1), "{told}");
    ensure!(messages("doubter").map_or(true, |all| all.is_empty()), "it was told to a stranger");
    Ok(())
}
