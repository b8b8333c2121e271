//! The commands of a guest's control port (TCP 2323), as `mirage-monitoring` understands them, and a few more.
//!
//! ```text
//! command = "L" logitem *("," logitem)     set log levels
//!         / "M" metitem *("," metitem)     turn metrics on or off
//!         / "l" query / "m" query          ask
//!         / "s"                            show how heap traces are sampled, and how they fared
//!         / "S" rate                       set the share of words that the next heap trace samples
//!         / "h" / "help"                   list the commands
//!         / "T" SP token                   say who one is, where that is asked for
//! logitem = [("*" / source) ":"] level [limit]
//! metitem = [("*" / source / "src:" source / "tag:" tag) ":"] onoff [limit]
//! limit   = "@" 1*digit ("s" / "m" / "h")  how long; then it is as if it had not been said
//! rate    = a number above 0 and at most 1, as 0.001 or 1e-3
//! query   = "" / "*" / source *("," source)
//! ```
//!
//! Owns the grammar and the text of the replies. Never knows which sources exist: who executes a command does,
//! and answers an unknown one with [`ControlError::UnknownSource`].
//!
//! Deliberate differences from `mirage-monitoring` 0.0.7, where it contradicts its own documentation:
//! - a newline (or CR LF) after the command is not part of it, and its reply ends in one too;
//! - a command that names an unknown source is an error and changes nothing (there: `ok`);
//! - `L` without `*` leaves the other sources alone (there: resets them to the default);
//! - a tag command leaves the choices made for single sources alone (there: undoes them);
//! - of two mentions of a source the last counts (there: the first), and all sources of a name are meant (there:
//!   the newest).

use core::fmt;
use core::str::Split;

use crate::ocaml::Literal;

/// Longest command, newline included. The original reads one TCP segment.
pub const MAX_COMMAND_BYTES: usize = 4096;

/// Longest time a change can be limited to: a day.
pub const MAX_LIMIT_SECONDS: u32 = 86_400;

/// The reply to `h`: one line, so that a reader of lines gets the whole of it.
pub const HELP: &str = "ok: l[*|SOURCE,...] show log levels; L[SOURCE:|*:]LEVEL[@TIME],... set them (quiet, app, error, \
     warning, info, debug); m[*|SOURCE,...] show metrics; M[SOURCE:|*:|tag:KEY:]enable|disable[@TIME],... turn them \
     on or off; TIME as 30s, 10m, 1h, then as if never said; s show heap traces; S RATE set their sampling, as S1e-3; T TOKEN say who you are; h this help";

/// How much a log source says, from nothing to everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum LogLevel {
    /// Nothing at all.
    Quiet = 0,
    /// What the program says to its user.
    App = 1,
    /// Errors.
    Error = 2,
    /// And warnings.
    Warning = 3,
    /// And information.
    Info = 4,
    /// And everything else.
    Debug = 5,
}

impl LogLevel {
    /// All levels, from `quiet` to `debug`.
    pub const ALL: [Self; 6] = [Self::Quiet, Self::App, Self::Error, Self::Warning, Self::Info, Self::Debug];

    /// The level's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::App => "app",
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// The level of a word; exact, lower case.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.word() == word)
    }
}

/// Whether metrics are collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Switch {
    /// `enable` or `on`.
    On,
    /// `disable` or `off`.
    Off,
}

impl Switch {
    /// How a reply shows it: `enabled` or `disabled`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::On => "enabled",
            Self::Off => "disabled",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        let is = |w: &&str| word.eq_ignore_ascii_case(w);
        if ["enable", "on"].iter().any(is) {
            Some(Self::On)
        } else if ["disable", "off"].iter().any(is) {
            Some(Self::Off)
        } else {
            None
        }
    }
}

/// What is asked about.
#[derive(Clone, Debug)]
pub enum Query<'a> {
    /// The default, and what differs from it.
    Differing,
    /// The default, and everything.
    All,
    /// These sources only.
    Named(Names<'a>),
}

/// The source names of a query, as written.
#[derive(Clone, Debug)]
pub struct Names<'a>(Split<'a, char>);

impl<'a> Iterator for Names<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.0.next()
    }
}

/// What a log level is set for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTarget<'a> {
    /// All sources, and those to come.
    All,
    /// All sources of this name.
    Source(&'a str),
}

/// What is turned on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricTarget<'a> {
    /// All sources, and those to come.
    All,
    /// All sources of this name.
    Source(&'a str),
    /// All sources with this tag.
    Tag(&'a str),
}

/// One item of an `L` command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogItem<'a> {
    /// Whose level is set.
    pub target: LogTarget<'a>,
    /// The level.
    pub level: LogLevel,
    /// For how long; `None`: until the next command.
    pub seconds: Option<u32>,
}

/// The items of an `L` command, all well formed. Iterated over, without their time limits.
#[derive(Clone, Debug)]
pub struct LogItems<'a>(Split<'a, char>);

impl<'a> LogItems<'a> {
    /// Parses `LEVEL`, `*:LEVEL` and `SOURCE:LEVEL`, joined by commas: the syntax of `--logs`, without time limits.
    ///
    /// # Errors
    /// The first bad item.
    pub fn parse(text: &'a str) -> Result<Self, ControlError<'a>> {
        text.split(',').try_for_each(|item| match parse_log_item(item)? {
            LogItem { seconds: None, .. } => Ok(()),
            _ => Err(ControlError::LogLevel(item)),
        })?;
        Ok(Self(text.split(',')))
    }

    /// The items, with their time limits.
    pub fn limited(&self) -> impl Iterator<Item = LogItem<'a>> + use<'a> {
        self.0.clone().filter_map(|item| parse_log_item(item).ok())
    }

    fn parse_limited(text: &'a str) -> Result<Self, ControlError<'a>> {
        text.split(',').try_for_each(|item| parse_log_item(item).map(|_| ()))?;
        Ok(Self(text.split(',')))
    }
}

impl<'a> Iterator for LogItems<'a> {
    type Item = (LogTarget<'a>, LogLevel);

    fn next(&mut self) -> Option<Self::Item> {
        parse_log_item(self.0.next()?).ok().map(|item| (item.target, item.level))
    }
}

/// One item of an `M` command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricItem<'a> {
    /// What is turned on or off.
    pub target: MetricTarget<'a>,
    /// Which of both.
    pub switch: Switch,
    /// For how long; `None`: until the next command.
    pub seconds: Option<u32>,
}

/// The items of an `M` command, all well formed. Iterated over, without their time limits.
#[derive(Clone, Debug)]
pub struct MetricItems<'a>(Split<'a, char>);

impl<'a> MetricItems<'a> {
    /// The items, with their time limits.
    pub fn limited(&self) -> impl Iterator<Item = MetricItem<'a>> + use<'a> {
        self.0.clone().filter_map(|item| parse_metric_item(item).ok())
    }

    fn parse_limited(text: &'a str) -> Result<Self, ControlError<'a>> {
        text.split(',').try_for_each(|item| parse_metric_item(item).map(|_| ()))?;
        Ok(Self(text.split(',')))
    }
}

impl<'a> Iterator for MetricItems<'a> {
    type Item = (MetricTarget<'a>, Switch);

    fn next(&mut self) -> Option<Self::Item> {
        parse_metric_item(self.0.next()?).ok().map(|item| (item.target, item.switch))
    }
}

/// A command.
#[derive(Clone, Debug)]
pub enum Command<'a> {
    /// `l`: show log levels.
    ShowLogs(Query<'a>),
    /// `m`: show which metrics are on.
    ShowMetrics(Query<'a>),
    /// `L`: set log levels.
    SetLogs(LogItems<'a>),
    /// `M`: turn metrics on or off.
    SetMetrics(MetricItems<'a>),
    /// `s`: show the rate of heap traces, and how they fared.
    ShowSampling,
    /// `S`: the probability with which the next heap trace samples a word, above 0 and at most 1.
    SetSampling(f64),
    /// `h`: list the commands.
    Help,
    /// `T`: the token of who may give commands. A secret.
    Token(&'a str),
}

/// Why a command was refused. `Display` is the reply, as `mirage-monitoring` words it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlError<'a> {
    /// It begins with no letter of a command, or says more than `s`, `h` or `help`, or less than `T` takes.
    UnknownCommand,
    /// The command is not UTF-8.
    NotText,
    /// The command is longer than [`MAX_COMMAND_BYTES`].
    TooLong,
    /// No such source.
    UnknownSource(&'a str),
    /// No such level.
    LogLevel(&'a str),
    /// An `L` item of unknown shape.
    LogItem(&'a str),
    /// Neither on nor off.
    Switch(&'a str),
    /// An `M` item of unknown shape.
    MetricItem(&'a str),
    /// Not a time after `@`.
    TimeLimit(&'a str),
    /// More tags would be on than may be.
    TooManyTags(usize),
    /// More changes would wait for the end of a time limit than may.
    TooManyLimits(usize),
    /// No sampling rate.
    SamplingRate(&'a str),
    /// A command before the token, or the wrong token.
    Unauthenticated,
    /// A command that takes its client longer to say than this many seconds.
    TooSlow(u64),
    /// More commands on one connection than are taken.
    TooMany(u32),
    /// More commands a second, on all connections together, than are taken.
    TooFast(u32),
}

impl fmt::Display for ControlError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownCommand => f.write_str("error: unknown command"),
            Self::NotText => f.write_str("error: command is not UTF-8"),
            Self::TooLong => write!(f, "error: command is longer than {MAX_COMMAND_BYTES} bytes"),
            Self::UnknownSource(name) => write!(f, "error: unknown source: {name}"),
            Self::LogLevel(word) => write!(f, "error: {}: unknown log level", Literal(word)),
            Self::LogItem(item) => write!(f, "error: Can't parse log threshold: {item}"),
            Self::Switch(word) => {
                f.write_str("error: couldn't decode 'enable' or 'disable': ")?;
                word.chars().try_for_each(|c| write!(f, "{}", c.to_ascii_lowercase()))
            }
            Self::MetricItem(item) => write!(f, "error: couldn't decode metrics {item}"),
            Self::TimeLimit(text) => {
                write!(f, "error: '{text}' is no time limit; write 1s to 24h, as 30s, 10m or 1h")
            }
            Self::TooManyTags(most) => {
                write!(f, "error: more than {most} tags would be on; turn some off, or all with M*:off")
            }
            Self::TooManyLimits(most) => write!(
                f,
                "error: more than {most} changes would wait for the end of a time limit; wait, or change all with *"
            ),
            Self::SamplingRate(text) => {
                write!(
                    f,
                    "error: '{text}' is no sampling rate; write a number above 0 and at most 1, as 1e-3"
                )
            }
            Self::Unauthenticated => f.write_str("error: authentication required"),
            Self::TooSlow(most) => write!(f, "error: command did not end within {most} seconds"),
            Self::TooMany(most) => write!(f, "error: more than {most} commands on one connection"),
            Self::TooFast(most) => write!(f, "error: more than {most} commands a second; try again later"),
        }
    }
}

impl core::error::Error for ControlError<'_> {}

/// Parses what a client sent: one command, with or without a newline after it.
///
/// # Errors
/// The first bad item; nothing of a bad command is to be executed.
pub fn parse_command(input: &[u8]) -> Result<Command<'_>, ControlError<'_>> {
    if input.len() > MAX_COMMAND_BYTES {
        return Err(ControlError::TooLong);
    }
    let line = input.strip_suffix(b"\n").map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let input = line.unwrap_or(input);
    let text = core::str::from_utf8(input).map_err(|_| ControlError::NotText)?;
    let mut rest = text.chars();
    match rest.next() {
        Some('l') => Ok(Command::ShowLogs(parse_query(rest.as_str()))),
        Some('m') => Ok(Command::ShowMetrics(parse_query(rest.as_str()))),
        Some('L') => LogItems::parse_limited(rest.as_str()).map(Command::SetLogs),
        Some('M') => MetricItems::parse_limited(rest.as_str()).map(Command::SetMetrics),
        Some('T') => rest.as_str().strip_prefix(' ').map(Command::Token).ok_or(ControlError::UnknownCommand),
        Some('s') if rest.as_str().is_empty() => Ok(Command::ShowSampling),
        Some('S') => parse_rate(rest.as_str()).map(Command::SetSampling),
        Some('h') if matches!(text, "h" | "help") => Ok(Command::Help),
        _ => Err(ControlError::UnknownCommand),
    }
}

fn parse_rate(text: &str) -> Result<f64, ControlError<'_>> {
    let text = text.strip_prefix(' ').unwrap_or(text);
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= 1.0 => Ok(rate),
        _ => Err(ControlError::SamplingRate(text)),
    }
}

fn parse_query(text: &str) -> Query<'_> {
    match text {
        "" => Query::Differing,
        "*" => Query::All,
        names => Query::Named(Names(names.split(','))),
    }
}

fn parse_log_item(item: &str) -> Result<LogItem<'_>, ControlError<'_>> {
    let (target, word) = match item.split_once(':') {
        None => (LogTarget::All, item),
        Some((_, word)) if word.contains(':') => return Err(ControlError::LogItem(item)),
        Some(("*", word)) => (LogTarget::All, word),
        Some((source, word)) => (LogTarget::Source(source), word),
    };
    let (level, limit) = split_limit(word, LogLevel::from_word).ok_or(ControlError::LogLevel(word))?;
    Ok(LogItem { target, level, seconds: limit.map(parse_limit).transpose()? })
}

fn parse_metric_item(item: &str) -> Result<MetricItem<'_>, ControlError<'_>> {
    let mut parts = item.split(':');
    let parts = (parts.next(), parts.next(), parts.next(), parts.next());
    let (target, word) = match parts {
        (Some(word), None, ..) => (MetricTarget::All, word),
        (Some("*"), Some(word), None, _) => (MetricTarget::All, word),
        (Some(source), Some(word), None, _) => (MetricTarget::Source(source), word),
        (Some("src"), Some(source), Some(word), None) => (MetricTarget::Source(source), word),
        (Some("tag"), Some(tag), Some(word), None) => (MetricTarget::Tag(tag), word),
        _ => return Err(ControlError::MetricItem(item)),
    };
    let (switch, limit) = split_limit(word, Switch::from_word).ok_or(ControlError::Switch(word))?;
    Ok(MetricItem { target, switch, seconds: limit.map(parse_limit).transpose()? })
}

/// The meaning of a word with or without `@` and a time after it, and that time.
fn split_limit<T>(word: &str, meaning: impl Fn(&str) -> Option<T>) -> Option<(T, Option<&str>)> {
    let (word, limit) = word.split_once('@').map_or((word, None), |(word, limit)| (word, Some(limit)));
    Some((meaning(word)?, limit))
}

/// Seconds of `30s`, `10m`, `1h`.
fn parse_limit(text: &str) -> Result<u32, ControlError<'_>> {
    let unit = match text.as_bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3_600,
        _ => return Err(ControlError::TimeLimit(text)),
    };
    let digits = text.get(..text.len() - 1).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    let seconds = digits.and_then(|digits| digits.parse::<u32>().ok()?.checked_mul(unit));
    seconds.filter(|s| (1..=MAX_LIMIT_SECONDS).contains(s)).ok_or(ControlError::TimeLimit(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;
    use std::vec::Vec;

    #[test]
    fn a_newline_after_the_command_is_not_part_of_it() {
        for input in ["l", "l\n", "l\r\n"] {
            assert!(matches!(parse_command(input.as_bytes()), Ok(Command::ShowLogs(Query::Differing))));
        }
    }

    #[test]
    fn items_keep_their_order() {
        let Ok(Command::SetMetrics(items)) = parse_command(b"M*:OFF,src:a:on,tag:t:enable,b:disable") else {
            panic!("good command")
        };
        assert_eq!(
            items.collect::<Vec<_>>(),
            [
                (MetricTarget::All, Switch::Off),
                (MetricTarget::Source("a"), Switch::On),
                (MetricTarget::Tag("t"), Switch::On),
                (MetricTarget::Source("b"), Switch::Off),
            ]
        );
    }

    #[test]
    fn faults_that_are_ours_are_named() {
        let reply = |input: &[u8]| parse_command(input).err().map(|e| e.to_string());
        assert_eq!(reply(b"l\xff").as_deref(), Some("error: command is not UTF-8"));
        assert_eq!(reply(&[b'l'; 5000]).as_deref(), Some("error: command is longer than 4096 bytes"));
        assert_eq!(reply(b""), Some("error: unknown command".into()));
    }

    #[test]
    fn a_change_may_be_limited_to_a_time() {
        let Ok(Command::SetLogs(items)) = parse_command(b"Ldns:debug@10m,*:info,quiet@24h") else {
            panic!("good command")
        };
        let seconds: Vec<_> = items.limited().map(|item| item.seconds).collect();
        assert_eq!(seconds, [Some(600), None, Some(86_400)]);
        let error = |input: &'static [u8]| parse_command(input).err();
        for bad in ["", "0s", "10", "m", "25h", "+1m", "1.5h", "99999999999s", "1é"] {
            let command = std::format!("Ldebug@{bad}");
            assert_eq!(parse_command(command.as_bytes()).err(), Some(ControlError::TimeLimit(bad)));
        }
        assert_eq!(error(b"Lloud@10m"), Some(ControlError::LogLevel("loud@10m")));
        assert_eq!(error(b"Mtag:a:on@1m,off@2h"), None);
        assert_eq!(error(b"L\r"), Some(ControlError::LogLevel("\r")));
        assert!(LogItems::parse("dns:debug@10m").is_err(), "not on the command line");
    }

    #[test]
    fn help_and_tokens_are_commands_of_their_own() {
        assert!(matches!(parse_command(b"help\r\n"), Ok(Command::Help)));
        assert!(matches!(parse_command(b"T  a b\n"), Ok(Command::Token(" a b"))));
        for bad in ["hello", "T", "Token"] {
            assert_eq!(parse_command(bad.as_bytes()).err(), Some(ControlError::UnknownCommand));
        }
        assert!(!HELP.contains(char::is_control));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_command_or_a_reply(
            input in prop_oneof![prop::collection::vec(any::<u8>(), 0..40), "[lmLM*:,a-z\n]{0,30}".prop_map(String::into_bytes)],
        ) {
            match parse_command(&input) {
                Ok(Command::SetLogs(items)) => prop_assert!(items.count() > 0),
                Ok(Command::SetMetrics(items)) => prop_assert!(items.count() > 0),
                Ok(_) => {}
                Err(error) => prop_assert!(error.to_string().starts_with("error: ")),
            }
        }
    }
    use std::string::String;
}
