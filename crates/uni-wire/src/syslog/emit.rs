//! Writing one message, in one of three formats.
//!
//! Owns the frame, its length and what control characters become. Never sends anything.

use core::fmt::{self, Write as _};

use super::{Facility, Severity};
use crate::Timestamp;
use crate::civil::Civil;
use crate::slice::SliceWriter;

/// Longest message of RFC 3164, section 4.1.
pub const MAX_MESSAGE_BYTES: usize = 1024;

/// Longest tag of RFC 3164, section 4.1.3, in characters.
pub const MAX_TAG_CHARS: usize = 32;

/// Longest host name written, in characters (RFC 1123).
pub const MAX_HOST_CHARS: usize = 255;

/// Longest application name of RFC 5424, section 6.
const MAX_APP_CHARS: usize = 48;

/// Longest message id, and longest parameter name, of RFC 5424.
const MAX_ID_CHARS: usize = 32;

/// The element that carries log tags; the number is the one reserved for examples (RFC 5612).
const TAGS_ELEMENT: &str = "tags@32473";

/// The shape of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `<PRI>Mmm dd hh:mm:ss HOST TAG: text`, the day padded with a space.
    #[default]
    Rfc3164,
    /// `<PRI>1 TIME HOST APP - MSGID [tags] text`.
    Rfc5424,
    /// As MirageOS's `logs-syslog` 0.5 writes it: the day padded with a zero, no colon after the tag, host and tag
    /// as they are. What differs: control characters do not go through, characters are not cut in two, long tag
    /// sets are not broken into lines.
    Mirage,
}

impl Format {
    /// The format's name on command lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rfc3164 => "rfc3164",
            Self::Rfc5424 => "rfc5424",
            Self::Mirage => "mirage",
        }
    }

    /// The format called `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Rfc3164, Self::Rfc5424, Self::Mirage].into_iter().find(|format| format.name() == name)
    }
}

/// One message to be written. Control characters anywhere in it are written as `#` and three octal digits, as rsyslog
/// does.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a, T: fmt::Display> {
    /// Who speaks.
    pub facility: Facility,
    /// How bad it is.
    pub severity: Severity,
    /// When.
    pub time: Timestamp,
    /// The sender's name; `None` on a local socket. But for [`Format::Mirage`], blanks and control characters become
    /// `_`, and an empty name becomes `-`.
    pub host: Option<&'a str>,
    /// The log source. But for [`Format::Mirage`], what is not a letter, a digit or one of `-_./` becomes `_`.
    pub tag: &'a str,
    /// What kind of message it is.
    pub header: Option<&'a str>,
    /// Log tags: names and values.
    pub tags: &'a [(&'a str, &'a str)],
    /// The text.
    pub text: T,
}

impl<T: fmt::Display> Message<'_, T> {
    /// Writes the message at the start of `out` and returns its length. What does not fit is cut off between two
    /// characters.
    pub fn emit(&self, format: Format, out: &mut [u8]) -> usize {
        let limit = out.len();
        let mut out = SliceWriter::new(out);
        if limit > 0 {
            // Full is the only fault there is, and what was written before it stands.
            let _ = self.write(format, limit, &mut out);
        }
        out.len()
    }

    /// Writes the message into `out`, cut between two characters after `limit_bytes` bytes; 0 means no limit.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write<W: fmt::Write + ?Sized>(
        &self,
        format: Format,
        limit_bytes: usize,
        out: &mut W,
    ) -> fmt::Result {
        let left = if limit_bytes == 0 { usize::MAX } else { limit_bytes };
        let mut out = Clean { out, left, full: false };
        let done = match format {
            Format::Rfc3164 => self.write_rfc3164(&mut out),
            Format::Rfc5424 => self.write_rfc5424(&mut out),
            Format::Mirage => self.write_mirage(&mut out),
        };
        if out.full { Ok(()) } else { done }
    }

    fn write_rfc3164(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let at = self.civil();
        write!(out, "<{}>{} {:>2} {}", self.priority(), at.month_name(), at.day, TimeOfDay(at))?;
        if let Some(host) = self.host {
            out.write_char(' ')?;
            write_mapped(out, host, MAX_HOST_CHARS, host_char)?;
        }
        out.write_char(' ')?;
        write_mapped(out, self.tag, MAX_TAG_CHARS, tag_char)?;
        out.write_char(':')?;
        self.write_content(out)
    }

    fn write_mirage(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let at = self.civil();
        write!(out, "<{}>{} {:02} {} ", self.priority(), at.month_name(), at.day, TimeOfDay(at))?;
        if let Some(host) = self.host {
            write!(out, "{host} ")?;
        }
        // What is a count of characters to the RFC is one of bytes there.
        out.write_str(prefix(self.tag, MAX_TAG_CHARS))?;
        self.write_content(out)
    }

    /// Log tags, header and text, each after a space.
    fn write_content(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        if !self.tags.is_empty() {
            out.write_str(" {")?;
            self.tags.iter().try_for_each(|(name, value)| write!(out, "(tag:{name} {value})"))?;
            out.write_char('}')?;
        }
        if let Some(header) = self.header {
            write!(out, " {header}")?;
        }
        write!(out, " {}", self.text)
    }

    fn write_rfc5424(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "<{}>1 {} ", self.priority(), Rfc3339(self.time))?;
        write_mapped(out, self.host.unwrap_or_default(), MAX_HOST_CHARS, header_char)?;
        out.write_char(' ')?;
        write_mapped(out, self.tag, MAX_APP_CHARS, header_char)?;
        out.write_str(" - ")?;
        write_mapped(out, self.header.unwrap_or_default(), MAX_ID_CHARS, header_char)?;
        self.write_tags_element(out)?;
        let mut ascii = AsciiOnly(true);
        write!(ascii, "{}", self.text)?;
        // Section 6.4: text beyond ASCII is announced by a byte order mark.
        write!(out, " {}{}", if ascii.0 { "" } else { "\u{feff}" }, self.text)
    }

    fn write_tags_element(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        if self.tags.is_empty() {
            return out.write_str(" -");
        }
        write!(out, " [{TAGS_ELEMENT}")?;
        for (name, value) in self.tags {
            out.write_char(' ')?;
            write_mapped(out, name, MAX_ID_CHARS, parameter_char)?;
            out.write_str("=\"")?;
            value.chars().try_for_each(|c| {
                if matches!(c, '"' | '\\' | ']') {
                    out.write_char('\\')?;
                }
                out.write_char(c)
            })?;
            out.write_char('"')?;
        }
        out.write_char(']')
    }

    const fn priority(&self) -> u8 {
        self.facility as u8 * 8 + self.severity as u8
    }

    fn civil(&self) -> Civil {
        Civil::from_unix_seconds(self.time.nanos().div_euclid(1_000_000_000))
    }
}

/// `hh:mm:ss`.
struct TimeOfDay(Civil);

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Civil { hour, minute, second, .. } = self.0;
        write!(f, "{hour:02}:{minute:02}:{second:02}")
    }
}

/// RFC 3339, with microseconds where there are any.
struct Rfc3339(Timestamp);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.nanos();
        let Civil { year, month, day, .. } = Civil::from_unix_seconds(nanos.div_euclid(1_000_000_000));
        let time = TimeOfDay(Civil::from_unix_seconds(nanos.div_euclid(1_000_000_000)));
        write!(f, "{year:04}-{month:02}-{day:02}T{time}")?;
        match nanos.rem_euclid(1_000_000_000) / 1_000 {
            0 => f.write_char('Z'),
            micros => write!(f, ".{micros:06}Z"),
        }
    }
}

fn write_mapped(out: &mut dyn fmt::Write, text: &str, max: usize, map: fn(char) -> char) -> fmt::Result {
    let text = if text.is_empty() { "-" } else { text };
    text.chars().take(max).try_for_each(|c| out.write_char(map(c)))
}

fn host_char(c: char) -> char {
    if c.is_whitespace() || c.is_control() { '_' } else { c }
}

fn tag_char(c: char) -> char {
    if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/') { c } else { '_' }
}

/// `PRINTUSASCII` of RFC 5424.
fn header_char(c: char) -> char {
    if c.is_ascii_graphic() { c } else { '_' }
}

/// `SD-NAME` of RFC 5424.
fn parameter_char(c: char) -> char {
    if matches!(c, '=' | ']' | '"') { '_' } else { header_char(c) }
}

/// The longest start of `text` of at most `max` bytes and whole characters.
fn prefix(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}

/// Whether all that was written is ASCII.
struct AsciiOnly(bool);

impl fmt::Write for AsciiOnly {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 &= text.is_ascii();
        Ok(())
    }
}

/// Lets no control character through, and no more than a number of bytes.
struct Clean<'a, W: fmt::Write + ?Sized> {
    out: &'a mut W,
    left: usize,
    /// Something was cut off: nothing may follow.
    full: bool,
}

impl<W: fmt::Write + ?Sized> Clean<'_, W> {
    fn write_clean(&mut self, c: char) -> fmt::Result {
        let mut space = [0; 4];
        if !c.is_control() {
            return self.write_whole(c.encode_utf8(&mut space));
        }
        let mut escape = SliceWriter::new(&mut space);
        write!(escape, "#{:03o}", u32::from(c))?;
        self.write_whole(core::str::from_utf8(escape.as_bytes()).unwrap_or("#"))
    }

    fn write_whole(&mut self, text: &str) -> fmt::Result {
        self.full |= text.len() > self.left;
        if self.full {
            return Err(fmt::Error);
        }
        self.left -= text.len();
        self.out.write_str(text)
    }
}

impl<W: fmt::Write + ?Sized> fmt::Write for Clean<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| self.write_clean(c))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::String;

    fn message<'a>(host: &'a str, tag: &'a str, text: &'a str) -> Message<'a, &'a str> {
        Message {
            facility: Facility::Daemon,
            severity: Severity::Informational,
            time: Timestamp::from_seconds(1_780_909_507),
            host: Some(host),
            tag,
            header: None,
            tags: &[],
            text,
        }
    }

    fn emit(message: &Message<'_, &str>, format: Format, limit: usize) -> String {
        let mut out = String::new();
        message.write(format, limit, &mut out).expect("string");
        out
    }

    #[test]
    fn each_format_has_its_shape() {
        let plain = message("my.unikernel", "dns", "hello");
        assert_eq!(emit(&plain, Format::Rfc3164, 0), "<30>Jun  8 09:05:07 my.unikernel dns: hello");
        assert_eq!(emit(&plain, Format::Mirage, 0), "<30>Jun 08 09:05:07 my.unikernel dns hello");
        assert_eq!(
            emit(&plain, Format::Rfc5424, 0),
            "<30>1 2026-06-08T09:05:07Z my.unikernel dns - - - hello"
        );
        let local = Message { host: None, ..plain };
        assert_eq!(emit(&local, Format::Rfc3164, 0), "<30>Jun  8 09:05:07 dns: hello");
        assert_eq!(emit(&local, Format::Rfc5424, 0), "<30>1 2026-06-08T09:05:07Z - dns - - - hello");
    }

    #[test]
    fn tags_and_header_have_their_places() {
        let tags = [("ip", "10.0.0.1"), ("a =]\"", "\"x\\]")];
        let rich = Message {
            header: Some("H D"),
            tags: &tags,
            time: Timestamp(1_500_000),
            ..message("h", "dns", "é")
        };
        assert_eq!(
            emit(&rich, Format::Rfc3164, 0),
            "<30>Jan  1 00:00:00 h dns: {(tag:ip 10.0.0.1)(tag:a =]\" \"x\\])} H D é"
        );
        assert_eq!(
            emit(&rich, Format::Rfc5424, 0),
            "<30>1 1970-01-01T00:00:00.001500Z h dns - H_D [tags@32473 ip=\"10.0.0.1\" a____=\"\\\"x\\\\\\]\"] \u{feff}é"
        );
    }

    #[test]
    fn control_characters_are_made_harmless() {
        let hostile = message("a b\n", "x:y", "1\n<0>2\t\u{85}");
        assert_eq!(emit(&hostile, Format::Rfc3164, 0), "<30>Jun  8 09:05:07 a_b_ x_y: 1#012<0>2#011#205");
        assert_eq!(emit(&hostile, Format::Mirage, 0), "<30>Jun 08 09:05:07 a b#012 x:y 1#012<0>2#011#205");
        assert_eq!(emit(&message("", "", ""), Format::Rfc3164, 0), "<30>Jun  8 09:05:07 - -: ");
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_no_limit_is_none() {
        assert_eq!(emit(&message("h", "t", "aé"), Format::Rfc3164, 26), "<30>Jun  8 09:05:07 h t: a");
        assert_eq!(emit(&message("h", "t", "aé"), Format::Mirage, 1), "<");
        let long = "x".repeat(5000);
        assert_eq!(emit(&message("h", "t", &long), Format::Rfc3164, 0).len(), 5025);
        let tag = "é".repeat(20) + "end";
        let cut = emit(&message("h", &tag, ""), Format::Mirage, 0);
        assert!(cut.ends_with(&std::format!(" h {} ", "é".repeat(16))), "{cut}");
        let mut space = [0; 30];
        assert_eq!(message("h", "t", &long).emit(Format::Rfc3164, &mut space), 30);
        assert_eq!(message("h", "t", &long).emit(Format::Rfc3164, &mut []), 0);
    }

    proptest! {
        #[test]
        fn nothing_makes_a_second_line_or_an_empty_message(
            host in "(?s).{0,20}", tag in "(?s).{0,40}", text in "(?s).{0,40}", limit in 0_usize..120,
            name in "(?s).{0,5}", value in "(?s).{0,5}",
        ) {
            let tags = [(&*name, &*value)];
            let message = Message { tags: &tags, header: Some(&value), ..message(&host, &tag, &text) };
            for format in [Format::Rfc3164, Format::Rfc5424, Format::Mirage] {
                let out = emit(&message, format, limit);
                prop_assert!(limit == 0 || out.len() <= limit);
                prop_assert!(!out.is_empty() && !out.chars().any(char::is_control));
            }
        }
    }
}
