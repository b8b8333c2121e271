//! Lifecycle events: to the log, to open pages, and into the store.
//!
//! Owns the shape of an event's entry. Never decides that something happened.

use uni_api::page::Mark;
use uni_store::{LogEntry, LogKind};

use super::Context;
use crate::clock;

/// What happens to VMs is information.
const EVENT_SEVERITY: u8 = 6;

/// Tells everyone that `event` happened to VM `name`; `text` says it in words.
pub(super) fn record(context: &Context, name: &str, event: &str, text: &str) {
    let time = clock::now();
    let entry = LogEntry {
        time,
        kind: LogKind::Event,
        vm: name.into(),
        severity: EVENT_SEVERITY,
        id: event.into(),
        text: text.into(),
        ..LogEntry::default()
    };
    context.ingest.append_logs("unid", vec![entry]);
    let mark =
        Mark { time: time.nanos().div_euclid(1_000_000), event: event.to_owned(), text: text.to_owned() };
    context.live.mark(name, mark);
}
