//! Records as files: `<state>/vms/<id>/state.json`, 0600 in directories of 0700.
//!
//! Owns when a file is written, set aside and removed; its shape is [`Record`]'s.

use std::io;
use std::path::Path;

use super::dirs::{DAMAGED_FILE, NoRecord, VmsDir, gone_is_fine};
use super::{Damaged, LoadReport, Record, RecordStore, StoreError};
use crate::atomic;
use crate::id::VmId;
use crate::paths::STATE_FILE;
use crate::shim;

/// The store of `--vm-store file`.
#[derive(Clone, Debug)]
pub struct FileStore {
    dirs: VmsDir,
}

impl FileStore {
    /// The store below `state_dir`; makes its directory.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(state_dir: &Path) -> Result<Self, StoreError> {
        Ok(Self { dirs: VmsDir::open(state_dir)? })
    }

    fn load(&self, id: VmId, report: &mut LoadReport) {
        let path = self.dirs.of(id).join(STATE_FILE);
        let damaged = |set_aside, fault| Damaged { place: path.display().to_string(), set_aside, fault };
        match self.dirs.read_record(id) {
            Ok(record) => report.records.push(record),
            Err(NoRecord::Absent) if self.dirs.holds_record(id) => {}
            // one that runs is told all the same
            Err(NoRecord::Absent)
                if self.dirs.is_without_record(id) && !shim::is_locked(&self.dirs.of(id)) => {}
            Err(NoRecord::Absent) => report.orphans.push(self.dirs.of(id)),
            // perhaps it can be read again later: it stays where it is
            Err(NoRecord::Unreadable(error)) => report.damaged.push(damaged(None, error.to_string())),
            Err(NoRecord::Damaged(fault)) => {
                let target = path.with_file_name(DAMAGED_FILE);
                // what was set aside earlier is not written over
                let moved = !target.exists() && std::fs::rename(&path, &target).is_ok();
                report.damaged.push(damaged(moved.then_some(target), fault));
            }
        }
    }
}

impl RecordStore for FileStore {
    fn save(&self, record: &Record) -> Result<(), StoreError> {
        let text = serde_json::to_vec_pretty(record).map_err(io::Error::from);
        text.and_then(|text| atomic::write(&self.dirs.make(record.id)?, STATE_FILE, &text)).map_err(
            |source| StoreError { what: "save the record in", path: self.dirs.of(record.id), source },
        )
    }

    fn load_all(&self) -> Result<LoadReport, StoreError> {
        let listing = self.dirs.list()?;
        let mut report = LoadReport { damaged: listing.strangers, ..LoadReport::default() };
        listing.ids.into_iter().for_each(|id| self.load(id, &mut report));
        Ok(report)
    }

    fn remove(&self, id: VmId) -> Result<(), StoreError> {
        let dir = self.dirs.of(id);
        gone_is_fine(std::fs::remove_file(dir.join(STATE_FILE)))
            .and_then(|()| self.dirs.remove(id))
            .map_err(|source| StoreError { what: "remove", path: dir, source })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::tests::{FOREIGN, foreign};
    use super::*;

    #[test]
    fn what_was_saved_is_loaded_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let vms = dir.path().join("vms");
        std::fs::create_dir(&vms).unwrap();
        std::fs::set_permissions(&vms, std::fs::Permissions::from_mode(0o755)).unwrap();
        let store = FileStore::open(dir.path()).unwrap();
        let record = foreign();
        store.save(&record).unwrap();
        let vm = vms.join("9f2c41d07ab3");
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&vms), mode(&vm), mode(&vm.join("state.json"))), (0o700, 0o700, 0o600));
        assert_eq!(store.load_all().unwrap().records, std::slice::from_ref(&record));
        store.remove(record.id).unwrap();
        store.remove(record.id).unwrap();
        assert!(!vm.exists() && store.load_all().unwrap().records.is_empty());
    }

    #[test]
    fn a_damaged_record_is_set_aside_kept_and_the_rest_loads() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path()).unwrap();
        store.save(&foreign()).unwrap();
        let other = |name: &str| dir.path().join("vms").join(name);
        let put = |name: &str, text: &str| {
            std::fs::create_dir_all(other(name)).unwrap();
            std::fs::write(other(name).join("state.json"), text).unwrap();
        };
        put("000000000001", FOREIGN);
        put("000000000002", "{\"id\": \"0000");
        put("not-an-id", FOREIGN);
        std::fs::create_dir(other("000000000003")).unwrap();
        std::fs::create_dir(other("nothing")).unwrap();
        let report = store.load_all().unwrap();
        assert_eq!(report.records.len(), 1);
        assert_eq!(report.orphans, [other("000000000003")]);
        let places: Vec<_> =
            report.damaged.iter().map(|damaged| (damaged.place.as_str(), &damaged.set_aside)).collect();
        let file = |name: &str| other(name).join("state.json").display().to_string();
        let aside = |name: &str| Some(other(name).join("state.json.damaged"));
        assert_eq!(places[0], (&*file("not-an-id"), &None));
        assert_eq!(places[1], (&*file("000000000001"), &aside("000000000001")));
        assert_eq!(places[2], (&*file("000000000002"), &aside("000000000002")));

        // the next start finds them neither damaged nor left over
        let report = store.load_all().unwrap();
        assert_eq!((report.damaged.len(), report.orphans.len()), (1, 1));
        put("000000000002", "{ torn again");
        assert!(store.load_all().unwrap().damaged.iter().all(|damaged| damaged.set_aside.is_none()));
        let kept = std::fs::read_to_string(other("000000000002").join("state.json.damaged")).unwrap();
        assert_eq!(kept, "{\"id\": \"0000");
    }
}
