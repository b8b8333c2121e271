//! Processor time of a whole process, made of two counters of which each lacks something: what the scheduler
//! keeps of each thread has nanoseconds but goes with the thread; what the kernel keeps of the process has
//! everything but counts in clock ticks.
//!
//! Owns the joining of the two. Never reads a file.

use std::time::Duration;

/// A counter that never falls, is never less than the process's ticks, and never more than the truth.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CpuTime {
    /// Of threads that ended before they were seen, or cannot be seen: known from the ticks only.
    unseen: Duration,
    highest: Duration,
}

impl CpuTime {
    /// The time now. `seen` is the sum over all threads ever seen, ended ones with their last value;
    /// `first_seen` is the part of it of threads that were seen now for the first time; `at_least` is the
    /// process's own counter, read before those of the threads, cut to whole ticks.
    pub(crate) fn advance(&mut self, seen: Duration, first_seen: Duration, at_least: Duration) -> Duration {
        // A thread that appears late was among the unseen until now; it must not count twice. If that takes
        // too much, because others are still unseen, `at_least` brings it back.
        self.unseen = self.unseen.saturating_sub(first_seen);
        self.unseen += at_least.saturating_sub(seen.saturating_add(self.unseen));
        self.highest = self.highest.max(seen.saturating_add(self.unseen));
        self.highest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TICK: u64 = 10_000_000;

    const fn ns(ns: u64) -> Duration {
        Duration::from_nanos(ns)
    }

    #[test]
    fn without_schedstats_the_ticks_are_the_time() {
        let mut cpu = CpuTime::default();
        for ticks in [0, 3, 3, 7] {
            assert_eq!(cpu.advance(ns(0), ns(0), ns(ticks * TICK)), ns(ticks * TICK));
        }
    }

    #[test]
    fn with_schedstats_less_than_a_tick_is_seen() {
        let mut cpu = CpuTime::default();
        assert_eq!(cpu.advance(ns(1234), ns(1234), ns(0)), ns(1234));
        assert_eq!(cpu.advance(ns(TICK + 5), ns(0), ns(TICK)), ns(TICK + 5));
    }

    #[test]
    fn threads_that_lived_and_died_unseen_count() {
        let mut cpu = CpuTime::default();
        assert_eq!(cpu.advance(ns(TICK), ns(TICK), ns(5 * TICK)), ns(5 * TICK));
        assert_eq!(cpu.advance(ns(TICK + 7), ns(0), ns(5 * TICK)), ns(5 * TICK + 7));
    }

    #[test]
    fn a_thread_seen_late_does_not_count_twice() {
        let mut cpu = CpuTime::default();
        cpu.advance(ns(0), ns(0), ns(100 * TICK));
        assert_eq!(cpu.advance(ns(100 * TICK + 5), ns(100 * TICK + 5), ns(100 * TICK)), ns(100 * TICK + 5));
    }

    /// A thread of a made-up process.
    #[derive(Clone, Debug)]
    struct Thread {
        ran_ns: u64,
        last_seen_ns: Option<u64>,
        alive: bool,
    }

    #[derive(Clone, Debug)]
    enum Event {
        Start,
        Run(usize, u64),
        End(usize),
        Look { finds_new: bool },
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            2 => Just(Event::Start),
            6 => (any::<usize>(), 0..5 * TICK).prop_map(|(thread, ns)| Event::Run(thread, ns)),
            2 => any::<usize>().prop_map(Event::End),
            6 => any::<bool>().prop_map(|finds_new| Event::Look { finds_new }),
        ]
    }

    /// Lets a sampler look at the threads, of which it sees those alive that it knows or now finds.
    fn look(threads: &mut [Thread], finds_new: bool) -> (u64, u64) {
        let (mut seen, mut first) = (0, 0);
        for thread in threads {
            if thread.alive && (finds_new || thread.last_seen_ns.is_some()) {
                first += if thread.last_seen_ns.is_none() { thread.ran_ns } else { 0 };
                thread.last_seen_ns = Some(thread.ran_ns);
            }
            seen += thread.last_seen_ns.unwrap_or(0);
        }
        (seen, first)
    }

    proptest! {
        #[test]
        fn the_time_never_falls_and_lies_between_the_ticks_and_the_truth(
            events in proptest::collection::vec(event(), 1..120),
        ) {
            let mut threads = vec![Thread { ran_ns: 0, last_seen_ns: None, alive: true }];
            let (mut cpu, mut before) = (CpuTime::default(), Duration::ZERO);
            for event in events {
                let n = threads.len();
                match event {
                    Event::Start => threads.push(Thread { ran_ns: 0, last_seen_ns: None, alive: true }),
                    Event::Run(thread, ns) if threads[thread % n].alive => threads[thread % n].ran_ns += ns,
                    Event::Run(..) => {}
                    Event::End(thread) => threads[thread % n].alive = false,
                    Event::Look { finds_new } => {
                        let truth: u64 = threads.iter().map(|thread| thread.ran_ns).sum();
                        let at_least = truth / TICK * TICK;
                        let (seen, first) = look(&mut threads, finds_new);
                        let now = cpu.advance(ns(seen), ns(first), ns(at_least));
                        prop_assert!(now >= before, "{before:?} fell to {now:?}");
                        prop_assert!((ns(at_least)..=ns(truth)).contains(&now), "{now:?} of {truth} ns");
                        before = now;
                    }
                }
            }
        }
    }
}
