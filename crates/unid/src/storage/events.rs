//! What the store gave up, or found damaged: to the log, and into the store as points.
//!
//! Owns the shape of the measurement `store` (`schema/store.toml`). Never decides what is given up.

use uni_store::{DropReason, DroppedPartition, Point, Recovery, SetAside};
use uni_wire::civil::Civil;
use uni_wire::{FieldValue, Timestamp};

use crate::clock;
use crate::ingest::Ingest;

/// Says in the log what was cut off and set aside when the store was opened.
pub(crate) fn tell_recovery(recovery: &Recovery) {
    let &Recovery { torn_bytes, points_refused, hidden_columns, .. } = recovery;
    for SetAside { path, why } in &recovery.set_aside {
        let path = path.display().to_string();
        tracing::warn!(path, why, "a damaged part of the store was set aside; `uni store check` says more");
    }
    if torn_bytes > 0 {
        // What was never acknowledged, unless something was set aside too.
        tracing::info!(bytes = torn_bytes, "cut off what a crash had left at the end of the store's log");
    }
    if points_refused > 0 {
        tracing::warn!(
            points = points_refused,
            "points of the store's log have no database or clash with others"
        );
    }
    if hidden_columns > 0 {
        tracing::warn!(columns = hidden_columns, "fields of old segments have another type than newer ones");
    }
}

/// Says in the log, and as a point of the measurement `store`, that points were given up.
pub(crate) fn tell_dropped(ingest: &Ingest, dropped: &DroppedPartition) {
    let DroppedPartition { database, policy, start, end, bytes, reason } = dropped;
    let (word, why) = match reason {
        DropReason::Age => ("age", "older than its retention"),
        DropReason::Disk => ("disk", "the store has more bytes than --max-disk allows"),
    };
    let seconds =
        |time: &Timestamp| Civil::from_unix_seconds(time.nanos().div_euclid(1_000_000_000)).to_string();
    let text = format!("dropped {database}.{policy} from {} to {}: {why}", seconds(start), seconds(end));
    tracing::info!(database, policy, bytes, reason = word, "{text}");
    let tag = |key: &str, value: &str| (key.into(), value.into());
    ingest.append_own(&[Point {
        measurement: "store".into(),
        tags: vec![tag("database", database), tag("policy", policy), tag("reason", word)],
        fields: vec![
            ("event".into(), FieldValue::String("drop_partition".into())),
            ("text".into(), FieldValue::String(text.into())),
            ("bytes".into(), FieldValue::Integer(bytes.cast_signed())),
        ],
        time: clock::now(),
    }]);
}
