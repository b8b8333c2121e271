//! The write-ahead log: files of framed, checksummed entries.
//!
//! Owns the layout of log files (`docs/format/store.md`, section *Log*), writing and reading frames. Never knows what
//! the numbers in entries mean: each file defines the numbers it uses, so every file can be read alone.

use crate::bytes::{Damaged, Reader, put_bytes, put_varint, put_zigzag};
use crate::catalog::Tags;
use crate::disk::DiskFile;
use crate::error::FileError;
use crate::files::Files;
use crate::point::TagList;
use crate::row::Shape;
use crate::types::{type_code, type_of_code};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uni_wire::FieldType;

const MAGIC: &[u8; 7] = b"UNIWAL\0";
/// The version of logs that this program writes, and the newest that it reads.
pub(crate) const VERSION: u8 = 2;
const HEADER_BYTES: usize = 8;
/// Length and checksum before each payload.
const FRAME_HEADER_BYTES: usize = 8;
/// Most bytes of a payload that is read; what is written stays below (a full frame and one largest point).
const MAX_PAYLOAD: usize = 64 << 20;

/// Longest frame that is found again behind damage: lengths that chance makes are mostly above it.
const MAX_SOUGHT_BYTES: u64 = 1 << 20;

const MEASUREMENT: u8 = 1;
const FIELD: u8 = 2;
const SERIES: u8 = 3;
const ROW_V1: u8 = 4;
const DROP: u8 = 5;
const SHAPE: u8 = 6;

/// A frame being filled: one write to the file, whole or not at all.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    entries: Vec<u8>,
    rows: Vec<u8>,
    /// Series are written as the difference from the row before in the same frame.
    last_series: u64,
    sealed: Vec<u8>,
}

impl Frame {
    pub(crate) const fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.rows.is_empty()
    }

    pub(crate) const fn len(&self) -> usize {
        self.entries.len() + self.rows.len()
    }

    pub(crate) fn clear(&mut self) {
        for part in [&mut self.entries, &mut self.rows, &mut self.sealed] {
            part.clear();
            // One large batch must not hold its memory for ever.
            part.shrink_to(256 << 10);
        }
        self.last_series = 0;
    }

    pub(crate) fn define_measurement(&mut self, number: u32, database: &str, name: &str) {
        self.entries.push(MEASUREMENT);
        put_varint(&mut self.entries, u64::from(number));
        put_bytes(&mut self.entries, database.as_bytes());
        put_bytes(&mut self.entries, name.as_bytes());
    }

    pub(crate) fn define_field(&mut self, measurement: u32, number: u32, field_type: FieldType, name: &str) {
        self.entries.push(FIELD);
        put_varint(&mut self.entries, u64::from(measurement));
        put_varint(&mut self.entries, u64::from(number));
        self.entries.push(type_code(field_type));
        put_bytes(&mut self.entries, name.as_bytes());
    }

    pub(crate) fn define_series(&mut self, number: u64, measurement: u32, tags: &Tags) {
        self.entries.push(SERIES);
        put_varint(&mut self.entries, number);
        put_varint(&mut self.entries, u64::from(measurement));
        put_varint(&mut self.entries, tags.len() as u64);
        for (key, value) in tags {
            put_bytes(&mut self.entries, key.as_bytes());
            put_bytes(&mut self.entries, value.as_bytes());
        }
    }

    pub(crate) fn define_shape(&mut self, number: u32, shape: &Shape) {
        self.entries.push(SHAPE);
        put_varint(&mut self.entries, u64::from(number));
        put_varint(&mut self.entries, u64::from(shape.measurement));
        put_varint(&mut self.entries, shape.fields.len() as u64);
        for (field, _) in &shape.fields {
            put_varint(&mut self.entries, u64::from(*field));
        }
    }

    #[inline]
    pub(crate) fn put_row(&mut self, series: u64, row: &[u8]) {
        put_zigzag(&mut self.rows, series.wrapping_sub(self.last_series).cast_signed());
        put_bytes(&mut self.rows, row);
        self.last_series = series;
    }

    pub(crate) fn put_drop(&mut self, database: &str, before: i64) {
        self.entries.push(DROP);
        put_bytes(&mut self.entries, database.as_bytes());
        put_zigzag(&mut self.entries, before);
    }

    /// Bytes that only their writer reads, where rows would be.
    pub(crate) fn put_raw(&mut self, bytes: &[u8]) {
        self.rows.extend_from_slice(bytes);
    }

    fn seal(&mut self) -> &[u8] {
        let out = &mut self.sealed;
        out.clear();
        out.resize(FRAME_HEADER_BYTES, 0);
        put_bytes(out, &self.entries);
        out.extend_from_slice(&self.rows);
        let payload = &out[FRAME_HEADER_BYTES..];
        let (length, checksum) = (payload.len() as u32, crc32fast::hash(payload));
        out[..4].copy_from_slice(&length.to_le_bytes());
        out[4..FRAME_HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
        out
    }
}

/// What a payload is made of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry<'a> {
    /// From here on `number` means this measurement.
    Measurement { number: u32, database: &'a str, name: &'a str },
    /// From here on `number` means this field of the measurement.
    Field { measurement: u32, number: u32, field_type: FieldType, name: &'a str },
    /// From here on `number` means this series.
    Series { number: u64, measurement: u32, tags: TagList },
    /// From here on `number` means rows of these fields.
    Shape { number: u32, measurement: u32, fields: Vec<u32> },
    /// A row of version 1, in the form of `v1::row`.
    RowV1 { series: u64, time: i64, row: &'a [u8] },
    /// Retention dropped what the log had of this database before this time.
    Drop { database: &'a str, before: i64 },
}

/// The rows of a payload: for each its series and its bytes.
#[derive(Debug)]
pub(crate) struct RowEntries<'a> {
    reader: Reader<'a>,
    last_series: u64,
}

impl<'a> RowEntries<'a> {
    pub(crate) fn next(&mut self) -> Result<Option<(u64, &'a [u8])>, Damaged> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        self.last_series = self.last_series.wrapping_add(self.reader.zigzag()?.cast_unsigned());
        Ok(Some((self.last_series, self.reader.bytes()?)))
    }
}

/// The two parts of a payload of version 2.
pub(crate) fn parts(payload: &[u8]) -> Result<(Entries<'_>, RowEntries<'_>), Damaged> {
    let mut reader = Reader::new(payload);
    let entries = Entries::of(reader.bytes()?);
    Ok((entries, RowEntries { reader, last_series: 0 }))
}

/// Takes the entries of a payload apart.
#[derive(Debug)]
pub(crate) struct Entries<'a> {
    reader: Reader<'a>,
    last_time: i64,
}

impl<'a> Entries<'a> {
    pub(crate) const fn of(payload: &'a [u8]) -> Self {
        Self { reader: Reader::new(payload), last_time: 0 }
    }

    pub(crate) fn next(&mut self) -> Result<Option<Entry<'a>>, Damaged> {
        let reader = &mut self.reader;
        if reader.is_empty() {
            return Ok(None);
        }
        let entry = match reader.u8()? {
            MEASUREMENT => Entry::Measurement {
                number: reader.varint_u32()?,
                database: reader.text()?,
                name: reader.text()?,
            },
            FIELD => Entry::Field {
                measurement: reader.varint_u32()?,
                number: reader.varint_u32()?,
                field_type: type_of_code(reader.u8()?)?,
                name: reader.text()?,
            },
            SERIES => {
                let (number, measurement) = (reader.varint()?, reader.varint_u32()?);
                Entry::Series { number, measurement, tags: tags(reader)? }
            }
            ROW_V1 => {
                let series = reader.varint()?;
                self.last_time = self.last_time.wrapping_add(reader.zigzag()?);
                Entry::RowV1 { series, time: self.last_time, row: reader.bytes()? }
            }
            SHAPE => {
                let (number, measurement) = (reader.varint_u32()?, reader.varint_u32()?);
                let fields = (0..reader.count()?).map(|_| reader.varint_u32()).collect::<Result<_, _>>()?;
                Entry::Shape { number, measurement, fields }
            }
            DROP => Entry::Drop { database: reader.text()?, before: reader.zigzag()? },
            _ => return Err(Damaged("an unknown kind of entry")),
        };
        Ok(Some(entry))
    }
}

fn tags(reader: &mut Reader<'_>) -> Result<TagList, Damaged> {
    (0..reader.count()?).map(|_| Ok((reader.text()?.into(), reader.text()?.into()))).collect()
}

/// The log file that is being written.
#[derive(Debug)]
pub(crate) struct Wal {
    file: Arc<dyn DiskFile>,
    number: u64,
    path: PathBuf,
    /// End of the last whole frame.
    offset: u64,
    /// Files before this one that may hold bytes which are not on the disk yet.
    unsynced: Vec<Arc<dyn DiskFile>>,
    /// Bytes written by this process, to all files: what a sync has to reach.
    written: u64,
}

impl Wal {
    pub(crate) fn create(files: &Files, number: u64) -> Result<Self, FileError> {
        let path = files.wal(number);
        // Never an existing file: it would be a log that was not replayed.
        let file = files.disk().create(&path, true).map_err(FileError::at("create", &path))?;
        let begun = begin(&*file, &path).and_then(|()| files.sync_dir(&files.wal_dir()));
        begun.inspect_err(|_| {
            // The next attempt will want the same name.
            let _ = files.disk().remove(&path);
        })?;
        let offset = HEADER_BYTES as u64;
        Ok(Self { file, number, path, offset, unsynced: Vec::new(), written: 0 })
    }

    /// Goes on in a new file; returns the old one's path.
    pub(crate) fn rotate(&mut self, files: &Files) -> Result<PathBuf, FileError> {
        let next = Self::create(files, self.number + 1)?;
        let mut unsynced = std::mem::take(&mut self.unsynced);
        unsynced.push(Arc::clone(&self.file));
        let old = std::mem::replace(self, Self { unsynced, written: self.written, ..next });
        Ok(old.path)
    }

    /// Hands a frame to the kernel in one write. After an error the file ends where it ended before, as far as
    /// readers of the log are concerned.
    pub(crate) fn write(&mut self, frame: &mut Frame) -> Result<(), FileError> {
        let bytes = frame.seal();
        if let Err(source) = self.file.write_all_at(bytes, self.offset) {
            // What was written in part is no whole frame; a reader would stop there and so does the next write.
            let _ = self.file.set_len(self.offset);
            return Err(FileError { step: "write", path: self.path.clone(), source });
        }
        self.offset += bytes.len() as u64;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Whether the current file has no frame yet.
    pub(crate) const fn is_empty(&self) -> bool {
        self.offset == HEADER_BYTES as u64
    }

    /// Size of the current file.
    pub(crate) const fn bytes(&self) -> u64 {
        self.offset
    }

    pub(crate) const fn written(&self) -> u64 {
        self.written
    }

    /// The files to sync so that everything up to [`Wal::written`] is on the disk.
    pub(crate) fn take_unsynced(&mut self) -> Vec<Arc<dyn DiskFile>> {
        let mut files = std::mem::take(&mut self.unsynced);
        files.push(Arc::clone(&self.file));
        files
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts another file in the place of the current one, so that tests can make it fail.
    #[cfg(test)]
    pub(crate) fn swap_file(&mut self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        std::mem::replace(&mut self.file, file)
    }
}

fn begin(file: &dyn DiskFile, path: &Path) -> Result<(), FileError> {
    let mut header = MAGIC.to_vec();
    header.push(VERSION);
    file.write_all_at(&header, 0).map_err(FileError::at("write", path))
}

/// How a log file begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// A log of this version.
    Good(u8),
    /// Shorter than a header: the process died while making it.
    Torn,
    Damaged,
    Newer(u8),
}

/// What comes next in a log file.
#[derive(Debug)]
pub(crate) enum Next<'a> {
    Payload(&'a [u8]),
    End,
    /// From [`LogReader::offset`] on there is no whole frame.
    Damaged,
}

/// Reads a log file frame by frame, so that a restart needs memory for one window of it only.
#[derive(Debug)]
pub(crate) struct LogReader {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    offset: u64,
    length: u64,
    /// Bytes of the file from `window_at` on.
    window: Vec<u8>,
    window_at: u64,
}

/// Read at once: large enough that the system calls cost nothing.
const WINDOW_BYTES: usize = 4 << 20;

impl LogReader {
    pub(crate) fn open(files: &Files, path: &Path) -> Result<(Self, Beginning), FileError> {
        let file = files.disk().open(path).map_err(FileError::at("open", path))?;
        Self::of(file, path)
    }

    /// Reads a log that is open already, and may have lost its name.
    pub(crate) fn of(file: Arc<dyn DiskFile>, path: &Path) -> Result<(Self, Beginning), FileError> {
        let length = file.len().map_err(FileError::at("read", path))?;
        let mut header = [0; HEADER_BYTES];
        let beginning = if length < HEADER_BYTES as u64 {
            Beginning::Torn
        } else {
            file.read_exact_at(&mut header, 0).map_err(FileError::at("read", path))?;
            beginning(&header)
        };
        let (path, offset) = (path.to_path_buf(), HEADER_BYTES as u64);
        Ok((Self { file, path, offset, length, window: Vec::new(), window_at: 0 }, beginning))
    }

    /// End of the last whole frame that was read.
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Size of the file.
    pub(crate) const fn length(&self) -> u64 {
        self.length
    }

    /// Reads no further than this, as if the file ended there.
    pub(crate) fn end_at(&mut self, bytes: u64) {
        self.length = self.length.min(bytes);
    }

    /// The length that the frame at the offset claims to have, its header included.
    fn claimed(&mut self) -> Result<Option<u64>, FileError> {
        if self.length - self.offset < FRAME_HEADER_BYTES as u64 {
            return Ok(None);
        }
        let at = self.fill(FRAME_HEADER_BYTES)?;
        let length = Reader::new(&self.window[at..at + 4]).u32().unwrap_or(0);
        let is_possible = length > 0 && length as usize <= MAX_PAYLOAD;
        Ok(is_possible.then_some(u64::from(length) + FRAME_HEADER_BYTES as u64))
    }

    /// Goes behind a frame that is damaged, to the next whole one if its length is not to be believed; says whether
    /// there is more.
    pub(crate) fn skip_damaged(&mut self) -> Result<bool, FileError> {
        let from = self.offset;
        if let Some(whole) = self.claimed()?.filter(|whole| *whole <= self.length - from) {
            self.offset += whole;
            if self.offset == self.length || !matches!(self.next()?, Next::Damaged) {
                self.offset = from + whole;
                return Ok(true);
            }
            self.offset = from;
        }
        self.find_frame()
    }

    /// Goes to the next place where a whole frame of a common length begins; says whether there is one.
    pub(crate) fn find_frame(&mut self) -> Result<bool, FileError> {
        let from = self.offset;
        while self.length - self.offset > FRAME_HEADER_BYTES as u64 {
            self.offset += 1;
            let left = self.length - self.offset;
            let Some(whole) = self.claimed()?.filter(|whole| *whole <= left.min(MAX_SOUGHT_BYTES)) else {
                continue;
            };
            let at = self.fill(whole as usize)?;
            let frame = &self.window[at..at + whole as usize];
            let (header, payload) = frame.split_at(FRAME_HEADER_BYTES);
            if Reader::new(&header[4..]).u32() == Ok(crc32fast::hash(payload)) {
                return Ok(true);
            }
        }
        self.offset = from;
        Ok(false)
    }

    /// Whether what is left is the beginning of one frame: what a program leaves that was killed while it wrote. A whole
    /// frame whose length alone is damaged is none.
    pub(crate) fn is_cut_short(&mut self) -> Result<bool, FileError> {
        let left = self.length - self.offset;
        if left < FRAME_HEADER_BYTES as u64 {
            return Ok(true);
        }
        let promises_more = self.claimed()?.is_some_and(|length| length > left);
        if !promises_more || left > MAX_SOUGHT_BYTES {
            return Ok(promises_more);
        }
        let at = self.fill(left as usize)?;
        let (header, payload) = self.window[at..at + left as usize].split_at(FRAME_HEADER_BYTES);
        Ok(Reader::new(&header[4..]).u32() != Ok(crc32fast::hash(payload)))
    }

    /// Makes sure that `count` bytes from the offset on are in the window; the caller has checked that there are so
    /// many. Returns where in the window they are.
    fn fill(&mut self, count: usize) -> Result<usize, FileError> {
        let inside = self.offset >= self.window_at
            && self.offset + count as u64 <= self.window_at + self.window.len() as u64;
        if !inside {
            let left = (self.length - self.offset) as usize;
            self.window.resize(left.min(WINDOW_BYTES.max(count)), 0);
            self.window_at = self.offset;
            let read = self.file.read_exact_at(&mut self.window, self.offset);
            read.map_err(FileError::at("read", &self.path))?;
        }
        Ok((self.offset - self.window_at) as usize)
    }

    pub(crate) fn next(&mut self) -> Result<Next<'_>, FileError> {
        let left = self.length - self.offset;
        if left == 0 {
            return Ok(Next::End);
        }
        if left < FRAME_HEADER_BYTES as u64 {
            return Ok(Next::Damaged);
        }
        let at = self.fill(FRAME_HEADER_BYTES)?;
        let mut fields = Reader::new(&self.window[at..at + FRAME_HEADER_BYTES]);
        let (Ok(length), Ok(checksum)) = (fields.u32(), fields.u32()) else { return Ok(Next::Damaged) };
        let whole = length as usize + FRAME_HEADER_BYTES;
        if length == 0 || length as usize > MAX_PAYLOAD || whole as u64 > left {
            return Ok(Next::Damaged);
        }
        let at = self.fill(whole)?;
        let payload = &self.window[at + FRAME_HEADER_BYTES..at + whole];
        if crc32fast::hash(payload) != checksum {
            return Ok(Next::Damaged);
        }
        self.offset += whole as u64;
        Ok(Next::Payload(payload))
    }
}

fn beginning(header: &[u8; HEADER_BYTES]) -> Beginning {
    match header[HEADER_BYTES - 1] {
        _ if !header.starts_with(MAGIC) => Beginning::Damaged,
        0 => Beginning::Damaged,
        version if version > VERSION => Beginning::Newer(version),
        version => Beginning::Good(version),
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_and_rows_are_read_back() {
        let mut frame = Frame::default();
        let tags: TagList = vec![("vm".into(), "a".into())];
        frame.define_measurement(3, "uni", "memory");
        frame.define_field(3, 1, FieldType::Boolean, "ok");
        frame.define_series(9, 3, &tags);
        frame.define_shape(2, &Shape::new(3, [(1, FieldType::Boolean)].into()));
        frame.put_row(9, b"row");
        frame.put_row(u64::MAX, b"");
        frame.put_drop("uni", -5);
        let sealed = frame.seal().to_vec();
        let (mut entries, mut rows) = parts(&sealed[FRAME_HEADER_BYTES..]).unwrap();
        let expected = [
            Entry::Measurement { number: 3, database: "uni", name: "memory" },
            Entry::Field { measurement: 3, number: 1, field_type: FieldType::Boolean, name: "ok" },
            Entry::Series { number: 9, measurement: 3, tags },
            Entry::Shape { number: 2, measurement: 3, fields: vec![1] },
            Entry::Drop { database: "uni", before: -5 },
        ];
        for entry in expected {
            assert_eq!(entries.next(), Ok(Some(entry)));
        }
        assert_eq!(entries.next(), Ok(None));
        assert_eq!(rows.next(), Ok(Some((9, &b"row"[..]))));
        assert_eq!(rows.next(), Ok(Some((u64::MAX, &b""[..]))));
        assert_eq!(rows.next(), Ok(None));
    }

    proptest! {
        #[test]
        fn any_payload_is_taken_apart_without_panic(bytes: Vec<u8>) {
            let mut entries = Entries::of(&bytes);
            while let Ok(Some(_)) = entries.next() {}
            if let Ok((mut entries, mut rows)) = parts(&bytes) {
                while let Ok(Some(_)) = entries.next() {}
                while let Ok(Some(_)) = rows.next() {}
            }
        }
    }
}
