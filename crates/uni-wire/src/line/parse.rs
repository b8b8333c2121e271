//! The parser of one line: bytewise, borrowing, without allocation.
//!
//! Owns the order in which faults are found (left to right, as in InfluxDB 1.x). Never looks beyond the line it
//! was given; cutting bytes into lines is the splitter's work.

use super::error::{LineError, LineErrorKind};
use super::text::Text;
use super::{LineErrorKind as Kind, Mode};
use crate::Value;

/// Most tags a line may have. Finding a doubled key among unsorted tags is quadratic in their number.
pub const MAX_TAGS: usize = 256;

/// A line found to be well formed, still in the bytes it came in.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// `measurement[,tags]`.
    key: &'a str,
    measurement_len: usize,
    fields: &'a str,
    timestamp: Option<i64>,
}

impl<'a> Line<'a> {
    /// The measurement.
    #[must_use]
    pub fn measurement(&self) -> Text<'a> {
        Text::name(self.key.get(..self.measurement_len).unwrap_or_default())
    }

    /// Measurement and tags as they were written: equal bytes are the same series.
    #[must_use]
    pub const fn series_key(&self) -> &'a str {
        self.key
    }

    /// The tags, in the order of the line; keys are distinct as written, values not empty.
    #[must_use]
    pub fn tags(&self) -> Tags<'a> {
        Tags { rest: self.key.get(self.measurement_len + 1..).unwrap_or_default() }
    }

    /// The fields, in the order of the line: at least one. A key may come twice; the last one counts.
    #[must_use]
    pub const fn fields(&self) -> Fields<'a> {
        Fields { text: self.fields, at: 0 }
    }

    /// The time stamp, in the unit that came with the body; `None` when the line has none.
    #[must_use]
    pub const fn timestamp(&self) -> Option<i64> {
        self.timestamp
    }
}

/// The tags of a [`Line`].
#[derive(Clone, Debug)]
pub struct Tags<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Tags<'a> {
    type Item = (Text<'a>, Text<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let equals = find_unescaped(self.rest.as_bytes(), 0, b"=");
        let end = find_unescaped(self.rest.as_bytes(), equals, b",");
        let key = self.rest.get(..equals)?;
        let value = self.rest.get(equals + 1..end)?;
        self.rest = self.rest.get(end + 1..).unwrap_or_default();
        Some((Text::name(key), Text::name(value)))
    }
}

/// A field of a [`Line`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Field<'a> {
    /// The key.
    pub key: Text<'a>,
    /// The value.
    pub value: RawValue<'a>,
}

/// A field's value whose text, if it has any, is still escaped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RawValue<'a> {
    /// Text: the inside of the quotes.
    String(Text<'a>),
    /// Anything else; never [`Value::String`].
    Plain(Value<'a>),
}

/// The fields of a [`Line`].
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        if self.at >= self.text.len() {
            return None;
        }
        let (field, end) = scan_field(self.text, self.at).ok()?;
        self.at = end + 1;
        Some(field)
    }
}

/// Parses one line with InfluxDB 1.x's rules. See [`parse_line_with`].
///
/// # Errors
/// The first fault from the left.
pub fn parse_line(line: &[u8]) -> Result<Line<'_>, LineError> {
    parse_line_with(line, Mode::Strict)
}

/// Parses one line; one newline at its end is allowed.
///
/// # Errors
/// The first fault from the left, with its position in `line`.
pub fn parse_line_with(line: &[u8], mode: Mode) -> Result<Line<'_>, LineError> {
    let text = core::str::from_utf8(line).map_err(|e| LineError::new(Kind::NotUtf8, e.valid_up_to()))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = match mode {
        Mode::Strict => text,
        Mode::Lenient => text.strip_suffix('\r').unwrap_or(text),
    };
    let bytes = text.as_bytes();
    let start = skip_blank(bytes, 0);
    let key = scan_key(bytes, start, mode)?;
    let fields_start = skip_blank(bytes, key.next);
    let fields_end = scan_fields(text, fields_start)?;
    let timestamp = scan_timestamp(text, skip_blank(bytes, fields_end))?;
    Ok(Line {
        key: &text[start..key.end],
        measurement_len: key.measurement_end - start,
        fields: &text[fields_start..fields_end],
        timestamp,
    })
}

/// InfluxDB's blanks between the parts of a line.
fn skip_blank(bytes: &[u8], from: usize) -> usize {
    let blank = |b: &u8| matches!(b, b' ' | b'\t' | 0);
    from + bytes.iter().skip(from).take_while(|b| blank(b)).count()
}

/// The first of `stops` at or after `from` that no backslash stands before, else the length.
fn find_unescaped(bytes: &[u8], from: usize, stops: &[u8]) -> usize {
    let mut at = from;
    while let Some(b) = bytes.get(at) {
        if stops.contains(b) && (at == from || bytes[at - 1] != b'\\') {
            return at;
        }
        at += 1;
    }
    bytes.len()
}

/// Where the parts of `measurement[,tags]` end.
struct Key {
    measurement_end: usize,
    end: usize,
    /// Where the search for the fields goes on.
    next: usize,
}

fn scan_key(bytes: &[u8], start: usize, mode: Mode) -> Result<Key, LineError> {
    if matches!(bytes.get(start), None | Some(b',')) {
        return Err(LineError::new(Kind::MissingMeasurement, start));
    }
    let measurement_end = find_unescaped(bytes, start, b", ");
    let whole = |end, next| Key { measurement_end, end, next };
    match bytes.get(measurement_end) {
        None => Err(LineError::new(Kind::MissingFields, measurement_end)),
        Some(b' ') => Ok(whole(measurement_end, measurement_end)),
        Some(_) if mode == Mode::Lenient && bytes.get(measurement_end + 1) == Some(&b' ') => {
            Ok(whole(measurement_end, measurement_end + 1))
        }
        Some(_) => scan_tags(bytes, measurement_end + 1).map(|end| whole(end, end)),
    }
}

/// Checks the tags that start at `start`; returns where they end.
fn scan_tags(bytes: &[u8], start: usize) -> Result<usize, LineError> {
    let mut at = start;
    let mut count = 0;
    let mut ascending = true;
    let mut previous: &[u8] = b"";
    loop {
        let (key, end) = scan_tag(bytes, at)?;
        count += 1;
        if count > MAX_TAGS {
            return Err(LineError::new(Kind::TooManyTags, at));
        }
        ascending &= count == 1 || previous < key;
        previous = key;
        match bytes.get(end) {
            None => return Err(LineError::new(Kind::MissingFields, end)),
            Some(b',') => at = end + 1,
            Some(_) if ascending => return Ok(end),
            Some(_) => return refuse_duplicates(bytes, start, end),
        }
    }
}

/// One tag at `at`: its key, and where its value ends.
fn scan_tag(bytes: &[u8], at: usize) -> Result<(&[u8], usize), LineError> {
    if matches!(bytes.get(at), None | Some(b' ' | b',' | b'=')) {
        return Err(LineError::new(Kind::MissingTagKey, at));
    }
    let equals = find_unescaped(bytes, at, b" ,=");
    if bytes.get(equals) != Some(&b'=') {
        return Err(LineError::new(Kind::MissingTagValue, equals));
    }
    let value = equals + 1;
    let end = find_unescaped(bytes, value, b" ,=");
    match bytes.get(end) {
        Some(b'=') => Err(LineError::new(Kind::InvalidTagFormat, end)),
        _ if end == value => Err(LineError::new(Kind::MissingTagValue, value)),
        _ => Ok((&bytes[at..equals], end)),
    }
}

/// Tags that are not in ascending order may hold a key twice.
fn refuse_duplicates(bytes: &[u8], start: usize, end: usize) -> Result<usize, LineError> {
    let mut at = start;
    while at < end {
        let (key, next) = scan_tag(bytes, at)?;
        let mut earlier = start;
        while earlier < at {
            let (other, next) = scan_tag(bytes, earlier)?;
            if other == key {
                return Err(LineError::new(Kind::DuplicateTags, at));
            }
            earlier = next + 1;
        }
        at = next + 1;
    }
    Ok(end)
}

/// Checks the fields that start at `start`; returns where they end.
fn scan_fields(text: &str, start: usize) -> Result<usize, LineError> {
    let mut at = start;
    loop {
        let (_, end) = scan_field(text, at)?;
        match text.as_bytes().get(end) {
            Some(b',') => at = end + 1,
            _ => return Ok(end),
        }
    }
}

/// One field at `at`, and where it ends: at a comma, a space or the end of the text.
fn scan_field(text: &str, at: usize) -> Result<(Field<'_>, usize), LineError> {
    let bytes = text.as_bytes();
    let equals = find_unescaped(bytes, at, b" ,=");
    if bytes.get(equals) != Some(&b'=') {
        return Err(LineError::new(Kind::InvalidFieldFormat, equals));
    }
    if equals == at {
        return Err(LineError::new(Kind::MissingFieldKey, at));
    }
    let value_at = equals + 1;
    let (value, end) = match bytes.get(value_at) {
        None | Some(b',' | b' ') => return Err(LineError::new(Kind::MissingFieldValue, value_at)),
        Some(b'"') => scan_string(text, value_at)?,
        Some(_) => scan_plain(text, value_at)?,
    };
    Ok((Field { key: Text::name(&text[at..equals]), value }, end))
}

/// A quoted string; `quote` is the place of its opening quote.
fn scan_string(text: &str, quote: usize) -> Result<(RawValue<'_>, usize), LineError> {
    let bytes = text.as_bytes();
    let mut at = quote + 1;
    loop {
        match bytes.get(at) {
            None => return Err(LineError::new(Kind::UnbalancedQuotes, quote)),
            Some(b'\\') => at += 2,
            Some(b'"') => break,
            Some(_) => at += 1,
        }
    }
    match bytes.get(at + 1) {
        None | Some(b',' | b' ') => Ok((RawValue::String(Text::quoted(&text[quote + 1..at])), at + 1)),
        Some(_) => Err(LineError::new(Kind::InvalidFieldFormat, at + 1)),
    }
}

/// A number or a boolean.
fn scan_plain(text: &str, start: usize) -> Result<(RawValue<'_>, usize), LineError> {
    let rest = &text[start..];
    let word = rest.split([',', ' ']).next().unwrap_or(rest);
    let value = match word.as_bytes().first() {
        Some(b'0'..=b'9' | b'.' | b'-' | b'n' | b'N') => parse_number(word),
        _ => parse_boolean(word),
    };
    let value = value.map_err(|kind| LineError::new(kind, start))?;
    Ok((RawValue::Plain(value), start + word.len()))
}

fn parse_boolean(word: &str) -> Result<Value<'static>, LineErrorKind> {
    match word {
        "t" | "T" | "true" | "True" | "TRUE" => Ok(Value::Boolean(true)),
        "f" | "F" | "false" | "False" | "FALSE" => Ok(Value::Boolean(false)),
        _ => Err(Kind::InvalidBoolean),
    }
}

fn parse_number(word: &str) -> Result<Value<'static>, LineErrorKind> {
    if let Some(digits) = word.strip_suffix('i') {
        return parse_whole(digits, digits.strip_prefix('-').unwrap_or(digits)).map(Value::Integer);
    }
    if let Some(digits) = word.strip_suffix('u') {
        return parse_whole(digits, digits).map(Value::Unsigned);
    }
    let plausible = |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-');
    if !word.bytes().all(plausible) {
        return Err(Kind::InvalidNumber);
    }
    match word.parse::<f64>() {
        Ok(v) if v.is_finite() => Ok(Value::Float(v)),
        Ok(_) => Err(Kind::InvalidFloat),
        Err(_) => Err(Kind::InvalidNumber),
    }
}

/// `number` as an integer; `digits` is its part that must be all digits.
fn parse_whole<T: core::str::FromStr>(number: &str, digits: &str) -> Result<T, LineErrorKind> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Kind::InvalidNumber);
    }
    number.parse().map_err(|_| Kind::IntegerRange)
}

/// The optional time stamp at `start`, which must be the last thing in the line.
fn scan_timestamp(text: &str, start: usize) -> Result<Option<i64>, LineError> {
    let rest = &text[start..];
    if rest.is_empty() {
        return Ok(None);
    }
    let word = rest.split(' ').next().unwrap_or(rest);
    let digits = word.strip_prefix('-').unwrap_or(word);
    let sign_len = word.len() - digits.len();
    if let Some(bad) = digits.bytes().position(|b| !b.is_ascii_digit()) {
        return Err(LineError::new(Kind::BadTimestamp, start + sign_len + bad));
    }
    if digits.is_empty() {
        return Err(LineError::new(Kind::BadTimestamp, start));
    }
    let stamp = word.parse().map_err(|_| LineError::new(Kind::TimestampRange, start))?;
    match rest.bytes().skip(word.len()).position(|b| b != b' ') {
        None => Ok(Some(stamp)),
        Some(extra) => Err(LineError::new(Kind::TrailingText, start + word.len() + extra)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;
    use std::vec::Vec;

    fn fault(line: &str) -> (LineErrorKind, usize) {
        let error = parse_line(line.as_bytes()).expect_err(line);
        (error.kind, error.position)
    }

    #[test]
    fn a_line_is_taken_apart_without_copying() {
        let line = parse_line(br#"m\ x,b=2,a=1 f=1.5,g=2i,h="q\"",i=t,j=3u -7"#).expect("good");
        assert_eq!(line.measurement().to_string(), "m x");
        assert_eq!(line.series_key(), r"m\ x,b=2,a=1");
        let tags: Vec<_> = line.tags().map(|(k, v)| (k.raw(), v.raw())).collect();
        assert_eq!(tags, [("b", "2"), ("a", "1")]);
        let values: Vec<_> = line.fields().map(|f| f.value).collect();
        assert_eq!(
            values,
            [
                RawValue::Plain(Value::Float(1.5)),
                RawValue::Plain(Value::Integer(2)),
                RawValue::String(Text::quoted("q\\\"")),
                RawValue::Plain(Value::Boolean(true)),
                RawValue::Plain(Value::Unsigned(3)),
            ]
        );
        assert_eq!(line.timestamp(), Some(-7));
    }

    #[test]
    fn faults_carry_the_position_of_the_culprit() {
        assert_eq!(fault("m"), (Kind::MissingFields, 1));
        assert_eq!(fault("m a=1,b"), (Kind::InvalidFieldFormat, 7));
        assert_eq!(fault("m,t=1=2 a=1"), (Kind::InvalidTagFormat, 5));
        assert_eq!(fault("m,b=1,a=2,b=3 a=1"), (Kind::DuplicateTags, 10));
        assert_eq!(fault("m a=1 12a"), (Kind::BadTimestamp, 8));
        assert_eq!(fault("m a=1 12 x"), (Kind::TrailingText, 9));
        assert_eq!(fault("m a=1 99999999999999999999"), (Kind::TimestampRange, 6));
        assert_eq!(fault("m a=1e999"), (Kind::InvalidFloat, 4));
        assert_eq!(fault("m a=\"x\"y"), (Kind::InvalidFieldFormat, 7));
        assert_eq!(fault("m a=-"), (Kind::InvalidNumber, 4));
        assert_eq!(fault("m a=1 -"), (Kind::BadTimestamp, 6));
        assert_eq!(parse_line(b"m a=\xff").expect_err("bytes").kind, Kind::NotUtf8);
    }

    #[test]
    fn too_many_tags_are_refused() {
        let tags: std::string::String = (0..=MAX_TAGS).map(|n| std::format!(",t{n}=1")).collect();
        assert_eq!(fault(&std::format!("m{tags} a=1")).0, Kind::TooManyTags);
    }

    #[test]
    fn lenient_takes_what_mirage_writes() {
        let line = parse_line_with(b"nohost, a=1i\r\n", Mode::Lenient).expect("lenient");
        assert_eq!(line.series_key(), "nohost");
        assert_eq!(line.tags().count(), 0);
        assert_eq!(fault("nohost, a=1i").0, Kind::MissingTagKey);
        assert_eq!(fault("m a=1i\r").0, Kind::InvalidNumber);
        assert_eq!(fault("m a=1i 5\r").0, Kind::BadTimestamp);
    }
}
