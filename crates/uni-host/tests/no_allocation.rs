//! After the first look nothing is allocated, however often it is looked. Alone in its program, for its
//! allocator; it counts those of its own thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::mpsc::channel;
use std::time::Duration;

use uni_host::sampler::start_ticks;
use uni_host::{LinkTable, Machine, ProcessSampler, points};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above with this `layout`, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_sample_its_points_and_the_links_allocate_nothing_after_the_first() {
    let (stop, stopped) = channel::<()>();
    // a second thread that keeps running, so that its switches are read each time
    let thread = std::thread::spawn(move || {
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            std::thread::yield_now();
        }
    });
    let pid = std::process::id();
    let mut sampler = ProcessSampler::open(pid, start_ticks(pid).unwrap(), Machine::host());
    let mut fields = points::Fields::with_capacity(64);
    let mut table = LinkTable::new();
    let mut look = |now: u64| {
        let sample = sampler.sample(Duration::from_millis(now)).unwrap();
        fields.clear();
        points::resource_usage(&sample, points::Units::Right, &mut fields);
        points::kinfo_mem(&sample, points::Units::Right, &mut fields);
        table.refresh().unwrap();
    };
    look(1);
    let before = ALLOCATIONS.get();
    (2..200).for_each(look);
    assert_eq!(ALLOCATIONS.get() - before, 0);
    drop(stop);
    thread.join().unwrap();
}
