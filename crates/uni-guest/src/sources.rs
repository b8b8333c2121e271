//! The sources that every guest has: heap, logs, network links, HTTP answers.
//!
//! Owns names and fields: MirageOS's own where it has some, so that dashboards drawn for it go on drawing, and
//! plain ones beside them. Never measures; numbers come from the caller's closures and counters.

use alloc::rc::Rc;

use crate::counter::Tally;
use crate::logs::Logs;
use crate::metrics::{Periodic, Registry};

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
            f.count("errors", counts.errors)
                .count("warnings", counts.warnings)
                .count("app", counts.app)
                .count("info", counts.info)
                .count("debug", counts.debug);
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
}

/// Registers `net` for the link called `link` (`service` or `management`).
pub fn register_link(registry: &mut Registry, link: &str, counters: &'static LinkCounters) {
    registry.register(
        Periodic::new("net", |f| {
            f.count("received bytes", counters.received_bytes.get())
                .count("received packets", counters.received_packets.get())
                .count("transmitted bytes", counters.transmitted_bytes.get())
                .count("transmitted packets", counters.transmitted_packets.get());
        })
        .doc("frames of a network link")
        .tag("link", link),
    );
}

/// HTTP answers by status class; fit to be a `static`.
#[derive(Debug, Default)]
pub struct HttpResponses {
    classes: [Tally; 5],
    total: Tally,
}

/// The classes' names, from 100 to 599.
const HTTP_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl HttpResponses {
    /// All at zero.
    #[must_use]
    pub const fn new() -> Self {
        Self { classes: [const { Tally::new() }; 5], total: Tally::new() }
    }

    /// Counts an answer with `status`; one outside 100 to 599 counts in the total only.
    pub fn count(&self, status: u16) {
        self.total.increment();
        let class = usize::from(status / 100).wrapping_sub(1);
        if let Some(counter) = self.classes.get(class) {
            counter.increment();
        }
    }
}

/// Registers `http_response`: answers by status class, and their `total`.
pub fn register_http(registry: &mut Registry, responses: &'static HttpResponses) {
    registry.register(
        Periodic::new("http_response", |f| {
            f.count("total", responses.total.get());
            for (name, counter) in HTTP_CLASSES.iter().zip(&responses.classes) {
                f.count(name, counter.get());
            }
        })
        .doc("HTTP answers by status class"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use uni_wire::Timestamp;

    #[test]
    fn fields_are_spelled_as_mirage_spells_them() {
        static LINK: LinkCounters = LinkCounters::new();
        static HTTP: HttpResponses = HttpResponses::new();
        let mut registry = Registry::new();
        let heap = HeapStats { total_bytes: 800, live_bytes: 80, peak_bytes: 160 };
        register_heap(&mut registry, Some(16), move || heap);
        register_logs(&mut registry, &Logs::default());
        register_link(&mut registry, "service", &LINK);
        register_http(&mut registry, &HTTP);
        LINK.received(60);
        HTTP.count(204);
        HTTP.count(700);
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
}
