//! What guests answer on their control ports.
//!
//! Owns the reading of an answer. A guest is trusted with nothing: what is no list of known words is no list, and what
//! is shown of it is bounded and escaped.

use std::fmt::Write as _;

use uni_api::guest::ControlKind;
use uni_wire::control::LogLevel;

/// As much of an odd answer as is shown.
const SHOWN_CHARS: usize = 300;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// `ok`.
    Done,
    /// `ok: ` and items, each a name and a state.
    List(Vec<(String, String)>),
    /// `error: ` and why, ready to be shown.
    Refused(String),
    /// Something else, ready to be shown.
    Odd(String),
}

/// Reads the answer to a command about `kind`.
pub(super) fn parse(bytes: &[u8], kind: ControlKind) -> Reply {
    let Ok(text) = std::str::from_utf8(bytes) else { return Reply::Odd(shown(&bytes.escape_ascii())) };
    let text = text.trim_end_matches(['\r', '\n']);
    if text == "ok" {
        return Reply::Done;
    }
    if let Some(why) = text.strip_prefix("error: ") {
        return Reply::Refused(shown(&why));
    }
    let items = text.strip_prefix("ok: ").and_then(|items| parse_items(items, kind));
    items.map_or_else(|| Reply::Odd(shown(&text)), Reply::List)
}

/// `a:b,c:d`, each split at its last colon; nothing unless every item ends in a word of `kind`. An item without a colon
/// is the beginning of a name with a comma in it.
fn parse_items(text: &str, kind: ControlKind) -> Option<Vec<(String, String)>> {
    let mut items = Vec::new();
    let mut begun = String::new();
    for piece in text.split(',') {
        begun.push_str(piece);
        match begun.rsplit_once(':') {
            Some((name, state)) if !name.is_empty() && is_word(state, kind) => {
                items.push((name.to_owned(), state.to_owned()));
                begun.clear();
            }
            _ => begun.push(','),
        }
    }
    begun.is_empty().then_some(items)
}

fn is_word(state: &str, kind: ControlKind) -> bool {
    match kind {
        ControlKind::Logs => LogLevel::from_word(state).is_some(),
        ControlKind::Metrics => matches!(state, "enabled" | "disabled"),
    }
}

/// The text as one line, cut where it is long.
fn shown(text: &impl std::fmt::Display) -> String {
    let text = text.to_string();
    let mut out = escaped(&text.chars().take(SHOWN_CHARS).collect::<String>());
    let more = text.chars().count().saturating_sub(SHOWN_CHARS);
    if more > 0 {
        // writing to a String cannot fail
        let _ = write!(out, "... ({more} characters more)");
    }
    out
}

/// The text with its control characters escaped.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &[(&str, &str)]) -> Reply {
        Reply::List(items.iter().map(|(name, state)| ((*name).to_owned(), (*state).to_owned())).collect())
    }

    #[test]
    fn lists_are_split_at_the_last_colon_and_names_may_hold_commas() {
        let logs = |text: &str| parse(text.as_bytes(), ControlKind::Logs);
        assert_eq!(logs("ok: *:info,dns:debug"), list(&[("*", "info"), ("dns", "debug")]));
        assert_eq!(logs("ok: *:info,a:b,c:quiet\r\n"), list(&[("*", "info"), ("a:b,c", "quiet")]));
        let metrics = parse(b"ok: *:enabled,tag:http:enabled,gc:disabled", ControlKind::Metrics);
        assert_eq!(metrics, list(&[("*", "enabled"), ("tag:http", "enabled"), ("gc", "disabled")]));
    }

    #[test]
    fn what_is_no_list_is_shown_and_cannot_harm() {
        let logs = |text: &[u8]| parse(text, ControlKind::Logs);
        assert_eq!(logs(b"ok"), Reply::Done);
        assert_eq!(
            logs(b"error: unknown source: \x1b[2J"),
            Reply::Refused("unknown source: \\u{1b}[2J".into())
        );
        for odd in ["ok: *:loud", "ok: *:info,", "ok: ", "ok:", "", "OK", "ok: :info", "ok: dns"] {
            assert_eq!(logs(odd.as_bytes()), Reply::Odd(odd.to_owned()), "{odd:?}");
        }
        assert_eq!(logs(b"ok: *:\xff"), Reply::Odd("ok: *:\\xff".into()));
        let Reply::Odd(long) = logs("é".repeat(10_000).as_bytes()) else { panic!("no list") };
        assert!(long.len() < 1000 && long.ends_with("(9700 characters more)"), "{long}");
    }
}
