//! What one look at a process found, in units that do not depend on the machine.
//!
//! Owns the conversion from clock ticks and KiB. Never reads a file.

use std::time::Duration;

use crate::proc::{Io, Stat, Status};

/// A constant of the running kernel that `/proc` counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Clock ticks per second (`sysconf(_SC_CLK_TCK)`), at least 1.
    pub ticks_per_second: u64,
}

impl Machine {
    /// The machine this runs on.
    #[must_use]
    pub fn host() -> Self {
        Self { ticks_per_second: rustix::param::clock_ticks_per_second().max(1) }
    }

    /// The time that so many clock ticks take; saturates after 584 years.
    #[must_use]
    pub fn ticks(self, ticks: u64) -> Duration {
        let per_second = self.ticks_per_second.max(1);
        let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(per_second);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// Times that a process stopped running to wait (voluntary) or because others were due (involuntary).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContextSwitches {
    /// It waited for something.
    pub voluntary: u64,
    /// Its time slice was over or something more urgent came.
    pub involuntary: u64,
}

impl std::ops::Add for ContextSwitches {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            voluntary: self.voluntary.saturating_add(other.voluntary),
            involuntary: self.involuntary.saturating_add(other.involuntary),
        }
    }
}

/// A process at one moment. Counters run since the process started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessSample {
    /// When: time since boot (`CLOCK_BOOTTIME`), as passed to [`crate::ProcessSampler::sample`].
    pub at: Duration,
    /// When the process started, clock ticks after boot; with the pid, this is the process's identity.
    pub start_ticks: u64,
    /// When the process started: time since boot.
    pub started: Duration,
    /// Processor time in user mode (includes a KVM guest's), all threads. Resolution: one clock tick.
    pub user: Duration,
    /// Processor time in kernel mode, all threads. Resolution: one clock tick.
    pub system: Duration,
    /// Processor time of all threads, those that have ended included. Resolution: nanoseconds for threads that
    /// slept since, the scheduler's tick (1 to 10 ms) for those that run right now. Never less than user and
    /// system mode together, and that much where the kernel keeps no schedstats. Never falls from one sample
    /// of a sampler to the next.
    pub cpu: Duration,
    /// Page faults served without reading a page.
    pub minflt: u64,
    /// Page faults that read a page.
    pub majflt: u64,
    /// Number of threads.
    pub threads: u64,
    /// Address space, bytes.
    pub vsize_bytes: u64,
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    /// Largest resident memory so far, KiB.
    pub peak_rss_kib: u64,
    /// Program code, bytes.
    pub text_bytes: u64,
    /// Writable private memory without the stack, bytes.
    pub data_bytes: u64,
    /// The main thread's stack, bytes.
    pub stack_bytes: u64,
    /// Context switches of all threads, those that have ended included as far as they were seen.
    pub switches: ContextSwitches,
    /// Bytes moved by the block layer; `None` where the kernel does not let us see them.
    pub io: Option<Io>,
}

impl ProcessSample {
    /// How long the process has been running.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.at.saturating_sub(self.started)
    }

    /// Joins what the files said. `cpu` and `switches` are those of all threads.
    pub(crate) fn new(
        at: Duration,
        machine: Machine,
        stat: &Stat,
        status: &Status,
        cpu: Duration,
        switches: ContextSwitches,
        io: Option<Io>,
    ) -> Self {
        let bytes = |kib: Option<u64>| kib.unwrap_or(0).saturating_mul(1024);
        Self {
            at,
            start_ticks: stat.start_ticks,
            started: machine.ticks(stat.start_ticks),
            user: machine.ticks(stat.utime_ticks),
            system: machine.ticks(stat.stime_ticks),
            cpu,
            minflt: stat.minflt,
            majflt: stat.majflt,
            threads: stat.threads,
            vsize_bytes: stat.vsize_bytes,
            rss_bytes: bytes(status.rss_kib),
            peak_rss_kib: status.peak_rss_kib.unwrap_or(0),
            text_bytes: bytes(status.text_kib),
            data_bytes: bytes(status.data_kib),
            stack_bytes: bytes(status.stack_kib),
            switches,
            io,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_time_without_loss() {
        let machine = Machine { ticks_per_second: 100 };
        assert_eq!(machine.ticks(1234), Duration::from_millis(12_340));
        assert_eq!(machine.ticks(u64::MAX), Duration::from_nanos(u64::MAX));
        assert_eq!(Machine { ticks_per_second: 0 }.ticks(3), Duration::from_secs(3));
    }

    #[test]
    fn the_host_has_ticks() {
        assert!(Machine::host().ticks_per_second >= 1);
    }
}
