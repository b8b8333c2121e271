//! The only place that names files and folders of a store, and the helpers that make them last.
//!
//! Owns names, escaping, the lock and the order of fsync and rename. Never owns contents, but for the small
//! text file `format`.

use crate::bytes::Damaged;
use crate::disk::{Disk, DiskFile, Lock};
use crate::error::{FileError, OpenError};
use crate::registry::{DEFAULT_POLICY, Registry, split_space};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A process that forks while the store is open shares the lock with its child until the child runs its program:
/// for some milliseconds after the store was closed, the lock may look taken.
const LOCK_ATTEMPTS: u32 = 20;
/// Between two of them.
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// Most bytes of a database name: escaped it may grow threefold and must stay below 255, a file name's limit.
pub(crate) const MAX_DATABASE_NAME: usize = 80;
/// Most files in the folder `damaged` before copies are no longer kept: crashes must not fill the disk.
const MAX_DAMAGED: usize = 100;
/// The file `format` is a few lines.
const MAX_FORMAT_BYTES: u64 = 4096;
/// The version of the folder's layout.
const FORMAT_VERSION: u32 = 2;
/// The version of a folder without the file `databases` and without deletions.
const PLAIN_FORMAT: u32 = 1;
/// The file `databases` names a thousand spaces at most.
const MAX_REGISTRY_BYTES: u64 = 4 << 20;
/// Before the name of a policy's folder, so that it is no number.
const POLICY_PREFIX: &str = "rp-";

/// The folder of a store.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    disk: Arc<dyn Disk>,
    root: PathBuf,
}

impl Files {
    /// Makes the folder where it is missing.
    pub(crate) fn create(disk: Arc<dyn Disk>, root: &Path) -> Result<Self, FileError> {
        let files = Self { disk, root: root.to_path_buf() };
        for dir in [root, &files.wal_dir(), &files.data_dir()] {
            files.create_dir_durably(dir)?;
        }
        Ok(files)
    }

    /// A store that is there already.
    pub(crate) fn existing(disk: Arc<dyn Disk>, root: &Path) -> Result<Self, FileError> {
        if !disk.is_dir(&root.join("data")) {
            let source = std::io::Error::new(ErrorKind::NotFound, "there is no store in this folder");
            return Err(FileError { step: "read the store", path: root.into(), source });
        }
        Ok(Self { disk, root: root.to_path_buf() })
    }

    /// The partition length that the folder names, or the usual one where that cannot be read.
    pub(crate) fn known_partition_seconds(&self) -> u64 {
        let path = self.root.join("format");
        let known =
            self.read_text(&path, MAX_FORMAT_BYTES).ok().and_then(|text| parse_format(&path, &text).ok());
        known.unwrap_or_else(|| crate::Options::default().partition_seconds)
    }

    /// The same kind of folders in a folder of this one; nothing is made.
    pub(crate) fn below(&self, name: &str) -> Self {
        Self { disk: Arc::clone(&self.disk), root: self.root.join(name) }
    }

    /// Another store on the same disk.
    pub(crate) fn create_in(other: &Self, root: &Path) -> Result<Self, FileError> {
        Self::create(Arc::clone(&other.disk), root)
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn wal_dir(&self) -> PathBuf {
        self.root.join("wal")
    }

    pub(crate) fn wal(&self, number: u64) -> PathBuf {
        self.wal_dir().join(format!("{number:016x}.wal"))
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.root.join("data")
    }

    /// The folder of a space: that of the database, or for another policy than the first one in it.
    pub(crate) fn space_dir(&self, space: &str) -> PathBuf {
        let (database, policy) = split_space(space);
        let dir = self.data_dir().join(escape(database));
        if policy == DEFAULT_POLICY { dir } else { dir.join(format!("{POLICY_PREFIX}{}", escape(policy))) }
    }

    pub(crate) fn partition_dir(&self, database: &str, start_s: i64) -> PathBuf {
        self.space_dir(database).join(start_s.to_string())
    }

    pub(crate) fn segment(&self, database: &str, start_s: i64, number: u64) -> PathBuf {
        self.numbered(&self.partition_dir(database, start_s), number, "seg")
    }

    /// A file by its number.
    pub(crate) fn numbered(&self, dir: &Path, number: u64, extension: &str) -> PathBuf {
        dir.join(format!("{number:016x}.{extension}"))
    }

    /// Where damaged files are kept for a person to look at.
    fn damaged_dir(&self) -> PathBuf {
        self.root.join("damaged")
    }

    /// Takes the folder for this process; the lock ends with what is returned.
    pub(crate) fn lock(&self) -> Result<Box<dyn Lock>, OpenError> {
        let path = self.root.join("lock");
        for attempt in 1.. {
            match self.disk.lock(&path) {
                Ok(lock) => return Ok(lock),
                Err(error) if error.kind() == ErrorKind::WouldBlock && attempt < LOCK_ATTEMPTS => {
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(source) => return Err(FileError { step: "lock", path, source }.into()),
            }
        }
        Err(OpenError::InUse { dir: self.root.clone() })
    }

    /// The partition length the store was made with; a new store is marked with `wanted_s`.
    pub(crate) fn partition_seconds(&self, wanted_s: u64) -> Result<u64, OpenError> {
        let path = self.root.join("format");
        match self.read_text(&path, MAX_FORMAT_BYTES) {
            Ok(text) => parse_format(&path, &text),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.write_whole(&path, format_text(wanted_s).as_bytes())?;
                Ok(wanted_s)
            }
            Err(source) => Err(FileError { step: "read", path, source }.into()),
        }
    }

    /// Moves a damaged file away, under a name that tells where it was; returns its new place.
    pub(crate) fn set_aside(&self, path: &Path) -> Result<PathBuf, FileError> {
        let target = self.damaged_place(path)?;
        self.disk.rename(path, &target).map_err(FileError::at("move aside", path))?;
        Ok(target)
    }

    /// Keeps a copy of the bytes cut off a file at `offset`; returns where. `None` where enough are kept already.
    pub(crate) fn keep_tail(
        &self,
        path: &Path,
        offset: u64,
        tail: &[u8],
    ) -> Result<Option<PathBuf>, FileError> {
        let target = self.damaged_place(path)?;
        if self.list(&self.damaged_dir())?.len() >= MAX_DAMAGED {
            return Ok(None);
        }
        let mut target = target.into_os_string();
        target.push(format!(".from-{offset}"));
        let target = PathBuf::from(target);
        self.write_whole(&target, tail)?;
        Ok(Some(target))
    }

    /// What is in a folder, sorted by name; nothing where the folder is missing.
    pub(crate) fn list(&self, dir: &Path) -> Result<Vec<PathBuf>, FileError> {
        match self.disk.list(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed.map_err(FileError::at("list", dir)),
        }
    }

    /// Makes a folder that outlives a power cut; one that exists is fine.
    pub(crate) fn create_dir_durably(&self, dir: &Path) -> Result<(), FileError> {
        if self.disk.is_dir(dir) {
            return Ok(());
        }
        // The names of all folders that are made have to be on the disk, each in the one above it.
        let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !self.disk.is_dir(dir)).collect();
        self.disk.create_dir(dir).map_err(FileError::at("create folder", dir))?;
        for made in missing {
            self.sync_dir(made)?;
            if let Some(above) = made.parent().filter(|above| !above.as_os_str().is_empty()) {
                self.sync_dir(above)?;
            }
        }
        Ok(())
    }

    /// Makes new, renamed and removed names in a folder last.
    pub(crate) fn sync_dir(&self, dir: &Path) -> Result<(), FileError> {
        self.disk.sync_dir(dir).map_err(FileError::at("sync folder", dir))
    }

    /// Makes the removal of names last: syncs this folder, or the nearest one above it that is there.
    pub(crate) fn sync_nearest(&self, dir: &Path) -> Result<(), FileError> {
        let there = dir.ancestors().find(|dir| self.disk.is_dir(dir));
        there.map_or(Ok(()), |dir| self.sync_dir(dir))
    }

    /// Gives a file that is wholly written its name: fsync file, rename, fsync folder, in this order, so that
    /// after a power cut there is either the whole file or none under that name.
    pub(crate) fn publish(
        &self,
        file: &dyn DiskFile,
        temporary: &Path,
        path: &Path,
    ) -> Result<(), FileError> {
        file.sync().map_err(FileError::at("sync", temporary))?;
        self.disk.rename(temporary, path).map_err(FileError::at("rename", temporary))?;
        path.parent().map_or(Ok(()), |dir| self.sync_dir(dir))
    }

    /// Removes the files in a folder, but for tiers, which may stay longer; and the folder, if nothing is left.
    pub(crate) fn remove_segments(&self, dir: &Path) -> Result<(), FileError> {
        let (tiers, rest): (Vec<PathBuf>, Vec<PathBuf>) =
            self.list(dir)?.into_iter().partition(|path| crate::tier::parse_path(path).is_some());
        for path in rest {
            self.disk.remove(&path).map_err(FileError::at("remove", &path))?;
        }
        if tiers.is_empty() {
            self.disk.remove_dir(dir).map_err(FileError::at("remove", dir))
        } else {
            Ok(())
        }
    }

    /// Removes a folder if nothing is in it.
    pub(crate) fn remove_if_empty(&self, dir: &Path) {
        // Fails, as it should, while something is in it.
        let _ = self.disk.remove_dir(dir);
    }

    fn registry(&self) -> PathBuf {
        self.root.join("databases")
    }

    /// The databases; `None` where no file names them.
    pub(crate) fn read_registry(&self) -> Result<Option<Result<Registry, Damaged>>, FileError> {
        let path = self.registry();
        match self.read_text(&path, MAX_REGISTRY_BYTES) {
            Ok(text) => Ok(Some(Registry::parse(&text))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                Ok(Some(Err(Damaged("databases that are no text"))))
            }
            Err(source) => Err(FileError { step: "read", path, source }),
        }
    }

    /// Names the databases from now on, whatever happens.
    pub(crate) fn write_registry(&self, registry: &Registry) -> Result<(), FileError> {
        self.write_whole(&self.registry(), registry.to_text().as_bytes())
    }

    /// Sets the damaged file `databases` aside; returns its new place.
    pub(crate) fn set_registry_aside(&self) -> Result<PathBuf, FileError> {
        self.set_aside(&self.registry())
    }

    /// Where deletions are noted.
    pub(crate) fn deleted_dir(&self) -> PathBuf {
        self.root.join("deleted")
    }

    pub(crate) fn deletion(&self, number: u64) -> PathBuf {
        self.deleted_dir().join(format!("{number:016x}.del"))
    }

    /// Marks the folder as one that programs of before must not open: they would show what is deleted.
    pub(crate) fn raise_format(&self, partition_seconds: u64) -> Result<(), FileError> {
        let path = self.root.join("format");
        let text = self.read_text(&path, MAX_FORMAT_BYTES).map_err(FileError::at("read", &path))?;
        let plain = format!("uni-store {PLAIN_FORMAT}\n");
        if !text.starts_with(&plain) {
            return Ok(());
        }
        self.write_whole(&path, format_text(partition_seconds).as_bytes())
    }

    pub(crate) fn write_whole(&self, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
        let temporary = temporary(path);
        let file = self.disk.create(&temporary, false).map_err(FileError::at("create", &temporary))?;
        file.write_all_at(bytes, 0).map_err(FileError::at("write", &temporary))?;
        self.publish(&*file, &temporary, path)
    }

    fn read_text(&self, path: &Path, most: u64) -> std::io::Result<String> {
        let file = self.disk.open(path)?;
        let mut bytes = vec![0; file.len()?.min(most) as usize];
        file.read_exact_at(&mut bytes, 0)?;
        String::from_utf8(bytes).map_err(|error| std::io::Error::new(ErrorKind::InvalidData, error))
    }

    /// The name under which a damaged file is kept.
    pub(crate) fn damaged_place(&self, path: &Path) -> Result<PathBuf, FileError> {
        let dir = self.damaged_dir();
        self.create_dir_durably(&dir)?;
        let inside = path.strip_prefix(&self.root).unwrap_or(path);
        let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
        Ok(dir.join(parts.join("-")))
    }
}

fn format_text(partition_seconds: u64) -> String {
    format!("uni-store {FORMAT_VERSION}\npartition_seconds {partition_seconds}\n")
}

/// The policy whose folder this is; `None` for another one.
pub(crate) fn policy_of_dir(file_name: &str) -> Option<String> {
    unescape(file_name.strip_prefix(POLICY_PREFIX)?)
}

fn parse_format(path: &Path, text: &str) -> Result<u64, OpenError> {
    let not_a_store = |what: &str| OpenError::NotAStore { path: path.to_path_buf(), what: what.to_owned() };
    let mut lines = text.lines();
    let version = lines.next().and_then(|line| line.strip_prefix("uni-store "));
    let version: u32 = version.and_then(|v| v.parse().ok()).ok_or_else(|| not_a_store("no version line"))?;
    if version > FORMAT_VERSION {
        return Err(OpenError::NewerFormat {
            path: path.to_path_buf(),
            found: version,
            known: FORMAT_VERSION,
        });
    }
    let seconds = lines.next().and_then(|line| line.strip_prefix("partition_seconds "));
    let seconds = seconds.and_then(|s| s.parse().ok()).filter(|s| (60..=315_576_000).contains(s));
    seconds.ok_or_else(|| not_a_store("no usable line partition_seconds"))
}

/// Whether a database may have this name.
pub(crate) fn database_name_is_usable(name: &str) -> bool {
    (1..=MAX_DATABASE_NAME).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// A name as a file name: letters, digits, `_` and `-` as they are, every other byte as `%` and two hex digits.
/// So a name can neither leave the folder nor be hidden in it.
pub(crate) fn escape(name: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    name.bytes()
        .map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// The reverse of [`escape`]; `None` for a folder that no database name leads to.
pub(crate) fn unescape(file_name: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = file_name.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    let name = String::from_utf8(bytes).ok()?;
    (database_name_is_usable(&name) && escape(&name) == file_name).then_some(name)
}

/// The number in `0000000000000a1f.wal` and the like.
pub(crate) fn number_of(path: &Path, extension: &str) -> Option<u64> {
    if path.extension()?.to_str()? != extension {
        return None;
    }
    let stem = path.file_stem()?.to_str()?;
    (stem.len() == 16).then(|| u64::from_str_radix(stem, 16).ok()).flatten()
}

/// The name under which a file is written before it gets its own.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

#[cfg(test)]
mod test {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_usable_name_is_one_plain_file_name(name in "\\PC{1,20}") {
            let escaped = escape(&name);
            prop_assert!(escaped.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-%".contains(&b)));
            if database_name_is_usable(&name) {
                prop_assert_eq!(unescape(&escaped), Some(name));
            }
        }
    }

    #[test]
    fn paths_cannot_be_smuggled_in() {
        assert_eq!(escape("../../etc"), "%2E%2E%2F%2E%2E%2Fetc");
        assert!(
            !database_name_is_usable("a\0b") && !database_name_is_usable("") && database_name_is_usable(".")
        );
        assert_eq!(unescape(".."), None);
        assert_eq!(unescape("%2e"), None);
    }

    #[test]
    fn a_format_file_of_the_future_is_refused() {
        let path = Path::new("format");
        assert!(matches!(
            parse_format(path, "uni-store 3\npartition_seconds 60\n"),
            Err(OpenError::NewerFormat { found: 3, known: 2, .. })
        ));
        assert!(matches!(parse_format(path, "uni-store 1\n"), Err(OpenError::NotAStore { .. })));
        assert!(matches!(parse_format(path, "uni-store 1\npartition_seconds 3600\n"), Ok(3600)));
    }
}
