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

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use uni_wire::control::{
    Command, ControlError, HELP, LogLevel, MAX_COMMAND_BYTES, Query, Switch, parse_command,
};

use crate::heap::{self, SamplingRate};
use crate::logs::{Log, Logs};
use crate::metrics::Registry;

pub use rate::COMMANDS_PER_SECOND;
pub use token::Token;

/// How long a driver waits for more after a command without a newline before it calls
/// [`ControlSession::handle_idle`]: MirageOS's clients send none, and wait for the answer. Longer than TCP needs to
/// send a lost segment again several times, so that half a command is not taken for a whole one. In nanoseconds.
pub const IDLE_AFTER_INPUT_NS: u64 = 2_000_000_000;

/// How long a client may take for one command. In seconds.
const MAX_COMMAND_SECONDS: u64 = 10;

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
    /// Of everybody; on a port with a token, of those who did not show it yet.
    rate: rate::Rate,
    /// Of those who showed the token: strangers take nothing away from them.
    admitted_rate: rate::Rate,
    refused: Refused,
    /// Of heap traces to come.
    sampling: SamplingRate,
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

    /// How much the next heap trace samples.
    #[must_use]
    pub const fn sampling_rate(&self) -> SamplingRate {
        self.sampling
    }

    /// Sets how much heap traces sample from now on; one that runs keeps its own.
    pub const fn set_sampling_rate(&mut self, rate: SamplingRate) {
        self.sampling = rate;
    }

    /// Ends what was to last until now. To be called when [`next_deadline`] says so.
    pub fn handle_time(&mut self, registry: &mut Registry, logs: &Logs, log: &Log, now_ns: u64) {
        let mut restored = logs.expire(now_ns);
        restored.extend(registry.expire(now_ns));
        if !restored.is_empty() {
            log.app(format_args!("time limit is over: {}", restored.join(",")));
        }
    }

    /// Commands since boot that were refused unheard: without the token, or faster than [`COMMANDS_PER_SECOND`].
    #[must_use]
    pub const fn refused_commands(&self) -> u64 {
        self.refused.strangers.saturating_add(self.refused.hasty)
    }
}

/// When [`Control::handle_time`] is due.
#[must_use]
pub fn next_deadline(registry: &Registry, logs: &Logs) -> Option<u64> {
    registry.next_deadline().into_iter().chain(logs.next_deadline()).min()
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
    /// When the first byte of `input` came.
    started_ns: u64,
    commands: u32,
    admitted: bool,
    closed: bool,
}

impl ControlSession {
    /// A connection on which nothing was said yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { input: Vec::new(), started_ns: 0, commands: 0, admitted: false, closed: false }
    }

    /// How long to wait for input before [`handle_idle`](Self::handle_idle) is to be called. In nanoseconds.
    #[must_use]
    pub const fn idle_ns(&self) -> u64 {
        match (self.commands, self.input.is_empty()) {
            (0, true) => IDLE_BEFORE_INPUT_NS,
            (_, false) => IDLE_AFTER_INPUT_NS,
            (_, true) => IDLE_AFTER_REPLY_NS,
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
        if self.input.is_empty() {
            self.started_ns = on.now_ns;
        }
        self.input.extend_from_slice(part);
        let fits = self.input.len() <= MAX_COMMAND_BYTES;
        let complete = fits && self.input.last() == Some(&b'\n');
        if fits && !complete && !self.is_slow(on) {
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
        if heard && matches!(input.first(), Some(b'L' | b'M' | b'S')) {
            let command = input.trim_ascii_end();
            let command = command.get(..LOGGED_BYTES).unwrap_or(command).escape_ascii();
            on.log.app(format_args!("command '{command}': {}", reply.get(start..).unwrap_or_default()));
        }
    }

    fn is_slow(&self, on: &Controlled<'_>) -> bool {
        on.now_ns.saturating_sub(self.started_ns) > MAX_COMMAND_SECONDS * 1_000_000_000
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
        if self.is_slow(on) {
            return Err(ControlError::TooSlow(MAX_COMMAND_SECONDS));
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
            Command::SetLogs(items) => on.logs.apply(&items, on.now_ns)?,
            Command::SetMetrics(items) => on.registry.apply(&items, on.now_ns)?,
            Command::ShowLogs(query) => return show_logs(&query, on.logs, reply),
            Command::ShowMetrics(query) => return show_metrics(&query, on.registry, reply),
            Command::ShowSampling => {
                show_sampling(on.control, reply);
                return Ok(());
            }
            Command::SetSampling(rate) => {
                let rate = SamplingRate::new(rate).ok_or(ControlError::UnknownCommand)?;
                on.control.set_sampling_rate(rate);
            }
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
    matches!(
        error,
        ControlError::Unauthenticated
            | ControlError::TooMany(_)
            | ControlError::TooFast(_)
            | ControlError::TooSlow(_)
    )
}

/// `rate` is of the next trace.
fn show_sampling(control: &Control, reply: &mut String) {
    let (rate, figures) = (control.sampling_rate(), heap::figures());
    let state = if figures.is_running { "running" } else { "idle" };
    // Writing to a string does not fail.
    let _ = write!(
        reply,
        "ok: rate:{rate},state:{state},traces:{},events:{},dropped_events:{}",
        figures.traces, figures.events, figures.dropped_events
    );
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
mod tests;
