//! A bounded log of raw bytes that is read by absolute offset: the guest's console, and QEMU's own messages.
//!
//! A log is a run of segment files `<prefix>.<start offset, 20 digits>.log`. The file's name says where it
//! starts, its length where it ends, so nothing else has to be kept in step: offsets survive rotation, a
//! killed writer and a new one. The oldest segment goes when the total would exceed the limit. One writer,
//! any number of readers, no locks.
//!
//! Owns the files of that form; never interprets the bytes.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Prefix of the guest's serial console.
pub const CONSOLE: &str = "console";
/// Prefix of what QEMU itself prints.
pub const QEMU: &str = "qemu";
/// How much console is kept when nothing else is said, in bytes.
pub const DEFAULT_LIMIT_BYTES: u64 = 16 * 1024 * 1024;
/// A log is kept in this many segments, so that rotation drops a quarter at a time.
const SEGMENTS: u64 = 4;

#[derive(Clone, Debug)]
struct Segment {
    start: u64,
    len: u64,
    path: PathBuf,
}

impl Segment {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

fn segment_path(dir: &Path, prefix: &str, start: u64) -> PathBuf {
    dir.join(format!("{prefix}.{start:020}.log"))
}

/// The start offset in a segment's file name.
fn parse_start(file_name: &str, prefix: &str) -> Option<u64> {
    let digits = file_name.strip_prefix(prefix)?.strip_prefix('.')?.strip_suffix(".log")?;
    let form = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    form.then(|| digits.parse().ok()).flatten()
}

/// The segments there are, oldest first. A segment that vanishes meanwhile is left out.
fn segments(dir: &Path, prefix: &str) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let Some(start) = entry.file_name().to_str().and_then(|name| parse_start(name, prefix)) else {
            continue;
        };
        let Ok(metadata) = entry.metadata() else { continue };
        found.push(Segment { start, len: metadata.len(), path: entry.path() });
    }
    found.sort_by_key(|segment| segment.start);
    Ok(found)
}

/// Removes every segment of a log.
///
/// # Errors
/// The directory cannot be listed or a file not removed.
pub fn clear(dir: &Path, prefix: &str) -> io::Result<()> {
    segments(dir, prefix)?.iter().try_for_each(|segment| std::fs::remove_file(&segment.path))
}

/// The writing end. Only the shim has one.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    prefix: &'static str,
    limit_bytes: u64,
    file: Option<File>,
    start: u64,
    len: u64,
    dropped_bytes: u64,
}

impl Writer {
    /// Goes on where the log in `dir` ends; `limit_bytes` bounds its total size on disk (at least 4 KiB are
    /// kept).
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn open(dir: &Path, prefix: &'static str, limit_bytes: u64) -> io::Result<Self> {
        let last = segments(dir, prefix)?.pop();
        let (start, len) = last.map_or((0, 0), |segment| (segment.start, segment.len));
        let limit_bytes = limit_bytes.max(4096);
        Ok(Self { dir: dir.to_owned(), prefix, limit_bytes, file: None, start, len, dropped_bytes: 0 })
    }

    /// Appends `bytes`. What cannot be written (a full disk) is dropped and counted: the guest must never
    /// wait.
    pub fn append(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = usize::try_from(self.segment_bytes().saturating_sub(self.len)).unwrap_or(usize::MAX);
            if room == 0 {
                self.rotate();
                continue;
            }
            let (now, later) = rest.split_at(room.min(rest.len()));
            let len = self.len;
            if self.append_here(now).is_err() {
                // A part may have fitted.
                let lost = (rest.len() as u64).saturating_sub(self.len - len);
                self.dropped_bytes = self.dropped_bytes.saturating_add(lost);
                return;
            }
            rest = later;
        }
    }

    /// Where the next byte goes.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// Bytes that could not be written.
    #[must_use]
    pub fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes
    }

    fn segment_bytes(&self) -> u64 {
        self.limit_bytes / SEGMENTS
    }

    fn append_here(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = match self.file()?.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.len += written as u64;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    fn file(&mut self) -> io::Result<&mut File> {
        match self.file.take() {
            Some(file) => Ok(self.file.insert(file)),
            None => {
                let path = segment_path(&self.dir, self.prefix, self.start);
                let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
                Ok(self.file.insert(file))
            }
        }
    }

    /// Starts the next segment and drops the oldest ones, so that with a full new segment the total fits.
    fn rotate(&mut self) {
        self.start = self.end();
        self.len = 0;
        self.file = None;
        let keep = usize::try_from(SEGMENTS - 1).unwrap_or(0);
        let Ok(segments) = segments(&self.dir, self.prefix) else { return };
        let excess = segments.len().saturating_sub(keep);
        for segment in segments.iter().take(excess) {
            // One that cannot be removed now is tried again at the next rotation.
            let _ = std::fs::remove_file(&segment.path);
        }
    }
}

/// A piece of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// The bytes, in order; empty at the end of the log.
    pub bytes: Vec<u8>,
    /// Where `bytes` starts: the offset asked for, or later if that is already dropped.
    pub offset: u64,
    /// What to ask for next.
    pub next_offset: u64,
    /// The oldest offset still kept.
    pub earliest_offset: u64,
}

/// Reads logs by offset; holds no file open between calls.
#[derive(Debug)]
pub struct Reader;

impl Reader {
    /// Reads up to `max` bytes of the log `prefix` in `dir` from the absolute `offset` on. What was dropped
    /// is skipped; an offset beyond the end gives an empty piece at the end.
    ///
    /// # Errors
    /// The directory cannot be listed or a segment not read.
    pub fn read_from(dir: &Path, prefix: &str, offset: u64, max: usize) -> io::Result<Piece> {
        let segments = segments(dir, prefix)?;
        let earliest_offset = segments.first().map_or(0, |segment| segment.start);
        let end = segments.last().map_or(0, Segment::end);
        let offset = offset.clamp(earliest_offset, end);
        let mut piece = Piece { offset, next_offset: offset, earliest_offset, bytes: Vec::new() };
        for segment in segments.iter().filter(|segment| segment.end() > offset) {
            // Between segments there is never a gap, save one that an operator removed by hand: stop before
            // it.
            if segment.start > piece.next_offset || piece.bytes.len() >= max {
                break;
            }
            read_segment(segment, &mut piece, max)?;
        }
        Ok(piece)
    }

    /// The last `max` bytes of the log `prefix` in `dir`.
    ///
    /// # Errors
    /// As [`Reader::read_from`].
    pub fn tail(dir: &Path, prefix: &str, max: usize) -> io::Result<Piece> {
        let end = segments(dir, prefix)?.last().map_or(0, Segment::end);
        Self::read_from(dir, prefix, end.saturating_sub(max as u64), max)
    }
}

fn read_segment(segment: &Segment, piece: &mut Piece, max: usize) -> io::Result<()> {
    let file = match File::open(&segment.path) {
        Ok(file) => file,
        // Rotated away since it was listed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let within = piece.next_offset - segment.start;
    let wanted = usize::try_from(segment.len - within).unwrap_or(usize::MAX).min(max - piece.bytes.len());
    let had = piece.bytes.len();
    piece.bytes.resize(had + wanted, 0);
    let mut filled = 0;
    while filled < wanted {
        match file.read_at(&mut piece.bytes[had + filled..], within + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    piece.bytes.truncate(had + filled);
    piece.next_offset += filled as u64;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(dir: &Path) -> Piece {
        Reader::read_from(dir, CONSOLE, 0, usize::MAX).unwrap()
    }

    #[test]
    fn offsets_survive_rotation_and_a_new_writer() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let mut writer = Writer::open(dir, CONSOLE, 4096).unwrap();
        writer.append(&[b'a'; 3000]);
        drop(writer);
        let mut writer = Writer::open(dir, CONSOLE, 4096).unwrap();
        assert_eq!(writer.end(), 3000);
        writer.append(&[b'b'; 3000]);
        let piece = read_all(dir);
        assert_eq!(piece.next_offset, 6000);
        assert!(piece.earliest_offset >= 6000 - 4096 && piece.bytes.len() <= 4096);
        assert_eq!(piece.offset, piece.earliest_offset);
        assert_eq!(Reader::read_from(dir, CONSOLE, 2999, 2).unwrap().bytes, b"ab");
        assert_eq!(Reader::tail(dir, CONSOLE, 5).unwrap().bytes, b"bbbbb");
        let beyond = Reader::read_from(dir, CONSOLE, 9999, 5).unwrap();
        assert_eq!((beyond.bytes.len(), beyond.next_offset), (0, 6000));
    }

    #[test]
    fn a_log_that_never_was_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_all(dir.path()), Piece::default());
    }

    #[test]
    fn a_full_disk_drops_and_counts() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path(), CONSOLE, 4096).unwrap();
        // /dev/full refuses every write as a full disk does.
        std::os::unix::fs::symlink("/dev/full", segment_path(dir.path(), CONSOLE, 0)).unwrap();
        writer.append(b"lost");
        assert_eq!((writer.dropped_bytes(), writer.end()), (4, 0));
    }

    #[test]
    fn only_our_own_files_are_segments() {
        for name in [
            "console.log",
            "console.1.log",
            "console.0000000000000000000x.log",
            "qemu.00000000000000000000.log",
        ] {
            assert_eq!(parse_start(name, CONSOLE), None, "{name}");
        }
        assert_eq!(parse_start("console.00000000000000001024.log", CONSOLE), Some(1024));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn whatever_is_kept_is_the_end_of_what_was_written(
            writes in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..900), 1..24), from in 0u64..8000,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = Writer::open(dir.path(), CONSOLE, 4096).unwrap();
            writes.iter().for_each(|bytes| writer.append(bytes));
            let all = writes.concat();
            let piece = Reader::read_from(dir.path(), CONSOLE, from, 5000).unwrap();
            let start = usize::try_from(piece.offset).unwrap();
            prop_assert_eq!(&piece.bytes, &all[start..]);
            prop_assert_eq!(piece.next_offset, all.len() as u64);
            prop_assert!(all.len() as u64 - piece.earliest_offset <= 4096);
        }
    }
}
