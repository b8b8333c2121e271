//! The sampling allocator as a program's own: recording does not allocate, blocks are what they would be without it,
//! and what a trace tells is what happened.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::hint::black_box;
use std::sync::{Mutex, MutexGuard, PoisonError};

use uni_guest::Registry;
use uni_guest::heap::{self, Sampled, SamplingRate, Trace, TraceError, TraceOf};
use uni_wire::Timestamp;
use uni_wire::memtrace::{Decoder, Item, Mode};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// The thread's next request of so many bytes fails.
    static FAILS_AT: Cell<usize> = const { Cell::new(0) };
}

/// Counts what each thread asks for, and refuses what it is told to.
struct Counting;

impl Counting {
    fn refuses(bytes: usize) -> bool {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        FAILS_AT.get() == bytes && FAILS_AT.replace(0) > 0
    }
}

// SAFETY: hands everything to the system's allocator, or fails.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if Self::refuses(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller keeps to the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps to the contract.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if Self::refuses(new_size) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller keeps to the contract.
        unsafe { System.realloc(memory, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Sampled<Counting> = Sampled::new(Counting);

/// The program has one heap: tests of it take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn begin(rate: f64) -> Result<Trace, TraceError> {
    let of = TraceOf {
        vm: "test",
        program: "sampled",
        pid: 7,
        rate: SamplingRate::new(rate).expect("a rate"),
        places: heap::PROFILE_PLACES,
        ring_words: 1 << 15,
        clock: || 1_700_000_000_000_000,
    };
    Trace::begin(&of, 0)
}

/// Takes what there is now.
fn drain(trace: &mut Trace, now_ns: u64, into: &mut Vec<u8>) {
    while let Some(bytes) = trace.poll_transmit(now_ns) {
        into.extend_from_slice(bytes);
        let sent = bytes.len();
        trace.handle_sent(sent);
    }
}

/// Sizes in words by id, and the ids that were freed, each once and after its allocation.
fn read(trace: &[u8]) -> (HashMap<u64, u64>, HashSet<u64>) {
    let (mut allocated, mut freed) = (HashMap::new(), HashSet::new());
    let mut each = |item: Item<'_>| match item {
        Item::Alloc(alloc) => drop(allocated.insert(alloc.id, alloc.length_words)),
        Item::Collect(gone) => {
            assert!(allocated.contains_key(&gone.id), "{} was freed and never there", gone.id);
            assert!(freed.insert(gone.id), "{} was freed twice", gone.id);
        }
        _ => {}
    };
    let mut decoder = Decoder::new(Mode::Strict);
    decoder.handle_bytes(trace, &mut each).expect("a good trace");
    decoder.finish(&mut each).expect("a whole trace");
    (allocated, freed)
}

fn finish(mut trace: Trace, mut bytes: Vec<u8>) -> Vec<u8> {
    trace.handle_end();
    drain(&mut trace, 0, &mut bytes);
    assert!(trace.is_over());
    bytes
}

/// Allocates so often, in blocks of several sizes, half of which are moved.
fn work(rounds: u64) -> u64 {
    let mut asked = 0;
    for round in 0..rounds {
        let size = 8 + (round as usize % 50) * 24;
        let mut block: Vec<u8> = Vec::with_capacity(size);
        asked += 1;
        if round % 2 == 0 {
            block.resize(size, 1);
            block.reserve_exact(size);
            asked += 1;
        }
        black_box(&block);
    }
    asked
}

#[test]
fn recording_does_not_allocate_on_any_thread() {
    let _turn = alone();
    assert!(heap::start_profile(usize::MAX, 3));
    let trace = begin(1.0).expect("a trace");
    for _ in 0..2 {
        let counted = std::thread::spawn(|| {
            // The thread's first allocation is no exception.
            let before = ALLOCATIONS.get();
            let asked = work(2000);
            (ALLOCATIONS.get() - before, asked)
        });
        let (counted, asked) = counted.join().expect("no panic");
        assert_eq!(counted, asked);
    }
    assert!(heap::figures().is_running);
    drop(trace);
    assert!(!heap::figures().is_running);
    heap::stop_profile();
}

#[test]
fn at_rate_1_a_trace_tells_every_block_that_moves_and_goes() {
    let _turn = alone();
    let mut trace = begin(1.0).expect("a trace");
    let mut bytes = Vec::with_capacity(1 << 20);
    drain(&mut trace, 0, &mut bytes);
    let dropped = heap::figures().dropped_events;
    let mut first: Vec<u8> = black_box(Vec::with_capacity(8011));
    first.reserve_exact(16_022);
    let aligned = Layout::from_size_align(12_345, 4096).expect("a layout");
    // SAFETY: the layout is not empty, and the block is released once.
    unsafe {
        let block = std::alloc::alloc_zeroed(aligned);
        assert!(block.addr().is_multiple_of(4096) && *block.add(12_344) == 0);
        std::alloc::dealloc(block, aligned);
    }
    black_box(vec![(); 1000]);
    drop(first);
    let bytes = finish(trace, bytes);
    assert_eq!(heap::figures().dropped_events, dropped);
    let (allocated, freed) = read(&bytes);
    let fate = |words: u64| {
        let of: Vec<_> =
            allocated.iter().filter(|(_, size)| **size == words).map(|(id, _)| freed.contains(id)).collect();
        of
    };
    for words in [8011_u64.div_ceil(8), 16_022_u64.div_ceil(8), 12_345_u64.div_ceil(8)] {
        assert_eq!(fate(words), [true], "{words} words");
    }
}

#[test]
fn what_fails_is_not_recorded_and_a_block_that_could_not_grow_is_still_known() {
    let _turn = alone();
    let mut trace = begin(1.0).expect("a trace");
    let mut bytes = Vec::with_capacity(1 << 20);
    drain(&mut trace, 0, &mut bytes);
    let mut kept: Vec<u8> = black_box(Vec::with_capacity(7003));
    FAILS_AT.set(9901);
    assert!(Vec::<u8>::new().try_reserve_exact(9901).is_err());
    FAILS_AT.set(11_801);
    assert!(kept.try_reserve_exact(11_801).is_err());
    assert_eq!(FAILS_AT.get(), 0, "both failed");
    let mut again = Vec::new();
    drain(&mut trace, 2_000_000_000, &mut again);
    bytes.extend(again);
    drop(kept);
    let (allocated, freed) = read(&finish(trace, bytes));
    let of = |bytes: u64| {
        allocated.iter().find(|(_, words)| **words == bytes.div_ceil(8)).map(|(id, _)| freed.contains(id))
    };
    assert_eq!((of(7003), of(9901), of(11_801)), (Some(true), None, None));
}

#[test]
fn two_threads_and_a_reader_agree_on_what_happened() {
    let _turn = alone();
    assert!(heap::start_profile(usize::MAX, 9));
    let mut trace = begin(0.05).expect("a trace");
    let mut bytes = Vec::new();
    std::thread::scope(|scope| {
        let workers = [scope.spawn(|| work(30_000)), scope.spawn(|| work(30_000))];
        while !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            drain(&mut trace, 0, &mut bytes);
        }
    });
    let (allocated, freed) = read(&finish(trace, bytes));
    assert!(allocated.len() > 10_000 && freed.len() > 10_000, "{} and {}", allocated.len(), freed.len());
    heap::stop_profile();
}

#[test]
fn a_reader_that_stalls_costs_events_and_nothing_else() {
    let _turn = alone();
    let before = heap::figures();
    let mut trace = begin(1.0).expect("a trace");
    assert_eq!(begin(1.0).err(), Some(TraceError::Running));
    work(50_000);
    let dropped = heap::figures().dropped_events - before.dropped_events;
    assert!(dropped > 50_000, "{dropped} of {}", 2 * 75_000);
    let mut bytes = Vec::new();
    drain(&mut trace, 0, &mut bytes);
    let (allocated, freed) = read(&finish(trace, bytes));
    let written = heap::figures().events - before.events;
    let told = (allocated.len() + freed.len()) as u64;
    // The test harness allocates too, and may do so between the last look at the ring and the trace's end.
    assert!(told <= written && written - told < 100, "{told} of {written}");
    assert!(!allocated.is_empty() && begin(1.0).is_ok());
}

#[test]
fn an_idle_program_sends_what_it_has_after_a_second() {
    const SECOND_NS: u64 = 1_000_000_000;
    let _turn = alone();
    let mut trace = begin(1.0).expect("a trace");
    let mut bytes = Vec::with_capacity(1 << 16);
    drain(&mut trace, 0, &mut bytes);
    let info = bytes.len();
    drop(black_box(Vec::<u8>::with_capacity(100)));
    drain(&mut trace, SECOND_NS - 1, &mut bytes);
    assert_eq!(bytes.len(), info, "not yet");
    drain(&mut trace, SECOND_NS, &mut bytes);
    assert!(bytes.len() > info);
    assert!(!trace.is_over());
}

#[test]
fn the_profile_tells_what_this_test_holds() {
    let _turn = alone();
    heap::set_libraries(heap::symbols::of_own_program().expect("a test has symbols"));
    assert!(heap::start_profile(usize::MAX, 5));
    let mut registry = Registry::new();
    heap::register(&mut registry);
    let held: Vec<Vec<u8>> = (0..2000).map(|_| vec![1; 1000]).collect();
    let mut told = || {
        let (mut bytes, mut text) = (0, String::new());
        let lost = registry.collect("v", Timestamp(1), |line| {
            let line = String::from_utf8_lossy(line);
            let live =
                line.split("live_bytes=").nth(1).and_then(|rest| rest.split('i').next()?.parse::<i64>().ok());
            bytes += live.unwrap_or_default();
            text.push_str(&line);
        });
        assert_eq!(lost, 0);
        (bytes, text)
    };
    let (bytes, text) = told();
    assert!((1_800_000..2_300_000).contains(&bytes), "{text}");
    assert!(text.contains("memtrace,vm=v traces="), "{text}");
    drop(held);
    let (bytes, text) = told();
    assert!(bytes < 200_000, "{text}");
    heap::stop_profile();
    assert_eq!(told().0, 0);
}
