//! Heap traces of guests: begun, read while they are taken, ended; and how the page lists and draws them.

use serde::{Deserialize, Serialize};

use crate::guest::Secret;

/// The longest time that a trace may be asked for, in seconds.
pub const MAX_SECONDS: u64 = 86_400;
/// The port at which a guest gives heap traces, unless it is told another (`--memtrace-port`).
pub const PORT: u16 = 4242;
/// The most bytes of a trace that are kept: it ends there.
pub const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Whether a sampling rate can be one: the probability of a word is above 0 and at most 1.
#[must_use]
pub fn is_rate(rate: f64) -> bool {
    rate > 0.0 && rate <= 1.0
}

/// Parameters of `VM.TraceStart`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StartParams {
    /// Id, name or id prefix of a VM.
    pub id: String,
    /// Probability with which a word is sampled, for this trace alone; nothing: as the guest has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// How long, in milliseconds; nothing: until it is stopped, or has not been read for half a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
    /// Who asks, where the guest wants to know before its rate is set (`--monitor-token`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
}

/// A trace that has begun.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Started {
    /// The VM's full id.
    pub id: String,
    /// The VM's name.
    pub vm: String,
    /// The trace's name among those of the VM.
    pub name: String,
}

/// Parameters of `VM.TraceRead`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReadParams {
    /// The VM's full id.
    pub id: String,
    /// The trace's name.
    pub name: String,
    /// Where to read on, in bytes.
    pub from: u64,
    /// How long to wait for more, in milliseconds, at most 30 s.
    #[serde(default)]
    pub wait_ms: u64,
}

/// A piece of a trace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TracePiece {
    /// The bytes, in base64.
    pub data: String,
    /// Where to go on.
    pub next: u64,
    /// Events of the trace so far.
    pub events: u64,
    /// How it ended; nothing while it goes on, or there is more to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<TraceEnd>,
}

/// How a trace ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TraceEnd {
    /// Whether all that the guest had recorded came.
    pub whole: bool,
    /// Why it ended, in words.
    pub why: String,
}

/// Parameters of `VM.TraceStop`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TraceRef {
    /// The VM's full id.
    pub id: String,
    /// The trace's name.
    pub name: String,
}

/// A trace that is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeptTrace {
    /// Its name: when it was begun, in UTC.
    pub name: String,
    /// When it was begun, milliseconds since the Unix epoch.
    pub started_ms: i64,
    /// Its size in bytes so far.
    pub bytes: u64,
    /// Whether it is still being taken.
    pub running: bool,
    /// How it ended; left out while it runs, and if the daemon was started after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<TraceEnd>,
}

/// The traces of one VM, the newest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeptTraces {
    /// The traces.
    pub traces: Vec<KeptTrace>,
    /// Whether the daemon lets the page take one (`--ui-control`).
    pub can_take: bool,
}

/// A trace to be taken, asked for on the page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TraceWish {
    /// How long, in seconds; 30 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 600))]
    pub for_seconds: Option<u32>,
    /// Probability with which a word is sampled, above 0 and at most 1; left out: as the guest has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(exclusive_minimum = 0, maximum = 1))]
    pub rate: Option<f64>,
    /// The guest's own token, where it wants one. Never kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
}

/// The tree of a flame graph: who called whom, with what was allocated below.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Flame {
    /// The traced program.
    pub title: String,
    /// `live` or `allocated`: by which children are in order.
    pub weight: String,
    /// How long the trace is, or up to when it was looked at, in seconds.
    pub duration_seconds: f64,
    /// Whether the trace is still being taken: this is what was there.
    pub running: bool,
    /// The nodes; the first is the root, and children come after their parents.
    pub nodes: Vec<FlameBox>,
}

/// A function under its callers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FlameBox {
    /// The function.
    pub name: String,
    /// Its source file; empty if not known.
    pub file: String,
    /// Its library.
    pub library: String,
    /// Allocated here and below, in bytes.
    pub allocated: u64,
    /// Alive at the end, of here and below, in bytes.
    pub live: u64,
    /// What it called, the largest first; numbers of nodes.
    pub children: Vec<usize>,
}

/// Live bytes by library over time, at common moments.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeapLibraries {
    /// First moment, milliseconds since the Unix epoch.
    pub from: i64,
    /// Last moment, milliseconds since the Unix epoch.
    pub to: i64,
    /// Distance of the moments, milliseconds.
    pub step: i64,
    /// The moments at which anything is known, milliseconds since the Unix epoch.
    pub times: Vec<i64>,
    /// The libraries with the most, the largest first; `(others)` is the last if there are more.
    pub libraries: Vec<LibraryBytes>,
}

/// What one library holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LibraryBytes {
    /// The library, as the guest names it.
    pub library: String,
    /// Live bytes, one value a moment.
    pub bytes: Vec<f64>,
}
