//! Points on disk: one embedded time series store, synchronous, without clocks or threads of its own.
//!
//! A *series* is a database, a measurement and a sorted set of tags; its fields are columns that share one
//! time column. A point travels: [`Store::append`] (or [`Store::append_lines`], without making a point of a line)
//! checks it and writes it as a row (`row`) to the write-ahead log (`wal`) and to the *head* (`head`), which is shown
//! once the log has it; [`Store::flush`] packs the head into immutable segments, one for each partition of time
//! (`segment`), and drops the log; [`Store::merge`] makes one segment of many; [`Store::scan`] merges segments and head
//! (`merge`) into rows of ascending time; [`Store::enforce_retention`] drops whole partitions.
//!
//! What it owns: the folder given to [`Store::open`], and every byte in it (`docs/format/store.md`).
//! What it never does: read a clock (time is passed in), start a thread, parse a query. What a line of line protocol
//! means is `uni_wire`'s to say.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::ops::ControlFlow;
//! use uni_store::{Options, Point, Store};
//! use uni_wire::{FieldValue, Timestamp};
//!
//! # let folder = tempfile::tempdir()?;
//! let now = Timestamp::from_seconds(1_700_000_000);
//! let store = Store::open(folder.path(), Options::default(), now)?;
//! store.create_database("uni")?;
//! let point = Point {
//!     measurement: "memory".into(),
//!     tags: vec![("vm".into(), "web".into())],
//!     fields: vec![("used".into(), FieldValue::Unsigned(4096))],
//!     time: now,
//! };
//! assert_eq!(store.append("uni", &[point])?.accepted, 1);
//! for series in store.series("uni", "memory", &[]) {
//!     store.scan("uni", series.id, &["used"], now, now, &mut |_time, values| {
//!         assert_eq!(values[0], Some(FieldValue::Unsigned(4096)));
//!         ControlFlow::Continue(())
//!     })?;
//! }
//! # Ok(())
//! # }
//! ```

mod append;
mod backup;
mod block;
mod bytes;
mod cardinality;
mod catalog;
mod check;
mod column;
mod compact;
mod cutoff;
mod cuts;
mod delete;
mod deletion;
mod disk;
mod error;
mod export;
mod files;
mod flush;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod head;
mod index;
mod lines;
mod logs;
mod matcher;
mod merge;
mod options;
mod pack;
mod point;
mod policies;
mod prefetch;
mod read;
mod readonly;
mod recovery;
mod registry;
mod replay;
mod retention;
mod rollup;
mod routes;
mod row;
mod segment;
mod selection;
mod snapshot;
mod spans;
mod state;
mod store;
mod summed;
mod table;
mod tier;
mod tier_files;
mod tier_upkeep;
mod types;
mod v1;
mod wal;

pub use append::{Appended, Rejected};
pub use cardinality::{Cardinality, Counted, CountedTag, DatabaseCardinality};
pub use catalog::SeriesId;
pub use check::{Damage, FileReport};
pub use delete::Doomed;
pub use disk::{Disk, DiskFile, Lock, OsDisk};
pub use error::{AppendError, DeleteError, MaintainError, OpenError, PolicyError, ScanError};
pub use export::{ExportCursor, ExportPage, ExportSelection, MeasurementSchema};
pub use lines::{AppendedLines, LineEvent, LineOptions};
pub use logs::{
    DroppedLogs, Found, LogEntry, LogKind, LogPattern, LogPatternError, LogRefusal, LogSearch, LogSeries,
    LogStats, LogVisitor, Logs, LogsAppended, MAX_NAME_BYTES, MAX_PART_BYTES, MAX_TEXT_BYTES, Order,
};
pub use matcher::{Matcher, MatcherError, Op};
pub use options::{Durability, Options, RetentionRule};
pub use point::{Point, RejectReason};
pub use policies::{PolicyInfo, PolicySpec};
pub use read::{Row, SeriesInfo, Visitor};
pub use recovery::{Recovery, SetAside};
pub use registry::{DEFAULT_POLICY, Policy};
pub use retention::{DropReason, DroppedPartition};
pub use snapshot::{Snapshot, SnapshotFile, is_inside};
pub use store::{Maintained, Store, StoreStats};
pub use summed::{Grid, Summed, SummedVisitor};
pub use tier::{FieldSummary, TierSum, TierWidth, WindowSummary};
pub use tier_upkeep::TierRetention;
