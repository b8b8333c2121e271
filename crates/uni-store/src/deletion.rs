//! One deletion as it is noted: which rows of which series, in segments up to which number.
//!
//! Owns the files in the folder `deleted` (`docs/format/store.md`, section *Deletions*). Never touches rows.

use crate::bytes::{Damaged, Reader, put_bytes, put_varint, put_zigzag};
use crate::error::FileError;
use crate::files::Files;
use crate::point::TagList;
use std::io::{Error, ErrorKind};
use std::path::Path;

const MAGIC: &[u8; 7] = b"UNIDEL\0";
/// The version of the files that this program writes, and the newest that it reads.
pub(crate) const VERSION: u8 = 1;
/// Most bytes of a file: a hundred thousand series with long names are below it.
const MAX_BYTES: u64 = 64 << 20;

/// Rows that are deleted: those from `from` to `to`, both included, in segments of lower numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deletion {
    pub(crate) number: u64,
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) targets: Vec<Target>,
}

/// Series of a measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) space: String,
    pub(crate) measurement: String,
    /// `None`: all that it had.
    pub(crate) series: Option<Vec<TagList>>,
}

/// Why a deletion could not be read.
#[derive(Debug)]
pub(crate) enum DeletionError {
    File(FileError),
    Damaged(Damaged),
    Newer(u8),
}

impl From<Damaged> for DeletionError {
    fn from(damaged: Damaged) -> Self {
        Self::Damaged(damaged)
    }
}

impl From<FileError> for DeletionError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl Deletion {
    /// Notes it: from then on it holds, whatever happens.
    pub(crate) fn write(&self, files: &Files) -> Result<(), FileError> {
        files.create_dir_durably(&files.deleted_dir())?;
        let path = files.deletion(self.number);
        let bytes = self.to_bytes();
        if bytes.len() as u64 > MAX_BYTES {
            let source =
                Error::new(ErrorKind::InvalidInput, "too many series in one statement: delete fewer");
            return Err(FileError { step: "note a deletion in", path, source });
        }
        files.write_whole(&path, &bytes)
    }

    pub(crate) fn read(files: &Files, path: &Path) -> Result<Self, DeletionError> {
        let file = files.disk().open(path).map_err(FileError::at("open", path))?;
        let length = file.len().map_err(FileError::at("read", path))?;
        if length > MAX_BYTES {
            return Err(Damaged("a deletion that is too long").into());
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, 0).map_err(FileError::at("read", path))?;
        Self::parse(&bytes)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.number);
        put_zigzag(&mut out, self.from);
        put_zigzag(&mut out, self.to);
        put_varint(&mut out, self.targets.len() as u64);
        for target in &self.targets {
            put_bytes(&mut out, target.space.as_bytes());
            put_bytes(&mut out, target.measurement.as_bytes());
            out.push(u8::from(target.series.is_some()));
            put_varint(&mut out, target.series.as_ref().map_or(0, |series| series.len() as u64));
            for tags in target.series.iter().flatten() {
                put_varint(&mut out, tags.len() as u64);
                for (key, value) in tags {
                    put_bytes(&mut out, key.as_bytes());
                    put_bytes(&mut out, value.as_bytes());
                }
            }
        }
        Self::sealed(&out)
    }

    /// A payload with its header.
    pub(crate) fn sealed(payload: &[u8]) -> Vec<u8> {
        let checksum = crc32fast::hash(payload).to_le_bytes();
        [&MAGIC[..], &[VERSION], &checksum, payload].concat()
    }

    /// The reverse of [`Deletion::to_bytes`].
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, DeletionError> {
        let mut reader = Reader::new(bytes);
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(Damaged("not a deletion").into());
        }
        match reader.u8()? {
            0 => return Err(Damaged("not a deletion").into()),
            version if version > VERSION => return Err(DeletionError::Newer(version)),
            _ => {}
        }
        if reader.u32()? != crc32fast::hash(reader.rest()) {
            return Err(Damaged("a deletion whose checksum differs").into());
        }
        let (number, from, to) = (reader.varint()?, reader.zigzag()?, reader.zigzag()?);
        let targets = (0..reader.count()?).map(|_| target(&mut reader)).collect::<Result<_, _>>()?;
        if !reader.is_empty() {
            return Err(Damaged("a deletion with more than it should have").into());
        }
        Ok(Self { number, from, to, targets })
    }
}

fn target(reader: &mut Reader<'_>) -> Result<Target, Damaged> {
    let (space, measurement) = (reader.text()?.to_owned(), reader.text()?.to_owned());
    let some = reader.u8()? != 0;
    let series = (0..reader.count()?).map(|_| tags(reader)).collect::<Result<Vec<_>, _>>()?;
    Ok(Target { space, measurement, series: some.then_some(series) })
}

fn tags(reader: &mut Reader<'_>) -> Result<TagList, Damaged> {
    (0..reader.count()?).map(|_| Ok((reader.text()?.into(), reader.text()?.into()))).collect()
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_deletion_is_read_back_and_damage_is_seen() {
        let series = Some(vec![vec![("vm".into(), "a".into())], Vec::new()]);
        let targets = vec![
            Target { space: "uni".into(), measurement: "m".into(), series },
            Target { space: "uni\u{1}week".into(), measurement: "n".into(), series: None },
        ];
        let deletion = Deletion { number: 9, from: i64::MIN, to: 77, targets };
        let bytes = deletion.to_bytes();
        assert_eq!(Deletion::parse(&bytes).ok(), Some(deletion));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Deletion::parse(&bad).is_err() && Deletion::parse(&bytes[..at]).is_err(), "byte {at}");
        }
    }
}
