//! How much a trace samples.
//!
//! Owns the range: above 0 and at most 1.

use core::fmt;

/// The probability with which each word of 8 bytes is sampled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingRate(f64);

/// No rate is `NaN`.
impl Eq for SamplingRate {}

impl SamplingRate {
    /// A word in ten thousand, as memtrace has it: a sample in 80 KB.
    pub const DEFAULT: Self = Self(1e-4);

    /// A probability above 0 and at most 1.
    #[must_use]
    pub fn new(probability: f64) -> Option<Self> {
        (probability > 0.0 && probability <= 1.0).then_some(Self(probability))
    }

    /// As [`new`](Self::new), written as `0.0001` or `1e-4`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::new(text.parse().ok()?)
    }

    /// The probability.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl Default for SamplingRate {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for SamplingRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_probabilities_above_0_are_rates() {
        for bad in ["0", "-0.1", "1.0001", "nan", "inf", "", "often"] {
            assert_eq!(SamplingRate::parse(bad), None, "{bad}");
        }
        let rates = ["1e-4", "1", "5e-324"].map(|text| SamplingRate::parse(text).map(SamplingRate::get));
        assert_eq!(rates, [Some(0.0001), Some(1.0), Some(5e-324)]);
        assert_eq!(std::format!("{}", SamplingRate::DEFAULT), "0.0001");
    }
}
