//! Times before which points are refused, because they would be dropped at once.
//!
//! Owns the comparison. What the times are is retention's to say.

use hashbrown::HashMap;

/// For one space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cutoffs {
    all: i64,
    measurements: HashMap<Box<str>, i64>,
    /// No point that is not earlier is refused.
    strictest: i64,
}

impl Default for Cutoffs {
    fn default() -> Self {
        Self { all: i64::MIN, measurements: HashMap::new(), strictest: i64::MIN }
    }
}

impl Cutoffs {
    /// One for all points, and later ones for those of some measurements.
    pub(crate) fn new(all: i64, measurements: HashMap<Box<str>, i64>) -> Self {
        let strictest = measurements.values().copied().fold(all, i64::max);
        Self { all, measurements, strictest }
    }

    /// Whether a point is too old.
    pub(crate) fn refuses(&self, measurement: &str, time: i64) -> bool {
        time < self.strictest
            && (time < self.all || self.measurements.get(measurement).is_some_and(|cutoff| time < *cutoff))
    }

    /// The earliest time that is refused of no measurement.
    pub(crate) const fn strictest(&self) -> i64 {
        self.strictest
    }
}
