//! What MirageOS unikernels send, in the bytes their own libraries wrote, against the reader of lines.

use serde_json::Value as Json;
use uni_wire::Timestamp;
use uni_wire::line::{LineBuffer, LineErrorKind as Kind, Mode, Point, Precision, parse_point};

const LINES: &str = include_str!("data/line-protocol-cases.jsonl");

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
