//! From the folder back to a running store: segments first, then the log over them.
//!
//! Owns what happens to damage: a file or tail that does not follow the format is moved or copied aside, cut off and
//! reported, and everything before it is kept. Never drops bytes silently, never panics on what it reads.

use crate::block::Effort;
use crate::bytes::Damaged;
use crate::catalog::FieldIs;
use crate::deletion::{self, Deletion, DeletionError};
use crate::error::{FileError, OpenError};
use crate::files::{Files, number_of, policy_of_dir, unescape};
use crate::index::SegmentHead;
use crate::options::Options;
use crate::policies::start_of;
use crate::registry::{Entry, Policy, Registry, space_name, split_space};
use crate::replay::Replay;
use crate::retention::first_kept;
use crate::segment::{self, IndexBytes, IndexError, Segment, SegmentSeries};
use crate::state::{Database, State};
use crate::tier;
use crate::tier_upkeep;
use crate::wal::{self, Beginning, LogReader, Next};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use uni_wire::Timestamp;

/// As good as for ever, but a duration of its own: what the options say of other policies does not count.
const LONGEST: Duration = Duration::from_nanos(i64::MAX.unsigned_abs());

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
    /// Files of logs opened.
    pub log_files: u64,
    /// Entries of logs read from their write-ahead log into memory.
    pub log_entries_replayed: u64,
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
    pub(crate) deletions: Vec<Deletion>,
}

pub(crate) fn recover(
    files: &Files,
    partition_seconds: i64,
    options: &Options,
    now: Timestamp,
) -> Result<Recovered, OpenError> {
    let mut recovered = Recovered {
        state: State::default(),
        report: Recovery::default(),
        next_segment: 1,
        next_log: 1,
        logs: Vec::new(),
        log_bytes: 0,
        deletions: Vec::new(),
    };
    read_registry(files, &mut recovered)?;
    let registry = &recovered.state.registry;
    let first_kept_s =
        |space: &str| first_kept(now, options.age(registry, space), partition_seconds).unwrap_or(i64::MIN);
    let mut found = Vec::new();
    for space in registry.databases.keys().flat_map(|database| registry.spaces_of(database)) {
        let below = registry.gone.get(&space).copied().unwrap_or(0);
        find_segments(files, &space, (first_kept_s(&space), below), &mut found)?;
        recovered.state.databases.insert(space, Database::default());
    }
    // Numbers go on above whatever a note says of lower ones.
    let gone = registry.gone.values().map(|number| number.saturating_add(1));
    recovered.next_segment = gone.fold(recovered.next_segment, u64::max);
    remove_leftovers(files, registry)?;
    // Newest first: where types differ, the newest one keeps the name.
    found.sort_by_key(|segment| std::cmp::Reverse(segment.number));
    for segment in found {
        recovered.next_segment = recovered.next_segment.max(segment.number.saturating_add(1));
        open_segment(files, &segment, &mut recovered)?;
    }
    tier_upkeep::recover(files, options, &mut recovered)?;
    for path in files.list(&files.deleted_dir())? {
        read_deletion(files, partition_seconds, &path, &mut recovered)?;
    }
    for path in files.list(&files.wal_dir())? {
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

/// What databases there are: those that the file names, and folders that it does not know.
fn read_registry(files: &Files, recovered: &mut Recovered) -> Result<(), OpenError> {
    let (mut registry, lost) = match files.read_registry()? {
        Some(Ok(registry)) => (registry, None),
        // A store of before, or a file whose contents are lost: the folders say what there was.
        None => (Registry::default(), None),
        Some(Err(Damaged(why))) => (Registry::default(), Some(why)),
    };
    // A file where a folder should be is not ours: left alone.
    for folder in files.list(&files.data_dir())?.into_iter().filter(|path| files.disk().is_dir(path)) {
        let Some(database) = folder.file_name().and_then(|name| unescape(name.to_str()?)) else { continue };
        if !registry.gone.keys().any(|space| split_space(space).0 == database) {
            registry.databases.entry(database.clone()).or_insert_with(Entry::default);
        }
        for dir in files.list(&folder)? {
            let Some(policy) = dir.file_name().and_then(|name| policy_of_dir(name.to_str()?)) else {
                continue;
            };
            let known = registry.databases.get_mut(&database).filter(|entry| entry.policy(&policy).is_none());
            if let Some(entry) =
                known.filter(|_| !registry.gone.contains_key(&space_name(&database, &policy)))
            {
                entry.policies.push(Policy::endless(&policy));
            }
        }
    }
    if let Some(why) = lost {
        // How long their points were to be kept is lost too: until somebody says it again, nothing is dropped.
        let policies = registry.databases.values_mut().flat_map(|entry| &mut entry.policies);
        policies.for_each(|policy| policy.duration = LONGEST);
        recovered.report.set_aside.push(SetAside { path: files.set_registry_aside()?, why });
        files.write_registry(&registry)?;
    }
    recovered.state.registry = registry;
    Ok(())
}

/// Removes what is left of spaces that were dropped.
fn remove_leftovers(files: &Files, registry: &Registry) -> Result<(), FileError> {
    for (space, below) in &registry.gone {
        if registry.policy_of(space).is_none() {
            find_segments(files, space, (i64::MIN, *below), &mut Vec::new())?;
        }
    }
    Ok(())
}

/// The segments of a space; those that are too old or leftovers are removed.
fn find_segments(
    files: &Files,
    space: &str,
    (first_kept_s, below): (i64, u64),
    found: &mut Vec<Found>,
) -> Result<(), FileError> {
    let mut partitions = files.list(&files.space_dir(space))?;
    partitions.retain(|path| files.disk().is_dir(path));
    for partition in partitions {
        match start_of(&partition) {
            Some(start_s) if start_s < first_kept_s => files.remove_segments(&partition)?,
            Some(start_s) => collect_segments(files, space, (start_s, below), &partition, found)?,
            None => {}
        }
    }
    Ok(())
}

/// Makes segments leave out what a deletion says.
fn read_deletion(
    files: &Files,
    partition_seconds: i64,
    path: &Path,
    recovered: &mut Recovered,
) -> Result<(), OpenError> {
    let Some(number) = number_of(path, "del") else { return Ok(()) };
    recovered.next_segment = recovered.next_segment.max(number.saturating_add(1));
    let read = Deletion::read(files, path).and_then(|deletion| match deletion.number == number {
        true => Ok(deletion),
        false => Err(Damaged("a deletion under another one's name").into()),
    });
    match read {
        Ok(deletion) => {
            for (segment, ids) in recovered.state.uncut(&deletion, partition_seconds) {
                segment.set_cuts(segment.cuts_with(&ids, deletion.from, deletion.to));
            }
            let spaces = deletion.targets.iter().map(|target| target.space.as_str());
            recovered.state.take_tiers_of_cut(spaces).iter().for_each(|tier| tier.segment.retire());
            for target in &deletion.targets {
                recovered.state.recount(&target.space, partition_seconds);
            }
            recovered.deletions.push(deletion);
            Ok(())
        }
        Err(DeletionError::Damaged(Damaged(why))) => {
            recovered.report.set_aside.push(SetAside { path: files.set_aside(path)?, why });
            Ok(())
        }
        Err(DeletionError::Newer(version)) => Err(newer(path, version, deletion::VERSION)),
        Err(DeletionError::File(error)) => Err(error.into()),
    }
}

fn collect_segments(
    files: &Files,
    space: &str,
    (start_s, below): (i64, u64),
    partition: &Path,
    found: &mut Vec<Found>,
) -> Result<(), FileError> {
    for path in files.list(partition)? {
        if path.extension().is_some_and(|extension| extension == "tmp") {
            // A segment whose writing was cut short; its points are still in the log or in the segments it merges.
            files.disk().remove(&path).map_err(FileError::at("remove", &path))?;
        } else if let Some(number) = number_of(&path, "seg") {
            if number < below {
                files.disk().remove(&path).map_err(FileError::at("remove", &path))?;
            } else {
                found.push(Found { database: space.to_owned(), start_s, number, path });
            }
        } else if tier::parse_path(&path).is_some_and(|(number, ..)| number < below) {
            files.disk().remove(&path).map_err(FileError::at("remove", &path))?;
        }
    }
    Ok(())
}

fn open_segment(files: &Files, found: &Found, recovered: &mut Recovered) -> Result<(), OpenError> {
    let opened = IndexBytes::read(files, &found.path, Effort::Thorough).and_then(|index| {
        let (head, series) = intern(&index, found, recovered)?;
        let place = (found.path.clone(), index.file_bytes);
        Ok(Segment::new(files, (head, index.version), place, series))
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

pub(crate) fn newer(path: &Path, found: u8, known: u8) -> OpenError {
    OpenError::NewerFormat { path: path.to_path_buf(), found: found.into(), known: known.into() }
}

/// Gives numbers to the names of an index.
fn intern(
    index: &IndexBytes,
    found: &Found,
    recovered: &mut Recovered,
) -> Result<(SegmentHead, Vec<SegmentSeries>), Damaged> {
    let index = index.parse()?;
    if (index.head.number, index.head.start_s) != (found.number, found.start_s) {
        return Err(Damaged("a segment under another one's name"));
    }
    let State { databases, numbers, .. } = &mut recovered.state;
    let catalog = &mut databases.entry(found.database.clone()).or_default().catalog;
    let mut schemas: Vec<Arc<[u32]>> = Vec::with_capacity(index.schemas.len());
    for schema in &index.schemas {
        let mut fields = Vec::with_capacity(schema.columns.len());
        for (name, field_type) in &schema.columns {
            let (number, is) = catalog.field(schema.measurement, name, *field_type, numbers);
            recovered.report.hidden_columns += u64::from(is == FieldIs::Hidden);
            fields.push(number);
        }
        schemas.push(fields.into());
    }
    let mut series = Vec::with_capacity(index.entries.len());
    for entry in index.entries {
        let (schema, fields) = (&index.schemas[entry.schema], Arc::clone(&schemas[entry.schema]));
        let id = catalog.series(schema.measurement, &entry.tags, numbers);
        catalog.mark_live(id, fields.iter().copied());
        series.push(SegmentSeries { id, fields, blocks: entry.blocks });
    }
    catalog.settle();
    Ok((index.head, series))
}

fn replay(
    files: &Files,
    partition_seconds: i64,
    path: &Path,
    recovered: &mut Recovered,
) -> Result<(), OpenError> {
    let (mut reader, beginning) = LogReader::open(files, path)?;
    let version = match beginning {
        Beginning::Good(version) => version,
        Beginning::Newer(version) => return Err(newer(path, version, wal::VERSION)),
        Beginning::Damaged => {
            recovered.report.set_aside.push(SetAside { path: files.set_aside(path)?, why: "not a log" });
            return Ok(());
        }
        Beginning::Torn => {
            recovered.report.torn_bytes += reader.length();
            files.disk().remove(path).map_err(FileError::at("remove", path))?;
            return Ok(());
        }
    };
    let empty = reader.offset();
    let mut replay = Replay::new(&mut recovered.state, &mut recovered.report, partition_seconds, version);
    let end = loop {
        let frame_start = reader.offset();
        match reader.next()? {
            Next::Payload(payload) if replay.frame(payload).is_ok() => {}
            Next::Payload(_) | Next::Damaged => break frame_start,
            Next::End => break frame_start,
        }
    };
    replay.finish();
    if end < reader.length() {
        cut(files, path, end, reader.length(), &mut recovered.report)?;
    }
    if end == empty {
        files.disk().remove(path).map_err(FileError::at("remove", path))?;
    } else {
        recovered.logs.push(path.to_path_buf());
        recovered.log_bytes += end;
    }
    Ok(())
}

/// Cuts a log at the end of its last whole frame. A copy of the tail is kept, unless it is all zeros, as some
/// file systems leave it behind after a power cut.
pub(crate) fn cut(
    files: &Files,
    path: &Path,
    end: u64,
    length: u64,
    report: &mut Recovery,
) -> Result<(), FileError> {
    let file = files.disk().open(path).map_err(FileError::at("open", path))?;
    let mut tail = vec![0; (length - end) as usize];
    file.read_exact_at(&mut tail, end).map_err(FileError::at("read", path))?;
    if tail.iter().any(|byte| *byte != 0) {
        let why = "the tail of a log that is no whole frame";
        report.set_aside.extend(files.keep_tail(path, end, &tail)?.map(|path| SetAside { path, why }));
    }
    report.torn_bytes += tail.len() as u64;
    file.set_len(end).map_err(FileError::at("cut", path))
}
