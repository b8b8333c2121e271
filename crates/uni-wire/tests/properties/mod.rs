//! What must hold for any bytes: shared by the property tests here and by the fuzz targets in `fuzz/`.

use std::collections::BTreeSet;

use uni_wire::Timestamp;
use uni_wire::control::{Command, Query, parse_command};
use uni_wire::line::{
    Framing, LineBuffer, LineWriter, Mode, Point, Precision, lines, parse_line_with, parse_point,
};

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
        Ok(Command::Help | Command::Token(_)) => {}
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
