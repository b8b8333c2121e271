//! Monitoring, for the programs that ask for it: the agent, its sources that every guest has, and the link it
//! reports over. A program that does not ask opens no port and sends no point.

use crate::heap;
use crate::memtrace::Memtrace;
use crate::network::Network;
use crate::reporter::Reporter;
use uni_guest::sources::{HeapStats, register_heap, register_link};
use uni_guest::{Agent, Arguments, Config, Log, Logs, Periodic, Registry, SyslogQueue};

/// Size of the main stack, as laid out in `boot.s`.
const STACK_BYTES: u64 = 131_072;

/// What collects, and what carries it.
#[derive(Debug)]
pub(crate) struct Monitoring {
    agent: Agent,
    reporter: Option<Reporter>,
    memtrace: Option<Memtrace>,
}

impl Monitoring {
    /// Starts it with the sources of a guest itself. Monitoring has a link of its own; a guest with one link, as
    /// MirageOS guests have, reports over that.
    pub(crate) fn start(
        arguments: &Arguments,
        logs: &Logs,
        log: &Log,
        queue: &SyslogQueue,
        service: Option<&mut Network>,
        management: Option<&mut Network>,
    ) -> Self {
        arguments.warnings().for_each(|warning| log.warning(format_args!("{warning}")));
        let mut agent = Agent::new(&Config::from_arguments(arguments), logs);
        agent.set_control_token(arguments.control_token.clone());
        agent.set_sampling_rate(arguments.memtrace_rate);
        register_own_heap(agent.registry_mut());
        uni_guest::heap::register(agent.registry_mut());
        for (name, link) in [("service", &service), ("management", &management)] {
            if let Some(link) = link {
                register_own_link(agent.registry_mut(), name, link);
            }
        }
        // What is told to whoever asks is told on the management link only.
        let metrics_port = arguments.metrics_port.filter(|_| management.is_some());
        let memtrace_port = arguments.memtrace_port.filter(|_| management.is_some());
        if metrics_port.is_some() {
            agent.registry_mut().set_reporting(true);
        }
        let memtrace = |link: &mut Network| memtrace_port.map(|port| Memtrace::new(link, port, arguments));
        let reporter = management.or(service).map(|link| {
            let memtrace = memtrace(link);
            (Reporter::new(link, arguments, metrics_port, logs, queue), memtrace)
        });
        let (reporter, memtrace) = reporter.unzip();
        if reporter.is_none() {
            log.warning(format_args!("no network link: nothing is reported"));
        }
        Self { agent, reporter, memtrace: memtrace.flatten() }
    }

    /// The metric sources.
    pub(crate) fn registry(&mut self) -> &mut Registry {
        self.agent.registry_mut()
    }

    /// Does what is due over the link it was started with; returns when the next turn is.
    pub(crate) fn turn(&mut self, link: &mut Network, now_ns: u64) -> Option<u64> {
        let traced_ns = self
            .memtrace
            .as_mut()
            .and_then(|memtrace| memtrace.turn(link, self.agent.sampling_rate(), now_ns));
        let reported_ns = self.reporter.as_mut()?.turn(&mut self.agent, link, now_ns);
        traced_ns.into_iter().chain(reported_ns).min()
    }

    /// Closes all connections in good order.
    pub(crate) fn close(&mut self, link: &mut Network) {
        if let Some(mut memtrace) = self.memtrace.take() {
            memtrace.close(link);
        }
        if let Some(mut reporter) = self.reporter.take() {
            reporter.close(link);
        }
    }
}

fn register_own_heap(registry: &mut Registry) {
    register_heap(registry, Some(STACK_BYTES), || {
        let heap = heap::heap_statistics();
        HeapStats { total_bytes: heap.size_bytes, live_bytes: heap.live_bytes, peak_bytes: heap.peak_bytes }
    });
}

fn register_own_link(registry: &mut Registry, name: &'static str, link: &Network) {
    let counters = link.counters();
    register_link(registry, name, &counters.carried);
    let drops = Periodic::new("net drops", |fields| {
        fields.total("dropped packets", counters.dropped_frames.get());
    });
    registry.register(drops.doc("frames lost inside the guest").tag("link", name));
}
