//! A copy of the whole store that takes neither time nor space: second names for files that never change.
//!
//! Owns what belongs to a copy. Never stops writers: it begins with a flush, and what comes later is not in it.

use crate::error::{FileError, MaintainError};
use crate::files::Files;
use crate::segment::Segment;
use crate::state::Database;
use crate::store::Store;
use crate::tier::Tier;
use std::io::{Error, ErrorKind};
use std::path::Path;
use std::sync::Arc;

/// Segments and tiers, with the start of their partition.
#[derive(Debug, Default)]
struct Dated {
    segments: Vec<(i64, Arc<Segment>)>,
    tiers: Vec<(i64, Arc<Tier>)>,
}

impl Dated {
    fn of(database: &Database) -> Self {
        let segments = database.partitions.iter();
        let tiers = database.tiers.iter();
        Self {
            segments: segments.flat_map(|(at, all)| all.iter().map(|one| (*at, Arc::clone(one)))).collect(),
            tiers: tiers.flat_map(|(at, all)| all.iter().map(|one| (*at, Arc::clone(one)))).collect(),
        }
    }

    /// Every file, with the start of its partition.
    fn files(&self) -> impl Iterator<Item = (i64, &Segment)> {
        let segments = self.segments.iter().map(|(start_s, segment)| (*start_s, &**segment));
        segments.chain(self.tiers.iter().map(|(start_s, tier)| (*start_s, &*tier.segment)))
    }
}

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
            state.databases.iter().map(|(name, database)| (name.clone(), Dated::of(database))).collect()
        };
        for (database, dated) in databases {
            copy.create_dir_durably(&copy.space_dir(&database))?;
            for (start_s, file) in dated.files() {
                let dir = copy.partition_dir(&database, start_s);
                copy.create_dir_durably(&dir)?;
                let path = dir.join(file.path().file_name().unwrap_or_default());
                self.files.disk().link(file.path(), &path).map_err(FileError::at("link", &path))?;
                copy.sync_dir(&dir)?;
            }
        }
        self.logs().backup(&copy)?;
        self.copy_notes(&copy)?;
        copy.partition_seconds(self.partition_seconds.cast_unsigned()).map_err(|error| FileError {
            step: "mark as a store",
            path: to.into(),
            source: Error::other(error),
        })?;
        Ok(())
    }
}
