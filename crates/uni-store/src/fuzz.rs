//! Doors for the fuzz targets, behind the feature `fuzz`: readers of bytes, without the checksums that keep random
//! bytes from reaching them.
//!
//! Owns what must hold for any bytes: no panic, no memory beyond what the bytes can stand for, and what was read can be
//! written and read again.

use crate::block::{self, Effort};
use crate::deletion::Deletion;
use crate::index;
use crate::recovery::Recovery;
use crate::registry::Registry;
use crate::replay::Replay;
use crate::state::{Database, State};
use crate::v1;

/// A log of one frame: the first byte says the version, the rest is the payload. What it brought is read back.
pub fn check_log(bytes: &[u8]) {
    let Some((version, payload)) = bytes.split_first() else { return };
    let (mut state, mut report) = (State::default(), Recovery::default());
    state.databases.insert("uni".to_owned(), Database::default());
    let mut replay = Replay::new(&mut state, &mut report, 86_400, version % 2 + 1);
    // Bytes that do not follow the format end the log: what came before them stays.
    let _ = replay.frame(payload);
    replay.finish();
    let ids: Vec<_> = state.head.ids().collect();
    for id in ids {
        let Ok(table) = state.head.table(id, |_| true) else { continue };
        assert!(table.ascends(), "a series is read by ascending time");
        let sealed = block::seal(&table.slice(0, table.times.len().min(100)), Some, Effort::Thorough);
        assert_eq!(block::decode(&sealed, Some).map(|read| read.times.len()), Ok(table.times.len().min(100)));
    }
}

/// A block without its checksum. What is read is packed and read again.
pub fn check_block(bytes: &[u8]) {
    let sealed = [bytes, &crc32fast::hash(bytes).to_le_bytes()].concat();
    let _ = v1::block::decode(&sealed, Some);
    for place in 0..4 {
        let _ = block::summary_of(&sealed, place);
    }
    if let Ok(table) = block::decode(&sealed, Some) {
        let mut places: Vec<u32> = table.columns.iter().map(|column| column.field).collect();
        places.dedup();
        let again = block::decode(&block::seal(&table, Some, Effort::Quick), Some);
        assert_eq!(again.map(|read| read.times), Ok(table.times));
    }
}

/// An index as it is when unpacked; the first byte says the version.
pub fn check_index(bytes: &[u8]) {
    if let Some((version, bytes)) = bytes.split_first() {
        let _ = index::parse(bytes, version % 2 + 1, 8, 1 << 20);
        let _ = index::unpack(bytes);
    }
}

/// A block of logs without its checksums, the index that would lead to it, and a frame of their write-ahead log.
pub fn check_logs(bytes: &[u8]) {
    crate::logs::check_block(bytes);
}

/// A deletion without its header, or the lines of the file `databases` without the last one: the first byte says which.
/// What is read is written and read again.
pub fn check_notes(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    if kind % 2 == 0 {
        if let Ok(deletion) = Deletion::parse(&Deletion::sealed(rest)) {
            assert_eq!(Deletion::parse(&deletion.to_bytes()).ok(), Some(deletion));
        }
    } else if let Ok(text) = std::str::from_utf8(rest)
        && let Ok(registry) = Registry::parse(&Registry::sealed(text.to_owned()))
    {
        assert_eq!(Registry::parse(&registry.to_text()), Ok(registry));
    }
}
