//! The store as the daemon uses it: the adapter between `uni-store` and the query engine, and upkeep.
//!
//! Owns no data and no file: joins two libraries that do not know each other. A database is meant with its default
//! retention policy, unless a name has both ([`named`]).

mod changes;
pub(crate) mod events;

use std::ops::ControlFlow;
use std::sync::Arc;

use uni_query::{
    Change, Doomed, FieldSummary, Grid, Policy, Series, Source, SourceError, Summed, SummedVisitor,
    TagMatcher, TagOp, WindowSum, WindowSummary,
};
use uni_store::{
    AppendError, Appended, AppendedLines, DEFAULT_POLICY, LineEvent, LineOptions, LogEntry, LogsAppended,
    Matcher, Op, Point, PolicyError, SeriesId, Store, TierSum,
};
use uni_wire::{FieldType, FieldValue, Timestamp};

use crate::ingest::{DEFAULT_DATABASE, Durable};
use crate::log_points;

/// Between database and policy in a name; no name has it.
const SEPARATOR: char = '\u{1}';

/// The store, with the promise that `--fsync` makes for acknowledged writes.
#[derive(Debug)]
pub(crate) struct Storage {
    store: Store,
}

impl Storage {
    /// Wraps an open store and makes the default database, so that queries before the first point find it.
    ///
    /// # Errors
    /// When the database cannot be made.
    pub(crate) fn new(store: Store) -> Result<Arc<Self>, PolicyError> {
        store.create_database(DEFAULT_DATABASE)?;
        Ok(Arc::new(Self { store }))
    }

    /// Appends a batch, making the database if need be; with [`Durable::AsConfigured`] returns once the batch is
    /// as durable as `--fsync` promises.
    ///
    /// # Errors
    /// When the batch could not be written; the sender may send it again.
    pub(crate) fn append(
        &self,
        database: &str,
        points: &[Point],
        durable: Durable,
    ) -> Result<Appended, RefusedBatch> {
        match self.append_existing(&self.place_or_make(database)?, points, durable) {
            // It was dropped this very moment.
            Err(AppendError::NoDatabase { .. }) => {
                Ok(self.append_existing(&self.place_or_make(database)?, points, durable)?)
            }
            other => Ok(other?),
        }
    }

    /// As [`Storage::append`], of line protocol. `report` is called while the store is locked.
    ///
    /// # Errors
    /// As [`Storage::append`].
    pub(crate) fn append_lines<'b>(
        &self,
        database: &str,
        body: &'b [u8],
        options: &LineOptions<'_>,
        durable: Durable,
        report: &mut dyn FnMut(LineEvent<'b>),
    ) -> Result<AppendedLines, RefusedBatch> {
        let place = self.place_or_make(database)?;
        let appended = match self.store.append_lines(&place, body, options, report) {
            Err(AppendError::NoDatabase { .. }) => {
                self.store.append_lines(&self.place_or_make(database)?, body, options, report)?
            }
            other => other?,
        };
        if durable == Durable::AsConfigured {
            self.store.wait_durable(&appended)?;
        }
        Ok(appended)
    }

    fn append_existing(
        &self,
        database: &str,
        points: &[Point],
        durable: Durable,
    ) -> Result<Appended, AppendError> {
        match durable {
            Durable::No => self.store.append(database, points),
            Durable::AsConfigured => self.store.append_durable(database, points),
        }
    }

    /// Appends logs and events, which the kernel has when this returns.
    ///
    /// # Errors
    /// When they could not be written.
    pub(crate) fn append_logs(&self, entries: &[LogEntry]) -> Result<LogsAppended, AppendError> {
        self.store.logs().append(entries)
    }

    /// What the store calls a database, or what [`named`] made; a database that is missing is made.
    fn place_or_make(&self, name: &str) -> Result<String, PolicyError> {
        match self.place(name) {
            Err(PolicyError::DatabaseNotFound { name }) => {
                self.store.create_database(&name)?;
                self.place(&name)
            }
            other => other,
        }
    }

    fn place(&self, name: &str) -> Result<String, PolicyError> {
        match name.split_once(SEPARATOR) {
            Some((database, policy)) => self.store.space(database, Some(policy)),
            None => self.store.space(name, None),
        }
    }

    /// The name to append under; an empty policy is the default one. A database may still be missing.
    ///
    /// # Errors
    /// There is no such policy.
    pub(crate) fn writable(&self, database: &str, policy: &str) -> Result<String, PolicyError> {
        let policy = Some(policy).filter(|policy| !policy.is_empty());
        match (self.store.space(database, policy), policy) {
            // That of a database which is made by the write.
            (Err(PolicyError::DatabaseNotFound { .. }), None | Some(DEFAULT_POLICY)) => {
                Ok(database.to_owned())
            }
            (Err(PolicyError::DatabaseNotFound { .. }), Some(policy)) => {
                Err(PolicyError::PolicyNotFound { name: policy.to_owned() })
            }
            (Err(error), _) => Err(error),
            (Ok(_), None) => Ok(database.to_owned()),
            (Ok(_), Some(policy)) => Ok(named(database, policy)),
        }
    }

    /// The store itself, for upkeep and figures.
    pub(crate) const fn store(&self) -> &Store {
        &self.store
    }
}

/// A policy of a database, as one name.
fn named(database: &str, policy: &str) -> String {
    format!("{database}{SEPARATOR}{policy}")
}

/// Why a whole batch was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefusedBatch {
    /// Its database does not exist and cannot be made.
    #[error(transparent)]
    Database(#[from] PolicyError),
    /// It could not be written.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// An error with all its reasons, in one line: that a disk is full is for the sender to know.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut reason = error.source();
    while let Some(cause) = reason {
        text = format!("{text}: {cause}");
        reason = cause.source();
    }
    text
}

impl Source for Storage {
    fn databases(&self) -> Vec<String> {
        self.store.databases()
    }

    fn has_database(&self, db: &str) -> bool {
        self.store.has_database(db)
    }

    fn measurements(&self, db: &str) -> Vec<String> {
        let mut names = self.place(db).map_or_else(|_| Vec::new(), |place| self.store.measurements(&place));
        if has_logs(db) {
            names.extend(log_points::measurements(self.store.logs()).into_iter().map(str::to_owned));
            names.sort_unstable();
            names.dedup();
        }
        names
    }

    fn fields(&self, db: &str, measurement: &str) -> Vec<(String, FieldType)> {
        let mut fields =
            self.place(db).map_or_else(|_| Vec::new(), |place| self.store.fields(&place, measurement));
        if has_logs(db) {
            for &(name, of_type) in log_points::fields(self.store.logs(), measurement) {
                let field = (name.to_owned(), of_type);
                if !fields.contains(&field) {
                    fields.push(field);
                }
            }
        }
        fields
    }

    fn series(&self, db: &str, measurement: &str, matchers: &[TagMatcher]) -> Vec<Series> {
        let known: Vec<Matcher> = matchers.iter().filter_map(matcher).collect();
        let Ok(place) = self.place(db) else { return Vec::new() };
        let found = self.store.series(&place, measurement, &known);
        let owned = |(key, value): (Box<str>, Box<str>)| (key.into_string(), value.into_string());
        let mut all: Vec<Series> = found
            .into_iter()
            .map(|s| Series { id: s.id.number(), tags: s.tags.into_iter().map(owned).collect() })
            .collect();
        if has_logs(db) {
            all.extend(log_points::series(self.store.logs(), measurement, matchers));
        }
        all
    }

    fn scan(
        &self,
        db: &str,
        series: u64,
        fields: &[&str],
        from: Timestamp,
        to: Timestamp,
        visit: &mut dyn FnMut(Timestamp, &[Option<FieldValue>]) -> ControlFlow<()>,
    ) -> Result<(), SourceError> {
        if let Some(scanned) = log_points::scan(self.store.logs(), series, fields, (from, to), visit) {
            return scanned;
        }
        let place = self.place(db).map_err(|error| SourceError::new(error.to_string()))?;
        self.store
            .scan(&place, SeriesId::from_number(series), fields, from, to, visit)
            .map_err(|error| SourceError::new(error.to_string()))
    }

    fn scan_summed(
        &self,
        db: &str,
        series: u64,
        fields: &[&str],
        range: (Timestamp, Timestamp),
        grid: Option<Grid>,
        visit: SummedVisitor<'_>,
    ) -> Result<(), SourceError> {
        let mut rows = |time: Timestamp, values: &[Option<FieldValue>]| {
            visit(Summed::Point(time, values)).map_continue(|_taken| ())
        };
        if let Some(scanned) = log_points::scan(self.store.logs(), series, fields, range, &mut rows) {
            return scanned;
        }
        let place = self.place(db).map_err(|error| SourceError::new(error.to_string()))?;
        let id = SeriesId::from_number(series);
        let grid = grid.map(|Grid { every, offset }| uni_store::Grid { every, offset });
        let mut visit = |item: uni_store::Summed<'_>| match item {
            uni_store::Summed::Row(time, values) => visit(Summed::Point(time, values)),
            uni_store::Summed::Window(window) => visit(Summed::Window(&window_summary(window))),
        };
        let scanned = self.store.scan_summed(&place, id, fields, range, grid, &mut visit);
        scanned.map_err(|error| SourceError::new(error.to_string()))
    }

    fn space(&self, db: &str, policy: Option<&str>) -> Result<String, String> {
        match self.store.space(db, policy) {
            // One name for one place, whether the policy was named or is the default one.
            Ok(space) => Ok(if space == db { named(db, DEFAULT_POLICY) } else { space }),
            Err(PolicyError::PolicyNotFound { name }) => Err(name),
            Err(_) => Ok(db.to_owned()),
        }
    }

    fn spaces(&self, db: &str) -> Vec<String> {
        self.policies(db).into_iter().map(|policy| named(db, &policy.name)).collect()
    }

    fn policies(&self, db: &str) -> Vec<Policy> {
        changes::policies(&self.store, db)
    }

    fn change(&self, change: &Change) -> Result<(), SourceError> {
        changes::change(&self.store, change).map_err(|error| SourceError::new(error.to_string()))
    }

    fn delete(&self, (from, to): (Timestamp, Timestamp), doomed: &[Doomed]) -> Result<(), SourceError> {
        let store_names = |doomed: &Doomed| {
            let space = self.place(&doomed.space).ok()?;
            let ids = doomed.series.as_ref();
            let series = ids.map(|ids| ids.iter().copied().map(SeriesId::from_number).collect());
            Some(uni_store::Doomed { space, measurement: doomed.measurement.clone(), series })
        };
        let doomed: Vec<_> = doomed.iter().filter_map(store_names).collect();
        self.store.delete(from, to, &doomed).map_err(|error| SourceError::new(error.to_string()))
    }
}

/// Whether logs and events are shown among the points of this place.
fn has_logs(db: &str) -> bool {
    match db.split_once(SEPARATOR) {
        Some((database, policy)) => database == DEFAULT_DATABASE && policy == DEFAULT_POLICY,
        None => db == DEFAULT_DATABASE,
    }
}

/// A window in the words of the query engine.
fn window_summary(window: &uni_store::WindowSummary) -> WindowSummary {
    let field = |summary: &uni_store::FieldSummary| FieldSummary {
        count: summary.count,
        min: summary.min.clone(),
        max: summary.max.clone(),
        first: summary.first.clone(),
        last: summary.last.clone(),
        sum: match &summary.sum {
            TierSum::Exact(value) => WindowSum::Exact(value.clone()),
            TierSum::About(value) => WindowSum::About(*value),
        },
    };
    WindowSummary {
        start: window.start,
        span: window.span,
        is_all: window.is_all,
        fields: window.fields.iter().map(|summary| summary.as_ref().map(field)).collect(),
    }
}

/// A matcher for the store. One that it cannot take (a pattern too large) is left out: the engine checks every
/// series again, so that the answer is the same and only dearer.
fn matcher(matcher: &TagMatcher) -> Option<Matcher> {
    let op = match matcher.op {
        TagOp::Equal => Op::Equal,
        TagOp::NotEqual => Op::NotEqual,
        TagOp::Regex => Op::Regex,
        TagOp::NotRegex => Op::NotRegex,
    };
    Matcher::new(&matcher.key, op, &matcher.value).ok()
}

#[cfg(test)]
mod tests;
