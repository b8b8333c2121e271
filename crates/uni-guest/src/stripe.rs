//! Numbers that several threads add to without waiting for each other.
//!
//! Owns who may write where. With the feature `std` a number has [`OWN_CELLS`] cells for threads and one for the
//! rest, each on a cache line of its own. A thread claims a place at its first record and gives it back when it ends;
//! while it holds the place it alone writes there, so that a plain load and store suffice. Threads beyond share the
//! last cell, and pay for an atomic addition. Without `std` there is one cell. Never allocates, locks or panics; but at
//! a thread's first record the C library notes, once, that the place is to be given back (glibc: 32 bytes of its own).
//!
//! A signal handler that counts on the thread it interrupts may lose one count; an interrupt handler of a guest does
//! not, for there the addition is atomic.

use core::sync::atomic::{AtomicU64, Ordering};

/// Threads that have a cell of their own.
#[cfg(feature = "std")]
pub(crate) const OWN_CELLS: usize = 8;
/// There are no threads.
#[cfg(not(feature = "std"))]
pub(crate) const OWN_CELLS: usize = 0;

/// On cache lines of its own, where there are threads. (Processors fetch lines in pairs, but cells of one number are
/// neighbours of one number only.)
#[derive(Debug)]
#[cfg_attr(feature = "std", repr(align(64)))]
pub(crate) struct Apart<T>(pub(crate) T);

/// `N` numbers side by side, in each cell.
#[derive(Debug)]
pub(crate) struct Striped<const N: usize> {
    own: [Apart<[AtomicU64; N]>; OWN_CELLS],
    shared: Apart<[AtomicU64; N]>,
}

/// One thread's cell of a [`Striped`].
#[derive(Clone, Copy)]
pub(crate) struct Cell<'a, const N: usize> {
    numbers: &'a [AtomicU64; N],
    alone: bool,
}

impl<const N: usize> Cell<'_, N> {
    /// Adds to number `place`; wraps at 2^64. A place that is not there is ignored.
    #[inline]
    pub(crate) fn add(self, place: usize, amount: u64) {
        let Some(number) = self.numbers.get(place) else { return };
        if self.alone {
            number.store(number.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
        } else {
            number.fetch_add(amount, Ordering::Relaxed);
        }
    }
}

impl<const N: usize> Striped<N> {
    /// All at zero.
    pub(crate) const fn new() -> Self {
        Self {
            own: [const { Apart([const { AtomicU64::new(0) }; N]) }; OWN_CELLS],
            shared: Apart([const { AtomicU64::new(0) }; N]),
        }
    }

    /// The calling thread's cell.
    #[inline]
    pub(crate) fn cell(&self) -> Cell<'_, N> {
        #[cfg(feature = "std")]
        {
            if let Some(Apart(numbers)) = self.own.get(place::held()) {
                return Cell { numbers, alone: true };
            }
            if let Some(Apart(numbers)) = self.own.get(place::claim()) {
                return Cell { numbers, alone: true };
            }
        }
        Cell { numbers: &self.shared.0, alone: false }
    }

    /// What all threads together added to number `place`.
    pub(crate) fn sum(&self, place: usize) -> u64 {
        let numbers = self.cells().filter_map(|numbers| numbers.get(place));
        numbers.fold(0, |sum, number| sum.wrapping_add(number.load(Ordering::Relaxed)))
    }

    /// What all threads together added to each number, added to `sums`.
    pub(crate) fn add_sums(&self, sums: &mut [u64]) {
        for numbers in self.cells() {
            for (sum, number) in sums.iter_mut().zip(numbers) {
                *sum = sum.wrapping_add(number.load(Ordering::Relaxed));
            }
        }
    }

    /// The cells that a thread may ever have written to.
    fn cells(&self) -> impl Iterator<Item = &[AtomicU64; N]> {
        #[cfg(feature = "std")]
        let used = place::used();
        #[cfg(not(feature = "std"))]
        let used = OWN_CELLS;
        self.own.iter().take(used).chain([&self.shared]).map(|Apart(numbers)| numbers)
    }
}

/// Which cell a thread may write to alone.
#[cfg(feature = "std")]
mod place {
    use super::OWN_CELLS;
    use core::cell::Cell;
    use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

    const NONE_YET: usize = usize::MAX;
    /// No place is left, or the thread is ending.
    const SHARED: usize = OWN_CELLS;

    /// A bit for each place that is taken.
    static TAKEN: AtomicU32 = AtomicU32::new(0);

    /// Places that were ever taken: the lowest go first.
    static USED: AtomicUsize = AtomicUsize::new(0);

    std::thread_local! {
        static HELD: Cell<usize> = const { Cell::new(NONE_YET) };
        static GIVE_BACK: GiveBack = const { GiveBack };
    }

    /// Gives the place back when the thread ends.
    struct GiveBack;

    impl Drop for GiveBack {
        fn drop(&mut self) {
            let held = HELD.replace(SHARED);
            if held < OWN_CELLS {
                // Release: the next thread that takes the place sees what this one wrote there.
                TAKEN.fetch_and(!(1 << held), Ordering::Release);
            }
        }
    }

    /// The calling thread's place; [`OWN_CELLS`] or more if it has none.
    #[inline]
    pub(super) fn held() -> usize {
        HELD.get()
    }

    /// Takes a place for the calling thread at its first record.
    #[cold]
    pub(super) fn claim() -> usize {
        if HELD.get() == NONE_YET {
            // Fails where the thread is ending: then nobody would give the place back.
            let place = GIVE_BACK.try_with(|_| take()).unwrap_or(SHARED);
            HELD.set(place);
        }
        HELD.get()
    }

    fn take() -> usize {
        let free = |place: &usize| {
            let bit = 1 << place;
            TAKEN.load(Ordering::Relaxed) & bit == 0 && TAKEN.fetch_or(bit, Ordering::Acquire) & bit == 0
        };
        let place = (0..OWN_CELLS).find(free).unwrap_or(SHARED);
        USED.fetch_max(OWN_CELLS.min(place + 1), Ordering::Relaxed);
        place
    }

    /// How many places there are that hold anything.
    pub(super) fn used() -> usize {
        USED.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::thread;
    use std::vec::Vec;

    #[test]
    fn more_threads_than_places_lose_nothing() {
        static NUMBERS: Striped<2> = Striped::new();
        const THREADS: usize = OWN_CELLS * 2 + 1;
        let together = Barrier::new(THREADS);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    together.wait();
                    (0..10_000).for_each(|_| NUMBERS.cell().add(1, 2));
                });
            }
        });
        assert_eq!((NUMBERS.sum(0), NUMBERS.sum(1)), (0, THREADS as u64 * 20_000));
    }

    #[test]
    fn a_place_is_free_again_when_its_thread_has_ended() {
        static NUMBERS: Striped<1> = Striped::new();
        let alone: Vec<bool> =
            (0..100).map(|_| thread::spawn(|| NUMBERS.cell().alone).join().expect("no panic")).collect();
        // Other tests hold places now and then; without giving back, at most 8 of 100 would find one.
        assert!(alone.iter().filter(|alone| **alone).count() > OWN_CELLS, "{alone:?}");
    }
}
