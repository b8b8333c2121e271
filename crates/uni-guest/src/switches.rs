//! Which sources are on.
//!
//! Owns the algebra of the three words one can say: all, a tag, a source. A source is on if a choice was made for its
//! name, else if all are on, else if one of its tag keys is on. The same for sources that were declared and those
//! made at run time; it knows neither.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};

use uni_wire::control::{MetricTarget, Switch};

/// Tag keys that may be on at one time, whether a source has them or not.
pub const MAX_TAGS_ON: usize = 256;

/// What was said so far. At first all are on.
#[derive(Debug)]
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

    /// Whether no further tag key can be turned on.
    pub(crate) fn is_full(&self) -> bool {
        self.tags.len() >= MAX_TAGS_ON
    }

    /// All undoes every choice made for a source; all off turns tags off too. A tag leaves choices alone.
    pub(crate) fn set(&mut self, target: MetricTarget<'_>, switch: Switch) {
        match (target, switch) {
            (MetricTarget::All, _) => {
                self.all = switch;
                self.choices.clear();
                if switch == Switch::Off {
                    self.tags.clear();
                }
            }
            (MetricTarget::Tag(tag), Switch::On) => {
                if !self.is_full() {
                    self.tags.insert(tag.into());
                }
            }
            (MetricTarget::Tag(tag), Switch::Off) => {
                self.tags.remove(tag);
            }
            (MetricTarget::Source(name), _) => {
                self.choices.insert(name.into(), switch);
            }
        }
    }

    pub(crate) fn state<'t>(&self, name: &str, mut tags: impl Iterator<Item = (&'t str, &'t str)>) -> Switch {
        let mut by_default = || {
            let on = self.all == Switch::On || tags.any(|(key, _)| self.tags.contains(key));
            if on { Switch::On } else { Switch::Off }
        };
        self.choices.get(name).copied().unwrap_or_else(&mut by_default)
    }
}
