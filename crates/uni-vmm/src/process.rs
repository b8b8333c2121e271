//! Processes by a name that cannot be mistaken: pid, start time and boot.
//!
//! Owns reading `/proc/PID/stat` and signalling through a pidfd, so that a reused pid is never touched.
//! Starts nothing.

use std::io;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::atomic;

/// A process that can be told from every later one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid.
    pub pid: u32,
    /// Its start time: clock ticks after boot, field 22 of `/proc/PID/stat` (proc_pid_stat(5)).
    pub start_ticks: u64,
}

impl ProcessId {
    /// The process that has `pid` now.
    ///
    /// # Errors
    /// There is none.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = atomic::read(Path::new(&format!("/proc/{pid}/stat")), 4096)?;
        let start_ticks = parse_start_ticks(&stat).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is not understood"))
        })?;
        Ok(Self { pid, start_ticks })
    }

    /// Whether it is still there; one that has ended but was not waited for is not.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).is_ok_and(|found| found == *self) && !self.is_zombie()
    }

    fn is_zombie(&self) -> bool {
        let stat = atomic::read(Path::new(&format!("/proc/{}/stat", self.pid)), 4096).unwrap_or_default();
        matches!(fields_after_name(&stat).next(), Some("Z" | "X") | None)
    }

    /// Whether its command line holds `text`.
    #[must_use]
    pub fn command_line_holds(&self, text: &str) -> bool {
        let path = format!("/proc/{}/cmdline", self.pid);
        let line = atomic::read(Path::new(&path), 1 << 20).unwrap_or_default();
        !text.is_empty() && line.windows(text.len()).any(|window| window == text.as_bytes())
    }

    /// Sends a signal to this process and no other: the pidfd is opened first, then the start time compared.
    ///
    /// # Errors
    /// `NotFound` if it is gone, else what the kernel says.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, format!("process {} has ended", self.pid));
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| match error {
            rustix::io::Errno::SRCH => gone(),
            other => other.into(),
        })?;
        if Self::of(self.pid).ok() != Some(*self) {
            return Err(gone());
        }
        Ok(pidfd_send_signal(pidfd, signal)?)
    }

    /// Ends it at once (SIGKILL).
    ///
    /// # Errors
    /// As [`ProcessId::signal`].
    pub fn kill(&self) -> io::Result<()> {
        self.signal(Signal::KILL)
    }
}

/// The kernel's id of this boot, from `/proc/sys/kernel/random/boot_id`.
///
/// # Errors
/// `/proc` is not mounted.
pub fn boot_id() -> io::Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(text.trim().to_owned())
}

/// The fields after the name. The name is in parentheses and may hold both blanks and parentheses, so its end
/// is the *last* one.
fn fields_after_name(stat: &[u8]) -> impl Iterator<Item = &str> {
    let end = stat.iter().rposition(|&byte| byte == b')').map_or(stat.len(), |at| at + 1);
    std::str::from_utf8(&stat[end..]).unwrap_or_default().split_ascii_whitespace()
}

/// Field 22, the start time: the twentieth after the name.
fn parse_start_ticks(stat: &[u8]) -> Option<u64> {
    fields_after_name(stat).nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn names_with_blanks_and_parentheses_do_not_shift_fields() {
        let stat = b"7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21";
        assert_eq!(parse_start_ticks(stat), Some(4242));
        assert_eq!(parse_start_ticks(b"7 (a"), None);
        assert_eq!(parse_start_ticks(b""), None);
    }

    #[test]
    fn only_the_very_process_is_killed() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let id = ProcessId::of(child.id()).unwrap();
        // A new program's command line appears a moment after its start.
        while !id.command_line_holds("60") {
            std::thread::yield_now();
        }
        assert!(id.is_alive() && id.command_line_holds("sleep") && !id.command_line_holds("wake"));
        let other = ProcessId { start_ticks: id.start_ticks + 1, ..id };
        assert_eq!(other.kill().unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(id.is_alive() && !other.is_alive());
        id.kill().unwrap();
        child.wait().unwrap();
        assert!(!id.is_alive());
        assert_eq!(id.kill().unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
