//! Many segments of a partition into one, packed harder.
//!
//! Owns the choice of what is merged. Only segments without a gap are, because the merged one gets a number above
//! them and below those that come later, and among segments the higher number wins. Runs beside flushes: it reads
//! files that never change, and shows its result only if they are all still there.

use crate::block::{Effort, rows_for};
use crate::catalog::SeriesId;
use crate::cuts::Cuts;
use crate::disk::DiskFile;
use crate::error::{MaintainError, ScanError};
use crate::flush::Place;
use crate::segment::{Segment, SegmentWriter};
use crate::store::Store;
use crate::table::Table;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uni_wire::Timestamp;

/// Merge when so many may be merged: a query then opens few files, and a point is rewritten few times.
const MERGE_AT: usize = 6;
/// Larger segments are left alone: rewriting them costs more than opening them.
const LARGEST_MERGED_BYTES: u64 = 256 << 20;
/// Rows of a series that are gathered before they are written: full blocks, but not a whole day in memory.
const GATHERED_BLOCKS: usize = 4;

/// The newest segments that are small enough, if they are many.
fn mergeable(segments: &[Arc<Segment>]) -> &[Arc<Segment>] {
    let small = segments.iter().rev().take_while(|segment| segment.bytes() < LARGEST_MERGED_BYTES).count();
    let newest = &segments[segments.len() - small..];
    // What has been merged is merged again only with as much: else every merge would rewrite the whole day.
    let fresh = newest.iter().rev().take_while(|segment| !segment.is_packed()).count();
    let fresh_bytes: u64 = newest[newest.len() - fresh..].iter().map(|segment| segment.bytes()).sum();
    let packed = &newest[..newest.len() - fresh];
    let worth = packed.iter().rev().take_while(|segment| segment.bytes() <= fresh_bytes * 2).count();
    let chosen = &newest[newest.len() - fresh - worth..];
    if fresh < MERGE_AT { &[] } else { chosen }
}

/// All segments of a partition that grows no more, if something is gained by merging them.
fn settleable(segments: &[Arc<Segment>]) -> &[Arc<Segment>] {
    let small = segments.iter().rev().take_while(|segment| segment.bytes() < LARGEST_MERGED_BYTES).count();
    let small = &segments[segments.len() - small..];
    if small.len() > 1 || small.iter().any(|segment| !segment.is_packed()) { small } else { &[] }
}

/// The segments that have deleted rows, with all that came after them.
fn with_deleted(segments: &[Arc<Segment>]) -> &[Arc<Segment>] {
    let whole = segments.iter().take_while(|segment| segment.cuts().is_empty()).count();
    &segments[whole..]
}

impl Store {
    /// Merges the segments of one partition, or makes its tiers, if that is due; answers whether it did. Drops and
    /// keeps tiers as they age. Call it from time to time, from
    /// one thread, which may be of low priority: points and readers do not wait for it. `pause` is called between
    /// small pieces of work, so that the caller can spread them.
    ///
    /// # Errors
    /// [`MaintainError`]: the file system refused. Nothing is lost; the next call tries again.
    pub fn merge(&self, now: Timestamp, pause: &mut dyn FnMut()) -> Result<bool, MaintainError> {
        let _one_at_a_time = self.lock_merging();
        self.age_tiers(now)?;
        let Some((place, old)) = self.choose(now) else {
            return Ok(self.make_tiers(now, pause)? || self.logs().merge(now, pause)?);
        };
        let number = self.lock_maintenance().take_number();
        let cuts: Vec<Arc<Cuts>> = old.iter().map(|segment| segment.cuts()).collect();
        match self.merge_segments(&place, &old, number, pause) {
            Ok(merged) => self.replace(&place, &old, &cuts, merged),
            Err(ScanError::Damaged { .. }) => {
                // It stays as it is, so that what can still be read of it is not made to look whole.
                self.counters.damaged_reads.fetch_add(1, Ordering::Relaxed);
                self.lock_unmergeable().extend(old.iter().map(|segment| segment.number()));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    /// The partition that needs it most: the first with many small segments, else the first that is at rest.
    fn choose(&self, now: Timestamp) -> Option<(Place, Vec<Arc<Segment>>)> {
        let unmergeable = self.lock_unmergeable().clone();
        let at_rest = self.is_at_rest(now);
        let state = self.read_state();
        let places = || {
            let databases = state.databases.iter();
            databases.flat_map(|(name, database)| database.partitions.iter().map(move |p| (name, p.0, p.1)))
        };
        let usable = |segments: &[Arc<Segment>]| {
            !segments.is_empty() && segments.iter().all(|segment| !unmergeable.contains(&segment.number()))
        };
        let busy = places().map(|(name, start_s, segments)| (name, start_s, mergeable(segments)));
        let resting = |start_s: i64| {
            let end_s = start_s.saturating_add(self.partition_seconds);
            at_rest || Timestamp::from_seconds(end_s.saturating_add(crate::store::SETTLED_SECONDS)) < now
        };
        let quiet = places().filter(|(_, start_s, _)| resting(**start_s));
        let quiet = quiet.map(|(name, start_s, segments)| (name, start_s, settleable(segments)));
        let cut = places().map(|(name, start_s, segments)| (name, start_s, with_deleted(segments)));
        let found = busy.chain(quiet).chain(cut).find(|(_, _, segments)| usable(segments));
        found.map(|(name, start_s, segments)| ((name.clone(), *start_s), segments.to_vec()))
    }

    fn merge_segments(
        &self,
        (database, start_s): &Place,
        old: &[Arc<Segment>],
        number: u64,
        pause: &mut dyn FnMut(),
    ) -> Result<Option<Segment>, ScanError> {
        let mut writer = self.segment_writer(database, *start_s, number, Effort::Thorough)?;
        let files = old.iter().map(|segment| segment.open()).collect::<Result<Vec<_>, _>>()?;
        let parts: Vec<Part<'_>> =
            old.iter().zip(&files).map(|(segment, file)| Part { segment, file: &**file }).collect();
        for (id, fields) in fields_of(old) {
            if let Some(names) = self.names(database, id, &fields) {
                merge_series(&parts, id, &mut writer, &names)?;
                writer.end_series(&names);
            }
            pause();
        }
        Ok(writer.finish()?)
    }

    /// Shows the merged segment in the place of the old ones; there is none if all their rows are deleted.
    fn replace(
        &self,
        (database, start_s): &Place,
        old: &[Arc<Segment>],
        cuts: &[Arc<Cuts>],
        merged: Option<Segment>,
    ) {
        let state = &mut *self.write_state();
        let segments = state.databases.get_mut(database).and_then(|d| d.partitions.get_mut(start_s));
        let is_there = |segments: &Vec<Arc<Segment>>, one: &Arc<Segment>| {
            segments.iter().any(|segment| segment.number() == one.number())
        };
        let as_it_was = old.iter().zip(cuts).all(|(one, cuts)| Arc::ptr_eq(&one.cuts(), cuts));
        let segments = segments.filter(|segments| as_it_was && old.iter().all(|one| is_there(segments, one)));
        let Some(segments) = segments else {
            // Retention was quicker, or rows were deleted that had been read already.
            merged.iter().for_each(Segment::retire);
            return;
        };
        segments.retain(|segment| old.iter().all(|gone| gone.number() != segment.number()));
        segments.extend(merged.map(Arc::new));
        segments.sort_by_key(|segment| segment.number());
        if segments.is_empty() {
            state.databases.get_mut(database).and_then(|d| d.partitions.remove(start_s));
        }
        old.iter().for_each(|segment| segment.retire());
        if cuts.iter().any(|cuts| !cuts.is_empty()) {
            self.counters.untidy.store(true, Ordering::Relaxed);
        }
    }
}

/// A segment that is merged, opened once.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    pub(crate) segment: &'a Segment,
    pub(crate) file: &'a dyn DiskFile,
}

/// Writes all rows of a series; fails where a row could not be read: the segment is then of no use.
fn merge_series(
    parts: &[Part<'_>],
    id: SeriesId,
    writer: &mut SegmentWriter,
    names: &crate::index::SeriesNames,
) -> Result<(), ScanError> {
    let full = rows_for(names.columns.len()) * GATHERED_BLOCKS;
    let mut gathered = Table::default();
    each_table(parts, id, &mut |merged| {
        gathered = Table::merge(vec![std::mem::take(&mut gathered), merged]);
        if gathered.times.len() >= full {
            let whole = gathered.times.len() / full * full;
            writer.put_rows(names, &gathered.slice(0, whole))?;
            gathered = gathered.slice(whole, gathered.times.len());
        }
        Ok(())
    })?;
    Ok(writer.put_rows(names, &gathered)?)
}

/// Hands all rows of a series over, table by table, each later than the one before; fails where a row could not be
/// read.
pub(crate) fn each_table(
    parts: &[Part<'_>],
    id: SeriesId,
    take: &mut dyn FnMut(Table) -> Result<(), ScanError>,
) -> Result<(), ScanError> {
    let mut blocks: Vec<(i64, i64, usize, usize, usize)> = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        if let Some(series) = part.segment.find(id) {
            let places = part.segment.series()[series].blocks.iter().enumerate();
            blocks.extend(places.map(|(block, place)| (place.first, place.last, at, series, block)));
        }
    }
    blocks.sort_unstable();
    let mut rest = &blocks[..];
    while !rest.is_empty() {
        let (group, later) = rest.split_at(overlap(rest));
        rest = later;
        let mut in_order = group.to_vec();
        in_order.sort_unstable_by_key(|(_, _, part, _, block)| (*part, *block));
        let tables = in_order.iter().map(|(_, _, part, series, block)| {
            let part = &parts[*part];
            part.segment.table(part.file, *series, *block, |_| true)
        });
        take(Table::merge(tables.collect::<Result<_, _>>()?))?;
    }
    Ok(())
}

/// How many of the first blocks reach into each other's time.
fn overlap(blocks: &[(i64, i64, usize, usize, usize)]) -> usize {
    let mut last = i64::MIN;
    let mut count = 0;
    for (first, end, ..) in blocks {
        if count > 0 && *first > last {
            break;
        }
        last = last.max(*end);
        count += 1;
    }
    count
}

pub(crate) fn fields_of(segments: &[Arc<Segment>]) -> BTreeMap<SeriesId, BTreeSet<u32>> {
    let mut fields: BTreeMap<SeriesId, BTreeSet<u32>> = BTreeMap::new();
    for series in segments.iter().flat_map(|segment| segment.series()) {
        fields.entry(series.id).or_default().extend(series.fields.iter().copied());
    }
    fields
}
