//! Changes that last for a time only.
//!
//! Owns what is to be restored, and when. A later command about the same thing without a time limit makes its change
//! last; one with a limit moves the end, and what is restored in the end is what was before the first.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use uni_wire::control::{LogItem, LogItems, LogLevel, LogTarget, MetricItem, MetricTarget, Switch};

use crate::logs::Logs;
use crate::metrics::Registry;

/// Something a command changes for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    DefaultLevel,
    Level(Box<str>),
    Metric(Box<str>),
}

#[derive(Clone, Copy, Debug)]
enum Former {
    Level(LogLevel),
    Switch(Switch),
}

#[derive(Debug)]
struct Entry {
    place: Place,
    former: Former,
    deadline_ns: u64,
}

/// What is to be restored: at most one entry a source, so its size is bounded by theirs.
#[derive(Debug, Default)]
pub(super) struct Undo(Vec<Entry>);

impl Undo {
    /// Sets a level, for a time or for good. The source exists.
    pub(super) fn set_level(&mut self, item: LogItem<'_>, logs: &Logs, now_ns: u64) {
        match item.target {
            LogTarget::Source(name) => {
                let former = level_of(name, logs);
                self.note(Place::Level(name.into()), Former::Level(former), item.seconds, now_ns);
            }
            LogTarget::All => {
                self.note(Place::DefaultLevel, Former::Level(logs.default_level()), item.seconds, now_ns);
                logs.for_each_level(|name, level| {
                    self.note(Place::Level(name.into()), Former::Level(level), item.seconds, now_ns);
                });
            }
        }
        set_level(item.target, item.level, logs);
    }

    /// Turns metrics on or off, for a time or for good. The source exists.
    pub(super) fn set_metric(&mut self, item: MetricItem<'_>, registry: &mut Registry, now_ns: u64) {
        match item.target {
            MetricTarget::Source(name) => {
                let former =
                    registry.states().find(|(n, _)| *n == name).map_or(item.switch, |(_, state)| state);
                self.note(Place::Metric(name.into()), Former::Switch(former), item.seconds, now_ns);
            }
            // Undoes what was said about single sources, so also what was said for a time.
            MetricTarget::All => self.0.retain(|entry| !matches!(entry.place, Place::Metric(_))),
            MetricTarget::Tag(_) => {}
        }
        registry.set(item.target, item.switch);
    }

    /// When [`expire`](Self::expire) is due.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.0.iter().map(|entry| entry.deadline_ns).min()
    }

    /// Restores what is due; returns it in the words of a query's reply.
    pub(super) fn expire(&mut self, registry: &mut Registry, logs: &Logs, now_ns: u64) -> Option<String> {
        let due: Vec<Entry> = self.0.extract_if(.., |entry| entry.deadline_ns <= now_ns).collect();
        let mut said = Vec::new();
        for Entry { place, former, .. } in &due {
            match (place, former) {
                (Place::DefaultLevel, Former::Level(level)) => {
                    set_default(*level, logs);
                    said.push(format!("*:{}", level.word()));
                }
                (Place::Level(name), Former::Level(level)) => {
                    set_level(LogTarget::Source(name), *level, logs);
                    said.push(format!("{name}:{}", level.word()));
                }
                (Place::Metric(name), Former::Switch(switch)) => {
                    registry.set(MetricTarget::Source(name), *switch);
                    said.push(format!("{name}:{}", switch.word()));
                }
                _ => {}
            }
        }
        (!said.is_empty()).then(|| said.join(","))
    }

    fn note(&mut self, place: Place, former: Former, seconds: Option<u32>, now_ns: u64) {
        let known = self.0.iter().position(|entry| entry.place == place);
        let deadline_ns = seconds.map(|s| now_ns.saturating_add(u64::from(s) * 1_000_000_000));
        match (known, deadline_ns) {
            (Some(at), None) => drop(self.0.remove(at)),
            (Some(at), Some(deadline_ns)) => {
                if let Some(entry) = self.0.get_mut(at) {
                    entry.deadline_ns = deadline_ns;
                }
            }
            (None, Some(deadline_ns)) => self.0.push(Entry { place, former, deadline_ns }),
            (None, None) => {}
        }
    }
}

fn level_of(name: &str, logs: &Logs) -> LogLevel {
    let mut level = logs.default_level();
    logs.for_each_level(|n, l| {
        if n == name {
            level = l;
        }
    });
    level
}

fn set_level(target: LogTarget<'_>, level: LogLevel, logs: &Logs) {
    let name = match target {
        LogTarget::All => "*",
        LogTarget::Source(name) => name,
    };
    let text = format!("{name}:{}", level.word());
    // A source whose name is no name of the grammar cannot be meant by a command either.
    if let Ok(items) = LogItems::parse(&text) {
        let _ = logs.apply(&items);
    }
}

/// Sets the default level and leaves every source as it is.
fn set_default(level: LogLevel, logs: &Logs) {
    let mut levels = Vec::new();
    logs.for_each_level(|name, level| levels.push((name.to_string(), level)));
    set_level(LogTarget::All, level, logs);
    levels.iter().for_each(|(name, level)| set_level(LogTarget::Source(name), *level, logs));
}
