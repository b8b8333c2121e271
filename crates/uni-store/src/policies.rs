//! Databases and retention policies: making, changing and dropping them.
//!
//! Owns the order of the steps of a drop: what is written into the file `databases` decides, and from then on what is
//! left of the points, in files and in the log, is nothing but leftovers.

use crate::error::{FileError, MaintainError, PolicyError};
use crate::files::{Files, MAX_DATABASE_NAME, database_name_is_usable, number_of};
use crate::registry::{DEFAULT_POLICY, Entry, Policy, Registry, shard_of, space_name, split_space};
use crate::segment::Segment;
use crate::state::Database;
use crate::store::{Maintenance, Store};
use crate::tier;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Most databases and policies of a store.
const MAX_SPACES: usize = 1_000;
/// The shortest duration and the shortest shard, as in InfluxDB.
const HOUR: Duration = Duration::from_secs(3600);

/// What is asked of a policy; what is left out keeps its value, or gets the one that InfluxDB would choose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicySpec {
    /// See [`Policy::duration`].
    pub duration: Option<Duration>,
    /// See [`Policy::shard_duration`].
    pub shard_duration: Option<Duration>,
    /// See [`Policy::replicas`].
    pub replicas: Option<u32>,
}

impl PolicySpec {
    /// The policy that a `base` becomes.
    fn applied(&self, base: Policy) -> Result<Policy, PolicyError> {
        let duration = self.duration.unwrap_or(base.duration);
        let shard = match self.shard_duration {
            Some(Duration::ZERO) => shard_of(duration),
            Some(given) => given.max(HOUR),
            None => base.shard_duration,
        };
        if duration > Duration::ZERO && duration < HOUR {
            return Err(PolicyError::TooShort);
        }
        if duration > Duration::ZERO && duration < shard {
            return Err(PolicyError::ShardTooLong);
        }
        Ok(Policy {
            duration,
            shard_duration: shard,
            replicas: self.replicas.unwrap_or(base.replicas),
            ..base
        })
    }

    fn new_policy(&self, name: &str) -> Result<Policy, PolicyError> {
        let shard_duration = shard_of(self.duration.unwrap_or_default());
        self.applied(Policy { shard_duration, ..Policy::endless(name) })
    }
}

/// A policy as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyInfo {
    /// The policy, with the duration that counts: its own, or else what the options say of its database.
    pub policy: Policy,
    /// Whether it is meant where none is named.
    pub is_default: bool,
}

impl Store {
    /// Makes a database with [`DEFAULT_POLICY`]; it outlives a power cut. One that exists is fine.
    ///
    /// # Errors
    /// [`PolicyError`]: the name has no or more than 80 bytes or control characters, there are 1,000 databases and
    /// policies already, or the file system refuses.
    pub fn create_database(&self, name: &str) -> Result<(), PolicyError> {
        if self.has_database(name) {
            return Ok(());
        }
        self.make_database(name, Entry::default())
    }

    /// Makes a database with one policy of its own. One that exists with just that policy is fine.
    ///
    /// # Errors
    /// As [`Store::create_database`]; or the policy is refused, or the database has another one.
    pub fn create_database_with(
        &self,
        name: &str,
        policy: Option<&str>,
        spec: &PolicySpec,
    ) -> Result<(), PolicyError> {
        let wanted = spec.new_policy(checked(policy.unwrap_or(DEFAULT_POLICY))?)?;
        let entry = self.read_state().registry.databases.get(name).cloned();
        match entry {
            Some(entry) if entry.default == wanted.name && entry.policy(&wanted.name) == Some(&wanted) => {
                Ok(())
            }
            Some(_) => Err(PolicyError::Conflict),
            None => self.make_database(name, Entry { default: wanted.name.clone(), policies: vec![wanted] }),
        }
    }

    fn make_database(&self, name: &str, entry: Entry) -> Result<(), PolicyError> {
        checked(name)?;
        let mut maintenance = self.lock_maintenance();
        if self.has_database(name) {
            return Ok(());
        }
        let spaces: Vec<String> = entry.policies.iter().map(|p| space_name(name, &p.name)).collect();
        self.begin_spaces(&mut maintenance, spaces, |registry| {
            registry.databases.insert(name.to_owned(), entry);
        })
    }

    /// Adds a policy to a database, and makes it the default one if `default`. The same policy once more is fine.
    ///
    /// # Errors
    /// [`PolicyError`]: there is no such database, or another policy of that name; or the policy is refused.
    pub fn create_policy(
        &self,
        database: &str,
        name: &str,
        spec: &PolicySpec,
        default: bool,
    ) -> Result<(), PolicyError> {
        let wanted = spec.new_policy(checked(name)?)?;
        let mut maintenance = self.lock_maintenance();
        let entry = self.entry(database)?;
        match entry.policy(name) {
            Some(known) if *known != wanted => return Err(PolicyError::Exists),
            Some(_) if default && entry.default != name => return Err(PolicyError::Conflict),
            Some(_) => return Ok(()),
            None => {}
        }
        self.begin_spaces(&mut maintenance, vec![space_name(database, name)], |registry| {
            let entry = registry.databases.entry(database.to_owned()).or_default();
            entry.policies.push(wanted);
            if default {
                name.clone_into(&mut entry.default);
            }
        })
    }

    /// Changes what `spec` says of a policy, and makes it the default one if `default`.
    ///
    /// # Errors
    /// [`PolicyError`]: there is no such database or policy, or the policy is refused.
    pub fn alter_policy(
        &self,
        database: &str,
        name: &str,
        spec: &PolicySpec,
        default: bool,
    ) -> Result<(), PolicyError> {
        let maintenance = self.lock_maintenance();
        let entry = self.entry(database)?;
        let known =
            entry.policy(name).ok_or_else(|| PolicyError::PolicyNotFound { name: name.to_owned() })?;
        let wanted = spec.applied(known.clone())?;
        let mut registry = self.read_state().registry.clone();
        let entry = registry.databases.entry(database.to_owned()).or_default();
        entry
            .policies
            .iter_mut()
            .filter(|policy| policy.name == name)
            .for_each(|policy| *policy = wanted.clone());
        if default {
            name.clone_into(&mut entry.default);
        }
        self.write_registry(&registry)?;
        self.write_state().registry = registry;
        self.refuse_old_points(&maintenance);
        Ok(())
    }

    /// Drops a policy with all its points; one that does not exist is fine. If it was the default one, none is until
    /// another one is made the default.
    ///
    /// # Errors
    /// [`PolicyError`]: the file system refused.
    pub fn drop_policy(&self, database: &str, name: &str) -> Result<(), PolicyError> {
        let mut maintenance = self.lock_maintenance();
        if self.entry(database).is_ok_and(|entry| entry.policy(name).is_some()) {
            self.end_spaces(&mut maintenance, vec![space_name(database, name)], |registry| {
                let entry = registry.databases.entry(database.to_owned()).or_default();
                entry.policies.retain(|policy| policy.name != name);
            })?;
        }
        Ok(())
    }

    /// Drops a database with all its policies and points; one that does not exist is fine.
    ///
    /// # Errors
    /// [`PolicyError`]: the file system refused.
    pub fn drop_database(&self, name: &str) -> Result<(), PolicyError> {
        let mut maintenance = self.lock_maintenance();
        if self.has_database(name) {
            let spaces = self.read_state().registry.spaces_of(name);
            self.end_spaces(&mut maintenance, spaces, |registry| {
                registry.databases.remove(name);
            })?;
        }
        Ok(())
    }

    /// The policies of a database in the order in which they were made; `None` where there is no such database.
    pub fn policies(&self, database: &str) -> Option<Vec<PolicyInfo>> {
        let state = self.read_state();
        let entry = state.registry.databases.get(database)?;
        let shown = |policy: &Policy| {
            let space = space_name(database, &policy.name);
            let duration = self.options.age(&state.registry, &space).unwrap_or_default();
            PolicyInfo {
                policy: Policy { duration, ..policy.clone() },
                is_default: policy.name == entry.default,
            }
        };
        Some(entry.policies.iter().map(shown).collect())
    }

    /// The name by which the points of a policy are appended and read; without a name that of the default policy.
    ///
    /// # Errors
    /// [`PolicyError`]: there is no such database or policy.
    pub fn space(&self, database: &str, policy: Option<&str>) -> Result<String, PolicyError> {
        let state = self.read_state();
        let entry = state.registry.databases.get(database);
        let entry = entry.ok_or_else(|| PolicyError::DatabaseNotFound { name: database.to_owned() })?;
        let name = policy.unwrap_or(&entry.default);
        match entry.policy(name) {
            Some(_) => Ok(space_name(database, name)),
            None => Err(PolicyError::PolicyNotFound { name: name.to_owned() }),
        }
    }

    /// The names by which the points of all policies of a database are appended and read.
    pub fn spaces(&self, database: &str) -> Vec<String> {
        self.read_state().registry.spaces_of(database)
    }

    fn entry(&self, database: &str) -> Result<Entry, PolicyError> {
        let state = self.read_state();
        let entry = state.registry.databases.get(database).cloned();
        entry.ok_or_else(|| PolicyError::DatabaseNotFound { name: database.to_owned() })
    }

    pub(crate) fn write_registry(&self, registry: &Registry) -> Result<(), FileError> {
        self.files.raise_format(self.partition_seconds.cast_unsigned())?;
        self.files.write_registry(registry)
    }

    /// Writes the registry with new spaces, then shows them.
    fn begin_spaces(
        &self,
        maintenance: &mut Maintenance,
        spaces: Vec<String>,
        change: impl FnOnce(&mut Registry),
    ) -> Result<(), PolicyError> {
        let mut registry = self.read_state().registry.clone();
        change(&mut registry);
        if registry.spaces() > MAX_SPACES {
            return Err(PolicyError::Limit { max: MAX_SPACES });
        }
        if spaces.iter().any(|space| maintenance.logged_gone.contains(space)) {
            // Else a crash would bring back, from the log, what an earlier holder of the name had.
            self.flush_locked(maintenance)?;
            registry.gone = self.read_state().registry.gone.clone();
        }
        self.write_registry(&registry)?;
        for space in &spaces {
            self.files.create_dir_durably(&self.files.space_dir(space))?;
        }
        let mut guard = self.write_state();
        let state = &mut *guard;
        state.registry = registry;
        for space in spaces {
            state.databases.insert(space, Database::default());
        }
        drop(guard);
        self.refuse_old_points(maintenance);
        Ok(())
    }

    /// Writes the registry without these spaces, then forgets their points and removes their files.
    fn end_spaces(
        &self,
        maintenance: &mut Maintenance,
        spaces: Vec<String>,
        change: impl FnOnce(&mut Registry),
    ) -> Result<(), PolicyError> {
        let number = maintenance.take_number();
        let mut registry = self.read_state().registry.clone();
        change(&mut registry);
        registry.gone.extend(spaces.iter().map(|space| (space.clone(), number)));
        self.write_registry(&registry)?;
        let mut writer = self.lock_writer();
        let mut state = self.write_state();
        state.registry = registry;
        let mut retired: Vec<Arc<Segment>> = Vec::new();
        for space in &spaces {
            state.drop_all_rows(space);
            let database = state.databases.remove(space).unwrap_or_default();
            retired.extend(database.partitions.into_values().flatten());
            retired.extend(database.tiers.into_values().flatten().map(|tier| Arc::clone(&tier.segment)));
        }
        writer.routes.clear();
        drop(state);
        drop(writer);
        maintenance.logged_gone.extend(spaces);
        retired.iter().for_each(|segment| segment.retire());
        drop(retired);
        Ok(())
    }

    /// Gives a copy of the store the databases and policies, and the notes of deletions.
    pub(crate) fn copy_notes(&self, copy: &Files) -> Result<(), FileError> {
        let notes = self.files.list(&self.files.deleted_dir())?;
        if !notes.is_empty() {
            copy.create_dir_durably(&copy.deleted_dir())?;
        }
        for path in notes {
            let Some(number) = number_of(&path, "del") else { continue };
            let to = copy.deletion(number);
            self.files.disk().link(&path, &to).map_err(FileError::at("link", &to))?;
        }
        copy.sync_nearest(&copy.deleted_dir())?;
        // What is gone has left nothing in the copy.
        let registry = Registry { gone: BTreeMap::new(), ..self.read_state().registry.clone() };
        copy.write_registry(&registry)
    }

    /// Forgets what was dropped and has left nothing behind.
    pub(crate) fn forget_gone(&self, maintenance: &Maintenance) -> Result<(), MaintainError> {
        let mut registry = self.read_state().registry.clone();
        let before = registry.gone.len();
        let gone: Vec<(String, u64)> = registry.gone.iter().map(|(space, n)| (space.clone(), *n)).collect();
        for (space, number) in gone {
            if !maintenance.logged_gone.contains(&space) && self.is_clean(&space, number, &registry)? {
                registry.gone.remove(&space);
            }
        }
        if registry.gone.len() < before {
            self.write_registry(&registry)?;
            self.write_state().registry = registry;
        }
        Ok(())
    }

    /// Whether no file is left of a space that was dropped; its empty folders are removed.
    fn is_clean(&self, space: &str, number: u64, registry: &Registry) -> Result<bool, FileError> {
        let dir = self.files.space_dir(space);
        for partition in self.partition_dirs(space)? {
            if !self.files_below(&partition, number)?.is_empty() {
                return Ok(false);
            }
            self.files.remove_if_empty(&partition);
        }
        let (database, _) = split_space(space);
        if registry.policy_of(space).is_none() {
            self.files.remove_if_empty(&dir);
        }
        if !registry.databases.contains_key(database) {
            self.files.remove_if_empty(&self.files.space_dir(database));
        }
        self.files.sync_nearest(&dir)?;
        Ok(true)
    }

    /// The folders of a space's partitions.
    pub(crate) fn partition_dirs(&self, space: &str) -> Result<Vec<PathBuf>, FileError> {
        let mut dirs = self.files.list(&self.files.space_dir(space))?;
        dirs.retain(|dir| start_of(dir).is_some() && self.files.disk().is_dir(dir));
        Ok(dirs)
    }

    /// Segments and tiers of a lower number that are still in a folder. If there are none, that is on the disk.
    pub(crate) fn files_below(
        &self,
        partition: &std::path::Path,
        number: u64,
    ) -> Result<Vec<PathBuf>, FileError> {
        let number_of_any =
            |path: &PathBuf| number_of(path, "seg").or_else(|| Some(tier::parse_path(path)?.0));
        let mut below = self.files.list(partition)?;
        below.retain(|path| number_of_any(path).is_some_and(|found| found < number));
        if below.is_empty() {
            self.files.sync_nearest(partition)?;
        }
        Ok(below)
    }
}

/// The start of a partition, by its folder.
pub(crate) fn start_of(dir: &std::path::Path) -> Option<i64> {
    dir.file_name()?.to_str()?.parse().ok()
}

fn checked(name: &str) -> Result<&str, PolicyError> {
    if database_name_is_usable(name) {
        return Ok(name);
    }
    if name.is_empty() {
        return Err(PolicyError::NoName);
    }
    let name = name.chars().take(20).flat_map(char::escape_default).collect();
    Err(PolicyError::Name { name, max: MAX_DATABASE_NAME })
}
