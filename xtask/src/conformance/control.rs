//! Recorded conversations on the control port against Uni's control session.
//!
//! Owns the meaning of a case (`setup`, what is `send` over successive connections, each `reply`), and a model of the
//! original written from the description of its behaviour, in which each deliberate difference is a switch. With all
//! of them off it answers as `mirage-monitoring` 0.0.7 does, with all of them on as Uni documents; a rule covers a
//! conversation if switching it on changes an answer.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use serde_json::Value as Json;
use uni_guest::metrics::MAX_TAGS_ON;
use uni_guest::{
    Control, ControlProgress, ControlSession, Controlled, Log, Logs, MAX_CHANGES_KEPT, Periodic, Registry,
};
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
const SAMPLING: usize = 9;
const TAGS_ON: usize = 10;

/// The deliberate differences, by the numbers above.
pub(super) static RULES: [Rule; 11] = [
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
    Rule {
        name: "sampling",
        reason: "`s` shows how heap traces are sampled, `S1e-3` sets it; there no such commands",
    },
    Rule {
        name: "tags on",
        reason: "a command that leaves more than 256 tags on is refused; there they have no limit",
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

/// Seconds from one connection to the next. So many commands as a connection takes may come in that time, so that no
/// recorded conversation is too fast.
const PAUSE_SECONDS: u64 = 1;

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
    /// Names, and the tag key of those that have one.
    metrics: &'static [(&'static str, Option<&'static str>)],
}

impl Setup {
    fn named(name: &str) -> anyhow::Result<Self> {
        Ok(match name {
            "A" => Self {
                logs: &["application", "mirage-monitoring", "tcpip", "dns"],
                metrics: &[
                    ("memory", None),
                    ("tcp", None),
                    ("net-solo5", Some("ifname")),
                    ("http_response", Some("http")),
                    ("gc", None),
                    ("logs", None),
                ],
            },
            "B" => Self {
                logs: &["application", "mirage-monitoring", "tcpip", "dns", "dns"],
                metrics: &[
                    ("memory", None),
                    ("tcp", None),
                    ("net-solo5", Some("ifname")),
                    ("net-solo5", Some("ifname")),
                    ("http_response", Some("http")),
                    ("gc", None),
                    ("logs", None),
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
        registry.register(match tag {
            Some(tag) => source.tag(tag, "x"),
            None => source,
        });
    }
    sent.iter()
        .zip((0..).step_by(1_000_000_000 * PAUSE_SECONDS as usize))
        .map(|(bytes, now_ns)| {
            control.handle_time(&mut registry, &logs, &ends[0], now_ns);
            let (mut session, mut reply) = (ControlSession::new(), String::new());
            let mut on = Controlled {
                control: &mut control,
                registry: &mut registry,
                logs: &logs,
                log: &ends[0],
                now_ns,
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
#[derive(Clone)]
struct Metric {
    name: &'static str,
    tag: Option<&'static str>,
    choice: Option<bool>,
}

/// What a command changes, one thing after the other.
#[derive(Clone, Debug, PartialEq)]
enum Subject {
    All,
    Tag(String),
    Source(String),
}

/// The settings of the model.
#[derive(Clone)]
struct State {
    default_level: String,
    /// In the order of creation, as the metrics.
    levels: Vec<(&'static str, String)>,
    all: bool,
    tags: BTreeSet<String>,
    metrics: Vec<Metric>,
}

impl State {
    fn new(setup: Setup) -> Self {
        let metrics = setup.metrics.iter().map(|&(name, tag)| Metric { name, tag, choice: None });
        Self {
            default_level: "info".into(),
            levels: setup.logs.iter().map(|name| (*name, "info".into())).collect(),
            all: true,
            tags: BTreeSet::new(),
            metrics: metrics.collect(),
        }
    }

    fn set_level(&mut self, subject: &Subject, level: &str, same_named: usize) {
        match subject {
            Subject::Source(source) => {
                let of_name = self.levels.iter_mut().rev().filter(|(name, _)| name == source);
                of_name.take(same_named).for_each(|(_, l)| *l = level.to_owned());
            }
            _ => {
                level.clone_into(&mut self.default_level);
                self.levels.iter_mut().for_each(|(_, l)| level.clone_into(l));
            }
        }
    }

    fn set_metric(&mut self, subject: &Subject, on: bool, rules: &[bool; RULES.len()]) {
        let forget = |metrics: &mut Vec<Metric>| metrics.iter_mut().for_each(|metric| metric.choice = None);
        match subject {
            Subject::All => {
                self.all = on;
                if !on {
                    self.tags.clear();
                }
                forget(&mut self.metrics);
            }
            Subject::Tag(tag) => {
                if on {
                    self.tags.insert(tag.clone());
                } else {
                    self.tags.remove(tag);
                }
                if !rules[CHOICES] {
                    forget(&mut self.metrics);
                }
            }
            Subject::Source(name) => {
                let most = same_named(rules);
                let of_name = self.metrics.iter_mut().rev().filter(|metric| metric.name == name);
                of_name.take(most).for_each(|metric| metric.choice = Some(on));
            }
        }
    }
}

/// How many sources of a name are changed, the newest first.
const fn same_named(rules: &[bool; RULES.len()]) -> usize {
    if rules[ALL_OF_NAME] { usize::MAX } else { 1 }
}

/// A change, and the second in which it is over if it ends.
#[derive(Clone)]
struct Said<V> {
    subject: Subject,
    value: V,
    until: Option<u64>,
}

/// How many changes have to be kept: those with an end, and what was said after the first of them; none of which a later
/// one leaves nothing.
fn kept<V: Copy>(said: &[Said<V>], is_reset: impl Fn(V) -> bool) -> usize {
    let outlasts = |later: &Said<V>, earlier: &Said<V>| match (later.until, earlier.until) {
        (None, _) => true,
        (Some(later), earlier) => earlier.is_some_and(|earlier| later >= earlier),
    };
    let covers = |later: &Said<V>, earlier: &Said<V>| {
        let of_all = match &earlier.subject {
            Subject::Source(_) => true,
            Subject::All => is_reset(later.value) || !is_reset(earlier.value),
            Subject::Tag(_) => is_reset(later.value),
        };
        let same = later.subject == earlier.subject && later.subject != Subject::All;
        outlasts(later, earlier) && (same || later.subject == Subject::All && of_all)
    };
    let left: Vec<_> =
        (0..said.len()).filter(|&n| !said[n + 1..].iter().any(|later| covers(later, &said[n]))).collect();
    left.iter().skip_while(|&&n| said[n].until.is_none()).count()
}

struct Model {
    on: [bool; RULES.len()],
    setup: Setup,
    now: u64,
    state: State,
    levels: Vec<Said<&'static str>>,
    switches: Vec<Said<bool>>,
    sampling: f64,
}

const LEVELS: [&str; 6] = ["quiet", "app", "error", "warning", "info", "debug"];

impl Model {
    fn new(setup: Setup, on: [bool; RULES.len()]) -> Self {
        let state = State::new(setup);
        Self { on, setup, now: 0, state, levels: Vec::new(), switches: Vec::new(), sampling: 1e-4 }
    }

    fn replies(mut self, sent: &[&str]) -> Replies {
        let reply = |bytes: &&str| {
            let reply = (!bytes.is_empty()).then(|| self.connection(bytes));
            self.now += PAUSE_SECONDS;
            self.forget_what_is_over();
            reply
        };
        sent.iter().map(reply).collect()
    }

    /// All is as if it had never been said.
    fn forget_what_is_over(&mut self) {
        let now = self.now;
        let before = self.levels.len() + self.switches.len();
        self.levels.retain(|said| said.until.is_none_or(|until| until > now));
        self.switches.retain(|said| said.until.is_none_or(|until| until > now));
        if self.levels.len() + self.switches.len() < before {
            self.state = State::new(self.setup);
            let most = same_named(&self.on);
            self.levels.iter().for_each(|said| self.state.set_level(&said.subject, said.value, most));
            self.switches.iter().for_each(|s| self.state.set_metric(&s.subject, s.value, &self.on));
        }
    }

    fn connection(&mut self, bytes: &str) -> String {
        if !self.on[NEWLINE] {
            return self.reply(bytes).0;
        }
        let mut out = String::new();
        for (n, piece) in bytes.split_inclusive('\n').enumerate() {
            let line = piece.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
            let command = line.unwrap_or(piece);
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
            Some('s') if self.on[SAMPLING] && command == "s" => {
                Ok(format!("ok: rate:{},state:idle,traces:0,events:0,dropped_events:0", self.sampling))
            }
            Some('S') if self.on[SAMPLING] => self.set_sampling(chars.as_str()),
            _ if self.on[HELP_COMMAND] && matches!(command, "h" | "help") => Ok(HELP.into()),
            _ => Err("unknown command".into()),
        };
        (done.unwrap_or_else(|error| format!("error: {error}")), false)
    }

    fn set_sampling(&mut self, text: &str) -> Result<String, String> {
        let text = text.strip_prefix(' ').unwrap_or(text);
        let rate = text.parse().ok().filter(|rate| (f64::from_bits(1)..=1.0).contains(rate));
        self.sampling = rate.ok_or_else(|| {
            format!("'{text}' is no sampling rate; write a number above 0 and at most 1, as 1e-3")
        })?;
        Ok("ok".into())
    }

    fn show_logs(&self, query: &str) -> Result<String, String> {
        let states = self.state.levels.iter().map(|(name, level)| (*name, level.as_str()));
        show(query, &self.state.default_level, &[], states.rev())
    }

    fn show_metrics(&self, query: &str) -> Result<String, String> {
        let word = |on| if on { "enabled" } else { "disabled" };
        let State { all, tags, metrics, .. } = &self.state;
        let states = metrics.iter().map(|metric| {
            let by_tag = metric.tag.is_some_and(|tag| tags.contains(tag));
            (metric.name, word(metric.choice.unwrap_or(*all || by_tag)))
        });
        let tags: Vec<String> = tags.iter().map(|tag| format!("tag:{tag}:enabled")).collect();
        show(query, word(*all), &tags, states.rev())
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
            let (level, until) = self.limited(word, |word| LEVELS.contains(&word))?;
            let level = LEVELS.into_iter().find(|known| *known == level);
            let value = level.ok_or_else(|| format!("{}: unknown log level", literal(word)))?;
            match source {
                None => default = Some(Said { subject: Subject::All, value, until }),
                Some(source) => named.push(Said { subject: Subject::Source(source.into()), value, until }),
            }
        }
        self.refuse_unknown(&named, |name| self.state.levels.iter().any(|l| l.0 == name))?;
        let mut next = self.levels.clone();
        if default.is_none() && !self.on[NO_RESET] {
            let value =
                LEVELS.into_iter().find(|level| **level == self.state.default_level).unwrap_or("info");
            default = Some(Said { subject: Subject::All, value, until: None });
        }
        next.extend(default);
        self.in_order(&mut named);
        next.extend(named);
        if kept(&next, |_| true) > MAX_CHANGES_KEPT {
            return Err(too_many_limits());
        }
        let most = same_named(&self.on);
        next[self.levels.len()..].iter().for_each(|s| self.state.set_level(&s.subject, s.value, most));
        self.levels = next;
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
            let (switch, until) = self.limited(word, |word| on_off(word).is_some())?;
            let Some(value) = on_off(switch) else {
                return Err(format!("couldn't decode 'enable' or 'disable': {}", word.to_ascii_lowercase()));
            };
            match kind {
                "src" => named.push(Said { subject: Subject::Source(name.into()), value, until }),
                "tag" => tags.push(Said { subject: Subject::Tag(name.into()), value, until }),
                _ => all = Some(Said { subject: Subject::All, value, until }),
            }
        }
        self.refuse_unknown(&named, |name| self.state.metrics.iter().any(|m| m.name == name))?;
        self.in_order(&mut tags);
        self.in_order(&mut named);
        let mut next = self.switches.clone();
        next.extend(all.into_iter().chain(tags).chain(named));
        let mut state = self.state.clone();
        next[self.switches.len()..].iter().for_each(|s| state.set_metric(&s.subject, s.value, &self.on));
        if self.on[TAGS_ON] && state.tags.len() > MAX_TAGS_ON {
            return Err(format!(
                "more than {MAX_TAGS_ON} tags would be on; turn some off, or all with M*:off"
            ));
        }
        if kept(&next, |on| !on) > MAX_CHANGES_KEPT {
            return Err(too_many_limits());
        }
        (self.state, self.switches) = (state, next);
        Ok("ok".into())
    }

    /// A word without its time limit, and the second in which that is over if it has one.
    fn limited<'a>(
        &self,
        word: &'a str,
        known: impl Fn(&str) -> bool,
    ) -> Result<(&'a str, Option<u64>), String> {
        match word.split_once('@') {
            Some((before, time)) if self.on[LIMIT] && known(before) => match limit_seconds(time) {
                Some(seconds) => Ok((before, Some(self.now + seconds))),
                None => Err(format!("'{time}' is no time limit; write 1s to 24h, as 30s, 10m or 1h")),
            },
            _ => Ok((word, None)),
        }
    }

    fn refuse_unknown<V>(&self, named: &[Said<V>], exists: impl Fn(&str) -> bool) -> Result<(), String> {
        let names = named.iter().filter_map(|said| match &said.subject {
            Subject::Source(name) => Some(name),
            _ => None,
        });
        match names.into_iter().find(|name| self.on[UNKNOWN] && !exists(name)) {
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
}

fn too_many_limits() -> String {
    format!(
        "more than {MAX_CHANGES_KEPT} changes would wait for the end of a time limit; wait, or change all with *"
    )
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
fn limit_seconds(text: &str) -> Option<u64> {
    let unit = text.chars().last().and_then(|unit| "smh".find(unit))?;
    let digits = Some(&text[..text.len() - 1]).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    let seconds = digits.parse::<u64>().ok()?.checked_mul([1, 60, 3600][unit])?;
    (1..=86_400).contains(&seconds).then_some(seconds)
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
                "ok",
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
        assert_eq!(covered("A", &["l\r\n"]).0, ["newline"]);
        assert_eq!(covered("A", &["l\r"]), (vec![], vec!["error: unknown source: \r".to_owned()]));
        assert_eq!(
            covered("A", &["Mtag:http:off,tag:http:on", "M*:off,tag:http:off,tag:http:on", "m"]).0,
            ["last mention"]
        );
    }

    #[test]
    fn a_time_limit_ends_between_two_connections() {
        let sent = ["Ldns:debug@2s", "Lerror@1s", "l", "l", "Moff@1s", "m", "Mtag:http:on,*:off@1s", "m*"];
        let (rules, replies) = covered("A", &sent);
        assert_eq!(rules, ["time limit"]);
        assert_eq!(replies[2..4], ["ok: *:info", "ok: *:info"]);
        assert_eq!(replies[5], "ok: *:enabled");
        assert!(replies[7].starts_with("ok: *:enabled,tag:http:enabled,"), "{replies:?}");
        let many: Vec<String> = (0..257).map(|n| format!("tag:{n}:off@9s")).collect();
        let (_, replies) = covered("A", &[&format!("M{}", many.join(","))]);
        assert_eq!(replies, [format!("error: {}", too_many_limits())]);
    }

    #[test]
    fn sampling_is_the_cases_own() {
        for _ in 0..2 {
            let (rules, replies) = covered("A", &["s", "S0.5", "s", "S 1e-3\ns\n", "S", "Sx"]);
            assert_eq!(rules, ["newline", "sampling"]);
            assert_eq!(replies[0], "ok: rate:0.0001,state:idle,traces:0,events:0,dropped_events:0");
            assert!(replies[2].starts_with("ok: rate:0.5,") && replies[3].starts_with("ok\nok: rate:0.001,"));
            assert!(replies[4].starts_with("error: '' is no sampling rate"), "{replies:?}");
        }
        assert_eq!(covered("A", &["stats", "source", "T x"]).0, [""; 0]);
    }

    #[test]
    fn tags_have_a_limit_and_an_empty_name_is_one() {
        let many = |n| format!("M{}", (0..n).map(|n| format!("tag:{n}:on")).collect::<Vec<_>>().join(","));
        assert_eq!(covered("A", &["Moff", &many(256), "m*"]).0, [""; 0]);
        let (rules, replies) = covered("A", &["Moff", &many(257), "m*"]);
        assert_eq!(rules, ["tags on"]);
        assert!(replies[2].starts_with("ok: *:disabled,logs:disabled,"), "{replies:?}");
        assert_eq!(covered("A", &["Mtag:http:on", "M*:off,*:on", "m*"]).0, [""; 0]);
        let (rules, replies) = covered("A", &["M*:disable", "Mtag::enable", "m", "l\n"]);
        assert_eq!((rules, replies[2].as_str()), (vec!["newline"], "ok: *:disabled"));
    }

    #[test]
    fn no_conversation_is_too_fast() {
        assert_eq!(covered("A", &["l"; 300]), (vec![], vec!["ok: *:info".to_owned(); 300]));
        let full = "l\n".repeat(MAX_COMMANDS);
        assert!(!covered("A", &[full.as_str(); 9]).1.concat().contains("try again later"));
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
                "([LM](\\*:|dns:|tcpip:|x:|memory:|net-solo5:|src:gc:|tag:http:|tag:x:|tag::)?(info|debug|on|Off|@|on@1m|info@9h|info@3s|off@4s|error@0s)?(,(\\*:|dns:|memory:|net-solo5:|tag:http:)?(quiet|disable|enable|app|on@2s|error@1s))?(,\\*:(on|info))?|[lm](\\*|dns|gc|dns,tcpip)?|h|s|stats|S ?(0.5|1e-3|x|2)?|T x|)(\n|\r|\r\n)?([lm]\\*?\n?)?",
                1..9,
            ),
        ) {
            let sent: Vec<&str> = sent.iter().map(String::as_str).collect();
            covered(if second { "B" } else { "A" }, &sent);
        }
    }
}
