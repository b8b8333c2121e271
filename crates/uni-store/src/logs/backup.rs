//! A copy of the files, which share their bytes with the original; and reading everything once, to see whether it is whole.
//!
//! Owns which files a backup has. Never follows entries that come while it runs.

use super::Logs;
use super::file::{ReadError, Scratch};
use crate::error::{FileError, MaintainError};
use crate::files::Files;
use std::path::PathBuf;

impl Logs {
    /// Puts everything appended so far into the folder `logs` of the store `to`, as hard links.
    pub(crate) fn backup(&self, to: &Files) -> Result<(), MaintainError> {
        self.flush()?;
        let copy = to.below("logs");
        let files: Vec<_> = self.read_state().all_files().cloned().collect();
        for file in files {
            let start = file.head.start_s.to_string();
            let dir = copy.data_dir().join(start);
            copy.create_dir_durably(&dir)?;
            let path = dir.join(file.path().file_name().unwrap_or_default());
            self.files.disk().link(file.path(), &path).map_err(FileError::at("link", &path))?;
            copy.sync_dir(&dir)?;
        }
        Ok(())
    }

    /// Reads every block of every file; returns the files that are damaged, with what is wrong.
    ///
    /// # Errors
    /// [`MaintainError`]: the file system refused.
    pub fn check(&self) -> Result<Vec<(PathBuf, &'static str)>, MaintainError> {
        let files: Vec<_> = self.read_state().all_files().cloned().collect();
        let mut scratch = Scratch::new().map_err(FileError::at("unpack", self.files.root()))?;
        let mut damaged = Vec::new();
        for file in files {
            let reader = file.reader()?;
            // one word, so that the filter is read as well
            let whole = file.blocks.iter().try_for_each(|block| {
                file.may_have(&*reader, block, &[0], &mut scratch)?;
                file.rows(&*reader, block, &mut scratch).map(drop)
            });
            match whole {
                Ok(()) => {}
                Err(ReadError::Damaged(what)) => damaged.push((file.path().to_path_buf(), what.0)),
                Err(error) => return Err(super::file::as_file_error(error, file.path()).into()),
            }
        }
        Ok(damaged)
    }
}
