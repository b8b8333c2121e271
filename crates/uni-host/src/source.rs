//! Where a VM's figures come from: `/proc`, or nowhere.
//!
//! Owns both behind one trait, [`StatsSource`], and the stepping in of the one for the other ([`look`]). Never decides
//! when to look.

use std::time::Duration;

use crate::rates::Rates;
use crate::sample::{Machine, ProcessSample};
use crate::sampler::{ProcessSampler, SampleError};

/// What is told of a process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Processor time over wall time since the look before; 100 is one core.
    pub cpu_percent: f64,
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    /// Bytes read from and written to disks.
    pub disk_bytes: u64,
}

/// A source of figures about one process.
pub trait StatsSource {
    /// The source's name, as answers carry it.
    fn name(&self) -> &'static str;

    /// Looks now, a time since boot. `None` where a rate needs one more look.
    ///
    /// # Errors
    /// As [`ProcessSampler::sample`].
    fn look(&mut self, now: Duration) -> Result<Option<Usage>, SampleError>;
}

/// What was told, and by whom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Told {
    /// The source's name.
    pub source: &'static str,
    /// The figures; `None` where a rate needs one more look.
    pub usage: Option<Usage>,
}

/// Asks `source`, or [`Fallback`] as long as `source` cannot be read.
///
/// # Errors
/// When the process has ended.
pub fn look(source: &mut dyn StatsSource, now: Duration) -> Result<Told, SampleError> {
    match source.look(now) {
        Err(error) if !error.is_final() => look(&mut Fallback, now),
        outcome => Ok(Told { source: source.name(), usage: outcome? }),
    }
}

/// Linux' `/proc`. Keeps the newest sample.
#[derive(Debug)]
pub struct Proc {
    sampler: ProcessSampler,
    newest: Option<ProcessSample>,
}

impl Proc {
    /// The source for one process, named by pid and start time as [`ProcessSampler::open`] takes them.
    #[must_use]
    pub fn open(pid: u32, start_ticks: u64, machine: Machine) -> Self {
        Self { sampler: ProcessSampler::open(pid, start_ticks, machine), newest: None }
    }

    /// The pid.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.sampler.pid()
    }

    /// What the last look that succeeded saw.
    #[must_use]
    pub const fn newest(&self) -> Option<&ProcessSample> {
        self.newest.as_ref()
    }
}

impl StatsSource for Proc {
    fn name(&self) -> &'static str {
        "proc"
    }

    fn look(&mut self, now: Duration) -> Result<Option<Usage>, SampleError> {
        let sample = self.sampler.sample(now)?;
        let before = self.newest.replace(sample);
        let rates = before.and_then(|before| Rates::between(&before, &sample));
        Ok(rates.map(|rates| Usage {
            cpu_percent: rates.cpu_percent,
            rss_bytes: sample.rss_bytes,
            disk_bytes: sample.io.map_or(0, |io| io.read_bytes.saturating_add(io.write_bytes)),
        }))
    }
}

/// Nothing can be measured: there is no process, or the system does not show it. Always zeros.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fallback;

impl StatsSource for Fallback {
    fn name(&self) -> &'static str {
        "fallback"
    }

    fn look(&mut self, _now: Duration) -> Result<Option<Usage>, SampleError> {
        Ok(Some(Usage::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// What two looks tell, `work` between them.
    fn two_looks(source: &mut dyn StatsSource, work: impl FnOnce()) -> [Result<Told, SampleError>; 2] {
        let first = look(source, SECOND);
        work();
        [first, look(source, SECOND * 2)]
    }

    #[test]
    fn proc_tells_of_this_very_process_from_the_second_look_on() {
        let pid = std::process::id();
        let start_ticks = crate::sampler::start_ticks(pid).unwrap();
        let mut source = Proc::open(pid, start_ticks, Machine::host());
        assert_eq!(source.pid(), pid);
        let mut kept = Vec::new();
        let [first, second] = two_looks(&mut source, || {
            for n in 0..3_000_000_u64 {
                kept.push(std::hint::black_box(n));
            }
        });
        assert_eq!(first, Ok(Told { source: "proc", usage: None }));
        let told = second.unwrap();
        let usage = told.usage.unwrap();
        assert_eq!(told.source, "proc");
        assert!(usage.cpu_percent > 0.0 && usage.rss_bytes > 3_000_000 * 8, "{usage:?}");
        assert_eq!(source.newest().unwrap().at, SECOND * 2);
    }

    #[test]
    fn of_a_process_that_is_gone_nothing_is_told() {
        // this pid, but of a process that started at another time
        let mut source = Proc::open(std::process::id(), 1, Machine::host());
        let [first, second] = two_looks(&mut source, || {});
        assert!(first.unwrap_err().is_final() && second.unwrap_err().is_final());
        assert!(source.newest().is_none());
    }

    const ZEROS: Usage = Usage { cpu_percent: 0.0, rss_bytes: 0, disk_bytes: 0 };
    const FALLBACK: Result<Told, SampleError> = Ok(Told { source: "fallback", usage: Some(ZEROS) });

    #[test]
    fn the_fallback_tells_zeros_at_every_look() {
        assert_eq!(two_looks(&mut Fallback, || {}), [FALLBACK, FALLBACK]);
    }

    /// A `/proc` that cannot be read at the first look.
    struct Flaky(bool);

    impl StatsSource for Flaky {
        fn name(&self) -> &'static str {
            "proc"
        }

        fn look(&mut self, _now: Duration) -> Result<Option<Usage>, SampleError> {
            let unreadable =
                SampleError::Unreadable { pid: 1, file: "stat", errno: rustix::io::Errno::ACCESS };
            if std::mem::replace(&mut self.0, true) { Ok(Some(ZEROS)) } else { Err(unreadable) }
        }
    }

    #[test]
    fn the_fallback_stands_in_while_proc_cannot_be_read() {
        let proc = Ok(Told { source: "proc", usage: Some(ZEROS) });
        assert_eq!(two_looks(&mut Flaky(false), || {}), [FALLBACK, proc]);
    }
}
