//! The body of a request that writes: into memory within its bounds, then to work in its turn.
//!
//! Owns those bounds and the waiting for them, for every wire over HTTP. What a body means, and how a refusal is spelled,
//! is its wire's business.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

use super::App;

/// InfluxDB's default for the largest body.
pub(super) const MAX_BODY_BYTES: usize = 25_000_000;
/// A request waits this long for its turn.
pub(super) const WAIT: Duration = Duration::from_secs(10);

/// Why a write was not taken, whole or in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// There is no place now; the client may come again.
    pub(super) fn busy(what: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, format!("too many {what} at once; try again"))
    }
}

/// A body in memory, with the leave to take that memory.
pub(super) struct Held<'a> {
    pub(super) bytes: Bytes,
    _memory: SemaphorePermit<'a>,
}

/// Reads a body of at most `max_bytes`. The memory is reserved before it is read, so that all bodies together stay
/// bounded.
///
/// # Errors
/// When there is no memory for it in time, or it is too long, or not what its encoding says.
pub(super) async fn read(
    app: &App,
    request: axum::extract::Request,
    max_bytes: usize,
) -> Result<Held<'_>, Refusal> {
    let kib = body_kib(request.headers(), max_bytes);
    let Ok(Ok(memory)) = timeout(WAIT, app.limits.bodies_kib.acquire_many(kib)).await else {
        return Err(Refusal::busy("writes"));
    };
    match axum::body::to_bytes(request.into_body(), max_bytes).await {
        Ok(bytes) => Ok(Held { bytes, _memory: memory }),
        Err(error) => Err(bad_body(&error, max_bytes)),
    }
}

/// Has `work` done on a thread that may wait for the disk, when it is this request's turn.
///
/// # Errors
/// When its turn does not come in time, or `work` panics.
pub(super) async fn in_turn<T: Send + 'static>(
    app: &Arc<App>,
    work: impl FnOnce(&App) -> T + Send + 'static,
) -> Result<T, Refusal> {
    let Ok(Ok(turn)) = timeout(WAIT, app.limits.writes.acquire()).await else {
        return Err(Refusal::busy("writes"));
    };
    let worker = Arc::clone(app);
    let done = tokio::task::spawn_blocking(move || work(&worker)).await;
    drop(turn);
    done.map_err(|_| {
        let message = "the write failed inside unid; its log says why";
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    })
}

/// What a body may take in memory: as long as it says, or, packed or of unknown length, as much as is allowed.
fn body_kib(headers: &HeaderMap, max_bytes: usize) -> u32 {
    let packed = headers.contains_key(header::CONTENT_ENCODING);
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let bytes = length.filter(|_| !packed).unwrap_or(max_bytes).min(max_bytes);
    u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX)
}

/// A body that is too long, or is not what its encoding says.
fn bad_body(error: &axum::Error, max_bytes: usize) -> Refusal {
    let text = error.to_string();
    if text.contains("length limit") {
        let message = format!("the body is longer than {max_bytes} bytes; write it in parts");
        return Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message);
    }
    Refusal::bad(format!("read the body: {text}"))
}
