//! Reading a file of a store to its last byte, to say what is damaged, where, and how many points that costs.
//!
//! Owns the judgement on one file, and what becomes of a damaged one. Never deletes anything: [`Snapshot::isolate`] moves.

use crate::block::Effort;
use crate::bytes::Damaged;
use crate::catalog::SeriesId;
use crate::disk::DiskFile;
use crate::error::{FileError, MaintainError, ScanError};
use crate::files::{Files, number_of, unescape};
use crate::index::SeriesNames;
use crate::recovery::{self, Recovery};
use crate::replay::Replay;
use crate::segment::{IndexBytes, IndexError, Segment, SegmentSeries, SegmentWriter};
use crate::snapshot::Snapshot;
use crate::state::{Database, State};
use crate::wal::{Beginning, Entries, Entry, LogReader, Next, parts};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most places of damage that are listed of one file; the others are counted.
const MAX_DAMAGE: usize = 100;
/// Read at once of files of which only the length is known.
const PIECE: usize = 1 << 20;

/// A place that cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Damage {
    /// Where in the file.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
    /// Points that cannot be read because of it.
    pub points: u64,
    /// There may be more: what would say how many is damaged itself.
    pub at_least: bool,
    /// Whose points: measurement and tags.
    pub series: String,
    /// Time of the first of them, in nanoseconds since the Unix epoch.
    pub first_ns: Option<i64>,
    /// Time of the last of them.
    pub last_ns: Option<i64>,
}

/// What was found in one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FileReport {
    /// `log`, `segment`, `format`, or `other`, of which only that it can be read is known.
    pub kind: String,
    /// Parts with a checksum of their own that were read: frames, blocks.
    pub parts: u64,
    /// Points that can be read.
    pub points: u64,
    /// Places that cannot.
    pub damage: Vec<Damage>,
    /// Further ones.
    pub more_damage: u64,
    /// The last frame of a log is cut short: what a program that was killed leaves behind, and was never acknowledged.
    pub torn_bytes: u64,
}

impl FileReport {
    fn of(kind: &str) -> Self {
        Self { kind: kind.to_owned(), ..Self::default() }
    }

    /// Whether anything cannot be read.
    #[must_use]
    pub const fn is_damaged(&self) -> bool {
        !self.damage.is_empty()
    }

    /// Points that cannot be read, as far as is known.
    #[must_use]
    pub fn lost_points(&self) -> u64 {
        self.damage.iter().map(|damage| damage.points).sum()
    }

    fn put(&mut self, damage: Damage) {
        if self.damage.len() < MAX_DAMAGE { self.damage.push(damage) } else { self.more_damage += 1 }
    }

    fn put_whole(&mut self, offset: u64, what: impl Into<String>) {
        self.put(Damage { offset, what: what.into(), at_least: true, ..Damage::default() });
    }
}

impl Snapshot {
    /// Reads the `file`-th file.
    ///
    /// # Errors
    /// [`MaintainError`]: there is no such file, or the file system refuses. Damage is no error.
    pub fn check(&self, file: usize) -> Result<FileReport, MaintainError> {
        let (Some(path), Some(listed)) = (self.path(file), self.files().get(file)) else {
            let path = PathBuf::from(file.to_string());
            return Err(FileError { step: "find file", path, source: ErrorKind::NotFound.into() }.into());
        };
        if number_of(&path, "seg").is_some() {
            return Ok(segment(&self.files, &path, self.place_of(&listed.path, "seg"), Effort::Thorough)?);
        }
        if crate::tier::parse_path(&path).is_some() {
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            let place = self.place_of(&listed.path, extension);
            return Ok(segment(&self.files, &path, place, Effort::Tier)?);
        }
        if number_of(&path, "wal").is_some() {
            return Ok(log(self, file, listed.bytes)?);
        }
        if listed.path == "format" {
            let mut report = FileReport::of("format");
            match self.files.partition_seconds(1) {
                Ok(_) => report.parts = 1,
                Err(error) => report.put_whole(0, error.to_string()),
            }
            return Ok(report);
        }
        let mut offset = 0;
        while offset < listed.bytes {
            offset += self.read(file, offset, PIECE)?.len() as u64;
        }
        Ok(FileReport::of("other"))
    }

    /// Number and start that a segment's name promises; `None` where the folders are not named as they should be.
    fn place_of(&self, path: &str, extension: &str) -> Option<(u64, i64)> {
        let mut parts = path.split('/').rev();
        let number = number_of(Path::new(parts.next()?), extension)?;
        let start = parts.next()?.parse().ok()?;
        unescape(parts.next()?)?;
        Some((number, start))
    }

    /// Puts what is damaged of the `file`-th file, of which `report` tells, into the folder `damaged`, so that the store
    /// reads whatever can be read and meets no damage: of a log the part from the first fault on, of a segment the
    /// whole file, beside which a new one keeps its readable blocks. Only for a store that nobody has open.
    ///
    /// # Errors
    /// [`MaintainError`]: a file cannot be moved or written; then it is as it was.
    pub fn isolate(&self, file: usize, report: &FileReport) -> Result<PathBuf, MaintainError> {
        let path = self.path(file).unwrap_or_default();
        // this snapshot's own disk only looks
        let files = Files::existing(Arc::new(crate::disk::OsDisk), self.files.root())?;
        let first_fault = report.damage.first().map_or(0, |damage| damage.offset);
        let moved = match &*report.kind {
            "log" if report.parts > 0 => {
                let mut cut = Recovery::default();
                let length = self.files().get(file).map_or(0, |listed| listed.bytes);
                recovery::cut(&files, &path, first_fault, length, &mut cut)?;
                cut.set_aside.into_iter().next().map_or_else(|| path.clone(), |aside| aside.path)
            }
            "segment" if report.points > 0 => rescue(&files, &path)?,
            _ => files.set_aside(&path)?,
        };
        for dir in [path.parent(), moved.parent()].into_iter().flatten() {
            files.sync_dir(dir)?;
        }
        Ok(moved)
    }
}

/// Writes the readable blocks of a segment into a new one, which takes its place; says where the old one is.
fn rescue(files: &Files, path: &Path) -> Result<PathBuf, FileError> {
    let spoilt = |what: &str| {
        let source = std::io::Error::new(ErrorKind::InvalidData, what);
        FileError { step: "read once more", path: path.into(), source }
    };
    let index = match IndexBytes::read(files, path, Effort::Thorough) {
        Ok(index) => index,
        Err(IndexError::File(error)) => return Err(error),
        Err(_) => return Err(spoilt("its index, which was good, is not any more")),
    };
    let (open, names) = opened(files, path, &index).map_err(|Damaged(what)| spoilt(what))?;
    let file = files.disk().open(path).map_err(FileError::at("open", path))?;
    let head = index.parse().map_err(|Damaged(what)| spoilt(what))?.head;
    let mut writer = SegmentWriter::create(files, path.to_path_buf(), head, Effort::Thorough)?;
    for (n, series) in open.series().iter().enumerate() {
        for block in 0..series.blocks.len() {
            if let Ok(table) = open.table(&*file, n, block, |_| true) {
                writer.put_rows(&names[n], &table)?;
            }
        }
        writer.end_series(&names[n]);
    }
    // A second name first: so there is no moment without the old file.
    let aside = files.damaged_place(path)?;
    files.disk().link(path, &aside).map_err(FileError::at("keep under another name", path))?;
    writer.finish()?;
    Ok(aside)
}

/// A segment outside a store: its series have numbers of its own, which nobody else knows.
fn opened(files: &Files, path: &Path, index: &IndexBytes) -> Result<(Segment, Vec<SeriesNames>), Damaged> {
    let parsed = index.parse()?;
    let mut names = Vec::with_capacity(parsed.entries.len());
    let mut series = Vec::with_capacity(parsed.entries.len());
    for (n, entry) in parsed.entries.into_iter().enumerate() {
        let (schema, id) = (&parsed.schemas[entry.schema], SeriesId::from_number(n as u64));
        let columns = schema.columns.iter().zip(0..);
        names.push(SeriesNames {
            id,
            measurement: schema.measurement.into(),
            tags: entry.tags.into(),
            columns: columns.map(|((name, kind), number)| (number, (*name).into(), *kind)).collect(),
        });
        series.push(SegmentSeries {
            id,
            fields: (0..schema.columns.len() as u32).collect(),
            blocks: entry.blocks,
        });
    }
    let place = (path.to_path_buf(), index.file_bytes);
    Ok((Segment::new(files, (parsed.head, index.version), place, series), names))
}

/// Reads a segment, or a tier: one that was written with this effort.
fn segment(
    files: &Files,
    path: &Path,
    place: Option<(u64, i64)>,
    effort: Effort,
) -> Result<FileReport, FileError> {
    let mut report = FileReport::of(if effort == Effort::Tier { "tier" } else { "segment" });
    let index = match IndexBytes::read(files, path, effort) {
        Ok(index) => index,
        Err(IndexError::Damaged(Damaged(what))) => {
            report.put_whole(0, format!("the whole segment: {what}"));
            return Ok(report);
        }
        Err(IndexError::Newer(version)) => {
            report.put_whole(7, format!("of version {version}, which this program does not know"));
            return Ok(report);
        }
        Err(IndexError::File(error)) => return Err(error),
    };
    let head = index.parse().map(|parsed| (parsed.head.number, parsed.head.start_s));
    let (open, names) = match opened(files, path, &index) {
        Ok(opened) => opened,
        Err(Damaged(what)) => {
            report.put_whole(0, format!("the whole segment: {what}"));
            return Ok(report);
        }
    };
    if place.map(Ok) != Some(head) {
        report.put_whole(0, "the whole segment: it is under another one's name");
        return Ok(report);
    }
    let file = files.disk().open(path).map_err(FileError::at("open", path))?;
    for (n, series) in open.series().iter().enumerate() {
        for (block, place) in series.blocks.iter().enumerate() {
            report.parts += 1;
            let table = open.table(&*file, n, block, |_| true);
            let fault = match table {
                Ok(table) if table.times.len() == place.rows as usize => None,
                Ok(_) => {
                    Some((place.page, "a block with another number of rows than the index says".to_owned()))
                }
                Err(ScanError::Damaged { offset, what, .. }) => Some((offset, what.to_owned())),
                Err(other) => Some((place.page, other.to_string())),
            };
            let Some((offset, what)) = fault else {
                report.points += u64::from(place.rows);
                continue;
            };
            report.put(Damage {
                offset,
                what,
                points: place.rows.into(),
                at_least: false,
                series: series_name(&names[n]),
                first_ns: Some(place.first),
                last_ns: Some(place.last),
            });
        }
    }
    Ok(report)
}

fn series_name(names: &SeriesNames) -> String {
    let tags: String = names.tags.iter().map(|(key, value)| format!(",{key}={value}")).collect();
    format!("{}{tags}", names.measurement)
}

/// A log, as far as it belongs to the snapshot. Everything after the first damaged frame is lost to a restart; the rows
/// of whole frames there are counted.
fn log(snapshot: &Snapshot, file: usize, bytes: u64) -> Result<FileReport, FileError> {
    let mut report = FileReport::of("log");
    let (path, log) = snapshot.open(file)?;
    let (mut reader, beginning) = LogReader::of(Arc::clone(&log), &path)?;
    let version = match beginning {
        Beginning::Good(version) => version,
        Beginning::Torn => {
            report.torn_bytes = reader.length();
            return Ok(report);
        }
        Beginning::Damaged => {
            report.put_whole(0, "the whole log: it does not begin as one");
            return Ok(report);
        }
        Beginning::Newer(version) => {
            report.put_whole(7, format!("of version {version}, which this program does not know"));
            return Ok(report);
        }
    };
    reader.end_at(bytes);
    let mut state = State { databases: databases(log, &path, version)?, ..State::default() };
    let mut counted = Recovery::default();
    let mut replay = Replay::new(&mut state, &mut counted, snapshot.partition_seconds, version);
    let fault = loop {
        let at = reader.offset();
        match reader.next()? {
            Next::End => break None,
            Next::Damaged => break Some((at, "a frame that is not whole, or whose checksum differs")),
            Next::Payload(payload) => match replay.frame(payload) {
                Ok(()) => report.parts += 1,
                Err(Damaged(what)) => break Some((at, what)),
            },
        }
    };
    report.points = counted.points_replayed + counted.points_refused;
    if let Some((at, what)) = fault {
        note_tail(&mut report, &mut reader, at, what)?;
    }
    Ok(report)
}

/// Says what is after the first fault of a log.
fn note_tail(report: &mut FileReport, reader: &mut LogReader, at: u64, what: &str) -> Result<(), FileError> {
    let (mut points, mut frames, mut known) = (0, 0, true);
    if reader.offset() == at {
        known = reader.skip_damaged()?;
        if !known && reader.is_cut_short()? {
            report.torn_bytes = reader.length() - at;
            return Ok(());
        }
    }
    while known {
        match reader.next()? {
            Next::Payload(payload) => {
                points += rows(payload);
                frames += 1;
            }
            Next::End => break,
            Next::Damaged => known = reader.skip_damaged()?,
        }
    }
    let what = match frames {
        0 => what.to_owned(),
        _ => format!(
            "{what}; {frames} whole frames after it are not read by unid, which cuts a log at the first fault"
        ),
    };
    // how many rows the damaged frame itself had, nobody can say
    report.put(Damage { offset: at, what, points, at_least: true, ..Damage::default() });
    Ok(())
}

fn rows(payload: &[u8]) -> u64 {
    let Ok((_, mut rows)) = parts(payload) else { return 0 };
    let mut count = 0;
    while let Ok(Some(_)) = rows.next() {
        count += 1;
    }
    count
}

/// The databases that a log speaks of: those that the store has forgotten are no damage.
fn databases(
    log: Arc<dyn DiskFile>,
    path: &Path,
    version: u8,
) -> Result<BTreeMap<String, Database>, FileError> {
    let mut found = BTreeMap::new();
    let (mut reader, _) = LogReader::of(log, path)?;
    while let Next::Payload(payload) = reader.next()? {
        let entries =
            if version == 1 { Ok(Entries::of(payload)) } else { parts(payload).map(|(entries, _)| entries) };
        let Ok(mut entries) = entries else { break };
        while let Ok(Some(entry)) = entries.next() {
            if let Entry::Measurement { database, .. } = entry {
                found.entry(database.to_owned()).or_insert_with(Database::default);
            }
        }
    }
    Ok(found)
}
