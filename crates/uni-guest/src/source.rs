//! Sources that are declared, and how a program finds them.
//!
//! Owns what a source says about itself and the switch its instruments look at. Never decides whether a source is on
//! (see [`Registry`](crate::Registry)) and never reports.
//!
//! A source is a `static`, and [`source!`](macro@crate::source) puts its address into a section of the program's
//! image: so it is listed before its first use, from whatever crate, and there is nothing to register.
//! `docs/adr/0006-static-sources.md` says why.

use core::sync::atomic::{AtomicBool, Ordering};

use uni_wire::Value;

use crate::counter::{Counter, Tally};
use crate::gauge::{FloatGauge, Gauge};
use crate::histogram::Histogram;
use crate::report::{Kind, Reading, Sample};
use crate::timer::Timer;

/// Every source that was declared with [`source!`](macro@crate::source) in the program and the crates linked into it.
#[linkme::distributed_slice]
pub static SOURCES: [&'static Source];

/// Declares sources as statics, found by [`Registry::of_program`](crate::Registry::of_program).
///
/// ```
/// use uni_guest::{Counter, Field, Graph, Source, source};
/// static SENT: Counter = Counter::new();
/// static FAILED: Counter = Counter::new();
/// static MAILS: Graph = Graph { title: "mails", label: "mails", unit: "1" };
/// source! {
///     /// Mails that leave.
///     pub static MAIL: Source = Source::new("mail").doc("mails that leave").tags(&[("direction", "out")]).fields(&[
///         Field::counter("sent", &SENT).unit("mails").doc("taken by a server").graph(&MAILS),
///         Field::counter("failed", &FAILED).unit("mails").graph(&MAILS),
///     ]);
/// }
/// assert!(uni_guest::SOURCES.iter().any(|source| source.name() == "mail"));
/// ```
#[macro_export]
macro_rules! source {
    ($($(#[$meta:meta])* $vis:vis static $name:ident: Source = $source:expr;)+) => {$(
        $(#[$meta])*
        $vis static $name: $crate::Source = $source;
        const _: () = {
            #[$crate::linkme::distributed_slice($crate::SOURCES)]
            #[linkme(crate = $crate::linkme)]
            static ENTRY: &$crate::Source = &$name;
        };
    )+};
}

/// Whether to record: one flag in each instrument, so that off costs one relaxed load and a branch.
#[derive(Debug, Default)]
pub(crate) struct Gate(AtomicBool);

impl Gate {
    pub(crate) const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, on: bool) {
        self.0.store(on, Ordering::Relaxed);
    }
}

/// Something that is measured, declared as a static (MirageOS: `Metrics.Src`).
#[derive(Debug)]
pub struct Source {
    name: &'static str,
    doc: &'static str,
    tags: &'static [(&'static str, &'static str)],
    fields: &'static [Field],
    gate: Gate,
}

impl Source {
    /// A source called `name` (the measurement), without tags and fields, off. Names need not be unique; what is said
    /// about a name is said about all sources that bear it.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, doc: "", tags: &[], fields: &[], gate: Gate::new() }
    }

    /// What it measures, in a few words.
    #[must_use]
    pub const fn doc(mut self, doc: &'static str) -> Self {
        self.doc = doc;
        self
    }

    /// Keys and values that every point carries. Keys can be turned on and off; one with an empty value is good for
    /// nothing else, and not sent.
    #[must_use]
    pub const fn tags(mut self, tags: &'static [(&'static str, &'static str)]) -> Self {
        self.tags = tags;
        self
    }

    /// What it is made of. An instrument belongs to one source; of two that share one, the last switched counts.
    #[must_use]
    pub const fn fields(mut self, fields: &'static [Field]) -> Self {
        self.fields = fields;
        self
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What it measures.
    #[must_use]
    pub const fn description(&self) -> &'static str {
        self.doc
    }

    /// Its tags.
    #[must_use]
    pub const fn tag_list(&self) -> &'static [(&'static str, &'static str)] {
        self.tags
    }

    /// Its fields.
    #[must_use]
    pub const fn field_list(&self) -> &'static [Field] {
        self.fields
    }

    /// Whether it is on and a reporter is there: for callers whose figures are costly to make.
    #[inline]
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.gate.is_on()
    }

    pub(crate) fn switch(&self, on: bool) {
        self.gate.set(on);
        self.fields.iter().for_each(|field| field.cell.switch(on));
    }

    pub(crate) fn read(&self, each: &mut dyn FnMut(&Reading<'_>)) {
        self.fields.iter().for_each(|field| field.read(each));
    }
}

/// A picture that fields share; it reaches reporters that draw.
#[derive(Debug, PartialEq, Eq)]
pub struct Graph {
    /// Above it; its identity.
    pub title: &'static str,
    /// Beside the vertical axis.
    pub label: &'static str,
    /// Of the vertical axis.
    pub unit: &'static str,
}

/// One typed number of a source. Its type is that of its instrument, for ever.
#[derive(Debug)]
pub struct Field {
    key: &'static str,
    unit: &'static str,
    doc: &'static str,
    graph: Option<&'static Graph>,
    cell: Cell,
}

/// Where the number comes from.
#[derive(Debug)]
enum Cell {
    Counter(&'static Counter),
    Tally(&'static Tally),
    Gauge(&'static Gauge),
    FloatGauge(&'static FloatGauge),
    Histogram(&'static Histogram),
    Timer(&'static Timer),
    Count(fn() -> u64),
    Level(fn() -> i64),
    Float(fn() -> f64),
}

impl Field {
    /// What a counter counted: an integer.
    #[must_use]
    pub const fn counter(key: &'static str, counter: &'static Counter) -> Self {
        Self::new(key, Cell::Counter(counter))
    }

    /// What was tallied: an integer.
    #[must_use]
    pub const fn tally(key: &'static str, tally: &'static Tally) -> Self {
        Self::new(key, Cell::Tally(tally))
    }

    /// A signed level: an integer.
    #[must_use]
    pub const fn gauge(key: &'static str, gauge: &'static Gauge) -> Self {
        Self::new(key, Cell::Gauge(gauge))
    }

    /// A level with a fraction: a float.
    #[must_use]
    pub const fn float_gauge(key: &'static str, gauge: &'static FloatGauge) -> Self {
        Self::new(key, Cell::FloatGauge(gauge))
    }

    /// A distribution; see [`Sample::expand`] for the fields it makes in a line.
    #[must_use]
    pub const fn histogram(key: &'static str, histogram: &'static Histogram) -> Self {
        Self::new(key, Cell::Histogram(histogram))
    }

    /// Durations in nanoseconds and how calls ended; see [`Sample::expand`] for the fields it makes in a line.
    #[must_use]
    pub const fn timer(key: &'static str, timer: &'static Timer) -> Self {
        Self::new(key, Cell::Timer(timer)).unit("ns")
    }

    /// A count that is asked for whenever a reporter wants it, and only then: an integer (MirageOS: `periodically`).
    #[must_use]
    pub const fn count_of(key: &'static str, count: fn() -> u64) -> Self {
        Self::new(key, Cell::Count(count))
    }

    /// As [`count_of`](Self::count_of), for a number that may fall or be negative.
    #[must_use]
    pub const fn level_of(key: &'static str, level: fn() -> i64) -> Self {
        Self::new(key, Cell::Level(level))
    }

    /// As [`count_of`](Self::count_of), for a float; left out while it is not finite.
    #[must_use]
    pub const fn float_of(key: &'static str, float: fn() -> f64) -> Self {
        Self::new(key, Cell::Float(float))
    }

    const fn new(key: &'static str, cell: Cell) -> Self {
        Self { key, unit: "", doc: "", graph: None, cell }
    }

    /// Of what it is a number, in any notation: `bytes`, `ns`, `1`.
    #[must_use]
    pub const fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    /// What it means, in a few words.
    #[must_use]
    pub const fn doc(mut self, doc: &'static str) -> Self {
        self.doc = doc;
        self
    }

    /// The picture it belongs into.
    #[must_use]
    pub const fn graph(mut self, graph: &'static Graph) -> Self {
        self.graph = Some(graph);
        self
    }

    /// Its name.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        self.key
    }

    /// Its unit; empty if none was given.
    #[must_use]
    pub const fn unit_name(&self) -> &'static str {
        self.unit
    }

    /// What it means; empty if nothing was said.
    #[must_use]
    pub const fn description(&self) -> &'static str {
        self.doc
    }

    fn read(&self, each: &mut dyn FnMut(&Reading<'_>)) {
        let mut give = |kind, sample| {
            let Self { key, unit, doc, graph, .. } = *self;
            each(&Reading { key, unit, doc, graph, kind, sample });
        };
        match self.cell {
            Cell::Counter(counter) => give(Kind::Counter, count(counter.get())),
            Cell::Tally(tally) => give(Kind::Counter, count(tally.get())),
            Cell::Count(of) => give(Kind::Counter, count(of())),
            Cell::Gauge(gauge) => give(Kind::Gauge, Sample::Value(Value::Integer(gauge.get()))),
            Cell::Level(of) => give(Kind::Gauge, Sample::Value(Value::Integer(of()))),
            Cell::FloatGauge(gauge) => give(Kind::Gauge, Sample::Value(Value::Float(gauge.get()))),
            Cell::Float(of) => give(Kind::Gauge, Sample::Value(Value::Float(of()))),
            Cell::Histogram(of) => {
                give(Kind::Histogram, Sample::Histogram { id: identity(of), snapshot: &of.snapshot() });
            }
            Cell::Timer(timer) => {
                let (id, snapshot) = (identity(timer.histogram()), &timer.durations_ns());
                let (ok, errors) = (timer.ok(), timer.errors());
                give(Kind::Histogram, Sample::Calls { id, snapshot, ok, errors });
            }
        }
    }
}

/// What tells two histograms apart: where they are.
fn identity(histogram: &'static Histogram) -> usize {
    core::ptr::from_ref(histogram).addr()
}

/// Counts are sent as integers, so that their type never changes.
pub(crate) fn count(count: u64) -> Sample<'static> {
    Sample::Value(Value::Integer(i64::try_from(count).unwrap_or(i64::MAX)))
}

impl Cell {
    fn switch(&self, on: bool) {
        match self {
            Self::Counter(counter) => counter.gate().set(on),
            Self::Gauge(gauge) => gauge.gate().set(on),
            Self::FloatGauge(gauge) => gauge.gate().set(on),
            Self::Histogram(histogram) => histogram.gate().set(on),
            Self::Timer(timer) => timer.gates().into_iter().for_each(|gate| gate.set(on)),
            Self::Tally(_) | Self::Count(_) | Self::Level(_) | Self::Float(_) => {}
        }
    }
}
