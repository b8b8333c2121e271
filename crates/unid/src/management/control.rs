//! Questions to a guest over its management link, for its control port and for its metrics: one connection at a time,
//! from the host's side.
//!
//! Owns the connection's socket and what is asked on it. Never knows what is said, and never holds up the rest of the
//! link: who asks waits, within a time of its own.

use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::wire::{IpAddress, Ipv4Address};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

/// The guest's address on its management link, as the daemon's arguments tell it.
pub(super) const GUEST_ADDRESS: IpAddress = IpAddress::Ipv4(Ipv4Address::new(10, 99, 0, 2));
/// Where guests take commands.
pub(crate) const CONTROL_PORT: u16 = 2323;
/// Commands that wait for one VM at most.
pub(crate) const MAX_WAITING: usize = 8;
const RECEIVE_BYTES: usize = 16 * 1024;
const SEND_BYTES: usize = 8 * 1024;
/// The first of the ports that connections come from (RFC 6335: dynamic ports), and how many there are.
pub(super) const FIRST_PORT: u16 = 49_152;
pub(super) const PORTS: u16 = 16_384;

/// What a guest is asked: sent whole, then this side of the connection ends.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// Where the guest listens.
    pub(crate) port: u16,
    /// What is sent.
    pub(crate) text: Vec<u8>,
    /// The longest answer that is taken.
    pub(crate) max_reply_bytes: usize,
    /// When nobody waits any more.
    pub(crate) deadline: Instant,
}

/// A question on its way, and who waits for the answer.
#[derive(Debug)]
pub(crate) struct Request {
    question: Question,
    answer: oneshot::Sender<Result<Vec<u8>, Fault>>,
}

/// Why a guest has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("it refuses connections to its TCP port {0}")]
    Refused(u16),
    #[error("it closed the connection without an answer")]
    Silent,
    #[error("its answer is longer than {0} bytes")]
    TooLong(usize),
    #[error("it did not answer in time")]
    Late,
    #[error("it is busy with other questions; try again")]
    Busy,
    #[error("it has just ended")]
    Ended,
    #[error("its management link broke; has it ended?")]
    Broken,
}

/// Asks over a VM's link and waits for the whole answer.
///
/// # Errors
/// When there is none.
pub(crate) async fn ask(link: &mpsc::Sender<Request>, question: Question) -> Result<Vec<u8>, Fault> {
    let deadline = question.deadline;
    let (answer, waiting) = oneshot::channel();
    link.try_send(Request { question, answer }).map_err(|error| match error {
        TrySendError::Full(_) => Fault::Busy,
        TrySendError::Closed(_) => Fault::Ended,
    })?;
    match timeout_at(deadline, waiting).await {
        Ok(answered) => answered.unwrap_or(Err(Fault::Broken)),
        Err(_) => Err(Fault::Late),
    }
}

/// The commands that wait for one VM.
pub(super) type Requests = mpsc::Receiver<Request>;

/// The host's end of the connection.
#[derive(Debug)]
pub(super) struct ControlSocket {
    handle: SocketHandle,
    port: u16,
    exchange: Option<Exchange>,
}

#[derive(Debug)]
struct Exchange {
    request: Request,
    sent: usize,
    reply: Vec<u8>,
    connected: bool,
}

impl ControlSocket {
    /// A socket in `sockets`. The first connection comes from port `seed`, counted round: a guest may still know the
    /// ports that an earlier daemon used.
    pub(super) fn new(sockets: &mut SocketSet<'static>, seed: u16) -> Self {
        let buffer = |bytes| tcp::SocketBuffer::new(vec![0; bytes]);
        let mut socket = tcp::Socket::new(buffer(RECEIVE_BYTES), buffer(SEND_BYTES));
        socket.set_nagle_enabled(false);
        // the guest's place is free for the next command as soon as the end of this one is acknowledged
        socket.set_ack_delay(None);
        Self { handle: sockets.add(socket), port: seed % PORTS, exchange: None }
    }

    /// Whether the next command may be [`start`](Self::start)ed.
    pub(super) fn is_idle(&self) -> bool {
        self.exchange.is_none()
    }

    /// When the command under way is given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.exchange.as_ref().map(|exchange| exchange.request.question.deadline)
    }

    /// Connects for a command.
    pub(super) fn start(
        &mut self,
        request: Request,
        interface: &mut Interface,
        sockets: &mut SocketSet<'static>,
    ) {
        self.port = (self.port + 1) % PORTS;
        let socket = sockets.get_mut::<tcp::Socket<'static>>(self.handle);
        socket.abort();
        // both addresses are whole and the socket is closed: there is nothing to refuse
        let _ = socket.connect(
            interface.context(),
            (GUEST_ADDRESS, request.question.port),
            FIRST_PORT + self.port,
        );
        self.exchange = Some(Exchange { request, sent: 0, reply: Vec::new(), connected: false });
    }

    /// Sends and takes what can be, and answers who waits once there is an answer, or will be none.
    pub(super) fn poll(&mut self, sockets: &mut SocketSet<'static>) {
        let Some(exchange) = &mut self.exchange else { return };
        let socket = sockets.get_mut::<tcp::Socket<'static>>(self.handle);
        let outcome = match exchange.advance(socket) {
            None if !exchange.is_awaited() => Err(Fault::Late),
            None => return,
            Some(outcome) => outcome.map(|()| std::mem::take(&mut exchange.reply)),
        };
        if outcome.is_err() {
            socket.abort();
        }
        if let Some(Exchange { request, .. }) = self.exchange.take() {
            // who asked may have left
            let _ = request.answer.send(outcome);
        }
    }
}

impl Exchange {
    fn is_awaited(&self) -> bool {
        !self.request.answer.is_closed() && Instant::now() < self.request.question.deadline
    }

    /// Nothing while the exchange goes on.
    fn advance(&mut self, socket: &mut tcp::Socket<'static>) -> Option<Result<(), Fault>> {
        self.connected |= !matches!(socket.state(), tcp::State::Closed | tcp::State::SynSent);
        self.send(socket);
        while socket.can_recv() {
            let taken = socket.recv(|bytes| {
                self.reply.extend_from_slice(bytes);
                (bytes.len(), ())
            });
            if taken.is_err() {
                break;
            }
            let most = self.request.question.max_reply_bytes;
            if self.reply.len() > most {
                return Some(Err(Fault::TooLong(most)));
            }
        }
        match (self.connected, socket.may_recv()) {
            (true, true) => None,
            (true, false) if self.reply.is_empty() && !is_opening(socket) => Some(Err(Fault::Silent)),
            (true, false) if is_opening(socket) => None,
            (true, false) => Some(Ok(())),
            (false, _) => (!socket.is_open()).then_some(Err(Fault::Refused(self.request.question.port))),
        }
    }

    /// The question, then the end of this side: the guest need not wait for more.
    fn send(&mut self, socket: &mut tcp::Socket<'static>) {
        let left = self.request.question.text.get(self.sent..).unwrap_or_default();
        if left.is_empty() || !socket.can_send() {
            return;
        }
        self.sent += socket.send_slice(left).unwrap_or(0);
        if self.sent == self.request.question.text.len() {
            socket.close();
        }
    }
}

/// The handshake is under way: nothing can have come yet.
pub(super) fn is_opening(socket: &tcp::Socket<'static>) -> bool {
    matches!(socket.state(), tcp::State::SynSent | tcp::State::SynReceived)
}
