//! The agent: collects at every interval, keeps lines until they are sent, and says when to connect.
//!
//! Owns the registry, the ring of lines and the state of the connection. Never opens a socket, reads a clock or
//! makes a random number; a driver does, in a loop like this:
//!
//! ```text
//! agent.handle_tick(now, wall);
//! match agent.poll_action(now) { Connect => connect to agent.monitor(), Close => abort it, None => {} }
//! connected just now?  agent.handle_connected(now);
//! connection gone?     agent.handle_disconnected(now, why, bytes_never_acknowledged, random);
//! connected?           while let Some(bytes) = agent.poll_transmit() { n = send(bytes); agent.handle_sent(n) }
//!                      agent.handle_unacknowledged(bytes_not_yet_acknowledged)
//! sleep until agent.next_deadline() or the network wakes us
//! ```
//! After `Close` the driver calls `handle_disconnected`, as for any other end of a connection.
//!
//! An outage lasts from the end of a connection, or the first try that fails, until a connection has lasted 10 s and
//! the collector has acknowledged something on it. What was sent on a connection that ends within a second is sent
//! again, acknowledged or not.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use core::cell::Cell;
use core::net::SocketAddrV4;

use uni_wire::Timestamp;

use crate::args::Arguments;
use crate::control::{self, Control, ControlProgress, ControlSession, Controlled, Token};
use crate::heap::SamplingRate;
use crate::link::Link;
use crate::logs::{Log, Logs};
use crate::metrics::{Periodic, Registry};
use crate::ring::Ring;
use crate::scrape::ScrapeSession;
use crate::sources::register_logs;

/// Room for lines that wait: about ten minutes of a small guest at the default interval.
pub const DEFAULT_RING_BYTES: usize = 64 * 1024;

const SECOND_NS: u64 = 1_000_000_000;

/// What the agent has to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The tag `vm` of every line.
    pub name: String,
    /// The collector; `None` turns reporting off.
    pub monitor: Option<SocketAddrV4>,
    /// Seconds between two collections; at least 1.
    pub interval_seconds: u32,
    /// Most bytes of lines kept.
    pub ring_bytes: usize,
}

impl Config {
    /// What the command line says.
    #[must_use]
    pub fn from_arguments(arguments: &Arguments) -> Self {
        Self {
            name: arguments.name.clone(),
            monitor: arguments.monitor,
            interval_seconds: arguments.interval_seconds,
            ring_bytes: DEFAULT_RING_BYTES,
        }
    }
}

/// What the driver has to do with the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a connection to the collector.
    Connect,
    /// Abort the connection, or the attempt to open it.
    Close,
    /// Nothing.
    None,
}

/// How the reporting fares, since boot; what the source `agent` tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentFigures {
    /// Bytes of points that wait to be sent.
    pub queued_bytes: u64,
    /// Points that were made and lost for want of room.
    pub dropped_points: u64,
    /// Connections to the collector after the first.
    pub reconnects: u64,
    /// Bytes of points that a connection took.
    pub sent_bytes: u64,
    /// Commands on the control port that were refused unheard: without the token, or too many a second.
    pub refused_commands: u64,
}

/// The agent's own figures, shared with its source.
#[derive(Debug, Default)]
struct Figures {
    queued_bytes: Cell<u64>,
    dropped_points: Cell<u64>,
    reconnects: Cell<u64>,
    sent_bytes: Cell<u64>,
    refused_commands: Cell<u64>,
}

/// See the module's page.
#[derive(Debug)]
pub struct Agent {
    name: Box<str>,
    monitor: Option<SocketAddrV4>,
    interval_ns: u64,
    registry: Registry,
    logs: Logs,
    log: Log,
    control: Control,
    control_log: Log,
    ring: Ring,
    link: Link,
    figures: Rc<Figures>,
    next_tick_ns: u64,
    /// Lines lost before they came into the ring.
    oversize_lines: u64,
    ever_connected: bool,
    /// Bytes handed to the connection that is up now.
    connection_bytes: usize,
    /// Since when the collector is away. That was reported.
    outage_since_ns: Option<u64>,
}

impl Agent {
    /// An agent whose first collection is due at once. It reports the sources that the program declares, and those
    /// called `agent` and `logs`; it has the log sources `agent` and `control`. The program's instruments record if
    /// there is a collector.
    #[must_use]
    pub fn new(config: &Config, logs: &Logs) -> Self {
        let figures = Rc::new(Figures::default());
        let mut registry = Registry::of_program();
        registry.set_reporting(config.monitor.is_some());
        register_logs(&mut registry, logs);
        registry.register(figures_source(Rc::clone(&figures)));
        Self {
            name: config.name.as_str().into(),
            monitor: config.monitor,
            interval_ns: u64::from(config.interval_seconds.max(1)) * SECOND_NS,
            registry,
            logs: logs.clone(),
            log: logs.source("agent", "reports metrics to the collector"),
            control: Control::default(),
            control_log: logs.source("control", "changes made through the control port"),
            ring: Ring::new(config.ring_bytes),
            link: Link::new(),
            figures,
            next_tick_ns: 0,
            oversize_lines: 0,
            ever_connected: false,
            connection_bytes: 0,
            outage_since_ns: None,
        }
    }

    /// The sources, to add one's own.
    pub const fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// The log sources.
    #[must_use]
    pub const fn logs(&self) -> &Logs {
        &self.logs
    }

    /// Where to connect to; `None` when reporting is off.
    #[must_use]
    pub const fn monitor(&self) -> Option<SocketAddrV4> {
        self.monitor
    }

    /// Ends changes whose time is over, and collects if the interval is over; returns how many points were made.
    /// `now_ns` is of a monotonic clock, `wall_ns` is since the Unix epoch. An interval that was missed is not made up
    /// for.
    pub fn handle_tick(&mut self, now_ns: u64, wall_ns: i64) -> usize {
        self.control.handle_time(&mut self.registry, &self.logs, &self.control_log, now_ns);
        if self.monitor.is_none() || now_ns < self.next_tick_ns {
            return 0;
        }
        let next = self.next_tick_ns.saturating_add(self.interval_ns);
        self.next_tick_ns = if next > now_ns { next } else { now_ns.saturating_add(self.interval_ns) };
        self.refresh_figures();
        let Self { ring, registry, .. } = self;
        let mut points = 0;
        ring.start_batch();
        let lost = registry.collect(&self.name, Timestamp(wall_ns), |line| {
            ring.push(line);
            points += 1;
        });
        self.oversize_lines += lost;
        points
    }

    /// What to do with the connection now.
    pub fn poll_action(&mut self, now_ns: u64) -> Action {
        if self.monitor.is_none() {
            return Action::None;
        }
        let action = self.link.poll_action(now_ns, !self.ring.waiting().is_empty());
        self.end_outage();
        action
    }

    /// Says that the collector is back, once a connection is proved.
    fn end_outage(&mut self) {
        if let Some(back_ns) = self.link.proved_since()
            && let Some(since_ns) = self.outage_since_ns.take()
        {
            let seconds = back_ns.saturating_sub(since_ns) / SECOND_NS;
            let dropped = self.dropped_points();
            self.log.info(format_args!(
                "collector is back after {seconds} s; {dropped} points dropped since boot"
            ));
        }
    }

    /// The connection is up.
    pub fn handle_connected(&mut self, now_ns: u64) {
        self.link.handle_connected(now_ns);
        self.connection_bytes = 0;
        if self.ever_connected {
            self.figures.reconnects.set(self.figures.reconnects.get() + 1);
        }
        self.ever_connected = true;
    }

    /// The connection is gone, or did not come up, for `reason`. `unacknowledged_bytes`: how many of the bytes
    /// taken by [`handle_sent`](Self::handle_sent) the peer never acknowledged (0 if not known); they are sent
    /// again. `random` is any random number. It is logged once per outage.
    pub fn handle_disconnected(
        &mut self,
        now_ns: u64,
        reason: &str,
        unacknowledged_bytes: usize,
        random: u32,
    ) {
        // A proxy acknowledges what it then finds nobody to give to.
        let lost = if self.link.is_unread(now_ns) { self.connection_bytes } else { 0 };
        self.link.handle_disconnected(now_ns, random);
        self.ring.rewind(unacknowledged_bytes.max(lost));
        self.connection_bytes = 0;
        if self.outage_since_ns.is_none()
            && let Some(monitor) = self.monitor
        {
            self.outage_since_ns = Some(now_ns);
            self.log.warning(format_args!(
                "collector {monitor} is not reachable: {reason}; points are kept and sent later"
            ));
        }
    }

    /// What to send next, in one piece; `None` when nothing waits or there is no connection.
    #[must_use]
    pub fn poll_transmit(&self) -> Option<&[u8]> {
        let waiting = self.ring.waiting();
        (self.link.is_connected() && !waiting.is_empty()).then_some(waiting)
    }

    /// The transport took the first `bytes` of [`poll_transmit`](Self::poll_transmit).
    pub fn handle_sent(&mut self, bytes: usize) {
        if bytes > 0 {
            self.ring.handle_sent(bytes);
            self.link.handle_progress();
            self.connection_bytes = self.connection_bytes.saturating_add(bytes);
            self.figures.sent_bytes.set(self.figures.sent_bytes.get() + bytes as u64);
        }
    }

    /// Of the bytes handed to this connection, the peer has not acknowledged the last `bytes` so far. To be called
    /// in each round while connected: only a connection on which something was acknowledged ends an outage.
    pub const fn handle_unacknowledged(&mut self, bytes: usize) {
        if bytes < self.connection_bytes {
            self.link.handle_acknowledged();
        }
    }

    /// The monotonic time at which [`handle_tick`](Self::handle_tick) and [`poll_action`](Self::poll_action) are to
    /// be called again; `None` when reporting is off and no change has a time limit.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let report = self
            .monitor
            .map(|_| self.link.next_deadline().map_or(self.next_tick_ns, |at| at.min(self.next_tick_ns)));
        [report, control::next_deadline(&self.registry, &self.logs)].into_iter().flatten().min()
    }

    /// Points that were made and lost for want of room.
    #[must_use]
    pub const fn dropped_points(&self) -> u64 {
        self.ring.dropped_lines() + self.oversize_lines
    }

    /// The next [`handle_tick`](Self::handle_tick) collects, whenever the last was: for a program that is about to end.
    pub const fn collect_soon(&mut self) {
        self.next_tick_ns = 0;
    }

    /// How the reporting fares.
    #[must_use]
    pub fn figures(&self) -> AgentFigures {
        AgentFigures {
            queued_bytes: self.ring.waiting().len() as u64,
            dropped_points: self.dropped_points(),
            reconnects: self.figures.reconnects.get(),
            sent_bytes: self.figures.sent_bytes.get(),
            refused_commands: self.control.refused_commands(),
        }
    }

    /// From now on only those who know `token` may give commands; everybody if there is none.
    pub fn set_control_token(&mut self, token: Option<Token>) {
        let rate = self.control.sampling_rate();
        self.control = Control::new(token);
        self.control.set_sampling_rate(rate);
    }

    /// How much the next heap trace samples.
    #[must_use]
    pub const fn sampling_rate(&self) -> SamplingRate {
        self.control.sampling_rate()
    }

    /// Sets how much heap traces sample, until somebody says otherwise at the control port.
    pub const fn set_sampling_rate(&mut self, rate: SamplingRate) {
        self.control.set_sampling_rate(rate);
    }

    /// Bytes came in on a connection from Prometheus. See [`ScrapeSession::handle_input`]. A driver that listens for
    /// them says so to the registry ([`Registry::set_reporting`]).
    pub fn handle_scrape_input(&mut self, session: &mut ScrapeSession, input: &[u8]) -> Option<String> {
        self.refresh_figures();
        session.handle_input(input, &mut self.registry, &self.name)
    }

    /// Bytes came in on a control connection. See [`ControlSession::handle_input`].
    pub fn handle_control_input(
        &mut self,
        session: &mut ControlSession,
        input: &[u8],
        now_ns: u64,
        reply: &mut String,
    ) -> ControlProgress {
        session.handle_input(input, &mut self.controlled(now_ns), reply)
    }

    /// A control connection is idle or half closed. See [`ControlSession::handle_idle`].
    pub fn handle_control_idle(
        &mut self,
        session: &mut ControlSession,
        now_ns: u64,
        reply: &mut String,
    ) -> ControlProgress {
        session.handle_idle(&mut self.controlled(now_ns), reply)
    }

    const fn controlled(&mut self, now_ns: u64) -> Controlled<'_> {
        let Self { control, registry, logs, control_log: log, .. } = self;
        Controlled { control, registry, logs, log, now_ns }
    }

    fn refresh_figures(&self) {
        self.figures.queued_bytes.set(self.ring.waiting().len() as u64);
        self.figures.dropped_points.set(self.dropped_points());
        self.figures.refused_commands.set(self.control.refused_commands());
    }
}

fn figures_source(figures: Rc<Figures>) -> Periodic {
    Periodic::new("agent", move |f| {
        f.count("queued_bytes", figures.queued_bytes.get())
            .total("dropped_points", figures.dropped_points.get())
            .total("reconnects", figures.reconnects.get())
            .total("sent_bytes", figures.sent_bytes.get())
            .total("refused_commands", figures.refused_commands.get());
    })
    .doc("how the reporting itself fares")
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec::Vec;
    use core::cell::RefCell;
    use core::net::Ipv4Addr;

    fn agent(ring_bytes: usize, logs: &Logs) -> Agent {
        let monitor = Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8094));
        let mut agent =
            Agent::new(&Config { name: "web".into(), monitor, interval_seconds: 10, ring_bytes }, logs);
        agent.registry_mut().set(uni_wire::control::MetricTarget::All, uni_wire::control::Switch::Off);
        agent
    }

    fn with_source(ring_bytes: usize, logs: &Logs) -> Agent {
        let mut agent = agent(ring_bytes, logs);
        let mut n = 0;
        agent.registry_mut().register(Periodic::new("s", move |f| {
            n += 1;
            f.count("n", n);
        }));
        let on = uni_wire::control::MetricTarget::Source("s");
        agent.registry_mut().set(on, uni_wire::control::Switch::On);
        agent
    }

    fn waiting(agent: &Agent) -> String {
        core::str::from_utf8(agent.poll_transmit().unwrap_or_default()).expect("text").to_string()
    }

    #[test]
    fn a_point_has_the_time_at_which_it_was_made() {
        let mut agent = with_source(1000, &Logs::default());
        assert_eq!(agent.handle_tick(0, 7), 1);
        assert_eq!(agent.handle_tick(9 * SECOND_NS, 8), 0);
        assert_eq!(agent.handle_tick(10 * SECOND_NS, 9), 1);
        agent.handle_connected(0);
        assert_eq!(waiting(&agent), "s,vm=web n=1i 7\ns,vm=web n=2i 9\n");
    }

    #[test]
    fn nothing_is_sent_without_a_connection() {
        let mut agent = with_source(1000, &Logs::default());
        agent.handle_tick(0, 0);
        assert_eq!(agent.poll_transmit(), None);
        assert_eq!(agent.poll_action(0), Action::Connect);
        agent.handle_connected(0);
        assert!(agent.poll_transmit().is_some());
    }

    #[test]
    fn points_made_while_the_collector_is_away_are_sent_later_and_losses_counted() {
        let mut agent = with_source(40, &Logs::default());
        agent.handle_disconnected(0, "refused", 0, 0);
        (0..5).for_each(|n| {
            agent.handle_tick(n * 10 * SECOND_NS, 0);
        });
        agent.handle_connected(0);
        assert_eq!(waiting(&agent), "s,vm=web n=4i 0\ns,vm=web n=5i 0\n");
        assert_eq!(agent.dropped_points(), 3);
    }

    #[test]
    fn a_half_sent_line_is_sent_again_whole() {
        let mut agent = with_source(1000, &Logs::default());
        agent.handle_tick(0, 0);
        agent.handle_connected(0);
        agent.handle_sent(5);
        assert_eq!(waiting(&agent), "=web n=1i 0\n".trim_start_matches("="));
        agent.handle_disconnected(1, "reset", 0, 0);
        agent.handle_connected(2);
        assert_eq!(waiting(&agent), "s,vm=web n=1i 0\n");
    }

    #[test]
    fn an_outage_is_reported_once() {
        let logs = Logs::default();
        let heard = Rc::new(RefCell::new(Vec::new()));
        let ears = Rc::clone(&heard);
        logs.add_sink(move |r| ears.borrow_mut().push(r.message.to_string()));
        let mut agent = with_source(1000, &logs);
        agent.handle_tick(0, 0);
        (0..3).for_each(|n| agent.handle_disconnected(n, "refused", 0, 0));
        agent.handle_connected(4 * SECOND_NS);
        agent.handle_sent(waiting(&agent).len());
        agent.handle_unacknowledged(0);
        assert_eq!(heard.borrow().len(), 1);
        assert_eq!(agent.next_deadline(), Some(10 * SECOND_NS));
        agent.handle_tick(10 * SECOND_NS, 0);
        assert_eq!(agent.next_deadline(), Some(14 * SECOND_NS));
        (14..40).for_each(|second| {
            agent.poll_action(second * SECOND_NS);
        });
        let expected = [
            "collector 127.0.0.1:8094 is not reachable: refused; points are kept and sent later",
            "collector is back after 4 s; 0 points dropped since boot",
        ];
        assert_eq!(*heard.borrow(), expected);
    }

    /// Drives an agent for `until_ns` against a peer that acknowledges all and closes after `life_ns`.
    fn meet_closing_peer(agent: &mut Agent, until_ns: u64, life_ns: u64) -> Vec<String> {
        let (mut now, mut closes_at, mut connections) = (0, None, Vec::new());
        while now < until_ns {
            agent.handle_tick(now, 0);
            match agent.poll_action(now) {
                Action::Connect => {
                    agent.handle_connected(now);
                    connections.push(String::new());
                    closes_at = Some(now + life_ns);
                }
                _ if closes_at.is_some_and(|at| now >= at) => {
                    closes_at = None;
                    agent.handle_disconnected(now, "closed", 0, 0);
                }
                _ => {}
            }
            let sent = waiting(agent);
            if let Some(connection) = connections.last_mut() {
                connection.push_str(&sent);
            }
            agent.handle_sent(sent.len());
            agent.handle_unacknowledged(0);
            now = agent.next_deadline().expect("reports").min(closes_at.unwrap_or(u64::MAX));
        }
        connections
    }

    #[test]
    fn a_peer_that_closes_every_connection_at_once_is_met_seldom_and_reported_once() {
        let logs = Logs::default();
        let heard = Rc::new(RefCell::new(Vec::new()));
        let ears = Rc::clone(&heard);
        logs.add_sink(move |r| ears.borrow_mut().push(r.message.to_string()));
        let mut agent = with_source(10_000, &logs);
        let connections = meet_closing_peer(&mut agent, 60 * SECOND_NS, 0);
        assert!((15..40).contains(&connections.len()), "{} connections", connections.len());
        assert_eq!(heard.borrow().len(), 1, "{:?}", heard.borrow());
    }

    #[test]
    fn what_a_peer_acknowledged_and_closed_on_within_a_second_is_sent_again() {
        let mut agent = with_source(10_000, &Logs::default());
        let connections = meet_closing_peer(&mut agent, 60 * SECOND_NS, SECOND_NS - 1);
        let last = connections.last().expect("a connection");
        let points: Vec<_> = last.lines().filter_map(|line| line.split([' ', '=']).nth(3)).collect();
        assert_eq!(points.first().copied(), Some("1i"), "{last}");
        let mut agent = with_source(10_000, &Logs::default());
        let connections = meet_closing_peer(&mut agent, 60 * SECOND_NS, 2 * SECOND_NS);
        assert!(!connections.last().expect("a connection").contains("n=1i"), "{connections:?}");
    }

    #[test]
    fn without_a_collector_nothing_is_collected() {
        let config = Config { name: "x".into(), monitor: None, interval_seconds: 1, ring_bytes: 100 };
        let mut agent = Agent::new(&config, &Logs::default());
        assert_eq!((agent.handle_tick(0, 0), agent.poll_action(0)), (0, Action::None));
        assert_eq!(agent.next_deadline(), None);
    }

    #[test]
    fn a_change_through_the_control_port_is_logged() {
        let logs = Logs::default();
        let heard = Rc::new(RefCell::new(Vec::new()));
        let ears = Rc::clone(&heard);
        logs.add_sink(move |r| ears.borrow_mut().push(r.message.to_string()));
        let mut agent = agent(1000, &logs);
        for command in [&b"Mlogs:on\n"[..], b"m\n"] {
            let (mut session, mut reply) = (ControlSession::new(), String::new());
            agent.handle_control_input(&mut session, command, 0, &mut reply);
        }
        assert_eq!(*heard.borrow(), ["command 'Mlogs:on': ok"]);
    }

    #[test]
    fn the_agent_reports_on_itself() {
        let mut agent = agent(1000, &Logs::default());
        let on = uni_wire::control::MetricTarget::Source("agent");
        agent.registry_mut().set(on, uni_wire::control::Switch::On);
        agent.handle_connected(0);
        agent.handle_tick(0, 3);
        let expected = "agent,vm=web queued_bytes=0i,dropped_points=0i,reconnects=0i,sent_bytes=0i,refused_commands=0i 3\n";
        assert_eq!(waiting(&agent), expected);
    }
}
