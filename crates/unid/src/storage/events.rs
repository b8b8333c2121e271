//! What the store gave up: to the log, and into the store as points.
//!
//! Owns the shape of the measurement `store` (`schema/store.toml`). Never decides what is given up.

use uni_store::{DropReason, DroppedPartition, Point};
use uni_wire::civil::Civil;
use uni_wire::{FieldValue, Timestamp};

use crate::clock;
use crate::ingest::Ingest;

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
