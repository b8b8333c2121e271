//! Where in a VM's console each of its runs begins, so that one run can be read alone.
//!
//! Owns `console.runs` in the VM's directory: a JSON array, one entry for each start of QEMU, oldest first, at
//! most [`MAX_RUNS`] of them. The shim adds an entry before it starts QEMU; readers never write.

use std::io;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::paths::RUNS_FILE;

/// Runs remembered; older ones are forgotten, their console may still be kept.
pub const MAX_RUNS: usize = 100;
/// The longest file: an entry takes at most 120 bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// One run of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Which start of the VM, counted from 1: the launch's generation.
    pub number: u64,
    /// Where its console begins, in bytes since the VM's creation.
    pub console_offset: u64,
    /// When QEMU was started, nanoseconds since the Unix epoch.
    pub started_unix_ns: u64,
}

/// Which run is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one started last, whether it has ended or not.
    Last,
    /// The one before it.
    Previous,
    /// The one of that number.
    Number(u64),
}

/// A text that names no run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("run {0:?}: give a number from 1, `last` or `previous`")]
pub struct NotARun(String);

impl FromStr for Which {
    type Err = NotARun;

    fn from_str(text: &str) -> Result<Self, NotARun> {
        match text {
            "last" => Ok(Self::Last),
            "previous" => Ok(Self::Previous),
            _ => match text.parse() {
                Ok(number @ 1..) => Ok(Self::Number(number)),
                _ => Err(NotARun(text.to_owned())),
            },
        }
    }
}

/// Where one run's console is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The run's number.
    pub number: u64,
    /// Its first byte.
    pub start: u64,
    /// Where the next run begins; nothing for the last run.
    pub end: Option<u64>,
}

/// Why a run cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The file cannot be read or understood.
    #[error("cannot read {RUNS_FILE} of the VM: {0}")]
    Unreadable(#[from] io::Error),
    /// No such run was recorded, or it was forgotten.
    #[error("there is no run {wanted}: {known}")]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: String,
    },
}

/// Reads the runs of the VM whose files are in `dir`, oldest first; none before its first start.
///
/// # Errors
/// The file is there and cannot be read or understood.
pub fn read(dir: &Path) -> io::Result<Vec<Run>> {
    match atomic::read(&dir.join(RUNS_FILE), MAX_FILE_BYTES) {
        Ok(text) => Ok(serde_json::from_slice(&text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Finds the console of one run of the VM whose files are in `dir`.
///
/// # Errors
/// The runs cannot be read, or there is none such; the message says which there are.
pub fn find(dir: &Path, which: Which) -> Result<Stretch, FindError> {
    let runs = read(dir)?;
    stretch(&runs, which).ok_or_else(|| unknown(&runs, which))
}

fn stretch(runs: &[Run], which: Which) -> Option<Stretch> {
    let at = match which {
        Which::Last => runs.len().checked_sub(1)?,
        Which::Previous => runs.len().checked_sub(2)?,
        Which::Number(number) => runs.iter().position(|run| run.number == number)?,
    };
    let run = runs.get(at)?;
    let end = runs.get(at + 1).map(|next| next.console_offset);
    Some(Stretch { number: run.number, start: run.console_offset, end })
}

fn unknown(runs: &[Run], which: Which) -> FindError {
    let wanted = match which {
        Which::Last => "yet".to_owned(),
        Which::Previous => "before the last one".to_owned(),
        Which::Number(number) => number.to_string(),
    };
    let known = match runs {
        [] => "the VM was never started".to_owned(),
        [only] => format!("there is run {} alone", only.number),
        [first, .., last] => format!("there are runs {} to {}", first.number, last.number),
    };
    FindError::Unknown { wanted, known }
}

/// Adds a run, replacing what was recorded of that number, and forgets the oldest beyond [`MAX_RUNS`]. A file
/// that cannot be understood is begun anew: a VM must start all the same.
///
/// # Errors
/// The file cannot be written.
pub(super) fn record(dir: &Path, run: Run) -> io::Result<()> {
    let mut runs = read(dir).unwrap_or_default();
    runs.retain(|earlier| earlier.number < run.number);
    runs.push(run);
    let excess = runs.len().saturating_sub(MAX_RUNS);
    runs.drain(..excess);
    atomic::write(dir, RUNS_FILE, &serde_json::to_vec(&runs)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(number: u64) -> Run {
        Run { number, console_offset: number * 10, started_unix_ns: u64::MAX }
    }

    #[test]
    fn each_run_ends_where_the_next_begins() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert!(find(dir, Which::Last).unwrap_err().to_string().contains("never started"));
        record(dir, run(1)).unwrap();
        assert!(find(dir, Which::Previous).is_err());
        record(dir, run(2)).unwrap();
        assert_eq!(find(dir, Which::Number(1)).unwrap(), Stretch { number: 1, start: 10, end: Some(20) });
        assert_eq!(find(dir, Which::Previous).unwrap().number, 1);
        assert_eq!(find(dir, Which::Last).unwrap(), Stretch { number: 2, start: 20, end: None });
        let message = find(dir, Which::Number(7)).unwrap_err().to_string();
        assert_eq!(message, "there is no run 7: there are runs 1 to 2");
    }

    #[test]
    fn the_file_is_bounded_and_forgets_the_oldest() {
        let dir = tempfile::tempdir().unwrap();
        (1..=MAX_RUNS as u64 + 20).for_each(|number| record(dir.path(), run(number)).unwrap());
        let runs = read(dir.path()).unwrap();
        assert_eq!((runs.len(), runs[0].number), (MAX_RUNS, 21));
        assert!(std::fs::metadata(dir.path().join(RUNS_FILE)).unwrap().len() < MAX_FILE_BYTES);
    }

    #[test]
    fn a_spoiled_file_keeps_no_vm_from_starting() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(RUNS_FILE), "rubbish").unwrap();
        assert!(find(dir.path(), Which::Last).is_err());
        record(dir.path(), run(3)).unwrap();
        assert_eq!(read(dir.path()).unwrap(), [run(3)]);
    }

    #[test]
    fn runs_are_named_by_number_or_word() {
        assert_eq!("last".parse(), Ok(Which::Last));
        assert_eq!("previous".parse(), Ok(Which::Previous));
        assert_eq!("7".parse(), Ok(Which::Number(7)));
        for bad in ["", "0", "-1", "first", "1x"] {
            assert!(bad.parse::<Which>().is_err(), "{bad}");
        }
    }
}
