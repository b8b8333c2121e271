//! The index of a segment: its names, its series, and where their blocks are.
//!
//! Owns the layout of the index (`docs/format/store.md`, section *Index*), of version 1 too. Never reads blocks.

use crate::block::MAX_ROWS;
use crate::bytes::{Damaged, Reader, put_bytes, put_varint, put_zigzag};
use crate::point::TagList;
use crate::types::{type_code, type_of_code};
use hashbrown::HashMap;
use std::sync::Arc;
use uni_wire::FieldType;

/// Most bytes of an index that is unpacked: a hundred thousand series with a hundred blocks each are below it.
const MAX_INDEX_BYTES: usize = 1 << 30;
/// Most bytes of a page that is unpacked; pages are closed long before.
pub(crate) const MAX_PAGE_BYTES: usize = 64 << 20;

/// Where a block lies and what times it spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockPlace {
    /// Where its page begins in the file, and how many bytes it has there.
    pub(crate) page: u64,
    pub(crate) page_bytes: u32,
    /// Bytes of the page when unpacked; 0 if it is not packed.
    pub(crate) page_raw: u32,
    /// Where the block begins in the page.
    pub(crate) at: u32,
    pub(crate) length: u32,
    pub(crate) rows: u32,
    pub(crate) first: i64,
    pub(crate) last: i64,
}

/// What a segment is, apart from its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHead {
    /// Later segments have higher numbers; their rows win.
    pub(crate) number: u64,
    /// Start of the partition, seconds since the Unix epoch.
    pub(crate) start_s: i64,
    pub(crate) length_s: u64,
}

/// A page that is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    pub(crate) stored: u32,
    /// 0 if it is not packed.
    pub(crate) raw: u32,
    pub(crate) blocks: u32,
}

/// A series to be written: its names, and its columns by number, name and type.
#[derive(Debug)]
pub(crate) struct SeriesNames {
    pub(crate) id: crate::catalog::SeriesId,
    pub(crate) measurement: Arc<str>,
    pub(crate) tags: Box<[(Box<str>, Box<str>)]>,
    pub(crate) columns: Vec<(u32, Box<str>, FieldType)>,
}

/// Each text once, by its number.
#[derive(Debug, Default)]
struct Names {
    numbers: HashMap<Box<[u8]>, u64>,
    bytes: Vec<u8>,
}

impl Names {
    fn number(&mut self, name: &[u8]) -> u64 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.numbers.len() as u64;
        self.numbers.insert(name.into(), number);
        put_bytes(&mut self.bytes, name);
        number
    }
}

/// Gathers an index.
#[derive(Debug, Default)]
pub(crate) struct IndexWriter {
    names: Names,
    /// Measurement and columns, as they are in the index: most series share theirs with many others.
    schemas: Names,
    entries: Vec<u8>,
    series: u64,
    last_first: i64,
}

impl IndexWriter {
    pub(crate) const fn is_empty(&self) -> bool {
        self.series == 0
    }

    /// Adds a series; its blocks follow those of the series before.
    pub(crate) fn put(&mut self, names: &SeriesNames, blocks: &[BlockPlace]) {
        let mut schema = Vec::new();
        put_varint(&mut schema, self.names.number(names.measurement.as_bytes()));
        put_varint(&mut schema, names.columns.len() as u64);
        for (_, name, field_type) in &names.columns {
            put_varint(&mut schema, self.names.number(name.as_bytes()));
            schema.push(type_code(*field_type));
        }
        let out = &mut self.entries;
        put_varint(out, self.schemas.number(&schema));
        put_varint(out, names.tags.len() as u64);
        for (key, value) in &names.tags {
            put_varint(out, self.names.number(key.as_bytes()));
            put_varint(out, self.names.number(value.as_bytes()));
        }
        put_varint(out, blocks.len() as u64);
        for block in blocks {
            put_varint(out, u64::from(block.length));
            put_varint(out, u64::from(block.rows));
            put_zigzag(out, block.first.wrapping_sub(self.last_first));
            put_varint(out, block.last.wrapping_sub(block.first).cast_unsigned());
            self.last_first = block.first;
        }
        self.series += 1;
    }

    /// The bytes of the index.
    pub(crate) fn finish(&self, head: SegmentHead, pages: &[Page]) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, head.number);
        put_zigzag(&mut out, head.start_s);
        put_varint(&mut out, head.length_s);
        put_varint(&mut out, self.names.numbers.len() as u64);
        out.extend_from_slice(&self.names.bytes);
        put_varint(&mut out, self.schemas.numbers.len() as u64);
        out.extend_from_slice(&self.schemas.bytes);
        put_varint(&mut out, pages.len() as u64);
        for page in pages {
            put_varint(&mut out, u64::from(page.stored));
            put_varint(&mut out, u64::from(page.raw));
            put_varint(&mut out, u64::from(page.blocks));
        }
        put_varint(&mut out, self.series);
        out.extend_from_slice(&self.entries);
        out
    }
}

/// Packs the bytes of an index.
pub(crate) fn pack(index: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, index.len() as u64);
    // It cannot fail into a buffer that grows; if it did, the index is simply kept as it is.
    match zstd::bulk::compress(index, 3) {
        Ok(packed) => out.extend_from_slice(&packed),
        Err(_) => out = [vec![0], index.to_vec()].concat(),
    }
    out
}

/// The reverse of [`pack`].
pub(crate) fn unpack(bytes: &[u8]) -> Result<Vec<u8>, Damaged> {
    let mut reader = Reader::new(bytes);
    let raw = reader.varint()?;
    let rest = reader.rest();
    if raw == 0 {
        return Ok(rest.to_vec());
    }
    let raw = usize::try_from(raw).ok().filter(|raw| *raw <= MAX_INDEX_BYTES);
    unpack_exactly(rest, raw.ok_or(Damaged("an index that is too large"))?)
}

/// Unpacks bytes of which the length is known.
pub(crate) fn unpack_exactly(bytes: &[u8], raw: usize) -> Result<Vec<u8>, Damaged> {
    // A packed byte stands for at most some ten thousand: a length beyond that is a lie, and no memory is taken for it.
    if raw / 20_000 > bytes.len() {
        return Err(Damaged("packed bytes that cannot be so many"));
    }
    let unpacked =
        zstd::bulk::decompress(bytes, raw).map_err(|_| Damaged("packed bytes that cannot be unpacked"))?;
    if unpacked.len() == raw { Ok(unpacked) } else { Err(Damaged("packed bytes of another length")) }
}

/// An entry of the index.
#[derive(Debug)]
pub(crate) struct IndexEntry {
    pub(crate) schema: usize,
    pub(crate) tags: Vec<(Box<str>, Box<str>)>,
    pub(crate) blocks: Box<[BlockPlace]>,
}

/// The measurement and columns of some series.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Schema<'a> {
    pub(crate) measurement: &'a str,
    pub(crate) columns: Vec<(&'a str, FieldType)>,
}

/// An index taken apart.
#[derive(Debug)]
pub(crate) struct Index<'a> {
    pub(crate) head: SegmentHead,
    pub(crate) schemas: Vec<Schema<'a>>,
    pub(crate) entries: Vec<IndexEntry>,
}

/// Takes an index apart. `end`: where blocks end in the file; `start`: where they begin.
pub(crate) fn parse(bytes: &[u8], version: u8, start: u64, end: u64) -> Result<Index<'_>, Damaged> {
    let mut reader = Reader::new(bytes);
    let number = reader.varint()?;
    let head = SegmentHead { number, start_s: reader.zigzag()?, length_s: reader.varint()? };
    let names = (0..reader.count()?).map(|_| reader.text()).collect::<Result<Vec<_>, _>>()?;
    if version == 1 {
        return parse_v1(reader, head, &names, end);
    }
    let schemas = (0..reader.count()?)
        .map(|_| schema(&mut Reader::new(reader.bytes()?), &names))
        .collect::<Result<Vec<_>, _>>()?;
    let pages = pages(&mut reader, start, end)?;
    let mut places = Places { pages: &pages, page: 0, left: 0, at: 0, last_first: 0 };
    let mut entries = Vec::new();
    for _ in 0..reader.count()? {
        let schema = reader.varint()? as usize;
        if schema >= schemas.len() {
            return Err(Damaged("a schema that is missing"));
        }
        let tags = tags(&mut reader, &names)?;
        let blocks =
            (0..reader.count()?).map(|_| places.next(&mut reader)).collect::<Result<_, Damaged>>()?;
        entries.push(IndexEntry { schema, tags, blocks });
    }
    Ok(Index { head, schemas, entries })
}

fn name<'a>(reader: &mut Reader<'a>, names: &[&'a str]) -> Result<&'a str, Damaged> {
    names.get(reader.varint()? as usize).copied().ok_or(Damaged("a name that is missing"))
}

fn tags<'a>(reader: &mut Reader<'a>, names: &[&'a str]) -> Result<TagList, Damaged> {
    (0..reader.count()?).map(|_| Ok((name(reader, names)?.into(), name(reader, names)?.into()))).collect()
}

fn schema<'a>(reader: &mut Reader<'a>, names: &[&'a str]) -> Result<Schema<'a>, Damaged> {
    let measurement = name(reader, names)?;
    let columns = (0..reader.count()?)
        .map(|_| Ok((name(reader, names)?, type_of_code(reader.u8()?)?)))
        .collect::<Result<_, Damaged>>()?;
    Ok(Schema { measurement, columns })
}

/// Pages with where they begin.
fn pages(reader: &mut Reader<'_>, start: u64, end: u64) -> Result<Vec<(u64, Page)>, Damaged> {
    let mut offset = start;
    let mut pages = Vec::new();
    for _ in 0..reader.count()? {
        let page =
            Page { stored: reader.varint_u32()?, raw: reader.varint_u32()?, blocks: reader.varint_u32()? };
        pages.push((offset, page));
        offset = offset.saturating_add(u64::from(page.stored));
        if offset > end || page.raw as usize > MAX_PAGE_BYTES {
            return Err(Damaged("a page out of place"));
        }
    }
    Ok(pages)
}

/// Blocks lie one after the other in the order of the index, page by page.
struct Places<'p> {
    pages: &'p [(u64, Page)],
    /// The next page.
    page: usize,
    /// Blocks left in the page before it.
    left: u32,
    at: u32,
    last_first: i64,
}

impl Places<'_> {
    fn next(&mut self, reader: &mut Reader<'_>) -> Result<BlockPlace, Damaged> {
        if self.left == 0 {
            let (_, page) = self.pages.get(self.page).ok_or(Damaged("a block without a page"))?;
            self.page += 1;
            (self.left, self.at) = (page.blocks, 0);
        }
        let (offset, page) = self.pages[self.page - 1];
        let (length, rows) = (reader.varint_u32()?, reader.varint_u32()?);
        let first = self.last_first.wrapping_add(reader.zigzag()?);
        let last = first.wrapping_add(reader.varint()?.cast_signed());
        let at = self.at;
        let room = if page.raw == 0 { page.stored } else { page.raw };
        self.at = at.checked_add(length).filter(|end| *end <= room).ok_or(Damaged("a block out of place"))?;
        self.left = self.left.checked_sub(1).ok_or(Damaged("a page without blocks"))?;
        self.last_first = first;
        let place = BlockPlace {
            page: offset,
            page_bytes: page.stored,
            page_raw: page.raw,
            at,
            length,
            rows,
            first,
            last,
        };
        checked(place)
    }
}

fn checked(place: BlockPlace) -> Result<BlockPlace, Damaged> {
    if place.rows == 0 || place.rows > MAX_ROWS as u32 || place.last < place.first {
        return Err(Damaged("a block out of place"));
    }
    Ok(place)
}

fn parse_v1<'a>(
    mut reader: Reader<'a>,
    head: SegmentHead,
    names: &[&'a str],
    end: u64,
) -> Result<Index<'a>, Damaged> {
    let (mut schemas, mut entries) = (Vec::new(), Vec::new());
    for _ in 0..reader.count()? {
        let measurement = name(&mut reader, names)?;
        let tags = tags(&mut reader, names)?;
        let columns = (0..reader.count()?)
            .map(|_| Ok((name(&mut reader, names)?, type_of_code(reader.u8()?)?)))
            .collect::<Result<_, Damaged>>()?;
        let blocks =
            (0..reader.count()?).map(|_| block_v1(&mut reader, end)).collect::<Result<_, Damaged>>()?;
        entries.push(IndexEntry { schema: schemas.len(), tags, blocks });
        schemas.push(Schema { measurement, columns });
    }
    Ok(Index { head, schemas, entries })
}

fn block_v1(reader: &mut Reader<'_>, end: u64) -> Result<BlockPlace, Damaged> {
    let (page, length, rows) = (reader.varint()?, reader.varint_u32()?, reader.varint_u32()?);
    let first = reader.zigzag()?;
    let last = first.wrapping_add(reader.varint()?.cast_signed());
    if page.checked_add(u64::from(length)).is_none_or(|block_end| block_end > end) {
        return Err(Damaged("a block out of place"));
    }
    checked(BlockPlace { page, page_bytes: length, page_raw: 0, at: 0, length, rows, first, last })
}
