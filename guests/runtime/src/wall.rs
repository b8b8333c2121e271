//! Wall time from a clock that only tells whole seconds. Each reading of the real-time clock bounds the
//! distance between wall time and the monotonic clock; readings are taken where they halve what is unknown.
//! Pure: readings come from outside.

const SECOND_NS: u64 = 1_000_000_000;
/// A disagreement above this is a stop of the machine or a change of the host's clock: step.
const STEP_NS: u64 = 2 * SECOND_NS;
/// Known this well, the clock is read now and then only.
const GOOD_WIDTH_NS: u64 = 4_000_000;
/// An emulated clock is behind by less than a second, and the first reading by the time booting takes.
const MAX_BEHIND_NS: u64 = SECOND_NS + SECOND_NS / 2;
const RECHECK_NS: u64 = 5 * SECOND_NS;
/// A drift of less than this beyond what is known is not looked for.
const DRIFT_NS: u64 = 2_000_000;

/// Wall time as nanoseconds since 1970 (UTC), derived from a monotonic clock.
#[derive(Debug, Clone)]
pub struct WallClock {
    /// Wall time minus monotonic time is at least this ...
    low_ns: u64,
    /// ... and less than this.
    high_ns: u64,
    next_reading_ns: u64,
    check_high: bool,
    /// How wide the bounds become when a reading contradicts them.
    doubt_ns: u64,
    /// What the real-time clock is behind true time, always.
    behind_ns: u64,
}

/// A reading of the real-time clock: the second it showed at some moment between two monotonic times.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Seconds since 1970.
    pub second: u64,
    /// Monotonic time just before.
    pub before_ns: u64,
    /// Monotonic time just after.
    pub after_ns: u64,
}

impl Reading {
    fn bounds(&self) -> (u64, u64) {
        let start_ns = self.second * SECOND_NS;
        (start_ns.saturating_sub(self.after_ns), (start_ns + SECOND_NS).saturating_sub(self.before_ns))
    }
}

impl WallClock {
    /// Starts from one reading, as if taken at the start of its second: an emulated clock starts its second
    /// when the machine starts, and so is up to a second behind for ever. `start_ns`, the true time at which
    /// the machine was started (nanoseconds since 1970), makes up for that; one that contradicts the reading
    /// is ignored.
    #[must_use]
    pub fn new(reading: Reading, start_ns: Option<u64>) -> Self {
        let (low_ns, high_ns) = reading.bounds();
        let behind_ns = start_ns.map_or(0, |start_ns| start_ns.saturating_sub(low_ns));
        let behind_ns = if behind_ns > MAX_BEHIND_NS { 0 } else { behind_ns };
        let mut clock = Self {
            behind_ns,
            low_ns,
            high_ns,
            next_reading_ns: 0,
            check_high: true,
            doubt_ns: GOOD_WIDTH_NS,
        };
        clock.schedule(reading.after_ns);
        clock
    }

    /// What wall time is ahead of monotonic time. Falls only when a reading showed that the clock was ahead.
    #[must_use]
    pub fn offset_ns(&self) -> u64 {
        self.low_ns + self.behind_ns
    }

    /// When the next reading is wanted, in monotonic time.
    #[must_use]
    pub fn next_reading_ns(&self) -> u64 {
        self.next_reading_ns
    }

    /// Takes a further reading. Returns how far the clock was off, in nanoseconds, if it had to be stepped.
    pub fn observe(&mut self, reading: Reading) -> Option<u64> {
        let (low_ns, high_ns) = reading.bounds();
        let off_ns = low_ns.saturating_sub(self.low_ns).max(self.low_ns.saturating_sub(high_ns));
        let stepped = off_ns > STEP_NS;
        if stepped {
            (self.low_ns, self.high_ns) = (low_ns, high_ns);
        } else {
            self.narrow(low_ns, high_ns);
        }
        self.schedule(reading.after_ns);
        stepped.then_some(off_ns)
    }

    /// Keeps what both bounds allow. Where they exclude each other the clock has drifted: follow, with more
    /// doubt each time until it is caught up with.
    fn narrow(&mut self, low_ns: u64, high_ns: u64) {
        if low_ns >= self.high_ns {
            self.doubt_ns = (self.doubt_ns * 4).min(SECOND_NS);
            (self.low_ns, self.high_ns) = (low_ns, high_ns.min(low_ns + self.doubt_ns));
        } else if high_ns <= self.low_ns {
            self.doubt_ns = (self.doubt_ns * 4).min(SECOND_NS);
            (self.low_ns, self.high_ns) = (low_ns.max(high_ns.saturating_sub(self.doubt_ns)), high_ns);
        } else {
            if self.high_ns - self.low_ns <= GOOD_WIDTH_NS {
                self.doubt_ns = (self.doubt_ns / 2).max(GOOD_WIDTH_NS);
            }
            self.low_ns = self.low_ns.max(low_ns);
            self.high_ns = self.high_ns.min(high_ns);
        }
    }

    /// The next reading falls on a change of second under some assumption. Assuming the middle halves the
    /// doubt. Once that is small, assume in turn a little more and a little less than possible: only a drift
    /// shows such a change.
    fn schedule(&mut self, now_ns: u64) {
        let width_ns = self.high_ns - self.low_ns;
        let (assumed_ns, earliest_ns) = if width_ns > GOOD_WIDTH_NS {
            (self.low_ns + width_ns / 2, now_ns + 1)
        } else if self.check_high {
            (self.high_ns + DRIFT_NS, now_ns + RECHECK_NS)
        } else {
            (self.low_ns.saturating_sub(DRIFT_NS), now_ns + RECHECK_NS)
        };
        self.check_high = !self.check_high;
        self.next_reading_ns = (earliest_ns + assumed_ns).next_multiple_of(SECOND_NS) - assumed_ns;
    }
}

/// Seconds since 1970 of the registers (second, minute, hour in 24 h form, day, month, year of the century).
pub(crate) fn unix_seconds(registers: [u8; 6], binary: bool) -> Option<u64> {
    let decode = |value: u8| u64::from(if binary { value } else { (value & 15) + (value >> 4) * 10 });
    let [second, minute, hour, day, month, year] = registers.map(decode);
    let in_range = second < 60 && minute < 60 && hour < 24 && (1..=31).contains(&day);
    if !in_range || !(1..=12).contains(&month) || year > 99 {
        return None;
    }
    Some(days_since_1970(2000 + year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, counting years from March.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine whose wall time is `offset_ns` ahead of its monotonic time.
    fn reading(offset_ns: u64, monotonic_ns: u64) -> Reading {
        let second = (monotonic_ns + offset_ns) / SECOND_NS;
        Reading { second, before_ns: monotonic_ns, after_ns: monotonic_ns + 1000 }
    }

    fn run(clock: &mut WallClock, offset_ns: u64, readings: u32) -> u64 {
        let mut now_ns = 0;
        for _ in 0..readings {
            now_ns = clock.next_reading_ns();
            clock.observe(reading(offset_ns, now_ns));
        }
        now_ns
    }

    #[test]
    fn twelve_readings_find_the_second_within_four_milliseconds() {
        for fraction_ns in [0, 1, 250_000_000, 500_000_000, 999_999_999] {
            let offset_ns = 1_790_000_000 * SECOND_NS + fraction_ns;
            let mut clock = WallClock::new(reading(offset_ns, 20_000_000), None);
            let now_ns = run(&mut clock, offset_ns, 12);
            assert!((clock.offset_ns() + now_ns).abs_diff(now_ns + offset_ns) < 4_000_000, "{fraction_ns}");
            assert!(now_ns < 60 * SECOND_NS);
        }
    }

    #[test]
    fn the_true_time_of_the_start_makes_up_for_a_clock_that_began_its_second_late() {
        let (start_ns, boot_ns) = (1_790_000_000 * SECOND_NS + 700_000_000, 30_000_000);
        // The clock shows the start's whole second when the machine starts, a little before time 0.
        let clock_offset_ns = 1_790_000_000 * SECOND_NS + boot_ns;
        let mut clock = WallClock::new(reading(clock_offset_ns, 5_000_000), Some(start_ns));
        run(&mut clock, clock_offset_ns, 12);
        assert!(clock.offset_ns().abs_diff(start_ns + boot_ns) < 10_000_000);
    }

    #[test]
    fn a_start_time_that_contradicts_the_clock_is_ignored() {
        let offset_ns = 1_790_000_000 * SECOND_NS;
        for start_ns in [0, offset_ns - 5 * SECOND_NS, offset_ns + 5 * SECOND_NS, u64::MAX] {
            let clock = WallClock::new(reading(offset_ns, 20_000_000), Some(start_ns));
            assert!(clock.offset_ns().abs_diff(offset_ns) < 50_000_000, "{start_ns}");
        }
    }

    #[test]
    fn wall_time_never_goes_back_while_it_is_refined() {
        let offset_ns = 1_790_000_000 * SECOND_NS + 730_000_000;
        let mut clock = WallClock::new(reading(offset_ns, 20_000_000), None);
        let mut last_ns = 0;
        for _ in 0..20 {
            let at_ns = clock.next_reading_ns();
            assert!((clock.offset_ns() + at_ns) >= last_ns);
            last_ns = clock.offset_ns() + at_ns;
            clock.observe(reading(offset_ns, at_ns));
        }
    }

    #[test]
    fn a_stop_of_the_machine_longer_than_two_seconds_steps_the_clock() {
        let offset_ns = 1_790_000_000 * SECOND_NS;
        let mut clock = WallClock::new(reading(offset_ns, 20_000_000), None);
        let now_ns = run(&mut clock, offset_ns, 12) + 1;
        let paused_ns = 60 * SECOND_NS;
        let off_ns = clock.observe(reading(offset_ns + paused_ns, now_ns)).expect("a step");
        assert!(off_ns.abs_diff(paused_ns) <= SECOND_NS);
        assert!((clock.offset_ns() + now_ns).abs_diff(now_ns + offset_ns + paused_ns) <= SECOND_NS);
    }

    #[test]
    fn a_small_disagreement_is_followed_without_a_step() {
        let offset_ns = 1_790_000_000 * SECOND_NS;
        let mut clock = WallClock::new(reading(offset_ns, 20_000_000), None);
        run(&mut clock, offset_ns, 12);
        for moved_ns in [300_000_000, 0] {
            let mut now_ns = 0;
            for _ in 0..40 {
                now_ns = clock.next_reading_ns();
                assert_eq!(clock.observe(reading(offset_ns + moved_ns, now_ns)), None);
            }
            assert!(
                (clock.offset_ns() + now_ns).abs_diff(now_ns + offset_ns + moved_ns) < 7_000_000,
                "{moved_ns}"
            );
        }
    }

    #[test]
    fn registers_become_seconds_in_both_codings() {
        assert_eq!(unix_seconds([0x56, 0x34, 0x12, 0x29, 0x02, 0x24], false), Some(1_709_210_096));
        assert_eq!(unix_seconds([56, 34, 12, 29, 2, 24], true), Some(1_709_210_096));
        assert_eq!(unix_seconds([0, 0, 0, 1, 1, 0], true), Some(946_684_800));
        assert_eq!(unix_seconds([59, 59, 23, 31, 12, 99], true), Some(4_102_444_799));
    }

    #[test]
    fn impossible_dates_are_refused() {
        assert_eq!(unix_seconds([0, 0, 0, 1, 13, 24], true), None);
        assert_eq!(unix_seconds([0, 0, 0, 0, 1, 24], true), None);
        assert_eq!(unix_seconds([60, 0, 0, 1, 1, 24], true), None);
        assert_eq!(unix_seconds([0, 0, 24, 1, 1, 24], true), None);
    }
}
