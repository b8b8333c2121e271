//! All metric sources, and reporting them.
//!
//! Owns the list of sources (declared ones and those made at run time), what was said about which are on, and the
//! gates of the instruments. Never decides when to report, and never keeps a point.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use uni_wire::control::{ControlError, MetricItem, MetricItems, MetricTarget, Switch};
use uni_wire::{FieldType, Timestamp, Value};

use crate::lines::{LineState, Lines};
use crate::report::{Kind, Point, Reading, Reporter, Sample, Tags};
use crate::rows::Rows;
use crate::source::{Field, SOURCES, Source, count};
use crate::switches::Switches;
use crate::timeline::{Subject, Timeline, until};

pub use crate::lines::MAX_LINE_BYTES;
pub use crate::switches::MAX_TAGS_ON;

/// Fields that a source made at run time may have; more are left out and counted.
pub const MAX_FIELDS: usize = 256;

type CollectFn = Box<dyn FnMut(&mut Fields<'_>)>;

/// A source made at run time, of figures that somebody else keeps (MirageOS: `periodically`). Where names and tags
/// are known when the program is written, declare a [`Source`] instead.
///
/// ```
/// use uni_guest::{Periodic, Registry};
/// let mut registry = Registry::new();
/// registry.register(
///     Periodic::new("queue", |fields| {
///         fields.count("length", 3).float("load", 0.5);
///     })
///     .doc("jobs that wait")
///     .tag("kind", "mail"),
/// );
/// ```
pub struct Periodic {
    name: Box<str>,
    doc: Box<str>,
    tags: Vec<(Box<str>, Box<str>)>,
    collect: CollectFn,
    types: Types,
}

impl Periodic {
    /// A source called `name` (the measurement) whose fields `collect` fills in at every interval.
    #[must_use]
    pub fn new(name: &str, collect: impl FnMut(&mut Fields<'_>) + 'static) -> Self {
        Self {
            name: name.into(),
            doc: "".into(),
            tags: Vec::new(),
            collect: Box::new(collect),
            types: Types::default(),
        }
    }

    /// What it measures, in a few words.
    #[must_use]
    pub fn doc(mut self, doc: &str) -> Self {
        self.doc = doc.into();
        self
    }

    /// Adds a tag to every point of the source.
    #[must_use]
    pub fn tag(mut self, key: &str, value: &str) -> Self {
        self.tags.push((key.into(), value.into()));
        self
    }
}

impl fmt::Debug for Periodic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, doc, tags, .. } = self;
        f.debug_struct("Periodic")
            .field("name", name)
            .field("doc", doc)
            .field("tags", tags)
            .finish_non_exhaustive()
    }
}

/// The type each field of a source had first, and keeps.
#[derive(Debug, Default)]
struct Types {
    known: Vec<(Box<str>, FieldType)>,
    /// Fields left out: of another type, or one too many.
    refused: u64,
}

impl Types {
    fn admit(&mut self, key: &str, field_type: FieldType) -> bool {
        let known = self.known.iter().find(|(name, _)| **name == *key).map(|(_, known)| *known);
        let admitted = match known {
            Some(known) => known == field_type,
            None => self.known.len() < MAX_FIELDS,
        };
        if admitted && known.is_none() {
            self.known.push((key.into(), field_type));
        }
        self.refused += u64::from(!admitted);
        admitted
    }
}

/// Where a [`Periodic`] source puts its fields. What cannot be sent (`NaN`, an empty name) is left out; so is a field
/// that had another type before, and that is counted.
pub struct Fields<'a> {
    types: &'a mut Types,
    each: &'a mut dyn FnMut(&Reading<'_>),
}

impl Fields<'_> {
    /// A number of things, or of bytes: sent as an integer, at most 2^63 - 1, so that its type never changes.
    pub fn count(&mut self, key: &str, value: u64) -> &mut Self {
        self.put(key, Kind::Unknown, count(value))
    }

    /// As [`count`](Self::count), of what only grows.
    pub fn total(&mut self, key: &str, value: u64) -> &mut Self {
        self.put(key, Kind::Counter, count(value))
    }

    /// A signed whole number.
    pub fn integer(&mut self, key: &str, value: i64) -> &mut Self {
        self.put(key, Kind::Gauge, Sample::Value(Value::Integer(value)))
    }

    /// A float; left out if not finite.
    pub fn float(&mut self, key: &str, value: f64) -> &mut Self {
        self.put(key, Kind::Gauge, Sample::Value(Value::Float(value)))
    }

    /// A boolean.
    pub fn boolean(&mut self, key: &str, value: bool) -> &mut Self {
        self.put(key, Kind::Gauge, Sample::Value(Value::Boolean(value)))
    }

    /// A text; newlines in it become spaces.
    pub fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.put(key, Kind::Unknown, Sample::Value(Value::String(value)))
    }

    fn put(&mut self, key: &str, kind: Kind, sample: Sample<'_>) -> &mut Self {
        if let Sample::Value(value) = sample
            && self.types.admit(key, value.field_type())
        {
            (self.each)(&Reading { key, unit: "", doc: "", graph: None, kind, sample });
        }
        self
    }
}

impl fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fields").field("types", &self.types).finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Entry {
    Declared(&'static Source),
    Made(Periodic),
    Rows(Rows),
}

impl Entry {
    fn name(&self) -> &str {
        match self {
            Self::Declared(source) => source.name(),
            Self::Made(source) => &source.name,
            Self::Rows(source) => source.name(),
        }
    }

    fn doc(&self) -> &str {
        match self {
            Self::Declared(source) => source.description(),
            Self::Made(source) => &source.doc,
            Self::Rows(source) => source.description(),
        }
    }

    fn tags(&self) -> Tags<'_> {
        match self {
            Self::Declared(source) => Tags::Static(source.tag_list().iter()),
            Self::Made(source) => Tags::Owned(source.tags.iter()),
            Self::Rows(source) => source.tags(),
        }
    }
}

/// A source in a listing.
#[derive(Clone, Debug)]
pub struct Listed<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it measures.
    pub doc: &'a str,
    /// Its tags.
    pub tags: Tags<'a>,
    /// Its fields, if it was declared; those of a [`Periodic`] source are known only when it is evaluated.
    pub fields: &'static [Field],
    /// Whether it is on.
    pub state: Switch,
}

type DiscoverFn = Box<dyn FnMut() -> Option<&'static Source>>;

/// All sources, and which are on. At first all are, but their instruments record only while a reporter is there.
///
/// A program has one that knows its declared sources; with two, the one that switched last decides.
pub struct Registry {
    /// In the order of creation.
    sources: Vec<Entry>,
    discoveries: Vec<DiscoverFn>,
    switches: Timeline<Switches>,
    reporting: bool,
    lines: LineState,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sources, switches, reporting, .. } = self;
        f.debug_struct("Registry")
            .field("sources", sources)
            .field("switches", switches)
            .field("reporting", reporting)
            .finish_non_exhaustive()
    }
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
        Self {
            sources: Vec::new(),
            discoveries: Vec::new(),
            switches: Timeline::new(Switches::new()),
            reporting: false,
            lines: LineState::default(),
        }
    }

    /// A registry of all sources that the program declares, by name.
    #[must_use]
    pub fn of_program() -> Self {
        let mut declared = SOURCES.to_vec();
        declared.sort_by_key(|source| source.name());
        let mut registry = Self::new();
        registry.sources.extend(declared.into_iter().map(Entry::Declared));
        registry
    }

    /// Adds a source made at run time; it is reported from the next round on.
    pub fn register(&mut self, source: Periodic) {
        self.sources.push(Entry::Made(source));
    }

    /// Adds a source of several points; as [`register`](Self::register).
    pub fn register_rows(&mut self, source: Rows) {
        self.sources.push(Entry::Rows(source));
    }

    /// Asks `next` for further sources before each round, until it has none. For bridges.
    pub fn discover(&mut self, next: impl FnMut() -> Option<&'static Source> + 'static) {
        self.discoveries.push(Box::new(next));
    }

    /// Takes in what was discovered.
    pub(crate) fn adopt(&mut self) {
        let Self { sources, discoveries, .. } = self;
        let before = sources.len();
        for next in discoveries {
            sources.extend(core::iter::from_fn(next).map(Entry::Declared));
        }
        if sources.len() > before {
            self.set_gates();
        }
    }

    /// Whether a reporter is there. While none is, no instrument records.
    pub fn set_reporting(&mut self, reporting: bool) {
        self.reporting = reporting;
        self.set_gates();
    }

    /// Whether all sources are on that nothing else was said about.
    #[must_use]
    pub const fn all(&self) -> Switch {
        self.switches.now().all()
    }

    /// The tag keys that are on, sorted.
    pub fn enabled_tags(&self) -> impl Iterator<Item = &str> {
        self.switches.now().tags()
    }

    /// Name and state of every source, the newest first.
    pub fn states(&self) -> impl Iterator<Item = (&str, Switch)> {
        self.sources
            .iter()
            .rev()
            .map(|entry| (entry.name(), self.switches.now().state(entry.name(), entry.tags())))
    }

    /// Every source with what it says about itself, the newest first.
    pub fn list(&self) -> impl Iterator<Item = Listed<'_>> {
        self.sources.iter().rev().map(|entry| Listed {
            name: entry.name(),
            doc: entry.doc(),
            tags: entry.tags(),
            fields: match entry {
                Entry::Declared(source) => source.field_list(),
                Entry::Made(_) | Entry::Rows(_) => &[],
            },
            state: self.switches.now().state(entry.name(), entry.tags()),
        })
    }

    /// What the source `name` measures.
    #[must_use]
    pub fn doc(&self, name: &str) -> Option<&str> {
        self.sources.iter().rev().find(|entry| entry.name() == name).map(Entry::doc)
    }

    /// Executes an `M` command: first all (if several times, as said last), then tags, then sources, each in the order of the command. What has a time
    /// limit ends with it: [`expire`](Self::expire).
    ///
    /// # Errors
    /// A source that does not exist, more tags than [`MAX_TAGS_ON`], or too many time limits; then nothing has
    /// changed. Tags need not exist.
    pub fn apply<'a>(&mut self, items: &MetricItems<'a>, now_ns: u64) -> Result<(), ControlError<'a>> {
        let items: Vec<MetricItem<'a>> = items.limited().collect();
        let unknown = items.iter().find_map(|item| match item.target {
            MetricTarget::Source(name) if !self.has(name) => Some(name),
            _ => None,
        });
        if let Some(name) = unknown {
            return Err(ControlError::UnknownSource(name));
        }
        let all = items.iter().rfind(|item| matches!(item.target, MetricTarget::All));
        let tags = items.iter().filter(|item| matches!(item.target, MetricTarget::Tag(_)));
        let sources = items.iter().filter(|item| matches!(item.target, MetricTarget::Source(_)));
        let mut next = self.switches.clone();
        for item in all.into_iter().chain(tags).chain(sources) {
            next.say(item.target.into(), item.switch, until(now_ns, item.seconds));
        }
        if next.now().has_too_many_tags() {
            return Err(ControlError::TooManyTags(MAX_TAGS_ON));
        }
        self.switches.replace(next)?;
        self.set_gates();
        Ok(())
    }

    /// When [`expire`](Self::expire) is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.switches.next_deadline()
    }

    /// Takes back what was said for a time that is over, as if it had never been said. Returns what is in force
    /// instead, in the words of a query's reply; nothing if nothing is over.
    pub fn expire(&mut self, now_ns: u64) -> Vec<String> {
        let over = self.switches.expire(now_ns);
        if over.is_empty() {
            return Vec::new();
        }
        self.set_gates();
        over.iter().map(|subject| self.describe(subject)).collect()
    }

    fn describe(&self, subject: &Subject) -> String {
        match subject {
            Subject::All => format!("*:{}", self.all().word()),
            Subject::Tag(key) => {
                let is_on = self.enabled_tags().any(|tag| *tag == **key);
                format!("tag:{key}:{}", if is_on { Switch::On } else { Switch::Off }.word())
            }
            Subject::Source(name) => {
                let state =
                    self.states().find(|(known, _)| **known == **name).map_or(Switch::Off, |(_, s)| s);
                format!("{name}:{}", state.word())
            }
        }
    }

    /// Turns all sources of a name, a tag or everything on or off, for good. `All` undoes every choice made for a
    /// source, and turning all off also turns all tags off. A source that does not exist is ignored.
    pub fn set(&mut self, target: MetricTarget<'_>, switch: Switch) {
        if !matches!(target, MetricTarget::Source(name) if !self.has(name)) {
            self.switches.say(target.into(), switch, None);
            self.set_gates();
        }
    }

    /// Whether a source is called `name`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.sources.iter().any(|entry| entry.name() == name)
    }

    fn set_gates(&self) {
        for entry in &self.sources {
            if let Entry::Declared(source) = entry {
                let on = self.switches.now().state(source.name(), entry.tags()) == Switch::On;
                source.switch(on && self.reporting);
            }
        }
    }

    /// One round: hands a point of every source that is on to `reporter`. Returns how many points and fields were
    /// lost.
    pub fn report(&mut self, reporter: &mut dyn Reporter) -> u64 {
        self.adopt();
        report_each(&mut self.sources, self.switches.now(), reporter)
    }

    /// One round in line protocol: hands each line to `each`, newline included. Returns how many points and fields
    /// were lost: a line longer than [`MAX_LINE_BYTES`], no memory, or a field that changed its type.
    pub fn collect(&mut self, vm: &str, time: Timestamp, each: impl FnMut(&[u8])) -> u64 {
        self.adopt();
        let mut lines = Lines { vm, time, state: &mut self.lines, each };
        report_each(&mut self.sources, self.switches.now(), &mut lines)
    }
}

fn report_each(sources: &mut [Entry], switches: &Switches, reporter: &mut dyn Reporter) -> u64 {
    let time = reporter.now();
    let on = |entry: &&mut Entry| switches.state(entry.name(), entry.tags()) == Switch::On;
    sources.iter_mut().filter(on).map(|entry| report_one(entry, reporter, time)).sum()
}

fn report_one(entry: &mut Entry, reporter: &mut dyn Reporter, time: Timestamp) -> u64 {
    match entry {
        Entry::Declared(source) => {
            let (name, doc, tags) = (source.name(), source.description(), source.tag_list());
            let evaluate = &mut |each: &mut dyn FnMut(&Reading<'_>)| source.read(each);
            let mut point = Point { name, doc, tags: Tags::Static(tags.iter()), evaluate };
            u64::from(reporter.report(&mut point, time).is_err())
        }
        Entry::Made(Periodic { name, doc, tags, collect, types }) => {
            let refused = types.refused;
            let evaluate = &mut |each: &mut dyn FnMut(&Reading<'_>)| collect(&mut Fields { types, each });
            let mut point = Point { name, doc, tags: Tags::Owned(tags.iter()), evaluate };
            let lost = u64::from(reporter.report(&mut point, time).is_err());
            lost + (types.refused - refused)
        }
        Entry::Rows(rows) => rows.report(reporter, time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counter::Counter;
    use alloc::string::String;
    use proptest::prelude::*;

    fn lines(registry: &mut Registry) -> String {
        let mut out = String::new();
        let lost =
            registry.collect("web", Timestamp(9), |l| out.push_str(core::str::from_utf8(l).expect("text")));
        assert_eq!(lost, 0);
        out
    }

    fn registry() -> Registry {
        let mut registry = Registry::new();
        registry.register(Periodic::new("a", |f| {
            f.count("n", u64::MAX).float("x", f64::NAN);
        }));
        registry.register(
            Periodic::new("b c", |f| {
                f.text("s", "1\n2").boolean("t", true);
            })
            .tag("link", "up,down"),
        );
        registry.register(Periodic::new("empty", |_| {}));
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
        registry.register(Periodic::new("big", |f| {
            f.text("s", &"x".repeat(MAX_LINE_BYTES)).count("n", 1);
        }));
        let mut count = 0;
        assert_eq!(registry.collect("v", Timestamp(0), |_| count += 1), 1);
        assert_eq!(count, 2);
    }

    #[test]
    fn a_field_keeps_the_type_it_had_first() {
        let mut registry = Registry::new();
        let mut round = 0;
        registry.register(Periodic::new("a", move |f| {
            round += 1;
            if round == 2 {
                f.float("n", 0.5).count("m", 2)
            } else {
                f.count("n", 1)
            };
        }));
        assert_eq!(lines(&mut registry), "a,vm=web n=1i 9\n");
        let mut out = String::new();
        let lost =
            registry.collect("web", Timestamp(9), |l| out.push_str(core::str::from_utf8(l).expect("text")));
        assert_eq!((lost, out.as_str()), (1, "a,vm=web m=2i 9\n"));
    }

    #[test]
    fn a_listing_shows_what_sources_say_about_themselves() {
        static PEOPLE: Counter = Counter::new();
        static FERRY: Source = Source::new("ferry")
            .doc("who crosses")
            .tags(&[("to", "islay")])
            .fields(&[Field::counter("people", &PEOPLE).unit("persons").doc("on board")]);
        let mut registry = Registry::new();
        registry.sources.push(Entry::Declared(&FERRY));
        registry.register(Periodic::new("a", |_| panic!("a listing evaluates nothing")));
        registry.set(MetricTarget::Source("a"), Switch::Off);
        let listed: Vec<_> = registry.list().collect();
        assert_eq!((listed[0].name, listed[0].state, listed[0].fields.len()), ("a", Switch::Off, 0));
        assert_eq!((listed[1].doc, listed[1].state), ("who crosses", Switch::On));
        assert_eq!(listed[1].tags.clone().collect::<Vec<_>>(), [("to", "islay")]);
        let field = &listed[1].fields[0];
        assert_eq!((field.key(), field.unit_name(), field.description()), ("people", "persons", "on board"));
    }

    /// The sources of the algebra's test: declared and made ones, two of one name, with and without tags.
    static DECLARED: [Source; 3] = [
        Source::new("a").tags(&[("x", "")]),
        Source::new("b").tags(&[("y", "1"), ("z", "2")]),
        Source::new("c"),
    ];

    fn mixed() -> Registry {
        let mut registry = Registry::new();
        registry.sources.extend(DECLARED.iter().map(Entry::Declared));
        registry.register(Periodic::new("a", |_| {}).tag("z", "1"));
        registry.register(Periodic::new("d", |_| {}).tag("y", ""));
        registry
    }

    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    const TAGS: [&str; 4] = ["x", "y", "z", "nobody"];

    type Said = (MetricTarget<'static>, Switch);

    fn said() -> impl Strategy<Value = Said> {
        let target = prop_oneof![
            1 => Just(MetricTarget::All),
            3 => prop::sample::select(&TAGS).prop_map(MetricTarget::Tag),
            3 => prop::sample::select(&NAMES).prop_map(MetricTarget::Source),
        ];
        (target, prop::bool::ANY).prop_map(|(target, on)| (target, if on { Switch::On } else { Switch::Off }))
    }

    /// The algebra, said backwards: what was mentioned last decides.
    fn model(history: &[Said], name: &str, tags: &[&str]) -> Switch {
        let last = |what: &dyn Fn(&Said) -> bool| history.iter().rev().find(|s| what(s)).copied();
        let own = |said: &Said| matches!(said.0, MetricTarget::All) || said.0 == MetricTarget::Source(name);
        if let Some((MetricTarget::Source(_), switch)) = last(&own) {
            return switch;
        }
        let all = last(&|said| matches!(said.0, MetricTarget::All)).is_none_or(|said| said.1 == Switch::On);
        let by_tag = tags.iter().any(|tag| {
            let of_tag =
                |said: &Said| said.0 == MetricTarget::Tag(tag) || *said == (MetricTarget::All, Switch::Off);
            matches!(last(&of_tag), Some((MetricTarget::Tag(_), Switch::On)))
        });
        if all || by_tag { Switch::On } else { Switch::Off }
    }

    proptest! {
        #[test]
        fn what_was_said_last_decides(history in prop::collection::vec(said(), 0..30)) {
            let mut registry = mixed();
            registry.set_reporting(true);
            history.iter().for_each(|(target, switch)| registry.set(*target, *switch));
            let sources: [(&str, &[&str]); 5] =
                [("d", &["y"]), ("a", &["z"]), ("c", &[]), ("b", &["y", "z"]), ("a", &["x"])];
            let expected: Vec<_> =
                sources.iter().map(|(name, tags)| (*name, model(&history, name, tags))).collect();
            prop_assert_eq!(registry.states().collect::<Vec<_>>(), expected.clone());
            for source in &DECLARED {
                let state = registry.states().filter(|(name, _)| *name == source.name()).last();
                prop_assert_eq!(state.map(|(_, s)| s == Switch::On), Some(source.is_on()));
            }
            registry.set_reporting(false);
            prop_assert!(DECLARED.iter().all(|source| !source.is_on()));
        }
    }
}
