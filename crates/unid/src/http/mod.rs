//! The HTTP servers: what is served where, and the limits that every connection is under.
//!
//! Owns accepting and timeouts; the routes are in [`influx`], [`ui`], [`grafana`] and [`mod@metrics`], who may use them is
//! [`access`]'s and [`guard`]'s business.

mod access;
mod body;
pub(crate) mod charts;
mod figures;
mod grafana;
mod guard;
pub(crate) mod influx;
mod libraries;
mod lines;
mod metrics;
mod otlp;
mod plain;
mod preface;
mod pushed;
mod remote_write;
mod renewed;
mod tls;
pub(crate) mod ui;
mod ui_api;
mod ui_control;
mod ui_traces;
mod unread;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::middleware::{from_fn, from_fn_with_state};
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower_http::timeout::RequestBodyTimeoutLayer;
use uni_intake::otlp::Totals;

pub(crate) use self::access::Access;
pub(crate) use self::figures::Figures;
use self::figures::{ListenerFigures, Refused};
use self::preface::Version;
use self::ui_control::Peer;
use crate::control_port::GuestControl;
use crate::heap_traces::HeapTraces;
use crate::ingest::Ingest;
use crate::live::Live;
use crate::metrics::Registry;
use crate::peers::{Peers, Protocol};
use crate::storage::Storage;
use crate::vms::Manager;

/// Connections a listener has open at one time; further ones are told to come back.
const MAX_CONNECTIONS: usize = 512;
/// A client that has not sent its (next) request's head by then is let go. Longer than the 60 s at which senders
/// with a slow beat come back over the same connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Requests at one time on a connection of HTTP/2, which only gRPC speaks here.
const MAX_STREAMS_OF_HTTP2: u32 = 16;
/// Bytes of such a request's headers.
const MAX_HEADERS_OF_HTTP2: u32 = 16 * 1024;
/// A body that stops coming for this long ends its request.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that takes nothing of its answer for this long is let go (tcp(7), `TCP_USER_TIMEOUT`).
const UNREAD_TIMEOUT_MS: u32 = 30_000;
/// Event streams at one time; well below the connections, so that pages left open never lock others out.
const MAX_STREAMS: usize = 64;
/// Long console tails being sent at one time; each may take some 24 MiB of memory.
const MAX_LONG_TAILS: usize = 4;
/// Writes and queries worked on at one time; others wait.
const MAX_WRITES: usize = 2;
const MAX_QUERIES: usize = 4;
/// Texts of metrics made at one time; others wait.
const MAX_SCRAPES: usize = 2;
/// Answers about libraries made at one time; others wait.
const MAX_LIBRARIES: usize = 2;
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
    pub(crate) limits: Arc<Limits>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) guests: Arc<GuestControl>,
    pub(crate) heap_traces: Arc<HeapTraces>,
    /// Whether the page may change guests.
    pub(crate) ui_control: bool,
    /// Whether writes make databases that do not exist.
    pub(crate) auto_create: bool,
    /// What OTLP senders that send deltas have sent so far.
    pub(crate) totals: Mutex<Totals>,
}

/// How much is done at one time: what has no place waits or is refused, and VMs and consoles never notice.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) long_tails: Arc<Semaphore>,
    pub(crate) writes: Semaphore,
    pub(crate) queries: Semaphore,
    pub(crate) bodies_kib: Semaphore,
    pub(crate) scrapes: Semaphore,
    pub(crate) libraries: Arc<Semaphore>,
}

impl Limits {
    pub(crate) const STREAMS: usize = MAX_STREAMS;
    pub(crate) const WRITES: usize = MAX_WRITES;
    pub(crate) const QUERIES: usize = MAX_QUERIES;
    pub(crate) const SCRAPES: usize = MAX_SCRAPES;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            long_tails: Arc::new(Semaphore::new(MAX_LONG_TAILS)),
            writes: Semaphore::new(MAX_WRITES),
            queries: Semaphore::new(MAX_QUERIES),
            bodies_kib: Semaphore::new(MAX_BODIES_KIB as usize),
            scrapes: Semaphore::new(MAX_SCRAPES),
            libraries: Arc::new(Semaphore::new(MAX_LIBRARIES)),
        }
    }
}

/// What a listener serves; one that has several flags' address serves all of theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// InfluxDB's API.
    Api,
    /// The page.
    Ui,
    /// Prometheus' endpoint.
    Metrics,
}

impl Role {
    /// The word for it in announcements and metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Ui => "ui",
            Self::Metrics => "metrics",
        }
    }
}

/// The routes of all `roles` together. `/health` is that of the metrics where they are among them.
fn routes(roles: &[Role]) -> Router<Arc<App>> {
    let mut routes = Router::new();
    if roles.contains(&Role::Api) || roles.contains(&Role::Ui) {
        routes = routes.merge(grafana::routes());
    }
    for role in roles {
        routes = routes.merge(match role {
            Role::Api if roles.contains(&Role::Metrics) => api_routes(),
            Role::Api => api_routes().merge(influx::health_route()),
            Role::Ui => ui::routes(),
            Role::Metrics => metrics::routes(),
        });
    }
    routes
}

/// The wires by which points come over HTTP, and the queries.
fn api_routes() -> Router<Arc<App>> {
    influx::routes().merge(remote_write::routes()).merge(otlp::routes())
}

/// Serves `roles` on `listener` until the task is aborted.
pub(crate) async fn serve(
    listener: TcpListener,
    roles: Vec<Role>,
    app: Arc<App>,
    access: Arc<Access>,
    figures: Arc<Figures>,
) {
    let own = figures.listener(&roles.iter().map(|role| role.name()).collect::<Vec<_>>().join("+"));
    let peers = Arc::clone(&app.peers);
    let service = routes(&roles)
        .layer(tower_http::compression::CompressionLayer::new())
        .layer(from_fn_with_state((Arc::clone(&access), figures), access::authorize))
        .layer(from_fn_with_state(guard::Names::of(&access), guard::guard))
        .layer(from_fn(unread::finish))
        .layer(RequestBodyTimeoutLayer::new(BODY_TIMEOUT))
        .layer(from_fn_with_state(Arc::clone(&own), figures::count))
        .with_state(app);
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let config = access.tls();
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            own.refused(Refused::Limit);
            if config.is_none() {
                // best effort: a fresh connection's buffer takes it
                let _ = stream.try_write(TOO_MANY);
            }
            continue;
        };
        // guests have no business here: what they may say, they say on their own link
        if let Some(vm) = peers.owner(peer, Protocol::Tcp) {
            own.refused(Refused::Guest);
            tracing::warn!(vm, "a guest was refused at an HTTP listener");
            continue;
        }
        let _ = stream.set_nodelay(true);
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNREAD_TIMEOUT_MS);
        let (service, own) = (service.clone(), Arc::clone(&own));
        tokio::spawn(async move {
            connection(stream, config, service, Peer(peer), &own).await;
            drop(slot);
        });
    }
}

/// One connection, from its first byte to its end; who dawdles over the handshake dawdles alone.
async fn connection(
    stream: TcpStream,
    config: Option<Arc<rustls::ServerConfig>>,
    service: Router,
    peer: Peer,
    figures: &Arc<ListenerFigures>,
) {
    let _open = figures.open();
    let Some(config) = config else {
        let Some(version) = preface::version(&stream).await else { return };
        return talk(stream, version, service, peer).await;
    };
    match tls::accept(config, stream).await {
        Some(stream) => {
            let version = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Version::Http2,
                _ => Version::Http1,
            };
            talk(stream, version, service, peer).await;
        }
        None => figures.refused(Refused::Handshake),
    }
}

async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    version: Version,
    service: Router,
    peer: Peer,
) {
    let routes = TowerToHyperService::new(service);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        routes.call(request)
    });
    let stream = TokioIo::new(stream);
    // a connection that breaks is the client's affair
    match version {
        Version::Http1 => {
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            let _ = builder.serve_connection(stream, service).await;
        }
        Version::Http2 => {
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder.timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS_OF_HTTP2);
            builder.keep_alive_interval(HEAD_TIMEOUT).max_header_list_size(MAX_HEADERS_OF_HTTP2);
            let _ = builder.serve_connection(stream, service).await;
        }
    }
}
