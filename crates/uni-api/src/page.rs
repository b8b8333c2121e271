//! What the page's JSON API answers: the contract's shapes, the overview and the curves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::vm::PortMap;

/// Why a request has no other answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Refusal {
    /// What was asked, and what is wrong with it.
    pub error: String,
}

/// One VM of `/ui/api/vms`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ListedVm {
    /// 12 lower-case hexadecimal digits.
    pub id: String,
    /// The VM's name, or `-`.
    pub name: String,
    /// As in [`crate::vm::VmInfo::state`].
    pub state: String,
    /// The image as it was named.
    pub image: String,
    /// Health, or empty.
    pub health: String,
}

/// A VM as `/ui/api/vm/{id}` describes it. Values that look like secrets are `***`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Detail {
    /// 12 lower-case hexadecimal digits.
    pub id: String,
    /// The VM's name, or `-`.
    pub name: String,
    /// As in [`crate::vm::VmInfo::state`].
    pub state: String,
    /// The image as it was named.
    pub image: String,
    /// Guest memory, e.g. `256M`.
    pub memory: String,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Health, or `-`.
    pub health: String,
    /// `never`, `on-failure` or `always`; empty when there is none.
    pub restart_policy: String,
    /// Starts after the first.
    pub restart_count: u64,
    /// RFC 3339, seconds.
    pub created_at: String,
    /// RFC 3339, seconds; empty until the VM was started.
    pub started_at: String,
    /// RFC 3339, seconds; empty until the VM has stopped.
    pub stopped_at: String,
    /// Static address, or empty.
    pub ip_address: String,
    /// Gateway of the static address, or empty.
    pub gateway_ip: String,
    /// Guest environment, `KEY=VALUE` each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Published ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMap>,
    /// QEMU machine type.
    pub machine: String,
    /// `kvm` or `tcg`; empty before the first start.
    pub accelerator: String,
    /// Guest arguments as given by the user.
    pub args: Vec<String>,
    /// The VM was found gone when the daemon came back.
    pub daemon_recovered: bool,
    /// How the last run ended, in words; empty while there is no such end.
    pub exit: String,
    /// What the VM may use of the host.
    pub limits: Limits,
}

/// What a VM may use of the host; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Limits {
    /// Weight of processor time (cgroup v2 `cpu.weight`).
    pub cpu_shares: u64,
    /// Memory of the VM's process, bytes.
    pub memory_max: u64,
    /// Disk operations a second.
    pub disk_iops: u64,
    /// Disk bytes a second.
    pub disk_bps: u64,
}

/// The end of a VM's console.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogTail {
    /// The VM's full id.
    pub id: String,
    /// The text; bytes that are not UTF-8 are replaced by U+FFFD.
    pub logs: String,
}

/// The list page: all VMs with their newest figures. `null` means not measured yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Overview {
    /// The daemon's version.
    pub version: String,
    /// The VMs, by name.
    pub vms: Vec<OverviewVm>,
    /// Who else reports, by name.
    #[serde(default)]
    pub senders: Vec<Sender>,
}

/// A program that reports and is no VM of this daemon: it can be looked at only.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Sender {
    /// The tag `vm` of its points.
    pub name: String,
    /// `reporting`, or `silent` for half a minute or more.
    pub state: String,
    /// The time of its newest point, milliseconds since the Unix epoch.
    pub newest_ms: i64,
    /// Heap in use, bytes.
    pub guest_heap_bytes: Option<u64>,
    /// HTTP answers that succeeded, a second.
    pub http_2xx_per_second: Option<f64>,
    /// Errors it has logged.
    pub log_errors: Option<u64>,
}

/// One row of the list page.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Curve {
    /// Milliseconds since the Unix epoch, ascending.
    pub times: Vec<i64>,
    /// One value a time; `null` is a gap.
    pub values: Vec<Option<f64>>,
}

/// Something that happened to a VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Mark {
    /// Milliseconds since the Unix epoch.
    pub time: i64,
    /// `create`, `start`, `stop`, `kill`, `exit`, `adopt` or `control`.
    pub event: String,
    /// In words.
    pub text: String,
}

/// New points of one VM, sent as they are made: key, milliseconds since the Unix epoch, value.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Points {
    /// The points.
    pub points: Vec<(String, i64, f64)>,
}

/// A piece of console for the page.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConsoleChunk {
    /// Position of the first byte, counted from the VM's creation.
    pub from: u64,
    /// Where to go on.
    pub next: u64,
    /// The text.
    pub text: String,
}
