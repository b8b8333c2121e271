//! How a store behaves: what the operator may choose, with defaults.
//!
//! Never reads flags or files; limits that no operator needs to change are constants beside their use.

use crate::tier::TierWidth;
use crate::tier_upkeep::TierRetention;
use std::time::Duration;

/// When a durable append is on the disk itself, not only in the kernel's memory.
///
/// Whatever is chosen, an append that returned survives the death of the process; the choice is about
/// the death of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// [`crate::Store::append_durable`] returns after `fdatasync`; concurrent callers share one.
    #[default]
    Always,
    /// [`crate::Store::maintain`] syncs when this much time has passed since the last sync.
    Interval(Duration),
    /// The kernel decides; only an explicit [`crate::Store::sync`] waits.
    Never,
}

/// What the operator may choose about a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// See [`Durability`]. Default: [`Durability::Always`].
    pub durability: Durability,
    /// Age after which whole partitions are dropped. `None` (the default) keeps everything.
    pub retention: Option<Duration>,
    /// How long the tier of minutes stays. Default: as long as the rows, and then it is made only of rows that are dense.
    pub minute_tier: TierRetention,
    /// How long the tier of hours stays. Default: as long as the rows.
    pub hour_tier: TierRetention,
    /// Length of a partition in seconds, 60 to 315,576,000 (ten years). Default: 86,400, one day in UTC.
    /// Written into the folder when it is made; a store that exists keeps the length it was made with.
    pub partition_seconds: u64,
    /// Most series in all databases together; points of further series are refused. Default: 100,000.
    pub max_series: usize,
    /// Most fields of one measurement; points with further fields are refused. Default: 4,096.
    pub max_fields: usize,
    /// Size of the write-ahead log, in bytes, at which the head is packed into segments. It bounds the memory
    /// of the head and the time of a restart. With more than 8,192 series it is more, up to three times as much with
    /// 24,576. 4 KiB to 1 GiB. Default: 16 MiB, which is replayed in a tenth of a second.
    pub wal_flush_bytes: u64,
    /// Most bytes of log that is in no segment yet, which is about the memory that its rows take. Beyond it batches are
    /// refused, and counted: it is reached only where segments cannot be written, because the disk is full or fails.
    /// Default: 64 MiB.
    pub max_head_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            retention: None,
            minute_tier: TierRetention::default(),
            hour_tier: TierRetention::default(),
            partition_seconds: 86_400,
            max_series: 100_000,
            max_fields: 4_096,
            wal_flush_bytes: 16 << 20,
            max_head_bytes: 64 << 20,
        }
    }
}

impl Options {
    pub(crate) const fn tier_retention(&self, width: TierWidth) -> TierRetention {
        match width {
            TierWidth::Minute => self.minute_tier,
            TierWidth::Hour => self.hour_tier,
        }
    }

    /// The first option that is out of its range, by name and range.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        if !(60..=315_576_000).contains(&self.partition_seconds) {
            return Some("partition_seconds must be from 60 to 315576000");
        }
        if !(4 << 10..=1 << 30).contains(&self.wal_flush_bytes) {
            return Some("wal_flush_bytes must be from 4096 to 1073741824");
        }
        None
    }
}
