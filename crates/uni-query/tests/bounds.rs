//! What a request may cost: limits are kept, and only what is needed is asked of the source.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use uni_query::memory::MemorySource;
use uni_query::{
    Change, Changes, Doomed, Epoch, FieldType, Limits, Policy, Request, Series, Source, SourceError,
    TagMatcher, TagOp, Timestamp, Visitor, execute,
};

/// A source that notes what it is asked.
struct Watched {
    inner: MemorySource,
    scans: RefCell<Vec<(Vec<String>, i64, i64)>>,
    matchers: RefCell<Vec<TagMatcher>>,
    points: Cell<usize>,
    broken: bool,
}

impl Source for Watched {
    fn databases(&self) -> Vec<String> {
        self.inner.databases()
    }

    fn has_database(&self, db: &str) -> bool {
        self.inner.has_database(db)
    }

    fn measurements(&self, db: &str) -> Vec<String> {
        self.inner.measurements(db)
    }

    fn fields(&self, db: &str, measurement: &str) -> Vec<(String, FieldType)> {
        self.inner.fields(db, measurement)
    }

    fn series(&self, db: &str, measurement: &str, matchers: &[TagMatcher]) -> Vec<Series> {
        self.matchers.replace(matchers.to_vec());
        self.inner.series(db, measurement, matchers)
    }

    fn scan(
        &self,
        db: &str,
        series: u64,
        fields: &[&str],
        from: Timestamp,
        to: Timestamp,
        visit: Visitor<'_>,
    ) -> Result<(), SourceError> {
        if self.broken {
            return Err(SourceError::new("segment 7 cannot be read".to_owned()));
        }
        let fields_owned = fields.iter().map(|&field| field.to_owned()).collect();
        self.scans.borrow_mut().push((fields_owned, from.0, to.0));
        self.inner.scan(db, series, fields, from, to, &mut |time, values| {
            self.points.set(self.points.get() + 1);
            visit(time, values)
        })
    }

    fn policies(&self, db: &str) -> Vec<Policy> {
        self.inner.policies(db)
    }

    fn change(&self, change: &Change) -> Result<(), SourceError> {
        self.inner.change(change)
    }

    fn delete(&self, range: (Timestamp, Timestamp), doomed: &[Doomed]) -> Result<(), SourceError> {
        self.inner.delete(range, doomed)
    }
}

/// Two series of 100 points each, a second apart.
fn watched() -> Watched {
    let mut inner = MemorySource::new();
    let line = |n: usize| format!("m,vm={} a={n}i,b=1,c=\"x\" {}", ["x", "y"][n % 2], n / 2 * 1_000_000_000);
    let lines: Vec<String> = (0..200).map(line).collect();
    inner.load("db", &lines.join("\n")).expect("line protocol");
    let (scans, matchers, points) = (RefCell::default(), RefCell::default(), Cell::default());
    Watched { inner, scans, matchers, points, broken: false }
}

fn ask(source: &Watched, text: &str, limits: Limits<'_>) -> String {
    let now = Timestamp::from_seconds(100);
    let request = Request { text, db: Some("db"), now, limits, changes: Changes::None };
    execute(source, &request).expect("parses").to_json(Some(Epoch::Seconds), false)
}

fn error(text: &str, limits: Limits<'_>) -> String {
    let answer: serde_json::Value = serde_json::from_str(&ask(&watched(), text, limits)).expect("JSON");
    answer["results"][0]["error"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn only_the_fields_times_and_series_needed_are_read() {
    let source = watched();
    ask(&source, "SELECT mean(a) FROM m WHERE vm = 'x' AND time >= 10s AND time < 20s", Limits::default());
    assert_eq!(*source.scans.borrow(), [(vec!["a".to_owned()], 10_000_000_000, 19_999_999_999)]);
    let hint = TagMatcher { key: "vm".into(), op: TagOp::Equal, value: "x".into() };
    assert_eq!(*source.matchers.borrow(), [hint]);
    assert_eq!(source.points.get(), 10);
}

#[test]
fn fields_of_the_condition_are_read_too() {
    let source = watched();
    ask(&source, "SELECT a FROM m WHERE b > 0 AND vm =~ /x/", Limits::default());
    assert_eq!(source.scans.borrow()[0].0, ["a", "b"]);
}

#[test]
fn a_limit_ends_the_reading_early() {
    let source = watched();
    ask(&source, "SELECT a FROM m LIMIT 3", Limits::default());
    assert_eq!(source.points.get(), 6, "three of each series");
}

#[test]
fn a_range_that_holds_nothing_is_not_read() {
    let source = watched();
    let answer = ask(&source, "SELECT a FROM m WHERE time > 20s AND time < 10s", Limits::default());
    assert_eq!(answer, r#"{"results":[{"statement_id":0}]}"#);
    assert!(source.scans.borrow().is_empty());
}

#[test]
fn more_points_than_allowed_are_refused() {
    let limits = Limits { max_points: 50, ..Limits::default() };
    assert!(error("SELECT mean(a) FROM m", limits).contains("max-select-point limit exceeded"));
    assert_eq!(error("SELECT mean(a) FROM m WHERE time < 20s", limits), "");
}

#[test]
fn more_windows_than_allowed_are_refused_before_a_point_is_read() {
    let source = watched();
    let limits = Limits { max_buckets: 1000, ..Limits::default() };
    let text = "SELECT mean(a) FROM m WHERE time >= 0 AND time <= 1s GROUP BY time(1ns)";
    assert!(ask(&source, text, limits).contains("max-select-buckets limit exceeded: (1000000001/1000)"));
    assert!(source.scans.borrow().is_empty());
    let unbounded = "SELECT mean(a) FROM m GROUP BY time(1ms)";
    assert!(error(unbounded, limits).contains("max-select-buckets limit exceeded"));
    assert_eq!(error("SELECT mean(a) FROM m GROUP BY time(1s)", limits), "");
}

#[test]
fn rows_and_samples_held_at_once_are_bounded() {
    let limits = Limits { max_rows: 50, ..Limits::default() };
    for text in [
        "SELECT a FROM m",
        "SELECT median(a) FROM m",
        "SELECT distinct(a) FROM m",
        "SELECT derivative(a) FROM m",
    ] {
        assert!(error(text, limits).contains("more than 50 rows or samples"), "{text}");
    }
    for text in [
        "SELECT a FROM m ORDER BY time DESC LIMIT 20",
        "SELECT distinct(b) FROM m",
        "SELECT last(a), c FROM m",
    ] {
        assert_eq!(error(text, limits), "", "{text}");
    }
}

#[test]
fn a_cancelled_request_ends_with_an_error() {
    let cancelled = || true;
    let limits = Limits { cancelled: Some(&cancelled), ..Limits::default() };
    assert!(error("SELECT mean(a) FROM m", limits).contains("query interrupted"));
}

#[test]
fn what_the_source_cannot_read_is_the_statements_error() {
    let source = Watched { broken: true, ..watched() };
    let answer = ask(&source, "SELECT a FROM m; SHOW DATABASES; SHOW DATABASES", Limits::default());
    assert_eq!(
        answer,
        r#"{"results":[{"statement_id":0,"error":"segment 7 cannot be read"},{"statement_id":1,"error":"not executed"}]}"#
    );
}

#[test]
fn a_request_that_only_reads_makes_no_database() {
    for text in [
        "CREATE DATABASE new",
        "DROP DATABASE db",
        "DELETE FROM m",
        "DROP SERIES FROM m",
        "DROP MEASUREMENT m",
    ] {
        assert!(error(text, Limits::default()).contains("not allowed"), "{text}");
    }
    let source = MemorySource::new();
    let now = Timestamp(0);
    let text = "create database \"n\"; show databases";
    let request = Request { text, db: None, now, limits: Limits::default(), changes: Changes::All };
    let answer = execute(&source, &request).expect("parses").to_json(None, false);
    assert!(answer.ends_with(r#""columns":["name"],"values":[["n"]]}]}]}"#), "{answer}");
}

#[test]
fn a_visitor_that_breaks_is_called_no_more() {
    let source = watched();
    let mut seen = 0;
    let all = (Timestamp(i64::MIN), Timestamp(i64::MAX));
    let result = source.scan("db", 0, &["a"], all.0, all.1, &mut |_, _| {
        seen += 1;
        ControlFlow::Break(())
    });
    assert!(result.is_ok());
    assert_eq!(seen, 1);
}
