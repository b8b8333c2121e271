//! Dropping what is too old, by whole partitions.
//!
//! Owns the rule: a partition goes when its end is not later than now minus the retention. Never reads a clock.

use crate::catalog::SeriesId;
use crate::error::MaintainError;
use crate::segment::Segment;
use crate::state::{SECOND_NS, State, partition_of};
use crate::store::{Store, nanos};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use uni_wire::Timestamp;

/// A partition that retention has dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedPartition {
    /// Its database.
    pub database: String,
    /// Its first moment.
    pub start: Timestamp,
    /// The moment after its last.
    pub end: Timestamp,
}

/// The start, in seconds, of the first partition that stays; `None` if everything stays.
pub(crate) fn first_kept(now: Timestamp, retention: Option<Duration>, partition_seconds: i64) -> Option<i64> {
    let cutoff = now.nanos().saturating_sub(nanos(retention?));
    Some(partition_of(cutoff, partition_seconds))
}

impl Store {
    /// Drops all partitions that ended longer ago than the retention, with their series and fields where
    /// nothing else has them. Without a retention it does nothing.
    ///
    /// A clock that jumps far ahead makes everything old: whoever passes `now` in vouches for it.
    ///
    /// # Errors
    /// [`MaintainError`]: points of a dropped partition are still in the log, and that they are dropped could not be
    /// noted there.
    pub fn enforce_retention(&self, now: Timestamp) -> Result<Vec<DroppedPartition>, MaintainError> {
        let Some(first_kept_s) = first_kept(now, self.options.retention, self.partition_seconds) else {
            return Ok(Vec::new());
        };
        let _one_at_a_time = self.lock_maintenance();
        let expired: Vec<(String, Vec<i64>)> = {
            let state = self.read_state();
            let starts = state.databases.iter();
            let starts =
                starts.map(|(name, d)| (name.clone(), d.spans.range(..first_kept_s).copied().collect()));
            starts.filter(|(_, starts): &(_, Vec<i64>)| !starts.is_empty()).collect()
        };
        let mut dropped = Vec::new();
        for (database, starts) in expired {
            self.drop_partitions(&database, first_kept_s)?;
            dropped.extend(starts.into_iter().map(|start_s| self.dropped(&database, start_s)));
        }
        Ok(dropped)
    }

    fn dropped(&self, database: &str, start_s: i64) -> DroppedPartition {
        DroppedPartition {
            database: database.to_owned(),
            start: Timestamp::from_seconds(start_s),
            end: Timestamp::from_seconds(start_s.saturating_add(self.partition_seconds)),
        }
    }

    fn drop_partitions(&self, database: &str, first_kept_s: i64) -> Result<(), MaintainError> {
        let before = first_kept_s.saturating_mul(SECOND_NS);
        let mut writer = self.lock_writer();
        if self.read_state().has_rows_before(database, before) {
            if writer.broken {
                return Err(self.broken());
            }
            // Else a replay would bring them back, and a field that has meanwhile got another type would clash.
            writer.write_drop(database, before)?;
        }
        let mut state = self.write_state();
        state.drop_rows_before(database, before);
        let segments = state.take_partitions_before(database, first_kept_s);
        state.recount(database, self.partition_seconds);
        // Series and fields may have lost their numbers.
        writer.routes.clear();
        drop(state);
        drop(writer);
        segments.iter().for_each(|segment| segment.retire());
        Ok(())
    }
}

impl State {
    fn series_of(&self, database: &str) -> BTreeSet<SeriesId> {
        self.databases.get(database).into_iter().flat_map(|d| d.catalog.ids()).collect()
    }

    /// Whether rows of this database that are in memory are earlier than `before`.
    fn has_rows_before(&self, database: &str, before: i64) -> bool {
        let heads = || [Some(&self.head), self.frozen.as_deref()].into_iter().flatten();
        self.series_of(database)
            .into_iter()
            .any(|id| heads().any(|head| head.span(id).is_some_and(|span| span.start < before)))
    }

    /// Drops rows of this database that are in memory.
    pub(crate) fn drop_rows_before(&mut self, database: &str, before: i64) {
        let series = self.series_of(database);
        self.head.drop_before(&series, before);
        if let Some(frozen) = &mut self.frozen {
            Arc::make_mut(frozen).drop_before(&series, before);
        }
    }

    fn take_partitions_before(&mut self, database: &str, first_kept_s: i64) -> Vec<Arc<Segment>> {
        let Some(database) = self.databases.get_mut(database) else { return Vec::new() };
        let kept = database.partitions.split_off(&first_kept_s);
        std::mem::replace(&mut database.partitions, kept).into_values().flatten().collect()
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
