//! A disk that is only looked at: what would be written stays in memory and is forgotten.
//!
//! Owns the changes that opening a store wants to make (a new log, a tail cut off, a file moved aside). Never changes a
//! file: so a store, or a backup of one, can be read by somebody who must not, or does not want to, change it.

use crate::disk::{Disk, DiskFile, Lock, OsDisk};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What differs from the disk below.
#[derive(Debug, Default)]
struct Changes {
    files: BTreeMap<PathBuf, Arc<Memory>>,
    /// Lengths of files that were cut.
    lengths: BTreeMap<PathBuf, u64>,
    removed: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
}

/// The file system of this machine, with all changes kept in memory.
#[derive(Debug, Default)]
pub(crate) struct ReadOnly {
    changes: Arc<Mutex<Changes>>,
}

fn locked(changes: &Mutex<Changes>) -> MutexGuard<'_, Changes> {
    changes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file that is in memory alone.
#[derive(Debug, Default)]
struct Memory(Mutex<Vec<u8>>);

impl Memory {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DiskFile for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.bytes();
        let from = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..offset + buffer.len()));
        buffer.copy_from_slice(from.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&self, new: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.bytes();
        let from = usize::try_from(offset).map_err(|_| ErrorKind::FileTooLarge)?;
        let end = from + new.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[from..end].copy_from_slice(new);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.bytes().resize(usize::try_from(length).map_err(|_| ErrorKind::FileTooLarge)?, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A file of the disk below, perhaps shortened.
#[derive(Debug)]
struct Seen {
    file: File,
    path: PathBuf,
    changes: Arc<Mutex<Changes>>,
}

impl DiskFile for Seen {
    fn len(&self) -> io::Result<u64> {
        let length = self.file.metadata()?.len();
        Ok(locked(&self.changes).lengths.get(&self.path).map_or(length, |cut| length.min(*cut)))
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(&self.file, buffer, offset)
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        locked(&self.changes).lengths.insert(self.path.clone(), bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Lock for () {}

impl Disk for ReadOnly {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        locked(&self.changes).folders.insert(dir.to_path_buf());
        Ok(())
    }

    fn is_dir(&self, path: &Path) -> bool {
        OsDisk.is_dir(path) || locked(&self.changes).folders.contains(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let below = OsDisk.list(dir);
        let changes = locked(&self.changes);
        if below.is_err() && changes.folders.contains(dir) {
            return Ok(Vec::new());
        }
        let mut all: BTreeSet<PathBuf> = below?.into_iter().collect();
        all.retain(|path| !changes.removed.contains(path));
        all.extend(changes.files.keys().filter(|path| path.parent() == Some(dir)).cloned());
        Ok(all.into_iter().collect())
    }

    fn modified_ns(&self, path: &Path) -> io::Result<u64> {
        OsDisk.modified_ns(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let changes = locked(&self.changes);
        if let Some(file) = changes.files.get(path) {
            return Ok(Arc::<Memory>::clone(file));
        }
        if changes.removed.contains(path) {
            return Err(ErrorKind::NotFound.into());
        }
        let (file, path) = (File::open(path)?, path.to_path_buf());
        Ok(Arc::new(Seen { file, path, changes: Arc::clone(&self.changes) }))
    }

    fn create(&self, path: &Path, new: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut changes = locked(&self.changes);
        let is_there = path.exists() && !changes.removed.contains(path);
        if new && (is_there || changes.files.contains_key(path)) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let file = Arc::new(Memory::default());
        changes.files.insert(path.to_path_buf(), Arc::clone(&file));
        Ok(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut changes = locked(&self.changes);
        changes.removed.insert(from.to_path_buf());
        // A file of the disk below that gets another name is one moved aside: nobody looks at it again.
        if let Some(file) = changes.files.remove(from) {
            changes.files.insert(to.to_path_buf(), file);
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut changes = locked(&self.changes);
        changes.files.remove(path);
        changes.removed.insert(path.to_path_buf());
        Ok(())
    }

    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn link(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    /// A folder without the file was never opened by a program that could still have it: a copy.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Box::new(())),
            opened => opened?,
        };
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => Err(ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}
