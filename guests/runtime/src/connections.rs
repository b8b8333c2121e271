//! The guest's TCP connections by state, as its metric source `tcp` shows them. Both links count together. What comes
//! and goes between two looks is not seen. It never touches a socket.

use alloc::vec::Vec;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::{Socket, tcp};
use uni_guest::source;
use uni_guest::sources::{self, TcpConnections, TcpState};

static TCP: TcpConnections = TcpConnections::new();

source! {
    static SOURCE: Source = sources::tcp(&TCP.fields());
}

/// What was seen at the last look. Sockets are never removed from a guest's links, so this is as long as they are
/// many.
#[derive(Debug, Default)]
pub(crate) struct Connections(Vec<(SocketHandle, TcpState)>);

impl Connections {
    /// Counts what has changed since the last look.
    pub(crate) fn look(&mut self, sockets: &SocketSet<'_>) {
        for (handle, socket) in sockets.iter() {
            if let Socket::Tcp(socket) = socket {
                let seen = self.seen(handle);
                let now = state(socket.state());
                TCP.moved(core::mem::replace(seen, now), now);
            }
        }
    }

    fn seen(&mut self, handle: SocketHandle) -> &mut TcpState {
        let place = self.0.iter().position(|(known, _)| *known == handle).unwrap_or_else(|| {
            self.0.push((handle, TcpState::None));
            self.0.len() - 1
        });
        &mut self.0[place].1
    }
}

const fn state(state: tcp::State) -> TcpState {
    match state {
        tcp::State::SynReceived => TcpState::SynReceived,
        tcp::State::SynSent => TcpState::SynSent,
        tcp::State::Established => TcpState::Established,
        _ => TcpState::None,
    }
}
