//! An immutable file of pages of blocks with its index at the end.
//!
//! Owns the file's layout (`docs/format/store.md`, section *Segments*), writing, opening, reading blocks, and
//! removal when the last reader is gone. Never decides when that is.

use crate::block::{self, Effort};
use crate::bytes::{Damaged, Reader};
use crate::catalog::SeriesId;
use crate::cuts::Cuts;
use crate::disk::DiskFile;
use crate::error::{FileError, ScanError};
use crate::files::{Files, temporary};
use crate::index::{self, BlockPlace, IndexWriter, Page, SegmentHead, SeriesNames};
use crate::table::Table;
use crate::v1;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

const MAGIC: &[u8; 7] = b"UNISEG\0";
/// Of files that look the same and whose rows are windows, see `tier`.
const TIER_MAGIC: &[u8; 7] = b"UNITIR\0";
/// The version of segments that this program writes, and the newest that it reads.
pub(crate) const VERSION: u8 = 2;
const HEADER_BYTES: usize = 8;
const END: &[u8; 8] = b"UNISEGIX";
/// Offset and length of the index, its checksum, and [`END`].
const FOOTER_BYTES: usize = 8 + 8 + 4 + 8;

/// A page is closed at this size: what a reader unpacks for one block, and what a damaged byte can spoil.
const PAGE_BYTES: usize = 128 << 10;
/// The same of a tier, of which a reader wants few windows of one series on each of many days.
const TIER_PAGE_BYTES: usize = 16 << 10;
/// Handed to the kernel at once.
const WRITE_BYTES: usize = 1 << 20;
/// How hard merged pages are packed: beyond it the time doubles for a few parts in a hundred.
const ZSTD_LEVEL: i32 = 3;

/// A series of a segment: the numbers of its fields by column, and its blocks by time.
#[derive(Clone, Debug)]
pub(crate) struct SegmentSeries {
    pub(crate) id: SeriesId,
    pub(crate) fields: Arc<[u32]>,
    pub(crate) blocks: Box<[BlockPlace]>,
}

/// The page that was unpacked last: its place in the file, and its bytes.
type LastPage = Option<(u64, Arc<[u8]>)>;

/// An open segment: its index in memory, its blocks on disk.
#[derive(Debug)]
pub(crate) struct Segment {
    head: SegmentHead,
    version: u8,
    files: Files,
    path: PathBuf,
    bytes: u64,
    packed: bool,
    series: Vec<SegmentSeries>,
    /// What is deleted of it.
    cuts: RwLock<Arc<Cuts>>,
    obsolete: AtomicBool,
    last_page: Mutex<LastPage>,
}

impl Segment {
    /// Joins what the index says with the numbers that the catalog gave its names.
    pub(crate) fn new(
        files: &Files,
        (head, version): (SegmentHead, u8),
        (path, bytes): (PathBuf, u64),
        mut series: Vec<SegmentSeries>,
    ) -> Self {
        series.sort_by_key(|series| series.id);
        let packed = series.iter().flat_map(|series| &series.blocks).all(|block| block.page_raw > 0);
        let (files, obsolete, last_page) = (files.clone(), AtomicBool::new(false), Mutex::default());
        let cuts = RwLock::default();
        Self { head, version, files, path, bytes, packed, series, cuts, obsolete, last_page }
    }

    /// What is deleted of it.
    pub(crate) fn cuts(&self) -> Arc<Cuts> {
        Arc::clone(&self.cuts.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads leave out more from now on.
    pub(crate) fn set_cuts(&self, cuts: Cuts) {
        *self.cuts.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(cuts);
    }

    pub(crate) const fn number(&self) -> u64 {
        self.head.number
    }

    pub(crate) const fn start_s(&self) -> i64 {
        self.head.start_s
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it came out of a merge: then it is as small as it gets.
    pub(crate) const fn is_packed(&self) -> bool {
        self.packed
    }

    pub(crate) fn series(&self) -> &[SegmentSeries] {
        &self.series
    }

    pub(crate) fn find(&self, id: SeriesId) -> Option<usize> {
        self.series.binary_search_by_key(&id, |series| series.id).ok()
    }

    pub(crate) fn open(&self) -> Result<Arc<dyn DiskFile>, ScanError> {
        Ok(self.files.disk().open(&self.path).map_err(FileError::at("open", &self.path))?)
    }

    fn read(&self, file: &dyn DiskFile, offset: u64, length: u32) -> Result<Vec<u8>, ScanError> {
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, offset).map_err(FileError::at("read", &self.path))?;
        Ok(bytes)
    }

    fn page(&self, file: &dyn DiskFile, place: &BlockPlace) -> Result<Arc<[u8]>, ScanError> {
        let last = || self.last_page.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((page, bytes)) = &*last()
            && *page == place.page
        {
            return Ok(Arc::clone(bytes));
        }
        let packed = self.read(file, place.page, place.page_bytes)?;
        let bytes = index::unpack_exactly(&packed, place.page_raw as usize);
        let bytes: Arc<[u8]> = bytes.map_err(|damaged| self.damaged(place, damaged))?.into();
        *last() = Some((place.page, Arc::clone(&bytes)));
        Ok(bytes)
    }

    /// The bytes of a block, handed to `use_it`.
    fn with_block<T>(
        &self,
        file: &dyn DiskFile,
        place: &BlockPlace,
        use_it: impl FnOnce(&[u8]) -> Result<T, Damaged>,
    ) -> Result<T, ScanError> {
        let used = if place.page_raw == 0 {
            use_it(&self.read(file, place.page + u64::from(place.at), place.length)?)
        } else {
            let (at, length) = (place.at as usize, place.length as usize);
            // That the block lies in its page was checked when the index was read.
            use_it(self.page(file, place)?.get(at..at + length).unwrap_or_default())
        };
        used.map_err(|damaged| self.damaged(place, damaged))
    }

    /// Unpacks a block of the `series`-th series, without the rows that are deleted: the fields that are wanted.
    pub(crate) fn table(
        &self,
        file: &dyn DiskFile,
        series: usize,
        block: usize,
        wanted: impl Fn(u32) -> bool,
    ) -> Result<Table, ScanError> {
        let entry = &self.series[series];
        let Some(cut) = self.cut(entry.id) else { return self.uncut_table(file, series, block, wanted) };
        let place = &entry.blocks[block];
        if cut.covers(place.first, place.last) {
            return Ok(Table::default());
        }
        Ok(cut.apply(self.uncut_table(file, series, block, wanted)?))
    }

    /// As [`Segment::table`], deleted rows included.
    pub(crate) fn uncut_table(
        &self,
        file: &dyn DiskFile,
        series: usize,
        block: usize,
        wanted: impl Fn(u32) -> bool,
    ) -> Result<Table, ScanError> {
        let entry = &self.series[series];
        let field = |column: u32| entry.fields.get(column as usize).copied().filter(|field| wanted(*field));
        self.with_block(file, &entry.blocks[block], |bytes| match self.version {
            1 => v1::block::decode(bytes, field),
            _ => block::decode(bytes, field),
        })
    }

    /// What a block knows of a field without unpacking it.
    pub(crate) fn summary(
        &self,
        file: &dyn DiskFile,
        series: usize,
        block: usize,
        field: u32,
    ) -> Result<Option<crate::column::Summary>, ScanError> {
        let entry = &self.series[series];
        let place = entry.fields.iter().position(|known| *known == field);
        let BlockPlace { first, last, .. } = entry.blocks[block];
        let whole = self.version > 1 && !self.is_cut(entry.id, first, last);
        let Some(place) = place.filter(|_| whole) else { return Ok(None) };
        self.with_block(file, &entry.blocks[block], |bytes| block::summary_of(bytes, place as u32))
    }

    fn damaged(&self, place: &BlockPlace, Damaged(what): Damaged) -> ScanError {
        ScanError::Damaged { path: self.path.clone(), offset: place.page + u64::from(place.at), what }
    }

    /// The same under a second name, which the caller has given its file.
    pub(crate) fn linked(&self, path: PathBuf) -> Self {
        let place = (path, self.bytes);
        Self::new(&self.files, (self.head, self.version), place, self.series.clone())
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
            let _ = self.files.disk().remove(&self.path);
            if let Some(partition) = self.path.parent() {
                // Fails, as it should, while other segments are in it.
                let _ = self.files.disk().remove_dir(partition);
            }
        }
    }
}

/// Writes a segment under a temporary name; without [`SegmentWriter::finish`] nothing stays.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    files: Files,
    head: SegmentHead,
    effort: Effort,
    path: PathBuf,
    temporary: PathBuf,
    file: Arc<dyn DiskFile>,
    /// What has not been handed to the kernel yet, and where it goes.
    buffer: Vec<u8>,
    written: u64,
    page: Vec<u8>,
    page_blocks: u32,
    pages: Vec<Page>,
    index: IndexWriter,
    series: Vec<SegmentSeries>,
    /// Fields of the series before: mostly those of the next one too.
    fields: Arc<[u32]>,
    blocks: Vec<BlockPlace>,
    /// Blocks whose page is not closed yet: series, and block in it.
    open_blocks: Vec<(usize, usize)>,
}

impl SegmentWriter {
    pub(crate) fn create(
        files: &Files,
        path: PathBuf,
        head: SegmentHead,
        effort: Effort,
    ) -> Result<Self, FileError> {
        if let Some(partition) = path.parent() {
            files.create_dir_durably(partition)?;
        }
        let temporary = temporary(&path);
        let file = files.disk().create(&temporary, false).map_err(FileError::at("create", &temporary))?;
        let mut buffer = magic(effort).to_vec();
        buffer.push(VERSION);
        Ok(Self {
            files: files.clone(),
            head,
            effort,
            path,
            temporary,
            file,
            buffer,
            written: 0,
            page: Vec::new(),
            page_blocks: 0,
            pages: Vec::new(),
            index: IndexWriter::default(),
            series: Vec::new(),
            fields: Arc::new([]),
            blocks: Vec::new(),
            open_blocks: Vec::new(),
        })
    }

    fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn write_out(&mut self, at_least: usize) -> Result<(), FileError> {
        if self.buffer.len() >= at_least {
            let written = self.file.write_all_at(&self.buffer, self.written);
            written.map_err(FileError::at("write", &self.temporary))?;
            self.written += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Adds rows of a series, later than those it has in this segment so far. After the last ones,
    /// [`SegmentWriter::end_series`].
    pub(crate) fn put_rows(&mut self, names: &SeriesNames, table: &Table) -> Result<(), FileError> {
        let place =
            |field: u32| names.columns.iter().position(|(known, _, _)| *known == field).map(|at| at as u32);
        let mut start = 0;
        while start < table.times.len() {
            let rows = block::rows_from(table, start);
            let part;
            let whole = if rows == table.times.len() {
                table
            } else {
                part = table.slice(start, start + rows);
                &part
            };
            let bytes = block::seal(whole, place, self.effort);
            let Some((first, last)) = whole.span() else { break };
            self.put_block(&bytes, rows as u32, first, last)?;
            start += rows;
        }
        Ok(())
    }

    fn put_block(&mut self, bytes: &[u8], rows: u32, first: i64, last: i64) -> Result<(), FileError> {
        let (at, length) = (self.page.len() as u32, bytes.len() as u32);
        self.page.extend_from_slice(bytes);
        self.page_blocks += 1;
        self.open_blocks.push((self.series.len(), self.blocks.len()));
        self.blocks.push(BlockPlace { page: 0, page_bytes: 0, page_raw: 0, at, length, rows, first, last });
        let full = if self.effort == Effort::Tier { TIER_PAGE_BYTES } else { PAGE_BYTES };
        if self.page.len() >= full { self.close_page() } else { Ok(()) }
    }

    /// Writes the page, packed if that is worth it, and tells its blocks where it is.
    fn close_page(&mut self) -> Result<(), FileError> {
        if self.page_blocks == 0 {
            return Ok(());
        }
        let offset = self.position();
        let packed = match self.effort {
            Effort::Thorough | Effort::Tier => zstd::bulk::compress(&self.page, ZSTD_LEVEL).ok(),
            Effort::Quick => None,
        };
        let (stored, raw) = match &packed {
            Some(packed) => (packed, self.page.len() as u32),
            None => (&self.page, 0),
        };
        let page = Page { stored: stored.len() as u32, raw, blocks: self.page_blocks };
        self.buffer.extend_from_slice(stored);
        for (series, block) in self.open_blocks.drain(..) {
            let blocks = match self.series.get_mut(series) {
                Some(series) => &mut series.blocks[..],
                None => &mut self.blocks[..],
            };
            (blocks[block].page, blocks[block].page_bytes, blocks[block].page_raw) =
                (offset, page.stored, raw);
        }
        self.pages.push(page);
        self.page.clear();
        self.page_blocks = 0;
        self.write_out(WRITE_BYTES)
    }

    /// Closes a series whose rows have been put.
    pub(crate) fn end_series(&mut self, names: &SeriesNames) {
        if self.blocks.is_empty() {
            return;
        }
        let blocks = std::mem::take(&mut self.blocks);
        self.index.put(names, &blocks);
        if !names.columns.iter().map(|(number, _, _)| number).eq(self.fields.iter()) {
            self.fields = names.columns.iter().map(|(number, _, _)| *number).collect();
        }
        self.series.push(SegmentSeries {
            id: names.id,
            fields: Arc::clone(&self.fields),
            blocks: blocks.into(),
        });
    }

    /// Writes index and footer and gives the file its name. `None`, and no file, if there were no rows.
    pub(crate) fn finish(mut self) -> Result<Option<Segment>, FileError> {
        if self.index.is_empty() {
            return Ok(None);
        }
        self.close_page()?;
        let index = index::pack(&self.index.finish(self.head, &self.pages));
        let offset = self.position();
        self.buffer.extend_from_slice(&index);
        self.buffer.extend_from_slice(&footer(offset, &index));
        self.write_out(0)?;
        self.files.publish(&*self.file, &self.temporary, &self.path)?;
        let series = std::mem::take(&mut self.series);
        let place = (self.path.clone(), self.written);
        Ok(Some(Segment::new(&self.files, (self.head, VERSION), place, series)))
    }
}

impl Drop for SegmentWriter {
    fn drop(&mut self) {
        // After `finish` there is nothing of that name any more; after an error it must not stay.
        let _ = self.files.disk().remove(&self.temporary);
    }
}

const fn magic(effort: Effort) -> &'static [u8; 7] {
    match effort {
        Effort::Quick | Effort::Thorough => MAGIC,
        Effort::Tier => TIER_MAGIC,
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
    pub(crate) version: u8,
    /// Where blocks end and the index begins.
    offset: u64,
    pub(crate) file_bytes: u64,
}

impl IndexBytes {
    /// Of a segment, or of a tier, as it was written with this effort.
    pub(crate) fn read(files: &Files, path: &Path, effort: Effort) -> Result<Self, IndexError> {
        let file = files.disk().open(path).map_err(FileError::at("open", path))?;
        let file_bytes = file.len().map_err(FileError::at("read", path))?;
        let body = file_bytes.checked_sub(FOOTER_BYTES as u64).filter(|body| *body >= HEADER_BYTES as u64);
        let body = body.ok_or(Damaged("a segment shorter than header and footer"))?;
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0).map_err(FileError::at("read", path))?;
        let version = check_header(&header, magic(effort))?;
        let mut footer = [0; FOOTER_BYTES];
        file.read_exact_at(&mut footer, body).map_err(FileError::at("read", path))?;
        let (offset, length, checksum) = parse_footer(&footer, body)?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset).map_err(FileError::at("read", path))?;
        if crc32fast::hash(&bytes) != checksum {
            return Err(Damaged("an index whose checksum differs").into());
        }
        let bytes = if version == 1 { bytes } else { index::unpack(&bytes)? };
        Ok(Self { bytes, version, offset, file_bytes })
    }

    pub(crate) fn parse(&self) -> Result<index::Index<'_>, Damaged> {
        index::parse(&self.bytes, self.version, HEADER_BYTES as u64, self.offset)
    }
}

fn check_header(header: &[u8; HEADER_BYTES], magic: &[u8; 7]) -> Result<u8, IndexError> {
    let version = header[HEADER_BYTES - 1];
    if !header.starts_with(magic) || version == 0 {
        return Err(Damaged("not a segment").into());
    }
    if version > VERSION { Err(IndexError::Newer(version)) } else { Ok(version) }
}

fn parse_footer(footer: &[u8; FOOTER_BYTES], body: u64) -> Result<(u64, usize, u32), Damaged> {
    let mut reader = Reader::new(footer);
    let (offset, length, checksum) = (reader.u64()?, reader.u64()?, reader.u32()?);
    if reader.take(END.len())? != END || offset.checked_add(length) != Some(body) {
        return Err(Damaged("a footer that does not fit the file"));
    }
    if offset < HEADER_BYTES as u64 {
        return Err(Damaged("an index inside the header"));
    }
    let length = usize::try_from(length).map_err(|_| Damaged("an index too long for this machine"))?;
    Ok((offset, length, checksum))
}
