//! The answer as JSON, in the shape and with the number formats of InfluxDB 1.x (Go's `encoding/json`).
//!
//! Owns the writing only. Never changes values but for the unit of times.

use crate::response::{Cell, StatementResult, Table};
use crate::time::format_rfc3339;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};
use std::io;
use uni_wire::{FieldValue, Timestamp};

/// The unit of the times in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epoch {
    /// `ns`, `n`.
    Nanoseconds,
    /// `u`, `µ`, `us`.
    Microseconds,
    /// `ms`.
    Milliseconds,
    /// `s`.
    Seconds,
    /// `m`.
    Minutes,
    /// `h`.
    Hours,
}

impl Epoch {
    /// The unit named in the parameter `epoch`; `None` for a word that is no unit.
    #[must_use]
    pub fn parse(unit: &str) -> Option<Self> {
        Some(match unit {
            "ns" | "n" => Self::Nanoseconds,
            "u" | "µ" | "us" => Self::Microseconds,
            "ms" => Self::Milliseconds,
            "s" => Self::Seconds,
            "m" => Self::Minutes,
            "h" => Self::Hours,
            _ => return None,
        })
    }

    fn nanos(self) -> i64 {
        match self {
            Self::Nanoseconds => 1,
            Self::Microseconds => 1_000,
            Self::Milliseconds => 1_000_000,
            Self::Seconds => 1_000_000_000,
            Self::Minutes => 60_000_000_000,
            Self::Hours => 3_600_000_000_000,
        }
    }
}

/// The whole answer.
pub(crate) fn document(results: &[StatementResult], epoch: Option<Epoch>, pretty: bool) -> String {
    let results = results.iter().map(|result| Piece::whole(result, epoch)).collect();
    write(&Document { results }, pretty)
}

/// The answer in documents of at most `size` rows.
pub(crate) fn chunks(
    results: &[StatementResult],
    epoch: Option<Epoch>,
    pretty: bool,
    size: usize,
) -> Vec<String> {
    let pieces = results.iter().flat_map(|result| pieces(result, epoch, size));
    pieces.map(|piece| write(&Document { results: vec![piece] }, pretty)).collect()
}

/// One result cut by rows; a result without rows is one piece.
fn pieces(result: &StatementResult, epoch: Option<Epoch>, size: usize) -> Vec<Piece<'_>> {
    let tables = result.outcome.as_deref().unwrap_or_default();
    let mut pieces = Vec::new();
    for table in tables {
        let mut rest = table.rows.as_slice();
        while !rest.is_empty() {
            let (rows, after) = rest.split_at(size.min(rest.len()));
            let part = Part { table, rows, partial: !after.is_empty(), epoch };
            pieces.push(Piece { result, parts: vec![part], partial: true });
            rest = after;
        }
    }
    match pieces.last_mut() {
        Some(last) => last.partial = false,
        None => pieces.push(Piece::whole(result, epoch)),
    }
    pieces
}

fn write(document: &Document<'_>, pretty: bool) -> String {
    let mut out = Vec::new();
    // writing into memory cannot fail, and nothing serialised here has keys that are no strings
    let _ = if pretty {
        let indent = PrettyFormatter::with_indent(b"    ");
        document.serialize(&mut serde_json::Serializer::with_formatter(&mut out, GoFormat(indent)))
    } else {
        document.serialize(&mut serde_json::Serializer::with_formatter(&mut out, GoFormat(CompactFormatter)))
    };
    String::from_utf8(out).unwrap_or_default()
}

struct Document<'a> {
    results: Vec<Piece<'a>>,
}

/// A result or a part of one.
struct Piece<'a> {
    result: &'a StatementResult,
    parts: Vec<Part<'a>>,
    partial: bool,
}

impl<'a> Piece<'a> {
    fn whole(result: &'a StatementResult, epoch: Option<Epoch>) -> Self {
        let tables = result.outcome.as_deref().unwrap_or_default().iter();
        let parts = tables.map(|table| Part { table, rows: &table.rows, partial: false, epoch }).collect();
        Self { result, parts, partial: false }
    }
}

/// A series or a part of one.
struct Part<'a> {
    table: &'a Table,
    rows: &'a [Vec<Cell>],
    partial: bool,
    epoch: Option<Epoch>,
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("results", &self.results)?;
        map.end()
    }
}

impl Serialize for Piece<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("statement_id", &self.result.statement_id)?;
        if !self.parts.is_empty() {
            map.serialize_entry("series", &self.parts)?;
        }
        if self.partial {
            map.serialize_entry("partial", &true)?;
        }
        if let Err(error) = &self.result.outcome {
            map.serialize_entry("error", error)?;
        }
        map.end()
    }
}

impl Serialize for Part<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.table.name.is_empty() {
            map.serialize_entry("name", &self.table.name)?;
        }
        if !self.table.tags.is_empty() {
            map.serialize_entry("tags", &Tags(&self.table.tags))?;
        }
        map.serialize_entry("columns", &self.table.columns)?;
        if !self.rows.is_empty() {
            map.serialize_entry("values", &Rows(self))?;
        }
        if self.partial {
            map.serialize_entry("partial", &true)?;
        }
        map.end()
    }
}

struct Tags<'a>(&'a [(String, String)]);

impl Serialize for Tags<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

struct Rows<'a>(&'a Part<'a>);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rows = serializer.serialize_seq(Some(self.0.rows.len()))?;
        for row in self.0.rows {
            rows.serialize_element(&Row { row, epoch: self.0.epoch })?;
        }
        rows.end()
    }
}

struct Row<'a> {
    row: &'a [Cell],
    epoch: Option<Epoch>,
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.row.iter().map(|cell| Written { cell, epoch: self.epoch }))
    }
}

struct Written<'a> {
    cell: &'a Cell,
    epoch: Option<Epoch>,
}

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.cell {
            Cell::Time(time) => write_time(*time, self.epoch, serializer),
            Cell::Value(None) => serializer.serialize_unit(),
            Cell::Value(Some(FieldValue::Float(n))) => serializer.serialize_f64(*n),
            Cell::Value(Some(FieldValue::Integer(n))) => serializer.serialize_i64(*n),
            Cell::Value(Some(FieldValue::Unsigned(n))) => serializer.serialize_u64(*n),
            Cell::Value(Some(FieldValue::Boolean(b))) => serializer.serialize_bool(*b),
            Cell::Value(Some(FieldValue::String(text))) => serializer.serialize_str(text),
        }
    }
}

fn write_time<S: Serializer>(
    time: Timestamp,
    epoch: Option<Epoch>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match epoch {
        Some(epoch) => serializer.serialize_i64(time.0 / epoch.nanos()),
        None => serializer.serialize_str(&format_rfc3339(time)),
    }
}

/// Writes numbers and texts as Go does, the rest as the formatter inside.
struct GoFormat<F>(F);

macro_rules! forward {
    ($($name:ident $(, $arg:ident : $type:ty)?);* $(;)?) => {
        $(fn $name<W: ?Sized + io::Write>(&mut self, writer: &mut W $(, $arg: $type)?) -> io::Result<()> {
            self.0.$name(writer $(, $arg)?)
        })*
    };
}

impl<F: Formatter> Formatter for GoFormat<F> {
    forward! {
        begin_array;
        end_array;
        begin_array_value, first: bool;
        end_array_value;
        begin_object;
        end_object;
        begin_object_key, first: bool;
        end_object_key;
        begin_object_value;
        end_object_value;
    }

    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(go_float(value).as_bytes())
    }

    /// Go escapes what could end a script element or a line of JavaScript.
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, text: &str) -> io::Result<()> {
        let mut rest = text;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            writer.write_all(&rest.as_bytes()[..at])?;
            let mut chars = rest[at..].chars();
            let code = chars.next().map_or(0, u32::from);
            write!(writer, "\\u{code:04x}")?;
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// The shortest digits that mean this number: plain between 1e-6 and 1e21, else with an exponent.
fn go_float(value: f64) -> String {
    if value == 0.0 || (1e-6..1e21).contains(&value.abs()) {
        return value.to_string();
    }
    let text = format!("{value:e}");
    if text.contains("e-") { text } else { text.replace('e', "e+") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: usize) -> Table {
        let row = |time: i64| vec![Cell::Time(Timestamp(time)), Cell::Value(Some(FieldValue::Float(1.0)))];
        Table {
            name: "m".into(),
            tags: vec![("vm".into(), "<a>&\n".into())],
            columns: vec!["time".into(), "x".into()],
            rows: (0..).step_by(1_500_000_000).map(row).take(rows).collect(),
        }
    }

    fn result(rows: usize) -> StatementResult {
        StatementResult::new(0, Ok(vec![table(rows)]))
    }

    #[test]
    fn floats_have_no_needless_digits() {
        for (value, text) in [
            (1.0, "1"),
            (0.1, "0.1"),
            (-2.5, "-2.5"),
            (1e21, "1e+21"),
            (1e20, "100000000000000000000"),
            (1.5e-7, "1.5e-7"),
        ] {
            assert_eq!(go_float(value), text);
        }
    }

    #[test]
    fn a_document_has_influxdbs_keys_in_its_order() {
        assert_eq!(
            document(&[result(2)], Some(Epoch::Seconds), false),
            r#"{"results":[{"statement_id":0,"series":[{"name":"m","tags":{"vm":"\u003ca\u003e\u0026\n"},"columns":["time","x"],"values":[[0,1],[1,1]]}]}]}"#
        );
        assert_eq!(
            document(&[StatementResult::new(3, Ok(vec![]))], None, false),
            r#"{"results":[{"statement_id":3}]}"#
        );
        let pretty = document(&[result(1)], None, true);
        assert!(pretty.contains("\n            \"statement_id\": 0,"), "{pretty}");
        assert!(pretty.contains("\"1970-01-01T00:00:00Z\""), "{pretty}");
    }

    #[test]
    fn numbers_that_json_lacks_are_null() {
        let mut odd = table(1);
        odd.rows[0][1] = Cell::Value(Some(FieldValue::Float(f64::INFINITY)));
        let text = document(&[StatementResult::new(0, Ok(vec![odd]))], Some(Epoch::Hours), false);
        assert!(text.contains("[0,null]"), "{text}");
    }

    #[test]
    fn only_the_last_chunk_is_not_partial() {
        let chunks = chunks(&[result(5)], Some(Epoch::Nanoseconds), false, 2);
        let partial: Vec<usize> =
            chunks.iter().map(|chunk| chunk.matches("\"partial\":true").count()).collect();
        assert_eq!(partial, [2, 2, 0]);
    }
}
