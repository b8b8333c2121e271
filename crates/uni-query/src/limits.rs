//! Bounds on what one request may cost, and the counters kept against them.
//!
//! Owns the defaults. Never measures time: whether it is up, the caller's `cancelled` says.

use crate::error::RunError;
use std::fmt;

/// How many points are read between two looks at [`Limits::cancelled`].
const CANCEL_EVERY_POINTS: u64 = 1024;

/// Bounds on one request. What goes past one is refused with a text that names it.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    /// Points read from the source, over all statements. Default 50,000,000: a day of 500 series at 1 Hz.
    pub max_points: u64,
    /// Windows of `GROUP BY time()` held or filled, over all series and statements. Default 500,000.
    pub max_buckets: usize,
    /// Rows of raw points, and samples kept for `median`, `percentile`, `stddev`, `distinct`, over all statements.
    /// Default 1,000,000.
    pub max_rows: usize,
    /// Length of the text. Default 64 KiB.
    pub max_statement_bytes: usize,
    /// Height of an expression: parentheses, or arithmetic operators in a row. Default 200.
    pub max_nesting: usize,
    /// Asked now and then while points are read; `true` ends the statement with an error.
    pub cancelled: Option<&'a dyn Fn() -> bool>,
}

impl Default for Limits<'_> {
    fn default() -> Self {
        Self {
            max_points: 50_000_000,
            max_buckets: 500_000,
            max_rows: 1_000_000,
            max_statement_bytes: 64 * 1024,
            max_nesting: 200,
            cancelled: None,
        }
    }
}

impl fmt::Debug for Limits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits")
            .field("max_points", &self.max_points)
            .field("max_buckets", &self.max_buckets)
            .field("max_rows", &self.max_rows)
            .field("max_statement_bytes", &self.max_statement_bytes)
            .field("max_nesting", &self.max_nesting)
            .field("cancelled", &self.cancelled.is_some())
            .finish()
    }
}

/// What a request has used up so far.
#[derive(Debug)]
pub(crate) struct Budget<'a> {
    limits: Limits<'a>,
    points: u64,
    buckets: usize,
    rows: usize,
}

impl<'a> Budget<'a> {
    pub(crate) fn new(limits: Limits<'a>) -> Self {
        Self { limits, points: 0, buckets: 0, rows: 0 }
    }

    /// One more point was read.
    pub(crate) fn point(&mut self) -> Result<(), RunError> {
        self.points += 1;
        if self.points > self.limits.max_points {
            return Err(RunError::Points { limit: self.limits.max_points });
        }
        if self.points.is_multiple_of(CANCEL_EVERY_POINTS) { self.check_cancelled() } else { Ok(()) }
    }

    /// Looks whether the caller wants the request to end.
    pub(crate) fn check_cancelled(&self) -> Result<(), RunError> {
        if self.limits.cancelled.is_some_and(|cancelled| cancelled()) {
            return Err(RunError::Interrupted);
        }
        Ok(())
    }

    /// `count` more windows are held.
    pub(crate) fn buckets(&mut self, count: u128) -> Result<(), RunError> {
        let found = count.saturating_add(self.buckets as u128);
        match usize::try_from(found) {
            Ok(n) if n <= self.limits.max_buckets => self.buckets = n,
            _ => return Err(RunError::Buckets { found, limit: self.limits.max_buckets }),
        }
        Ok(())
    }

    /// Whether `count` windows would be too many by themselves.
    pub(crate) fn check_buckets(&self, count: u128) -> Result<(), RunError> {
        let limit = self.limits.max_buckets;
        if count > limit as u128 { Err(RunError::Buckets { found: count, limit }) } else { Ok(()) }
    }

    /// One more row or sample is held.
    pub(crate) fn row(&mut self) -> Result<(), RunError> {
        self.rows += 1;
        if self.rows > self.limits.max_rows {
            return Err(RunError::Rows { limit: self.limits.max_rows });
        }
        Ok(())
    }

    /// One row or sample less is held.
    pub(crate) fn release_row(&mut self) {
        self.rows = self.rows.saturating_sub(1);
    }
}
