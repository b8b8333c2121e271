//! The files of a store at one moment, for backups and checks: of a store that is open, and of one that nobody has.
//!
//! Owns which files belong to a store and how far each is to be read. Never copies, never changes anything; keeps
//! nobody from writing, merging or dropping: files that are no longer wanted stay until the snapshot is dropped.

use crate::disk::{Disk, DiskFile, Lock};
use crate::error::{FileError, MaintainError, OpenError};
use crate::files::{Files, number_of};
use crate::readonly::ReadOnly;
use crate::segment::Segment;
use crate::store::Store;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Deepest folders that are looked into: a store has three levels.
const MAX_DEPTH: usize = 8;
/// Never part of a store's contents.
const NOT_CONTENTS: [&str; 2] = ["lock", "damaged"];

/// A file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SnapshotFile {
    /// Inside the store's folder, with `/` between the parts.
    pub path: String,
    /// How much of it belongs to the snapshot.
    pub bytes: u64,
    /// When it was written last, in nanoseconds since the Unix epoch. A segment is never written again: one of the
    /// same path, size and time is the same.
    pub modified_ns: u64,
}

/// What keeps a file from going away.
#[derive(Debug)]
enum Held {
    Segment {
        _kept: Arc<Segment>,
    },
    Open(Arc<dyn DiskFile>),
    /// Nobody else has the store.
    Folder,
}

/// The files of a store at one moment.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) files: Files,
    pub(crate) partition_seconds: i64,
    folders: Vec<String>,
    listed: Vec<SnapshotFile>,
    held: Vec<Held>,
    _lock: Option<Box<dyn Lock>>,
}

impl Store {
    /// Everything appended so far as files that stay as they are: packs the head first, so that no log is needed.
    ///
    /// # Errors
    /// [`MaintainError`]: the head could not be packed, or a file cannot be looked at.
    pub fn snapshot(&self) -> Result<Snapshot, MaintainError> {
        self.flush()?;
        self.seen(|_| false)
    }

    /// The files as they are, logs included, as far as they are written.
    ///
    /// # Errors
    /// [`MaintainError`]: a file cannot be looked at.
    pub fn snapshot_as_it_is(&self) -> Result<Snapshot, MaintainError> {
        self.seen(|path| number_of(path, "wal").is_some())
    }

    fn seen(&self, with_log: impl Fn(&Path) -> bool) -> Result<Snapshot, MaintainError> {
        let mut snapshot = Snapshot {
            files: self.files.clone(),
            partition_seconds: self.partition_seconds,
            folders: Vec::new(),
            listed: Vec::new(),
            held: Vec::new(),
            _lock: None,
        };
        // No flush or merge begins or ends between the look at the segments and that at the logs.
        let _nothing_moves = self.lock_maintenance();
        let (log, log_bytes) = {
            let writer = self.lock_writer();
            (writer.wal.path().to_path_buf(), writer.wal.bytes())
        };
        let segments: Vec<Arc<Segment>> = {
            let state = self.read_state();
            let all = state.databases.values().flat_map(|database| database.partitions.values().flatten());
            all.cloned().collect()
        };
        for segment in segments {
            let (path, bytes) = (segment.path().to_path_buf(), segment.bytes());
            snapshot.put(&path, bytes, Held::Segment { _kept: segment })?;
        }
        let (folders, found) = walk(&self.files, self.files.root())?;
        snapshot.put_folders(&folders);
        for path in found {
            if number_of(&path, "seg").is_some() || (number_of(&path, "wal").is_some() && !with_log(&path)) {
                continue;
            }
            let file = match self.files.disk().open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                opened => opened.map_err(FileError::at("open", &path))?,
            };
            let length = file.len().map_err(FileError::at("read", &path))?;
            let bytes = if path == log { length.min(log_bytes) } else { length };
            snapshot.put(&path, bytes, Held::Open(file))?;
        }
        snapshot.sort();
        Ok(snapshot)
    }
}

impl Snapshot {
    /// The files of a store that no process has open; it stays locked as long as the snapshot lives. A folder without
    /// a lock file, as a copy of a store, is taken as it is.
    ///
    /// # Errors
    /// [`OpenError`]: the store is in use, is no store, or cannot be read.
    pub fn of_folder(dir: &Path) -> Result<Self, OpenError> {
        let files = Files::existing(Arc::new(ReadOnly::default()), dir)?;
        let lock = files.lock()?;
        let partition_seconds = files.known_partition_seconds().cast_signed();
        let (listed, held) = (Vec::new(), Vec::new());
        let (folders, found) = walk(&files, dir)?;
        let mut snapshot =
            Self { files, partition_seconds, folders: Vec::new(), listed, held, _lock: Some(lock) };
        snapshot.put_folders(&folders);
        for path in found {
            let file = snapshot.files.disk().open(&path).map_err(FileError::at("open", &path))?;
            let bytes = file.len().map_err(FileError::at("read", &path))?;
            snapshot.put(&path, bytes, Held::Folder)?;
        }
        snapshot.sort();
        Ok(snapshot)
    }

    fn put(&mut self, path: &Path, bytes: u64, held: Held) -> Result<(), FileError> {
        let modified_ns = self.files.disk().modified_ns(path).map_err(FileError::at("look at", path))?;
        self.listed.push(SnapshotFile { path: self.inside(path), bytes, modified_ns });
        self.held.push(held);
        Ok(())
    }

    fn put_folders(&mut self, folders: &[PathBuf]) {
        self.folders = folders.iter().map(|folder| self.inside(folder)).collect();
        self.folders.sort();
    }

    fn inside(&self, path: &Path) -> String {
        let inside = path.strip_prefix(self.files.root()).unwrap_or(path);
        let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
        parts.join("/")
    }

    fn sort(&mut self) {
        let listed = std::mem::take(&mut self.listed).into_iter();
        let by_path: BTreeMap<_, _> = listed
            .zip(std::mem::take(&mut self.held))
            .map(|(file, held)| (file.path.clone(), (file, held)))
            .collect();
        (self.listed, self.held) = by_path.into_values().unzip();
    }

    /// The folders, sorted. Empty ones count: a database is a folder, and a log is only read into databases that exist.
    pub fn folders(&self) -> &[String] {
        &self.folders
    }

    /// The files, sorted by path.
    pub fn files(&self) -> &[SnapshotFile] {
        &self.listed
    }

    /// Where a file is.
    pub(crate) fn path(&self, file: usize) -> Option<PathBuf> {
        Some(self.files.root().join(&self.listed.get(file)?.path))
    }

    /// A file, even one that has lost its name meanwhile.
    pub(crate) fn open(&self, file: usize) -> Result<(PathBuf, Arc<dyn DiskFile>), FileError> {
        let missing = || {
            let source = ErrorKind::NotFound.into();
            FileError { step: "find, in the snapshot, file", path: file.to_string().into(), source }
        };
        let (path, held) = self.path(file).zip(self.held.get(file)).ok_or_else(missing)?;
        let opened = match held {
            Held::Open(file) => Arc::clone(file),
            Held::Segment { .. } | Held::Folder => {
                self.files.disk().open(&path).map_err(FileError::at("open", &path))?
            }
        };
        Ok((path, opened))
    }

    /// At most `max` bytes of the `file`-th file from `offset` on; none at its end.
    ///
    /// # Errors
    /// [`MaintainError`]: no such file, or it cannot be read.
    pub fn read(&self, file: usize, offset: u64, max: usize) -> Result<Vec<u8>, MaintainError> {
        let (path, disk_file) = self.open(file)?;
        let listed = &self.listed[file];
        let left = listed.bytes.saturating_sub(offset);
        let mut bytes = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(max)];
        disk_file.read_exact_at(&mut bytes, offset).map_err(FileError::at("read", &path))?;
        Ok(bytes)
    }
}

/// Whether a path that somebody else wrote down stays inside a folder.
#[must_use]
pub fn is_inside(path: &str) -> bool {
    let mut parts = Path::new(path).components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// The folders and files that belong to a store, whoever wrote them.
fn walk(files: &Files, root: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), FileError> {
    let (mut seen, mut found) = (Vec::new(), Vec::new());
    let mut folders = vec![(root.to_path_buf(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for path in files.list(&folder)? {
            let is_contents = depth > 0 || !NOT_CONTENTS.iter().any(|name| path.ends_with(name));
            if files.disk().is_dir(&path) {
                if is_contents && depth < MAX_DEPTH {
                    seen.push(path.clone());
                    folders.push((path, depth + 1));
                }
            } else if is_contents && path.extension().is_none_or(|extension| extension != "tmp") {
                found.push(path);
            }
        }
    }
    Ok((seen, found))
}

/// A store that is looked at: whatever opening it wants to change is changed in memory alone.
impl Store {
    /// Opens the store in `dir` to read it; nothing in the folder is changed, and points that are appended are
    /// forgotten.
    ///
    /// # Errors
    /// As [`Store::open`]; also if there is no store.
    pub fn open_read_only(dir: &Path, now: uni_wire::Timestamp) -> Result<Self, OpenError> {
        let disk: Arc<dyn Disk> = Arc::new(ReadOnly::default());
        Files::existing(Arc::clone(&disk), dir)?;
        let options = crate::Options { max_series: usize::MAX, ..crate::Options::default() };
        Self::open_on(disk, dir, options, now)
    }
}
