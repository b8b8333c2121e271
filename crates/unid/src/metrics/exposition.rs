//! The two texts of `/metrics`: Prometheus' format 0.0.4 and OpenMetrics 1.0, from one model.
//!
//! Owns the model of families and samples, escaping, and the choice between the formats. Never knows what is
//! measured. Written by hand because the library for it speaks OpenMetrics only, adds `_total` to counters and has
//! no way to say that a gauge's name ends in it.

use std::fmt::Write as _;

/// What a family's numbers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Only rises, from 0 at a start. Its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How many, and how much together: two samples, `_count` and `_sum`.
    Summary,
}

/// A number as it was counted: whole ones lose nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    Integer(u64),
    Float(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Integer(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(value) => value.fmt(f),
            Self::Float(value) if value.is_nan() => f.write_str("NaN"),
            Self::Float(value) if value.is_infinite() => {
                f.write_str(if *value > 0.0 { "+Inf" } else { "-Inf" })
            }
            Self::Float(value) => value.fmt(f),
        }
    }
}

/// One metric with all its samples of this moment.
#[derive(Clone, Debug)]
pub(crate) struct Family {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    samples: Vec<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    suffix: &'static str,
    labels: Vec<(&'static str, String)>,
    value: Value,
}

/// The labels of a sample.
type Labels<'a> = &'a [(&'static str, &'a str)];

impl Family {
    /// A counter; `name` ends in `_total`.
    pub(crate) const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Counter, samples: Vec::new() }
    }

    /// A gauge.
    pub(crate) const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Gauge, samples: Vec::new() }
    }

    /// A sum and a count.
    pub(crate) const fn summary(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Summary, samples: Vec::new() }
    }

    /// Adds a sample of a counter or gauge.
    pub(crate) fn add(&mut self, labels: Labels<'_>, value: impl Into<Value>) {
        self.push("", labels, value.into());
    }

    /// The same, for a family that is made in one expression.
    pub(crate) fn with(mut self, labels: Labels<'_>, value: impl Into<Value>) -> Self {
        self.add(labels, value);
        self
    }

    /// Adds the two samples of a summary.
    pub(crate) fn add_sum(&mut self, labels: Labels<'_>, sum: f64, count: u64) {
        self.push("_sum", labels, sum.into());
        self.push("_count", labels, count.into());
    }

    fn push(&mut self, suffix: &'static str, labels: Labels<'_>, value: Value) {
        let labels = labels.iter().map(|&(name, value)| (name, value.to_owned())).collect();
        self.samples.push(Sample { suffix, labels, value });
    }

    /// The name and type in the lines before the samples. OpenMetrics names a counter without its suffix, and keeps
    /// the suffix for counters: a gauge that has it is of unknown type there.
    fn heading(&self, format: Format) -> (&'static str, &'static str) {
        let bare = self.name.strip_suffix("_total");
        match (self.kind, format, bare) {
            (Kind::Counter, Format::OpenMetrics, Some(bare)) => (bare, "counter"),
            (Kind::Counter, _, _) => (self.name, "counter"),
            (Kind::Gauge, Format::OpenMetrics, Some(_)) => (self.name, "unknown"),
            (Kind::Gauge, _, _) => (self.name, "gauge"),
            (Kind::Summary, _, _) => (self.name, "summary"),
        }
    }
}

/// The form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// OpenMetrics if `accept` names it and does not prefer plain text; else, and without a word, plain text.
    pub(crate) fn negotiate(accept: &str) -> Self {
        let open_metrics = weight(accept, "application/openmetrics-text");
        if open_metrics > 0.0 && open_metrics >= weight(accept, "text/plain") {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// The `Content-Type` of the answer.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// How much an `Accept` header wants a media type (RFC 9110, section 12.5.1); 0 if it does not name it.
fn weight(accept: &str, media_type: &str) -> f64 {
    let ranges = accept.split(',').filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(media_type));
        named.then(|| parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0))
    });
    ranges.fold(0.0, f64::max)
}

/// The whole answer.
pub(crate) fn render(families: &[Family], format: Format) -> String {
    let mut text = String::new();
    // writing to a String cannot fail
    for family in families {
        let (name, kind) = family.heading(format);
        let _ = writeln!(text, "# HELP {name} {}", escape(family.help, format == Format::OpenMetrics));
        let _ = writeln!(text, "# TYPE {name} {kind}");
        for sample in &family.samples {
            let _ = write!(text, "{}{}", family.name, sample.suffix);
            for (n, (name, value)) in sample.labels.iter().enumerate() {
                let before = if n == 0 { '{' } else { ',' };
                let _ = write!(text, "{before}{name}=\"{}\"", escape(value, true));
            }
            let after = if sample.labels.is_empty() { "" } else { "}" };
            let _ = writeln!(text, "{after} {}", sample.value);
        }
    }
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

fn escape(text: &str, quotes: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quotes { text.replace('"', "\\\"") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn families() -> Vec<Family> {
        let mut seconds = Family::summary("round_seconds", "Rounds");
        seconds.add_sum(&[], 0.25, 3);
        vec![
            Family::counter("events_total", "Events \\ of \"all\"\nkinds")
                .with(&[("vm", "a\"b\\c\nd"), ("event", "stop")], u64::MAX),
            Family::gauge("vms_total", "VMs").with(&[], 2),
            seconds,
            Family::gauge("empty", "Nothing yet"),
        ]
    }

    #[test]
    fn text_keeps_names_and_escapes_what_it_must() {
        let expected = "# HELP events_total Events \\\\ of \"all\"\\nkinds\n# TYPE events_total counter\n\
             events_total{vm=\"a\\\"b\\\\c\\nd\",event=\"stop\"} 18446744073709551615\n\
             # HELP vms_total VMs\n# TYPE vms_total gauge\nvms_total 2\n\
             # HELP round_seconds Rounds\n# TYPE round_seconds summary\nround_seconds_sum 0.25\nround_seconds_count 3\n\
             # HELP empty Nothing yet\n# TYPE empty gauge\n";
        assert_eq!(render(&families(), Format::Text), expected);
    }

    #[test]
    fn open_metrics_names_counters_without_suffix_and_reserves_it_for_them() {
        let text = render(&families(), Format::OpenMetrics);
        assert!(text.starts_with(
            "# HELP events Events \\\\ of \\\"all\\\"\\nkinds\n# TYPE events counter\nevents_total{"
        ));
        assert!(text.contains("# TYPE vms_total unknown\nvms_total 2\n"));
        assert!(text.ends_with("# TYPE empty gauge\n# EOF\n"));
    }

    #[test]
    fn numbers_are_written_as_both_formats_read_them() {
        let text = |value: f64| Value::from(value).to_string();
        assert_eq!([text(f64::NAN), text(f64::INFINITY), text(f64::NEG_INFINITY)], ["NaN", "+Inf", "-Inf"]);
        assert_eq!([text(0.1), text(1e-9), text(3.0)], ["0.1", "0.000000001", "3"]);
    }

    #[test]
    fn open_metrics_is_for_those_who_ask() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, format) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/plain;version=0.0.4", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text; q=0.2, text/plain", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            (prometheus, Format::OpenMetrics),
        ] {
            assert_eq!(Format::negotiate(accept), format, "{accept}");
        }
    }
}
