//! A VM's limits on the host's processor and memory: its control group (cgroup v2, the kernel's
//! `Documentation/admin-guide/cgroup-v2.rst`).
//!
//! Owns the group `uni/<id>` below the root of the hierarchy. Never touches a group of anybody else, and knows nothing of
//! what runs in it but its pid.

use std::io;
use std::path::{Path, PathBuf};

use crate::id::VmId;
use crate::spec::Limits;

/// Where cgroup v2 is mounted. Hosts that keep v1 have it elsewhere, without the controllers that matter here.
const ROOT: &str = "/sys/fs/cgroup";
/// The group of all VMs.
const PARENT: &str = "uni";
/// What the limits need.
const CONTROLLERS: &str = "+cpu +memory";

/// The hierarchy of the host.
#[derive(Clone, Debug)]
pub struct Cgroups {
    root: PathBuf,
}

/// A group could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {value:?} to {}", path.display())]
pub struct CgroupError {
    path: PathBuf,
    value: String,
    #[source]
    source: io::Error,
}

impl Cgroups {
    /// The host's hierarchy; `None` where it has no cgroup v2, or keeps it beside v1.
    #[must_use]
    pub fn of_host() -> Option<Self> {
        Self::at(Path::new(ROOT))
    }

    fn at(root: &Path) -> Option<Self> {
        root.join("cgroup.controllers").exists().then(|| Self { root: root.to_path_buf() })
    }

    /// Puts the process into the VM's group under what `limits` says of processor and memory, making the group.
    ///
    /// # Errors
    /// Which file refused what; the process is in no group of ours then, or in one with fewer limits.
    pub fn apply(&self, id: VmId, limits: Limits, pid: u32) -> Result<(), CgroupError> {
        let parent = self.root.join(PARENT);
        let group = self.group(id);
        std::fs::create_dir_all(&group).map_err(|source| CgroupError {
            path: group.clone(),
            value: String::new(),
            source,
        })?;
        // controllers are handed down level by level: without this the group has no such files
        for level in [&self.root, &parent] {
            write(level.join("cgroup.subtree_control"), &CONTROLLERS)?;
        }
        if limits.cpu_weight > 0 {
            write(group.join("cpu.weight"), &limits.cpu_weight)?;
        }
        if limits.memory_max_bytes > 0 {
            write(group.join("memory.max"), &limits.memory_max_bytes)?;
        }
        write(group.join("cgroup.procs"), &pid)
    }

    /// Removes the group of a VM whose processes are gone; that there is none is no failure.
    ///
    /// # Errors
    /// What the kernel says, for example that something still runs in it.
    pub fn remove(&self, id: VmId) -> io::Result<()> {
        match std::fs::remove_dir(self.group(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn group(&self, id: VmId) -> PathBuf {
        self.root.join(PARENT).join(id.to_string())
    }
}

fn write(path: PathBuf, value: &impl std::fmt::Display) -> Result<(), CgroupError> {
    let value = value.to_string();
    // the kernel makes these files; one that is missing must not be made
    let file = std::fs::OpenOptions::new().write(true).open(&path);
    let written = file.and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
    written.map_err(|source| CgroupError { path, value, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "9f2c41d07ab3";

    /// A directory with the files that the kernel would make.
    fn hierarchy() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join(PARENT).join(ID);
        std::fs::create_dir_all(&group).unwrap();
        let files = ["cgroup.controllers", "cgroup.subtree_control", "uni/cgroup.subtree_control"];
        for file in files {
            std::fs::write(root.path().join(file), "").unwrap();
        }
        for file in ["cpu.weight", "memory.max", "cgroup.procs"] {
            std::fs::write(group.join(file), "").unwrap();
        }
        root
    }

    #[test]
    fn limits_are_written_before_the_process_is_moved() {
        let root = hierarchy();
        let limits = Limits { cpu_weight: 512, memory_max_bytes: 1 << 30, ..Limits::default() };
        Cgroups::at(root.path()).unwrap().apply(ID.parse().unwrap(), limits, 77).unwrap();
        let read = |file: &str| std::fs::read_to_string(root.path().join(file)).unwrap();
        assert_eq!(read("cgroup.subtree_control"), CONTROLLERS);
        assert_eq!(read("uni/cgroup.subtree_control"), CONTROLLERS);
        assert_eq!(read("uni/9f2c41d07ab3/cpu.weight"), "512");
        assert_eq!(read("uni/9f2c41d07ab3/memory.max"), "1073741824");
        assert_eq!(read("uni/9f2c41d07ab3/cgroup.procs"), "77");
    }

    #[test]
    fn a_controller_that_is_missing_is_named() {
        let root = hierarchy();
        std::fs::remove_file(root.path().join("uni/9f2c41d07ab3/cpu.weight")).unwrap();
        let limits = Limits { cpu_weight: 1, ..Limits::default() };
        let error = Cgroups::at(root.path()).unwrap().apply(ID.parse().unwrap(), limits, 1).unwrap_err();
        assert!(error.to_string().contains("cpu.weight"), "{error}");
        let procs = std::fs::read_to_string(root.path().join("uni/9f2c41d07ab3/cgroup.procs")).unwrap();
        assert_eq!(procs, "", "a process that could not be limited is not moved");
    }

    #[test]
    fn a_host_without_version_2_has_none_and_a_group_is_removed_once() {
        let root = tempfile::tempdir().unwrap();
        assert!(Cgroups::at(root.path()).is_none());
        let cgroups = Cgroups { root: root.path().to_path_buf() };
        let id: VmId = ID.parse().unwrap();
        std::fs::create_dir_all(cgroups.group(id)).unwrap();
        cgroups.remove(id).unwrap();
        cgroups.remove(id).unwrap();
        assert!(!cgroups.group(id).exists());
    }
}
