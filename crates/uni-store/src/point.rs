//! A point as the store takes it, and why one is refused.
//!
//! Owns the limits of one point by itself. What depends on other points (types, counts of series) is
//! checked by the catalog.

use uni_wire::{FieldType, FieldValue, Timestamp};

/// Most bytes of a measurement and its tags together, as in InfluxDB.
pub(crate) const MAX_KEY_BYTES: usize = 65_535;
/// Most bytes of a whole point, names included; one point is one unit of the log and must fit in memory easily.
pub(crate) const MAX_POINT_BYTES: usize = 1 << 20;

/// Most tags of a point: each is compared wherever series are looked for.
const MAX_TAGS: usize = 256;

/// Tags as keys and values, sorted by key.
pub(crate) type TagList = Vec<(Box<str>, Box<str>)>;

/// The values of one series at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// What is measured; not empty.
    pub measurement: Box<str>,
    /// Strictly ascending by key; neither keys nor values are empty.
    pub tags: Vec<(Box<str>, Box<str>)>,
    /// At least one; where a name occurs twice, the last value counts.
    pub fields: Vec<(Box<str>, FieldValue)>,
    /// Any time of the range; order of arrival is free.
    pub time: Timestamp,
}

/// Why one point was not stored. The other points of its batch are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RejectReason {
    /// The field has another type already.
    #[error(
        "field type conflict: input field \"{field}\" on measurement \"{measurement}\" is type {}, already exists as type {}",
        given.name(), existing.name()
    )]
    FieldTypeConflict {
        /// The field's name.
        field: Box<str>,
        /// The measurement's name.
        measurement: Box<str>,
        /// The type that came.
        given: FieldType,
        /// The type it has.
        existing: FieldType,
    },
    /// A point must say something.
    #[error("point without fields")]
    NoFields,
    /// A measurement, tag key, tag value or field key is the empty string.
    #[error("empty {what}: give it a name or leave it out")]
    Empty {
        /// Which part is empty.
        what: &'static str,
    },
    /// Tags are not strictly ascending by key.
    #[error("tag \"{key}\" occurs twice or out of order: sort tags by key, each key once")]
    TagOrder {
        /// The first key that is out of order.
        key: Box<str>,
    },
    /// NaN and infinities have no meaning in line protocol and none here.
    #[error("field \"{field}\" is not a finite number")]
    NotFinite {
        /// The field's name.
        field: Box<str>,
    },
    /// Measurement and tags, or the whole point, are too long.
    #[error("{what} has {bytes} bytes, {max} are allowed")]
    TooLong {
        /// Which part.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A new series, but the store has as many as it may.
    #[error("series limit of {max} reached: fewer tag values, or a higher limit, are needed")]
    SeriesLimit {
        /// The limit.
        max: usize,
    },
    /// A new series, but its VM has as many as one may.
    #[error("series limit of {max} reached for vm \"{vm}\": fewer tag values, or a higher limit, are needed")]
    VmSeriesLimit {
        /// The VM.
        vm: Box<str>,
        /// The limit.
        max: usize,
    },
    /// More tags than a point may have.
    #[error("point with {count} tags, {max} are allowed")]
    TooManyTags {
        /// How many it has.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// Older than what its retention policy, or a rule for its measurement, keeps.
    #[error("points beyond retention policy")]
    BeyondRetention,
    /// A new field, but the measurement has as many as it may.
    #[error("field limit of {max} reached on measurement \"{measurement}\"")]
    FieldLimit {
        /// The measurement's name.
        measurement: Box<str>,
        /// The limit.
        max: usize,
    },
    /// A time in a new partition, but the database has as many as it may.
    #[error("partition limit of {max} reached: the point's time lies in a partition that does not exist yet")]
    PartitionLimit {
        /// The limit.
        max: usize,
    },
}

impl Point {
    /// Checks what can be known from the point alone.
    pub(crate) fn check(&self) -> Result<(), RejectReason> {
        self.check_names()?;
        self.check_sizes()?;
        self.fields.iter().try_for_each(|(name, value)| match value {
            FieldValue::Float(number) if !number.is_finite() => {
                Err(RejectReason::NotFinite { field: name.clone() })
            }
            _ => Ok(()),
        })
    }

    fn check_names(&self) -> Result<(), RejectReason> {
        if self.fields.is_empty() {
            return Err(RejectReason::NoFields);
        }
        let empty = |what| Err(RejectReason::Empty { what });
        if self.measurement.is_empty() {
            return empty("measurement");
        }
        if self.fields.iter().any(|(name, _)| name.is_empty()) {
            return empty("field key");
        }
        if self.tags.iter().any(|(key, _)| key.is_empty()) {
            return empty("tag key");
        }
        if self.tags.iter().any(|(_, value)| value.is_empty()) {
            return empty("tag value");
        }
        if self.tags.len() > MAX_TAGS {
            return Err(RejectReason::TooManyTags { count: self.tags.len(), max: MAX_TAGS });
        }
        match self.tags.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            Some(pair) => Err(RejectReason::TagOrder { key: pair[1].0.clone() }),
            None => Ok(()),
        }
    }

    fn check_sizes(&self) -> Result<(), RejectReason> {
        let tags: usize = self.tags.iter().map(|(key, value)| key.len() + value.len()).sum();
        let key = self.measurement.len() + tags;
        if key > MAX_KEY_BYTES {
            return Err(RejectReason::TooLong { what: "series key", bytes: key, max: MAX_KEY_BYTES });
        }
        if let Some((name, _)) = self.fields.iter().find(|(name, _)| name.len() > MAX_KEY_BYTES) {
            return Err(RejectReason::TooLong { what: "field key", bytes: name.len(), max: MAX_KEY_BYTES });
        }
        let bytes =
            key + self.fields.iter().map(|(name, value)| name.len() + value_bytes(value)).sum::<usize>();
        if bytes > MAX_POINT_BYTES {
            return Err(RejectReason::TooLong { what: "point", bytes, max: MAX_POINT_BYTES });
        }
        Ok(())
    }
}

fn value_bytes(value: &FieldValue) -> usize {
    match value {
        FieldValue::String(text) => text.len() + 8,
        _ => 8,
    }
}

#[cfg(test)]
mod test {
    use super::*;

    /// What is done to a good point, and what is said then.
    type Case = (fn(&mut Point), &'static str);

    fn point() -> Point {
        Point {
            measurement: "m".into(),
            tags: vec![("a".into(), "1".into()), ("b".into(), "2".into())],
            fields: vec![("x".into(), FieldValue::Float(1.0))],
            time: Timestamp(0),
        }
    }

    #[test]
    fn a_whole_point_is_taken() {
        assert_eq!(point().check(), Ok(()));
    }

    #[test]
    fn parts_that_are_missing_or_ill_formed_are_named() {
        let cases: [Case; 8] = [
            (|p| p.fields.clear(), "point without fields"),
            (|p| p.measurement = "".into(), "empty measurement: give it a name or leave it out"),
            (|p| p.tags[1].1 = "".into(), "empty tag value: give it a name or leave it out"),
            (
                |p| p.tags[1].0 = "a".into(),
                "tag \"a\" occurs twice or out of order: sort tags by key, each key once",
            ),
            (|p| p.fields[0].1 = FieldValue::Float(f64::NAN), "field \"x\" is not a finite number"),
            (|p| p.measurement = "m".repeat(70_000).into(), "series key has 70004 bytes, 65535 are allowed"),
            (|p| p.fields[0].0 = "f".repeat(70_000).into(), "field key has 70000 bytes, 65535 are allowed"),
            (
                |p| p.fields[0].1 = FieldValue::String("s".repeat(1 << 20).into()),
                "point has 1048590 bytes, 1048576 are allowed",
            ),
        ];
        for (spoil, message) in cases {
            let mut point = point();
            spoil(&mut point);
            assert_eq!(point.check().expect_err(message).to_string(), message);
        }
    }
}
