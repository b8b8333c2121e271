//! What each thread keeps: how far its next sample is, its own chance, the stack it runs on.
//!
//! Owns that state. With `std` each thread has one, without destructor, so that it is there from a thread's first
//! allocation to its last; without, there is one thread of execution and one state. All are atomics of which only
//! the owner knows: no more than plain words.

use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::chance;

/// See the module's page.
#[derive(Debug)]
pub(super) struct Local {
    /// Bytes until something is to be done: a sample, or a look at the rates.
    pub(super) countdown: AtomicI64,
    /// Whether a sample is then due. It is one of the two processes as they were when it was drawn.
    pub(super) is_sample: AtomicBool,
    /// The probability that it is the profile's, as the bits of an `f64`.
    pub(super) profile_share: AtomicU64,
    /// The profile's interval then.
    pub(super) interval: AtomicU32,
    /// The trace then.
    pub(super) trace: AtomicU64,
    chance: AtomicU64,
    busy: AtomicBool,
    stack_start: AtomicUsize,
    stack_end: AtomicUsize,
}

impl Local {
    pub(super) const fn new() -> Self {
        Self {
            countdown: AtomicI64::new(0),
            is_sample: AtomicBool::new(false),
            profile_share: AtomicU64::new(0),
            interval: AtomicU32::new(0),
            trace: AtomicU64::new(0),
            chance: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            stack_start: AtomicUsize::new(0),
            stack_end: AtomicUsize::new(0),
        }
    }

    /// Takes `bytes` off the way to the next sample. True if it is reached; then [`Self::countdown`] is negative.
    #[inline]
    pub(super) fn spend(&self, bytes: usize) -> bool {
        // No layout is larger than `isize::MAX`.
        let left = self.countdown.load(Relaxed).wrapping_sub_unsigned(bytes as u64);
        self.countdown.store(left, Relaxed);
        left < 0
    }

    /// Runs `work` unless it runs already, further down on this stack: nothing is recorded of recording.
    pub(super) fn alone(&self, work: impl FnOnce()) {
        if !self.busy.load(Relaxed) {
            self.busy.store(true, Relaxed);
            work();
            self.busy.store(false, Relaxed);
        }
    }

    /// Does something with the thread's own chance, which `seed` begins.
    pub(super) fn with_chance<R>(&self, seed: &AtomicU64, draw: impl FnOnce(&mut u64) -> R) -> R {
        let mut state = self.chance.load(Relaxed);
        if state == 0 {
            // Threads begin far apart.
            state = seed.fetch_add(0xd134_2543_de82_ef95, Relaxed) | 1;
            chance::next(&mut state);
        }
        let drawn = draw(&mut state);
        self.chance.store(state.max(1), Relaxed);
        drawn
    }

    /// The thread's stack.
    pub(super) fn stack(&self) -> Range<usize> {
        #[cfg(feature = "std")]
        if self.stack_end.load(Relaxed) == 0 {
            let stack = super::stack::of_thread();
            self.set_stack(&stack);
        }
        self.stack_start.load(Relaxed)..self.stack_end.load(Relaxed)
    }

    /// An empty one is not asked for again.
    pub(super) fn set_stack(&self, stack: &Range<usize>) {
        self.stack_start.store(stack.start, Relaxed);
        self.stack_end.store(stack.end.max(1), Relaxed);
    }
}

#[cfg(feature = "std")]
std::thread_local! {
    static LOCAL: Local = const { Local::new() };
}
#[cfg(not(feature = "std"))]
static LOCAL: Local = Local::new();

/// Does something with this thread's state.
#[inline(always)]
pub(super) fn with<R>(work: impl FnOnce(&Local) -> R) -> R {
    #[cfg(feature = "std")]
    return LOCAL.with(work);
    #[cfg(not(feature = "std"))]
    work(&LOCAL)
}
