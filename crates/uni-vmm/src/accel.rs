//! Whether QEMU can use KVM on this machine, found out by letting QEMU try.
//!
//! `/dev/kvm` may open, create a VM and even run a vCPU by hand, and still end QEMU at once. So the probe is
//! QEMU itself, with the machine type to be used and a ten-instruction kernel that exits with a known status.
//! Owns the probe and its cache file.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::elf;
use crate::qemu::QemuMissing;
use crate::spec::Machine;

/// How long the probe may take.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// The code the probe kernel ends with, and so QEMU's status.
const PROBE_CODE: u8 = 42;
const PROBE_STATUS: i32 = (PROBE_CODE as i32) * 2 + 1;
const CACHE_FILE: &str = "accel.json";
const IMAGE_FILE: &str = "accel-probe.elf";
/// The most answers kept; older ones go first.
const MAX_CACHED: usize = 16;
/// How much of what QEMU printed goes into a reason, in bytes.
const MESSAGE_BYTES: u64 = 4096;

/// How guest instructions are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// By the processor, through the kernel.
    Kvm,
    /// By QEMU's translator, in software.
    Tcg,
}

/// What was decided and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What to use.
    pub accel: Accel,
    /// Why, for people.
    pub reason: String,
    /// Whether this was found out earlier in this boot.
    pub cached: bool,
}

/// Why nothing could be decided.
#[derive(Debug, thiserror::Error)]
pub enum AccelError {
    /// No QEMU to ask.
    #[error(transparent)]
    QemuMissing(#[from] QemuMissing),
    /// The probe's files could not be written or QEMU not started.
    #[error("cannot probe QEMU's accelerators in {}", dir.display())]
    Io {
        /// The cache directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What an answer holds for: the binary as it is now, this boot, this machine type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    qemu: PathBuf,
    mtime_s: i64,
    mtime_ns: i64,
    bytes: u64,
    boot_id: String,
    machine: Machine,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    key: Key,
    accel: Accel,
    reason: String,
}

/// Decides between KVM and TCG for `machine`, with the QEMU binary at the absolute path `qemu`. Takes up to
/// [`PROBE_TIMEOUT`] the first time after a boot; the answer is kept in `cache_dir`, which is made if need
/// be.
///
/// # Errors
/// QEMU is missing, or the probe could not be made at all. A probe that fails is no error but an answer: TCG.
pub fn probe(qemu: &Path, machine: Machine, cache_dir: &Path, boot_id: &str) -> Result<Decision, AccelError> {
    let metadata = std::fs::metadata(qemu).map_err(|_| QemuMissing(qemu.to_owned()))?;
    // Looked at each time: it is cheap, and permissions change without a reboot.
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        return Ok(Decision {
            accel: Accel::Tcg,
            reason: format!("/dev/kvm cannot be opened: {error}"),
            cached: false,
        });
    }
    let key = Key {
        qemu: qemu.to_owned(),
        mtime_s: metadata.mtime(),
        mtime_ns: metadata.mtime_nsec(),
        bytes: metadata.len(),
        boot_id: boot_id.to_owned(),
        machine,
    };
    let failed = |source| AccelError::Io { dir: cache_dir.to_owned(), source };
    atomic::private_dir(cache_dir).map_err(failed)?;
    let mut entries = read_cache(cache_dir);
    if let Some(Entry { accel, reason, .. }) = entries.iter().find(|entry| entry.key == key) {
        return Ok(Decision { accel: *accel, reason: reason.clone(), cached: true });
    }
    let (accel, reason) = ask_qemu(qemu, machine, cache_dir).map_err(failed)?;
    entries.retain(|entry| entry.key.boot_id == key.boot_id);
    entries.insert(0, Entry { key, accel, reason: reason.clone() });
    entries.truncate(MAX_CACHED);
    write_cache(cache_dir, &entries).map_err(failed)?;
    Ok(Decision { accel, reason, cached: false })
}

/// A damaged cache is an empty one: the probe is made again.
fn read_cache(dir: &Path) -> Vec<Entry> {
    let text = atomic::read(&dir.join(CACHE_FILE), 1 << 20).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn write_cache(dir: &Path, entries: &[Entry]) -> io::Result<()> {
    atomic::write_for_this_boot(dir, CACHE_FILE, &serde_json::to_vec_pretty(entries)?)
}

fn ask_qemu(qemu: &Path, machine: Machine, dir: &Path) -> io::Result<(Accel, String)> {
    atomic::write_for_this_boot(dir, IMAGE_FILE, &elf::exit_image(PROBE_CODE))?;
    let mut command = Command::new(qemu);
    command.args(["-M", machine.qemu_name(), "-accel", "kvm", "-cpu", "max", "-m", "16"]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel"]).arg(dir.join(IMAGE_FILE));
    command.env_clear().current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let status = wait_or_kill(&mut child, PROBE_TIMEOUT)?;
    let message = child.stderr.take().map(printed).unwrap_or_default();
    Ok(judge(status, &message))
}

/// What is in the pipe now. Not more: a wrapper script around QEMU may leave a child that holds the pipe
/// open.
fn printed(stderr: ChildStderr) -> String {
    let mut bytes = Vec::new();
    if rustix::io::ioctl_fionbio(&stderr, true).is_ok() {
        // Ends with an error where the pipe is empty but not closed; what came before is kept.
        let _ = stderr.take(MESSAGE_BYTES).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn wait_or_kill(child: &mut Child, timeout: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn judge(status: Option<ExitStatus>, message: &str) -> (Accel, String) {
    let said = message.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing was printed").trim();
    match status {
        Some(status) if status.code() == Some(PROBE_STATUS) => {
            (Accel::Kvm, "KVM works: QEMU ran a probe kernel with it".to_owned())
        }
        Some(status) => {
            (Accel::Tcg, format!("KVM does not work: QEMU ended with {status} on a probe kernel: {said}"))
        }
        None => {
            let seconds = PROBE_TIMEOUT.as_secs();
            (Accel::Tcg, format!("KVM does not work: QEMU hung for {seconds} s on a probe kernel: {said}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn exit_status(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    #[test]
    fn only_the_probes_own_status_means_kvm() {
        assert_eq!(judge(Some(exit_status(PROBE_STATUS)), "warning").0, Accel::Kvm);
        for status in [Some(exit_status(0)), Some(exit_status(1)), Some(ExitStatus::from_raw(6)), None] {
            let (accel, reason) = judge(status, "\nqemu: failed to set MSR 0x10a\nmore");
            assert_eq!(accel, Accel::Tcg);
            assert!(reason.contains("failed to set MSR 0x10a") && !reason.contains("more"), "{reason}");
        }
    }

    /// A stand-in for QEMU that counts how often it was started.
    fn stand_in(dir: &Path, script: &str) -> PathBuf {
        let path = dir.join("qemu");
        std::fs::write(&path, format!("#!/bin/sh\necho x >> {}/starts\n{script}\n", dir.display())).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn starts(dir: &Path) -> usize {
        std::fs::read_to_string(dir.join("starts")).unwrap_or_default().lines().count()
    }

    #[test]
    fn an_answer_holds_for_one_binary_boot_and_machine() {
        if OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
            println!("skipped: /dev/kvm cannot be opened, so QEMU is never asked");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let qemu = stand_in(dir, "exit 85");
        let ask = |machine, boot| probe(&qemu, machine, &dir.join("cache"), boot).unwrap();
        let first = ask(Machine::Microvm, "a");
        assert_eq!((first.accel, first.cached), (Accel::Kvm, false));
        let second = ask(Machine::Microvm, "a");
        assert_eq!((second.accel, second.cached, second.reason), (Accel::Kvm, true, first.reason));
        assert_eq!(starts(dir), 1);
        assert!(!ask(Machine::Q35, "a").cached);
        assert!(!ask(Machine::Pc, "a").cached);
        assert!(!ask(Machine::Pc, "b").cached);
        std::fs::write(dir.join("cache").join(CACHE_FILE), "damaged").unwrap();
        assert!(!ask(Machine::Pc, "b").cached);
        stand_in(dir, "exit 1 # another");
        let changed = ask(Machine::Pc, "b");
        assert_eq!((changed.accel, changed.cached), (Accel::Tcg, false));
    }

    #[test]
    fn a_probe_that_hangs_is_killed() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(wait_or_kill(&mut child, Duration::from_millis(20)).unwrap().is_none());
        assert!(child.try_wait().unwrap().is_some());
    }

    #[test]
    fn without_qemu_the_error_says_how_to_get_it() {
        let dir = tempfile::tempdir().unwrap();
        let error = probe(Path::new("/nonexistent/qemu"), Machine::Microvm, dir.path(), "b").unwrap_err();
        assert!(error.to_string().contains("apt-get install qemu-system-x86"), "{error}");
    }
}
