//! Writing lines that every reader accepts.
//!
//! Owns escaping and what is left out because no reader takes it: empty tag values, `NaN` and infinities,
//! fields and tags called `time`, lines without fields. Never renames what can be written as it is.

use core::fmt;

use crate::{Timestamp, Value};

/// What carries the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// A stream cut at every newline (TCP): a newline inside a string is written as a space.
    #[default]
    Stream,
    /// A body whose reader knows quotes (HTTP): a newline inside a string stays.
    Body,
}

/// Writes one line, field by field. Nothing is written before the first good field, so a source without
/// fields leaves no trace.
///
/// `T` gives the tags, in the order they are to be written: an array of pairs, or any iterator that can be
/// cloned. Names are written as they are but for what would break the line: control characters become spaces,
/// and a backslash is dropped where readers disagree on it (before `,`, space or `=`, and at the end).
///
/// ```
/// use uni_wire::{Timestamp, line::LineWriter};
/// let mut out = String::new();
/// let mut line = LineWriter::new(&mut out, "gc", [("vm", "web")]);
/// line.field("live words", 51_234_i64)?;
/// line.finish(Some(Timestamp(7)))?;
/// assert_eq!(out, "gc,vm=web live\\ words=51234i 7\n");
/// # Ok::<(), core::fmt::Error>(())
/// ```
#[derive(Debug)]
pub struct LineWriter<'a, W: fmt::Write + ?Sized, T> {
    out: &'a mut W,
    measurement: &'a str,
    tags: T,
    framing: Framing,
    decimals: Option<usize>,
    started: bool,
}

impl<'a, W, T> LineWriter<'a, W, T>
where
    W: fmt::Write + ?Sized,
    T: IntoIterator<Item = (&'a str, &'a str)> + Clone,
{
    /// A line of `measurement` with `tags`, for a stream.
    pub const fn new(out: &'a mut W, measurement: &'a str, tags: T) -> Self {
        Self { out, measurement, tags, framing: Framing::Stream, decimals: None, started: false }
    }

    /// The same line for another carrier.
    #[must_use]
    pub const fn framing(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }

    /// The same line with this many decimals in floats (printf's `%f` has 6), instead of as few as read back.
    #[must_use]
    pub const fn decimals(mut self, decimals: usize) -> Self {
        self.decimals = Some(decimals);
        self
    }

    /// Adds a field, unless no reader would take it.
    ///
    /// # Errors
    /// Only when `out` is full: what it holds of this line is then to be thrown away.
    pub fn field<'v>(&mut self, key: &str, value: impl Into<Value<'v>>) -> fmt::Result {
        let value = value.into();
        let finite = !matches!(value, Value::Float(v) if !v.is_finite());
        if !finite || !usable(key) || clean(key).eq("time".chars()) || !usable(self.measurement) {
            return Ok(());
        }
        if self.started {
            self.out.write_char(',')?;
        } else {
            self.started = true;
            self.write_head()?;
        }
        write_name(self.out, key)?;
        self.out.write_char('=')?;
        self.write_value(value)
    }

    /// Ends the line; says whether one was written.
    ///
    /// # Errors
    /// Only when `out` is full.
    pub fn finish(self, time: Option<Timestamp>) -> Result<bool, fmt::Error> {
        if self.started {
            if let Some(Timestamp(nanos)) = time {
                write!(self.out, " {nanos}")?;
            }
            self.out.write_char('\n')?;
        }
        Ok(self.started)
    }

    fn write_head(&mut self) -> fmt::Result {
        // A line that starts with `#` is a comment, and nothing can escape it.
        let name = match self.measurement.strip_prefix('#') {
            Some(rest) => {
                self.out.write_char('_')?;
                rest
            }
            None => self.measurement,
        };
        write_name(self.out, name)?;
        for (n, (key, value)) in self.tags.clone().into_iter().enumerate() {
            if self.is_good_tag(n, key, value) {
                self.out.write_char(',')?;
                write_name(self.out, key)?;
                self.out.write_char('=')?;
                write_name(self.out, value)?;
            }
        }
        self.out.write_char(' ')
    }

    /// A reader refuses a line with an empty tag value or a key that was there before.
    fn is_good_tag(&self, place: usize, key: &str, value: &str) -> bool {
        let mut earlier = self.tags.clone().into_iter().take(place);
        let doubled = earlier.any(|(k, v)| clean(k).eq(clean(key)) && usable(v));
        usable(key) && usable(value) && !clean(key).eq("time".chars()) && !doubled
    }

    fn write_value(&mut self, value: Value<'_>) -> fmt::Result {
        match value {
            Value::Float(v) => match self.decimals {
                Some(decimals) => write!(self.out, "{v:.decimals$}"),
                None => write_float(self.out, v),
            },
            Value::Integer(v) => write!(self.out, "{v}i"),
            Value::Unsigned(v) => write!(self.out, "{v}u"),
            Value::Boolean(v) => write!(self.out, "{v}"),
            Value::String(v) => self.write_string(v),
        }
    }

    fn write_string(&mut self, text: &str) -> fmt::Result {
        self.out.write_char('"')?;
        for c in text.chars() {
            match c {
                '"' | '\\' => {
                    self.out.write_char('\\')?;
                    self.out.write_char(c)?;
                }
                '\n' | '\r' if self.framing == Framing::Stream => self.out.write_char(' ')?,
                _ => self.out.write_char(c)?,
            }
        }
        self.out.write_char('"')
    }
}

/// Whether anything of a name is left to be written.
fn usable(name: &str) -> bool {
    clean(name).next().is_some()
}

/// The characters of a name that can be written and read back by everyone.
fn clean(name: &str) -> impl Iterator<Item = char> {
    let mut rest = name.chars();
    core::iter::from_fn(move || {
        loop {
            let c = rest.next()?;
            if c != '\\'
                || !matches!(harmless(rest.clone().find(|c| *c != '\\')), None | Some(',' | ' ' | '='))
            {
                return Some(if c.is_control() { ' ' } else { c });
            }
        }
    })
}

/// The character as it will be written.
fn harmless(c: Option<char>) -> Option<char> {
    c.map(|c| if c.is_control() { ' ' } else { c })
}

fn write_name<W: fmt::Write + ?Sized>(out: &mut W, name: &str) -> fmt::Result {
    clean(name).try_for_each(|c| {
        if matches!(c, ',' | ' ' | '=') {
            out.write_char('\\')?;
        }
        out.write_char(c)
    })
}

/// The shortest digits that read back as the same float; an exponent where zeros would be many.
fn write_float<W: fmt::Write + ?Sized>(out: &mut W, value: f64) -> fmt::Result {
    let size = value.abs();
    if size != 0.0 && !(1e-5..1e17).contains(&size) {
        write!(out, "{value:e}")
    } else {
        write!(out, "{value}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FieldValue;
    use crate::line::{Mode, Point, Precision, next_line, parse_point};
    use crate::slice::SliceWriter;
    use proptest::prelude::*;
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    fn line(measurement: &str, tags: &[(&str, &str)], fields: &[(&str, Value<'_>)]) -> String {
        let mut out = String::new();
        let mut writer = LineWriter::new(&mut out, measurement, tags.iter().copied()).framing(Framing::Body);
        for (key, value) in fields {
            writer.field(key, *value).expect("string");
        }
        writer.finish(None).expect("string");
        out
    }

    fn read(text: &str) -> Point {
        let (first, rest) = next_line(text.as_bytes()).expect("one line");
        assert!(rest.is_empty(), "more than one line: {text:?}");
        parse_point(first, Mode::Strict, Timestamp(0), Precision::Nanoseconds).expect(text)
    }

    const ONE: (&str, Value<'_>) = ("a", Value::Integer(1));

    #[test]
    fn words_of_a_query_language_are_not_renamed() {
        assert_eq!(
            line("user", &[("vm", "stats")], &[("duration", Value::Integer(1))]),
            "user,vm=stats duration=1i\n"
        );
    }

    #[test]
    fn what_no_reader_takes_is_left_out() {
        assert_eq!(line("m", &[("vm", "")], &[ONE]), "m a=1i\n");
        assert_eq!(line("m", &[("t", "1"), ("t", "2"), ("time", "3")], &[ONE]), "m,t=1 a=1i\n");
        let nan = ("n", Value::Float(f64::NAN));
        assert_eq!(line("m", &[], &[nan, ONE, ("time", Value::Integer(2))]), "m a=1i\n");
        assert_eq!(line("m", &[], &[nan]), "");
        assert_eq!(line("", &[], &[ONE]), "");
    }

    #[test]
    fn names_cannot_inject_lines_or_comments() {
        assert_eq!(line("x", &[("vm", "new\nline")], &[ONE]), "x,vm=new\\ line a=1i\n");
        assert_eq!(line("#x", &[], &[ONE]), "_x a=1i\n");
        assert_eq!(line("x\\", &[("t", "a\\ b\\\\")], &[ONE]), "x,t=a\\ b a=1i\n");
    }

    #[test]
    fn floats_are_the_shortest_that_read_back() {
        let text = |v| line("m", &[], &[("f", Value::Float(v))]);
        assert_eq!(text(0.1), "m f=0.1\n");
        assert_eq!(text(1e22), "m f=1e22\n");
        assert_eq!(text(1e-7), "m f=1e-7\n");
        assert_eq!(text(123_456_789.0), "m f=123456789\n");
    }

    #[test]
    fn floats_may_be_written_as_printf_does() {
        let mut out = String::new();
        let mut writer = LineWriter::new(&mut out, "m", []).decimals(6);
        for (key, value) in [("a", 12.34), ("b", 3.0), ("c", 812.263_484_4)] {
            writer.field(key, value).expect("string");
        }
        writer.finish(None).expect("string");
        assert_eq!(out, "m a=12.340000,b=3.000000,c=812.263484\n");
    }

    #[test]
    fn a_stream_gets_no_newline_inside_a_string() {
        let mut out = String::new();
        let mut writer = LineWriter::new(&mut out, "m", []);
        writer.field("s", "a\nb\"c\\").expect("string");
        assert!(writer.finish(Some(Timestamp(5))).expect("string"));
        assert_eq!(out, "m s=\"a b\\\"c\\\\\" 5\n");
    }

    #[test]
    fn a_full_buffer_is_an_error_not_a_panic() {
        let mut space = [0; 8];
        let mut out = SliceWriter::new(&mut space);
        let mut writer = LineWriter::new(&mut out, "measurement", []);
        assert!(writer.field("a", 1_i64).is_err());
    }

    fn any_value() -> impl Strategy<Value = FieldValue> {
        prop_oneof![
            any::<f64>().prop_filter("finite", |v| v.is_finite()).prop_map(FieldValue::Float),
            any::<i64>().prop_map(FieldValue::Integer),
            any::<u64>().prop_map(FieldValue::Unsigned),
            any::<bool>().prop_map(FieldValue::Boolean),
            "(?s).{0,12}".prop_map(|s| FieldValue::String(s.into())),
        ]
    }

    /// Names that can be written without loss: no control characters, no backslash that readers disagree on.
    fn plain_name() -> impl Strategy<Value = String> {
        "([a-z\"é,= ]|\\\\[a-z\"]){1,8}".prop_filter("reserved", |s| s != "time" && !s.starts_with('#'))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            measurement in plain_name(),
            tags in prop::collection::btree_map(plain_name(), plain_name(), 0..4),
            fields in prop::collection::btree_map(plain_name(), any_value(), 1..5),
        ) {
            let tags: Vec<(&str, &str)> = tags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let given: Vec<(&str, Value<'_>)> = fields.iter().map(|(k, v)| (k.as_str(), v.as_value())).collect();
            let point = read(&line(&measurement, &tags, &given));
            prop_assert_eq!(&*point.measurement, measurement.as_str());
            let got: Vec<(&str, &str)> = point.tags.iter().map(|(k, v)| (&**k, &**v)).collect();
            prop_assert_eq!(got, tags);
            let got: Vec<(&str, Value<'_>)> = point.fields.iter().map(|(k, v)| (&**k, v.as_value())).collect();
            prop_assert_eq!(got, given);
        }

        #[test]
        fn any_names_make_one_line_or_none(
            measurement in "(?s).{0,6}", key in "(?s).{0,6}", value in "(?s).{0,6}", field in "(?s).{0,6}",
            hostile in "[\\\\ ,=\n\"#]{1,6}",
        ) {
            for (m, k, v, f) in [
                (&measurement, &key, &value, &field),
                (&hostile, &key, &hostile, &field),
                (&measurement, &hostile, &value, &hostile),
            ] {
                let text = line(m, &[(k, v)], &[(f, Value::Boolean(true))]);
                if !text.is_empty() {
                    prop_assert_eq!(read(&text).fields.len(), 1);
                    prop_assert_eq!(format!("{text}{text}").matches('\n').count(), 2);
                }
            }
        }
    }
}
