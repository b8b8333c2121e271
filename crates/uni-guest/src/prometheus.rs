//! The reporter that is asked: Prometheus text, format 0.0.4.
//!
//! Owns the spelling of names and the order of lines. Never listens: a driver serves what [`Prometheus::render`]
//! wrote, as [`CONTENT_TYPE`].
//!
//! A field KEY of the source NAME becomes the family `NAME_KEY` (or `KEY`, if that starts with `NAME_`); what a name
//! may not contain becomes `_`. A counter ends in `_total`. Histograms have a bucket for every doubling up to the
//! largest value (`le` is 0, 1, 3, 7, ...), and none that vanishes. Timers add the counter `NAME_KEY_calls_total`
//! with the label `status` (`ok`, `error`). Booleans are 1 and 0; texts have no form here and are left out. Of two
//! series that come out alike the first is kept, and the other counted.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use uni_wire::{Timestamp, Value};

use crate::histogram::Snapshot;
use crate::metrics::Registry;
use crate::report::{Kind, Lost, Point, Reading, Reporter, Sample};

/// The media type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Longest text; sources beyond it are left out and counted.
pub const MAX_TEXT_BYTES: usize = 1024 * 1024;

/// Gathers a round, and then writes it: the series of a family must stand together, whatever source they are of.
#[derive(Debug, Default)]
pub struct Prometheus {
    /// Labels of every series, with their separators.
    common: String,
    families: BTreeMap<String, Family>,
    bytes: usize,
    lost: u64,
}

#[derive(Debug)]
struct Family {
    kind: &'static str,
    help: String,
    /// Labels, and the lines of the series.
    series: BTreeMap<String, String>,
}

impl Prometheus {
    /// Renders all sources that are on; every series has the label `vm`. Returns how many points, fields and series
    /// were lost.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn render(
        registry: &mut Registry,
        vm: &str,
        out: &mut (impl fmt::Write + ?Sized),
    ) -> Result<u64, fmt::Error> {
        let mut page = Self::default();
        write_label(&mut page.common, "vm", vm);
        let lost = registry.report(&mut page);
        page.write(out)?;
        Ok(lost + page.lost)
    }

    fn write(&self, out: &mut (impl fmt::Write + ?Sized)) -> fmt::Result {
        for (name, Family { kind, help, series }) in &self.families {
            if !help.is_empty() {
                writeln!(out, "# HELP {name} {help}")?;
            }
            writeln!(out, "# TYPE {name} {kind}")?;
            series.values().try_for_each(|lines| out.write_str(lines))?;
        }
        Ok(())
    }

    fn add_reading(&mut self, name: &str, labels: &str, doc: &str, reading: &Reading<'_>) {
        let family = family_name(name, reading.key, reading.kind);
        let help = help(if reading.doc.is_empty() { doc } else { reading.doc }, reading.unit);
        match reading.sample {
            Sample::Value(value) => {
                if let Some(text) = number(value) {
                    let kind = match reading.kind {
                        Kind::Counter => "counter",
                        Kind::Gauge => "gauge",
                        Kind::Histogram | Kind::Unknown => "untyped",
                    };
                    self.add(&family, kind, help, labels, line(&family, labels, &text));
                }
            }
            Sample::Histogram { snapshot, .. } => {
                self.add(&family, "histogram", help, labels, histogram(&family, labels, snapshot));
            }
            Sample::Calls { snapshot, ok, errors, .. } => {
                self.add(&family, "histogram", help.clone(), labels, histogram(&family, labels, snapshot));
                let calls = joined(&family, "calls_total");
                for (status, count) in [("ok", ok), ("error", errors)] {
                    let mut labels = String::from(labels);
                    write_label(&mut labels, "status", status);
                    self.add(&calls, "counter", help.clone(), &labels, line(&calls, &labels, &count));
                }
            }
        }
    }

    fn add(&mut self, name: &str, kind: &'static str, help: String, labels: &str, lines: String) {
        let bytes = lines.len() + labels.len() + name.len() + help.len();
        if self.bytes + bytes > MAX_TEXT_BYTES {
            self.lost += 1;
            return;
        }
        let family = self.families.entry(name.into()).or_insert_with(|| Family {
            kind,
            help,
            series: BTreeMap::new(),
        });
        if family.kind != kind || family.series.contains_key(labels) {
            self.lost += 1;
        } else {
            self.bytes += bytes;
            family.series.insert(labels.into(), lines);
        }
    }
}

impl Reporter for Prometheus {
    /// Series carry no time: it is that of the scrape.
    fn now(&self) -> Timestamp {
        Timestamp::default()
    }

    fn report(&mut self, point: &mut Point<'_>, _: Timestamp) -> Result<(), Lost> {
        let mut labels = self.common.clone();
        let mut keys = Vec::from([String::from("vm")]);
        for (key, value) in point.tags() {
            // Two underscores at the start are Prometheus's own.
            let key = sanitized(key, false).replacen("__", "_", 1);
            // So are some labels, and readers refuse a label twice, or one without a value.
            let reserved =
                key.is_empty() || key.starts_with("__") || ["le", "status"].contains(&key.as_str());
            if !value.is_empty() && !reserved && !keys.contains(&key) {
                write_label(&mut labels, &key, value);
                keys.push(key);
            }
        }
        let (name, doc) = (point.name(), point.doc());
        point.read(|reading| self.add_reading(name, &labels, doc, reading));
        Ok(())
    }
}

/// A name of letters, digits and `_` that starts with no digit.
fn sanitized(name: &str, colons: bool) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || (colons && c == ':');
    let start = name.starts_with(|c: char| c.is_ascii_digit()).then_some('_');
    start.into_iter().chain(name.chars().map(|c| if fits(c) { c } else { '_' })).collect()
}

fn joined(first: &str, second: &str) -> String {
    let mut name = String::from(first);
    name.push('_');
    name.push_str(second);
    name
}

fn family_name(source: &str, key: &str, kind: Kind) -> String {
    let source = sanitized(source, true);
    let mut name = sanitized(&joined(&source, key), true);
    let key = name.get(source.len() + 1..).unwrap_or_default();
    if key.strip_prefix(&source).is_some_and(|rest| rest.starts_with('_')) {
        name = String::from(key);
    }
    if kind == Kind::Counter && !name.ends_with("_total") {
        name.push_str("_total");
    }
    name
}

fn help(doc: &str, unit: &str) -> String {
    let mut help = String::new();
    for c in doc.chars() {
        match c {
            '\\' => help.push_str("\\\\"),
            '\n' => help.push_str("\\n"),
            '\r' => help.push(' '),
            _ => help.push(c),
        }
    }
    if !unit.is_empty() && !unit.contains(['\n', '\r', '\\']) {
        // Writing to a string does not fail.
        let _ = write!(help, " [{unit}]");
    }
    help
}

/// Adds `key="value"`, and a comma between labels.
fn write_label(out: &mut String, key: &str, value: &str) {
    if !out.is_empty() {
        out.push(',');
    }
    out.push_str(key);
    out.push_str("=\"");
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            _ => out.push(c),
        }
    }
    out.push('"');
}

fn number(value: Value<'_>) -> Option<String> {
    let mut text = String::new();
    let written = match value {
        Value::Float(v) if v.is_finite() => write!(text, "{v:?}"),
        Value::Float(_) | Value::String(_) => return None,
        Value::Integer(v) => write!(text, "{v}"),
        Value::Unsigned(v) => write!(text, "{v}"),
        Value::Boolean(v) => write!(text, "{}", u8::from(v)),
    };
    written.is_ok().then_some(text)
}

fn line(name: &str, labels: &str, value: &dyn fmt::Display) -> String {
    let mut line = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(line, "{name}{{{labels}}} {value}");
    line
}

fn histogram(name: &str, labels: &str, snapshot: &Snapshot) -> String {
    let mut text = String::new();
    let bucket_name = joined(name, "bucket");
    let mut bucket = |le: &dyn fmt::Display, count: u64| {
        let mut labels = String::from(labels);
        if !labels.is_empty() {
            labels.push(',');
        }
        // Writing to a string does not fail.
        let _ = write!(labels, "le=\"{le}\"");
        text.push_str(&line(&bucket_name, &labels, &count));
    };
    let (mut below, mut next) = (0_u64, 0_u64);
    for (_, high, count) in snapshot.doublings() {
        while next < high {
            bucket(&next, below);
            next = next * 2 + 1;
        }
        below = below.wrapping_add(count);
        bucket(&high, below);
        next = high.saturating_mul(2).saturating_add(1);
    }
    bucket(&"+Inf", below);
    text.push_str(&line(&joined(name, "sum"), labels, &snapshot.sum()));
    text.push_str(&line(&joined(name, "count"), labels, &below));
    text
}
