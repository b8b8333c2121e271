//! `/proc/PID/stat`: times and faults of a whole process on one line.
//!
//! Its resident size (field 24) is not used: since Linux 6.16 it lags behind by up to 64 pages a processor,
//! while `/proc/PID/status` is exact.

use super::{ParseError, number, words};

/// What is used of `/proc/PID/stat`; field numbers are proc(5)'s, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Field 3: `R`, `S`, `D`, `Z`, `T`, `X`, ...
    pub state: u8,
    /// Field 10: page faults served without reading a page, all threads.
    pub minflt: u64,
    /// Field 12: page faults that read a page, all threads.
    pub majflt: u64,
    /// Field 14: time in user mode, clock ticks, all threads. Includes the guest's time under KVM.
    pub utime_ticks: u64,
    /// Field 15: time in kernel mode, clock ticks, all threads.
    pub stime_ticks: u64,
    /// Field 20: number of threads.
    pub threads: u64,
    /// Field 22: when the process started, clock ticks after boot.
    pub start_ticks: u64,
    /// Field 23: address space, bytes.
    pub vsize_bytes: u64,
}

impl Stat {
    /// Reads the line. The process's name (field 2) stands in parentheses and may itself hold spaces and
    /// parentheses: what follows the *last* closing one is numbers only.
    ///
    /// # Errors
    /// The name's parentheses, or a field up to the 23rd, are missing or not a number.
    pub fn parse(text: &[u8]) -> Result<Self, ParseError> {
        let after_name = text.iter().rposition(|byte| *byte == b')').ok_or_else(|| missing("comm"))?;
        let mut fields = Fields { words: words(&text[after_name + 1..]), last: 2 };
        Ok(Self {
            state: fields.word(3, "state")?[0],
            minflt: fields.number(10, "minflt")?,
            majflt: fields.number(12, "majflt")?,
            utime_ticks: fields.number(14, "utime")?,
            stime_ticks: fields.number(15, "stime")?,
            threads: fields.number(20, "num_threads")?,
            start_ticks: fields.number(22, "starttime")?,
            vsize_bytes: fields.number(23, "vsize")?,
        })
    }

    /// The process has ended and only its exit status is left.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

const fn missing(field: &'static str) -> ParseError {
    ParseError { file: "stat", field }
}

/// Walks the fields after the name by their number.
struct Fields<'a, I: Iterator<Item = &'a [u8]>> {
    words: I,
    last: usize,
}

impl<'a, I: Iterator<Item = &'a [u8]>> Fields<'a, I> {
    /// Field `position`, which must lie behind the one asked for before.
    fn word(&mut self, position: usize, name: &'static str) -> Result<&'a [u8], ParseError> {
        let skip = position - self.last - 1;
        self.last = position;
        self.words.nth(skip).ok_or_else(|| missing(name))
    }

    fn number(&mut self, position: usize, name: &'static str) -> Result<u64, ParseError> {
        number(self.word(position, name)?).ok_or_else(|| missing(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: &str = "S 1 4711 4711 0 -1 4194560 5000 30 2 1 1234 300 7 8 20 0 5 0 108183 141557760 8123 \
                        18446744073709551615 1 1 0 0 0 0 0 4096 1260 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n";

    #[test]
    fn the_fields_are_those_of_proc_5() {
        let stat = Stat::parse(format!("4711 (qemu-system-x86) {REST}").as_bytes()).unwrap();
        assert_eq!(
            stat,
            Stat {
                state: b'S',
                minflt: 5000,
                majflt: 2,
                utime_ticks: 1234,
                stime_ticks: 300,
                threads: 5,
                start_ticks: 108_183,
                vsize_bytes: 141_557_760,
            }
        );
    }

    #[test]
    fn names_with_spaces_parentheses_and_other_bytes_do_not_shift_the_fields() {
        let plain = Stat::parse(format!("1 (a) {REST}").as_bytes()).unwrap();
        for name in ["a b", "a) S 1 2 3", "((", ") (", "", ")))", "0 0 0 0"] {
            let line = format!("1 ({name}) {REST}");
            assert_eq!(Stat::parse(line.as_bytes()).unwrap(), plain, "{name:?}");
        }
        let mut line = b"1 (\xff\xfe) ".to_vec();
        line.extend_from_slice(REST.as_bytes());
        assert_eq!(Stat::parse(&line).unwrap(), plain);
    }

    #[test]
    fn a_line_cut_short_names_the_first_missing_field() {
        assert_eq!(Stat::parse(b"").unwrap_err().field, "comm");
        assert_eq!(Stat::parse(b"1 (a)").unwrap_err().field, "state");
        assert_eq!(
            Stat::parse(b"1 (a) S 1 4711 4711 0 -1 4194560 5000 30 2 1 12").unwrap_err().field,
            "stime"
        );
    }

    #[test]
    fn a_zombie_has_ended() {
        let zombie = REST.replacen('S', "Z", 1);
        assert!(Stat::parse(format!("1 (a) {zombie}").as_bytes()).unwrap().has_ended());
    }
}
