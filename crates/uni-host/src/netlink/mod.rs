//! The counters of all links of the host, in one question to the kernel for all VMs together.
//!
//! Owns the socket and the table it fills. Never changes a link, never waits for anything but the kernel's
//! answer, and for that at most a second.

mod message;

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use message::{Answer, answers, ask_for_links, padded};
pub use message::{HostLink, HostLinkDirection};

/// The kernel fills at most this much in one read, however many links there are.
const BUFFER_BYTES: usize = 32 * 1024;
/// Links kept; further ones are counted in [`LinkTable::left_out`].
const MAX_LINKS: usize = 16 * 1024;
/// The kernel answers while it is asked; this is for the case that it does not.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why the table could not be read. All of it may pass: ask again at the next round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetlinkError {
    /// There is no socket.
    #[error("opening a netlink socket for the host's links: {0}; it is tried again at the next round")]
    Socket(Errno),
    /// The question or its answer did not get through.
    #[error("asking the kernel for the host's links: {0}; it is tried again at the next round")]
    Exchange(Errno),
    /// The kernel refused the question.
    #[error("the kernel refused to list the host's links: {0}; it is tried again at the next round")]
    Refused(Errno),
    /// The answer is not what rtnetlink(7) describes.
    #[error("the kernel's list of the host's links is cut or malformed; it is tried again at the next round")]
    Malformed,
}

/// The host's links by name, as of the last [`refresh`](Self::refresh); those of the network namespace that
/// this program is in. Allocates only when there are more links than ever before.
#[derive(Debug)]
pub struct LinkTable {
    socket: Option<OwnedFd>,
    sequence: u32,
    buffer: Vec<u8>,
    /// Ordered by name.
    links: Vec<HostLink>,
    left_out: u64,
}

impl LinkTable {
    /// An empty table. Nothing is opened yet, so this cannot fail.
    #[must_use]
    pub fn new() -> Self {
        Self { socket: None, sequence: 0, buffer: vec![0; BUFFER_BYTES], links: Vec::new(), left_out: 0 }
    }

    /// Reads all links anew. While links are being added or removed in that very moment, older kernels may
    /// leave one out; the next round has it.
    ///
    /// # Errors
    /// See [`NetlinkError`]; the table is then empty, so that no old counter passes for a new one.
    pub fn refresh(&mut self) -> Result<(), NetlinkError> {
        self.links.clear();
        self.left_out = 0;
        let result = self.exchange();
        if result.is_err() {
            // what is left of the answer goes with the socket
            self.socket = None;
            self.links.clear();
        }
        self.links.sort_unstable_by_key(|link| link.name);
        result
    }

    /// The link of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&HostLink> {
        let name = padded(name.as_bytes())?;
        let at = self.links.binary_search_by_key(&name, |link| link.name).ok()?;
        self.links.get(at)
    }

    /// All links, ordered by name.
    #[must_use]
    pub fn links(&self) -> &[HostLink] {
        &self.links
    }

    /// How many links the last round had to leave out, because there are more than 16384.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    fn exchange(&mut self) -> Result<(), NetlinkError> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => open_socket().map_err(NetlinkError::Socket)?,
        };
        let socket = &*self.socket.insert(socket);
        self.sequence = self.sequence.wrapping_add(1);
        let question = ask_for_links(self.sequence);
        send(socket, &question, SendFlags::empty()).map_err(NetlinkError::Exchange)?;
        loop {
            // with TRUNC the kernel tells the whole length even if it does not fit
            let (_, length) =
                recv(socket, &mut self.buffer[..], RecvFlags::TRUNC).map_err(NetlinkError::Exchange)?;
            let bytes = self.buffer.get(..length).filter(|bytes| !bytes.is_empty());
            for answer in answers(bytes.ok_or(NetlinkError::Malformed)?, self.sequence) {
                match answer.map_err(|_| NetlinkError::Malformed)? {
                    Answer::Link(link) if self.links.len() < MAX_LINKS => self.links.push(link),
                    Answer::Link(_) => self.left_out += 1,
                    Answer::Done => return Ok(()),
                    Answer::Refused(errno) => {
                        return Err(NetlinkError::Refused(Errno::from_raw_os_error(errno)));
                    }
                    Answer::Other => {}
                }
            }
        }
    }
}

impl Default for LinkTable {
    fn default() -> Self {
        Self::new()
    }
}

/// An unconnected netlink socket talks to the kernel, and only the kernel's answers come: no group is joined.
fn open_socket() -> Result<OwnedFd, Errno> {
    // protocol 0 is NETLINK_ROUTE
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    Ok(socket)
}
