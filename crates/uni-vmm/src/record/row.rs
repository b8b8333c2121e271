//! A record as a row of the table `vms`.
//!
//! Owns the columns: those of existing installations, and `extra` with every key of a record that has no
//! column, as a JSON object. Both ways go over the record's own JSON, so a row holds exactly what a
//! `state.json` holds. Never talks to a database.

use rusqlite::types::{Value as Cell, ValueRef};
use serde_json::{Map, Value};

use super::{MAX_RECORD_BYTES, Record};

/// A column of the table `vms`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// Its name, and the record's key.
    pub(super) name: &'static str,
    kind: Kind,
    /// The rest of its definition.
    pub(super) definition: &'static str,
}

/// How a value stands in its cell.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// As text; a missing key is NULL.
    Text,
    /// As text; a missing key is empty.
    TextOrEmpty,
    /// As compact JSON.
    Json,
    /// As 0 or 1; a missing key is 0.
    Flag,
    /// As a number; a missing key is 0.
    Count,
}

const fn column(name: &'static str, kind: Kind, definition: &'static str) -> Column {
    Column { name, kind, definition }
}

/// All columns, in the order in which rows are written and read.
pub(super) const COLUMNS: [Column; 11] = [
    column("id", Kind::Text, "TEXT PRIMARY KEY"),
    column("config", Kind::Json, "TEXT NOT NULL"),
    column("state", Kind::Text, "TEXT NOT NULL"),
    column("created_at", Kind::Text, "TEXT NOT NULL"),
    column("started_at", Kind::Text, "TEXT"),
    column("stopped_at", Kind::Text, "TEXT"),
    column("daemon_recovered", Kind::Flag, "INTEGER DEFAULT 0"),
    column("health_status", Kind::TextOrEmpty, "TEXT DEFAULT ''"),
    column("restart_count", Kind::Count, "INTEGER DEFAULT 0"),
    column("pid", Kind::Count, "INTEGER DEFAULT 0"),
    column(EXTRA, Kind::Json, "TEXT NOT NULL DEFAULT '{}'"),
];

/// The column of what has no column.
const EXTRA: &str = "extra";

impl Column {
    /// Whether it can be added to a table that has rows.
    pub(super) fn can_be_added(&self) -> bool {
        self.definition.contains("DEFAULT") || self.definition == "TEXT"
    }
}

/// The cells of a record, in the order of [`COLUMNS`].
///
/// # Errors
/// A number is too great for a cell.
pub(super) fn encode(record: &Record) -> Result<Vec<Cell>, serde_json::Error> {
    let mut rest: Map<String, Value> = serde_json::from_value(serde_json::to_value(record)?)?;
    let mut values: Vec<_> = COLUMNS.iter().map(|column| rest.remove(column.name)).collect();
    if let Some(extra) = values.last_mut() {
        *extra = Some(Value::Object(rest));
    }
    COLUMNS.iter().zip(values).map(|(column, value)| cell(column, value)).collect()
}

fn cell(column: &Column, value: Option<Value>) -> Result<Cell, serde_json::Error> {
    Ok(match (column.kind, value) {
        (Kind::Json, Some(value)) => Cell::Text(value.to_string()),
        (Kind::Text | Kind::TextOrEmpty, Some(value)) => Cell::Text(serde_json::from_value(value)?),
        (Kind::Flag, Some(value)) => Cell::Integer(i64::from(serde_json::from_value::<bool>(value)?)),
        (Kind::Count, Some(value)) => Cell::Integer(serde_json::from_value(value)?),
        (Kind::Flag | Kind::Count, None) => Cell::Integer(0),
        (Kind::TextOrEmpty, None) => Cell::Text(String::new()),
        (Kind::Text | Kind::Json, None) => Cell::Null,
    })
}

/// The record of a row whose cells stand in the order of [`COLUMNS`].
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn decode<'row>(cells: impl Iterator<Item = ValueRef<'row>>) -> Result<Record, String> {
    let mut record = Map::new();
    for (column, cell) in COLUMNS.iter().zip(cells) {
        let value = value(column, cell).map_err(|fault| format!("column {}: {fault}", column.name))?;
        match value {
            None => {}
            Some(Value::Object(extra)) if column.name == EXTRA => {
                for (key, value) in extra {
                    record.entry(key).or_insert(value);
                }
            }
            Some(_) if column.name == EXTRA => return Err("column extra: it is no JSON object".to_owned()),
            Some(value) => drop(record.insert(column.name.to_owned(), value)),
        }
    }
    serde_json::from_value(Value::Object(record)).map_err(|error| error.to_string())
}

fn value(column: &Column, cell: ValueRef<'_>) -> Result<Option<Value>, String> {
    let value = match (column.kind, cell) {
        (_, ValueRef::Null) => return Ok(None),
        (Kind::Text | Kind::TextOrEmpty, ValueRef::Text(text)) => Value::String(utf8(text)?.to_owned()),
        (Kind::Json, ValueRef::Text(text)) => {
            serde_json::from_str(utf8(text)?).map_err(|error| error.to_string())?
        }
        (Kind::Flag, ValueRef::Integer(number)) => Value::Bool(number != 0),
        (Kind::Count, ValueRef::Integer(number)) => Value::from(number),
        (_, other) => return Err(format!("it holds {}", other.data_type())),
    };
    Ok(Some(value))
}

fn utf8(text: &[u8]) -> Result<&str, String> {
    if text.len() as u64 > MAX_RECORD_BYTES {
        return Err(format!("it holds {} bytes, more than any that is written here", text.len()));
    }
    std::str::from_utf8(text).map_err(|error| error.to_string())
}
