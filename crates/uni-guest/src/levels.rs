//! Which log source says how much.
//!
//! Owns the algebra of the two words one can say: all, a source. A source has the level that was chosen for its name,
//! else the default. It knows no source, so one that is made later has its level at once.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

use uni_wire::control::LogLevel;

use crate::timeline::{Settings, Subject};

/// What was said so far.
#[derive(Clone, Debug)]
pub(crate) struct Levels {
    default: LogLevel,
    choices: BTreeMap<Box<str>, LogLevel>,
}

impl Levels {
    pub(crate) const fn new(default: LogLevel) -> Self {
        Self { default, choices: BTreeMap::new() }
    }

    pub(crate) const fn default_level(&self) -> LogLevel {
        self.default
    }

    pub(crate) fn of(&self, name: &str) -> LogLevel {
        self.choices.get(name).copied().unwrap_or(self.default)
    }
}

impl Settings for Levels {
    type Value = LogLevel;

    /// All undoes every choice made for a source. There are no tags.
    fn apply(&mut self, subject: &Subject, level: LogLevel) {
        match subject {
            Subject::All => {
                self.default = level;
                self.choices.clear();
            }
            Subject::Source(name) => drop(self.choices.insert(name.clone(), level)),
            Subject::Tag(_) => {}
        }
    }

    fn covers((later, _): (&Subject, LogLevel), (earlier, _): (&Subject, LogLevel)) -> bool {
        *later == Subject::All || later == earlier
    }
}
