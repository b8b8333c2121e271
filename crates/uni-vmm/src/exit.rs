//! How a VM ended: what the shim wrote down, and what it means.
//!
//! Owns the shape of `exit.json` and the reading of QEMU's exit status; waits for nothing.

use std::fmt;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::paths::EXIT_FILE;

/// What the shim saw, as written to `exit.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitReport {
    /// Which start of the VM ended.
    pub generation: u64,
    /// QEMU's exit status, if it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal that ended QEMU, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Why QEMU was never started, if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The end of what QEMU itself printed, bounded.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub qemu_message: String,
    /// When, in nanoseconds since 1970.
    pub at_unix_ns: u64,
}

/// What a VM's end means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// The guest turned the machine off (or reset it, or QMP `quit` was said): QEMU's status 0.
    PowerOff,
    /// The guest ended with this code by the debug-exit device, 0..=127.
    Code(u8),
    /// QEMU could not run it; the text is QEMU's or the shim's.
    HypervisorError(String),
    /// QEMU was ended by this signal.
    Signal(i32),
}

impl Exit {
    /// Reads a report. The debug-exit device makes QEMU's status `code * 2 + 1`; a status of 1 is code 0 if
    /// QEMU was silent, and QEMU's own failure if it printed why.
    #[must_use]
    pub fn of(report: &ExitReport) -> Self {
        if let Some(error) = &report.error {
            return Self::HypervisorError(error.clone());
        }
        match (report.code, report.signal) {
            (_, Some(signal)) => Self::Signal(signal),
            (Some(0), _) => Self::PowerOff,
            (Some(1), _) if !report.qemu_message.is_empty() => {
                Self::HypervisorError(report.qemu_message.clone())
            }
            (Some(code), _) => guest_code(code).map_or_else(|| unknown_status(code, report), Self::Code),
            (None, None) => Self::HypervisorError("the end was not recorded".to_owned()),
        }
    }

    /// Whether a restart policy `on-failure` would call it a failure.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        !matches!(self, Self::PowerOff | Self::Code(0))
    }
}

fn guest_code(status: i32) -> Option<u8> {
    u8::try_from(status).ok().filter(|status| status % 2 == 1).map(|status| status >> 1)
}

fn unknown_status(code: i32, report: &ExitReport) -> Exit {
    Exit::HypervisorError(
        format!("QEMU ended with status {code}. {}", report.qemu_message).trim_end().to_owned(),
    )
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => f.write_str("powered off"),
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::HypervisorError(message) => write!(f, "QEMU failed: {message}"),
            Self::Signal(9) => f.write_str("killed"),
            Self::Signal(signal) => write!(f, "QEMU was ended by signal {signal}"),
        }
    }
}

/// Reads `exit.json` in a VM's directory; nothing if the VM has not ended.
///
/// # Errors
/// The file is there and cannot be read or understood.
pub fn read(dir: &Path) -> io::Result<Option<ExitReport>> {
    match atomic::read(&dir.join(EXIT_FILE), 1 << 20) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: Option<i32>, signal: Option<i32>, message: &str) -> Exit {
        Exit::of(&ExitReport { code, signal, qemu_message: message.to_owned(), ..ExitReport::default() })
    }

    #[test]
    fn every_status_has_one_meaning() {
        assert_eq!(exit(Some(0), None, ""), Exit::PowerOff);
        assert_eq!(exit(Some(0), None, "warning"), Exit::PowerOff);
        assert_eq!(exit(Some(1), None, ""), Exit::Code(0));
        assert_eq!(exit(Some(1), None, "no such device"), Exit::HypervisorError("no such device".to_owned()));
        assert_eq!(exit(Some(129), None, "warning"), Exit::Code(64));
        assert_eq!(exit(Some(255), None, ""), Exit::Code(127));
        assert!(matches!(exit(Some(2), None, ""), Exit::HypervisorError(_)));
        assert_eq!(exit(None, Some(9), ""), Exit::Signal(9));
        assert!(matches!(exit(None, None, ""), Exit::HypervisorError(_)));
    }

    #[test]
    fn only_a_clean_end_is_no_failure() {
        assert!(!Exit::PowerOff.is_failure() && !Exit::Code(0).is_failure());
        assert!(Exit::Code(1).is_failure() && Exit::Signal(9).is_failure());
    }

    #[test]
    fn a_vm_that_has_not_ended_has_no_report() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        std::fs::write(dir.path().join(EXIT_FILE), "{").unwrap();
        assert!(read(dir.path()).is_err());
    }
}
