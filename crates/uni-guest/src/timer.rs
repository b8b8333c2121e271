//! How long calls take, and how they end.
//!
//! Owns a histogram of durations and two counts. Never reads a clock of its own; while it is off, none at all.

use crate::counter::Counter;
use crate::histogram::{Histogram, Snapshot};
use crate::source::Gate;

/// Durations of calls in nanoseconds, and how many ended well or with an error (MirageOS: `run` and `rrun`, with
/// their fields `duration` and `status`).
///
/// ```
/// use uni_guest::{Field, Registry, Source, Timer, source};
/// static ANSWER: Timer = Timer::new();
/// source! { static DESK: Source = Source::new("desk").fields(&[Field::timer("answer", &ANSWER)]); }
/// Registry::of_program().set_reporting(true);
/// let parsed = ANSWER.run_result(|| 0, || "x".parse::<u32>());
/// assert!(parsed.is_err());
/// assert_eq!((ANSWER.ok(), ANSWER.errors()), (0, 1));
/// ```
#[derive(Debug, Default)]
pub struct Timer {
    durations_ns: Histogram,
    ok: Counter,
    errors: Counter,
}

impl Timer {
    /// A timer that has seen no call.
    #[must_use]
    pub const fn new() -> Self {
        Self { durations_ns: Histogram::new(), ok: Counter::new(), errors: Counter::new() }
    }

    /// Calls `work`. `now_ns` reads a monotonic clock in nanoseconds, before and after; it
    /// is not called while the source is off. A call that unwinds counts as an error.
    #[inline]
    pub fn run<T>(&self, now_ns: impl Fn() -> u64, work: impl FnOnce() -> T) -> T {
        self.observe(now_ns, work, |_| true)
    }

    /// As [`run`](Self::run); a call that returns `Err` counts as an error.
    ///
    /// # Errors
    /// Those of `work`.
    #[inline]
    pub fn run_result<T, E>(
        &self,
        now_ns: impl Fn() -> u64,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.observe(now_ns, work, Result::is_ok)
    }

    /// Records a call that the program timed itself.
    pub fn record(&self, duration_ns: u64, ok: bool) {
        self.durations_ns.record(duration_ns);
        if ok { self.ok.increment() } else { self.errors.increment() }
    }

    /// The durations so far, in nanoseconds.
    #[must_use]
    pub fn durations_ns(&self) -> Snapshot {
        self.durations_ns.snapshot()
    }

    /// Calls that ended well.
    #[must_use]
    pub fn ok(&self) -> u64 {
        self.ok.get()
    }

    /// Calls that ended with an error.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors.get()
    }

    #[inline]
    fn observe<T>(
        &self,
        now_ns: impl Fn() -> u64,
        work: impl FnOnce() -> T,
        is_ok: impl Fn(&T) -> bool,
    ) -> T {
        if self.durations_ns.gate().is_on() { self.timed(now_ns, work, is_ok) } else { work() }
    }

    /// Apart, so that a caller pays for the test alone while it is off.
    #[inline(never)]
    fn timed<T>(&self, now_ns: impl Fn() -> u64, work: impl FnOnce() -> T, is_ok: impl Fn(&T) -> bool) -> T {
        let started_ns = now_ns();
        let mut call = Call { timer: self, now_ns, started_ns, ok: false };
        let result = work();
        call.ok = is_ok(&result);
        result
    }

    pub(crate) fn gates(&self) -> [&Gate; 3] {
        [self.durations_ns.gate(), self.ok.gate(), self.errors.gate()]
    }

    pub(crate) const fn histogram(&self) -> &Histogram {
        &self.durations_ns
    }
}

/// Records when it ends, also by unwinding.
struct Call<'a, N: Fn() -> u64> {
    timer: &'a Timer,
    now_ns: N,
    started_ns: u64,
    ok: bool,
}

impl<N: Fn() -> u64> Drop for Call<'_, N> {
    fn drop(&mut self) {
        self.timer.record((self.now_ns)().saturating_sub(self.started_ns), self.ok);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    #[test]
    fn the_clock_is_not_read_while_it_is_off() {
        static TIMER: Timer = Timer::new();
        assert_eq!(TIMER.run(|| panic!("the clock was read"), || 7), 7);
        TIMER.gates().into_iter().for_each(|gate| gate.set(true));
        let clock = Cell::new(0);
        let now_ns = || clock.replace(clock.get() + 5);
        TIMER.run(now_ns, || clock.set(clock.get() + 95));
        assert_eq!((TIMER.ok(), TIMER.errors(), TIMER.durations_ns().sum()), (1, 0, 100));
    }

    #[test]
    fn a_call_that_unwinds_is_an_error() {
        static TIMER: Timer = Timer::new();
        TIMER.gates().into_iter().for_each(|gate| gate.set(true));
        let ended = std::panic::catch_unwind(|| TIMER.run(|| 0, || panic!("on purpose")));
        assert!(ended.is_err());
        assert_eq!((TIMER.ok(), TIMER.errors()), (0, 1));
    }
}
