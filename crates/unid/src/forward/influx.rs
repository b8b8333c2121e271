//! Pushes what the sampler sees to a collector of Influx line protocol, as albatross-influx does.
//!
//! Owns one task, one connection and one bounded buffer; the sampler only leaves its lines here. Delivery is at least
//! once: what may have been lost with a connection is sent again, and as every line carries its time, a line that
//! arrives twice is the same point. The collector answers nothing, so what it reads and then loses is not noticed.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uni_api::daemon::InfluxPush;
use uni_host::points::{BRIDGE_TAG, Units};
use uni_wire::line::LineWriter;

use super::backoff::Backoff;
use super::buffer::{Batch, Buffer};
use crate::config::Influx;
use crate::look::{Look, VM_TAG};
use crate::metrics::Registry;

/// What may wait for the collector: 8 MiB are 14 hours of one VM, or 8 minutes of a hundred, at the usual interval.
const MAX_BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// Finding the name and connecting take no longer.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// A collector that does not take a write within this is given up.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// The kernel's share of what is under way: what it holds is lost to us when a stalled connection is given up.
const SEND_BUFFER_BYTES: usize = 16 * 1024;
/// A silent connection is probed after this, this often, this many times.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;
/// Unacknowledged for this long, the peer is gone (tcp(7), `TCP_USER_TIMEOUT`).
const UNACKNOWLEDGED_MS: u32 = 10_000;
/// A connection that stood this long was a good one: when it breaks, the waits start anew.
const STEADY: Duration = Duration::from_secs(5);
/// How long the daemon's end waits for what is still to be sent.
const FLUSH_TIME: Duration = Duration::from_secs(2);
/// How long the start waits for the collector's name; it need not be known yet.
const LOOKUP_TIME: Duration = Duration::from_secs(2);

/// What became of the lines, since the daemon started.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Lines given to a connection; those sent again count again.
    pub(crate) lines_sent: AtomicU64,
    /// Lines lost because the buffer was full.
    pub(crate) lines_dropped: AtomicU64,
    /// Connections after the first.
    pub(crate) reconnects: AtomicU64,
    /// Bytes that wait.
    pub(crate) buffered_bytes: AtomicU64,
    pub(crate) connected: AtomicBool,
}

/// Shows the counters to Prometheus; without a push they stay 0.
pub(crate) fn register(registry: &Registry, counters: &Arc<Counters>) {
    let of = |read: fn(&Counters) -> u64| {
        let counters = Arc::clone(counters);
        move || read(&counters)
    };
    registry.counter(
        "uni_influx_push_lines_total",
        "Lines given to the connection to the Influx collector (--influx); those sent again count again.",
        of(|c| c.lines_sent.load(Relaxed)),
    );
    registry.counter(
        "uni_influx_push_dropped_lines_total",
        "Lines for the Influx collector that were lost because the buffer was full.",
        of(|c| c.lines_dropped.load(Relaxed)),
    );
    registry.counter(
        "uni_influx_push_reconnects_total",
        "Connections to the Influx collector after the first.",
        of(|c| c.reconnects.load(Relaxed)),
    );
    registry.gauge(
        "uni_influx_push_buffered_bytes",
        "Bytes of lines that wait for the Influx collector.",
        of(|c| c.buffered_bytes.load(Relaxed)),
    );
    registry.gauge(
        "uni_influx_push_connected",
        "1 while there is a connection to the Influx collector.",
        of(|c| u64::from(c.connected.load(Relaxed))),
    );
}

/// The lines for one collector: left here by the sampler, taken by [`Task`].
#[derive(Debug)]
pub(crate) struct Push {
    target: Influx,
    buffer: Mutex<Buffer>,
    wake: Notify,
    pub(crate) counters: Arc<Counters>,
}

impl Push {
    /// Leaves the lines of one VM. Never waits for the collector.
    pub(crate) fn offer(&self, look: &Look<'_>) {
        let text = lines(look, &self.target);
        self.change(|buffer| buffer.push(Batch::new(text)));
        self.wake.notify_one();
    }

    /// The figures as the contract shows them.
    pub(crate) fn status(&self) -> InfluxPush {
        let counters = &*self.counters;
        InfluxPush {
            collector: self.collector(),
            connected: counters.connected.load(Relaxed),
            lines_sent_total: counters.lines_sent.load(Relaxed),
            lines_dropped_total: counters.lines_dropped.load(Relaxed),
            reconnects_total: counters.reconnects.load(Relaxed),
            buffered_bytes: counters.buffered_bytes.load(Relaxed),
        }
    }

    fn collector(&self) -> String {
        match self.target.host.contains(':') {
            true => format!("[{}]:{}", self.target.host, self.target.port),
            false => format!("{}:{}", self.target.host, self.target.port),
        }
    }

    fn locked(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the buffer and counts the lines that were lost by it.
    fn change(&self, change: impl FnOnce(&mut Buffer) -> u64) {
        let mut buffer = self.locked();
        let lost = change(&mut buffer);
        self.counters.lines_dropped.fetch_add(lost, Relaxed);
        self.counters.buffered_bytes.store(buffer.bytes() as u64, Relaxed);
    }

    fn take(&self) -> Option<Batch> {
        let mut taken = None;
        self.change(|buffer| {
            taken = buffer.take();
            0
        });
        taken
    }
}

/// The lines of one VM as they go out, in one write.
fn lines(look: &Look<'_>, target: &Influx) -> String {
    // a VM of ours has no path: its whole name, as albatross spells a unikernel at the root, is `:NAME`
    let root = if target.keep_path { ":" } else { "" };
    let vm = format!("{root}{}", look.vm);
    let units = if target.albatross_units { Units::Albatross } else { Units::Right };
    let mut out = String::new();
    look.measurements(units, |measurement, link, fields| {
        let tags = [(VM_TAG, vm.as_str()), (BRIDGE_TAG, link.unwrap_or_default())];
        let mut line = LineWriter::new(&mut out, measurement, tags);
        if target.albatross_units {
            line = line.decimals(6);
        }
        // writing to a String cannot fail
        let _ = fields.iter().try_for_each(|(name, value)| line.field(name, value.as_value()));
        let _ = line.finish(Some(look.time));
    });
    out
}

/// The running push.
#[derive(Debug)]
pub(crate) struct Task {
    push: Arc<Push>,
    closing: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Task {
    /// Starts to push. A collector that cannot be reached, or found, is tried again.
    ///
    /// # Errors
    /// When the collector is `own_listener`, whose points would come in a second time.
    pub(crate) async fn start(target: &Influx, own_listener: Option<SocketAddr>) -> anyhow::Result<Self> {
        let push = Arc::new(Push {
            target: target.clone(),
            buffer: Mutex::new(Buffer::new(MAX_BUFFER_BYTES)),
            wake: Notify::new(),
            counters: Arc::default(),
        });
        let lookup = tokio::net::lookup_host((target.host.as_str(), target.port));
        if let Ok(Ok(mut addresses)) = timeout(LOOKUP_TIME, lookup).await
            && addresses.any(|address| Some(address) == own_listener)
        {
            anyhow::bail!(
                "--influx {}: {OWN_LISTENER}; name another collector, or leave the flag out: unid keeps these points anyway",
                push.collector()
            );
        }
        let (closing, closed) = watch::channel(false);
        let worker = Worker { push: Arc::clone(&push), own_listener, closing: closed, failing: false };
        Ok(Self { push, closing, task: tokio::spawn(worker.run()) })
    }

    /// Where lines are left.
    pub(crate) const fn push(&self) -> &Arc<Push> {
        &self.push
    }

    /// Sends what waits, if the collector takes it soon, and ends.
    pub(crate) async fn finish(mut self) {
        // the worker may have ended already, then nobody listens
        let _ = self.closing.send(true);
        if timeout(FLUSH_TIME, &mut self.task).await.is_err() {
            self.task.abort();
        }
        let unsent = self.push.locked().lines();
        if unsent > 0 {
            tracing::warn!(collector = self.push.collector(), unsent, "lines for the collector are lost");
        }
    }
}

const OWN_LISTENER: &str = "this is unid's own line listener (--line-addr)";

/// What the task works with.
struct Worker {
    push: Arc<Push>,
    own_listener: Option<SocketAddr>,
    closing: watch::Receiver<bool>,
    /// An outage is logged when it begins and when it is over.
    failing: bool,
}

impl Worker {
    async fn run(mut self) {
        let (mut backoff, mut connections) = (Backoff::default(), 0_u64);
        loop {
            match self.connect().await {
                Ok(stream) => {
                    self.push.counters.reconnects.fetch_add(u64::from(connections > 0), Relaxed);
                    connections += 1;
                    let since = Instant::now();
                    self.push.counters.connected.store(true, Relaxed);
                    let outcome = self.deliver(stream).await;
                    self.push.counters.connected.store(false, Relaxed);
                    let Err(error) = outcome else { return };
                    self.push.change(|buffer| {
                        buffer.recall(Instant::now());
                        0
                    });
                    self.complain(&error);
                    // one that hangs up at once again and again is waited for like one that is not there
                    if since.elapsed() >= STEADY {
                        backoff = Backoff::default();
                    }
                }
                Err(error) => self.complain(&error),
            }
            if *self.closing.borrow() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.wait(random())) => {}
                _ = self.closing.changed() => {}
            }
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let target = &self.push.target;
        // the name is looked up each time: the collector may have moved
        let connecting = TcpStream::connect((target.host.as_str(), target.port));
        let stream = timeout(CONNECT_TIME, connecting)
            .await
            .map_err(|_| too_slow("no connection", CONNECT_TIME))??;
        let peer = stream.peer_addr()?;
        if Some(peer) == self.own_listener {
            return Err(io::Error::other(OWN_LISTENER));
        }
        // a port of the range for outgoing connections, where nobody listens, may be given to the very connection
        // that looks for it
        if peer == stream.local_addr()? {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        stream.set_nodelay(true)?;
        sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, KEEP_ALIVE)?;
        sockopt::set_tcp_keepintvl(&stream, PROBE_INTERVAL)?;
        sockopt::set_tcp_keepcnt(&stream, PROBES)?;
        sockopt::set_tcp_user_timeout(&stream, UNACKNOWLEDGED_MS)?;
        Ok(stream)
    }

    /// Sends what waits and what comes, until the daemon ends or the connection does.
    async fn deliver(&mut self, mut stream: TcpStream) -> io::Result<()> {
        let (mut read, mut write) = stream.split();
        let outcome = self.send_all(&mut read, &mut write).await;
        if outcome.is_err() {
            // part of a line may be out: a reset, unlike an end, tells the collector that it is no whole line
            let _ = stream.set_zero_linger();
        }
        outcome
    }

    async fn send_all(&mut self, read: &mut ReadHalf<'_>, write: &mut WriteHalf<'_>) -> io::Result<()> {
        loop {
            let Some(batch) = self.push.take() else {
                if *self.closing.borrow() {
                    return write.shutdown().await;
                }
                tokio::select! {
                    () = self.push.wake.notified() => continue,
                    _ = self.closing.changed() => continue,
                    error = hung_up(read) => return Err(error),
                }
            };
            let sending = timeout(WRITE_TIME, write.write_all(batch.bytes()));
            let outcome = tokio::select! {
                sent = sending => sent.unwrap_or_else(|_| Err(too_slow("nothing taken", WRITE_TIME))),
                error = hung_up(read) => Err(error),
            };
            if let Err(error) = outcome {
                self.push.change(|buffer| buffer.put_back(batch));
                return Err(error);
            }
            self.push.counters.lines_sent.fetch_add(batch.lines(), Relaxed);
            self.push.locked().sent(batch, Instant::now());
            self.recovered();
        }
    }

    fn complain(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(
                collector = self.push.collector(),
                err = error.to_string(),
                "the Influx collector takes nothing; lines are kept and it is tried again"
            );
        }
    }

    fn recovered(&mut self) {
        if std::mem::take(&mut self.failing) {
            let dropped = self.push.counters.lines_dropped.load(Relaxed);
            tracing::info!(collector = self.push.collector(), dropped, "the Influx collector is back");
        }
    }
}

/// Waits until the collector ends the connection. It has nothing to say; what it says all the same is thrown away.
async fn hung_up(read: &mut ReadHalf<'_>) -> io::Error {
    let mut unheard = [0; 512];
    loop {
        match read.read(&mut unheard).await {
            Ok(0) => return io::Error::other("it closed the connection"),
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

fn too_slow(what: &str, time: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} in {} s", time.as_secs()))
}

/// A random number for the spread of waits; without any, all daemons wait the longest.
fn random() -> u32 {
    let mut bytes = [0xff; 4];
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u32::from_ne_bytes(bytes)
}
