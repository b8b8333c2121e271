//! Start, run, stop: the order in which the daemon's parts come up and go down.
//!
//! Owns the lock on the state directory, the listeners, the signals. VMs are never stopped by the daemon's
//! end: their shims go on, and the next daemon takes them over.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use uni_api::daemon::Listener;
use uni_intake::otlp::Totals;
use uni_store::{Durability, Options, Store};

use crate::config::{self, Config, Fsync};
use crate::control::{self, Control};
use crate::control_port::GuestControl;
use crate::forward;
use crate::heap_traces::HeapTraces;
use crate::http::{self, Access, App, Role};
use crate::ingest::{Ingest, line, syslog};
use crate::live::Live;
use crate::logging::Log;
use crate::metrics::{self, Polled, Registry, Sources};
use crate::peers::Peers;
use crate::storage::{Storage, events};
use crate::store_access::StoreAccess;
use crate::trace::Tracing;
use crate::vms::Manager;
use crate::{clock, messages, sampler};

/// How often the store is looked after: packed, synced, old partitions dropped.
const UPKEEP: Duration = Duration::from_secs(1);
/// Merging works so long at most before it rests as long.
const MERGE_SLICE: Duration = Duration::from_millis(20);
/// After a merge failed, it is tried again.
const MERGE_RETRY: Duration = Duration::from_mins(1);
/// Open files asked for; the hard limit may be lower.
const MAX_FILES: u64 = 65_536;
/// Fewer than the listeners' limits on connections add up to.
const FEW_FILES: u64 = 4096;
/// Threads that wait for tasks; blocking work has threads of its own.
const WORKER_THREADS: usize = 2;
/// Bytes that the running totals of OTLP's deltas may take.
const MAX_TOTALS_BYTES: usize = 32 << 20;

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// When it cannot start: what was tried, on what, and what to do.
pub(crate) fn run(config: &Config, log: &Log) -> anyhow::Result<()> {
    // before anything is made: a daemon that cannot run leaves nothing behind
    control::refuse_if_answered(&config.socket)?;
    let access = Arc::new(Access::open(&config.access)?);
    make_private_dir(&config.state_dir)?;
    let _lock = lock(&config.state_dir)?;
    raise_file_limit();
    let options = Options {
        durability: match config.fsync {
            Fsync::Always => Durability::Always,
            Fsync::Interval(interval) => Durability::Interval(interval),
            Fsync::Never => Durability::Never,
        },
        minute_tier: config.retention_1m,
        hour_tier: config.retention_1h,
        ..config.store.options()
    };
    let store = Store::open(&config.store_dir(), options, clock::now())
        .with_context(|| format!("open the store in {}", config.store_dir().display()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .thread_name("unid")
        .enable_all()
        .build()
        .context("start the async runtime")?;
    events::tell_recovery(store.recovery());
    let storage = Storage::new(store).context("make the default database")?;
    let tracing = Tracing::start(config.collector.as_ref())?;
    let outcome = runtime.block_on(serve(config, access, log, &tracing, Arc::clone(&storage)));
    // tasks end before the store's last sync, so that nothing is written after it
    runtime.shutdown_timeout(Duration::from_secs(2));
    storage.store().sync().context("sync the store at the end")?;
    storage.store().logs().sync().context("sync the logs at the end")?;
    tracing.finish();
    if outcome.is_ok() {
        tracing::info!("unid shutdown complete");
    }
    outcome
}

/// Raises the soft limit of open files, usually 1024. Connections need them, and the sampler keeps four for each VM
/// and two for each of its threads; where there are too few, CPU time is counted in clock ticks.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(MAX_FILES, |hard| hard.min(MAX_FILES));
    // a limit that is higher already, or none, stays
    let raised = limit.current.is_none_or(|current| current >= wanted)
        || setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }).is_ok();
    if !raised || wanted < FEW_FILES {
        tracing::warn!(
            limit = wanted,
            "few open files are allowed; raise the hard limit (ulimit -Hn) for many VMs"
        );
    }
}

fn make_private_dir(path: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("make the state directory {}", path.display()))
}

/// Two daemons on one state directory would each think the VMs theirs.
fn lock(state_dir: &Path) -> anyhow::Result<File> {
    let path = config::lock_path(state_dir);
    let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        anyhow::anyhow!(
            "another unid is using the state directory {}; stop it, or give this one a --state-dir and a --socket \
             of its own",
            state_dir.display()
        )
    })?;
    Ok(file)
}

async fn serve(
    config: &Config,
    access: Arc<Access>,
    log: &Log,
    tracing: &Tracing,
    storage: Arc<Storage>,
) -> anyhow::Result<()> {
    let live = Arc::new(Live::default());
    let ingest = Arc::new(Ingest::new(Arc::clone(&storage), Arc::clone(&live)));
    let peers = Arc::new(Peers::default());
    let registry = Arc::new(Registry::default());
    let mut listeners = Listeners::bind(config, log).await?;
    let push = match &config.influx {
        Some(target) => Some(forward::influx::Task::start(target, listeners.line_address()).await?),
        None => None,
    };
    let influx_push = push.as_ref().map(|task| Arc::clone(task.push()));
    // VMs that outlived the last daemon are taken over before anyone can ask for them
    let manager =
        Manager::open(config, tracing.clone(), Arc::clone(&ingest), Arc::clone(&live), Arc::clone(&peers))
            .await?;
    let control_listener = control::listen(&config.socket)?;
    listeners.add("control", config.socket.display().to_string());
    // not before everything that may refuse the start has passed
    listeners.announce();

    let shutdown = Arc::new(Notify::new());
    let guests = Arc::new(GuestControl::default());
    guests.take_over(&manager);
    let heap_traces = HeapTraces::open(&manager, &config.state_dir);
    let app = Arc::new(App {
        storage: Arc::clone(&storage),
        ingest: Arc::clone(&ingest),
        live,
        manager: Arc::clone(&manager),
        interval: config.interval,
        limits: Arc::default(),
        peers,
        registry: Arc::clone(&registry),
        guests: Arc::clone(&guests),
        heap_traces: Arc::clone(&heap_traces),
        ui_control: config.ui_control,
        auto_create: config.auto_create,
        totals: Totals::new(MAX_TOTALS_BYTES).into(),
    });
    let control = Arc::new(Control {
        manager: Arc::clone(&manager),
        guests: Arc::clone(&guests),
        heap_traces: Arc::clone(&heap_traces),
        messages: messages::Reader::new(Arc::clone(&storage), Arc::clone(&manager), Arc::clone(&ingest)),
        store: StoreAccess::new(Arc::clone(&storage), Arc::clone(&ingest), config.auto_create),
        ingest: Arc::clone(&ingest),
        influx_push: influx_push.clone(),
        state_dir: config.state_dir.display().to_string(),
        listeners: listeners.addresses.clone(),
        shutdown: Arc::clone(&shutdown),
        cut_clients: AtomicU64::new(0),
        log: log.clone(),
        tracing: tracing.clone(),
    });
    let mut tasks = JoinSet::new();
    let figures = Arc::new(sampler::Figures::default());
    let polled = Arc::new(Polled::new(&manager, &storage));
    let sources = Sources {
        manager: Arc::clone(&manager),
        ingest: Arc::clone(&ingest),
        limits: Arc::clone(&app.limits),
        http: Arc::default(),
        control: Arc::clone(&control),
        sampler: Arc::clone(&figures),
        polled: Arc::clone(&polled),
    };
    listeners.spawn(&mut tasks, &ingest, &app, &access, &sources.http);
    metrics::register(&registry, sources);
    let push_counters = influx_push.as_ref().map_or_else(Arc::default, |push| Arc::clone(&push.counters));
    forward::influx::register(&registry, &push_counters);
    tasks.spawn(access.keep_fresh());
    tasks.spawn(metrics::poll_vms(Arc::clone(&polled), Arc::clone(&manager)));
    tasks.spawn(metrics::poll_host(polled, Arc::clone(&storage)));
    tasks.spawn(control::serve(control_listener, control));
    tasks.spawn(upkeep(Arc::clone(&storage), Arc::clone(&ingest)));
    merge_in_background(storage);
    let sampler =
        sampler::spawn(manager, ingest, Arc::clone(&app.live), influx_push, figures, config.interval)
            .context("start the sampler's thread")?;

    tracing::info!(socket = config.socket.display().to_string(), "unid listening");
    let outcome = until_stopped(&shutdown).await;
    tracing::info!(running = app.manager.running().len(), "unid shutting down; running VMs go on");
    tasks.shutdown().await;
    guests.tell_lost(&app.manager);
    sampler.stop();
    if let Some(push) = push {
        push.finish().await;
    }
    let _ = std::fs::remove_file(&config.socket);
    outcome
}

async fn until_stopped(shutdown: &Notify) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = shutdown.notified() => {}
    }
    Ok(())
}

/// Keeps the store's promises that depend on time.
async fn upkeep(storage: Arc<Storage>, ingest: Arc<Ingest>) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        let storage = Arc::clone(&storage);
        match tokio::task::spawn_blocking(move || storage.store().maintain(clock::now())).await {
            Ok(Ok(done)) => {
                done.dropped.iter().for_each(|partition| events::tell_dropped(&ingest, partition));
                for logs in &done.dropped_logs {
                    tracing::info!(bytes = logs.bytes, "retention: dropped a partition of logs");
                }
            }
            Ok(Err(error)) => {
                tracing::error!(err = format!("{:#}", anyhow::Error::new(error)), "store upkeep");
            }
            Err(error) => tracing::error!(err = error.to_string(), "store upkeep"),
        }
    }
}

/// Merges what the store has packed, on a thread of the lowest priority that works half of its time at most: neither
/// points nor queries wait for it. The thread ends with the process: a merge that is cut short leaves nothing behind.
fn merge_in_background(storage: Arc<Storage>) {
    let work = move || {
        // -20 to 19: whoever has something better to do goes first
        let _ = rustix::process::nice(19);
        loop {
            let mut since = Instant::now();
            let mut pause = || {
                let worked = since.elapsed();
                if worked >= MERGE_SLICE {
                    std::thread::sleep(worked);
                    since = Instant::now();
                }
            };
            match storage.store().merge(clock::now(), &mut pause) {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(err = format!("{:#}", anyhow::Error::new(error)), "merge segments");
                    std::thread::sleep(MERGE_RETRY);
                }
            }
            std::thread::sleep(UPKEEP);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("unid-merge".to_owned()).spawn(work) {
        tracing::error!(err = error.to_string(), "start the thread that merges segments");
    }
}

/// The listening sockets other than the control socket.
struct Listeners {
    line: Option<(TcpListener, UdpSocket)>,
    syslog: Option<(TcpListener, UdpSocket)>,
    syslog_tls: Option<TcpListener>,
    /// Flags that name the same address share a listener.
    http: Vec<(TcpListener, Vec<Role>)>,
    addresses: Vec<Listener>,
    log: Log,
}

impl Listeners {
    async fn bind(config: &Config, log: &Log) -> anyhow::Result<Self> {
        let mut this = Self {
            line: None,
            syslog: None,
            syslog_tls: None,
            http: Vec::new(),
            addresses: Vec::new(),
            log: log.clone(),
        };
        this.line = this.bind_both("line", "--line-addr", config.line_addr).await?;
        this.syslog = this.bind_both("syslog", "--syslog-addr", config.syslog_addr).await?;
        if let Some(address) = config.syslog_tls_addr {
            let tcp = bind_tcp("--syslog-tls-addr", address).await?;
            this.add("syslog-tls", tcp.local_addr()?.to_string());
            this.syslog_tls = Some(tcp);
        }
        for (role, flag, address) in [
            (Role::Api, "--api-addr", config.api_addr),
            (Role::Ui, "--ui-addr", config.ui_addr),
            (Role::Metrics, "--metrics-addr", config.metrics_addr),
        ] {
            if let Some(address) = address {
                this.bind_http(role, flag, address).await?;
            }
        }
        Ok(this)
    }

    /// TCP, and UDP on the same port, so that one number names both.
    async fn bind_both(
        &mut self,
        what: &str,
        flag: &str,
        address: Option<SocketAddr>,
    ) -> anyhow::Result<Option<(TcpListener, UdpSocket)>> {
        let Some(address) = address else { return Ok(None) };
        let tcp = bind_tcp(flag, address).await?;
        let bound = tcp.local_addr()?;
        let udp =
            UdpSocket::bind(bound).await.with_context(|| cannot_listen(flag, &format!("{bound}/udp")))?;
        self.add(what, bound.to_string());
        self.add(&format!("{what}-udp"), bound.to_string());
        Ok(Some((tcp, udp)))
    }

    async fn bind_http(&mut self, role: Role, flag: &str, address: SocketAddr) -> anyhow::Result<()> {
        // a port that was asked for by number; 0 is another port each time
        let same = |tcp: &TcpListener| address.port() != 0 && tcp.local_addr().is_ok_and(|a| a == address);
        if let Some((_, roles)) = self.http.iter_mut().find(|(tcp, _)| same(tcp)) {
            roles.push(role);
            self.add(role.name(), address.to_string());
            return Ok(());
        }
        let tcp = bind_tcp(flag, address).await?;
        self.add(role.name(), tcp.local_addr()?.to_string());
        self.http.push((tcp, vec![role]));
        Ok(())
    }

    fn line_address(&self) -> Option<SocketAddr> {
        self.line.as_ref()?.0.local_addr().ok()
    }

    fn add(&mut self, what: &str, address: String) {
        self.addresses.push(Listener { what: what.to_owned(), address });
    }

    /// One line a listener, so that scripts and people learn the free ports.
    fn announce(&self) {
        self.addresses.iter().for_each(|listener| self.log.listening(&listener.what, &listener.address));
    }

    fn spawn(
        &mut self,
        tasks: &mut JoinSet<()>,
        ingest: &Arc<Ingest>,
        app: &Arc<App>,
        access: &Arc<Access>,
        figures: &Arc<http::Figures>,
    ) {
        if let Some((tcp, udp)) = self.line.take() {
            tasks.spawn(line::serve_tcp(tcp, Arc::clone(ingest), Arc::clone(&app.peers)));
            tasks.spawn(line::serve_udp(udp, Arc::clone(ingest), Arc::clone(&app.peers)));
        }
        let manager = Arc::clone(&app.manager);
        let way = syslog::Way {
            ingest: Arc::clone(ingest),
            peers: Arc::clone(&app.peers),
            names: Arc::new(move |name: &str| manager.has_name(name)),
        };
        if let Some((tcp, udp)) = self.syslog.take() {
            tasks.spawn(syslog::serve_tcp(tcp, None, way.clone()));
            tasks.spawn(syslog::serve_udp(udp, way.clone()));
        }
        if let Some(tcp) = self.syslog_tls.take() {
            tasks.spawn(syslog::serve_tcp(tcp, Some(Arc::clone(access)), way));
        }
        for (listener, roles) in self.http.drain(..) {
            let (app, access, figures) = (Arc::clone(app), Arc::clone(access), Arc::clone(figures));
            tasks.spawn(http::serve(listener, roles, app, access, figures));
        }
    }
}

async fn bind_tcp(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| cannot_listen(flag, &address.to_string()))
}

fn cannot_listen(flag: &str, address: &str) -> String {
    format!(
        "listen on {address} ({flag}); if another program has the port, name another one or :0 for a free one"
    )
}
