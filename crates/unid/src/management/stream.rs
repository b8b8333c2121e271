//! What a guest sends for long over its management link: one stream at a time, from a port of the guest to who takes it.
//!
//! Owns the connection's socket and the bound of what waits: who does not take is not sent more, and the rest of the link
//! goes on. Never knows what the bytes mean.

use std::time::Duration;

use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::control::{FIRST_PORT, Fault, GUEST_ADDRESS, PORTS, is_opening};

/// Pieces that wait to be taken.
const MAX_WAITING: usize = 4;
/// Orders that wait to be looked at.
pub(super) const MAX_ORDERS: usize = 4;
const RECEIVE_BYTES: usize = 64 * 1024;
/// Nothing is ever said, but the socket wants room.
const SEND_BYTES: usize = 64;
/// For the connection, and from the wish to end to the end.
const CONNECT_TIME: Duration = Duration::from_secs(5);
const END_TIME: Duration = Duration::from_secs(15);
/// A guest that went away without a word is let go after this.
const KEEP_ALIVE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(10);
const TIMEOUT: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(30);
/// While pieces wait, it is tried so often to hand over the next.
const RETRY: Duration = Duration::from_millis(5);

/// A part of a stream, in order. A stream that ends without an [`End`](Self::End) is cut: the link is gone.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Bytes, at least one.
    Bytes(Vec<u8>),
    /// The guest has sent everything.
    End,
    /// There is no more, and the end did not come.
    Failed(Fault),
}

/// What is asked of the link.
#[derive(Debug)]
pub(crate) enum Order {
    /// Connects to a port of the guest. Dropping the receiver ends the connection.
    Open { port: u16, pieces: mpsc::Sender<Piece> },
    /// Tells the guest that no more is wanted (a half-close); what it still has to say comes all the same.
    Finish,
}

/// Where orders go.
pub(crate) type Orders = mpsc::Sender<Order>;

/// Asks for the stream of a port of the guest.
///
/// # Errors
/// When the link takes no orders: it is busy, or gone.
pub(crate) fn open(link: &Orders, port: u16) -> Result<mpsc::Receiver<Piece>, Fault> {
    let (pieces, taken) = mpsc::channel(MAX_WAITING);
    order(link, Order::Open { port, pieces })?;
    Ok(taken)
}

/// Tells the guest that no more is wanted.
///
/// # Errors
/// As [`open`].
pub(crate) fn finish(link: &Orders) -> Result<(), Fault> {
    order(link, Order::Finish)
}

fn order(link: &Orders, order: Order) -> Result<(), Fault> {
    link.try_send(order).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => Fault::Busy,
        mpsc::error::TrySendError::Closed(_) => Fault::Ended,
    })
}

/// The host's end of the stream's connection.
#[derive(Debug)]
pub(super) struct StreamSocket {
    /// Made for a stream and removed after it: most links never have one.
    handle: Option<SocketHandle>,
    port: u16,
    taken: Option<Taken>,
}

/// A stream on its way.
#[derive(Debug)]
struct Taken {
    port: u16,
    pieces: mpsc::Sender<Piece>,
    connected: bool,
    /// When the guest is no longer waited for.
    deadline: Option<Instant>,
    is_blocked: bool,
}

impl StreamSocket {
    /// None yet. `seed` is as for the control socket.
    pub(super) const fn new(seed: u16) -> Self {
        Self { handle: None, port: seed % PORTS, taken: None }
    }

    /// When it is to be polled at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let taken = self.taken.as_ref()?;
        let retry = taken.is_blocked.then(|| Instant::now() + RETRY);
        taken.deadline.into_iter().chain(retry).min()
    }

    /// Does what is ordered.
    pub(super) fn handle(
        &mut self,
        order: Order,
        interface: &mut Interface,
        sockets: &mut SocketSet<'static>,
    ) {
        match order {
            Order::Open { pieces, .. } if self.taken.is_some() => {
                // the channel is new and has room
                let _ = pieces.try_send(Piece::Failed(Fault::Busy));
            }
            Order::Open { port, pieces } => {
                self.remove(sockets);
                self.connect(port, interface, sockets);
                let deadline = Some(Instant::now() + CONNECT_TIME);
                self.taken = Some(Taken { port, pieces, connected: false, deadline, is_blocked: false });
            }
            Order::Finish => {
                if let (Some(taken), Some(handle)) = (&mut self.taken, self.handle) {
                    taken.deadline = Some(Instant::now() + END_TIME);
                    sockets.get_mut::<tcp::Socket<'static>>(handle).close();
                }
            }
        }
    }

    fn connect(&mut self, port: u16, interface: &mut Interface, sockets: &mut SocketSet<'static>) {
        self.port = (self.port + 1) % PORTS;
        let buffer = |bytes| tcp::SocketBuffer::new(vec![0; bytes]);
        let mut socket = tcp::Socket::new(buffer(RECEIVE_BYTES), buffer(SEND_BYTES));
        socket.set_keep_alive(Some(KEEP_ALIVE));
        socket.set_timeout(Some(TIMEOUT));
        // both addresses are whole and the socket is new: there is nothing to refuse
        let _ = socket.connect(interface.context(), (GUEST_ADDRESS, port), FIRST_PORT + self.port);
        self.handle = Some(sockets.add(socket));
    }

    fn remove(&mut self, sockets: &mut SocketSet<'static>) {
        if let Some(handle) = self.handle.take() {
            sockets.remove(handle);
        }
    }

    /// Hands over what has come, and how it ended.
    pub(super) fn poll(&mut self, sockets: &mut SocketSet<'static>) {
        let Some(handle) = self.handle else { return };
        let socket = sockets.get_mut::<tcp::Socket<'static>>(handle);
        let Some(taken) = &mut self.taken else {
            if !socket.is_open() {
                self.remove(sockets);
            }
            return;
        };
        match taken.advance(socket) {
            Progress::On => return,
            // the guest's last word is acknowledged
            Progress::Ended => socket.close(),
            Progress::Broken => socket.abort(),
        }
        self.taken = None;
    }
}

/// How far a stream is.
enum Progress {
    On,
    Ended,
    Broken,
}

impl Taken {
    fn advance(&mut self, socket: &mut tcp::Socket<'static>) -> Progress {
        if !self.connected && !is_opening(socket) && socket.is_open() {
            self.connected = true;
            self.deadline = None;
        }
        loop {
            let permit = match self.pieces.try_reserve() {
                Ok(permit) => permit,
                Err(mpsc::error::TrySendError::Full(())) => {
                    self.is_blocked = true;
                    return Progress::On;
                }
                Err(mpsc::error::TrySendError::Closed(())) => return Progress::Broken,
            };
            self.is_blocked = false;
            if socket.can_recv() {
                let bytes = socket.recv(|bytes| (bytes.len(), bytes.to_vec()));
                permit.send(Piece::Bytes(bytes.unwrap_or_default()));
                continue;
            }
            let fault = match (self.connected, socket.state()) {
                (false, tcp::State::Closed) => Fault::Refused(self.port),
                (true, tcp::State::Closed) => Fault::Broken,
                _ if !socket.may_recv() && !is_opening(socket) => {
                    permit.send(Piece::End);
                    return Progress::Ended;
                }
                _ if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) => Fault::Late,
                _ => return Progress::On,
            };
            permit.send(Piece::Failed(fault));
            return Progress::Broken;
        }
    }
}
