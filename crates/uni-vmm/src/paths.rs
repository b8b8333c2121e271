//! Where a VM's files are: the one place that names them.
//!
//! Owns file names and the check that socket paths fit; creates and opens nothing.

use std::path::{Path, PathBuf};

use crate::id::VmId;

/// The longest path a Unix socket may have, in bytes (`sun_path` of unix(7) is 108 with its final NUL).
pub const SOCKET_PATH_MAX: usize = 107;

/// The files of one VM, all inside `<state>/vms/<id>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    id: VmId,
    dir: PathBuf,
}

/// Why a state directory cannot hold VMs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathsError {
    /// The sockets inside would have names longer than the kernel takes.
    #[error(
        "state directory {} is too long: the socket path {} would have {len} bytes and Unix sockets take at most \
         {SOCKET_PATH_MAX}; choose a shorter --state-dir", state_dir.display(), socket.display()
    )]
    TooLong {
        /// The directory given.
        state_dir: PathBuf,
        /// The longest socket path in it.
        socket: PathBuf,
        /// That path's bytes.
        len: usize,
    },
    /// A relative directory would mean another place to QEMU.
    #[error("state directory {} is not an absolute path: give it from the root", .0.display())]
    Relative(PathBuf),
    /// A path that cannot be written into QEMU options.
    #[error("state directory {} holds a newline, a NUL or bytes that are not UTF-8: choose another", .0.display())]
    Unprintable(PathBuf),
}

impl Paths {
    /// The files of VM `id` below the absolute directory `state_dir`.
    ///
    /// # Errors
    /// Early and clear, rather than from QEMU later: relative, unprintable or too long for a Unix socket.
    pub fn new(state_dir: &Path, id: VmId) -> Result<Self, PathsError> {
        let paths = Self { id, dir: state_dir.join("vms").join(id.to_string()) };
        if !state_dir.is_absolute() {
            return Err(PathsError::Relative(state_dir.to_owned()));
        }
        match state_dir.to_str() {
            Some(text) if !text.contains(['\n', '\0']) => {}
            _ => return Err(PathsError::Unprintable(state_dir.to_owned())),
        }
        let socket = paths.management();
        let len = socket.as_os_str().len();
        if len > SOCKET_PATH_MAX {
            return Err(PathsError::TooLong { state_dir: state_dir.to_owned(), socket, len });
        }
        Ok(paths)
    }

    /// Whose files these are.
    #[must_use]
    pub fn id(&self) -> VmId {
        self.id
    }

    /// The VM's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// QEMU's control socket.
    #[must_use]
    pub fn qmp(&self) -> PathBuf {
        self.dir.join("qmp.sock")
    }

    /// The management link's socket; QEMU listens.
    #[must_use]
    pub fn management(&self) -> PathBuf {
        self.dir.join("mgmt.sock")
    }

    /// The file with the guest's environment, for images that read it by fw_cfg.
    #[must_use]
    pub fn env(&self) -> PathBuf {
        self.dir.join(ENV_FILE)
    }
}

/// What the shim is to run.
pub const LAUNCH_FILE: &str = "launch.json";
/// Who runs: shim and QEMU by pid and start time.
pub const RUN_FILE: &str = "run.json";
/// How QEMU ended.
pub const EXIT_FILE: &str = "exit.json";
/// Holds a block of the disk while the VM runs, given up for [`EXIT_FILE`] in case the disk is full.
pub const RESERVE_FILE: &str = "exit.reserve";
/// Frame counters per link and direction.
pub const LINKS_FILE: &str = "links.bin";
/// Where in the console each run begins ([`crate::shim::runs`]).
pub const RUNS_FILE: &str = "console.runs";
/// The stored record.
pub const STATE_FILE: &str = "state.json";
/// Held (flock) by the living shim.
pub const LOCK_FILE: &str = "shim.lock";
/// The shim's own complaints.
pub const SHIM_LOG_FILE: &str = "shim.log";
/// The guest's environment.
pub const ENV_FILE: &str = "env";
/// Names of the sockets QEMU makes, removed before each start.
pub const SOCKET_FILES: [&str; 2] = ["qmp.sock", "mgmt.sock"];

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> VmId {
        VmId::from_random([1; 6])
    }

    #[test]
    fn a_state_directory_too_long_for_sockets_is_refused_with_a_hint() {
        let long = PathBuf::from(format!("/{}", "x".repeat(90)));
        let error = Paths::new(&long, id()).unwrap_err();
        assert!(error.to_string().contains("--state-dir"), "{error}");
        let fits = PathBuf::from(format!(
            "/{}",
            "x".repeat(SOCKET_PATH_MAX - 1 - "/vms/010101010101/mgmt.sock".len())
        ));
        assert_eq!(Paths::new(&fits, id()).unwrap().management().as_os_str().len(), SOCKET_PATH_MAX);
    }

    #[test]
    fn relative_and_unprintable_directories_are_refused() {
        assert!(matches!(Paths::new(Path::new("state"), id()), Err(PathsError::Relative(_))));
        assert!(matches!(Paths::new(Path::new("/a\nb"), id()), Err(PathsError::Unprintable(_))));
    }
}
