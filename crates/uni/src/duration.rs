//! Durations as Go writes them: `500ms`, `5s`, `1m30s`, `1.5h`. A bare number is seconds.
//!
//! Owns the syntax. Never decides what is too short: what is below zero is zero.

use std::time::Duration;

/// Reads a duration.
///
/// # Errors
/// What was found, and examples of what is expected.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let refused = || format!("`{text}` is not a duration like 500ms, 5s, 1m30s or 5 (seconds)");
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let nanos = if unsigned.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        nanos(unsigned, 1_000_000_000)
    } else {
        sum(unsigned)
    };
    let duration = Duration::from_nanos(nanos.ok_or_else(refused)?);
    Ok(if negative { Duration::ZERO } else { duration })
}

/// Reads a duration of whole seconds, at least one.
///
/// # Errors
/// As [`parse`], and what is no such number of seconds.
pub(crate) fn whole_seconds(text: &str) -> Result<u32, String> {
    let duration = parse(text)?;
    let seconds = u32::try_from(duration.as_secs()).ok().filter(|_| duration.subsec_nanos() == 0);
    seconds
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| format!("`{text}` is no whole number of seconds from 1s to 24h"))
}

/// Adds up pieces of number and unit, in nanoseconds.
fn sum(mut text: &str) -> Option<u64> {
    let mut total = 0_u64;
    while !text.is_empty() {
        let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, rest) = text.split_at(unit_at);
        let next_at = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (unit, rest) = rest.split_at(next_at);
        total = total.checked_add(nanos(number, unit_nanos(unit)?)?)?;
        text = rest;
    }
    Some(total)
}

const fn unit_nanos(unit: &str) -> Option<u64> {
    Some(match unit.as_bytes() {
        b"ns" => 1,
        // The second is the micro sign, the third the Greek letter.
        b"us" | b"\xc2\xb5s" | b"\xce\xbcs" => 1_000,
        b"ms" => 1_000_000,
        b"s" => 1_000_000_000,
        b"m" => 60_000_000_000,
        b"h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// A decimal number of units; digits below a nanosecond are dropped.
fn nanos(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    let mut scale = unit;
    let mut below = 0;
    for digit in fraction.bytes() {
        scale /= 10;
        below += u64::from(digit - b'0') * scale;
    }
    whole.checked_mul(unit)?.checked_add(below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn go_durations_and_bare_seconds_are_read() {
        let cases = [
            ("500ms", 500),
            ("5s", 5_000),
            ("1m", 60_000),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            (".5s", 500),
            ("2.s", 2_000),
            ("3", 3_000),
            ("0.5", 500),
            ("0", 0),
            ("+2s", 2_000),
            ("-5s", 0),
            ("1000us", 1),
            ("1000µs", 1),
        ];
        for (text, millis) in cases {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_the_text() {
        for text in ["", "-", ".", "s", "5 s", "5x", "1s2", "1..2s", "never", "5S", "99999999999h", "1e3s"] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(&format!("`{text}`")), "{message}");
        }
    }

    #[test]
    fn whole_seconds_are_at_least_one() {
        assert_eq!((whole_seconds("10m"), whole_seconds("1")), (Ok(600), Ok(1)));
        for text in ["0", "500ms", "1.5s", "9999999999s", "-3s", "x"] {
            assert!(whole_seconds(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".{0,30}") {
            let _ = parse(&text);
        }

        #[test]
        fn whole_milliseconds_read_back(millis in 0_u64..1 << 40) {
            prop_assert_eq!(parse(&format!("{millis}ms")), Ok(Duration::from_millis(millis)));
        }
    }
}
