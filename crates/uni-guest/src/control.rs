//! One connection to the control port: one command, one reply.
//!
//! Owns the bytes of a command that is not complete yet and the execution of a complete one. Never owns the
//! connection. The grammar, and where Uni differs from MirageOS on purpose, is in [`uni_wire::control`].

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use uni_wire::control::{
    Command, ControlError, LogItems, LogLevel, MAX_COMMAND_BYTES, MetricItems, Query, Switch, parse_command,
};

use crate::logs::Logs;
use crate::metrics::Registry;

/// How long a driver waits for more after a command without a newline before it calls
/// [`ControlSession::handle_idle`]: `printf l | nc` sends none. In nanoseconds.
pub const IDLE_AFTER_INPUT_NS: u64 = 200_000_000;

/// How long a driver keeps a connection on which nothing was sent. In nanoseconds.
pub const IDLE_BEFORE_INPUT_NS: u64 = 10_000_000_000;

/// What the driver has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlProgress {
    /// Wait for more input.
    NeedMore,
    /// Send the reply and close.
    Reply,
    /// Close without a reply: nothing was asked.
    Close,
}

/// The state of one connection.
#[derive(Debug, Default)]
pub struct ControlSession {
    input: Vec<u8>,
    answered: bool,
}

impl ControlSession {
    /// A connection on which nothing was said yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { input: Vec::new(), answered: false }
    }

    /// Whether some of a command has come.
    #[must_use]
    pub const fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// What came in so far, without the newline; not more than the limit and a little.
    #[must_use]
    pub fn command(&self) -> &[u8] {
        self.input.trim_ascii_end()
    }

    /// Bytes came in. A newline, or one byte too many, completes the command; what follows it is ignored.
    pub fn handle_input(
        &mut self,
        input: &[u8],
        registry: &mut Registry,
        logs: &Logs,
        reply: &mut String,
    ) -> ControlProgress {
        let newline = input.iter().position(|b| *b == b'\n');
        let part = newline.map_or(input, |at| input.get(..=at).unwrap_or(input));
        let room = (MAX_COMMAND_BYTES + 1).saturating_sub(self.input.len());
        let part = part.get(..room).unwrap_or(part);
        if self.input.try_reserve(part.len()).is_err() {
            return ControlProgress::Close;
        }
        self.input.extend_from_slice(part);
        if newline.is_none() && self.input.len() <= MAX_COMMAND_BYTES {
            return ControlProgress::NeedMore;
        }
        self.handle_idle(registry, logs, reply)
    }

    /// No more will come: the peer closed its side, or has been silent for [`IDLE_AFTER_INPUT_NS`].
    pub fn handle_idle(
        &mut self,
        registry: &mut Registry,
        logs: &Logs,
        reply: &mut String,
    ) -> ControlProgress {
        if self.input.is_empty() || core::mem::replace(&mut self.answered, true) {
            return ControlProgress::Close;
        }
        registry.adopt();
        let done = parse_command(&self.input).and_then(|command| execute(&command, registry, logs, reply));
        if let Err(error) = done {
            reply.clear();
            // Writing to a string does not fail.
            let _ = write!(reply, "{error}");
        }
        ControlProgress::Reply
    }
}

fn execute<'a>(
    command: &Command<'a>,
    registry: &mut Registry,
    logs: &Logs,
    reply: &mut String,
) -> Result<(), ControlError<'a>> {
    match command {
        Command::SetLogs(items) => set_logs(items, logs, reply),
        Command::SetMetrics(items) => set_metrics(items, registry, reply),
        Command::ShowLogs(query) => show_logs(query, logs, reply),
        Command::ShowMetrics(query) => show_metrics(query, registry, reply),
    }
}

fn set_logs<'a>(items: &LogItems<'a>, logs: &Logs, reply: &mut String) -> Result<(), ControlError<'a>> {
    logs.apply(items)?;
    reply.push_str("ok");
    Ok(())
}

fn set_metrics<'a>(
    items: &MetricItems<'a>,
    registry: &mut Registry,
    reply: &mut String,
) -> Result<(), ControlError<'a>> {
    registry.apply(items)?;
    reply.push_str("ok");
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
    use proptest::prelude::*;

    fn reply_to(segments: &[&[u8]]) -> (ControlProgress, String) {
        let (mut registry, logs) = (Registry::new(), Logs::default());
        registry.register(Periodic::new("gc", |_| {}));
        let (mut session, mut reply) = (ControlSession::new(), String::new());
        for segment in segments {
            let progress = session.handle_input(segment, &mut registry, &logs, &mut reply);
            if progress != ControlProgress::NeedMore {
                return (progress, reply);
            }
        }
        (session.handle_idle(&mut registry, &logs, &mut reply), reply)
    }

    #[test]
    fn a_command_may_come_in_pieces_with_or_without_a_newline() {
        let expected = (ControlProgress::Reply, "ok: *:enabled,gc:enabled".into());
        assert_eq!(reply_to(&[b"m", b"*"]), expected);
        assert_eq!(reply_to(&[b"m", b"*\r\n"]), expected);
        assert_eq!(reply_to(&[b"m*\nl"]), expected);
    }

    #[test]
    fn a_command_too_long_is_refused_before_it_ends() {
        let (progress, reply) = reply_to(&[&[b'm'; 3000], &[b'm'; 3000]]);
        assert_eq!(progress, ControlProgress::Reply);
        assert_eq!(reply, "error: command is longer than 4096 bytes");
    }

    #[test]
    fn a_connection_on_which_nothing_was_said_gets_no_reply() {
        assert_eq!(reply_to(&[]), (ControlProgress::Close, String::new()));
    }

    proptest! {
        #[test]
        fn any_bytes_get_a_reply(input in "[lmLM*:,a-z\n]{1,20}") {
            let (progress, reply) = reply_to(&[input.as_bytes()]);
            prop_assert_eq!(progress, ControlProgress::Reply);
            prop_assert!(reply.starts_with("ok") || reply.starts_with("error: "));
        }
    }
}
