//! From the folder back to a running store: segments first, then the log over them.
//!
//! Owns what happens to damage: a file or tail that does not follow the format is moved or copied aside, cut off and
//! reported, and everything before it is kept. Never drops bytes silently, never panics on what it reads.

use crate::bytes::Damaged;
use crate::catalog::{FieldIs, SeriesId};
use crate::error::{FileError, OpenError};
use crate::files::{Files, list, number_of, unescape};
use crate::point::TagList;
use crate::retention::first_kept;
use crate::row::{Fields, put_field};
use crate::segment::{self, IndexBytes, IndexError, Segment, SegmentHead, SegmentSeries};
use crate::state::{Database, State, partition_of};
use crate::wal::{self, Beginning, Entries, Entry, LogReader, Next};
use hashbrown::HashMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use uni_wire::{FieldType, Timestamp};

/// What was found when a store was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Points read from the log into memory.
    pub points_replayed: u64,
    /// Points of the log that could not be taken up (their database is gone, or all their fields clash).
    pub points_refused: u64,
    /// Bytes cut off the ends of logs: what a crash left of a write, or damage.
    pub torn_bytes: u64,
    /// Files, and copies of cut tails, that were put into the folder `damaged`.
    pub set_aside: Vec<SetAside>,
    /// Segments opened.
    pub segments: u64,
    /// Columns of segments that no query reaches, because their field has another type in newer ones.
    pub hidden_columns: u64,
}

/// A damaged file, or the copy of a damaged tail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Where it is now.
    pub path: PathBuf,
    /// What was wrong with it.
    pub why: &'static str,
}

/// All that opening needs to know.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) state: State,
    pub(crate) report: Recovery,
    pub(crate) next_segment: u64,
    pub(crate) next_log: u64,
    /// Logs whose rows are in the head now.
    pub(crate) logs: Vec<PathBuf>,
    pub(crate) log_bytes: u64,
}

pub(crate) fn recover(
    files: &Files,
    partition_seconds: i64,
    retention: Option<Duration>,
    now: Timestamp,
) -> Result<Recovered, OpenError> {
    let mut recovered = Recovered {
        state: State::default(),
        report: Recovery::default(),
        next_segment: 1,
        next_log: 1,
        logs: Vec::new(),
        log_bytes: 0,
    };
    let first_kept_s = first_kept(now, retention, partition_seconds).unwrap_or(i64::MIN);
    let mut found = find_segments(files, first_kept_s, &mut recovered.state)?;
    // Newest first: where types differ, the newest one keeps the name.
    found.sort_by_key(|segment| std::cmp::Reverse(segment.number));
    for segment in found {
        recovered.next_segment = recovered.next_segment.max(segment.number.saturating_add(1));
        open_segment(files, &segment, &mut recovered)?;
    }
    for path in list(&files.wal_dir())? {
        let Some(number) = number_of(&path, "wal") else { continue };
        recovered.next_log = recovered.next_log.max(number.saturating_add(1));
        replay(files, partition_seconds, &path, &mut recovered)?;
    }
    Ok(recovered)
}

/// A segment by its name, not opened yet.
#[derive(Debug)]
struct Found {
    database: String,
    start_s: i64,
    number: u64,
    path: PathBuf,
}

fn find_segments(files: &Files, first_kept_s: i64, state: &mut State) -> Result<Vec<Found>, FileError> {
    let mut found = Vec::new();
    // A file where a folder should be is not ours: left alone.
    for folder in list(&files.data_dir())?.into_iter().filter(|path| path.is_dir()) {
        let Some(database) = folder.file_name().and_then(|name| unescape(name.to_str()?)) else { continue };
        state.databases.insert(database.clone(), Database::default());
        for partition in list(&folder)?.into_iter().filter(|path| path.is_dir()) {
            let start = partition.file_name().and_then(|name| name.to_str()?.parse::<i64>().ok());
            match start {
                Some(start_s) if start_s < first_kept_s => {
                    fs::remove_dir_all(&partition).map_err(FileError::at("remove", &partition))?;
                }
                Some(start_s) => collect_segments(&database, start_s, &partition, &mut found)?,
                None => {}
            }
        }
    }
    Ok(found)
}

fn collect_segments(
    database: &str,
    start_s: i64,
    partition: &Path,
    found: &mut Vec<Found>,
) -> Result<(), FileError> {
    for path in list(partition)? {
        if path.extension().is_some_and(|extension| extension == "tmp") {
            // A segment whose writing was cut short; its points are still in the log or in the segments it merges.
            fs::remove_file(&path).map_err(FileError::at("remove", &path))?;
        } else if let Some(number) = number_of(&path, "seg") {
            found.push(Found { database: database.to_owned(), start_s, number, path });
        }
    }
    Ok(())
}

fn open_segment(files: &Files, found: &Found, recovered: &mut Recovered) -> Result<(), OpenError> {
    let opened = IndexBytes::read(&found.path).and_then(|index| {
        let (head, series) = intern(&index, found, recovered)?;
        Ok(Segment::new(head, found.path.clone(), index.file_bytes, series))
    });
    match opened {
        Ok(segment) => {
            let database = recovered.state.databases.entry(found.database.clone()).or_default();
            // Found newest first, kept oldest first.
            database.partitions.entry(found.start_s).or_default().insert(0, Arc::new(segment));
            database.spans.insert(found.start_s);
            recovered.report.segments += 1;
            Ok(())
        }
        Err(IndexError::Damaged(Damaged(why))) => {
            recovered.report.set_aside.push(SetAside { path: files.set_aside(&found.path)?, why });
            Ok(())
        }
        Err(IndexError::Newer(version)) => Err(newer(&found.path, version, segment::VERSION)),
        Err(IndexError::File(error)) => Err(error.into()),
    }
}

fn newer(path: &Path, found: u8, known: u8) -> OpenError {
    OpenError::NewerFormat { path: path.to_path_buf(), found: found.into(), known: known.into() }
}

/// Gives numbers to the names of an index.
fn intern(
    index: &IndexBytes,
    found: &Found,
    recovered: &mut Recovered,
) -> Result<(SegmentHead, Vec<SegmentSeries>), Damaged> {
    let (head, entries) = index.parse()?;
    if (head.number, head.start_s) != (found.number, found.start_s) {
        return Err(Damaged("a segment under another one's name"));
    }
    let State { databases, numbers, .. } = &mut recovered.state;
    let catalog = &mut databases.entry(found.database.clone()).or_default().catalog;
    let mut series = Vec::with_capacity(entries.len());
    for entry in entries {
        let mut fields = Vec::with_capacity(entry.columns.len());
        for (name, field_type) in entry.columns {
            let (number, is) = catalog.field(entry.measurement, name, field_type, numbers);
            recovered.report.hidden_columns += u64::from(is == FieldIs::Hidden);
            fields.push(number);
        }
        let id = catalog.series(entry.measurement, &entry.tags, numbers);
        catalog.mark_live(id, fields.iter().copied());
        series.push(SegmentSeries { id, fields: fields.into(), blocks: entry.blocks });
    }
    catalog.settle();
    Ok((head, series))
}

fn replay(
    files: &Files,
    partition_seconds: i64,
    path: &Path,
    recovered: &mut Recovered,
) -> Result<(), OpenError> {
    let (mut reader, beginning) = LogReader::open(path)?;
    match beginning {
        Beginning::Good => {}
        Beginning::Newer(version) => return Err(newer(path, version, wal::VERSION)),
        Beginning::Damaged => {
            recovered.report.set_aside.push(SetAside { path: files.set_aside(path)?, why: "not a log" });
            return Ok(());
        }
        Beginning::Torn => {
            recovered.report.torn_bytes += reader.length();
            fs::remove_file(path).map_err(FileError::at("remove", path))?;
            return Ok(());
        }
    }
    let empty = reader.offset();
    let mut replay = Replay { partition_seconds, recovered, names: Names::default() };
    let end = loop {
        let frame_start = reader.offset();
        match reader.next()? {
            Next::Payload(payload) if replay.frame(payload).is_ok() => {}
            Next::Payload(_) | Next::Damaged => break frame_start,
            Next::End => break frame_start,
        }
    };
    replay.recovered.state.databases.values_mut().for_each(|database| database.catalog.settle());
    if end < reader.length() {
        cut(files, path, end, reader.length(), &mut recovered.report)?;
    }
    if end == empty {
        fs::remove_file(path).map_err(FileError::at("remove", path))?;
    } else {
        recovered.logs.push(path.to_path_buf());
        recovered.log_bytes += end;
    }
    Ok(())
}

/// Cuts a log at the end of its last whole frame. A copy of the tail is kept, unless it is all zeros, as some
/// file systems leave it behind after a power cut.
fn cut(files: &Files, path: &Path, end: u64, length: u64, report: &mut Recovery) -> Result<(), FileError> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(FileError::at("open", path))?;
    let mut tail = vec![0; (length - end) as usize];
    file.read_exact_at(&mut tail, end).map_err(FileError::at("read", path))?;
    if tail.iter().any(|byte| *byte != 0) {
        let why = "the tail of a log that is no whole frame";
        report.set_aside.extend(files.keep_tail(path, end, &tail)?.map(|path| SetAside { path, why }));
    }
    report.torn_bytes += tail.len() as u64;
    file.set_len(end).map_err(FileError::at("cut", path))
}

/// What the numbers of one log file mean, and what they have been turned into.
#[derive(Debug, Default)]
struct Names {
    measurements: HashMap<u32, (String, String)>,
    fields: HashMap<(u32, u32), (String, FieldType)>,
    series: HashMap<u64, (u32, TagList)>,
    known_series: HashMap<u64, SeriesId>,
    /// `None` for a field that clashes.
    known_fields: HashMap<(u32, u32), Option<u32>>,
}

/// Brings one log file into the head.
#[derive(Debug)]
struct Replay<'a> {
    partition_seconds: i64,
    recovered: &'a mut Recovered,
    names: Names,
}

impl Replay<'_> {
    fn frame(&mut self, payload: &[u8]) -> Result<(), Damaged> {
        let mut entries = Entries::of(payload);
        while let Some(entry) = entries.next()? {
            let names = &mut self.names;
            match entry {
                Entry::Measurement { number, database, name } => {
                    names.measurements.insert(number, (database.to_owned(), name.to_owned()));
                }
                Entry::Field { measurement, number, field_type, name } => {
                    names.fields.insert((measurement, number), (name.to_owned(), field_type));
                    names.known_fields.remove(&(measurement, number));
                }
                Entry::Series { number, measurement, tags } => {
                    names.series.insert(number, (measurement, tags));
                    names.known_series.remove(&number);
                }
                Entry::Row { series, time, row } => self.row(series, time, row)?,
                Entry::Drop { database, before } => self.drop(database, before),
            }
        }
        Ok(())
    }

    fn row(&mut self, series: u64, time: i64, row: &[u8]) -> Result<(), Damaged> {
        let names = &mut self.names;
        let (measurement, tags) = names.series.get(&series).ok_or(Damaged("a series that is not defined"))?;
        let place = names.measurements.get(measurement);
        let (database, name) = place.ok_or(Damaged("a measurement that is not defined"))?;
        let State { databases, numbers, head, .. } = &mut self.recovered.state;
        let Some(database) = databases.get_mut(database) else {
            self.recovered.report.points_refused += 1;
            return Ok(());
        };
        let mut renumbered = Vec::with_capacity(row.len() + 8);
        let mut fields = Vec::new();
        for field in Fields::of(row) {
            let (number, value) = field?;
            let key = (*measurement, number);
            let (text, field_type) = names.fields.get(&key).ok_or(Damaged("a field that is not defined"))?;
            let known = names.known_fields.entry(key).or_insert_with(|| {
                let (number, is) = database.catalog.field(name, text, *field_type, numbers);
                (is == FieldIs::Named).then_some(number)
            });
            if let Some(number) = *known {
                put_field(&mut renumbered, number, value);
                fields.push(number);
            }
        }
        if fields.is_empty() {
            self.recovered.report.points_refused += 1;
            return Ok(());
        }
        let id =
            *names.known_series.entry(series).or_insert_with(|| database.catalog.series(name, tags, numbers));
        database.catalog.mark_live(id, fields);
        database.spans.insert(partition_of(time, self.partition_seconds));
        head.push(id, time, &renumbered);
        self.recovered.report.points_replayed += 1;
        Ok(())
    }

    fn drop(&mut self, database: &str, before: i64) {
        let state = &mut self.recovered.state;
        if let Some(known) = state.databases.get_mut(database) {
            known.catalog.settle();
        }
        state.drop_rows_before(database, before);
        state.recount(database, self.partition_seconds);
        // What has lost its last value has lost its number too.
        self.names.known_series.clear();
        self.names.known_fields.clear();
    }
}
