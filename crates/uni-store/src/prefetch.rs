//! Asking the processor for memory that is needed soon.
//!
//! With ten thousands of series the state of the next one is in no cache, and a line has less work than a miss takes.
//! Never changes what a program does.

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// Begins to load what is there. Does nothing on processors for which Rust has no such instruction.
#[inline]
pub(crate) fn prefetch<T>(items: &[T]) {
    let start: *const u8 = items.as_ptr().cast();
    for at in (0..size_of_val(items)).step_by(LINE_BYTES) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch reads nothing and faults nowhere, whatever its address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(at).cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = start.wrapping_add(at);
    }
}
