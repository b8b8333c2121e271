//! One syslog message as an entry of the logs.
//!
//! Owns what of a message goes where, and which time it gets. Never decides whose message it is: the name of the host is
//! handed back for that.

use std::fmt::Write as _;

use uni_store::{LogEntry, LogKind};
use uni_vmm::name::VmName;
use uni_wire::Timestamp;
use uni_wire::syslog::{Context, Element, Parsed, parse};

/// A message from further ahead than this has a wrong clock: it gets the time of its arrival.
const MAX_AHEAD_NANOS: i64 = 60_000_000_000;
/// The longest name of a program; RFC 5424 allows 48 bytes, RFC 3164's readers take 64.
const MAX_APP_BYTES: usize = 64;

/// The entry of a message that arrived at `arrival`, nobody's yet, and the VM it claims to be from, if its host name can
/// be one.
///
/// Clocks of senders are coarse, and who asks for one point at one time would take messages for one: `number`, different
/// for messages that follow each other, tells them apart below what the sender's clock resolves. `bare_tag` says that
/// the program stands before the text without a colon, as MirageOS writes it.
pub(super) fn entry(
    message: &[u8],
    arrival: Timestamp,
    number: u64,
    bare_tag: bool,
) -> (LogEntry, Option<VmName>) {
    let text = printable(message);
    let parsed = read(&text, &Context { reference: arrival, bare_tag });
    let own_time = parsed.time.filter(|_| parsed.dated);
    let or_none = |value: Option<&str>| value.unwrap_or_default().into();
    let entry = LogEntry {
        time: told_apart(own_time.filter(|&time| is_believable(time, arrival)), number).unwrap_or(arrival),
        kind: LogKind::Message,
        vm: Box::default(),
        severity: parsed.severity as u8,
        facility: parsed.facility as u8,
        app: or_none(parsed.app),
        host: or_none(parsed.host),
        own_time,
        process: or_none(parsed.process),
        id: or_none(parsed.message_id),
        data: written(&parsed.data).into(),
        text: parsed.text.trim_end().into(),
    };
    (entry, parsed.host.and_then(|host| host.parse().ok()))
}

/// The message as text: what is not UTF-8 is written `\xNN`, so that nothing is lost.
fn printable(message: &[u8]) -> String {
    let mut out = String::with_capacity(message.len());
    for chunk in message.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // writing to a String cannot fail
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// The message; whole, where its program has a name that cannot be one, because then what was taken for a header was
/// none.
fn read<'a>(text: &'a str, context: &Context) -> Parsed<'a> {
    let is_name = |app: &str| app.len() <= MAX_APP_BYTES && app.bytes().all(|byte| byte.is_ascii_graphic());
    let mut parsed = parse(text, context);
    if !parsed.app.is_none_or(is_name) {
        (parsed.app, parsed.process, parsed.message_id, parsed.text) = (None, None, None, text);
        parsed.data.clear();
    }
    parsed
}

/// Neither before 1970 nor from the future.
fn is_believable(time: Timestamp, arrival: Timestamp) -> bool {
    (0..=arrival.nanos().saturating_add(MAX_AHEAD_NANOS)).contains(&time.nanos())
}

/// The time, moved by less than its resolution: by less than a millisecond where it is whole milliseconds, by less than a
/// microsecond where it is whole microseconds.
fn told_apart(time: Option<Timestamp>, number: u64) -> Option<Timestamp> {
    let nanos = time?.nanos();
    let room = [1_000_000, 1_000].into_iter().find(|room| nanos % room == 0).unwrap_or(1);
    let step = i64::try_from(number).unwrap_or(0) % room;
    Some(Timestamp(nanos.saturating_add(step)))
}

/// Structured data as RFC 5424, section 6.3 writes it.
fn written(data: &[Element<'_>]) -> String {
    let mut out = String::new();
    for element in data {
        out.push('[');
        out.push_str(element.id);
        for (name, value) in &element.parameters {
            out.extend([" ", name, "=\""]);
            for c in value.chars() {
                if matches!(c, '"' | '\\' | ']') {
                    out.push('\\');
                }
                out.push(c);
            }
            out.push('"');
        }
        out.push(']');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-06-08T09:05:07Z
    const NOW: Timestamp = Timestamp(1_780_909_507_000_000_000);

    #[test]
    fn what_a_message_says_of_itself_is_kept() {
        let message = b"<28>1 2026-06-08T09:05:06.5Z web dns 42 ID7 [a@1 k=\"v\\\"\"][b] no \xff answer\n";
        let (found, claimed) = entry(message, NOW, 3, false);
        assert_eq!(claimed.as_deref(), Some("web"));
        let expected = LogEntry {
            time: Timestamp(NOW.nanos() - 500_000_000 + 3),
            severity: 4,
            facility: 3,
            app: "dns".into(),
            host: "web".into(),
            own_time: Some(Timestamp(NOW.nanos() - 500_000_000)),
            process: "42".into(),
            id: "ID7".into(),
            data: "[a@1 k=\"v\\\"\"][b]".into(),
            text: "no \\xff answer".into(),
            ..LogEntry::default()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_time_without_year_or_zone_or_from_the_future_is_that_of_arrival() {
        for message in [
            "<13>Jun  8 09:05:01 web app: x",
            "x",
            "<13>1 2026-06-08T09:06:08Z web app - - - x",
            "<13>1 1969-06-08T09:06:08Z web app - - - x",
        ] {
            assert_eq!(entry(message.as_bytes(), NOW, 3, false).0.time, NOW, "{message}");
        }
        let (slow, _) = entry(b"<13>1 2026-06-08T09:06:06Z web app - - - x", NOW, 3, false);
        assert_eq!(slow.time.nanos(), NOW.nanos() + 59_000_000_003);
    }

    #[test]
    fn messages_of_a_coarse_clock_differ_in_time_and_keep_their_order() {
        let time = |nanos, number| told_apart(Some(Timestamp(nanos)), number).map(Timestamp::nanos);
        assert_eq!(
            (time(5_000_000_000, 7), time(5_000_000_000, 8)),
            (Some(5_000_000_007), Some(5_000_000_008))
        );
        assert_eq!(time(5_000_001_000, 2_001), Some(5_000_001_001));
        assert_eq!(time(5_000_001_001, 9), Some(5_000_001_001));
    }

    #[test]
    fn a_program_that_cannot_be_one_leaves_the_message_whole() {
        let long = format!("<13>1 - h {} 1 id [a] text", "a".repeat(65));
        for message in ["<13>Jun  8 09:05:07 h \x1b[31m: x", &long] {
            let (whole, _) = entry(message.as_bytes(), NOW, 0, true);
            assert_eq!((&*whole.host, &*whole.text), ("h", message));
            assert_eq!((&*whole.app, &*whole.process, &*whole.id, &*whole.data), ("", "", "", ""));
        }
    }
}
