//! Writing a small file so that a reader, or a crash at any moment, sees either the old one or the new one.
//!
//! Owns the order: temporary file, contents, fsync, rename, fsync of the directory. Knows no format. Files
//! that mean nothing after a reboot are written without the fsyncs, which cost milliseconds at a VM's start.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Writes `contents` durably to `dir/name`, readable by the owner only.
///
/// # Errors
/// What the file system says; what was there before then stays.
pub fn write(dir: &Path, name: &str, contents: &[u8]) -> io::Result<()> {
    replace(dir, name, contents, File::sync_all)?;
    File::open(dir)?.sync_all()
}

/// The same without waiting for the disk: whole for every reader, but perhaps gone after a power cut.
pub(crate) fn write_for_this_boot(dir: &Path, name: &str, contents: &[u8]) -> io::Result<()> {
    replace(dir, name, contents, |_| Ok(()))
}

fn replace(dir: &Path, name: &str, contents: &[u8], sync: fn(&File) -> io::Result<()>) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.tmp"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    let written = file.write_all(contents).and_then(|()| sync(&file));
    if let Err(error) = written {
        // Leaves nothing half-written behind; that the removal may fail too changes nothing.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    std::fs::rename(&temporary, dir.join(name))
}

/// Makes `dir` and its parents, closed to other users. An existing directory is left as it is.
pub(crate) fn private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Reads at most `limit` bytes of a small file.
///
/// # Errors
/// What the file system says. A longer file is an error too: it is not what we wrote.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut contents)?;
    if contents.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "the file is longer than any that is written here",
        ));
    }
    Ok(contents)
}
