//! A value read from files, and read again when they change.
//!
//! Owns noticing the change. A new version that is no good is reported once, and the old one stays.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// A value and the files it comes from.
#[derive(Debug)]
pub(super) struct Renewed<T> {
    files: Vec<PathBuf>,
    read: fn(&[PathBuf]) -> anyhow::Result<T>,
    value: RwLock<Arc<T>>,
    seen: Mutex<Vec<Option<Stamp>>>,
}

/// Which version of a file it is: inode, size, time of change.
type Stamp = (u64, u64, i64, i64);

impl<T> Renewed<T> {
    /// Reads the value for the first time.
    ///
    /// # Errors
    /// As `read`.
    pub(super) fn new(
        files: Vec<PathBuf>,
        read: fn(&[PathBuf]) -> anyhow::Result<T>,
    ) -> anyhow::Result<Self> {
        // looked at before reading: a change in between is noticed the next time
        let seen = Mutex::new(stamps(&files));
        let value = RwLock::new(Arc::new(read(&files)?));
        Ok(Self { files, read, value, seen })
    }

    /// The newest good value.
    pub(super) fn get(&self) -> Arc<T> {
        Arc::clone(&self.value.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads again if a file has changed since the last look.
    pub(super) fn refresh(&self, what: &str) {
        let now = stamps(&self.files);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return;
        }
        *seen = now;
        match (self.read)(&self.files) {
            Ok(value) => {
                *self.value.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
                tracing::info!(what, "renewed from disk");
            }
            Err(error) => {
                tracing::warn!(
                    what,
                    err = format!("{error:#}"),
                    "changed on disk and is no good; the old one stays"
                );
            }
        }
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |file: &PathBuf| {
        let found = std::fs::metadata(file).ok()?;
        Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
    };
    files.iter().map(stamp).collect()
}
