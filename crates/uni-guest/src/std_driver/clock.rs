//! Time and chance, from the operating system.

use core::hash::{BuildHasher as _, Hasher as _};
use std::hash::RandomState;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A wall clock that is off by more was set; less is how clocks are kept right.
const STEP_NS: u64 = 100_000_000;

/// A monotonic clock that begins with the agent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now_ns(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Nanoseconds since the Unix epoch; negative before.
pub(super) fn wall_ns() -> i64 {
    let nanoseconds = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => nanoseconds(since),
        Err(before) => -nanoseconds(before.duration()),
    }
}

/// Any number, for spreading tries.
pub(super) fn random() -> u32 {
    (RandomState::new().build_hasher().finish() >> 32) as u32
}

/// Notices when the wall clock was set.
#[derive(Debug)]
pub(super) struct StepWatch {
    /// Wall time less monotonic time.
    offset_ns: i64,
}

impl StepWatch {
    pub(super) const fn new(now_ns: u64, wall_ns: i64) -> Self {
        Self { offset_ns: wall_ns.saturating_sub_unsigned(now_ns) }
    }

    /// How far the clock was set since the last look, if it was. What it drifts is forgotten each time.
    pub(super) fn look(&mut self, now_ns: u64, wall_ns: i64) -> Option<u64> {
        let offset_ns = wall_ns.saturating_sub_unsigned(now_ns);
        let off_ns = offset_ns.abs_diff(self.offset_ns);
        self.offset_ns = offset_ns;
        (off_ns >= STEP_NS).then_some(off_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_noticed_once_and_drift_is_not() {
        let mut watch = StepWatch::new(5, 1_000);
        assert_eq!(watch.look(10, 1_005), None);
        assert_eq!(watch.look(1_000_000_010, 1_000_901_005), None);
        assert_eq!(watch.look(2_000_000_010, 9_000_901_005), Some(7_000_000_000));
        assert_eq!(watch.look(3_000_000_010, 3_000_901_005), Some(7_000_000_000));
        assert_eq!(watch.look(4_000_000_010, 4_000_901_005), None);
    }
}
