//! Logs and events as the query language sees them: the measurements `syslog` and `lifecycle`.
//!
//! Owns their tags and fields, which are those of Telegraf's syslog input with structured data in one field. Keeps no
//! copy: what is asked for is read from the logs.

use std::ops::ControlFlow;

use uni_query::{Series, SourceError, TagMatcher, TagOp, Visitor};
use uni_store::{LogEntry, LogKind, LogSeries, Logs};
use uni_wire::{FieldType, FieldValue, Timestamp};

/// Severities 0 to 7, as Telegraf and RFC 5424's own texts abbreviate them.
pub(crate) const SEVERITIES: [&str; 8] =
    ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
/// The measurements, and what each of them shows.
const MEASUREMENTS: [(&str, LogKind); 2] = [("lifecycle", LogKind::Event), ("syslog", LogKind::Message)];
/// Fields of messages.
const MESSAGE_FIELDS: [(&str, FieldType); 8] = [
    ("facility_code", FieldType::Integer),
    ("hostname", FieldType::String),
    ("message", FieldType::String),
    ("msgid", FieldType::String),
    ("procid", FieldType::String),
    ("severity_code", FieldType::Integer),
    ("structured_data", FieldType::String),
    ("timestamp", FieldType::Integer),
];
/// Fields of events.
const EVENT_FIELDS: [(&str, FieldType); 2] = [("event", FieldType::String), ("text", FieldType::String)];
/// Set in the number of a series of logs, so that it is no number of a series of points.
const LOGS: u64 = 1 << 63;

/// The measurements that have entries.
pub(crate) fn measurements(logs: &Logs) -> Vec<&'static str> {
    let series = logs.series();
    let has = |kind| series.iter().any(|(_, series)| series.kind == kind);
    MEASUREMENTS.iter().filter(|(_, kind)| has(*kind)).map(|(name, _)| *name).collect()
}

/// The fields of a measurement; none where it is not one of logs, or has no entries.
pub(crate) fn fields(logs: &Logs, measurement: &str) -> &'static [(&'static str, FieldType)] {
    match kind(measurement).filter(|_| measurements(logs).contains(&measurement)) {
        Some(LogKind::Message) => &MESSAGE_FIELDS,
        Some(LogKind::Event) => &EVENT_FIELDS,
        None => &[],
    }
}

fn kind(measurement: &str) -> Option<LogKind> {
    MEASUREMENTS.iter().find(|(name, _)| *name == measurement).map(|(_, kind)| *kind)
}

/// The series of a measurement that equal what the matchers name; patterns are left to the engine, which checks every
/// series again.
pub(crate) fn series(logs: &Logs, measurement: &str, matchers: &[TagMatcher]) -> Vec<Series> {
    let Some(kind) = kind(measurement) else { return Vec::new() };
    let of_kind = logs.series().into_iter().filter(|(_, series)| series.kind == kind);
    let mut all: Vec<Series> = of_kind
        .map(|(number, series)| Series { id: LOGS | u64::from(number), tags: tags(&series) })
        .collect();
    all.retain(|series| {
        matchers.iter().all(|matcher| match matcher.op {
            TagOp::Equal => series.tag(&matcher.key) == matcher.value,
            TagOp::NotEqual => series.tag(&matcher.key) != matcher.value,
            TagOp::Regex | TagOp::NotRegex => true,
        })
    });
    all
}

fn tags(series: &LogSeries) -> Vec<(String, String)> {
    let severity = match series.kind {
        LogKind::Message => SEVERITIES[usize::from(series.severity) % SEVERITIES.len()],
        LogKind::Event => "",
    };
    let tags = [("appname", &*series.app), ("severity", severity), ("vm", &*series.vm)];
    let tags = tags.into_iter().filter(|(_, value)| !value.is_empty());
    tags.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Visits the rows of a series of logs; `None` if the series is none.
pub(crate) fn scan(
    logs: &Logs,
    series: u64,
    fields: &[&str],
    span: (Timestamp, Timestamp),
    visit: Visitor<'_>,
) -> Option<Result<(), SourceError>> {
    if series & LOGS == 0 {
        return None;
    }
    let number = u32::try_from(series ^ LOGS).ok()?;
    let texts = fields.iter().any(|field| matches!(*field, "message" | "text"));
    let mut row = vec![None; fields.len()];
    let mut each = |entry: &LogEntry| {
        row.iter_mut().zip(fields).for_each(|(value, field)| *value = self::value(entry, field));
        if row.iter().all(Option::is_none) { ControlFlow::Continue(()) } else { visit(entry.time, &row) }
    };
    let scanned = logs.scan(number, span, texts, &mut each);
    Some(scanned.map_err(|error| SourceError::new(error.to_string())))
}

/// A field of an entry; what it does not have is no value.
fn value(entry: &LogEntry, field: &str) -> Option<FieldValue> {
    let text = |text: &str| Some(FieldValue::String(text.into()));
    let said = |value: &str| if value.is_empty() { None } else { text(value) };
    match (entry.kind, field) {
        (LogKind::Message, "message") | (LogKind::Event, "text") => text(&entry.text),
        (LogKind::Event, "event") | (LogKind::Message, "msgid") => said(&entry.id),
        (LogKind::Message, "hostname") => said(&entry.host),
        (LogKind::Message, "procid") => said(&entry.process),
        (LogKind::Message, "structured_data") => said(&entry.data),
        (LogKind::Message, "facility_code") => Some(FieldValue::Integer(entry.facility.into())),
        (LogKind::Message, "severity_code") => Some(FieldValue::Integer(entry.severity.into())),
        (LogKind::Message, "timestamp") => entry.own_time.map(|time| FieldValue::Integer(time.nanos())),
        _ => None,
    }
}
