//! What readers look at: databases with their catalogs and segments, and the rows that are only in memory.
//!
//! Owns the structure that the store's one read-write lock protects. Never does I/O, so that no reader waits for
//! a disk while it waits for the lock.

use crate::catalog::{Catalog, Numbers, SeriesId};
use crate::cutoff::Cutoffs;
use crate::head::Head;
use crate::registry::Registry;
use crate::segment::Segment;
use crate::tier::{Tiers, field_of};
use hashbrown::HashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Nanoseconds of a second.
pub(crate) const SECOND_NS: i64 = 1_000_000_000;

#[derive(Debug, Default)]
pub(crate) struct State {
    /// Which databases and policies there are.
    pub(crate) registry: Registry,
    /// What each space has: the points of one policy of a database, by the name that the registry gives it.
    pub(crate) databases: BTreeMap<String, Database>,
    pub(crate) head: Head,
    /// The head that is being written to segments.
    pub(crate) frozen: Option<Arc<Head>>,
    pub(crate) numbers: Numbers,
}

#[derive(Debug, Default)]
pub(crate) struct Database {
    pub(crate) catalog: Catalog,
    /// Segments by the start of their partition in seconds, sorted by number.
    pub(crate) partitions: BTreeMap<i64, Vec<Arc<Segment>>>,
    /// Tiers by the start of their partition in seconds.
    pub(crate) tiers: BTreeMap<i64, Tiers>,
    /// Starts of all partitions that have points, those in memory included.
    pub(crate) spans: BTreeSet<i64>,
    /// Points before these times are refused.
    pub(crate) cutoffs: Cutoffs,
}

impl State {
    pub(crate) fn series_count(&self) -> usize {
        self.databases.values().map(|database| database.catalog.len()).sum()
    }

    /// Series whose tag `vm` has this value.
    pub(crate) fn series_of_vm(&self, vm: &str) -> usize {
        self.databases.values().map(|database| database.catalog.series_of_vm(vm)).sum()
    }

    /// Forgets series, fields and spans of a database that have no values any more.
    pub(crate) fn recount(&mut self, name: &str, partition_seconds: i64) {
        let Some(database) = self.databases.get_mut(name) else { return };
        let mut present: HashMap<SeriesId, BTreeSet<u32>> = HashMap::new();
        for segment in database.partitions.values().flatten() {
            for series in segment.series().iter().filter(|series| segment.has_rows(series.id)) {
                present.entry(series.id).or_default().extend(series.fields.iter().copied());
            }
        }
        // Tiers that do not outlive their rows say nothing here: they go.
        for tier in database.tiers.values().flatten().filter(|tier| tier.outlives) {
            for series in tier.segment.series().iter().filter(|series| tier.segment.has_rows(series.id)) {
                let fields = series.fields.iter().filter_map(|code| field_of(*code));
                present.entry(series.id).or_default().extend(fields);
            }
        }
        database.spans = database.partitions.keys().copied().collect();
        for head in [Some(&self.head), self.frozen.as_deref()].into_iter().flatten() {
            for id in head.ids().filter(|id| database.catalog.get(*id).is_some()) {
                present.entry(id).or_default().extend(head.fields(id));
                // What is in memory was read or written before; if it cannot be read, its span is not shown.
                let times = head.table(id, |_| false).unwrap_or_default().times;
                database.spans.extend(times.iter().map(|time| partition_of(*time, partition_seconds)));
            }
        }
        database.catalog.retain(&present);
    }
}

/// The start, in seconds, of the partition that a time in nanoseconds lies in.
pub(crate) const fn partition_of(time: i64, partition_seconds: i64) -> i64 {
    time.div_euclid(SECOND_NS).div_euclid(partition_seconds) * partition_seconds
}

/// First and last nanosecond of a partition, cut to the range of times.
pub(crate) const fn partition_span(start_s: i64, partition_seconds: i64) -> (i64, i64) {
    let last = match start_s.saturating_add(partition_seconds).checked_mul(SECOND_NS) {
        Some(end) => end - 1,
        None => i64::MAX,
    };
    (start_s.saturating_mul(SECOND_NS), last)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn partitions_tile_all_times() {
        for time in [i64::MIN, i64::MIN + 1, -1, 0, 1, 86_400 * SECOND_NS - 1, 86_400 * SECOND_NS, i64::MAX] {
            let (first, last) = partition_span(partition_of(time, 86_400), 86_400);
            assert!((first..=last).contains(&time), "{time} outside {first}..={last}");
        }
        assert_eq!(partition_of(-1, 86_400), -86_400);
        assert_eq!(partition_of(86_400 * SECOND_NS, 86_400), 86_400);
    }
}
