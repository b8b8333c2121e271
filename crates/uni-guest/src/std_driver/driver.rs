//! The agent's thread.
//!
//! Owns all that the agent needs of the operating system, and the loop over it: hear, do what is due, sleep until the
//! next deadline or until a socket or the bell wakes it. Nothing in it waits for one peer.

use alloc::rc::Rc;
use alloc::string::String;
use alloc::sync::Arc;
use core::cell::Cell;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::vec::Vec;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::AsFd as _;

use super::Counts;
use super::clock::{Clock, StepWatch, random, wall_ns};
use super::collector::Collector;
use super::config::Config;
use super::links::Links;
use super::memtrace::TracePort;
use super::outlet::Outlet;
use super::port::Port;
use super::wake::Wake;
use crate::agent::{self, Agent};
use crate::args::Arguments;
use crate::bridge::{Messages, Pump, Recorder};
use crate::control::ControlSession;
use crate::conversation;
use crate::heap;
use crate::logs::{Log, Logs, Record};
use crate::machine::register_tcp;
use crate::metrics::{Periodic, Registry};
use crate::process::{self, ProcessFiles, register_process};
use crate::scrape::ScrapeSession;
use crate::sources;
use crate::syslog::{SyslogQueue, Timestamp};

const MILLISECOND_NS: u64 = 1_000_000;
/// How long what was made last may take to get out when the program ends.
const FLUSH_NS: u64 = 2_000 * MILLISECOND_NS;
/// An acknowledgement wakes nobody: how often it is looked for when the program ends.
const FLUSH_LOOK_NS: u64 = 10 * MILLISECOND_NS;
/// Messages of the program's threads that wait for this one.
const MESSAGES: usize = 1024;
/// Messages that wait for the syslog sink.
const SYSLOG_MESSAGES: usize = 1024;
/// The longest datagram of UDP over IPv4.
const MAX_DATAGRAM_BYTES: usize = 65_507;

/// The ports, opened before the thread starts so that who starts it hears if they cannot be had.
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) control: Option<Port<ControlSession>>,
    pub(super) scrape: Option<Port<ScrapeSession>>,
    /// An error is told, and that is all.
    pub(super) memtrace: Option<io::Result<TracePort>>,
}

impl Ports {
    pub(super) fn memtrace_address(&self) -> Option<SocketAddr> {
        self.memtrace.as_ref()?.as_ref().ok()?.address().ok()
    }
}

/// Figures of the driver's own sources.
#[derive(Debug, Default)]
struct Figures {
    sent_messages: Cell<u64>,
    steps: Cell<u64>,
    stepped_ns: Cell<u64>,
}

#[derive(Debug)]
pub(super) struct Driver {
    wake: Arc<Wake>,
    counts: Arc<Mutex<Counts>>,
    clock: Clock,
    agent: Agent,
    messages: Messages,
    pump: Pump,
    syslog: SyslogQueue,
    collector: Collector,
    ports: Ports,
    outlet: Option<Outlet>,
    steps: StepWatch,
    links: Links,
    figures: Rc<Figures>,
}

impl Driver {
    /// On the thread that will run it. The bridges are for other threads.
    pub(super) fn new(
        config: Config,
        ports: Ports,
        wake: Arc<Wake>,
        counts: Arc<Mutex<Counts>>,
    ) -> io::Result<(Self, Messages, Recorder)> {
        let arguments = &config.arguments;
        let logs = Logs::default();
        let syslog = SyslogQueue::new(&arguments.name, SYSLOG_MESSAGES);
        syslog.set_format(arguments.syslog_format);
        syslog.set_truncation(arguments.syslog_truncation(MAX_DATAGRAM_BYTES));
        if config.console {
            logs.add_sink(to_standard_error);
        }
        let outlet = arguments.syslog.map(|sink| {
            logs.add_sink(syslog.sink(|| Timestamp(wall_ns())));
            Outlet::new(
                sink,
                arguments.syslog_transport.framing(),
                config.sink_opener(),
                syslog.clone(),
                &logs,
            )
        });
        let bell = Arc::clone(&wake);
        let (messages, pump) = Messages::with_wake(&logs, MESSAGES, move || bell.ring());
        let ring_bytes = config.ring_bytes;
        let mut agent =
            Agent::new(&agent::Config { ring_bytes, ..agent::Config::from_arguments(arguments) }, &logs);
        agent.set_control_token(arguments.control_token.clone());
        agent.set_sampling_rate(arguments.memtrace_rate);
        arguments.apply_logs(&logs);
        let registry = agent.registry_mut();
        let recorder = Recorder::new(registry);
        let figures = Rc::new(Figures::default());
        register_process(registry, read_process);
        match config.heap {
            Some(stats) => sources::register_heap(registry, None, stats),
            None => process::register_heap(registry, || read_text("/proc/self/status")),
        }
        register_tcp(registry, || read_text("/proc/self/net/snmp"));
        register_own(registry, &figures, &syslog, &messages);
        start_heap(registry, arguments, &ports, &logs.source("heap", "who holds the heap"));
        if let Some(setup) = config.setup {
            setup(registry);
        }
        if ports.scrape.is_some() {
            registry.set_reporting(true);
        }
        let clock = Clock::start();
        let driver = Self {
            wake,
            counts,
            clock,
            agent,
            messages: messages.clone(),
            pump,
            syslog,
            collector: Collector::default(),
            ports,
            outlet: outlet.transpose()?,
            steps: StepWatch::new(clock.now_ns(), wall_ns()),
            links: Links::default(),
            figures,
        };
        Ok((driver, messages, recorder))
    }

    /// Until the program ends.
    pub(super) fn run(mut self) {
        loop {
            let next_ns = self.turn();
            if self.wake.is_stopping() {
                break;
            }
            self.sleep(next_ns);
        }
        self.flush();
    }

    /// Collects once more and sends what can be sent; who is away or takes nothing is not waited for.
    fn flush(&mut self) {
        let until_ns = self.clock.now_ns() + FLUSH_NS;
        self.agent.collect_soon();
        loop {
            self.turn();
            let now_ns = self.clock.now_ns();
            let collector_moves = self.collector.is_connected() && !self.collector.is_idle(&self.agent);
            let outlet_moves =
                self.outlet.as_ref().is_some_and(|outlet| !outlet.is_idle() && outlet.is_moving(now_ns));
            if now_ns >= until_ns || !(collector_moves || outlet_moves || self.collector.is_connecting()) {
                return;
            }
            self.sleep(Some(now_ns + FLUSH_LOOK_NS));
        }
    }

    /// Does what is due; returns when the next turn is.
    fn turn(&mut self) -> Option<u64> {
        self.wake.hear();
        let more_messages = self.pump.run() >= MESSAGES;
        let now_ns = self.clock.now_ns();
        self.tick(now_ns);
        self.collector.turn(&mut self.agent, now_ns);
        let served_ns = self.serve(now_ns);
        let outlet_ns = self.outlet.as_mut().and_then(|outlet| outlet.turn(now_ns));
        self.tell();
        let at_once = more_messages.then_some(now_ns);
        [served_ns, outlet_ns, self.agent.next_deadline(), at_once].into_iter().flatten().min()
    }

    fn tick(&mut self, now_ns: u64) {
        let wall_ns = wall_ns();
        let figures = &self.figures;
        if let Some(off_ns) = self.steps.look(now_ns, wall_ns) {
            figures.steps.set(figures.steps.get() + 1);
            figures.stepped_ns.set(figures.stepped_ns.get() + off_ns);
        }
        figures.sent_messages.set(self.outlet.as_ref().map_or(0, Outlet::sent_messages));
        self.links.look(self.agent.registry_mut(), now_ns);
        // New metrics are switched before long, also where nobody collects.
        self.agent.registry_mut().adopt();
        self.agent.handle_tick(now_ns, wall_ns);
    }

    fn serve(&mut self, now_ns: u64) -> Option<u64> {
        let Self { agent, ports: Ports { control, scrape, memtrace }, .. } = self;
        let control_ns = control.as_mut().and_then(|port| {
            port.turn(now_ns, &mut |session, input, _| conversation::control(agent, session, input, now_ns))
        });
        let scrape_ns = scrape.as_mut().and_then(|port| {
            port.turn(now_ns, &mut |session, input, started_ns| {
                conversation::scrape(agent, session, input, started_ns, now_ns)
            })
        });
        let memtrace_ns =
            memtrace.iter_mut().flatten().find_map(|port| port.turn(agent.sampling_rate(), now_ns));
        [control_ns, scrape_ns, memtrace_ns].into_iter().flatten().min()
    }

    /// Tells the other threads how it fares.
    fn tell(&self) {
        let counts = Counts {
            agent: self.agent.figures(),
            is_connected: self.collector.is_connected(),
            sent_messages: self.outlet.as_ref().map_or(0, Outlet::sent_messages),
            dropped_messages: self.syslog.dropped() + self.messages.dropped(),
        };
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }

    fn sleep(&self, until_ns: Option<u64>) {
        let now_ns = self.clock.now_ns();
        let timeout = until_ns.map(|until_ns| timespec(until_ns.saturating_sub(now_ns)));
        let mut interests: Vec<PollFd<'_>> = Vec::new();
        interests.push(PollFd::from_borrowed_fd(self.wake.ear().as_fd(), PollFlags::IN));
        interests.extend(self.collector.interest(&self.agent));
        interests.extend(self.outlet.as_ref().and_then(|outlet| outlet.interest(now_ns)));
        if let Some(port) = &self.ports.control {
            port.interest(now_ns, &mut interests);
        }
        if let Some(port) = &self.ports.scrape {
            port.interest(now_ns, &mut interests);
        }
        if let Some(Ok(port)) = &self.ports.memtrace {
            port.interest(now_ns, &mut interests);
        }
        // Interrupted by a signal, it only looks once more.
        let _ = poll(&mut interests, timeout.as_ref());
    }
}

fn timespec(ns: u64) -> Timespec {
    let seconds = i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX);
    Timespec { tv_sec: seconds, tv_nsec: (ns % 1_000_000_000).cast_signed() }
}

fn unix_seconds() -> i64 {
    wall_ns().div_euclid(1_000_000_000)
}

fn to_standard_error(record: &Record<'_>) {
    let mut line = String::new();
    // Writing to a string does not fail; if nobody reads standard error, there is nobody to tell.
    let _ = record.write_console(&mut line, unix_seconds());
    let _ = io::stderr().write_all(line.as_bytes());
}

fn read_process() -> ProcessFiles {
    ProcessFiles { stat: read_text("/proc/self/stat"), status: read_text("/proc/self/status") }
}

/// What cannot be read tells nothing.
fn read_text(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Begins to sample the heap, where the program's allocator lets it.
fn start_heap(registry: &mut Registry, arguments: &Arguments, ports: &Ports, log: &Log) {
    if let Some(Err(error)) = &ports.memtrace {
        log.warning(format_args!("{error}"));
    }
    if !heap::is_sampled() {
        return;
    }
    match heap::symbols::of_own_program() {
        Ok(map) => heap::set_libraries(map),
        Err(error) => log.warning(format_args!("{error}")),
    }
    if arguments.heap_profile && !heap::start_profile(usize::MAX, u64::from(random())) {
        log.warning(format_args!("no memory for the heap's profile"));
    }
    heap::register(registry);
}

fn register_own(registry: &mut Registry, figures: &Rc<Figures>, syslog: &SyslogQueue, messages: &Messages) {
    let (of, syslog, messages) = (Rc::clone(figures), syslog.clone(), messages.clone());
    let sources = Periodic::new("syslog", move |fields| {
        fields
            .total("sent_messages", of.sent_messages.get())
            .total("dropped_messages", syslog.dropped() + messages.dropped());
    });
    registry.register(sources.doc("messages on their way to the syslog sink"));
    let of = Rc::clone(figures);
    let clock = Periodic::new("clock", move |fields| {
        fields.total("steps", of.steps.get()).total("stepped_ns", of.stepped_ns.get());
    });
    registry.register(clock.doc("steps of the wall clock"));
}
