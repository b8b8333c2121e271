//! What MirageOS unikernels send, in the bytes their own libraries wrote, against the reader of lines and the writer
//! of syslog messages.

use serde_json::Value as Json;
use uni_wire::Timestamp;
use uni_wire::line::{LineBuffer, LineErrorKind as Kind, Mode, Point, Precision, parse_point};
use uni_wire::syslog::{Facility, Message, Severity};

const LINES: &str = include_str!("data/line-protocol-cases.jsonl");
const SYSLOG: &str = include_str!("data/syslog-cases.jsonl");

/// Lines that no reader can make sense of: what they hold, and why.
const REFUSED: [(&str, Kind); 12] = [
    ("status=ok", Kind::InvalidBoolean),
    ("status=error", Kind::InvalidBoolean),
    ("v=nan", Kind::InvalidNumber),
    ("v=inf", Kind::InvalidBoolean),
    ("v=-inf", Kind::InvalidNumber),
    ("u64=18446744073709551615i", Kind::IntegerRange),
    ("time=1i", Kind::TimeField),
    ("=a b", Kind::InvalidFieldFormat),
    ("t=a,b", Kind::MissingTagValue),
    ("t=a=b", Kind::InvalidTagFormat),
    ("= v=1i", Kind::MissingTagValue),
    ("empty,vm=web ", Kind::InvalidFieldFormat),
];

fn read(line: &[u8]) -> Result<Point, Kind> {
    parse_point(line, Mode::Lenient, Timestamp(0), Precision::Nanoseconds).map_err(|e| e.kind)
}

#[test]
fn lines_of_mirage_are_read_or_refused_for_the_reason_they_are_broken() {
    let mut read_whole = 0;
    for case in LINES.lines().map(|l| serde_json::from_str::<Json>(l).expect("json")) {
        let text = case["line"].as_str().expect("line");
        if text.trim_end().contains('\n') {
            // A newline in a name: two halves, and the first is no line.
            let mut halves = Vec::new();
            LineBuffer::default().feed(text.as_bytes(), |half| halves.push(read(half).map(|_| ())));
            assert_eq!(halves, [Err(Kind::MissingFields), Ok(())], "{text}");
            continue;
        }
        let expected = REFUSED.iter().find(|(part, _)| text.contains(part)).map(|(_, kind)| *kind);
        let point = read(text.as_bytes());
        assert_eq!(point.as_ref().err().copied(), expected, "{text}");
        let Ok(point) = point else { continue };
        assert_eq!(point.fields.len(), case["fields"].as_array().expect("fields").len(), "{text}");
        assert!(!point.stamped);
        read_whole += 1;
    }
    assert!(read_whole > 60, "{read_whole}");
}

fn severity(level: &str) -> Severity {
    match level {
        "error" => Severity::Error,
        "warning" => Severity::Warning,
        "debug" => Severity::Debug,
        _ => Severity::Informational,
    }
}

/// MirageOS pads the day with a zero and writes no colon after the tag; all else of a plain message is the same.
#[test]
fn a_plain_syslog_message_is_mirages_made_to_the_rfc() {
    let mut compared = 0;
    for case in SYSLOG.lines().map(|l| serde_json::from_str::<Json>(l).expect("json")) {
        let text = |key: &str| case[key].as_str().unwrap_or_default();
        let (source, content) = (text("source"), text("message"));
        let plain = text("datagram").ends_with(&format!(" {source} {content}"))
            && case["time_utc"] == serde_json::json!([2026, 6, 8, 9, 5, 7])
            && !text("hostname").is_empty()
            && !source.is_empty()
            && source.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !text("hostname").contains(' ')
            && !content.contains(char::is_control)
            && case["facility"].is_null()
            && case["local"] == false;
        if !plain {
            continue;
        }
        let message = Message {
            facility: Facility::Daemon,
            severity: severity(text("level")),
            unix_seconds: 1_780_909_507,
            host: text("hostname"),
            tag: source,
            text: content,
        };
        let mut out = [0; 1024];
        let len = message.emit(&mut out);
        let theirs = text("datagram").replacen("Jun 08", "Jun  8", 1);
        let theirs = theirs.replacen(&format!(" {source} "), &format!(" {source}: "), 1);
        assert_eq!(String::from_utf8_lossy(&out[..len]), theirs);
        compared += 1;
    }
    assert!(compared >= 5, "{compared}");
}
