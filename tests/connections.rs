//! A hundred guests' worth of senders of line protocol, among half-open, slow and abusive ones: none delays
//! another, nothing of the good ones is lost, memory stays bounded and the counters tell the abuse.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use black_box::{Daemon, eventually};

/// Good senders, each with a connection of its own.
const SENDERS: usize = 100;
/// Each sends a batch this often.
const PERIOD: Duration = Duration::from_millis(100);
/// For so many periods.
const ROUNDS: u64 = 80;
/// The most by which a good sender's point may be late in an answer of `/query`.
const LATE: Duration = Duration::from_secs(1);
/// What the sender of much sends, in points; each line has 50 bytes.
const BULK_POINTS: u64 = 1_000_000;

type Task<'scope> = ScopedJoinHandle<'scope, anyhow::Result<()>>;

/// The good senders: says in `sent` how many rounds are wholly sent.
fn good(address: &str, sent: &AtomicU64) -> anyhow::Result<()> {
    let mut streams: Vec<TcpStream> =
        (0..SENDERS).map(|_| TcpStream::connect(address)).collect::<Result<_, _>>()?;
    for stream in &streams {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(LATE))?;
    }
    let start = Instant::now();
    for round in 0..ROUNDS {
        let due = PERIOD * u32::try_from(round)?;
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        for (n, stream) in streams.iter_mut().enumerate() {
            let time = 1_600_000_000_000_000_000 + round * 100_000_000;
            let batch = format!(
                "good,vm=g{n} round={round}i {time}\nmemory,vm=g{n} free=1i,used=2i {time}\ngc,vm=g{n} live=3i {time}\n"
            );
            stream.write_all(batch.as_bytes()).context("a good sender is held up")?;
        }
        sent.store(round + 1, Relaxed);
    }
    Ok(())
}

/// Sends `bytes` again and again as fast as it goes.
fn full_speed(address: &str, bytes: &[u8], stop: &AtomicBool) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    while !stop.load(Relaxed) {
        stream.write_all(bytes)?;
    }
    Ok(())
}

/// Twenty connections that send a byte each every 100 ms, and the rest of the line at once at the end: a line
/// cut at the end of a connection may be a whole one with another time.
fn slow(address: &str, stop: &AtomicBool) -> anyhow::Result<()> {
    const LINE: &[u8] = b"slow,vm=s f=1 1600000000000000000\n";
    let mut streams: Vec<TcpStream> =
        (0..20).map(|_| TcpStream::connect(address)).collect::<Result<_, _>>()?;
    let mut sent = 0;
    while !stop.load(Relaxed) {
        streams.iter_mut().try_for_each(|stream| stream.write_all(&LINE[sent..=sent]))?;
        sent = (sent + 1) % LINE.len();
        std::thread::sleep(Duration::from_millis(100));
    }
    streams.iter_mut().try_for_each(|stream| stream.write_all(&LINE[sent..]))?;
    Ok(())
}

/// Connects and leaves, half of the time in the middle of a line.
fn storm(address: &str, stop: &AtomicBool) -> anyhow::Result<()> {
    while !stop.load(Relaxed) {
        let mut stream = TcpStream::connect(address)?;
        if stream.local_addr()?.port().is_multiple_of(2) {
            stream.write_all(b"storm,vm=s f=")?;
        }
        drop(stream);
        // no faster, for each leaves a port behind that is busy for a minute
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// 50 MB of good points on one connection; says when all are written.
fn bulk(address: &str) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    let mut batch = Vec::new();
    for n in 0..BULK_POINTS {
        writeln!(batch, "bulk,vm=b f={:07}i,g=12345678 {}", n, 1_600_000_000_000_000_000 + n)?;
        if batch.len() > 256 * 1024 {
            stream.write_all(&batch)?;
            batch.clear();
        }
    }
    stream.write_all(&batch)?;
    stream.shutdown(Shutdown::Write)?;
    Ok(())
}

/// Bytes that are no lines, of a fixed seed (xorshift).
fn garbage() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::new();
    while bytes.len() < 256 * 1024 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
        if state.is_multiple_of(8) {
            bytes.push(b'\n');
        }
    }
    bytes
}

/// Starts every kind of bad sender.
fn bad<'scope>(
    scope: &'scope Scope<'scope, '_>,
    address: &'scope str,
    stop: &'scope AtomicBool,
) -> Vec<Task<'scope>> {
    vec![
        scope.spawn(|| slow(address, stop)),
        scope.spawn(|| storm(address, stop)),
        scope.spawn(|| full_speed(address, &[b'x'; 64 * 1024], stop)),
        scope.spawn(|| full_speed(address, &garbage(), stop)),
        scope.spawn(|| full_speed(address, &garbage(), stop)),
        scope.spawn(|| full_speed(address, &garbage(), stop)),
        scope.spawn(|| full_speed(address, &garbage(), stop)),
        scope.spawn(|| bulk(address)),
    ]
}

fn count(daemon: &Daemon, what: &str) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count far below 2^53")]
    daemon.number(what).map_or(0, |count| count as u64)
}

fn rss_mib(daemon: &Daemon) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
}

/// What was seen while the senders were at it.
#[derive(Debug, Default)]
struct Seen {
    latest: Duration,
    rss_mib: u64,
}

/// Asks again and again how late the good senders' points are, until all rounds are sent.
fn watch(daemon: &Daemon, sent: &AtomicU64, sender: &Task<'_>) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    while !sender.is_finished() {
        let rounds = sent.load(Relaxed);
        let asked = Instant::now();
        while count(daemon, "SELECT count(round) FROM good") < rounds * SENDERS as u64 {
            ensure!(asked.elapsed() < 10 * LATE, "round {rounds} has not arrived; so far {seen:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        seen.latest = seen.latest.max(asked.elapsed());
        seen.rss_mib = seen.rss_mib.max(rss_mib(daemon)?);
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(seen)
}

#[test]
fn bad_senders_delay_no_good_one() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    let address = daemon.address("line")?;
    // half-open: connected, in the middle of a line, and never heard of again
    let mut half_open = Vec::new();
    for _ in 0..150 {
        let mut stream = TcpStream::connect(&address)?;
        stream.write_all(b"half,vm=h f=")?;
        half_open.push(stream);
    }
    let (sent, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let seen = std::thread::scope(|scope| {
        let bad = bad(scope, &address, &stop);
        let sender = scope.spawn(|| good(&address, &sent));
        let seen = watch(&daemon, &sent, &sender);
        stop.store(true, Relaxed);
        sender.join().map_err(|_| anyhow::anyhow!("the good senders panicked"))??;
        for task in bad {
            task.join().map_err(|_| anyhow::anyhow!("a bad sender panicked"))??;
        }
        seen
    })?;
    let status = daemon.uni_json(&["status"])?;
    eprintln!("good points at most {:?} late, unid {} MiB; {}", seen.latest, seen.rss_mib, status["ingest"]);
    ensure!(seen.latest < LATE, "a good point was {:?} late", seen.latest);
    ensure!(seen.rss_mib < 100, "unid took {} MiB", seen.rss_mib);
    // nothing is lost: of the good ones, of the much, of the slow ones' whole lines
    let of_each = "SELECT count(round) FROM good GROUP BY vm";
    let series = daemon.query(of_each)?;
    let counts = series["results"][0]["series"].as_array().context("series")?;
    ensure!(counts.len() == SENDERS && counts.iter().all(|s| s["values"][0][1] == ROUNDS), "{series}");
    eventually("all of the much", || {
        let bulk = count(&daemon, "SELECT count(f) FROM bulk");
        ensure!(bulk == BULK_POINTS, "{bulk}");
        Ok(())
    })?;
    eventually("the slow ones' one point", || {
        let slow = count(&daemon, "SELECT count(f) FROM slow");
        ensure!(slow == 1, "{slow}");
        Ok(())
    })?;
    let at_least = |counter: &str, least: u64| {
        let value = status["ingest"][counter].as_u64().unwrap_or(0);
        ensure!(value >= least, "{counter} is {value}: {status}");
        Ok(())
    };
    at_least("bad_lines_total", 1000)?;
    at_least("long_lines_total", 1)
}

#[test]
fn connections_over_the_limit_are_refused_counted_and_harm_nobody() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let daemon = Daemon::start(state.path(), &[])?;
    // this test's own connections need descriptors too
    let own = std::process::id().to_string();
    let raised = Command::new("prlimit").args(["--pid", &own, "--nofile=4096:"]).status()?;
    ensure!(raised.success(), "prlimit --nofile=4096");
    let address = daemon.address("line")?;
    let mut good = TcpStream::connect(&address)?;
    let many: Vec<TcpStream> = (0..1200).map(|_| TcpStream::connect(&address)).collect::<Result<_, _>>()?;
    eventually("the refusals to be counted", || {
        let status = daemon.uni_json(&["status"])?;
        ensure!(status["ingest"]["refused_connections_total"] == 177, "{}", status["ingest"]);
        Ok(())
    })?;
    good.write_all(b"edge,vm=l f=1 1600000000000000000\n")?;
    eventually("the good sender's line", || daemon.number("SELECT count(f) FROM edge"))?;
    drop(many);
    eventually("a newcomer's line, now that there is room", || {
        let mut newcomer = TcpStream::connect(&address)?;
        newcomer.write_all(b"edge,vm=l f=2 1600000001000000000\n")?;
        std::thread::sleep(Duration::from_millis(100));
        let count = count(&daemon, "SELECT count(f) FROM edge");
        ensure!(count == 2, "{count}");
        Ok(())
    })
}
