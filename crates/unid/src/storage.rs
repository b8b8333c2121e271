//! The store as the daemon uses it: the adapter between `uni-store` and the query engine, and upkeep.
//!
//! Owns no data and no file: joins two libraries that do not know each other.

use std::ops::ControlFlow;
use std::sync::Arc;

use uni_query::{
    FieldSummary, Grid, Series, Source, SourceError, Summed, SummedVisitor, TagMatcher, TagOp, WindowSum,
    WindowSummary,
};
use uni_store::{
    AppendError, Appended, AppendedLines, CreateDatabaseError, LineEvent, LineOptions, LogEntry,
    LogsAppended, Matcher, Op, Point, Store, TierSum,
};
use uni_wire::{FieldType, FieldValue, Timestamp};

use crate::ingest::{DEFAULT_DATABASE, Durable};
use crate::log_points;

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
    pub(crate) fn new(store: Store) -> Result<Arc<Self>, CreateDatabaseError> {
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
        match self.append_existing(database, points, durable) {
            Err(AppendError::NoDatabase { .. }) => {
                self.store.create_database(database)?;
                Ok(self.append_existing(database, points, durable)?)
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
        let appended = match self.store.append_lines(database, body, options, report) {
            Err(AppendError::NoDatabase { .. }) => {
                self.store.create_database(database)?;
                self.store.append_lines(database, body, options, report)?
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

    /// The store itself, for upkeep and figures.
    pub(crate) const fn store(&self) -> &Store {
        &self.store
    }
}

/// Why a whole batch was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefusedBatch {
    /// Its database does not exist and cannot be made.
    #[error(transparent)]
    Database(#[from] CreateDatabaseError),
    /// It could not be written.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl Source for Storage {
    fn databases(&self) -> Vec<String> {
        self.store.databases()
    }

    fn has_database(&self, db: &str) -> bool {
        self.store.has_database(db)
    }

    fn measurements(&self, db: &str) -> Vec<String> {
        let mut names = self.store.measurements(db);
        if db == DEFAULT_DATABASE {
            names.extend(log_points::measurements(self.store.logs()).into_iter().map(str::to_owned));
            names.sort_unstable();
            names.dedup();
        }
        names
    }

    fn fields(&self, db: &str, measurement: &str) -> Vec<(String, FieldType)> {
        let mut fields = self.store.fields(db, measurement);
        if db == DEFAULT_DATABASE {
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
        let found = self.store.series(db, measurement, &known);
        let owned = |(key, value): (Box<str>, Box<str>)| (key.into_string(), value.into_string());
        let mut all: Vec<Series> = found
            .into_iter()
            .map(|s| Series { id: s.id.number(), tags: s.tags.into_iter().map(owned).collect() })
            .collect();
        if db == DEFAULT_DATABASE {
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
        self.store
            .scan(db, uni_store::SeriesId::from_number(series), fields, from, to, visit)
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
        let id = uni_store::SeriesId::from_number(series);
        let grid = grid.map(|Grid { every, offset }| uni_store::Grid { every, offset });
        let mut visit = |item: uni_store::Summed<'_>| match item {
            uni_store::Summed::Row(time, values) => visit(Summed::Point(time, values)),
            uni_store::Summed::Window(window) => visit(Summed::Window(&window_summary(window))),
        };
        let scanned = self.store.scan_summed(db, id, fields, range, grid, &mut visit);
        scanned.map_err(|error| SourceError::new(error.to_string()))
    }

    fn create_database(&self, name: &str) -> Result<(), SourceError> {
        self.store.create_database(name).map_err(|error| SourceError::new(error.to_string()))
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
