//! Answers about the daemon itself.

use serde::{Deserialize, Serialize};

use crate::vm::VmInfo;

/// An operation without a result of its own succeeded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    /// Always `ok`.
    pub status: String,
}

impl Default for Done {
    fn default() -> Self {
        Self { status: "ok".to_owned() }
    }
}

/// Parameters of `Daemon.Shutdown`; none are as good as the defaults.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ShutdownParams {
    /// Stop all VMs first; else they go on, and the next daemon takes them over.
    #[serde(default)]
    pub stop_vms: bool,
    /// With `stop_vms`: seconds to wait for the guests before they are killed; absent means 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
}

/// The daemon is shutting down.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Shutdown {
    /// As in [`Done`].
    #[serde(flatten)]
    pub done: Done,
    /// Names of the VMs that did not stop in time and were killed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub killed: Vec<String>,
}

/// The daemon's version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Version {
    /// Semantic version.
    pub version: String,
}

/// One listening socket of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// `control`, `line`, `line-udp`, `syslog`, `syslog-udp`,
    /// `syslog-tls`, `api`, `ui` or `metrics`.
    pub what: String,
    /// `address:port`, or a path for the control socket.
    pub address: String,
}

/// What `uni status` shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Number of registered VMs.
    pub total: u64,
    /// Of these, running.
    pub running: u64,
    /// Of these, stopped.
    pub stopped: u64,
    /// Of these, in any other state.
    pub other: u64,
    /// VMs whose health check passes.
    pub healthy: u64,
    /// VMs whose health check fails.
    pub unhealthy: u64,
    /// The VMs, by name.
    pub vms: Vec<VmInfo>,
    /// The daemon's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// The state directory.
    pub state_dir: String,
    /// The listening sockets.
    pub listeners: Vec<Listener>,
    /// Points taken in, refused and lost since the daemon started, by reason.
    pub ingest: Ingest,
    /// Clients of the control socket that were cut because they did not read their answer, since the daemon
    /// started.
    #[serde(default)]
    pub cut_clients_total: u64,
    /// Log lines that nobody took from the daemon's stderr in time, since the daemon started.
    #[serde(default)]
    pub dropped_log_lines_total: u64,
    /// What became of the spans; absent when the daemon makes no traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traces: Option<Traces>,
    /// The push to a collector; absent without `--influx`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub influx_push: Option<InfluxPush>,
}

/// Spans delivered and lost since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traces {
    /// Taken by the collector.
    pub spans_exported_total: u64,
    /// Lost, by reason.
    pub spans_dropped_total: DroppedSpans,
}

/// Why spans were lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedSpans {
    /// They were made faster than the collector takes them.
    pub queue_full: u64,
    /// The collector did not take them, however often it was asked.
    pub export_failed: u64,
}

/// Parameters of `Daemon.LogLevel`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LogLevelParams {
    /// What the log is to show from now on, as `info,unid::vms=debug`; absent changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
}

/// What the log shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevel {
    /// The level, then the targets with one of their own: `info,unid::vms=debug`.
    pub level: String,
}

/// What became of the lines pushed to a collector since the daemon started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InfluxPush {
    /// The collector, `host:port`.
    pub collector: String,
    /// Whether there is a connection to it.
    pub connected: bool,
    /// Lines given to a connection; a line that is sent again counts again.
    pub lines_sent_total: u64,
    /// Lines lost because the buffer was full.
    pub lines_dropped_total: u64,
    /// Connections after the first.
    pub reconnects_total: u64,
    /// Bytes of lines that wait.
    pub buffered_bytes: u64,
}

/// Counters of what came in over every wire since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingest {
    /// Points stored.
    pub points_total: u64,
    /// Lines that could not be parsed.
    pub bad_lines_total: u64,
    /// Points refused by the store (type conflict, series limit).
    pub refused_points_total: u64,
    /// Lines over the length limit.
    pub long_lines_total: u64,
    /// Points whose `vm` tag claimed another VM's name and was corrected.
    pub renamed_points_total: u64,
    /// Connections of line protocol refused because the limit was reached.
    pub refused_connections_total: u64,
    /// Syslog messages taken in.
    #[serde(default)]
    pub syslog_messages_total: u64,
    /// Syslog messages of which only the beginning was kept: too long, or the connection ended in them.
    #[serde(default)]
    pub syslog_truncated_total: u64,
    /// Connections of syslog refused: the limit was reached, or the TLS handshake failed.
    #[serde(default)]
    pub syslog_refused_connections_total: u64,
}
