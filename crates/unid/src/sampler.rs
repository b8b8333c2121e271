//! The view from outside, once a second: every running VM's process and links.
//!
//! Owns one thread and, per VM, the open files and the sample before. Each second goes to the live figures;
//! every interval one goes to the store. Never waits for a VM: it reads `/proc` and a file of counters.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use uni_api::vm::{LinkStats, Stats};
use uni_host::{Fallback, Machine, Proc, ProcessSample, StatsSource as _, Usage, source};
use uni_vmm::id::Link;
use uni_vmm::links::{Direction, Links};
use uni_wire::Timestamp;

use crate::clock;
use crate::forward::influx::Push;
use crate::ingest::Ingest;
use crate::live::Live;
use crate::look::{Look, link_name};
use crate::vms::{Manager, Vm};

/// How often VMs are looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// The sampler's thread.
#[derive(Debug)]
pub(crate) struct Sampler {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Sampler {
    /// Ends the thread and waits for it.
    pub(crate) fn stop(self) {
        drop(self.stop);
        let _ = self.thread.join();
    }
}

/// What the sampler did and saw last, for whoever asks.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    rounds: AtomicU64,
    nanos: AtomicU64,
    late: AtomicU64,
    latest: Mutex<BTreeMap<String, Latest>>,
}

/// The newest look at a VM.
#[derive(Debug)]
pub(crate) struct Latest {
    /// QEMU's pid and start time.
    pub(crate) process: (u32, u64),
    pub(crate) sample: ProcessSample,
    pub(crate) links: Links,
}

impl Figures {
    /// Rounds so far, the nanoseconds they took, and those that were not done when the next one was due.
    pub(crate) fn rounds(&self) -> (u64, u64, u64) {
        (self.rounds.load(Relaxed), self.nanos.load(Relaxed), self.late.load(Relaxed))
    }

    /// Shows `f` the newest looks, by the VMs' ids.
    pub(crate) fn with_latest(&self, f: impl FnOnce(&BTreeMap<String, Latest>)) {
        f(&self.latest.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn done(&self, took: Duration, watched: &BTreeMap<String, Watched>) {
        self.rounds.fetch_add(1, Relaxed);
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        let latest = watched.iter().filter_map(|(id, watch)| Some((id.clone(), watch.latest()?))).collect();
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = latest;
    }
}

/// Starts sampling; every `interval` a sample is stored, and left for `push` if there is a collector.
///
/// # Errors
/// When the thread cannot be started.
pub(crate) fn spawn(
    manager: Arc<Manager>,
    ingest: Arc<Ingest>,
    live: Arc<Live>,
    push: Option<Arc<Push>>,
    figures: Arc<Figures>,
    interval: Duration,
) -> std::io::Result<Sampler> {
    let (stop, stopped) = channel();
    let thread = std::thread::Builder::new().name("sampler".to_owned()).spawn(move || {
        let mut watched = BTreeMap::new();
        let mut due = since_boot();
        loop {
            let began = since_boot();
            round(&mut watched, &manager, &ingest, &live, push.as_deref(), interval);
            figures.done(since_boot().saturating_sub(began), &watched);
            // a fixed beat: a slow round does not shift the next one, a very slow one skips beats
            due += PERIOD;
            let now = since_boot();
            if due < now {
                figures.late.fetch_add(1, Relaxed);
                due = now;
            }
            if stopped.recv_timeout(due - now) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    })?;
    Ok(Sampler { stop, thread })
}

/// Time since the host booted, suspend included: the clock that `/proc/PID/stat` counts in.
fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// One VM under observation.
#[derive(Debug)]
struct Watched {
    process: Proc,
    start_ticks: u64,
    links_before: Option<(Duration, Links)>,
    stored_at: Option<Duration>,
}

fn round(
    watched: &mut BTreeMap<String, Watched>,
    manager: &Manager,
    ingest: &Ingest,
    live: &Live,
    push: Option<&Push>,
    interval: Duration,
) {
    let running = manager.running();
    watched.retain(|id, _| running.iter().any(|vm| vm.id() == id));
    let mut batch = Vec::new();
    for vm in &running {
        let Some((pid, start_ticks)) = vm.process() else { continue };
        let entry = watched.entry(vm.id().to_owned());
        let watch = entry.or_insert_with(|| Watched::new(pid, start_ticks));
        if (watch.process.pid(), watch.start_ticks) != (pid, start_ticks) {
            *watch = Watched::new(pid, start_ticks);
        }
        if let Some((sample, links, time)) = watch.look(vm, live, interval) {
            let look = Look { vm: vm.name(), sample: &sample, links: &links, time };
            look.points(&mut batch);
            if let Some(push) = push {
                push.offer(&look);
            }
        }
    }
    if !batch.is_empty() {
        ingest.append_own(&batch);
    }
}

impl Watched {
    fn new(pid: u32, start_ticks: u64) -> Self {
        let process = Proc::open(pid, start_ticks, Machine::host());
        Self { process, start_ticks, links_before: None, stored_at: None }
    }

    fn latest(&self) -> Option<Latest> {
        let (_, links) = self.links_before?;
        let sample = *self.process.newest()?;
        Some(Latest { process: (self.process.pid(), self.start_ticks), sample, links })
    }

    /// Looks at the VM and shows it live; gives what was seen when it is time to store it.
    fn look(
        &mut self,
        vm: &Vm,
        live: &Live,
        interval: Duration,
    ) -> Option<(ProcessSample, Links, Timestamp)> {
        let (now, time) = (since_boot(), clock::now());
        // a VM's end is noticed elsewhere
        let told = source::look(&mut self.process, now).ok()?;
        let links = vm.links().unwrap_or_default();
        let sample = self.process.newest().copied().filter(|sample| sample.at == now);
        if let Some(usage) = told.usage {
            // curves have a gap where nothing was measured, not zeros
            let values = sample.map(|_| self.live_values(usage, now, &links)).unwrap_or_default();
            let stats = stats(vm, told.source, usage, Some(&links), time);
            live.observe_outside(vm.name(), stats, millis(time), &values);
        }
        let sample = sample?;
        // a VM's first points come at once, the others on the beat; half a period absorbs the beat's jitter
        let due = self.stored_at.is_none_or(|stored| now - stored + PERIOD / 2 >= interval);
        if due {
            self.stored_at = Some(now);
        }
        self.links_before = Some((now, links));
        due.then_some((sample, links, time))
    }

    fn live_values(&self, usage: Usage, now: Duration, links: &Links) -> Vec<(&'static str, f64)> {
        let mut values = vec![("host_memory_bytes", float(usage.rss_bytes)), ("cpu_pct", usage.cpu_percent)];
        if let Some((then, before)) = &self.links_before {
            let seconds = (now - *then).as_secs_f64();
            let bps = |link, direction| {
                let bytes = links.of(link, direction).bytes.saturating_sub(before.of(link, direction).bytes);
                float(bytes) * 8.0 / seconds
            };
            values.extend([
                ("net_rx_bps:service", bps(Link::Service, Direction::ToVm)),
                ("net_tx_bps:service", bps(Link::Service, Direction::FromVm)),
                ("net_rx_bps:management", bps(Link::Management, Direction::ToVm)),
                ("net_tx_bps:management", bps(Link::Management, Direction::FromVm)),
            ]);
        }
        values
    }
}

/// The figures of a VM that is not measured.
pub(crate) fn no_stats(vm: &Vm) -> Stats {
    stats(vm, Fallback.name(), Usage::default(), None, clock::now())
}

fn stats(vm: &Vm, source: &str, usage: Usage, links: Option<&Links>, time: Timestamp) -> Stats {
    let service = |direction| links.map_or(0, |links| links.of(Link::Service, direction).bytes);
    Stats {
        id: vm.id().to_owned(),
        state: vm.state().to_owned(),
        // a hundredth of a percent is what a second's sample can tell of a guest that mostly sleeps
        cpu_pct: (usage.cpu_percent * 100.0).round() / 100.0,
        mem_bytes: usage.rss_bytes,
        net_rx_bytes: service(Direction::ToVm),
        net_tx_bytes: service(Direction::FromVm),
        disk_bytes: usage.disk_bytes,
        timestamp: clock::rfc3339(Some(time)),
        source: source.to_owned(),
        links: links.map(link_stats).unwrap_or_default(),
    }
}

fn link_stats(links: &Links) -> Vec<LinkStats> {
    let link = |link: Link| {
        let (to_vm, from_vm) = (links.of(link, Direction::ToVm), links.of(link, Direction::FromVm));
        LinkStats {
            link: link_name(link).to_owned(),
            rx_bytes: to_vm.bytes,
            rx_packets: to_vm.frames,
            tx_bytes: from_vm.bytes,
            tx_packets: from_vm.frames,
        }
    };
    [Link::Service, Link::Management].map(link).into()
}

fn millis(time: Timestamp) -> i64 {
    time.nanos().div_euclid(1_000_000)
}

#[expect(clippy::cast_precision_loss, reason = "a curve has some hundred pixels")]
fn float(value: u64) -> f64 {
    value as f64
}
