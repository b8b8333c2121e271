//! Senders that others wrote, writing to `unid` as it is: InfluxDB's clients of three versions, Prometheus, the
//! OpenTelemetry SDK. And what nobody's client sends: bodies made to hurt.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use black_box::prometheus::Prometheus;
use black_box::{Daemon, eventually, python, workspace};
use serde_json::Value;

const INFLUX_CLIENTS: [&str; 3] = ["influxdb==5.3.2", "influxdb-client==1.50.0", "influxdb3-python==0.21.0"];
const OPENTELEMETRY: [&str; 3] = [
    "opentelemetry-sdk==1.45.2",
    "opentelemetry-exporter-otlp-proto-http==1.45.2",
    "opentelemetry-exporter-otlp-proto-grpc==1.45.2",
];
const NPM_INFLUX: &str = "influx@5.12.0";

fn peer(name: &str) -> PathBuf {
    workspace().join("tests/peers").join(name)
}

fn succeeds(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    Ok(())
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

/// The first series of the answer to `q` in `database`: rows.
fn rows(daemon: &Daemon, database: &str, q: &str) -> anyhow::Result<Vec<Vec<Value>>> {
    let url = format!("http://{}/query", daemon.address("api")?);
    let mut answer = agent().get(url).query("db", database).query("epoch", "ms").query("q", q).call()?;
    let answer: Value = answer.body_mut().read_json()?;
    let rows = answer.pointer("/results/0/series/0/values").with_context(|| format!("{q}: {answer}"))?;
    Ok(serde_json::from_value(rows.clone())?)
}

fn number(daemon: &Daemon, database: &str, q: &str) -> anyhow::Result<f64> {
    let rows = rows(daemon, database, q)?;
    rows.first().and_then(|row| row.get(1)?.as_f64()).with_context(|| format!("{q}: {rows:?}"))
}

fn expect(daemon: &Daemon, database: &str, q: &str, expected: f64) -> anyhow::Result<()> {
    let found = number(daemon, database, q)?;
    ensure!((found - expected).abs() < 1e-9, "{q}: {found}, not {expected}");
    Ok(())
}

#[test]
fn influxdbs_python_clients_of_three_versions_write() -> anyhow::Result<()> {
    let python = python::venv(&INFLUX_CLIENTS)?;
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let api = daemon.address("api")?;
    let (host, port) = api.split_once(':').context("an address")?;
    for (package, database, count) in [
        ("influxdb", "first", 101.0),
        ("influxdb-client", "second", 101.0),
        ("influxdb3-python", "third", 100.0),
    ] {
        succeeds(Command::new(&python).arg(peer("influx_clients.py")).args([host, port, package]))?;
        expect(&daemon, database, "SELECT count(f) FROM m", count)?;
    }
    expect(&daemon, "second", "SELECT f FROM m WHERE n = '101'", 101.0)?;
    expect(&daemon, "third", "SELECT count(f) FROM v3", 100.0)
}

#[test]
fn influxdbs_client_for_node_writes() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let quiet = ["--no-audit", "--no-fund", "--silent"];
    succeeds(Command::new("npm").current_dir(dir.path()).args(["install", NPM_INFLUX]).args(quiet))?;
    std::fs::copy(peer("influx_client.js"), dir.path().join("influx_client.js"))?;
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let api = daemon.address("api")?;
    let (host, port) = api.split_once(':').context("an address")?;
    succeeds(Command::new("node").current_dir(dir.path()).args(["influx_client.js", host, port]))?;
    expect(&daemon, "node", "SELECT count(f) FROM m", 100.0)
}

#[test]
fn prometheus_writes_what_it_scrapes() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &["--metrics-addr", ":0"])?;
    let dir = tempfile::tempdir()?;
    let (metrics, api) = (daemon.address("metrics")?, daemon.address("api")?);
    let _prometheus = Prometheus::start(
        dir.path(),
        &format!(
            "scrape_configs:\n- job_name: unid\n  static_configs:\n  - targets: ['{metrics}']\n\
             remote_write:\n- url: http://{api}/api/v1/write?db=prom\n"
        ),
    )?;
    eventually("samples of several scrapes", || {
        let count = number(&daemon, "prom", "SELECT count(value) FROM up WHERE job = 'unid'")?;
        ensure!(count >= 3.0, "{count}");
        Ok(())
    })?;
    expect(&daemon, "prom", &format!("SELECT last(value) FROM up WHERE instance = '{metrics}'"), 1.0)?;
    let written = daemon.get("metrics", "/metrics")?;
    ensure!(
        written.lines().any(|l| l.contains("route=\"remote_write\",code=\"204\"")),
        "the route is counted: {written}"
    );
    ensure!(
        !written.lines().any(|l| l.contains("remote_write") && l.contains("code=\"4")),
        "nothing was refused: {written}"
    );
    Ok(())
}

#[test]
fn opentelemetrys_sdk_sends_metrics_over_http_and_grpc() -> anyhow::Result<()> {
    let python = python::venv(&OPENTELEMETRY)?;
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let api = daemon.address("api")?;
    for transport in ["http", "grpc"] {
        for temporality in ["cumulative", "delta"] {
            let arguments = [&*api, transport, temporality];
            succeeds(Command::new(&python).arg(peer("otlp_metrics.py")).args(arguments))?;
            let of = format!("WHERE \"service.name\" = '{transport}-{temporality}'");
            let last = |field: &str, metric: &str| format!("SELECT last(\"{field}\") FROM \"{metric}\" {of}");
            // 1 + 2 + 3, also where each was sent alone
            expect(&daemon, "uni", &last("value", "requests"), 6.0)?;
            expect(&daemon, "uni", &format!("SELECT first(value) FROM requests {of}"), 1.0)?;
            expect(&daemon, "uni", &last("count", "sizes"), 3.0)?;
            expect(&daemon, "uni", &last("sum", "sizes"), 240.0)?;
            expect(&daemon, "uni", &last("75", "sizes"), 1.0)?;
            expect(&daemon, "uni", &last("+Inf", "sizes"), 3.0)?;
            expect(&daemon, "uni", &last("value", "level"), 1.5)?;
            expect(&daemon, "uni", &last("value", "open"), -3.0)?;
            let path = format!("SELECT last(value) FROM requests {of} AND path = '/a b,c=d'");
            expect(&daemon, "uni", &path, 6.0)?;
        }
    }
    Ok(())
}

#[test]
fn grpc_has_tls_and_the_token_as_all_others() -> anyhow::Result<()> {
    let python = python::venv(&OPENTELEMETRY)?;
    let state = tempfile::tempdir()?;
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let write = |name: &str, text: &str| -> anyhow::Result<String> {
        let path = state.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let (cert, key) = (write("cert", &made.cert.pem())?, write("key", &made.signing_key.serialize_pem())?);
    let token = "0123456789abcdef0123";
    let token_file = write("token", token)?;
    let flags = ["--tls-cert", &cert, "--tls-key", &key, "--token-file", &token_file];
    let daemon = Daemon::start(state.path(), &flags)?;
    let address = daemon.address("api")?.replace("127.0.0.1", "localhost");
    let sent = |token: &str| {
        let arguments = [&*address, "grpc", "cumulative", &cert, token];
        succeeds(Command::new(&python).arg(peer("otlp_metrics.py")).args(arguments))
    };
    sent(token)?;
    // the SDK's own verdict says nothing: it is logged, and counts as flushed
    let _ = sent("another-token-that-is-wrong");
    let url = format!("https://{address}/query?db=uni&q=SELECT%20count(value)%20FROM%20requests");
    let authorization = format!("Authorization: Bearer {token}");
    let output =
        Command::new("curl").args(["-sS", "--cacert", &cert, "-H", &authorization, &url]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(text.contains(",4]"), "three times and once at the end, and only with the token: {text}");
    Ok(())
}

#[test]
fn http_2_has_the_same_guard_and_silent_connections_delay_nobody() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let api = daemon.address("api")?;
    let curl = |more: &[&str]| -> anyhow::Result<String> {
        let quiet = ["-s", "-o", "/dev/null", "--max-time", "20", "-w", "%{http_version} %{http_code}"];
        let arguments =
            Command::new("curl").args(quiet).arg("--http2-prior-knowledge").args(more).output()?;
        Ok(String::from_utf8(arguments.stdout)?)
    };
    let mut silent = Vec::new();
    for first in [&b""[..], b"P", b"PRI", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = TcpStream::connect(&api)?;
        stream.write_all(first)?;
        silent.push(stream);
    }
    let ping = format!("http://{api}/ping");
    ensure!(curl(&[&ping])? == "2 204", "by its address");
    ensure!(curl(&["-H", "Host: evil.example", &ping])? == "2 403", "by another name");
    ensure!(curl(&["-H", "Origin: http://evil.example", &ping])? == "2 403", "from another site's page");
    let body = ["--data-binary", "m f=1 1", "-X", "POST"];
    ensure!(curl(&[&body[..], &[&format!("http://{api}/write?db=uni")]].concat())? == "2 204", "a write");
    Ok(())
}

#[test]
fn otlp_in_json_is_taken_and_what_is_no_point_is_told() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let url = format!("http://{}/v1/metrics", daemon.address("api")?);
    let send = |body: &str| -> anyhow::Result<(u16, Value)> {
        let mut answer = agent().post(&url).header("content-type", "application/json").send(body)?;
        Ok((answer.status().as_u16(), answer.body_mut().read_json()?))
    };
    let request = |value: &str| {
        format!(
            r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{{"key":"a","value":{{"stringValue":"b"}}}}]}},
            "scopeMetrics":[{{"metrics":[{{"name":"heat","gauge":{{"dataPoints":[{{"timeUnixNano":"1600000000000000000",
            {value}}}]}}}}]}}]}}]}}"#
        )
    };
    let (status, body) = send(&request("\"asInt\":\"7\""))?;
    ensure!(status == 200 && body == serde_json::json!({}), "{status} {body}");
    expect(&daemon, "uni", "SELECT value FROM heat WHERE a = 'b'", 7.0)?;
    let other =
        request("\"asInt\":\"7\"").replace("stringValue\":\"b", "stringValue\":\"c").replace("heat", "");
    let (status, body) = send(&other)?;
    ensure!(status == 200 && body["partialSuccess"]["rejectedDataPoints"] == "1", "{status} {body}");
    let (status, body) = send(&request("\"asInt\":[]"))?;
    ensure!(status == 200 && body["partialSuccess"]["rejectedDataPoints"] == "1", "{status} {body}");
    let unreadable = request("\"asInt\":\"7\"").replace("\"timeUnixNano\":\"", "\"timeUnixNano\":\"x");
    let (status, body) = send(&unreadable)?;
    ensure!(
        status == 400 && body["message"].as_str().is_some_and(|m| m.contains("data points")),
        "{status} {body}"
    );
    let (status, body) = send("rubbish")?;
    ensure!(status == 400 && body["message"].as_str().is_some_and(|m| m.contains("JSON")), "{status} {body}");
    Ok(())
}

/// A protobuf field that has a length.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap_or_default());
    [out, bytes.to_vec()].concat()
}

/// A sample, in either version; `millis` below 128.
fn sample(value: f64, millis: u8) -> Vec<u8> {
    [&[1 << 3 | 1][..], &value.to_le_bytes(), &[2 << 3, millis]].concat()
}

fn snappy(message: &[u8]) -> anyhow::Result<Vec<u8>> {
    Ok(snap::raw::Encoder::new().compress_vec(message)?)
}

/// Sends a body of remote write; status, samples said to be written, text.
fn remote_write(daemon: &Daemon, kind: &str, body: &[u8]) -> anyhow::Result<(u16, String, String)> {
    let url = format!("http://{}/api/v1/write?db=rw", daemon.address("api")?);
    let mut answer =
        agent().post(url).header("content-encoding", "snappy").header("content-type", kind).send(body)?;
    let written = answer.headers()["x-prometheus-remote-write-samples-written"].to_str()?.to_owned();
    Ok((answer.status().as_u16(), written, answer.body_mut().read_to_string()?))
}

const V1: &str = "application/x-protobuf";
const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

#[test]
fn remote_write_2_is_taken_and_answered_with_what_was_written() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let symbols: Vec<u8> =
        ["", "__name__", "heat", "vm", "web"].iter().flat_map(|s| field(4, s.as_bytes())).collect();
    let series = |refs: &[u8], samples: &[Vec<u8>]| {
        let samples = samples.iter().flat_map(|sample| field(2, sample)).collect();
        field(5, &[field(1, refs), samples].concat())
    };
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    let good = series(&[1, 2, 3, 4], &[sample(1.5, 1), sample(2.5, 2), sample(stale, 3)]);
    let answer = remote_write(&daemon, V2, &snappy(&[symbols.clone(), good].concat())?)?;
    ensure!(answer == (204, "3".to_owned(), String::new()), "{answer:?}");
    expect(&daemon, "rw", "SELECT last(value) FROM heat WHERE vm = 'web'", 2.5)?;
    let nameless = series(&[3, 4], &[sample(1.0, 4)]);
    let other = series(&[1, 2, 3, 4], &[sample(4.5, 4)]);
    let answer = remote_write(&daemon, V2, &snappy(&[symbols.clone(), nameless, other].concat())?)?;
    ensure!(answer.0 == 400 && answer.1 == "1" && answer.2.contains("__name__"), "{answer:?}");
    expect(&daemon, "rw", "SELECT last(value) FROM heat", 4.5)?;
    let answer = remote_write(&daemon, V2, &snappy(&[symbols, series(&[1, 9], &[])].concat())?)?;
    ensure!(answer.0 == 400 && answer.2.contains("symbol"), "{answer:?}");
    let answer = remote_write(&daemon, "text/plain", b"")?;
    ensure!(answer.0 == 415 && answer.2.contains("application/x-protobuf"), "{answer:?}");
    Ok(())
}

/// The daemon's peak of resident memory, in bytes.
fn peak_bytes(daemon: &Daemon) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

#[test]
fn bodies_made_to_hurt_are_refused_and_take_little() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &["--metrics-addr", ":0"])?;
    let api = daemon.address("api")?;
    // says that it is 4 GB long
    let bomb = [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0; 100]].concat();
    let answer = remote_write(&daemon, V1, &bomb)?;
    ensure!(answer.0 == 413 && answer.2.contains("are allowed"), "{answer:?}");
    // labels said once for a million samples
    let label =
        |key: &str, value: &str| field(1, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat());
    let long = "x".repeat(60_000);
    let samples = field(2, &sample(1.0, 1)).repeat(1_000_000);
    let series = field(1, &[label("__name__", "m"), label("long", &long), samples].concat());
    let answer = remote_write(&daemon, V1, &snappy(&series)?)?;
    ensure!(answer.0 == 400 && answer.2.contains("send it in parts"), "{answer:?}");
    // a gigabyte of spaces, packed a thousandfold
    let bomb = gzip_bomb()?;
    for path in ["/write?db=uni", "/api/v2/write?bucket=uni", "/api/v3/write_lp?db=uni", "/v1/metrics"] {
        let request = agent().post(format!("http://{api}{path}")).header("content-encoding", "gzip");
        let answer = request.header("content-type", "application/x-protobuf").send(&bomb[..])?;
        ensure!(answer.status() == 413, "{path}: {answer:?}");
    }
    let peak = peak_bytes(&daemon)?;
    ensure!(peak < 400 << 20, "the daemon took {peak} bytes");
    let metrics = daemon.get("metrics", "/metrics")?;
    for route in ["write", "remote_write", "otlp"] {
        let counted = format!("route=\"{route}\",code=\"413\"");
        ensure!(metrics.lines().any(|line| line.contains(&counted)), "{counted}: {metrics}");
    }
    // and it still answers
    let answer = agent().post(format!("http://{api}/write?db=uni")).send("m f=1")?;
    ensure!(answer.status() == 204, "{answer:?}");
    Ok(())
}

/// 64 MB of spaces as gzip.
fn gzip_bomb() -> anyhow::Result<Vec<u8>> {
    let script = "import gzip,sys; sys.stdout.buffer.write(gzip.compress(b' ' * 64_000_000))";
    let output = Command::new("python3").args(["-c", script]).output().context("start python3")?;
    ensure!(output.status.success() && output.stdout.len() < 1_000_000, "{output:?}");
    Ok(output.stdout)
}

#[test]
fn without_auto_create_only_known_databases_are_written_to() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &["--auto-create=false"])?;
    let api = daemon.address("api")?;
    let post = |path: &str| -> anyhow::Result<(u16, Value)> {
        let mut answer = agent().post(format!("http://{api}{path}")).send("m f=1 1")?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string()?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
    };
    let message = "database not found: \"other\"";
    let (status, body) = post("/write?db=other")?;
    ensure!(status == 404 && body["error"] == message, "{status} {body}");
    let (status, body) = post("/api/v2/write?bucket=other")?;
    ensure!(status == 404 && body["code"] == "not found" && body["message"] == message, "{status} {body}");
    let (status, body) = post("/api/v3/write_lp?db=other")?;
    ensure!(status == 404 && body["error"] == message, "{status} {body}");
    ensure!(remote_write(&daemon, V1, b"\0")?.0 == 404, "remote write");
    daemon.query("CREATE DATABASE other")?;
    ensure!(
        post("/write?db=other")?.0 == 204 && post("/write?db=uni")?.0 == 204,
        "known ones are written to"
    );
    // seconds are guessed, and named units are those of each version
    for (path, line, millis) in [
        ("/api/v3/write_lp?db=other", "t,n=1 f=1 1600000000", 1_600_000_000_000.0),
        ("/api/v3/write_lp?db=other", "t,n=2 f=1 1600000000000", 1_600_000_000_000.0),
        ("/api/v3/write_lp?db=other&precision=microsecond", "t,n=3 f=1 5000", 5.0),
        ("/api/v2/write?bucket=other&precision=us", "t,n=4 f=1 7000", 7.0),
    ] {
        let answer = agent().post(format!("http://{api}{path}")).send(line)?;
        ensure!(answer.status() == 204, "{path}: {answer:?}");
        let n = line.split(['=', ' ']).nth(1).context("a tag")?;
        let rows = rows(&daemon, "other", &format!("SELECT f FROM t WHERE n = '{n}'"))?;
        ensure!(rows.first().and_then(|row| row[0].as_f64()) == Some(millis), "{path}: {rows:?}");
    }
    Ok(())
}
