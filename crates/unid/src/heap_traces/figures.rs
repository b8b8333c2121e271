//! How heap traces fared since `unid` began, for `/metrics`.
//!
//! Owns the counters and what they are called there. Whoever takes a trace counts.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::metrics::Family;

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) taken: AtomicU64,
    pub(super) over: AtomicU64,
    pub(super) cut: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) events: AtomicU64,
    pub(super) dropped_events: AtomicU64,
}

impl Figures {
    pub(super) fn families(&self) -> [Family; 7] {
        let counter =
            |name, help, count: &AtomicU64| Family::counter(name, help).with(&[], count.load(Relaxed));
        // a trace is over after it was taken: in this order none is missing
        let over = self.over.load(Relaxed);
        let running = self.taken.load(Relaxed).saturating_sub(over);
        [
            Family::gauge("uni_heap_traces_running", "Heap traces of VMs that are being taken.")
                .with(&[], running),
            counter("uni_heap_traces_taken_total", "Heap traces of VMs that were begun.", &self.taken),
            counter(
                "uni_heap_traces_cut_total",
                "Heap traces that ended before all that the guest had recorded came.",
                &self.cut,
            ),
            counter(
                "uni_heap_traces_refused_total",
                "Heap traces that were asked for and not begun: one was being taken, or the guest gave none.",
                &self.refused,
            ),
            counter("uni_heap_traces_bytes_total", "Bytes of heap traces that were written.", &self.bytes),
            counter("uni_heap_traces_events_total", "Events of heap traces that came.", &self.events),
            counter(
                "uni_heap_traces_dropped_events_total",
                "Events that guests had no room for while a heap trace was taken, as they told at its end.",
                &self.dropped_events,
            ),
        ]
    }
}
