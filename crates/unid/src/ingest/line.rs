//! The listeners for line protocol, TCP and UDP (port 8094 by default).
//!
//! Owns accepting, keep-alive and the limit on connections. Each connection has a task and a bounded buffer of
//! its own, so that none delays another.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::{Ingest, LineStream, Origin};
use crate::peers::{Peers, Protocol};

/// Connections at one time; a further one is closed at once and counted.
const MAX_CONNECTIONS: usize = 1024;
/// Bytes read at once from a connection: grows for one that always fills it, for every batch has its price.
const READ_BYTES: std::ops::RangeInclusive<usize> = 16 * 1024..=128 * 1024;
/// Connections whose lines are stored at one time, first come, first served: one who sends rubbish at full speed has
/// its turn like everybody else.
const MAX_STORING: usize = 2;
/// A silent peer is probed after this and let go some probes later.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// The longest UDP datagram there is.
const MAX_DATAGRAM_BYTES: usize = 65_535;

/// Accepts connections until the task is aborted.
pub(crate) async fn serve_tcp(listener: TcpListener, ingest: Arc<Ingest>, peers: Arc<Peers>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let turns = Arc::new(Semaphore::new(MAX_STORING));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // out of file descriptors, most likely: wait for some to come back
                tracing::warn!(err = error.to_string(), "accept on the line listener");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            ingest.counters.refused_connections.fetch_add(1, Relaxed);
            continue;
        };
        let (ingest, peers, turns) = (Arc::clone(&ingest), Arc::clone(&peers), Arc::clone(&turns));
        tokio::spawn(async move {
            let owner = peers.owner(peer, Protocol::Tcp);
            connection(stream, peer, owner, &ingest, &turns).await;
            drop(slot);
        });
    }
}

/// A guest that came here over its service link instead of its own is filed under its own name all the same.
fn origin<'a>(owner: Option<&'a str>, peer: &'a str) -> Origin<'a> {
    owner.map_or(Origin::Peer(peer), Origin::Vm)
}

async fn connection(
    mut stream: TcpStream,
    peer: SocketAddr,
    owner: Option<String>,
    ingest: &Ingest,
    turns: &Semaphore,
) {
    let _ = sockopt::set_socket_keepalive(&stream, true);
    let _ = sockopt::set_tcp_keepidle(&stream, KEEP_ALIVE);
    let peer = peer.to_string();
    let origin = origin(owner.as_deref(), &peer);
    let mut lines = LineStream::default();
    let mut buffer = vec![0; *READ_BYTES.start()];
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        let turn = turns.acquire().await;
        // storing takes a lock and a write: never on a thread that others wait for
        tokio::task::block_in_place(|| lines.feed(ingest, &origin, &buffer[..n]));
        drop(turn);
        resize(&mut buffer, n);
        // one who always has more to say lets the others speak after each piece
        tokio::task::yield_now().await;
    }
    lines.finish(ingest, &origin);
}

/// Twice the buffer for a connection that fills it, the smallest for one that hardly uses it.
fn resize(buffer: &mut Vec<u8>, used: usize) {
    let size = buffer.len();
    if used == size && size < *READ_BYTES.end() {
        buffer.resize(size * 2, 0);
    } else if used < size / 16 && size > *READ_BYTES.start() {
        buffer.truncate(*READ_BYTES.start());
        buffer.shrink_to_fit();
    }
}

/// Takes datagrams until the task is aborted; each holds whole lines.
pub(crate) async fn serve_udp(socket: UdpSocket, ingest: Arc<Ingest>, peers: Arc<Peers>) {
    let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
    loop {
        let Ok((n, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let owner = peers.owner(peer, Protocol::Udp);
        let peer = peer.to_string();
        let origin = origin(owner.as_deref(), &peer);
        let mut lines = LineStream::default();
        lines.feed(&ingest, &origin, &buffer[..n]);
        lines.finish(&ingest, &origin);
    }
}
