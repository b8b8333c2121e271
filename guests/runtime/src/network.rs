//! One link: a network card, its IP interface and the sockets bound to it. The two links of a guest share
//! nothing, and neither forwards: what comes in on one cannot leave by the other.

use crate::connections::Connections;
use crate::nic::{Nic, NicCounters};
use crate::random::random_seed;
use alloc::boxed::Box;
use alloc::vec;
use core::net::SocketAddrV4;
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{Device, TxToken};
use smoltcp::socket::{Socket, tcp};
use smoltcp::time::Instant;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpCidr,
    Ipv4Address, Ipv4Cidr,
};

/// Ports for connections made from here (RFC 6335: dynamic ports).
const FIRST_EPHEMERAL_PORT: u16 = 49_152;

/// Address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The guest's own address and the length of the network's prefix.
    pub cidr: Ipv4Cidr,
    /// Where packets to other networks go, if anywhere.
    pub gateway: Option<Ipv4Address>,
}

/// A link with its sockets.
pub struct Network {
    nic: Nic,
    address: Ipv4Address,
    /// On the heap for its size, as the card's rings are.
    interface: Box<Interface>,
    sockets: SocketSet<'static>,
    next_port: u16,
    connections: Connections,
}

impl core::fmt::Debug for Network {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Network").field("nic", &self.nic).finish_non_exhaustive()
    }
}

impl Network {
    /// Brings the interface up. Nothing is sent before [`Network::announce`].
    pub(crate) fn new(mut nic: Nic, address: Address, now_ns: u64) -> Self {
        let mut config = Config::new(EthernetAddress(nic.mac_address()).into());
        config.random_seed = random_seed();
        let mut interface = Box::new(Interface::new(config, &mut nic, instant(now_ns)));
        configure(&mut interface, address);
        let spread = (random_seed() % 16_000) as u16;
        Self {
            nic,
            address: address.cidr.address(),
            interface,
            sockets: SocketSet::new(vec![]),
            next_port: FIRST_EPHEMERAL_PORT + spread,
            connections: Connections::default(),
        }
    }

    /// The sockets, to add to and to work with.
    pub fn sockets(&mut self) -> &mut SocketSet<'static> {
        &mut self.sockets
    }

    /// Starts a TCP connection of the socket `handle`, from a port not used lately.
    ///
    /// # Errors
    /// As smoltcp's `connect`: the socket is open already, or the address is none.
    pub fn connect(&mut self, handle: SocketHandle, remote: SocketAddrV4) -> Result<(), tcp::ConnectError> {
        let port = self.next_port;
        self.next_port = port.checked_add(1).unwrap_or(FIRST_EPHEMERAL_PORT);
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        socket.connect(self.interface.context(), (*remote.ip(), remote.port()), port)
    }

    /// What crossed the link since boot.
    pub(crate) fn counters(&self) -> &'static NicCounters {
        self.nic.counters()
    }

    /// Whether a connection is neither closed nor merely being waited for.
    pub(crate) fn has_connections(&self) -> bool {
        self.sockets.iter().any(|(_, socket)| match socket {
            Socket::Tcp(socket) => socket.is_open() && !socket.is_listening(),
            _ => false,
        })
    }

    /// The card's address.
    #[must_use]
    pub fn mac_address(&self) -> [u8; 6] {
        self.nic.mac_address()
    }

    /// Tells the network where this guest is: gratuitous ARP (RFC 5227, announcement). QEMU's user network keeps
    /// a forwarded connection made before the guest was up until it learns the guest's MAC address; without
    /// this the first client waits a second. To be called once all ports listen.
    pub(crate) fn announce(&mut self) {
        let own = EthernetAddress(self.nic.mac_address());
        let arp = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: own,
            source_protocol_addr: self.address,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: self.address,
        };
        let to_all = EthernetAddress::BROADCAST;
        let header = EthernetRepr { src_addr: own, dst_addr: to_all, ethertype: EthernetProtocol::Arp };
        let Some(token) = self.nic.transmit(Instant::ZERO) else { return };
        token.consume(header.buffer_len() + arp.buffer_len(), |bytes| {
            let mut frame = EthernetFrame::new_unchecked(bytes);
            header.emit(&mut frame);
            arp.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
        });
    }

    /// Withdraws the card's interrupt; true if there was one. To be called before [`Network::poll`].
    pub(crate) fn acknowledge(&self) -> bool {
        self.nic.acknowledge()
    }

    /// Takes in what has arrived and sends what is due. True if a socket may have changed.
    pub(crate) fn poll(&mut self, now_ns: u64) -> bool {
        let result = self.interface.poll(instant(now_ns), &mut self.nic, &mut self.sockets);
        let changed = result == PollResult::SocketStateChanged;
        if changed {
            self.connections.look(&self.sockets);
        }
        changed
    }

    /// When [`Network::poll`] is due again, in monotonic time; at once if a frame is waiting. With a full ring
    /// there is nothing to do before the device has taken a frame, and then it interrupts.
    pub(crate) fn deadline_ns(&mut self, now_ns: u64) -> Option<u64> {
        if self.nic.is_full() {
            return None;
        }
        if self.nic.has_received() {
            return Some(now_ns);
        }
        let delay = self.interface.poll_delay(instant(now_ns), &self.sockets)?;
        Some(now_ns + delay.total_micros() * 1000)
    }
}

/// smoltcp's clock, from the monotonic one.
#[must_use]
pub fn instant(now_ns: u64) -> Instant {
    Instant::from_micros(i64::try_from(now_ns / 1000).unwrap_or(i64::MAX))
}

fn configure(interface: &mut Interface, address: Address) {
    // Neither can fail: both lists are empty and hold at least one entry.
    interface.update_ip_addrs(|addresses| {
        let _ = addresses.push(IpCidr::Ipv4(address.cidr));
    });
    if let Some(gateway) = address.gateway {
        let _ = interface.routes_mut().add_default_ipv4_route(gateway);
    }
}
