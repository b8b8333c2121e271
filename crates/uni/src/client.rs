//! The way to the daemon: JSON-RPC over its Unix socket, every step with a deadline.
//!
//! Owns the connection and the reading of answers. Never knows what the methods mean.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uni_api::rpc::{self, MAX_FRAME_BYTES, OPERATION_FAILED, Request, Response};

/// How long most answers may take. Starting a VM may cost a probe of the hypervisor (2 s a try) first.
pub(crate) const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// How long the daemon may be away, as during its restart, for a call that may be repeated.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries.
const RETRY: Duration = Duration::from_millis(250);

/// Why a call has no result. The cause stands inside each message, which ends with what to do, and so is not
/// also an error's source.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// Nobody listens on the socket.
    #[error("no daemon answers on {path}: {error}; start it with `unid --socket {path} &`")]
    NotRunning { path: String, error: io::Error },
    /// The socket cannot be opened for another reason.
    #[error("connecting to the daemon on {path}: {error}{hint}")]
    Connect { path: String, error: io::Error, hint: &'static str },
    /// The connection broke.
    #[error("talking to the daemon ({method}): {error}")]
    Broken { method: String, error: io::Error },
    /// No answer in time.
    #[error("the daemon did not answer {method} within {seconds} s")]
    Late { method: String, seconds: u64 },
    /// An answer that is none.
    #[error(
        "the daemon's answer to {method} was not understood ({what}); are `uni` and `unid` of one version?"
    )]
    Malformed { method: String, what: String },
    /// The daemon said no.
    #[error("{}", refusal(.0))]
    Refused(rpc::Error),
}

fn refusal(error: &rpc::Error) -> String {
    match error.code {
        OPERATION_FAILED => error.message.clone(),
        code => format!("rpc error {code}: {}", error.message),
    }
}

impl CallError {
    /// The daemon may be restarting; the same call may succeed soon.
    const fn may_pass(&self) -> bool {
        matches!(self, Self::NotRunning { .. } | Self::Broken { .. })
    }
}

/// A client of one daemon; connects when needed.
#[derive(Debug)]
pub(crate) struct Client {
    path: PathBuf,
    connection: Option<Connection>,
    last_id: i64,
    traceparent: Option<String>,
    tracestate: Option<String>,
}

impl Client {
    /// A client for the socket at `path`. Nothing is opened yet.
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self { path, connection: None, last_id: 0, traceparent: None, tracestate: None }
    }

    /// Another client of the same daemon, with a connection of its own.
    pub(crate) fn another(&self) -> Self {
        let (traceparent, tracestate) = (self.traceparent.clone(), self.tracestate.clone());
        Self { traceparent, tracestate, ..Self::new(self.path.clone()) }
    }

    /// Makes the daemon's part a continuation of the trace that the variables `TRACEPARENT` and `TRACESTATE` name,
    /// if there is one.
    pub(crate) fn within_trace_of<E>(mut self, variable: impl Fn(&'static str) -> Result<String, E>) -> Self {
        let set = |name| variable(name).ok().filter(|text| !text.is_empty());
        self.traceparent = set("TRACEPARENT");
        self.tracestate = self.traceparent.is_some().then(|| set("TRACESTATE")).flatten();
        self
    }

    /// Calls a method and waits up to `wait` for its result.
    pub(crate) fn call<R: DeserializeOwned>(
        &mut self,
        method: &str,
        params: &impl Serialize,
        wait: Duration,
    ) -> Result<R, CallError> {
        self.last_id += 1;
        let malformed = |what: String| CallError::Malformed { method: method.to_owned(), what };
        let params = serde_json::to_value(params).map_err(|error| malformed(error.to_string()))?;
        let request = Request {
            traceparent: self.traceparent.clone(),
            tracestate: self.tracestate.clone(),
            ..Request::new(self.last_id, method, params)
        };
        // Taken out, so that a connection which failed half-way is never used again.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.path)?,
        };
        let line = connection.exchange(&request, wait)?;
        let answer: Response = serde_json::from_slice(&line).map_err(|error| malformed(error.to_string()))?;
        if answer.id != request.id {
            return Err(malformed(format!("id {} instead of {}", answer.id, request.id)));
        }
        self.connection = Some(connection);
        match answer.error {
            Some(error) => Err(CallError::Refused(error)),
            None => serde_json::from_value(answer.result.unwrap_or(Value::Null))
                .map_err(|error| malformed(error.to_string())),
        }
    }

    /// As [`Client::call`], but outlives a restart of the daemon. Only for calls that change nothing.
    pub(crate) fn call_patiently<R: DeserializeOwned>(
        &mut self,
        method: &str,
        params: &impl Serialize,
        wait: Duration,
    ) -> Result<R, CallError> {
        let start = Instant::now();
        loop {
            match self.call(method, params, wait) {
                Err(error) if error.may_pass() && start.elapsed() < PATIENCE => std::thread::sleep(RETRY),
                outcome => return outcome,
            }
        }
    }
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    /// Read and not yet used.
    pending: Vec<u8>,
}

impl Connection {
    fn open(path: &Path) -> Result<Self, CallError> {
        let stream = UnixStream::connect(path).map_err(|error| {
            let path = path.display().to_string();
            match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    CallError::NotRunning { path, error }
                }
                io::ErrorKind::PermissionDenied => {
                    CallError::Connect { path, error, hint: "; use the account that runs the daemon" }
                }
                _ => CallError::Connect { path, error, hint: "" },
            }
        })?;
        Ok(Self { stream, pending: Vec::new() })
    }

    /// Sends the request and reads the next line.
    fn exchange(&mut self, request: &Request, wait: Duration) -> Result<Vec<u8>, CallError> {
        self.send_and_read(request, wait).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                CallError::Late { method: request.method.clone(), seconds: wait.as_secs() }
            }
            _ => CallError::Broken { method: request.method.clone(), error },
        })
    }

    fn send_and_read(&mut self, request: &Request, wait: Duration) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + wait;
        let mut frame = serde_json::to_vec(request)?;
        frame.push(b'\n');
        self.stream.set_write_timeout(Some(wait))?;
        self.stream.write_all(&frame)?;
        let mut chunk = [0; 64 * 1024];
        let mut searched = 0;
        loop {
            if let Some(at) = self.pending[searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.pending.split_off(searched + at + 1);
                return Ok(std::mem::replace(&mut self.pending, rest));
            }
            searched = self.pending.len();
            if searched > MAX_FRAME_BYTES {
                return Err(io::Error::other("the answer is longer than 32 MiB"));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            // A timeout of zero would mean none.
            self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let length = match self.stream.read(&mut chunk) {
                // a read with a timeout ends so when the process is stopped and goes on (signal(7))
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if length == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"));
            }
            self.pending.extend_from_slice(&chunk[..length]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    const SHORT: Duration = Duration::from_millis(200);

    /// What the other end does with each connection, one after the other.
    fn client_of(each: impl Fn(UnixStream) + Send + 'static) -> (tempfile::TempDir, Client) {
        let dir = tempfile::TempDir::new().expect("a directory");
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).expect("a socket");
        std::thread::spawn(move || listener.incoming().flatten().for_each(each));
        (dir, Client::new(path))
    }

    fn asked(stream: &mut UnixStream) {
        let mut byte = [0];
        while stream.read(&mut byte).is_ok_and(|length| length == 1) && byte != *b"\n" {}
    }

    #[test]
    fn a_daemon_that_says_nothing_is_late_not_waited_for() {
        let (_dir, mut client) = client_of(std::mem::forget);
        let start = Instant::now();
        let error = client.call::<Value>("VM.List", &Value::Null, SHORT).unwrap_err();
        assert!(matches!(error, CallError::Late { .. }), "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_daemon_that_drips_does_not_stretch_the_deadline() {
        let (_dir, mut client) = client_of(|mut stream| {
            while stream.write_all(b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let start = Instant::now();
        let error = client.call::<Value>("VM.List", &Value::Null, SHORT).unwrap_err();
        assert!(matches!(error, CallError::Late { .. }), "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn an_answer_in_pieces_is_put_together_and_the_connection_used_again() {
        let (_dir, mut client) = client_of(|mut stream| {
            for id in 1..=2 {
                asked(&mut stream);
                for piece in
                    [&b"{\"jsonrpc\":\"2.0\","[..], format!("\"id\":{id},").as_bytes(), b"\"result\":7}\n"]
                {
                    stream.write_all(piece).unwrap();
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            asked(&mut stream);
        });
        for _ in 0..2 {
            assert_eq!(client.call::<u8>("VM.List", &Value::Null, SHORT).unwrap(), 7);
        }
    }

    #[test]
    fn an_answer_to_another_question_or_no_json_is_not_taken() {
        for line in ["{\"jsonrpc\":\"2.0\",\"id\":9,\"result\":7}\n", "HTTP/1.1 400\n", "\n"] {
            let (_dir, mut client) = client_of(move |mut stream| {
                asked(&mut stream);
                let _ = stream.write_all(line.as_bytes());
                asked(&mut stream);
            });
            let error = client.call::<u8>("VM.List", &Value::Null, SHORT).unwrap_err();
            assert!(matches!(error, CallError::Malformed { .. }), "{error:?}");
        }
    }
}
