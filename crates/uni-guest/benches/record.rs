//! What a record costs, beside the crates `metrics` (with `metrics-exporter-prometheus`), `prometheus-client` and
//! `tracing`: all in one run, since only numbers of one run can be compared. Run it by
//! `cargo bench -p uni-guest --bench record`.
//!
//! Every case runs in turn, many rounds; the median of a case is shown, in nanoseconds for a record, and its ratio to
//! Uni's. Two threads: wall time of a round in which each records as often, by record and thread. 1.0 times one
//! thread's is perfect, given two free processors.
#![allow(missing_docs, reason = "a program")]

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use metrics::Recorder as _;
use prometheus_client::metrics::{counter, histogram};
use uni_guest::{Counter, Field, Histogram, Registry, Source, Timer, source};

static COUNTER: Counter = Counter::new();
static HISTOGRAM: Histogram = Histogram::new();
static TIMER: Timer = Timer::new();
static OFF_COUNTER: Counter = Counter::new();
static OFF_HISTOGRAM: Histogram = Histogram::new();
static OFF_TIMER: Timer = Timer::new();

source! {
    static ON: Source = Source::new("on").fields(&[
        Field::counter("counter", &COUNTER),
        Field::histogram("histogram", &HISTOGRAM),
        Field::timer("timer", &TIMER),
    ]);
    static OFF: Source = Source::new("off").fields(&[
        Field::counter("counter", &OFF_COUNTER),
        Field::histogram("histogram", &OFF_HISTOGRAM),
        Field::timer("timer", &OFF_TIMER),
    ]);
}

const RECORDS: u64 = 200_000;
const ROUNDS: usize = 41;

/// One thing to measure: its group, its name, and so many records.
struct Case<'a> {
    group: &'static str,
    name: &'static str,
    run: Box<dyn Fn(u64) + Sync + 'a>,
    times: Vec<f64>,
    together: Vec<f64>,
}

impl<'a> Case<'a> {
    fn new(group: &'static str, name: &'static str, one: impl Fn(u64) + Sync + 'a) -> Self {
        // Each case has a loop of its own, so that the compiler sees record and loop together.
        let run = Box::new(move |records| (0..records).for_each(|n| one(black_box(n))));
        Self { group, name, run, times: Vec::new(), together: Vec::new() }
    }

    fn measure_alone(&mut self) {
        let started = Instant::now();
        (self.run)(RECORDS);
        self.times.push(started.elapsed().as_nanos() as f64 / RECORDS as f64);
    }

    /// The slower of two threads that start together.
    fn measure_together(&mut self) {
        let (run, ready) = (&self.run, Barrier::new(2));
        let timed = || {
            run(1);
            ready.wait();
            let started = Instant::now();
            run(RECORDS);
            started.elapsed().as_nanos() as f64 / RECORDS as f64
        };
        let times = thread::scope(|scope| {
            let threads = [scope.spawn(timed), scope.spawn(timed)];
            threads.map(|thread| thread.join().expect("no panic"))
        });
        self.together.push(times.into_iter().fold(0.0, f64::max));
    }
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}

fn clock_ns(started: Instant) -> u64 {
    started.elapsed().as_nanos() as u64
}

fn main() {
    let mut registry = Registry::of_program();
    registry.set_reporting(true);
    registry.set(uni_wire::control::MetricTarget::Source("off"), uni_wire::control::Switch::Off);

    let exporter = metrics_exporter_prometheus::PrometheusBuilder::new()
        .set_buckets(&[10.0, 100.0, 1_000.0, 10_000.0, 100_000.0])
        .expect("buckets")
        .build_recorder();
    let metadata = metrics::Metadata::new("bench", metrics::Level::INFO, None);
    let their_counter = exporter.register_counter(&metrics::Key::from_static_name("counter"), &metadata);
    let their_histogram =
        exporter.register_histogram(&metrics::Key::from_static_name("histogram"), &metadata);
    let handle = exporter.handle();

    let client_counter = counter::Counter::<u64>::default();
    let client_histogram = histogram::Histogram::new([10.0, 100.0, 1_000.0, 10_000.0, 100_000.0]);
    let started = Instant::now();

    let mut cases = [
        Case::new("nothing", "the loop itself", |_| {}),
        Case::new("off", "uni counter", |_| OFF_COUNTER.increment()),
        Case::new("off", "uni histogram", |n| OFF_HISTOGRAM.record(n)),
        Case::new("off", "uni timer", |n| {
            OFF_TIMER.run(|| clock_ns(started), || black_box(n));
        }),
        Case::new("off", "metrics counter, no recorder", |_| metrics::counter!("counter").increment(1)),
        Case::new("off", "tracing event, no subscriber", |n| tracing::info!(n, "event")),
        Case::new("counter", "uni", |_| COUNTER.increment()),
        Case::new("counter", "prometheus-client", |_| {
            client_counter.inc();
        }),
        Case::new("counter", "metrics, handle kept", |_| their_counter.increment(1)),
        Case::new("counter", "metrics, macro, local recorder", |_| {
            metrics::with_local_recorder(&exporter, || metrics::counter!("counter").increment(1));
        }),
        Case::new("histogram", "uni", |n| HISTOGRAM.record(n)),
        Case::new("histogram", "prometheus-client", |n| client_histogram.observe(n as f64)),
        Case::new("histogram", "metrics, handle kept", |n| their_histogram.record(n as f64)),
        Case::new("timer", "uni, with the system's clock", |n| {
            TIMER.run(|| clock_ns(started), || black_box(n));
        }),
        Case::new("timer", "the clock twice, alone", |_| {
            black_box(clock_ns(started));
            black_box(clock_ns(started));
        }),
    ];
    for _ in 0..ROUNDS {
        for case in &mut cases {
            case.measure_alone();
        }
        // Its histograms keep every value until somebody drains them.
        handle.run_upkeep();
    }
    for _ in 0..ROUNDS / 4 {
        for case in &mut cases {
            case.measure_together();
        }
        handle.run_upkeep();
    }
    println!("{:<10} {:<30} {:>9} {:>9} {:>7} {:>13}", "", "", "ns", "less loop", "ratio", "2 threads ns");
    let mut uni = (String::new(), 1.0);
    let mut the_loop = None;
    for case in &mut cases {
        let (alone, together) = (median(&mut case.times), median(&mut case.together));
        if uni.0 != case.group {
            uni = (case.group.into(), alone);
        }
        let own = alone - *the_loop.get_or_insert(alone);
        println!(
            "{:<10} {:<30} {alone:>9.2} {own:>9.2} {:>6.1}x {together:>13.2}",
            case.group,
            case.name,
            alone / uni.1.max(f64::MIN_POSITIVE)
        );
    }
}
