//! One VM: its record, its machine, and the carrying out of what the machine says.
//!
//! Owns the lock under which a VM's state changes, and the tasks that belong to a running VM. Never decides
//! whether a transition is legal: `uni-vmm`'s machine does.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use uni_api::vm::{Logs, VmDetail, VmInfo};
use uni_vmm::accel::Decision;
use uni_vmm::exit::Exit;
use uni_vmm::id::VmId;
use uni_vmm::image::{Image, Kind};
use uni_vmm::links::{self, Direction, Links};
use uni_vmm::machine::{Action, Event, Injection, Intent, Machine, Refused, State};
use uni_vmm::paths::Paths;
use uni_vmm::record::Record;
use uni_vmm::shim::{self, RunInfo};
use uni_vmm::spec::Spec;
use uni_vmm::symbols::Frame;
use uni_vmm::{id, inject, trace};
use uni_wire::Timestamp;

use super::traces::Traces;
use super::{Context, console, events, process};
use crate::clock;
use crate::management::Link;
use crate::management::control::Request;
use crate::management::stream::Orders;
use crate::metrics::Transition;
use crate::trace::{Caller, Event as Operation, Subject, of_vm};

/// How often a follower of the console looks for more.
const CONSOLE_LOOK: Duration = Duration::from_millis(20);
/// A follower that finds less than this at its first look is answered at the next one, so that a flood comes
/// in pieces and not in crumbs.
const WORTHWHILE_BYTES: u64 = 64 * 1024;
/// After the time given to the guest, a kill is expected to work within this.
const KILL_TIME: Duration = Duration::from_secs(10);
/// A VM with `--rm` is forgotten this long after its end.
const REMOVE_DELAY: Duration = Duration::from_secs(1);
/// QEMU's own messages shown in an error.
const MESSAGE_BYTES: usize = 2048;

/// One VM.
#[derive(Debug)]
pub(crate) struct Vm {
    id: VmId,
    id_text: String,
    pub(super) spec: Spec,
    pub(super) paths: Paths,
    pub(super) context: Arc<Context>,
    traces: Arc<Traces>,
    original_name: Option<String>,
    inner: Mutex<Inner>,
    /// What lists, samples and pages ask for: never locked while a record is being written to disk.
    seen: Mutex<Seen>,
    /// Counts changes of state, so that waiters wait for a state and not for an edge.
    changed: watch::Sender<u64>,
}

/// What changes in a VM's life.
#[derive(Debug)]
struct Inner {
    record: Record,
    machine: Machine,
    image: Option<Image>,
    run: Option<RunInfo>,
    stop_time: Duration,
    deadline: Option<(Instant, AbortHandle)>,
    management: Option<Link>,
    /// Its start failed and it is being ended: no operator's doing.
    discarded: bool,
    /// Why the newest record is not stored; it is tried again.
    unsaved: Option<String>,
}

/// What is stored already, and so may be told.
#[derive(Clone, Debug)]
struct Seen {
    state: State,
    removed: bool,
    generation: u64,
    run: Option<RunInfo>,
    exit: Option<Exit>,
    started_at: Option<String>,
    restarts: u64,
    health: String,
}

impl Seen {
    fn of(inner: &Inner) -> Self {
        Self {
            state: inner.machine.state(),
            removed: inner.machine.is_removed(),
            generation: inner.machine.generation(),
            run: inner.run.clone(),
            exit: inner.machine.last_exit().cloned(),
            started_at: inner.record.started_at.clone(),
            restarts: inner.record.restart_count,
            health: inner.record.health_status.clone(),
        }
    }
}

/// Whether a start of `spec` passes the daemon's arguments: disks take none.
pub(super) fn injection(spec: &Spec, image: &Image) -> Injection {
    let some = image.kind == Kind::PvhElf && !inject::arguments(spec).is_empty();
    if some { Injection::With } else { Injection::Without }
}

impl Vm {
    /// A new VM; [`Vm::store_first`] makes it last.
    ///
    /// # Errors
    /// When the state directory's path cannot hold its files.
    pub(super) fn create(
        context: Arc<Context>,
        spec: Spec,
        id: VmId,
        image: Image,
        accel: Decision,
        auto_remove: bool,
    ) -> anyhow::Result<Arc<Self>> {
        let machine = Machine::new(injection(&spec, &image));
        let mut record = process::new_record(id, &spec, &machine, accel, clock::now());
        record.config.auto_remove = auto_remove;
        Self::new(context, record, spec, machine, Some(image))
    }

    /// Counts a start that succeeded: QEMU lived, and the guest with it.
    pub(super) fn count_start(&self) {
        self.context.lifecycle.count(Transition::Start);
    }

    /// Writes the new VM's record.
    ///
    /// # Errors
    /// When it cannot be written; nothing is then left of the VM.
    pub(super) fn store_first(&self) -> anyhow::Result<()> {
        tokio::task::block_in_place(|| {
            let saved = self.context.records.save(&self.lock().record);
            if saved.is_err() {
                let _ = self.context.records.remove(self.id);
            }
            saved
        })?;
        self.context.lifecycle.count(Transition::Create);
        events::record(&self.context, self.name(), "create", "created");
        Ok(())
    }

    /// A VM from its record.
    ///
    /// # Errors
    /// When the record holds what cannot be run.
    pub(super) fn load(context: Arc<Context>, record: Record) -> anyhow::Result<Arc<Self>> {
        let spec = record.config.to_spec().with_context(|| format!("record of VM {}", record.id))?;
        let machine = Machine::restore(record.lifecycle.clone());
        Self::new(context, record, spec, machine, None)
    }

    fn new(
        context: Arc<Context>,
        record: Record,
        spec: Spec,
        machine: Machine,
        image: Option<Image>,
    ) -> anyhow::Result<Arc<Self>> {
        let id = record.id;
        let paths = Paths::new(&context.state_dir, id)?;
        let stop_time = Duration::from_secs(record.stop_seconds.unwrap_or(super::DEFAULT_STOP_SECONDS));
        let original_name = record.config.original_name().map(str::to_owned);
        let inner = Inner {
            record,
            machine,
            image,
            run: None,
            stop_time,
            deadline: None,
            management: None,
            discarded: false,
            unsaved: None,
        };
        let changed = watch::channel(0).0;
        let seen = Mutex::new(Seen::of(&inner));
        let inner = Mutex::new(inner);
        let traces = Traces::new(&spec.image);
        let id_text = id.to_string();
        Ok(Arc::new(Self { id, id_text, spec, paths, context, traces, original_name, inner, seen, changed }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The id as it is written.
    pub(crate) fn id(&self) -> &str {
        &self.id_text
    }

    /// The id.
    pub(super) fn vm_id(&self) -> VmId {
        self.id
    }

    /// The name.
    pub(crate) fn name(&self) -> &str {
        &self.spec.name
    }

    /// The name it had in an older installation, if another was given.
    pub(super) fn original_name(&self) -> Option<&str> {
        self.original_name.as_deref()
    }

    /// As traces show it.
    pub(super) fn subject(&self) -> Subject<'_> {
        Subject { id: self.id(), name: self.name(), state: self.state() }
    }

    /// The state's word.
    pub(crate) fn state(&self) -> &'static str {
        self.machine_state().as_str()
    }

    /// The state.
    pub(super) fn machine_state(&self) -> State {
        self.seen().state
    }

    /// Whether it was removed.
    pub(super) fn is_removed(&self) -> bool {
        self.seen().removed
    }

    /// How the last run ended.
    pub(super) fn last_exit(&self) -> Option<Exit> {
        self.seen().exit.clone()
    }

    fn dir(&self) -> &Path {
        self.paths.dir()
    }

    /// QEMU's pid and start time while it lives.
    pub(crate) fn process(&self) -> Option<(u32, u64)> {
        let seen = self.seen();
        let run = seen.run.as_ref()?;
        Some((run.qemu.pid, run.qemu.start_ticks))
    }

    /// When it was last started, as answers have it; empty before.
    pub(crate) fn started_at(&self) -> String {
        process::answer_time(self.seen().started_at.as_deref())
    }

    /// The same in seconds since 1970.
    pub(crate) fn start_time_seconds(&self) -> Option<f64> {
        let time: jiff::Timestamp = self.seen().started_at.as_deref()?.parse().ok()?;
        Some(time.as_duration().as_secs_f64())
    }

    /// Starts by its restart policy.
    pub(crate) fn restarts(&self) -> u64 {
        self.seen().restarts
    }

    /// The link counters; none before the first start.
    pub(crate) fn links(&self) -> Option<Links> {
        links::read(self.dir()).ok()
    }

    /// Whether the guest has sent a frame: it has come as far as its network.
    pub(super) fn has_spoken(&self) -> bool {
        let generation = self.seen().generation;
        let spoke = |links: &Links| {
            links.generation == generation
                && [id::Link::Service, id::Link::Management]
                    .iter()
                    .any(|&link| links.of(link, Direction::FromVm).frames > 0)
        };
        self.links().is_some_and(|links| spoke(&links))
    }

    /// How long the next stop gives the guest; a stop that is under way and would wait longer is hastened.
    pub(super) fn set_stop_time(self: &Arc<Self>, time: Duration) {
        tokio::task::block_in_place(|| {
            let mut inner = self.lock();
            inner.stop_time = time;
            inner.record.stop_seconds = Some(time.as_secs());
            let generation = inner.machine.generation();
            if inner.deadline.as_ref().is_some_and(|(at, _)| *at > Instant::now() + time) {
                self.arm(&mut inner, generation);
            }
        });
    }

    fn arm(self: &Arc<Self>, inner: &mut Inner, generation: u64) {
        disarm(inner);
        let wait = process::deadline(Arc::clone(self), generation, inner.stop_time);
        inner.deadline = Some((Instant::now() + inner.stop_time, tokio::spawn(wait).abort_handle()));
    }

    /// Lets the machine take `event` and carries out what it says.
    ///
    /// # Errors
    /// When the machine refuses the request.
    pub(super) fn apply(self: &Arc<Self>, event: Event) -> Result<(), Refused> {
        // records are synced to disk on the way: other tasks of this thread must not wait for that
        tokio::task::block_in_place(|| {
            let mut inner = self.lock();
            let actions = inner.machine.handle(event)?;
            self.carry_out(&mut inner, actions);
            Ok(())
        })
    }

    fn carry_out(self: &Arc<Self>, inner: &mut Inner, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Persist => self.persist(inner),
                Action::Announce { from, to } => self.announce(inner, from, to),
                Action::AnnounceRetry => {
                    let text = "the guest refused the added arguments (status 64) and is started once more without them";
                    events::record(&self.context, self.name(), "start", text);
                }
                Action::SpawnShim { generation, injection } => {
                    tokio::spawn(process::start(
                        Arc::clone(self),
                        generation,
                        injection,
                        inner.image.clone(),
                    ));
                }
                // no time to react to it
                Action::PowerDown { .. } if inner.stop_time.is_zero() => {}
                Action::PowerDown { generation } => {
                    tokio::spawn(process::power_down(Arc::clone(self), generation));
                }
                Action::ArmDeadline { generation } => self.arm(inner, generation),
                Action::CancelDeadline => disarm(inner),
                Action::Kill { .. } => self.kill(inner),
                // the record is gone already ([`Vm::remove`])
                Action::Remove => {
                    self.remove_heap_traces();
                    self.context.lifecycle.count(Transition::Remove);
                    events::record(&self.context, self.name(), "remove", "removed");
                }
            }
        }
        *self.seen() = Seen::of(inner);
        self.changed.send_modify(|n| *n += 1);
    }

    /// Stores the record before anyone learns of the change.
    fn persist(self: &Arc<Self>, inner: &mut Inner) {
        let is_down = inner.machine.state() == State::Stopped;
        inner.record.lifecycle = inner.machine.to_stored();
        inner.record.pid = inner.run.as_ref().filter(|_| !is_down).map_or(0, |run| run.qemu.pid);
        let now = Some(process::record_time(clock::now()));
        match inner.machine.state() {
            State::Starting => {
                inner.record.started_at = now;
                inner.record.stopped_at = None;
                inner.record.daemon_recovered = false;
            }
            State::Stopped if inner.record.stopped_at.is_none() => inner.record.stopped_at = now,
            _ => {}
        }
        self.save(inner);
    }

    /// Writes the record. What cannot be written is told once, and tried again until it can be.
    fn save(self: &Arc<Self>, inner: &mut Inner) {
        let Err(error) = self.context.records.save(&inner.record) else {
            if inner.unsaved.take().is_some() {
                tracing::info!(vm_id = self.id(), "the VM record is saved again");
            }
            return;
        };
        let err = format!("{:#}", anyhow::Error::new(error));
        if inner.unsaved.replace(err.clone()).is_none() {
            tracing::error!(vm_id = self.id(), err, "the VM record cannot be saved; it is tried again");
            tokio::spawn(process::save_again(Arc::clone(self)));
        }
    }

    /// Tries to write a record that could not be written; tells whether it is to be tried once more.
    pub(super) fn save_again(self: &Arc<Self>) -> bool {
        tokio::task::block_in_place(|| {
            let mut inner = self.lock();
            if inner.machine.is_removed() {
                inner.unsaved = None;
            }
            if inner.unsaved.is_some() {
                self.save(&mut inner);
            }
            inner.unsaved.is_some()
        })
    }

    /// That the newest record is stored.
    ///
    /// # Errors
    /// It is not, and why.
    pub(super) fn stored(&self) -> anyhow::Result<()> {
        match &self.lock().unsaved {
            None => Ok(()),
            Some(fault) => bail!("{fault}"),
        }
    }

    fn announce(self: &Arc<Self>, inner: &mut Inner, from: State, to: State) {
        let (from, to_text) = (from.as_str(), to.as_str());
        tracing::info!(vm_id = self.id(), from, to = to_text, vm = self.name(), "vm state transition");
        self.context.live.state(self.name(), to_text);
        match to {
            State::Running => {
                events::record(&self.context, self.name(), "start", "running");
                inner.management = Some(self.open_link());
            }
            State::Stopping => {
                events::record(
                    &self.context,
                    self.name(),
                    "stop",
                    &format!("{:?} requested", inner.machine.intent()).to_lowercase(),
                );
            }
            State::Stopped => self.went_down(inner),
            State::Created | State::Starting => {}
        }
    }

    fn open_link(&self) -> Link {
        Link::open(self.name().to_owned(), self.paths.management(), Arc::clone(&self.context.ingest))
    }

    /// Where commands to the guest go; nothing while it does not run.
    pub(crate) fn requests(&self) -> Option<mpsc::Sender<Request>> {
        // the lock may be held while a record is written to disk
        tokio::task::block_in_place(|| self.lock().management.as_ref().map(Link::requests))
    }

    /// Where streams from the guest are asked for; nothing while it does not run.
    pub(crate) fn streams(&self) -> Option<Orders> {
        // as in `requests`
        tokio::task::block_in_place(|| self.lock().management.as_ref().map(Link::orders))
    }

    /// The places in the source of an address of its guest's code, innermost first; none if they are not known.
    pub(crate) fn frames(&self, address: u64) -> Vec<Frame> {
        self.traces.frames(self.id(), self.started(), address)
    }

    /// Where its heap traces are.
    pub(crate) fn heap_traces(&self) -> PathBuf {
        self.context.state_dir.join("traces").join(self.id())
    }

    /// Its directory, for what is kept about this VM and goes with it.
    pub(crate) fn files(&self) -> &Path {
        self.dir()
    }

    /// What its guest is told by who made it.
    pub(crate) fn arguments(&self) -> &[String] {
        &self.spec.args
    }

    /// Counts its runs.
    pub(crate) fn generation(&self) -> u64 {
        self.seen().generation
    }

    /// Tells everyone that a command changed what the guest logs or measures.
    pub(crate) fn note_control(&self, command: &str) {
        events::record(&self.context, self.name(), "control", command);
    }

    fn went_down(self: &Arc<Self>, inner: &mut Inner) {
        inner.management = None;
        if let Some(run) = inner.run.take() {
            self.context.peers.close(run.qemu.pid);
        }
        let how = inner.machine.last_exit().map_or_else(String::new, ToString::to_string);
        events::record(&self.context, self.name(), "exit", &how);
        match inner.machine.intent() {
            Intent::Stop => self.context.lifecycle.count(Transition::Stop),
            Intent::Kill if !inner.discarded => self.context.lifecycle.count(Transition::Kill),
            Intent::Kill | Intent::Run => {}
        }
        self.context.live.forget(self.name());
        if inner.record.config.auto_remove {
            let vm = Arc::clone(self);
            tokio::spawn(async move {
                // followers of the console read its end first
                tokio::time::sleep(REMOVE_DELAY).await;
                vm.forget();
            });
        }
    }

    fn kill(&self, inner: &Inner) {
        let run = inner.run.clone().or_else(|| shim::find(self.dir(), self.id));
        // a QEMU that is gone already is what was wanted
        if let Some(Err(error)) = run.map(|run| run.kill_qemu())
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::error!(vm_id = self.id(), err = error.to_string(), "kill QEMU");
        }
    }

    /// Forgets a VM that is down, its record and its files.
    ///
    /// # Errors
    /// When it runs, or its record stays: then the VM does too.
    pub(super) fn remove(self: &Arc<Self>) -> anyhow::Result<()> {
        tokio::task::block_in_place(|| {
            let mut inner = self.lock();
            let mut machine = inner.machine.clone();
            let actions = machine.handle(Event::RemoveRequested)?;
            self.context.records.remove(self.id)?;
            inner.machine = machine;
            self.carry_out(&mut inner, actions);
            Ok(())
        })
    }

    fn remove_heap_traces(&self) {
        let dir = self.heap_traces();
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let (path, err) = (dir.display().to_string(), error.to_string());
                tracing::warn!(path, err, "heap traces of a removed VM stay");
            }
            _ => {}
        }
    }

    /// The same where nobody waits for an answer.
    fn forget(self: &Arc<Self>) {
        if self.is_removed() {
            return;
        }
        let operation = self.context.tracing.begin(Operation::Remove, &Caller::default());
        let step = operation.step("vm.remove", || of_vm(Some(self.id())));
        let outcome = step.end(self.remove());
        match operation.end(Some(self.subject()), outcome) {
            Err(error) if !error.is::<Refused>() => {
                tracing::error!(vm_id = self.id(), err = format!("{error:#}"), "remove the VM");
            }
            _ => {}
        }
    }

    /// Stops it and returns once it is down.
    ///
    /// # Errors
    /// When it is down already, does not go down even when killed, or its record cannot be written.
    pub(super) async fn stop(self: &Arc<Self>, event: Event, time: Duration) -> anyhow::Result<()> {
        let context = || format!("stop {}", self.name());
        self.set_stop_time(time);
        self.apply(event).with_context(context)?;
        self.until_down(time).await.with_context(context)?;
        self.stored()
            .context("it is down, but its record says otherwise until it can be written")
            .with_context(context)
    }

    /// Whether there is something to stop.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.machine_state(), State::Starting | State::Running | State::Stopping)
    }

    /// A guest that may reach out is known again at the listeners on loopback.
    fn watch_peer(&self, run: &RunInfo) {
        if self.spec.reaches_out() {
            self.context.peers.open(run.qemu.pid, self.name());
        }
    }

    /// QEMU lives: remembers who it is, so that samples and kills find it.
    pub(super) fn set_run(&self, run: RunInfo) {
        self.watch_peer(&run);
        // under the lock of both: a change of state published in between would show the VM without its process for ever
        let mut inner = self.lock();
        inner.run = Some(run.clone());
        self.seen().run = Some(run);
    }

    /// Takes over what the last daemon left: a living QEMU, or the news of its end.
    pub(super) async fn recover(self: &Arc<Self>) {
        // a record brought back from a copy may say stopped of what runs
        if !self.is_up() && shim::find(self.dir(), self.id).is_none() {
            return self.end_removal();
        }
        let operation = self.context.tracing.begin(Operation::Readopt, &Caller::default());
        let step = operation.step("vm.readopt", || of_vm(Some(self.id())));
        self.take_over().await;
        // found gone is an outcome, not a failure: the state tells
        let _ = operation.end(Some(self.subject()), step.end(Ok(())));
    }

    async fn take_over(self: &Arc<Self>) {
        process::until_shim_settles(self.dir()).await;
        let found = shim::find(self.dir(), self.id);
        let mut inner = self.lock();
        let exit = match &found {
            Some(run) => {
                inner.machine.found_alive(run.generation);
                inner.record.daemon_recovered = false;
                inner.record.stopped_at = None;
                None
            }
            None => {
                let unknown = "it was gone when unid came back, and how it ended is not recorded";
                let (exit, at) = process::recorded_end(self.dir(), inner.machine.generation())
                    .unwrap_or_else(|| (Exit::HypervisorError(unknown.to_owned()), None));
                inner.record.daemon_recovered = true;
                inner.record.stopped_at = at.map(process::record_time);
                Some(exit)
            }
        };
        inner.run.clone_from(&found);
        if let Some(run) = &found {
            self.watch_peer(run);
        }
        let was_running = inner.machine.state() == State::Running;
        let actions = inner.machine.recover(exit);
        self.carry_out(&mut inner, actions);
        let Some(run) = found else { return };
        if was_running && inner.management.is_none() {
            // the machine announces only changes, and this VM has not changed
            inner.management = Some(self.open_link());
        }
        drop(inner);
        tracing::info!(vm_id = self.id(), pid = run.qemu.pid, "vm taken over");
        events::record(&self.context, self.name(), "adopt", "taken over by a restarted unid");
        tokio::spawn(process::watch_adopted(Arc::clone(self), run));
    }

    /// A VM with `--rm` that ended shortly before the last daemon did was not forgotten yet.
    fn end_removal(self: &Arc<Self>) {
        let ended = self.lock().record.config.auto_remove && self.machine_state() == State::Stopped;
        if ended {
            self.forget();
        }
    }

    /// Ends and forgets a VM whose start failed.
    pub(super) async fn discard(self: &Arc<Self>) {
        tokio::task::block_in_place(|| self.lock().discarded = true);
        let _ = self.apply(Event::KillRequested);
        let _ = self.until_down(Duration::ZERO).await;
        self.forget();
    }

    /// Waits until the VM is down: the time given to the guest, and what a kill may take.
    ///
    /// # Errors
    /// When it stays up.
    pub(super) async fn until_down(&self, given: Duration) -> anyhow::Result<()> {
        let mut changes = self.changed.subscribe();
        let down = async {
            while !matches!(self.machine_state(), State::Stopped | State::Created) {
                if changes.changed().await.is_err() {
                    break;
                }
            }
        };
        if tokio::time::timeout(given + KILL_TIME, down).await.is_err() {
            bail!(
                "it is still {} after {:?}; {}",
                self.state(),
                given + KILL_TIME,
                self.hypervisor_messages()
            );
        }
        Ok(())
    }

    /// What QEMU and the shim themselves printed, for an error message.
    pub(super) fn hypervisor_messages(&self) -> String {
        match shim::messages(self.dir(), MESSAGE_BYTES) {
            text if text.is_empty() => "QEMU said nothing".to_owned(),
            text => format!("QEMU said: {text}"),
        }
    }

    /// The end of the console, for an error message.
    pub(super) async fn last_words(self: &Arc<Self>, max: usize) -> String {
        let dir = self.dir().to_path_buf();
        let read = tokio::task::spawn_blocking(move || console::tail(&dir, max as u64, true)).await;
        let text = read.ok().and_then(Result::ok).map(|text| text.text).unwrap_or_default();
        let text = self.name_addresses(text).await;
        text.trim_end().chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
    }

    /// The console's text with function, file and line beside the addresses of a stack trace.
    async fn name_addresses(self: &Arc<Self>, text: String) -> String {
        if !trace::has_addresses(&text) {
            return text;
        }
        let (vm, plain) = (Arc::clone(self), text.clone());
        let name = move || vm.traces.name(vm.id(), vm.started(), &plain);
        // a panic while a damaged twin is read costs the names and not the console
        tokio::task::spawn_blocking(name).await.unwrap_or(text)
    }

    /// When it was last started.
    fn started(&self) -> Option<Timestamp> {
        let time: jiff::Timestamp = self.lock().record.started_at.as_deref()?.parse().ok()?;
        Some(Timestamp(i64::try_from(time.as_nanosecond()).ok()?))
    }

    /// Where the console ends now.
    pub(crate) fn console_end(&self) -> u64 {
        console::end(self.dir())
    }

    /// The last `max` bytes of the console.
    ///
    /// # Errors
    /// When the console cannot be read.
    pub(crate) async fn logs_tail(self: &Arc<Self>, max: u64) -> anyhow::Result<Logs> {
        let (dir, down) = (self.dir().to_path_buf(), self.is_down());
        let text = tokio::task::spawn_blocking(move || console::tail(&dir, max, down)).await??;
        Ok(self.make_logs(text).await)
    }

    /// What is on the console from byte `from` on, at most `max` bytes.
    ///
    /// # Errors
    /// When the console cannot be read.
    pub(crate) async fn logs_from(self: &Arc<Self>, from: u64, max: u64) -> anyhow::Result<Logs> {
        let (dir, down) = (self.dir().to_path_buf(), self.is_down());
        let text = tokio::task::spawn_blocking(move || console::read(&dir, from, max, down)).await??;
        Ok(self.make_logs(text).await)
    }

    /// The piece of the console that is `wanted`. Waits up to `wait` for something to come.
    ///
    /// # Errors
    /// When the console cannot be read, or there is no such run.
    pub(super) async fn logs(
        self: &Arc<Self>,
        wanted: console::Wanted,
        wait: Duration,
    ) -> anyhow::Result<Logs> {
        let start = Instant::now();
        let mut worthwhile = WORTHWHILE_BYTES;
        loop {
            // asked before reading: what was printed before the end is then read too
            let down = self.is_down();
            let dir: PathBuf = self.dir().to_path_buf();
            let read = move || console::wanted(&dir, wanted, down);
            let text = tokio::task::spawn_blocking(read).await??;
            if text.ended || text.next - text.from >= worthwhile || start.elapsed() >= wait {
                return Ok(self.make_logs(text).await);
            }
            worthwhile = 1;
            tokio::time::sleep(CONSOLE_LOOK).await;
        }
    }

    /// Whether nothing more can come on the console.
    fn is_down(&self) -> bool {
        self.process().is_none() && self.machine_state() != State::Starting
    }

    async fn make_logs(self: &Arc<Self>, text: console::Text) -> Logs {
        let console::Text { text, from, next, missed_bytes, run, ended } = text;
        let logs = self.name_addresses(text).await;
        Logs { id: self.id_text.clone(), logs, from, next, missed_bytes, run, ended }
    }

    /// As lists show it.
    pub(crate) fn info(&self) -> VmInfo {
        VmInfo {
            id: self.id_text.clone(),
            state: self.state().to_owned(),
            image: self.spec.image.display().to_string(),
            name: self.name().to_owned(),
            health: self.seen().health.clone(),
        }
    }

    /// Everything there is to know.
    pub(crate) fn detail(&self) -> VmDetail {
        // the lock may be held while a record is written to disk
        tokio::task::block_in_place(|| {
            let inner = self.lock();
            let detail = process::detail(&self.spec, &inner.record, &inner.machine, inner.run.as_ref());
            VmDetail { record_error: inner.unsaved.clone().unwrap_or_default(), ..detail }
        })
    }
}

fn disarm(inner: &mut Inner) {
    if let Some((_, wait)) = inner.deadline.take() {
        wait.abort();
    }
}
