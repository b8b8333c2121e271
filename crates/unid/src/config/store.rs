//! What the operator says about the store: how long points are kept, and how much there may be.

use std::time::Duration;

use uni_store::{Options, RetentionRule};

use super::parse_duration;

/// One value of `--retention`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Retention {
    /// For all points.
    All(Duration),
    /// For a database or a measurement.
    Rule(RetentionRule),
}

/// How long points are kept, and how much there may be.
#[derive(Clone, Debug)]
pub(crate) struct StoreLimits {
    retention: Vec<Retention>,
    max_disk_bytes: Option<u64>,
    max_series: usize,
    max_series_per_vm: usize,
}

impl StoreLimits {
    pub(super) const fn new(
        retention: Vec<Retention>,
        max_disk_bytes: Option<u64>,
        max_series: usize,
        max_series_per_vm: usize,
    ) -> Self {
        Self { retention, max_disk_bytes, max_series, max_series_per_vm }
    }

    /// The store's options; what is said twice counts as said last.
    pub(crate) fn options(&self) -> Options {
        let mut options = Options {
            max_disk_bytes: self.max_disk_bytes,
            max_series: self.max_series,
            max_series_per_vm: self.max_series_per_vm,
            ..Options::default()
        };
        for one in &self.retention {
            match one {
                Retention::All(age) => options.retention = Some(*age),
                Retention::Rule(rule) => {
                    let same = |known: &RetentionRule| {
                        (&known.database, &known.measurement) == (&rule.database, &rule.measurement)
                    };
                    options.retention_rules.retain(|known| !same(known));
                    options.retention_rules.push(rule.clone());
                }
            }
        }
        options
    }
}

/// `30d`, `uni=30d`, `uni/http=7d`.
pub(super) fn parse_retention(text: &str) -> Result<Retention, String> {
    let Some((name, age)) = text.rsplit_once('=') else { return Ok(Retention::All(parse_duration(text)?)) };
    let age = parse_duration(age)?;
    let (database, measurement) = match name.split_once('/') {
        Some((database, measurement)) => (database, Some(measurement)),
        None => (name, None),
    };
    if database.is_empty() || measurement == Some("") {
        return Err(format!(
            "{text:?}: write DATABASE=DURATION or DATABASE/MEASUREMENT=DURATION, as uni/http=7d"
        ));
    }
    let measurement = measurement.map(str::to_owned);
    Ok(Retention::Rule(RetentionRule { database: database.to_owned(), measurement, age }))
}

/// A number of bytes, alone or with `K`, `M`, `G` or `T` (binary).
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let bad = || {
        format!(
            "{text:?} is not a size; write a whole number of bytes above 0, or with K, M, G or T: 500M, 20G"
        )
    };
    let (digits, unit): (&str, u64) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1 << 10),
        Some((at, 'm' | 'M')) => (&text[..at], 1 << 20),
        Some((at, 'g' | 'G')) => (&text[..at], 1 << 30),
        Some((at, 't' | 'T')) => (&text[..at], 1 << 40),
        _ => (text, 1),
    };
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let bytes = digits.parse::<u64>().ok().filter(|_| plain).and_then(|number| number.checked_mul(unit));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_is_for_all_for_a_database_or_for_a_measurement() {
        let day = Duration::from_secs(86_400);
        let rule = |database: &str, measurement: Option<&str>| {
            let measurement = measurement.map(str::to_owned);
            Ok(Retention::Rule(RetentionRule { database: database.to_owned(), measurement, age: day }))
        };
        assert_eq!(parse_retention("1d"), Ok(Retention::All(day)));
        assert_eq!(parse_retention("uni=1d"), rule("uni", None));
        assert_eq!(parse_retention("uni/a/b=c=1d"), rule("uni", Some("a/b=c")));
        for bad in ["", "uni=", "=1d", "/m=1d", "uni/=1d", "uni=1x", "uni"] {
            assert!(parse_retention(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!((parse_size("7"), parse_size("3k"), parse_size("2T")), (Ok(7), Ok(3072), Ok(2 << 40)));
        for bad in ["", "0", "M", "-1", "1.5G", "99999999T", "1GB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
