//! An immutable file of packed blocks with its index at the end.
//!
//! Owns the file's layout (`docs/format/logs.md`), writing, opening, reading blocks within their bounds, and removal when
//! the last reader is gone. Never decides when that is.

use crate::bytes::{Damaged, Reader, put_varint};
use crate::disk::DiskFile;
use crate::error::FileError;
use crate::files::{Files, temporary};
use crate::logs::entry::LogKind;
use crate::logs::filter;
use crate::logs::index::{Block, FileHead, HEADER_BYTES, Part, index_bytes, read_index, unpack_index};
use crate::logs::rows::{Meta, Rows};
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const MAGIC: &[u8; 7] = b"UNILOG\0";
/// The version that this program writes, and the newest that it reads.
pub(crate) const VERSION: u8 = 1;
const END: &[u8; 8] = b"UNILOGIX";
const FOOTER_BYTES: usize = 8 + 8 + 4 + 8;
const ZSTD_LEVEL: i32 = 3;
/// Handed to the kernel at once.
const WRITE_BYTES: usize = 1 << 20;

/// A file that is open for readers.
#[derive(Debug)]
pub(crate) struct LogFile {
    pub(crate) head: FileHead,
    pub(crate) bytes: u64,
    pub(crate) blocks: Vec<Block>,
    files: Files,
    path: PathBuf,
    obsolete: AtomicBool,
}

/// Why a file could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    File(FileError),
    Damaged(Damaged),
    Newer(u8),
}

impl From<Damaged> for ReadError {
    fn from(damaged: Damaged) -> Self {
        Self::Damaged(damaged)
    }
}

impl From<FileError> for ReadError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl LogFile {
    /// Reads the index.
    pub(crate) fn open(files: &Files, path: &Path) -> Result<Self, ReadError> {
        let file = files.disk().open(path).map_err(FileError::at("open", path))?;
        let bytes = file.len().map_err(FileError::at("read", path))?;
        let body = bytes.checked_sub(FOOTER_BYTES as u64).filter(|body| *body >= HEADER_BYTES as u64);
        let body = body.ok_or(Damaged("a file shorter than header and footer"))?;
        let read = |offset: u64, length: usize| {
            let mut bytes = vec![0; length];
            let read = file.read_exact_at(&mut bytes, offset).map_err(FileError::at("read", path));
            read.map(|()| bytes)
        };
        let header = read(0, HEADER_BYTES)?;
        let version = header[HEADER_BYTES - 1];
        if !header.starts_with(MAGIC) || version == 0 {
            return Err(Damaged("not a file of logs").into());
        }
        if version > VERSION {
            return Err(ReadError::Newer(version));
        }
        let footer = read(body, FOOTER_BYTES)?;
        let mut reader = Reader::new(&footer);
        let (offset, length, checksum) = (reader.u64()?, reader.u64()?, reader.u32()?);
        if reader.rest() != END || offset.checked_add(length) != Some(body) || offset < HEADER_BYTES as u64 {
            return Err(Damaged("a footer that does not fit the file").into());
        }
        let index = read(offset, length as usize)?;
        if crc32fast::hash(&index) != checksum {
            return Err(Damaged("an index whose checksum differs").into());
        }
        let (head, blocks) = read_index(&unpack_index(&index)?, offset)?;
        let (files, path) = (files.clone(), path.to_path_buf());
        Ok(Self { head, bytes, blocks, files, path, obsolete: AtomicBool::new(false) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it for reading blocks.
    pub(crate) fn reader(&self) -> Result<Arc<dyn DiskFile>, FileError> {
        self.files.disk().open(&self.path).map_err(FileError::at("open", &self.path))
    }

    /// Bytes of all texts.
    pub(crate) fn raw_bytes(&self) -> u64 {
        self.blocks.iter().map(|block| u64::from(block.text.raw)).sum()
    }

    /// It is removed when nobody reads it any more.
    pub(crate) fn retire(&self) {
        self.obsolete.store(true, Ordering::Relaxed);
    }

    /// Whether a block may have all of these words.
    pub(crate) fn may_have(
        &self,
        file: &dyn DiskFile,
        block: &Block,
        words: &[u64],
        scratch: &mut Scratch,
    ) -> Result<bool, ReadError> {
        if words.is_empty() {
            return Ok(true);
        }
        self.read(file, block.offset, block.filter, &mut scratch.packed)?;
        Ok(words.iter().all(|word| filter::may_have(&scratch.packed, *word)))
    }

    /// Unpacks the texts of a block into `scratch.text`.
    pub(crate) fn texts(
        &self,
        file: &dyn DiskFile,
        block: &Block,
        scratch: &mut Scratch,
    ) -> Result<(), ReadError> {
        let offset = block.offset + u64::from(block.filter.stored);
        self.read(file, offset, block.text, &mut scratch.packed)?;
        unpack(&mut scratch.unpacker, &scratch.packed, block.text, &mut scratch.text)?;
        Ok(())
    }

    /// What belongs to the texts of a block.
    pub(crate) fn meta(
        &self,
        file: &dyn DiskFile,
        block: &Block,
        scratch: &mut Scratch,
    ) -> Result<Meta, ReadError> {
        let offset = block.offset + u64::from(block.filter.stored) + u64::from(block.text.stored);
        self.read(file, offset, block.meta, &mut scratch.packed)?;
        unpack(&mut scratch.unpacker, &scratch.packed, block.meta, &mut scratch.meta)?;
        let meta = Meta::unpack(&scratch.meta, block.text.raw as usize)?;
        if meta.rows.len() != block.rows as usize {
            return Err(Damaged("a block with another number of rows").into());
        }
        Ok(meta)
    }

    /// Texts and what belongs to them.
    pub(crate) fn rows(
        &self,
        file: &dyn DiskFile,
        block: &Block,
        scratch: &mut Scratch,
    ) -> Result<Rows, ReadError> {
        let meta = self.meta(file, block, scratch)?;
        self.texts(file, block, scratch)?;
        Ok(Rows::joined(meta, scratch.text.clone()))
    }

    fn read(
        &self,
        file: &dyn DiskFile,
        offset: u64,
        part: Part,
        into: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        into.resize(part.stored as usize, 0);
        file.read_exact_at(into, offset).map_err(FileError::at("read", &self.path))?;
        if crc32fast::hash(into) != part.checksum {
            return Err(Damaged("a block whose checksum differs").into());
        }
        Ok(())
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Relaxed) {
            // one that stays is removed when the store opens
            let _ = self.files.disk().remove(&self.path);
            if let Some(partition) = self.path.parent() {
                // fails, as it should, while other files are in it
                let _ = self.files.disk().remove_dir(partition);
            }
        }
    }
}

/// What reading a block needs, kept for the next one.
pub(crate) struct Scratch {
    packed: Vec<u8>,
    meta: Vec<u8>,
    pub(crate) text: Vec<u8>,
    unpacker: zstd::bulk::Decompressor<'static>,
}

impl Scratch {
    pub(crate) fn new() -> std::io::Result<Self> {
        let unpacker = zstd::bulk::Decompressor::new()?;
        Ok(Self { packed: Vec::new(), meta: Vec::new(), text: Vec::new(), unpacker })
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").field("text_bytes", &self.text.len()).finish_non_exhaustive()
    }
}

fn unpack(
    unpacker: &mut zstd::bulk::Decompressor<'_>,
    packed: &[u8],
    part: Part,
    out: &mut Vec<u8>,
) -> Result<(), Damaged> {
    out.clear();
    // no more than this is written, whatever the bytes say
    out.reserve_exact(part.raw as usize);
    let unpacked =
        unpacker.decompress_to_buffer(packed, out).map_err(|_| Damaged("bytes that cannot be unpacked"))?;
    if unpacked != part.raw as usize {
        return Err(Damaged("a part of another length"));
    }
    Ok(())
}

/// Writes a file.
#[derive(Debug)]
pub(crate) struct FileWriter {
    files: Files,
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    temporary: PathBuf,
    head: FileHead,
    buffer: Vec<u8>,
    /// Bytes that are in the file.
    written: u64,
    blocks: Vec<Block>,
}

impl FileWriter {
    pub(crate) fn create(files: &Files, path: PathBuf, head: FileHead) -> Result<Self, FileError> {
        if let Some(dir) = path.parent() {
            files.create_dir_durably(dir)?;
        }
        let temporary = temporary(&path);
        let file = files.disk().create(&temporary, false).map_err(FileError::at("create", &temporary))?;
        let mut buffer = MAGIC.to_vec();
        buffer.push(VERSION);
        Ok(Self { files: files.clone(), file, path, temporary, head, buffer, written: 0, blocks: Vec::new() })
    }

    /// Packs rows, which ascend in time, as a block.
    pub(crate) fn put(&mut self, vm: &Arc<str>, rows: &Rows) -> Result<(), FileError> {
        let Some((first, last)) = rows.span() else { return Ok(()) };
        let offset = self.end();
        let filter = self.put_part(&filter::of(&rows.text), 0);
        let text = self.put_packed(&rows.text)?;
        let meta = self.put_packed(&rows.meta.packed())?;
        let origins = rows.meta.origins.iter();
        let mut series: Vec<(LogKind, u8, Arc<str>)> =
            origins.map(|origin| (origin.kind, origin.severity, Arc::from(&*origin.app))).collect();
        series.sort_unstable();
        series.dedup();
        let rows = rows.meta.rows.len() as u32;
        self.blocks.push(Block { vm: Arc::clone(vm), offset, filter, text, meta, rows, first, last, series });
        self.write_if(WRITE_BYTES)
    }

    /// Copies a block as it is.
    pub(crate) fn copy(
        &mut self,
        from: &LogFile,
        file: &dyn DiskFile,
        block: &Block,
    ) -> Result<(), ReadError> {
        let copied = Block { offset: self.end(), ..block.clone() };
        let (mut offset, mut bytes) = (block.offset, Vec::new());
        for part in [block.filter, block.text, block.meta] {
            from.read(file, offset, part, &mut bytes)?;
            self.buffer.extend_from_slice(&bytes);
            offset += u64::from(part.stored);
        }
        self.blocks.push(copied);
        Ok(self.write_if(WRITE_BYTES)?)
    }

    fn end(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn put_packed(&mut self, raw: &[u8]) -> Result<Part, FileError> {
        let packed = zstd::bulk::compress(raw, ZSTD_LEVEL).map_err(FileError::at("pack for", &self.path))?;
        Ok(self.put_part(&packed, raw.len() as u32))
    }

    fn put_part(&mut self, bytes: &[u8], raw: u32) -> Part {
        self.buffer.extend_from_slice(bytes);
        Part { stored: bytes.len() as u32, raw, checksum: crc32fast::hash(bytes) }
    }

    fn write_if(&mut self, enough: usize) -> Result<(), FileError> {
        if self.buffer.len() >= enough {
            self.file
                .write_all_at(&self.buffer, self.written)
                .map_err(FileError::at("write", &self.temporary))?;
            self.written += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Ends the file and gives it its name; `None` if it has no blocks.
    pub(crate) fn finish(mut self) -> Result<Option<LogFile>, FileError> {
        if self.blocks.is_empty() {
            return Ok(None);
        }
        let offset = self.end();
        let raw = index_bytes(&self.head, &self.blocks);
        let mut index = Vec::new();
        put_varint(&mut index, raw.len() as u64);
        let packed = zstd::bulk::compress(&raw, ZSTD_LEVEL).map_err(FileError::at("pack for", &self.path))?;
        index.extend_from_slice(&packed);
        self.buffer.extend_from_slice(&index);
        self.buffer.extend_from_slice(&offset.to_le_bytes());
        self.buffer.extend_from_slice(&(index.len() as u64).to_le_bytes());
        self.buffer.extend_from_slice(&crc32fast::hash(&index).to_le_bytes());
        self.buffer.extend_from_slice(END);
        self.write_if(1)?;
        if let Err(error) = self.files.publish(&*self.file, &self.temporary, &self.path) {
            // else it might be there beside the one that the next attempt writes
            let _ = self.files.disk().remove(&self.path);
            return Err(error);
        }
        Ok(Some(LogFile {
            head: self.head,
            bytes: self.written,
            blocks: std::mem::take(&mut self.blocks),
            files: self.files.clone(),
            path: self.path.clone(),
            obsolete: AtomicBool::new(false),
        }))
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        // After `finish` there is nothing of that name any more; after an error it must not stay.
        let _ = self.files.disk().remove(&self.temporary);
    }
}

/// A damaged place as an error of the file system, for those who cannot go on without it.
pub(crate) fn as_file_error(error: ReadError, path: &Path) -> FileError {
    let what = match error {
        ReadError::File(error) => return error,
        ReadError::Damaged(Damaged(what)) => what,
        ReadError::Newer(_) => "a newer version",
    };
    FileError {
        step: "read a block of",
        path: path.to_path_buf(),
        source: Error::new(ErrorKind::InvalidData, what),
    }
}

/// One block from any bytes, for the fuzz target: its index entry, then its parts.
#[cfg(feature = "fuzz")]
pub(crate) fn check_block(bytes: &[u8]) {
    let Some((lengths, parts)) = bytes.split_first_chunk::<4>() else { return };
    let (text_raw, split) = (u32::from(lengths[0]) * 16 + u32::from(lengths[1]), usize::from(lengths[2]));
    let (text, meta) = parts.split_at(split.min(parts.len()));
    let Ok(mut unpacker) = zstd::bulk::Decompressor::new() else { return };
    let part = |bytes: &[u8], raw| Part { stored: bytes.len() as u32, raw, checksum: 0 };
    let mut out = Vec::new();
    let _ = unpack(&mut unpacker, text, part(text, text_raw), &mut out);
    assert!(out.len() <= text_raw as usize, "no more is unpacked than is said");
    if let Ok(meta) = Meta::unpack(meta, text_raw as usize) {
        for row in 0..meta.rows.len() {
            assert!(meta.text_start(row) < meta.rows[row].text_end as usize);
            let _ = meta.entry("web", row, b"");
        }
        let again = Meta::unpack(&meta.packed(), text_raw as usize);
        assert_eq!(again.map(|again| again.rows), Ok(meta.rows));
    }
    let _ = read_index(bytes, HEADER_BYTES as u64);
    let _ = crate::logs::journal::read(bytes, drop);
    let _ = unpack_index(parts);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::entry::LogEntry;

    /// Makes the seeds of the fuzz target anew: `UNI_STORE_NEW_SEEDS=1 cargo test -p uni-store seeds_are`.
    #[test]
    fn seeds_are_what_is_packed_today() {
        let mut rows = Rows::default();
        for (n, text) in ["disk full", "no answer from 10.0.0.7", ""].into_iter().enumerate() {
            let entry = LogEntry {
                severity: 3,
                app: "db".into(),
                id: "ID".into(),
                text: text.into(),
                ..LogEntry::default()
            };
            rows.push(&LogEntry { severity: n as u8, ..entry.clone() });
            rows.push(&LogEntry { own_time: Some(uni_wire::Timestamp(7)), ..entry });
        }
        let text = zstd::bulk::compress(&rows.text, ZSTD_LEVEL).unwrap();
        let lengths = [(rows.text.len() / 16) as u8, (rows.text.len() % 16) as u8, text.len() as u8, 0];
        let block = [&lengths[..], &text, &rows.meta.packed()].concat();
        let series = vec![(LogKind::Message, 3, Arc::from("db")), (LogKind::Event, 6, Arc::from(""))];
        let dir = tempfile::tempdir().unwrap();
        let files = Files::create(Arc::new(crate::disk::OsDisk), dir.path()).unwrap();
        let head = FileHead { number: 3, first: 2, journal: 9, start_s: 86_400 };
        let mut writer = FileWriter::create(&files, dir.path().join("x.log"), head).unwrap();
        let part = Part { stored: 0, raw: 0, checksum: 7 };
        let (vm, one) = (Arc::from("web"), (part, part, part));
        writer.blocks.push(Block {
            vm,
            offset: 8,
            filter: one.0,
            text: one.1,
            meta: one.2,
            rows: 6,
            first: -1,
            last: 5,
            series,
        });
        let index = index_bytes(&writer.head, &writer.blocks);
        assert_eq!(read_index(&index, 8).map(|(read, blocks)| (read, blocks.len())), Ok((head, 1)));
        let mut journal = vec![0];
        crate::logs::journal::put(&mut journal, &rows.meta.entry("web", 1, b"disk full"));
        let seeds = [("block", block), ("index", index), ("journal", journal)];
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/store_logs");
        for (name, bytes) in seeds {
            if std::env::var_os("UNI_STORE_NEW_SEEDS").is_some() {
                std::fs::write(folder.join(name), &bytes).unwrap();
            }
            // another release of the packer may choose other bytes
            assert!(name == "block" || std::fs::read(folder.join(name)).unwrap() == bytes, "{name}");
        }
    }
}
