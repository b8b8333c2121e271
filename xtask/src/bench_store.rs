//! The store's figures beside InfluxDB's and Prometheus's, all in one run on one machine: ingest, size, memory, return
//! after a kill.
//!
//! Owns the servers it starts and their folders. The workload comes from a program outside the tree, `loadgen`, which
//! writes and sends bodies and reads `/proc`: whoever has it names it. Prints Markdown.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use black_box::{bin_dir, free_port};
use serde_json::Value;

use crate::{build, install};

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Workload {
    /// The program that makes the workload and sends it (`loadgen`, built with --release)
    #[arg(long, value_name = "FILE")]
    loadgen: PathBuf,
    /// VMs that report
    #[arg(long, default_value_t = 1000)]
    vms: u32,
    /// Hours that they report, every ten seconds
    #[arg(long, default_value_t = 1.0)]
    hours: f64,
    /// Leave InfluxDB and Prometheus out
    #[arg(long)]
    alone: bool,
    /// Use the binaries that are there
    #[arg(long)]
    no_build: bool,
}

/// Connections that send.
const CONNECTIONS: &str = "4";
/// A store that does not grow or shrink for this long has settled.
const SETTLED: Duration = Duration::from_secs(45);
/// A server that does not answer by then has failed.
const PATIENCE: Duration = Duration::from_secs(120);
/// A store that has not settled by then is measured as it is.
const SETTLING: Duration = Duration::from_secs(300);

/// One way of sending to one server.
struct Side {
    name: &'static str,
    format: &'static str,
    /// Where its files are, below its folder.
    data: &'static str,
    url: fn(&Ports) -> String,
    ready: fn(&Ports) -> String,
    command: fn(&Path, &Ports) -> anyhow::Result<Command>,
}

/// Two ports that were free.
struct Ports {
    http: u16,
    line: u16,
}

const SIDES: [Side; 4] = [
    Side {
        name: "unid, HTTP /write",
        format: "lp",
        data: "store",
        url: |ports| format!("http://127.0.0.1:{}/write?db=bench&precision=ns", ports.http),
        ready: |ports| format!("http://127.0.0.1:{}/ping", ports.http),
        command: unid,
    },
    Side {
        name: "unid, TCP",
        format: "lp",
        data: "store",
        url: |ports| format!("tcp://127.0.0.1:{}", ports.line),
        ready: |ports| format!("http://127.0.0.1:{}/ping", ports.http),
        command: unid,
    },
    Side {
        name: "InfluxDB 1.x (tsi1), HTTP /write",
        format: "lp",
        data: "influx",
        url: |ports| format!("http://127.0.0.1:{}/write?db=bench&precision=ns", ports.http),
        ready: |ports| format!("http://127.0.0.1:{}/ping", ports.http),
        command: influxd,
    },
    Side {
        name: "Prometheus, remote write",
        format: "rw",
        data: "prometheus",
        url: |ports| format!("http://127.0.0.1:{}/api/v1/write", ports.http),
        ready: |ports| format!("http://127.0.0.1:{}/-/ready", ports.http),
        command: prometheus,
    },
];

/// Measures and prints.
pub(crate) fn run(workload: &Workload) -> anyhow::Result<()> {
    if !workload.alone {
        install::ensure(&[install::INFLUXD, install::PROMETHEUS])?;
    }
    if !workload.no_build {
        build::all()?;
    }
    let folder = tempfile::Builder::new().prefix("uni-bench-").tempdir()?;
    let bodies = folder.path().join("bodies");
    generate(workload, &bodies)?;
    println!(
        "| store | million values/s | CPU s per million | ack p50, p99 ms | peak MiB | bytes a value, log gone | answers after SIGKILL, s |"
    );
    println!("|---|---|---|---|---|---|---|");
    let count = if workload.alone { 2 } else { SIDES.len() };
    for side in &SIDES[..count] {
        let state = folder.path().join("state");
        let row = measure(side, &workload.loadgen, &bodies, &state).with_context(|| side.name)?;
        println!("| {} | {row} |", side.name);
        std::fs::remove_dir_all(&state)?;
    }
    Ok(())
}

fn generate(workload: &Workload, bodies: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(&workload.loadgen);
    command.arg("generate").arg("--out").arg(bodies);
    command.args(["--vms", &workload.vms.to_string(), "--hours", &workload.hours.to_string()]);
    command.args(["--format", if workload.alone { "lp" } else { "both" }]);
    let output = command.stderr(Stdio::inherit()).output().context("start the generator")?;
    ensure!(output.status.success(), "the generator failed");
    eprint!("{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// A server that ends with this value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which was noticed elsewhere.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server; returns it and the time until it answered.
fn start(side: &Side, state: &Path, ports: &Ports) -> anyhow::Result<(Server, Duration)> {
    let log = std::fs::File::create(state.with_extension("log"))?;
    let begun = Instant::now();
    let mut command = (side.command)(state, ports)?;
    let server = Server(command.stdout(log.try_clone()?).stderr(log).spawn().context("start the server")?);
    let url = (side.ready)(ports);
    while ureq::get(&url).call().is_err() {
        ensure!(begun.elapsed() < PATIENCE, "no answer from {url}");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok((server, begun.elapsed()))
}

fn measure(side: &Side, loadgen: &Path, bodies: &Path, state: &Path) -> anyhow::Result<String> {
    std::fs::create_dir_all(state)?;
    let ports = Ports { http: free_port()?, line: free_port()? };
    let (server, _) = start(side, state, &ports)?;
    if side.format == "lp" {
        let query = format!("http://127.0.0.1:{}/query?q=CREATE%20DATABASE%20bench", ports.http);
        ureq::post(&query).send_empty()?;
    }
    let mut load = Command::new(loadgen);
    load.arg("load").arg("--dir").arg(bodies).args(["--url", &(side.url)(&ports), "--format", side.format]);
    load.args(["--conns", CONNECTIONS, "--pid", &server.0.id().to_string()]);
    let output = load.stderr(Stdio::inherit()).output().context("start the sender")?;
    let load: Value = serde_json::from_slice(&output.stdout).context("the sender's report")?;
    ensure!(load["error"].is_null() && load["rejected_batches"] == 0, "not everything was taken: {load}");
    drop(server);
    let (server, back) = start(side, state, &ports)?;
    let bytes = settled(&state.join(side.data))?;
    drop(server);
    let number = |key: &str, digits: usize| {
        load[key].as_f64().map_or_else(|| "-".to_owned(), |v| format!("{v:.digits$}"))
    };
    let values = load["values"].as_f64().context("values")?;
    let rate = load["values_per_s"].as_f64().context("values_per_s")? / 1e6;
    Ok(format!(
        "{rate:.2} | {} | {}, {} | {} | {:.2} | {:.2}",
        number("server_cpu_s_per_mvalues", 3),
        number("ack_ms_p50", 0),
        number("ack_ms_p99", 0),
        number("server_peak_rss_mib", 0),
        to_f64(bytes) / values,
        back.as_secs_f64(),
    ))
}

/// Bytes below a folder once they change no more.
fn settled(folder: &Path) -> anyhow::Result<u64> {
    let begun = Instant::now();
    let (mut bytes, mut since) = (tree_bytes(folder)?, Instant::now());
    while since.elapsed() < SETTLED && begun.elapsed() < SETTLING {
        std::thread::sleep(Duration::from_secs(1));
        let now = tree_bytes(folder)?;
        if now != bytes {
            (bytes, since) = (now, Instant::now());
        }
    }
    Ok(bytes)
}

fn tree_bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)?.flatten() {
        // A file may go while it is looked at: a merge has replaced it.
        let Ok(metadata) = entry.metadata() else { continue };
        // what is allocated, in units of stat(2): some files are made with holes
        sum +=
            if metadata.is_dir() { tree_bytes(&entry.path()).unwrap_or(0) } else { metadata.blocks() * 512 };
    }
    Ok(sum)
}

fn unid(state: &Path, ports: &Ports) -> anyhow::Result<Command> {
    let mut command = Command::new(bin_dir().join("unid"));
    command.arg("--state-dir").arg(state).arg("--socket").arg(state.join("unid.sock"));
    command.args(["--api-addr", &format!("127.0.0.1:{}", ports.http)]);
    command.args(["--line-addr", &format!("127.0.0.1:{}", ports.line), "--syslog-addr", ""]);
    Ok(command)
}

fn influxd(state: &Path, ports: &Ports) -> anyhow::Result<Command> {
    let data = state.join("influx");
    std::fs::create_dir_all(&data)?;
    let dir = data.display();
    // Limits off; flushed and compacted soon after the load, so that its settled size can be read.
    let text = format!(
        "reporting-disabled = true\nbind-address = \"127.0.0.1:{}\"\n[meta]\ndir = \"{dir}/meta\"\n[data]\ndir = \"{dir}/data\"\n\
         wal-dir = \"{dir}/wal\"\nindex-version = \"tsi1\"\nquery-log-enabled = false\nmax-series-per-database = 0\n\
         max-values-per-tag = 0\ncache-snapshot-write-cold-duration = \"10s\"\ncompact-full-write-cold-duration = \"20s\"\n\
         [coordinator]\nwrite-timeout = \"60s\"\n[monitor]\nstore-enabled = false\n[http]\nbind-address = \"127.0.0.1:{}\"\n\
         log-enabled = false\n[subscriber]\nenabled = false\n[continuous_queries]\nenabled = false\n",
        ports.line, ports.http
    );
    let config = state.join("influxdb.conf");
    std::fs::write(&config, text)?;
    let mut command = Command::new("influxd");
    command.arg("run").arg("-config").arg(config);
    Ok(command)
}

fn prometheus(state: &Path, ports: &Ports) -> anyhow::Result<Command> {
    let config = state.join("prometheus.yml");
    std::fs::write(&config, "global: {}\n")?;
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", state.join("prometheus").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{}", ports.http));
    command.args(["--web.enable-remote-write-receiver", "--log.level=warn"]);
    Ok(command)
}

#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^53")]
fn to_f64(value: u64) -> f64 {
    value as f64
}
