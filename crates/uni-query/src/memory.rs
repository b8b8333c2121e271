//! Points in memory: a [`Source`] for tests and examples.
//!
//! Owns no limits and no files. Not meant for many points: a scan walks the whole series.

use crate::source::{Change, Doomed, Policy, Series, Source, SourceError, TagMatcher, Visitor};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;
use uni_wire::line::{Mode, Point, Precision, lines, parse_point};
use uni_wire::{FieldType, FieldValue, Timestamp};

/// Databases in memory.
#[derive(Debug, Default)]
pub struct MemorySource {
    databases: RefCell<BTreeMap<String, Database>>,
}

type Database = BTreeMap<String, Measurement>;

#[derive(Debug, Default)]
struct Measurement {
    fields: BTreeMap<(String, FieldType), ()>,
    series: BTreeMap<Vec<(String, String)>, Stored>,
}

#[derive(Debug)]
struct Stored {
    id: u64,
    points: BTreeMap<Timestamp, BTreeMap<String, FieldValue>>,
}

impl MemorySource {
    /// Without any database.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the points of a text in line protocol to `db`, which is made if missing. Lines without a time are at 0.
    ///
    /// # Errors
    /// The first line that is no line protocol, and why. The lines before it were added.
    pub fn load(&mut self, db: &str, text: &str) -> Result<(), String> {
        self.databases.get_mut().entry(db.to_owned()).or_default();
        for line in lines(text.as_bytes()) {
            let point = parse_point(line, Mode::Strict, Timestamp(0), Precision::Nanoseconds)
                .map_err(|error| format!("'{}': {}", String::from_utf8_lossy(line), error.reason(line)))?;
            self.add(db, point);
        }
        Ok(())
    }

    fn add(&mut self, db: &str, point: Point) {
        let databases = self.databases.get_mut();
        let id: usize = databases.values().flat_map(BTreeMap::values).map(|m| m.series.len()).sum();
        let database = databases.entry(db.to_owned()).or_default();
        let measurement = database.entry(point.measurement.into()).or_default();
        for (name, value) in &point.fields {
            measurement.fields.insert((name.to_string(), value.field_type()), ());
        }
        let tags = point.tags.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        let stored = Stored { id: id as u64, points: BTreeMap::new() };
        let series = measurement.series.entry(tags).or_insert(stored);
        let fields = point.fields.into_iter().map(|(name, value)| (name.into(), value));
        series.points.entry(point.time).or_default().extend(fields);
    }

    fn with<T: Default>(&self, db: &str, measurement: &str, look: impl Fn(&Measurement) -> T) -> T {
        let databases = self.databases.borrow();
        databases.get(db).and_then(|database| database.get(measurement)).map(look).unwrap_or_default()
    }
}

impl Source for MemorySource {
    fn databases(&self) -> Vec<String> {
        self.databases.borrow().keys().cloned().collect()
    }

    fn has_database(&self, db: &str) -> bool {
        self.databases.borrow().contains_key(db)
    }

    fn measurements(&self, db: &str) -> Vec<String> {
        self.databases.borrow().get(db).map(|database| database.keys().cloned().collect()).unwrap_or_default()
    }

    fn fields(&self, db: &str, measurement: &str) -> Vec<(String, FieldType)> {
        self.with(db, measurement, |measurement| measurement.fields.keys().cloned().collect())
    }

    /// Gives all series: the matchers are only a hint.
    fn series(&self, db: &str, measurement: &str, _matchers: &[TagMatcher]) -> Vec<Series> {
        self.with(db, measurement, |measurement| {
            let series = |(tags, stored): (&Vec<_>, &Stored)| Series { id: stored.id, tags: tags.clone() };
            measurement.series.iter().map(series).collect()
        })
    }

    fn scan(
        &self,
        db: &str,
        series: u64,
        fields: &[&str],
        from: Timestamp,
        to: Timestamp,
        visit: Visitor<'_>,
    ) -> Result<(), SourceError> {
        if from > to {
            return Ok(());
        }
        let databases = self.databases.borrow();
        let mut all =
            databases.get(db).into_iter().flat_map(BTreeMap::values).flat_map(|m| m.series.values());
        let Some(stored) = all.find(|stored| stored.id == series) else { return Ok(()) };
        for (time, point) in stored.points.range(from..=to) {
            let values: Vec<_> = fields.iter().map(|field| point.get(*field).cloned()).collect();
            if values.iter().any(Option::is_some) && visit(*time, &values).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn policies(&self, _db: &str) -> Vec<Policy> {
        let shard_duration = Duration::from_secs(7 * 24 * 3600);
        let name = "autogen".to_owned();
        vec![Policy { name, duration: Duration::ZERO, shard_duration, replicas: 1, is_default: true }]
    }

    /// Makes and drops databases; there is one policy.
    fn change(&self, change: &Change) -> Result<(), SourceError> {
        match change {
            Change::CreateDatabase { name, .. } if name.is_empty() => {
                return Err(SourceError::new("invalid name".to_owned()));
            }
            Change::CreateDatabase { name, .. } => {
                self.databases.borrow_mut().entry(name.clone()).or_default();
            }
            Change::DropDatabase { name } => {
                self.databases.borrow_mut().remove(name);
            }
            _ => return Err(SourceError::new("points in memory have one retention policy".to_owned())),
        }
        Ok(())
    }

    fn delete(&self, (from, to): (Timestamp, Timestamp), doomed: &[Doomed]) -> Result<(), SourceError> {
        let mut databases = self.databases.borrow_mut();
        for Doomed { space, measurement, series } in doomed {
            let Some(database) = databases.get_mut(space) else { continue };
            let Some(known) = database.get_mut(measurement) else { continue };
            for stored in known.series.values_mut() {
                if series.as_ref().is_none_or(|ids| ids.contains(&stored.id)) {
                    stored.points.retain(|time, _| *time < from || to < *time);
                }
            }
            known.series.retain(|_, stored| !stored.points.is_empty());
            if known.series.is_empty() {
                database.remove(measurement);
            }
        }
        Ok(())
    }
}
