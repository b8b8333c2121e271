//! Metric sources and which of them are on.
//!
//! Owns the registry: name, doc, tags, and the closure that fills in the fields of each source. A source is on if a
//! choice was made for it, else if all are on, else if one of its tag keys is on. Never decides when to collect.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use uni_wire::control::{ControlError, MetricItems, MetricTarget, Switch};
use uni_wire::line::LineWriter;
use uni_wire::{Timestamp, Value};

/// Longest line one source may make, newline included.
pub const MAX_LINE_BYTES: usize = 16 * 1024;

type CollectFn = Box<dyn FnMut(&mut Fields<'_>)>;
type Tag = (Box<str>, Box<str>);

/// Something that can be measured at any time.
///
/// ```
/// use uni_guest::{Registry, Source};
/// let mut registry = Registry::new();
/// registry.register(
///     Source::new("queue", |fields| {
///         fields.count("length", 3).float("load", 0.5);
///     })
///     .doc("jobs that wait")
///     .tag("kind", "mail"),
/// );
/// ```
pub struct Source {
    name: Box<str>,
    doc: Box<str>,
    tags: Vec<Tag>,
    collect: CollectFn,
    choice: Option<Switch>,
}

impl Source {
    /// A source called `name` (the measurement) whose fields `collect` fills in at every interval.
    #[must_use]
    pub fn new(name: &str, collect: impl FnMut(&mut Fields<'_>) + 'static) -> Self {
        Self { name: name.into(), doc: "".into(), tags: Vec::new(), collect: Box::new(collect), choice: None }
    }

    /// What it measures, in a few words.
    #[must_use]
    pub fn doc(mut self, doc: &str) -> Self {
        self.doc = doc.into();
        self
    }

    /// Adds a tag to every line of the source.
    #[must_use]
    pub fn tag(mut self, key: &str, value: &str) -> Self {
        self.tags.push((key.into(), value.into()));
        self
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, doc, tags, choice, .. } = self;
        f.debug_struct("Source")
            .field("name", name)
            .field("doc", doc)
            .field("tags", tags)
            .field("choice", choice)
            .finish_non_exhaustive()
    }
}

/// Where a source puts its fields. What cannot be sent (`NaN`, an empty name) is left out.
pub struct Fields<'a> {
    line: LineWriter<'a, Scratch, LineTags<'a>>,
    overflow: bool,
}

impl Fields<'_> {
    /// A number of things, or of bytes: sent as an integer, at most 2^63 - 1, so that its type never changes.
    pub fn count(&mut self, key: &str, value: u64) -> &mut Self {
        self.integer(key, i64::try_from(value).unwrap_or(i64::MAX))
    }

    /// A signed whole number.
    pub fn integer(&mut self, key: &str, value: i64) -> &mut Self {
        self.put(key, Value::Integer(value))
    }

    /// A float; left out if not finite.
    pub fn float(&mut self, key: &str, value: f64) -> &mut Self {
        self.put(key, Value::Float(value))
    }

    /// A boolean.
    pub fn boolean(&mut self, key: &str, value: bool) -> &mut Self {
        self.put(key, Value::Boolean(value))
    }

    /// A text; newlines in it become spaces.
    pub fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.put(key, Value::String(value))
    }

    fn put(&mut self, key: &str, value: Value<'_>) -> &mut Self {
        self.overflow |= self.line.field(key, value).is_err();
        self
    }
}

impl fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fields").field("overflow", &self.overflow).finish_non_exhaustive()
    }
}

/// The tag `vm`, then those of the source.
#[derive(Clone, Debug)]
struct LineTags<'a> {
    vm: Option<&'a str>,
    rest: core::slice::Iter<'a, Tag>,
}

impl<'a> Iterator for LineTags<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        match self.vm.take() {
            Some(vm) => Some(("vm", vm)),
            None => self.rest.next().map(|(key, value)| (&**key, &**value)),
        }
    }
}

/// Room for one line, reused; a line that does not fit is refused.
#[derive(Debug, Default)]
pub(crate) struct Scratch(String);

impl fmt::Write for Scratch {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MAX_LINE_BYTES || self.0.try_reserve(text.len()).is_err() {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

/// All sources, and which are on. At first all are.
#[derive(Debug)]
pub struct Registry {
    /// In the order of creation.
    sources: Vec<Source>,
    all: Switch,
    tags: BTreeSet<Box<str>>,
    scratch: Scratch,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// An empty registry with everything on.
    #[must_use]
    pub fn new() -> Self {
        Self { sources: Vec::new(), all: Switch::On, tags: BTreeSet::new(), scratch: Scratch::default() }
    }

    /// Adds a source; it is collected from the next interval on.
    pub fn register(&mut self, source: Source) {
        self.sources.push(source);
    }

    /// Whether all sources are on that nothing else was said about.
    #[must_use]
    pub const fn all(&self) -> Switch {
        self.all
    }

    /// The tag keys that are on, sorted.
    pub fn enabled_tags(&self) -> impl Iterator<Item = &str> {
        self.tags.iter().map(|tag| &**tag)
    }

    /// Name and state of every source, the newest first.
    pub fn states(&self) -> impl Iterator<Item = (&str, Switch)> {
        self.sources.iter().rev().map(|source| (&*source.name, state(source, self.all, &self.tags)))
    }

    /// What the source `name` measures.
    #[must_use]
    pub fn doc(&self, name: &str) -> Option<&str> {
        self.sources.iter().rev().find(|s| &*s.name == name).map(|s| &*s.doc)
    }

    /// Executes an `M` command: first `*`, then tags, then sources; among equals the last counts.
    ///
    /// # Errors
    /// A source that does not exist; then nothing has changed. Tags need not exist.
    pub fn apply<'a>(&mut self, items: &MetricItems<'a>) -> Result<(), ControlError<'a>> {
        for (target, _) in items.clone() {
            if let MetricTarget::Source(name) = target
                && !self.has(name)
            {
                return Err(ControlError::UnknownSource(name));
            }
        }
        let mut items: Vec<_> = items.clone().collect();
        items.sort_by_key(|(target, _)| rank(*target));
        items.into_iter().for_each(|(target, switch)| self.set(target, switch));
        Ok(())
    }

    /// Turns a source, a tag or everything on or off. `All` undoes every choice made for a single source, and
    /// turning all off also turns all tags off.
    pub fn set(&mut self, target: MetricTarget<'_>, switch: Switch) {
        match (target, switch) {
            (MetricTarget::All, _) => self.set_all(switch),
            (MetricTarget::Tag(tag), Switch::On) => {
                self.tags.insert(tag.into());
            }
            (MetricTarget::Tag(tag), Switch::Off) => {
                self.tags.remove(tag);
            }
            (MetricTarget::Source(name), _) => {
                self.sources.iter_mut().filter(|s| &*s.name == name).for_each(|s| s.choice = Some(switch));
            }
        }
    }

    /// Whether a source is called `name`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.sources.iter().any(|s| &*s.name == name)
    }

    fn set_all(&mut self, switch: Switch) {
        self.all = switch;
        if switch == Switch::Off {
            self.tags.clear();
        }
        self.sources.iter_mut().for_each(|s| s.choice = None);
    }

    /// Collects every source that is on and hands each line to `each`, newline included. Returns how many lines
    /// were lost because they were longer than [`MAX_LINE_BYTES`] or memory ran out.
    pub fn collect(&mut self, vm: &str, time: Timestamp, mut each: impl FnMut(&[u8])) -> u64 {
        let Self { sources, all, tags, scratch } = self;
        let mut lost = 0;
        for source in sources.iter_mut().filter(|s| state(s, *all, tags) == Switch::On) {
            scratch.0.clear();
            match render(source, scratch, vm, time) {
                Ok(true) => each(scratch.0.as_bytes()),
                Ok(false) => {}
                Err(fmt::Error) => lost += 1,
            }
        }
        lost
    }
}

fn render(source: &mut Source, out: &mut Scratch, vm: &str, time: Timestamp) -> Result<bool, fmt::Error> {
    let tags = LineTags { vm: Some(vm), rest: source.tags.iter() };
    let mut fields = Fields { line: LineWriter::new(out, &source.name, tags), overflow: false };
    (source.collect)(&mut fields);
    if fields.overflow { Err(fmt::Error) } else { fields.line.finish(Some(time)) }
}

fn state(source: &Source, all: Switch, tags: &BTreeSet<Box<str>>) -> Switch {
    let by_tag = || source.tags.iter().any(|(key, _)| tags.contains(key));
    source.choice.unwrap_or_else(|| if all == Switch::On || by_tag() { Switch::On } else { Switch::Off })
}

/// The order in which the items of one command are executed, wherever they stand in it.
const fn rank(target: MetricTarget<'_>) -> u8 {
    match target {
        MetricTarget::All => 0,
        MetricTarget::Tag(_) => 1,
        MetricTarget::Source(_) => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(registry: &mut Registry) -> String {
        let mut out = String::new();
        let lost =
            registry.collect("web", Timestamp(9), |l| out.push_str(core::str::from_utf8(l).expect("text")));
        assert_eq!(lost, 0);
        out
    }

    fn registry() -> Registry {
        let mut registry = Registry::new();
        registry.register(Source::new("a", |f| {
            f.count("n", u64::MAX).float("x", f64::NAN);
        }));
        registry.register(
            Source::new("b c", |f| {
                f.text("s", "1\n2").boolean("t", true);
            })
            .tag("link", "up,down"),
        );
        registry.register(Source::new("empty", |_| {}));
        registry
    }

    #[test]
    fn every_source_makes_one_stamped_line_with_the_vms_name() {
        let expected = "a,vm=web n=9223372036854775807i 9\nb\\ c,vm=web,link=up\\,down s=\"1 2\",t=true 9\n";
        assert_eq!(lines(&mut registry()), expected);
    }

    #[test]
    fn a_source_that_is_off_is_silent() {
        let mut registry = registry();
        registry.set(MetricTarget::All, Switch::Off);
        assert_eq!(lines(&mut registry), "");
        registry.set(MetricTarget::Tag("link"), Switch::On);
        assert!(lines(&mut registry).starts_with("b\\ c"));
        registry.set(MetricTarget::Source("b c"), Switch::Off);
        assert_eq!(lines(&mut registry), "");
    }

    #[test]
    fn a_line_too_long_is_lost_alone_and_counted() {
        let mut registry = registry();
        registry.register(Source::new("big", |f| {
            f.text("s", &"x".repeat(MAX_LINE_BYTES)).count("n", 1);
        }));
        let mut count = 0;
        assert_eq!(registry.collect("v", Timestamp(0), |_| count += 1), 1);
        assert_eq!(count, 2);
    }
}
