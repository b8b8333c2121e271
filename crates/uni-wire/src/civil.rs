//! Calendar dates from Unix seconds, UTC, proleptic Gregorian.
//!
//! Owns the conversion only. Never reads a clock and knows no time zones.

use core::fmt;

/// Seconds in a day; Unix time has no leap seconds.
const DAY_SECONDS: i64 = 86_400;

/// A date and time of day, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Civil {
    /// Astronomical year (0 is 1 BC).
    pub year: i64,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

/// English month names as RFC 3164 wants them.
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl Civil {
    /// The date of a number of seconds since the Unix epoch.
    ///
    /// Days are counted in eras of 400 years that start on 1 March, so that the leap day is the last of its year
    /// (Howard Hinnant, "chrono-compatible low-level date algorithms").
    #[must_use]
    pub fn from_unix_seconds(seconds: i64) -> Self {
        let days = seconds.div_euclid(DAY_SECONDS) + 719_468;
        let of_day = seconds.rem_euclid(DAY_SECONDS);
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: small(month),
            day: small(day_of_year - (153 * month_from_march + 2) / 5 + 1),
            hour: small(of_day / 3_600),
            minute: small(of_day / 60 % 60),
            second: small(of_day % 60),
        }
    }

    /// Seconds since the Unix epoch, the inverse of [`from_unix_seconds`](Self::from_unix_seconds); `None` for a date
    /// that no calendar has.
    #[must_use]
    pub fn unix_seconds(&self) -> Option<i64> {
        let month_from_march = (i64::from(self.month) + 9) % 12;
        let year = self.year.checked_sub(i64::from(self.month <= 2))?;
        let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(self.day) - 1;
        let year_of_era = year.rem_euclid(400);
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = year.div_euclid(400).checked_mul(146_097)?.checked_add(day_of_era - 719_468)?;
        let of_day = i64::from(self.hour) * 3_600 + i64::from(self.minute) * 60 + i64::from(self.second);
        let seconds = days.checked_mul(DAY_SECONDS)?.checked_add(of_day)?;
        (Self::from_unix_seconds(seconds) == *self).then_some(seconds)
    }

    /// The number, 1 to 12, of a month's English abbreviation.
    #[must_use]
    pub fn month_number(name: &str) -> Option<u8> {
        let place = MONTHS.iter().position(|month| month.eq_ignore_ascii_case(name))?;
        u8::try_from(place + 1).ok()
    }

    /// The month's English abbreviation.
    #[must_use]
    pub fn month_name(&self) -> &'static str {
        MONTHS.get(usize::from(self.month).wrapping_sub(1)).copied().unwrap_or("Jan")
    }
}

/// A number known to be below 100.
fn small(n: i64) -> u8 {
    u8::try_from(n).unwrap_or(0)
}

/// RFC 3339 to the second: `2026-06-08T09:05:07Z`.
impl fmt::Display for Civil {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, hour, minute, second } = self;
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;

    #[test]
    fn known_dates() {
        let text = |s| Civil::from_unix_seconds(s).to_string();
        assert_eq!(text(0), "1970-01-01T00:00:00Z");
        assert_eq!(text(-1), "1969-12-31T23:59:59Z");
        assert_eq!(text(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(text(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(text(1_780_909_507), "2026-06-08T09:05:07Z");
    }

    #[test]
    fn dates_that_do_not_exist_have_no_seconds() {
        let date = |year, month, day| Civil { year, month, day, hour: 0, minute: 0, second: 0 };
        assert_eq!(date(2024, 2, 29).unix_seconds(), Some(1_709_164_800));
        for bad in
            [date(2026, 2, 29), date(2026, 13, 1), date(2026, 0, 1), date(2026, 4, 31), date(i64::MAX, 1, 1)]
        {
            assert_eq!(bad.unix_seconds(), None, "{bad}");
        }
        assert_eq!(Civil { hour: 24, ..date(2026, 1, 1) }.unix_seconds(), None);
    }

    proptest! {
        #[test]
        fn seconds_of_a_date_are_those_it_was_made_of(seconds in -100_000_000_000_i64..1_000_000_000_000) {
            prop_assert_eq!(Civil::from_unix_seconds(seconds).unix_seconds(), Some(seconds));
        }

        #[test]
        fn later_seconds_are_never_earlier_dates(a in -10_000_000_000_i64..10_000_000_000, step in 1_i64..90_000) {
            prop_assert!(Civil::from_unix_seconds(a) < Civil::from_unix_seconds(a + step));
        }
    }
}
