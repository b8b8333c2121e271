//! What the store needs of a file system, as a trait, so that a test can stand in for a disk that loses power.
//!
//! Owns the list of operations and the real ones. Never decides names or the order of operations: `files` does.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Held as long as a folder belongs to this process.
pub trait Lock: Debug + Send + Sync {}

/// An open file.
pub trait DiskFile: Debug + Send + Sync {
    /// Its size in bytes.
    ///
    /// # Errors
    /// The file system's.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has no bytes.
    ///
    /// # Errors
    /// The file system's.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// The file system's; `UnexpectedEof` where the file is shorter.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// The file system's; then any part may be written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts the file off, or lengthens it with zeros.
    ///
    /// # Errors
    /// The file system's.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Returns when the contents and the size are on the disk; the file's name may not be.
    ///
    /// # Errors
    /// The file system's; then what was written before may be lost, silently from now on.
    fn sync(&self) -> io::Result<()>;
}

/// Files and folders.
pub trait Disk: Debug + Send + Sync {
    /// Makes a folder and those above it; one that exists is fine.
    ///
    /// # Errors
    /// The file system's.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Whether there is a folder of this name.
    fn is_dir(&self, path: &Path) -> bool;
    /// What is in a folder, sorted.
    ///
    /// # Errors
    /// The file system's; `NotFound` where there is no such folder.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// When a file was written last, in nanoseconds since the Unix epoch; 0 where nobody knows.
    ///
    /// # Errors
    /// The file system's.
    fn modified_ns(&self, _path: &Path) -> io::Result<u64> {
        Ok(0)
    }
    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// The file system's; `NotFound` where there is none.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes an empty file; one that exists is emptied, unless it must be `new`.
    ///
    /// # Errors
    /// The file system's; `AlreadyExists`.
    fn create(&self, path: &Path, new: bool) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name, in place of what had it.
    ///
    /// # Errors
    /// The file system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// The file system's.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder.
    ///
    /// # Errors
    /// The file system's; also if it is not empty.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// A second name for a file, for backups.
    ///
    /// # Errors
    /// The file system's.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Returns when the names in a folder are on the disk.
    ///
    /// # Errors
    /// The file system's.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the lock that a file stands for.
    ///
    /// # Errors
    /// `WouldBlock` where another process has it; else the file system's.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;
}

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

impl Lock for File {}

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        Self::set_len(self, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

impl Disk for OsDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn is_dir(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn modified_ns(&self, path: &Path) -> io::Result<u64> {
        let since = fs::metadata(path)?.modified()?.duration_since(std::time::UNIX_EPOCH);
        Ok(since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn create(&self, path: &Path, new: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let file =
            if new { options.create_new(true) } else { options.create(true).truncate(true) }.open(path)?;
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}
