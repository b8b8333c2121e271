//! The HTTP servers: what is served where, and the limits that every connection is under.
//!
//! Owns accepting and timeouts; the routes are in [`influx`] and [`ui`].

pub(crate) mod charts;
mod guard;
pub(crate) mod influx;
pub(crate) mod ui;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower_http::timeout::RequestBodyTimeoutLayer;

use crate::ingest::Ingest;
use crate::live::Live;
use crate::peers::{Peers, Protocol};
use crate::storage::Storage;
use crate::vms::Manager;

/// Connections a listener has open at one time; further ones are told to come back.
const MAX_CONNECTIONS: usize = 512;
/// A client that has not sent its (next) request's head by then is let go. Longer than the 60 s at which senders
/// with a slow beat come back over the same connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// A body that stops coming for this long ends its request.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that takes nothing of its answer for this long is let go (tcp(7), `TCP_USER_TIMEOUT`).
const UNREAD_TIMEOUT_MS: u32 = 30_000;
/// Event streams at one time; well below the connections, so that pages left open never lock others out.
const MAX_STREAMS: usize = 64;
/// Writes and queries worked on at one time; others wait.
const MAX_WRITES: usize = 2;
const MAX_QUERIES: usize = 4;
/// Bodies of writes held in memory at one time, in KiB.
const MAX_BODIES_KIB: u32 = 128 * 1024;
/// Told to a client when all connections are taken.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// What the routes work with.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) storage: Arc<Storage>,
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) live: Arc<Live>,
    pub(crate) manager: Arc<Manager>,
    pub(crate) interval: Duration,
    pub(crate) limits: Limits,
    pub(crate) peers: Arc<Peers>,
}

/// How much is done at one time: what has no place waits or is refused, and VMs and consoles never notice.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) writes: Semaphore,
    pub(crate) queries: Semaphore,
    pub(crate) bodies_kib: Semaphore,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            writes: Semaphore::new(MAX_WRITES),
            queries: Semaphore::new(MAX_QUERIES),
            bodies_kib: Semaphore::new(MAX_BODIES_KIB as usize),
        }
    }
}

/// Serves `routes` on `listener` until the task is aborted.
pub(crate) async fn serve(listener: TcpListener, routes: Router<Arc<App>>, app: Arc<App>) {
    let peers = Arc::clone(&app.peers);
    let service = routes
        .layer(tower_http::compression::CompressionLayer::new())
        .layer(axum::middleware::from_fn(guard::guard))
        .layer(RequestBodyTimeoutLayer::new(BODY_TIMEOUT))
        .with_state(app);
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            // best effort: a fresh connection's buffer takes it
            let _ = stream.try_write(TOO_MANY);
            continue;
        };
        // guests have no business here: what they may say, they say on their own link
        if let Some(vm) = peers.owner(peer, Protocol::Tcp) {
            tracing::warn!(vm, "a guest was refused at an HTTP listener");
            continue;
        }
        let _ = stream.set_nodelay(true);
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNREAD_TIMEOUT_MS);
        let connection = builder
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service.clone()))
            .into_owned();
        tokio::spawn(async move {
            // a connection that breaks is the client's affair
            let _ = connection.await;
            drop(slot);
        });
    }
}
