//! Recorded conversations on the control port against Uni's control session.
//!
//! Owns the meaning of a case (`setup`, what is `send` over successive connections, each `reply`), and a model of the
//! original written from the description of its behaviour, in which each deliberate difference is a switch. With all
//! of them off it answers as `mirage-monitoring` 0.0.7 does, with all of them on as Uni documents; a rule covers a
//! conversation if switching it on changes an answer.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use serde_json::Value as Json;
use uni_guest::{Control, ControlProgress, ControlSession, Controlled, Log, Logs, Periodic, Registry};
use uni_wire::control::{HELP, MAX_COMMAND_BYTES};

use super::recorded::stands_for;
use super::{Explanation, Rule, Verdict, list, text, weigh};

/// Most commands on one connection, as documented.
const MAX_COMMANDS: usize = 64;

const NEWLINE: usize = 0;
const UNKNOWN: usize = 1;
const NO_RESET: usize = 2;
const CHOICES: usize = 3;
const LAST: usize = 4;
const ALL_OF_NAME: usize = 5;
const LIMIT: usize = 6;
const HELP_COMMAND: usize = 7;
const LENGTH: usize = 8;

/// The deliberate differences, by the numbers above.
pub(super) static RULES: [Rule; 9] = [
    Rule {
        name: "newline",
        reason: "LF or CR LF ends a command and is no part of it, its reply ends in LF, and several commands may follow \
                 each other: `echo l | nc` is an error there",
    },
    Rule {
        name: "unknown source",
        reason: "an unknown source is an error and nothing changes; there the reply is `ok`",
    },
    Rule {
        name: "no reset",
        reason: "`L` without `*` leaves other sources alone; there they fall back to the default",
    },
    Rule {
        name: "choices stay",
        reason: "tag commands leave choices for single sources alone; there they undo them",
    },
    Rule {
        name: "last mention",
        reason: "of two mentions of a source or tag the last counts; there the first",
    },
    Rule { name: "all of a name", reason: "all sources of a name are changed; there only the newest" },
    Rule {
        name: "time limit",
        reason: "`LEVEL@10m` and `enable@10m` change something for a time; there no such word",
    },
    Rule { name: "help", reason: "`h` or `help` lists the commands; there it is unknown" },
    Rule {
        name: "length",
        reason: "a command longer than 4096 bytes is refused; there it is cut to one segment",
    },
];

type Replies = Vec<Option<String>>;

pub(super) fn judge(case: &Json) -> anyhow::Result<Verdict> {
    let setup = Setup::named(text(case, "setup")?)?;
    let sent: Vec<&str> = list(case, "send")?
        .iter()
        .map(|command| command.as_str().context("\"send\" is not a list of strings"))
        .collect::<Result<_, _>>()?;
    let recorded = list(case, "reply")?;
    let is_recorded = |replies: &Replies| {
        replies.len() == recorded.len()
            && replies.iter().zip(recorded).all(|(reply, recorded)| match (reply, recorded.as_str()) {
                (Some(reply), Some(recorded)) => stands_for(recorded, reply.as_bytes()),
                (None, None) => recorded.is_null(),
                _ => false,
            })
    };
    let (ours, models) = (replay(setup, &sent), explain(setup, &sent));
    Ok(weigh(&ours, is_recorded(&ours), is_recorded(&models.original), models))
}

/// Switches the rules on one by one.
fn explain(setup: Setup, sent: &[&str]) -> Explanation<Replies> {
    let mut on = [false; RULES.len()];
    let original = Model::new(setup, on).replies(sent);
    let (mut documented, mut covering) = (original.clone(), Vec::new());
    for (n, rule) in RULES.iter().enumerate() {
        on[n] = true;
        let replies = Model::new(setup, on).replies(sent);
        if replies != documented {
            covering.push(rule);
            documented = replies;
        }
    }
    if original == documented {
        covering.clear();
    }
    Explanation { original, documented, covering }
}

/// The sources that exist before the first command; B has two of some names.
#[derive(Clone, Copy, Debug)]
struct Setup {
    logs: &'static [&'static str],
    /// Names and tag keys.
    metrics: &'static [(&'static str, &'static str)],
}

impl Setup {
    fn named(name: &str) -> anyhow::Result<Self> {
        Ok(match name {
            "A" => Self {
                logs: &["application", "mirage-monitoring", "tcpip", "dns"],
                metrics: &[
                    ("memory", ""),
                    ("tcp", ""),
                    ("net-solo5", "ifname"),
                    ("http_response", "http"),
                    ("gc", ""),
                    ("logs", ""),
                ],
            },
            "B" => Self {
                logs: &["application", "mirage-monitoring", "tcpip", "dns", "dns"],
                metrics: &[
                    ("memory", ""),
                    ("tcp", ""),
                    ("net-solo5", "ifname"),
                    ("net-solo5", "ifname"),
                    ("http_response", "http"),
                    ("gc", ""),
                    ("logs", ""),
                ],
            },
            _ => bail!("no such setup: {name}"),
        })
    }
}

/// Uni's answers: each command on a connection of its own, after which the client closes its side.
fn replay(setup: Setup, sent: &[&str]) -> Replies {
    let (mut control, mut registry, logs) = (Control::default(), Registry::new(), Logs::default());
    let ends: Vec<Log> = setup.logs.iter().map(|name| logs.source(name, "")).collect();
    for (name, tag) in setup.metrics {
        let source = Periodic::new(name, |_| {});
        registry.register(if tag.is_empty() { source } else { source.tag(tag, "x") });
    }
    sent.iter()
        .map(|bytes| {
            let (mut session, mut reply) = (ControlSession::new(), String::new());
            let mut on = Controlled {
                control: &mut control,
                registry: &mut registry,
                logs: &logs,
                log: &ends[0],
                now_ns: 0,
            };
            let progress = session.handle_input(bytes.as_bytes(), &mut on, &mut reply);
            if matches!(progress, ControlProgress::NeedMore | ControlProgress::Reply) {
                session.handle_idle(&mut on, &mut reply);
            }
            (!reply.is_empty()).then_some(reply)
        })
        .collect()
}

/// A metric source of the model.
struct Metric {
    name: &'static str,
    tag: &'static str,
    choice: Option<bool>,
}

struct Model {
    on: [bool; RULES.len()],
    default_level: String,
    /// In the order of creation, as the metrics.
    levels: Vec<(&'static str, String)>,
    all: bool,
    tags: BTreeSet<String>,
    metrics: Vec<Metric>,
}

impl Model {
    fn new(setup: Setup, on: [bool; RULES.len()]) -> Self {
        let metrics = setup.metrics.iter().map(|&(name, tag)| Metric { name, tag, choice: None });
        Self {
            on,
            default_level: "info".into(),
            levels: setup.logs.iter().map(|name| (*name, "info".into())).collect(),
            all: true,
            tags: BTreeSet::new(),
            metrics: metrics.collect(),
        }
    }

    fn replies(mut self, sent: &[&str]) -> Replies {
        sent.iter().map(|bytes| (!bytes.is_empty()).then(|| self.connection(bytes))).collect()
    }

    fn connection(&mut self, bytes: &str) -> String {
        if !self.on[NEWLINE] {
            return self.reply(bytes).0;
        }
        let mut out = String::new();
        for (n, piece) in bytes.split_inclusive('\n').enumerate() {
            let command = piece.strip_suffix('\n').unwrap_or(piece);
            let command = command.strip_suffix('\r').unwrap_or(command);
            let too_many = n == MAX_COMMANDS;
            let (reply, too_long) = match too_many {
                true => (format!("error: more than {MAX_COMMANDS} commands on one connection"), false),
                false if piece.len() > MAX_COMMAND_BYTES => self.reply(piece),
                false => self.reply(command),
            };
            out.push_str(&reply);
            if too_long {
                break;
            }
            if piece.ends_with('\n') {
                out.push('\n');
            }
            if too_many {
                break;
            }
        }
        out
    }

    /// The reply, and whether the command was refused for its length.
    fn reply(&mut self, command: &str) -> (String, bool) {
        if self.on[LENGTH] && command.len() > MAX_COMMAND_BYTES {
            return (format!("error: command is longer than {MAX_COMMAND_BYTES} bytes"), true);
        }
        let mut chars = command.chars();
        let done = match chars.next() {
            Some('l') => self.show_logs(chars.as_str()),
            Some('m') => self.show_metrics(chars.as_str()),
            Some('L') => self.set_logs(chars.as_str()),
            Some('M') => self.set_metrics(chars.as_str()),
            _ if self.on[HELP_COMMAND] && matches!(command, "h" | "help") => Ok(HELP.into()),
            _ => Err("unknown command".into()),
        };
        (done.unwrap_or_else(|error| format!("error: {error}")), false)
    }

    fn show_logs(&self, query: &str) -> Result<String, String> {
        let states = self.levels.iter().map(|(name, level)| (*name, level.as_str()));
        show(query, &self.default_level, &[], states.rev())
    }

    fn show_metrics(&self, query: &str) -> Result<String, String> {
        let word = |on| if on { "enabled" } else { "disabled" };
        let states = self.metrics.iter().map(|metric| {
            let by_tag = self.tags.contains(metric.tag);
            (metric.name, word(metric.choice.unwrap_or(self.all || by_tag)))
        });
        let tags: Vec<String> = self.tags.iter().map(|tag| format!("tag:{tag}:enabled")).collect();
        show(query, word(self.all), &tags, states.rev())
    }

    fn set_logs(&mut self, text: &str) -> Result<String, String> {
        let mut default = None;
        let mut named = Vec::new();
        for item in text.split(',') {
            let parts: Vec<&str> = item.split(':').collect();
            let (source, word) = match parts[..] {
                [word] | ["*", word] => (None, word),
                [source, word] => (Some(source), word),
                _ => return Err(format!("Can't parse log threshold: {item}")),
            };
            let known = |word: &str| ["quiet", "app", "error", "warning", "info", "debug"].contains(&word);
            let (level, _) = self.limited(word, known)?;
            if !known(level) {
                return Err(format!("{}: unknown log level", literal(word)));
            }
            match source {
                None => default = Some(level),
                Some(source) => named.push((source, level)),
            }
        }
        self.refuse_unknown(named.iter().map(|(source, _)| *source), |name| {
            self.levels.iter().any(|l| l.0 == name)
        })?;
        if default.is_some() || !self.on[NO_RESET] {
            self.default_level = default.map_or_else(|| self.default_level.clone(), str::to_owned);
            self.levels.iter_mut().for_each(|(_, level)| level.clone_from(&self.default_level));
        }
        self.in_order(&mut named);
        let most = self.same_named();
        for (source, level) in named {
            let of_name = self.levels.iter_mut().rev().filter(|(name, _)| *name == source);
            of_name.take(most).for_each(|(_, l)| *l = level.to_owned());
        }
        Ok("ok".into())
    }

    fn set_metrics(&mut self, text: &str) -> Result<String, String> {
        let (mut all, mut tags, mut named) = (None, Vec::new(), Vec::new());
        for item in text.split(',') {
            let parts: Vec<&str> = item.split(':').collect();
            let (kind, name, word) = match parts[..] {
                [word] | ["*", word] => ("*", "", word),
                [source, word] => ("src", source, word),
                [kind @ ("src" | "tag"), name, word] => (kind, name, word),
                _ => return Err(format!("couldn't decode metrics {item}")),
            };
            let (switch, limited) = self.limited(word, |word| on_off(word).is_some())?;
            let Some(switch) = on_off(switch) else {
                return Err(format!("couldn't decode 'enable' or 'disable': {}", word.to_ascii_lowercase()));
            };
            match kind {
                "src" => named.push((name, switch)),
                _ if limited => return Err(format!("only a source can have a time limit: {item}")),
                "tag" => tags.push((name, switch)),
                _ => all = Some(switch),
            }
        }
        self.refuse_unknown(named.iter().map(|(name, _)| *name), |name| {
            self.metrics.iter().any(|m| m.name == name)
        })?;
        if let Some(all) = all {
            self.all = all;
            if !all {
                self.tags.clear();
            }
            self.metrics.iter_mut().for_each(|metric| metric.choice = None);
        }
        self.in_order(&mut tags);
        for (tag, switch) in tags {
            if switch {
                self.tags.insert(tag.to_owned());
            } else {
                self.tags.remove(tag);
            }
            if !self.on[CHOICES] {
                self.metrics.iter_mut().for_each(|metric| metric.choice = None);
            }
        }
        self.in_order(&mut named);
        let most = self.same_named();
        for (name, switch) in named {
            let of_name = self.metrics.iter_mut().rev().filter(|metric| metric.name == name);
            of_name.take(most).for_each(|metric| metric.choice = Some(switch));
        }
        Ok("ok".into())
    }

    /// A word without its time limit, and whether it had one.
    fn limited<'a>(&self, word: &'a str, known: impl Fn(&str) -> bool) -> Result<(&'a str, bool), String> {
        match word.split_once('@') {
            Some((before, time)) if self.on[LIMIT] && known(before) => {
                if is_time(time) {
                    Ok((before, true))
                } else {
                    Err(format!("'{time}' is no time limit; write 1s to 24h, as 30s, 10m or 1h"))
                }
            }
            _ => Ok((word, false)),
        }
    }

    fn refuse_unknown<'a>(
        &self,
        mut named: impl Iterator<Item = &'a str>,
        exists: impl Fn(&str) -> bool,
    ) -> Result<(), String> {
        match named.find(|name| self.on[UNKNOWN] && !exists(name)) {
            Some(name) => Err(format!("unknown source: {name}")),
            None => Ok(()),
        }
    }

    /// The items of one kind in the order of their execution.
    fn in_order<T>(&self, items: &mut [T]) {
        if !self.on[LAST] {
            items.reverse();
        }
    }

    /// How many sources of a name are changed, the newest first.
    const fn same_named(&self) -> usize {
        if self.on[ALL_OF_NAME] { usize::MAX } else { 1 }
    }
}

/// Answers a query about sources, the newest first.
fn show<'a>(
    query: &str,
    default: &str,
    tags: &[String],
    states: impl Iterator<Item = (&'a str, &'a str)> + Clone,
) -> Result<String, String> {
    let item = |(name, state): (&str, &str)| format!("{name}:{state}");
    let items: Vec<String> = match query {
        "" => [item(("*", default))].into_iter().chain(states.filter(|s| s.1 != default).map(item)).collect(),
        "*" => {
            [item(("*", default))].into_iter().chain(tags.iter().cloned()).chain(states.map(item)).collect()
        }
        names => {
            let names: Vec<&str> = names.split(',').collect();
            if let Some(unknown) = names.iter().find(|name| !states.clone().any(|s| s.0 == **name)) {
                return Err(format!("unknown source: {unknown}"));
            }
            states.filter(|s| names.contains(&s.0)).map(item).collect()
        }
    };
    Ok(format!("ok: {}", items.join(",")))
}

fn on_off(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "enable" | "on" => Some(true),
        "disable" | "off" => Some(false),
        _ => None,
    }
}

/// One second to one day.
fn is_time(text: &str) -> bool {
    let Some(unit) = text.chars().last().and_then(|unit| "smh".find(unit)) else { return false };
    let digits = &text[..text.len() - 1];
    let number: Option<u64> =
        if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None };
    number
        .and_then(|n| n.checked_mul([1, 60, 3600][unit]))
        .is_some_and(|seconds| (1..=86_400).contains(&seconds))
}

/// A string literal of OCaml.
fn literal(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'"' => "\\\"".into(),
        b'\\' => "\\\\".into(),
        b'\n' => "\\n".into(),
        b'\t' => "\\t".into(),
        b'\r' => "\\r".into(),
        8 => "\\b".into(),
        b' '..=b'~' => char::from(byte).to_string(),
        _ => format!("\\{byte:03}"),
    };
    format!("\"{}\"", text.bytes().map(escape).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uni's answers, which must be those documented, and the rules that cover the conversation.
    fn covered(setup: &str, sent: &[&str]) -> (Vec<&'static str>, Vec<String>) {
        let setup = Setup::named(setup).expect("A or B");
        let Explanation { original, documented, covering } = explain(setup, sent);
        let ours = replay(setup, sent);
        assert_eq!(ours, documented, "{sent:?}");
        assert_eq!(original == documented, covering.is_empty(), "{sent:?}");
        (covering.iter().map(|rule| rule.name).collect(), ours.into_iter().flatten().collect())
    }

    #[test]
    fn the_model_with_all_rules_off_is_the_original() {
        let cases = include_str!("../../../crates/uni-wire/tests/data/control-cases.jsonl");
        for case in cases.lines().map(|line| serde_json::from_str::<Json>(line).expect("json")) {
            let sent: Vec<&str> =
                list(&case, "send").expect("list").iter().filter_map(Json::as_str).collect();
            let replies = list(&case, "reply").expect("list");
            let recorded: Replies = replies.iter().map(|reply| reply.as_str().map(str::to_owned)).collect();
            let setup = Setup::named(text(&case, "setup").expect("setup")).expect("A or B");
            assert_eq!(Model::new(setup, [false; RULES.len()]).replies(&sent), recorded, "{sent:?}");
        }
    }

    #[test]
    fn what_no_recorded_case_shows() {
        let (rules, replies) = covered("A", &["Ldns:debug@10m", "l", "Mgc:off@1h", "m"]);
        assert_eq!(rules, ["time limit"]);
        assert_eq!(replies, ["ok", "ok: *:info,dns:debug", "ok", "ok: *:enabled,gc:disabled"]);
        let (rules, replies) = covered("A", &["Ldns:debug@x", "Mtag:http:on@1m", "Lloud@10m"]);
        assert_eq!(rules, ["time limit"]);
        assert_eq!(
            replies,
            [
                "error: 'x' is no time limit; write 1s to 24h, as 30s, 10m or 1h",
                "error: only a source can have a time limit: tag:http:on@1m",
                "error: \"loud@10m\": unknown log level",
            ]
        );
        assert_eq!(covered("A", &["help"]), (vec!["help"], vec![HELP.to_owned()]));
        assert_eq!(covered("A", &["hello"]).0, [""; 0]);
        let long = "l".repeat(4097);
        assert_eq!(covered("A", &[&long]).0, ["length"]);
        let too_long = "error: command is longer than 4096 bytes";
        for end in ["", "\n"] {
            let (_, replies) = covered("A", &[&format!("l\n{}{end}", "m".repeat(4096 + 1 - end.len()))]);
            assert_eq!(replies, [format!("ok: *:info\n{too_long}")]);
        }
        let (_, replies) = covered("A", &[&"l\n".repeat(66)]);
        assert!(replies[0].ends_with("\nerror: more than 64 commands on one connection\n"));
        assert_eq!(covered("A", &["l\r"]).0, ["newline"]);
        assert_eq!(
            covered("A", &["Mtag:http:off,tag:http:on", "M*:off,tag:http:off,tag:http:on", "m"]).0,
            ["last mention"]
        );
    }

    #[test]
    fn rules_join() {
        let (rules, replies) = covered("B", &["Lnosuch:debug\nLdns:debug,dns:error\n", "l"]);
        assert_eq!(rules, ["newline", "unknown source", "last mention", "all of a name"]);
        assert_eq!(replies, ["error: unknown source: nosuch\nok\n", "ok: *:info,dns:error,dns:error"]);
    }

    proptest::proptest! {
        /// Whatever is sent, Uni gives the documented answer.
        #[test]
        fn documentation_and_code_agree(
            second in proptest::prelude::any::<bool>(),
            sent in proptest::collection::vec(
                "([LM](\\*:|dns:|tcpip:|x:|memory:|net-solo5:|src:gc:|tag:http:|tag:x:)?(info|debug|on|Off|@|on@1m|info@9h|error@0s)?(,(\\*:|dns:|memory:|net-solo5:|tag:http:)?(quiet|disable|enable|app|on@2s))?|[lm](\\*|dns|gc|dns,tcpip)?|h|T x|)(\n|\r\n)?([lm]\\*?\n?)?",
                1..6,
            ),
        ) {
            let sent: Vec<&str> = sent.iter().map(String::as_str).collect();
            covered(if second { "B" } else { "A" }, &sent);
        }
    }
}
