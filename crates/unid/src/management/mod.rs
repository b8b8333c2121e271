//! The host's end of each VM's management link: a small TCP/IP stack of its own per VM.
//!
//! QEMU listens on a Unix socket in the VM's directory and carries the guest's second network card over it;
//! this module connects, answers ARP as [`HOST_ADDRESS`], and takes line protocol on port 8094 and syslog on port
//! 514, UDP and TCP; commands to the guest go out over the same link ([`control`]), and what it streams comes in ([`stream`]). Who speaks is certain, because nobody
//! else is on the link. It never forwards a packet anywhere.

pub(crate) mod control;
mod device;
pub(crate) mod stream;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::Context as _;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant as TokioInstant;

use self::control::{ControlSocket, MAX_WAITING, Request, Requests};
use self::device::FrameDevice;
use self::stream::{Order, Orders, StreamSocket};
use crate::clock;
use crate::ingest::syslog::{self, MessageStream, Sender};
use crate::ingest::{Ingest, LineStream, Origin};

/// Unid's address on every management link; the links are separate networks, so one address serves all.
pub(crate) const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const PREFIX_BITS: u8 = 24;
/// Locally administered; the guest's card has another one.
const HOST_MAC: EthernetAddress = EthernetAddress([0x02, 0x75, 0x6e, 0xff, 0x00, 0x01]);
/// Influx line protocol, as Telegraf's `socket_listener` is used by MirageOS guests.
const LINE_PORT: u16 = 8094;
/// smoltcp has no backlog: one socket per connection that may be open or opening.
const LINE_SOCKETS: usize = 4;
const RECEIVE_BYTES: usize = 16 * 1024;
const SEND_BYTES: usize = 1024;
/// Syslog over UDP and TCP (RFC 3164, RFC 5424).
const SYSLOG_PORT: u16 = 514;
const SYSLOG_SOCKETS: usize = 2;
/// Syslog datagrams, and their bytes, that wait between two looks; more are dropped by the stack.
const SYSLOG_DATAGRAMS: usize = 32;
const SYSLOG_BYTES: usize = 16 * 1024;
/// A peer that went away without a word is let go after this.
const KEEP_ALIVE_SECONDS: u64 = 15;
const TIMEOUT_SECONDS: u64 = 60;
/// How long to wait before connecting again, when QEMU is there and the link is not.
const RECONNECT: Duration = Duration::from_millis(200);
/// Bytes on their way to QEMU; further frames wait in the stack's queue.
const MAX_UNSENT_BYTES: usize = 64 * 1024;
/// The stack is looked at this often at least.
const MAX_SLEEP: Duration = Duration::from_secs(5);

/// The management link of a running VM; dropped, it ends.
#[derive(Debug)]
pub(crate) struct Link {
    task: AbortHandle,
    requests: mpsc::Sender<Request>,
    orders: Orders,
}

/// What others want of the link.
struct Wanted {
    requests: Requests,
    orders: mpsc::Receiver<Order>,
}

impl Link {
    /// Serves the management link of `vm`.
    pub(crate) fn open(vm: String, socket: PathBuf, ingest: Arc<Ingest>) -> Self {
        let (requests, waiting) = mpsc::channel(MAX_WAITING);
        let (orders, ordered) = mpsc::channel(stream::MAX_ORDERS);
        let wanted = Wanted { requests: waiting, orders: ordered };
        Self { task: tokio::spawn(serve(vm, socket, ingest, wanted)).abort_handle(), requests, orders }
    }

    /// Where commands to the guest go.
    pub(crate) fn requests(&self) -> mpsc::Sender<Request> {
        self.requests.clone()
    }

    /// Where streams from the guest are asked for.
    pub(crate) fn orders(&self) -> Orders {
        self.orders.clone()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves the management link of `vm` until the task is aborted.
async fn serve(vm: String, socket: PathBuf, ingest: Arc<Ingest>, mut wanted: Wanted) {
    loop {
        if let Err(error) = serve_once(&vm, &socket, &ingest, &mut wanted).await {
            tracing::debug!(vm = vm.as_str(), err = format!("{error:#}"), "management link");
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

/// One connection to QEMU, from connect to close.
async fn serve_once(vm: &str, socket: &Path, ingest: &Ingest, wanted: &mut Wanted) -> anyhow::Result<()> {
    let stream =
        UnixStream::connect(socket).await.with_context(|| format!("connect to {}", socket.display()))?;
    let mut end = HostEnd::new();
    let outcome = relay(vm, &stream, &mut end, ingest, wanted).await;
    if end.device.dropped_frames() > 0 {
        tracing::warn!(
            vm,
            frames = end.device.dropped_frames(),
            "management link: frames dropped, a queue was full"
        );
    }
    outcome
}

/// Moves frames between the socket and the stack until the socket closes.
async fn relay(
    vm: &str,
    stream: &UnixStream,
    end: &mut HostEnd,
    ingest: &Ingest,
    wanted: &mut Wanted,
) -> anyhow::Result<()> {
    let (mut unsent, mut dropped) = (Vec::new(), 0);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        end.poll(vm, ingest);
        // a guest that takes nothing leaves the frames in the stack's queue, which is bounded and counts its drops
        while unsent.len() < MAX_UNSENT_BYTES
            && let Some(frame) = end.device.outgoing()
        {
            unsent.extend_from_slice(&frame);
        }
        // counted as it happens: a VM's end aborts this task
        let now = end.device.dropped_frames();
        ingest.counters.dropped_frames.fetch_add(now - dropped, Relaxed);
        dropped = now;
        let wake = TokioInstant::now() + end.delay().min(MAX_SLEEP);
        let deadlines = [end.control.deadline(), end.stream.deadline()];
        let wake = deadlines.into_iter().flatten().fold(wake, TokioInstant::min);
        tokio::select! {
            readable = stream.readable() => {
                readable?;
                match stream.try_read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(n) => end.device.feed(&buffer[..n])?,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error).context("read from the management link"),
                }
            }
            writable = stream.writable(), if !unsent.is_empty() => {
                writable?;
                match stream.try_write(&unsent) {
                    Ok(n) => drop(unsent.drain(..n)),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error).context("write to the management link"),
                }
            }
            Some(request) = wanted.requests.recv(), if end.control.is_idle() => end.ask(request),
            Some(order) = wanted.orders.recv() => end.order(order),
            () = tokio::time::sleep_until(wake) => {}
        }
    }
}

/// The stack and its sockets.
struct HostEnd {
    device: FrameDevice,
    interface: Interface,
    sockets: SocketSet<'static>,
    line: Vec<LineSocket>,
    syslog: SocketHandle,
    control: ControlSocket,
    stream: StreamSocket,
    syslog_tcp: Vec<SyslogSocket>,
    started: TokioInstant,
}

struct LineSocket {
    handle: SocketHandle,
    stream: LineStream,
}

struct SyslogSocket {
    handle: SocketHandle,
    stream: MessageStream,
}

impl HostEnd {
    fn new() -> Self {
        let started = TokioInstant::now();
        let mut device = FrameDevice::default();
        let config = Config::new(HardwareAddress::Ethernet(HOST_MAC));
        let mut interface = Interface::new(config, &mut device, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // an empty list has room for one address
            let _ = addresses.push(IpCidr::new(HOST_ADDRESS.into(), PREFIX_BITS));
        });
        let mut sockets = SocketSet::new(Vec::new());
        let line = (0..LINE_SOCKETS)
            .map(|_| LineSocket {
                handle: sockets.add(stream_socket(LINE_PORT)),
                stream: LineStream::default(),
            })
            .collect();
        let syslog = sockets.add(syslog_socket());
        let [low, high, ..] = clock::now().nanos().div_euclid(1_000).to_le_bytes();
        let seed = u16::from_le_bytes([low, high]);
        let (control, stream) = (ControlSocket::new(&mut sockets, seed), StreamSocket::new(seed));
        let syslog_tcp = (0..SYSLOG_SOCKETS)
            .map(|_| SyslogSocket {
                handle: sockets.add(stream_socket(SYSLOG_PORT)),
                stream: MessageStream::default(),
            })
            .collect();
        Self { device, interface, sockets, line, syslog, syslog_tcp, control, stream, started }
    }

    fn now(&self) -> Instant {
        let elapsed = self.started.elapsed().as_micros();
        Instant::from_micros(i64::try_from(elapsed).unwrap_or(i64::MAX))
    }

    fn delay(&mut self) -> Duration {
        let now = self.now();
        self.interface.poll_delay(now, &self.sockets).map_or(MAX_SLEEP, Into::into)
    }

    /// Begins to ask the guest for something.
    fn ask(&mut self, request: Request) {
        self.control.start(request, &mut self.interface, &mut self.sockets);
    }

    /// Begins or ends a stream of the guest's.
    fn order(&mut self, order: Order) {
        self.stream.handle(order, &mut self.interface, &mut self.sockets);
    }

    /// Lets the stack work, moves what arrived into the store, lets the stack answer.
    fn poll(&mut self, vm: &str, ingest: &Ingest) {
        let now = self.now();
        self.interface.poll(now, &mut self.device, &mut self.sockets);
        for line in &mut self.line {
            let stream = &mut line.stream;
            let socket = self.sockets.get_mut::<tcp::Socket<'static>>(line.handle);
            drain(socket, LINE_PORT, |heard| match heard {
                Some(bytes) => stream.feed(ingest, &Origin::Vm(vm), bytes),
                None => stream.finish(ingest, &Origin::Vm(vm)),
            });
        }
        let syslog = self.sockets.get_mut::<udp::Socket<'static>>(self.syslog);
        while let Ok((datagram, _)) = syslog.recv() {
            syslog::accept(ingest, Sender::link(vm), datagram);
        }
        for syslog in &mut self.syslog_tcp {
            let stream = &mut syslog.stream;
            let socket = self.sockets.get_mut::<tcp::Socket<'static>>(syslog.handle);
            drain(socket, SYSLOG_PORT, |heard| match heard {
                Some(bytes) => stream.feed(ingest, Sender::link(vm), bytes),
                None => stream.finish(ingest, Sender::link(vm)),
            });
        }
        self.control.poll(&mut self.sockets);
        self.stream.poll(&mut self.sockets);
        let now = self.now();
        self.interface.poll(now, &mut self.device, &mut self.sockets);
    }
}

/// Gives `take` what has arrived, and nothing once the peer has ended; then the socket listens again.
fn drain(socket: &mut tcp::Socket<'static>, port: u16, mut take: impl FnMut(Option<&[u8]>)) {
    while socket.can_recv() {
        let taken = socket.recv(|bytes| {
            take(Some(bytes));
            (bytes.len(), ())
        });
        if taken.is_err() {
            break;
        }
    }
    if socket.is_open() && socket.may_send() && !socket.may_recv() {
        take(None);
        socket.close();
    }
    if !socket.is_open() {
        take(None);
        // a closed socket on a fixed port above 0 can always listen
        let _ = socket.listen(port);
    }
}

fn stream_socket(port: u16) -> tcp::Socket<'static> {
    let mut socket = tcp::Socket::new(
        tcp::SocketBuffer::new(vec![0; RECEIVE_BYTES]),
        tcp::SocketBuffer::new(vec![0; SEND_BYTES]),
    );
    socket.set_keep_alive(Some(smoltcp::time::Duration::from_secs(KEEP_ALIVE_SECONDS)));
    socket.set_timeout(Some(smoltcp::time::Duration::from_secs(TIMEOUT_SECONDS)));
    let _ = socket.listen(port);
    socket
}

fn syslog_socket() -> udp::Socket<'static> {
    let metadata = || vec![udp::PacketMetadata::EMPTY; SYSLOG_DATAGRAMS];
    let mut socket = udp::Socket::new(
        udp::PacketBuffer::new(metadata(), vec![0; SYSLOG_BYTES]),
        // nothing is ever answered
        udp::PacketBuffer::new(Vec::new(), Vec::new()),
    );
    // a fresh socket on a fixed port above 0 can always be bound
    let _ = socket.bind(SYSLOG_PORT);
    socket
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Live;
    use crate::storage::Storage;
    use uni_query::{Source as _, TagMatcher, TagOp};
    use uni_store::{Options, Store};

    /// A VM's end of the link, with one connection to `port` of the host's end.
    fn guest(port: u16) -> (FrameDevice, Interface, SocketSet<'static>, SocketHandle) {
        let mut device = FrameDevice::default();
        let mac = HardwareAddress::Ethernet(EthernetAddress([2, 0, 0, 0, 0, 2]));
        let mut interface = Interface::new(Config::new(mac), &mut device, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::new(Ipv4Addr::new(10, 99, 0, 2).into(), PREFIX_BITS));
        });
        let buffer = || tcp::SocketBuffer::new(vec![0; 4096]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.connect(interface.context(), (HOST_ADDRESS, port), 40_000).unwrap();
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        (device, interface, sockets, handle)
    }

    #[test]
    fn syslog_by_tcp_is_filed_under_the_links_vm() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Options::default(), clock::now()).unwrap();
        let storage = Storage::new(store).unwrap();
        let ingest = Ingest::new(Arc::clone(&storage), Arc::new(Live::default()));
        let mut host = HostEnd::new();
        let (mut device, mut interface, mut sockets, handle) = guest(SYSLOG_PORT);
        let mut said = false;
        for round in 0..200 {
            interface.poll(Instant::from_millis(round), &mut device, &mut sockets);
            let socket = sockets.get_mut::<tcp::Socket<'static>>(handle);
            if socket.can_send() && !said {
                // one message in each framing; the last ends with the connection
                socket.send_slice(b"18 <11>Jun  8 x a: 1\n<11>1 - other app - - - 2\n<11>app: 3").unwrap();
                socket.close();
                said = true;
            }
            while let Some(frame) = device.outgoing() {
                host.device.feed(&frame).unwrap();
            }
            host.poll("web", &ingest);
            while let Some(frame) = host.device.outgoing() {
                device.feed(&frame).unwrap();
            }
        }
        let counters = ingest.counters.snapshot();
        assert_eq!((counters.syslog_messages_total, counters.renamed_points_total), (3, 1));
        let of = |vm: &str| {
            let vm = TagMatcher { key: "vm".to_owned(), op: TagOp::Equal, value: vm.to_owned() };
            storage.series("uni", "syslog", &[vm]).len()
        };
        assert!(of("web") > 0);
        assert_eq!(of("other"), 0);
    }

    /// A guest that has `bytes` to say at port 4242 and then ends; `round` is the time in milliseconds.
    struct Talker {
        device: FrameDevice,
        interface: Interface,
        sockets: SocketSet<'static>,
        handle: SocketHandle,
        left: usize,
    }

    impl Talker {
        fn new(bytes: usize) -> Self {
            let (device, interface, mut sockets, old) = guest(LINE_PORT);
            sockets.remove(old);
            let buffer = || tcp::SocketBuffer::new(vec![0; 16 * 1024]);
            let mut socket = tcp::Socket::new(buffer(), buffer());
            socket.listen(4242).unwrap();
            let handle = sockets.add(socket);
            Self { device, interface, sockets, handle, left: bytes }
        }

        fn turn(&mut self, host: &mut HostEnd, ingest: &Ingest, round: i64) {
            self.interface.poll(Instant::from_millis(round), &mut self.device, &mut self.sockets);
            let socket = self.sockets.get_mut::<tcp::Socket<'static>>(self.handle);
            if socket.may_send() {
                while self.left > 0 && socket.can_send() {
                    self.left -= socket.send_slice(&vec![7; self.left.min(4096)]).unwrap();
                }
                if self.left == 0 {
                    socket.close();
                }
            }
            while let Some(frame) = self.device.outgoing() {
                host.device.feed(&frame).unwrap();
            }
            host.poll("web", ingest);
            while let Some(frame) = host.device.outgoing() {
                self.device.feed(&frame).unwrap();
            }
        }
    }

    #[test]
    fn a_stream_waits_for_who_takes_it_and_comes_whole() {
        const BYTES: usize = 1_000_000;
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Options::default(), clock::now()).unwrap();
        let ingest = Ingest::new(Storage::new(store).unwrap(), Arc::new(Live::default()));
        let (mut host, mut talker) = (HostEnd::new(), Talker::new(BYTES));
        let (pieces, mut taken) = mpsc::channel(4);
        host.order(Order::Open { port: 4242, pieces });
        // nobody takes: what is under way is bounded, and the guest keeps the rest
        for round in 0..2_000 {
            talker.turn(&mut host, &ingest, round);
        }
        assert!(talker.left > BYTES - 400_000, "{} of {BYTES} are left", talker.left);
        // a second stream is refused meanwhile, and the first goes on
        let (second, mut refused) = mpsc::channel(4);
        host.order(Order::Open { port: 4242, pieces: second });
        assert!(matches!(refused.try_recv(), Ok(stream::Piece::Failed(control::Fault::Busy))));
        let (mut got, mut ended) = (0, false);
        for round in 2_000..60_000 {
            talker.turn(&mut host, &ingest, round);
            match taken.try_recv() {
                Ok(stream::Piece::Bytes(bytes)) => got += bytes.len(),
                Ok(stream::Piece::End) => ended = true,
                Ok(stream::Piece::Failed(fault)) => panic!("{fault}"),
                Err(_) if ended => break,
                Err(_) => {}
            }
        }
        assert_eq!((got, ended), (BYTES, true));
    }

    #[test]
    fn a_port_where_nobody_listens_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Options::default(), clock::now()).unwrap();
        let ingest = Ingest::new(Storage::new(store).unwrap(), Arc::new(Live::default()));
        let (mut host, mut talker) = (HostEnd::new(), Talker::new(1));
        let (pieces, mut taken) = mpsc::channel(4);
        host.order(Order::Open { port: 4243, pieces });
        for round in 0..200 {
            talker.turn(&mut host, &ingest, round);
        }
        assert!(matches!(taken.try_recv(), Ok(stream::Piece::Failed(control::Fault::Refused(4243)))));
        assert!(taken.try_recv().is_err());
    }
}
