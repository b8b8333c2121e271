//! What is asked of a guest's control port, and what it tells: log levels and which metrics are on.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which of a guest's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ControlKind {
    /// Log levels.
    Logs,
    /// Which metrics are on.
    Metrics,
}

/// Parameters of `VM.Control`: exactly one of `id` and `addr` names the guest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ControlParams {
    /// Id, name or id prefix of a VM.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// `HOST:PORT` of the control port of a guest that is no VM of this daemon.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub addr: String,
    /// Log levels or metrics.
    pub kind: ControlKind,
    /// What to change, as the guest's control port has it after `L` or `M`; nothing: only show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<String>,
    /// How long the change lasts; nothing: until the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_seconds: Option<u32>,
    /// Who asks, where the guest wants to know (`--monitor-token`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
}

/// A text that no `Debug` shows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What is in force in a guest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ControlAnswer {
    /// The VM's name, or the address.
    pub guest: String,
    /// The default (`*`) first, then the sources as the guest lists them.
    pub sources: Vec<SourceState>,
}

/// One source of a guest. Control characters in names are escaped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceState {
    /// The source's name; `*` for what sources to come begin with, `tag:NAME` for a tag that is on.
    pub source: String,
    /// A log level, or `enabled` or `disabled`.
    pub state: String,
}

/// What a guest tells Prometheus.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exposition {
    /// The VM's name.
    pub guest: String,
    /// Prometheus' text format 0.0.4, as the guest wrote it; what is not UTF-8 is U+FFFD.
    pub text: String,
}

/// A guest's settings as the page shows them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Control {
    /// Log sources, the default (`*`) first.
    pub logs: Vec<LogSource>,
    /// Metric sources and tags, the default (`*`) first.
    pub metrics: Vec<MetricSource>,
    /// Why both are empty: the guest does not run, or has no control port. Left out when they are not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// The guest tells nothing to who does not give its own token (`--monitor-token`). Left out if false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_token: bool,
    /// Whether the daemon lets the page change it (`--ui-control`).
    #[serde(default)]
    pub can_change: bool,
}

/// A change asked for on the page.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ControlChange {
    /// What to change.
    pub kind: ControlKind,
    /// The change as the guest's control port has it after `L` or `M`, such as `http:debug` or `gc:off`; nothing: only show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 1024))]
    pub spec: Option<String>,
    /// Seconds that the change lasts; nothing: until the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 86400))]
    pub for_seconds: Option<u32>,
    /// The guest's own token, where it wants one. Never kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
}

/// One log source.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogSource {
    /// Its name, control characters escaped.
    pub source: String,
    /// `quiet`, `app`, `error`, `warning`, `info` or `debug`.
    pub level: String,
}

/// One metric source, or a tag that is on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MetricSource {
    /// Its name, or `tag:NAME`; control characters escaped.
    pub source: String,
    /// `enabled` or `disabled`.
    pub state: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_print_shows_the_token() {
        let token = Some(Secret("hunter2".to_owned()));
        let params = ControlParams {
            id: "web".to_owned(),
            addr: String::new(),
            kind: ControlKind::Logs,
            spec: None,
            for_seconds: None,
            token,
        };
        assert!(!format!("{params:?}").contains("hunter2"));
        assert!(serde_json::to_string(&params).unwrap().contains("hunter2"));
    }
}
