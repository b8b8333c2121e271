//! What the page asks for beyond the contract's JSON API: the overview and the curves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The list page: all VMs with their newest figures. `null` means not measured yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Overview {
    /// The daemon's version.
    pub version: String,
    /// The VMs, by name.
    pub vms: Vec<OverviewVm>,
}

/// One row of the list page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OverviewVm {
    /// 12 lower-case hexadecimal digits.
    pub id: String,
    /// The VM's name.
    pub name: String,
    /// As in [`crate::vm::VmInfo::state`].
    pub state: String,
    /// Health, or empty.
    pub health: String,
    /// The image as it was named.
    pub image: String,
    /// Percent of one core.
    pub cpu_pct: Option<f64>,
    /// Resident memory of the VM's process, bytes.
    pub mem_bytes: Option<u64>,
    /// Heap in use inside the guest, bytes.
    pub guest_heap_bytes: Option<u64>,
    /// Received over the service link, bits per second.
    pub net_rx_bps: Option<f64>,
    /// Sent over the service link, bits per second.
    pub net_tx_bps: Option<f64>,
    /// RFC 3339, or empty.
    pub started_at: String,
}

/// The curves of one VM on one time axis.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Charts {
    /// First moment, milliseconds since the Unix epoch.
    pub from: i64,
    /// Last moment, milliseconds since the Unix epoch.
    pub to: i64,
    /// Distance of the points, milliseconds.
    pub step: i64,
    /// Curves by key (`cpu_pct`, `net_rx_bps:service`, ...); a key is absent when it has no point.
    pub series: BTreeMap<String, Curve>,
    /// Lifecycle events.
    pub marks: Vec<Mark>,
}

/// One curve.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Curve {
    /// Milliseconds since the Unix epoch, ascending.
    pub times: Vec<i64>,
    /// One value a time; `null` is a gap.
    pub values: Vec<Option<f64>>,
}

/// Something that happened to a VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mark {
    /// Milliseconds since the Unix epoch.
    pub time: i64,
    /// `create`, `start`, `stop`, `kill`, `exit` or `adopt`.
    pub event: String,
    /// In words.
    pub text: String,
}

/// New points of one VM, sent as they are made: key, milliseconds since the Unix epoch, value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Points {
    /// The points.
    pub points: Vec<(String, i64, f64)>,
}

/// A piece of console for the page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConsoleChunk {
    /// Position of the first byte, counted from the VM's creation.
    pub from: u64,
    /// Where to go on.
    pub next: u64,
    /// The text.
    pub text: String,
}
