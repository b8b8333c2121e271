//! What a backup is made of: the file `manifest.json` of its directory.
//!
//! Owns the manifest's form and where a backup's files are. A backup is what its manifest names, whole; other files in the
//! directory are left over from a run that was cut short.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

/// The version that is written, and the newest that is read.
const VERSION: u32 = 1;
/// The manifest's name in the backup's directory.
pub(super) const NAME: &str = "manifest.json";
/// Where the files are, in the backup's directory.
pub(super) const FILES: &str = "files";
/// Read at once.
const PIECE_BYTES: usize = 1 << 20;

/// A backup.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    version: u32,
    /// When the backup was made, in nanoseconds since the Unix epoch: it has what was acknowledged before.
    pub(super) made_ns: i64,
    /// By path in the store, empty ones too.
    pub(super) folders: BTreeSet<String>,
    /// By path in the store.
    pub(super) files: BTreeMap<String, Entry>,
    /// Of `[made_ns, folders, files]`, as compact JSON: CRC-32 as in zlib.
    crc32: u32,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Its size.
    pub(super) bytes: u64,
    /// When the store wrote it, in nanoseconds since the Unix epoch.
    pub(super) modified_ns: u64,
    /// CRC-32 as in zlib.
    pub(super) crc32: u32,
}

impl Entry {
    /// Where the file is in the backup's directory. The checksum in the name keeps a later file of the same name apart.
    pub(super) fn place(&self, dir: &Path, path: &str) -> PathBuf {
        dir.join(FILES).join(format!("{path}-{:08x}", self.crc32))
    }
}

impl Manifest {
    /// A backup of these files.
    pub(super) fn new(
        made_ns: i64,
        folders: BTreeSet<String>,
        files: BTreeMap<String, Entry>,
    ) -> anyhow::Result<Self> {
        let mut manifest = Self { version: VERSION, made_ns, folders, files, crc32: 0 };
        manifest.crc32 = manifest.checksum()?;
        Ok(manifest)
    }

    fn checksum(&self) -> anyhow::Result<u32> {
        Ok(crc32fast::hash(&serde_json::to_vec(&(self.made_ns, &self.folders, &self.files))?))
    }

    /// The manifest of the backup in `dir`; `None` if there is none.
    ///
    /// # Errors
    /// When it is of a later version, damaged, or cannot be read.
    pub(super) fn load(dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = dir.join(NAME);
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("read {}", path.display()))?,
        };
        let damaged = || format!("{} is damaged, or no manifest of a backup", path.display());
        let value: serde_json::Value = serde_json::from_slice(&text).with_context(damaged)?;
        if let Some(version) = value["version"].as_u64().filter(|version| *version > VERSION.into()) {
            anyhow::bail!(
                "{} is of version {version}; this program reads {VERSION}: use a newer one",
                path.display()
            );
        }
        let manifest: Self = serde_json::from_value(value).with_context(damaged)?;
        ensure!(manifest.crc32 == manifest.checksum()?, "{}: its checksum differs", damaged());
        for path in manifest.folders.iter().chain(manifest.files.keys()) {
            ensure!(uni_store::is_inside(path), "{}: it names a file outside the store: {path:?}", damaged());
        }
        Ok(Some(manifest))
    }

    /// Makes this the backup in `dir`, in one step.
    pub(super) fn save(&self, dir: &Path) -> anyhow::Result<()> {
        let (path, part) = (dir.join(NAME), dir.join(format!("{NAME}.part")));
        let written = create(&part).and_then(|mut file| {
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            std::fs::rename(&part, &path)
        });
        written.with_context(|| format!("write {}", path.display()))?;
        super::sync_dir(dir)
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.values().map(|entry| entry.bytes).sum()
    }
}

/// Makes a file that its owner alone may read: points may say more than the owner wants to tell.
pub(super) fn create(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Reads a file whole and gives its pieces; says its size and checksum.
pub(super) fn read_whole(
    path: &Path,
    mut each: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<(u64, u32)> {
    let mut file = File::open(path)?;
    let (mut hasher, mut bytes, mut piece) = (crc32fast::Hasher::new(), 0, vec![0; PIECE_BYTES]);
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok((bytes, hasher.finalize()));
        }
        hasher.update(&piece[..read]);
        bytes += read as u64;
        each(&piece[..read])?;
    }
}
