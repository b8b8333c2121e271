//! The daemon's log on stderr, as text or as JSON lines.
//!
//! Owns the form of a line (the field names the outside contract gives). Never decides what is logged.

use std::fmt::{self, Write as _};

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::LogFormat;

/// Installs the log for the whole process; events below INFO are left out.
pub(crate) fn install(format: LogFormat) {
    tracing_subscriber::fmt()
        .with_max_level(Level::INFO)
        .with_writer(std::io::stderr)
        .event_format(Line(format))
        .init();
}

struct Line(LogFormat);

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let now = Timestamp::now();
        let level = *event.metadata().level();
        match self.0 {
            LogFormat::Text => writeln!(out, "{}", text_line(now, level, &fields)),
            LogFormat::Json => writeln!(out, "{}", json_line(now, level, &fields)),
        }
    }
}

/// An event's fields in the order they were written, its message apart.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn push(&mut self, field: &Field, value: Value) {
        if field.name() == "message" {
            self.message = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        } else {
            self.others.push((field.name(), value));
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, Value::String(format!("{value:?}")));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, Value::from(value));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Value::from(value));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Value::from(value));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, Value::from(value));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Value::from(value));
    }
}

fn stamp(now: Timestamp) -> String {
    format!("{now:.3}")
}

fn text_line(now: Timestamp, level: Level, fields: &Fields) -> String {
    let mut line = format!("time={} level={level} msg={}", stamp(now), quoted(&fields.message));
    for (key, value) in &fields.others {
        let text = value.as_str().map_or_else(|| value.to_string(), quoted);
        // writing to a String cannot fail
        let _ = write!(line, " {key}={text}");
    }
    line
}

/// Quotes a value that would not read back as one word; control characters come out escaped.
fn quoted(text: &str) -> String {
    let plain = !text.is_empty()
        && text.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '"' && c != '=');
    if plain { text.to_owned() } else { format!("{text:?}") }
}

/// An event's own fields never overwrite `ts`, `level` and `msg`.
fn json_line(now: Timestamp, level: Level, fields: &Fields) -> String {
    let mut object = Map::new();
    for (key, value) in &fields.others {
        object.insert((*key).to_owned(), value.clone());
    }
    object.insert("ts".to_owned(), Value::from(stamp(now)));
    object.insert("level".to_owned(), Value::from(level.to_string()));
    object.insert("msg".to_owned(), Value::from(fields.message.clone()));
    Value::Object(object).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        Fields {
            message: "vm state transition".to_owned(),
            others: vec![
                ("vm_id", Value::from("9f2c41d07ab3")),
                ("n", Value::from(3)),
                ("ts", Value::from("mine")),
            ],
        }
    }

    fn noon() -> Timestamp {
        "2026-05-15T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn text_quotes_only_what_needs_it() {
        assert_eq!(
            text_line(noon(), Level::INFO, &fields()),
            "time=2026-05-15T12:00:00.000Z level=INFO msg=\"vm state transition\" vm_id=9f2c41d07ab3 n=3 ts=mine"
        );
    }

    #[test]
    fn json_keeps_its_own_keys_and_native_types() {
        let value: Value = serde_json::from_str(&json_line(noon(), Level::WARN, &fields())).unwrap();
        assert_eq!(value["ts"], "2026-05-15T12:00:00.000Z");
        assert_eq!(value["level"], "WARN");
        assert_eq!(value["n"], 3);
    }
}
