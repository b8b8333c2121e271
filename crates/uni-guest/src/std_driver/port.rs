//! A TCP port where a connection is a request and its answer, or several: accept, read, answer, close in good order.
//!
//! Owns the sockets. Every step has a deadline, so no client can keep its place; and of a full house, who was answered
//! nothing yet and has been silent for longest goes as soon as [`SILENCE_NS`] have passed, so that silent strangers lock
//! nobody out. Clients that find no place wait in the kernel's queue. What is said is the caller's.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::vec::Vec;

use rustix::event::{PollFd, PollFlags};

use super::connection::{is_momentary, would_block};
use crate::conversation::{Input, Progress, SILENCE_NS};

const SECOND_NS: u64 = 1_000_000_000;
/// From the start of a connection to its first byte.
const FIRST_BYTE_NS: u64 = 10 * SECOND_NS;
/// From the answer to the end of the connection.
const ANSWER_NS: u64 = 10 * SECOND_NS;
/// After a connection could not be accepted: for want of descriptors, mostly.
const ACCEPT_PAUSE_NS: u64 = SECOND_NS;
const READ_BYTES: usize = 1024;

#[derive(Debug)]
enum Step {
    Reading {
        until_ns: u64,
    },
    /// `read_for_ns`: what follows is not the end.
    Answering {
        answer: Vec<u8>,
        sent: usize,
        until_ns: u64,
        read_for_ns: Option<u64>,
    },
    /// The peer is told that no more comes; what it says is dropped.
    Closing {
        until_ns: u64,
    },
}

/// One connection. `S` is what its conversation remembers.
#[derive(Debug)]
struct Guest<S> {
    stream: TcpStream,
    session: S,
    started_ns: u64,
    /// When something came last.
    heard_ns: u64,
    /// Something was answered, and more may follow.
    is_known: bool,
    step: Step,
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct Port<S> {
    listener: TcpListener,
    places: usize,
    guests: Vec<Guest<S>>,
    paused_until_ns: u64,
}

impl<S: Default> Port<S> {
    /// Listens for at most `places` connections at one time. `what` and `option` are named if it cannot.
    pub(super) fn listen(ip: IpAddr, port: u16, places: usize, what: &str, option: &str) -> io::Result<Self> {
        let bind = || {
            let listener = TcpListener::bind((ip, port))?;
            listener.set_nonblocking(true).map(|()| listener)
        };
        let listener = bind().map_err(|error| {
            let text = std::format!(
                "listen at {ip}:{port} ({what}): {error}; choose another port with --{option}, 0 for none"
            );
            io::Error::new(error.kind(), text)
        })?;
        Ok(Self { listener, places, guests: Vec::new(), paused_until_ns: 0 })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Does what can be done now. `converse` is told what came in, and since when the connection is up. Returns when
    /// the next turn is due, unless something arrives before.
    pub(super) fn turn(
        &mut self,
        now_ns: u64,
        converse: &mut impl FnMut(&mut S, Input<'_>, u64) -> Progress,
    ) -> Option<u64> {
        self.accept(now_ns);
        self.guests.retain_mut(|guest| guest.turn(now_ns, converse).is_ok_and(|stays| stays));
        // A place may be free now for one that waits.
        self.accept(now_ns);
        let room_ns = self.make_room(now_ns);
        let pause = (self.paused_until_ns > now_ns).then_some(self.paused_until_ns);
        self.guests.iter().map(Guest::deadline).chain(pause).chain(room_ns).min()
    }

    /// Adds what to wait for.
    pub(super) fn interest<'a>(&'a self, now_ns: u64, all: &mut Vec<PollFd<'a>>) {
        if self.guests.len() < self.places && now_ns >= self.paused_until_ns {
            all.push(PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN));
        }
        all.extend(self.guests.iter().map(Guest::interest));
    }

    /// Keeps a place free for who comes next, if somebody can be spared; else returns when that will be.
    fn make_room(&mut self, now_ns: u64) -> Option<u64> {
        if self.guests.len() < self.places {
            return None;
        }
        let spared = self.guests.iter().enumerate().filter(|(_, guest)| guest.can_be_spared());
        let (at, heard_ns) =
            spared.map(|(at, guest)| (at, guest.heard_ns)).min_by_key(|(_, heard)| *heard)?;
        if now_ns < heard_ns + SILENCE_NS {
            return Some(heard_ns + SILENCE_NS);
        }
        self.guests.remove(at);
        Some(now_ns)
    }

    fn accept(&mut self, now_ns: u64) {
        while self.guests.len() < self.places && now_ns >= self.paused_until_ns {
            match self.listener.accept() {
                Ok((stream, _)) => self.guests.extend(Guest::new(stream, now_ns)),
                Err(error) if is_momentary(&error) => return,
                Err(_) => self.paused_until_ns = now_ns + ACCEPT_PAUSE_NS,
            }
        }
    }
}

impl<S: Default> Guest<S> {
    fn new(stream: TcpStream, now_ns: u64) -> Option<Self> {
        stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).ok()?;
        let step = Step::Reading { until_ns: now_ns + FIRST_BYTE_NS };
        Some(Self {
            stream,
            session: S::default(),
            started_ns: now_ns,
            heard_ns: now_ns,
            is_known: false,
            step,
        })
    }

    const fn can_be_spared(&self) -> bool {
        matches!(self.step, Step::Closing { .. })
            || (!self.is_known && matches!(self.step, Step::Reading { .. }))
    }

    /// Returns whether the connection is still wanted.
    fn turn(
        &mut self,
        now_ns: u64,
        converse: &mut impl FnMut(&mut S, Input<'_>, u64) -> Progress,
    ) -> io::Result<bool> {
        loop {
            let goes_on = match self.step {
                Step::Reading { until_ns } => self.read(now_ns, until_ns, converse)?,
                Step::Answering { .. } => self.answer(now_ns)?,
                Step::Closing { .. } => return Ok(self.discard_input()? && now_ns < self.deadline()),
            };
            if !goes_on {
                return Ok(now_ns < self.deadline());
            }
        }
    }

    /// Returns whether there was something to read.
    fn read(
        &mut self,
        now_ns: u64,
        until_ns: u64,
        converse: &mut impl FnMut(&mut S, Input<'_>, u64) -> Progress,
    ) -> io::Result<bool> {
        let mut bytes = [0; READ_BYTES];
        let mut say = |input: Input<'_>| converse(&mut self.session, input, self.started_ns);
        let progress = match self.stream.read(&mut bytes) {
            Ok(0) => last_word(say(Input::End)),
            Ok(read) => {
                self.heard_ns = now_ns;
                say(Input::Bytes(bytes.get(..read).unwrap_or_default()))
            }
            Err(error) => {
                would_block(error)?;
                if now_ns < until_ns {
                    return Ok(false);
                }
                last_word(say(Input::Silence))
            }
        };
        let until_ns = now_ns + ANSWER_NS;
        let answering = |answer, read_for_ns| Step::Answering { answer, sent: 0, until_ns, read_for_ns };
        self.step = match progress {
            Progress::More { until_ns } => Step::Reading { until_ns },
            Progress::AnswerAndRead { bytes, for_ns } => {
                self.is_known = true;
                answering(bytes, Some(for_ns))
            }
            // The agent's conversations delay no answer.
            Progress::Answer { bytes, at_ns: _ } => answering(bytes, None),
            Progress::Close => answering(Vec::new(), None),
        };
        Ok(true)
    }

    /// Returns whether the answer is out.
    fn answer(&mut self, now_ns: u64) -> io::Result<bool> {
        let Step::Answering { answer, sent, until_ns, read_for_ns } = &mut self.step else { return Ok(true) };
        while let Some(rest) = answer.get(*sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest).or_else(would_block)? {
                0 => return Ok(false),
                written => *sent += written,
            }
        }
        self.step = match *read_for_ns {
            Some(for_ns) => Step::Reading { until_ns: now_ns + for_ns },
            None => {
                self.stream.shutdown(Shutdown::Write)?;
                Step::Closing { until_ns: *until_ns }
            }
        };
        Ok(true)
    }

    /// What comes after the request is not wanted, but left unread it would make the kernel reset the connection, and
    /// the answer be lost. Returns whether more may come.
    fn discard_input(&mut self) -> io::Result<bool> {
        let mut bytes = [0; READ_BYTES];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) => return would_block(error).map(|_| true),
            }
        }
    }

    const fn deadline(&self) -> u64 {
        match self.step {
            Step::Reading { until_ns } | Step::Answering { until_ns, .. } | Step::Closing { until_ns } => {
                until_ns
            }
        }
    }

    fn interest(&self) -> PollFd<'_> {
        let flags = match self.step {
            Step::Answering { .. } => PollFlags::OUT,
            Step::Reading { .. } | Step::Closing { .. } => PollFlags::IN,
        };
        PollFd::from_borrowed_fd(self.stream.as_fd(), flags)
    }
}

fn last_word(progress: Progress) -> Progress {
    match progress {
        Progress::More { .. } | Progress::AnswerAndRead { .. } => Progress::Close,
        last => last,
    }
}
