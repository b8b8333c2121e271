//! The way of log messages to a syslog sink: datagrams, or a connection.
//!
//! Owns the socket and the messages that are on their way. A message leaves the queue when the network has taken it;
//! on a connection it is kept until the sink has acknowledged it, and sent again on the next connection if it has not.

use alloc::boxed::Box;
use alloc::string::ToString as _;
use core::fmt;
use core::net::SocketAddrV4;
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd as _;
use std::vec::Vec;

use rustix::event::{PollFd, PollFlags};
use uni_wire::syslog::{Framing, write_frame};

use super::clock::random;
use super::flow::{Flow, OpenFn};
use crate::agent::Action;
use crate::link::Link;
use crate::logs::Logs;
use crate::sink::SinkWatch;
use crate::syslog::SyslogQueue;

const SECOND_NS: u64 = 1_000_000_000;
/// Before the next datagram to a sink that refuses them.
const REFUSED_PAUSE_NS: u64 = 2 * SECOND_NS;
/// Most messages sent over TCP and not yet acknowledged; more wait in the queue.
const MAX_UNACKNOWLEDGED: usize = 256;

/// See the module's page.
#[derive(Debug)]
pub(super) struct Outlet {
    queue: SyslogQueue,
    watch: SinkWatch,
    way: Way,
    sent_messages: u64,
}

#[derive(Debug)]
enum Way {
    Datagrams { socket: UdpSocket, paused_until_ns: u64 },
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
            Way::Datagrams { socket, paused_until_ns: 0 }
        } else {
            Way::Stream(Stream::new(framing, open))
        };
        Ok(Self { queue, watch: SinkWatch::new(sink, logs), way, sent_messages: 0 })
    }

    /// Sends what can be sent; returns when the next turn is due.
    pub(super) fn turn(&mut self, now_ns: u64) -> Option<u64> {
        let Self { queue, watch, way, sent_messages } = self;
        let before = *sent_messages;
        let deadline = match way {
            Way::Datagrams { socket, paused_until_ns } => {
                send_datagrams(socket, paused_until_ns, queue, watch, sent_messages, now_ns)
            }
            Way::Stream(stream) => stream.turn(queue, watch, sent_messages, now_ns),
        };
        watch.handle_progress(now_ns, *sent_messages > before, !queue.is_empty(), queue.dropped());
        deadline.into_iter().chain(watch.next_deadline()).min()
    }

    /// Messages handed to the network.
    pub(super) const fn sent_messages(&self) -> u64 {
        self.sent_messages
    }

    /// Whether all that was logged is out.
    pub(super) fn is_idle(&self) -> bool {
        let kept = match &self.way {
            Way::Datagrams { .. } => false,
            Way::Stream(stream) => !stream.frames.is_empty(),
        };
        self.queue.is_empty() && !kept
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
            Way::Datagrams { socket, paused_until_ns } => (now_ns >= *paused_until_ns
                && !self.queue.is_empty())
            .then(|| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::OUT)),
            Way::Stream(stream) => stream.connection.as_ref().map(|connection| {
                let has_more = stream.has_room() && !self.queue.is_empty();
                connection.interest(has_more || stream.written < stream.bytes.len())
            }),
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
    framing: Framing,
    open: OpenFn,
    link: Link,
    connection: Option<Box<dyn Flow>>,
    /// Framed messages that are being sent or not yet acknowledged, and the length of each.
    bytes: Vec<u8>,
    frames: VecDeque<usize>,
    /// How many of the bytes this connection took.
    written: usize,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { framing, link, connection, frames, .. } = self;
        f.debug_struct("Stream")
            .field("framing", framing)
            .field("link", link)
            .field("connection", connection)
            .field("frames", &frames.len())
            .finish_non_exhaustive()
    }
}

impl Stream {
    const fn new(framing: Framing, open: OpenFn) -> Self {
        Self {
            framing,
            open,
            link: Link::new(),
            connection: None,
            bytes: Vec::new(),
            frames: VecDeque::new(),
            written: 0,
        }
    }

    fn has_room(&self) -> bool {
        self.frames.len() < MAX_UNACKNOWLEDGED
    }

    fn turn(
        &mut self,
        queue: &SyslogQueue,
        watch: &mut SinkWatch,
        sent_messages: &mut u64,
        now_ns: u64,
    ) -> Option<u64> {
        let waits = self.written < self.bytes.len() || !queue.is_empty();
        let result = match self.link.poll_action(now_ns, waits) {
            Action::Connect => (self.open)(watch.sink()).map(|connection| {
                self.connection = Some(connection);
            }),
            Action::Close => Err(io::Error::other("it takes nothing")),
            Action::None => Ok(()),
        };
        if let Err(error) = result.and_then(|()| self.carry(queue, sent_messages, now_ns)) {
            watch.handle_unreachable(now_ns, &error.to_string());
            self.connection = None;
            self.written = 0;
            self.link.handle_disconnected(now_ns, random());
        }
        // What is acknowledged in between wakes nobody.
        let look_again = (self.connection.is_some() && !self.frames.is_empty()).then(|| now_ns + SECOND_NS);
        self.link.next_deadline().into_iter().chain(look_again).min()
    }

    fn carry(&mut self, queue: &SyslogQueue, sent_messages: &mut u64, now_ns: u64) -> io::Result<()> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        if connection.follow()? {
            self.link.handle_connected(now_ns);
        }
        if !connection.is_open() {
            return Ok(());
        }
        loop {
            if self.written == self.bytes.len() {
                let (bytes, framing) = (&mut self.bytes, self.framing);
                let before = bytes.len();
                let has_room = self.frames.len() < MAX_UNACKNOWLEDGED;
                if !has_room
                    || !queue.send_one(|message| {
                        write_frame(framing, message, bytes);
                        true
                    })
                {
                    break;
                }
                *sent_messages += 1;
                self.frames.push_back(self.bytes.len() - before);
            }
            match connection.send(self.bytes.get(self.written..).unwrap_or_default())? {
                0 => break,
                sent => {
                    self.written += sent;
                    self.link.handle_progress();
                }
            }
        }
        let unacknowledged = connection.unacknowledged();
        if unacknowledged < self.written {
            self.link.handle_acknowledged();
        }
        // What a young connection acknowledges, nobody may have read.
        if !self.link.is_unread(now_ns) {
            self.forget(self.written.saturating_sub(unacknowledged));
        }
        Ok(())
    }

    /// Lets go of whole messages within the first `certain` bytes.
    fn forget(&mut self, certain: usize) {
        let mut end = 0;
        while let Some(frame) = self.frames.front()
            && end + frame <= certain
        {
            end += frame;
            self.frames.pop_front();
        }
        self.bytes.drain(..end);
        self.written -= end;
    }
}
