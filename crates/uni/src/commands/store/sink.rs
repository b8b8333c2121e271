//! Where an export goes: stdout, a pipe or a device, or a file that has its name only when it is whole.
//!
//! Owns the file, and its packing where its name ends in `.gz`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::manifest;
use crate::output;

/// Bytes written at once.
const BUFFER_BYTES: usize = 256 << 10;

/// A place for bytes.
pub(super) struct Sink {
    path: PathBuf,
    /// Its name until it is whole; `None` for stdout, pipes and devices.
    part: Option<PathBuf>,
    out: Out,
    bytes: u64,
}

enum Out {
    Stdout,
    Plain(BufWriter<File>),
    Packed(GzEncoder<BufWriter<File>>),
}

impl Sink {
    /// Opens the place; `-` is stdout.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let (path, at) = (path.to_path_buf(), || format!("make {}", path.display()));
        if path == Path::new("-") {
            return Ok(Self { path, part: None, out: Out::Stdout, bytes: 0 });
        }
        let is_special = std::fs::metadata(&path).is_ok_and(|found| !found.is_file());
        let (part, file) = if is_special {
            (None, OpenOptions::new().write(true).open(&path).with_context(at)?)
        } else {
            let part = path.with_added_extension("part");
            let file = manifest::create(&part).with_context(|| format!("make {}", part.display()))?;
            (Some(part), file)
        };
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let out = match path.extension().is_some_and(|extension| extension == "gz") {
            true => Out::Packed(GzEncoder::new(file, Compression::default())),
            false => Out::Plain(file),
        };
        Ok(Self { path, part, out, bytes: 0 })
    }

    /// Whether it is stdout, where nothing else may be printed.
    pub(super) const fn is_stdout(&self) -> bool {
        matches!(self.out, Out::Stdout)
    }

    /// Bytes taken so far, before they are packed.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.bytes += bytes.len() as u64;
        let written = match &mut self.out {
            Out::Stdout => return output::bytes(bytes),
            Out::Plain(file) => file.write_all(bytes),
            Out::Packed(file) => file.write_all(bytes),
        };
        written.with_context(|| format!("write {}", self.path.display()))
    }

    /// All is there.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        let out = std::mem::replace(&mut self.out, Out::Stdout);
        let file = match out {
            Out::Stdout => return Ok(()),
            Out::Plain(file) => Ok(file),
            Out::Packed(file) => file.finish(),
        };
        let file = file.and_then(|file| file.into_inner().map_err(io::IntoInnerError::into_error));
        let written = file.and_then(|file| match self.part.take() {
            // a pipe cannot be synced
            None => Ok(()),
            Some(part) => file.sync_all().and_then(|()| std::fs::rename(part, &self.path)),
        });
        written.with_context(|| format!("write {}", self.path.display()))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            // it was not finished: half an export is none
            let _ = std::fs::remove_file(part);
        }
    }
}
