//! What was said about settings: for good, or for a time.
//!
//! Owns the one rule about time limits: what is in force is what was said, in the order in which it was said, without
//! that whose time is over. The end of a limit is as if the change had never been made, so limits may overlap in any
//! order, and end nothing but themselves. Knows no setting and no clock.

use alloc::boxed::Box;
use alloc::vec::Vec;

use uni_wire::control::{ControlError, LogTarget, MetricTarget};

/// Changes that are kept at one time: those with a time limit, and what was said after the first of them.
pub const MAX_CHANGES_KEPT: usize = 256;

/// What a change is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    All,
    Source(Box<str>),
    Tag(Box<str>),
}

impl From<LogTarget<'_>> for Subject {
    fn from(target: LogTarget<'_>) -> Self {
        match target {
            LogTarget::All => Self::All,
            LogTarget::Source(name) => Self::Source(name.into()),
        }
    }
}

impl From<MetricTarget<'_>> for Subject {
    fn from(target: MetricTarget<'_>) -> Self {
        match target {
            MetricTarget::All => Self::All,
            MetricTarget::Source(name) => Self::Source(name.into()),
            MetricTarget::Tag(key) => Self::Tag(key.into()),
        }
    }
}

/// Settings that can be changed one by one.
pub(crate) trait Settings: Clone {
    type Value: Copy;

    /// A change.
    fn apply(&mut self, subject: &Subject, value: Self::Value);

    /// Whether `later` leaves nothing of `earlier`, whatever was said in between.
    fn covers(later: (&Subject, Self::Value), earlier: (&Subject, Self::Value)) -> bool;
}

#[derive(Clone, Debug)]
struct Said<V> {
    subject: Subject,
    value: V,
    /// Monotonic time; `None`: for good.
    until_ns: Option<u64>,
}

impl<V: Copy> Said<V> {
    fn lasts_longer_than(&self, until_ns: Option<u64>) -> bool {
        until_ns.is_some_and(|until| self.until_ns.is_none_or(|own| own > until))
    }
}

/// See the module's page.
#[derive(Clone, Debug)]
pub(crate) struct Timeline<S: Settings> {
    /// What holds whatever ends.
    lasting: S,
    /// In the order in which it was said; the first has an end.
    said: Vec<Said<S::Value>>,
    /// All of it.
    now: S,
}

impl<S: Settings> Timeline<S> {
    pub(crate) fn new(settings: S) -> Self {
        Self { lasting: settings.clone(), said: Vec::new(), now: settings }
    }

    /// What is in force.
    pub(crate) const fn now(&self) -> &S {
        &self.now
    }

    /// Makes a change, for good or until a time.
    pub(crate) fn say(&mut self, subject: Subject, value: S::Value, until_ns: Option<u64>) {
        self.now.apply(&subject, value);
        self.said.retain(|earlier| {
            earlier.lasts_longer_than(until_ns)
                || !S::covers((&subject, value), (&earlier.subject, earlier.value))
        });
        self.said.push(Said { subject, value, until_ns });
        self.settle();
    }

    /// Takes what several changes made of this, unless it is too much.
    ///
    /// # Errors
    /// [`MAX_CHANGES_KEPT`] is reached; then nothing has changed.
    pub(crate) fn replace<'a>(&mut self, next: Self) -> Result<(), ControlError<'a>> {
        if next.said.len() > MAX_CHANGES_KEPT {
            return Err(ControlError::TooManyLimits(MAX_CHANGES_KEPT));
        }
        *self = next;
        Ok(())
    }

    /// When [`expire`](Self::expire) is due.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.said.iter().filter_map(|said| said.until_ns).min()
    }

    /// Takes back what is over; returns what it was about.
    pub(crate) fn expire(&mut self, now_ns: u64) -> Vec<Subject> {
        let is_over = |said: &mut Said<S::Value>| said.until_ns.is_some_and(|until| until <= now_ns);
        let mut over: Vec<Subject> = Vec::new();
        for said in self.said.extract_if(.., is_over) {
            if !over.contains(&said.subject) {
                over.push(said.subject);
            }
        }
        if !over.is_empty() {
            self.settle();
            self.now = self.lasting.clone();
            self.said.iter().for_each(|said| self.now.apply(&said.subject, said.value));
        }
        over
    }

    /// What nothing before it can end any more need not be kept.
    fn settle(&mut self) {
        let settled = self.said.iter().take_while(|said| said.until_ns.is_none()).count();
        for said in self.said.drain(..settled) {
            self.lasting.apply(&said.subject, said.value);
        }
    }
}

/// The monotonic time at which what is said now for `seconds` is over.
pub(crate) fn until(now_ns: u64, seconds: Option<u32>) -> Option<u64> {
    seconds.map(|seconds| now_ns.saturating_add(u64::from(seconds) * 1_000_000_000))
}
