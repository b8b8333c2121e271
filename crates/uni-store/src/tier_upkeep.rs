//! How long tiers stay, and finding them again.
//!
//! Owns what happens to tiers when the rows that they were made of go: they go too, or, where the operator keeps them
//! longer, get a name that says that they stand by themselves. Never makes one.

use crate::block::Effort;
use crate::bytes::Damaged;
use crate::error::{FileError, MaintainError, OpenError};
use crate::files::Files;
use crate::index::SegmentHead;
use crate::options::Options;
use crate::recovery::{Recovered, SetAside, newer};
use crate::segment::{self, IndexBytes, IndexError, Segment, SegmentSeries};
use crate::state::State;
use crate::store::{Store, nanos};
use crate::tier::{self, Stat, Tier, TierWidth, Tiers, WINDOW};
use crate::tier_files::has_cuts;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use uni_wire::{FieldType, Timestamp};

/// How long the tiers of one width stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TierRetention {
    /// As long as the rows that they were made of.
    #[default]
    WithRows,
    /// Until their partition ended so long ago.
    For(Duration),
    /// For ever.
    Forever,
}

impl TierRetention {
    /// Whether tiers of a partition that ends then are too old.
    pub(crate) fn is_over(self, end_s: i64, now: Timestamp) -> bool {
        let Self::For(age) = self else { return false };
        Timestamp::from_seconds(end_s).nanos() <= now.nanos().saturating_sub(nanos(age))
    }

    /// Whether tiers may stay when their rows are gone.
    pub(crate) fn outlives_rows(self) -> bool {
        self != Self::WithRows
    }
}

/// What is to be done with tiers of one partition: those that go, and those that are to be kept by themselves.
#[derive(Debug)]
struct Aged {
    database: String,
    start_s: i64,
    over: Tiers,
    orphans: Tiers,
}

impl Store {
    /// Removes tiers that are too old, and keeps those whose rows are gone. Belongs to [`Store::merge`], which holds the
    /// lock of merges.
    pub(crate) fn age_tiers(&self, now: Timestamp) -> Result<(), MaintainError> {
        for aged in self.aged_tiers(now) {
            let kept = aged.orphans.iter().map(|tier| self.keep(&aged, tier));
            let kept = kept.collect::<Result<Vec<_>, _>>()?;
            let gone = || aged.over.iter().chain(&aged.orphans);
            let mut writer = self.lock_writer();
            let state = &mut *self.write_state();
            if let Some(tiers) = state.databases.get_mut(&aged.database).map(|database| &mut database.tiers) {
                let list = tiers.entry(aged.start_s).or_default();
                list.retain(|tier| !gone().any(|one| Arc::ptr_eq(one, tier)));
                list.extend(kept);
                tiers.retain(|_, list| !list.is_empty());
            }
            state.recount(&aged.database, self.partition_seconds);
            // Series and fields may have lost their numbers.
            writer.routes.clear();
            gone().for_each(|tier| tier.segment.retire());
        }
        Ok(())
    }

    fn aged_tiers(&self, now: Timestamp) -> Vec<Aged> {
        let state = self.read_state();
        let mut found = Vec::new();
        for (name, database) in &state.databases {
            for (start_s, tiers) in &database.tiers {
                let end_s = start_s.saturating_add(self.partition_seconds);
                let rows_are_gone = !database.partitions.contains_key(start_s);
                let is_over = |tier: &Arc<Tier>| {
                    let retention = self.options.tier_retention(tier.width);
                    retention.is_over(end_s, now) || (rows_are_gone && !retention.outlives_rows())
                };
                let (over, rest): (Tiers, Tiers) = tiers.iter().cloned().partition(is_over);
                let orphans: Tiers = rest.into_iter().filter(|tier| rows_are_gone && !tier.kept).collect();
                if !over.is_empty() || !orphans.is_empty() {
                    found.push(Aged { database: name.clone(), start_s: *start_s, over, orphans });
                }
            }
        }
        found
    }

    /// Gives a tier the name of one that stands by itself.
    fn keep(&self, aged: &Aged, orphan: &Tier) -> Result<Arc<Tier>, FileError> {
        let dir = self.files.partition_dir(&aged.database, aged.start_s);
        let path = tier::path(&self.files, &dir, orphan.segment.number(), orphan.width, true);
        match self.files.disk().link(orphan.segment.path(), &path) {
            // A second name that an earlier attempt gave it.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            linked => linked.map_err(FileError::at("link", &path))?,
        }
        self.files.sync_dir(&dir)?;
        let segment = Arc::new(orphan.segment.linked(path));
        Ok(Arc::new(Tier { width: orphan.width, segment, kept: true, outlives: true }))
    }
}

impl State {
    /// Takes out the tiers of these spaces that were made of rows of which some are deleted now. Those that stand by
    /// themselves stay, and leave out the windows that begin where rows were deleted.
    pub(crate) fn take_tiers_of_cut<'s>(&mut self, spaces: impl IntoIterator<Item = &'s str>) -> Tiers {
        let mut taken = Tiers::new();
        for space in spaces {
            let Some(database) = self.databases.get_mut(space) else { continue };
            let partitions = &database.partitions;
            for (start_s, tiers) in &mut database.tiers {
                if partitions.get(start_s).is_some_and(|segments| has_cuts(segments)) {
                    taken.extend(tiers.extract_if(.., |tier| !tier.kept));
                }
            }
            database.tiers.retain(|_, tiers| !tiers.is_empty());
        }
        taken
    }
}

/// A tier by its name, not opened yet.
#[derive(Debug)]
struct Found {
    database: String,
    start_s: i64,
    number: u64,
    width: TierWidth,
    kept: bool,
    path: PathBuf,
}

/// Opens all tiers that may still be of use and removes the others. To be called when all segments are open.
pub(crate) fn recover(files: &Files, options: &Options, recovered: &mut Recovered) -> Result<(), OpenError> {
    let mut all = Vec::new();
    let names: Vec<String> = recovered.state.databases.keys().cloned().collect();
    for database in names {
        let folder = files.space_dir(&database);
        for partition in files.list(&folder)?.into_iter().filter(|path| files.disk().is_dir(path)) {
            let start = partition.file_name().and_then(|name| name.to_str()?.parse::<i64>().ok());
            if let Some(start_s) = start {
                collect(files, &database, start_s, &partition, &mut all)?;
            }
        }
    }
    // Newest first: where types differ, the newest one keeps the name.
    all.sort_by_key(|tier| std::cmp::Reverse((tier.number, tier.kept)));
    let mut seen: BTreeMap<(String, i64, TierWidth), Vec<(u64, bool)>> = BTreeMap::new();
    for found in all {
        recovered.next_segment = recovered.next_segment.max(found.number.saturating_add(1));
        let database = recovered.state.databases.get(&found.database);
        let rows_are_there = database.is_some_and(|d| d.partitions.contains_key(&found.start_s));
        let others = seen.entry((found.database.clone(), found.start_s, found.width)).or_default();
        // Of those that were not kept the newest counts; one that was kept may still have its first name.
        let newest = |(number, kept): &(u64, bool)| if *kept { *number == found.number } else { true };
        let is_replaced = !found.kept && others.iter().any(newest);
        others.push((found.number, found.kept));
        if is_replaced || !(rows_are_there || options.tier_retention(found.width).outlives_rows()) {
            files.disk().remove(&found.path).map_err(FileError::at("remove", &found.path))?;
        } else {
            open(files, &found, options.tier_retention(found.width).outlives_rows(), recovered)?;
        }
    }
    Ok(())
}

fn collect(
    files: &Files,
    database: &str,
    start_s: i64,
    partition: &Path,
    all: &mut Vec<Found>,
) -> Result<(), FileError> {
    for path in files.list(partition)? {
        if path.extension().is_some_and(|extension| extension == "tmp") {
            files.disk().remove(&path).map_err(FileError::at("remove", &path))?;
        } else if let Some((number, width, kept)) = tier::parse_path(&path) {
            all.push(Found { database: database.to_owned(), start_s, number, width, kept, path });
        }
    }
    Ok(())
}

fn open(files: &Files, found: &Found, outlives: bool, recovered: &mut Recovered) -> Result<(), OpenError> {
    let opened = IndexBytes::read(files, &found.path, Effort::Tier).and_then(|index| {
        let (head, series) = intern(&index, found, &mut recovered.state)?;
        Ok(Segment::new(files, (head, index.version), (found.path.clone(), index.file_bytes), series))
    });
    match opened {
        Ok(segment) => {
            let database = recovered.state.databases.entry(found.database.clone()).or_default();
            let tier = Tier { width: found.width, segment: Arc::new(segment), kept: found.kept, outlives };
            database.tiers.entry(found.start_s).or_default().push(Arc::new(tier));
            Ok(())
        }
        Err(IndexError::Damaged(Damaged(why))) => {
            recovered.report.set_aside.push(SetAside { path: files.set_aside(&found.path)?, why });
            Ok(())
        }
        Err(IndexError::Newer(version)) => Err(newer(&found.path, version, segment::VERSION)),
        Err(IndexError::File(error)) => Err(error.into()),
    }
}

/// Gives numbers to the names of a tier's index.
fn intern(
    index: &IndexBytes,
    found: &Found,
    state: &mut State,
) -> Result<(SegmentHead, Vec<SegmentSeries>), Damaged> {
    let index = index.parse()?;
    if (index.head.number, index.head.start_s) != (found.number, found.start_s) {
        return Err(Damaged("a tier under another one's name"));
    }
    let State { databases, numbers, .. } = state;
    let catalog = &mut databases.entry(found.database.clone()).or_default().catalog;
    let mut schemas: Vec<(Arc<[u32]>, Vec<u32>)> = Vec::with_capacity(index.schemas.len());
    for schema in &index.schemas {
        let mut codes = Vec::with_capacity(schema.columns.len());
        let mut fields: BTreeMap<&str, u32> = BTreeMap::new();
        for (column, _) in &schema.columns {
            let (stat, name) = tier::parse_column(column).ok_or(Damaged("a column that is no statistic"))?;
            let field = match fields.get(name) {
                Some(field) => *field,
                None if name.is_empty() => WINDOW,
                None => {
                    let field_type = type_of(schema, name).ok_or(Damaged("a field without type"))?;
                    let (number, _) = catalog.field(schema.measurement, name, field_type, numbers);
                    fields.insert(name, number);
                    number
                }
            };
            codes.push(tier::code(field, stat));
        }
        schemas.push((codes.into(), fields.into_values().filter(|field| tier::has_room(*field)).collect()));
    }
    let mut series = Vec::with_capacity(index.entries.len());
    for entry in index.entries {
        let (codes, fields) = &schemas[entry.schema];
        let id = catalog.series(index.schemas[entry.schema].measurement, &entry.tags, numbers);
        catalog.mark_live(id, fields.iter().copied());
        series.push(SegmentSeries { id, fields: Arc::clone(codes), blocks: entry.blocks });
    }
    catalog.settle();
    Ok((index.head, series))
}

/// The type of a field, which is that of its least value.
fn type_of(schema: &crate::index::Schema<'_>, name: &str) -> Option<FieldType> {
    let is_least = |column: &&(&str, FieldType)| tier::parse_column(column.0) == Some((Stat::Least, name));
    schema.columns.iter().find(is_least).map(|(_, field_type)| *field_type)
}
