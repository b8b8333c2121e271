//! What the agent needs of a connection to somebody else's port, whatever it is made of.
//!
//! Owns the terms only. Never decides when to connect or what to send.

use alloc::boxed::Box;
use core::fmt;
use core::net::SocketAddrV4;
use std::io;

use rustix::event::PollFd;

/// Being opened, or open. Nothing in it waits.
pub(super) trait Flow: fmt::Debug {
    /// Whether bytes can be handed over.
    fn is_open(&self) -> bool;

    /// Looks how the connection fares, and drops what the peer says: it has nothing to say. Returns whether it is open
    /// since now.
    ///
    /// # Errors
    /// It did not come up, or has ended.
    fn follow(&mut self) -> io::Result<bool>;

    /// Hands over as much as fits; 0 if nothing does.
    ///
    /// # Errors
    /// The connection has ended.
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// How many of the bytes handed over the peer has not acknowledged.
    fn unacknowledged(&self) -> usize;

    /// What to wait for. `has_more`: something is to be sent.
    fn interest(&self, has_more: bool) -> PollFd<'_>;
}

/// Begins to open a connection.
pub(super) type OpenFn = Box<dyn Fn(SocketAddrV4) -> io::Result<Box<dyn Flow>>>;
