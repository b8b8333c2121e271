//! The global allocator, its figures, and which libraries hold it. It is filled once, from the memory the image leaves
//! free; it never grows.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::hint::black_box;
use core::ptr::NonNull;
use uni_guest::heap::{self, LibraryMap};

/// What the heap holds and has held. All sizes in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeapStatistics {
    /// Memory the heap manages.
    pub size_bytes: u64,
    /// Memory in use, with the allocator's rounding.
    pub used_bytes: u64,
    /// Memory asked for and not yet returned, without rounding.
    pub live_bytes: u64,
    /// The largest `live_bytes` since boot.
    pub peak_bytes: u64,
    /// Blocks in use.
    pub live_blocks: u64,
    /// All memory ever asked for; never falls.
    pub allocated_bytes: u64,
    /// Requests that could not be met.
    pub failed: u64,
}

struct Allocator {
    heap: UnsafeCell<linked_list_allocator::Heap>,
    statistics: UnsafeCell<HeapStatistics>,
}

// SAFETY: there is one CPU, and interrupt handlers never allocate.
unsafe impl Sync for Allocator {}

#[cfg(not(feature = "bench-bare"))]
#[global_allocator]
static ALLOCATOR: heap::Sampled<Allocator> = heap::Sampled::new(Allocator::new());
#[cfg(feature = "bench-bare")]
#[global_allocator]
static ALLOCATOR: Allocator = Allocator::new();

/// The one that does the work.
fn allocator() -> &'static Allocator {
    #[cfg(not(feature = "bench-bare"))]
    return ALLOCATOR.inner();
    #[cfg(feature = "bench-bare")]
    &ALLOCATOR
}

impl Allocator {
    const fn new() -> Self {
        Self {
            heap: UnsafeCell::new(linked_list_allocator::Heap::empty()),
            statistics: UnsafeCell::new(HeapStatistics {
                size_bytes: 0,
                used_bytes: 0,
                live_bytes: 0,
                peak_bytes: 0,
                live_blocks: 0,
                allocated_bytes: 0,
                failed: 0,
            }),
        }
    }
}

impl HeapStatistics {
    fn allocated(&mut self, bytes: u64) {
        self.live_blocks += 1;
        self.allocated_bytes += bytes;
        self.live_bytes += bytes;
        self.peak_bytes = self.peak_bytes.max(self.live_bytes);
    }

    fn freed(&mut self, bytes: u64) {
        self.live_blocks -= 1;
        self.live_bytes -= bytes;
    }
}

// SAFETY: blocks come from `linked_list_allocator`, which keeps the contract; see `Sync` for exclusion.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: one CPU, no reentry: these are the only references.
        let (heap, statistics) = unsafe { (&mut *self.heap.get(), &mut *self.statistics.get()) };
        let Ok(block) = heap.allocate_first_fit(layout) else {
            statistics.failed += 1;
            return core::ptr::null_mut();
        };
        statistics.allocated(layout.size() as u64);
        block.as_ptr()
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(block) = NonNull::new(block) else { return };
        // SAFETY: as above, and the caller returns a block of this heap with its layout.
        unsafe {
            (*self.statistics.get()).freed(layout.size() as u64);
            (*self.heap.get()).deallocate(block, layout);
        }
    }
}

/// Gives the heap its memory.
///
/// # Safety
/// `start..end` must be mapped memory nobody else uses, from now on for ever; call once.
pub(crate) unsafe fn initialise(start: usize, end: usize) {
    // SAFETY: the caller vouches for the range; nothing has been allocated yet.
    unsafe {
        (*allocator().heap.get()).init(core::ptr::with_exposed_provenance_mut(start), end - start);
    }
}

/// The figures at this moment.
#[must_use]
pub fn heap_statistics() -> HeapStatistics {
    // SAFETY: one CPU, and neither reference outlives this function.
    let (heap, counted) = unsafe { (&*allocator().heap.get(), *allocator().statistics.get()) };
    HeapStatistics { size_bytes: heap.size() as u64, used_bytes: heap.used() as u64, ..counted }
}

/// Bytes of an image for the table of its libraries.
const LIBRARIES_BYTES: usize = 8 * 1024;

/// Which code belongs to which library; `cargo xtask guests` puts it there when the image is linked.
#[unsafe(link_section = ".uni_libraries")]
static LIBRARIES: [u8; LIBRARIES_BYTES] = [0; LIBRARIES_BYTES];

unsafe extern "C" {
    static stack_bottom: u8;
    static stack_top: u8;
}

/// Starts to sample the heap, for `heap_by_library`; `seed` is any random number. Returns `false` if there is no
/// memory for it.
pub(crate) fn start_profile(seed: u64) -> bool {
    map_libraries();
    heap::start_profile(usize::try_from(heap_statistics().size_bytes).unwrap_or(usize::MAX), seed)
}

/// Says where the stack is and whose the code: what sampling needs to know.
pub(crate) fn map_libraries() {
    heap::set_stack(
        &((&raw const stack_bottom).expose_provenance()..(&raw const stack_top).expose_provenance()),
    );
    // The compiler must not go by the zeros it sees.
    if let Some(map) = LibraryMap::new(black_box(&LIBRARIES), 0) {
        heap::set_libraries(map);
    }
}
