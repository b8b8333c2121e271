//! The way of log messages to a syslog sink: datagrams, or a connection.
//!
//! Owns the sockets. A message leaves the queue when the network has taken it; on a connection it is kept until the
//! sink has acknowledged it, which is [`SyslogStream`]'s business.

use alloc::boxed::Box;
use alloc::string::ToString as _;
use core::fmt;
use core::net::SocketAddrV4;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd as _;

use rustix::event::{PollFd, PollFlags};
use uni_wire::syslog::Framing;

use super::clock::random;
use super::flow::{Flow, OpenFn};
use crate::agent::Action;
use crate::logs::Logs;
use crate::sink::SinkWatch;
use crate::syslog::SyslogQueue;
use crate::syslog_stream::SyslogStream;

/// Before the next datagram to a sink that refuses them.
const REFUSED_PAUSE_NS: u64 = 2_000_000_000;

/// See the module's page.
#[derive(Debug)]
pub(super) struct Outlet {
    queue: SyslogQueue,
    watch: SinkWatch,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Datagrams { socket: UdpSocket, paused_until_ns: u64, sent_messages: u64 },
    Stream(Stream),
}

impl Outlet {
    /// To `sink`, one message a datagram, or framed on a connection that `open` begins.
    pub(super) fn new(
        sink: SocketAddrV4,
        framing: Framing,
        open: OpenFn,
        queue: SyslogQueue,
        logs: &Logs,
    ) -> io::Result<Self> {
        let way = if framing == Framing::Datagram {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.set_nonblocking(true)?;
            Way::Datagrams { socket, paused_until_ns: 0, sent_messages: 0 }
        } else {
            let state = SyslogStream::new(framing, queue.clone());
            Way::Stream(Stream { open, state, connection: None })
        };
        Ok(Self { queue, watch: SinkWatch::new(sink, logs), way })
    }

    /// Sends what can be sent; returns when the next turn is due.
    pub(super) fn turn(&mut self, now_ns: u64) -> Option<u64> {
        let before = self.sent_messages();
        let Self { queue, watch, way } = self;
        let deadline = match way {
            Way::Datagrams { socket, paused_until_ns, sent_messages } => {
                send_datagrams(socket, paused_until_ns, queue, watch, sent_messages, now_ns)
            }
            Way::Stream(stream) => stream.turn(watch, now_ns),
        };
        let left = self.sent_messages() > before;
        let Self { queue, watch, .. } = self;
        watch.handle_progress(now_ns, left, !queue.is_empty(), queue.dropped());
        deadline.into_iter().chain(watch.next_deadline()).min()
    }

    /// Messages handed to the network.
    pub(super) const fn sent_messages(&self) -> u64 {
        match &self.way {
            Way::Datagrams { sent_messages, .. } => *sent_messages,
            Way::Stream(stream) => stream.state.sent_messages(),
        }
    }

    /// Whether all that was logged is out.
    pub(super) fn is_idle(&self) -> bool {
        match &self.way {
            Way::Datagrams { .. } => self.queue.is_empty(),
            Way::Stream(stream) => stream.state.is_idle(),
        }
    }

    /// Whether waiting a moment may help what is not out yet.
    pub(super) fn is_moving(&self, now_ns: u64) -> bool {
        match &self.way {
            Way::Datagrams { paused_until_ns, .. } => now_ns >= *paused_until_ns,
            Way::Stream(stream) => stream.connection.is_some(),
        }
    }

    pub(super) fn interest(&self, now_ns: u64) -> Option<PollFd<'_>> {
        match &self.way {
            Way::Datagrams { socket, paused_until_ns, .. } => (now_ns >= *paused_until_ns
                && !self.queue.is_empty())
            .then(|| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::OUT)),
            Way::Stream(stream) => {
                stream.connection.as_ref().map(|connection| connection.interest(stream.state.has_more()))
            }
        }
    }
}

/// A sink on this machine refuses at once what it does not take; one further off is heard of at the next datagram.
/// What was refused waits.
fn send_datagrams(
    socket: &mut UdpSocket,
    paused_until_ns: &mut u64,
    queue: &SyslogQueue,
    watch: &mut SinkWatch,
    sent_messages: &mut u64,
    now_ns: u64,
) -> Option<u64> {
    if now_ns < *paused_until_ns {
        return Some(*paused_until_ns);
    }
    let mut result = Ok(());
    while queue.send_one(|message| {
        result = send_datagram(socket, watch.sink(), message);
        result.is_ok()
    }) {
        *sent_messages += 1;
    }
    match result {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
            watch.handle_unreachable(now_ns, &error.to_string());
            *paused_until_ns = now_ns + REFUSED_PAUSE_NS;
            Some(*paused_until_ns)
        }
        _ => None,
    }
}

fn send_datagram(socket: &UdpSocket, sink: SocketAddrV4, message: &[u8]) -> io::Result<()> {
    // Only a connected socket hears that it was refused.
    if socket.peer_addr().is_err() {
        socket.connect(sink)?;
    }
    socket.send(message)?;
    socket.take_error()?.map_or(Ok(()), Err)
}

/// Messages on a connection.
struct Stream {
    open: OpenFn,
    state: SyslogStream,
    connection: Option<Box<dyn Flow>>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { state, connection, .. } = self;
        f.debug_struct("Stream").field("state", state).field("connection", connection).finish_non_exhaustive()
    }
}

impl Stream {
    fn turn(&mut self, watch: &mut SinkWatch, now_ns: u64) -> Option<u64> {
        let result = match self.state.poll_action(now_ns) {
            Action::Connect => (self.open)(watch.sink()).map(|connection| {
                self.connection = Some(connection);
            }),
            Action::Close => Err(io::Error::other("it takes nothing")),
            Action::None => Ok(()),
        };
        if let Err(error) = result.and_then(|()| self.carry(now_ns)) {
            watch.handle_unreachable(now_ns, &error.to_string());
            self.connection = None;
            self.state.handle_disconnected(now_ns, random());
        }
        self.state.next_deadline(now_ns)
    }

    fn carry(&mut self, now_ns: u64) -> io::Result<()> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        if connection.follow()? {
            self.state.handle_connected(now_ns);
        }
        if !connection.is_open() {
            return Ok(());
        }
        while let Some(bytes) = self.state.poll_transmit() {
            match connection.send(bytes)? {
                0 => break,
                sent => self.state.handle_sent(sent),
            }
        }
        self.state.handle_unacknowledged(now_ns, connection.unacknowledged());
        Ok(())
    }
}
