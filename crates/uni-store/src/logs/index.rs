//! The index of a file: what a reader knows of its blocks without reading them.
//!
//! Owns its bytes (`docs/format/logs.md`, section *Index*) and their bounds: what is read here decides how much memory a
//! block may take.

use crate::bytes::{Damaged, Reader, put_bytes, put_varint, put_zigzag};
use crate::logs::entry::LogKind;
use crate::logs::rows::{MAX_RAW_BYTES, MAX_ROWS, kind_of, severity_of};
use hashbrown::HashMap;
use std::sync::Arc;

/// Bytes before the first block.
pub(crate) const HEADER_BYTES: usize = 8;
/// Most bytes of an index that is read.
const MAX_INDEX_BYTES: usize = 64 << 20;

/// What a file is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileHead {
    pub(crate) number: u64,
    /// All files of the partition from this number up to its own are in it.
    pub(crate) first: u64,
    /// Write-ahead logs up to this number hold nothing of the partition that is not in files.
    pub(crate) journal: u64,
    /// Start of the partition in seconds.
    pub(crate) start_s: i64,
}

/// A packed part of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) stored: u32,
    /// Bytes when unpacked.
    pub(crate) raw: u32,
    pub(crate) checksum: u32,
}

/// What the index says of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) vm: Arc<str>,
    /// Where its filter begins; the texts follow, and what belongs to them.
    pub(crate) offset: u64,
    pub(crate) filter: Part,
    pub(crate) text: Part,
    pub(crate) meta: Part,
    pub(crate) rows: u32,
    pub(crate) first: i64,
    pub(crate) last: i64,
    /// Kinds, severities and programs.
    pub(crate) series: Vec<(LogKind, u8, Arc<str>)>,
}

impl Block {
    /// Bytes in the file.
    pub(crate) fn stored(&self) -> u64 {
        u64::from(self.filter.stored) + u64::from(self.text.stored) + u64::from(self.meta.stored)
    }
}

/// What a packed index stands for.
pub(crate) fn unpack_index(index: &[u8]) -> Result<Vec<u8>, Damaged> {
    let mut reader = Reader::new(index);
    let raw = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
    if raw > MAX_INDEX_BYTES {
        return Err(Damaged("an index that is too long"));
    }
    let unpacked = zstd::bulk::decompress(reader.rest(), raw);
    unpacked.ok().filter(|unpacked| unpacked.len() == raw).ok_or(Damaged("an index that cannot be unpacked"))
}

/// The index; blocks begin after the header and end at `end`.
pub(crate) fn read_index(bytes: &[u8], end: u64) -> Result<(FileHead, Vec<Block>), Damaged> {
    let mut reader = Reader::new(bytes);
    let (number, first, journal) = (reader.varint()?, reader.varint()?, reader.varint()?);
    let head = FileHead { number, first, journal, start_s: reader.zigzag()? };
    if first > number {
        return Err(Damaged("a file in the place of later ones"));
    }
    let count = reader.count()?;
    let names = (0..count).map(|_| reader.text().map(Arc::from)).collect::<Result<Vec<Arc<str>>, _>>()?;
    let count = reader.count()?;
    let mut blocks = Vec::with_capacity(count);
    let mut offset = HEADER_BYTES as u64;
    for _ in 0..count {
        let block = read_block(&mut reader, &names, offset)?;
        offset = offset.saturating_add(block.stored());
        blocks.push(block);
    }
    if !reader.is_empty() || offset != end {
        return Err(Damaged("an index that does not fit the file"));
    }
    Ok((head, blocks))
}

fn read_block(reader: &mut Reader<'_>, names: &[Arc<str>], offset: u64) -> Result<Block, Damaged> {
    let name = |number: u64| {
        let name = usize::try_from(number).ok().and_then(|number| names.get(number));
        name.cloned().ok_or(Damaged("a name that is not there"))
    };
    let vm = name(reader.varint()?)?;
    let mut parts = [Part::default(); 3];
    for part in &mut parts {
        *part = Part { stored: reader.varint_u32()?, raw: reader.varint_u32()?, checksum: reader.u32()? };
        if part.stored.max(part.raw) as usize > MAX_RAW_BYTES {
            return Err(Damaged("a block that is too long"));
        }
    }
    let [filter, text, meta] = parts;
    let rows = reader.varint_u32()?;
    if rows as usize > MAX_ROWS {
        return Err(Damaged("a block of too many rows"));
    }
    let first = reader.zigzag()?;
    let last = first.wrapping_add(reader.varint()?.cast_signed());
    let count = reader.count()?;
    let mut series = Vec::with_capacity(count);
    for _ in 0..count {
        series.push((kind_of(reader.u8()?)?, severity_of(reader.u8()?)?, name(reader.varint()?)?));
    }
    Ok(Block { vm, offset, filter, text, meta, rows, first, last, series })
}

/// The bytes of an index, not packed yet.
pub(crate) fn index_bytes(head: &FileHead, blocks: &[Block]) -> Vec<u8> {
    let mut out = Vec::new();
    [head.number, head.first, head.journal].into_iter().for_each(|n| put_varint(&mut out, n));
    put_zigzag(&mut out, head.start_s);
    let mut numbers: HashMap<&str, u64> = HashMap::new();
    let mut names = Vec::new();
    let used = blocks.iter();
    let used = used.flat_map(|block| [&block.vm].into_iter().chain(block.series.iter().map(|(.., app)| app)));
    for name in used {
        numbers.entry(name).or_insert_with(|| {
            names.push(name);
            names.len() as u64 - 1
        });
    }
    put_varint(&mut out, names.len() as u64);
    names.iter().for_each(|name| put_bytes(&mut out, name.as_bytes()));
    put_varint(&mut out, blocks.len() as u64);
    for block in blocks {
        put_varint(&mut out, numbers[&*block.vm]);
        for part in [block.filter, block.text, block.meta] {
            put_varint(&mut out, part.stored.into());
            put_varint(&mut out, part.raw.into());
            out.extend_from_slice(&part.checksum.to_le_bytes());
        }
        put_varint(&mut out, block.rows.into());
        put_zigzag(&mut out, block.first);
        put_varint(&mut out, block.last.wrapping_sub(block.first).cast_unsigned());
        put_varint(&mut out, block.series.len() as u64);
        for (kind, severity, app) in &block.series {
            out.extend([*kind as u8, *severity]);
            put_varint(&mut out, numbers[&**app]);
        }
    }
    out
}
