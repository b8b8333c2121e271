//! `uni store restore`: a store from a backup, for a daemon that does not run.
//!
//! Owns the new folder, and the place of the old one. Never deletes a store: one that is in the way is renamed.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;
use uni_store::{Snapshot, Store};
use uni_wire::Timestamp;

use super::manifest::{self, Entry, Manifest};
use crate::args::{Format, RestoreArgs};
use crate::moment;
use crate::output;
use crate::render::bytes as sized;

/// The lock that a running daemon holds in its state directory.
const DAEMON_LOCK: &str = "unid.lock";

/// What was done, for programs.
#[derive(Debug, Serialize)]
struct Done<'a> {
    store: &'a Path,
    made_ns: i64,
    files: usize,
    bytes: u64,
    points_in_log: u64,
    /// Where the store is now that was there before.
    set_aside: Option<PathBuf>,
}

/// Restores.
///
/// # Errors
/// What is in the way, or failed; then the store that was there before is as it was.
pub(super) fn run(args: &RestoreArgs, format: Format) -> anyhow::Result<()> {
    let manifest = Manifest::load(&args.dir)?;
    let manifest = manifest.with_context(|| format!("there is no whole backup in {}", args.dir.display()))?;
    super::backup::make_dir(&args.state_dir)?;
    let _lock = lock(&args.state_dir)?;
    let store = super::store_dir(&args.state_dir);
    let is_in_the_way = holds_points(&store)?;
    ensure!(
        args.force || !is_in_the_way,
        "{} holds points already; with --force it is renamed, and the backup takes its place",
        store.display()
    );
    let new = args.state_dir.join("store.restoring");
    remove_old_attempt(&new)?;
    let bar = super::bytes_bar(manifest.bytes(), "restore");
    for folder in ["data", "wal"].into_iter().chain(manifest.folders.iter().map(String::as_str)) {
        super::backup::make_dir(&new.join(folder))?;
    }
    for (path, entry) in &manifest.files {
        copy(&entry.place(&args.dir, path), &new.join(path), entry)?;
        bar.inc(entry.bytes);
    }
    bar.finish_and_clear();
    // What a daemon would find: nothing may be missing or set aside.
    let points_in_log = look(&new)?;
    sync_folders(&new)?;
    let set_aside = put_in_place(&new, &store, &args.state_dir)?;
    let (files, bytes) = (manifest.files.len(), manifest.bytes());
    let done = Done { store: &store, made_ns: manifest.made_ns, files, bytes, points_in_log, set_aside };
    match format {
        Format::Json => output::json(&done),
        Format::Table => output::text(&format!(
            "{}: {} files, {}, as of {}{}\n",
            store.display(),
            done.files,
            sized(done.bytes),
            moment::show(done.made_ns),
            done.set_aside
                .as_ref()
                .map_or_else(String::new, |aside| format!("; the store before is {}", aside.display())),
        )),
    }
}

/// Holds off a daemon that would start, and finds one that runs.
fn lock(state_dir: &Path) -> anyhow::Result<File> {
    let path = state_dir.join(DAEMON_LOCK);
    let file = manifest::create(&path).with_context(|| format!("write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("a daemon runs on {}; stop it first (`uni daemon stop`)", state_dir.display())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}

/// Whether there is a store with anything in it; what a daemon makes at its first start is nothing.
fn holds_points(store: &Path) -> anyhow::Result<bool> {
    if !store.exists() {
        return Ok(false);
    }
    let has_points = |file: &uni_store::SnapshotFile| file.path != "format" && file.bytes > 8;
    match Snapshot::of_folder(store) {
        Ok(snapshot) => Ok(snapshot.files().iter().any(has_points)),
        Err(error @ uni_store::OpenError::InUse { .. }) => Err(error.into()),
        // whatever it is, it is not overwritten
        Err(_) => Ok(store.read_dir().with_context(|| format!("list {}", store.display()))?.next().is_some()),
    }
}

/// The folder of a restoration that was cut short holds copies, and nothing else.
fn remove_old_attempt(new: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(new) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove what an earlier restore left in {}", new.display()))
        }
        _ => Ok(()),
    }
}

fn copy(from: &Path, to: &Path, entry: &Entry) -> anyhow::Result<()> {
    if let Some(folder) = to.parent() {
        super::backup::make_dir(folder)?;
    }
    let at = || format!("write {}", to.display());
    let mut out = manifest::create(to).with_context(at)?;
    let read = manifest::read_whole(from, |piece| out.write_all(piece));
    let read = read.with_context(|| format!("copy {}", from.display()))?;
    ensure!(
        read == (entry.bytes, entry.crc32),
        "{} is damaged: it has {} bytes and checksum {:08x}, the manifest says {} and {:08x}",
        from.display(),
        read.0,
        read.1,
        entry.bytes,
        entry.crc32
    );
    // so that the next backup knows it again
    out.set_modified(UNIX_EPOCH + Duration::from_nanos(entry.modified_ns)).with_context(at)?;
    out.sync_all().with_context(at)
}

/// Opens the new store without changing it; the points of its log.
fn look(new: &Path) -> anyhow::Result<u64> {
    let store = Store::open_read_only(new, Timestamp(super::now_ns())).context("open the restored store")?;
    let refused = store.recovery().points_refused;
    ensure!(refused == 0, "{refused} points of the log belong to no database of the backup");
    for aside in &store.recovery().set_aside {
        // the backup was made of a damaged store, and said so then
        crate::complain(&format!("uni: store restore: damaged in the backup already: {}", aside.why));
    }
    Ok(store.recovery().points_replayed)
}

fn sync_folders(root: &Path) -> anyhow::Result<()> {
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for found in folder.read_dir().with_context(|| format!("list {}", folder.display()))? {
            let found = found?;
            if found.file_type()?.is_dir() {
                folders.push(found.path());
            }
        }
        super::sync_dir(&folder)?;
    }
    Ok(())
}

/// Renames the old store, if there is one, and then the new one; says what the old one is called now.
fn put_in_place(new: &Path, store: &Path, state_dir: &Path) -> anyhow::Result<Option<PathBuf>> {
    let mut set_aside = None;
    if store.exists() {
        let aside = state_dir.join(format!("store.before-restore-{}", super::now_ns()));
        std::fs::rename(store, &aside).with_context(|| format!("rename {}", store.display()))?;
        set_aside = Some(aside);
    }
    if let Err(error) = std::fs::rename(new, store) {
        if let Some(aside) = &set_aside {
            std::fs::rename(aside, store)
                .with_context(|| format!("give {} its name back", aside.display()))?;
        }
        return Err(error).with_context(|| format!("rename {}", new.display()));
    }
    super::sync_dir(state_dir)?;
    Ok(set_aside)
}
