//! Carries the bytes of the monitoring: the agent's connection to the collector, the control port, Prometheus's, and
//! syslog. What is said is `uni-guest`'s business; this file only moves it over one link.

use crate::clock;
use crate::exchange::{Buffers, Exchange, Input, make_room};
use crate::network::Network;
use crate::random::random_seed;
use crate::syslog_stream::SyslogConnection;
use crate::unreachable::unreachable_reason;
use alloc::vec;
use alloc::vec::Vec;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::{raw, tcp, udp};
use smoltcp::time::Duration;
use smoltcp::wire::{IpProtocol, IpVersion};
use uni_guest::agent::Action;
use uni_guest::args::SyslogTransport;
use uni_guest::control::ControlSession;
use uni_guest::conversation;
use uni_guest::syslog::Framing;
use uni_guest::{Agent, Arguments, Logs, ScrapeSession, SinkWatch, SyslogQueue};

/// A collector that acknowledges nothing for so long is taken for gone: a new connection finds it sooner than
/// ever longer waits for this one.
const COLLECTOR_SILENCE: Duration = Duration::from_secs(5);
const COLLECTOR_RECEIVE_BYTES: usize = 512;
const COLLECTOR_TRANSMIT_BYTES: usize = 16 * 1024;
/// Connections to the control port at one time.
const CONTROL_CONNECTIONS: usize = 4;
const CONTROL_BUFFERS: Buffers = Buffers { receive_bytes: 1024, transmit_bytes: 4096 };
/// Connections from Prometheus at one time.
const SCRAPE_CONNECTIONS: usize = 2;
const SCRAPE_BUFFERS: Buffers = Buffers { receive_bytes: 1024, transmit_bytes: 8192 };
const SYSLOG_SOURCE_PORT: u16 = 514;
/// The longest datagram that is one packet of Ethernet.
pub(crate) const MAX_DATAGRAM_BYTES: usize = 1472;
/// How long a datagram waits for its way to be found, and then makes way for others: smoltcp asks for one address a
/// second, whoever wants to know, and an address that nobody has would keep the rest from being found.
const SYSLOG_TRY_NS: u64 = 1_500_000_000;
const SYSLOG_PAUSE_NS: u64 = 3_500_000_000;
/// ICMP messages kept for one turn. They may quote a whole datagram; one that finds no room was not the only one.
const ICMP_MESSAGES: usize = 8;
const ICMP_BUFFER_BYTES: usize = 4 * 1024;

/// How far the connection to the collector has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Collector {
    Away,
    Connecting,
    Connected,
}

/// The monitoring's sockets on one link.
#[derive(Debug)]
pub(crate) struct Reporter {
    socket: SocketHandle,
    collector: Collector,
    control: Vec<Exchange<ControlSession>>,
    scrapes: Vec<Exchange<ScrapeSession>>,
    syslog: Option<Outlet>,
}

/// The way to the syslog sink.
#[derive(Debug)]
enum Outlet {
    Datagrams(Syslog),
    Stream(SyslogConnection),
}

impl Outlet {
    fn new(network: &mut Network, transport: SyslogTransport, watch: SinkWatch, queue: &SyslogQueue) -> Self {
        match transport.framing() {
            Framing::Datagram => Self::Datagrams(Syslog::new(network, watch, queue)),
            framing => Self::Stream(SyslogConnection::new(network, framing, watch, queue)),
        }
    }

    fn turn(&mut self, network: &mut Network, now_ns: u64) -> Option<u64> {
        match self {
            Self::Datagrams(syslog) => syslog.turn(network, now_ns),
            Self::Stream(syslog) => syslog.turn(network, now_ns),
        }
    }
}

#[derive(Debug)]
struct Syslog {
    socket: SocketHandle,
    /// Hears every ICMP message.
    icmp: SocketHandle,
    queue: SyslogQueue,
    watch: SinkWatch,
    way: Way,
}

/// What becomes of the oldest syslog message. It stays in the queue until it has left.
#[derive(Debug, Clone, Copy)]
enum Way {
    Idle,
    /// The socket has a copy.
    Trying {
        until_ns: u64,
    },
    Pausing {
        until_ns: u64,
    },
}

impl Reporter {
    /// Opens what the arguments ask for, and `metrics_port` for Prometheus. `queue` holds the log lines meant for the
    /// syslog sink.
    pub(crate) fn new(
        network: &mut Network,
        arguments: &Arguments,
        metrics_port: Option<u16>,
        logs: &Logs,
        queue: &SyslogQueue,
    ) -> Self {
        let sockets = network.sockets();
        let control = arguments.control_port.map_or_else(Vec::new, |port| {
            (0..CONTROL_CONNECTIONS).map(|_| Exchange::new(sockets, port, CONTROL_BUFFERS)).collect()
        });
        let scrapes = metrics_port.map_or_else(Vec::new, |port| {
            (0..SCRAPE_CONNECTIONS).map(|_| Exchange::new(sockets, port, SCRAPE_BUFFERS)).collect()
        });
        let buffer = |bytes| tcp::SocketBuffer::new(vec![0; bytes]);
        let mut socket = tcp::Socket::new(buffer(COLLECTOR_RECEIVE_BYTES), buffer(COLLECTOR_TRANSMIT_BYTES));
        socket.set_nagle_enabled(false);
        Self {
            socket: sockets.add(socket),
            collector: Collector::Away,
            control,
            scrapes,
            syslog: arguments.syslog.map(|sink| {
                Outlet::new(network, arguments.syslog_transport, SinkWatch::new(sink, logs), queue)
            }),
        }
    }

    /// Does what is due; returns when the next turn is.
    pub(crate) fn turn(&mut self, agent: &mut Agent, network: &mut Network, now_ns: u64) -> Option<u64> {
        agent.handle_tick(now_ns, i64::try_from(clock::wall_ns()).unwrap_or(i64::MAX));
        match agent.poll_action(now_ns) {
            Action::Connect => self.connect(agent, network, now_ns),
            Action::Close => self.disconnected(agent, network, now_ns, "it takes nothing"),
            Action::None => {}
        }
        self.follow_connection(agent, network, now_ns);
        self.send(agent, network);
        let control_ns = self.serve_control(agent, network, now_ns);
        let scrape_ns = self.serve_scrapes(agent, network, now_ns);
        let syslog_ns = self.syslog.as_mut().and_then(|syslog| syslog.turn(network, now_ns));
        [control_ns, scrape_ns, syslog_ns, agent.next_deadline()].into_iter().flatten().min()
    }

    /// Closes all connections in good order.
    pub(crate) fn close(&mut self, network: &mut Network) {
        for place in &mut self.control {
            place.close(network.sockets());
        }
        for place in &mut self.scrapes {
            place.close(network.sockets());
        }
        if let Some(Outlet::Stream(syslog)) = &mut self.syslog {
            syslog.close(network);
        }
        network.sockets().get_mut::<tcp::Socket<'_>>(self.socket).close();
    }

    fn connect(&mut self, agent: &mut Agent, network: &mut Network, now_ns: u64) {
        let Some(monitor) = agent.monitor() else { return };
        self.collector = Collector::Connecting;
        if network.connect(self.socket, monitor).is_err() {
            self.disconnected(agent, network, now_ns, "no such address or no route");
        }
    }

    fn follow_connection(&mut self, agent: &mut Agent, network: &mut Network, now_ns: u64) {
        let socket = network.sockets().get_mut::<tcp::Socket<'_>>(self.socket);
        // The collector has nothing to say; what it sends is dropped.
        while socket.can_recv() && socket.recv(|bytes| (bytes.len(), ())).is_ok() {}
        match self.collector {
            Collector::Connecting if socket.state() == tcp::State::Established => {
                self.collector = Collector::Connected;
                agent.handle_connected(now_ns);
            }
            Collector::Connecting if !socket.is_open() => {
                self.disconnected(agent, network, now_ns, "connection refused or not answered");
            }
            Collector::Connected if socket.state() != tcp::State::Established => {
                self.disconnected(agent, network, now_ns, "connection closed or not answered");
            }
            _ => {}
        }
    }

    fn disconnected(&mut self, agent: &mut Agent, network: &mut Network, now_ns: u64, reason: &str) {
        let socket = network.sockets().get_mut::<tcp::Socket<'_>>(self.socket);
        let unacknowledged_bytes = socket.send_queue();
        socket.abort();
        self.collector = Collector::Away;
        agent.handle_disconnected(now_ns, reason, unacknowledged_bytes, random_seed() as u32);
    }

    fn send(&mut self, agent: &mut Agent, network: &mut Network) {
        let socket = network.sockets().get_mut::<tcp::Socket<'_>>(self.socket);
        while let Some(bytes) = agent.poll_transmit() {
            match socket.send_slice(bytes) {
                Ok(0) | Err(_) => break,
                Ok(sent) => agent.handle_sent(sent),
            }
        }
        let unacknowledged_bytes = socket.send_queue();
        agent.handle_unacknowledged(unacknowledged_bytes);
        // smoltcp counts silence even where there is nothing to acknowledge: between two reports there is
        let awaits = self.collector == Collector::Connecting || unacknowledged_bytes > 0;
        socket.set_timeout(awaits.then_some(COLLECTOR_SILENCE));
    }

    fn serve_control(&mut self, agent: &mut Agent, network: &mut Network, now_ns: u64) -> Option<u64> {
        let mut converse = |session: &mut ControlSession, input: Input<'_>, _started_ns| {
            conversation::control(agent, session, input, now_ns)
        };
        let sockets = network.sockets();
        let due =
            self.control.iter_mut().filter_map(|place| place.turn(sockets, now_ns, &mut converse)).min();
        due.into_iter().chain(make_room(&mut self.control, sockets, now_ns)).min()
    }

    fn serve_scrapes(&mut self, agent: &mut Agent, network: &mut Network, now_ns: u64) -> Option<u64> {
        let mut converse = |session: &mut ScrapeSession, input: Input<'_>, started_ns: u64| {
            conversation::scrape(agent, session, input, started_ns, now_ns)
        };
        let sockets = network.sockets();
        let due =
            self.scrapes.iter_mut().filter_map(|place| place.turn(sockets, now_ns, &mut converse)).min();
        due.into_iter().chain(make_room(&mut self.scrapes, sockets, now_ns)).min()
    }
}

impl Syslog {
    fn new(network: &mut Network, watch: SinkWatch, queue: &SyslogQueue) -> Self {
        let nothing = udp::PacketBuffer::new(vec![], vec![]);
        let one = udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 1], vec![0; MAX_DATAGRAM_BYTES]);
        let mut socket = udp::Socket::new(nothing, one);
        // Cannot fail: the socket is new and the port is not 0.
        let _ = socket.bind(SYSLOG_SOURCE_PORT);
        let incoming = raw::PacketBuffer::new(
            vec![raw::PacketMetadata::EMPTY; ICMP_MESSAGES],
            vec![0; ICMP_BUFFER_BYTES],
        );
        let nothing = raw::PacketBuffer::new(vec![], vec![]);
        let icmp = raw::Socket::new(Some(IpVersion::Ipv4), Some(IpProtocol::Icmp), incoming, nothing);
        let sockets = network.sockets();
        Self {
            socket: sockets.add(socket),
            icmp: sockets.add(icmp),
            queue: queue.clone(),
            watch,
            way: Way::Idle,
        }
    }

    /// Hears what became of earlier messages and sends the next; returns when the next turn is.
    fn turn(&mut self, network: &mut Network, now_ns: u64) -> Option<u64> {
        self.hear(network, now_ns);
        let socket = network.sockets().get_mut::<udp::Socket<'_>>(self.socket);
        let left = matches!(self.way, Way::Trying { .. }) && socket.send_queue() == 0;
        if left {
            self.queue.send_one(|_| true);
            self.way = Way::Idle;
        }
        self.go_on(socket, now_ns);
        self.watch.handle_progress(now_ns, left, !self.queue.is_empty(), self.queue.dropped());
        let way_ns = match self.way {
            Way::Idle => None,
            Way::Trying { until_ns } | Way::Pausing { until_ns } => Some(until_ns),
        };
        way_ns.into_iter().chain(self.watch.next_deadline()).min()
    }

    fn go_on(&mut self, socket: &mut udp::Socket<'_>, now_ns: u64) {
        match self.way {
            Way::Trying { until_ns } if now_ns >= until_ns => {
                // Empties it.
                socket.close();
                let _ = socket.bind(SYSLOG_SOURCE_PORT);
                self.way = Way::Pausing { until_ns: now_ns + SYSLOG_PAUSE_NS };
            }
            Way::Pausing { until_ns } if now_ns >= until_ns => self.way = Way::Idle,
            _ => {}
        }
        if matches!(self.way, Way::Idle) && self.offer(socket) {
            self.way = Way::Trying { until_ns: now_ns + SYSLOG_TRY_NS };
        }
    }

    /// Gives the socket a copy of the oldest message.
    fn offer(&self, socket: &mut udp::Socket<'_>) -> bool {
        let to = (*self.watch.sink().ip(), self.watch.sink().port());
        let mut taken = false;
        self.queue.send_one(|datagram| {
            taken = socket.send_slice(datagram, to).is_ok();
            false
        });
        taken
    }

    fn hear(&mut self, network: &mut Network, now_ns: u64) {
        let icmp = network.sockets().get_mut::<raw::Socket<'_>>(self.icmp);
        while let Ok(packet) = icmp.recv() {
            if let Some(reason) = unreachable_reason(packet, SYSLOG_SOURCE_PORT, self.watch.sink()) {
                self.watch.handle_unreachable(now_ns, reason);
            }
        }
    }
}
