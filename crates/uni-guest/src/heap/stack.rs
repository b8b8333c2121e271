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

/// The stack of this thread; empty if it cannot be known. Asks the kernel (`/proc/self/maps`, proc_pid_maps(5)) by system
/// calls alone: pthread_getattr_np(3) would take a lock and allocate.
#[cfg(feature = "std")]
pub(super) fn of_thread() -> Range<usize> {
    let here = 0_u8;
    let Some(mapping) = mapping_of((&raw const here).addr()) else { return 0..0 };
    let is_first = rustix::thread::gettid() == rustix::process::getpid();
    // The first thread's grows downwards as it is used.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Stack).current;
    let room = limit.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(MAX_STACK_BYTES);
    let start = if is_first { mapping.end.saturating_sub(room).min(mapping.start) } else { mapping.start };
    start..mapping.end
}

/// Of a first thread whose stack has no limit.
#[cfg(feature = "std")]
const MAX_STACK_BYTES: usize = 64 << 20;

/// The mapping that has this address.
#[cfg(feature = "std")]
fn mapping_of(address: usize) -> Option<Range<usize>> {
    use rustix::fs::{Mode, OFlags};
    let file = rustix::fs::open(c"/proc/self/maps", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let (mut finder, mut buffer) = (Finder { address, start: 0, end: 0, part: Part::Start }, [0_u8; 1024]);
    loop {
        let count = match rustix::io::read(&file, &mut buffer[..]) {
            Ok(0) => return None,
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return None,
        };
        for byte in buffer.get(..count)? {
            if let Some(found) = finder.take(*byte) {
                return Some(found);
            }
        }
    }
}

/// Which part of a line comes: `start-end rest`.
#[cfg(feature = "std")]
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Start,
    End,
    Rest,
}

/// Reads `maps` byte by byte, so that no line has to fit anywhere.
#[cfg(feature = "std")]
struct Finder {
    address: usize,
    start: usize,
    end: usize,
    part: Part,
}

#[cfg(feature = "std")]
impl Finder {
    /// The mapping, when the byte ends its addresses.
    fn take(&mut self, byte: u8) -> Option<Range<usize>> {
        match (self.part, byte) {
            (_, b'\n') => (self.start, self.end, self.part) = (0, 0, Part::Start),
            (Part::Start, b'-') => self.part = Part::End,
            (Part::End, b' ') => {
                self.part = Part::Rest;
                let found = self.start..self.end;
                return found.contains(&self.address).then_some(found);
            }
            (Part::Start, digit) => self.start = self.start << 4 | hex(digit),
            (Part::End, digit) => self.end = self.end << 4 | hex(digit),
            (Part::Rest, _) => {}
        }
        None
    }
}

#[cfg(feature = "std")]
const fn hex(digit: u8) -> usize {
    match digit {
        b'0'..=b'9' => (digit - b'0') as usize,
        b'a'..=b'f' => (digit - b'a' + 10) as usize,
        _ => 0,
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

    #[test]
    fn a_stack_is_the_mapping_that_it_lies_in() {
        let stack = std::thread::spawn(of_thread).join().expect("a thread");
        assert!(stack.end - stack.start >= 1 << 20, "{stack:x?}");
        let lines = b"7f00-7f40 rw-p 0 00:00 0 [heap]\n8000-8100 rw-p\n9000-9800 r";
        let found = |address| {
            let mut finder = Finder { address, start: 0, end: 0, part: Part::Start };
            lines.iter().find_map(|byte| finder.take(*byte))
        };
        assert_eq!(found(0x7f3f), Some(0x7f00..0x7f40));
        assert_eq!((found(0x7f40), found(0x8000)), (None, Some(0x8000..0x8100)));
        assert_eq!((found(0x97ff), found(0xa000)), (Some(0x9000..0x9800), None));
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
