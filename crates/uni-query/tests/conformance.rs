//! Recorded requests to InfluxDB 1.6.7 and its answers, asked again of this engine over the same points: those a
//! dashboard sends (`influxql-cases.jsonl`) and those that show the language's corners (`influxql-more-cases.jsonl`).
//!
//! `data/known-differences.txt` lists exactly the cases that differ, and why; a case that begins to differ, or to
//! agree, fails the test until the list says so. Errors of the parser are compared by kind, not by words.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use uni_query::memory::MemorySource;
use uni_query::{Changes, Epoch, Limits, Request, Timestamp, execute};

const POINTS: &str = include_str!("data/influxql-dataset.lp");
const MORE_POINTS: &str = include_str!("data/influxql-more.lp");
const CASES: &str = include_str!("data/influxql-cases.jsonl");
const MORE_CASES: &str = include_str!("data/influxql-more-cases.jsonl");
const KNOWN: &str = include_str!("data/known-differences.txt");
const PARSE_ERROR: &str = "error parsing query: ";

/// How an answer differs from the recorded one.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Difference {
    Http,
    Text,
    Body,
}

fn source() -> MemorySource {
    let mut source = MemorySource::new();
    source.load("telegraf", POINTS).expect("the recorded points are line protocol");
    source
}

/// Status and documents, as the HTTP layer would send them.
fn answer(source: &MemorySource, case: &Value) -> Option<(u64, Vec<Value>)> {
    let db = case.get("db").map_or(Some("telegraf"), Value::as_str);
    let limits = Limits::default();
    let now = Timestamp::from_seconds(1_600_002_000);
    let request = Request { text: case["q"].as_str()?, db, now, limits, changes: Changes::All };
    let epoch = case["epoch"].as_str().and_then(Epoch::parse);
    let texts = match execute(source, &request) {
        Err(error) => return Some((400, vec![json!({ "error": error.to_string() })])),
        Ok(response) => match case["chunk_size"].as_str().and_then(|size| size.parse().ok()) {
            Some(size) => response.to_json_chunks(epoch, false, size),
            None => vec![response.to_json(epoch, false)],
        },
    };
    Some((200, texts.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect()))
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap_or(f64::NAN), b.as_f64().unwrap_or(f64::NAN));
            (a - b).abs() <= 1e-12 * a.abs().max(b.abs())
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// The document with the words of its errors taken out: all of them, or those of the parser.
fn without_words(document: &Value, all: bool) -> Value {
    match document {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| match value.as_str() {
                Some(text) if key == "error" && text.starts_with(PARSE_ERROR) => {
                    (key.clone(), json!(PARSE_ERROR))
                }
                Some(_) if key == "error" && all => (key.clone(), json!("")),
                _ => (key.clone(), without_words(value, all)),
            })
            .collect(),
        Value::Array(items) => items.iter().map(|item| without_words(item, all)).collect(),
        other => other.clone(),
    }
}

fn difference(source: &MemorySource, case: &Value) -> Option<Difference> {
    let Some((status, documents)) = answer(source, case) else { return Some(Difference::Http) };
    let recorded = case
        .get("body_lines")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_else(|| vec![case["body"].clone()]);
    let agree = |all| {
        let pairs = documents.iter().zip(&recorded);
        documents.len() == recorded.len()
            && pairs.into_iter().all(|(a, b)| same(&without_words(a, all), &without_words(b, all)))
    };
    if case["status"] != json!(status) || !agree(true) {
        return Some(Difference::Body);
    }
    (!agree(false)).then_some(Difference::Text)
}

/// The cases of a file that are known to differ.
fn known(file: &str) -> BTreeMap<usize, Difference> {
    let lines = KNOWN.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let words = lines.map(|line| line.splitn(4, ' ').collect::<Vec<_>>());
    words
        .filter(|words| words.first() == Some(&file))
        .map(|words| {
            let [_, line, kind, reason] = words.as_slice() else {
                panic!("{words:?}: FILE LINE KIND REASON")
            };
            let kind = match *kind {
                "http" => Difference::Http,
                "text" => Difference::Text,
                "body" => Difference::Body,
                other => panic!("unknown kind {other} in known-differences.txt"),
            };
            assert!(!reason.is_empty(), "{words:?} needs a reason");
            (line.parse().expect("a line number"), kind)
        })
        .collect()
}

/// Asks all cases of a file; how many there are, and those that differ.
fn ask_all(source: &MemorySource, cases: &str) -> (usize, BTreeMap<usize, Difference>) {
    let mut differing = BTreeMap::new();
    let mut count = 0;
    for (index, line) in cases.lines().enumerate().skip(1) {
        let case: Value = serde_json::from_str(line).expect("a case is JSON");
        count += 1;
        if let Some(kind) = difference(source, &case) {
            let given = answer(source, &case).map(|(status, documents)| format!("{status} {documents:?}"));
            let given: String = given.unwrap_or_default().chars().take(600).collect();
            println!("{} {kind:?} {}\n    given {given}", index + 1, case["q"]);
            differing.insert(index + 1, kind);
        }
    }
    (count, differing)
}

#[test]
fn a_dashboards_requests_get_the_recorded_answers() {
    let (count, differing) = ask_all(&source(), CASES);
    assert_eq!(count, 149);
    assert_eq!(differing, known("cases"));
}

#[test]
fn the_languages_corners_get_the_recorded_answers() {
    let mut source = source();
    source.load("telegraf", MORE_POINTS).expect("the points are line protocol");
    let (count, differing) = ask_all(&source, MORE_CASES);
    assert_eq!(count, MORE_CASES.lines().count() - 1);
    assert_eq!(differing, known("more"));
}

#[test]
fn the_dashboards_panels_and_variables_are_all_among_the_recorded() {
    let panels = CASES.lines().skip(1).filter(|line| line.contains("::tag =~")).count();
    assert_eq!(panels, 55, "eleven panel queries, five times");
    for variable in ["vm", "bridge"] {
        let wanted = format!(r#"SHOW TAG VALUES WITH KEY = \"{variable}\""#);
        assert!(CASES.lines().any(|line| line.contains(&wanted)), "{variable}");
    }
}
