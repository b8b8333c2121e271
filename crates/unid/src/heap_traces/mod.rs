//! Heap traces of VMs: taken over the management link, kept as files, read and drawn.
//!
//! Owns who may take one when, and what becomes known of it while it is taken. Readers read the file: whoever is slow, or
//! gone, holds up neither the guest nor `unid`. The bytes' way is [`take`]'s business.

mod figures;
mod files;
mod flame;
mod take;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use uni_api::guest::Secret;
use uni_api::heap_trace::{
    KeptTrace, MAX_SECONDS, ReadParams, StartParams, Started, TraceEnd, TracePiece, TraceRef, is_rate,
};

use self::figures::Figures;
pub(crate) use self::flame::{Undrawn, View, Weight};
use crate::clock;
use crate::metrics::Family;
use crate::vms::{Manager, Vm};

/// The most bytes of one answer to a reader.
const MAX_PIECE_BYTES: u64 = 1024 * 1024;
/// The longest wait of one request for more.
const MAX_READ_WAIT: Duration = Duration::from_secs(30);
/// The shortest trace that can be asked for.
const MIN_TIME: Duration = Duration::from_millis(100);

/// What is wanted of a trace.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// For this trace alone.
    pub(crate) rate: Option<f64>,
    /// Nothing: until it is stopped, or nobody reads it any more.
    pub(crate) time: Option<Duration>,
    /// The guest's own token.
    pub(crate) token: Option<Secret>,
}

impl Wish {
    fn of(params: &StartParams) -> Self {
        let time = params.for_ms.map(Duration::from_millis);
        Self { rate: params.rate, time, token: params.token.clone() }
    }

    fn check(&self) -> anyhow::Result<()> {
        if let Some(rate) = self.rate {
            ensure!(
                is_rate(rate),
                "the rate {rate} is no probability: it is above 0 and at most 1, as 0.001 is"
            );
        }
        let range = MIN_TIME..=Duration::from_secs(MAX_SECONDS);
        ensure!(self.time.is_none_or(|time| range.contains(&time)), "a trace takes 0.1s to 24h");
        Ok(())
    }
}

/// The traces of all VMs.
#[derive(Debug)]
pub(crate) struct HeapTraces {
    /// By VM, the newest: one that is being taken, or was.
    latest: Mutex<BTreeMap<String, Arc<Running>>>,
    /// One trace is drawn at a time.
    drawing: Arc<Semaphore>,
    figures: Arc<Figures>,
}

/// A trace that is being taken, or was since `unid` began.
#[derive(Debug)]
struct Running {
    name: String,
    by: String,
    begun: Instant,
    seen: Mutex<Seen>,
    changed: watch::Sender<u64>,
    stop: Notify,
    figures: Arc<Figures>,
}

/// How far a trace is.
#[derive(Clone, Debug)]
struct Seen {
    bytes: u64,
    events: u64,
    end: Option<TraceEnd>,
    /// When it was last asked for.
    read: Instant,
}

impl Running {
    fn new(name: String, by: &str, figures: Arc<Figures>) -> Arc<Self> {
        let now = Instant::now();
        let seen = Mutex::new(Seen { bytes: 0, events: 0, end: None, read: now });
        let changed = watch::Sender::new(0);
        Arc::new(Self { name, by: by.to_owned(), begun: now, seen, changed, stop: Notify::new(), figures })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.seen().end.is_some()
    }

    /// Tells readers.
    fn progress(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen());
        self.changed.send_modify(|n| *n += 1);
    }

    /// Waits until there is something after `from`, or no more will come.
    async fn until_more(&self, from: u64, wait: Duration) {
        let mut changed = self.changed.subscribe();
        let more = changed.wait_for(|_| {
            let seen = self.seen();
            seen.bytes > from || seen.end.is_some()
        });
        // late, or nothing new: the answer says so
        let _ = timeout_at(Instant::now() + wait, more).await;
    }
}

impl HeapTraces {
    /// Forgets the files of VMs that are no more.
    pub(crate) fn open(manager: &Manager, state_dir: &Path) -> Arc<Self> {
        let entries = std::fs::read_dir(state_dir.join("traces")).into_iter().flatten().flatten();
        for entry in entries {
            if entry.file_name().to_str().is_none_or(|id| manager.all().iter().all(|vm| vm.id() != id)) {
                let err = std::fs::remove_dir_all(entry.path()).err().map(|error| error.to_string());
                tracing::info!(path = %entry.path().display(), err, "heap traces of a VM that is no more");
            }
        }
        Arc::new(Self {
            latest: Mutex::default(),
            drawing: Arc::new(Semaphore::new(1)),
            figures: Arc::default(),
        })
    }

    /// How they fared, for `/metrics`.
    pub(crate) fn families(&self) -> impl IntoIterator<Item = Family> {
        self.figures.families()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Running>>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins what a client of the control socket asks for. `by` is who asks.
    ///
    /// # Errors
    /// As [`take`](Self::take), and when there is no such VM.
    pub(crate) async fn start(
        self: &Arc<Self>,
        manager: &Arc<Manager>,
        params: &StartParams,
        by: &str,
    ) -> anyhow::Result<Started> {
        let vm = manager.find(&params.id)?;
        self.lock().retain(|id, _| manager.find(id).is_ok());
        self.take(vm, Wish::of(params), by).await
    }

    /// Begins a trace; it goes on by itself.
    ///
    /// # Errors
    /// When the wish makes no sense, one is being taken, or the guest gives none.
    pub(crate) async fn take(self: &Arc<Self>, vm: Arc<Vm>, wish: Wish, by: &str) -> anyhow::Result<Started> {
        let context = format!("take a heap trace of {}", vm.name());
        let begun = async {
            wish.check()?;
            let running = self.reserve(&vm, by)?;
            // who asked may leave in between: what was begun is ended all the same
            let beginning = tokio::spawn(take::begin(Arc::clone(&vm), wish, Arc::clone(&running)));
            beginning.await.context("begin it")??;
            Ok(Started { id: vm.id().to_owned(), vm: vm.name().to_owned(), name: running.name.clone() })
        };
        begun.await.map_err(|error: anyhow::Error| {
            self.figures.refused.fetch_add(1, Relaxed);
            error.context(context)
        })
    }

    /// The VM's place, unless somebody has it.
    fn reserve(&self, vm: &Vm, by: &str) -> anyhow::Result<Arc<Running>> {
        let mut latest = self.lock();
        if let Some(running) = latest.get(vm.id()).filter(|running| !running.is_over()) {
            bail!(
                "one is being taken already, for {} s, by {}; wait for its end",
                running.begun.elapsed().as_secs(),
                running.by
            );
        }
        let name = files::name_of(clock::now()).context("the clock shows no time that can be a name")?;
        let running = Running::new(name, by, Arc::clone(&self.figures));
        latest.insert(vm.id().to_owned(), Arc::clone(&running));
        Ok(running)
    }

    /// The newest of a VM, if it has that name.
    fn known(&self, vm: &Vm, name: &str) -> Option<Arc<Running>> {
        self.lock().get(vm.id()).filter(|running| running.name == name).cloned()
    }

    /// Ends a trace; what the guest has recorded by then still comes.
    ///
    /// # Errors
    /// When there is none of that name.
    pub(crate) fn stop(&self, manager: &Manager, params: &TraceRef) -> anyhow::Result<()> {
        let vm = manager.find(&params.id)?;
        let running = self.known(&vm, &params.name);
        running
            .with_context(|| format!("{} has no trace {:?} under way", vm.name(), params.name))?
            .stop
            .notify_one();
        Ok(())
    }

    /// A piece of a trace, waiting for it if asked to.
    ///
    /// # Errors
    /// When there is no such trace, or it cannot be read.
    pub(crate) async fn read(&self, manager: &Manager, params: &ReadParams) -> anyhow::Result<TracePiece> {
        let vm = manager.find(&params.id)?;
        let running = self.known(&vm, &params.name);
        if let Some(running) = &running {
            running.seen().read = Instant::now();
            running.until_more(params.from, Duration::from_millis(params.wait_ms).min(MAX_READ_WAIT)).await;
        }
        // before the file is read: what is written then is there
        let seen = running.map(|running| running.seen().clone());
        let (dir, name, from) = (vm.heap_traces(), params.name.clone(), params.from);
        let left = seen.as_ref().map_or(u64::MAX, |seen| seen.bytes.saturating_sub(from));
        let max = left.min(MAX_PIECE_BYTES);
        let bytes = tokio::task::spawn_blocking(move || files::read(&dir, &name, from, max))
            .await?
            .with_context(|| format!("read the trace {:?} of {}", params.name, vm.name()))?;
        let next = from + bytes.len() as u64;
        let events = seen.as_ref().map_or(0, |seen| seen.events);
        let end = match seen {
            Some(seen) => seen.end.filter(|_| next >= seen.bytes),
            None if bytes.is_empty() => {
                Some(TraceEnd { whole: false, why: "unid was restarted meanwhile".to_owned() })
            }
            None => None,
        };
        Ok(TracePiece { data: STANDARD.encode(bytes), next, events, end })
    }

    /// The traces of a VM, the newest first.
    ///
    /// # Errors
    /// When their directory cannot be read.
    pub(crate) async fn list(&self, vm: &Vm) -> anyhow::Result<Vec<KeptTrace>> {
        let latest = self.lock().get(vm.id()).cloned();
        let dir = vm.heap_traces();
        let kept =
            tokio::task::spawn_blocking(move || files::list(&dir)).await?.context("list the heap traces")?;
        let kept = kept.into_iter().rev().map(|(name, bytes)| {
            let running = latest.as_ref().filter(|running| running.name == name);
            let end = running.and_then(|running| running.seen().end.clone());
            let is_running = running.is_some() && end.is_none();
            KeptTrace { started_ms: files::started_ms(&name), name, bytes, running: is_running, end }
        });
        Ok(kept.collect())
    }

    /// The flame graph of a trace, kept or being taken.
    ///
    /// # Errors
    /// When there is no such trace, it cannot be drawn, or others are being drawn.
    pub(crate) async fn flame(
        &self,
        vm: &Vm,
        name: &str,
        view: View,
    ) -> Result<uni_api::heap_trace::Flame, Undrawn> {
        let file = files::open(&vm.heap_traces(), name).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Undrawn::Missing,
            _ => Undrawn::Failed(error.to_string()),
        })?;
        let is_running = self.known(vm, name).is_some_and(|running| !running.is_over());
        flame::draw(&self.drawing, file, view, is_running).await
    }
}
