//! Points as OpenMetrics text 1.0 with time stamps.
//!
//! Owns names, labels and numbers as that format wants them. A field of a measurement is a metric family
//! `measurement_field`, of which nothing but the name is known.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use uni_store::ExportPage;
use uni_wire::FieldValue;
use uni_wire::line::Point;

use super::export::{Form, Written, points};
use super::sink::Sink;

/// The state between two points.
#[derive(Debug, Default)]
pub(super) struct OpenMetrics {
    /// All names so far: of two fields that come to the same name, the second gets another.
    families: BTreeSet<String>,
    /// Measurement and field of the family at hand.
    current: Option<(Box<str>, Box<str>)>,
    family: String,
    /// Text of the last series with its labels, and its sample that is not written yet.
    series: String,
    pending: Option<(i64, String)>,
}

impl Form for OpenMetrics {
    fn begin(&mut self, _: &mut Sink) -> anyhow::Result<()> {
        Ok(())
    }

    fn page(&mut self, page: &ExportPage, sink: &mut Sink, written: &mut Written) -> anyhow::Result<()> {
        let mut out = String::with_capacity(page.lines.len());
        for point in points(page) {
            self.point(&point?, &mut out, written);
        }
        sink.put(out.as_bytes())
    }

    fn end(&mut self, sink: &mut Sink, written: &mut Written) -> anyhow::Result<()> {
        let mut out = String::new();
        self.write_pending(&mut out, written);
        out.push_str("# EOF\n");
        sink.put(out.as_bytes())
    }
}

impl OpenMetrics {
    fn point(&mut self, point: &Point, out: &mut String, written: &mut Written) {
        for (field, value) in &point.fields {
            let number = match value {
                FieldValue::Float(value) => format!("{value:?}"),
                FieldValue::Integer(value) => value.to_string(),
                FieldValue::Unsigned(value) => value.to_string(),
                FieldValue::Boolean(value) => u8::from(*value).to_string(),
                FieldValue::String(_) => {
                    written.left_out_values += 1;
                    continue;
                }
            };
            let is_same = self.current.as_ref().is_some_and(|(m, f)| (m, f) == (&point.measurement, field));
            if !is_same {
                self.write_pending(out, written);
                self.begin_family(&point.measurement, field, out, written);
            }
            let series = series(&self.family, &point.tags);
            let milliseconds = point.time.nanos().div_euclid(1_000_000);
            if series != self.series {
                self.write_pending(out, written);
                self.series = series;
            } else if self.pending.as_ref().is_some_and(|(at, _)| *at == milliseconds) {
                written.same_millisecond_values += 1;
                self.pending = None;
            }
            self.write_pending(out, written);
            self.pending = Some((milliseconds, number));
        }
    }

    fn begin_family(&mut self, measurement: &str, field: &str, out: &mut String, written: &mut Written) {
        self.current = Some((measurement.into(), field.into()));
        self.family = name(&format!("{measurement}_{field}"), true);
        if self.families.contains(&self.family) {
            written.renamed += 1;
        }
        while !self.families.insert(self.family.clone()) {
            self.family.push('_');
        }
        self.series.clear();
        let _a_string_takes_all = writeln!(out, "# TYPE {} unknown", self.family);
    }

    fn write_pending(&mut self, out: &mut String, written: &mut Written) {
        let Some((milliseconds, number)) = self.pending.take() else { return };
        let sign = if milliseconds < 0 { "-" } else { "" };
        let (seconds, rest) = (milliseconds.unsigned_abs() / 1000, milliseconds.unsigned_abs() % 1000);
        let _a_string_takes_all = writeln!(out, "{} {number} {sign}{seconds}.{rest:03}", self.series);
        written.points += 1;
    }
}

/// The family with its labels.
fn series(family: &str, tags: &[(Box<str>, Box<str>)]) -> String {
    let mut out = family.to_owned();
    let mut names = BTreeSet::new();
    for (n, (key, value)) in tags.iter().enumerate() {
        out.push(if n == 0 { '{' } else { ',' });
        let mut label = name(key, false);
        while !names.insert(label.clone()) {
            label.push('_');
        }
        out.push_str(&label);
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
    if !tags.is_empty() {
        out.push('}');
    }
    out
}

/// A name that Prometheus takes: letters, digits, `_`, in names of metrics `:`. Labels that begin with two underscores are
/// Prometheus' own.
fn name(text: &str, is_metric: bool) -> String {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || (is_metric && c == ':');
    let mut name: String = text.chars().map(|c| if good(c) { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) || (!is_metric && name.starts_with("__")) {
        name.insert_str(0, "tag_");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use uni_wire::Timestamp;

    /// Measurement, tags, field, value, time.
    type Given<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, FieldValue, i64);

    fn written(points: &[Given<'_>]) -> (String, Written) {
        let (mut form, mut out, mut written) = (OpenMetrics::default(), String::new(), Written::default());
        for (measurement, tags, field, value, nanos) in points {
            let point = Point {
                measurement: (*measurement).into(),
                tags: tags.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
                fields: vec![((*field).into(), value.clone())],
                time: Timestamp(*nanos),
                stamped: true,
            };
            form.point(&point, &mut out, &mut written);
        }
        form.write_pending(&mut out, &mut written);
        (out, written)
    }

    #[test]
    fn families_labels_and_times_are_as_the_format_wants_them() {
        let tags: &[(&str, &str)] = &[("a-b", "x\"\\\n"), ("a_b", "y"), ("__z", "1")];
        let (out, _) = written(&[
            ("m", tags, "f", FieldValue::Float(0.1), 1_500_000_000),
            ("m", tags, "f", FieldValue::Float(1e300), -1_500_000_000),
            ("m", &[], "f g", FieldValue::Boolean(true), 0),
            ("m", &[], "f-g", FieldValue::Integer(-7), 0),
        ]);
        let expected = "# TYPE m_f unknown\n\
            m_f{a_b=\"x\\\"\\\\\\n\",a_b_=\"y\",tag___z=\"1\"} 0.1 1.500\n\
            m_f{a_b=\"x\\\"\\\\\\n\",a_b_=\"y\",tag___z=\"1\"} 1e300 -1.500\n\
            # TYPE m_f_g unknown\nm_f_g 1 0.000\n# TYPE m_f_g_ unknown\nm_f_g_ -7 0.000\n";
        assert_eq!(out, expected);
    }

    #[test]
    fn of_one_millisecond_the_last_value_stays_and_texts_have_no_place() {
        let (out, written) = written(&[
            ("m", &[], "f", FieldValue::Integer(1), 5_000_001),
            ("m", &[], "f", FieldValue::Integer(2), 5_999_999),
            ("m", &[], "f", FieldValue::Integer(3), 6_000_000),
            ("m", &[], "g", FieldValue::String("x".into()), 0),
        ]);
        assert_eq!(out, "# TYPE m_f unknown\nm_f 2 0.005\nm_f 3 0.006\n");
        assert_eq!((written.points, written.same_millisecond_values, written.left_out_values), (2, 1, 1));
    }
}
