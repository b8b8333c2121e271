//! Conformance: recorded cases of the programs Uni replaces, replayed through Uni's own code.
//!
//! Owns reading a file of cases, judging and counting them. A case passes if the answers are the same byte for byte. It
//! is apart if Uni differs on purpose: a [`Rule`] covers the input, a model of the original explains the recorded
//! answer, and Uni gives the answer that the documented rules lead to. All else is failed.

mod boxes;
mod control;
mod influx_write;
mod line;
mod memtrace;
mod recorded;
mod syslog;

use std::fmt;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value as Json;

/// A wire whose recorded cases can be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Wire {
    /// Lines as MirageOS's metrics-influx writes them
    Line,
    /// Conversations on the control port of mirage-monitoring
    Control,
    /// Messages as MirageOS's logs-syslog writes them
    Syslog,
    /// Heap traces of OCaml's memtrace library: a folder of NAME.ctf with NAME.txt and perhaps NAME.script
    Memtrace,
    /// Requests to InfluxDB's `/write` and what they stored; asks the built daemon
    InfluxWrite,
}

/// A deliberate difference: when it applies is for the wire's model to say.
#[derive(Debug)]
struct Rule {
    name: &'static str,
    /// What is different, and why.
    reason: &'static str,
}

/// What became of one case.
#[derive(Debug)]
enum Verdict {
    Passed,
    /// Differs on purpose, by these rules.
    Apart(Vec<&'static Rule>),
    /// Says what was expected and what came.
    Failed(String),
}

/// How the cases of a file fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: usize,
    failed: usize,
    apart: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} apart", self.passed, self.failed, self.apart)
    }
}

/// Replays the cases of `file` and prints what is not simply right, the counts last. Returns whether no case failed.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn run(wire: Wire, file: &Path) -> anyhow::Result<bool> {
    if wire == Wire::Memtrace {
        let tally = memtrace::replay(file, |name, why| println!("{name}: failed: {why}"))?;
        println!("{tally}");
        return Ok(tally.failed == 0);
    }
    let bytes = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let mut session = if wire == Wire::InfluxWrite { Some(influx_write::Session::start()?) } else { None };
    let judge = |case: &Json| match &mut session {
        Some(session) => session.judge(case),
        None => judge(wire, case),
    };
    let tally = replay(&bytes, judge, |number, verdict| match verdict {
        Verdict::Passed => {}
        Verdict::Apart(rules) => {
            let names: Vec<_> = rules.iter().map(|rule| rule.name).collect();
            println!("line {number}: apart: {}", names.join(", "));
        }
        Verdict::Failed(why) => println!("line {number}: failed: {why}"),
    });
    if tally.apart > 0 {
        println!("deliberate differences:");
        rules(wire).iter().for_each(|rule| println!("  {}: {}", rule.name, rule.reason));
    }
    println!("{tally}");
    Ok(tally.failed == 0)
}

/// Has the cases in `bytes`, one a line, judged, and tells `each` of line number and verdict.
fn replay(
    bytes: &[u8],
    mut judge: impl FnMut(&Json) -> anyhow::Result<Verdict>,
    mut each: impl FnMut(usize, &Verdict),
) -> Tally {
    let mut tally = Tally::default();
    let lines = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let lines = lines.split(|byte| *byte == b'\n').take(if bytes.is_empty() { 0 } else { usize::MAX });
    for (n, line) in lines.enumerate() {
        let case = serde_json::from_slice(line).map_err(anyhow::Error::new);
        let verdict = case
            .and_then(|case| judge(&case))
            .unwrap_or_else(|error| Verdict::Failed(format!("unreadable case: {error:#}")));
        match verdict {
            Verdict::Passed => tally.passed += 1,
            Verdict::Apart(_) => tally.apart += 1,
            Verdict::Failed(_) => tally.failed += 1,
        }
        each(n + 1, &verdict);
    }
    tally
}

/// Judges a case that needs no daemon.
fn judge(wire: Wire, case: &Json) -> anyhow::Result<Verdict> {
    match wire {
        Wire::Line => line::judge(case),
        Wire::Control => control::judge(case),
        Wire::Syslog => syslog::judge(case),
        Wire::Memtrace | Wire::InfluxWrite => anyhow::bail!("cases of {wire:?} are judged together"),
    }
}

fn rules(wire: Wire) -> &'static [Rule] {
    match wire {
        Wire::Line | Wire::Memtrace => &[],
        Wire::Control => &control::RULES,
        Wire::Syslog => &syslog::RULES,
        Wire::InfluxWrite => &influx_write::RULES,
    }
}

/// What the models say of one input.
#[derive(Debug)]
struct Explanation<T> {
    /// The original's answer.
    original: T,
    /// The answer that the rules lead to.
    documented: T,
    /// The rules that make the difference.
    covering: Vec<&'static Rule>,
}

/// Weighs Uni's answer. `same`: it is the recorded one. `explained`: the original's answer is.
fn weigh<T: PartialEq + fmt::Debug>(
    ours: &T,
    same: bool,
    explained: bool,
    models: Explanation<T>,
) -> Verdict {
    let Explanation { original, documented, covering } = models;
    if covering.is_empty() {
        return if same {
            Verdict::Passed
        } else {
            Verdict::Failed(format!("no rule makes a difference, and the answer is {ours:?}"))
        };
    }
    if !explained {
        Verdict::Failed(format!("the recorded answer is not the original's, which is {original:?}"))
    } else if same {
        let names: Vec<_> = covering.iter().map(|rule| rule.name).collect();
        Verdict::Failed(format!("covered by {names:?} and not different"))
    } else if *ours != documented {
        Verdict::Failed(format!("documented is {documented:?}, the answer is {ours:?}"))
    } else {
        Verdict::Apart(covering)
    }
}

/// A text of the case.
fn text<'a>(case: &'a Json, key: &str) -> anyhow::Result<&'a str> {
    case.get(key).and_then(Json::as_str).with_context(|| format!("{key:?} is not a string"))
}

/// A list of the case.
fn list<'a>(case: &'a Json, key: &str) -> anyhow::Result<&'a [Json]> {
    Ok(case.get(key).and_then(Json::as_array).with_context(|| format!("{key:?} is not a list"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(name: &str) -> Vec<u8> {
        let path = black_box::workspace().join("crates/uni-wire/tests/data").join(name);
        std::fs::read(&path).expect("recorded cases")
    }

    fn replay_all(wire: Wire, name: &str) -> Tally {
        replay(
            &data(name),
            |case| judge(wire, case),
            |number, verdict| {
                assert!(!matches!(verdict, Verdict::Failed(_)), "{name}:{number}: {verdict:?}");
            },
        )
    }

    #[test]
    fn lines_are_mirages_byte_for_byte() {
        let tally = replay_all(Wire::Line, "line-protocol-cases.jsonl");
        assert_eq!(tally.to_string(), "82 passed, 0 failed, 0 apart");
    }

    #[test]
    fn control_replies_are_mirages_or_differ_as_documented() {
        let tally = replay_all(Wire::Control, "control-cases.jsonl");
        assert_eq!(tally.to_string(), "71 passed, 0 failed, 21 apart");
    }

    #[test]
    fn syslog_messages_are_mirages_or_differ_as_documented() {
        let tally = replay_all(Wire::Syslog, "syslog-cases.jsonl");
        assert_eq!(tally.to_string(), "35 passed, 0 failed, 3 apart");
    }

    #[test]
    fn heap_traces_are_read_and_written_as_by_the_original() {
        let folder = black_box::workspace().join("crates/uni-wire/tests/data/memtrace");
        let tally = memtrace::replay(&folder, |name, why| panic!("{name}: {why}")).expect("recorded traces");
        assert_eq!(tally.to_string(), "9 passed, 0 failed, 0 apart");
    }

    #[test]
    fn every_rule_has_a_recorded_case_or_a_test_of_its_own() {
        let mut seen = Vec::new();
        for (wire, name) in [(Wire::Control, "control-cases.jsonl"), (Wire::Syslog, "syslog-cases.jsonl")] {
            replay(
                &data(name),
                |case| judge(wire, case),
                |_, verdict| {
                    if let Verdict::Apart(rules) = verdict {
                        seen.extend(rules.iter().map(|rule| rule.name));
                    }
                },
            );
        }
        let unseen: Vec<_> = [Wire::Control, Wire::Syslog]
            .into_iter()
            .flat_map(rules)
            .map(|rule| rule.name)
            .filter(|name| !seen.contains(name))
            .collect();
        // tested in `control::tests` and `syslog::tests`
        assert_eq!(
            unseen,
            ["time limit", "help", "length", "sampling", "tags on", "line breaks", "whole characters"]
        );
    }

    #[test]
    fn every_line_is_a_case_and_an_unreadable_one_has_failed() {
        let mut failed = Vec::new();
        let tally = replay(
            b"{\"name\": 1}\n\nx\n",
            |case| judge(Wire::Line, case),
            |number, verdict| {
                if let Verdict::Failed(why) = verdict {
                    failed.push((number, why.contains("unreadable")));
                }
            },
        );
        assert_eq!(tally, Tally { failed: 3, ..Tally::default() });
        assert_eq!(failed, [(1, true), (2, true), (3, true)]);
        assert_eq!(replay(b"", |case| judge(Wire::Line, case), |_, _| {}), Tally::default());
    }

    #[test]
    fn a_wrong_recorded_answer_fails() {
        let good = data("control-cases.jsonl");
        let bad =
            String::from_utf8(good).expect("text").replace("\"ok\"", "\"okay\"").replace("ok: ", "yes: ");
        let tally = replay(bad.as_bytes(), |case| judge(Wire::Control, case), |_, _| {});
        assert!(tally.failed > 50, "{tally}");
    }
}
