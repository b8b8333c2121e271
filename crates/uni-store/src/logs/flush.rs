//! From the head to files: freeze, write, publish, drop the write-ahead log.
//!
//! Owns the order of these steps. A partition's file says up to which write-ahead log it has everything, so that a log
//! that outlives its flush is not taken up a second time.

use super::file::{FileWriter, LogFile};
use super::index::FileHead;
use super::rows;
use super::state::Partition;
use super::{Logs, Maintenance, Writer};
use crate::error::{FileError, MaintainError};
use crate::state::{SECOND_NS, partition_span};
use std::io::ErrorKind;
use std::sync::atomic::Ordering::Relaxed;

impl Logs {
    /// Packs all entries that are only in memory into files and drops their log. Readers and writers go on meanwhile.
    ///
    /// # Errors
    /// [`MaintainError`]: the file system refused. Nothing is lost and nothing hidden; the next call tries again.
    pub fn flush(&self) -> Result<(), MaintainError> {
        // what an earlier flush could not finish comes first
        let mut maintenance = self.lock_maintenance();
        self.finish_frozen(&mut maintenance)?;
        self.freeze(&mut maintenance)?;
        self.finish_frozen(&mut maintenance)
    }

    /// Packs the head if its log has reached the size for it.
    pub(crate) fn flush_if_large(&self) -> Result<bool, MaintainError> {
        let large = self.lock_writer().unflushed_bytes() >= self.options.wal_flush_bytes;
        if large || !self.lock_maintenance().frozen_journals.is_empty() {
            self.flush()?;
        }
        Ok(large)
    }

    /// Swaps the head for an empty one and the log for a new file, in one step for readers and writers.
    fn freeze(&self, maintenance: &mut Maintenance) -> Result<(), MaintainError> {
        let mut writer = self.lock_writer();
        if writer.broken {
            return Err(self.broken());
        }
        let bytes = writer.unflushed_bytes();
        if bytes == 0 {
            return Ok(());
        }
        // the last log that has nothing that is not frozen
        maintenance.frozen_journal = writer.next_journal.saturating_sub(1);
        let Writer { wal, next_journal, .. } = &mut *writer;
        match wal {
            Some(wal) if wal.is_empty() => maintenance.frozen_journal = next_journal.saturating_sub(2),
            Some(wal) => {
                maintenance.frozen_journals.push(wal.rotate(&self.files)?);
                *next_journal += 1;
            }
            None => {}
        }
        maintenance.frozen_journals.append(&mut writer.replayed);
        writer.replayed_bytes = 0;
        self.counters.frozen_bytes.fetch_add(bytes, Relaxed);
        let state = &mut *self.write_state();
        state.frozen = std::mem::take(&mut state.head);
        Ok(())
    }

    /// Brings the frozen rows into files, a partition after the other.
    fn finish_frozen(&self, maintenance: &mut Maintenance) -> Result<(), MaintainError> {
        let partitions = self.read_state().frozen.partitions.clone();
        let floor = self.floor.load(Relaxed);
        for (start_s, partition) in partitions {
            let file = if partition_span(start_s, self.partition_seconds).1 < floor {
                None
            } else {
                self.write_file(start_s, &partition, maintenance)?
            };
            let mut state = self.write_state();
            state.frozen.take(start_s);
            file.into_iter().for_each(|file| state.add(file));
        }
        self.remove_journals(maintenance)
    }

    fn write_file(
        &self,
        start_s: i64,
        partition: &Partition,
        maintenance: &mut Maintenance,
    ) -> Result<Option<LogFile>, FileError> {
        let number = maintenance.take_number();
        let head = FileHead { number, first: number, journal: maintenance.frozen_journal, start_s };
        let mut writer = FileWriter::create(&self.files, self.file_path(start_s, number), head)?;
        for (vm, pieces) in partition {
            for block in rows::sorted(pieces) {
                writer.put(vm, &block)?;
            }
        }
        writer.finish()
    }

    fn remove_journals(&self, maintenance: &mut Maintenance) -> Result<(), MaintainError> {
        if maintenance.frozen_journals.is_empty() {
            return Ok(());
        }
        for path in &maintenance.frozen_journals {
            match self.files.disk().remove(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(FileError::at("remove", path)(error).into());
                }
                _ => {}
            }
        }
        self.files.sync_dir(&self.files.wal_dir())?;
        maintenance.frozen_journals.clear();
        self.counters.frozen_bytes.store(0, Relaxed);
        Ok(())
    }
}

impl Maintenance {
    pub(super) const fn take_number(&mut self) -> u64 {
        let number = self.next_file;
        self.next_file += 1;
        number
    }
}

/// The first moment of a partition.
pub(super) const fn first_nanos(start_s: i64) -> i64 {
    start_s.saturating_mul(SECOND_NS)
}
