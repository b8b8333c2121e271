//! Carries syslog over TCP to a sink. What is framed, kept and sent again is `uni-guest`'s business; this file only
//! moves it.

use crate::network::Network;
use crate::random::random_seed;
use alloc::vec;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;
use smoltcp::time::Duration;
use uni_guest::agent::Action;
use uni_guest::syslog::Framing;
use uni_guest::{SinkWatch, SyslogQueue, SyslogStream};

const RECEIVE_BYTES: usize = 512;
const TRANSMIT_BYTES: usize = 8 * 1024;
/// A sink that acknowledges nothing for so long is taken for gone.
const SILENCE: Duration = Duration::from_secs(5);

/// The connection, as far as it has come.
#[derive(Debug)]
pub(crate) struct SyslogConnection {
    socket: SocketHandle,
    queue: SyslogQueue,
    stream: SyslogStream,
    watch: SinkWatch,
    is_connected: bool,
}

impl SyslogConnection {
    pub(crate) fn new(
        network: &mut Network,
        framing: Framing,
        watch: SinkWatch,
        queue: &SyslogQueue,
    ) -> Self {
        let buffer = |bytes| tcp::SocketBuffer::new(vec![0; bytes]);
        let mut socket = tcp::Socket::new(buffer(RECEIVE_BYTES), buffer(TRANSMIT_BYTES));
        socket.set_nagle_enabled(false);
        Self {
            socket: network.sockets().add(socket),
            queue: queue.clone(),
            stream: SyslogStream::new(framing, queue.clone()),
            watch,
            is_connected: false,
        }
    }

    /// Does what is due; returns when the next turn is.
    pub(crate) fn turn(&mut self, network: &mut Network, now_ns: u64) -> Option<u64> {
        match self.stream.poll_action(now_ns) {
            Action::Connect => {
                if network.connect(self.socket, self.watch.sink()).is_err() {
                    self.disconnected(network, now_ns, "no such address or no route");
                }
            }
            Action::Close => self.disconnected(network, now_ns, "it takes nothing"),
            Action::None => {}
        }
        self.follow(network, now_ns);
        let before = self.stream.sent_messages();
        self.send(network, now_ns);
        let left = self.stream.sent_messages() > before;
        self.watch.handle_progress(now_ns, left, !self.queue.is_empty(), self.queue.dropped());
        self.stream.next_deadline(now_ns).into_iter().chain(self.watch.next_deadline()).min()
    }

    pub(crate) fn close(&mut self, network: &mut Network) {
        network.sockets().get_mut::<tcp::Socket<'_>>(self.socket).close();
    }

    fn follow(&mut self, network: &mut Network, now_ns: u64) {
        let socket = network.sockets().get_mut::<tcp::Socket<'_>>(self.socket);
        // The sink has nothing to say; what it sends is dropped.
        while socket.can_recv() && socket.recv(|bytes| (bytes.len(), ())).is_ok() {}
        match (self.is_connected, socket.state()) {
            (false, tcp::State::Established) => {
                self.is_connected = true;
                self.stream.handle_connected(now_ns);
            }
            (false, _) if self.stream.is_connecting() && !socket.is_open() => {
                self.disconnected(network, now_ns, "connection refused or not answered");
            }
            (true, state) if state != tcp::State::Established => {
                self.disconnected(network, now_ns, "connection closed or not answered");
            }
            _ => {}
        }
    }

    fn send(&mut self, network: &mut Network, now_ns: u64) {
        let socket = network.sockets().get_mut::<tcp::Socket<'_>>(self.socket);
        while let Some(bytes) = self.stream.poll_transmit() {
            match socket.send_slice(bytes) {
                Ok(0) | Err(_) => break,
                Ok(sent) => self.stream.handle_sent(sent),
            }
        }
        let unacknowledged_bytes = socket.send_queue();
        if self.is_connected {
            self.stream.handle_unacknowledged(now_ns, unacknowledged_bytes);
        }
        // smoltcp counts silence even where there is nothing to acknowledge
        let awaits = !self.is_connected || unacknowledged_bytes > 0;
        socket.set_timeout(awaits.then_some(SILENCE));
    }

    fn disconnected(&mut self, network: &mut Network, now_ns: u64, reason: &str) {
        network.sockets().get_mut::<tcp::Socket<'_>>(self.socket).abort();
        self.is_connected = false;
        self.watch.handle_unreachable(now_ns, reason);
        self.stream.handle_disconnected(now_ns, random_seed() as u32);
    }
}
