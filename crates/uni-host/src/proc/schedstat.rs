//! `/proc/PID/task/TID/schedstat`: what the scheduler counts of one thread, in nanoseconds.

use super::{ParseError, number, words};

/// What is used of the file (Documentation/scheduler/sched-stats.rst, `/proc/<pid>/schedstat`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedstat {
    /// Time on a processor, ns. For a thread that runs right now: up to the scheduler's last tick (1 to 10 ms).
    pub on_cpu_ns: u64,
    /// How often it was put on a processor.
    pub timeslices: u64,
}

impl Schedstat {
    /// Reads the line of three numbers: time on a processor, time waited for one, times put on one.
    ///
    /// # Errors
    /// One of them is missing or not a number.
    pub fn parse(text: &[u8]) -> Result<Self, ParseError> {
        let mut words = words(text);
        let mut next = |field| words.next().and_then(number).ok_or(ParseError { file: "schedstat", field });
        let on_cpu_ns = next("on_cpu")?;
        next("waiting")?;
        Ok(Self { on_cpu_ns, timeslices: next("timeslices")? })
    }

    /// A kernel built without schedstats answers `0 0 0`, as does a thread that has never run.
    #[must_use]
    pub const fn tells_nothing(&self) -> bool {
        self.on_cpu_ns == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_and_timeslices_are_read() {
        let expected = Schedstat { on_cpu_ns: 23_431_820, timeslices: 110 };
        assert_eq!(Schedstat::parse(b"23431820 3565480 110\n").unwrap(), expected);
    }

    #[test]
    fn a_line_cut_short_names_the_missing_field() {
        assert_eq!(Schedstat::parse(b"").unwrap_err().field, "on_cpu");
        assert_eq!(Schedstat::parse(b"1").unwrap_err().field, "waiting");
        assert_eq!(Schedstat::parse(b"1 2\n").unwrap_err().field, "timeslices");
    }

    #[test]
    fn a_kernel_without_schedstats_is_told_from_one_with_them() {
        assert!(Schedstat::parse(b"0 0 0\n").unwrap().tells_nothing());
        assert!(!Schedstat::parse(b"1 0 1\n").unwrap().tells_nothing());
    }
}
