//! The agent's connection to the collector.
//!
//! Owns the connection. When to connect, what to send and what is sent again is the agent's business.

use alloc::string::ToString as _;
use std::io;

use rustix::event::PollFd;

use super::clock::random;
use super::connection::Connection;
use super::flow::Flow as _;
use crate::agent::{Action, Agent};

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct Collector {
    connection: Option<Connection>,
}

impl Collector {
    pub(super) fn is_connected(&self) -> bool {
        self.connection.as_ref().is_some_and(Connection::is_open)
    }

    pub(super) fn is_connecting(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| !connection.is_open())
    }

    /// Does what is due. The agent says when the next turn is.
    pub(super) fn turn(&mut self, agent: &mut Agent, now_ns: u64) {
        match agent.poll_action(now_ns) {
            Action::Connect => self.connect(agent, now_ns),
            Action::Close => self.disconnected(agent, now_ns, "it takes nothing"),
            Action::None => {}
        }
        if let Err(error) = self.carry(agent, now_ns) {
            self.disconnected(agent, now_ns, &error.to_string());
        }
    }

    /// Whether the collector has everything that the agent made.
    pub(super) fn is_idle(&self, agent: &Agent) -> bool {
        let unacknowledged = self.connection.as_ref().map_or(0, Connection::unacknowledged);
        unacknowledged == 0 && agent.figures().queued_bytes == 0
    }

    pub(super) fn interest(&self, agent: &Agent) -> Option<PollFd<'_>> {
        self.connection.as_ref().map(|connection| connection.interest(agent.poll_transmit().is_some()))
    }

    fn connect(&mut self, agent: &mut Agent, now_ns: u64) {
        let Some(monitor) = agent.monitor() else { return };
        match Connection::start(monitor) {
            Ok(connection) => self.connection = Some(connection),
            Err(error) => self.disconnected(agent, now_ns, &error.to_string()),
        }
    }

    fn carry(&mut self, agent: &mut Agent, now_ns: u64) -> io::Result<()> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        if connection.follow()? {
            agent.handle_connected(now_ns);
        }
        while let Some(bytes) = agent.poll_transmit() {
            match connection.send(bytes)? {
                0 => break,
                sent => agent.handle_sent(sent),
            }
        }
        if connection.is_open() {
            agent.handle_unacknowledged(connection.unacknowledged());
        }
        Ok(())
    }

    fn disconnected(&mut self, agent: &mut Agent, now_ns: u64, reason: &str) {
        let unacknowledged = self.connection.take().map_or(0, |connection| connection.unacknowledged());
        agent.handle_disconnected(now_ns, reason, unacknowledged, random());
    }
}
