//! `--influx`: what a collector of line protocol gets, byte for byte, and what happens while it is away, stalled or
//! rude.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use black_box::influxd::{query, same};
use black_box::{Daemon, bin_dir, eventually, free_port, guest};
use serde_json::Value;

/// The lines that albatross-influx was seen to send for one VM; of the fields, names, order and form matter.
const RECORDED: [&str; 3] = [
    "resource_usage,vm=web utime=12.340000,stime=3.000007,maxrss=8123i,ixrss=0i,idrss=0i,isrss=0i,minflt=5000i,maxflt=2i,nswap=0i,inblock=0i,outblock=0i,msgsnd=0i,msgrcv=0i,nsignals=0i,nvcsw=100i,nivcsw=9i",
    "kinfo_mem,vm=web vsize=141557760i,rss=8123i,tsize=44i,dsize=33000i,ssize=33000i,cow_faults=0i,runtime=15340007i,uptime=812.263484",
    "interface,vm=web,bridge=service send_queue_length=0i,max_send_queue_length=0i,send_queue_drops=0i,mtu=1500i,baudrate=0i,vm_to_host_packets=10i,vm_to_host_errors=0i,vm_to_host_bytes=1000i,vm_to_host_mcast=0i,vm_to_host_dropped=0i,collisions=0i,host_to_vm_packets=20i,host_to_vm_errors=0i,host_to_vm_bytes=2000i,host_to_vm_mcast=0i,host_to_vm_dropped=1i",
];
const DATABASE: &str = "uni";

/// A listener that keeps what each read gave it; dropped, it and its connections are closed.
struct Collector {
    address: SocketAddr,
    reads: Arc<Mutex<Vec<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What a collector does with a connection.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Keeps,
    ClosesAfterALine,
}

impl Collector {
    fn start(port: u16, manner: Manner) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        listener.set_nonblocking(true)?;
        let (reads, stop) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
        let (kept, stopped) = (Arc::clone(&reads), Arc::clone(&stop));
        let address = listener.local_addr()?;
        let thread = std::thread::spawn(move || {
            while !stopped.load(SeqCst) {
                let Ok((stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                };
                serve(stream, manner, &kept, &stopped);
            }
        });
        Ok(Self { address, reads, stop, thread: Some(thread) })
    }

    fn reads(&self) -> Vec<Vec<u8>> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What came over all connections, as blocks of one VM each; every read holds whole blocks.
    fn blocks(&self) -> anyhow::Result<Vec<Block>> {
        let mut blocks = Vec::new();
        for bytes in self.reads() {
            let text = String::from_utf8(bytes)?;
            ensure!(text.ends_with('\n'), "a read ends inside a line: {text:?}");
            let lines = text.lines().map(Line::parse).collect::<anyhow::Result<Vec<_>>>()?;
            for block in lines.chunks(4) {
                blocks.push(Block::new(block)?);
            }
        }
        Ok(blocks)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One connection at a time: there is one sender.
fn serve(mut stream: TcpStream, manner: Manner, reads: &Mutex<Vec<Vec<u8>>>, stop: &AtomicBool) {
    let _ = stream.set_nonblocking(false);
    let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
    let mut buffer = vec![0; if manner == Manner::Keeps { 1024 * 1024 } else { 64 }];
    let mut line = Vec::new();
    while !stop.load(SeqCst) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) if manner == Manner::Keeps => {
                reads.lock().unwrap_or_else(PoisonError::into_inner).push(buffer[..n].to_vec());
            }
            Ok(n) => {
                line.extend_from_slice(&buffer[..n]);
                if let Some(end) = line.iter().position(|&byte| byte == b'\n') {
                    line.truncate(end + 1);
                    reads.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// A line, taken apart without anything of ours.
#[derive(Clone, Debug)]
struct Line {
    measurement: String,
    tags: Vec<(String, String)>,
    fields: Vec<(String, String)>,
    time: i64,
}

impl Line {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let pairs = |text: &str| -> anyhow::Result<Vec<(String, String)>> {
            let pair = |pair: &str| {
                let (key, value) = pair.split_once('=')?;
                Some((key.to_owned(), value.to_owned()))
            };
            text.split(',').map(|p| pair(p).with_context(|| format!("{p:?} in {text:?}"))).collect()
        };
        let parts: Vec<_> = text.split(' ').collect();
        let [head, fields, time] = parts.as_slice() else { bail!("not three parts: {text:?}") };
        let (measurement, tags) = head.split_once(',').context("no tags")?;
        ensure!(time.len() == 19, "not nanoseconds: {text:?}");
        Ok(Self {
            measurement: measurement.to_owned(),
            tags: pairs(tags)?,
            fields: pairs(fields)?,
            time: time.parse()?,
        })
    }

    fn value(&self, field: &str) -> anyhow::Result<&str> {
        let found = self.fields.iter().find(|(name, _)| name == field);
        Ok(&found.with_context(|| format!("no {field}: {self:?}"))?.1)
    }
}

/// The lines of one VM at one time, in albatross's order.
#[derive(Clone, Debug)]
struct Block {
    vm: String,
    time: i64,
    lines: Vec<Line>,
}

impl Block {
    fn new(lines: &[Line]) -> anyhow::Result<Self> {
        let order: Vec<_> = lines.iter().map(|line| line.measurement.as_str()).collect();
        ensure!(order == ["resource_usage", "kinfo_mem", "interface", "interface"], "{order:?}");
        let (vm, time) = (lines[0].tags[0].1.clone(), lines[0].time);
        for (line, bridge) in lines.iter().zip([None, None, Some("service"), Some("management")]) {
            let mut tags = vec![("vm".to_owned(), vm.clone())];
            tags.extend(bridge.map(|bridge| ("bridge".to_owned(), bridge.to_owned())));
            ensure!(line.tags == tags && line.time == time, "{line:?}");
        }
        Ok(Self { vm, time, lines: lines.to_vec() })
    }
}

fn daemon(state: &tempfile::TempDir, collector: &str, flags: &[&str]) -> anyhow::Result<Daemon> {
    Daemon::start(state.path(), &[&["--interval", "1s", "--influx", collector], flags].concat())
}

fn run(daemon: &Daemon, name: &str) -> anyhow::Result<()> {
    let image = guest("hello").display().to_string();
    daemon.uni_ok(&["run", &image, "--name", name, "--memory", "32M"]).map(drop)
}

fn api(daemon: &Daemon) -> anyhow::Result<String> {
    Ok(format!("http://{}", daemon.address("api")?))
}

fn status(daemon: &Daemon) -> anyhow::Result<Value> {
    Ok(daemon.uni_json(&["status"])?["influx_push"].take())
}

fn number(status: &Value, key: &str) -> anyhow::Result<u64> {
    status[key].as_u64().with_context(|| format!("no {key}: {status}"))
}

/// The times at which the daemon stored a look at `vm`, in nanoseconds.
fn stored_times(daemon: &Daemon, vm: &str) -> anyhow::Result<BTreeSet<i64>> {
    let q = format!("SELECT utime FROM resource_usage WHERE vm = '{vm}'");
    let answer = query(&api(daemon)?, DATABASE, "ns", &q)?;
    let rows = answer["results"][0]["series"][0]["values"].as_array().context("no rows")?;
    Ok(rows.iter().filter_map(|row| row[0].as_i64()).collect())
}

fn wait_for_blocks(collector: &Collector, vm: &str, count: usize) -> anyhow::Result<Vec<Block>> {
    eventually(&format!("{count} blocks of {vm}"), || {
        let mut blocks = collector.blocks()?;
        blocks.retain(|block| block.vm == vm);
        ensure!(blocks.len() >= count, "{} of {count}", blocks.len());
        Ok(blocks)
    })
}

/// Whether every field of the line is what the store has at that time.
fn is_stored(daemon: &Daemon, vm: &str, line: &Line) -> anyhow::Result<()> {
    let tags: String =
        line.tags[1..].iter().map(|(key, value)| format!(" AND \"{key}\" = '{value}'")).collect();
    let q = format!("SELECT * FROM {} WHERE vm = '{vm}'{tags} AND time = {}", line.measurement, line.time);
    let answer = query(&api(daemon)?, DATABASE, "ns", &q)?;
    let series = &answer["results"][0]["series"][0];
    let columns = series["columns"].as_array().with_context(|| format!("{q}: {answer}"))?;
    for (column, value) in columns.iter().zip(series["values"][0].as_array().context("no row")?) {
        let name = column.as_str().unwrap_or_default();
        if matches!(name, "time" | "vm" | "bridge") {
            continue;
        }
        let sent = line.value(name)?;
        let equal = match sent.strip_suffix('i') {
            Some(integer) => value.as_i64() == Some(integer.parse()?),
            // the reader of JSON here may miss a float's last digit
            None => same(value, &serde_json::json!(sent.parse::<f64>()?)),
        };
        ensure!(equal, "{name}: sent {sent}, stored {value}");
    }
    ensure!(columns.len() == 1 + line.tags.len() + line.fields.len(), "{columns:?} {line:?}");
    Ok(())
}

#[test]
fn each_vm_comes_in_one_write_with_the_stored_values_and_times() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let collector = Collector::start(0, Manner::Keeps)?;
    let daemon = daemon(&state, &collector.address.to_string(), &[])?;
    run(&daemon, "one")?;
    run(&daemon, "two.b_c-d")?;
    for vm in ["one", "two.b_c-d"] {
        let blocks = wait_for_blocks(&collector, vm, 5)?;
        for pair in blocks.windows(2) {
            let seconds = (pair[1].time - pair[0].time) as f64 / 1e9;
            ensure!((0.4..4.0).contains(&seconds), "{seconds} s from one to the next");
        }
        for block in &blocks[..3] {
            block.lines.iter().try_for_each(|line| is_stored(&daemon, vm, line))?;
        }
    }
    let status = status(&daemon)?;
    ensure!(status["connected"] == true && status["collector"] == collector.address.to_string(), "{status}");
    ensure!(
        number(&status, "lines_sent_total")? >= 40 && number(&status, "lines_dropped_total")? == 0,
        "{status}"
    );
    ensure!(number(&status, "reconnects_total")? == 0, "{status}");
    Ok(())
}

#[test]
fn albatross_compat_sends_its_fields_order_and_form_with_the_whole_name() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let collector = Collector::start(0, Manner::Keeps)?;
    let daemon = daemon(&state, &collector.address.to_string(), &["--albatross-compat", "--no-drop-path"])?;
    run(&daemon, "web")?;
    let blocks = wait_for_blocks(&collector, ":web", 3)?;
    for block in &blocks {
        for (line, recorded) in block.lines.iter().zip([RECORDED[0], RECORDED[1], RECORDED[2], RECORDED[2]]) {
            has_form_of(line, recorded)?;
        }
        let (usage, memory) = (&block.lines[0], &block.lines[1]);
        ensure!(usage.value("maxrss")? == memory.value("rss")?, "memory of now, in pages: {block:?}");
        ensure!(memory.value("ssize")? == memory.value("dsize")?, "{block:?}");
        let micros = |text: &str| -> anyhow::Result<f64> { Ok((text.parse::<f64>()? * 1e6).round()) };
        let cpu = micros(usage.value("utime")?)? + micros(usage.value("stime")?)?;
        ensure!(memory.value("runtime")? == format!("{cpu}i"), "{block:?}");
    }
    // the store keeps the right ones
    let answer =
        query(&api(&daemon)?, DATABASE, "ns", "SELECT last(rss_bytes), ssize, dsize FROM kinfo_mem")?;
    let row = &answer["results"][0]["series"][0]["values"][0];
    ensure!(row[1].is_i64() && row[2] != row[3], "{answer}");
    Ok(())
}

/// The same fields in the same order, numbers written alike, and 0 where albatross has a constant 0.
fn has_form_of(line: &Line, recorded: &str) -> anyhow::Result<()> {
    let recorded = Line::parse(&format!("{recorded} 1600000000000000000"))?;
    let names = |line: &Line| line.fields.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    ensure!(names(line) == names(&recorded), "{line:?}");
    let constants = [
        "ixrss",
        "idrss",
        "isrss",
        "nswap",
        "inblock",
        "outblock",
        "msgsnd",
        "msgrcv",
        "nsignals",
        "cow_faults",
        "send_queue_length",
        "max_send_queue_length",
        "send_queue_drops",
        "baudrate",
        "host_to_vm_mcast",
    ];
    for ((name, value), (_, form)) in line.fields.iter().zip(&recorded.fields) {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let alike = match (form.split_once('.'), value.split_once('.')) {
            (Some(_), Some((whole, decimals))) => digits(whole) && digits(decimals) && decimals.len() == 6,
            (None, None) => value.strip_suffix('i').is_some_and(digits),
            _ => false,
        };
        ensure!(alike, "{name}={value}, recorded {form}");
        ensure!(!constants.contains(&name.as_str()) || value == "0i", "{name}={value}");
    }
    Ok(())
}

#[test]
fn a_second_unid_stores_the_same_points() -> anyhow::Result<()> {
    let (near_state, far_state) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let far = Daemon::start(far_state.path(), &[])?;
    let near = daemon(&near_state, &far.address("line")?, &[])?;
    run(&near, "web")?;
    let last = eventually("6 looks in the second store", || {
        let times = stored_times(&far, "web")?;
        ensure!(times.len() >= 6, "{}", times.len());
        times.last().copied().context("none")
    })?;
    for measurement in ["resource_usage", "kinfo_mem", "interface"] {
        let q = format!("SELECT * FROM {measurement} WHERE time <= {last} GROUP BY vm, bridge");
        let (ours, theirs) =
            (query(&api(&near)?, DATABASE, "ns", &q)?, query(&api(&far)?, DATABASE, "ns", &q)?);
        ensure!(ours == theirs, "{measurement}\n first: {ours}\n second: {theirs}");
        let rows = ours["results"][0]["series"][0]["values"].as_array().map_or(0, Vec::len);
        ensure!(rows >= 6, "{ours}");
    }
    Ok(())
}

#[test]
fn a_collector_that_is_away_gets_everything_when_it_is_back() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let port = free_port()?;
    let daemon = daemon(&state, &format!("localhost:{port}"), &[])?;
    run(&daemon, "web")?;
    eventually("some looks", || {
        let status = status(&daemon)?;
        ensure!(status["connected"] == false && number(&status, "buffered_bytes")? > 4000, "{status}");
        Ok(())
    })?;
    let mut sent = BTreeSet::new();
    for _ in 0..2 {
        let collector = Collector::start(port, Manner::Keeps)?;
        // longer than a connection must stand to count as a good one
        let connected = eventually("the connection", || {
            wait_for_blocks(&collector, "web", 1)?;
            Ok(Instant::now())
        })?;
        while connected.elapsed() < Duration::from_secs(6) {
            std::thread::sleep(Duration::from_millis(100));
        }
        let stored = stored_times(&daemon, "web")?;
        eventually("all that is stored", || {
            let mut all = sent.clone();
            all.extend(collector.blocks()?.iter().map(|block| block.time));
            let missing: Vec<_> = stored.difference(&all).collect();
            ensure!(missing.is_empty(), "{missing:?} of {}", stored.len());
            sent = all;
            Ok(())
        })?;
        drop(collector);
        // some looks nobody takes
        std::thread::sleep(Duration::from_secs(3));
    }
    let status = status(&daemon)?;
    ensure!(
        number(&status, "lines_dropped_total")? == 0 && number(&status, "reconnects_total")? == 1,
        "{status}"
    );
    let log = daemon.log();
    let count = |word: &str| log.iter().filter(|line| line.contains(word)).count();
    let address = format!("localhost:{port}");
    ensure!(count("takes nothing") == 3 && count("is back") == 2, "{log:#?}");
    ensure!(count(&address) == 5, "{log:#?}");
    Ok(())
}

#[test]
fn a_stalled_collector_holds_nothing_up() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    // little room in the kernel, so that the connection is full soon; nobody ever reads, or even accepts
    rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 2048)?;
    let daemon = daemon(&state, &listener.local_addr()?.to_string(), &[])?;
    let vms = ["one", "two", "three"];
    vms.iter().try_for_each(|vm| run(&daemon, vm))?;
    let start = Instant::now();
    let (mut buffered, mut given_up) = (false, false);
    while !(buffered && given_up) {
        ensure!(start.elapsed() < Duration::from_secs(90), "buffered {buffered}, given up {given_up}");
        let asked = Instant::now();
        let status = status(&daemon)?;
        daemon.uni_ok(&["stats", "one"])?;
        ensure!(asked.elapsed() < Duration::from_secs(5), "an answer took {:?}", asked.elapsed());
        buffered |= number(&status, "buffered_bytes")? > 4000;
        given_up |= number(&status, "reconnects_total")? > 0;
        std::thread::sleep(Duration::from_millis(200));
    }
    // the sampler kept its beat all the while
    for vm in vms {
        let times: Vec<_> = stored_times(&daemon, vm)?.into_iter().collect();
        ensure!(times.len() >= 10, "{}", times.len());
        let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        ensure!(longest < 4_000_000_000, "{longest} ns without a look at {vm}");
    }
    daemon.uni_ok(&["stop", "one", "--force"])?;
    daemon.uni_ok(&["rm", "one"])?;
    eventually("the complaint", || {
        let log = daemon.log();
        let told = |line: &String| line.contains("nothing taken in 10 s") || line.contains("timed out");
        ensure!(log.iter().any(told), "{log:#?}");
        Ok(())
    })
}

#[test]
fn a_collector_that_closes_after_each_line_is_not_rushed_and_gets_on() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let collector = Collector::start(0, Manner::ClosesAfterALine)?;
    let daemon = daemon(&state, &collector.address.to_string(), &[])?;
    run(&daemon, "web")?;
    let reads = eventually("four connections", || {
        let reads = collector.reads();
        ensure!(reads.len() >= 4, "{}", reads.len());
        Ok(reads)
    })?;
    let mut times = BTreeSet::new();
    for bytes in &reads {
        times.insert(Line::parse(String::from_utf8(bytes.clone())?.trim_end())?.time);
    }
    ensure!(times.len() >= 2, "always the same line: {reads:?}");
    let status = status(&daemon)?;
    ensure!((3..8).contains(&number(&status, "reconnects_total")?), "{status}");
    run(&daemon, "other")?;
    Ok(())
}

#[test]
fn the_end_of_the_daemon_sends_what_waits_and_does_not_wait_long() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let collector = Collector::start(0, Manner::Keeps)?;
    let mut daemon = daemon(&state, &collector.address.to_string(), &[])?;
    run(&daemon, "web")?;
    wait_for_blocks(&collector, "web", 2)?;
    let asked = Instant::now();
    terminate(&daemon)?;
    eventually("unid to end", || {
        ensure!(!daemon.socket().exists());
        Ok(())
    })?;
    ensure!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    daemon.kill()?;
    daemon.restart()?;
    // what the first daemon stored, the collector has
    let stored = stored_times(&daemon, "web")?;
    eventually("all that is stored", || {
        let sent: BTreeSet<_> = collector.blocks()?.iter().map(|block| block.time).collect();
        ensure!(stored.is_subset(&sent), "{stored:?} {sent:?}");
        Ok(())
    })
}

fn terminate(daemon: &Daemon) -> anyhow::Result<()> {
    let pid = rustix::process::Pid::from_raw(daemon.pid().try_into()?).context("no pid")?;
    Ok(rustix::process::kill_process(pid, rustix::process::Signal::TERM)?)
}

#[test]
fn bad_collectors_are_refused_and_unknown_ones_are_tried_again() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let port = free_port()?;
    let line = format!("127.0.0.1:{port}");
    let by_name = format!("localhost:{port}");
    let start = |influx: &[&str]| -> anyhow::Result<String> {
        let output = Command::new(bin_dir().join("unid"))
            .arg("--state-dir")
            .arg(state.path().join("s"))
            .arg("--socket")
            .arg(state.path().join("socket"))
            .args(["--line-addr", &line, "--syslog-addr", "", "--api-addr", ""])
            .args(influx)
            .output()?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1), "{influx:?}: {:?} {stderr}", output.status);
        Ok(stderr)
    };
    for bad in ["", ":8094", "host:0", "host:99999", "host:x", "a b", "me@host:1", "http://host:8094"] {
        let message = start(&["--influx", bad])?;
        ensure!(message.contains("--influx") && message.contains("HOST:PORT"), "{bad:?}: {message}");
    }
    for own in [&line, &by_name] {
        let message = start(&["--influx", own])?;
        ensure!(message.contains("--influx") && message.contains("own line listener"), "{message}");
    }
    for flag in ["--albatross-compat", "--no-drop-path"] {
        ensure!(start(&[flag])?.contains("--influx"));
    }
    let daemon = Daemon::start(&state.path().join("t"), &["--influx", "no-such-host.invalid"])?;
    eventually("the complaint", || {
        let log = daemon.log().join("\n");
        ensure!(log.contains("no-such-host.invalid:8094"), "{log}");
        Ok(())
    })?;
    ensure!(status(&daemon)?["connected"] == false);
    Ok(())
}
