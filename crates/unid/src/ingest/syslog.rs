//! Syslog from a VM over its own link: one datagram, one message, one point.
//!
//! Owns the priority's meaning (RFC 3164, section 4.1.1) and the shape of the point, which is Telegraf's. The
//! message is kept as it came, header included; nothing in it is trusted, least of all the host name.

use uni_store::Point;
use uni_wire::FieldValue;

use super::Ingest;
use crate::clock;

/// The longest message kept; RFC 3164 allows 1024 bytes, senders exceed it.
const MAX_MESSAGE_BYTES: usize = 8192;
/// What a message without a priority means: user.notice (RFC 3164, section 4.3.3).
const DEFAULT_PRIORITY: u8 = 13;
/// Severities 0 to 7.
const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

/// Stores one datagram from `vm`.
pub(crate) fn accept(ingest: &Ingest, vm: &str, datagram: &[u8]) {
    let (priority, text) = split_priority(&datagram[..datagram.len().min(MAX_MESSAGE_BYTES)]);
    let severity = priority & 7;
    let point = Point {
        measurement: "syslog".into(),
        tags: vec![("severity".into(), SEVERITIES[usize::from(severity)].into()), ("vm".into(), vm.into())],
        fields: vec![
            ("facility_code".into(), FieldValue::Integer(i64::from(priority >> 3))),
            ("message".into(), FieldValue::String(String::from_utf8_lossy(text).trim_end().into())),
            ("severity_code".into(), FieldValue::Integer(i64::from(severity))),
        ],
        time: clock::now(),
    };
    ingest.append_own(&[point]);
}

/// The priority in angle brackets, 0 to 191, and what follows it.
fn split_priority(datagram: &[u8]) -> (u8, &[u8]) {
    let none = (DEFAULT_PRIORITY, datagram);
    let Some(rest) = datagram.strip_prefix(b"<") else { return none };
    let Some(end) = rest.iter().take(4).position(|&byte| byte == b'>') else { return none };
    let digits =
        std::str::from_utf8(&rest[..end]).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(priority @ 0..=191) => (priority, &rest[end + 1..]),
        _ => none,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_are_read_and_bad_ones_mean_user_notice() {
        assert_eq!(split_priority(b"<30>Jun  8 hello"), (30, &b"Jun  8 hello"[..]));
        for bad in [&b"hello"[..], b"<>x", b"<192>x", b"<1234>x", b"<+1>x", b"<3", b""] {
            assert_eq!(split_priority(bad), (DEFAULT_PRIORITY, bad));
        }
    }
}
