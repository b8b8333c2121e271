//! The places that may have what is looked for: blocks of files, and pieces in memory.
//!
//! Owns how they are found, by VM, time, kind, severity and program, and how one is read.

use super::file::{LogFile, ReadError, Scratch};
use super::index::Block;
use super::rows::{Meta, Rows};
use super::state::State;
use crate::bytes::Damaged;
use crate::disk::DiskFile;
use crate::error::ScanError;
use crate::logs::entry::LogKind;
use std::sync::Arc;

/// A place.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    pub(crate) vm: Arc<str>,
    pub(crate) first: i64,
    pub(crate) last: i64,
    /// The order in which entries of the same time and VM came.
    pub(crate) rank: u32,
    pub(crate) at: At,
}

/// Where a place is.
#[derive(Clone, Debug)]
pub(crate) enum At {
    Block(Arc<OpenFile>, usize),
    Memory(Arc<Rows>),
}

/// A file that is being read.
#[derive(Debug)]
pub(crate) struct OpenFile {
    file: Arc<LogFile>,
    reader: std::sync::OnceLock<Arc<dyn DiskFile>>,
}

impl OpenFile {
    pub(crate) fn file(&self) -> &LogFile {
        &self.file
    }

    pub(crate) fn block(&self, block: usize) -> &Block {
        &self.file.blocks[block]
    }

    pub(crate) fn reader(&self) -> Result<&dyn DiskFile, ReadError> {
        if self.reader.get().is_none() {
            // two may open it at once; one of them is closed again
            let _ = self.reader.set(self.file.reader()?);
        }
        self.reader
            .get()
            .map(|reader| &**reader)
            .ok_or_else(|| Damaged("a file that cannot be opened").into())
    }

    /// What is told of a block that could not be read.
    pub(crate) fn fault(&self, error: ReadError) -> ScanError {
        match error {
            ReadError::File(error) => error.into(),
            ReadError::Damaged(Damaged(what)) => {
                ScanError::Damaged { path: self.file.path().to_path_buf(), offset: 0, what }
            }
            ReadError::Newer(_) => ScanError::Damaged {
                path: self.file.path().to_path_buf(),
                offset: 0,
                what: "a newer version",
            },
        }
    }
}

/// Which places are wanted.
pub(crate) struct Wanted<'a> {
    pub(crate) vm: &'a dyn Fn(&str) -> bool,
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) series: &'a dyn Fn(LogKind, u8, &str) -> bool,
}

/// The places that may have what is wanted, the oldest entries of a VM first.
pub(crate) fn units(state: &State, wanted: &Wanted<'_>) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut rank = 0;
    let inside = |first: i64, last: i64| first <= wanted.to && wanted.from <= last;
    for file in state.all_files() {
        let open = Arc::new(OpenFile { file: Arc::clone(file), reader: std::sync::OnceLock::new() });
        for (at, block) in file.blocks.iter().enumerate() {
            rank += 1;
            let has = block.series.iter().any(|(kind, severity, app)| (wanted.series)(*kind, *severity, app));
            if inside(block.first, block.last) && has && (wanted.vm)(&block.vm) {
                let at = At::Block(Arc::clone(&open), at);
                units.push(Unit {
                    vm: Arc::clone(&block.vm),
                    first: block.first,
                    last: block.last,
                    rank,
                    at,
                });
            }
        }
    }
    for (vm, piece) in state.pieces() {
        rank += 1;
        let mut origins = piece.meta.origins.iter();
        let has = origins.any(|origin| (wanted.series)(origin.kind, origin.severity, &origin.app));
        if let Some((first, last)) = piece.span().filter(|_| has && (wanted.vm)(vm))
            && inside(first, last)
        {
            units.push(Unit { vm: Arc::clone(vm), first, last, rank, at: At::Memory(Arc::clone(piece)) });
        }
    }
    units
}

/// What belongs to the texts of a place.
pub(crate) fn meta_of(at: &At, scratch: &mut Scratch) -> Result<Meta, ScanError> {
    match at {
        At::Memory(rows) => Ok(rows.meta.clone()),
        At::Block(open, block) => {
            let read = open.reader();
            let read = read.and_then(|reader| open.file().meta(reader, open.block(*block), scratch));
            read.map_err(|error| open.fault(error))
        }
    }
}
