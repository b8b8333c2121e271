//! The VMs' directories `<state>/vms/<id>`, which stand there wherever the records are kept.
//!
//! Owns their making, listing and removal, and the reading of the `state.json` in one. Never writes a record.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Damaged, MAX_RECORD_BYTES, Record, StoreError};
use crate::atomic;
use crate::id::VmId;
use crate::paths::STATE_FILE;

/// What a damaged record's file is renamed to.
pub(super) const DAMAGED_FILE: &str = "state.json.damaged";

/// Says in a VM's directory that its record is in the database, for whoever looks for files.
const ELSEWHERE_FILE: &str = "record-is-in-vms.db";

/// `<state>/vms`.
#[derive(Clone, Debug)]
pub(super) struct VmsDir {
    path: PathBuf,
}

/// What is in it.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// VM directories, in order.
    pub(super) ids: Vec<VmId>,
    /// Directories that hold a record, but have no id for a name.
    pub(super) strangers: Vec<Damaged>,
}

/// Why a directory gives no record.
#[derive(Debug)]
pub(super) enum NoRecord {
    /// It holds none.
    Absent,
    /// The file system does not give it.
    Unreadable(io::Error),
    /// It is not what it should be.
    Damaged(String),
}

impl VmsDir {
    /// `vms` below `state_dir`, made if need be and closed to others: records hold what guests are told.
    ///
    /// # Errors
    /// It cannot be made, or belongs to somebody else.
    pub(super) fn open(state_dir: &Path) -> Result<Self, StoreError> {
        let path = state_dir.join("vms");
        match atomic::private_dir(&path).and_then(|()| close_to_others(&path, 0o700)) {
            Ok(()) => Ok(Self { path }),
            Err(source) => Err(StoreError { what: "make the private directory", path, source }),
        }
    }

    /// The directory itself.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of one VM.
    pub(super) fn of(&self, id: VmId) -> PathBuf {
        self.path.join(id.to_string())
    }

    /// Makes the directory of one VM, durably.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn make(&self, id: VmId) -> io::Result<PathBuf> {
        let dir = self.of(id);
        if !dir.exists() {
            atomic::private_dir(&dir)?;
            self.sync()?;
        }
        Ok(dir)
    }

    /// The same for a VM whose record is in the database, and says so in it.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn make_without_record(&self, id: VmId) -> io::Result<()> {
        let mark = self.make(id)?.join(ELSEWHERE_FILE);
        if mark.exists() { Ok(()) } else { File::create(mark).map(drop) }
    }

    /// Removes the files of records in the directory of one VM, durably. What is gone already is no error.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn remove_records(&self, id: VmId) -> io::Result<()> {
        let dir = self.of(id);
        for name in [STATE_FILE, DAMAGED_FILE] {
            gone_is_fine(std::fs::remove_file(dir.join(name)))?;
        }
        gone_is_fine(File::open(&dir).and_then(|dir| dir.sync_all()))
    }

    /// Removes the directory of one VM with all that is in it, durably. One that is gone already is no error.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn remove(&self, id: VmId) -> io::Result<()> {
        gone_is_fine(std::fs::remove_dir_all(self.of(id))).and_then(|()| self.sync())
    }

    /// Makes durable which directories there are.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// What there is.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub(super) fn list(&self) -> Result<Listing, StoreError> {
        let failed = |source| StoreError { what: "list", path: self.path.clone(), source };
        let mut listing = Listing::default();
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            match entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                Some(id) => listing.ids.push(id),
                None => listing.strangers.extend(stranger(&entry.path().join(STATE_FILE))),
            }
        }
        listing.ids.sort_unstable();
        listing.strangers.sort_by(|a, b| a.place.cmp(&b.place));
        Ok(listing)
    }

    /// Reads the record in the directory of VM `id`.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn read_record(&self, id: VmId) -> Result<Record, NoRecord> {
        let text =
            atomic::read(&self.of(id).join(STATE_FILE), MAX_RECORD_BYTES).map_err(|error| {
                match error.kind() {
                    io::ErrorKind::NotFound => NoRecord::Absent,
                    io::ErrorKind::FileTooLarge => NoRecord::Damaged(error.to_string()),
                    _ => NoRecord::Unreadable(error),
                }
            })?;
        let record: Record =
            serde_json::from_slice(&text).map_err(|error| NoRecord::Damaged(error.to_string()))?;
        if record.id == id {
            Ok(record)
        } else {
            Err(NoRecord::Damaged(format!("it is the record of VM {}", record.id)))
        }
    }

    /// Whether the record of VM `id` is known to be in the database.
    pub(super) fn is_without_record(&self, id: VmId) -> bool {
        self.of(id).join(ELSEWHERE_FILE).exists()
    }

    /// Whether the directory of VM `id` holds a record, readable or not.
    pub(super) fn holds_record(&self, id: VmId) -> bool {
        let dir = self.of(id);
        [STATE_FILE, DAMAGED_FILE].iter().any(|name| dir.join(name).symlink_metadata().is_ok())
    }
}

fn stranger(record: &Path) -> Option<Damaged> {
    let fault = "the directory's name is no VM id (twelve digits 0-9, a-f); it is left as it is".to_owned();
    record.exists().then(|| Damaged { place: record.display().to_string(), set_aside: None, fault })
}

/// Sets the mode of `path`, if others than the owner may do anything with it.
pub(super) fn close_to_others(path: &Path, mode: u32) -> io::Result<()> {
    let open = path.metadata()?.permissions().mode() & 0o077 != 0;
    if open { std::fs::set_permissions(path, Permissions::from_mode(mode)) } else { Ok(()) }
}

/// The outcome of a removal, where what is gone already is as good as removed.
pub(super) fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
