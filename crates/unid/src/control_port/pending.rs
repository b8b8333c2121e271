//! What brings a timed change of a VM's guest back after `unid` itself was gone: a small file in the VM's directory.
//!
//! Owns the file's shape and bounds. Written before the change is made and removed once it is undone, so that a daemon
//! that is killed in between leaves at most a file too many. A guest's token is never in it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use uni_api::guest::ControlKind;
use uni_vmm::atomic;
use uni_wire::control::MAX_LIMIT_SECONDS;

use super::restore::States;
use crate::clock;
use crate::vms::Vm;

/// A guest's list has at most 256 KiB; JSON quotes it.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// A change that ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    /// The run of the VM that it was made in; what later runs do is not its business.
    pub(super) generation: u64,
    /// When it ends. Milliseconds since 1970.
    pub(super) until_ms: i64,
    /// The command that made it, for the log.
    pub(super) command: String,
    /// What was in force before.
    pub(super) before: States,
}

impl Stored {
    /// A change made now that ends in `seconds`.
    pub(super) fn new(generation: u64, before: States, command: &str, seconds: u32) -> Self {
        let until_ms = now_ms() + i64::from(seconds) * 1000;
        Self { generation, until_ms, command: command.to_owned(), before }
    }

    /// How long until it ends. A clock that was set back makes nothing last for longer than a change can.
    pub(super) fn left(&self) -> Duration {
        let left = (self.until_ms - now_ms()).clamp(0, i64::from(MAX_LIMIT_SECONDS) * 1000);
        Duration::from_millis(left.unsigned_abs())
    }
}

fn now_ms() -> i64 {
    clock::now().nanos().div_euclid(1_000_000)
}

fn path(vm: &Vm, kind: ControlKind) -> PathBuf {
    vm.files().join(name(kind))
}

const fn name(kind: ControlKind) -> &'static str {
    match kind {
        ControlKind::Logs => "control-logs.json",
        ControlKind::Metrics => "control-metrics.json",
    }
}

/// Keeps `stored` for a daemon that comes back.
///
/// # Errors
/// When it is too long, or the disk does not take it.
pub(super) fn save(vm: &Vm, kind: ControlKind, stored: &Stored) -> anyhow::Result<()> {
    let text = serde_json::to_vec(stored)?;
    ensure!(text.len() as u64 <= MAX_FILE_BYTES, "its sources take more than {MAX_FILE_BYTES} bytes");
    tokio::task::block_in_place(|| atomic::write(vm.files(), name(kind), &text))
        .with_context(|| format!("keep in {} what is to come back", path(vm, kind).display()))
}

/// What an earlier daemon left to be undone in this run of the VM.
///
/// # Errors
/// When the file is there and cannot be read.
pub(super) fn load(vm: &Vm, kind: ControlKind) -> anyhow::Result<Option<Stored>> {
    let stored = read(&path(vm, kind))?;
    Ok(stored.filter(|stored| stored.generation == vm.generation()))
}

fn read(path: &Path) -> anyhow::Result<Option<Stored>> {
    match atomic::read(path, MAX_FILE_BYTES) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        read => Ok(Some(serde_json::from_slice(&read?)?)),
    }
}

/// Nothing is left to be undone.
pub(super) fn remove(vm: &Vm, kind: ControlKind) {
    let path = path(vm, kind);
    match tokio::task::block_in_place(|| std::fs::remove_file(&path)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            let (path, err) = (path.display().to_string(), error.to_string());
            tracing::warn!(path, err, "a restoration that is done cannot be forgotten");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_what_is_damaged_or_too_long_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("control-logs.json");
        assert_eq!(read(&file).unwrap(), None);
        let stored = Stored {
            generation: 3,
            until_ms: 1_763_741_000_000,
            command: "Moff".to_owned(),
            before: vec![("*".to_owned(), "enabled".to_owned()), ("a\"b".to_owned(), "disabled".to_owned())],
        };
        atomic::write(dir.path(), "control-logs.json", &serde_json::to_vec(&stored).unwrap()).unwrap();
        assert_eq!(read(&file).unwrap(), Some(stored));
        for damaged in ["", "{", "{\"generation\":1}", "[]", "null"] {
            std::fs::write(&file, damaged).unwrap();
            assert!(read(&file).is_err(), "{damaged:?}");
        }
        std::fs::write(&file, vec![b' '; usize::try_from(MAX_FILE_BYTES).unwrap() + 1]).unwrap();
        assert!(read(&file).is_err());
    }
}
