//! The agent of an ordinary Linux program: one thread that reports what the program declares and logs.
//!
//! Owns that thread and the sockets it uses: the connection to the collector, the control port, Prometheus's port (both
//! on loopback), that of heap traces, the way to a syslog sink. Nothing the program does ever waits for it: instruments are atomics, messages
//! go into a bounded queue, and what finds no room is dropped and counted.
//!
//! What a program has to do for it:
//!
//! ```no_run
//! use uni_guest::std_driver::{Config, Reporting};
//! use uni_guest::{Counter, Field, Source, source};
//!
//! static SOLD: Counter = Counter::new();
//! source! { static SHOP: Source = Source::new("shop").fields(&[Field::counter("sold", &SOLD)]); }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let mut reporting = Reporting::start(Config::of_process(&[])?)?;
//!     reporting.install()?; // for `tracing`, `log` and `metrics`
//!     SOLD.increment();
//!     reporting.stop();
//!     Ok(())
//! }
//! ```
//! Run as `shop --monitor=127.0.0.1 --syslog=127.0.0.1`, or with `UNI_AGENT_MONITOR` and so on in the environment. A
//! program with a command line of its own fills in [`Arguments`](crate::Arguments) and takes [`Config::new`].

mod clock;
mod collector;
mod config;
mod connection;
mod driver;
mod flow;
mod links;
mod memtrace;
mod outlet;
mod port;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
mod tls_options;
mod wake;

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, SocketAddr};
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing_subscriber::layer::SubscriberExt as _;

use crate::agent::AgentFigures;
use crate::bridge::{Messages, Recorder};
use crate::heap;
use driver::{Driver, Ports};
use memtrace::TracePort;
use port::Port;
use wake::Wake;

pub use config::{Config, VARIABLE_PREFIX, usage};
#[cfg(feature = "tls")]
pub use tls::SinkTls;

/// Connections to the control port at one time.
const CONTROL_PLACES: usize = 4;
/// Connections from Prometheus at one time.
const SCRAPE_PLACES: usize = 2;
/// How long [`Handle::stop`] waits; longer than the thread needs unless standard error holds it up.
const STOP_WAIT: Duration = Duration::from_secs(3);

/// How the reporting fares, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Points.
    pub agent: AgentFigures,
    /// Whether the collector is there.
    pub is_connected: bool,
    /// Messages handed to the network for the syslog sink.
    pub sent_messages: u64,
    /// Messages that found a full queue on their way.
    pub dropped_messages: u64,
}

/// See the module's page.
#[derive(Debug)]
pub struct Reporting;

impl Reporting {
    /// Opens the ports and starts the thread. A collector or sink that is away is no error.
    ///
    /// # Errors
    /// A port that cannot be had, a control port beyond loopback without a token, no thread or socket.
    pub fn start(config: Config) -> io::Result<Handle> {
        let ports = open_ports(&config)?;
        let control_address = ports.control.as_ref().map(Port::address).transpose()?;
        let metrics_address = ports.scrape.as_ref().map(Port::address).transpose()?;
        let memtrace_address = ports.memtrace_address();
        let wake = Arc::new(Wake::new()?);
        let counts = Arc::<Mutex<Counts>>::default();
        let (to_starter, from_thread) = channel();
        let (to_stopper, done) = channel();
        let thread = thread::Builder::new().name("uni-agent".into()).spawn({
            let (wake, counts) = (Arc::clone(&wake), Arc::clone(&counts));
            move || {
                let started = Driver::new(config, ports, wake, counts);
                let (driver, bridges) = match started {
                    Ok((driver, messages, recorder)) => (Some(driver), Ok((messages, recorder))),
                    Err(error) => (None, Err(error)),
                };
                // Both fail only when nobody waits any more.
                let _ = to_starter.send(bridges);
                driver.into_iter().for_each(Driver::run);
                let _ = to_stopper.send(());
            }
        })?;
        let gone = || io::Error::other("the agent's thread ended before it began");
        let (messages, recorder) = from_thread.recv().map_err(|_| gone())??;
        Ok(Handle {
            wake,
            counts,
            messages,
            recorder: Some(recorder),
            control_address,
            metrics_address,
            memtrace_address,
            done,
            thread: Some(thread),
        })
    }
}

fn open_ports(config: &Config) -> io::Result<Ports> {
    let arguments = &config.arguments;
    let ip = config.control_ip;
    if arguments.control_port.is_some() && arguments.control_token.is_none() && !ip.is_loopback() {
        let text = format!("the control port at {ip} would be open to everybody; set --monitor-token");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let control = arguments
        .control_port
        .map(|port| Port::listen(ip, port, CONTROL_PLACES, "control", "monitor-adjust"))
        .transpose()?;
    let loopback = Ipv4Addr::LOCALHOST.into();
    let scrape = arguments
        .metrics_port
        .map(|port| Port::listen(loopback, port, SCRAPE_PLACES, "Prometheus", "metrics-port"))
        .transpose()?;
    // Only where there is something to trace. That another program has the port must not keep this one from starting.
    let memtrace = arguments
        .memtrace_port
        .filter(|_| heap::is_sampled())
        .map(|port| TracePort::listen(port, &arguments.name));
    Ok(Ports { control, scrape, memtrace })
}

/// The thread's other end. Dropped, it stops the thread as [`stop`](Self::stop) does.
#[derive(Debug)]
pub struct Handle {
    wake: Arc<Wake>,
    counts: Arc<Mutex<Counts>>,
    messages: Messages,
    recorder: Option<Recorder>,
    control_address: Option<SocketAddr>,
    metrics_address: Option<SocketAddr>,
    memtrace_address: Option<SocketAddr>,
    done: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// Makes this the program's recorder for `metrics`, subscriber of `tracing` and logger of `log`. A program that has
    /// others takes [`messages`](Self::messages) and [`take_recorder`](Self::take_recorder) and joins them itself.
    ///
    /// # Errors
    /// Another one is installed; what could be installed is.
    pub fn install(&mut self) -> io::Result<()> {
        let mut taken = Vec::new();
        if let Some(recorder) = self.recorder.take()
            && metrics::set_global_recorder(recorder).is_err()
        {
            taken.push("metrics");
        }
        let subscriber = tracing_subscriber::registry().with(self.messages.clone());
        let dispatch = tracing_core::Dispatch::new(subscriber);
        if tracing_core::dispatcher::set_global_default(dispatch).is_err() {
            taken.push("tracing");
        }
        match log::set_boxed_logger(Box::new(self.messages.clone())) {
            Ok(()) => log::set_max_level(log::LevelFilter::Trace),
            Err(_) => taken.push("log"),
        }
        if taken.is_empty() {
            return Ok(());
        }
        let text = format!("something else is installed already for: {}", taken.join(", "));
        Err(io::Error::new(io::ErrorKind::AlreadyExists, text))
    }

    /// A logger for `log` and layer for `tracing`.
    #[must_use]
    pub fn messages(&self) -> Messages {
        self.messages.clone()
    }

    /// The recorder for `metrics`; there is one.
    pub const fn take_recorder(&mut self) -> Option<Recorder> {
        self.recorder.take()
    }

    /// Where the control port is.
    #[must_use]
    pub const fn control_address(&self) -> Option<SocketAddr> {
        self.control_address
    }

    /// Where Prometheus asks.
    #[must_use]
    pub const fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Where a trace of the heap is taken; `None` too if the port could not be had, which is logged.
    #[must_use]
    pub const fn memtrace_address(&self) -> Option<SocketAddr> {
        self.memtrace_address
    }

    /// How the reporting fares.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Collects once more, sends what waits, and ends the thread; waits 3 s at most, and not at all for who is away.
    pub fn stop(mut self) -> Counts {
        self.end();
        self.counts()
    }

    fn end(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.wake.stop();
        // A thread that is held up is left to itself: the program ends anyway.
        if !matches!(self.done.recv_timeout(STOP_WAIT), Err(RecvTimeoutError::Timeout)) {
            // A panic of a source was told on standard error when it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests;
