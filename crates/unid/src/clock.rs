//! The daemon's clocks: the one place where the time of day is read.

use std::time::{SystemTime, UNIX_EPOCH};

use uni_wire::Timestamp;

/// The time of day.
pub(crate) fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX))
}

/// A time as RFC 3339 in UTC with whole seconds; empty for `None`.
pub(crate) fn rfc3339(time: Option<Timestamp>) -> String {
    let Some(time) = time else { return String::new() };
    jiff::Timestamp::from_second(time.nanos().div_euclid(1_000_000_000))
        .map(|t| t.to_string())
        .unwrap_or_default()
}

/// A time as RFC 3339 in UTC with milliseconds; empty for one that no calendar has.
pub(crate) fn rfc3339_millis(time: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(time.nanos()))
        .map(|time| format!("{time:.3}"))
        .unwrap_or_default()
}
