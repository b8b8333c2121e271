//! Line protocol in: what a body brings is what its points would bring, and who may say whose it is.

use crate::common::{DB, contents};
use std::ops::ControlFlow;
use std::path::Path;
use uni_store::{Grid, LineEvent, LineOptions, Options, RejectReason, Store, Summed, TierSum};
use uni_wire::line::{Mode, Precision};
use uni_wire::{FieldValue, Timestamp};

const NOW: Timestamp = Timestamp::from_seconds(1_000);

fn open(dir: &Path) -> Store {
    let store = Store::open(dir, Options::default(), NOW).expect("the store opens");
    store.create_database(DB).expect("a database");
    store
}

fn options() -> LineOptions<'static> {
    LineOptions {
        mode: Mode::Strict,
        precision: Precision::Seconds,
        now: NOW,
        tag: None,
        max_line_bytes: None,
        watched: None,
    }
}

/// What is told of a body, in short.
fn told(store: &Store, body: &str, options: &LineOptions<'_>) -> Vec<String> {
    let mut told = Vec::new();
    let mut report = |event: LineEvent<'_>| {
        told.push(match event {
            LineEvent::Stored { time, .. } => format!("stored {}", time.nanos() / 1_000_000_000),
            LineEvent::Renamed => "renamed".to_owned(),
            LineEvent::Bad { error, .. } => error.kind.words().to_owned(),
            LineEvent::Refused(RejectReason::FieldTypeConflict { field, .. }) => format!("conflict {field}"),
            LineEvent::Refused(reason) => reason.to_string(),
            LineEvent::TooLong => "too long".to_owned(),
        });
    };
    store.append_lines(DB, body.as_bytes(), options, &mut report).expect("the log can be written");
    told
}

fn value(store: &Store, series: &str, seconds: i64, field: &str) -> Option<FieldValue> {
    let (measurement, tags) = series.split_once(' ')?;
    let rows = contents(store, DB).remove(&(measurement.to_owned(), tags.to_owned()))?;
    rows.get(&(seconds * 1_000_000_000))?.get(field).cloned()
}

#[test]
fn lines_that_look_alike_are_told_apart_by_their_values() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let body = "m,vm=a x=1i,y=0.5,s=\"up\",ok=t,u=7u 1\n\
                m,vm=a x=2i,y=0.25,s=\"down\",ok=f,u=8u 2\n\
                m,vm=a x=-3i,y=1e3,s=\"up\",ok=true,u=18446744073709551615u 3\n\
                m,vm=a x=4i,y=-0,s=\"a\\\"b\",ok=F,u=9u 4\n\
                m,vm=a x=5i,y=1.7976931348623157e308,s=\"\",ok=T,u=0u\n";
    assert_eq!(told(&store, body, &options()), [""; 0]);
    let at = |seconds, field| value(&store, "m vm=a", seconds, field).expect(field);
    assert_eq!((at(2, "x"), at(3, "x")), (FieldValue::Integer(2), FieldValue::Integer(-3)));
    assert_eq!((at(2, "y"), at(3, "y")), (FieldValue::Float(0.25), FieldValue::Float(1000.0)));
    assert_eq!(
        at(1000, "y"),
        FieldValue::Float(f64::MAX),
        "a line without a time has the time of its arrival"
    );
    assert!(matches!(at(4, "y"), FieldValue::Float(zero) if zero.is_sign_negative()));
    assert_eq!((at(3, "u"), at(4, "s")), (FieldValue::Unsigned(u64::MAX), FieldValue::String("a\"b".into())));
    let before = contents(&store, DB);
    drop(store);
    let store = open(dir.path());
    assert_eq!(contents(&store, DB), before, "the log says the same");
    store.flush().expect("a flush");
    assert_eq!(contents(&store, DB), before, "the segment says the same");
}

#[test]
fn bad_lines_and_conflicts_are_told_one_by_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let body =
        "m x=1i 1\nm x=2i 2\nm x=2.5 3\nm x= 4\nrubbish\n# a comment\n\nm x=3i,new=1i 5\nm x=4i 6x\nm x=5i 7";
    let watched = Some((Timestamp::from_seconds(2), Timestamp::from_seconds(7)));
    let told = told(&store, body, &LineOptions { watched, ..options() });
    let expected = [
        "stored 2",
        "conflict x",
        "missing field value",
        "missing fields",
        "stored 5",
        "bad timestamp",
        "stored 7",
    ];
    assert_eq!(told, expected);
    assert_eq!(contents(&store, DB)[&("m".to_owned(), String::new())].len(), 4);
}

#[test]
fn a_tag_that_is_given_is_not_the_senders_to_choose() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let body = "m,vm=web x=1i 1\nm,vm=web x=2i 2\nm x=3i 3\nm x=4i 4\nm,vm=db x=5i 5\n";
    assert_eq!(
        told(&store, body, &LineOptions { tag: Some(("vm", "db")), ..options() }),
        ["renamed", "renamed"]
    );
    // The same bytes from somebody else mean what they say, whatever was learnt from them before.
    assert_eq!(told(&store, "m,vm=web x=6i 6\nm,vm=web x=7i 7\n", &options()), [""; 0]);
    assert_eq!(
        told(&store, body, &LineOptions { tag: Some(("vm", "db")), ..options() }),
        ["renamed", "renamed"]
    );
    let rows = |tags: &str| contents(&store, DB)[&("m".to_owned(), tags.to_owned())].len();
    assert_eq!((rows("vm=db"), rows("vm=web")), (5, 2));
    // A key in which the name of a VM is hidden is not that VM's.
    assert_eq!(told(&store, "db\0m,vm=web x=1i 9\n", &options()), [""; 0]);
    assert_eq!(rows("vm=db"), 5);
}

#[test]
fn a_stream_ends_lines_at_every_newline_and_refuses_long_ones() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let stream = LineOptions { mode: Mode::Lenient, max_line_bytes: Some(24), ..options() };
    let body = "m x=1i 1\nm x=2i 2\r\nm s=\"open 3\nm x=4i 4\nm x=5i                  5\nm s=\"a longer text here\" 6\nm x=7i 7\n";
    assert_eq!(told(&store, body, &stream), ["unbalanced quotes", "too long", "too long"]);
    let times: Vec<i64> =
        contents(&store, DB)[&("m".to_owned(), String::new())].keys().map(|t| t / 1_000_000_000).collect();
    assert_eq!(times, [1, 2, 4, 7]);
    assert_eq!(told(&store, "m s=\"a\nb\" 8\nm s=\"c\nd\" 9\n", &options()), [""; 0], "in a body it is text");
    assert_eq!(value(&store, "m ", 9, "s"), Some(FieldValue::String("c\nd".into())));
}

#[test]
fn what_retention_took_is_learnt_anew() {
    let dir = tempfile::tempdir().expect("a folder");
    let day = 86_400;
    let options_short =
        Options { retention: Some(std::time::Duration::from_secs(86_400)), ..Options::default() };
    let store = Store::open(dir.path(), options_short, NOW).expect("the store opens");
    store.create_database(DB).expect("a database");
    assert_eq!(told(&store, "m,vm=a x=1i 10\nm,vm=a x=2i 11\n", &options()), [""; 0]);
    let later = Timestamp::from_seconds(10 * day);
    assert_eq!(store.enforce_retention(later).expect("retention").len(), 1);
    // Its type is free again, and its old route must lead nowhere.
    let body = format!("m,vm=a x=0.5 {}\nm,vm=a x=1.5 {}\n", 10 * day, 10 * day + 1);
    assert_eq!(told(&store, &body, &options()), [""; 0]);
    assert_eq!(value(&store, "m vm=a", 10 * day + 1, "x"), Some(FieldValue::Float(1.5)));
    assert_eq!(contents(&store, DB).len(), 1);
}

#[test]
fn large_blocks_answer_coarse_questions_without_being_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let body: String = (0..2048).map(|n| format!("m,vm=a x={}i {n}\n", n % 100)).collect();
    assert_eq!(told(&store, &body, &options()), [""; 0]);
    store.flush().expect("a flush");
    let id = store.series(DB, "m", &[])[0].id;
    let hour = Some(Grid { every: 3600 * 1_000_000_000, offset: 0 });
    // Blocks, and rows beside them.
    let read = |from: i64, grid: Option<Grid>| {
        let (mut blocks, mut rows) = (Vec::new(), 0);
        let range = (Timestamp::from_seconds(from), Timestamp::from_seconds(5000));
        let mut visit = |item: Summed<'_>| {
            match item {
                Summed::Row(..) => rows += 1,
                Summed::Window(window) => blocks.extend(window.fields[0].clone()),
            }
            ControlFlow::Continue(true)
        };
        store.scan_summed(DB, id, &["x"], range, grid, &mut visit).expect("a scan");
        (blocks, rows)
    };
    let (blocks, rows) = read(0, hour);
    assert_eq!((blocks.len(), rows), (2, 0));
    let sum: i64 = (0..1024).map(|n| n % 100).sum();
    assert_eq!((blocks[0].count, &blocks[0].sum), (1024, &TierSum::Exact(FieldValue::Integer(sum))));
    assert_eq!((&blocks[0].min, &blocks[0].max), (&FieldValue::Integer(0), &FieldValue::Integer(99)));
    assert_eq!(blocks[1].last, (Timestamp::from_seconds(2047), FieldValue::Integer(47)));
    let (blocks, rows) = read(1, hour);
    assert_eq!((blocks.len(), rows), (1, 1023), "half a block has to be read");
    let minute = Some(Grid { every: 60 * 1_000_000_000, offset: 0 });
    assert_eq!(read(0, minute).1, 2048, "a block must lie in one window");
    // A later write into the block's time: what the block knows is no longer the answer.
    assert_eq!(told(&store, "m,vm=a x=1000i 500\n", &options()), [""; 0]);
    let (blocks, rows) = read(0, hour);
    assert_eq!((blocks.len(), rows), (1, 1024));
}
