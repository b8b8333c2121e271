//! A point that owns its text: what a line becomes when it leaves the bytes it came in.
//!
//! Owns the step from a line to a batch element: unescaping, tag order, the field `time`, duplicate fields, the
//! time of an unstamped line. Never keeps points.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::error::{LineError, LineErrorKind};
use super::parse::{Field, Line, RawValue, parse_line_with};
use super::{Mode, Precision};
use crate::{FieldValue, Timestamp, Value};

/// Up to this many fields a doubled key is found by comparing; above, by a map.
const FEW_FIELDS: usize = 16;

/// A tag's key and value.
pub type Tag = (Box<str>, Box<str>);

/// One point of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The measurement.
    pub measurement: Box<str>,
    /// The tags, sorted by key, keys distinct, values not empty.
    pub tags: Vec<Tag>,
    /// The fields in the order of the line, keys distinct; at least one, none called `time`.
    pub fields: Vec<(Box<str>, FieldValue)>,
    /// When it was made, or when it arrived.
    pub time: Timestamp,
    /// Whether the line had a time stamp of its own.
    pub stamped: bool,
}

impl Point {
    /// The value of the tag `key`.
    #[must_use]
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.tags.iter().find(|(k, _)| &**k == key).map(|(_, v)| &**v)
    }

    /// The value of the field `key`.
    #[must_use]
    pub fn field(&self, key: &str) -> Option<&FieldValue> {
        self.fields.iter().find(|(k, _)| &**k == key).map(|(_, v)| v)
    }
}

/// Parses one line into a point. A field called `time` is left out, of a field named twice the last counts.
///
/// # Errors
/// The first fault of the line; a tag called `time`; no field but `time`; a time stamp that leaves the range of
/// [`Timestamp`] in `precision`.
pub fn parse_point(
    line: &[u8],
    mode: Mode,
    default_time: Timestamp,
    precision: Precision,
) -> Result<Point, LineError> {
    let parsed = parse_line_with(line, mode)?;
    let tags = owned_tags(&parsed)?;
    let fields = owned_fields(&parsed);
    if fields.is_empty() {
        return Err(LineError::new(LineErrorKind::TimeField, parsed.series_key().len()));
    }
    let time = match parsed.timestamp() {
        None => default_time,
        Some(stamp) => precision
            .to_timestamp(stamp)
            .ok_or_else(|| LineError::new(LineErrorKind::TimestampRange, line.len()))?,
    };
    Ok(Point {
        measurement: parsed.measurement().to_cow().into(),
        tags,
        fields,
        time,
        stamped: parsed.timestamp().is_some(),
    })
}

fn owned_tags(line: &Line<'_>) -> Result<Vec<Tag>, LineError> {
    let position = line.measurement().raw().len();
    let mut tags = Vec::new();
    for (key, value) in line.tags() {
        if key.is("time") {
            return Err(LineError::new(LineErrorKind::TimeTag, position));
        }
        tags.push((Box::from(key.to_cow()), Box::from(value.to_cow())));
    }
    tags.sort_unstable();
    // Keys that differ as written may mean the same; the parser saw the former only.
    if tags.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(LineError::new(LineErrorKind::DuplicateTags, position));
    }
    Ok(tags)
}

fn owned_fields(line: &Line<'_>) -> Vec<(Box<str>, FieldValue)> {
    let mut fields: Vec<(Box<str>, FieldValue)> = Vec::new();
    let mut places: BTreeMap<Box<str>, usize> = BTreeMap::new();
    for Field { key, value } in line.fields() {
        if key.is("time") {
            continue;
        }
        let key: Box<str> = key.to_cow().into();
        let value = owned_value(value);
        match place_of(&key, &fields, &places) {
            Some(place) => fields[place].1 = value,
            None => {
                if fields.len() >= FEW_FIELDS {
                    places.insert(key.clone(), fields.len());
                }
                fields.push((key, value));
            }
        }
    }
    fields
}

/// Where `key` is among `fields`; `places` knows those beyond the first few.
fn place_of(
    key: &str,
    fields: &[(Box<str>, FieldValue)],
    places: &BTreeMap<Box<str>, usize>,
) -> Option<usize> {
    let few = fields.iter().take(FEW_FIELDS).position(|(k, _)| &**k == key);
    few.or_else(|| places.get(key).copied())
}

fn owned_value(value: RawValue<'_>) -> FieldValue {
    match value {
        RawValue::String(text) => FieldValue::String(text.to_cow().into()),
        RawValue::Plain(Value::String(text)) => FieldValue::String(text.into()),
        RawValue::Plain(value) => value.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(42);

    fn point(line: &str) -> Result<Point, LineError> {
        parse_point(line.as_bytes(), Mode::Strict, NOW, Precision::Seconds)
    }

    #[test]
    fn tags_are_sorted_and_unescaped() {
        let p = point(r"m,z=1,a=x\ y f=1").expect("good");
        assert_eq!(p.tags, [("a".into(), "x y".into()), ("z".into(), "1".into())]);
        assert_eq!((p.tag("a"), p.tag("q")), (Some("x y"), None));
    }

    #[test]
    fn an_unstamped_line_gets_the_callers_time() {
        let p = point("m f=1").expect("good");
        assert_eq!((p.time, p.stamped), (NOW, false));
        let p = point("m f=1 3").expect("good");
        assert_eq!((p.time, p.stamped), (Timestamp(3_000_000_000), true));
        assert_eq!(point("m f=1 9223372036854775").expect_err("range").kind, LineErrorKind::TimestampRange);
    }

    #[test]
    fn the_last_of_two_equal_fields_counts() {
        use core::fmt::Write as _;
        let mut line = std::string::String::from("m x=1");
        for n in 0..40 {
            write!(line, ",f{n}=1").expect("string");
        }
        line.push_str(",x=2,f39=3,f1=4");
        let p = point(&line).expect("good");
        assert_eq!(p.fields.len(), 41);
        let value = |key| p.field(key).cloned();
        assert_eq!(value("x"), Some(FieldValue::Float(2.0)));
        assert_eq!(value("f39"), Some(FieldValue::Float(3.0)));
        assert_eq!(value("f1"), Some(FieldValue::Float(4.0)));
    }

    #[test]
    fn the_name_time_is_reserved() {
        assert_eq!(point("m time=1,x=2").expect("good").fields.len(), 1);
        assert_eq!(point("m time=1").expect_err("only time").kind, LineErrorKind::TimeField);
        assert_eq!(point("m,time=1 x=1").expect_err("tag").kind, LineErrorKind::TimeTag);
    }
}
