//! Many files of a partition into one of full blocks.
//!
//! Owns the choice of what is merged: always the newest files of a partition, so that a merged file stands for all numbers
//! from its first one to its own. Full blocks are copied as they are; only small ones are unpacked.

use super::file::{FileWriter, LogFile, ReadError, Scratch};
use super::index::{Block, FileHead};
use super::rows::{BLOCK_BYTES, Rows, sorted};
use super::{Logs, Maintenance};
use crate::disk::DiskFile;
use crate::error::{FileError, MaintainError};
use crate::state::partition_span;
use crate::store::SETTLED_SECONDS;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use uni_wire::Timestamp;

/// Merge when so many files may be.
const MERGE_AT: usize = 4;
/// Files of more bytes of text are left alone: rewriting them costs more than opening them.
const LARGEST_RAW_BYTES: u64 = 1 << 30;
/// A block of this size is full enough.
const FULL_BYTES: u32 = BLOCK_BYTES as u32 / 2;

/// The newest files of a partition that may become one.
fn mergeable<'a>(files: &'a [Arc<LogFile>], maintenance: &Maintenance, settled: bool) -> &'a [Arc<LogFile>] {
    let usable = |file: &&Arc<LogFile>| {
        file.raw_bytes() < LARGEST_RAW_BYTES && !maintenance.unmergeable.contains(&file.head.number)
    };
    let newest = &files[files.len() - files.iter().rev().take_while(usable).count()..];
    if settled {
        return if newest.len() > 1 { newest } else { &[] };
    }
    // a file is merged again only with as much as it has itself: else each merge would rewrite the whole day
    let (mut chosen, mut bytes) = (0, 0);
    for (count, file) in newest.iter().rev().enumerate() {
        if count > 0 && file.raw_bytes() > bytes {
            break;
        }
        bytes += file.raw_bytes();
        chosen = count + 1;
    }
    if chosen >= MERGE_AT { &newest[newest.len() - chosen..] } else { &[] }
}

impl Logs {
    /// Merges the files of one partition, if that is due; answers whether it did. As [`crate::Store::merge`], which calls
    /// it.
    pub(crate) fn merge(&self, now: Timestamp, pause: &mut dyn FnMut()) -> Result<bool, MaintainError> {
        let _one_at_a_time = self.lock_merging();
        let (head, old) = {
            let mut maintenance = self.lock_maintenance();
            let Some(old) = self.choose(now, &maintenance) else { return Ok(false) };
            let (Some(first), Some(last)) = (old.first(), old.last()) else { return Ok(false) };
            let journal = old.iter().map(|file| file.head.journal).max().unwrap_or(0);
            let number = maintenance.take_number();
            (FileHead { number, first: first.head.first, journal, start_s: last.head.start_s }, old)
        };
        let path = self.file_path(head.start_s, head.number);
        let writer = FileWriter::create(&self.files, path.clone(), head)?;
        match merged(writer, &old, pause) {
            Ok(Some(file)) => self.replace(&old, file),
            Ok(None) => {}
            Err(ReadError::File(error)) => return Err(error.into()),
            Err(_) => {
                // they stay as they are, so that what can still be read is not made to look whole
                self.counters.damaged_reads.fetch_add(1, Relaxed);
                self.lock_maintenance().unmergeable.extend(old.iter().map(|file| file.head.number));
            }
        }
        Ok(true)
    }

    fn choose(&self, now: Timestamp, maintenance: &Maintenance) -> Option<Vec<Arc<LogFile>>> {
        let settled = |start_s: i64| {
            let end = partition_span(start_s, self.partition_seconds).1;
            end.saturating_add(SETTLED_SECONDS * crate::state::SECOND_NS) < now.nanos()
        };
        let state = self.read_state();
        let chosen =
            state.files.iter().map(|(start_s, files)| mergeable(files, maintenance, settled(*start_s)));
        chosen.filter(|files| !files.is_empty()).map(<[_]>::to_vec).next()
    }

    fn replace(&self, old: &[Arc<LogFile>], merged: LogFile) {
        let mut state = self.write_state();
        let files = state.files.get_mut(&merged.head.start_s);
        let is_there = |files: &&mut Vec<Arc<LogFile>>| {
            old.iter().all(|one| files.iter().any(|file| file.head.number == one.head.number))
        };
        let Some(files) = files.filter(is_there) else {
            // retention was quicker
            merged.retire();
            return;
        };
        files.retain(|file| old.iter().all(|gone| gone.head.number != file.head.number));
        state.add(merged);
        old.iter().for_each(|file| file.retire());
    }
}

/// A block of one of the files.
struct Piece<'a> {
    file: &'a LogFile,
    reader: &'a dyn DiskFile,
    block: &'a Block,
}

fn merged(
    mut writer: FileWriter,
    old: &[Arc<LogFile>],
    pause: &mut dyn FnMut(),
) -> Result<Option<LogFile>, ReadError> {
    let readers = old.iter().map(|file| file.reader()).collect::<Result<Vec<_>, _>>()?;
    let mut vms: BTreeMap<&Arc<str>, Vec<Piece<'_>>> = BTreeMap::new();
    for (file, reader) in old.iter().zip(&readers) {
        for block in &file.blocks {
            vms.entry(&block.vm).or_default().push(Piece { file, reader: &**reader, block });
        }
    }
    let mut scratch = Scratch::new().map_err(FileError::at("unpack", std::path::Path::new("blocks")))?;
    for (vm, mut pieces) in vms {
        // stable: those of one time stay in the order of the files
        pieces.sort_by_key(|piece| piece.block.first);
        let (mut gathered, mut bytes) = (Vec::new(), 0);
        for piece in pieces {
            if piece.block.text.raw >= FULL_BYTES {
                writer.copy(piece.file, piece.reader, piece.block)?;
            } else {
                gathered.push(Arc::new(piece.file.rows(piece.reader, piece.block, &mut scratch)?));
                bytes += piece.block.text.raw as usize;
            }
            if bytes >= BLOCK_BYTES {
                put(&mut writer, vm, &std::mem::take(&mut gathered))?;
                bytes = 0;
            }
            pause();
        }
        put(&mut writer, vm, &gathered)?;
    }
    Ok(writer.finish()?)
}

fn put(writer: &mut FileWriter, vm: &Arc<str>, parts: &[Arc<Rows>]) -> Result<(), FileError> {
    sorted(parts).iter().try_for_each(|block| writer.put(vm, block))
}
