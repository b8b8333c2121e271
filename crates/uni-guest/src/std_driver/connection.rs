//! A TCP connection to somebody else's port that never makes its thread wait.
//!
//! Owns the socket. Never decides when to connect or what to send.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::sockopt::set_tcp_user_timeout;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use super::flow::Flow;

/// A peer that acknowledges nothing for so long is taken for gone.
const SILENCE: Duration = Duration::from_secs(5);

/// `SIOCOUTQ` of Linux: how much was sent and not acknowledged, as an `int`.
const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;

/// Being opened, or open.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    is_open: bool,
}

impl Connection {
    /// Begins to open a connection.
    pub(super) fn start(to: SocketAddrV4) -> io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket: OwnedFd = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        set_tcp_user_timeout(&socket, u32::try_from(SILENCE.as_millis()).unwrap_or(u32::MAX))?;
        match connect(&socket, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        Ok(Self { stream, is_open: false })
    }

    /// The socket, for what reads from it beside.
    #[cfg(feature = "tls")]
    pub(super) const fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Looks whether the connection has come up. Returns whether it is open.
    ///
    /// # Errors
    /// It did not come up, or was broken off.
    pub(super) fn come_up(&mut self) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        if !self.is_open {
            match self.stream.peer_addr() {
                Ok(_) => self.is_open = true,
                Err(error) if error.kind() == ErrorKind::NotConnected => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.is_open)
    }

    fn discard_input(&mut self) -> io::Result<()> {
        let mut bytes = [0; 512];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(closed()),
                Ok(_) => {}
                Err(error) => return would_block(error).map(drop),
            }
        }
    }
}

impl Flow for Connection {
    fn is_open(&self) -> bool {
        self.is_open
    }

    fn follow(&mut self) -> io::Result<bool> {
        let was_open = self.is_open;
        let is_open = self.come_up()?;
        if was_open {
            self.discard_input()?;
        }
        Ok(is_open && !was_open)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes).or_else(would_block)
    }

    fn unacknowledged(&self) -> usize {
        // SAFETY: the kernel writes an `int` for this opcode, and the socket is open.
        let asked = unsafe {
            rustix::ioctl::ioctl(&self.stream, rustix::ioctl::Getter::<SIOCOUTQ, std::ffi::c_int>::new())
        };
        asked.map_or(0, |bytes| usize::try_from(bytes).unwrap_or(0))
    }

    fn interest(&self, has_more: bool) -> PollFd<'_> {
        let wants_out = has_more || !self.is_open;
        let flags = if wants_out { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        PollFd::from_borrowed_fd(self.stream.as_fd(), flags)
    }
}

/// The peer has ended the connection.
pub(super) fn closed() -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, "it was closed at the other end")
}

/// Whether an error only means "not now".
pub(super) fn is_momentary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// An error that only means "not now" is no bytes.
pub(super) fn would_block(error: io::Error) -> io::Result<usize> {
    if is_momentary(&error) { Ok(0) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};

    fn address(listener: &TcpListener) -> SocketAddrV4 {
        match listener.local_addr() {
            Ok(SocketAddr::V4(address)) => address,
            other => panic!("no IPv4 address: {other:?}"),
        }
    }

    fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
        loop {
            if let Some(found) = look() {
                return found;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_nobody_has_read_is_acknowledged_and_what_finds_no_room_is_not() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let mut connection = Connection::start(address(&listener)).expect("a socket");
        until(|| connection.follow().expect("it comes up").then_some(()));
        let _peer = listener.accept().expect("the connection");
        assert_eq!(connection.send(b"hello").expect("room"), 5);
        until(|| (connection.unacknowledged() == 0).then_some(()));
        let mut sent = 0;
        until(|| {
            let now = connection.send(&[0; 65536]).expect("an open connection");
            sent += now;
            (now == 0).then_some(())
        });
        let left = connection.unacknowledged();
        assert!(left > 0 && left < sent, "{left} of {sent}");
    }

    #[test]
    fn a_port_where_nobody_listens_and_a_peer_that_closes_are_errors() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let mut connection = Connection::start(address(&listener)).expect("a socket");
        until(|| connection.follow().expect("it comes up").then_some(()));
        drop(listener.accept().expect("the connection"));
        let error = until(|| connection.follow().err());
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        let to = address(&listener);
        drop(listener);
        let refused = Connection::start(to).map(|mut connection| until(|| connection.follow().err()));
        let error = refused.unwrap_or_else(|error| error);
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
}
