//! What must hold for any bytes: shared by the property tests here, by the replay of seeds, and by the fuzz targets in
//! `fuzz/`.

use std::collections::BTreeSet;

use uni_wire::control::{Command, Query, parse_command};
use uni_wire::line::{
    Framing, LineBuffer, LineWriter, MirageValue, Mode, Point, Precision, lines, parse_line_with,
    parse_point, write_mirage_line,
};
use uni_wire::syslog::{
    Context, Deframer, Facility, Format, Framing as StreamFraming, Message, Parsed, Severity, parse,
    write_frame,
};
use uni_wire::{Timestamp, Value};

/// Parsing never panics; a fault lies inside the line; what was parsed can be written and read back.
pub(crate) fn check_line(bytes: &[u8]) {
    for mode in [Mode::Strict, Mode::Lenient] {
        match parse_line_with(bytes, mode) {
            Ok(line) => {
                assert!(line.fields().next().is_some());
                let keys: BTreeSet<&str> = line.tags().map(|(key, _)| key.raw()).collect();
                assert_eq!(keys.len(), line.tags().count());
                assert!(line.tags().all(|(key, value)| !key.raw().is_empty() && !value.raw().is_empty()));
            }
            Err(error) => {
                assert!(error.position <= bytes.len());
                assert!(!error.reason(bytes).to_string().is_empty());
            }
        }
        check_round_trip(bytes, mode);
    }
    check_splitting(bytes);
}

/// Control characters in names are lost at the first writing; after that nothing is.
fn check_round_trip(bytes: &[u8], mode: Mode) {
    let Ok(first) = parse_point(bytes, mode, Timestamp(7), Precision::Nanoseconds) else { return };
    let second = read(&write(&first));
    assert_eq!(second.time, first.time);
    assert_eq!(read(&write(&second)), second);
}

fn write(point: &Point) -> String {
    let mut out = String::new();
    let tags = point.tags.iter().map(|(key, value)| (&**key, &**value));
    let mut line = LineWriter::new(&mut out, &point.measurement, tags).framing(Framing::Body);
    for (key, value) in &point.fields {
        line.field(key, value.as_value()).expect("a string takes everything");
    }
    assert!(line.finish(Some(point.time)).expect("a string takes everything"));
    out
}

fn read(text: &str) -> Point {
    let mut all = lines(text.as_bytes());
    let line = all.next().expect("one line");
    assert!(all.next().is_none(), "more than one line: {text:?}");
    parse_point(line, Mode::Strict, Timestamp(0), Precision::Nanoseconds).expect("a written line")
}

/// A stream cut in two gives the same lines as uncut, and no line holds a newline or is too long.
fn check_splitting(bytes: &[u8]) {
    const LIMIT: usize = 32;
    let cut = bytes.len() / 2;
    let collect = |segments: [&[u8]; 2]| {
        let (mut buffer, mut out) = (LineBuffer::new(LIMIT), Vec::new());
        segments.iter().for_each(|segment| buffer.feed(segment, |line| out.push(line.to_vec())));
        buffer.finish(|line| out.push(line.to_vec()));
        (out, buffer.overlong_lines())
    };
    let whole = collect([bytes, b""]);
    assert!(whole.0.iter().all(|line| !line.contains(&b'\n') && line.len() <= LIMIT && !line.is_empty()));
    assert_eq!(collect([&bytes[..cut], &bytes[cut..]]), whole);
}

/// Any bytes are a command with well-formed items, or get a reply.
pub(crate) fn check_control(bytes: &[u8]) {
    match parse_command(bytes) {
        Ok(Command::SetLogs(items)) => assert_eq!(items.count(), commas(bytes) + 1),
        Ok(Command::SetMetrics(items)) => assert_eq!(items.count(), commas(bytes) + 1),
        Ok(Command::Help | Command::Token(_) | Command::ShowSampling) => {}
        Ok(Command::SetSampling(rate)) => assert!(rate > 0.0 && rate <= 1.0),
        Ok(Command::ShowLogs(query) | Command::ShowMetrics(query)) => {
            if let Query::Named(names) = query {
                assert_eq!(names.count(), commas(bytes) + 1);
            }
        }
        Err(error) => assert!(error.to_string().starts_with("error: ")),
    }
}

fn commas(bytes: &[u8]) -> usize {
    bytes.iter().filter(|b| **b == b',').count()
}

/// Pieces of structured input; what is missing is empty.
fn pieces<const N: usize>(bytes: &[u8]) -> [String; N] {
    let text = String::from_utf8_lossy(bytes);
    let mut pieces = text.split('\u{1f}').map(str::to_owned);
    std::array::from_fn(|_| pieces.next().unwrap_or_default())
}

/// Whatever it is given, the strict writer makes one line that a strict reader takes, or none; values and clean names
/// come back as they were. The other dialect ends in a newline, and that is all that can be said of it.
pub(crate) fn check_emit(bytes: &[u8]) {
    let [measurement, tag, tag_value, field, text, number] = pieces(bytes);
    let float = number.parse::<f64>().unwrap_or(f64::NAN);
    let integer = number.bytes().fold(0_i64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let unsigned = integer.cast_unsigned();
    let values = [
        Value::String(&text),
        Value::Float(float),
        Value::Integer(integer),
        Value::Unsigned(unsigned),
        Value::Boolean(text.is_empty()),
    ];
    for value in values {
        let mut out = String::new();
        let tags = [(tag.as_str(), tag_value.as_str())];
        let mut line = LineWriter::new(&mut out, &measurement, tags).framing(Framing::Body);
        line.field(&field, value).expect("a string takes everything");
        if line.finish(Some(Timestamp(integer))).expect("a string takes everything") {
            let point = read(&out);
            assert_eq!(point.fields.len(), 1);
            assert_eq!(point.fields[0].1.as_value(), value);
            assert_eq!(point.time, Timestamp(integer));
            if is_clean(&measurement) && is_clean(&field) {
                assert_eq!(
                    (&*point.measurement, &*point.fields[0].0),
                    (measurement.as_str(), field.as_str())
                );
            }
            if is_clean(&tag) && is_clean(&tag_value) {
                assert_eq!(point.tag(&tag), Some(tag_value.as_str()));
            }
        } else {
            assert_eq!(out, "");
        }
    }
    let mut out = String::new();
    let values = [
        (field.as_str(), MirageValue::String(&text)),
        (field.as_str(), MirageValue::Float(float)),
        (field.as_str(), MirageValue::Int(integer)),
        (field.as_str(), MirageValue::Uint(unsigned)),
        (field.as_str(), MirageValue::Other(&text)),
    ];
    write_mirage_line(&mut out, &measurement, values, values).expect("a string takes everything");
    assert!(out.ends_with('\n'));
}

/// Whether a name can be written as it is.
fn is_clean(name: &str) -> bool {
    let hostile = |c: char| c.is_control() || c == '\\';
    !name.is_empty() && name != "time" && !name.starts_with('#') && !name.contains(hostile)
}

const CONTEXT: Context = Context { reference: Timestamp(1_780_909_507_000_000_000), bare_tag: true };

/// Reading never fails and makes nothing up; what was read and can be written in RFC 5424 is read back.
pub(crate) fn check_rfc5424(bytes: &[u8]) {
    let text = format!("<13>1 {}", String::from_utf8_lossy(bytes));
    let first = parse(&text, &CONTEXT);
    check_parsed(&text, &first);
    let second = write_message(&first, Format::Rfc5424);
    let second = parse(&second, &CONTEXT);
    let third = write_message(&second, Format::Rfc5424);
    assert_eq!(parse(&third, &CONTEXT), second);
}

/// As [`check_rfc5424`], for RFC 3164.
pub(crate) fn check_rfc3164(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let first = parse(&text, &CONTEXT);
    check_parsed(&text, &first);
    for format in [Format::Rfc3164, Format::Mirage] {
        let written = write_message(&first, format);
        let read = parse(&written, &CONTEXT);
        assert_eq!((read.facility, read.severity), (first.facility, first.severity));
        check_parsed(&written, &read);
    }
}

fn check_parsed(message: &str, parsed: &Parsed<'_>) {
    let fields = [parsed.host, parsed.app, parsed.process, parsed.message_id];
    for field in fields.into_iter().flatten() {
        assert!(message.contains(field) && !field.contains(' '));
    }
    assert!(fields.into_iter().flatten().map(str::len).sum::<usize>() + parsed.text.len() <= message.len());
    assert!(message.contains(parsed.text));
    for element in &parsed.data {
        assert!(!element.id.is_empty());
        assert!(element.parameters.iter().all(|(name, _)| !name.is_empty()));
    }
}

/// Writes what was read, to the extent that a writer of log messages has a place for it.
fn write_message(parsed: &Parsed<'_>, format: Format) -> String {
    let tags: Vec<(&str, &str)> = parsed
        .data
        .iter()
        .flat_map(|element| &element.parameters)
        .map(|(name, value)| (*name, &**value))
        .collect();
    let message = Message {
        facility: parsed.facility,
        severity: parsed.severity,
        time: parsed.time.unwrap_or_default(),
        host: parsed.host,
        tag: parsed.app.unwrap_or_default(),
        header: parsed.message_id,
        tags: &tags,
        text: parsed.text,
    };
    let mut out = String::new();
    message.write(format, 0, &mut out).expect("a string takes everything");
    assert!(!out.chars().any(char::is_control));
    out
}

/// The writer of syslog, with every place hostile: one line, no longer than allowed, never empty.
pub(crate) fn check_syslog_emit(bytes: &[u8]) {
    let code = bytes.first().copied().unwrap_or_default();
    let limit = usize::from(bytes.get(1).copied().unwrap_or_default());
    let [host, tag, header, name, value, text] = pieces(bytes.get(2..).unwrap_or_default());
    let tags = [(name.as_str(), value.as_str())];
    let message = Message {
        facility: Facility::from_code(code >> 3).unwrap_or(Facility::User),
        severity: Severity::from_code(code & 7).expect("below 8"),
        time: Timestamp(i64::from(code) * 1_234_567_891_234_567),
        host: (!host.is_empty()).then_some(&host),
        tag: &tag,
        header: (!header.is_empty()).then_some(&header),
        tags: if name.is_empty() { &[] } else { &tags },
        text: &text,
    };
    for format in [Format::Rfc3164, Format::Rfc5424, Format::Mirage] {
        let mut out = String::new();
        message.write(format, limit, &mut out).expect("a string takes everything");
        assert!(!out.is_empty() && !out.chars().any(char::is_control));
        assert!(limit == 0 || out.len() <= limit);
        if limit == 0 {
            let read = parse(&out, &CONTEXT);
            assert_eq!((read.facility, read.severity), (message.facility, message.severity));
        }
    }
}

/// A stream cut in two gives the same messages as uncut, none too long or empty; messages framed again come back.
pub(crate) fn check_framing(bytes: &[u8]) {
    const LIMIT: usize = 24;
    let collect = |segments: [&[u8]; 2]| {
        let (mut deframer, mut out) = (Deframer::new(LIMIT), Vec::new());
        for segment in segments {
            deframer.feed(segment, |message| out.push(message.to_vec()));
            assert!(deframer.held_bytes() <= LIMIT);
        }
        deframer.finish(|message| out.push(message.to_vec()));
        (out, deframer.cut_messages())
    };
    let (messages, cut) = collect([bytes, b""]);
    assert!(messages.iter().all(|message| !message.is_empty() && message.len() <= LIMIT));
    let (first, second) = bytes.split_at(bytes.len() / 2);
    assert_eq!(collect([first, second]), (messages.clone(), cut));
    let framed: Vec<_> = messages.into_iter().filter(|message| message.starts_with(b"<")).collect();
    let mut stream = Vec::new();
    framed.iter().for_each(|message| write_frame(StreamFraming::OctetCounting, message, &mut stream));
    let without_return: Vec<_> =
        framed.iter().map(|message| message.strip_suffix(b"\r").unwrap_or(message).to_vec()).collect();
    assert_eq!(collect([&stream, b""]), (without_return, 0));
}
