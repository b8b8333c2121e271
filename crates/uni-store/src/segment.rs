//! An immutable file of blocks with its index at the end.
//!
//! Owns the file's layout (`docs/format/store.md`, section *Segments*), writing, opening, reading blocks, and
//! removal when the last reader is gone. Never decides when that is.

use crate::block::{Builder, MAX_ROWS};
use crate::bytes::{Damaged, Reader, put_bytes, put_varint, put_zigzag};
use crate::catalog::SeriesId;
use crate::error::{FileError, ScanError};
use crate::files::{create_dir_durably, publish, temporary};
use crate::merge::Merge;
use crate::row::{type_code, type_of_code};
use hashbrown::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use uni_wire::FieldType;

const MAGIC: &[u8; 7] = b"UNISEG\0";
/// The version of segments that this program writes, and the newest that it reads.
pub(crate) const VERSION: u8 = 1;
const HEADER_BYTES: usize = 8;
const END: &[u8; 8] = b"UNISEGIX";
/// Offset and length of the index, its checksum, and [`END`].
const FOOTER_BYTES: usize = 8 + 8 + 4 + 8;

/// Where a block lies and what times it spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockPlace {
    pub(crate) offset: u64,
    pub(crate) length: u32,
    pub(crate) rows: u32,
    pub(crate) first: i64,
    pub(crate) last: i64,
}

/// A series of a segment: the numbers of its fields by column, and its blocks by time.
#[derive(Debug)]
pub(crate) struct SegmentSeries {
    pub(crate) id: SeriesId,
    pub(crate) fields: Box<[u32]>,
    pub(crate) blocks: Box<[BlockPlace]>,
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

/// An open segment: its index in memory, its blocks on disk.
#[derive(Debug)]
pub(crate) struct Segment {
    head: SegmentHead,
    path: PathBuf,
    bytes: u64,
    series: Vec<SegmentSeries>,
    obsolete: AtomicBool,
}

impl Segment {
    /// Joins what the index says with the numbers that the catalog gave its names.
    pub(crate) fn new(head: SegmentHead, path: PathBuf, bytes: u64, mut series: Vec<SegmentSeries>) -> Self {
        series.sort_by_key(|series| series.id);
        Self { head, path, bytes, series, obsolete: AtomicBool::new(false) }
    }

    pub(crate) const fn number(&self) -> u64 {
        self.head.number
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn series(&self) -> &[SegmentSeries] {
        &self.series
    }

    pub(crate) fn find(&self, id: SeriesId) -> Option<usize> {
        self.series.binary_search_by_key(&id, |series| series.id).ok()
    }

    pub(crate) fn open(&self) -> Result<File, ScanError> {
        Ok(File::open(&self.path).map_err(FileError::at("open", &self.path))?)
    }

    pub(crate) fn read(&self, file: &File, place: &BlockPlace) -> Result<Vec<u8>, ScanError> {
        let mut bytes = vec![0; place.length as usize];
        file.read_exact_at(&mut bytes, place.offset).map_err(FileError::at("read", &self.path))?;
        Ok(bytes)
    }

    pub(crate) fn damaged(&self, place: &BlockPlace, Damaged(what): Damaged) -> ScanError {
        ScanError::Damaged { path: self.path.clone(), offset: place.offset, what }
    }

    /// Removes the file once its last reader is gone.
    pub(crate) fn retire(&self) {
        self.obsolete.store(true, Ordering::Relaxed);
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Relaxed) {
            // A file that stays is dropped by the next retention, or merged once more: harmless either way.
            let _ = fs::remove_file(&self.path);
            if let Some(partition) = self.path.parent() {
                // Fails, as it should, while other segments are in it.
                let _ = fs::remove_dir(partition);
            }
        }
    }
}

/// A series to be written: its names, and its columns by number, name and type.
#[derive(Debug)]
pub(crate) struct SeriesNames {
    pub(crate) id: SeriesId,
    pub(crate) measurement: std::sync::Arc<str>,
    pub(crate) tags: Box<[(Box<str>, Box<str>)]>,
    pub(crate) columns: Vec<(u32, Box<str>, FieldType)>,
}

/// Each name once, by its number.
#[derive(Debug, Default)]
struct Names {
    numbers: HashMap<Box<str>, u64>,
    bytes: Vec<u8>,
}

impl Names {
    fn number(&mut self, name: &str) -> u64 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.numbers.len() as u64;
        self.numbers.insert(name.into(), number);
        put_bytes(&mut self.bytes, name.as_bytes());
        number
    }
}

/// Writes a segment under a temporary name; without [`SegmentWriter::finish`] nothing stays.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    head: SegmentHead,
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
    position: u64,
    names: Names,
    entries: Vec<u8>,
    series: Vec<SegmentSeries>,
}

impl SegmentWriter {
    pub(crate) fn create(path: PathBuf, head: SegmentHead) -> Result<Self, FileError> {
        if let Some(partition) = path.parent() {
            create_dir_durably(partition)?;
        }
        let temporary = temporary(&path);
        let file = File::create(&temporary).map_err(FileError::at("create", &temporary))?;
        let (file, names, entries, series) = (BufWriter::new(file), Names::default(), Vec::new(), Vec::new());
        let mut writer = Self { head, path, temporary, file, position: 0, names, entries, series };
        let mut header = MAGIC.to_vec();
        header.push(VERSION);
        writer.put(&header)?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.file.write_all(bytes).map_err(FileError::at("write", &self.temporary))?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Writes all rows of a series; `rows` must select the columns in the order of `names`. Fails where a row
    /// could not be read or written: the segment is then of no use.
    pub(crate) fn put_series(&mut self, names: &SeriesNames, mut rows: Merge) -> Result<(), ScanError> {
        let mut builder = Builder::new(names.columns.iter().map(|(_, _, field_type)| *field_type).collect());
        let mut blocks = Vec::new();
        let mut row = vec![None; rows.width()];
        while let Some(time) = rows.next(&mut row) {
            builder.push(time, &mut row);
            if builder.is_full() {
                self.put_block(&mut builder, &mut blocks)?;
            }
        }
        self.put_block(&mut builder, &mut blocks)?;
        // A segment without the rows that could not be read must not take the place of the damaged one.
        rows.into_fault().map_or(Ok(()), Err)?;
        if !blocks.is_empty() {
            self.put_entry(names, blocks);
        }
        Ok(())
    }

    fn put_block(&mut self, builder: &mut Builder, blocks: &mut Vec<BlockPlace>) -> Result<(), FileError> {
        let Some((first, last, rows)) = builder.span() else { return Ok(()) };
        let bytes = builder.seal();
        let (offset, length) = (self.position, bytes.len() as u32);
        self.put(&bytes)?;
        blocks.push(BlockPlace { offset, length, rows: rows as u32, first, last });
        Ok(())
    }

    fn put_entry(&mut self, names: &SeriesNames, blocks: Vec<BlockPlace>) {
        let out = &mut self.entries;
        put_varint(out, self.names.number(&names.measurement));
        put_varint(out, names.tags.len() as u64);
        for (key, value) in &names.tags {
            put_varint(out, self.names.number(key));
            put_varint(out, self.names.number(value));
        }
        put_varint(out, names.columns.len() as u64);
        for (_, name, field_type) in &names.columns {
            put_varint(out, self.names.number(name));
            out.push(type_code(*field_type));
        }
        put_varint(out, blocks.len() as u64);
        for block in &blocks {
            put_varint(out, block.offset);
            put_varint(out, u64::from(block.length));
            put_varint(out, u64::from(block.rows));
            put_zigzag(out, block.first);
            put_varint(out, block.last.wrapping_sub(block.first).cast_unsigned());
        }
        let fields = names.columns.iter().map(|(number, _, _)| *number).collect();
        self.series.push(SegmentSeries { id: names.id, fields, blocks: blocks.into() });
    }

    /// Writes index and footer and gives the file its name. `None`, and no file, if there were no rows.
    pub(crate) fn finish(mut self) -> Result<Option<Segment>, FileError> {
        if self.series.is_empty() {
            return Ok(None);
        }
        let index = self.index();
        let offset = self.position;
        self.put(&index)?;
        self.put(&footer(offset, &index))?;
        self.file.flush().map_err(FileError::at("write", &self.temporary))?;
        publish(self.file.get_ref(), &self.temporary, &self.path)?;
        let series = std::mem::take(&mut self.series);
        Ok(Some(Segment::new(self.head, self.path.clone(), self.position, series)))
    }

    fn index(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.head.number);
        put_zigzag(&mut out, self.head.start_s);
        put_varint(&mut out, self.head.length_s);
        put_varint(&mut out, self.names.numbers.len() as u64);
        out.extend_from_slice(&self.names.bytes);
        put_varint(&mut out, self.series.len() as u64);
        out.extend_from_slice(&self.entries);
        out
    }
}

impl Drop for SegmentWriter {
    fn drop(&mut self) {
        // After `finish` there is nothing of that name any more; after an error it must not stay.
        let _ = fs::remove_file(&self.temporary);
    }
}

fn footer(offset: u64, index: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(FOOTER_BYTES);
    out.extend_from_slice(&offset.to_le_bytes());
    out.extend_from_slice(&(index.len() as u64).to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(index).to_le_bytes());
    out.extend_from_slice(END);
    out
}

/// Why a segment's index could not be read.
#[derive(Debug)]
pub(crate) enum IndexError {
    File(FileError),
    Damaged(Damaged),
    Newer(u8),
}

impl From<Damaged> for IndexError {
    fn from(damaged: Damaged) -> Self {
        Self::Damaged(damaged)
    }
}

impl From<FileError> for IndexError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

/// The bytes of a segment's index, their checksum verified.
#[derive(Debug)]
pub(crate) struct IndexBytes {
    bytes: Vec<u8>,
    /// Where blocks end and the index begins.
    offset: u64,
    pub(crate) file_bytes: u64,
}

/// An entry of the index, names borrowed from it.
#[derive(Debug)]
pub(crate) struct IndexEntry<'a> {
    pub(crate) measurement: &'a str,
    pub(crate) tags: Vec<(Box<str>, Box<str>)>,
    pub(crate) columns: Vec<(&'a str, FieldType)>,
    pub(crate) blocks: Box<[BlockPlace]>,
}

impl IndexBytes {
    pub(crate) fn read(path: &Path) -> Result<Self, IndexError> {
        let file = File::open(path).map_err(FileError::at("open", path))?;
        let file_bytes = file.metadata().map_err(FileError::at("read", path))?.len();
        let body = file_bytes.checked_sub(FOOTER_BYTES as u64).filter(|body| *body >= HEADER_BYTES as u64);
        let body = body.ok_or(Damaged("a segment shorter than header and footer"))?;
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0).map_err(FileError::at("read", path))?;
        check_header(&header)?;
        let mut footer = [0; FOOTER_BYTES];
        file.read_exact_at(&mut footer, body).map_err(FileError::at("read", path))?;
        let (offset, length, checksum) = parse_footer(&footer, body)?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset).map_err(FileError::at("read", path))?;
        if crc32fast::hash(&bytes) != checksum {
            return Err(Damaged("an index whose checksum differs").into());
        }
        Ok(Self { bytes, offset, file_bytes })
    }

    pub(crate) fn parse(&self) -> Result<(SegmentHead, Vec<IndexEntry<'_>>), Damaged> {
        let mut reader = Reader::new(&self.bytes);
        let number = reader.varint()?;
        let head = SegmentHead { number, start_s: reader.zigzag()?, length_s: reader.varint()? };
        let names = (0..reader.count()?).map(|_| reader.text()).collect::<Result<Vec<_>, _>>()?;
        let count = reader.count()?;
        let entries = (0..count).map(|_| self.entry(&mut reader, &names)).collect::<Result<_, _>>()?;
        Ok((head, entries))
    }

    fn entry<'a>(&self, reader: &mut Reader<'a>, names: &[&'a str]) -> Result<IndexEntry<'a>, Damaged> {
        let name = |reader: &mut Reader<'a>| {
            names.get(reader.varint()? as usize).copied().ok_or(Damaged("a name that is missing"))
        };
        let measurement = name(reader)?;
        let tags = (0..reader.count()?)
            .map(|_| Ok((name(reader)?.into(), name(reader)?.into())))
            .collect::<Result<Vec<(Box<str>, Box<str>)>, Damaged>>()?;
        let columns = (0..reader.count()?)
            .map(|_| Ok((name(reader)?, type_of_code(reader.u8()?)?)))
            .collect::<Result<_, Damaged>>()?;
        let blocks = (0..reader.count()?).map(|_| self.block(reader)).collect::<Result<_, Damaged>>()?;
        Ok(IndexEntry { measurement, tags, columns, blocks })
    }

    fn block(&self, reader: &mut Reader<'_>) -> Result<BlockPlace, Damaged> {
        let (offset, length, rows) = (reader.varint()?, reader.varint_u32()?, reader.varint_u32()?);
        let first = reader.zigzag()?;
        let last = first.wrapping_add(reader.varint()?.cast_signed());
        let inside = offset.checked_add(u64::from(length)).is_some_and(|end| end <= self.offset);
        if !inside || rows == 0 || rows > MAX_ROWS as u32 || last < first {
            return Err(Damaged("a block out of place"));
        }
        Ok(BlockPlace { offset, length, rows, first, last })
    }
}

fn check_header(header: &[u8; HEADER_BYTES]) -> Result<(), IndexError> {
    let version = header[HEADER_BYTES - 1];
    if !header.starts_with(MAGIC) || version == 0 {
        return Err(Damaged("not a segment").into());
    }
    if version > VERSION { Err(IndexError::Newer(version)) } else { Ok(()) }
}

fn parse_footer(footer: &[u8; FOOTER_BYTES], body: u64) -> Result<(u64, usize, u32), Damaged> {
    let mut reader = Reader::new(footer);
    let (offset, length, checksum) = (reader.u64()?, reader.u64()?, reader.u32()?);
    if reader.take(END.len())? != END || offset.checked_add(length) != Some(body) {
        return Err(Damaged("a footer that does not fit the file"));
    }
    Ok((offset, length as usize, checksum))
}
