//! A recorder for the crate `metrics`.
//!
//! Owns a source for every name and set of labels, made at first use and kept for ever (so it is never freed).
//! Counting then is that of [`Counter`], [`FloatGauge`] and [`Histogram`], their switches included. Never reports.
//!
//! A metric is a source of its name, tagged by its labels, with one field: `total` (counter), `value` (gauge,
//! histogram). Histograms here hold whole numbers: those described in a unit of time, and those whose name ends in
//! `_seconds`, are kept in nanoseconds, all others rounded; negative values count as 0.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::HashMap;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use metrics::{CounterFn, GaugeFn, HistogramFn, Key, KeyName, Metadata, SharedString, Unit};

use crate::counter::Counter;
use crate::gauge::FloatGauge;
use crate::histogram::Histogram;
use crate::metrics::Registry;
use crate::source::{Field, Source};

/// Names with their labels that a program may use; those beyond record nothing.
pub const MAX_SERIES: usize = 1024;

/// Nanoseconds of a second, as `metrics` counts.
const SECOND_NS: f64 = 1e9;

/// See the module's page.
///
/// ```
/// use uni_guest::{Registry, bridge::Recorder};
/// let mut registry = Registry::new();
/// registry.set_reporting(true);
/// let recorder = Recorder::new(&mut registry);
/// metrics::with_local_recorder(&recorder, || metrics::counter!("jobs", "kind" => "mail").increment(0));
/// let mut lines = String::new();
/// registry.collect("vm", uni_wire::Timestamp(1), |line| lines.push_str(&String::from_utf8_lossy(line)));
/// assert_eq!(lines, "jobs,vm=vm,kind=mail total=0i 1\n");
/// ```
#[derive(Debug)]
pub struct Recorder {
    table: Mutex<Table>,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Table {
    counters: HashMap<Key, &'static Counter>,
    gauges: HashMap<Key, &'static FloatGauge>,
    histograms: HashMap<Key, (&'static Histogram, f64)>,
    described: HashMap<KeyName, (Option<Unit>, SharedString)>,
    /// One source for each series, so bounded like them.
    to_registry: Sender<&'static Source>,
}

impl Recorder {
    /// A recorder whose metrics `registry` reports from its next round on. A metric records from its first use;
    /// the next round sees whether it is on at all.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let (to_registry, from_recorder) = channel();
        registry.discover(move || from_recorder.try_recv().ok());
        let table = Table {
            counters: HashMap::new(),
            gauges: HashMap::new(),
            histograms: HashMap::new(),
            described: HashMap::new(),
            to_registry,
        };
        Self { table: Mutex::new(table), dropped: AtomicU64::new(0) }
    }

    /// Registrations refused because there are [`MAX_SERIES`] already.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The table, or nothing if it is full.
    fn table_for(&self, is_known: impl Fn(&Table) -> bool) -> Option<MutexGuard<'_, Table>> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if is_known(&table) || table.series() < MAX_SERIES {
            return Some(table);
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
        None
    }

    fn describe(&self, name: KeyName, unit: Option<Unit>, doc: SharedString) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.described.len() < MAX_SERIES {
            table.described.insert(name, (unit, doc));
        }
    }
}

impl Table {
    fn series(&self) -> usize {
        self.counters.len() + self.gauges.len() + self.histograms.len()
    }

    /// Declares a source with one field.
    fn declare(&self, key: &Key, unit: &'static str, field: Field) {
        let doc = self.described.get(key.name()).map_or("", |(_, doc)| leak(doc));
        let tags: Vec<_> = key.labels().map(|label| (leak(label.key()), leak(label.value()))).collect();
        let field: &'static [Field] = Box::leak(Box::new([field.unit(unit).doc(doc)]));
        let source = Source::new(leak(key.name())).doc(doc).tags(tags.leak()).fields(field);
        // The first use counts, although the registry does not know of it yet.
        source.switch(true);
        // Fails when the registry is gone: then nobody wants to know.
        let _ = self.to_registry.send(Box::leak(Box::new(source)));
    }

    fn unit(&self, key: &Key) -> Option<Unit> {
        self.described.get(key.name()).and_then(|(unit, _)| *unit)
    }

    /// By what values of a histogram are multiplied, and the unit they have then.
    fn scale(&self, key: &Key) -> (f64, &'static str) {
        match self.unit(key) {
            Some(Unit::Seconds) => (SECOND_NS, "ns"),
            Some(Unit::Milliseconds) => (SECOND_NS / 1e3, "ns"),
            Some(Unit::Microseconds) => (SECOND_NS / 1e6, "ns"),
            Some(Unit::Nanoseconds) => (1.0, "ns"),
            Some(unit) => (1.0, unit.as_str()),
            None if key.name().ends_with("_seconds") => (SECOND_NS, "ns"),
            None => (1.0, ""),
        }
    }
}

/// Sources are declared for ever. There are at most [`MAX_SERIES`].
fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, doc: SharedString) {
        self.describe(name, unit, doc);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, doc: SharedString) {
        self.describe(name, unit, doc);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, doc: SharedString) {
        self.describe(name, unit, doc);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> metrics::Counter {
        let Some(mut table) = self.table_for(|table| table.counters.contains_key(key)) else {
            return metrics::Counter::noop();
        };
        let known = table.counters.get(key).copied();
        let counter = known.unwrap_or_else(|| {
            let counter: &'static Counter = Box::leak(Box::default());
            let unit = table.unit(key).map_or("", |unit| unit.as_str());
            table.declare(key, unit, Field::counter("total", counter));
            table.counters.insert(key.clone(), counter);
            counter
        });
        metrics::Counter::from_arc(Arc::new(CounterHandle { counter, highest: AtomicU64::new(0) }))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> metrics::Gauge {
        let Some(mut table) = self.table_for(|table| table.gauges.contains_key(key)) else {
            return metrics::Gauge::noop();
        };
        let known = table.gauges.get(key).copied();
        let gauge = known.unwrap_or_else(|| {
            let gauge: &'static FloatGauge = Box::leak(Box::default());
            let unit = table.unit(key).map_or("", |unit| unit.as_str());
            table.declare(key, unit, Field::float_gauge("value", gauge));
            table.gauges.insert(key.clone(), gauge);
            gauge
        });
        metrics::Gauge::from_arc(Arc::new(GaugeHandle(gauge)))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> metrics::Histogram {
        let Some(mut table) = self.table_for(|table| table.histograms.contains_key(key)) else {
            return metrics::Histogram::noop();
        };
        let known = table.histograms.get(key).copied();
        let (histogram, factor) = known.unwrap_or_else(|| {
            let histogram: &'static Histogram = Box::leak(Box::default());
            let (factor, unit) = table.scale(key);
            table.declare(key, unit, Field::histogram("value", histogram));
            table.histograms.insert(key.clone(), (histogram, factor));
            (histogram, factor)
        });
        metrics::Histogram::from_arc(Arc::new(HistogramHandle { histogram, factor }))
    }
}

struct CounterHandle {
    counter: &'static Counter,
    /// The highest absolute value that was given.
    highest: AtomicU64,
}

impl CounterFn for CounterHandle {
    fn increment(&self, value: u64) {
        self.counter.add(value);
    }

    fn absolute(&self, value: u64) {
        let before = self.highest.fetch_max(value, Ordering::Relaxed);
        self.counter.add(value.saturating_sub(before));
    }
}

struct GaugeHandle(&'static FloatGauge);

impl GaugeFn for GaugeHandle {
    fn increment(&self, value: f64) {
        self.0.add(value);
    }

    fn decrement(&self, value: f64) {
        self.0.add(-value);
    }

    fn set(&self, value: f64) {
        self.0.set(value);
    }
}

struct HistogramHandle {
    histogram: &'static Histogram,
    factor: f64,
}

impl HistogramFn for HistogramHandle {
    #[expect(clippy::cast_sign_loss, reason = "what is below 0 counts as 0")]
    fn record(&self, value: f64) {
        if !value.is_nan() {
            // Beyond the range it is the largest value, and 0 below it.
            self.histogram.record((value * self.factor).round() as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use std::format;
    use uni_wire::Timestamp;
    use uni_wire::control::{MetricTarget, Switch};

    fn lines(registry: &mut Registry) -> String {
        let mut lines = String::new();
        registry.collect("v", Timestamp(1), |line| lines.push_str(&String::from_utf8_lossy(line)));
        lines
    }

    #[test]
    fn metrics_become_sources_that_can_be_turned_off() {
        let mut registry = Registry::new();
        registry.set_reporting(true);
        let recorder = Recorder::new(&mut registry);
        let work = || {
            metrics::counter!("jobs", "kind" => "mail").increment(2);
            metrics::gauge!("load").set(0.5);
            metrics::histogram!("wait_seconds").record(1e-9);
        };
        metrics::with_local_recorder(&recorder, work);
        lines(&mut registry);
        metrics::with_local_recorder(&recorder, work);
        registry.set(MetricTarget::Source("jobs"), Switch::Off);
        metrics::with_local_recorder(&recorder, work);
        registry.set(MetricTarget::Source("jobs"), Switch::On);
        let expected = "jobs,vm=v,kind=mail total=4i 1
load,vm=v value=0.5 1
wait_seconds,vm=v value_count=3i,value_sum=3i,value_p50=1i,value_p90=1i,value_p99=1i,value_max=1i,value_bucket_1=3i 1
";
        assert_eq!(lines(&mut registry), expected);
    }

    #[test]
    fn series_are_limited_and_those_beyond_counted() {
        let mut registry = Registry::new();
        let recorder = Recorder::new(&mut registry);
        metrics::with_local_recorder(&recorder, || {
            for n in 0..MAX_SERIES + 3 {
                metrics::gauge!("g", "n" => format!("{n}")).set(1.0);
            }
            metrics::gauge!("g", "n" => "0").set(1.0);
        });
        registry.adopt();
        assert_eq!((recorder.dropped(), registry.states().count()), (3, MAX_SERIES));
    }
}
