//! Reading one message, whoever wrote it.
//!
//! Owns the grammar of RFC 5424, that of RFC 3164, and the habits of devices that follow neither: no priority, no
//! time, no host name, a year or a fraction in the date, RFC 3339 times. Reading never fails; what cannot be made out
//! stays in the text.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Facility, Severity};
use crate::Timestamp;
use crate::civil::Civil;

/// Longest name taken for that of a program.
const MAX_APP_BYTES: usize = 64;

/// What a message does not say of itself.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// About when the message was sent: a date without a year is in the year that brings it nearest.
    pub reference: Timestamp,
    /// The word after the host name is the program's name though no colon follows, as MirageOS writes it.
    pub bare_tag: bool,
}

/// One message, as far as it could be made out.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed<'a> {
    /// Who speaks; `user` if it was not said.
    pub facility: Facility,
    /// How bad it is; `notice` if it was not said.
    pub severity: Severity,
    /// When it was made.
    pub time: Option<Timestamp>,
    /// The time is whole: year and time zone were said, neither comes from the [`Context`].
    pub dated: bool,
    /// The sender's name, or what it calls itself.
    pub host: Option<&'a str>,
    /// The program.
    pub app: Option<&'a str>,
    /// The program's process.
    pub process: Option<&'a str>,
    /// What kind of message it is.
    pub message_id: Option<&'a str>,
    /// Structured data.
    pub data: Vec<Element<'a>>,
    /// The text.
    pub text: &'a str,
}

/// One element of structured data.
#[derive(Clone, Debug, PartialEq)]
pub struct Element<'a> {
    /// Its kind, as `tags@32473`.
    pub id: &'a str,
    /// Names and values.
    pub parameters: Vec<(&'a str, Cow<'a, str>)>,
}

impl<'a> Parsed<'a> {
    const fn new(facility: Facility, severity: Severity, text: &'a str) -> Self {
        Self {
            facility,
            severity,
            time: None,
            dated: false,
            host: None,
            app: None,
            process: None,
            message_id: None,
            data: Vec::new(),
            text,
        }
    }
}

/// Reads a message; newlines and NUL bytes at its end are not part of it.
#[must_use]
pub fn parse<'a>(message: &'a str, context: &Context) -> Parsed<'a> {
    let message = message.trim_end_matches(['\n', '\r', '\0']);
    let message = message.strip_prefix('\u{feff}').unwrap_or(message);
    let (facility, severity, rest) = split_priority(message);
    let parsed = Parsed::new(facility, severity, rest);
    parse_rfc5424(&parsed).unwrap_or_else(|| parse_rfc3164(parsed, context))
}

/// The priority in angle brackets, 0 to 191, and what follows it. None means user.notice (RFC 3164, section 4.3.3).
fn split_priority(message: &str) -> (Facility, Severity, &str) {
    let given = || {
        let (digits, rest) = message.strip_prefix('<')?.split_once('>')?;
        let good = (1..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        let code: u8 = if good { digits.parse().ok()? } else { return None };
        Some((Facility::from_code(code >> 3)?, Severity::from_code(code & 7)?, rest))
    };
    given().unwrap_or((Facility::User, Severity::Notice, message))
}

fn parse_rfc5424<'a>(message: &Parsed<'a>) -> Option<Parsed<'a>> {
    let rest = message.text.strip_prefix("1 ")?;
    let (time, rest) = match rest.strip_prefix("- ") {
        Some(rest) => (None, rest),
        None => {
            let (time, rest) = split_rfc3339(rest)?;
            (Some(time), rest.strip_prefix(' ')?)
        }
    };
    let (host, rest) = rest.split_once(' ')?;
    let (app, rest) = rest.split_once(' ')?;
    let (process, rest) = rest.split_once(' ')?;
    let (message_id, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let (data, text) = split_data(rest);
    Some(Parsed {
        time,
        dated: time.is_some(),
        host: given(host),
        app: given(app),
        process: given(process),
        message_id: given(message_id),
        data,
        text: text.strip_prefix('\u{feff}').unwrap_or(text),
        ..message.clone()
    })
}

/// A field of RFC 5424 whose value is known.
fn given(field: &str) -> Option<&str> {
    (!matches!(field, "" | "-")).then_some(field)
}

/// Structured data and the text after it; broken data is text.
fn split_data(rest: &str) -> (Vec<Element<'_>>, &str) {
    if let Some(text) = rest.strip_prefix('-')
        && (text.is_empty() || text.starts_with(' '))
    {
        return (Vec::new(), text.strip_prefix(' ').unwrap_or(text));
    }
    let mut data = Vec::new();
    let mut after = rest;
    while after.starts_with('[') {
        let Some((element, next)) = split_element(after) else { return (Vec::new(), rest) };
        data.push(element);
        after = next;
    }
    match after.strip_prefix(' ') {
        Some(text) if !data.is_empty() => (data, text),
        None if after.is_empty() => (data, after),
        _ => (Vec::new(), rest),
    }
}

fn split_element(text: &str) -> Option<(Element<'_>, &str)> {
    let text = text.strip_prefix('[')?;
    let (id, mut rest) = text.split_at(text.find([' ', ']'])?);
    let mut parameters = Vec::new();
    while let Some(parameter) = rest.strip_prefix(' ') {
        let (name, value) = parameter.split_once("=\"")?;
        if name.is_empty() || name.contains([' ', ']', '"']) {
            return None;
        }
        let end = closing_quote(value)?;
        parameters.push((name, unescape(value.get(..end)?)));
        rest = value.get(end + 1..)?;
    }
    (!id.is_empty()).then_some((Element { id, parameters }, rest.strip_prefix(']')?))
}

/// Where the first quote is that no backslash stands before.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

/// Undoes `\"`, `\\` and `\]`; before anything else a backslash is itself.
fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.next_if(|next| matches!(next, '"' | '\\' | ']')) } else { None };
        out.push(escaped.unwrap_or(c));
    }
    Cow::Owned(out)
}

fn parse_rfc3164<'a>(message: Parsed<'a>, context: &Context) -> Parsed<'a> {
    let start = strip_sequence_number(message.text);
    let short = split_rfc3164_time(start, context.reference);
    let dated = short.is_none();
    let timed = short.or_else(|| split_rfc3339(start));
    // The time is a word of its own; devices of one maker put a colon after it.
    let timed = timed.and_then(|(time, rest)| {
        let rest = rest.strip_prefix(':').unwrap_or(rest);
        let rest = if rest.is_empty() { rest } else { rest.strip_prefix(' ')? };
        Some((time, rest))
    });
    let Some((time, rest)) = timed else {
        return with_tag(&message, message.text).unwrap_or(message);
    };
    let message = Parsed { time: Some(time), dated, text: rest, ..message };
    if let Some(without_host) = with_tag(&message, rest) {
        return without_host;
    }
    let Some((host, rest)) = rest.split_once(' ') else { return message };
    let message = Parsed { host: (!host.is_empty()).then_some(host), text: rest, ..message };
    let bare = || {
        let (app, text) = rest.split_once(' ')?;
        (context.bare_tag && !app.is_empty()).then(|| Parsed { app: Some(app), text, ..message.clone() })
    };
    with_tag(&message, rest).or_else(bare).unwrap_or(message)
}

/// The message without its tag, if it starts with one: `app: `, `app[process]: ` or `app[process] `.
fn with_tag<'a>(message: &Parsed<'a>, text: &'a str) -> Option<Parsed<'a>> {
    let (app, rest) = text.split_at(text.find([':', '[', ' '])?);
    if app.is_empty() || app.len() > MAX_APP_BYTES {
        return None;
    }
    let (process, rest) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (process, rest) = rest.split_once(']')?;
            (Some(process).filter(|p| !p.contains(' ')), rest)
        }
        None => (None, rest),
    };
    let rest = match rest.strip_prefix(':') {
        Some(rest) => rest,
        None if process.is_some() => rest,
        None => return None,
    };
    let text = if rest.is_empty() { rest } else { rest.strip_prefix(' ')? };
    Some(Parsed { app: Some(app), process, text, ..message.clone() })
}

/// `29: ` before the time: some routers count their messages.
fn strip_sequence_number(text: &str) -> &str {
    match text.split_once(": ") {
        Some((number, rest)) if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => rest,
        _ => text,
    }
}

/// `Mmm dd [yyyy] hh:mm:ss[.fraction]`; a star or a point before it says that the clock is not set.
fn split_rfc3164_time(text: &str, reference: Timestamp) -> Option<(Timestamp, &str)> {
    let text = text.strip_prefix(['*', '.']).unwrap_or(text);
    let (month, rest) = text.split_at_checked(3)?;
    let month = Civil::month_number(month)?;
    let rest = rest.strip_prefix(' ')?;
    let (day, rest) = split_number(rest.strip_prefix(' ').unwrap_or(rest), 1..=2)?;
    let rest = rest.strip_prefix(' ')?;
    let (year, rest) = match split_number(rest, 4..=4) {
        Some((year, after)) => (Some(i64::from(year)), after.strip_prefix(' ')?),
        None => (None, rest),
    };
    let (clock, rest) = split_clock(rest)?;
    let date = clock.on(0, month, u8::try_from(day).ok()?);
    let in_year = |year| Civil { year, ..date }.unix_seconds().and_then(|seconds| clock.at(seconds));
    let time = match year {
        Some(year) => in_year(year),
        None => {
            let now = Civil::from_unix_seconds(reference.nanos().div_euclid(1_000_000_000)).year;
            let years = [now - 1, now, now + 1].into_iter().filter_map(in_year);
            years.min_by_key(|time| time.nanos().abs_diff(reference.nanos()))
        }
    };
    Some((time?, rest))
}

/// `yyyy-mm-ddThh:mm:ss[.fraction](Z|+hh:mm|-hh:mm)`.
fn split_rfc3339(text: &str) -> Option<(Timestamp, &str)> {
    let (year, rest) = split_number(text, 4..=4)?;
    let (month, rest) = split_number(rest.strip_prefix('-')?, 2..=2)?;
    let (day, rest) = split_number(rest.strip_prefix('-')?, 2..=2)?;
    let (clock, rest) = split_clock(rest.strip_prefix(['T', 't', ' '])?)?;
    let (offset_seconds, rest) = split_offset(rest)?;
    let date = clock.on(year.into(), u8::try_from(month).ok()?, u8::try_from(day).ok()?);
    let time = clock.at(date.unix_seconds()?.checked_sub(offset_seconds)?)?;
    Some((time, rest))
}

/// A time of day.
struct Clock {
    hour: u8,
    minute: u8,
    second: u8,
    nanos: i64,
}

impl Clock {
    const fn on(&self, year: i64, month: u8, day: u8) -> Civil {
        Civil { year, month, day, hour: self.hour, minute: self.minute, second: self.second }
    }

    fn at(&self, unix_seconds: i64) -> Option<Timestamp> {
        unix_seconds.checked_mul(1_000_000_000)?.checked_add(self.nanos).map(Timestamp)
    }
}

/// `hh:mm:ss[.fraction]`; a leap second is the one before it.
fn split_clock(text: &str) -> Option<(Clock, &str)> {
    let (hour, rest) = split_number(text, 2..=2)?;
    let (minute, rest) = split_number(rest.strip_prefix(':')?, 2..=2)?;
    let (second, rest) = split_number(rest.strip_prefix(':')?, 2..=2)?;
    let second = if second == 60 { 59 } else { second };
    let (nanos, rest) = split_fraction(rest);
    let [hour, minute, second] = [hour, minute, second].map(u8::try_from);
    Some((Clock { hour: hour.ok()?, minute: minute.ok()?, second: second.ok()?, nanos }, rest))
}

/// Nanoseconds of `.123`; what is finer is left out.
fn split_fraction(text: &str) -> (i64, &str) {
    let Some(after) = text.strip_prefix('.') else { return (0, text) };
    let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    let (digits, rest) = after.split_at(end);
    if digits.is_empty() {
        return (0, text);
    }
    let nanos =
        digits.bytes().chain([b'0'; 9]).take(9).fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    (nanos, rest)
}

/// Seconds east of Greenwich.
fn split_offset(text: &str) -> Option<(i64, &str)> {
    if let Some(rest) = text.strip_prefix(['Z', 'z']) {
        return Some((0, rest));
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, rest) = split_number(text.get(1..)?, 2..=2)?;
    let (minutes, rest) = split_number(rest.strip_prefix(':').unwrap_or(rest), 2..=2)?;
    (hours < 24 && minutes < 60).then(|| (sign * i64::from(hours * 3_600 + minutes * 60), rest))
}

/// A number of so many digits at the start of `text`.
fn split_number(text: &str, digits: core::ops::RangeInclusive<usize>) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    digits.contains(&end).then(|| number.parse().ok()).flatten().map(|number| (number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syslog::{Format, Message};
    use proptest::prelude::*;

    /// 2026-06-08T09:05:07Z
    const NOW: Timestamp = Timestamp(1_780_909_507_000_000_000);
    const CONTEXT: Context = Context { reference: NOW, bare_tag: false };

    fn read(text: &str) -> Parsed<'_> {
        parse(text, &CONTEXT)
    }

    /// Host, program, process, text.
    fn parts<'a>(parsed: &Parsed<'a>) -> (Option<&'a str>, Option<&'a str>, Option<&'a str>, &'a str) {
        (parsed.host, parsed.app, parsed.process, parsed.text)
    }

    #[test]
    fn the_examples_of_rfc_5424() {
        let text = "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed for lonvick on /dev/pts/8";
        let parsed = read(text);
        assert_eq!((parsed.facility, parsed.severity), (Facility::Auth, Severity::Critical));
        assert_eq!(parsed.time, Some(Timestamp(1_065_910_455_003_000_000)));
        assert_eq!(
            parts(&parsed),
            (Some("mymachine.example.com"), Some("su"), None, "'su root' failed for lonvick on /dev/pts/8")
        );
        assert_eq!(parsed.message_id, Some("ID47"));
        let text = "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts.";
        let parsed = read(text);
        assert_eq!(parsed.time, Some(Timestamp(1_061_727_255_000_003_000)));
        assert_eq!(parsed.process, Some("8710"));
        let text = "<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut=\"3\" eventSource=\"Appli\\\"cat\\]ion\\\\\\n\"][examplePriority@32473 class=\"high\"]";
        let parsed = read(text);
        let expected = [
            Element {
                id: "exampleSDID@32473",
                parameters: alloc::vec![("iut", "3".into()), ("eventSource", "Appli\"cat]ion\\\\n".into())],
            },
            Element { id: "examplePriority@32473", parameters: alloc::vec![("class", "high".into())] },
        ];
        assert_eq!(parsed.data, expected);
        assert_eq!(parsed.text, "");
        assert_eq!(read("<13>1 - - - - - [a b=\"c] d").text, "[a b=\"c] d", "broken data is text");
        assert_eq!(read("<13>1 - h a p m").message_id, Some("m"));
    }

    #[test]
    fn the_examples_of_rfc_3164() {
        let parsed = read("<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8");
        assert_eq!(
            parts(&parsed),
            (Some("mymachine"), Some("su"), None, "'su root' failed for lonvick on /dev/pts/8")
        );
        let parsed = read("Use the BFG!");
        assert_eq!((parsed.facility, parsed.severity), (Facility::User, Severity::Notice));
        assert_eq!(parts(&parsed), (None, None, None, "Use the BFG!"));
        let parsed = read(
            "<0>1990 Oct 22 10:52:01 TZ-6 scapegoat.dmz.example.org 10.1.2.3 sched[0]: That's All Folks!",
        );
        assert_eq!(parsed.severity, Severity::Emergency);
        assert_eq!(parsed.time, None, "no form of the RFC");
    }

    #[test]
    fn what_devices_send() {
        let cases = [
            ("<30>Jun  8 09:05:07 web dns: hello", (Some("web"), Some("dns"), None, "hello")),
            ("<30>Jun 8 09:05:07 sshd[42]: hi\n", (None, Some("sshd"), Some("42"), "hi")),
            ("<30>Jun 08 09:05:07 web dns hello", (Some("web"), None, None, "dns hello")),
            ("<30>Jun  8 09:05:07 fe80::1 app: x", (Some("fe80::1"), Some("app"), None, "x")),
            (
                "<189>29: *Jun  8 09:05:07.123: %SYS-5-CONFIG_I: by console",
                (None, Some("%SYS-5-CONFIG_I"), None, "by console"),
            ),
            ("<13>2026-06-08T11:05:07+02:00 web kernel[1] x", (Some("web"), Some("kernel"), Some("1"), "x")),
            ("<13>Jun  8 2026 09:05:07 web a: b\0", (Some("web"), Some("a"), None, "b")),
            ("<13>logger: no time", (None, Some("logger"), None, "no time")),
            ("<13>Jun  8 09:05:07 ", (None, None, None, "")),
            ("<13>Jun  8 09:05:07  dns hello", (None, None, None, "dns hello")),
            ("<13>5 apples", (None, None, None, "5 apples")),
            ("<13>1 apple and a pear", (None, None, None, "1 apple and a pear")),
            ("<192>x", (None, None, None, "<192>x")),
            ("<13>see http://x", (None, None, None, "see http://x")),
            ("", (None, None, None, "")),
        ];
        for (text, expected) in cases {
            let parsed = read(text);
            assert_eq!(parts(&parsed), expected, "{text}");
            if text.contains("09:05:07") && !text.contains(".123") || text.contains("+02:00") {
                assert_eq!(parsed.time, Some(NOW), "{text}");
            }
        }
        let bare = parse("<30>Jun 08 09:05:07 web dns hello", &Context { bare_tag: true, ..CONTEXT });
        assert_eq!(parts(&bare), (Some("web"), Some("dns"), None, "hello"));
    }

    #[test]
    fn only_a_time_with_year_and_zone_is_whole() {
        let cases = [
            ("<13>1 2026-06-08T09:05:07Z h a - - - x", true),
            ("<13>2026-06-08T11:05:07.5+02:00 h a: x", true),
            ("<13>Jun  8 09:05:07 h a: x", false),
            ("<13>Jun  8 2026 09:05:07 h a: x", false),
            ("<13>1 - h a - - - x", false),
            ("<13>x", false),
        ];
        for (text, dated) in cases {
            assert_eq!(read(text).dated, dated, "{text}");
        }
    }

    #[test]
    fn a_date_without_a_year_is_in_the_nearest_one() {
        let year = |reference: &str, text| {
            let reference = split_rfc3339(reference).expect(reference).0;
            let time = parse(text, &Context { reference, bare_tag: false }).time?;
            Some(Civil::from_unix_seconds(time.nanos() / 1_000_000_000).year)
        };
        assert_eq!(year("2026-01-01T00:00:05Z", "<13>Dec 31 23:59:59 h a: b"), Some(2025));
        assert_eq!(year("2025-12-31T23:59:59Z", "<13>Jan  1 00:00:01 h a: b"), Some(2026));
        assert_eq!(year("2024-03-01T00:00:00Z", "<13>Feb 29 00:00:01 h a: b"), Some(2024));
        assert_eq!(year("2026-03-01T00:00:00Z", "<13>Feb 29 00:00:01 h a: b"), None);
        assert_eq!(year("2026-03-01T00:00:00Z", "<13>Feb 30 00:00:01 h a: b"), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            facility in 0_u8..24, severity in 0_u8..8, seconds in 0_i64..4_000_000_000,
            host in "[a-z][a-z0-9.-]{0,20}", tag in "[a-z][a-z0-9._/-]{0,20}", text in "[a-zé:\"\\[\\]\\\\ ]{0,20}",
            names in prop::collection::vec(("[a-z]{1,4}", "[^\\p{Cc}]{0,6}"), 0..3),
        ) {
            let tags: Vec<(&str, &str)> = names.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let message = Message {
                facility: Facility::from_code(facility).expect("below 24"),
                severity: Severity::from_code(severity).expect("below 8"),
                time: Timestamp::from_seconds(seconds),
                host: Some(&host),
                tag: &tag,
                header: None,
                tags: &tags,
                text: &text,
            };
            let mut out = String::new();
            message.write(Format::Rfc5424, 0, &mut out).expect("string");
            let got = parse(&out, &CONTEXT);
            prop_assert_eq!((got.facility, got.severity, got.time), (message.facility, message.severity, Some(message.time)));
            prop_assert_eq!(parts(&got), (Some(&*host), Some(&*tag), None, &*text));
            let pairs: Vec<(&str, &str)> =
                got.data.iter().flat_map(|e| &e.parameters).map(|(k, v)| (*k, &**v)).collect();
            prop_assert_eq!(&pairs, &tags);
            out.clear();
            Message { tags: &[], ..message }.write(Format::Rfc3164, 0, &mut out).expect("string");
            let got = parse(&out, &Context { reference: message.time, bare_tag: false });
            prop_assert_eq!((got.facility, got.severity, got.time), (message.facility, message.severity, Some(message.time)));
            prop_assert_eq!(parts(&got), (Some(&*host), Some(&*tag), None, &*text));
        }
    }
}
