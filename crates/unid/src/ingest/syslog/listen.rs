//! The listeners for syslog: TCP, UDP, TLS.
//!
//! Owns accepting, keep-alive and the limit on connections. Each connection has a task and a bounded buffer of its own,
//! so that none delays another.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::{MessageStream, Sender, accept};
use crate::http::Access;
use crate::ingest::{Ingest, Origin};
use crate::peers::{Peers, Protocol};

/// Connections at one time; a further one is closed at once and counted.
const MAX_CONNECTIONS: usize = 256;
/// Bytes read at once from a connection.
const READ_BYTES: usize = 16 * 1024;
/// A silent peer is probed after this and let go some probes later.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// The longest UDP datagram there is.
const MAX_DATAGRAM_BYTES: usize = 65_535;

/// Whether a VM of a name is run here.
pub(crate) type Names = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// What the listeners work with.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) names: Names,
}

impl Way {
    /// A guest that came here over its service link instead of its own is filed under its own name all the same.
    fn sender<'a>(&'a self, owner: Option<&'a str>, peer: &'a str) -> Sender<'a> {
        match owner {
            Some(vm) => Sender::link(vm),
            None => Sender { origin: Origin::Peer(peer), is_vm: &*self.names, bare_tag: false },
        }
    }
}

/// Accepts connections until the task is aborted; under TLS if there is `access`.
pub(crate) async fn serve_tcp(listener: TcpListener, access: Option<Arc<Access>>, way: Way) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // out of file descriptors, most likely: wait for some to come back
                tracing::warn!(err = error.to_string(), "accept on the syslog listener");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            way.ingest.counters.syslog_refused_connections.fetch_add(1, Relaxed);
            continue;
        };
        let (way, access) = (way.clone(), access.clone());
        tokio::spawn(async move {
            connection(stream, peer, access.as_deref(), &way).await;
            drop(slot);
        });
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, access: Option<&Access>, way: &Way) {
    let _ = sockopt::set_socket_keepalive(&stream, true);
    let _ = sockopt::set_tcp_keepidle(&stream, KEEP_ALIVE);
    let Some(access) = access else { return listen(stream, peer, way).await };
    match access.shake_hands(stream).await {
        Some(stream) => listen(stream, peer, way).await,
        None => {
            way.ingest.counters.syslog_refused_connections.fetch_add(1, Relaxed);
        }
    }
}

async fn listen(mut stream: impl AsyncRead + Unpin, peer: SocketAddr, way: &Way) {
    let owner = way.peers.owner(peer, Protocol::Tcp);
    let peer = peer.to_string();
    let sender = way.sender(owner.as_deref(), &peer);
    let mut messages = MessageStream::default();
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        messages.feed(&way.ingest, sender, &buffer[..n]);
        // one who always has more to say lets the others speak after each piece
        tokio::task::yield_now().await;
    }
    messages.finish(&way.ingest, sender);
}

/// Takes datagrams until the task is aborted; each is one message.
pub(crate) async fn serve_udp(socket: UdpSocket, way: Way) {
    let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
    loop {
        let Ok((n, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let owner = way.peers.owner(peer, Protocol::Udp);
        let peer = peer.to_string();
        accept(&way.ingest, way.sender(owner.as_deref(), &peer), &buffer[..n]);
    }
}
