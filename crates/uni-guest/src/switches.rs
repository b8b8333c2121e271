//! Which sources are on.
//!
//! Owns the algebra of the three words one can say: all, a tag, a source. A source is on if a choice was made for its
//! name, else if all are on, else if one of its tag keys is on. The same for sources that were declared and those
//! made at run time; it knows neither.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};

use uni_wire::control::Switch;

use crate::timeline::{Settings, Subject};

/// Tag keys that commands may have turned on at one time, whether a source has them or not.
pub const MAX_TAGS_ON: usize = 256;

/// What was said so far. At first all are on.
#[derive(Clone, Debug)]
pub(crate) struct Switches {
    all: Switch,
    tags: BTreeSet<Box<str>>,
    choices: BTreeMap<Box<str>, Switch>,
}

impl Switches {
    pub(crate) const fn new() -> Self {
        Self { all: Switch::On, tags: BTreeSet::new(), choices: BTreeMap::new() }
    }

    pub(crate) const fn all(&self) -> Switch {
        self.all
    }

    pub(crate) fn tags(&self) -> impl Iterator<Item = &str> {
        self.tags.iter().map(|tag| &**tag)
    }

    /// Whether more tag keys are on than may be.
    pub(crate) fn has_too_many_tags(&self) -> bool {
        self.tags.len() > MAX_TAGS_ON
    }

    pub(crate) fn state<'t>(&self, name: &str, mut tags: impl Iterator<Item = (&'t str, &'t str)>) -> Switch {
        let mut by_default = || {
            let on = self.all == Switch::On || tags.any(|(key, _)| self.tags.contains(key));
            if on { Switch::On } else { Switch::Off }
        };
        self.choices.get(name).copied().unwrap_or_else(&mut by_default)
    }
}

impl Settings for Switches {
    type Value = Switch;

    /// All undoes every choice made for a source; all off turns tags off too. A tag leaves choices alone.
    fn apply(&mut self, subject: &Subject, switch: Switch) {
        match (subject, switch) {
            (Subject::All, _) => {
                self.all = switch;
                self.choices.clear();
                if switch == Switch::Off {
                    self.tags.clear();
                }
            }
            (Subject::Tag(tag), Switch::On) => drop(self.tags.insert(tag.clone())),
            (Subject::Tag(tag), Switch::Off) => drop(self.tags.remove(tag)),
            (Subject::Source(name), _) => drop(self.choices.insert(name.clone(), switch)),
        }
    }

    fn covers((later, switch): (&Subject, Switch), (earlier, was): (&Subject, Switch)) -> bool {
        match (later, earlier) {
            (Subject::All, Subject::Source(_)) => true,
            (Subject::All, Subject::All) => switch == Switch::Off || was == Switch::On,
            (Subject::All, Subject::Tag(_)) => switch == Switch::Off,
            _ => later == earlier,
        }
    }
}
