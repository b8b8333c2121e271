//! Moments on the command line: a date, a count since 1970, or a time ago.
//!
//! Owns the syntax. Never reads a clock: who asks says what time it is.

use uni_wire::civil::Civil;

use crate::duration;

/// A moment, perhaps relative to now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Nanoseconds since the Unix epoch.
    At(i64),
    /// Nanoseconds before now.
    Ago(i64),
}

impl Moment {
    /// Nanoseconds since the Unix epoch.
    pub(crate) const fn nanos(self, now: i64) -> i64 {
        match self {
            Self::At(nanos) => nanos,
            Self::Ago(nanos) => now.saturating_sub(nanos),
        }
    }
}

/// Reads `2026-11-21`, `2026-11-21T20:00:00.5Z`, `1795291200s` (`ns`, `us`, `ms`, `s`; none is `ns`) or `-1h`.
///
/// # Errors
/// What is expected.
pub(crate) fn parse(text: &str) -> Result<Moment, String> {
    let wrong = || format!("`{text}` is no time: write 2026-11-21T20:00:00Z, 1795291200s or -1h");
    if let Some(ago) = text.strip_prefix('-').filter(|ago| ago.ends_with(|c: char| c.is_ascii_alphabetic())) {
        let ago = duration::parse(ago).map_err(|error| error.to_string())?;
        return Ok(Moment::Ago(i64::try_from(ago.as_nanos()).map_err(|_| wrong())?));
    }
    if let Some(nanos) = count(text) {
        return Ok(Moment::At(nanos));
    }
    date(text).map(Moment::At).ok_or_else(wrong)
}

fn count(text: &str) -> Option<i64> {
    let units = [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000), ("", 1)];
    let (digits, unit) = units.iter().find_map(|(name, nanos)| Some((text.strip_suffix(name)?, *nanos)))?;
    digits.parse::<i64>().ok()?.checked_mul(unit)
}

/// RFC 3339 in UTC; the time of day may be missing.
fn date(text: &str) -> Option<i64> {
    let (day, time) = match text.split_once(['T', 't', ' ']) {
        Some((day, time)) => (day, time.strip_suffix(['Z', 'z'])?),
        None => (text, "00:00:00"),
    };
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut day = day.splitn(3, '-');
    let mut time = time.splitn(3, ':');
    let civil = Civil {
        year: day.next()?.parse().ok()?,
        month: day.next()?.parse().ok()?,
        day: day.next()?.parse().ok()?,
        hour: time.next()?.parse().ok()?,
        minute: time.next()?.parse().ok()?,
        second: time.next()?.parse().ok()?,
    };
    let nanos = format!("{fraction:0<9}").parse::<i64>().ok()?;
    civil.unix_seconds()?.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// `2026-11-21T20:00:00Z`, for people.
pub(crate) fn show(nanos: i64) -> String {
    let Civil { year, month, day, hour, minute, second } =
        Civil::from_unix_seconds(nanos.div_euclid(1_000_000_000));
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_counts_and_times_ago_are_read() {
        for (text, moment) in [
            ("1970-01-01", Moment::At(0)),
            ("2026-11-21T20:00:00Z", Moment::At(1_795_291_200_000_000_000)),
            ("2026-11-21 20:00:00.000000007Z", Moment::At(1_795_291_200_000_000_007)),
            ("1795291200s", Moment::At(1_795_291_200_000_000_000)),
            ("-5", Moment::At(-5)),
            ("7ms", Moment::At(7_000_000)),
            ("-90s", Moment::Ago(90_000_000_000)),
        ] {
            assert_eq!(parse(text), Ok(moment), "{text}");
        }
        for text in
            ["", "yesterday", "2026-13-01", "2026-11-21T20:00:00+01:00", "2026-11-21T25:00:00Z", "9e9s"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(seconds in -5_000_000_000_i64..9_000_000_000) {
            let nanos = seconds * 1_000_000_000;
            prop_assert_eq!(parse(&show(nanos)), Ok(Moment::At(nanos)));
        }

        #[test]
        fn anything_is_read_without_panic(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
