//! Who holds the heap: a sampling allocator, what each library holds, and traces of single blocks.
//!
//! Owns [`Sampled`], which wraps whatever allocator a program has, and everything that is known of sampled blocks.
//! Never decides when to report, and never opens a port: drivers do. [`start_profile`] begins the source
//! `heap_by_library`, which then is always on; a [`Trace`] is taken while somebody asks for one.
//!
//! ```
//! use std::alloc::System;
//! use uni_guest::heap::Sampled;
//!
//! #[global_allocator]
//! static ALLOCATOR: Sampled<System> = Sampled::new(System);
//! # fn main() {}
//! ```
//!
//! A block that is not sampled costs a subtraction and a branch when it is allocated, and a look at one byte when it
//! is freed. Sampling takes no lock, allocates nothing and waits for nobody. Callers are found by frame pointers:
//! build with `-C force-frame-pointers=yes`. Blocks from before the profile began are not known.

mod chance;
mod events;
mod libraries;
mod local;
mod owners;
mod profile;
mod rate;
mod sampler;
mod stack;
#[cfg(feature = "std")]
pub mod symbols;
mod table;
mod trace;

use core::alloc::{GlobalAlloc, Layout};
use core::ops::Range;

use sampler::{Sampler, Taken};

use crate::metrics::Registry;
pub use events::MicrosFn;
pub use libraries::LibraryMap;
pub use profile::{MAX_LIBRARIES_SHOWN, register_heap_by_library};
pub use rate::SamplingRate;

pub use trace::{Trace, TraceError, TraceFigures, TraceOf, figures, register_memtrace};

/// Places of the profile's table for any heap from 16 MiB on; smaller ones need fewer. Each is 16 bytes.
pub const PROFILE_PLACES: usize = 16_384;
/// Bytes of heap for each place, of small heaps.
const BYTES_A_PLACE: usize = 1024;

static SAMPLER: Sampler = Sampler::new();

/// Starts the profile of the program's heap, of at most `heap_bytes`; `seed` is any random number. It takes 16 bytes
/// for each KiB of heap, at most 256 KiB. Returns `false` if there is no memory for it. Once [`Sampled`] is the program's
/// allocator, [`register_heap_by_library`] tells what it found.
pub fn start_profile(heap_bytes: usize, seed: u64) -> bool {
    SAMPLER.start((heap_bytes / BYTES_A_PLACE).min(PROFILE_PLACES).next_power_of_two(), seed)
}

/// Ends the profile, and forgets what was sampled.
pub fn stop_profile() {
    SAMPLER.stop();
}

/// Says which code belongs to which library. Blocks sampled before are nobody's.
pub fn set_libraries(map: LibraryMap) {
    SAMPLER.set_map(map);
}

/// Says where this thread's stack is. Only for programs without `std`, which have one; with it, it is found.
pub fn set_stack(stack: &Range<usize>) {
    local::with(|local| local.set_stack(stack));
}

/// Registers what the heap's sampling has to tell: `heap_by_library` and `memtrace`.
pub fn register(registry: &mut Registry) {
    register_heap_by_library(registry);
    register_memtrace(registry);
}

/// Whether [`Sampled`] is the program's allocator.
#[must_use]
pub fn is_sampled() -> bool {
    SAMPLER.was_used()
}

/// An allocator whose blocks are sampled. See the module's page.
#[derive(Debug)]
pub struct Sampled<A> {
    inner: A,
}

impl<A> Sampled<A> {
    /// Samples the blocks of `inner`.
    pub const fn new(inner: A) -> Self {
        Self { inner }
    }

    /// The allocator that does the work.
    pub const fn inner(&self) -> &A {
        &self.inner
    }
}

// SAFETY: hands everything to `inner`, which keeps to the contract, and never touches a block. What is to be known of a
// block is looked for before `inner` is called, and calling it is the last thing done: nothing has to be kept meanwhile.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Sampled<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if local::with(|local| local.spend(layout.size())) {
            // SAFETY: the caller keeps to the contract.
            return unsafe { self.alloc_and_record(layout) };
        }
        // SAFETY: as above.
        unsafe { self.inner.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if local::with(|local| local.spend(layout.size())) {
            // SAFETY: the caller keeps to the contract.
            return unsafe { self.alloc_zeroed_and_record(layout) };
        }
        // SAFETY: as above.
        unsafe { self.inner.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if SAMPLER.may_be_sampled(block.addr()) {
            // SAFETY: the caller keeps to the contract.
            return unsafe { self.forget_and_dealloc(block, layout) };
        }
        // SAFETY: as above.
        unsafe { self.inner.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let is_due = local::with(|local| local.spend(new_size));
        if is_due || SAMPLER.may_be_sampled(block.addr()) {
            // SAFETY: the caller keeps to the contract.
            return unsafe { self.realloc_and_record(block, layout, new_size, is_due) };
        }
        // SAFETY: as above.
        unsafe { self.inner.realloc(block, layout, new_size) }
    }
}

/// What is rare, apart from what is not.
impl<A: GlobalAlloc> Sampled<A> {
    #[cold]
    #[inline(never)]
    unsafe fn alloc_and_record(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps to the contract.
        let block = unsafe { self.inner.alloc(layout) };
        record(block, layout.size());
        block
    }

    #[cold]
    #[inline(never)]
    unsafe fn alloc_zeroed_and_record(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps to the contract.
        let block = unsafe { self.inner.alloc_zeroed(layout) };
        record(block, layout.size());
        block
    }

    #[cold]
    #[inline(never)]
    unsafe fn forget_and_dealloc(&self, block: *mut u8, layout: Layout) {
        // Before the address may be somebody else's.
        SAMPLER.freed(SAMPLER.take(block.addr()));
        // SAFETY: the caller keeps to the contract.
        unsafe { self.inner.dealloc(block, layout) }
    }

    #[cold]
    #[inline(never)]
    unsafe fn realloc_and_record(
        &self,
        block: *mut u8,
        layout: Layout,
        new_size: usize,
        is_due: bool,
    ) -> *mut u8 {
        let before = block.addr();
        let taken = if SAMPLER.may_be_sampled(before) { SAMPLER.take(before) } else { Taken::default() };
        // SAFETY: the caller keeps to the contract.
        let moved = unsafe { self.inner.realloc(block, layout, new_size) };
        if moved.is_null() {
            SAMPLER.restore(before, taken);
        } else {
            SAMPLER.freed(taken);
        }
        if is_due {
            record(moved, new_size);
        }
        moved
    }
}

#[inline(never)]
fn record(block: *mut u8, size: usize) {
    let frame = stack::frame_pointer();
    local::with(|local| {
        local.alone(|| {
            // The stack is asked for by those who walk it: that is dear, and threads may be many and short.
            SAMPLER.record(local, block.addr(), size, |most: usize, each: &mut dyn FnMut(usize) -> bool| {
                stack::walk(frame, &local.stack(), most, each);
            });
        });
    });
}

#[cfg(test)]
mod tests;
