//! Requests and answers about VMs. Field names and optionality follow the outside contract: an optional
//! field is left out when it is empty.

use serde::{Deserialize, Serialize};

/// Names one VM: full id, exact name, or unambiguous id prefix, tried in that order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmRef {
    /// Id, name or id prefix.
    pub id: String,
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PortMap {
    /// Host address; absent means 127.0.0.1.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host_addr: String,
    /// Port on the host, 1 to 65535.
    pub host_port: u16,
    /// Port in the guest, 1 to 65535.
    pub guest_port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
}

/// Parameters of `VM.Run`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunParams {
    /// Absolute path of the image.
    pub image_path: String,
    /// Guest memory, e.g. `256M`; empty means the default.
    #[serde(default)]
    pub memory: String,
    /// Virtual CPUs; 0 means 1.
    #[serde(default)]
    pub cpus: u32,
    /// QEMU's machine for a kernel, `microvm` or `q35`; empty means `microvm`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub machine: String,
    /// Published ports.
    #[serde(default, deserialize_with = "null_as_default")]
    pub port_maps: Vec<PortMap>,
    /// The VM's name; empty means that the daemon makes one from the image's name.
    #[serde(default)]
    pub name: String,
    /// Guest arguments, as typed after `--`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub args: Vec<String>,
    /// Guest environment, `KEY=VALUE` each.
    #[serde(default, deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// Do not pass `--name`, `--monitor` and the other arguments of the monitoring link to the guest.
    #[serde(default)]
    pub no_add_name: bool,
    /// Remove the VM once it has stopped.
    #[serde(default)]
    pub auto_remove: bool,
    /// Let the guest reach out over its service link, to the world and to this host; else only published ports
    /// connect it.
    #[serde(default)]
    pub outbound: bool,
    /// Weight of processor time against other VMs, 1 to 10000; 0 is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cpu_shares: u64,
    /// Most memory of the VM's process, bytes; 0 is no limit, as for the next two.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub memory_max: u64,
    /// Operations of the boot disk in a second.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub disk_iops: u64,
    /// Bytes from and to the boot disk in a second.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub disk_bps: u64,
    /// Fields that this version does not know. One that asks for something is refused, never ignored.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// Parameters of `VM.Stop`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StopParams {
    /// Id, name or id prefix.
    pub id: String,
    /// Kill at once.
    #[serde(default)]
    pub force: bool,
    /// Seconds to wait for the guest before it is killed; absent means 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
}

/// A VM in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmInfo {
    /// 12 lower-case hexadecimal digits.
    pub id: String,
    /// `created`, `starting`, `running`, `stopping` or `stopped`.
    pub state: String,
    /// The image as it was named.
    pub image: String,
    /// The VM's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Health, when there is a check.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub health: String,
}

/// Everything `uni inspect` shows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct VmDetail {
    /// 12 lower-case hexadecimal digits.
    pub id: String,
    /// As in [`VmInfo::state`].
    pub state: String,
    /// The image as it was named.
    pub image: String,
    /// The VM's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What it was called in an older installation, where that is not a name here or was another's too.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub original_name: String,
    /// Guest memory, e.g. `256M`.
    pub memory: String,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Published ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMap>,
    /// Guest arguments as given by the user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Arguments that the daemon put before them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added_args: Vec<String>,
    /// Guest environment, `KEY=VALUE` each; values that look like secrets are `***`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// RFC 3339, seconds.
    pub created_at: String,
    /// RFC 3339, seconds; absent until the VM was started.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub started_at: String,
    /// RFC 3339, seconds; absent until the VM has stopped.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stopped_at: String,
    /// The VM was found gone when the daemon came back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub daemon_recovered: bool,
    /// Health, when there is a check.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub health: String,
    /// Starts after the first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restart_count: u64,
    /// `never`, `on-failure` or `always`, when there is a policy.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub restart_policy: String,
    /// Static address, when there is one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ip_address: String,
    /// Gateway of the static address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gateway_ip: String,
    /// Weight of processor time (cgroup v2 `cpu.weight`), when set.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cpu_shares: u64,
    /// Most memory of the VM's process (cgroup v2 `memory.max`), bytes, when set.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub memory_max: u64,
    /// Most disk operations a second, when set.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub disk_iops: u64,
    /// Most disk bytes a second, when set.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub disk_bps: u64,
    /// QEMU machine type.
    pub machine: String,
    /// `kvm` or `tcg`; absent before the first start.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub accelerator: String,
    /// Why this accelerator.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub accelerator_reason: String,
    /// QEMU's process id while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The shim's process id while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shim_pid: Option<u32>,
    /// How the last run ended, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub exit: String,
    /// The guest's exit code, where it gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Why the newest record could not be stored; absent when it is. It is tried again.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub record_error: String,
}

fn null_as_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Parameters of `VM.Logs`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LogsParams {
    /// Id, name or id prefix.
    pub id: String,
    /// Start at this byte of the console since the VM's creation; absent means the earliest kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Start this many bytes before the end; `from` wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail_bytes: Option<u64>,
    /// Only this run of the VM: its number (from 1), `last` or `previous`; empty means every run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub run: String,
    /// When there is nothing to send yet, wait this long for it (at most 30000).
    #[serde(default)]
    pub wait_ms: u64,
}

/// A piece of a VM's console.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Logs {
    /// The VM's full id.
    pub id: String,
    /// The text; bytes that are not UTF-8 are replaced by U+FFFD.
    pub logs: String,
    /// Position of the first byte in `logs`, counted from the VM's creation.
    pub from: u64,
    /// Where to go on.
    pub next: u64,
    /// Bytes between the place asked for and `from`: dropped, because the client came too late for them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missed_bytes: u64,
    /// The run that was asked for, by number; left out when none was.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub run: u64,
    /// The VM's process (or the run asked for) is gone and `next` is its end: nothing will follow.
    pub ended: bool,
}

/// One measurement of a VM from outside.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Stats {
    /// The VM's full id.
    pub id: String,
    /// As in [`VmInfo::state`].
    pub state: String,
    /// CPU time over wall time of the last interval, in percent; one core is 100.
    pub cpu_pct: f64,
    /// Resident memory of the VM's process, bytes.
    pub mem_bytes: u64,
    /// Bytes the VM has received over its service link since it started.
    pub net_rx_bytes: u64,
    /// Bytes the VM has sent over its service link since it started.
    pub net_tx_bytes: u64,
    /// Bytes written to and read from disks; left out when 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub disk_bytes: u64,
    /// RFC 3339, seconds.
    pub timestamp: String,
    /// `proc`, or `fallback` when nothing could be measured.
    pub source: String,
    /// Counters per link (`service`, `management`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<LinkStats>,
}

/// Counters of one network link since the VM started.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LinkStats {
    /// `service` or `management`.
    pub link: String,
    /// Bytes of frames the VM received.
    pub rx_bytes: u64,
    /// Frames the VM received.
    pub rx_packets: u64,
    /// Bytes of frames the VM sent.
    pub tx_bytes: u64,
    /// Frames the VM sent.
    pub tx_packets: u64,
}
