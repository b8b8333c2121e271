//! Syslog messages in the shape of RFC 3164: `<PRI>Mmm dd hh:mm:ss HOST TAG: text`.
//!
//! Owns the frame, its length and what control characters become. Never sends anything.
//!
//! Where MirageOS's encoder is at odds with the RFC, the RFC is followed: the day is padded with a space, the tag
//! ends in a colon, control characters do not go through, and the whole has at most [`MAX_MESSAGE_BYTES`].

use core::fmt::{self, Write as _};

use crate::civil::Civil;
use crate::slice::SliceWriter;

/// Longest message of RFC 3164, section 4.1.
pub const MAX_MESSAGE_BYTES: usize = 1024;

/// Longest tag of RFC 3164, section 4.1.3, in characters.
pub const MAX_TAG_CHARS: usize = 32;

/// Longest host name written, in characters (RFC 1123).
pub const MAX_HOST_CHARS: usize = 255;

/// What part of a system speaks (RFC 3164, table 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the RFC's own names say it all")]
#[repr(u8)]
pub enum Facility {
    Kern = 0,
    User = 1,
    Mail = 2,
    Daemon = 3,
    Auth = 4,
    Syslog = 5,
    Lpr = 6,
    News = 7,
    Uucp = 8,
    Clock = 9,
    AuthPriv = 10,
    Ftp = 11,
    Ntp = 12,
    LogAudit = 13,
    LogAlert = 14,
    ClockDaemon = 15,
    Local0 = 16,
    Local1 = 17,
    Local2 = 18,
    Local3 = 19,
    Local4 = 20,
    Local5 = 21,
    Local6 = 22,
    Local7 = 23,
}

/// How bad it is (RFC 3164, table 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the RFC's own names say it all")]
#[repr(u8)]
pub enum Severity {
    Emergency = 0,
    Alert = 1,
    Critical = 2,
    Error = 3,
    Warning = 4,
    Notice = 5,
    Informational = 6,
    Debug = 7,
}

/// One message to be written.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a, T: fmt::Display> {
    /// Who speaks.
    pub facility: Facility,
    /// How bad it is.
    pub severity: Severity,
    /// When, in seconds since the Unix epoch.
    pub unix_seconds: i64,
    /// The sender's name. Blanks and control characters become `_`; an empty name becomes `-`.
    pub host: &'a str,
    /// The log source. What is not a letter, a digit or one of `-_./` becomes `_`.
    pub tag: &'a str,
    /// The text. Control characters are written as `#` and three octal digits, as rsyslog does.
    pub text: T,
}

impl<T: fmt::Display> Message<'_, T> {
    /// Writes the message at the start of `out` and returns its length. What does not fit `out` or
    /// [`MAX_MESSAGE_BYTES`] is cut off between two characters.
    pub fn emit(&self, out: &mut [u8]) -> usize {
        let limit = out.len().min(MAX_MESSAGE_BYTES);
        let mut writer =
            Clean { out: SliceWriter::new(out.get_mut(..limit).unwrap_or_default()), full: false };
        // Full is the only fault there is, and what was written before it stands.
        let _ = self.write(&mut writer);
        writer.out.len()
    }

    fn write(&self, writer: &mut Clean<'_>) -> fmt::Result {
        let priority = self.facility as u8 * 8 + self.severity as u8;
        let at = Civil::from_unix_seconds(self.unix_seconds);
        let (month, day) = (at.month_name(), at.day);
        write!(writer, "<{priority}>{month} {day:>2} {:02}:{:02}:{:02} ", at.hour, at.minute, at.second)?;
        write_mapped(writer, self.host, MAX_HOST_CHARS, host_char)?;
        writer.write_char(' ')?;
        write_mapped(writer, self.tag, MAX_TAG_CHARS, tag_char)?;
        write!(writer, ": {}", self.text)
    }
}

fn write_mapped(out: &mut Clean<'_>, text: &str, max: usize, map: fn(char) -> char) -> fmt::Result {
    let text = if text.is_empty() { "-" } else { text };
    text.chars().take(max).try_for_each(|c| out.write_char(map(c)))
}

fn host_char(c: char) -> char {
    if c.is_whitespace() || c.is_control() { '_' } else { c }
}

fn tag_char(c: char) -> char {
    if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/') { c } else { '_' }
}

/// Lets no control character through.
struct Clean<'a> {
    out: SliceWriter<'a>,
    /// Something was cut off: nothing may follow.
    full: bool,
}

impl Clean<'_> {
    fn write_clean(&mut self, c: char) -> fmt::Result {
        if self.full {
            return Err(fmt::Error);
        }
        if c.is_control() { write!(self.out, "#{:03o}", u32::from(c)) } else { self.out.write_char(c) }
    }
}

impl fmt::Write for Clean<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| {
            let done = self.write_clean(c);
            self.full |= done.is_err();
            done
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::String;

    fn emit(host: &str, tag: &str, text: &str, space: usize) -> String {
        let message = Message {
            facility: Facility::Daemon,
            severity: Severity::Informational,
            unix_seconds: 1_780_909_507,
            host,
            tag,
            text,
        };
        let mut out = std::vec![0; space];
        let len = message.emit(&mut out);
        String::from_utf8(out[..len].to_vec()).expect("whole characters")
    }

    #[test]
    fn the_day_is_padded_with_a_space_and_the_tag_ends_in_a_colon() {
        assert_eq!(emit("my.unikernel", "dns", "hello", 100), "<30>Jun  8 09:05:07 my.unikernel dns: hello");
    }

    #[test]
    fn control_characters_are_made_harmless() {
        assert_eq!(emit("a b\n", "x:y", "1\n<0>2\t", 100), "<30>Jun  8 09:05:07 a_b_ x_y: 1#012<0>2#011");
        assert_eq!(emit("", "", "", 100), "<30>Jun  8 09:05:07 - -: ");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(emit("h", "t", "aé", 26), "<30>Jun  8 09:05:07 h t: a");
        assert_eq!(emit("h", "t", &"x".repeat(5000), 9000).len(), MAX_MESSAGE_BYTES);
    }

    proptest! {
        #[test]
        fn nothing_makes_a_second_line(host in "(?s).{0,20}", tag in "(?s).{0,40}", text in "(?s).{0,40}", n in 0_usize..120) {
            let out = emit(&host, &tag, &text, n);
            prop_assert!(out.len() <= n && !out.chars().any(char::is_control));
        }
    }
}
