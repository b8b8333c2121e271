//! What is said on the ports of the agent, for whatever carries it.
//!
//! Owns the terms in which a driver tells what came in on a connection and is told what to do next, and the
//! conversations of the control port and of Prometheus's in those terms. Never owns a connection.

use alloc::string::String;
use alloc::vec::Vec;

use crate::agent::Agent;
use crate::control::{ControlProgress, ControlSession};
use crate::scrape::{REQUEST_NS, ScrapeSession};

/// How long a connection on which nothing was answered yet may be silent while all places are taken. Longer than it
/// takes a client far away to say its first word. In nanoseconds.
pub const SILENCE_NS: u64 = 250_000_000;

/// What happened on a connection that is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input<'a> {
    /// Bytes came in.
    Bytes(&'a [u8]),
    /// The peer has closed its side: no more will come.
    End,
    /// The time set by [`Progress::More`] has passed.
    Silence,
}

/// What is to be done after an [`Input`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Wait for more, until this monotonic time. After `End` or `Silence` this means `Close`.
    More {
        /// Monotonic nanoseconds.
        until_ns: u64,
    },
    /// Send the bytes at once, then wait for more, for so long after they were handed over. After `End` or `Silence`
    /// this means `Close`.
    AnswerAndRead {
        /// The answer so far.
        bytes: Vec<u8>,
        /// Nanoseconds.
        for_ns: u64,
    },
    /// Send the bytes at this monotonic time (at once, if it has passed), then close.
    Answer {
        /// The whole answer.
        bytes: Vec<u8>,
        /// Monotonic nanoseconds.
        at_ns: u64,
    },
    /// Close without an answer.
    Close,
}

/// The control port.
pub fn control(agent: &mut Agent, session: &mut ControlSession, input: Input<'_>, now_ns: u64) -> Progress {
    let mut reply = String::new();
    let progress = match input {
        Input::Bytes(bytes) => agent.handle_control_input(session, bytes, now_ns, &mut reply),
        Input::End | Input::Silence => agent.handle_control_idle(session, now_ns, &mut reply),
    };
    match progress {
        ControlProgress::NeedMore => Progress::More { until_ns: now_ns + session.idle_ns() },
        ControlProgress::Reply => {
            Progress::AnswerAndRead { bytes: reply.into_bytes(), for_ns: session.idle_ns() }
        }
        ControlProgress::ReplyAndClose => Progress::Answer { bytes: reply.into_bytes(), at_ns: now_ns },
        ControlProgress::Close => Progress::Close,
    }
}

/// Prometheus's port. `started_ns`: since when the connection is up.
pub fn scrape(
    agent: &mut Agent,
    session: &mut ScrapeSession,
    input: Input<'_>,
    started_ns: u64,
    now_ns: u64,
) -> Progress {
    match input {
        Input::Bytes(bytes) => match agent.handle_scrape_input(session, bytes) {
            None => Progress::More { until_ns: started_ns + REQUEST_NS },
            Some(answer) => Progress::Answer { bytes: answer.into_bytes(), at_ns: now_ns },
        },
        Input::End | Input::Silence => Progress::Close,
    }
}
