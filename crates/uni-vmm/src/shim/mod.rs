//! The shim: each VM's small parent process, and how the daemon starts it and finds it again.
//!
//! The shim owns QEMU's exit status, drains console and link mirrors into bounded files and outlives the
//! daemon. Daemon and shim share nothing but the VM's directory:
//!
//! | file | written by | holds |
//! |---|---|---|
//! | `launch.json` | daemon, before [`spawn`] | [`Launch`]: what to run |
//! | `shim.lock` | shim | flock held while it lives: a VM never runs twice |
//! | `run.json` | shim, once QEMU runs | [`RunInfo`]: who runs, told from later processes |
//! | `console.*.log`, `qemu.*.log` | shim | guest console, QEMU's own messages ([`crate::console`]) |
//! | `console.runs` | shim, before QEMU starts | where in the console each run begins ([`runs`]) |
//! | `links.bin` | shim | frame counters ([`crate::links`]) |
//! | `exit.json` | shim, last | [`crate::exit::ExitReport`] |
//!
//! This file owns those shapes and the daemon's side; `run` is the shim's side.

mod memory;
mod run;
pub mod runs;

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

pub use self::run::run;
use crate::atomic;
use crate::console;
pub use crate::exit::read as read_exit;
use crate::id::VmId;
pub use crate::links::read as read_links;
use crate::paths::{EXIT_FILE, LAUNCH_FILE, LOCK_FILE, RUN_FILE, SHIM_LOG_FILE};
use crate::process::{self, ProcessId};

/// How much of QEMU's own messages is kept, in bytes.
pub const DEFAULT_QEMU_LOG_BYTES: u64 = 256 * 1024;
/// The longest `launch.json`, in bytes.
const MAX_LAUNCH_BYTES: u64 = 4 << 20;

/// What the shim is to run, as in `launch.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Whose QEMU this is.
    pub id: VmId,
    /// Which start of this VM: grows by one each time, so that old files are not taken for new ones.
    pub generation: u64,
    /// The QEMU binary, absolute.
    pub program: PathBuf,
    /// Its arguments, for descriptors at [`crate::qemu::ShimFds::INHERITED`].
    pub argv: Vec<String>,
    /// The guest's environment ([`crate::qemu::environment_file`]); written to `env` when not empty.
    #[serde(default)]
    pub environment: String,
    /// How much console to keep, in bytes.
    pub console_limit_bytes: u64,
    /// How much of QEMU's own messages to keep, in bytes.
    pub qemu_log_limit_bytes: u64,
}

impl Launch {
    /// A launch with default limits.
    ///
    /// # Errors
    /// Gives an argument back that is not UTF-8 ([`crate::qemu::compose`] never makes one).
    pub fn new(
        id: VmId,
        generation: u64,
        program: PathBuf,
        argv: Vec<std::ffi::OsString>,
    ) -> Result<Self, std::ffi::OsString> {
        let argv = argv.into_iter().map(std::ffi::OsString::into_string).collect::<Result<_, _>>()?;
        Ok(Self {
            id,
            generation,
            program,
            argv,
            environment: String::new(),
            console_limit_bytes: console::DEFAULT_LIMIT_BYTES,
            qemu_log_limit_bytes: DEFAULT_QEMU_LOG_BYTES,
        })
    }

    /// Writes `launch.json` to `dir`, making the directory (0700) if need be. Removes what the last run left:
    /// its `run.json` and `exit.json`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        atomic::private_dir(dir)?;
        for stale in [RUN_FILE, EXIT_FILE] {
            remove_if_there(&dir.join(stale))?;
        }
        atomic::write_for_this_boot(dir, LAUNCH_FILE, &serde_json::to_vec_pretty(self)?)
    }

    /// Reads `launch.json` from `dir`.
    ///
    /// # Errors
    /// It is missing, too long or not understood.
    pub fn read(dir: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&atomic::read(&dir.join(LAUNCH_FILE), MAX_LAUNCH_BYTES)?)?)
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Who runs a VM, as in `run.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Which start of the VM.
    pub generation: u64,
    /// The boot during which the processes were started; pids mean nothing in another.
    pub boot_id: String,
    /// The shim.
    pub shim: ProcessId,
    /// QEMU.
    pub qemu: ProcessId,
}

impl RunInfo {
    /// Kills QEMU (SIGKILL), and only it; the shim then writes `exit.json` and ends.
    ///
    /// # Errors
    /// `NotFound` if it has ended, else what the kernel says.
    pub fn kill_qemu(&self) -> io::Result<()> {
        self.qemu.kill()
    }
}

/// Starts a shim for the VM whose `launch.json` is in `dir`: `unid_exe shim --id ID --dir DIR`, in a session
/// of its own, with nothing inherited. The caller waits for the child (or ends first: the shim goes on).
///
/// # Errors
/// The program cannot be started or the log not opened.
pub fn spawn(unid_exe: &Path, id: VmId, dir: &Path) -> io::Result<Child> {
    let log = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(dir.join(SHIM_LOG_FILE))?;
    let mut command = Command::new(unid_exe);
    command.arg0("unid").args(["shim", "--id", &id.to_string(), "--dir"]).arg(dir);
    // QEMU inherits this environment in turn: no secrets of the daemon's, and nothing that changes QEMU's
    // ways.
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("TMPDIR", dir).current_dir(dir);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn()
}

/// Reads `run.json`; nothing if QEMU was not started yet (or the start failed).
///
/// # Errors
/// It is there and cannot be read or understood.
pub fn read_run(dir: &Path) -> io::Result<Option<RunInfo>> {
    match atomic::read(&dir.join(RUN_FILE), 64 * 1024) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Finds the living shim of VM `id` by what `run.json` says: same boot, same pid and start time, the id on
/// its command line.
#[must_use]
pub fn find(dir: &Path, id: VmId) -> Option<RunInfo> {
    let info = read_run(dir).ok()??;
    let same_boot = process::boot_id().is_ok_and(|boot| boot == info.boot_id);
    let alive = same_boot && info.shim.is_alive() && info.shim.command_line_holds(&id.to_string());
    alive.then_some(info)
}

/// Whether a shim holds the VM's lock: it lives, even if `run.json` is not written yet.
#[must_use]
pub fn is_locked(dir: &Path) -> bool {
    let Ok(file) = OpenOptions::new().write(true).open(dir.join(LOCK_FILE)) else { return false };
    matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock))
}

/// The last `max` bytes that QEMU and the shim themselves printed, as text.
#[must_use]
pub fn messages(dir: &Path, max: usize) -> String {
    let qemu = console::Reader::tail(dir, console::QEMU, max).map(|piece| piece.bytes).unwrap_or_default();
    let shim = atomic::read(&dir.join(SHIM_LOG_FILE), 64 * 1024).unwrap_or_default();
    let text = [qemu, shim].concat();
    String::from_utf8_lossy(&text[text.len().saturating_sub(max)..]).trim().to_owned()
}
