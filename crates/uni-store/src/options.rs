//! How a store behaves: what the operator may choose, with defaults.
//!
//! Never reads flags or files; limits that no operator needs to change are constants beside their use.

use crate::registry::{Registry, split_space};
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

/// How long the points of a database, or of one of its measurements, are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionRule {
    /// The database.
    pub database: String,
    /// `None`: all points of the database whose policy says nothing else. A measurement: its points, in all policies.
    pub measurement: Option<String>,
    /// Age after which whole partitions are dropped.
    pub age: Duration,
}

/// What the operator may choose about a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// See [`Durability`]. Default: [`Durability::Always`].
    pub durability: Durability,
    /// Age after which whole partitions are dropped, where neither their policy nor a rule says another one. `None`
    /// (the default) keeps everything.
    pub retention: Option<Duration>,
    /// How long the tier of minutes stays. Default: as long as the rows, and then it is made only of rows that are dense.
    pub minute_tier: TierRetention,
    /// How long the tier of hours stays. Default: as long as the rows.
    pub hour_tier: TierRetention,
    /// Ages for some databases and measurements. Default: none.
    pub retention_rules: Vec<RetentionRule>,
    /// Most bytes of segments and log together; beyond it the oldest partitions are dropped, and where there is none but
    /// that of now, points are refused. Looked at by [`crate::Store::maintain`]. `None` (the default): no limit.
    pub max_disk_bytes: Option<u64>,
    /// Length of a partition in seconds, 60 to 315,576,000 (ten years). Default: 86,400, one day in UTC.
    /// Written into the folder when it is made; a store that exists keeps the length it was made with.
    pub partition_seconds: u64,
    /// Most series in all databases together; points of further series are refused. Default: 100,000.
    pub max_series: usize,
    /// Most series with the same value of the tag `vm`, so that one VM cannot use up all; points of further series are
    /// refused. Default: 20,000.
    pub max_series_per_vm: usize,
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
            retention_rules: Vec::new(),
            max_disk_bytes: None,
            partition_seconds: 86_400,
            max_series: 100_000,
            max_series_per_vm: 20_000,
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

    /// How long the points of a space are kept; `None` for ever.
    pub(crate) fn age(&self, registry: &Registry, space: &str) -> Option<Duration> {
        let own = registry.policy_of(space).map(|policy| policy.duration).filter(|own| !own.is_zero());
        let database = split_space(space).0;
        let rules = || self.retention_rules.iter().filter(|rule| rule.measurement.is_none());
        own.or_else(|| rules().rfind(|rule| rule.database == database).map(|rule| rule.age))
            .or(self.retention)
    }

    /// Measurements of a database that have an age of their own.
    pub(crate) fn measurement_rules<'o>(
        &'o self,
        database: &'o str,
    ) -> impl Iterator<Item = (&'o str, Duration)> {
        let mine = self.retention_rules.iter().filter(move |rule| rule.database == database);
        mine.filter_map(|rule| Some((rule.measurement.as_deref()?, rule.age)))
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
