//! A TCP port where a connection is a request and its answer, or several: listen, read, answer, close in good order,
//! listen again. Every step has a deadline, so no client can keep the place. What is said is the caller's.

use alloc::vec;
use alloc::vec::Vec;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Duration;

use uni_guest::conversation::SILENCE_NS;
pub use uni_guest::conversation::{Input, Progress};

const SECOND_NS: u64 = 1_000_000_000;
/// From the first packet of a connection to its first byte.
const FIRST_BYTE_NS: u64 = 10 * SECOND_NS;
/// From the answer to the end of the connection.
const ANSWER_NS: u64 = 10 * SECOND_NS;
/// The peer acknowledges nothing for so long: it is gone.
const PEER_SILENCE: Duration = Duration::from_secs(10);

/// Sizes of a connection's buffers.
#[derive(Debug, Clone, Copy)]
pub struct Buffers {
    /// Bytes received and not yet read.
    pub receive_bytes: usize,
    /// Bytes sent and not yet acknowledged.
    pub transmit_bytes: usize,
}

#[derive(Debug)]
enum Step {
    Listening,
    Reading {
        until_ns: u64,
    },
    Waiting {
        answer: Vec<u8>,
        at_ns: u64,
    },
    /// `read_for_ns`: what follows is not the end.
    Answering {
        answer: Vec<u8>,
        sent: usize,
        until_ns: u64,
        read_for_ns: Option<u64>,
    },
    Closing {
        until_ns: u64,
    },
}

/// One place for a connection. `S` is what its conversation remembers; each connection starts with a new one.
#[derive(Debug)]
pub struct Exchange<S> {
    handle: SocketHandle,
    port: u16,
    started_ns: u64,
    /// When something came last.
    heard_ns: u64,
    /// Something was answered, and more may follow.
    is_known: bool,
    session: S,
    step: Step,
}

impl<S: Default> Exchange<S> {
    /// A new place at `port`, which must not be 0. It listens at once: a connection may be waiting already when
    /// the guest tells the network that it is there.
    #[must_use]
    pub fn new(sockets: &mut SocketSet<'static>, port: u16, buffers: Buffers) -> Self {
        let buffer = |bytes| SocketBuffer::new(vec![0; bytes]);
        let mut socket = Socket::new(buffer(buffers.receive_bytes), buffer(buffers.transmit_bytes));
        socket.set_timeout(Some(PEER_SILENCE));
        // An answer goes out whole: its last segment must not wait for an acknowledgement.
        socket.set_nagle_enabled(false);
        listen(&mut socket, port);
        Self {
            handle: sockets.add(socket),
            port,
            started_ns: 0,
            heard_ns: 0,
            is_known: false,
            session: S::default(),
            step: Step::Listening,
        }
    }

    /// Does what can be done now. `converse` is told what came in, and since when (monotonic nanoseconds) the
    /// connection is up. Returns when the next turn is due, unless something arrives before.
    pub fn turn(
        &mut self,
        sockets: &mut SocketSet<'static>,
        now_ns: u64,
        converse: &mut impl FnMut(&mut S, Input<'_>, u64) -> Progress,
    ) -> Option<u64> {
        let socket = sockets.get_mut::<Socket<'_>>(self.handle);
        if !socket.is_open() {
            listen(socket, self.port);
        }
        if socket.state() == State::Listen {
            self.session = S::default();
            self.step = Step::Listening;
            return None;
        }
        if matches!(self.step, Step::Listening) {
            self.started_ns = now_ns;
            self.heard_ns = now_ns;
            self.is_known = false;
            self.step = Step::Reading { until_ns: now_ns + FIRST_BYTE_NS };
        }
        self.read(socket, now_ns, converse);
        // An answer in between may be followed at once by the next request.
        while self.answer(socket, now_ns) {
            self.read(socket, now_ns, converse);
        }
        self.deadline(socket, now_ns)
    }

    const fn can_be_spared(&self) -> bool {
        matches!(self.step, Step::Closing { .. })
            || (!self.is_known && matches!(self.step, Step::Reading { .. }))
    }

    /// Closes the connection in good order, and the port.
    pub fn close(&mut self, sockets: &mut SocketSet<'static>) {
        sockets.get_mut::<Socket<'_>>(self.handle).close();
    }

    fn read(
        &mut self,
        socket: &mut Socket<'_>,
        now_ns: u64,
        converse: &mut impl FnMut(&mut S, Input<'_>, u64) -> Progress,
    ) {
        while let Step::Reading { until_ns } = self.step {
            let (session, started_ns) = (&mut self.session, self.started_ns);
            let progress = if socket.can_recv() {
                self.heard_ns = now_ns;
                socket
                    .recv(|bytes| (bytes.len(), converse(session, Input::Bytes(bytes), started_ns)))
                    .unwrap_or(Progress::Close)
            } else if !socket.may_recv() && socket.state() != State::SynReceived {
                last_word(converse(session, Input::End, started_ns))
            } else if now_ns >= until_ns {
                last_word(converse(session, Input::Silence, started_ns))
            } else {
                return;
            };
            self.is_known |= matches!(progress, Progress::AnswerAndRead { .. });
            self.step = match progress {
                Progress::More { until_ns } => Step::Reading { until_ns },
                Progress::AnswerAndRead { bytes, for_ns } => Step::Answering {
                    answer: bytes,
                    sent: 0,
                    until_ns: now_ns + ANSWER_NS,
                    read_for_ns: Some(for_ns),
                },
                Progress::Answer { bytes, at_ns } => Step::Waiting { answer: bytes, at_ns },
                Progress::Close => {
                    socket.close();
                    Step::Closing { until_ns: now_ns + ANSWER_NS }
                }
            };
        }
    }

    /// Returns true if more is to be read now.
    fn answer(&mut self, socket: &mut Socket<'_>, now_ns: u64) -> bool {
        if let Step::Waiting { answer, at_ns } = &mut self.step
            && *at_ns <= now_ns
        {
            let answer = core::mem::take(answer);
            let until_ns = now_ns + ANSWER_NS;
            self.step = Step::Answering { answer, sent: 0, until_ns, read_for_ns: None };
        }
        let Step::Answering { answer, sent, until_ns, read_for_ns } = &mut self.step else { return false };
        // A socket that can no longer send is about to be closed; the deadline sees to the rest.
        *sent += socket.send_slice(&answer[*sent..]).unwrap_or_default();
        if *sent < answer.len() {
            return false;
        }
        if let Some(for_ns) = *read_for_ns {
            self.step = Step::Reading { until_ns: now_ns + for_ns };
            return true;
        }
        self.step = Step::Closing { until_ns: *until_ns };
        socket.close();
        false
    }

    /// Resets a connection that has outlived its step; otherwise says when that would be.
    fn deadline(&mut self, socket: &mut Socket<'_>, now_ns: u64) -> Option<u64> {
        let until_ns = match self.step {
            Step::Listening => return None,
            Step::Waiting { at_ns, .. } => return Some(at_ns),
            Step::Closing { until_ns } => {
                discard_input(socket);
                until_ns
            }
            Step::Reading { until_ns } | Step::Answering { until_ns, .. } => until_ns,
        };
        if now_ns >= until_ns {
            socket.abort();
        }
        Some(until_ns.max(now_ns + 1))
    }
}

/// Keeps one of the places at a port free for who comes next: if none is, whoever was answered nothing yet and has been
/// silent for longest is let go, so that silent strangers lock nobody out. Returns when that has to be looked at again.
pub(crate) fn make_room<S>(
    places: &mut [Exchange<S>],
    sockets: &mut SocketSet<'static>,
    now_ns: u64,
) -> Option<u64>
where
    S: Default,
{
    if places.iter().any(|place| matches!(place.step, Step::Listening)) {
        return None;
    }
    let spared = places.iter().filter(|place| place.can_be_spared()).min_by_key(|place| place.heard_ns)?;
    let due_ns = spared.heard_ns + SILENCE_NS;
    if now_ns < due_ns {
        return Some(due_ns);
    }
    sockets.get_mut::<Socket<'_>>(spared.handle).abort();
    // It listens again in its next turn, when the peer was told.
    Some(now_ns + 1)
}

fn listen(socket: &mut Socket<'_>, port: u16) {
    // Cannot fail: the socket is closed, and the port is not 0.
    let _ = socket.listen(port);
}

fn last_word(progress: Progress) -> Progress {
    match progress {
        Progress::More { .. } | Progress::AnswerAndRead { .. } => Progress::Close,
        last => last,
    }
}

/// What comes after the request is not wanted, but left unread it would close the window.
fn discard_input(socket: &mut Socket<'_>) {
    while socket.can_recv() {
        if socket.recv(|bytes| (bytes.len(), ())).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::iface::{Config, Interface};
    use smoltcp::phy::{Loopback, Medium};
    use smoltcp::time::Instant;
    use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};

    const PORT: u16 = 80;
    const STEP_NS: u64 = 1_000_000;
    const BUFFERS: Buffers = Buffers { receive_bytes: 64, transmit_bytes: 64 };

    /// An exchange and a client on one looped-back link, with a clock of their own.
    struct Bench {
        device: Loopback,
        interface: Interface,
        sockets: SocketSet<'static>,
        exchange: Exchange<Vec<u8>>,
        client: SocketHandle,
        now_ns: u64,
        next_port: u16,
    }

    impl Bench {
        fn new() -> Self {
            let mut device = Loopback::new(Medium::Ethernet);
            let config = Config::new(EthernetAddress([2, 0, 0, 0, 0, 1]).into());
            let mut interface = Interface::new(config, &mut device, Instant::ZERO);
            interface.update_ip_addrs(|addresses| {
                addresses.push(IpCidr::new(IpAddress::v4(127, 0, 0, 1), 8)).expect("room for one address");
            });
            let mut sockets = SocketSet::new(vec![]);
            let exchange = Exchange::new(&mut sockets, PORT, BUFFERS);
            let buffer = || SocketBuffer::new(vec![0; 4096]);
            let client = sockets.add(Socket::new(buffer(), buffer()));
            Self { device, interface, sockets, exchange, client, now_ns: 0, next_port: 50_000 }
        }

        fn client(&mut self) -> &mut Socket<'static> {
            self.sockets.get_mut(self.client)
        }

        fn connect(&mut self) {
            self.next_port += 1;
            let port = self.next_port;
            let socket = self.sockets.get_mut::<Socket<'_>>(self.client);
            socket.abort();
            let remote = (IpAddress::v4(127, 0, 0, 1), PORT);
            socket.connect(self.interface.context(), remote, port).expect("a free socket");
        }

        /// Lets time pass; the exchange repeats a line ten times, says nothing to `q`, answers `s` late and
        /// goes on reading after `m`.
        fn run(&mut self, duration_ns: u64) {
            let end_ns = self.now_ns + duration_ns;
            while self.now_ns < end_ns {
                self.now_ns += STEP_NS;
                let now_ns = self.now_ns;
                let at = Instant::from_micros(i64::try_from(now_ns / 1000).expect("a short test"));
                self.interface.poll(at, &mut self.device, &mut self.sockets);
                let mut converse = |said: &mut Vec<u8>, input: Input<'_>, _| converse(said, input, now_ns);
                self.exchange.turn(&mut self.sockets, now_ns, &mut converse);
            }
        }

        fn say(&mut self, text: &[u8]) {
            let sent = self.client().send_slice(text).expect("an open connection");
            assert_eq!(sent, text.len());
        }

        fn heard(&mut self) -> Vec<u8> {
            let mut bytes = vec![0; 4096];
            let length = self.client().recv_slice(&mut bytes).unwrap_or_default();
            bytes.truncate(length);
            bytes
        }
    }

    fn converse(said: &mut Vec<u8>, input: Input<'_>, now_ns: u64) -> Progress {
        match input {
            Input::Bytes(bytes) => said.extend_from_slice(bytes),
            Input::End => return Progress::Answer { bytes: b"end".to_vec(), at_ns: now_ns },
            Input::Silence => return Progress::Answer { bytes: b"silence".to_vec(), at_ns: now_ns },
        }
        match said.as_slice() {
            b"q\n" => Progress::Close,
            b"m\n" => Progress::AnswerAndRead { bytes: core::mem::take(said), for_ns: SECOND_NS },
            b"s\n" => Progress::Answer { bytes: b"late".to_vec(), at_ns: now_ns + SECOND_NS },
            line if line.ends_with(b"\n") => Progress::Answer { bytes: line.repeat(10), at_ns: now_ns },
            _ => Progress::More { until_ns: now_ns + SECOND_NS },
        }
    }

    #[test]
    fn an_answer_longer_than_the_buffers_arrives_whole_and_the_place_listens_again() {
        let mut bench = Bench::new();
        for _ in 0..3 {
            bench.connect();
            bench.run(SECOND_NS / 10);
            bench.say(b"a line of twenty b.\n");
            bench.run(SECOND_NS);
            assert_eq!(bench.heard(), b"a line of twenty b.\n".repeat(10));
            assert!(!bench.client().may_recv(), "closed in good order");
            bench.client().close();
            bench.run(SECOND_NS / 10);
        }
    }

    #[test]
    fn a_request_in_pieces_is_one_request() {
        let mut bench = Bench::new();
        bench.connect();
        bench.run(SECOND_NS / 10);
        bench.say(b"a");
        bench.run(SECOND_NS / 2);
        bench.say(b"b\n");
        bench.run(SECOND_NS);
        assert_eq!(bench.heard(), b"ab\n".repeat(10));
    }

    #[test]
    fn several_requests_get_their_answers_until_silence() {
        let mut bench = Bench::new();
        bench.connect();
        bench.run(SECOND_NS / 10);
        for _ in 0..3 {
            bench.say(b"m\n");
            bench.run(SECOND_NS / 2);
            assert_eq!(bench.heard(), b"m\n");
            assert!(bench.client().may_recv(), "still open");
        }
        bench.run(SECOND_NS);
        assert_eq!(bench.heard(), b"silence");
    }

    #[test]
    fn a_late_answer_comes_at_its_time_and_not_before() {
        let mut bench = Bench::new();
        bench.connect();
        bench.run(SECOND_NS / 10);
        bench.say(b"s\n");
        bench.run(SECOND_NS * 9 / 10);
        assert_eq!(bench.heard(), b"");
        bench.run(SECOND_NS / 5);
        assert_eq!(bench.heard(), b"late");
    }

    #[test]
    fn a_peer_that_says_no_more_is_heard_to_the_end() {
        let mut bench = Bench::new();
        bench.connect();
        bench.run(SECOND_NS / 10);
        bench.say(b"half");
        bench.client().close();
        bench.run(SECOND_NS / 10);
        assert_eq!(bench.heard(), b"end");
    }

    #[test]
    fn silence_ends_a_request_and_a_connection_on_which_nothing_was_said() {
        for (said, wait_ns) in [(&b"half"[..], SECOND_NS), (b"", FIRST_BYTE_NS)] {
            let mut bench = Bench::new();
            bench.connect();
            bench.run(SECOND_NS / 10);
            bench.say(said);
            bench.run(wait_ns - SECOND_NS / 5);
            assert_eq!(bench.heard(), b"");
            bench.run(SECOND_NS / 2);
            assert_eq!(bench.heard(), b"silence");
        }
    }

    #[test]
    fn a_client_that_never_closes_its_side_is_reset_in_the_end() {
        let mut bench = Bench::new();
        bench.connect();
        bench.run(SECOND_NS / 10);
        bench.say(b"q\n");
        bench.run(ANSWER_NS - SECOND_NS);
        assert!(bench.client().is_active());
        bench.run(2 * SECOND_NS);
        assert!(!bench.client().is_active());
        bench.connect();
        bench.run(SECOND_NS / 10);
        assert!(bench.client().may_send(), "the place listens again");
    }
}
