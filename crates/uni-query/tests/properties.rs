//! Rules that hold for every text and for all points: nothing panics, every answer is JSON, and answers of two
//! ways to ask the same agree.

use proptest::prelude::*;
use serde_json::Value;
use uni_query::memory::MemorySource;
use uni_query::{Changes, Epoch, Limits, Request, Timestamp, execute};

const NOW: Timestamp = Timestamp::from_seconds(200);

fn ask(source: &MemorySource, text: &str) -> Option<Value> {
    let limits = Limits { max_buckets: 10_000, ..Limits::default() };
    let request = Request { text, db: Some("db"), now: NOW, limits, changes: Changes::None };
    let answer = execute(source, &request).ok()?.to_json(Some(Epoch::Seconds), false);
    Some(serde_json::from_str(&answer).expect("every answer is JSON"))
}

fn values(source: &MemorySource, text: &str) -> Vec<Vec<Value>> {
    let mut answer = ask(source, text).expect("parses");
    assert_eq!(answer["results"][0]["error"], Value::Null, "{text}");
    let values = answer.pointer_mut("/results/0/series/0/values").map(Value::take);
    serde_json::from_value(values.unwrap_or_default()).unwrap_or_default()
}

fn source(points: &[(u8, i32)]) -> MemorySource {
    let line =
        |(time, value): &(u8, i32)| format!("m,vm={} a={value}i,f={value}.5 {time}000000000\n", value & 3);
    let mut source = MemorySource::new();
    source.load("db", &points.iter().map(line).collect::<String>()).expect("line protocol");
    source
}

/// Words of the language in any order: most texts do not parse, many get far.
fn sentence() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "SELECT",
        "FROM",
        "WHERE",
        "GROUP BY",
        "ORDER BY time DESC",
        "LIMIT",
        "OFFSET",
        "SLIMIT",
        "SOFFSET",
        "fill(",
        "fill(linear)",
        "time(",
        "time",
        "now()",
        "10s",
        "1ns",
        "5",
        "-1",
        "1.5",
        "'x'",
        "\"a\"",
        "a",
        "f",
        "m",
        "vm",
        "*",
        "/a|f/",
        "=~",
        "!~",
        "=",
        "!=",
        ">",
        "AND",
        "OR",
        "(",
        ")",
        ",",
        ";",
        "+",
        "-",
        "/",
        "%",
        "::tag",
        "::field",
        "::integer",
        "mean(",
        "last(",
        "distinct(",
        "percentile(",
        "derivative(",
        "moving_average(",
        "cumulative_sum(",
        "SHOW",
        "TAG VALUES",
        "TAG KEYS",
        "WITH KEY",
        "IN",
        "MEASUREMENTS",
        "SERIES",
        "AS",
        ".",
        "mean(a)",
        "last(f)",
        "SELECT mean(a) FROM m",
        "SELECT * FROM m WHERE",
        "SELECT max(a), f FROM m",
    ]);
    prop::collection::vec(words, 0..14).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_engine_panic(text in "\\PC{0,80}") {
        ask(&source(&[(1, 2)]), &text);
    }

    #[test]
    fn no_sentence_makes_the_engine_panic(text in sentence()) {
        ask(&source(&[(1, 2), (3, 7), (90, 4)]), &text);
    }

    #[test]
    fn quoted_names_and_texts_survive(name in "[^\\\\\"'\n]{1,12}") {
        let text = format!("SELECT \"{name}\" FROM \"{name}\" WHERE \"{name}\" = '{name}'");
        prop_assert!(ask(&source(&[(1, 2)]), &text).is_some());
    }

    #[test]
    fn the_counts_of_windows_add_up(points in prop::collection::vec((0_u8..200, 0_i32..100), 1..60), every in 1_u8..90) {
        let source = source(&points);
        let all = values(&source, "SELECT count(a), sum(a) FROM m");
        let parts = values(&source, &format!("SELECT count(a), sum(a) FROM m WHERE time >= 0s GROUP BY time({every}s)"));
        for column in [1, 2] {
            let total: i64 = parts.iter().filter_map(|row| row[column].as_i64()).sum();
            prop_assert_eq!(Some(total), all[0][column].as_i64());
        }
        prop_assert_eq!(parts.len(), 200 / usize::from(every) + 1);
    }

    #[test]
    fn descending_is_ascending_turned_round(points in prop::collection::vec((0_u8..200, 0_i32..100), 1..40)) {
        let source = source(&points);
        for text in [
            "SELECT a, vm FROM m",
            "SELECT mean(a), max(f) FROM m WHERE time >= 0s GROUP BY time(7s) fill(previous)",
            "SELECT non_negative_derivative(last(a), 1s) * 8 FROM m WHERE time >= 0s GROUP BY time(7s)",
        ] {
            let mut ascending = values(&source, text);
            ascending.reverse();
            prop_assert_eq!(ascending, values(&source, &format!("{text} ORDER BY time DESC")));
        }
    }

    #[test]
    fn pages_put_together_are_the_whole(
        points in prop::collection::vec((0_u8..200, 0_i32..100), 1..40),
        size in 1_usize..9,
        order in prop::sample::select(vec!["ASC", "DESC"]),
    ) {
        let source = source(&points);
        let text = format!("SELECT a FROM m ORDER BY time {order}");
        let whole = values(&source, &text);
        let page = |n| values(&source, &format!("{text} LIMIT {size} OFFSET {}", n * size));
        let pages: Vec<_> = (0..=whole.len() / size).flat_map(page).collect();
        prop_assert_eq!(pages, whole);
    }

    #[test]
    fn a_mean_is_its_sum_by_its_count(points in prop::collection::vec((0_u8..200, 0_i32..100), 1..40)) {
        let rows = values(&source(&points), "SELECT mean(a), sum(a) / count(a), min(a), max(a) FROM m WHERE time >= 0s GROUP BY time(9s) fill(none)");
        for row in rows {
            prop_assert_eq!(row[1].as_f64(), row[2].as_f64());
            prop_assert!(row[3].as_f64() <= row[1].as_f64() && row[1].as_f64() <= row[4].as_f64());
        }
    }
}
