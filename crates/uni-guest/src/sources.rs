//! The sources that many programs have: heap, logs, network links, TCP, steps of the clock, HTTP answers.
//!
//! Owns names and fields: MirageOS's own where it has some, so that dashboards drawn for it go on drawing, and
//! plain ones beside them. Never measures; numbers come from the caller's closures and counters.

use alloc::rc::Rc;

use crate::counter::{Counter, Tally};
use crate::gauge::Gauge;
use crate::logs::Logs;
use crate::metrics::{Fields, Periodic, Registry};
use crate::source::{Field, Source};

/// Bytes of a word: the unit of MirageOS's heap figures on 64-bit machines.
const WORD_BYTES: u64 = 8;

/// The state of the heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeapStats {
    /// Bytes the allocator may hand out in all.
    pub total_bytes: u64,
    /// Bytes handed out.
    pub live_bytes: u64,
    /// Most bytes ever handed out at one time.
    pub peak_bytes: u64,
}

impl HeapStats {
    const fn free_bytes(&self) -> u64 {
        self.total_bytes.saturating_sub(self.live_bytes)
    }
}

/// Registers `heap` (bytes), and the same figures in words under MirageOS's names: `gc` and `memory`.
/// `stack_bytes` is the size of the stack, if it is known.
pub fn register_heap(
    registry: &mut Registry,
    stack_bytes: Option<u64>,
    stats: impl Fn() -> HeapStats + 'static,
) {
    let stats = Rc::new(stats);
    let of = Rc::clone(&stats);
    registry.register(
        Periodic::new("memory", move |f| {
            let heap = of();
            f.count("memory heap words", heap.total_bytes / WORD_BYTES)
                .count("memory live words", heap.live_bytes / WORD_BYTES)
                .count("memory free words", heap.free_bytes() / WORD_BYTES);
            if let Some(bytes) = stack_bytes {
                f.count("memory stack words", bytes / WORD_BYTES);
            }
        })
        .doc("heap and stack in words of 8 bytes"),
    );
    let of = Rc::clone(&stats);
    registry.register(
        Periodic::new("gc", move |f| {
            let heap = of();
            f.count("heap words", heap.total_bytes / WORD_BYTES)
                .count("live words", heap.live_bytes / WORD_BYTES)
                .count("free words", heap.free_bytes() / WORD_BYTES)
                .count("top heap words", heap.peak_bytes / WORD_BYTES);
        })
        .doc("heap in words of 8 bytes, under the names of a garbage collector"),
    );
    registry.register(
        Periodic::new("heap", move |f| {
            let heap = stats();
            f.count("heap_bytes", heap.total_bytes)
                .count("heap_live_bytes", heap.live_bytes)
                .count("heap_free_bytes", heap.free_bytes())
                .count("heap_peak_bytes", heap.peak_bytes);
        })
        .doc("heap in bytes"),
    );
}

/// Registers `logs`: messages made since boot, by level, shown or not.
pub fn register_logs(registry: &mut Registry, logs: &Logs) {
    let logs = logs.clone();
    registry.register(
        Periodic::new("logs", move |f| {
            let counts = logs.counts();
            f.total("errors", counts.errors)
                .total("warnings", counts.warnings)
                .total("app", counts.app)
                .total("info", counts.info)
                .total("debug", counts.debug);
        })
        .doc("log messages by level"),
    );
}

/// What went over one network link; fit to be a `static`.
#[derive(Debug, Default)]
pub struct LinkCounters {
    received_bytes: Tally,
    received_packets: Tally,
    transmitted_bytes: Tally,
    transmitted_packets: Tally,
}

impl LinkCounters {
    /// All at zero.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            received_bytes: Tally::new(),
            received_packets: Tally::new(),
            transmitted_bytes: Tally::new(),
            transmitted_packets: Tally::new(),
        }
    }

    /// Counts a frame that came in, with its Ethernet header.
    pub fn received(&self, bytes: usize) {
        self.received_packets.increment();
        self.received_bytes.add(bytes as u64);
    }

    /// Counts a frame that went out, with its Ethernet header.
    pub fn transmitted(&self, bytes: usize) {
        self.transmitted_packets.increment();
        self.transmitted_bytes.add(bytes as u64);
    }

    fn figures(&self) -> LinkFigures {
        LinkFigures {
            received_bytes: self.received_bytes.get(),
            received_packets: self.received_packets.get(),
            transmitted_bytes: self.transmitted_bytes.get(),
            transmitted_packets: self.transmitted_packets.get(),
        }
    }
}

/// What went over one network link so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkFigures {
    pub(crate) received_bytes: u64,
    pub(crate) received_packets: u64,
    pub(crate) transmitted_bytes: u64,
    pub(crate) transmitted_packets: u64,
}

/// Fills in the fields of a `net`.
pub(crate) fn write_link(fields: &mut Fields<'_>, figures: LinkFigures) {
    fields
        .total("received bytes", figures.received_bytes)
        .total("received packets", figures.received_packets)
        .total("transmitted bytes", figures.transmitted_bytes)
        .total("transmitted packets", figures.transmitted_packets);
}

/// Registers `net` for the link called `link` (`service` or `management`).
pub fn register_link(registry: &mut Registry, link: &str, counters: &'static LinkCounters) {
    registry.register(
        Periodic::new("net", |fields| write_link(fields, counters.figures()))
            .doc("frames of a network link")
            .tag("link", link),
    );
}

/// HTTP answers by status class, as a source `http_response` that is declared; MirageOS's `unipi` has the same.
///
/// ```
/// use uni_guest::sources::{HttpResponses, http_response};
/// use uni_guest::{Source, source};
/// static RESPONSES: HttpResponses = HttpResponses::new();
/// source! { static HTTP: Source = http_response(&RESPONSES.fields()); }
/// RESPONSES.count(204);
/// ```
#[derive(Debug, Default)]
pub struct HttpResponses {
    classes: [Counter; 5],
    total: Counter,
}

impl HttpResponses {
    /// All at zero.
    #[must_use]
    pub const fn new() -> Self {
        Self { classes: [const { Counter::new() }; 5], total: Counter::new() }
    }

    /// Counts an answer with `status`; one outside 100 to 599 counts in the total only.
    pub fn count(&self, status: u16) {
        self.total.increment();
        let class = usize::from(status / 100).wrapping_sub(1);
        if let Some(counter) = self.classes.get(class) {
            counter.increment();
        }
    }

    /// The fields: `total`, then a class each.
    #[must_use]
    pub const fn fields(&'static self) -> [Field; 6] {
        let [c1, c2, c3, c4, c5] = &self.classes;
        [
            Field::counter("total", &self.total).unit("answers").doc("HTTP answers"),
            Field::counter("1xx", c1).unit("answers").doc("HTTP answers that announce more"),
            Field::counter("2xx", c2).unit("answers").doc("HTTP answers that succeeded"),
            Field::counter("3xx", c3).unit("answers").doc("HTTP answers that point elsewhere"),
            Field::counter("4xx", c4).unit("answers").doc("HTTP answers to bad requests"),
            Field::counter("5xx", c5).unit("answers").doc("HTTP answers that failed here"),
        ]
    }
}

/// The source of a `static` [`HttpResponses`], of whose [`fields`](HttpResponses::fields) it is made.
#[must_use]
pub const fn http_response(fields: &'static [Field; 6]) -> Source {
    Source::new("http_response").doc("HTTP answers by status class").fields(fields)
}

/// How often a wall clock jumped, and how far; fit to be a `static`. MirageOS has no such source.
#[derive(Debug, Default)]
pub struct ClockSteps {
    steps: Counter,
    stepped_ns: Counter,
}

impl ClockSteps {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { steps: Counter::new(), stepped_ns: Counter::new() }
    }

    /// Counts a step over `off_ns` nanoseconds, to whichever side.
    pub fn count(&self, off_ns: u64) {
        self.steps.increment();
        self.stepped_ns.add(off_ns);
    }

    /// The fields of a source, best called `clock`.
    #[must_use]
    pub const fn fields(&'static self) -> [Field; 2] {
        [
            Field::counter("steps", &self.steps).unit("steps").doc("jumps of the wall clock"),
            Field::counter("stepped_ns", &self.stepped_ns).unit("ns").doc("how far it jumped, in all"),
        ]
    }
}

/// The source of a `static` [`ClockSteps`].
#[must_use]
pub const fn clock(fields: &'static [Field; 2]) -> Source {
    Source::new("clock").doc("steps of the wall clock").fields(fields)
}

/// TCP connections by state, spelled as MirageOS's `tcp` source; fit to be a `static`. A stack that follows its
/// connections fills it in.
#[derive(Debug, Default)]
pub struct TcpConnections {
    half_open: Gauge,
    established: Gauge,
    client: Gauge,
    total_half_open: Counter,
    total_established: Counter,
    total_client: Counter,
}

/// How far a TCP connection has come, as far as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    /// There is none, or it is ending.
    None,
    /// The peer has begun, and did not confirm yet.
    SynReceived,
    /// This side has begun, and waits for an answer.
    SynSent,
    /// Both agree.
    Established,
}

impl TcpConnections {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            half_open: Gauge::new(),
            established: Gauge::new(),
            client: Gauge::new(),
            total_half_open: Counter::new(),
            total_established: Counter::new(),
            total_client: Counter::new(),
        }
    }

    /// A connection has gone from one state to another.
    pub fn moved(&self, from: TcpState, to: TcpState) {
        if from == to {
            return;
        }
        if let Some(gauge) = self.gauge(from) {
            gauge.subtract(1);
        }
        if let Some(gauge) = self.gauge(to) {
            gauge.add(1);
        }
        match to {
            TcpState::None => {}
            TcpState::SynReceived => self.total_half_open.increment(),
            TcpState::SynSent => self.total_client.increment(),
            TcpState::Established => self.total_established.increment(),
        }
    }

    const fn gauge(&self, state: TcpState) -> Option<&Gauge> {
        match state {
            TcpState::None => None,
            TcpState::SynReceived => Some(&self.half_open),
            TcpState::SynSent => Some(&self.client),
            TcpState::Established => Some(&self.established),
        }
    }

    /// The fields of a source, best called `tcp`.
    #[must_use]
    pub const fn fields(&'static self) -> [Field; 6] {
        const UNIT: &str = "connections";
        [
            Field::gauge("syn-rcvd state", &self.half_open).unit(UNIT).doc("begun by a peer, not confirmed"),
            Field::gauge("established state", &self.established).unit(UNIT).doc("open"),
            Field::gauge("client connections", &self.client).unit(UNIT).doc("begun here, not answered"),
            Field::counter("total syn-rcvd", &self.total_half_open).unit(UNIT).doc("begun by peers"),
            Field::counter("total established", &self.total_established).unit(UNIT).doc("opened"),
            Field::counter("total client", &self.total_client).unit(UNIT).doc("begun here"),
        ]
    }
}

/// The source of a `static` [`TcpConnections`].
#[must_use]
pub const fn tcp(fields: &'static [Field; 6]) -> Source {
    Source::new("tcp").doc("TCP connections by state").fields(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use uni_wire::Timestamp;

    #[test]
    fn fields_are_spelled_as_mirage_spells_them() {
        static LINK: LinkCounters = LinkCounters::new();
        static RESPONSES: HttpResponses = HttpResponses::new();
        static HTTP: Source = http_response(&RESPONSES.fields());
        let mut registry = Registry::new();
        let heap = HeapStats { total_bytes: 800, live_bytes: 80, peak_bytes: 160 };
        register_heap(&mut registry, Some(16), move || heap);
        register_logs(&mut registry, &Logs::default());
        register_link(&mut registry, "service", &LINK);
        let mut declared = Some(&HTTP);
        registry.discover(move || declared.take());
        registry.set_reporting(true);
        registry.adopt();
        LINK.received(60);
        RESPONSES.count(204);
        RESPONSES.count(700);
        let mut out = String::new();
        registry.collect("v", Timestamp(1), |l| out.push_str(core::str::from_utf8(l).expect("text")));
        let expected = r"memory,vm=v memory\ heap\ words=100i,memory\ live\ words=10i,memory\ free\ words=90i,memory\ stack\ words=2i 1
gc,vm=v heap\ words=100i,live\ words=10i,free\ words=90i,top\ heap\ words=20i 1
heap,vm=v heap_bytes=800i,heap_live_bytes=80i,heap_free_bytes=720i,heap_peak_bytes=160i 1
logs,vm=v errors=0i,warnings=0i,app=0i,info=0i,debug=0i 1
net,vm=v,link=service received\ bytes=60i,received\ packets=1i,transmitted\ bytes=0i,transmitted\ packets=0i 1
http_response,vm=v total=2i,1xx=0i,2xx=1i,3xx=0i,4xx=0i,5xx=0i 1
";
        assert_eq!(out, expected);
    }

    #[test]
    fn tcp_levels_follow_the_connections() {
        static TCP: TcpConnections = TcpConnections::new();
        static SOURCE: Source = tcp(&TCP.fields());
        SOURCE.switch(true);
        for (from, to) in [
            (TcpState::None, TcpState::SynReceived),
            (TcpState::SynReceived, TcpState::Established),
            (TcpState::None, TcpState::SynSent),
            (TcpState::Established, TcpState::Established),
            (TcpState::SynSent, TcpState::None),
        ] {
            TCP.moved(from, to);
        }
        let levels = [TCP.half_open.get(), TCP.established.get(), TCP.client.get()];
        let totals = [TCP.total_half_open.get(), TCP.total_established.get(), TCP.total_client.get()];
        assert_eq!((levels, totals), ([0, 1, 0], [1, 1, 1]));
    }
}
