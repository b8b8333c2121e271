//! The newest figures of each VM, in memory: what `uni stats` and the page show between two stored points.
//!
//! Owns one bounded ring a curve, and the broadcast that feeds open pages. Never writes to the store and is
//! never asked by `/query`; after a restart of the daemon it starts empty and the page reads history instead.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use tokio::sync::broadcast;
use uni_api::page::{Curve, Mark};
use uni_api::vm::Stats;
use uni_wire::{FieldValue, Timestamp};

/// Points kept per curve: 15 minutes at one a second.
const RING_POINTS: usize = 900;
/// Events a page may lag behind before it loses some (it then asks for the charts again).
const BROADCAST_EVENTS: usize = 256;
/// Names of foreign senders followed at most; further ones are stored all the same, and not shown live. VMs of our
/// own always have a place.
const MAX_FOREIGN: usize = 1024;

/// Something an open page wants to know.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// New points of one VM: key, milliseconds, value.
    Points { vm: String, points: Vec<(&'static str, i64, f64)> },
    /// A lifecycle event of one VM.
    Mark { vm: String, mark: Mark },
    /// A VM's state changed.
    State { vm: String, state: String },
}

/// The newest figures of all VMs, by name.
#[derive(Debug)]
pub(crate) struct Live {
    vms: Mutex<BTreeMap<String, VmLive>>,
    events: broadcast::Sender<Event>,
}

#[derive(Debug, Default)]
struct VmLive {
    curves: BTreeMap<&'static str, Ring>,
    /// The counters behind the rate curves: time in ms and value of the point before.
    counters: BTreeMap<&'static str, (i64, f64)>,
    stats: Option<Stats>,
}

/// A curve's newest points, ascending in time.
#[derive(Debug, Default)]
struct Ring(VecDeque<(i64, f64)>);

impl Ring {
    /// Adds a point unless it is not newer than the last one.
    fn push(&mut self, time_ms: i64, value: f64) -> bool {
        if self.0.back().is_some_and(|&(last, _)| last >= time_ms) {
            return false;
        }
        if self.0.len() == RING_POINTS {
            self.0.pop_front();
        }
        self.0.push_back((time_ms, value));
        true
    }
}

impl Default for Live {
    fn default() -> Self {
        Self { vms: Mutex::default(), events: broadcast::channel(BROADCAST_EVENTS).0 }
    }
}

impl Live {
    /// Events from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// A measurement from outside: figures for `uni stats`, points for the curves.
    pub(crate) fn observe_outside(
        &self,
        vm: &str,
        stats: Stats,
        time_ms: i64,
        values: &[(&'static str, f64)],
    ) {
        let points = self.with(vm, Admission::Always, |live| {
            live.stats = Some(stats);
            let pushed = values.iter().filter(|(key, value)| live.curve(key).push(time_ms, *value));
            pushed.map(|&(key, value)| (key, time_ms, value)).collect()
        });
        self.send_points(vm, points);
    }

    /// A point that came from inside (or from a foreign sender that names `vm`).
    pub(crate) fn observe_inside(
        &self,
        vm: &str,
        measurement: &str,
        fields: &[(Box<str>, FieldValue)],
        time: Timestamp,
    ) {
        if !INSIDE.iter().any(|shown| shown.measurement == measurement) {
            return;
        }
        let time_ms = time.nanos().div_euclid(1_000_000);
        let points = self.with(vm, Admission::IfRoom, |live| {
            let mut points = Vec::new();
            for (name, value) in fields {
                let Some(shown) = INSIDE.iter().find(|s| s.measurement == measurement && s.field == &**name)
                else {
                    continue;
                };
                let value = number(value).and_then(|value| shown.kind.value(live, shown.key, time_ms, value));
                if let Some(value) = value.filter(|&value| live.curve(shown.key).push(time_ms, value)) {
                    points.push((shown.key, time_ms, value));
                }
            }
            points
        });
        self.send_points(vm, points);
    }

    /// Whether a line of line protocol may be of a measurement that is drawn; most are not, and need no parsing.
    pub(crate) fn draws(line: &[u8]) -> bool {
        INSIDE.iter().any(|shown| {
            let rest = line.strip_prefix(shown.measurement.as_bytes());
            rest.is_some_and(|rest| matches!(rest.first(), Some(b',' | b' ')))
        })
    }

    /// Something happened to a VM.
    pub(crate) fn mark(&self, vm: &str, mark: Mark) {
        let _ = self.events.send(Event::Mark { vm: vm.to_owned(), mark });
    }

    /// A VM changed its state.
    pub(crate) fn state(&self, vm: &str, state: &str) {
        let _ = self.events.send(Event::State { vm: vm.to_owned(), state: state.to_owned() });
    }

    /// The newest figures from outside.
    pub(crate) fn stats(&self, vm: &str) -> Option<Stats> {
        self.vms.lock().unwrap_or_else(PoisonError::into_inner).get(vm)?.stats.clone()
    }

    /// The newest value of a curve, if it is not older than `oldest_ms`.
    pub(crate) fn latest(&self, vm: &str, key: &str, oldest_ms: i64) -> Option<f64> {
        let vms = self.vms.lock().unwrap_or_else(PoisonError::into_inner);
        let &(time_ms, value) = vms.get(vm)?.curves.get(key)?.0.back()?;
        (time_ms >= oldest_ms).then_some(value)
    }

    /// Everybody of whom figures came, by name, with the time of the newest.
    pub(crate) fn newest(&self) -> Vec<(String, i64)> {
        let vms = self.vms.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = |live: &VmLive| live.curves.values().filter_map(|ring| Some(ring.0.back()?.0)).max();
        vms.iter().filter_map(|(name, live)| Some((name.clone(), newest(live)?))).collect()
    }

    /// The curves' points from `from_ms` on.
    pub(crate) fn curves(&self, vm: &str, from_ms: i64) -> BTreeMap<&'static str, Curve> {
        let vms = self.vms.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(live) = vms.get(vm) else { return BTreeMap::new() };
        let newest = live.curves.iter().map(|(key, ring)| {
            let points = ring.0.iter().filter(|(time, _)| *time >= from_ms);
            (*key, points.map(|&(time, value)| (time, Some(value))).collect::<(Vec<_>, Vec<_>)>())
        });
        newest.map(|(key, (times, values))| (key, Curve { times, values })).collect()
    }

    /// Forgets a VM's figures: its process is gone.
    pub(crate) fn forget(&self, vm: &str) {
        self.vms.lock().unwrap_or_else(PoisonError::into_inner).remove(vm);
    }

    fn with<T: Default>(&self, vm: &str, admission: Admission, f: impl FnOnce(&mut VmLive) -> T) -> T {
        let mut vms = self.vms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(live) = vms.get_mut(vm) {
            return f(live);
        }
        if admission == Admission::IfRoom && vms.len() >= MAX_FOREIGN {
            return T::default();
        }
        f(vms.entry(vm.to_owned()).or_default())
    }

    fn send_points(&self, vm: &str, points: Vec<(&'static str, i64, f64)>) {
        if !points.is_empty() {
            // no open page is no error
            let _ = self.events.send(Event::Points { vm: vm.to_owned(), points });
        }
    }
}

/// Whether a name gets a place of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    /// It is a VM of ours.
    Always,
    /// Anybody may have made it up.
    IfRoom,
}

impl VmLive {
    fn curve(&mut self, key: &'static str) -> &mut Ring {
        self.curves.entry(key).or_default()
    }
}

/// A field from inside that the page draws.
struct Shown {
    measurement: &'static str,
    field: &'static str,
    key: &'static str,
    kind: Kind,
}

/// How a field becomes a curve.
enum Kind {
    /// The value times a factor.
    Gauge(f64),
    /// A counter: its increase per second; a fall (the guest restarted) is left out.
    Rate,
}

impl Kind {
    fn value(&self, live: &mut VmLive, key: &'static str, time_ms: i64, value: f64) -> Option<f64> {
        match self {
            Self::Gauge(factor) => Some(value * factor),
            Self::Rate => {
                let (then_ms, then) = live.counters.insert(key, (time_ms, value))?;
                let seconds = to_seconds(time_ms - then_ms);
                (seconds > 0.0 && value >= then).then(|| (value - then) / seconds)
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a distance of two points in milliseconds is far below 2^53")]
fn to_seconds(milliseconds: i64) -> f64 {
    milliseconds as f64 / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "a curve has some hundred pixels")]
fn number(value: &FieldValue) -> Option<f64> {
    match value {
        FieldValue::Float(v) => Some(*v),
        FieldValue::Integer(v) => Some(*v as f64),
        FieldValue::Unsigned(v) => Some(*v as f64),
        FieldValue::String(_) | FieldValue::Boolean(_) => None,
    }
}

const fn shown(measurement: &'static str, field: &'static str, key: &'static str, kind: Kind) -> Shown {
    Shown { measurement, field, key, kind }
}

/// What the page draws of the inside. OCaml's `gc` counts 8-byte words; where a guest sends `heap` too, that
/// comes first in its batch and the second value for the same moment is not drawn.
const INSIDE: &[Shown] = &[
    shown("heap", "heap_bytes", "guest_heap_bytes", Kind::Gauge(1.0)),
    shown("heap", "heap_live_bytes", "guest_live_bytes", Kind::Gauge(1.0)),
    shown("gc", "heap words", "guest_heap_bytes", Kind::Gauge(8.0)),
    shown("gc", "live words", "guest_live_bytes", Kind::Gauge(8.0)),
    shown("http_response", "2xx", "http_2xx", Kind::Rate),
    shown("http_response", "3xx", "http_3xx", Kind::Rate),
    shown("http_response", "4xx", "http_4xx", Kind::Rate),
    shown("http_response", "5xx", "http_5xx", Kind::Rate),
    shown("logs", "errors", "log_errors", Kind::Gauge(1.0)),
    shown("logs", "warnings", "log_warnings", Kind::Gauge(1.0)),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn integer(name: &str, value: i64) -> Vec<(Box<str>, FieldValue)> {
        vec![(name.into(), FieldValue::Integer(value))]
    }

    #[test]
    fn a_counter_becomes_a_rate_and_a_reset_leaves_a_hole() {
        let live = Live::default();
        for (second, count) in [(0, 10), (2, 30), (4, 5), (6, 7)] {
            live.observe_inside("web", "http_response", &integer("2xx", count), at(second));
        }
        let curve = &live.curves("web", 0)["http_2xx"];
        assert_eq!(curve.times, [2000, 6000]);
        assert_eq!(curve.values, [Some(10.0), Some(1.0)]);
    }

    #[test]
    fn words_and_bytes_of_the_same_moment_are_drawn_once() {
        let live = Live::default();
        live.observe_inside("web", "heap", &integer("heap_live_bytes", 800), at(1));
        live.observe_inside("web", "gc", &integer("live words", 99), at(1));
        assert_eq!(live.curves("web", 0)["guest_live_bytes"].values, [Some(800.0)]);
    }

    #[test]
    fn made_up_names_never_take_the_place_of_a_vm_of_ours() {
        let live = Live::default();
        for n in 0..2 * MAX_FOREIGN {
            live.observe_inside(&format!("x{n}"), "logs", &integer("errors", 1), at(1));
            live.observe_inside(&format!("y{n}"), "nothing that is drawn", &integer("v", 1), at(1));
        }
        assert_eq!(live.vms.lock().unwrap().len(), MAX_FOREIGN);
        live.observe_outside("mine", stats(), 1, &[("cpu_pct", 1.0)]);
        assert!(live.stats("mine").is_some());
    }

    fn stats() -> Stats {
        Stats {
            id: String::new(),
            state: String::new(),
            cpu_pct: 1.0,
            mem_bytes: 0,
            net_rx_bytes: 0,
            net_tx_bytes: 0,
            disk_bytes: 0,
            timestamp: String::new(),
            source: "proc".to_owned(),
            links: Vec::new(),
        }
    }

    #[test]
    fn rings_stay_bounded_and_late_points_are_not_drawn() {
        let live = Live::default();
        for second in 0..2000 {
            live.observe_inside("web", "logs", &integer("errors", second), at(second));
        }
        live.observe_inside("web", "logs", &integer("errors", 1), at(5));
        let curve = &live.curves("web", 0)["log_errors"];
        assert_eq!(curve.times.len(), RING_POINTS);
        assert_eq!(live.latest("web", "log_errors", 0), Some(1999.0));
        assert_eq!(live.latest("web", "log_errors", 2_000_000), None);
    }
}
