//! The port where a trace of the heap is taken: one client at a time gets it until it leaves.
//!
//! Owns the sockets, and who is told what. What is sent is [`Trace`]'s business. Nothing waits for a client: one that
//! takes nothing loses events, and after a while its place.

use alloc::format;
use alloc::string::String;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::vec::Vec;

use rustix::event::{PollFd, PollFlags};

use super::clock::wall_ns;
use super::connection::{is_momentary, would_block};
use crate::heap::{PROFILE_PLACES, SamplingRate, Trace, TraceOf};

const SECOND_NS: u64 = 1_000_000_000;
/// A client that takes nothing for so long is let go.
const STALL_NS: u64 = 60 * SECOND_NS;
/// From the end of a trace to the end of the connection.
const CLOSING_NS: u64 = 10 * SECOND_NS;
/// After a connection could not be accepted.
const ACCEPT_PAUSE_NS: u64 = SECOND_NS;
/// Events that wait: 256 KiB.
const RING_WORDS: usize = 32 * 1024;

/// See the module's page.
#[derive(Debug)]
pub(super) struct TracePort {
    listener: TcpListener,
    vm: String,
    program: String,
    client: Option<Client>,
    paused_until_ns: u64,
}

#[derive(Debug)]
struct Client {
    stream: TcpStream,
    step: Step,
    until_ns: u64,
}

#[derive(Debug)]
enum Step {
    Tracing(Trace),
    /// All was sent; what the client says is dropped.
    Closing,
}

impl TracePort {
    /// Listens on loopback. A trace names the program `vm`.
    pub(super) fn listen(port: u16, vm: &str) -> io::Result<Self> {
        let ip = IpAddr::from(Ipv4Addr::LOCALHOST);
        let bind = || {
            let listener = TcpListener::bind((ip, port))?;
            listener.set_nonblocking(true).map(|()| listener)
        };
        let listener = bind().map_err(|error| {
            let text = format!(
                "listen at {ip}:{port} (heap traces): {error}; choose another port with --memtrace-port, 0 for none"
            );
            io::Error::new(error.kind(), text)
        })?;
        let path = std::env::current_exe().unwrap_or_default();
        let program = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { listener, vm: vm.into(), program, client: None, paused_until_ns: 0 })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Does what can be done now; a trace that begins samples so much. Returns when the next turn is due.
    pub(super) fn turn(&mut self, rate: SamplingRate, now_ns: u64) -> Option<u64> {
        if self.client.as_mut().is_some_and(|client| !client.turn(now_ns).is_ok_and(|stays| stays)) {
            self.client = None;
        }
        self.accept(rate, now_ns);
        let pause = (self.paused_until_ns > now_ns).then_some(self.paused_until_ns);
        self.client.as_ref().map(|client| client.deadline(now_ns)).into_iter().chain(pause).min()
    }

    /// Adds what to wait for.
    pub(super) fn interest<'a>(&'a self, now_ns: u64, all: &mut Vec<PollFd<'a>>) {
        if now_ns >= self.paused_until_ns {
            all.push(PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN));
        }
        all.extend(
            self.client.iter().map(|client| PollFd::from_borrowed_fd(client.stream.as_fd(), PollFlags::IN)),
        );
    }

    fn accept(&mut self, rate: SamplingRate, now_ns: u64) {
        while now_ns >= self.paused_until_ns {
            match self.listener.accept() {
                Ok((stream, _)) => self.welcome(stream, rate, now_ns),
                Err(error) if is_momentary(&error) => return,
                Err(_) => self.paused_until_ns = now_ns + ACCEPT_PAUSE_NS,
            }
        }
    }

    fn welcome(&mut self, mut stream: TcpStream, rate: SamplingRate, now_ns: u64) {
        if stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).is_err() {
            return;
        }
        let of = TraceOf {
            vm: &self.vm,
            program: &self.program,
            pid: u64::from(std::process::id()),
            rate,
            places: PROFILE_PLACES,
            ring_words: RING_WORDS,
            clock: wall_micros,
        };
        match Trace::begin(&of, now_ns) {
            Ok(trace) => {
                let mut client = Client { stream, step: Step::Tracing(trace), until_ns: now_ns + STALL_NS };
                self.client = client.turn(now_ns).is_ok_and(|stays| stays).then_some(client);
            }
            // A line finds room in a new connection.
            Err(error) => drop(stream.write_all(format!("{error}\n").as_bytes())),
        }
    }
}

impl Client {
    /// Returns whether the connection is still wanted.
    fn turn(&mut self, now_ns: u64) -> io::Result<bool> {
        let heard = self.hear()?;
        let Step::Tracing(trace) = &mut self.step else {
            return Ok(heard != Heard::End && now_ns < self.until_ns);
        };
        // Anything said ends the trace.
        if heard != Heard::Nothing {
            trace.handle_end();
        }
        while let Some(bytes) = trace.poll_transmit(now_ns) {
            match self.stream.write(bytes).or_else(would_block)? {
                0 => return Ok(now_ns < self.until_ns),
                sent => {
                    trace.handle_sent(sent);
                    self.until_ns = now_ns + STALL_NS;
                }
            }
        }
        if trace.is_over() {
            self.stream.shutdown(Shutdown::Write)?;
            (self.step, self.until_ns) = (Step::Closing, now_ns + CLOSING_NS);
            return Ok(heard != Heard::End);
        }
        // Nothing waits for the client.
        self.until_ns = now_ns + STALL_NS;
        Ok(true)
    }

    fn hear(&mut self) -> io::Result<Heard> {
        let (mut bytes, mut heard) = ([0; 256], Heard::Nothing);
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(Heard::End),
                Ok(_) => heard = Heard::Bytes,
                Err(error) => return would_block(error).map(|_| heard),
            }
        }
    }

    fn deadline(&self, now_ns: u64) -> u64 {
        match &self.step {
            Step::Tracing(trace) => trace.next_deadline(now_ns),
            Step::Closing => self.until_ns,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Nothing,
    Bytes,
    End,
}

fn wall_micros() -> u64 {
    u64::try_from(wall_ns() / 1000).unwrap_or_default()
}
