//! A copy of the whole store that takes neither time nor space: second names for files that never change.
//!
//! Owns what belongs to a copy. Never stops writers: it begins with a flush, and what comes later is not in it.

use crate::error::{FileError, MaintainError};
use crate::files::Files;
use crate::segment::Segment;
use crate::store::Store;
use std::io::{Error, ErrorKind};
use std::path::Path;
use std::sync::Arc;

/// Segments with the start of their partition.
type Dated = Vec<(i64, Arc<Segment>)>;

impl Store {
    /// Puts everything appended so far into the folder `to`, which must not exist or be empty and must lie on the same
    /// file system: a store that [`Store::open`] opens. Segments are hard links.
    ///
    /// # Errors
    /// [`MaintainError`]: the flush failed, the folder is not empty, or the file system refused.
    pub fn backup(&self, to: &Path) -> Result<(), MaintainError> {
        let copy = Files::create_in(&self.files, to)?;
        if !copy.list(&copy.data_dir())?.is_empty() {
            let source = Error::from(ErrorKind::AlreadyExists);
            return Err(FileError {
                step: "write a backup into the folder, which is not empty,",
                path: to.into(),
                source,
            }
            .into());
        }
        // Deletions wait until the copy has the notes of those that it needs.
        let mut maintenance = self.lock_maintenance();
        self.flush_locked(&mut maintenance)?;
        // Readers keep files alive: what is merged away meanwhile stays until its link is made.
        let databases: Vec<(String, Dated)> = {
            let state = self.read_state();
            let segments = |partitions: &std::collections::BTreeMap<i64, Vec<Arc<Segment>>>| {
                let all = partitions.iter();
                all.flat_map(|(start_s, list)| list.iter().map(|one| (*start_s, Arc::clone(one)))).collect()
            };
            state.databases.iter().map(|(name, d)| (name.clone(), segments(&d.partitions))).collect()
        };
        for (database, segments) in databases {
            copy.create_dir_durably(&copy.space_dir(&database))?;
            for (start_s, segment) in segments {
                let dir = copy.partition_dir(&database, start_s);
                copy.create_dir_durably(&dir)?;
                let path = copy.segment(&database, start_s, segment.number());
                self.files.disk().link(segment.path(), &path).map_err(FileError::at("link", &path))?;
                copy.sync_dir(&dir)?;
            }
        }
        self.copy_notes(&copy)?;
        copy.partition_seconds(self.partition_seconds.cast_unsigned()).map_err(|error| FileError {
            step: "mark as a store",
            path: to.into(),
            source: Error::other(error),
        })?;
        Ok(())
    }
}
