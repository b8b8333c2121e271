//! What can go wrong, one small enum for each operation.
//!
//! A message says what was tried and on what; the operating system's reason is the `source()`.

use std::io;
use std::path::{Path, PathBuf};

/// A step on a file that failed; shared by the enums below.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {}", path.display())]
pub(crate) struct FileError {
    pub(crate) step: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

impl FileError {
    /// For `map_err`: names the step and the path.
    pub(crate) fn at(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { step, path: path.to_path_buf(), source }
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has the folder.
    #[error("the store {} is in use by another process: stop it, or choose another folder", dir.display())]
    InUse {
        /// The store's folder.
        dir: PathBuf,
    },
    /// A file of a later version of this program.
    #[error("{} has format version {found}, this program reads version {known}: use a newer program", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest known version.
        known: u32,
    },
    /// The file that marks a store says something else.
    #[error("{} does not describe a store: {what}; choose another folder, or restore that file", path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// An option is out of its range.
    #[error("option out of range: {0}")]
    Option(&'static str),
    /// The file system refused.
    #[error("cannot {step} {}", path.display())]
    File {
        /// What was tried.
        step: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl From<FileError> for OpenError {
    fn from(error: FileError) -> Self {
        Self::File { step: error.step, path: error.path, source: error.source }
    }
}

impl From<MaintainError> for OpenError {
    fn from(error: MaintainError) -> Self {
        match error {
            MaintainError::File { step, path, source } => Self::File { step, path, source },
            MaintainError::Broken { dir } => {
                Self::File { step: "sync", path: dir, source: io::Error::other("an earlier sync failed") }
            }
        }
    }
}

/// Why a batch was not stored, or not wholly. Points refused by themselves are no error: see
/// [`crate::Appended`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// No such database.
    #[error("database not found: \"{database}\"")]
    NoDatabase {
        /// The name asked for.
        database: String,
    },
    /// The log could not be written: nothing of the batch, or only a first part of it, is stored. It is safe to
    /// send the batch again.
    #[error("cannot {step} {}", path.display())]
    File {
        /// What was tried.
        step: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Rows cannot be brought from memory into segments, and memory may take no more.
    #[error(
        "the store holds {bytes} bytes of log that cannot be packed into segments, {max} are allowed: check the disk"
    )]
    Full {
        /// Bytes of log that is in no segment.
        bytes: u64,
        /// The limit.
        max: u64,
        /// Why the last attempt to write segments failed.
        source: Box<MaintainError>,
    },
    /// The store has as many bytes on the disk as it may, and no partition is old enough to be dropped for new points.
    #[error(
        "the store holds {bytes} bytes, {max} are allowed, all of them of today: allow more, or send less"
    )]
    DiskLimit {
        /// Bytes of segments and log.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// A sync to the disk failed earlier. The kernel may have thrown the unwritten data away and will not say so a
    /// second time, so nothing further is acknowledged until the store is opened anew.
    #[error("the write-ahead log in {} failed to sync earlier: check the disk, then restart", dir.display())]
    Broken {
        /// The store's folder.
        dir: PathBuf,
    },
}

impl From<FileError> for AppendError {
    fn from(error: FileError) -> Self {
        Self::File { step: error.step, path: error.path, source: error.source }
    }
}

/// Why a flush, a merge, a sync or a drop of partitions failed. Nothing is lost: the log still has it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MaintainError {
    /// The file system refused.
    #[error("cannot {step} {}", path.display())]
    File {
        /// What was tried.
        step: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// See [`AppendError::Broken`].
    #[error("the write-ahead log in {} failed to sync earlier: check the disk, then restart", dir.display())]
    Broken {
        /// The store's folder.
        dir: PathBuf,
    },
}

impl From<FileError> for MaintainError {
    fn from(error: FileError) -> Self {
        Self::File { step: error.step, path: error.path, source: error.source }
    }
}

impl From<MaintainError> for AppendError {
    fn from(error: MaintainError) -> Self {
        match error {
            MaintainError::File { step, path, source } => Self::File { step, path, source },
            MaintainError::Broken { dir } => Self::Broken { dir },
        }
    }
}

/// Why a database or policy was not made, changed or dropped. The words are InfluxDB's where it has some.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The name is empty.
    #[error("invalid name")]
    NoName,
    /// The name cannot be used.
    #[error("the name \"{name}\" cannot be used: it needs 1 to {max} bytes and no control characters")]
    Name {
        /// The name, shortened.
        name: String,
        /// Most bytes of a name.
        max: usize,
    },
    /// There are too many databases and policies.
    #[error("the limit of {max} databases and retention policies is reached: drop some")]
    Limit {
        /// The limit.
        max: usize,
    },
    /// No such database.
    #[error("database not found: {name}")]
    DatabaseNotFound {
        /// The name asked for.
        name: String,
    },
    /// No such policy.
    #[error("retention policy not found: {name}")]
    PolicyNotFound {
        /// The name asked for.
        name: String,
    },
    /// There is another policy of that name.
    #[error("retention policy already exists")]
    Exists,
    /// The database exists with another policy, or the policy is not the default one.
    #[error("retention policy conflicts with an existing policy")]
    Conflict,
    /// Points would be kept for too short a time.
    #[error("retention policy duration must be at least 1h0m0s")]
    TooShort,
    /// Shards would be kept for longer than points.
    #[error("retention policy duration must be greater than the shard duration")]
    ShardTooLong,
    /// Rows in memory could not be packed, which has to come first.
    #[error(transparent)]
    Maintain(#[from] MaintainError),
    /// The file system refused.
    #[error("cannot {step} {}", path.display())]
    File {
        /// What was tried.
        step: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl From<FileError> for PolicyError {
    fn from(error: FileError) -> Self {
        Self::File { step: error.step, path: error.path, source: error.source }
    }
}

/// Why nothing was deleted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeleteError {
    /// Deletions are kept until merges have written what is left.
    #[error("{max} deletions wait for merges already: try again later, or delete more at once")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// Rows in memory could not be packed, or the file system refused.
    #[error(transparent)]
    Maintain(#[from] MaintainError),
}

/// Why a scan is not whole. Rows from undamaged places were visited all the same.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// No such database.
    #[error("database not found: \"{database}\"")]
    NoDatabase {
        /// The name asked for.
        database: String,
    },
    /// A block on disk does not follow the format; its rows are missing from the answer.
    #[error("{} is damaged at byte {offset} ({what}): rows from there are missing", path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where its block begins.
        offset: u64,
        /// What was found.
        what: &'static str,
    },
    /// The file system refused.
    #[error("cannot {step} {}", path.display())]
    File {
        /// What was tried.
        step: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl From<FileError> for ScanError {
    fn from(error: FileError) -> Self {
        Self::File { step: error.step, path: error.path, source: error.source }
    }
}

impl From<ScanError> for MaintainError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::File { step, path, source } => Self::File { step, path, source },
            ScanError::Damaged { path, what, .. } => Self::File {
                step: "read a block of",
                path,
                source: io::Error::new(io::ErrorKind::InvalidData, what),
            },
            ScanError::NoDatabase { database } => Self::File {
                step: "find the folder of database",
                path: PathBuf::from(database),
                source: io::ErrorKind::NotFound.into(),
            },
        }
    }
}
