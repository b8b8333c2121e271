//! `/proc/PID/status`: memory by kind, peak memory, context switches.

use super::{ParseError, number, pairs, words};
use crate::sample::ContextSwitches;

/// What is used of `/proc/PID/status`. Memory lines are absent for a process without memory (a zombie, a
/// kernel thread), so those are optional.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// `VmHWM`: peak resident memory, KiB.
    pub peak_rss_kib: Option<u64>,
    /// `VmRSS`: resident memory, KiB.
    pub rss_kib: Option<u64>,
    /// `VmExe`: program code, KiB.
    pub text_kib: Option<u64>,
    /// `VmData`: writable private memory without the stack, KiB.
    pub data_kib: Option<u64>,
    /// `VmStk`: the main thread's stack, KiB.
    pub stack_kib: Option<u64>,
    /// `voluntary_ctxt_switches` of this one thread.
    pub voluntary_switches: u64,
    /// `nonvoluntary_ctxt_switches` of this one thread.
    pub involuntary_switches: u64,
}

impl Status {
    /// Reads the file. The name on its first line cannot imitate another line: the kernel escapes line ends.
    ///
    /// # Errors
    /// A line that is used is not a number, or the context switches, which stand at the file's end, are
    /// missing: the text was cut.
    pub fn parse(text: &[u8]) -> Result<Self, ParseError> {
        let mut status = Self::default();
        let mut switches = (None, None);
        for (key, value) in pairs(text) {
            match key {
                b"VmHWM" => status.peak_rss_kib = Some(first_number(value, "VmHWM")?),
                b"VmRSS" => status.rss_kib = Some(first_number(value, "VmRSS")?),
                b"VmExe" => status.text_kib = Some(first_number(value, "VmExe")?),
                b"VmData" => status.data_kib = Some(first_number(value, "VmData")?),
                b"VmStk" => status.stack_kib = Some(first_number(value, "VmStk")?),
                b"voluntary_ctxt_switches" => switches.0 = Some(first_number(value, VOLUNTARY)?),
                b"nonvoluntary_ctxt_switches" => switches.1 = Some(first_number(value, INVOLUNTARY)?),
                _ => {}
            }
        }
        status.voluntary_switches = switches.0.ok_or_else(|| bad(VOLUNTARY))?;
        status.involuntary_switches = switches.1.ok_or_else(|| bad(INVOLUNTARY))?;
        Ok(status)
    }
}

impl Status {
    /// The context switches of this one thread.
    #[must_use]
    pub const fn switches(&self) -> ContextSwitches {
        ContextSwitches { voluntary: self.voluntary_switches, involuntary: self.involuntary_switches }
    }

    /// The context switches alone, looked for from the file's end, where they stand: a tenth of the work.
    ///
    /// # Errors
    /// As [`Status::parse`], for the two lines.
    pub fn switches_in(text: &[u8]) -> Result<ContextSwitches, ParseError> {
        let value = |name: &'static str| {
            let mut lines = text.rsplit(|byte| *byte == b'\n');
            let value = lines.find_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b":"));
            value.map_or_else(|| Err(bad(name)), |value| first_number(value, name))
        };
        Ok(ContextSwitches { voluntary: value(VOLUNTARY)?, involuntary: value(INVOLUNTARY)? })
    }
}

const VOLUNTARY: &str = "voluntary_ctxt_switches";
const INVOLUNTARY: &str = "nonvoluntary_ctxt_switches";

const fn bad(field: &'static str) -> ParseError {
    ParseError { file: "status", field }
}

/// The number before the unit (`  4628 kB`).
fn first_number(value: &[u8], field: &'static str) -> Result<u64, ParseError> {
    words(value).next().and_then(number).ok_or_else(|| bad(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"Name:\tweird VmHWM: 1 kB\\n\nUmask:\t0022\nState:\tS (sleeping)\nPid:\t42\n\
        VmPeak:\t  141560 kB\nVmHWM:\t   36264 kB\nVmRSS:\t   30001 kB\nVmData:\t   54068 kB\nVmStk:\t     132 kB\n\
        VmExe:\t    5432 kB\nThreads:\t4\nCpus_allowed:\t3\nvoluntary_ctxt_switches:\t100\n\
        nonvoluntary_ctxt_switches:\t9\n";

    #[test]
    fn peak_memory_data_stack_and_switches_are_read() {
        let expected = Status {
            peak_rss_kib: Some(36264),
            rss_kib: Some(30001),
            text_kib: Some(5432),
            data_kib: Some(54068),
            stack_kib: Some(132),
            voluntary_switches: 100,
            involuntary_switches: 9,
        };
        assert_eq!(Status::parse(TEXT).unwrap(), expected);
    }

    #[test]
    fn the_switches_alone_are_those_of_the_whole_file() {
        assert_eq!(Status::switches_in(TEXT).unwrap(), Status::parse(TEXT).unwrap().switches());
        let newer = [TEXT, b"x86_Thread_features:\tshstk\n"].concat();
        assert_eq!(Status::switches_in(&newer).unwrap(), Status::parse(TEXT).unwrap().switches());
        assert_eq!(Status::switches_in(b"").unwrap_err().field, "voluntary_ctxt_switches");
        assert!(Status::switches_in(&TEXT[..TEXT.len() - 30]).is_err());
    }

    #[test]
    fn a_process_without_memory_has_switches_only() {
        let status =
            Status::parse(b"Name:\tz\nvoluntary_ctxt_switches:\t1\nnonvoluntary_ctxt_switches:\t2\n")
                .unwrap();
        assert_eq!((status.peak_rss_kib, status.voluntary_switches), (None, 1));
    }

    #[test]
    fn a_text_that_was_cut_is_refused() {
        assert_eq!(Status::parse(&TEXT[..TEXT.len() - 30]).unwrap_err().file, "status");
        assert_eq!(Status::parse(b"VmHWM:\tmuch kB\n").unwrap_err().field, "VmHWM");
    }
}
