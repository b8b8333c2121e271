//! What sampling adds to a pair of allocation and release, beside the bare allocator and jemalloc's profiling: all in one
//! run, since only numbers of one run can be compared. Run it by
//! `cargo bench -p uni-guest --features std,bench-jemalloc --bench heap`, with
//! `RUSTFLAGS="-C force-frame-pointers=yes"`.
//!
//! In each of many rounds a case runs between two runs of its own bare allocator (bare, case, case, bare), so that what
//! drifts hits both. Shown are medians, in nanoseconds of processor time for a pair: of the case, and of what it adds, with
//! the bounds within which the latter's median lies with 95 % confidence. What it takes to begin and to end a state, a trace
//! for example, is shown apart. A pair is of 64 bytes, written to.
#![allow(missing_docs, reason = "a program")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::Mutex;

use uni_guest::heap::{self, Sampled, SamplingRate, Trace, TraceOf};

static SAMPLED: Sampled<System> = Sampled::new(System);

const PAIRS: u32 = 100_000;
const ROUNDS: usize = 151;
const LAYOUT: Layout = Layout::new::<[u64; 8]>();
/// Blocks of a large heap, of 1 KiB each: 64 MiB.
const LIVE_BLOCKS: usize = 64 * 1024;
const LIVE: Layout = Layout::new::<[u64; 128]>();

/// A way to allocate, in a state.
struct Case {
    name: &'static str,
    /// Which row it adds to.
    bare: usize,
    enter: fn(),
    pairs: fn(),
    leave: fn(),
    times: Vec<f64>,
    added: Vec<f64>,
    /// Beginning and ending, in microseconds.
    around: Vec<f64>,
}

fn pairs(allocator: &impl GlobalAlloc) {
    for _ in 0..PAIRS {
        // SAFETY: each block is of this layout and is released once.
        unsafe {
            let block = black_box(allocator.alloc(LAYOUT));
            block.write(1);
            allocator.dealloc(black_box(block), LAYOUT);
        }
    }
}

fn case(name: &'static str, bare: usize, enter: fn(), pairs: fn(), leave: fn()) -> Case {
    Case { name, bare, enter, pairs, leave, times: Vec::new(), added: Vec::new(), around: Vec::new() }
}

fn nothing() {}

fn sampled_pairs() {
    pairs(&SAMPLED);
}

fn start_profile() {
    assert!(heap::start_profile(usize::MAX, 1), "memory for it");
}

static TRACE: Mutex<Option<Trace>> = Mutex::new(None);

/// A trace at the default rate, read by nobody until it ends; its ring is large enough for a round.
fn begin_trace() {
    let of = TraceOf {
        vm: "bench",
        program: "bench",
        pid: 1,
        rate: SamplingRate::DEFAULT,
        places: heap::PROFILE_PLACES,
        ring_words: 1 << 15,
        clock: || 1,
    };
    *TRACE.lock().expect("one thread") = Some(Trace::begin(&of, 0).expect("a trace"));
}

fn end_trace() {
    let figures = heap::figures();
    assert_eq!(figures.dropped_events, 0, "the ring was large enough");
    let mut trace = TRACE.lock().expect("one thread").take().expect("it was begun");
    trace.handle_end();
    let mut bytes = 0;
    while let Some(sent) = trace.poll_transmit(0).map(<[u8]>::len) {
        trace.handle_sent(sent);
        bytes += sent;
    }
    assert!(bytes > 1000, "{bytes} bytes are no trace");
}

fn cases() -> Vec<Case> {
    let bare = || pairs(&System);
    let cases = vec![
        case("glibc", 0, nothing, bare, nothing),
        case("sampled, off", 0, nothing, sampled_pairs, nothing),
        case("sampled, trace at 1e-4", 0, begin_trace, sampled_pairs, end_trace),
        case("sampled, heap_by_library of a small heap", 0, start_profile, sampled_pairs, heap::stop_profile),
    ];
    #[cfg(feature = "bench-jemalloc")]
    let cases = jemalloc::added(cases);
    cases
}

#[cfg(feature = "bench-jemalloc")]
mod jemalloc {
    use super::{Case, case, nothing, pairs};
    use tikv_jemallocator::Jemalloc;

    /// Profiling is there, and off; its default interval, 512 KiB.
    #[unsafe(export_name = "_rjem_malloc_conf")]
    static CONFIGURATION: &[u8] = b"prof:true,prof_active:false,lg_prof_sample:19\0";

    pub(super) fn added(mut cases: Vec<Case>) -> Vec<Case> {
        let bare = cases.len();
        let jemalloc = || pairs(&Jemalloc);
        cases.push(case("jemalloc, profiling built in and off", bare, nothing, jemalloc, nothing));
        let on = || activate(true, 19);
        cases.push(case("jemalloc, profiling every 512 KiB", bare, on, jemalloc, || activate(false, 19)));
        let dense = || activate(true, 13);
        cases.push(case("jemalloc, profiling every 8 KiB", bare, dense, jemalloc, || activate(false, 19)));
        cases
    }

    fn activate(on: bool, lg_interval: usize) {
        set(c"prof.reset", lg_interval);
        set(c"prof.active", on);
    }

    fn set<T>(name: &std::ffi::CStr, mut value: T) {
        let (none, size) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: the value has the type that jemalloc documents for the name.
        let done = unsafe {
            tikv_jemalloc_sys::mallctl(name.as_ptr(), none, size, (&raw mut value).cast(), size_of::<T>())
        };
        assert_eq!(done, 0, "{name:?}");
    }
}

/// The thread's own processor time: others on the machine do not count.
fn processor_ns() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Nanoseconds of `work`.
fn taken(work: fn()) -> f64 {
    let started = processor_ns();
    work();
    (processor_ns() - started) as f64
}

/// The median, and the bounds of it with 95 % confidence.
fn median(of: &mut [f64]) -> [f64; 3] {
    of.sort_by(f64::total_cmp);
    let (middle, reach) = (of.len() / 2, of.len().isqrt());
    [of[middle], of[middle.saturating_sub(reach)], of[(middle + reach).min(of.len() - 1)]]
}

fn run(cases: &mut [Case]) {
    let bare: Vec<fn()> = cases.iter().map(|case| cases[case.bare].pairs).collect();
    for round in 0..ROUNDS {
        for (case, bare) in cases.iter_mut().zip(&bare) {
            let entered = taken(case.enter);
            let [first, second, third, fourth] = [*bare, case.pairs, case.pairs, *bare].map(taken);
            let left = taken(case.leave);
            // The first warms up.
            if round > 0 {
                let pairs = f64::from(2 * PAIRS);
                case.times.push((second + third) / pairs);
                case.added.push((second + third - first - fourth) / pairs);
                case.around.push((entered + left) / 1000.0);
            }
        }
    }
    for case in cases {
        let [time, ..] = median(&mut case.times);
        let [added, low, high] = median(&mut case.added);
        let [around, ..] = median(&mut case.around);
        println!(
            "{:<50} {time:>7.2} ns {added:>+7.2} ns ({low:+.2}..{high:+.2}), begin and end {around:.0} us",
            case.name
        );
    }
}

fn main() {
    run(&mut cases());
    start_profile();
    // SAFETY: the blocks are never released.
    let live: Vec<_> = (0..LIVE_BLOCKS).map(|_| unsafe { SAMPLED.alloc(LIVE) }).collect();
    println!("with 64 MiB live in {} blocks:", live.len());
    let bare = || pairs(&System);
    run(&mut [
        case("glibc", 0, nothing, bare, nothing),
        case("sampled, heap_by_library", 0, nothing, sampled_pairs, nothing),
    ]);
}
