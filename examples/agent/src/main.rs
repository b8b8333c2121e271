//! An ordinary Linux program: a small HTTP service that logs with `tracing` and counts with `metrics`, as any library
//! may. `uni-guest` observes it as it observes a unikernel.
//!
//! ```text
//! agent --monitor=127.0.0.1 --syslog=127.0.0.1 --port=8080
//! ```
//! It answers `GET /`, `GET /slow` (takes 100 ms) and `GET /fail` (an answer of 500) until SIGINT or SIGTERM.
//! Build it with `RUSTFLAGS="-C force-frame-pointers=yes"`, so that the heap is told by library: callers are found by
//! frame pointers. Reporting takes the lines marked with `reporting:`; all else is the service.

mod http;

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use uni_guest::args::{ArgumentsError, EXIT_USAGE};
use uni_guest::sources::{HttpResponses, http_response};
use uni_guest::std_driver::{Config, Reporting, usage};
use uni_guest::{Field, OptionSpec, Source, Timer, source};

const DEFAULT_PORT: u16 = 8080;
/// Connections at one time; those beyond are told to come again.
const MAX_CONNECTIONS: usize = 64;
const OPTIONS: [OptionSpec; 1] =
    [OptionSpec { name: "port", value: Some("PORT"), help: "where HTTP is served; 8080" }];

// reporting: who holds the heap
#[cfg(not(feature = "bench-bare"))]
#[global_allocator]
static ALLOCATOR: uni_guest::heap::Sampled<std::alloc::System> =
    uni_guest::heap::Sampled::new(std::alloc::System);
#[cfg(feature = "bench-jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

// reporting: what is measured
static RESPONSES: HttpResponses = HttpResponses::new();
static REQUESTS: Timer = Timer::new();
static OPEN: AtomicUsize = AtomicUsize::new(0);

source! {
    /// Answers by status class.
    static HTTP: Source = http_response(&RESPONSES.fields());
    /// What the service is busy with.
    static SERVICE: Source = Source::new("http").doc("requests being served").fields(&[
        Field::timer("request", &REQUESTS).doc("from the request to the end of its answer"),
        Field::level_of("open", open_connections).unit("connections").doc("open connections"),
    ]);
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<ArgumentsError>() {
            Some(ArgumentsError::Help) => {
                print!("{}", usage("agent", &OPTIONS));
                ExitCode::SUCCESS
            }
            Some(_) => {
                eprintln!("agent: {error}; --help lists the options");
                ExitCode::from(EXIT_USAGE)
            }
            None => {
                eprintln!("agent: {error}");
                ExitCode::FAILURE
            }
        },
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::of_process(&OPTIONS)?;
    let port = config.arguments.extra("port").map_or(Ok(DEFAULT_PORT), str::parse);
    let port = port.map_err(|error| format!("option '--port': {error}"))?;
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .map_err(|error| format!("listen at 127.0.0.1:{port}: {error}; choose another with --port"))?;
    // reporting: the start
    let mut reporting = Reporting::start(config)?;
    reporting.install()?;
    tracing::info!(target: "http", "serving HTTP at {}", listener.local_addr()?);
    std::thread::spawn(move || serve(&listener));
    if let Some(signal) = signals.forever().next() {
        tracing::info!(target: "http", signal, "stopping");
    }
    // reporting: the end
    let counts = reporting.stop();
    let points = counts.agent;
    println!(
        "{} bytes of points sent, {} bytes not sent, {} points lost for want of room",
        points.sent_bytes, points.queued_bytes, points.dropped_points
    );
    Ok(())
}

fn open_connections() -> i64 {
    i64::try_from(OPEN.load(Ordering::Relaxed)).unwrap_or(i64::MAX)
}

fn serve(listener: &TcpListener) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // For want of descriptors, mostly: they come back as connections end.
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        if OPEN.load(Ordering::Relaxed) >= MAX_CONNECTIONS {
            finish(&stream, 503, "busy\n");
            continue;
        }
        let visitor = Visitor::new();
        std::thread::spawn(move || {
            converse(&stream);
            drop(visitor);
        });
    }
}

/// One open connection.
struct Visitor;

impl Visitor {
    fn new() -> Self {
        OPEN.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

fn converse(stream: &TcpStream) {
    let Some(path) = http::read_path(stream) else { return finish(stream, 400, "this is no GET request\n") };
    let start = Instant::now();
    let (status, body) = match path.as_str() {
        "/" => (200, "hello\n"),
        "/slow" => {
            std::thread::sleep(Duration::from_millis(100));
            (200, "slow\n")
        }
        "/fail" => {
            tracing::error!(target: "http", path, "cannot answer");
            (500, "it failed\n")
        }
        _ => {
            tracing::warn!(target: "http", path, "no such page");
            (404, "there are /, /slow and /fail\n")
        }
    };
    finish(stream, status, body);
    let took = start.elapsed();
    REQUESTS.record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), status < 500);
    metrics::histogram!("http_request_seconds").record(took.as_secs_f64());
    tracing::debug!(target: "http", path, ?took, "answered");
}

fn finish(stream: &TcpStream, status: u16, body: &str) {
    RESPONSES.count(status);
    metrics::counter!("http_requests").increment(1);
    if let Err(error) = http::answer(stream, status, body) {
        tracing::info!(target: "http", %error, "the client is gone");
    }
}
