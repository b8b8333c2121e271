//! The write-ahead log: files of framed, checksummed entries.
//!
//! Owns the layout of log files (`docs/format/store.md`, section *Log*), writing and reading frames. Never knows what
//! the numbers in entries mean: each file defines the numbers it uses, so every file can be read alone.

use crate::bytes::{Damaged, Reader, put_bytes, put_varint, put_zigzag};
use crate::catalog::Tags;
use crate::error::FileError;
use crate::files::{Files, sync_dir};
use crate::point::TagList;
use crate::row::{type_code, type_of_code};
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uni_wire::FieldType;

const MAGIC: &[u8; 7] = b"UNIWAL\0";
/// The version of logs that this program writes, and the newest that it reads.
pub(crate) const VERSION: u8 = 1;
const HEADER_BYTES: usize = 8;
/// Length and checksum before each payload.
const FRAME_HEADER_BYTES: usize = 8;
/// Most bytes of a payload that is read; what is written stays below (a full frame and one largest point).
const MAX_PAYLOAD: usize = 8 << 20;

const MEASUREMENT: u8 = 1;
const FIELD: u8 = 2;
const SERIES: u8 = 3;
const ROW: u8 = 4;
const DROP: u8 = 5;

/// A frame being filled: one write to the file, whole or not at all.
#[derive(Debug)]
pub(crate) struct Frame {
    /// Begins with room for the frame's header.
    bytes: Vec<u8>,
    /// Times are written as the difference from the row before in the same frame.
    last_time: i64,
}

impl Default for Frame {
    fn default() -> Self {
        Self { bytes: vec![0; FRAME_HEADER_BYTES], last_time: 0 }
    }
}

impl Frame {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.len() == FRAME_HEADER_BYTES
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.truncate(FRAME_HEADER_BYTES);
        // One large batch must not hold its memory for ever.
        self.bytes.shrink_to(64 << 10);
        self.last_time = 0;
    }

    pub(crate) fn define_measurement(&mut self, number: u32, database: &str, name: &str) {
        self.bytes.push(MEASUREMENT);
        put_varint(&mut self.bytes, u64::from(number));
        put_bytes(&mut self.bytes, database.as_bytes());
        put_bytes(&mut self.bytes, name.as_bytes());
    }

    pub(crate) fn define_field(&mut self, measurement: u32, number: u32, field_type: FieldType, name: &str) {
        self.bytes.push(FIELD);
        put_varint(&mut self.bytes, u64::from(measurement));
        put_varint(&mut self.bytes, u64::from(number));
        self.bytes.push(type_code(field_type));
        put_bytes(&mut self.bytes, name.as_bytes());
    }

    pub(crate) fn define_series(&mut self, number: u64, measurement: u32, tags: &Tags) {
        self.bytes.push(SERIES);
        put_varint(&mut self.bytes, number);
        put_varint(&mut self.bytes, u64::from(measurement));
        put_varint(&mut self.bytes, tags.len() as u64);
        for (key, value) in tags {
            put_bytes(&mut self.bytes, key.as_bytes());
            put_bytes(&mut self.bytes, value.as_bytes());
        }
    }

    pub(crate) fn put_row(&mut self, series: u64, time: i64, row: &[u8]) {
        self.bytes.push(ROW);
        put_varint(&mut self.bytes, series);
        put_zigzag(&mut self.bytes, time.wrapping_sub(self.last_time));
        put_bytes(&mut self.bytes, row);
        self.last_time = time;
    }

    pub(crate) fn put_drop(&mut self, database: &str, before: i64) {
        self.bytes.push(DROP);
        put_bytes(&mut self.bytes, database.as_bytes());
        put_zigzag(&mut self.bytes, before);
    }

    fn seal(&mut self) -> &[u8] {
        let payload = &self.bytes[FRAME_HEADER_BYTES..];
        let (length, checksum) = (payload.len() as u32, crc32fast::hash(payload));
        self.bytes[..4].copy_from_slice(&length.to_le_bytes());
        self.bytes[4..FRAME_HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
        &self.bytes
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
    /// A row, in the form of `row`.
    Row { series: u64, time: i64, row: &'a [u8] },
    /// Retention dropped what the log had of this database before this time.
    Drop { database: &'a str, before: i64 },
}

/// Takes a payload apart.
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
            ROW => {
                let series = reader.varint()?;
                self.last_time = self.last_time.wrapping_add(reader.zigzag()?);
                Entry::Row { series, time: self.last_time, row: reader.bytes()? }
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
    file: Arc<File>,
    number: u64,
    path: PathBuf,
    /// End of the last whole frame.
    offset: u64,
    /// Files before this one that may hold bytes which are not on the disk yet.
    unsynced: Vec<Arc<File>>,
    /// Bytes written by this process, to all files: what a sync has to reach.
    written: u64,
}

impl Wal {
    pub(crate) fn create(files: &Files, number: u64) -> Result<Self, FileError> {
        let path = files.wal(number);
        // Never an existing file: it would be a log that was not replayed.
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = file.map_err(FileError::at("create", &path))?;
        let begun = begin(&file, &path).and_then(|()| sync_dir(&files.wal_dir()));
        begun.inspect_err(|_| {
            // The next attempt will want the same name.
            let _ = std::fs::remove_file(&path);
        })?;
        let offset = HEADER_BYTES as u64;
        Ok(Self { file: Arc::new(file), number, path, offset, unsynced: Vec::new(), written: 0 })
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
    pub(crate) fn take_unsynced(&mut self) -> Vec<Arc<File>> {
        let mut files = std::mem::take(&mut self.unsynced);
        files.push(Arc::clone(&self.file));
        files
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts another file in the place of the current one, so that tests can make it fail.
    #[cfg(test)]
    pub(crate) fn swap_file(&mut self, file: Arc<File>) -> Arc<File> {
        std::mem::replace(&mut self.file, file)
    }
}

fn begin(file: &File, path: &Path) -> Result<(), FileError> {
    let mut header = MAGIC.to_vec();
    header.push(VERSION);
    file.write_all_at(&header, 0).map_err(FileError::at("write", path))
}

/// How a log file begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    Good,
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

/// Reads a log file frame by frame, so that a restart needs memory for one frame only.
#[derive(Debug)]
pub(crate) struct LogReader {
    file: BufReader<File>,
    path: PathBuf,
    offset: u64,
    length: u64,
    payload: Vec<u8>,
}

impl LogReader {
    pub(crate) fn open(path: &Path) -> Result<(Self, Beginning), FileError> {
        let mut file = File::open(path).map_err(FileError::at("open", path))?;
        let length = file.metadata().map_err(FileError::at("read", path))?.len();
        let mut header = [0; HEADER_BYTES];
        let beginning = if length < HEADER_BYTES as u64 {
            Beginning::Torn
        } else {
            file.read_exact(&mut header).map_err(FileError::at("read", path))?;
            beginning(&header)
        };
        let (file, path, payload) = (BufReader::new(file), path.to_path_buf(), Vec::new());
        Ok((Self { file, path, offset: HEADER_BYTES as u64, length, payload }, beginning))
    }

    /// End of the last whole frame that was read.
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Size of the file.
    pub(crate) const fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn next(&mut self) -> Result<Next<'_>, FileError> {
        let left = self.length - self.offset;
        if left == 0 {
            return Ok(Next::End);
        }
        if left < FRAME_HEADER_BYTES as u64 {
            return Ok(Next::Damaged);
        }
        let mut header = [0; FRAME_HEADER_BYTES];
        self.file.read_exact(&mut header).map_err(FileError::at("read", &self.path))?;
        let mut fields = Reader::new(&header);
        let (Ok(length), Ok(checksum)) = (fields.u32(), fields.u32()) else { return Ok(Next::Damaged) };
        let length = length as usize;
        if length == 0 || length > MAX_PAYLOAD || (length + FRAME_HEADER_BYTES) as u64 > left {
            return Ok(Next::Damaged);
        }
        self.payload.resize(length, 0);
        self.file.read_exact(&mut self.payload).map_err(FileError::at("read", &self.path))?;
        if crc32fast::hash(&self.payload) != checksum {
            return Ok(Next::Damaged);
        }
        self.offset += (length + FRAME_HEADER_BYTES) as u64;
        Ok(Next::Payload(&self.payload))
    }
}

fn beginning(header: &[u8; HEADER_BYTES]) -> Beginning {
    match header[HEADER_BYTES - 1] {
        _ if !header.starts_with(MAGIC) => Beginning::Damaged,
        0 => Beginning::Damaged,
        version if version > VERSION => Beginning::Newer(version),
        _ => Beginning::Good,
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_are_read_back() {
        let mut frame = Frame::default();
        let tags: TagList = vec![("vm".into(), "a".into())];
        frame.define_measurement(3, "uni", "memory");
        frame.define_field(3, 1, FieldType::Boolean, "ok");
        frame.define_series(9, 3, &tags);
        frame.put_row(9, i64::MAX, b"row");
        frame.put_row(9, i64::MIN, b"");
        frame.put_drop("uni", -5);
        let mut entries = Entries::of(&frame.bytes[FRAME_HEADER_BYTES..]);
        let expected = [
            Entry::Measurement { number: 3, database: "uni", name: "memory" },
            Entry::Field { measurement: 3, number: 1, field_type: FieldType::Boolean, name: "ok" },
            Entry::Series { number: 9, measurement: 3, tags },
            Entry::Row { series: 9, time: i64::MAX, row: b"row" },
            Entry::Row { series: 9, time: i64::MIN, row: b"" },
            Entry::Drop { database: "uni", before: -5 },
        ];
        for entry in expected {
            assert_eq!(entries.next(), Ok(Some(entry)));
        }
        assert_eq!(entries.next(), Ok(None));
    }

    proptest! {
        #[test]
        fn any_payload_is_taken_apart_without_panic(bytes: Vec<u8>) {
            let mut entries = Entries::of(&bytes);
            while let Ok(Some(_)) = entries.next() {}
        }
    }
}
