//! Times and durations as InfluxQL writes them.
//!
//! Owns both directions of the text. Never reads a clock.

use std::fmt::Write as _;
use std::time::Duration;
use uni_wire::Timestamp;
use uni_wire::civil::Civil;

const SECOND: i64 = 1_000_000_000;

/// RFC 3339, UTC, with as many digits of the second as needed: `2020-09-13T12:26:40.123Z`.
pub(crate) fn format_rfc3339(time: Timestamp) -> String {
    let nanos = time.0.rem_euclid(SECOND);
    let mut text = Civil::from_unix_seconds(time.0.div_euclid(SECOND)).to_string();
    if nanos != 0 {
        text.pop();
        let digits = format!("{nanos:09}");
        let _ = write!(text, ".{}Z", digits.trim_end_matches('0'));
    }
    text
}

/// A date, a date and time, or RFC 3339; nanoseconds since the epoch. Without an offset it is UTC.
pub(crate) fn parse_time(text: &str) -> Option<i128> {
    let (date, clock) = match text.split_once(['T', ' ']) {
        Some((date, clock)) => (date, Some(clock)),
        None => (text, None),
    };
    let days = parse_date(date)?;
    let of_day = clock.map_or(Some(0), parse_clock)?;
    Some(i128::from(days) * 86_400 * i128::from(SECOND) + of_day)
}

/// `YYYY-MM-DD` as days since the epoch.
fn parse_date(text: &str) -> Option<i64> {
    let mut parts = text.split('-');
    let year = digits(parts.next()?, 4)?;
    let month = digits(parts.next()?, 2)?;
    let day = digits(parts.next()?, 2)?;
    let valid =
        parts.next().is_none() && (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
    valid.then(|| days_from_civil(year, month, day))
}

/// `HH:MM:SS[.fraction][Z|+HH:MM|-HH:MM]` as nanoseconds, the offset taken off.
fn parse_clock(text: &str) -> Option<i128> {
    let zone = text.find(['Z', 'z', '+', '-']).unwrap_or(text.len());
    let (clock, zone) = text.split_at(zone);
    let (seconds, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = seconds.split(':');
    let (h, m, s) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    if parts.next().is_some() || h > 23 || m > 59 || s > 59 {
        return None;
    }
    let whole = h * 3600 + m * 60 + s - parse_zone(zone)?;
    Some(i128::from(whole) * i128::from(SECOND) + i128::from(parse_fraction(fraction)?))
}

/// Seconds east of UTC.
fn parse_zone(text: &str) -> Option<i64> {
    let sign = match text.chars().next() {
        None | Some('Z' | 'z') => return (text.len() <= 1).then_some(0),
        Some('-') => -1,
        Some(_) => 1,
    };
    let (h, m) = text.get(1..)?.split_once(':')?;
    let (h, m) = (digits(h, 2)?, digits(m, 2)?);
    (h < 24 && m < 60).then_some(sign * (h * 3600 + m * 60))
}

fn parse_fraction(text: &str) -> Option<i64> {
    if text.len() > 9 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    format!("{text:0<9}").parse().ok()
}

fn digits(text: &str, count: usize) -> Option<i64> {
    let fits = text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    if fits { text.parse().ok() } else { None }
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since the epoch; the inverse of what `uni_wire::civil` does, with the same eras of 400 years.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

/// As InfluxDB shows it: `168h0m0s`, `1m0.5s`, `0s`.
pub(crate) fn format_duration(duration: Duration) -> String {
    let (hours, minutes) = (duration.as_secs() / 3600, duration.as_secs() / 60 % 60);
    let mut seconds = (duration.as_secs() % 60).to_string();
    if duration.subsec_nanos() > 0 {
        let digits = format!("{:09}", duration.subsec_nanos());
        let _ = write!(seconds, ".{}", digits.trim_end_matches('0'));
    }
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// Nanoseconds in one `unit` of a duration literal.
pub(crate) fn unit_nanos(unit: &str) -> Option<i64> {
    Some(match unit {
        "ns" => 1,
        "u" | "µ" | "us" => 1_000,
        "ms" => 1_000_000,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3600 * SECOND,
        "d" => 86_400 * SECOND,
        "w" => 7 * 86_400 * SECOND,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_clock_and_offset() {
        let at = |text| parse_time(text).map(|t| t / 1_000_000);
        assert_eq!(at("2020-09-13T12:26:40Z"), Some(1_600_000_000_000));
        assert_eq!(at("2020-09-13T14:26:40.5+02:00"), Some(1_600_000_000_500));
        assert_eq!(at("2020-09-13 12:26:40.123"), Some(1_600_000_000_123));
        assert_eq!(at("2000-02-29"), Some(951_782_400_000));
        assert_eq!(at("1969-12-31T23:59:59Z"), Some(-1000));
        for bad in [
            "",
            "x",
            "2001-02-29",
            "2001-13-01",
            "2020-09-13T",
            "2020-09-13T25:00:00Z",
            "2020-09-13T12:26:40ZZ",
        ] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_are_written_with_the_digits_they_need() {
        assert_eq!(format_rfc3339(Timestamp(0)), "1970-01-01T00:00:00Z");
        assert_eq!(format_rfc3339(Timestamp(1_600_000_000_123_000_000)), "2020-09-13T12:26:40.123Z");
        assert_eq!(format_rfc3339(Timestamp(-1)), "1969-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn what_is_written_is_read_back() {
        for nanos in [0, 1, -1, i64::MAX, i64::MIN, 951_782_399_999_999_999] {
            assert_eq!(parse_time(&format_rfc3339(Timestamp(nanos))), Some(i128::from(nanos)));
        }
    }
}
