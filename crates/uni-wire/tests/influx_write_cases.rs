//! The line parser against what InfluxDB 1.x answered to the same bodies (`data/influx-write-cases.jsonl`).

use serde_json::Value as Json;
use uni_wire::line::{LineErrorKind, Mode, Precision, lines, parse_point};
use uni_wire::{FieldValue, Timestamp};

const CASES: &str = include_str!("data/influx-write-cases.jsonl");

/// About HTTP, databases and schemas, which is not the parser's business.
const OTHER_BUSINESS: [&str; 6] = ["type conflict", "no db", "unknown db", "unknown rp", "gzip", "bad gzip"];

/// Differences meant: unsigned values are always understood; a tag called `time` is refused at once.
const DELIBERATE: [&str; 2] = ["uint", "time tag"];

/// What InfluxDB's answer would be to `body` if every line were written.
fn verdict(body: &str, precision: Precision) -> Vec<String> {
    lines(body.as_bytes())
        .filter_map(|line| {
            let error = parse_point(line, Mode::Strict, Timestamp(0), precision).err()?;
            let text = String::from_utf8_lossy(line);
            Some(format!("unable to parse '{text}': {}", error.reason(line)))
        })
        .collect()
}

#[test]
fn lines_are_refused_in_influxdbs_words() {
    let mut checked = 0;
    for case in CASES.lines().map(|l| serde_json::from_str::<Json>(l).expect("json")) {
        let name = case["name"].as_str().expect("name");
        let Some(body) = case["data"].as_str() else { continue };
        if OTHER_BUSINESS.contains(&name) || DELIBERATE.contains(&name) {
            continue;
        }
        let precision = Precision::from_query(case["params"]["precision"].as_str().unwrap_or(""));
        let expected = case["body"]["error"].as_str().unwrap_or("");
        let expected = expected.strip_prefix("partial write: ").unwrap_or(expected);
        let expected = expected.strip_suffix(" dropped=0").unwrap_or(expected);
        assert_eq!(verdict(body, precision).join("\n"), expected, "{name}");
        checked += 1;
    }
    assert!(checked > 40, "{checked}");
}

#[test]
fn stored_values_are_those_influxdb_stored() {
    for case in CASES.lines().map(|l| serde_json::from_str::<Json>(l).expect("json")) {
        let name = case["name"].as_str().expect("name");
        let (Some(body), Some(204)) = (case["data"].as_str(), case["status"].as_u64()) else { continue };
        let stored = &case["then_select_all_epoch_ns"];
        if body.trim_end().contains('\n') && name != "string escapes" || stored[0]["name"].is_null() {
            continue;
        }
        let precision = Precision::from_query(case["params"]["precision"].as_str().unwrap_or(""));
        let line = lines(body.as_bytes()).next().expect(name);
        let point = parse_point(line, Mode::Strict, Timestamp(0), precision).expect(name);
        assert_eq!(&*point.measurement, stored[0]["name"].as_str().expect("name"));
        let row = &stored[0]["values"][0];
        let unstamped = case["name"].as_str() == Some("no timestamp");
        for (n, column) in stored[0]["columns"].as_array().expect("columns").iter().enumerate() {
            let column = column.as_str().expect("column");
            let got = if column == "time" {
                if unstamped || !point.stamped {
                    continue;
                }
                Json::from(point.time.nanos())
            } else {
                point.field(column).map_or_else(|| Json::from(point.tag(column)), as_json)
            };
            let same = got == row[n] || (got.is_number() && got.as_f64() == row[n].as_f64());
            assert!(same, "{name}: {column}: {got} is not {}", row[n]);
        }
    }
}

fn as_json(value: &FieldValue) -> Json {
    match value {
        FieldValue::Float(v) => Json::from(*v),
        FieldValue::Integer(v) => Json::from(*v),
        FieldValue::Unsigned(v) => Json::from(*v),
        FieldValue::Boolean(v) => Json::from(*v),
        FieldValue::String(v) => Json::from(&**v),
    }
}

#[test]
fn what_differs_differs_on_purpose() {
    let parse = |line: &str| parse_point(line.as_bytes(), Mode::Strict, Timestamp(0), Precision::Nanoseconds);
    assert_eq!(parse("m a=5u 1").expect("unsigned").field("a"), Some(&FieldValue::Unsigned(5)));
    assert_eq!(parse("m,time=1 x=2").expect_err("time").kind, LineErrorKind::TimeTag);
}
