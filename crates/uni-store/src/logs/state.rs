//! What readers see: files by partition, and rows that are only in the write-ahead log.
//!
//! Owns how rows in memory are kept: in pieces that a reader may hold while more are added.

use crate::logs::entry::LogEntry;
use crate::logs::file::LogFile;
use crate::logs::rows::Rows;
use crate::logs::series::{Catalog, SeriesRef};
use crate::state::partition_of;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A piece of this size is not added to: a reader who holds one makes the next entry copy it.
const PIECE_BYTES: usize = 256 << 10;

/// Rows of one partition by VM.
pub(crate) type Partition = BTreeMap<Arc<str>, Vec<Arc<Rows>>>;

/// Rows that are only in the write-ahead log, by the start of their partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    pub(crate) partitions: BTreeMap<i64, Partition>,
    pub(crate) bytes: usize,
}

impl Head {
    pub(crate) fn push(&mut self, entry: &LogEntry, partition_seconds: i64) {
        let partition =
            self.partitions.entry(partition_of(entry.time.nanos(), partition_seconds)).or_default();
        let pieces = match partition.get_mut(&*entry.vm) {
            Some(pieces) => pieces,
            None => partition.entry(Arc::from(&*entry.vm)).or_default(),
        };
        if pieces.last().is_none_or(|piece| piece.bytes() >= PIECE_BYTES) {
            pieces.push(Arc::default());
        }
        if let Some(piece) = pieces.last_mut() {
            let before = piece.bytes();
            let piece = Arc::make_mut(piece);
            piece.push(entry);
            self.bytes += piece.bytes() - before;
        }
    }

    pub(crate) fn take(&mut self, start_s: i64) -> Option<Partition> {
        let partition = self.partitions.remove(&start_s)?;
        let bytes: usize = partition.values().flatten().map(|piece| piece.bytes()).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
        Some(partition)
    }

    pub(crate) fn rows(&self) -> u64 {
        self.pieces().map(|(_, piece)| piece.meta.rows.len() as u64).sum()
    }

    pub(crate) fn pieces(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Rows>)> {
        let vms = self.partitions.values().flatten();
        vms.flat_map(|(vm, pieces)| pieces.iter().map(move |piece| (vm, piece)))
    }
}

/// All that readers see.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) catalog: Catalog,
    pub(crate) files: BTreeMap<i64, Vec<Arc<LogFile>>>,
    pub(crate) head: Head,
    /// Rows on their way into files.
    pub(crate) frozen: Head,
}

impl State {
    /// Adds an entry to the head, and numbers its series.
    pub(crate) fn push(&mut self, entry: &LogEntry, partition_seconds: i64) {
        self.catalog.add(SeriesRef::of(entry));
        self.head.push(entry, partition_seconds);
    }

    /// Shows a file in its place.
    pub(crate) fn add(&mut self, file: LogFile) {
        for block in &file.blocks {
            for (kind, severity, app) in &block.series {
                self.catalog.add(SeriesRef { vm: &block.vm, kind: *kind, severity: *severity, app });
            }
        }
        let files = self.files.entry(file.head.start_s).or_default();
        files.push(Arc::new(file));
        files.sort_by_key(|file| file.head.number);
    }

    pub(crate) fn all_files(&self) -> impl DoubleEndedIterator<Item = &Arc<LogFile>> {
        self.files.values().flatten()
    }

    /// Rows in memory, the older ones first.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Rows>)> {
        self.frozen.pieces().chain(self.head.pieces())
    }

    /// The numbers of all series that have entries.
    pub(crate) fn series(&self) -> BTreeSet<u32> {
        let mut keys: BTreeSet<(&str, &str, _, u8)> = BTreeSet::new();
        for block in self.all_files().flat_map(|file| &file.blocks) {
            keys.extend(
                block.series.iter().map(|(kind, severity, app)| (&*block.vm, &**app, *kind, *severity)),
            );
        }
        for (vm, piece) in self.pieces() {
            keys.extend(
                piece.meta.origins.iter().map(|origin| (&**vm, &*origin.app, origin.kind, origin.severity)),
            );
        }
        let number = |(vm, app, kind, severity): (&str, &str, _, u8)| {
            self.catalog.find(SeriesRef { vm, kind, severity, app })
        };
        keys.into_iter().filter_map(number).collect()
    }
}
