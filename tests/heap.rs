//! Who holds the heap: by library through `unid`, of guests and of an ordinary program; and traces, taken from a guest
//! as an operator takes them, with good clients and bad ones.
//!
//! Owns nothing: real guests, the real example, plain sockets.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use black_box::by_hand::{MACHINES, Qemu};
use black_box::control::{control, until_answering};
use black_box::{Daemon, bin_dir, eventually, free_port, guest};
use uni_vmm::symbols::Symbols;
use uni_wire::memtrace::{Decoder, Item, Mode};

/// Bytes a second.
const LEAK_RATE: u32 = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(10);

/// A guest that leaks, with its trace's port and its control port.
struct Leaky {
    _qemu: Qemu,
    _dir: tempfile::TempDir,
    trace: u16,
    control: u16,
    metrics: u16,
}

impl Leaky {
    fn boot(more: &str) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let (trace, adjust, metrics) = (free_port()?, free_port()?, free_port()?);
        let forwarded = [(trace, 4242), (adjust, 2323), (metrics, 9464)];
        let ports = forwarded.map(|(here, there)| format!("hostfwd=tcp:127.0.0.1:{here}-:{there}")).join(",");
        let args = format!("--name=drip --management-ipv4=10.0.3.15/24 {more}");
        let qemu = Qemu::boot(dir.path(), MACHINES[0], "leaky", &format!("net=10.0.3.0/24,{ports}"), &args)?;
        until_answering(adjust)?;
        Ok(Self { _qemu: qemu, _dir: dir, trace, control: adjust, metrics })
    }

    fn connect(&self) -> anyhow::Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.trace))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// A client with next to no room for what it does not read.
    fn connect_narrowly(&self) -> anyhow::Result<TcpStream> {
        use rustix::net;
        let socket = net::socket(net::AddressFamily::INET, net::SocketType::STREAM, None)?;
        net::sockopt::set_socket_recv_buffer_size(&socket, 2048)?;
        net::connect(&socket, &SocketAddr::from(([127, 0, 0, 1], self.trace)))?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Makes the guest allocate a lot.
    fn scrape(&self) -> anyhow::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.metrics))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: drip\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.contains("heap_by_library_live_bytes{"), "{answer}");
        Ok(())
    }

    /// A number of the answer to `s`.
    fn figure(&self, name: &str) -> anyhow::Result<u64> {
        let answer = control(self.control, "s")?;
        let figure = answer.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix(':'));
        Ok(figure.with_context(|| answer.clone())?.parse()?)
    }

    fn until_idle(&self) -> anyhow::Result<()> {
        eventually("the trace to end", || {
            let answer = control(self.control, "s")?;
            ensure!(answer.contains("state:idle"), "{answer}");
            Ok(())
        })
    }
}

/// What a trace says, as far as it is asked for here.
#[derive(Debug, Default)]
struct Told {
    host: String,
    program: String,
    context: String,
    rate: f64,
    /// Live bytes by the frame that asked for them.
    live: HashMap<u64, f64>,
    allocated: usize,
    freed: usize,
}

fn read_trace(bytes: &[u8]) -> anyhow::Result<Told> {
    let (mut told, mut blocks) = (Told::default(), HashMap::new());
    let mut decoder = Decoder::new(Mode::Strict);
    let mut each = |item: Item<'_>| match item {
        Item::Info(info) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (told.host, told.program) = (text(info.host_name), text(info.executable_name));
            (told.context, told.rate) = (text(info.context), info.sample_rate);
        }
        Item::Alloc(alloc) => {
            let bytes = alloc.samples as f64 / told.rate * 8.0;
            blocks.insert(alloc.id, (alloc.backtrace.last().copied(), bytes));
            told.allocated += 1;
        }
        Item::Collect(gone) => {
            blocks.remove(&gone.id);
            told.freed += 1;
        }
        _ => {}
    };
    decoder.handle_bytes(bytes, &mut each)?;
    decoder.finish(&mut each)?;
    for (frame, bytes) in blocks.into_values() {
        *told.live.entry(frame.unwrap_or_default()).or_default() += bytes;
    }
    Ok(told)
}

#[test]
fn a_leak_is_told_by_the_right_library_through_the_daemon() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &["--interval", "1s"])?;
    let image = guest("leaky").display().to_string();
    let rate = format!("--leak-rate={LEAK_RATE}");
    daemon.uni_ok(&["run", &image, "--name", "drip", "--memory", "128M", "--", "--interval=1", &rate])?;
    daemon.uni_ok(&["run", &image, "--name", "mute", "--", "--interval=1", "--heap-profile=off"])?;
    let of = |library: &str, vm: &str| {
        format!("SELECT live_bytes FROM heap_by_library WHERE vm = '{vm}' AND library = '{library}'")
    };
    let points = eventually("enough points of leaky's heap", || {
        let rows = daemon.rows(&of("leaky", "drip"))?;
        ensure!(rows.len() >= 10, "{} points", rows.len());
        let point =
            |row: &Vec<serde_json::Value>| Some((row.first()?.as_f64()? / 1000.0, row.get(1)?.as_f64()?));
        rows.iter().map(point).collect::<Option<Vec<_>>>().context("numbers")
    })?;
    let (first, last) = (points[0], points[points.len() - 1]);
    let growth = (last.1 - first.1) / (last.0 - first.0);
    ensure!((growth / f64::from(LEAK_RATE) - 1.0).abs() < 0.2, "{growth} bytes a second: {points:?}");
    // The runtime is told too, and holds far less.
    let most_of = |library: &str| {
        daemon.number(&format!(
            "SELECT max(live_bytes) FROM heap_by_library WHERE vm = 'drip' AND library = '{library}'"
        ))
    };
    let runtime = most_of("guest_runtime")?;
    ensure!(runtime > 0.0 && runtime < last.1 / 4.0, "guest_runtime holds {runtime}");
    let objects = daemon.number("SELECT max(live_objects) FROM heap_by_library WHERE library = 'leaky'")?;
    ensure!(objects >= 1.0, "{objects}");
    let alive = daemon.number("SELECT last(heap_live_bytes) FROM heap WHERE vm = 'mute'")?;
    let silent = daemon.query("SELECT live_bytes FROM heap_by_library WHERE vm = 'mute'")?;
    ensure!(alive > 0.0 && silent["results"][0]["series"].is_null(), "{silent}");
    Ok(())
}

#[test]
fn a_trace_names_the_leaking_function_first() -> anyhow::Result<()> {
    let leaky = Leaky::boot(&format!("--leak-rate={LEAK_RATE} --memtrace-rate=1e-3"))?;
    let mut client = leaky.connect()?;
    // The first packet comes at once, and the guest says what is going on.
    let mut trace = vec![0; 66];
    client.read_exact(&mut trace)?;
    ensure!(control(leaky.control, "s")?.starts_with("ok: rate:0.001,state:running,traces:1,"));

    // A second client is told so, and does not end the first one's.
    let mut refusal = String::new();
    leaky.connect()?.read_to_string(&mut refusal)?;
    ensure!(
        refusal == "error: memtrace tracing already active; try again when it has ended\n",
        "{refusal:?}"
    );

    // Packets come while it goes on, though none is full: every second or so.
    let (begun, mut early) = (Instant::now(), vec![0; 200]);
    client.read_exact(&mut early)?;
    ensure!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    trace.extend(early);
    std::thread::sleep(Duration::from_secs(2));
    client.shutdown(Shutdown::Write)?;
    client.read_to_end(&mut trace)?;

    let told = read_trace(&trace)?;
    ensure!((told.host.as_str(), told.rate) == ("drip", 1e-3), "{told:?}");
    ensure!(told.context.contains("uni-guest"), "{}", told.context);
    let (first, bytes) = told.live.iter().max_by(|a, b| a.1.total_cmp(b.1)).context("nothing is live")?;
    ensure!(*bytes > f64::from(LEAK_RATE), "{bytes} bytes of {told:?}");
    let symbols = Symbols::load(&guest("leaky"))?.context("the image has a twin")?;
    let frames = symbols.resolve(*first);
    let function =
        frames.iter().map(|frame| frame.function.as_str()).find(|name| name.contains("leak_a_little"));
    ensure!(function.is_some(), "{first:#x}: {frames:?}");

    // What the last packet held came too: the guest counts what it wrote.
    ensure!(leaky.figure("events")? == (told.allocated + told.freed) as u64, "{told:?}");
    ensure!(leaky.figure("dropped_events")? == 0);
    Ok(())
}

#[test]
fn bad_clients_do_not_stall_the_guest_and_leave_the_port_to_the_next() -> anyhow::Result<()> {
    let leaky = Leaky::boot("--leak-rate=65536")?;
    for (rate, answer) in [("0", "error: '0' is no"), ("1.5", "error: '1.5' is no"), ("1", "ok")] {
        let told = control(leaky.control, &format!("S{rate}"))?;
        ensure!(told.starts_with(answer), "{told}");
    }
    // Every block is traced, and nobody reads: events are dropped, and the guest answers as before.
    let mut stalled = leaky.connect_narrowly()?;
    eventually("events to be dropped", || {
        for _ in 0..20 {
            let begun = Instant::now();
            leaky.scrape()?;
            ensure!(begun.elapsed() < Duration::from_secs(3), "an answer took {:?}", begun.elapsed());
        }
        ensure!(leaky.figure("dropped_events")? > 0, "{}", control(leaky.control, "s")?);
        Ok(())
    })?;
    // It reads after all: what it gets is a whole trace, but for what was counted.
    stalled.shutdown(Shutdown::Write)?;
    let mut trace = Vec::new();
    stalled.read_to_end(&mut trace)?;
    let told = read_trace(&trace)?;
    ensure!(told.rate == 1.0 && told.allocated > 100, "{} of rate {}", told.allocated, told.rate);
    leaky.until_idle()?;

    // One that is cut in the middle, and one that says something: both end their trace.
    let mut cut = leaky.connect()?;
    cut.read_exact(&mut [0; 66])?;
    rustix::net::sockopt::set_socket_linger(&cut, Some(Duration::ZERO))?;
    drop(cut);
    leaky.until_idle()?;
    let mut talker = leaky.connect()?;
    talker.read_exact(&mut [0; 66])?;
    talker.write_all(b"stop")?;
    let mut rest = Vec::new();
    talker.read_to_end(&mut rest)?;
    leaky.until_idle()?;
    ensure!(leaky.figure("traces")? == 3);
    Ok(())
}

#[test]
fn a_guest_without_the_port_has_none() -> anyhow::Result<()> {
    let leaky = Leaky::boot("--memtrace-port=0")?;
    // QEMU accepts, finds nobody, and closes.
    let mut rest = Vec::new();
    let read = leaky.connect()?.read_to_end(&mut rest);
    ensure!(read.is_err() || rest.is_empty(), "{rest:?}");
    Ok(())
}

/// The example, observed by `unid`; killed when dropped.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_ordinary_program_tells_its_heap_by_library() -> anyhow::Result<()> {
    /// What the example's own code takes for a client that has not finished its request.
    const CLIENT_BYTES: f64 = 8192.0;
    const CLIENTS: usize = 60;
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let (http, adjust, memtrace) = (free_port()?, free_port()?, free_port()?);
    let program = bin_dir().join("agent");
    let child = Command::new(&program)
        .args([
            format!("--port={http}"),
            format!("--monitor-adjust={adjust}"),
            format!("--memtrace-port={memtrace}"),
        ])
        .args(["--metrics-port=0", "--interval=1", "--name=shop", "--monitor"])
        .arg(daemon.address("line")?)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("start {}; build it with `cargo xtask build`", program.display()))?;
    let _agent = Agent(child);
    until_answering(adjust)?;
    let held = || daemon.number("SELECT last(live_bytes) FROM heap_by_library WHERE library = 'agent'");
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", http))?;
            stream.write_all(b"GET / HT")?;
            anyhow::Ok(stream)
        })
        .collect::<Result<_, _>>()?;
    let expected = CLIENT_BYTES * CLIENTS as f64;
    eventually("its own code to hold memory", || {
        let held = held()?;
        ensure!(held > expected * 0.7 && held < expected * 1.5, "{held} of about {expected}");
        Ok(())
    })?;
    drop(clients);
    eventually("its own code to give it back", || {
        let held = held()?;
        ensure!(held < expected * 0.2, "{held}");
        Ok(())
    })?;

    // A trace of it is one like a guest's.
    let mut client = TcpStream::connect(("127.0.0.1", memtrace))?;
    client.set_read_timeout(Some(PATIENCE))?;
    client.shutdown(Shutdown::Write)?;
    let mut trace = Vec::new();
    client.read_to_end(&mut trace)?;
    let told = read_trace(&trace)?;
    ensure!((told.host.as_str(), told.program.as_str()) == ("shop", "agent"), "{told:?}");
    Ok(())
}
