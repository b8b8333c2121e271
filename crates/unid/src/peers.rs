//! Whose socket it is that talks to a listener on loopback: a VM's, if its QEMU's user-mode network opened it.
//!
//! A guest that may reach out over its service link reaches this host's loopback too. Owns the list of such VMs and
//! the look into `/proc` that tells their connections from everybody else's; costs nothing while there is none.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::{PoisonError, RwLock};

/// The protocol of a socket, as `/proc/net` has a table for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// `/proc/net/tcp` and `tcp6`.
    Tcp,
    /// `/proc/net/udp` and `udp6`.
    Udp,
}

/// The VMs whose guests may open connections through QEMU, by QEMU's pid.
#[derive(Debug, Default)]
pub(crate) struct Peers(RwLock<BTreeMap<u32, String>>);

impl Peers {
    /// The QEMU `pid` of VM `name` may open connections from now on.
    pub(crate) fn open(&self, pid: u32, name: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(pid, name.to_owned());
    }

    /// The QEMU `pid` is gone.
    pub(crate) fn close(&self, pid: u32) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&pid);
    }

    /// The VM that the socket bound to `peer` belongs to, if it is one's.
    pub(crate) fn owner(&self, peer: SocketAddr, protocol: Protocol) -> Option<String> {
        let open = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        if open.is_empty() {
            return None;
        }
        // some files of /proc: other tasks of this thread must not wait for them
        tokio::task::block_in_place(|| {
            let inodes = inodes(peer, protocol);
            open.into_iter().find(|(pid, _)| holds_any(*pid, &inodes)).map(|(_, name)| name)
        })
    }
}

/// The inodes of the sockets with this local address (proc(5), `/proc/net/tcp`).
fn inodes(peer: SocketAddr, protocol: Protocol) -> Vec<u64> {
    let table = match (protocol, peer.ip()) {
        (Protocol::Tcp, IpAddr::V4(_)) => "/proc/net/tcp",
        (Protocol::Tcp, IpAddr::V6(_)) => "/proc/net/tcp6",
        (Protocol::Udp, IpAddr::V4(_)) => "/proc/net/udp",
        (Protocol::Udp, IpAddr::V6(_)) => "/proc/net/udp6",
    };
    std::fs::read_to_string(table).map_or_else(|_| Vec::new(), |table| find_inodes(&table, peer))
}

/// All of them: a port may be in use towards several ends at once, and one that has just ended (inode 0) may stand first.
fn find_inodes(table: &str, peer: SocketAddr) -> Vec<u64> {
    let exact = kernel_address(peer);
    // a socket bound to no address shows zeros there; its port is its own all the same
    let any = format!("{}:{:04X}", "0".repeat(exact.len().saturating_sub(5)), peer.port());
    let rows = |wanted: &str| -> Vec<u64> {
        let fields = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
        let rows = fields.filter(|fields| fields.get(1) == Some(&wanted));
        rows.filter_map(|fields| fields.get(9)?.parse().ok()).filter(|inode| *inode != 0).collect()
    };
    let found = rows(&exact);
    if found.is_empty() { rows(&any) } else { found }
}

/// An address as the kernel prints it: each 32-bit word in the machine's byte order, then the port.
fn kernel_address(address: SocketAddr) -> String {
    let mut text = String::new();
    let octets: Vec<u8> = match address.ip() {
        IpAddr::V4(ip) => ip.octets().into(),
        IpAddr::V6(ip) => ip.octets().into(),
    };
    for word in octets.chunks_exact(4) {
        let word = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
        // writing to a String cannot fail
        let _ = write!(text, "{word:08X}");
    }
    let _ = write!(text, ":{:04X}", address.port());
    text
}

/// Whether the process has one of the sockets open.
fn holds_any(pid: u32, inodes: &[u64]) -> bool {
    let wanted: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors
        .filter_map(|fd| std::fs::read_link(fd.path()).ok())
        .any(|link| wanted.iter().any(|wanted| link.as_os_str() == wanted.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_the_kernel_writes_them() {
        assert_eq!(kernel_address("127.0.0.1:8094".parse().unwrap()), "0100007F:1F9E");
        assert_eq!(kernel_address("[::1]:80".parse().unwrap()), "00000000000000000000000001000000:0050");
    }

    #[test]
    fn of_several_rows_with_one_address_those_that_live_count() {
        let row = |n: u32, remote: &str, inode: u64| {
            format!("{n}: 0100007F:1F9E {remote} 01 0:0 0:0 0 0 0 {inode} 1\n")
        };
        let table =
            [row(0, "0100007F:0050", 0), row(1, "0100007F:0051", 77), row(2, "0100007F:0052", 78)].concat();
        assert_eq!(find_inodes(&table, "127.0.0.1:8094".parse().unwrap()), [77, 78]);
        assert!(find_inodes(&table, "127.0.0.1:8095".parse().unwrap()).is_empty());
    }

    #[test]
    fn a_connection_is_traced_to_the_process_that_opened_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let peer = stream.local_addr().unwrap();
        let peers = Peers::default();
        assert_eq!(peers.owner(peer, Protocol::Tcp), None);
        peers.open(std::process::id(), "web");
        assert_eq!(peers.owner(peer, Protocol::Tcp).as_deref(), Some("web"));
        let udp = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let from = SocketAddr::from(([127, 0, 0, 1], udp.local_addr().unwrap().port()));
        assert_eq!(peers.owner(from, Protocol::Udp).as_deref(), Some("web"));
        peers.close(std::process::id());
        assert_eq!(peers.owner(peer, Protocol::Tcp), None);
    }
}
