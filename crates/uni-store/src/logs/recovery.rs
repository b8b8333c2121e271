//! From the folder back to running logs: files first, then the write-ahead logs over them.
//!
//! Owns what happens to damage: as in the store's own recovery, a file that does not follow the format is moved aside, a
//! torn tail is cut off and kept aside, and both are reported.

use super::file::{self, LogFile, ReadError};
use super::flush::first_nanos;
use super::journal;
use super::state::State;
use super::{Counters, Logs, Maintenance, SyncState, Writer};
use crate::bytes::Damaged;
use crate::error::{FileError, OpenError};
use crate::files::{Files, number_of};
use crate::options::Options;
use crate::recovery::{Recovery, SetAside, cut, newer};
use crate::retention::first_kept;
use crate::state::partition_of;
use crate::wal::{self, Beginning, LogReader, Next};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, RwLock};
use uni_wire::Timestamp;

impl Logs {
    /// Opens the logs in the folder `logs` of a store; nothing is made where there is none.
    pub(crate) fn open(
        store: &Files,
        options: &Options,
        partition_seconds: i64,
        now: Timestamp,
        report: &mut Recovery,
    ) -> Result<Self, OpenError> {
        let files = store.below("logs");
        let first_kept_s = first_kept(now, options.retention, partition_seconds).unwrap_or(i64::MIN);
        let (mut state, mut maintenance) =
            (State::default(), Maintenance { next_file: 1, ..Maintenance::default() });
        for dir in files.list(&files.data_dir())? {
            let start = dir.file_name().and_then(|name| name.to_str()?.parse::<i64>().ok());
            match start.filter(|_| files.disk().is_dir(&dir)) {
                Some(start_s) if start_s < first_kept_s => files.remove_segments(&dir)?,
                Some(start_s) => open_partition(&files, start_s, &dir, &mut state, &mut maintenance, report)?,
                None => {}
            }
        }
        let covered = covered(&state);
        let mut writer = Writer { next_journal: 1, ..Writer::default() };
        // a number of a log that is gone must not come again: files say that they have what it held
        writer.next_journal = covered.values().max().map_or(1, |journal| journal + 1);
        for path in files.list(&files.wal_dir())? {
            let Some(number) = number_of(&path, "wal") else { continue };
            writer.next_journal = writer.next_journal.max(number.saturating_add(1));
            replay(&files, partition_seconds, (&path, number), &covered, &mut state, &mut writer, report)?;
        }
        Ok(Self {
            files,
            options: options.clone(),
            partition_seconds,
            counters: Counters::default(),
            floor: AtomicI64::new(first_nanos(first_kept_s)),
            merging: Mutex::default(),
            maintenance: Mutex::new(maintenance),
            writer: Mutex::new(writer),
            state: RwLock::new(state),
            sync: Mutex::new(SyncState::default()),
            synced: Condvar::new(),
        })
    }

    /// Hides what is older than `before`.
    pub(super) fn raise_floor(&self, before: i64) {
        self.floor.fetch_max(before, Relaxed);
    }
}

/// For each partition, up to which write-ahead log its files have everything.
fn covered(state: &State) -> BTreeMap<i64, u64> {
    let of = |files: &Vec<std::sync::Arc<LogFile>>| files.iter().map(|file| file.head.journal).max();
    state.files.iter().filter_map(|(start_s, files)| Some((*start_s, of(files)?))).collect()
}

fn open_partition(
    files: &Files,
    start_s: i64,
    dir: &Path,
    state: &mut State,
    maintenance: &mut Maintenance,
    report: &mut Recovery,
) -> Result<(), OpenError> {
    let mut opened: Vec<LogFile> = Vec::new();
    for path in files.list(dir)? {
        if path.extension().is_some_and(|extension| extension == "tmp") {
            files.disk().remove(&path).map_err(FileError::at("remove", &path))?;
            continue;
        }
        let Some(number) = number_of(&path, "log") else { continue };
        maintenance.next_file = maintenance.next_file.max(number.saturating_add(1));
        let file = LogFile::open(files, &path).and_then(|file| {
            let is_it = (file.head.number, file.head.start_s) == (number, start_s);
            if is_it { Ok(file) } else { Err(Damaged("a file under another one's name").into()) }
        });
        match file {
            Ok(file) => opened.push(file),
            Err(ReadError::Damaged(Damaged(why))) => {
                report.set_aside.push(SetAside { path: files.set_aside(&path)?, why });
            }
            Err(ReadError::Newer(version)) => return Err(newer(&path, version, file::VERSION)),
            Err(ReadError::File(error)) => return Err(error.into()),
        }
    }
    let merged: Vec<_> = opened.iter().map(|file| file.head.first..file.head.number).collect();
    for file in opened {
        if merged.iter().any(|numbers| numbers.contains(&file.head.number)) {
            // the merge that has what it held was not the last thing to reach the disk
            files.disk().remove(file.path()).map_err(FileError::at("remove", file.path()))?;
        } else {
            report.log_files += 1;
            state.add(file);
        }
    }
    Ok(())
}

fn replay(
    files: &Files,
    partition_seconds: i64,
    (path, number): (&Path, u64),
    covered: &BTreeMap<i64, u64>,
    state: &mut State,
    writer: &mut Writer,
    report: &mut Recovery,
) -> Result<(), OpenError> {
    let (mut reader, beginning) = LogReader::open(files, path)?;
    match beginning {
        Beginning::Good(_) => {}
        Beginning::Newer(version) => return Err(newer(path, version, wal::VERSION)),
        Beginning::Damaged => {
            report.set_aside.push(SetAside { path: files.set_aside(path)?, why: "not a log" });
            return Ok(());
        }
        Beginning::Torn => {
            report.torn_bytes += reader.length();
            files.disk().remove(path).map_err(FileError::at("remove", path))?;
            return Ok(());
        }
    }
    let empty = reader.offset();
    let mut frame = Vec::new();
    let end = loop {
        let frame_start = reader.offset();
        let Next::Payload(payload) = reader.next()? else { break frame_start };
        frame.clear();
        if journal::read(payload, |entry| frame.push(entry)).is_err() {
            break frame_start;
        }
        for entry in &frame {
            let partition = partition_of(entry.time.nanos(), partition_seconds);
            if covered.get(&partition).is_none_or(|journal| *journal < number) {
                state.push(entry, partition_seconds);
                report.log_entries_replayed += 1;
            }
        }
    };
    if end < reader.length() {
        cut(files, path, end, reader.length(), report)?;
    }
    if end == empty {
        files.disk().remove(path).map_err(FileError::at("remove", path))?;
    } else {
        writer.replayed.push(path.to_path_buf());
        writer.replayed_bytes += end;
    }
    Ok(())
}
