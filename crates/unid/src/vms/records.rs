//! Where the VMs' records are kept, and what is loaded of them at the start.
//!
//! Owns the choice of the store, the refusal of a store that is not the newest, the names of records that
//! came without a usable one, and the clean-up of what an interrupted run left. Never changes a VM's state.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;
use uni_vmm::name::VmName;
use uni_vmm::record::{Damaged, FileStore, Record, RecordStore, SqliteStore};

use super::numbered;
use crate::config::{Config, VmStore};

/// Opens the store that was chosen and reads all of it.
///
/// # Errors
/// When it cannot be used, or another one holds the VMs.
pub(super) fn open(config: &Config) -> anyhow::Result<(Box<dyn RecordStore>, Vec<Record>)> {
    let store: Box<dyn RecordStore> = match config.vm_store {
        VmStore::File => {
            refuse_older(&config.state_dir)?;
            Box::new(FileStore::open(&config.state_dir)?)
        }
        VmStore::Sqlite => {
            let store = SqliteStore::open(&config.state_dir)?;
            migrate(&store)?;
            Box::new(store)
        }
    };
    let mut loaded = store.load_all().context("load the VM records")?;
    loaded.damaged.iter().for_each(tell_damaged);
    loaded.orphans.iter().for_each(|orphan| remove_orphan(orphan));
    settle_names(store.as_ref(), &mut loaded.records);
    Ok((store, loaded.records))
}

/// The files are as old as the change to the database: showing them would be showing what is no longer true.
fn refuse_older(state_dir: &Path) -> anyhow::Result<()> {
    let vms = SqliteStore::count(state_dir)
        .context("find out whether --vm-store sqlite was used here (if not, move that file away)")?;
    anyhow::ensure!(
        vms == 0,
        "{vms} VM records are in {0}/vms/vms.db, because --vm-store sqlite was used here; start with --vm-store \
         sqlite, or move vms.db (and vms.db-wal, if there is one) away to go back to the files as they were before",
        state_dir.display()
    );
    Ok(())
}

fn migrate(store: &SqliteStore) -> anyhow::Result<()> {
    let migration = store.migrate()?;
    for skipped in &migration.skipped {
        tracing::warn!(
            path = skipped.place,
            err = skipped.fault,
            "VM record cannot be migrated; it is left as it is"
        );
    }
    tracing::info!(migrated = migration.migrated, "migration complete");
    Ok(())
}

fn tell_damaged(damaged: &Damaged) {
    match &damaged.set_aside {
        Some(now) => tracing::error!(
            path = damaged.place,
            now = now.display().to_string(),
            err = damaged.fault,
            "VM record set aside"
        ),
        None => tracing::error!(
            path = damaged.place,
            err = damaged.fault,
            "VM record cannot be read; it is left as it is"
        ),
    }
}

/// Removes what a VM that was being made or removed left behind, unless something runs there.
fn remove_orphan(dir: &Path) {
    let dir_text = dir.display().to_string();
    if uni_vmm::shim::is_locked(dir) {
        tracing::error!(dir = dir_text, "a VM runs here that has no record; it is left alone");
        return;
    }
    match std::fs::remove_dir_all(dir) {
        Ok(()) => tracing::info!(dir = dir_text, "removed what an interrupted run left behind"),
        Err(error) => tracing::warn!(dir = dir_text, err = error.to_string(), "remove left-over files"),
    }
}

/// Stores the records that were given a name, so that they keep it.
fn settle_names(store: &dyn RecordStore, records: &mut [Record]) {
    for (at, before) in give_names(records) {
        let record = &records[at];
        let (vm_id, name) = (record.id.to_string(), &record.config.name);
        tracing::warn!(vm_id, before, name, "a VM record without a usable name of its own was given one");
        if let Err(error) = store.save(record) {
            tracing::error!(vm_id, err = format!("{:#}", anyhow::Error::new(error)), "save the VM record");
        }
    }
}

/// Gives each record whose name is none, or is another's already, one of its own; tells which, and what they
/// had. Older installations allowed any name, none, and one name for many VMs.
fn give_names(records: &mut [Record]) -> Vec<(usize, String)> {
    let mut taken = BTreeSet::new();
    let claims = |record: &Record, taken: &mut BTreeSet<String>| match record.config.name.parse::<VmName>() {
        Ok(name) => taken.insert(name.to_string()),
        Err(_) => false,
    };
    // all that have one keep it, wherever they stand
    let without: Vec<_> = (0..records.len()).filter(|&at| !claims(&records[at], &mut taken)).collect();
    let mut given = Vec::new();
    for at in without {
        let Some(name) = free_name(&records[at], &taken) else { continue };
        taken.insert(name.clone());
        let before = std::mem::replace(&mut records[at].config.name, name);
        records[at].config.remember_name(&before);
        given.push((at, before));
    }
    given
}

/// `web-2` for a second `web`, `vm-<id>` for what has no name.
fn free_name(record: &Record, taken: &BTreeSet<String>) -> Option<String> {
    let is_taken = |name: &str| taken.contains(name);
    let own = record.config.name.parse().ok().and_then(|name| numbered(&name, is_taken).ok());
    let of_id = || {
        let name: VmName = format!("vm-{}", record.id).parse().ok()?;
        if is_taken(&name) { numbered(&name, is_taken).ok() } else { Some(name) }
    };
    own.or_else(of_id).map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: usize, name: &str) -> Record {
        let id = format!("{n:012x}");
        serde_json::from_value(serde_json::json!({
            "id": id, "config": { "Name": name }, "state": "stopped", "created_at": ""
        }))
        .unwrap()
    }

    fn named(names: &[&str]) -> Vec<String> {
        let mut records: Vec<_> = names.iter().enumerate().map(|(n, name)| record(n, name)).collect();
        give_names(&mut records);
        records.into_iter().map(|record| record.config.name).collect()
    }

    #[test]
    fn every_record_ends_up_with_a_name_of_its_own() {
        assert_eq!(named(&["web", "db"]), ["web", "db"]);
        assert_eq!(named(&["", "my app/1"]), ["vm-000000000000", "vm-000000000001"]);
        // who has a name keeps it, even one that a numbered twin would like
        assert_eq!(named(&["web", "web", "web", "web-2"]), ["web", "web-3", "web-4", "web-2"]);
        assert_eq!(named(&["", "vm-000000000000"]), ["vm-000000000000-2", "vm-000000000000"]);
        let long = "x".repeat(63);
        assert_eq!(named(&[&long, &long]), [long.clone(), "vm-000000000001".to_owned()]);
    }

    #[test]
    fn what_was_given_is_told_with_what_it_replaces() {
        let mut records = vec![record(0, "web"), record(1, "-")];
        assert_eq!(give_names(&mut records), [(1, "-".to_owned())]);
        assert_eq!(give_names(&mut records), []);
    }
}
