//! The control session against what `mirage-monitoring` 0.0.7 answered to the same commands.
//!
//! Every case must be answered alike, except those listed here with Uni's own answers and the reason.

use serde_json::Value as Json;
use uni_guest::{ControlProgress, ControlSession, Logs, Periodic, Registry};

const CASES: &str = include_str!("../../uni-wire/tests/data/control-cases.jsonl");

/// A newline after a command is not part of it.
const NEWLINE: &str = "newline";
/// Unknown sources are errors, and nothing changes.
const UNKNOWN: &str = "unknown source";
/// `L` without `*` leaves other sources alone.
const NO_RESET: &str = "no reset of others";
/// Tag commands leave choices for single sources alone.
const CHOICES_STAY: &str = "choices stay";
/// The last mention counts.
const LAST_COUNTS: &str = "last counts";
/// All sources of a name are meant.
const ALL_OF_NAME: &str = "all of a name";

/// The deliberate differences: what is sent, the reason, Uni's replies.
const DELIBERATE: &[(&[&str], &str, &[&str])] = &[
    (&["l\n"], NEWLINE, &["ok: *:info"]),
    (&["m\n"], NEWLINE, &["ok: *:enabled"]),
    (&["L*:debug\n"], NEWLINE, &["ok"]),
    (&["M*:disable\n"], NEWLINE, &["ok"]),
    (&["M*:disable \n"], NEWLINE, &["error: couldn't decode 'enable' or 'disable': disable "]),
    (&["Lnosuch:debug", "l"], UNKNOWN, &["error: unknown source: nosuch", "ok: *:info"]),
    (&["L*:debug, dns:info"], UNKNOWN, &["error: unknown source:  dns"]),
    (&["L:debug", "l"], UNKNOWN, &["error: unknown source: ", "ok: *:info"]),
    (&["Mnosuch:enable", "m"], UNKNOWN, &["error: unknown source: nosuch", "ok: *:enabled"]),
    (&["Mtag:enable", "m"], UNKNOWN, &["error: unknown source: tag", "ok: *:enabled"]),
    (&["Msrc:disable", "m"], UNKNOWN, &["error: unknown source: src", "ok: *:enabled"]),
    (
        &["Ldns:debug", "Ltcpip:error", "l", "l*"],
        NO_RESET,
        &[
            "ok",
            "ok",
            "ok: *:info,dns:debug,tcpip:error",
            "ok: *:info,dns:debug,tcpip:error,mirage-monitoring:info,application:info",
        ],
    ),
    (
        &["Mmemory:disable", "Mtag:http:enable", "m"],
        CHOICES_STAY,
        &["ok", "ok", "ok: *:enabled,memory:disabled"],
    ),
    (
        &["Mmemory:disable", "Mtag:nosuch:disable", "m"],
        CHOICES_STAY,
        &["ok", "ok", "ok: *:enabled,memory:disabled"],
    ),
    (
        &["M*:disable,memory:enable", "Mtag:http:enable", "m"],
        CHOICES_STAY,
        &["ok", "ok", "ok: *:disabled,http_response:enabled,memory:enabled"],
    ),
    (&["Ldns:debug,dns:error", "l"], LAST_COUNTS, &["ok", "ok: *:info,dns:error"]),
    (&["Mmemory:enable,memory:disable", "m"], LAST_COUNTS, &["ok", "ok: *:enabled,memory:disabled"]),
    (&["Mmemory:disable,memory:enable", "m"], LAST_COUNTS, &["ok", "ok: *:enabled"]),
    (&["Ldns:debug", "ldns"], ALL_OF_NAME, &["ok", "ok: dns:debug,dns:debug"]),
];

/// Differences that exist only where two sources share a name.
const DELIBERATE_B: &[(&[&str], &str, &[&str])] = &[
    (
        &["Mnet-solo5:disable", "m"],
        ALL_OF_NAME,
        &["ok", "ok: *:enabled,net-solo5:disabled,net-solo5:disabled"],
    ),
    (
        &["M*:disable,memory:enable,net-solo5:enable", "m"],
        ALL_OF_NAME,
        &["ok", "ok: *:disabled,net-solo5:enabled,net-solo5:enabled,memory:enabled"],
    ),
];

fn setup(which: &str) -> (Registry, Logs) {
    let second = which == "B";
    let (mut registry, logs) = (Registry::new(), Logs::default());
    let names =
        ["application", "mirage-monitoring", "tcpip", "dns"].into_iter().chain(second.then_some("dns"));
    names.for_each(|name| drop(logs.source(name, "")));
    let nets = std::iter::repeat_n(("net-solo5", "ifname"), 1 + usize::from(second));
    let first = [("memory", ""), ("tcp", "")].into_iter().chain(nets);
    for (name, tag) in first.chain([("http_response", "http"), ("gc", ""), ("logs", "")]) {
        let source = Periodic::new(name, |_| {});
        registry.register(if tag.is_empty() { source } else { source.tag(tag, "x") });
    }
    (registry, logs)
}

/// One connection: the command, then the end of the client's side.
fn ask(command: &str, registry: &mut Registry, logs: &Logs) -> Option<String> {
    let (mut session, mut reply) = (ControlSession::new(), String::new());
    let mut progress = session.handle_input(command.as_bytes(), registry, logs, &mut reply);
    if progress == ControlProgress::NeedMore {
        progress = session.handle_idle(registry, logs, &mut reply);
    }
    (progress == ControlProgress::Reply).then_some(reply)
}

fn deliberate(which: &str, sent: &[&str]) -> Option<&'static [&'static str]> {
    let of_b = DELIBERATE_B.iter().filter(|_| which == "B");
    of_b.chain(DELIBERATE).find(|(send, ..)| *send == sent).map(|(.., replies)| *replies)
}

#[test]
fn commands_are_answered_as_mirage_answers_them_unless_listed() {
    let mut listed = 0;
    for case in CASES.lines().map(|l| serde_json::from_str::<Json>(l).expect("json")) {
        let which = case["setup"].as_str().expect("setup");
        let sent: Vec<&str> =
            case["send"].as_array().expect("list").iter().filter_map(Json::as_str).collect();
        let theirs: Vec<Option<&str>> =
            case["reply"].as_array().expect("list").iter().map(Json::as_str).collect();
        let (mut registry, logs) = setup(which);
        let ours: Vec<Option<String>> = sent.iter().map(|c| ask(c, &mut registry, &logs)).collect();
        let ours: Vec<Option<&str>> = ours.iter().map(Option::as_deref).collect();
        match deliberate(which, &sent) {
            None => assert_eq!(ours, theirs, "{which} {sent:?}"),
            Some(meant) => {
                let meant: Vec<Option<&str>> = meant.iter().copied().map(Some).collect();
                assert_eq!(ours, meant, "{which} {sent:?}");
                assert_ne!(ours, theirs, "{which} {sent:?} is listed and does not differ");
                listed += 1;
            }
        }
    }
    assert_eq!(listed, DELIBERATE.len() + DELIBERATE_B.len(), "every listed difference has its case");
}
