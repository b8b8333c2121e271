//! Which databases and retention policies there are, and which are gone.
//!
//! Owns the names of *spaces* (the points of one policy of a database) and the file `databases`
//! (`docs/format/store.md`, section *Databases*). Never touches points.

use crate::bytes::Damaged;
use crate::files::{escape, unescape};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// The policy that a database has unless it was made with another one.
pub const DEFAULT_POLICY: &str = "autogen";
/// Between database and policy in the name of a space; no name has it.
const SEPARATOR: char = '\u{1}';
/// The version of the file.
const VERSION: &str = "uni-databases 1";
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A retention policy of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// Age after which points are forgotten; zero keeps them.
    pub duration: Duration,
    /// What InfluxDB would make a shard of. Shown as it was given; points are kept in partitions of one length for the
    /// whole store.
    pub shard_duration: Duration,
    /// Shown as it was given; there is one copy.
    pub replicas: u32,
}

impl Policy {
    /// A policy that keeps everything.
    #[must_use]
    pub fn endless(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            duration: Duration::ZERO,
            shard_duration: shard_of(Duration::ZERO),
            replicas: 1,
        }
    }
}

/// The length of a shard that InfluxDB chooses for a duration.
pub(crate) const fn shard_of(duration: Duration) -> Duration {
    match duration.as_secs() {
        0 => Duration::from_secs(7 * DAY.as_secs()),
        seconds if seconds < 2 * DAY.as_secs() => HOUR,
        seconds if seconds <= 180 * DAY.as_secs() => DAY,
        _ => Duration::from_secs(7 * DAY.as_secs()),
    }
}

/// A database and its policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The policy that is meant where none is named. It may have been dropped.
    pub(crate) default: String,
    /// In the order in which they were made.
    pub(crate) policies: Vec<Policy>,
}

impl Default for Entry {
    fn default() -> Self {
        Self { default: DEFAULT_POLICY.to_owned(), policies: vec![Policy::endless(DEFAULT_POLICY)] }
    }
}

impl Entry {
    pub(crate) fn policy(&self, name: &str) -> Option<&Policy> {
        self.policies.iter().find(|policy| policy.name == name)
    }
}

/// All databases, and the spaces that were dropped and may have left something behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registry {
    pub(crate) databases: BTreeMap<String, Entry>,
    /// For each such space the number below which its segments are leftovers.
    pub(crate) gone: BTreeMap<String, u64>,
}

/// The name under which the store keeps the points of a policy: that of the database for [`DEFAULT_POLICY`].
pub(crate) fn space_name(database: &str, policy: &str) -> String {
    match policy {
        DEFAULT_POLICY => database.to_owned(),
        _ => format!("{database}{SEPARATOR}{policy}"),
    }
}

/// The reverse of [`space_name`].
pub(crate) fn split_space(space: &str) -> (&str, &str) {
    space.split_once(SEPARATOR).unwrap_or((space, DEFAULT_POLICY))
}

impl Registry {
    /// The policy behind a space.
    pub(crate) fn policy_of(&self, space: &str) -> Option<&Policy> {
        let (database, policy) = split_space(space);
        self.databases.get(database)?.policy(policy)
    }

    /// The spaces of a database.
    pub(crate) fn spaces_of(&self, database: &str) -> Vec<String> {
        let policies = self.databases.get(database).into_iter().flat_map(|entry| &entry.policies);
        policies.map(|policy| space_name(database, &policy.name)).collect()
    }

    pub(crate) fn spaces(&self) -> usize {
        self.databases.values().map(|entry| entry.policies.len()).sum()
    }

    /// The contents of the file.
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("{VERSION}\n");
        for (name, entry) in &self.databases {
            let name = escape(name);
            let _ = writeln!(text, "database {name} {}", escape(&entry.default));
            for Policy { name: policy, duration, shard_duration, replicas } in &entry.policies {
                let (duration, shard) = (duration.as_nanos(), shard_duration.as_nanos());
                let _ = writeln!(text, "policy {} {duration} {shard} {replicas}", escape(policy));
            }
        }
        for (space, number) in &self.gone {
            let (database, policy) = split_space(space);
            let _ = writeln!(text, "gone {} {} {number}", escape(database), escape(policy));
        }
        Self::sealed(text)
    }

    /// Lines with the one that ends them.
    pub(crate) fn sealed(mut text: String) -> String {
        let checksum = crc32fast::hash(text.as_bytes());
        let _ = writeln!(text, "end {checksum:08x}");
        text
    }

    /// The reverse of [`Registry::to_text`].
    pub(crate) fn parse(text: &str) -> Result<Self, Damaged> {
        let body = text.strip_suffix('\n').ok_or(Damaged("databases without an end"))?;
        let start = body.rfind('\n').map_or(0, |at| at + 1);
        let (lines, end) = text.split_at(start);
        let checksum = end.trim_end().strip_prefix("end ");
        if checksum != Some(format!("{:08x}", crc32fast::hash(lines.as_bytes())).as_str()) {
            return Err(Damaged("databases whose checksum differs"));
        }
        let mut lines = lines.lines();
        if lines.next() != Some(VERSION) {
            return Err(Damaged("databases of another version"));
        }
        let mut registry = Self::default();
        let mut last = None;
        for line in lines {
            registry.parse_line(line, &mut last).ok_or(Damaged("a line that is no database"))?;
        }
        Ok(registry)
    }

    fn parse_line(&mut self, line: &str, last: &mut Option<String>) -> Option<()> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["database", name, default] => {
                let (name, default) = (unescape(name)?, unescape(default)?);
                self.databases.insert(name.clone(), Entry { default, policies: Vec::new() });
                *last = Some(name);
            }
            ["policy", name, duration, shard, replicas] => {
                let nanos = |text: &str| Some(Duration::from_nanos(text.parse().ok()?));
                let (duration, shard_duration) = (nanos(duration)?, nanos(shard)?);
                let (name, replicas) = (unescape(name)?, replicas.parse().ok()?);
                let entry = self.databases.get_mut(last.as_ref()?)?;
                entry.policies.push(Policy { name, duration, shard_duration, replicas });
            }
            ["gone", database, policy, number] => {
                let space = space_name(&unescape(database)?, &unescape(policy)?);
                self.gone.insert(space, number.parse().ok()?);
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_registry_is_read_back_and_damage_is_seen() {
        let mut registry = Registry::default();
        registry.databases.insert("uni".into(), Entry::default());
        let week = Policy { duration: DAY * 7, shard_duration: DAY, ..Policy::endless("a week/%") };
        let entry = Entry { default: "gone one".into(), policies: vec![week] };
        registry.databases.insert("a b".into(), entry);
        registry.gone.insert(space_name("x", "p"), 7);
        registry.gone.insert("x".into(), 9);
        let text = registry.to_text();
        assert_eq!(Registry::parse(&text), Ok(registry));
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            assert!(String::from_utf8(bytes).is_ok_and(|text| Registry::parse(&text).is_err()), "byte {at}");
            assert!(Registry::parse(&text[..at]).is_err());
        }
    }

    #[test]
    fn shards_have_influxdbs_lengths() {
        let hours = |n: u64| shard_of(Duration::from_secs(n * 3600)).as_secs() / 3600;
        assert_eq!(
            [hours(0), hours(1), hours(47), hours(48), hours(180 * 24), hours(181 * 24)],
            [168, 1, 1, 24, 24, 168]
        );
    }
}
