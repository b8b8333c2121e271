//! A VM's processes: starting the shim, learning that QEMU lives and that it ended, pressing the power button.
//!
//! Owns the tasks that wait for processes, and the record's conversions. Every outcome goes back to the VM as an
//! event of the start it belongs to.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use uni_api::vm::{PortMap, VmDetail};
use uni_vmm::accel::{Accel, Decision};
use uni_vmm::cgroup::Cgroups;
use uni_vmm::exit::Exit;
use uni_vmm::id::VmId;
use uni_vmm::image::{self, Image};
use uni_vmm::machine::{Event, Injection, Machine, State};
use uni_vmm::qemu::{self, ShimFds};
use uni_vmm::record::{Config, Record};
use uni_vmm::shim::{self, Launch, RunInfo};
use uni_vmm::spec::Spec;
use uni_vmm::{inject, qmp};
use uni_wire::Timestamp;

use super::{Vm, secrets};
use crate::clock;

/// How often a start looks whether QEMU lives.
const START_LOOK: Duration = Duration::from_millis(1);
/// A shim that has neither a QEMU nor an end to show by then has failed.
const START_TIME: Duration = Duration::from_secs(10);
/// A whole exchange with QEMU's control socket.
const QMP_TIME: Duration = Duration::from_secs(3);
/// A press is lost on q35 (and pc) while the guest does not listen for it yet: it is repeated until the VM is down.
const PRESS_AGAIN: Duration = Duration::from_millis(500);
/// Between two tries to reach a control socket that QEMU is only about to make.
const QMP_RETRY: Duration = Duration::from_millis(20);
/// Between two tries to write a record that could not be written.
const SAVE_AGAIN: Duration = Duration::from_secs(5);
/// Used when a pid cannot be watched (a kernel without pidfd): how often to look.
const PID_LOOK: Duration = Duration::from_millis(200);

/// Starts the shim for one generation and sees the VM through to its end.
pub(super) async fn start(vm: Arc<Vm>, generation: u64, injection: Injection, image: Option<Image>) {
    let starting = {
        let vm = Arc::clone(&vm);
        tokio::task::spawn_blocking(move || spawn_shim(&vm, generation, injection, image)).await
    };
    let child = match starting.map_err(anyhow::Error::new).and_then(|child| child) {
        Ok(child) => child,
        Err(error) => {
            let reason = format!("{error:#}");
            let _ = vm.apply(Event::SpawnFailed { generation, reason });
            return;
        }
    };
    let mut child = Some(child);
    match until_alive(vm.paths.dir(), generation, &mut child).await {
        Some(run) => {
            vm.set_run(run.clone());
            limit(&vm, run.qemu.pid);
            let _ = vm.apply(Event::Started { generation });
            until_gone(run.shim.pid).await;
        }
        None => tracing::warn!(vm_id = vm.id(), "the shim ended before QEMU lived"),
    }
    reap(child).await;
    unlimit(&vm);
    let _ = vm.apply(Event::Exited { generation, exit: end_of_shim(vm.paths.dir(), generation) });
}

/// Puts QEMU under its limits. Where that cannot be, the VM runs without them, and the log says so.
fn limit(vm: &Vm, pid: u32) {
    let limits = vm.spec.limits;
    if !limits.wants_group() {
        return;
    }
    let Some(cgroups) = Cgroups::of_host() else {
        let (weight, bytes) = (limits.cpu_weight, limits.memory_max_bytes);
        let message = "qemu start: cgroup v2 not available, skipping resource limits";
        tracing::warn!(vm_id = vm.id(), vm = vm.name(), weight, bytes, "{message}");
        return;
    };
    if let Err(error) = cgroups.apply(vm.vm_id(), limits, pid) {
        let err = format!("{:#}", anyhow::Error::new(error));
        tracing::warn!(vm_id = vm.id(), vm = vm.name(), pid, err, "qemu start: cgroup apply failed");
    }
}

/// Removes the group of a VM whose processes are gone.
fn unlimit(vm: &Vm) {
    let Some(cgroups) = Cgroups::of_host().filter(|_| vm.spec.limits.wants_group()) else { return };
    if let Err(error) = cgroups.remove(vm.vm_id()) {
        tracing::warn!(vm_id = vm.id(), err = error.to_string(), "remove the VM's control group");
    }
}

/// Composes the command line, writes it where the shim reads it, starts the shim.
fn spawn_shim(vm: &Vm, generation: u64, injection: Injection, image: Option<Image>) -> anyhow::Result<Child> {
    // else a returning unid would not look for this QEMU
    vm.stored()?;
    let image = image.map_or_else(|| image::detect(&vm.spec.image), Ok)?;
    let detail = vm.detail();
    let accel = if detail.accelerator == "kvm" { Accel::Kvm } else { Accel::Tcg };
    let args = guest_args(&vm.spec, injection);
    let mut argv = qemu::compose(&vm.spec, &args, &image, &vm.paths, accel, &ShimFds::INHERITED)?;
    // QEMU's clock chip begins a second when the machine starts; told the true time, guests are not up to 1 s late
    argv.extend(["-fw_cfg".into(), format!("name=opt/uni/start-ns,string={}", clock::now().nanos()).into()]);
    let program = qemu::resolve(&vm.context.qemu, std::env::var_os("PATH").as_deref())?;
    let mut launch = Launch::new(vm.vm_id(), generation, program, argv)
        .map_err(|argument| anyhow::anyhow!("QEMU argument {argument:?} is not UTF-8"))?;
    launch.environment = qemu::environment_file(&vm.spec);
    launch.write(vm.paths.dir()).with_context(|| format!("write to {}", vm.paths.dir().display()))?;
    shim::spawn(&vm.context.unid, vm.vm_id(), vm.paths.dir()).context("start the VM's shim")
}

fn guest_args(spec: &Spec, injection: Injection) -> Vec<String> {
    let mut args = match injection {
        Injection::With => inject::arguments(spec),
        Injection::Without => Vec::new(),
    };
    args.extend_from_slice(&spec.args);
    args
}

/// Waits for this start's `run.json`; nothing if the shim ended without one.
async fn until_alive(dir: &Path, generation: u64, child: &mut Option<Child>) -> Option<RunInfo> {
    let start = Instant::now();
    loop {
        let ended = child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
        // read after looking at the child: what it wrote before its end is seen
        if let Ok(Some(run)) = shim::read_run(dir)
            && run.generation == generation
        {
            return Some(run);
        }
        if ended || start.elapsed() > START_TIME {
            return None;
        }
        tokio::time::sleep(START_LOOK).await;
    }
}

/// Waits until a process has ended, whoever its parent is.
async fn until_gone(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let watched =
        pid.and_then(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK).ok()).and_then(|fd| async_fd(fd).ok());
    match watched {
        // readable once the process has ended (pidfd_open(2))
        Some(fd) => drop(fd.readable().await),
        None => {
            while pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok()) {
                tokio::time::sleep(PID_LOOK).await;
            }
        }
    }
}

fn async_fd(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned, so it stays open and ours for as long as it is registered.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(Into::into)
}

/// Takes the exit status of a shim of our own, so that it is no zombie.
async fn reap(child: Option<Child>) {
    if let Some(mut child) = child {
        let _ = tokio::task::spawn_blocking(move || child.wait()).await;
    }
}

/// Sees a VM that was taken over through to its end.
pub(super) async fn watch_adopted(vm: Arc<Vm>, run: RunInfo) {
    until_gone(run.shim.pid).await;
    unlimit(&vm);
    let exit = end_of_shim(vm.paths.dir(), run.generation);
    let _ = vm.apply(Event::Exited { generation: run.generation, exit });
}

/// A shim that was only just started when the last daemon died shows soon who it runs, or is gone.
pub(super) async fn until_shim_settles(dir: &Path) {
    let start = Instant::now();
    while shim::is_locked(dir) && !matches!(shim::read_run(dir), Ok(Some(_))) && start.elapsed() < START_TIME
    {
        tokio::time::sleep(PID_LOOK).await;
    }
}

/// How and when the shim of this start says that it ended; nothing if it says nothing.
pub(super) fn recorded_end(dir: &Path, generation: u64) -> Option<(Exit, Option<Timestamp>)> {
    match shim::read_exit(dir) {
        // 0: the shim did not come as far as to learn its number
        Ok(Some(report)) if report.generation == generation || report.generation == 0 => {
            Some((Exit::of(&report), i64::try_from(report.at_unix_ns).ok().map(Timestamp)))
        }
        Ok(_) => None,
        Err(error) => {
            let text = format!("the end was recorded, but cannot be read: {error}");
            Some((Exit::HypervisorError(text), None))
        }
    }
}

/// The end of a shim that was seen to end.
fn end_of_shim(dir: &Path, generation: u64) -> Exit {
    let silent = || Exit::HypervisorError("the shim ended without a word".to_owned());
    recorded_end(dir, generation).map_or_else(silent, |(exit, _)| exit)
}

/// Writes a record that could not be written as soon as it can be.
pub(super) async fn save_again(vm: Arc<Vm>) {
    loop {
        tokio::time::sleep(SAVE_AGAIN).await;
        if !vm.save_again() {
            return;
        }
    }
}

/// Presses the power button until the VM is down, or has another end than by its button.
pub(super) async fn power_down(vm: Arc<Vm>, generation: u64) {
    if let Err(error) = press_power_button(&vm).await {
        let err = format!("{error:#}");
        tracing::warn!(vm_id = vm.id(), err, "press the power button; QEMU is killed instead");
        let _ = vm.apply(Event::PowerDownFailed { generation });
        return;
    }
    loop {
        tokio::time::sleep(PRESS_AGAIN).await;
        if vm.machine_state() != State::Stopping {
            return;
        }
        // a failure means that QEMU is going; if it is not, the stop's deadline ends it
        let _ = press_power_button(&vm).await;
    }
}

/// Presses once, for which QEMU's control socket may need a moment.
async fn press_power_button(vm: &Vm) -> anyhow::Result<()> {
    let path = vm.paths.qmp();
    let pressing = tokio::task::spawn_blocking(move || {
        let deadline = Instant::now() + QMP_TIME;
        loop {
            let pressed =
                qmp::Client::connect(&path, deadline).and_then(|mut qemu| qemu.system_powerdown(deadline));
            match pressed {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() + QMP_RETRY > deadline => return Err(error),
                Err(_) => std::thread::sleep(QMP_RETRY),
            }
        }
    });
    Ok(pressing.await??)
}

/// Reports that the time a stop was given is over.
pub(super) async fn deadline(vm: Arc<Vm>, generation: u64, time: Duration) {
    tokio::time::sleep(time).await;
    let _ = vm.apply(Event::DeadlinePassed { generation });
}

/// The record of a VM that is being made.
pub(super) fn new_record(
    id: VmId,
    spec: &Spec,
    machine: &Machine,
    accel: Decision,
    now: Timestamp,
) -> Record {
    Record {
        id,
        config: Config::of(spec),
        lifecycle: machine.to_stored(),
        created_at: record_time(now),
        started_at: None,
        stopped_at: None,
        daemon_recovered: false,
        health_status: String::new(),
        restart_count: 0,
        pid: 0,
        stop_seconds: None,
        accel: Some(accel.accel),
        accel_reason: accel.reason,
    }
}

/// A time as records have it: RFC 3339 with fractional seconds.
pub(super) fn record_time(time: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(time.nanos()))
        .map(|time| time.to_string())
        .unwrap_or_default()
}

/// The same with whole seconds, as answers have it; empty when it is none.
pub(super) fn answer_time(text: Option<&str>) -> String {
    let time = text.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    time.map_or_else(String::new, |time| format!("{time:.0}"))
}

/// A VM's detail from what is known of it.
pub(super) fn detail(spec: &Spec, record: &Record, machine: &Machine, run: Option<&RunInfo>) -> VmDetail {
    let exit = machine.last_exit();
    VmDetail {
        id: record.id.to_string(),
        state: machine.state().as_str().to_owned(),
        image: record.config.image_path.clone(),
        name: record.config.name.clone(),
        original_name: record.config.original_name().unwrap_or_default().to_owned(),
        memory: record.config.memory.clone(),
        cpus: record.config.cpus,
        ports: spec.ports.iter().map(port).collect(),
        args: spec.args.clone(),
        added_args: match machine.injection() {
            Injection::With => inject::arguments(spec),
            Injection::Without => Vec::new(),
        },
        env: spec.env.iter().map(|entry| secrets::shown(entry)).collect(),
        created_at: answer_time(Some(&record.created_at)),
        started_at: answer_time(record.started_at.as_deref()),
        stopped_at: answer_time(record.stopped_at.as_deref()),
        daemon_recovered: record.daemon_recovered,
        health: record.health_status.clone(),
        restart_count: record.restart_count,
        restart_policy: record.config.restart["Policy"].as_str().unwrap_or_default().to_owned(),
        ip_address: record.config.ip_address.clone(),
        gateway_ip: record.config.gateway_ip.clone(),
        cpu_shares: record.config.cpu_shares,
        memory_max: record.config.memory_max.unsigned_abs(),
        disk_iops: record.config.disk_iops,
        disk_bps: record.config.disk_bps.unsigned_abs(),
        machine: spec.machine.qemu_name().to_owned(),
        accelerator: match record.accel {
            Some(Accel::Kvm) => "kvm".to_owned(),
            Some(Accel::Tcg) => "tcg".to_owned(),
            None => String::new(),
        },
        accelerator_reason: record.accel_reason.clone(),
        pid: run.map(|run| run.qemu.pid),
        shim_pid: run.map(|run| run.shim.pid),
        exit: exit.map(ToString::to_string).unwrap_or_default(),
        exit_code: match exit {
            Some(Exit::Code(code)) => Some(i32::from(*code)),
            Some(Exit::PowerOff) => Some(0),
            _ => None,
        },
        record_error: String::new(),
    }
}

fn port(port: &uni_vmm::spec::PortMap) -> PortMap {
    PortMap {
        host_addr: port.addr.to_string(),
        host_port: port.host,
        guest_port: port.guest,
        protocol: port.proto.to_string(),
    }
}
