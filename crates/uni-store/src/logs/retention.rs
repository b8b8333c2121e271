//! Dropping what is too old, by whole partitions: by age, or the oldest where the disk is full.
//!
//! Never reads a clock, and never drops a part of a file.

use super::Logs;
use super::flush::first_nanos;
use crate::retention::first_kept;
use std::time::Duration;
use uni_wire::Timestamp;

/// A partition of logs that was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DroppedLogs {
    /// Its first moment.
    pub start: Timestamp,
    /// The moment after its last.
    pub end: Timestamp,
    /// Bytes of the files that go with it.
    pub bytes: u64,
}

impl Logs {
    /// Drops all partitions that ended longer ago than `retention`. Entries that are only in memory are hidden at once
    /// and never reach a file.
    pub fn enforce_retention(&self, now: Timestamp, retention: Option<Duration>) -> Vec<DroppedLogs> {
        let Some(first_kept_s) = first_kept(now, retention, self.partition_seconds) else {
            return Vec::new();
        };
        self.drop_before(first_kept_s)
    }

    /// The first moment of the oldest partition that has files, and their bytes: what [`Logs::drop_oldest`] would drop.
    pub fn oldest(&self) -> Option<(Timestamp, u64)> {
        let state = self.read_state();
        let (start_s, files) = state.files.first_key_value()?;
        Some((Timestamp::from_seconds(*start_s), files.iter().map(|file| file.bytes).sum()))
    }

    /// Drops the oldest partition that has files, whatever its age: for a limit of disk space.
    pub fn drop_oldest(&self) -> Option<DroppedLogs> {
        let start_s = *self.read_state().files.first_key_value()?.0;
        self.drop_before(start_s.saturating_add(self.partition_seconds)).into_iter().last()
    }

    fn drop_before(&self, first_kept_s: i64) -> Vec<DroppedLogs> {
        self.raise_floor(first_nanos(first_kept_s));
        let dropped = {
            let mut state = self.write_state();
            let kept = state.files.split_off(&first_kept_s);
            std::mem::replace(&mut state.files, kept)
        };
        let drop = |(start_s, files): (i64, Vec<std::sync::Arc<super::file::LogFile>>)| {
            files.iter().for_each(|file| file.retire());
            DroppedLogs {
                start: Timestamp::from_seconds(start_s),
                end: Timestamp::from_seconds(start_s.saturating_add(self.partition_seconds)),
                bytes: files.iter().map(|file| file.bytes).sum(),
            }
        };
        dropped.into_iter().map(drop).collect()
    }
}
