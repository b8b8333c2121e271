//! Points that a push brought, on their way into the store.
//!
//! Owns the pieces in which they go there, and what became of them, for [`super::remote_write`] and [`super::otlp`].

use axum::http::StatusCode;
use uni_store::Point;

use super::App;
use super::body::Refusal;
use crate::ingest::{Durable, stored};
use crate::storage::told;

/// Points stored at one time, and the bytes that their names may have by then: bounds what a large body takes as points.
const BATCH_POINTS: usize = 5000;
const BATCH_BYTES: usize = 4 << 20;

/// The points of one request.
pub(super) struct Batch<'a> {
    app: &'a App,
    database: &'a str,
    points: Vec<Point>,
    bytes: usize,
    failed: Option<String>,
    /// Points that the store refused, and why the first of them.
    pub(super) refused: u64,
    pub(super) first_reason: Option<String>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(app: &'a App, database: &'a str) -> Self {
        let points = Vec::new();
        Self { app, database, points, bytes: 0, failed: None, refused: 0, first_reason: None }
    }

    pub(super) fn push(&mut self, point: uni_wire::line::Point) {
        self.bytes += point.tags.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        self.points.push(stored(point));
        if self.points.len() >= BATCH_POINTS || self.bytes >= BATCH_BYTES {
            self.store();
        }
    }

    /// Stores what is left.
    ///
    /// # Errors
    /// When the store could not write; the sender may send everything again.
    pub(super) fn finish(&mut self) -> Result<(), Refusal> {
        self.store();
        match self.failed.take() {
            Some(error) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error)),
            None => Ok(()),
        }
    }

    fn store(&mut self) {
        if !self.points.is_empty() && self.failed.is_none() {
            match self.app.ingest.append(self.database, &self.points, Durable::AsConfigured) {
                Ok(appended) => {
                    self.refused += appended.rejected.len() as u64;
                    if let Some(rejected) = appended.rejected.first() {
                        self.first_reason.get_or_insert_with(|| rejected.reason.to_string());
                    }
                }
                Err(error) => self.failed = Some(told(&error)),
            }
        }
        self.points.clear();
        self.bytes = 0;
    }
}
