//! Taking over the records that are files into the database, once each.
//!
//! Owns the rule: an id that is in the database, or was taken over before, is not taken over (again). So a
//! newer row is never written over, and a removed VM never comes back. The files stay as they are.

use super::dirs::NoRecord;
use super::row;
use super::sqlite::{SqliteStore, ids, upsert};
use super::{Damaged, StoreError};
use crate::id::VmId;
use crate::paths::STATE_FILE;

/// What [`SqliteStore::migrate`] did.
#[derive(Debug, Default)]
pub struct Migration {
    /// Records taken over.
    pub migrated: usize,
    /// Records that cannot be; they stay as they are.
    pub skipped: Vec<Damaged>,
}

impl SqliteStore {
    /// Takes over what `state.json` files there are and the database does not know: all of it or, when it is
    /// interrupted, nothing.
    ///
    /// # Errors
    /// The directory cannot be listed, or the database cannot be written.
    pub fn migrate(&self) -> Result<Migration, StoreError> {
        let listing = self.dirs.list()?;
        self.change("migrate VM records to", |all| {
            let mut known = ids(all, "vms")?;
            known.extend(ids(all, "migrated")?);
            let mut migration = Migration::default();
            for id in listing.ids.into_iter().filter(|id| !known.contains(id)) {
                match self.cells(id) {
                    Ok(cells) => {
                        upsert(all, cells)?;
                        all.execute("INSERT INTO migrated (id) VALUES (?1)", [id.to_string()])?;
                        migration.migrated += 1;
                    }
                    Err(NoRecord::Absent) => {}
                    Err(fault) => migration.skipped.push(self.skipped(id, fault)),
                }
            }
            Ok(migration)
        })
    }

    fn cells(&self, id: VmId) -> Result<Vec<rusqlite::types::Value>, NoRecord> {
        row::encode(&self.dirs.read_record(id)?).map_err(|error| NoRecord::Damaged(error.to_string()))
    }

    fn skipped(&self, id: VmId, fault: NoRecord) -> Damaged {
        let fault = match fault {
            NoRecord::Absent => "there is none".to_owned(),
            NoRecord::Unreadable(error) => error.to_string(),
            NoRecord::Damaged(fault) => fault,
        };
        let place = self.dirs.of(id).join(STATE_FILE).display().to_string();
        Damaged { place, set_aside: None, fault }
    }
}
