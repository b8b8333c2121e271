//! JSON-RPC 2.0 frames over the control socket.
//!
//! One JSON value per line, requests answered in order, ids are integers. Lines longer than
//! [`MAX_FRAME_BYTES`] are refused.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// The longest frame either side accepts. A console tail of 4 MiB, escaped, fits.
pub const MAX_FRAME_BYTES: usize = 32 * 1024 * 1024;

/// The method does not exist.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// The parameters do not have the method's shape.
pub const INVALID_PARAMS: i64 = -32602;
/// The operation was understood and failed; the message says why.
pub const OPERATION_FAILED: i64 = -32000;
/// The line is not a request.
pub const PARSE_ERROR: i64 = -32700;

/// A request. `id` is echoed in the answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Always `2.0`.
    pub jsonrpc: String,
    /// Chosen by the client.
    pub id: i64,
    /// `VM.Run`, `Daemon.Status`, ...
    pub method: String,
    /// The method's parameters; `null` when it has none.
    #[serde(default)]
    pub params: Value,
    /// W3C trace context of the caller: its trace goes on in the daemon's. What is no text, or no trace context,
    /// is ignored.
    #[serde(default, deserialize_with = "text_or_none", skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// What tracing systems on the way added to `traceparent`.
    #[serde(default, deserialize_with = "text_or_none", skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

impl Request {
    /// A request for `method` with `params`, part of no trace.
    #[must_use]
    pub fn new(id: i64, method: &str, params: Value) -> Self {
        let method = method.to_owned();
        Self { jsonrpc: "2.0".to_owned(), id, method, params, traceparent: None, tracestate: None }
    }
}

/// A trace that cannot go on is no reason to refuse a request.
fn text_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(value.as_str().map(str::to_owned))
}

/// An answer: exactly one of `result` and `error` is present.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Response {
    /// Always `2.0`.
    pub jsonrpc: String,
    /// The request's id.
    pub id: i64,
    /// The method's result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

impl Response {
    /// The answer to request `id`.
    #[must_use]
    pub fn new(id: i64, outcome: Result<Value, Error>) -> Self {
        let (result, error) = match outcome {
            Ok(value) => (Some(value), None),
            Err(error) => (None, Some(error)),
        };
        Self { jsonrpc: "2.0".to_owned(), id, result, error }
    }
}

/// Why an operation failed: a code for programs, a message for people.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Error {
    /// One of this module's constants.
    pub code: i64,
    /// What was tried, on what, why it failed, what to do.
    pub message: String,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Method names, in one place so that both ends spell them alike.
pub mod method {
    /// [`crate::vm::RunParams`] to [`crate::vm::VmInfo`].
    pub const VM_RUN: &str = "VM.Run";
    /// [`crate::vm::StopParams`] to [`crate::daemon::Done`]; answers once the VM is down.
    pub const VM_STOP: &str = "VM.Stop";
    /// [`crate::vm::VmRef`] to [`crate::daemon::Done`].
    pub const VM_KILL: &str = "VM.Kill";
    /// [`crate::vm::VmRef`] to [`crate::daemon::Done`].
    pub const VM_REMOVE: &str = "VM.Remove";
    /// No parameters, to an array of [`crate::vm::VmInfo`].
    pub const VM_LIST: &str = "VM.List";
    /// [`crate::vm::VmRef`] to [`crate::vm::VmInfo`].
    pub const VM_GET: &str = "VM.Get";
    /// [`crate::vm::VmRef`] to [`crate::vm::VmDetail`].
    pub const VM_INSPECT: &str = "VM.Inspect";
    /// [`crate::vm::LogsParams`] to [`crate::vm::Logs`].
    pub const VM_LOGS: &str = "VM.Logs";
    /// [`crate::messages::MessagesParams`] to [`crate::messages::Messages`].
    pub const VM_MESSAGES: &str = "VM.Messages";
    /// [`crate::vm::VmRef`] to [`crate::vm::Stats`].
    pub const VM_STATS: &str = "VM.Stats";
    /// [`crate::guest::ControlParams`] to [`crate::guest::ControlAnswer`].
    pub const VM_CONTROL: &str = "VM.Control";
    /// [`crate::vm::VmRef`] to [`crate::guest::Exposition`].
    pub const VM_SCRAPE: &str = "VM.Scrape";
    /// [`crate::heap_trace::StartParams`] to [`crate::heap_trace::Started`].
    pub const VM_TRACE_START: &str = "VM.TraceStart";
    /// [`crate::heap_trace::ReadParams`] to [`crate::heap_trace::TracePiece`].
    pub const VM_TRACE_READ: &str = "VM.TraceRead";
    /// [`crate::heap_trace::TraceRef`] to [`crate::daemon::Done`]; the rest can be read then.
    pub const VM_TRACE_STOP: &str = "VM.TraceStop";
    /// [`crate::store::SnapshotParams`] to [`crate::store::Snapshot`].
    pub const STORE_SNAPSHOT: &str = "Store.Snapshot";
    /// [`crate::store::ReadParams`] to [`crate::store::Piece`].
    pub const STORE_READ: &str = "Store.Read";
    /// [`crate::store::FileRef`] to a `uni_store::FileReport`.
    pub const STORE_CHECK: &str = "Store.Check";
    /// [`crate::store::SnapshotRef`] to [`crate::daemon::Done`].
    pub const STORE_RELEASE: &str = "Store.Release";
    /// [`crate::store::ExportParams`] to a `uni_store::ExportPage`.
    pub const STORE_EXPORT: &str = "Store.Export";
    /// [`crate::store::SchemaParams`] to an array of `uni_store::MeasurementSchema`.
    pub const STORE_SCHEMA: &str = "Store.Schema";
    /// [`crate::store::ImportParams`] to [`crate::store::Imported`].
    pub const STORE_IMPORT: &str = "Store.Import";
    /// [`crate::store::CardinalityParams`] to a `uni_store::Cardinality`.
    pub const STORE_CARDINALITY: &str = "Store.Cardinality";
    /// No parameters, to [`crate::daemon::Version`].
    pub const DAEMON_VERSION: &str = "Daemon.Version";
    /// No parameters, to [`crate::daemon::Status`].
    pub const DAEMON_STATUS: &str = "Daemon.Status";
    /// [`crate::daemon::LogLevelParams`] to [`crate::daemon::LogLevel`].
    pub const DAEMON_LOG_LEVEL: &str = "Daemon.LogLevel";
    /// [`crate::daemon::ShutdownParams`] or none, to [`crate::daemon::Shutdown`].
    pub const DAEMON_SHUTDOWN: &str = "Daemon.Shutdown";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_context_that_is_no_text_does_not_spoil_the_request() {
        for context in ["7", "null", "[1]", "{}"] {
            let line = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"VM.List","traceparent":{context}}}"#);
            let request: Request = serde_json::from_str(&line).unwrap();
            assert_eq!(request.traceparent, None, "{context}");
        }
    }

    #[test]
    fn a_request_of_no_trace_says_nothing_of_traces() {
        let text = serde_json::to_string(&Request::new(1, method::VM_LIST, Value::Null)).unwrap();
        assert!(!text.contains("trace"), "{text}");
    }
}
