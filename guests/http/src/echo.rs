//! The echo service (RFC 862) over UDP: every datagram goes back as it came. One datagram in is one out, so it
//! serves to count what crosses a link.

use alloc::vec;
use guest_runtime::smoltcp::iface::{SocketHandle, SocketSet};
use guest_runtime::smoltcp::socket::udp::{PacketBuffer, PacketMetadata, Socket};

/// The service's port.
pub(crate) const PORT: u16 = 7;
const DATAGRAMS: usize = 16;
const BUFFER_BYTES: usize = 24 * 1024;
const LARGEST_DATAGRAM_BYTES: usize = 1472;

/// The service's socket.
#[derive(Debug)]
pub(crate) struct Echo {
    handle: SocketHandle,
}

impl Echo {
    /// Opens the port.
    pub(crate) fn new(sockets: &mut SocketSet<'static>) -> Self {
        let buffer = || PacketBuffer::new(vec![PacketMetadata::EMPTY; DATAGRAMS], vec![0; BUFFER_BYTES]);
        let mut socket = Socket::new(buffer(), buffer());
        // Cannot fail: the socket is new and the port is not 0.
        let _ = socket.bind(PORT);
        Self { handle: sockets.add(socket) }
    }

    /// Sends back what has arrived, as far as there is room. Another echo service is not answered: the two
    /// would never stop.
    pub(crate) fn turn(&self, sockets: &mut SocketSet<'static>) {
        let socket = sockets.get_mut::<Socket<'_>>(self.handle);
        let mut datagram = [0; LARGEST_DATAGRAM_BYTES];
        while socket.can_send()
            && let Ok((length, sender)) = socket.recv_slice(&mut datagram)
        {
            if sender.endpoint.port != PORT {
                // Without room the datagram is lost, as datagrams are.
                let _ = socket.send_slice(&datagram[..length], sender.endpoint);
            }
        }
    }
}
