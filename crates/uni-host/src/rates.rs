//! What changed between two samples, per second.
//!
//! Owns the arithmetic and its refusals: no rate over no time, none across a restart.

use crate::sample::ProcessSample;

/// Rates over the time between two samples of one process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Processor time over wall time, percent; 100 is one processor fully used. Never negative. Resolution is
    /// that of [`ProcessSample::cpu`]: over 1 s, a hundredth for a process that mostly sleeps, and the
    /// scheduler's tick (0.1 to 1) for each thread that runs while it is looked at.
    pub cpu_percent: f64,
}

impl Rates {
    /// The rates from `before` to `after`. `None` when they are not two moments, in order, of one process.
    #[must_use]
    pub fn between(before: &ProcessSample, after: &ProcessSample) -> Option<Self> {
        let wall = after.at.checked_sub(before.at).filter(|wall| !wall.is_zero())?;
        let cpu = after.cpu.checked_sub(before.cpu)?;
        let same_process = before.start_ticks == after.start_ticks;
        same_process.then(|| Self { cpu_percent: cpu.as_secs_f64() / wall.as_secs_f64() * 100.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::points::tests::sample;
    use std::time::Duration;

    #[test]
    fn cpu_is_processor_time_over_wall_time() {
        let before = sample();
        let mut after = before;
        after.at += Duration::from_secs(2);
        after.cpu += Duration::from_secs(3);
        assert_eq!(Rates::between(&before, &after).unwrap().cpu_percent, 150.0);
    }

    #[test]
    fn less_than_a_clock_tick_is_seen() {
        let before = sample();
        let mut after = before;
        after.at += Duration::from_secs(1);
        after.cpu += Duration::from_micros(1700);
        let percent = Rates::between(&before, &after).unwrap().cpu_percent;
        assert!((percent - 0.17).abs() < 1e-9, "{percent}");
    }

    #[test]
    fn there_is_no_rate_over_no_time_backwards_or_across_a_restart() {
        let before = sample();
        assert_eq!(Rates::between(&before, &before), None);
        let mut after = before;
        after.at += Duration::from_secs(1);
        assert_eq!(Rates::between(&after, &before), None);
        let mut restarted = after;
        restarted.start_ticks += 1;
        assert_eq!(Rates::between(&before, &restarted), None);
        let mut fell = after;
        fell.cpu = Duration::ZERO;
        assert_eq!(Rates::between(&before, &fell), None);
    }
}
