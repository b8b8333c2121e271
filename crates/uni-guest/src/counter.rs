//! Numbers that only grow.
//!
//! Owns a switch and cells, or one atomic word. Never allocates, never locks, never panics.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::source::Gate;
use crate::stripe::{Apart, Striped};

/// Counts events or amounts since boot, while its source is on (MirageOS: a field of a `counter` source).
///
/// Off it costs one relaxed load and a branch. Range: 0 to 2^64 - 1, then it wraps; a reporter shows at most
/// 2^63 - 1. Relaxed: a reader may see two counters at slightly different moments.
///
/// ```
/// use uni_guest::{Counter, Field, Registry, Source, source};
/// static REQUESTS: Counter = Counter::new();
/// source! {
///     /// What is asked of this program.
///     static WEB: Source = Source::new("web").fields(&[Field::counter("requests", &REQUESTS)]);
/// }
/// REQUESTS.increment();
/// assert_eq!(REQUESTS.get(), 0, "no reporter is there");
/// let mut registry = Registry::of_program();
/// registry.set_reporting(true);
/// REQUESTS.increment();
/// assert_eq!(REQUESTS.get(), 1);
/// ```
#[derive(Debug)]
pub struct Counter {
    gate: Apart<Gate>,
    cells: Striped<1>,
}

impl Default for Counter {
    fn default() -> Self {
        Self::new()
    }
}

impl Counter {
    /// A counter at zero, off until its source is turned on.
    #[must_use]
    pub const fn new() -> Self {
        Self { gate: Apart(Gate::new()), cells: Striped::new() }
    }

    /// Counts one.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts `amount`.
    #[inline]
    pub fn add(&self, amount: u64) {
        if self.gate.0.is_on() {
            self.cells.cell().add(0, amount);
        }
    }

    /// What was counted, by all threads.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.cells.sum(0)
    }

    pub(crate) const fn gate(&self) -> &Gate {
        &self.gate.0
    }
}

/// Counts always, whoever listens: for figures that a program needs itself, or that a [`Periodic`](crate::Periodic)
/// source reads. One atomic word; fit for interrupt handlers. Range as for [`Counter`].
///
/// ```
/// use uni_guest::Tally;
/// static FRAMES: Tally = Tally::new();
/// FRAMES.increment();
/// assert_eq!(FRAMES.get(), 1);
/// ```
#[derive(Debug, Default)]
pub struct Tally(AtomicU64);

impl Tally {
    /// A tally at zero.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Counts one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts `amount`; wraps at 2^64.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// What was counted.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
