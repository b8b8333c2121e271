//! Numbers that rise and fall.
//!
//! Owns one atomic word and a switch. Never allocates, never locks, never panics.

use core::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::source::Gate;

/// A signed level: a queue's length, open connections. Range: that of `i64`; it wraps.
///
/// [`set`](Self::set) does nothing while the source is off. [`add`](Self::add) and [`subtract`](Self::subtract) count
/// always: a level that misses a step would be wrong for ever.
///
/// ```
/// use uni_guest::Gauge;
/// static OPEN: Gauge = Gauge::new();
/// OPEN.add(3);
/// OPEN.subtract(1);
/// assert_eq!(OPEN.get(), 2);
/// ```
#[derive(Debug, Default)]
pub struct Gauge {
    gate: Gate,
    value: AtomicI64,
}

impl Gauge {
    /// A gauge at zero.
    #[must_use]
    pub const fn new() -> Self {
        Self { gate: Gate::new(), value: AtomicI64::new(0) }
    }

    /// The level is `value` now; ignored while the source is off.
    #[inline]
    pub fn set(&self, value: i64) {
        if self.gate.is_on() {
            self.value.store(value, Ordering::Relaxed);
        }
    }

    /// The level has risen by `amount`.
    pub fn add(&self, amount: i64) {
        self.value.fetch_add(amount, Ordering::Relaxed);
    }

    /// The level has fallen by `amount`.
    pub fn subtract(&self, amount: i64) {
        self.value.fetch_sub(amount, Ordering::Relaxed);
    }

    /// The level.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.value.load(Ordering::Relaxed)
    }

    pub(crate) const fn gate(&self) -> &Gate {
        &self.gate
    }
}

/// A level that is no whole number: a load, a share, a temperature. At first it has no value, and is not reported;
/// nor is one that is not finite.
#[derive(Debug)]
pub struct FloatGauge {
    gate: Gate,
    /// Complement of the bits, so that a static of zeros says `NaN`.
    value: AtomicU64,
}

impl Default for FloatGauge {
    fn default() -> Self {
        Self::new()
    }
}

impl FloatGauge {
    /// A gauge without a value.
    #[must_use]
    pub const fn new() -> Self {
        Self { gate: Gate::new(), value: AtomicU64::new(0) }
    }

    /// The level is `value` now; ignored while the source is off.
    #[inline]
    pub fn set(&self, value: f64) {
        if self.gate.is_on() {
            self.value.store(!value.to_bits(), Ordering::Relaxed);
        }
    }

    /// Changes the level by `change`; the first change starts at 0. Counts always, as [`Gauge::add`] does.
    pub fn add(&self, change: f64) {
        let add = |bits: u64| {
            let old = f64::from_bits(!bits);
            Some(!(if old.is_nan() { change } else { old + change }).to_bits())
        };
        // Never fails: there is always a new value.
        let _ = self.value.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// The level; `NaN` if it was never set.
    #[must_use]
    pub fn get(&self) -> f64 {
        f64::from_bits(!self.value.load(Ordering::Relaxed))
    }

    pub(crate) const fn gate(&self) -> &Gate {
        &self.gate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_gauge_has_no_value_until_it_is_set() {
        let gauge = FloatGauge::new();
        assert!(gauge.get().is_nan());
        gauge.set(1.5);
        assert!(gauge.get().is_nan(), "it is off");
        gauge.gate().set(true);
        gauge.set(1.5);
        gauge.add(-2.0);
        assert!((gauge.get() + 0.5).abs() < f64::EPSILON);
    }
}
