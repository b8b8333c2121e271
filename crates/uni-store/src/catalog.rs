//! Which measurements, fields and series a database has.
//!
//! Owns numbers and names, and the types of fields. Never owns points. Invariants:
//! - a series or field is *staged* when a point that brings it has been checked, and *live* once that point is in
//!   the log; only what is live is shown;
//! - a field's number is never used again within its measurement; after retention has dropped its last value it is
//!   *dead*, and its name may come back with another type, under another number.

use crate::matcher::Matcher;
use crate::point::{Point, RejectReason};
use hashbrown::{HashMap, HashTable};
use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::sync::Arc;
use uni_wire::FieldType;

/// Names one series of an open store. Valid until the store is closed; a series that retention has dropped
/// simply has no rows any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesId(pub(crate) u64);

impl SeriesId {
    /// The id as a plain number, for code that must not know this crate.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The id that [`SeriesId::number`] gave. Of any other number, nothing is found.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }
}

/// The tag that says which VM a series is of.
pub(crate) const VM_TAG: &str = "vm";

/// Tags, sorted by key.
pub(crate) type Tags = [(Box<str>, Box<str>)];

/// The numbers that come next, for all databases of a store.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    series: u64,
    measurement: u32,
}

/// How many series and fields there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Series that this catalog may still add.
    pub(crate) series_left: usize,
    pub(crate) max_series: usize,
    pub(crate) max_fields: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Staged,
    Live,
    Dead,
}

#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) name: Box<str>,
    pub(crate) field_type: FieldType,
    presence: Presence,
}

#[derive(Debug)]
pub(crate) struct Measurement {
    number: u32,
    fields: Vec<Field>,
    /// Fields that are not dead, by name.
    names: HashMap<Box<str>, u32>,
    series: BTreeSet<SeriesId>,
}

#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) measurement: Arc<str>,
    pub(crate) tags: Box<Tags>,
    presence: Presence,
}

/// A point's names turned into numbers.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    pub(crate) series: SeriesId,
    pub(crate) measurement: u32,
    /// For each field of the point its number.
    pub(crate) fields: Vec<u32>,
    /// Something of it is staged and becomes live with this point.
    pub(crate) brings_new: bool,
}

impl Default for SeriesId {
    fn default() -> Self {
        Self(u64::MAX)
    }
}

/// Why names could not be turned into numbers by looking alone.
#[derive(Debug)]
pub(crate) enum Unresolved {
    /// Something is new: [`Catalog::intern`] adds it.
    New,
    /// The point can never be stored as it is.
    Refused(RejectReason),
}

#[derive(Debug, Default)]
pub(crate) struct Catalog {
    measurements: HashMap<Arc<str>, Measurement>,
    series: HashMap<SeriesId, Series>,
    /// Series by the hash of measurement and tags.
    keys: HashTable<SeriesId>,
    /// How many series each VM has.
    vms: HashMap<Box<str>, usize>,
    hasher: foldhash::fast::RandomState,
    staged_series: Vec<SeriesId>,
    staged_fields: Vec<(Arc<str>, u32)>,
}

impl Catalog {
    /// Looks a point's series and fields up; `out` is overwritten, so that its memory is used again.
    pub(crate) fn resolve(&self, point: &Point, out: &mut Resolved) -> Result<(), Unresolved> {
        let measurement = self.measurements.get(&*point.measurement).ok_or(Unresolved::New)?;
        out.fields.clear();
        out.brings_new = false;
        for (name, value) in &point.fields {
            let number = *measurement.names.get(name).ok_or(Unresolved::New)?;
            let field = &measurement.fields[number as usize];
            if field.field_type != value.field_type() {
                let reason = type_conflict(&point.measurement, field, value.field_type());
                return Err(Unresolved::Refused(reason));
            }
            out.brings_new |= field.presence != Presence::Live;
            out.fields.push(number);
        }
        let series = self.find(&point.measurement, &point.tags).ok_or(Unresolved::New)?;
        out.brings_new |= self.series.get(&series).is_none_or(|known| known.presence != Presence::Live);
        out.series = series;
        out.measurement = measurement.number;
        Ok(())
    }

    /// Adds what [`Catalog::resolve`] found missing, staged; nothing is added when the point is refused.
    pub(crate) fn intern(
        &mut self,
        point: &Point,
        numbers: &mut Numbers,
        limits: Limits,
        out: &mut Resolved,
    ) -> Result<(), RejectReason> {
        self.check_new_fields(point, limits)?;
        if self.find(&point.measurement, &point.tags).is_none() && limits.series_left == 0 {
            return Err(RejectReason::SeriesLimit { max: limits.max_series });
        }
        for (name, value) in &point.fields {
            self.field(&point.measurement, name, value.field_type(), numbers);
        }
        self.series(&point.measurement, &point.tags, numbers);
        match self.resolve(point, out) {
            Ok(()) => Ok(()),
            Err(Unresolved::Refused(reason)) => Err(reason),
            Err(Unresolved::New) => unreachable!("everything the point names was added above"),
        }
    }

    /// Types against those known and against each other; the count of fields against its limit.
    fn check_new_fields(&self, point: &Point, limits: Limits) -> Result<(), RejectReason> {
        let measurement = self.measurements.get(&*point.measurement);
        let mut new: HashMap<&str, FieldType> = HashMap::new();
        for (name, value) in &point.fields {
            let given = value.field_type();
            let known = measurement.and_then(|m| Some(&m.fields[*m.names.get(name)? as usize]));
            let existing = known.map_or_else(|| *new.entry(name).or_insert(given), |field| field.field_type);
            if existing != given {
                let (field, measurement) = (name.clone(), point.measurement.clone());
                return Err(RejectReason::FieldTypeConflict { field, measurement, given, existing });
            }
        }
        if measurement.map_or(0, |m| m.names.len()) + new.len() > limits.max_fields && !new.is_empty() {
            let measurement = point.measurement.clone();
            return Err(RejectReason::FieldLimit { measurement, max: limits.max_fields });
        }
        Ok(())
    }

    /// The number of a field, added as staged where it is missing. A field that exists with another type
    /// gets a number of its own that no name leads to; the flag in the result tells.
    pub(crate) fn field(
        &mut self,
        measurement: &str,
        name: &str,
        field_type: FieldType,
        numbers: &mut Numbers,
    ) -> (u32, FieldIs) {
        let key = self.measurement(measurement, numbers);
        let entry = self.measurements.get_mut(&*key).expect("measurement() has just made sure of it");
        let number = entry.fields.len() as u32;
        let mut field = Field { name: name.into(), field_type, presence: Presence::Staged };
        match entry.names.get(name) {
            Some(known) if entry.fields[*known as usize].field_type == field_type => (*known, FieldIs::Named),
            Some(_) => {
                field.presence = Presence::Dead;
                entry.fields.push(field);
                (number, FieldIs::Hidden)
            }
            None => {
                entry.names.insert(name.into(), number);
                entry.fields.push(field);
                self.staged_fields.push((key, number));
                (number, FieldIs::Named)
            }
        }
    }

    fn measurement(&mut self, name: &str, numbers: &mut Numbers) -> Arc<str> {
        if let Some((key, _)) = self.measurements.get_key_value(name) {
            return Arc::clone(key);
        }
        let key: Arc<str> = name.into();
        let measurement = Measurement {
            number: numbers.measurement,
            fields: Vec::new(),
            names: HashMap::new(),
            series: BTreeSet::new(),
        };
        numbers.measurement += 1;
        self.measurements.insert(Arc::clone(&key), measurement);
        key
    }

    /// The number of a series, added as staged where it is missing.
    pub(crate) fn series(&mut self, measurement: &str, tags: &Tags, numbers: &mut Numbers) -> SeriesId {
        if let Some(known) = self.find(measurement, tags) {
            return known;
        }
        let key = self.measurement(measurement, numbers);
        let id = SeriesId(numbers.series);
        numbers.series += 1;
        if let Some(entry) = self.measurements.get_mut(&*key) {
            entry.series.insert(id);
        }
        if let Some(vm) = vm_of(tags) {
            *self.vms.entry(vm.into()).or_insert(0) += 1;
        }
        let series = Series { measurement: key, tags: tags.into(), presence: Presence::Staged };
        self.series.insert(id, series);
        self.staged_series.push(id);
        let (all, hasher) = (&self.series, &self.hasher);
        let hash = hash_key(hasher, measurement, tags);
        self.keys.insert_unique(hash, id, |id| hash_key(hasher, &all[id].measurement, &all[id].tags));
        id
    }

    /// The number of a series that is known.
    pub(crate) fn find(&self, measurement: &str, tags: &Tags) -> Option<SeriesId> {
        let hash = hash_key(&self.hasher, measurement, tags);
        let same = |id: &SeriesId| {
            let series = &self.series[id];
            *series.measurement == *measurement && *series.tags == *tags
        };
        self.keys.find(hash, same).copied()
    }

    /// Shows a series and the given fields of it from now on.
    pub(crate) fn mark_live(&mut self, series: SeriesId, fields: impl IntoIterator<Item = u32>) {
        let Some(entry) = self.series.get_mut(&series) else { return };
        entry.presence = Presence::Live;
        let Some(measurement) = self.measurements.get_mut(&entry.measurement) else { return };
        for number in fields {
            if let Some(field) = measurement.fields.get_mut(number as usize)
                && field.presence == Presence::Staged
            {
                field.presence = Presence::Live;
            }
        }
    }

    /// Forgets what was staged and did not become live.
    pub(crate) fn settle(&mut self) {
        for (measurement, number) in std::mem::take(&mut self.staged_fields) {
            if let Some(entry) = self.measurements.get_mut(&measurement) {
                entry.bury_unless(number, |field| field.presence == Presence::Live);
            }
        }
        let staged = std::mem::take(&mut self.staged_series);
        for id in staged {
            if self.series.get(&id).is_some_and(|series| series.presence == Presence::Staged) {
                self.remove_series(id);
            }
        }
    }

    fn remove_series(&mut self, id: SeriesId) {
        let Some(series) = self.series.get(&id) else { return };
        let hash = hash_key(&self.hasher, &series.measurement, &series.tags);
        if let Ok(entry) = self.keys.find_entry(hash, |key| *key == id) {
            entry.remove();
        }
        let Some(series) = self.series.remove(&id) else { return };
        if let Some(vm) = vm_of(&series.tags)
            && let Some(count) = self.vms.get_mut(vm)
        {
            *count -= 1;
            if *count == 0 {
                self.vms.remove(vm);
            }
        }
        if let Some(measurement) = self.measurements.get_mut(&series.measurement) {
            measurement.series.remove(&id);
            if measurement.series.is_empty() {
                self.measurements.remove(&series.measurement);
            }
        }
    }

    /// Keeps only series and fields that still have values: `present` names the fields of each series.
    pub(crate) fn retain(&mut self, present: &HashMap<SeriesId, BTreeSet<u32>>) {
        let gone: Vec<SeriesId> =
            self.series.keys().filter(|id| !present.contains_key(*id)).copied().collect();
        for id in gone {
            self.remove_series(id);
        }
        for measurement in self.measurements.values_mut() {
            let fields: BTreeSet<u32> =
                measurement.series.iter().filter_map(|id| present.get(id)).flatten().copied().collect();
            for number in 0..measurement.fields.len() as u32 {
                measurement.bury_unless(number, |_| fields.contains(&number));
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.series.len()
    }

    /// How many series a VM has.
    pub(crate) fn series_of_vm(&self, vm: &str) -> usize {
        self.vms.get(vm).copied().unwrap_or(0)
    }

    /// The numbers of a measurement's series.
    pub(crate) fn series_of(&self, measurement: &str) -> Vec<SeriesId> {
        self.measurements.get(measurement).into_iter().flat_map(|m| &m.series).copied().collect()
    }

    pub(crate) fn measurement_names(&self) -> Vec<String> {
        let live = |m: &Measurement| m.series.iter().any(|id| self.is_live(*id));
        let mut names: Vec<String> =
            self.measurements.iter().filter(|(_, m)| live(m)).map(|(name, _)| name.to_string()).collect();
        names.sort();
        names
    }

    fn is_live(&self, id: SeriesId) -> bool {
        self.series.get(&id).is_some_and(|series| series.presence == Presence::Live)
    }

    /// Live fields, sorted by name.
    pub(crate) fn live_fields(&self, measurement: &str) -> Vec<(String, FieldType)> {
        let fields = self.measurements.get(measurement).map_or(&[][..], |m| &m.fields);
        let live = fields.iter().filter(|field| field.presence == Presence::Live);
        let mut fields: Vec<_> = live.map(|field| (field.name.to_string(), field.field_type)).collect();
        fields.sort();
        fields
    }

    /// Live series that every matcher accepts, sorted by tags.
    pub(crate) fn matching(&self, measurement: &str, matchers: &[Matcher]) -> Vec<(SeriesId, &Series)> {
        let ids = self.measurements.get(measurement).into_iter().flat_map(|m| &m.series);
        let series = ids.filter_map(|id| Some((*id, self.series.get(id)?)));
        let mut found: Vec<_> = series
            .filter(|(_, series)| series.presence == Presence::Live)
            .filter(|(_, series)| matchers.iter().all(|matcher| matcher.accepts(&series.tags)))
            .collect();
        found.sort_by(|(_, a), (_, b)| a.tags.cmp(&b.tags));
        found
    }

    pub(crate) fn get(&self, id: SeriesId) -> Option<&Series> {
        self.series.get(&id)
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = SeriesId> {
        self.series.keys().copied()
    }

    /// All fields a measurement has ever had, by number.
    pub(crate) fn fields_by_number(&self, measurement: &str) -> &[Field] {
        self.measurements.get(measurement).map_or(&[], |m| &m.fields)
    }

    /// The number of a live field.
    pub(crate) fn field_number(&self, measurement: &str, name: &str) -> Option<u32> {
        let measurement = self.measurements.get(measurement)?;
        let number = *measurement.names.get(name)?;
        (measurement.fields[number as usize].presence == Presence::Live).then_some(number)
    }
}

/// Whether a field is the one its name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldIs {
    Named,
    /// The name has another type.
    Hidden,
}

impl Measurement {
    fn bury_unless(&mut self, number: u32, keep: impl FnOnce(&Field) -> bool) {
        let Some(field) = self.fields.get_mut(number as usize) else { return };
        if field.presence != Presence::Dead && !keep(field) {
            field.presence = Presence::Dead;
            self.names.remove(&field.name);
        }
    }
}

fn type_conflict(measurement: &str, field: &Field, given: FieldType) -> RejectReason {
    RejectReason::FieldTypeConflict {
        field: field.name.clone(),
        measurement: measurement.into(),
        given,
        existing: field.field_type,
    }
}

fn hash_key(hasher: &foldhash::fast::RandomState, measurement: &str, tags: &Tags) -> u64 {
    hasher.hash_one((measurement, tags))
}

fn vm_of(tags: &Tags) -> Option<&str> {
    tags.iter().find(|(key, _)| &**key == VM_TAG).map(|(_, vm)| &**vm)
}

#[cfg(test)]
mod test {
    use super::*;
    use uni_wire::{FieldValue, Timestamp};

    const LIMITS: Limits = Limits { series_left: 1, max_series: 1, max_fields: 2 };

    fn point(fields: &[(&str, FieldValue)]) -> Point {
        Point {
            measurement: "m".into(),
            tags: vec![("vm".into(), "a".into())],
            fields: fields.iter().map(|(name, value)| ((*name).into(), value.clone())).collect(),
            time: Timestamp(0),
        }
    }

    #[test]
    fn what_is_staged_is_not_shown_until_live_and_forgotten_when_settled() {
        let (mut catalog, mut numbers, mut out) =
            (Catalog::default(), Numbers::default(), Resolved::default());
        let point = point(&[("x", FieldValue::Integer(1))]);
        catalog.intern(&point, &mut numbers, LIMITS, &mut out).unwrap();
        assert!(out.brings_new && catalog.measurement_names().is_empty());
        catalog.settle();
        assert_eq!(catalog.len(), 0);
        catalog.intern(&point, &mut numbers, LIMITS, &mut out).unwrap();
        catalog.mark_live(out.series, out.fields.clone());
        catalog.settle();
        assert_eq!(catalog.live_fields("m"), [("x".to_owned(), FieldType::Integer)]);
        catalog.resolve(&point, &mut out).unwrap();
        assert!(!out.brings_new);
    }

    #[test]
    fn a_conflict_inside_one_point_adds_nothing() {
        let (mut catalog, mut numbers, mut out) =
            (Catalog::default(), Numbers::default(), Resolved::default());
        let point = point(&[("x", FieldValue::Integer(1)), ("x", FieldValue::Float(1.0))]);
        let refused = catalog.intern(&point, &mut numbers, LIMITS, &mut out).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "field type conflict: input field \"x\" on measurement \"m\" is type float, already exists as type integer"
        );
        assert_eq!((catalog.len(), catalog.live_fields("m").len()), (0, 0));
    }

    #[test]
    fn limits_refuse_what_is_new_and_nothing_else() {
        let (mut catalog, mut numbers, mut out) =
            (Catalog::default(), Numbers::default(), Resolved::default());
        let mut one = point(&[("x", FieldValue::Integer(1)), ("y", FieldValue::Integer(1))]);
        catalog.intern(&one, &mut numbers, LIMITS, &mut out).unwrap();
        let none_left = Limits { series_left: 0, ..LIMITS };
        catalog.intern(&one, &mut numbers, none_left, &mut out).unwrap();
        one.fields.push(("z".into(), FieldValue::Integer(1)));
        let refused = catalog.intern(&one, &mut numbers, none_left, &mut out);
        assert!(matches!(refused, Err(RejectReason::FieldLimit { max: 2, .. })));
        one.fields.pop();
        one.tags.clear();
        let refused = catalog.intern(&one, &mut numbers, none_left, &mut out);
        assert_eq!(refused, Err(RejectReason::SeriesLimit { max: 1 }));
    }

    #[test]
    fn a_field_whose_values_are_gone_may_come_back_with_another_type() {
        let (mut catalog, mut numbers, mut out) =
            (Catalog::default(), Numbers::default(), Resolved::default());
        let both = point(&[("x", FieldValue::Integer(1)), ("y", FieldValue::Integer(1))]);
        catalog.intern(&both, &mut numbers, LIMITS, &mut out).unwrap();
        catalog.mark_live(out.series, out.fields.clone());
        catalog.settle();
        catalog.retain(&HashMap::from([(out.series, BTreeSet::from([out.fields[1]]))]));
        assert_eq!(catalog.live_fields("m"), [("y".to_owned(), FieldType::Integer)]);
        let float = point(&[("x", FieldValue::Float(1.0))]);
        catalog.intern(&float, &mut numbers, LIMITS, &mut out).unwrap();
        assert_eq!(out.fields, [2]);
    }
}
