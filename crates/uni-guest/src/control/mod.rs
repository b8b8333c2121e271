//! The control port: connections on which commands come and replies go.
//!
//! Owns the bytes of a command that is not complete yet, the execution of a complete one, who may give commands, and
//! changes that last for a time. Never owns the connection or a clock. The grammar, and where Uni differs from
//! MirageOS on purpose, is in [`uni_wire::control`].
//!
//! A connection carries either commands in lines, each answered by a line; or, as MirageOS's clients have it, one
//! command without a newline, which ends when the client closes its side or falls silent. Its reply has no newline,
//! and the connection is closed after it.
//!
//! Limits: [`MAX_COMMAND_BYTES`] a command, [`MAX_COMMANDS`] a connection, [`COMMANDS_PER_SECOND`] on all connections
//! together after a burst of twice [`MAX_COMMANDS`] (those who showed the token apart from others); connections and their silence are limited by the driver. What goes
//! beyond is refused with a reply that says so, the connection is closed, and it is counted.

mod rate;
mod token;
mod undo;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use uni_wire::control::{
    Command, ControlError, HELP, LogItems, LogLevel, LogTarget, MAX_COMMAND_BYTES, MetricItems, MetricTarget,
    Query, Switch, parse_command,
};

use crate::logs::{Log, Logs};
use crate::metrics::Registry;

pub use rate::COMMANDS_PER_SECOND;
pub use token::Token;

/// How long a driver waits for more after a command without a newline before it calls
/// [`ControlSession::handle_idle`]: `printf l | nc` sends none. In nanoseconds.
pub const IDLE_AFTER_INPUT_NS: u64 = 200_000_000;

/// How long a driver keeps a connection on which nothing was sent. In nanoseconds.
pub const IDLE_BEFORE_INPUT_NS: u64 = 10_000_000_000;

/// How long a driver waits for the next of several commands: `echo l | nc` does not close its side. In nanoseconds.
pub const IDLE_AFTER_REPLY_NS: u64 = 1_000_000_000;

/// Most commands on one connection.
pub const MAX_COMMANDS: u32 = 64;

/// Most bytes of a command that are logged.
const LOGGED_BYTES: usize = 80;

/// What all connections share.
#[derive(Debug, Default)]
pub struct Control {
    token: Option<Token>,
    undo: undo::Undo,
    /// Of everybody; on a port with a token, of those who did not show it yet.
    rate: rate::Rate,
    /// Of those who showed the token: strangers take nothing away from them.
    admitted_rate: rate::Rate,
    refused: Refused,
}

/// Commands that were refused unheard.
#[derive(Debug, Default)]
struct Refused {
    /// They came without the token.
    strangers: u64,
    /// They came too fast.
    hasty: u64,
}

impl Control {
    /// A port for those who know `token`; for everybody if there is none.
    #[must_use]
    pub fn new(token: Option<Token>) -> Self {
        Self { token, ..Self::default() }
    }

    /// Ends what was to last until now.
    pub fn handle_time(&mut self, registry: &mut Registry, logs: &Logs, log: &Log, now_ns: u64) {
        if let Some(restored) = self.undo.expire(registry, logs, now_ns) {
            log.app(format_args!("time limit is over: {restored}"));
        }
    }

    /// When [`handle_time`](Self::handle_time) is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.undo.next_deadline()
    }

    /// Commands since boot that were refused unheard: without the token, or faster than [`COMMANDS_PER_SECOND`].
    #[must_use]
    pub const fn refused_commands(&self) -> u64 {
        self.refused.strangers.saturating_add(self.refused.hasty)
    }
}

/// What commands act on.
#[derive(Debug)]
pub struct Controlled<'a> {
    /// What all connections share.
    pub control: &'a mut Control,
    /// The metrics.
    pub registry: &'a mut Registry,
    /// The logs.
    pub logs: &'a Logs,
    /// Where changes are told.
    pub log: &'a Log,
    /// Monotonic time.
    pub now_ns: u64,
}

/// What the driver has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlProgress {
    /// Wait for more input, for [`ControlSession::idle_ns`].
    NeedMore,
    /// Send the reply, then wait for more input as after `NeedMore`.
    Reply,
    /// Send the reply and close.
    ReplyAndClose,
    /// Close without a reply: nothing was asked.
    Close,
}

/// The state of one connection.
#[derive(Debug, Default)]
pub struct ControlSession {
    input: Vec<u8>,
    commands: u32,
    admitted: bool,
    closed: bool,
}

impl ControlSession {
    /// A connection on which nothing was said yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { input: Vec::new(), commands: 0, admitted: false, closed: false }
    }

    /// How long to wait for input before [`handle_idle`](Self::handle_idle) is to be called. In nanoseconds.
    #[must_use]
    pub const fn idle_ns(&self) -> u64 {
        match (self.commands, self.input.is_empty()) {
            (0, true) => IDLE_BEFORE_INPUT_NS,
            (0, false) => IDLE_AFTER_INPUT_NS,
            _ => IDLE_AFTER_REPLY_NS,
        }
    }

    /// Bytes came in. Every newline completes a command; the replies are added to `reply`.
    pub fn handle_input(
        &mut self,
        input: &[u8],
        on: &mut Controlled<'_>,
        reply: &mut String,
    ) -> ControlProgress {
        let before = reply.len();
        for part in input.split_inclusive(|byte| *byte == b'\n') {
            if self.closed {
                break;
            }
            self.take(part, on, reply);
        }
        match (self.closed, reply.len() > before) {
            (true, true) => ControlProgress::ReplyAndClose,
            (true, false) => ControlProgress::Close,
            (false, true) => ControlProgress::Reply,
            (false, false) => ControlProgress::NeedMore,
        }
    }

    /// No more will come: the peer closed its side, or has been silent for [`idle_ns`](Self::idle_ns). What came
    /// since the last newline is a command.
    pub fn handle_idle(&mut self, on: &mut Controlled<'_>, reply: &mut String) -> ControlProgress {
        if self.closed || self.input.is_empty() {
            self.closed = true;
            return ControlProgress::Close;
        }
        self.answer(on, reply);
        self.closed = true;
        ControlProgress::ReplyAndClose
    }

    /// Takes what came up to a newline, or to the end of the input.
    fn take(&mut self, part: &[u8], on: &mut Controlled<'_>, reply: &mut String) {
        let room = (MAX_COMMAND_BYTES + 1).saturating_sub(self.input.len());
        let part = part.get(..room).unwrap_or(part);
        if self.input.try_reserve(part.len()).is_err() {
            self.closed = true;
            return;
        }
        self.input.extend_from_slice(part);
        let fits = self.input.len() <= MAX_COMMAND_BYTES;
        let complete = fits && self.input.last() == Some(&b'\n');
        if fits && !complete {
            return;
        }
        self.answer(on, reply);
        if complete {
            reply.push('\n');
        }
        self.closed |= !complete;
    }

    fn answer(&mut self, on: &mut Controlled<'_>, reply: &mut String) {
        let input = core::mem::take(&mut self.input);
        let start = reply.len();
        self.commands += 1;
        let mut heard = true;
        if let Err(error) = self.execute(&input, on, reply) {
            heard = !is_unheard(&error);
            self.closed |= !heard;
            reply.truncate(start);
            // Writing to a string does not fail.
            let _ = write!(reply, "{error}");
        }
        if heard && matches!(input.first(), Some(b'L' | b'M')) {
            let command = input.trim_ascii_end();
            let command = command.get(..LOGGED_BYTES).unwrap_or(command).escape_ascii();
            on.log.app(format_args!("command '{command}': {}", reply.get(start..).unwrap_or_default()));
        }
    }

    fn is_admitted(&self, control: &Control) -> bool {
        self.admitted || control.token.is_none()
    }

    fn execute<'a>(
        &mut self,
        input: &'a [u8],
        on: &mut Controlled<'_>,
        reply: &mut String,
    ) -> Result<(), ControlError<'a>> {
        if self.commands > MAX_COMMANDS {
            return Err(ControlError::TooMany(MAX_COMMANDS));
        }
        let rate = if self.admitted { &mut on.control.admitted_rate } else { &mut on.control.rate };
        if !rate.admits(on.now_ns) {
            on.control.refused.hasten(on.log);
            return Err(ControlError::TooFast(COMMANDS_PER_SECOND));
        }
        let command = parse_command(input);
        if let (Some(token), Ok(Command::Token(offered))) = (&on.control.token, &command) {
            self.admitted = token.admits(offered);
        }
        if !self.is_admitted(on.control) {
            on.control.refused.strange(on.log);
            return Err(ControlError::Unauthenticated);
        }
        on.registry.adopt();
        match command? {
            Command::SetLogs(items) => set_logs(&items, on)?,
            Command::SetMetrics(items) => set_metrics(&items, on)?,
            Command::ShowLogs(query) => return show_logs(&query, on.logs, reply),
            Command::ShowMetrics(query) => return show_metrics(&query, on.registry, reply),
            Command::Help => {
                reply.push_str(HELP);
                return Ok(());
            }
            Command::Token(_) if on.control.token.is_none() => return Err(ControlError::UnknownCommand),
            Command::Token(_) => {}
        }
        reply.push_str("ok");
        Ok(())
    }
}

/// Counts, and tells ever more seldom: who guesses must not fill the log.
impl Refused {
    fn strange(&mut self, log: &Log) {
        self.strangers += 1;
        if self.strangers.is_power_of_two() {
            log.warning(format_args!(
                "commands refused for want of the token since boot: {}",
                self.strangers
            ));
        }
    }

    fn hasten(&mut self, log: &Log) {
        self.hasty += 1;
        if self.hasty.is_power_of_two() {
            let most = COMMANDS_PER_SECOND;
            log.warning(format_args!(
                "commands refused as more than {most} a second since boot: {}",
                self.hasty
            ));
        }
    }
}

/// Whether a command was refused before anybody looked at it. It ends the connection.
const fn is_unheard(error: &ControlError<'_>) -> bool {
    matches!(error, ControlError::Unauthenticated | ControlError::TooMany(_) | ControlError::TooFast(_))
}

/// First `*`, then sources, in the order of the command.
fn set_logs<'a>(items: &LogItems<'a>, on: &mut Controlled<'_>) -> Result<(), ControlError<'a>> {
    for item in items.limited() {
        if let LogTarget::Source(name) = item.target
            && !on.logs.has(name)
        {
            return Err(ControlError::UnknownSource(name));
        }
    }
    let mut items: Vec<_> = items.limited().collect();
    items.sort_by_key(|item| item.target != LogTarget::All);
    items.into_iter().for_each(|item| on.control.undo.set_level(item, on.logs, on.now_ns));
    Ok(())
}

/// First `*`, then tags, then sources, in the order of the command.
fn set_metrics<'a>(items: &MetricItems<'a>, on: &mut Controlled<'_>) -> Result<(), ControlError<'a>> {
    for item in items.limited() {
        on.registry.check(item.target, item.switch)?;
    }
    let mut items: Vec<_> = items.limited().collect();
    items.sort_by_key(|item| match item.target {
        MetricTarget::All => 0,
        MetricTarget::Tag(_) => 1,
        MetricTarget::Source(_) => 2,
    });
    items.into_iter().for_each(|item| on.control.undo.set_metric(item, on.registry, on.now_ns));
    Ok(())
}

fn show_logs<'a>(query: &Query<'a>, logs: &Logs, reply: &mut String) -> Result<(), ControlError<'a>> {
    check_names(query, |name| logs.has(name))?;
    let mut list = List::new(reply);
    let default = logs.default_level();
    if !matches!(query, Query::Named(_)) {
        list.item("*", default.word());
    }
    logs.for_each_level(|name, level: LogLevel| {
        if is_asked(query, name, level != default) {
            list.item(name, level.word());
        }
    });
    Ok(())
}

fn show_metrics<'a>(
    query: &Query<'a>,
    registry: &Registry,
    reply: &mut String,
) -> Result<(), ControlError<'a>> {
    check_names(query, |name| registry.has(name))?;
    let mut list = List::new(reply);
    let default = registry.all();
    if !matches!(query, Query::Named(_)) {
        list.item("*", default.word());
    }
    if matches!(query, Query::All) {
        for tag in registry.enabled_tags() {
            list.item("tag", tag);
            list.out.push(':');
            list.out.push_str(Switch::On.word());
        }
    }
    for (name, state) in registry.states() {
        if is_asked(query, name, state != default) {
            list.item(name, state.word());
        }
    }
    Ok(())
}

/// Finds the first name that is no source.
fn check_names<'a>(query: &Query<'a>, exists: impl Fn(&str) -> bool) -> Result<(), ControlError<'a>> {
    let Query::Named(names) = query else { return Ok(()) };
    match names.clone().find(|name| !exists(name)) {
        Some(unknown) => Err(ControlError::UnknownSource(unknown)),
        None => Ok(()),
    }
}

fn is_asked(query: &Query<'_>, name: &str, differs: bool) -> bool {
    match query {
        Query::Differing => differs,
        Query::All => true,
        Query::Named(names) => names.clone().any(|asked| asked == name),
    }
}

/// `ok: ` and items joined by commas.
struct List<'a> {
    out: &'a mut String,
    first: bool,
}

impl<'a> List<'a> {
    fn new(out: &'a mut String) -> Self {
        out.push_str("ok: ");
        Self { out, first: true }
    }

    fn item(&mut self, name: &str, state: &str) {
        if !self.first {
            self.out.push(',');
        }
        self.first = false;
        self.out.push_str(name);
        self.out.push(':');
        self.out.push_str(state);
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(
            reply_to(&[b"m", b"*\r\n"]),
            (alloc::vec![NeedMore, Reply, Close], reply.to_string() + "\n")
        );
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
            assert_eq!(
                bench.connection(&[refused.as_bytes(), b"\nl\n"]).1,
                "error: authentication required\n"
            );
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
}
