//! `uni store backup`: copies what is new of a store's files into a directory.
//!
//! Owns the order of steps on which an interrupted run costs nothing: files, then the manifest, then what the manifest
//! names no longer. Never changes the store.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use indicatif::ProgressBar;
use serde::Serialize;
use uni_store::SnapshotFile;

use super::files::Files;
use super::manifest::{self, Entry, Manifest};
use crate::args::{BackupArgs, Format};
use crate::client::Client;
use crate::moment;
use crate::output;
use crate::render::bytes as sized;

/// The lock of a backup's directory.
const LOCK: &str = "lock";
/// A file whose copy is not whole.
const PART: &str = "part";

/// What was done, for programs.
#[derive(Debug, Serialize)]
struct Done<'a> {
    dir: &'a Path,
    made_ns: i64,
    files: usize,
    bytes: u64,
    copied_files: u64,
    copied_bytes: u64,
    /// Files that were damaged in the store already.
    damaged: Vec<String>,
}

/// Makes a backup.
///
/// # Errors
/// What failed; then the backup that was there before is as it was. Also, after a whole backup, that the store is
/// damaged.
pub(super) fn run(client: &mut Client, args: &BackupArgs, format: Format) -> anyhow::Result<()> {
    let dir = &args.dir;
    make_dir(dir)?;
    let _lock = lock(dir)?;
    let before = Manifest::load(dir)?;
    if before.is_none() {
        refuse_foreign(dir)?;
    }
    let made_ns = super::now_ns();
    let mut files = Files::open(client, args.state_dir.as_deref(), false)?;
    let list = files.list().to_vec();
    let bar = super::bytes_bar(list.iter().map(|file| file.bytes).sum(), "backup");
    let (mut entries, mut damaged) = (BTreeMap::new(), Vec::new());
    let (mut copied_files, mut copied_bytes) = (0, 0);
    for (n, file) in list.iter().enumerate() {
        ensure!(
            uni_store::is_inside(&file.path),
            "the daemon names a file outside its store: {:?}",
            file.path
        );
        let entry = match kept(dir, before.as_ref(), file)? {
            Some(entry) => {
                bar.inc(file.bytes);
                entry
            }
            None => {
                (copied_files, copied_bytes) = (copied_files + 1, copied_bytes + file.bytes);
                let entry = copy(&mut files, n, file, dir, &bar)?;
                if files.check(n)?.is_damaged() {
                    damaged.push(file.path.clone());
                }
                entry
            }
        };
        entries.insert(file.path.clone(), entry);
    }
    let folders = files.folders().iter().cloned().collect();
    let manifest = Manifest::new(made_ns, folders, entries)?;
    sync_dirs(dir, &manifest)?;
    manifest.save(dir)?;
    clear(dir, &manifest)?;
    bar.finish_and_clear();
    let (files, bytes) = (manifest.files.len(), manifest.bytes());
    show(&Done { dir, made_ns, files, bytes, copied_files, copied_bytes, damaged }, format)
}

fn show(done: &Done<'_>, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => output::json(done)?,
        Format::Table => output::text(&format!(
            "{}: {} files, {}; copied {} files, {}; has what was stored before {}\n",
            crate::text::one_line(&done.dir.to_string_lossy()),
            done.files,
            sized(done.bytes),
            done.copied_files,
            sized(done.copied_bytes),
            moment::show(done.made_ns),
        ))?,
    }
    ensure!(
        done.damaged.is_empty(),
        "the backup is whole, but the store is damaged; `uni store check` says where: {}",
        done.damaged.join(", ")
    );
    Ok(())
}

pub(super) fn make_dir(dir: &Path) -> anyhow::Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("make {}", dir.display()))
}

fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join(LOCK);
    let file = manifest::create(&path).with_context(|| format!("write in {}", dir.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("another backup into {} is at work", dir.display()),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}

/// A directory with other things in it is not taken for one's own.
fn refuse_foreign(dir: &Path) -> anyhow::Result<()> {
    let ours = [LOCK, manifest::FILES, "manifest.json.part"];
    for found in std::fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let name = found?.file_name();
        ensure!(
            ours.iter().any(|ours| name == *ours),
            "{} holds other files ({}), and no backup; name an empty or a new directory",
            dir.display(),
            name.display()
        );
    }
    Ok(())
}

/// The copy of a file that an earlier run has made.
fn kept(dir: &Path, before: Option<&Manifest>, file: &SnapshotFile) -> anyhow::Result<Option<Entry>> {
    let same = |entry: &&Entry| (entry.bytes, entry.modified_ns) == (file.bytes, file.modified_ns);
    if let Some(entry) = before.and_then(|before| before.files.get(&file.path)).filter(same)
        && std::fs::metadata(entry.place(dir, &file.path)).is_ok_and(|found| found.len() == file.bytes)
    {
        return Ok(Some(entry.clone()));
    }
    left_over(dir, file)
}

/// The copy of a file that a run made which was cut short: the checksum in its name is that of its bytes.
fn left_over(dir: &Path, file: &SnapshotFile) -> anyhow::Result<Option<Entry>> {
    let path = dir.join(manifest::FILES).join(&file.path);
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let Ok(found) = std::fs::read_dir(folder) else { return Ok(None) };
    for found in found {
        let found = found.with_context(|| format!("list {}", folder.display()))?;
        let (there, metadata) = (found.file_name(), found.metadata());
        let crc32 = there.to_str().zip(name.to_str()).and_then(|(there, name)| {
            u32::from_str_radix(there.strip_prefix(name)?.strip_prefix('-')?, 16).ok()
        });
        let (Some(crc32), Ok(metadata)) = (crc32, metadata) else { continue };
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        if metadata.len() == file.bytes
            && modified.as_nanos() == u128::from(file.modified_ns)
            && manifest::read_whole(&found.path(), |_| Ok(())).is_ok_and(|read| read == (file.bytes, crc32))
        {
            return Ok(Some(Entry { bytes: file.bytes, modified_ns: file.modified_ns, crc32 }));
        }
    }
    Ok(None)
}

/// Copies a file, and reads the copy.
fn copy(
    files: &mut Files<'_>,
    n: usize,
    file: &SnapshotFile,
    dir: &Path,
    bar: &ProgressBar,
) -> anyhow::Result<Entry> {
    let part = dir.join(manifest::FILES).join(format!("{}.{PART}", file.path));
    if let Some(folder) = part.parent() {
        make_dir(folder)?;
    }
    let at = || format!("write {}", part.display());
    let mut out = manifest::create(&part).with_context(at)?;
    let (mut hasher, mut offset) = (crc32fast::Hasher::new(), 0);
    while offset < file.bytes {
        let piece = files.read(n, offset)?;
        ensure!(!piece.is_empty(), "{} became shorter while it was copied", file.path);
        hasher.update(&piece);
        out.write_all(&piece).with_context(at)?;
        offset += piece.len() as u64;
        bar.inc(piece.len() as u64);
    }
    out.set_modified(UNIX_EPOCH + Duration::from_nanos(file.modified_ns)).with_context(at)?;
    out.sync_all().with_context(at)?;
    let entry = Entry { bytes: offset, modified_ns: file.modified_ns, crc32: hasher.finalize() };
    let copy = manifest::read_whole(&part, |_| Ok(())).with_context(|| format!("read {}", part.display()))?;
    ensure!(copy == (entry.bytes, entry.crc32), "{} does not read back as it was written", part.display());
    std::fs::rename(&part, entry.place(dir, &file.path)).with_context(at)?;
    Ok(entry)
}

fn sync_dirs(dir: &Path, manifest: &Manifest) -> anyhow::Result<()> {
    let root = dir.join(manifest::FILES);
    let mut folders: BTreeSet<PathBuf> = BTreeSet::from([dir.to_path_buf()]);
    for (path, entry) in &manifest.files {
        let place = entry.place(dir, path);
        folders.extend(
            place.ancestors().skip(1).take_while(|folder| folder.starts_with(&root)).map(Path::to_path_buf),
        );
    }
    folders.iter().try_for_each(|folder| super::sync_dir(folder))
}

/// Removes copies that the manifest does not name any more.
fn clear(dir: &Path, manifest: &Manifest) -> anyhow::Result<()> {
    let named: BTreeSet<PathBuf> =
        manifest.files.iter().map(|(path, entry)| entry.place(dir, path)).collect();
    let mut folders = vec![dir.join(manifest::FILES)];
    let mut seen = Vec::new();
    while let Some(folder) = folders.pop() {
        let listed = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            listed => listed.with_context(|| format!("list {}", folder.display()))?,
        };
        for found in listed {
            let found = found?;
            let path = found.path();
            if found.file_type()?.is_dir() {
                folders.push(path);
            } else if !named.contains(&path) {
                std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
            }
        }
        seen.push(folder);
    }
    // Deepest last; one that is not empty stays.
    seen.iter().rev().for_each(|folder| drop(std::fs::remove_dir(folder)));
    Ok(())
}
