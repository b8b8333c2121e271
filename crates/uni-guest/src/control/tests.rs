//! The control port, without a connection.

use super::*;
use crate::Periodic;
use ControlProgress::{Close, NeedMore, Reply, ReplyAndClose};
use alloc::string::ToString;
use proptest::prelude::*;

const SECOND_NS: u64 = 1_000_000_000;

/// A guest with a log source `dns` and metrics `gc` and `net` (tag `link`).
struct Bench {
    control: Control,
    registry: Registry,
    logs: Logs,
    log: Log,
    now_ns: u64,
}

impl Bench {
    fn new(token: Option<&str>) -> Self {
        let (mut registry, logs) = (Registry::new(), Logs::default());
        registry.register(Periodic::new("gc", |_| {}));
        registry.register(Periodic::new("net", |_| {}).tag("link", "x"));
        drop(logs.source("dns", ""));
        let log = logs.source("control", "");
        Self { control: Control::new(token.and_then(Token::new)), registry, logs, log, now_ns: 0 }
    }

    fn on(&mut self) -> Controlled<'_> {
        let Self { control, registry, logs, log, now_ns } = self;
        Controlled { control, registry, logs, log, now_ns: *now_ns }
    }

    /// A connection: segments, then the end of the client's side.
    fn connection(&mut self, segments: &[&[u8]]) -> (Vec<ControlProgress>, String) {
        let (mut session, mut reply, mut progress) = (ControlSession::new(), String::new(), Vec::new());
        for segment in segments {
            progress.push(session.handle_input(segment, &mut self.on(), &mut reply));
        }
        if !matches!(progress.last(), Some(Close | ReplyAndClose)) {
            progress.push(session.handle_idle(&mut self.on(), &mut reply));
        }
        (progress, reply)
    }

    fn ask(&mut self, command: &str) -> String {
        self.connection(&[command.as_bytes()]).1
    }

    fn next_deadline(&self) -> Option<u64> {
        next_deadline(&self.registry, &self.logs)
    }

    fn pass(&mut self, seconds: u64) {
        self.now_ns += seconds * SECOND_NS;
        self.control.handle_time(&mut self.registry, &self.logs, &self.log, self.now_ns);
    }
}

#[test]
fn a_command_may_come_in_pieces_with_or_without_a_newline() {
    let reply_to = |segments: &[&[u8]]| Bench::new(None).connection(segments);
    let reply = "ok: *:enabled,net:enabled,gc:enabled";
    assert_eq!(reply_to(&[b"m", b"*"]), (alloc::vec![NeedMore, NeedMore, ReplyAndClose], reply.into()));
    assert_eq!(reply_to(&[b"m", b"*\r\n"]), (alloc::vec![NeedMore, Reply, Close], reply.to_string() + "\n"));
    assert_eq!(reply_to(&[]), (alloc::vec![Close], String::new()));
}

#[test]
fn several_commands_on_one_connection_get_a_line_each() {
    let mut bench = Bench::new(None);
    let reply = bench.connection(&[b"Lquiet\nl\n\nl", b"dns"]).1;
    assert_eq!(reply, "ok\nok: *:quiet\nerror: unknown command\nok: dns:quiet");
    let (progress, reply) = bench.connection(&[&b"l\n".repeat(70)]);
    assert_eq!(progress, [ReplyAndClose]);
    assert_eq!(reply.matches("ok: ").count(), 64);
    assert!(reply.ends_with("error: more than 64 commands on one connection\n"), "{reply}");
}

#[test]
fn a_driver_waits_as_long_as_the_client_needs() {
    let (mut bench, mut session, mut reply) = (Bench::new(None), ControlSession::new(), String::new());
    assert_eq!(session.idle_ns(), IDLE_BEFORE_INPUT_NS);
    session.handle_input(b"l", &mut bench.on(), &mut reply);
    assert_eq!(session.idle_ns(), IDLE_AFTER_INPUT_NS);
    session.handle_input(b"\n", &mut bench.on(), &mut reply);
    assert_eq!(session.idle_ns(), IDLE_AFTER_REPLY_NS);
}

#[test]
fn a_command_too_long_is_refused_before_it_ends() {
    let (progress, reply) = Bench::new(None).connection(&[&[b'm'; 3000], &[b'm'; 3000]]);
    assert_eq!(progress, [NeedMore, ReplyAndClose]);
    assert_eq!(reply, "error: command is longer than 4096 bytes");
}

#[test]
fn help_is_one_line() {
    assert_eq!(Bench::new(None).ask("h\n"), alloc::format!("{HELP}\n"));
}

#[test]
fn without_the_token_nothing_is_told_or_done() {
    let mut bench = Bench::new(Some("s e"));
    for refused in ["l", "x", "h", "T", "T wrong", "T s", "Lquiet", "\u{1}"] {
        assert_eq!(bench.connection(&[refused.as_bytes(), b"\nl\n"]).1, "error: authentication required\n");
    }
    assert_eq!(bench.ask("T s e\nl"), "ok\nok: *:info");
    assert_eq!(bench.ask("l"), "error: authentication required", "each connection for itself");
    assert_eq!(bench.ask("T s e\nT s\nl"), "ok\nerror: authentication required\n");
    assert_eq!(Bench::new(None).ask("T s e"), "error: unknown command");
}

#[test]
fn a_level_with_a_limit_comes_back() {
    let mut bench = Bench::new(None);
    assert_eq!(bench.ask("Ldns:debug@10m"), "ok");
    assert_eq!(bench.next_deadline(), Some(600 * SECOND_NS));
    bench.pass(599);
    assert_eq!(bench.ask("ldns"), "ok: dns:debug");
    bench.pass(1);
    assert_eq!((bench.ask("l*"), bench.next_deadline()), ("ok: *:info,control:info,dns:info".into(), None));
}

#[test]
fn later_commands_move_or_lift_the_limit() {
    let mut bench = Bench::new(None);
    bench.ask("Ldns:debug@1m\nLdns:error@2m");
    bench.pass(60);
    assert_eq!(bench.ask("ldns"), "ok: dns:error");
    bench.pass(60);
    assert_eq!(bench.ask("ldns"), "ok: dns:info", "as before the first");
    bench.ask("Ldns:debug@1m\nLdns:error");
    bench.pass(60);
    assert_eq!(bench.ask("ldns"), "ok: dns:error");
    bench.ask("L*:warning,dns:debug@1m");
    bench.pass(60);
    assert_eq!(bench.ask("l"), "ok: *:warning");
}

#[test]
fn a_limit_for_all_leaves_what_was_said_since() {
    let mut bench = Bench::new(None);
    bench.ask("Ldns:error\nL*:debug@1m");
    assert_eq!(bench.ask("l"), "ok: *:debug");
    bench.ask("Lcontrol:quiet");
    bench.pass(60);
    assert_eq!(bench.ask("l"), "ok: *:info,control:quiet,dns:error");
}

#[test]
fn limits_overlap_and_end_nothing_but_themselves() {
    let mut bench = Bench::new(None);
    bench.ask("Mnet:off@20s\nMoff@3s");
    bench.pass(3);
    assert_eq!(bench.ask("m"), "ok: *:enabled,net:disabled");
    bench.pass(17);
    assert_eq!((bench.ask("m"), bench.next_deadline()), ("ok: *:enabled".into(), None));
    bench.ask("Lerror@30s\nLdns:debug@2s");
    bench.pass(2);
    assert_eq!(bench.ask("l"), "ok: *:error");
    bench.pass(28);
    assert_eq!(bench.ask("l"), "ok: *:info");
    bench.ask("Ldns:debug@3s\nLerror@1s");
    assert_eq!(bench.ask("l"), "ok: *:error");
    bench.pass(1);
    assert_eq!(bench.ask("l"), "ok: *:info,dns:debug");
    bench.pass(2);
    assert_eq!(bench.ask("l"), "ok: *:info");
}

#[test]
fn the_end_of_a_limit_leaves_no_choice_behind() {
    let mut bench = Bench::new(None);
    bench.ask("Moff\nMtag:link:on\nMnet:off@1s");
    bench.pass(1);
    assert_eq!(bench.ask("m"), "ok: *:disabled,net:enabled");
    bench.ask("Mtag:link:off");
    assert_eq!(bench.ask("m"), "ok: *:disabled");
}

/// The tag items `tNNN:on`, one command, `from` to `to`.
fn tags(from: usize, to: usize, end: &str) -> String {
    let items: Vec<String> = (from..to).map(|n| alloc::format!("tag:{n}:on{end}")).collect();
    alloc::format!("M{}", items.join(","))
}

#[test]
fn what_is_more_than_can_be_kept_is_refused_whole() {
    let mut bench = Bench::new(None);
    let full = "error: more than 256 tags would be on; turn some off, or all with M*:off";
    assert_eq!(bench.ask(&tags(0, 257, "")), full);
    assert_eq!(bench.ask("m*"), "ok: *:enabled,net:enabled,gc:enabled");
    assert_eq!(bench.ask(&tags(0, 256, "")), "ok");
    assert_eq!(bench.ask("Mgc:off,tag:256:on"), full);
    assert_eq!(bench.ask("Mgc:off,tag:255:on"), "ok");
    assert_eq!(bench.ask("Mtag:255:off,tag:256:on"), "ok");
    assert_eq!(bench.ask("Moff"), "ok");
    assert_eq!(bench.ask("m*"), "ok: *:disabled,net:disabled,gc:disabled");
    assert_eq!(bench.ask(&tags(0, 250, "@1h")), "ok");
    assert_eq!(bench.ask("Mtag:0:off,tag:1:off,tag:2:off,tag:3:off,tag:4:off,tag:5:off,tag:6:off"), "ok");
    let limits =
        "error: more than 256 changes would wait for the end of a time limit; wait, or change all with *";
    assert_eq!(bench.ask(&("M".to_string() + &"tag:x:on@1h,".repeat(200) + "tag:x:off")), "ok");
    let offs: Vec<String> = (300..320).map(|n| alloc::format!("tag:{n}:off")).collect();
    assert_eq!(bench.ask(&alloc::format!("M{}", offs.join(","))), limits);
    assert_eq!(bench.ask("Moff"), "ok");
    assert_eq!(bench.next_deadline(), None);
}

#[test]
fn half_a_command_waits_for_its_rest_and_no_command_forever() {
    let (mut bench, mut session, mut reply) = (Bench::new(None), ControlSession::new(), String::new());
    assert_eq!(session.handle_input(b"l\nLdns:debug", &mut bench.on(), &mut reply), Reply);
    assert!(session.idle_ns() >= 2 * SECOND_NS);
    bench.now_ns += 3 * SECOND_NS / 2;
    assert_eq!(session.handle_input(b"@10m\n", &mut bench.on(), &mut reply), Reply);
    assert_eq!(reply, "ok: *:info\nok\n");
    assert_eq!(bench.next_deadline(), Some(601 * SECOND_NS + SECOND_NS / 2));
    reply.clear();
    let mut progress = NeedMore;
    for _ in 0..12 {
        bench.now_ns += SECOND_NS;
        progress = session.handle_input(b"L", &mut bench.on(), &mut reply);
        if progress != NeedMore {
            break;
        }
    }
    assert_eq!((progress, reply.as_str()), (ReplyAndClose, "error: command did not end within 10 seconds"));
}

#[test]
fn metrics_have_limits_too() {
    let mut bench = Bench::new(None);
    assert_eq!(bench.ask("M*:disable,gc:enable@30s"), "ok");
    assert_eq!(bench.ask("m"), "ok: *:disabled,gc:enabled");
    bench.pass(30);
    assert_eq!(bench.ask("m"), "ok: *:disabled");
    bench.ask("Mgc:enable@30s\nM*:enable");
    assert_eq!(bench.next_deadline(), None, "lifted by *");
    assert_eq!(bench.ask("m"), "ok: *:enabled");
    assert_eq!(bench.ask("M*:off,tag:link:on@1m,gc:on@2m\nM*:off@30s"), "ok\nok");
    assert_eq!(bench.ask("m*"), "ok: *:disabled,net:disabled,gc:disabled");
    bench.pass(30);
    assert_eq!(bench.ask("m*"), "ok: *:disabled,tag:link:enabled,net:enabled,gc:enabled");
    bench.pass(30);
    assert_eq!(bench.ask("m"), "ok: *:disabled,gc:enabled");
    bench.pass(60);
    assert_eq!(bench.ask("m"), "ok: *:disabled");
}

#[test]
fn an_unknown_source_or_a_bad_item_changes_nothing() {
    let mut bench = Bench::new(None);
    for bad in ["Ldns:debug,nosuch:info", "L*:debug,dns:loud", "Ldns:debug@2d", "L*:debug@0s"] {
        assert!(bench.ask(bad).starts_with("error: "), "{bad}");
    }
    for bad in ["M*:off,nosuch:on", "Mgc:off,net:maybe", "Mtag:link:on,src:nosuch:off"] {
        assert!(bench.ask(bad).starts_with("error: "), "{bad}");
    }
    assert_eq!(bench.ask("l\nm*"), "ok: *:info\nok: *:enabled,net:enabled,gc:enabled");
    assert_eq!(bench.next_deadline(), None);
}

#[test]
fn changes_and_their_ends_are_logged_but_no_token() {
    use alloc::rc::Rc;
    use core::cell::RefCell;
    let mut bench = Bench::new(Some("sesame"));
    let heard = Rc::new(RefCell::new(Vec::new()));
    let ears = Rc::clone(&heard);
    bench.logs.add_sink(move |r| ears.borrow_mut().push(r.message.to_string()));
    bench.ask("Lquiet sesame");
    bench.ask("T sesame\nLdns:debug@1s\nl");
    bench.pass(1);
    let expected = [
        "commands refused for want of the token since boot: 1",
        "command 'Ldns:debug@1s': ok",
        "time limit is over: dns:info",
    ];
    assert_eq!(*heard.borrow(), expected);
}

#[test]
fn too_many_a_second_are_refused_counted_and_told_seldom() {
    use alloc::rc::Rc;
    use core::cell::Cell;
    let mut bench = Bench::new(Some("sesame"));
    let heard = Rc::new(Cell::new(0));
    let ears = Rc::clone(&heard);
    bench.logs.add_sink(move |_| ears.set(ears.get() + 1));
    let full = "T sesame\n".to_string() + &"Lquiet\n".repeat(62) + "l";
    for _ in 0..2 {
        assert!(bench.ask(&full).ends_with("\nok: *:quiet"));
    }
    let (before, told) = (bench.control.refused_commands(), heard.get());
    let hasty = bench.ask("T sesame\nLdebug\nLdebug\nl");
    assert_eq!(hasty, "ok\nok\nok\nerror: more than 64 commands a second; try again later");
    (0..300).for_each(|_| drop(bench.ask("T wrong\n")));
    assert_eq!(bench.ask("T sesame"), "error: more than 64 commands a second; try again later");
    assert_eq!(bench.control.refused_commands() - before, 302);
    assert!(heard.get() - told < 20, "{} messages", heard.get() - told);
    bench.pass(1);
    assert_eq!(bench.ask("T sesame\nl"), "ok\nok: *:debug");
}

/// What was said: who is meant, the value, for how many seconds; and how long after it the next is said.
type Saying = (usize, bool, Option<u64>, u64);

fn sayings() -> impl Strategy<Value = Vec<Saying>> {
    let limit = prop::option::of(1_u64..20);
    prop::collection::vec((0_usize..4, prop::bool::ANY, limit, 0_u64..6), 1..25)
}

proptest! {
    /// What is in force is what was said, in order, without what is over: said anew to a fresh guest, it is the same.
    #[test]
    fn what_is_over_was_never_said(sayings in sayings(), logs in prop::bool::ANY) {
        let subjects = if logs { ["L*:", "Ldns:", "Lcontrol:", "Ldns:"] } else { ["M*:", "Mnet:", "Mgc:", "Mtag:link:"] };
        let values = if logs { ["debug", "error"] } else { ["on", "off"] };
        let mut bench = Bench::new(None);
        let mut said: Vec<(String, Option<u64>)> = Vec::new();
        let mut now = 0;
        for (who, value, limit, pause) in sayings {
            let command = alloc::format!("{}{}", subjects[who], values[usize::from(value)]);
            let limited = limit.map_or_else(String::new, |seconds| alloc::format!("@{seconds}s"));
            prop_assert_eq!(bench.ask(&(command.clone() + &limited)), "ok");
            said.push((command, limit.map(|seconds| now + seconds)));
            bench.pass(pause);
            now += pause;
            said.retain(|(_, until)| until.is_none_or(|until| until > now));
            let mut fresh = Bench::new(None);
            for (n, (command, _)) in said.iter().enumerate() {
                fresh.now_ns = n as u64 * SECOND_NS;
                prop_assert_eq!(fresh.ask(command), "ok");
            }
            prop_assert_eq!(bench.ask("l*\nm*"), fresh.ask("l*\nm*"));
            let next = said.iter().filter_map(|(_, until)| *until).min();
            prop_assert!(bench.next_deadline().is_none_or(|at| next.is_some_and(|until| at >= until * SECOND_NS)));
        }
    }

    #[test]
    fn any_bytes_cut_anywhere_get_the_same_replies(input in "[lmLM*:,a-z@1-9\n]{1,20}", cut in 0_usize..20) {
        let (first, second) = input.as_bytes().split_at(cut.min(input.len()));
        let whole = Bench::new(None).connection(&[input.as_bytes()]).1;
        prop_assert_eq!(&Bench::new(None).connection(&[first, second]).1, &whole);
        let commands = input.split_inclusive('\n').count();
        prop_assert_eq!(whole.split_inclusive('\n').count(), commands);
        prop_assert!(whole.lines().all(|line| line.starts_with("ok") || line.starts_with("error: ")), "{}", whole);
    }
}
