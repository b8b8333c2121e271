//! Requests and answers about the syslog messages of a VM.

use serde::{Deserialize, Serialize};

/// Parameters of `VM.Messages`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MessagesParams {
    /// A VM's id, name or id prefix; or the exact name of a host that sends syslog and is no VM. Empty means all, and
    /// those of nobody.
    pub id: String,
    /// Only messages after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Place>,
    /// Only messages of the last so many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Only messages older than so many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// Only messages with all of these words, whole and in any case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<String>,
    /// Only messages of this severity (`emerg` to `debug`) or a worse one; empty means all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub level: String,
    /// Only messages in whose text this pattern (syntax of the Rust crate `regex`) is found; empty means all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub grep: String,
    /// Begin with the last so many of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u32>,
    /// Only messages that arrived from this one on, in the order of their arrival: the `arrived` of an earlier answer.
    /// Wins over `after`, `since_ms` and `tail`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrived: Option<u64>,
    /// With `arrived`: when there is nothing to send yet, wait this long for it (at most 30000).
    #[serde(default)]
    pub wait_ms: u64,
}

/// Where a message stands among those of its VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Nanoseconds since the Unix epoch.
    pub time: i64,
    /// Counts the messages of this time that are asked for, from 0.
    pub nth: u64,
}

/// Messages of a VM, the oldest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Messages {
    /// The VM's full id, or the name asked for.
    pub id: String,
    /// The messages.
    pub messages: Vec<Message>,
    /// Where to go on; absent when there is no message yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Place>,
    /// Where to go on with those that arrive from now on. They may carry earlier times, and be among these already.
    pub arrived: u64,
    /// With `arrived`: messages, of all VMs, that came and went since.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missed: u64,
    /// There are more at once.
    pub more: bool,
    /// The VM's process is gone and all was told: nothing will follow.
    pub ended: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// One message. What it did not say is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// RFC 3339 in UTC, milliseconds.
    pub time: String,
    /// The same in nanoseconds since the Unix epoch.
    pub time_ns: i64,
    /// `emerg`, `alert`, `crit`, `err`, `warning`, `notice`, `info` or `debug`.
    pub severity: String,
    /// Whose it is; left out where it is nobody's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub vm: String,
    /// Facility, 0 to 23.
    pub facility_code: i64,
    /// The host that the message names.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// The program.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub appname: String,
    /// The program's process.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub procid: String,
    /// What kind of message it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub msgid: String,
    /// Structured data as RFC 5424 writes it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub structured_data: String,
    /// The text.
    pub message: String,
}
