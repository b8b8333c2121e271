//! The form of a log line, in text and in JSON.
//!
//! Owns the names and the order the outside contract gives: time, level, message, then the event's own fields in
//! the order they were written, flat, numbers as numbers. Never reads a clock.

use std::fmt::{self, Write as _};

use jiff::Timestamp;
use serde_json::Value;
use tracing::Level;
use tracing::field::{Field, Visit};

use crate::config::LogFormat;

/// The longest text in a line; the rest is left out.
const MAX_TEXT: usize = 8192;

/// An event's fields in the order they were written, its message apart.
#[derive(Default)]
pub(super) struct Fields {
    pub(super) message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    /// Adds a field.
    pub(super) fn push(&mut self, name: &'static str, value: Value) {
        let value = match value {
            Value::String(text) => Value::String(shortened(text)),
            other => other,
        };
        match (name, value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => self.others.push((name, value)),
        }
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let more = text.len() - text.floor_char_boundary(MAX_TEXT);
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        // writing to a String cannot fail
        let _ = write!(text, "... ({more} bytes more)");
    }
    text
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field.name(), Value::String(format!("{value:?}")));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field.name(), Value::from(value));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field.name(), Value::from(value));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field.name(), Value::from(value));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no NaN and no infinity: they are told as text
        let number = serde_json::Number::from_f64(value).map(Value::Number);
        self.push(field.name(), number.unwrap_or_else(|| Value::from(value.to_string())));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field.name(), Value::from(value));
    }
}

/// The line, its end included.
pub(super) fn compose(
    format: LogFormat,
    now: Timestamp,
    level: Level,
    message: &str,
    fields: &Fields,
) -> String {
    match format {
        LogFormat::Text => text_line(now, level, message, fields),
        LogFormat::Json => json_line(now, level, message, fields),
    }
}

/// UTC with milliseconds.
fn stamp(now: Timestamp) -> String {
    format!("{now:.3}")
}

/// An event's own field never takes the place of one of the line's.
fn prefix(name: &str, reserved: [&str; 3]) -> &'static str {
    if reserved.contains(&name) { "field." } else { "" }
}

fn text_line(now: Timestamp, level: Level, message: &str, fields: &Fields) -> String {
    let mut line = format!("time={} level={level} msg={}", stamp(now), quoted(message));
    for (name, value) in &fields.others {
        let text = value.as_str().map_or_else(|| value.to_string(), quoted);
        let _ = write!(line, " {}{name}={text}", prefix(name, ["time", "level", "msg"]));
    }
    line.push('\n');
    line
}

/// Quotes a value that would not read back as one word; control characters come out escaped.
fn quoted(text: &str) -> String {
    let plain = !text.is_empty()
        && text.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '"' && c != '=');
    if plain { text.to_owned() } else { format!("{text:?}") }
}

/// Written piece by piece: a JSON map would sort the names.
fn json_line(now: Timestamp, level: Level, message: &str, fields: &Fields) -> String {
    let mut line = format!(r#"{{"ts":"{}","level":"{level}","msg":{}"#, stamp(now), Value::from(message));
    for (name, value) in &fields.others {
        let _ = write!(line, r#","{}{name}":{value}"#, prefix(name, ["ts", "level", "msg"]));
    }
    line.push_str("}\n");
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(all: &[(&'static str, Value)]) -> Fields {
        let mut fields = Fields::default();
        all.iter().for_each(|(name, value)| fields.push(name, value.clone()));
        fields
    }

    fn line(format: LogFormat, all: &[(&'static str, Value)]) -> String {
        let noon = "2026-05-15T12:00:00Z".parse().unwrap();
        compose(format, noon, Level::INFO, "vm state transition", &fields(all))
    }

    #[test]
    fn the_documents_sample_comes_out_to_the_letter() {
        let all = [("vm_id", "abc123".into()), ("from", "created".into()), ("to", "starting".into())];
        assert_eq!(
            line(LogFormat::Json, &all),
            "{\"ts\":\"2026-05-15T12:00:00.000Z\",\"level\":\"INFO\",\"msg\":\"vm state transition\",\
             \"vm_id\":\"abc123\",\"from\":\"created\",\"to\":\"starting\"}\n"
        );
    }

    #[test]
    fn text_quotes_only_what_needs_it() {
        let all = [("vm_id", "9f2c41d07ab3".into()), ("n", 3.into()), ("err", "a\nb=c".into())];
        assert_eq!(
            line(LogFormat::Text, &all),
            "time=2026-05-15T12:00:00.000Z level=INFO msg=\"vm state transition\" vm_id=9f2c41d07ab3 n=3 \
             err=\"a\\nb=c\"\n"
        );
    }

    #[test]
    fn an_own_field_neither_replaces_one_of_the_lines_nor_is_lost() {
        let all = [("ts", "mine".into()), ("level", 7.into()), ("msg", true.into()), ("time", 1.into())];
        let value: Value = serde_json::from_str(&line(LogFormat::Json, &all)).unwrap();
        assert_eq!((&value["ts"], &value["field.ts"]), (&"2026-05-15T12:00:00.000Z".into(), &"mine".into()));
        assert_eq!((&value["level"], &value["field.level"]), (&"INFO".into(), &7.into()));
        assert_eq!((&value["msg"], &value["field.msg"]), (&"vm state transition".into(), &true.into()));
        let text = line(LogFormat::Text, &all);
        assert!(text.ends_with(" ts=mine field.level=7 field.msg=true field.time=1\n"), "{text}");
    }

    /// Through the facade, as events come.
    #[test]
    fn values_keep_their_types_and_nothing_breaks_the_line() {
        use std::sync::{Arc, Mutex};
        use tracing_subscriber::Layer;
        use tracing_subscriber::layer::{Context, SubscriberExt as _};

        struct Last(Arc<Mutex<String>>);
        impl<S: tracing::Subscriber> Layer<S> for Last {
            fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
                let mut fields = Fields::default();
                event.record(&mut fields);
                let now = Timestamp::UNIX_EPOCH;
                *self.0.lock().unwrap() = json_line(now, *event.metadata().level(), &fields.message, &fields);
            }
        }
        let last = Arc::new(Mutex::new(String::new()));
        let subscriber = tracing_subscriber::registry().with(Last(Arc::clone(&last)));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(
                big = u64::MAX,
                small = i64::MIN,
                half = 0.5,
                nan = f64::NAN,
                infinite = f64::INFINITY,
                yes = true,
                hostile = "\"}\n\u{1b}[2J\u{0}é",
                "two\nlines"
            );
        });
        let line = last.lock().unwrap().clone();
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&value["big"], &value["small"]), (&u64::MAX.into(), &i64::MIN.into()));
        assert_eq!((&value["half"], &value["yes"]), (&0.5.into(), &true.into()));
        assert_eq!((&value["nan"], &value["infinite"]), (&"NaN".into(), &"inf".into()));
        assert_eq!(
            (&value["hostile"], &value["msg"]),
            (&"\"}\n\u{1b}[2J\u{0}é".into(), &"two\nlines".into())
        );
        assert_eq!(value["level"], "WARN");
    }

    #[test]
    fn an_endless_text_is_shortened() {
        let value: Value =
            serde_json::from_str(&line(LogFormat::Json, &[("err", "é".repeat(9000).into())])).unwrap();
        let text = value["err"].as_str().unwrap();
        assert!(text.len() < MAX_TEXT + 50 && text.ends_with("... (9808 bytes more)"), "{}", text.len());
    }
}
