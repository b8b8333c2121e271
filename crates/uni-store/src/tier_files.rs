//! Making tiers: a partition that grows no more is read once, and its windows are written beside its segments.
//!
//! Owns which partitions get tiers and when. A tier has the number of the newest segment that it was made of: numbers
//! only grow, so that whatever is written or merged later has a higher one, and the tier no longer stands for it.

use crate::block::{Effort, rows_for};
use crate::compact::{Part, each_table, fields_of};
use crate::error::{MaintainError, ScanError};
use crate::flush::Place;
use crate::index::{SegmentHead, SeriesNames};
use crate::rollup::Rollup;
use crate::segment::{Segment, SegmentWriter};
use crate::store::{SETTLED_SECONDS, Store};
use crate::tier::{self, Tier, TierWidth, is_number};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uni_wire::Timestamp;

/// A window of so many rows takes about a tenth of what they take.
const WORTH_ROWS: u64 = 30;
/// Windows of a series that are gathered before they are written.
const GATHERED_BLOCKS: usize = 4;

/// A partition whose tiers are to be made.
#[derive(Debug)]
struct Due {
    place: Place,
    /// All of its segments.
    segments: Vec<Arc<Segment>>,
    widths: Vec<TierWidth>,
}

impl Due {
    fn number(&self) -> u64 {
        newest(&self.segments)
    }
}

/// The number that a tier of these segments has.
pub(crate) fn newest(segments: &[Arc<Segment>]) -> u64 {
    segments.iter().map(|segment| segment.number()).max().unwrap_or(0)
}

/// Whether something is deleted of these segments.
pub(crate) fn has_cuts(segments: &[Arc<Segment>]) -> bool {
    segments.iter().any(|segment| !segment.cuts().is_empty())
}

/// Whether a tier that goes with its rows is small beside them: what it saves is reading.
fn is_worth(width: TierWidth, segments: &[Arc<Segment>]) -> bool {
    let (mut rows, mut windows) = (0u64, 0u64);
    for blocks in segments.iter().flat_map(|segment| segment.series()).map(|series| &series.blocks) {
        rows += blocks.iter().map(|block| u64::from(block.rows)).sum::<u64>();
        if let (Some(first), Some(last)) = (blocks.first(), blocks.last()) {
            windows += last.last.abs_diff(first.first) / width.nanos().cast_unsigned() + 1;
        }
    }
    rows >= windows.saturating_mul(WORTH_ROWS)
}

/// One tier that is being written.
struct Writing {
    width: TierWidth,
    writer: SegmentWriter,
}

impl Store {
    /// Makes the tiers of one partition, if some are due; answers whether it did. Belongs to [`Store::merge`], which
    /// holds the lock of merges.
    pub(crate) fn make_tiers(&self, now: Timestamp, pause: &mut dyn FnMut()) -> Result<bool, MaintainError> {
        let Some(due) = self.due_tiers(now) else { return Ok(false) };
        match self.write_tiers(&due, pause) {
            Ok(made) => self.show_tiers(&due, made),
            Err(ScanError::Damaged { .. }) => {
                self.counters.damaged_reads.fetch_add(1, Ordering::Relaxed);
                self.lock_unmergeable().extend(due.segments.iter().map(|segment| segment.number()));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    fn due_tiers(&self, now: Timestamp) -> Option<Due> {
        let unmergeable = self.lock_unmergeable().clone();
        let tierless = self.lock_tierless().clone();
        let state = self.read_state();
        for (name, database) in &state.databases {
            for (start_s, segments) in &database.partitions {
                let end_s = start_s.saturating_add(self.partition_seconds);
                let settled = Timestamp::from_seconds(end_s.saturating_add(SETTLED_SECONDS)) < now;
                let usable = |one: &Arc<Segment>| !unmergeable.contains(&one.number());
                // What is deleted is merged away first: then there is a new segment.
                if !settled || segments.is_empty() || !segments.iter().all(usable) || has_cuts(segments) {
                    continue;
                }
                let number = newest(segments);
                let has = |width: TierWidth| {
                    let mut tiers = database.tiers.get(start_s).into_iter().flatten();
                    tiers.any(|tier| tier.width == width && !tier.kept && tier.segment.number() == number)
                };
                let missing = |width: &TierWidth| {
                    !has(*width)
                        && (self.options.tier_retention(*width).outlives_rows() || is_worth(*width, segments))
                        && !tierless.contains(&(number, *width))
                        && !self.options.tier_retention(*width).is_over(end_s, now)
                };
                let widths: Vec<TierWidth> = TierWidth::ALL.into_iter().filter(missing).collect();
                if !widths.is_empty() {
                    return Some(Due { place: (name.clone(), *start_s), segments: segments.clone(), widths });
                }
            }
        }
        None
    }

    fn write_tiers(
        &self,
        due: &Due,
        pause: &mut dyn FnMut(),
    ) -> Result<Vec<(TierWidth, Option<Segment>)>, ScanError> {
        let (database, start_s) = &due.place;
        let mut writing = Vec::new();
        for width in &due.widths {
            let dir = self.files.partition_dir(database, *start_s);
            let path = tier::path(&self.files, &dir, due.number(), *width, false);
            let length_s = self.partition_seconds.cast_unsigned();
            let head = SegmentHead { number: due.number(), start_s: *start_s, length_s };
            let writer = SegmentWriter::create(&self.files, path, head, Effort::Tier)?;
            writing.push(Writing { width: *width, writer });
        }
        let files = due.segments.iter().map(|segment| segment.open()).collect::<Result<Vec<_>, _>>()?;
        let parts: Vec<Part<'_>> =
            due.segments.iter().zip(&files).map(|(segment, file)| Part { segment, file: &**file }).collect();
        for (id, fields) in fields_of(&due.segments) {
            if let Some(names) = self.names(database, id, &fields) {
                sum_up(&parts, &names, &mut writing)?;
            }
            pause();
        }
        let finish = |one: Writing| Ok((one.width, one.writer.finish()?));
        writing.into_iter().map(finish).collect()
    }

    /// Shows the tiers, if the partition is still what they were made of, and removes those that they replace.
    fn show_tiers(&self, due: &Due, made: Vec<(TierWidth, Option<Segment>)>) {
        let mut tierless = self.lock_tierless();
        let state = &mut *self.write_state();
        let database = state.databases.get_mut(&due.place.0);
        // Rows may have been deleted meanwhile.
        let same = |segments: &Vec<Arc<Segment>>| newest(segments) == due.number() && !has_cuts(segments);
        let database = database.filter(|database| database.partitions.get(&due.place.1).is_some_and(same));
        let Some(database) = database else {
            made.into_iter().filter_map(|(_, segment)| segment).for_each(|segment| segment.retire());
            return;
        };
        let tiers = database.tiers.entry(due.place.1).or_default();
        for (width, segment) in made {
            let is_replaced = |tier: &Arc<Tier>| tier.width == width && !tier.kept;
            tiers.iter().filter(|tier| is_replaced(tier)).for_each(|tier| tier.segment.retire());
            tiers.retain(|tier| !is_replaced(tier));
            match segment {
                Some(segment) => {
                    let outlives = self.options.tier_retention(width).outlives_rows();
                    let segment = Arc::new(segment);
                    tiers.push(Arc::new(Tier { width, segment, kept: false, outlives }));
                }
                // Texts only: nothing is gained by looking again.
                None => drop(tierless.insert((due.number(), width))),
            }
        }
    }
}

/// Reads the rows of one series and writes its windows.
fn sum_up(parts: &[Part<'_>], names: &SeriesNames, writing: &mut [Writing]) -> Result<(), ScanError> {
    let numbers = names
        .columns
        .iter()
        .filter(|(number, _, field_type)| is_number(*field_type) && tier::has_room(*number));
    let columns = tier::columns(&numbers.cloned().collect::<Vec<_>>());
    let full = rows_for(columns.len()) * GATHERED_BLOCKS;
    let tier_names = SeriesNames {
        id: names.id,
        measurement: Arc::clone(&names.measurement),
        tags: names.tags.clone(),
        columns,
    };
    let mut rollups: Vec<Rollup> = writing.iter().map(|one| Rollup::new(one.width)).collect();
    each_table(parts, names.id, &mut |table| {
        for (rollup, one) in rollups.iter_mut().zip(&mut *writing) {
            rollup.push(&table);
            if let Some(windows) = rollup.take(full) {
                one.writer.put_rows(&tier_names, &windows)?;
            }
        }
        Ok(())
    })?;
    for (rollup, one) in rollups.into_iter().zip(writing) {
        one.writer.put_rows(&tier_names, &rollup.finish())?;
        one.writer.end_series(&tier_names);
    }
    Ok(())
}
