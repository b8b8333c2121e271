//! The port where a trace of the heap is taken: one client at a time gets it until it leaves, a second is told so.
//!
//! Owns the sockets on one link. What is sent is `uni-guest`'s business. Nothing waits for a client: one that takes
//! nothing loses events, and after a while its place.

use crate::clock;
use crate::heap;
use crate::network::Network;
use alloc::boxed::Box;
use alloc::format;
use alloc::vec;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Duration;
use uni_guest::Arguments;
use uni_guest::heap::{SamplingRate, Trace, TraceOf};

const RECEIVE_BYTES: usize = 64;
const TRANSMIT_BYTES: usize = 8 * 1024;
/// A client that acknowledges nothing for so long is let go; so is one that leaves its window shut.
const STALL: Duration = Duration::from_secs(60);
const STALL_NS: u64 = 60_000_000_000;
/// From the last byte to the end of the connection.
const CLOSING_NS: u64 = 10_000_000_000;
/// Between two looks for events; what waits for the client's acknowledgement is looked at whenever something arrives.
const LOOK_NS: u64 = 2_000_000;
/// Sampled blocks that may be live at one time, and words for events that wait: 80 KiB and 64 KiB, from the first
/// trace on.
const PLACES: usize = 4096;
const RING_WORDS: usize = 8192;

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Memtrace {
    port: u16,
    vm: Box<str>,
    /// One that has the trace, and one that hears that it is taken; whichever comes first.
    places: [Place; 2],
}

/// One socket that listens, or has a client.
#[derive(Debug)]
struct Place {
    socket: SocketHandle,
    step: Step,
    until_ns: u64,
    /// When events are looked for next.
    look_ns: u64,
}

#[derive(Debug)]
enum Step {
    Listening,
    Tracing(Trace),
    /// All was sent.
    Closing,
}

impl Memtrace {
    /// Listens at `port`.
    pub(crate) fn new(network: &mut Network, port: u16, arguments: &Arguments) -> Self {
        heap::map_libraries();
        let mut place = || {
            let buffer = |bytes| SocketBuffer::new(vec![0; bytes]);
            let mut socket = Socket::new(buffer(RECEIVE_BYTES), buffer(TRANSMIT_BYTES));
            socket.set_timeout(Some(STALL));
            // Cannot fail: the socket is closed, and the port is not 0.
            let _ = socket.listen(port);
            Place { socket: network.sockets().add(socket), step: Step::Listening, until_ns: 0, look_ns: 0 }
        };
        let places = [place(), place()];
        Self { port, vm: arguments.name.as_str().into(), places }
    }

    /// Does what can be done now; a trace that begins samples so much. Returns when the next turn is due.
    pub(crate) fn turn(&mut self, network: &mut Network, rate: SamplingRate, now_ns: u64) -> Option<u64> {
        let Self { port, vm, places } = self;
        let sockets = network.sockets();
        places.iter_mut().filter_map(|place| place.turn(sockets, *port, vm, rate, now_ns)).min()
    }

    /// Ends the trace, and closes the port.
    pub(crate) fn close(&mut self, network: &mut Network) {
        for place in &mut self.places {
            place.step = Step::Closing;
            network.sockets().get_mut::<Socket<'_>>(place.socket).close();
        }
    }
}

impl Place {
    fn turn(
        &mut self,
        sockets: &mut SocketSet<'static>,
        port: u16,
        vm: &str,
        rate: SamplingRate,
        now_ns: u64,
    ) -> Option<u64> {
        let socket = sockets.get_mut::<Socket<'_>>(self.socket);
        if !socket.is_open() {
            self.step = Step::Listening;
            // As in `new`.
            let _ = socket.listen(port);
        }
        if matches!(self.step, Step::Listening)
            && matches!(socket.state(), State::Established | State::CloseWait)
        {
            self.welcome(socket, vm, rate, now_ns);
        }
        let heard = hear(socket);
        match &mut self.step {
            Step::Listening => return None,
            Step::Tracing(trace) => {
                // Anything said ends the trace.
                if heard || !socket.may_recv() {
                    trace.handle_end();
                    self.look_ns = now_ns;
                }
                if now_ns >= self.look_ns {
                    let sent = send(trace, socket, now_ns);
                    if sent != Sent::Nothing {
                        self.until_ns = now_ns + STALL_NS;
                    }
                    if sent == Sent::All {
                        self.look_ns = now_ns + LOOK_NS;
                    }
                }
                if trace.is_over() {
                    socket.close();
                    self.step = Step::Closing;
                    self.until_ns = now_ns + CLOSING_NS;
                }
            }
            Step::Closing => {}
        }
        if now_ns >= self.until_ns {
            socket.abort();
            self.step = Step::Closing;
            return Some(now_ns);
        }
        Some(match &self.step {
            Step::Tracing(trace) => trace.next_deadline(now_ns),
            _ => self.until_ns,
        })
    }

    fn welcome(&mut self, socket: &mut Socket<'_>, vm: &str, rate: SamplingRate, now_ns: u64) {
        let of = TraceOf {
            vm,
            program: vm,
            pid: u64::MAX,
            rate,
            places: PLACES,
            ring_words: RING_WORDS,
            clock: || clock::wall_ns() / 1000,
        };
        self.until_ns = now_ns + STALL_NS;
        match Trace::begin(&of, now_ns) {
            Ok(trace) => {
                self.step = Step::Tracing(trace);
                self.look_ns = now_ns;
            }
            Err(error) => {
                // A line finds room in a new connection.
                let _ = socket.send_slice(format!("{error}\n").as_bytes());
                socket.close();
                self.step = Step::Closing;
                self.until_ns = now_ns + CLOSING_NS;
            }
        }
    }
}

/// How much of what there was went.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Nothing,
    Some,
    /// Nothing waits.
    All,
}

/// Sends what there is.
fn send(trace: &mut Trace, socket: &mut Socket<'_>, now_ns: u64) -> Sent {
    let mut so_far = Sent::Nothing;
    while let Some(bytes) = trace.poll_transmit(now_ns) {
        match socket.send_slice(bytes) {
            Ok(0) | Err(_) => return so_far,
            Ok(sent) => {
                trace.handle_sent(sent);
                so_far = Sent::Some;
            }
        }
    }
    Sent::All
}

/// What is said is dropped; returns whether anything was.
fn hear(socket: &mut Socket<'_>) -> bool {
    let mut any = false;
    while socket.can_recv() && socket.recv(|bytes| (bytes.len(), ())).is_ok() {
        any = true;
    }
    any
}
