//! Dropping what is too old or takes too much of the disk, by whole partitions.
//!
//! Owns the rules: a partition goes when its end is not later than now minus the retention; and where the disk has its
//! fill, the oldest one goes first. Never reads a clock.

use crate::catalog::SeriesId;
use crate::cutoff::Cutoffs;
use crate::deletion::Target;
use crate::error::MaintainError;
use crate::registry::split_space;
use crate::segment::Segment;
use crate::state::{SECOND_NS, State, partition_of};
use crate::store::{Maintenance, Store, nanos};
use hashbrown::HashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use uni_wire::Timestamp;

/// Why a partition was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Its points are older than they may be.
    Age,
    /// The store has more bytes on the disk than it may.
    Disk,
}

/// A partition that was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedPartition {
    /// Its database.
    pub database: String,
    /// The retention policy.
    pub policy: String,
    /// Its first moment.
    pub start: Timestamp,
    /// The moment after its last.
    pub end: Timestamp,
    /// Bytes of its segments.
    pub bytes: u64,
    /// Why.
    pub reason: DropReason,
}

/// The start, in seconds, of the first partition that stays; `None` if everything stays.
pub(crate) fn first_kept(now: Timestamp, retention: Option<Duration>, partition_seconds: i64) -> Option<i64> {
    let cutoff = now.nanos().saturating_sub(nanos(retention?));
    Some(partition_of(cutoff, partition_seconds))
}

impl Store {
    /// Drops all partitions that ended longer ago than the retention of their policy, with their series and fields
    /// where nothing else has them; then what measurements have of old partitions by [`crate::RetentionRule`]; then, by
    /// [`crate::Options::max_disk_bytes`], the oldest partitions. From then on points that are older are refused.
    ///
    /// A clock that jumps far ahead makes everything old: whoever passes `now` in vouches for it.
    ///
    /// # Errors
    /// [`MaintainError`]: points of a dropped partition are still in the log, and that they are dropped could not be
    /// noted there.
    pub fn enforce_retention(&self, now: Timestamp) -> Result<Vec<DroppedPartition>, MaintainError> {
        let mut maintenance = self.lock_maintenance();
        maintenance.now = Some(now);
        self.refuse_old_points(&maintenance);
        let ages: Vec<(String, i64)> = {
            let state = self.read_state();
            let kept = |space: &String| {
                first_kept(now, self.options.age(&state.registry, space), self.partition_seconds)
            };
            state.databases.keys().filter_map(|space| Some((space.clone(), kept(space)?))).collect()
        };
        let mut dropped = Vec::new();
        for (space, first_kept_s) in ages {
            dropped.extend(self.drop_partitions(&space, first_kept_s, DropReason::Age)?);
        }
        self.forget_old_measurements(&mut maintenance, now)?;
        dropped.extend(self.make_room_on_disk(&mut maintenance, now)?);
        Ok(dropped)
    }

    /// Sets the times before which points are refused.
    pub(crate) fn refuse_old_points(&self, maintenance: &Maintenance) {
        let Some(now) = maintenance.now else { return };
        let before = |age: Duration| now.nanos().saturating_sub(nanos(age));
        let wanted: Vec<(String, Cutoffs)> = {
            let state = self.read_state();
            let cutoffs = |space: &String| {
                let all = self.options.age(&state.registry, space).map_or(i64::MIN, before);
                let rules = self.options.measurement_rules(split_space(space).0);
                let measurements: HashMap<Box<str>, i64> =
                    rules.map(|(name, age)| (name.into(), before(age))).collect();
                Cutoffs::new(all, measurements)
            };
            let spaces = state.databases.iter().map(|(space, known)| (space, known, cutoffs(space)));
            spaces
                .filter(|(_, known, new)| known.cutoffs != *new)
                .map(|(s, _, new)| (s.clone(), new))
                .collect()
        };
        if wanted.is_empty() {
            return;
        }
        let mut writer = self.lock_writer();
        let mut state = self.write_state();
        // What it says about times was said with the cutoff of before.
        writer.routes.span = None;
        for (space, cutoffs) in wanted {
            if let Some(known) = state.databases.get_mut(&space) {
                known.cutoffs = cutoffs;
            }
        }
    }

    fn drop_partitions(
        &self,
        space: &str,
        first_kept_s: i64,
        reason: DropReason,
    ) -> Result<Vec<DroppedPartition>, MaintainError> {
        let starts: Vec<i64> = {
            let state = self.read_state();
            let known = state.databases.get(space);
            known.into_iter().flat_map(|known| known.spans.range(..first_kept_s)).copied().collect()
        };
        if starts.is_empty() {
            return Ok(Vec::new());
        }
        let before = first_kept_s.saturating_mul(SECOND_NS);
        let mut writer = self.lock_writer();
        if self.read_state().has_rows_before(space, before) {
            if writer.broken {
                return Err(self.broken());
            }
            // Else a replay would bring them back, and a field that has meanwhile got another type would clash.
            writer.write_drop(space, before)?;
        }
        let mut state = self.write_state();
        state.drop_rows_before(space, before);
        let partitions = state.take_partitions_before(space, first_kept_s);
        state.recount(space, self.partition_seconds);
        // Series and fields may have lost their numbers.
        writer.routes.clear();
        drop(state);
        drop(writer);
        partitions.values().flatten().for_each(|segment| segment.retire());
        let counter = match reason {
            DropReason::Age => &self.counters.aged_partitions,
            DropReason::Disk => &self.counters.disk_partitions,
        };
        counter.fetch_add(starts.len() as u64, Ordering::Relaxed);
        let (database, policy) = split_space(space);
        let dropped = |start_s: i64| DroppedPartition {
            database: database.to_owned(),
            policy: policy.to_owned(),
            start: Timestamp::from_seconds(start_s),
            end: Timestamp::from_seconds(start_s.saturating_add(self.partition_seconds)),
            bytes: partitions.get(&start_s).into_iter().flatten().map(|segment| segment.bytes()).sum(),
            reason,
        };
        Ok(starts.into_iter().map(dropped).collect())
    }

    /// Deletes what measurements have of partitions that are old enough, once for each partition.
    fn forget_old_measurements(
        &self,
        maintenance: &mut Maintenance,
        now: Timestamp,
    ) -> Result<(), MaintainError> {
        for rule in &self.options.retention_rules {
            let Some(measurement) = &rule.measurement else { continue };
            let Some(first_kept_s) = first_kept(now, Some(rule.age), self.partition_seconds) else {
                continue;
            };
            for space in self.spaces(&rule.database) {
                let key = (space.clone(), measurement.clone());
                if maintenance.forgotten.get(&key).is_some_and(|before| *before >= first_kept_s) {
                    continue;
                }
                let target = Target { space, measurement: measurement.clone(), series: None };
                let last = first_kept_s.saturating_mul(SECOND_NS).saturating_sub(1);
                self.delete_locked(maintenance, (i64::MIN, last), vec![target])?;
                maintenance.forgotten.insert(key, first_kept_s);
            }
        }
        Ok(())
    }

    /// Bytes of segments, tiers and log, and of the logs and events beside them.
    pub(crate) fn disk_bytes(&self) -> u64 {
        let logs = self.logs().stats();
        let log = self.lock_writer().wal.bytes() + self.counters.frozen_log_bytes.load(Ordering::Relaxed);
        let state = self.read_state();
        let segments = state.databases.values().flat_map(|known| known.partitions.values()).flatten();
        let tiers = state.databases.values().flat_map(|known| known.tiers.values()).flatten();
        let files = segments.chain(tiers.map(|tier| &tier.segment));
        log + logs.journal_bytes + logs.file_bytes + files.map(|segment| segment.bytes()).sum::<u64>()
    }

    /// Drops the oldest partitions of all until the store is small enough. The partition of now stays: where it alone
    /// is too large, points are refused.
    fn make_room_on_disk(
        &self,
        maintenance: &mut Maintenance,
        now: Timestamp,
    ) -> Result<Vec<DroppedPartition>, MaintainError> {
        let Some(max) = self.options.max_disk_bytes else { return Ok(Vec::new()) };
        let mut dropped = Vec::new();
        let mut bytes = self.disk_bytes();
        while bytes > max
            && let Some((start_s, space)) = self.oldest_partition(now)
        {
            let first_kept_s = start_s.saturating_add(self.partition_seconds);
            match space {
                Some(space) => {
                    self.drop_tiers(&space, first_kept_s);
                    dropped.extend(self.drop_partitions(&space, first_kept_s, DropReason::Disk)?);
                }
                None => maintenance.dropped_logs.extend(self.logs().drop_oldest()),
            }
            bytes = self.disk_bytes();
        }
        self.counters.disk_excess.store(if bytes > max { bytes } else { 0 }, Ordering::Relaxed);
        Ok(dropped)
    }

    /// Start of the oldest partition of all, and its space; without one if it is of logs and events.
    fn oldest_partition(&self, now: Timestamp) -> Option<(i64, Option<String>)> {
        let today = partition_of(now.nanos(), self.partition_seconds);
        let of_logs = self.logs().oldest().map(|(start, _)| (start.nanos().div_euclid(SECOND_NS), None));
        let state = self.read_state();
        let first = |known: &crate::state::Database| {
            known.partitions.keys().next().into_iter().chain(known.tiers.keys().next()).min().copied()
        };
        let of_spaces =
            state.databases.iter().filter_map(|(space, known)| Some((first(known)?, Some(space.clone()))));
        of_spaces.chain(of_logs).filter(|(start_s, _)| *start_s < today).min()
    }

    /// Drops the tiers of old partitions: where the disk has its fill, they do not outlive their rows.
    fn drop_tiers(&self, space: &str, first_kept_s: i64) {
        let mut writer = self.lock_writer();
        let mut state = self.write_state();
        let Some(known) = state.databases.get_mut(space) else { return };
        let kept = known.tiers.split_off(&first_kept_s);
        let gone = std::mem::replace(&mut known.tiers, kept);
        state.recount(space, self.partition_seconds);
        writer.routes.clear();
        drop(state);
        gone.values().flatten().for_each(|tier| tier.segment.retire());
    }
}

impl State {
    fn series_of(&self, space: &str) -> BTreeSet<SeriesId> {
        self.databases.get(space).into_iter().flat_map(|d| d.catalog.ids()).collect()
    }

    /// Whether rows of this space that are in memory are earlier than `before`.
    fn has_rows_before(&self, space: &str, before: i64) -> bool {
        let heads = || [Some(&self.head), self.frozen.as_deref()].into_iter().flatten();
        self.series_of(space)
            .into_iter()
            .any(|id| heads().any(|head| head.span(id).is_some_and(|span| span.start < before)))
    }

    /// Drops rows of this space that are in memory.
    pub(crate) fn drop_rows_before(&mut self, space: &str, before: i64) {
        let series = self.series_of(space);
        self.head.drop_before(&series, before);
        if let Some(frozen) = &mut self.frozen {
            Arc::make_mut(frozen).drop_before(&series, before);
        }
    }

    /// Drops all rows of this space that are in memory.
    pub(crate) fn drop_all_rows(&mut self, space: &str) {
        let series = self.series_of(space);
        self.head.drop_series(&series);
        if let Some(frozen) = &mut self.frozen {
            Arc::make_mut(frozen).drop_series(&series);
        }
    }

    fn take_partitions_before(&mut self, space: &str, first_kept_s: i64) -> BTreeMap<i64, Vec<Arc<Segment>>> {
        let Some(known) = self.databases.get_mut(space) else { return BTreeMap::new() };
        let kept = known.partitions.split_off(&first_kept_s);
        std::mem::replace(&mut known.partitions, kept)
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_partition_stays_until_its_end_is_old_enough() {
        let day = |n: i64| n * 86_400;
        let week = Some(Duration::from_secs(7 * 86_400));
        let kept = |now_s: i64| first_kept(Timestamp::from_seconds(now_s), week, 86_400);
        assert_eq!(kept(day(8) - 1), Some(0), "day 0 ended less than a week ago");
        assert_eq!(kept(day(8)), Some(day(1)), "day 0 ended a week ago");
        assert_eq!(first_kept(Timestamp(i64::MAX), None, 86_400), None);
        let for_ever = Some(Duration::MAX);
        assert!(first_kept(Timestamp(0), for_ever, 86_400).is_some_and(|start| start < -9_000_000_000));
    }
}
