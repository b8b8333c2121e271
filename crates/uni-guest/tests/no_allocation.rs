//! Recording does not allocate, and while it is off nothing at all is evaluated.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use uni_guest::{
    Counter, Field, FloatGauge, Gauge, Histogram, Periodic, Registry, Source, Tally, Timer, source,
};
use uni_wire::Timestamp;
use uni_wire::control::{MetricTarget, Switch};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts what each thread asks for.
struct Counting;

// SAFETY: hands everything to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps to the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps to the contract.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static COUNTER: Counter = Counter::new();
static TALLY: Tally = Tally::new();
static GAUGE: Gauge = Gauge::new();
static FLOAT: FloatGauge = FloatGauge::new();
static HISTOGRAM: Histogram = Histogram::new();
static TIMER: Timer = Timer::new();

source! {
    static ALL: Source = Source::new("all").doc("every instrument").fields(&[
        Field::counter("counter", &COUNTER),
        Field::tally("tally", &TALLY),
        Field::gauge("gauge", &GAUGE),
        Field::float_gauge("float", &FLOAT),
        Field::histogram("histogram", &HISTOGRAM),
        Field::timer("timer", &TIMER),
    ]);
    static ASKED: Source = Source::new("asked").fields(&[Field::count_of("n", || panic!("it was asked"))]);
}

fn record_everything() {
    for n in 0..1000 {
        COUNTER.increment();
        TALLY.add(2);
        GAUGE.set(3);
        FLOAT.set(0.5);
        HISTOGRAM.record(n);
        let _ = TIMER.run_result(|| 7, || if n % 2 == 0 { Ok(()) } else { Err(()) });
    }
}

/// One test, for the sources are those of the program.
#[test]
fn recording_does_not_allocate_and_off_evaluates_nothing() {
    let mut registry = Registry::of_program();
    assert!(registry.has("all"), "listed before its first use");
    registry.register(Periodic::new("closure", |_| panic!("it was evaluated")));
    record_everything();
    assert_eq!((COUNTER.get(), HISTOGRAM.snapshot().count(), TIMER.ok()), (0, 0, 0), "no reporter is there");

    registry.set_reporting(true);
    registry.set(MetricTarget::Source("closure"), Switch::Off);
    registry.set(MetricTarget::Source("asked"), Switch::Off);
    let before = ALLOCATIONS.get();
    std::thread::scope(|scope| {
        // A thread's first records are no exception.
        let new = scope.spawn(|| {
            record_everything();
            ALLOCATIONS.get()
        });
        let spawned = ALLOCATIONS.get();
        record_everything();
        assert_eq!(ALLOCATIONS.get(), spawned);
        assert!(spawned > before, "the allocator counts");
        // What the thread allocates to start is counted too, and little.
        let idle = scope.spawn(|| ALLOCATIONS.get()).join().expect("no panic");
        assert_eq!(new.join().expect("no panic"), idle);
    });
    assert_eq!((COUNTER.get(), HISTOGRAM.snapshot().count()), (2000, 2000));
    assert_eq!((TIMER.ok(), TIMER.errors()), (1000, 1000));

    let mut lines = String::new();
    let lost = registry.collect("v", Timestamp(1), |line| lines.push_str(&String::from_utf8_lossy(line)));
    assert_eq!(lost, 0);
    assert!(
        lines.starts_with("all,vm=v counter=2000i,tally=6000i,gauge=3i,float=0.5,histogram_count=2000i,"),
        "{lines}"
    );
    assert!(lines.contains(",histogram_p50=511i,") && lines.contains(",timer_ok=1000i,timer_error=1000i,"));

    registry.set(MetricTarget::All, Switch::Off);
    record_everything();
    assert_eq!(COUNTER.get(), 2000);
    assert_eq!(registry.collect("v", Timestamp(2), |_| panic!("all are off")), 0);
}
