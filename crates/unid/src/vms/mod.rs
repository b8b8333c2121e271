//! The VMs: who there is, and what the control socket may ask of them.
//!
//! Owns the registry and the rule that a name belongs to one VM. What happens to one VM is [`vm`]'s business;
//! which transitions are legal is decided by `uni-vmm`'s machine.

pub(crate) mod console;
mod events;
mod process;
mod records;
pub(crate) mod secrets;
mod traces;
mod vm;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uni_api::vm::{Logs, LogsParams, RunParams, Stats, StopParams, VmInfo};
use uni_vmm::accel::{self, Decision};
use uni_vmm::exit::Exit;
use uni_vmm::id::VmId;
use uni_vmm::image::{self, Image, Kind};
use uni_vmm::machine::{Event, Refused, State};
use uni_vmm::name::VmName;
use uni_vmm::record::RecordStore;
use uni_vmm::spec::{Limits, Machine, PortMap, Proto, Spec};
use uni_vmm::{process as processes, qemu};

use crate::config::Config;
use crate::ingest::Ingest;
use crate::live::Live;
use crate::metrics::Lifecycle;
use crate::peers::Peers;
use crate::sampler;
use crate::trace::{self, Caller, Tracing};

pub(crate) use self::vm::Vm;

/// How long a VM may take from its start to a living QEMU.
const START_TIMEOUT: Duration = Duration::from_secs(15);
/// `run` waits this long for a sign of life (a frame on a link) before it believes that the guest stays up.
const SETTLE_TIME: Duration = Duration::from_millis(1500);
/// How often it looks.
const SETTLE_LOOK: Duration = Duration::from_millis(10);
/// `stats` right after a start waits this long for the second sample.
const STATS_WAIT: Duration = Duration::from_secs(4);
/// The time a guest is given to stop when the request names none.
const DEFAULT_STOP_SECONDS: u64 = 30;
/// The longest time a guest is given to stop.
const MAX_STOP_SECONDS: u64 = 86_400;
/// The longest wait of one request for console output.
const MAX_LOG_WAIT: Duration = Duration::from_secs(30);
/// The signal that a kill is.
const SIGKILL: i32 = 9;
/// Console bytes shown when a guest died at once.
const LAST_WORDS_BYTES: usize = 2048;

/// `run` requests at one time; more than there can be clients.
const MAX_STARTS: u32 = 1024;

/// What every VM works with.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) records: Box<dyn RecordStore>,
    pub(crate) state_dir: PathBuf,
    pub(crate) cache_dir: PathBuf,
    pub(crate) qemu: PathBuf,
    pub(crate) unid: PathBuf,
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) live: Arc<Live>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) tracing: Tracing,
    /// Held while QEMU is probed, so that VMs started together wait for one probe instead of making many.
    probing: Mutex<()>,
}

/// Why a VM cannot be named so.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FindError {
    #[error("no VM named: give a name, an id or the beginning of an id")]
    Unnamed,
    #[error("{0:?} is the beginning of several ids; write more of it")]
    Ambiguous(String),
    #[error("vm {0:?} not found; `uni ps` lists the VMs there are")]
    NotFound(String),
}

/// All VMs of this daemon.
#[derive(Debug)]
pub(crate) struct Manager {
    context: Arc<Context>,
    vms: Mutex<BTreeMap<VmId, Arc<Vm>>>,
    /// One for each `run` under way; none are left once all VMs are stopped for good.
    starts: Semaphore,
}

impl Manager {
    /// Loads the records and takes over the VMs that outlived the last daemon.
    ///
    /// # Errors
    /// When the records' directory cannot be used.
    pub(crate) async fn open(
        config: &Config,
        tracing: Tracing,
        ingest: Arc<Ingest>,
        live: Arc<Live>,
        peers: Arc<Peers>,
    ) -> anyhow::Result<Arc<Self>> {
        let (records, loaded) = records::open(config)?;
        let context = Arc::new(Context {
            records,
            state_dir: config.state_dir.clone(),
            cache_dir: config.cache_dir(),
            qemu: config.qemu.clone(),
            unid: std::env::current_exe().context("find unid's own program")?,
            ingest,
            live,
            peers,
            lifecycle: Lifecycle::default(),
            tracing,
            probing: Mutex::default(),
        });
        let manager = Arc::new(Self {
            context: Arc::clone(&context),
            vms: Mutex::default(),
            starts: Semaphore::new(MAX_STARTS as usize),
        });
        for record in loaded {
            let vm = match Vm::load(Arc::clone(&context), record) {
                Ok(vm) => vm,
                Err(error) => {
                    tracing::error!(
                        err = format!("{error:#}"),
                        "VM record cannot be used; it is left as it is"
                    );
                    continue;
                }
            };
            manager.lock().insert(vm.vm_id(), Arc::clone(&vm));
            vm.recover().await;
        }
        Ok(manager)
    }

    /// The registry, less the VMs that removed themselves (`--rm`).
    fn lock(&self) -> MutexGuard<'_, BTreeMap<VmId, Arc<Vm>>> {
        let mut vms = self.vms.lock().unwrap_or_else(PoisonError::into_inner);
        vms.retain(|_, vm| !vm.is_removed());
        vms
    }

    /// How often VMs were created, started, stopped, killed and removed.
    pub(crate) fn lifecycle(&self) -> &Lifecycle {
        &self.context.lifecycle
    }

    /// All VMs by name.
    pub(crate) fn all(&self) -> Vec<Arc<Vm>> {
        let mut vms: Vec<_> = self.lock().values().cloned().collect();
        vms.sort_by(|a, b| a.name().cmp(b.name()));
        vms
    }

    /// All VMs by name, as lists show them.
    pub(crate) fn list(&self) -> Vec<VmInfo> {
        self.all().iter().map(|vm| vm.info()).collect()
    }

    /// The VMs whose QEMU lives.
    pub(crate) fn running(&self) -> Vec<Arc<Vm>> {
        self.lock().values().filter(|vm| vm.process().is_some()).cloned().collect()
    }

    /// Whether a VM has this name.
    pub(crate) fn has_name(&self, name: &str) -> bool {
        self.lock().values().any(|vm| vm.name() == name)
    }

    /// The VM named by full id, exact name, the name it had in an older installation, or unambiguous id prefix, in that
    /// order.
    ///
    /// # Errors
    /// When there is none, or the prefix fits several.
    pub(crate) fn find(&self, reference: &str) -> Result<Arc<Vm>, FindError> {
        if reference.is_empty() {
            return Err(FindError::Unnamed);
        }
        let vms = self.lock();
        if let Some(vm) = vms.values().find(|vm| vm.id() == reference) {
            return Ok(Arc::clone(vm));
        }
        if let Some(vm) = vms.values().find(|vm| vm.name() == reference) {
            return Ok(Arc::clone(vm));
        }
        let mut once_called = vms.values().filter(|vm| vm.original_name() == Some(reference));
        if let (Some(vm), None) = (once_called.next(), once_called.next()) {
            return Ok(Arc::clone(vm));
        }
        let mut matches = vms.values().filter(|vm| vm.id().starts_with(reference));
        match (matches.next(), matches.next()) {
            (Some(vm), None) => Ok(Arc::clone(vm)),
            (Some(_), Some(_)) => Err(FindError::Ambiguous(reference.to_owned())),
            (None, _) => Err(FindError::NotFound(reference.to_owned())),
        }
    }

    /// Makes a VM and starts it; returns once QEMU lives and the guest has shown that it stays, or has ended well.
    ///
    /// # Errors
    /// Whatever keeps it from starting, or the last words of a guest that died at once. Nothing is left behind.
    pub(crate) async fn run(&self, params: RunParams, caller: &Caller) -> anyhow::Result<VmInfo> {
        let operation = self.context.tracing.begin(trace::Event::Create, caller);
        let Ok(_start) = self.starts.try_acquire() else {
            let refused = "no VM is started now: all VMs are being stopped (`uni daemon stop --vms`)";
            return operation.end(None, Err(anyhow::anyhow!(refused)));
        };
        let step = operation.step("vm.create", || trace::of_request(&params));
        let vm = match step.end(self.create(params).await) {
            Ok(vm) => vm,
            Err(error) => return operation.end(None, Err(error)),
        };
        let step = operation.step("vm.start", || trace::of_vm(Some(vm.id())));
        let outcome = step.end(self.start(&vm).await);
        operation.end(Some(vm.subject()), outcome.map(|()| vm.info()))
    }

    /// Makes a VM and its record.
    async fn create(&self, params: RunParams) -> anyhow::Result<Arc<Vm>> {
        let context = Arc::clone(&self.context);
        let prepared = tokio::task::spawn_blocking(move || prepare(&context, &params)).await??;
        let vm = self.register(prepared)?;
        if let Err(error) = vm.store_first() {
            self.lock().remove(&vm.vm_id());
            return Err(error);
        }
        Ok(vm)
    }

    /// Starts a new VM, or forgets it.
    async fn start(&self, vm: &Arc<Vm>) -> anyhow::Result<()> {
        if let Err(error) = self.start_and_settle(vm).await {
            vm.discard().await;
            return Err(error.context(format!("start {}", vm.name())));
        }
        vm.count_start();
        Ok(())
    }

    /// Takes the name, makes the record.
    fn register(&self, prepared: Prepared) -> anyhow::Result<Arc<Vm>> {
        let mut vms = self.lock();
        let id = loop {
            let mut random = [0; 6];
            rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
                .context("make a VM id")?;
            let id = VmId::from_random(random);
            if !vms.contains_key(&id) {
                break id;
            }
        };
        let mut spec = prepared.spec;
        let taken = |name: &str| vms.values().any(|vm| vm.name() == name);
        if prepared.name_given {
            if taken(&spec.name) {
                bail!(
                    "the name {:?} is taken; choose another, or remove that VM with `uni rm {0}`",
                    &*spec.name
                );
            }
        } else if taken(&spec.name) {
            spec.name = numbered(&spec.name, taken)?;
        }
        let context = Arc::clone(&self.context);
        let vm = Vm::create(context, spec, id, prepared.image, prepared.accel, prepared.auto_remove)?;
        vms.insert(id, Arc::clone(&vm));
        Ok(vm)
    }

    async fn start_and_settle(&self, vm: &Arc<Vm>) -> anyhow::Result<()> {
        vm.apply(Event::StartRequested)?;
        let start = Instant::now();
        let mut living_since = None;
        loop {
            match vm.machine_state() {
                State::Stopped => return ended(vm).await,
                State::Running => {
                    let since = *living_since.get_or_insert_with(Instant::now);
                    if vm.has_spoken() || since.elapsed() > SETTLE_TIME {
                        return Ok(());
                    }
                }
                // stopped by another request meanwhile: that one tells its end
                State::Stopping => return Ok(()),
                State::Created | State::Starting => {
                    living_since = None;
                    if start.elapsed() > START_TIMEOUT {
                        bail!("QEMU did not come up within {START_TIMEOUT:?}; {}", vm.hypervisor_messages());
                    }
                }
            }
            tokio::time::sleep(SETTLE_LOOK).await;
        }
    }

    /// Stops a VM and returns once it is down.
    ///
    /// # Errors
    /// When it does not run, does not go down even when killed, or its record cannot be written.
    pub(crate) async fn stop(&self, params: &StopParams, caller: &Caller) -> anyhow::Result<()> {
        let (event, step) = match params.force {
            true => (trace::Event::Kill, "vm.kill"),
            false => (trace::Event::Stop, "vm.stop"),
        };
        let operation = self.context.tracing.begin(event, caller);
        let found = self.find(&params.id);
        let vm = found.as_ref().ok().cloned();
        let step = operation.step(step, || trace::of_vm(vm.as_deref().map(Vm::id)));
        let outcome = match found {
            Ok(vm) => stop_found(&vm, params).await,
            Err(error) => Err(error.into()),
        };
        operation.end(vm.as_deref().map(Vm::subject), step.end(outcome))
    }

    /// Stops all VMs at once and returns the names of those that had to be killed. No VM is started from then on.
    ///
    /// # Errors
    /// When one does not go down or its record cannot be written; VMs can then be started again.
    pub(crate) async fn stop_all(
        &self,
        timeout_seconds: Option<u64>,
        caller: &Caller,
    ) -> anyhow::Result<Vec<String>> {
        let time = stop_time(timeout_seconds)?;
        // starts under way end first
        let starts = self.starts.acquire_many(MAX_STARTS).await?;
        let mut stops = JoinSet::new();
        for vm in self.all().into_iter().filter(|vm| vm.is_up()) {
            let operation = self.context.tracing.begin(trace::Event::Stop, caller);
            stops.spawn(async move {
                let step = operation.step("vm.stop", || trace::of_vm(Some(vm.id())));
                let stopped = step.end(vm.stop(Event::StopRequested, time).await);
                let stopped = operation.end(Some(vm.subject()), stopped);
                (vm, stopped)
            });
        }
        let (mut killed, mut faults) = (Vec::new(), Vec::new());
        for (vm, stopped) in stops.join_all().await {
            match stopped {
                Ok(()) if vm.last_exit() == Some(Exit::Signal(SIGKILL)) => killed.push(vm.name().to_owned()),
                // that it went down by itself meanwhile is as good
                Err(error) if !error.is::<Refused>() => faults.push(format!("{error:#}")),
                _ => {}
            }
        }
        if !faults.is_empty() {
            bail!("not all VMs were stopped, so unid goes on: {}", faults.join("; "));
        }
        starts.forget();
        killed.sort();
        Ok(killed)
    }

    /// Forgets a stopped VM, its console and its record; its points stay.
    ///
    /// # Errors
    /// When it runs.
    pub(crate) fn remove(&self, reference: &str, caller: &Caller) -> anyhow::Result<()> {
        let operation = self.context.tracing.begin(trace::Event::Remove, caller);
        let found = self.find(reference);
        let vm = found.as_ref().ok().cloned();
        let step = operation.step("vm.remove", || trace::of_vm(vm.as_deref().map(Vm::id)));
        let outcome = found
            .map_err(anyhow::Error::from)
            .and_then(|vm| vm.remove().with_context(|| format!("remove {}", vm.name())));
        operation.end(vm.as_deref().map(Vm::subject), step.end(outcome))
    }

    /// A piece of a VM's console, waiting for it if asked to.
    ///
    /// # Errors
    /// When there is no such VM, or its console cannot be read.
    pub(crate) async fn logs(&self, params: &LogsParams) -> anyhow::Result<Logs> {
        let vm = self.find(&params.id)?;
        let wait = Duration::from_millis(params.wait_ms).min(MAX_LOG_WAIT);
        let run = if params.run.is_empty() { None } else { Some(params.run.parse()?) };
        vm.logs(console::Wanted { from: params.from, tail_bytes: params.tail_bytes, run }, wait).await
    }

    /// The newest figures; zeros with source `fallback` when there are none.
    pub(crate) fn stats(&self, vm: &Vm) -> Stats {
        let mut stats = self.context.live.stats(vm.name()).unwrap_or_else(|| sampler::no_stats(vm));
        vm.state().clone_into(&mut stats.state);
        stats
    }

    /// As [`Manager::stats`], but waits for the second sample of a VM that has just been started.
    ///
    /// # Errors
    /// When there is no such VM.
    pub(crate) async fn fresh_stats(&self, reference: &str) -> anyhow::Result<Stats> {
        let vm = self.find(reference)?;
        let start = Instant::now();
        while vm.process().is_some() && start.elapsed() < STATS_WAIT {
            if self.context.live.stats(vm.name()).is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(self.stats(&vm))
    }
}

async fn stop_found(vm: &Arc<Vm>, params: &StopParams) -> anyhow::Result<()> {
    let event = if params.force { Event::KillRequested } else { Event::StopRequested };
    vm.stop(event, stop_time(params.timeout_seconds)?).await
}

/// The time that a stop gives the guest.
fn stop_time(seconds: Option<u64>) -> anyhow::Result<Duration> {
    let seconds = seconds.unwrap_or(DEFAULT_STOP_SECONDS);
    if seconds > MAX_STOP_SECONDS {
        bail!("{seconds} seconds to stop are too many: at most {MAX_STOP_SECONDS} (a day)");
    }
    Ok(Duration::from_secs(seconds))
}

/// A request, checked as far as it can be without taking the name.
struct Prepared {
    spec: Spec,
    name_given: bool,
    image: Image,
    accel: Decision,
    auto_remove: bool,
}

/// Checks everything that costs nothing to check before a VM is made.
fn prepare(context: &Context, params: &RunParams) -> anyhow::Result<Prepared> {
    params.other.iter().try_for_each(|(field, value)| refuse_unknown(field, value))?;
    let image = image::detect(params.image_path.as_ref())?;
    let name_given = !params.name.is_empty();
    let name = if name_given { params.name.parse()? } else { default_name(&params.image_path) };
    let mut spec = Spec::new(name, image.path.clone());
    if !params.memory.is_empty() {
        spec.memory_mib = uni_vmm::spec::parse_memory_mib(&params.memory)?;
    }
    spec.cpus = params.cpus.max(1);
    if !params.machine.is_empty() {
        spec.machine = chosen_machine(&params.machine, &image)?;
    }
    spec.args.clone_from(&params.args);
    spec.env.clone_from(&params.env);
    spec.add_name = !params.no_add_name;
    spec.outbound = params.outbound;
    spec.limits = Limits {
        cpu_weight: u16::try_from(params.cpu_shares).unwrap_or(u16::MAX),
        memory_max_bytes: params.memory_max,
        disk_iops: params.disk_iops,
        disk_bps: params.disk_bps,
    };
    spec.ports = params.port_maps.iter().map(port_map).collect::<anyhow::Result<_>>()?;
    spec.validate_request()?;
    spec.ports.iter().try_for_each(port_is_free)?;
    let qemu = qemu::resolve(&context.qemu, std::env::var_os("PATH").as_deref())?;
    let machine = qemu::machine_for(&spec, &image);
    spec.machine = machine;
    let boot = processes::boot_id().context("read the host's boot id")?;
    let _one = context.probing.lock().unwrap_or_else(PoisonError::into_inner);
    let accel = accel::probe(&qemu, machine, &context.cache_dir, &boot)?;
    Ok(Prepared { spec, name_given, image, accel, auto_remove: params.auto_remove })
}

/// Only a kernel lets one choose.
fn chosen_machine(name: &str, image: &Image) -> anyhow::Result<Machine> {
    if image.kind == Kind::RawDisk {
        bail!("machine {name:?} was given, but a raw disk image always runs on pc: leave out --machine");
    }
    Ok(name.parse()?)
}

/// A field that is set to nothing asks for nothing (`attach` is the client's affair).
fn refuse_unknown(field: &str, value: &serde_json::Value) -> anyhow::Result<()> {
    use serde_json::Value;
    let asks = match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(object) => object.iter().any(|(field, value)| refuse_unknown(field, value).is_err()),
    };
    if asks && field != "attach" {
        bail!("{field} is not supported by this version of unid; leave it out");
    }
    Ok(())
}

/// The image's file name without its extension, as far as it makes a VM name.
fn default_name(image: &str) -> VmName {
    let stem = std::path::Path::new(image).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let allowed = |c: &char| c.is_ascii_alphanumeric() || "._-".contains(*c);
    let text: String = stem.unwrap_or_default().chars().filter(allowed).take(48).collect();
    let text = text.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    text.parse().unwrap_or_else(|_| fallback_name())
}

fn fallback_name() -> VmName {
    #[expect(clippy::expect_used, reason = "a constant that the tests parse")]
    FALLBACK_NAME.parse().expect("a valid name")
}

/// The name of a VM whose image's name has no usable character.
const FALLBACK_NAME: &str = "vm";

/// `name-2`, `name-3`, ...
fn numbered(name: &VmName, taken: impl Fn(&str) -> bool) -> anyhow::Result<VmName> {
    let free = (2..10_000).map(|n| format!("{}-{n}", &**name)).find(|name| !taken(name));
    Ok(free.context("all numbered names are taken; give one with --name")?.parse()?)
}

fn port_map(port: &uni_api::vm::PortMap) -> anyhow::Result<PortMap> {
    let addr = if port.host_addr.is_empty() { "127.0.0.1" } else { &port.host_addr };
    let proto = match port.protocol.as_str() {
        "tcp" | "" => Proto::Tcp,
        "udp" => Proto::Udp,
        other => bail!("port protocol {other:?}: tcp or udp"),
    };
    let addr = addr.parse().with_context(|| format!("port address {addr:?}"))?;
    Ok(PortMap { addr, host: port.host_port, guest: port.guest_port, proto })
}

/// QEMU would find out too, but its message names neither program nor flag.
fn port_is_free(port: &PortMap) -> anyhow::Result<()> {
    let address = (port.addr, port.host);
    let bound = match port.proto {
        Proto::Tcp => std::net::TcpListener::bind(address).map(drop),
        Proto::Udp => std::net::UdpSocket::bind(address).map(drop),
    };
    bound.with_context(|| {
        format!(
            "publish port {}:{}/{}: in use by another program, or not an address of this host; choose another with -p",
            port.addr, port.host, port.proto
        )
    })
}

/// A VM that ended before it settled: well, or with its last words.
async fn ended(vm: &Arc<Vm>) -> anyhow::Result<()> {
    vm.stored()?;
    let exit = vm.last_exit();
    if exit.as_ref().is_some_and(|exit| !exit.is_failure()) {
        return Ok(());
    }
    let how = exit.map_or_else(
        || "it ended at once".to_owned(),
        |exit: Exit| format!("the guest died at once: {exit}"),
    );
    let words = vm.last_words(LAST_WORDS_BYTES).await;
    if words.is_empty() { bail!("{how}") } else { bail!("{how}; its last console lines:\n{words}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_without_a_name_gets_its_images() {
        for (image, name) in [
            ("/a/http.elf", "http"),
            ("/a/My App.elf", "MyApp"),
            ("/a/.hidden", "hidden"),
            ("/a/___.img", FALLBACK_NAME),
            ("/a/é.img", FALLBACK_NAME),
        ] {
            assert_eq!(&*default_name(image), name, "{image}");
        }
    }

    #[test]
    fn numbered_names_skip_taken_ones() {
        let name = numbered(&"web".parse().unwrap(), |name| name == "web-2").unwrap();
        assert_eq!(&*name, "web-3");
    }
}
