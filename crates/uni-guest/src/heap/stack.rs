//! Who called, by the chain of frame pointers.
//!
//! Owns the walk and what it may read: only words of the thread's own stack, above where it stands, and only while
//! the chain climbs. So it never faults, whatever was compiled without frame pointers; such functions are left out,
//! or end the walk. Build with `-C force-frame-pointers=yes`; Rust's own libraries are.

use core::ops::Range;

/// Bytes of a frame's head: the caller's frame pointer, and the address it goes on at.
const HEAD_BYTES: usize = 2 * size_of::<usize>();

/// The head of this function's frame; of one of its callers', if it was compiled without.
#[inline(always)]
pub(super) fn frame_pointer() -> usize {
    let pointer: usize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: copies a register.
    unsafe {
        core::arch::asm!("mov {}, rbp", out(reg) pointer, options(nomem, nostack, preserves_flags));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: copies a register.
    unsafe {
        core::arch::asm!("mov {}, x29", out(reg) pointer, options(nomem, nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        pointer = 0;
    }
    pointer
}

/// Calls `each` with the address of every call that led to `frame`, the innermost first, until it returns `false`, at
/// most `most` times. `stack` is the thread's, whole. An address lies in the call's instruction.
pub(super) fn walk(mut frame: usize, stack: &Range<usize>, most: usize, each: &mut dyn FnMut(usize) -> bool) {
    // A word of this function's: what is above it is mapped up to the stack's end.
    let here = (&raw const frame).addr();
    if !stack.contains(&here) {
        return;
    }
    let mut below = here;
    for _ in 0..most {
        let is_head = frame > below
            && frame.is_multiple_of(size_of::<usize>())
            && frame.checked_add(HEAD_BYTES).is_some_and(|end| end <= stack.end);
        if !is_head {
            return;
        }
        let head = core::ptr::with_exposed_provenance::<usize>(frame);
        // SAFETY: both words are on the thread's own stack, above where it stands, as checked.
        let (next, back) = unsafe { (head.read(), head.add(1).read()) };
        // After a call: less one, it is in the call.
        if back == 0 || !each(back - 1) {
            return;
        }
        below = frame;
        frame = next;
    }
}

/// The stack of this thread; empty if it cannot be known.
#[cfg(feature = "std")]
pub(super) fn of_thread() -> Range<usize> {
    use core::mem::MaybeUninit;
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: the call fills the attributes in if it returns 0, and they are destroyed once.
    unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
            return 0..0;
        }
        let (mut start, mut bytes) = (core::ptr::null_mut(), 0);
        let found = libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut start, &raw mut bytes);
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        if found == 0 { start.addr()..start.addr().saturating_add(bytes) } else { 0..0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn walked(frame: usize, stack: &Range<usize>) -> Vec<usize> {
        let mut found = Vec::new();
        walk(frame, stack, 8, &mut |address| {
            found.push(address);
            true
        });
        found
    }

    #[test]
    fn the_chain_is_followed_while_it_climbs_inside_the_stack() {
        let stack = of_thread();
        let here = 0_usize;
        assert!(stack.contains(&(&raw const here).addr()), "{stack:x?}");
        // The heads of three frames, on this stack.
        let mut words = [0_usize; 6];
        let start = (&raw const words).expose_provenance();
        words = [start + 16, 101, start + 32, 201, start, 301];
        assert_eq!(walked(start, &stack), [100, 200, 300], "the third points back down");
        words[3] = 0;
        assert_eq!(walked(start, &stack), [100]);
        assert_eq!(walked(start + 1, &stack), Vec::new(), "{words:?}");
        assert_eq!(walked(start, &(0..0)), Vec::new());
    }

    proptest! {
        /// What a register holds in code without frame pointers may be anything.
        #[test]
        fn no_pointer_makes_it_fault(frame in any::<usize>(), inside in any::<u16>()) {
            let stack = of_thread();
            walked(frame, &stack);
            let here = (&raw const stack).addr();
            walked(here + usize::from(inside), &stack);
            walked(stack.end - usize::from(inside), &stack);
        }
    }
}
