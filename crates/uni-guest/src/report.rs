//! What a reporter is, and what it is given.
//!
//! Owns the interface between sources and reporters, and a reporter that keeps points in memory. Never collects:
//! [`Registry::report`](crate::Registry::report) does, and calls no source while no reporter is there.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use uni_wire::{Timestamp, Value};

use crate::histogram::Snapshot;
use crate::source::Graph;

/// Takes points (MirageOS: `Metrics.reporter`, whose three functions these are).
pub trait Reporter {
    /// The time that the points of one round get.
    fn now(&self) -> Timestamp;

    /// Takes one point; it may look away, and then the source is not evaluated.
    ///
    /// # Errors
    /// The point is lost: too large, or there was no room. Who reports counts it.
    fn report(&mut self, point: &mut Point<'_>, time: Timestamp) -> Result<(), Lost>;

    /// The program ends: writes what is left.
    fn at_exit(&mut self) {}
}

/// A point did not get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a point is too large, or there is no room for it")
    }
}

impl core::error::Error for Lost {}

impl From<fmt::Error> for Lost {
    fn from(_: fmt::Error) -> Self {
        Self
    }
}

/// How a number behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It rises and falls.
    Gauge,
    /// It is a distribution.
    Histogram,
    /// The source does not say.
    Unknown,
}

/// One field as it is now.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// Its name.
    pub key: &'a str,
    /// Its unit; empty if the source does not say.
    pub unit: &'a str,
    /// What it means; empty if the source does not say.
    pub doc: &'a str,
    /// The picture it belongs into.
    pub graph: Option<&'static Graph>,
    /// How it behaves.
    pub kind: Kind,
    /// Its value.
    pub sample: Sample<'a>,
}

/// A value, or many.
#[derive(Clone, Copy, Debug)]
pub enum Sample<'a> {
    /// One value.
    Value(Value<'a>),
    /// A distribution since boot.
    Histogram {
        /// The same for the same histogram.
        id: usize,
        /// What it holds.
        snapshot: &'a Snapshot,
    },
    /// Durations of calls in nanoseconds since boot, and how they ended.
    Calls {
        /// The same for the same timer.
        id: usize,
        /// The durations.
        snapshot: &'a Snapshot,
        /// How many ended well.
        ok: u64,
        /// How many did not.
        errors: u64,
    },
}

/// The quantiles that a distribution is shown by, in thousandths.
const QUANTILES: [(&str, u16); 4] = [("p50", 500), ("p90", 900), ("p99", 990), ("max", 1000)];

impl Sample<'_> {
    /// The sample as plain values, each with what is appended to the field's name; nothing for a plain value. For a
    /// distribution:
    ///
    /// | suffix | meaning |
    /// | --- | --- |
    /// | `_count`, `_sum` | values since boot, and their sum |
    /// | `_p50`, `_p90`, `_p99`, `_max` | upper bounds, at most 12.5 % too large, of values since the last round; left out if there were none |
    /// | `_bucket_N` | values since boot from N to below 2N (`_bucket_0`: zeros); left out where there are none. Those of several guests add up |
    /// | `_ok`, `_error` | calls since boot that ended so |
    ///
    /// All are integers.
    pub fn expand(&self, rounds: &mut Rounds, mut each: impl FnMut(&str, Value<'_>)) {
        let (id, snapshot) = match *self {
            Self::Value(value) => return each("", value),
            Self::Histogram { id, snapshot } => (id, snapshot),
            Self::Calls { id, snapshot, ok, errors } => {
                each("_ok", integer(ok));
                each("_error", integer(errors));
                (id, snapshot)
            }
        };
        each("_count", integer(snapshot.count()));
        each("_sum", integer(snapshot.sum()));
        let recent = rounds.recent(id, snapshot);
        for (name, permille) in QUANTILES {
            if let Some(value) = recent.quantile(permille) {
                each(&suffix(name), integer(value));
            }
        }
        for (low, _, count) in snapshot.doublings() {
            each(&suffix(format_args!("bucket_{low}")), integer(count));
        }
    }
}

fn integer(count: u64) -> Value<'static> {
    Value::Integer(i64::try_from(count).unwrap_or(i64::MAX))
}

fn suffix(text: impl fmt::Display) -> String {
    let mut suffix = String::new();
    // Writing to a string does not fail.
    let _ = write!(suffix, "_{text}");
    suffix
}

/// What distributions held in a reporter's last round. One for each distribution the program declares.
#[derive(Debug, Default)]
pub struct Rounds(BTreeMap<usize, Snapshot>);

impl Rounds {
    /// What was added since the last round.
    fn recent(&mut self, id: usize, now: &Snapshot) -> Snapshot {
        match self.0.insert(id, now.clone()) {
            Some(before) => now.since(&before),
            None => now.clone(),
        }
    }
}

/// Calls what it is given with every field.
pub(crate) type EvaluateFn<'a> = dyn FnMut(&mut dyn FnMut(&Reading<'_>)) + 'a;

/// One source as it is now. Its fields are evaluated when they are asked for.
pub struct Point<'a> {
    pub(crate) name: &'a str,
    pub(crate) doc: &'a str,
    pub(crate) tags: Tags<'a>,
    pub(crate) evaluate: &'a mut EvaluateFn<'a>,
}

impl<'a> Point<'a> {
    /// The source's name: the measurement.
    #[must_use]
    pub const fn name(&self) -> &'a str {
        self.name
    }

    /// What the source measures.
    #[must_use]
    pub const fn doc(&self) -> &'a str {
        self.doc
    }

    /// Its tags; values may be empty.
    #[must_use]
    pub fn tags(&self) -> Tags<'a> {
        self.tags.clone()
    }

    /// Evaluates the source: calls `each` with every field.
    pub fn read(&mut self, mut each: impl FnMut(&Reading<'_>)) {
        (self.evaluate)(&mut each);
    }
}

impl fmt::Debug for Point<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Point").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The tags of a source.
#[derive(Clone, Debug)]
pub enum Tags<'a> {
    /// Of one that was declared.
    Static(core::slice::Iter<'a, (&'static str, &'static str)>),
    /// Of one that was made at run time.
    Owned(core::slice::Iter<'a, (Box<str>, Box<str>)>),
}

impl<'a> Iterator for Tags<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Static(tags) => tags.next().map(|(key, value)| (*key, *value)),
            Self::Owned(tags) => tags.next().map(|(key, value)| (&**key, &**value)),
        }
    }
}

/// A plain value that owns its text.
#[derive(Clone, Debug, PartialEq)]
pub enum Kept {
    /// A float.
    Float(f64),
    /// An integer.
    Integer(i64),
    /// An unsigned integer.
    Unsigned(u64),
    /// A text.
    Text(Box<str>),
    /// A boolean.
    Boolean(bool),
}

impl From<Value<'_>> for Kept {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Float(v) => Self::Float(v),
            Value::Integer(v) => Self::Integer(v),
            Value::Unsigned(v) => Self::Unsigned(v),
            Value::String(v) => Self::Text(v.into()),
            Value::Boolean(v) => Self::Boolean(v),
        }
    }
}

/// A point in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptPoint {
    /// When it was made.
    pub time: Timestamp,
    /// The source.
    pub name: String,
    /// Its tags.
    pub tags: Vec<(String, String)>,
    /// Its fields, distributions expanded as [`Sample::expand`] says.
    pub fields: Vec<(String, Kept)>,
}

impl KeptPoint {
    fn is_of(&self, point: &Point<'_>) -> bool {
        let tags = self.tags.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        self.name == point.name && tags.eq(point.tags())
    }
}

/// Keeps the points of the last round in memory, for programs that show or test themselves (MirageOS:
/// `cache_reporter`).
#[derive(Debug, Default)]
pub struct Memory {
    /// The time the next round's points get; whoever reports sets it.
    pub time: Timestamp,
    points: Vec<KeptPoint>,
    rounds: Rounds,
}

impl Memory {
    /// Takes the points of the last round out.
    pub fn take(&mut self) -> Vec<KeptPoint> {
        core::mem::take(&mut self.points)
    }
}

impl Reporter for Memory {
    fn now(&self) -> Timestamp {
        self.time
    }

    fn report(&mut self, point: &mut Point<'_>, time: Timestamp) -> Result<(), Lost> {
        self.points.retain(|kept| kept.time == time && !kept.is_of(point));
        let mut fields = Vec::new();
        point.read(|reading| {
            reading.sample.expand(&mut self.rounds, |suffix, value| {
                let mut key = String::from(reading.key);
                key.push_str(suffix);
                fields.push((key, value.into()));
            });
        });
        self.points.push(KeptPoint {
            time,
            name: point.name.into(),
            tags: point.tags().map(|(key, value)| (key.into(), value.into())).collect(),
            fields,
        });
        Ok(())
    }
}
