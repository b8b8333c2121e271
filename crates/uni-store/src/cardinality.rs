//! How many series there are, and what makes them many.
//!
//! Owns the counting. Never reads rows: the catalog in memory knows all of it.

use crate::registry::{DEFAULT_POLICY, split_space};
use crate::store::Store;
use std::collections::{BTreeMap, BTreeSet};

/// The tag that names a VM.
const VM_TAG: &str = "vm";

/// Series by what they have in common, each list with the most series first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Cardinality {
    /// Series of all databases.
    pub series: u64,
    /// Most series that the store takes.
    pub max_series: u64,
    /// By database.
    pub databases: Vec<DatabaseCardinality>,
}

/// What one database has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct DatabaseCardinality {
    /// The database.
    pub name: String,
    /// Its series.
    pub series: u64,
    /// By measurement: the first ones.
    pub measurements: Vec<Counted>,
    /// How many measurements there are.
    pub measurements_total: u64,
    /// By tag key: the first ones.
    pub tags: Vec<CountedTag>,
    /// How many tag keys there are.
    pub tags_total: u64,
    /// By value of the tag `vm`: the first ones.
    pub vms: Vec<Counted>,
    /// How many VMs there are.
    pub vms_total: u64,
}

/// Series and fields of a measurement or a VM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Counted {
    /// The measurement, or the VM.
    pub name: String,
    /// Its series.
    pub series: u64,
    /// Columns of these series: the unit in which Prometheus counts.
    pub columns: u64,
}

/// A tag key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CountedTag {
    /// The key.
    pub key: String,
    /// Distinct values.
    pub values: u64,
    /// Series that have it.
    pub series: u64,
}

impl Store {
    /// Counts series; each list has its first `top` entries.
    pub fn cardinality(&self, top: usize) -> Cardinality {
        let databases: Vec<_> = self.databases().iter().map(|name| self.spaces(name)).collect();
        let databases: Vec<_> = databases.iter().flatten().map(|space| self.counted(space, top)).collect();
        Cardinality {
            series: databases.iter().map(|database| database.series).sum(),
            max_series: self.options.max_series as u64,
            databases,
        }
    }

    fn counted(&self, space: &str, top: usize) -> DatabaseCardinality {
        let (mut series, mut measurements) = (0, Vec::new());
        let mut vms: BTreeMap<Box<str>, (u64, u64)> = BTreeMap::new();
        let mut tags: BTreeMap<Box<str>, (u64, BTreeSet<Box<str>>)> = BTreeMap::new();
        // One measurement after the other: writers wait for the lock of one, not of all.
        for measurement in self.measurements(space) {
            let columns = self.fields(space, &measurement).len() as u64;
            let found = self.series(space, &measurement, &[]);
            let count = found.len() as u64;
            series += count;
            for (key, value) in found.into_iter().flat_map(|one| one.tags) {
                if &*key == VM_TAG {
                    let vm = vms.entry(value.clone()).or_default();
                    *vm = (vm.0 + 1, vm.1 + columns);
                }
                let tag = tags.entry(key).or_default();
                tag.0 += 1;
                tag.1.insert(value);
            }
            measurements.push(Counted { name: measurement, series: count, columns: count * columns });
        }
        let vms: Vec<_> = vms
            .into_iter()
            .map(|(name, (series, columns))| Counted { name: name.into(), series, columns })
            .collect();
        let counted = |(key, (series, values)): (Box<str>, (u64, BTreeSet<_>))| CountedTag {
            key: key.into(),
            values: values.len() as u64,
            series,
        };
        let tags: Vec<_> = tags.into_iter().map(counted).collect();
        DatabaseCardinality {
            series,
            measurements_total: measurements.len() as u64,
            tags_total: tags.len() as u64,
            vms_total: vms.len() as u64,
            measurements: most(measurements, top, |one| one.series),
            tags: most(tags, top, |one| one.values),
            vms: most(vms, top, |one| one.series),
            name: shown(space),
        }
    }
}

/// Points of another policy than the first one are counted apart, as `database.policy`.
fn shown(space: &str) -> String {
    match split_space(space) {
        (database, DEFAULT_POLICY) => database.to_owned(),
        (database, policy) => format!("{database}.{policy}"),
    }
}

fn most<T>(mut all: Vec<T>, top: usize, count: impl Fn(&T) -> u64) -> Vec<T> {
    all.sort_by_key(|one| std::cmp::Reverse(count(one)));
    all.truncate(top);
    all
}
