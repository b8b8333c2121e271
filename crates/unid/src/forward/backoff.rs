//! How long to wait before the next try: twice as long each time, spread so that many daemons do not come back at
//! once. Never waits itself and never makes a random number.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// The waits of one run of failures.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The next wait; `random` is any number and spreads it over the second half.
    pub(super) fn wait(&mut self, random: u32) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(LONGEST);
        whole / 2 + (whole / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_are_spread_over_their_second_half() {
        let (mut short, mut long) = (Backoff::default(), Backoff::default());
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            let whole = Duration::from_secs(seconds);
            assert_eq!(short.wait(0), whole / 2);
            assert_eq!(long.wait(u32::MAX), whole);
        }
    }
}
