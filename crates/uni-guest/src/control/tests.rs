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
    assert_eq!(bench.control.next_deadline(), Some(600 * SECOND_NS));
    bench.pass(599);
    assert_eq!(bench.ask("ldns"), "ok: dns:debug");
    bench.pass(1);
    assert_eq!(
        (bench.ask("l*"), bench.control.next_deadline()),
        ("ok: *:info,control:info,dns:info".into(), None)
    );
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
fn metrics_have_limits_too() {
    let mut bench = Bench::new(None);
    assert_eq!(bench.ask("M*:disable,gc:enable@30s"), "ok");
    assert_eq!(bench.ask("m"), "ok: *:disabled,gc:enabled");
    bench.pass(30);
    assert_eq!(bench.ask("m"), "ok: *:disabled");
    bench.ask("Mgc:enable@30s\nM*:enable");
    bench.pass(30);
    assert_eq!(bench.ask("m"), "ok: *:enabled", "lifted by *");
    assert_eq!(bench.ask("M*:on@1m"), "error: only a source can have a time limit: *:on@1m");
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
    assert_eq!(bench.control.next_deadline(), None);
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

proptest! {
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
