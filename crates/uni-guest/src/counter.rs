//! A number that only grows.
//!
//! Owns one atomic word. Never allocates, never locks, never panics: fit for interrupt handlers.

use core::sync::atomic::{AtomicU64, Ordering};

/// Counts events since boot. Relaxed: a reader may see two counters at slightly different moments.
///
/// ```
/// use uni_guest::Counter;
/// static REQUESTS: Counter = Counter::new();
/// REQUESTS.increment();
/// assert_eq!(REQUESTS.get(), 1);
/// ```
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// A counter at zero.
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
