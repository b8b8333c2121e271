//! Deleting rows of some series in a range of time.
//!
//! Owns the order of the steps: rows in memory are packed, so that all that is meant is in segments; the deletion is
//! noted, and from then on holds; the segments leave the rows out. Merges write what is left, and once no file has the
//! rows any more the note goes.

use crate::catalog::SeriesId;
use crate::deletion::{Deletion, Target};
use crate::error::{DeleteError, FileError, MaintainError};
use crate::segment::Segment;
use crate::state::{State, partition_of};
use crate::store::{Maintenance, Store};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use uni_wire::Timestamp;

/// Most deletions that wait until merges have written what is left.
const MAX_DELETIONS: usize = 1_000;

/// Series of a measurement, of which rows are to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doomed {
    /// As [`Store::space`] gives it.
    pub space: String,
    /// The measurement.
    pub measurement: String,
    /// The series; `None` for all.
    pub series: Option<Vec<SeriesId>>,
}

/// A segment, and series in it that have rows to be left out.
type Uncut = (Arc<Segment>, Vec<SeriesId>);

impl Store {
    /// Deletes the rows of these series from `from` to `to`, both included: those that were appended before. Series and
    /// measurements without rows are forgotten. When it returns, the deletion outlives a power cut.
    ///
    /// # Errors
    /// [`DeleteError`]: too many deletions wait for merges, rows in memory could not be packed, or the file system
    /// refused. Then nothing is deleted.
    pub fn delete(&self, from: Timestamp, to: Timestamp, doomed: &[Doomed]) -> Result<(), DeleteError> {
        let mut maintenance = self.lock_maintenance();
        if maintenance.deletions.len() >= MAX_DELETIONS {
            return Err(DeleteError::TooMany { max: MAX_DELETIONS });
        }
        let targets = {
            let state = self.read_state();
            doomed.iter().filter_map(|doomed| state.target(doomed)).collect()
        };
        Ok(self.delete_locked(&mut maintenance, (from.nanos(), to.nanos()), targets)?)
    }

    /// Flushes only if rows in memory are meant, and notes nothing where no row is.
    pub(crate) fn delete_locked(
        &self,
        maintenance: &mut Maintenance,
        (from, to): (i64, i64),
        targets: Vec<Target>,
    ) -> Result<(), MaintainError> {
        let mut deletion = Deletion { number: u64::MAX, from, to, targets };
        // A log that could not be removed would bring the rows back.
        if self.read_state().is_in_memory(&deletion) || !maintenance.frozen_logs.is_empty() {
            self.flush_locked(maintenance)?;
        }
        deletion.number = maintenance.take_number();
        if self.read_state().uncut(&deletion, self.partition_seconds).is_empty() {
            return Ok(());
        }
        self.files.raise_format(self.partition_seconds.cast_unsigned())?;
        deletion.write(&self.files)?;
        self.cut(&deletion);
        maintenance.deletions.push(deletion);
        Ok(())
    }

    /// Makes all segments leave out what is deleted.
    fn cut(&self, deletion: &Deletion) {
        loop {
            let uncut = self.read_state().uncut(deletion, self.partition_seconds);
            // A merge may end meanwhile that had read the rows: then its segment is in the next round.
            let cuts: Vec<_> = uncut
                .into_iter()
                .map(|(segment, ids)| {
                    let cuts = segment.cuts_with(&ids, deletion.from, deletion.to);
                    (segment, cuts)
                })
                .collect();
            let mut writer = self.lock_writer();
            let state = &mut *self.write_state();
            if cuts.is_empty() {
                let spaces: BTreeSet<&str> = deletion.targets.iter().map(|t| t.space.as_str()).collect();
                spaces.into_iter().for_each(|space| state.recount(space, self.partition_seconds));
                // Series and fields may have lost their numbers.
                writer.routes.clear();
                return;
            }
            cuts.into_iter().for_each(|(segment, cuts)| segment.set_cuts(cuts));
            let spaces = deletion.targets.iter().map(|target| target.space.as_str());
            state.take_tiers_of_cut(spaces).iter().for_each(|tier| tier.segment.retire());
        }
    }

    /// Removes the notes of deletions whose rows are in no file any more.
    pub(crate) fn forget_deletions(&self, maintenance: &mut Maintenance) -> Result<(), MaintainError> {
        let mut done = Vec::new();
        for deletion in &maintenance.deletions {
            if self.is_done(deletion)? {
                done.push(deletion.number);
            }
        }
        for number in &done {
            let path = self.files.deletion(*number);
            match self.files.disk().remove(&path) {
                Err(source) if source.kind() != ErrorKind::NotFound => {
                    return Err(FileError { step: "remove", path, source }.into());
                }
                _ => {}
            }
        }
        if !done.is_empty() {
            self.files.sync_dir(&self.files.deleted_dir())?;
            maintenance.deletions.retain(|deletion| !done.contains(&deletion.number));
        }
        Ok(())
    }

    fn is_done(&self, deletion: &Deletion) -> Result<bool, FileError> {
        let (first_s, last_s) = self.partitions_between(deletion);
        let spaces: BTreeSet<&str> = deletion.targets.iter().map(|target| target.space.as_str()).collect();
        for space in spaces {
            for dir in self.partition_dirs(space)? {
                let Some(start_s) =
                    crate::policies::start_of(&dir).filter(|s| (first_s..=last_s).contains(s))
                else {
                    continue;
                };
                for path in self.files_below(&dir, deletion.number)? {
                    if !self.read_state().is_whole(space, start_s, &path) {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    fn partitions_between(&self, deletion: &Deletion) -> (i64, i64) {
        let start = |time| partition_of(time, self.partition_seconds);
        (start(deletion.from), start(deletion.to))
    }

    /// Looks, if there was a reason, whether something is over that was kept for the time after a crash.
    pub(crate) fn tidy(&self) -> Result<(), MaintainError> {
        if self.counters.untidy.swap(false, Ordering::Relaxed) {
            let mut maintenance = self.lock_maintenance();
            self.forget_deletions(&mut maintenance)?;
            self.forget_gone(&maintenance)?;
        }
        Ok(())
    }
}

impl State {
    /// The series by their tags.
    fn target(&self, doomed: &Doomed) -> Option<Target> {
        let catalog = &self.databases.get(&doomed.space)?.catalog;
        let tags = |id: &SeriesId| Some(catalog.get(*id)?.tags.to_vec());
        Some(Target {
            space: doomed.space.clone(),
            measurement: doomed.measurement.clone(),
            series: doomed.series.as_ref().map(|ids| ids.iter().filter_map(tags).collect()),
        })
    }

    fn is_in_memory(&self, deletion: &Deletion) -> bool {
        let heads = || [Some(&self.head), self.frozen.as_deref()].into_iter().flatten();
        let spans = |id| heads().filter_map(move |head| head.span(id));
        let meant = |target| self.series_meant(target).into_iter().flat_map(spans);
        let inside = |span: std::ops::Range<i64>| span.start <= deletion.to && deletion.from <= span.end;
        deletion.targets.iter().flat_map(meant).any(inside)
    }

    /// The series that a target means here.
    fn series_meant(&self, target: &Target) -> Vec<SeriesId> {
        let Some(known) = self.databases.get(&target.space) else { return Vec::new() };
        match &target.series {
            None => known.catalog.series_of(&target.measurement),
            Some(series) => {
                series.iter().filter_map(|tags| known.catalog.find(&target.measurement, tags)).collect()
            }
        }
    }

    /// Segments that show rows which are deleted.
    pub(crate) fn uncut(&self, deletion: &Deletion, partition_seconds: i64) -> Vec<Uncut> {
        let &Deletion { number, from, to, .. } = deletion;
        let range = partition_of(from, partition_seconds)..=partition_of(to, partition_seconds);
        let mut uncut: Vec<Uncut> = Vec::new();
        for target in &deletion.targets {
            let Some(known) = self.databases.get(&target.space) else { continue };
            let meant = self.series_meant(target);
            let segments = known.partitions.range(range.clone()).flat_map(|(_, segments)| segments);
            let tiers = known.tiers.range(range.clone()).flat_map(|(_, tiers)| tiers);
            let kept = tiers.filter(|tier| tier.kept).map(|tier| &tier.segment);
            for segment in segments.chain(kept) {
                if segment.number() >= number {
                    continue;
                }
                let ids = meant.iter().copied().filter(|id| segment.has_uncut(*id, from, to));
                let ids: Vec<SeriesId> = ids.collect();
                match uncut.iter_mut().find(|(known, _)| Arc::ptr_eq(known, segment)) {
                    Some((_, known)) => known.extend(ids),
                    None if !ids.is_empty() => uncut.push((Arc::clone(segment), ids)),
                    None => {}
                }
            }
        }
        uncut
    }

    /// Whether a file is a segment or a tier that is in use and of which nothing is deleted.
    fn is_whole(&self, space: &str, start_s: i64, path: &Path) -> bool {
        let Some(known) = self.databases.get(space) else { return false };
        let segments = known.partitions.get(&start_s).into_iter().flatten();
        let tiers = known.tiers.get(&start_s).into_iter().flatten().map(|tier| &tier.segment);
        segments.chain(tiers).any(|one| one.path() == path && one.cuts().is_empty())
    }
}
