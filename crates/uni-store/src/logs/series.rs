//! Which VMs, kinds, severities and programs there are: each combination has a number.
//!
//! Owns the numbers, which live as long as the process and are never used again.

use crate::logs::entry::{LogEntry, LogKind, MAX_SERIES, MAX_SERIES_OF_VM};
use hashbrown::{Equivalent, HashMap};
use std::sync::Arc;

/// Entries of one VM, kind, severity and program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogSeries {
    /// Whose they are; empty if nobody's.
    pub vm: Box<str>,
    /// What they are.
    pub kind: LogKind,
    /// How bad, 0 to 7.
    pub severity: u8,
    /// The program; empty where none is named.
    pub app: Box<str>,
}

/// The series of an entry, borrowed: it has the same hash, field by field.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) struct SeriesRef<'a> {
    pub(crate) vm: &'a str,
    pub(crate) kind: LogKind,
    pub(crate) severity: u8,
    pub(crate) app: &'a str,
}

impl<'a> SeriesRef<'a> {
    pub(crate) const fn of(entry: &'a LogEntry) -> Self {
        Self { vm: &entry.vm, kind: entry.kind, severity: entry.severity, app: &entry.app }
    }

    fn owned(self) -> LogSeries {
        LogSeries { vm: self.vm.into(), kind: self.kind, severity: self.severity, app: self.app.into() }
    }
}

impl Equivalent<Arc<LogSeries>> for SeriesRef<'_> {
    fn equivalent(&self, key: &Arc<LogSeries>) -> bool {
        (self.kind, self.severity, self.vm, self.app) == (key.kind, key.severity, &*key.vm, &*key.app)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    numbers: HashMap<Arc<LogSeries>, u32>,
    series: Vec<Arc<LogSeries>>,
    of_vm: HashMap<Box<str>, usize>,
}

impl Catalog {
    /// Whether the series is known or may become so.
    pub(crate) fn admits(&self, series: SeriesRef<'_>) -> bool {
        self.numbers.contains_key(&series)
            || (self.series.len() < MAX_SERIES
                && self.of_vm.get(series.vm).is_none_or(|count| *count < MAX_SERIES_OF_VM))
    }

    pub(crate) fn add(&mut self, series: SeriesRef<'_>) {
        if self.numbers.contains_key(&series) {
            return;
        }
        let (number, series) = (self.series.len() as u32, Arc::new(series.owned()));
        *self.of_vm.entry(series.vm.clone()).or_default() += 1;
        self.numbers.insert(Arc::clone(&series), number);
        self.series.push(series);
    }

    pub(crate) fn find(&self, series: SeriesRef<'_>) -> Option<u32> {
        self.numbers.get(&series).copied()
    }

    pub(crate) fn get(&self, number: u32) -> Option<Arc<LogSeries>> {
        self.series.get(number as usize).cloned()
    }
}
