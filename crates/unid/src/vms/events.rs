//! Lifecycle events: to the log, to open pages, and into the store as points.
//!
//! Owns the shape of the `lifecycle` measurement. Never decides that something happened.

use uni_api::page::Mark;
use uni_store::Point;
use uni_wire::FieldValue;

use super::Context;
use crate::clock;

/// Tells everyone that `event` happened to VM `name`; `text` says it in words.
pub(super) fn record(context: &Context, name: &str, event: &str, text: &str) {
    let time = clock::now();
    let string = |text: &str| FieldValue::String(text.into());
    context.ingest.append_own(&[Point {
        measurement: "lifecycle".into(),
        tags: vec![("vm".into(), name.into())],
        fields: vec![("event".into(), string(event)), ("text".into(), string(text))],
        time,
    }]);
    let mark =
        Mark { time: time.nanos().div_euclid(1_000_000), event: event.to_owned(), text: text.to_owned() };
    context.live.mark(name, mark);
}
