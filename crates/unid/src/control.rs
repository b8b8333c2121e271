//! The control socket: JSON-RPC 2.0, one value a line, many requests a connection.
//!
//! Owns the socket file (0660), framing and dispatch. What the methods do is the VM manager's business.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore};
use uni_api::daemon::{Done, Listener, LogLevel, LogLevelParams, Shutdown, ShutdownParams, Status, Version};
use uni_api::guest::ControlParams;
use uni_api::rpc::{self, Error, MAX_FRAME_BYTES, Request, Response, method};
use uni_api::vm::{LogsParams, RunParams, StopParams, VmRef};

use crate::control_port::GuestControl;
use crate::forward::influx::Push;
use crate::heap_traces::HeapTraces;
use crate::ingest::Ingest;
use crate::logging::Log;
use crate::messages;
use crate::scrape;
use crate::store_access::StoreAccess;
use crate::trace::{Caller, Tracing};
use crate::vms::{FindError, Manager, Vm};

/// Clients at one time.
const MAX_CLIENTS: usize = 256;
/// A client that asks nothing for this long is let go; the longest wait of a request is half of it.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// The longest request; answers may be longer.
const MAX_REQUEST_BYTES: u64 = 1024 * 1024;

/// A client that does not take its answer within this is cut.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// What the methods work with.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) manager: Arc<Manager>,
    pub(crate) guests: Arc<GuestControl>,
    pub(crate) heap_traces: Arc<HeapTraces>,
    pub(crate) messages: messages::Reader,
    pub(crate) store: StoreAccess,
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) influx_push: Option<Arc<Push>>,
    pub(crate) state_dir: String,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) shutdown: Arc<Notify>,
    /// Clients that were cut because they did not read.
    pub(crate) cut_clients: AtomicU64,
    pub(crate) log: Log,
    pub(crate) tracing: Tracing,
}

/// Opens the control socket.
///
/// # Errors
/// When another daemon answers on it, or it cannot be made.
pub(crate) fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    refuse_if_answered(path)?;
    // nobody answers: what is there is left over from a daemon that was killed
    match std::fs::symlink_metadata(path) {
        Ok(found) if !is_socket(&found) => anyhow::bail!("{} exists and is not a socket", path.display()),
        Ok(_) => {
            std::fs::remove_file(path)
                .with_context(|| format!("remove the old socket {}", path.display()))?;
        }
        Err(_) => {}
    }
    let listener =
        UnixListener::bind(path).with_context(|| {
            format!(
                "make the control socket {} (--socket); its directory must be there and yours, else name another path",
                path.display()
            )
        })?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
        .with_context(|| format!("set the mode of {}", path.display()))?;
    Ok(listener)
}

/// Refuses when another daemon answers on the socket.
///
/// # Errors
/// When it does, with what to do.
pub(crate) fn refuse_if_answered(path: &Path) -> anyhow::Result<()> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        anyhow::bail!(
            "another unid answers on {}; stop it, or give this one a --socket and a --state-dir of its own",
            path.display()
        );
    }
    Ok(())
}

fn is_socket(metadata: &std::fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type())
}

/// Serves clients until the task is aborted.
pub(crate) async fn serve(listener: UnixListener, control: Arc<Control>) {
    let slots = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            let message = format!("{MAX_CLIENTS} clients are connected already; close some");
            // best effort: a fresh connection's buffer takes it
            let _ = stream.try_write(no_request(rpc::OPERATION_FAILED, &message).as_bytes());
            continue;
        };
        let control = Arc::clone(&control);
        tokio::spawn(async move {
            if let Err(error) = client(stream, &control).await {
                tracing::debug!(err = format!("{error:#}"), "control client");
            }
            drop(slot);
        });
    }
}

async fn client(stream: UnixStream, control: &Control) -> anyhow::Result<()> {
    let by = peer(&stream);
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        let request = (&mut read).take(MAX_REQUEST_BYTES);
        tokio::pin!(request);
        let Ok(n) = tokio::time::timeout(IDLE_TIME, request.read_until(b'\n', &mut line)).await else {
            return Ok(());
        };
        let n = n?;
        if n == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') && n as u64 == MAX_REQUEST_BYTES {
            let message = format!("the request is longer than {MAX_REQUEST_BYTES} bytes");
            write.write_all(no_request(rpc::PARSE_ERROR, &message).as_bytes()).await?;
            return Ok(());
        }
        let response = match serde_json::from_slice::<Request>(&line) {
            Ok(request) => Response::new(request.id, control.call(request, &by).await),
            Err(error) => {
                // what follows may be out of step: the connection ends here, but not without a word
                let message = format!("not a JSON-RPC request: {error}");
                write.write_all(no_request(rpc::PARSE_ERROR, &message).as_bytes()).await?;
                return Ok(());
            }
        };
        let mut answer = serde_json::to_vec(&response)?;
        if answer.len() > MAX_FRAME_BYTES {
            let message = format!("the answer has {} bytes; ask for less", answer.len());
            answer = serde_json::to_vec(&Response::new(
                response.id,
                Err(Error { code: rpc::OPERATION_FAILED, message }),
            ))?;
        }
        answer.push(b'\n');
        let written = tokio::time::timeout(ANSWER_TIME, write.write_all(&answer)).await;
        let Ok(written) = written else {
            control.cut_clients.fetch_add(1, Relaxed);
            tracing::warn!(bytes = answer.len(), "a control client was cut: it did not read its answer");
            return Ok(());
        };
        written?;
    }
}

/// Who is at the other end, for the log (`SO_PEERCRED`).
fn peer(stream: &UnixStream) -> String {
    stream.peer_cred().map_or_else(|_| "unknown".to_owned(), |peer| format!("uid {}", peer.uid()))
}

/// An answer to what was no request: its id is null (JSON-RPC 2.0, section 5).
fn no_request(code: i64, message: &str) -> String {
    let answer =
        serde_json::json!({ "jsonrpc": "2.0", "id": null, "error": { "code": code, "message": message } });
    format!("{answer}\n")
}

impl Control {
    async fn call(&self, request: Request, by: &str) -> Result<Value, Error> {
        let caller = Caller::of(&request);
        let Request { method: name, params, .. } = request;
        match name.as_str() {
            method::VM_RUN => answer(self.manager.run(parse::<RunParams>(params)?, &caller).await),
            method::VM_STOP => {
                let stop = parse::<StopParams>(params)?;
                answer(self.manager.stop(&stop, &caller).await.map(|()| Done::default()))
            }
            method::VM_KILL => {
                let stop = StopParams { id: parse::<VmRef>(params)?.id, force: true, timeout_seconds: None };
                answer(self.manager.stop(&stop, &caller).await.map(|()| Done::default()))
            }
            method::VM_REMOVE => {
                answer(self.manager.remove(&parse::<VmRef>(params)?.id, &caller).map(|()| Done::default()))
            }
            method::VM_LIST => answer(Ok(self.manager.list())),
            method::VM_GET => answer(Ok(self.find(params)?.info())),
            method::VM_INSPECT => answer(Ok(self.find(params)?.detail())),
            method::VM_LOGS => answer(self.manager.logs(&parse::<LogsParams>(params)?).await),
            method::VM_MESSAGES => answer(self.messages.messages(&parse(params)?).await),
            method::VM_STATS => answer(self.manager.fresh_stats(&parse::<VmRef>(params)?.id).await),
            method::VM_CONTROL => {
                answer(self.guests.answer(&self.manager, parse::<ControlParams>(params)?, by).await)
            }
            method::VM_SCRAPE => answer(scrape::scrape(&self.find(params)?).await),
            method::VM_TRACE_START => {
                answer(self.heap_traces.start(&self.manager, &parse(params)?, by).await)
            }
            method::VM_TRACE_READ => answer(self.heap_traces.read(&self.manager, &parse(params)?).await),
            method::VM_TRACE_STOP => {
                let stopped = self.heap_traces.stop(&self.manager, &parse(params)?);
                answer(stopped.map(|()| Done::default()))
            }
            name if name.starts_with("Store.") => self.store(name, params, by).await,
            method::DAEMON_VERSION => answer(Ok(Version { version: version() })),
            method::DAEMON_STATUS => answer(Ok(self.status())),
            method::DAEMON_LOG_LEVEL => answer(self.log_level(&parse(params)?)),
            method::DAEMON_SHUTDOWN => {
                let params = parse::<Option<ShutdownParams>>(params)?.unwrap_or_default();
                answer(self.shut_down(&params, &caller).await)
            }
            _ => Err(not_found(&name)),
        }
    }

    async fn store(&self, name: &str, params: Value, by: &str) -> Result<Value, Error> {
        match name {
            method::STORE_SNAPSHOT => answer(self.store.snapshot(&parse(params)?, by).await),
            method::STORE_READ => answer(self.store.read(parse(params)?).await),
            method::STORE_CHECK => answer(self.store.check(parse(params)?).await),
            method::STORE_RELEASE => answer(self.store.release(parse(params)?)),
            method::STORE_EXPORT => answer(self.store.export(parse(params)?).await),
            method::STORE_SCHEMA => answer(self.store.schema(parse(params)?).await),
            method::STORE_IMPORT => answer(self.store.import(parse(params)?).await),
            method::STORE_CARDINALITY => answer(self.store.cardinality(parse(params)?).await),
            _ => Err(not_found(name)),
        }
    }

    /// Changes what the log shows if asked to, and says what it shows.
    fn log_level(&self, params: &LogLevelParams) -> anyhow::Result<LogLevel> {
        params.level.as_deref().map_or(Ok(()), |spec| self.log.set_levels(spec))?;
        Ok(LogLevel { level: self.log.levels() })
    }

    async fn shut_down(&self, params: &ShutdownParams, caller: &Caller) -> anyhow::Result<Shutdown> {
        let killed = match params.stop_vms {
            true => self.manager.stop_all(params.timeout_seconds, caller).await?,
            false => Vec::new(),
        };
        self.shutdown.notify_one();
        Ok(Shutdown { killed, ..Shutdown::default() })
    }

    fn find(&self, params: Value) -> Result<Arc<Vm>, Error> {
        let failed = |error: FindError| Error { code: rpc::OPERATION_FAILED, message: error.to_string() };
        self.manager.find(&parse::<VmRef>(params)?.id).map_err(failed)
    }

    fn status(&self) -> Status {
        let vms = self.manager.list();
        let count = |state: &str| vms.iter().filter(|vm| vm.state == state).count() as u64;
        let health = |health: &str| vms.iter().filter(|vm| vm.health == health).count() as u64;
        let (total, running, stopped) = (vms.len() as u64, count("running"), count("stopped"));
        Status {
            total,
            running,
            stopped,
            other: total - running - stopped,
            healthy: health("healthy"),
            unhealthy: health("unhealthy"),
            vms,
            version: version(),
            pid: std::process::id(),
            state_dir: self.state_dir.clone(),
            listeners: self.listeners.clone(),
            ingest: self.ingest.counters.snapshot(),
            influx_push: self.influx_push.as_ref().map(|push| push.status()),
            cut_clients_total: self.cut_clients.load(Relaxed),
            dropped_log_lines_total: self.log.dropped_lines(),
            traces: self.tracing.counters().map(|counters| counters.snapshot()),
        }
    }
}

fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

fn not_found(name: &str) -> Error {
    Error { code: rpc::METHOD_NOT_FOUND, message: format!("method not found: {name}") }
}

fn parse<T: DeserializeOwned>(params: Value) -> Result<T, Error> {
    serde_json::from_value(params)
        .map_err(|error| Error { code: rpc::INVALID_PARAMS, message: format!("invalid params: {error}") })
}

fn answer<T: serde::Serialize>(outcome: anyhow::Result<T>) -> Result<Value, Error> {
    let failed = |message: String| Error { code: rpc::OPERATION_FAILED, message };
    let value = outcome.map_err(|error| failed(format!("{error:#}")))?;
    serde_json::to_value(value).map_err(|error| failed(error.to_string()))
}
