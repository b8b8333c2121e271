//! Figures that are read now and then, so that no scrape waits for a lock that is held over a write or for `/proc`:
//! how many VMs there are, the store's figures, unid's own process.
//!
//! Owns two pollers and what they read last. The VMs have one of their own: a disk that hangs must not freeze them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};
use uni_host::{Machine, ProcessSample, ProcessSampler};
use uni_store::{LogStats, StoreStats};
use uni_vmm::process::ProcessId;

use crate::clock;
use crate::storage::Storage;
use crate::vms::Manager;

/// How often.
const PERIOD: Duration = Duration::from_secs(5);

/// What was read last.
#[derive(Debug)]
pub(crate) struct Polled {
    vms: Mutex<Counts>,
    host: Mutex<Host>,
    own: Mutex<Option<Own>>,
}

/// How many VMs there are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) total: u64,
    pub(super) running: u64,
    pub(super) stopped: u64,
}

/// The store and unid's own process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Host {
    pub(super) store: StoreStats,
    pub(super) logs: LogStats,
    pub(super) process: Option<Process>,
}

/// How unid's own process is read.
#[derive(Debug)]
struct Own {
    sampler: ProcessSampler,
    /// Reckoned once: the time of day may be set while unid runs.
    start_time: Option<f64>,
}

/// Unid's own process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process {
    pub(super) sample: ProcessSample,
    /// Seconds since 1970.
    pub(super) start_time: f64,
    pub(super) open_files: u64,
    pub(super) max_files: u64,
}

impl Polled {
    /// Reads everything once.
    pub(crate) fn new(manager: &Manager, storage: &Storage) -> Self {
        let pid = std::process::id();
        // without /proc there are no figures of the process, and all else works
        let own = ProcessId::of(pid).ok().map(|own| Own {
            sampler: ProcessSampler::open(pid, own.start_ticks, Machine::host()),
            start_time: None,
        });
        let polled = Self { vms: Mutex::default(), host: Mutex::default(), own: Mutex::new(own) };
        polled.read_vms(manager);
        polled.read_host(storage);
        polled
    }

    pub(super) fn vms(&self) -> Counts {
        *self.vms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn host(&self) -> Host {
        *self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_vms(&self, manager: &Manager) {
        let vms = manager.all();
        let count = |state: &str| vms.iter().filter(|vm| vm.state() == state).count() as u64;
        let counts = Counts { total: vms.len() as u64, running: count("running"), stopped: count("stopped") };
        *self.vms.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }

    fn read_host(&self, storage: &Storage) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let store = storage.store();
        let process = own.as_mut().and_then(Own::read);
        let host = Host { store: store.stats(), logs: store.logs().stats(), process };
        *self.host.lock().unwrap_or_else(PoisonError::into_inner) = host;
    }
}

impl Own {
    fn read(&mut self) -> Option<Process> {
        let now = clock_gettime(ClockId::Boottime);
        let since_boot = Duration::new(now.tv_sec.try_into().ok()?, now.tv_nsec.try_into().ok()?);
        let sample = self.sampler.sample(since_boot).ok()?;
        let time_of_day = Duration::from_nanos(clock::now().nanos().try_into().ok()?);
        let start_time = time_of_day.saturating_sub(sample.uptime()).as_secs_f64();
        Some(Process {
            sample,
            start_time: *self.start_time.get_or_insert(start_time),
            open_files: std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64),
            max_files: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        })
    }
}

/// Counts VMs until the task is aborted.
pub(crate) async fn poll_vms(polled: Arc<Polled>, manager: Arc<Manager>) {
    let mut ticks = tokio::time::interval(PERIOD);
    loop {
        ticks.tick().await;
        polled.read_vms(&manager);
    }
}

/// Reads the store's figures and those of the process until the task is aborted.
pub(crate) async fn poll_host(polled: Arc<Polled>, storage: Arc<Storage>) {
    let mut ticks = tokio::time::interval(PERIOD);
    loop {
        ticks.tick().await;
        let (polled, storage) = (Arc::clone(&polled), Arc::clone(&storage));
        // a panic in there is logged by its hook; the next look may go well
        let _ = tokio::task::spawn_blocking(move || polled.read_host(&storage)).await;
    }
}
