//! Many small segments of a partition into one.
//!
//! Owns the choice of what is merged. Only the newest segments without a gap are, because the merged one gets a
//! number above them all, and among segments the higher number wins.

use crate::catalog::SeriesId;
use crate::error::{MaintainError, ScanError};
use crate::flush::{Place, selection_of};
use crate::merge::Merge;
use crate::segment::Segment;
use crate::store::{Maintenance, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Merge when so many may be merged: a query then opens few files, and a point is rewritten few times.
const MERGE_AT: usize = 8;
/// Larger segments are left alone: rewriting them costs more than opening them.
const LARGEST_MERGED_BYTES: u64 = 64 << 20;

/// The newest segments that are small enough, if they are many.
fn mergeable(segments: &[Arc<Segment>]) -> &[Arc<Segment>] {
    let small = segments.iter().rev().take_while(|segment| segment.bytes() < LARGEST_MERGED_BYTES).count();
    if small < MERGE_AT { &[] } else { &segments[segments.len() - small..] }
}

impl Store {
    /// Merges the segments of a partition if they are many. A partition with a damaged block stays as it is, so that
    /// what can still be read of it is not made to look whole.
    pub(crate) fn merge_if_many(
        &self,
        place: &Place,
        maintenance: &mut Maintenance,
    ) -> Result<(), MaintainError> {
        let (database, start_s) = place;
        let old = {
            let state = self.read_state();
            let segments = state.databases.get(database).and_then(|d| d.partitions.get(start_s));
            mergeable(segments.map_or(&[], Vec::as_slice)).to_vec()
        };
        if old.is_empty() {
            return Ok(());
        }
        match self.merge_segments(place, &old, maintenance) {
            Ok(Some(merged)) => self.replace(place, &old, merged),
            Ok(None) => {}
            Err(ScanError::Damaged { .. }) => {
                self.counters.damaged_reads.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn merge_segments(
        &self,
        (database, start_s): &Place,
        old: &[Arc<Segment>],
        maintenance: &mut Maintenance,
    ) -> Result<Option<Segment>, ScanError> {
        let mut writer = self.segment_writer(database, *start_s, maintenance)?;
        for (id, fields) in fields_of(old) {
            let Some(names) = self.names(database, id, &fields) else { continue };
            let mut merge = Merge::new(selection_of(&names));
            for segment in old {
                if let Some(series) = segment.find(id) {
                    merge.add_segment(segment, series, i64::MIN, i64::MAX);
                }
            }
            writer.put_series(&names, merge.start())?;
        }
        Ok(writer.finish()?)
    }

    fn replace(&self, (database, start_s): &Place, old: &[Arc<Segment>], merged: Segment) {
        let state = &mut *self.write_state();
        let segments = state.databases.get_mut(database).and_then(|d| d.partitions.get_mut(start_s));
        let Some(segments) = segments else { return };
        segments.retain(|segment| old.iter().all(|gone| gone.number() != segment.number()));
        segments.push(Arc::new(merged));
        old.iter().for_each(|segment| segment.retire());
    }
}

fn fields_of(segments: &[Arc<Segment>]) -> BTreeMap<SeriesId, BTreeSet<u32>> {
    let mut fields: BTreeMap<SeriesId, BTreeSet<u32>> = BTreeMap::new();
    for series in segments.iter().flat_map(|segment| segment.series()) {
        fields.entry(series.id).or_default().extend(&series.fields);
    }
    fields
}
