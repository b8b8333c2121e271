//! Bringing one log file into the head.
//!
//! Owns what the numbers of a log mean and what they become here: each file defines its own, and this store gave its
//! names others. Rows are copied as they are; only the number of their shape is written anew. Rows of version 1 are
//! taken apart and written again.

use crate::bytes::{Damaged, Reader, put_varint, unzigzag};
use crate::catalog::{FieldIs, SeriesId};
use crate::point::TagList;
use crate::recovery::Recovery;
use crate::row::{RowWriter, Shape, put_time};
use crate::state::{State, partition_of, partition_span};
use crate::v1::row::Fields;
use crate::wal::{Entries, Entry, parts};
use hashbrown::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use uni_wire::FieldType;

/// A row that is not a multiple of milliseconds away from what was expected.
const MILLISECOND: i64 = 1_000_000;

/// Numbers of series are small, as long as the file is ours.
const MAX_DENSE: u64 = 1 << 20;

/// A series of the file.
#[derive(Debug)]
struct Known {
    id: SeriesId,
    database: u32,
    /// State of its times; `None` until a row has begun anew.
    last: Option<(i64, i64)>,
}

/// Brings one log file into the head.
#[derive(Debug)]
pub(crate) struct Replay<'a> {
    state: &'a mut State,
    report: &'a mut Recovery,
    partition_seconds: i64,
    version: u8,
    databases: Vec<Box<str>>,
    measurements: HashMap<u32, (String, String)>,
    fields: HashMap<(u32, u32), (String, FieldType)>,
    series: HashMap<u64, (u32, TagList)>,
    shapes: HashMap<u64, (u32, Vec<u32>)>,
    known: Vec<Known>,
    /// Where in `known` a series of the file is.
    known_series: HashMap<u64, u32, foldhash::fast::FixedState>,
    /// As `known_series`, for numbers below [`MAX_DENSE`], plus one; 0 for none. Every row asks.
    dense: Vec<u32>,
    known_shapes: HashMap<u64, u32>,
    /// `None` for a field that clashes.
    known_fields: HashMap<(u32, u32), Option<u32>>,
    /// The partition of the row before, in a database.
    span: Option<(u32, RangeInclusive<i64>)>,
    scratch: Vec<u8>,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(
        state: &'a mut State,
        report: &'a mut Recovery,
        partition_seconds: i64,
        version: u8,
    ) -> Self {
        Self {
            state,
            report,
            partition_seconds,
            version,
            databases: Vec::new(),
            measurements: HashMap::new(),
            fields: HashMap::new(),
            series: HashMap::new(),
            shapes: HashMap::new(),
            known: Vec::new(),
            known_series: HashMap::default(),
            dense: Vec::new(),
            known_shapes: HashMap::new(),
            known_fields: HashMap::new(),
            span: None,
            scratch: Vec::new(),
        }
    }

    /// After the last frame: what was named and got no row is forgotten.
    pub(crate) fn finish(self) {
        self.state.databases.values_mut().for_each(|database| database.catalog.settle());
    }

    pub(crate) fn frame(&mut self, payload: &[u8]) -> Result<(), Damaged> {
        if self.version == 1 {
            return self.entries(Entries::of(payload));
        }
        let (entries, mut rows) = parts(payload)?;
        self.entries(entries)?;
        while let Some((series, row)) = rows.next()? {
            self.row(series, row)?;
        }
        Ok(())
    }

    fn entries(&mut self, mut entries: Entries<'_>) -> Result<(), Damaged> {
        while let Some(entry) = entries.next()? {
            match entry {
                Entry::Measurement { number, database, name } => {
                    self.measurements.insert(number, (database.to_owned(), name.to_owned()));
                }
                // What is defined once more as it was keeps its state: a row of this frame may build on it.
                Entry::Field { measurement, number, field_type, name } => {
                    let (key, new) = ((measurement, number), (name.to_owned(), field_type));
                    if self.fields.insert(key, new.clone()) != Some(new) {
                        self.known_fields.remove(&key);
                    }
                }
                Entry::Series { number, measurement, tags } => {
                    let new = (measurement, tags);
                    if self.series.get(&number) != Some(&new) {
                        self.series.insert(number, new);
                        self.forget(number);
                    }
                }
                Entry::Shape { number, measurement, fields } => {
                    let (number, new) = (u64::from(number), (measurement, fields));
                    if self.shapes.get(&number) != Some(&new) {
                        self.shapes.insert(number, new);
                        self.known_shapes.remove(&number);
                    }
                }
                Entry::RowV1 { series, time, row } => self.row_v1(series, time, row)?,
                Entry::Drop { database, before } => self.drop(database, before),
            }
        }
        Ok(())
    }

    fn forget(&mut self, number: u64) {
        self.known_series.remove(&number);
        if let Some(place) = usize::try_from(number).ok().and_then(|number| self.dense.get_mut(number)) {
            *place = 0;
        }
    }

    /// Where in `known` the series behind a number of the file is; `None` where its database is gone.
    #[inline]
    fn series(&mut self, number: u64) -> Result<Option<usize>, Damaged> {
        let dense = usize::try_from(number).ok().and_then(|number| self.dense.get(number));
        if let Some(place @ 1..) = dense {
            return Ok(Some(*place as usize - 1));
        }
        if let Some(place) = self.known_series.get(&number) {
            return Ok(Some(*place as usize));
        }
        self.new_series(number)
    }

    fn new_series(&mut self, number: u64) -> Result<Option<usize>, Damaged> {
        let (measurement, tags) = self.series.get(&number).ok_or(Damaged("a series that is not defined"))?;
        let place = self.measurements.get(measurement);
        let (database, name) = place.ok_or(Damaged("a measurement that is not defined"))?;
        let State { databases, numbers, .. } = &mut *self.state;
        let Some(known) = databases.get_mut(database) else { return Ok(None) };
        let id = known.catalog.series(name, tags, numbers);
        let at = self.databases.iter().position(|known| **known == **database).unwrap_or_else(|| {
            self.databases.push(database.as_str().into());
            self.databases.len() - 1
        });
        let place = self.known.len();
        self.known.push(Known { id, database: at as u32, last: None });
        if number < MAX_DENSE {
            let index = number as usize;
            self.dense.resize(self.dense.len().max(index + 1), 0);
            self.dense[index] = place as u32 + 1;
        } else {
            self.known_series.insert(number, place as u32);
        }
        Ok(Some(place))
    }

    /// The number here of a field of the file, and whether its name leads to it.
    fn field(&mut self, measurement: u32, number: u32) -> Result<(u32, FieldType, bool), Damaged> {
        let key = (measurement, number);
        let (text, field_type) = self.fields.get(&key).ok_or(Damaged("a field that is not defined"))?;
        if let Some(Some(known)) = self.known_fields.get(&key) {
            return Ok((*known, *field_type, true));
        }
        let place = self.measurements.get(&measurement);
        let (database, name) = place.ok_or(Damaged("a measurement that is not defined"))?;
        let State { databases, numbers, .. } = &mut *self.state;
        let known = databases.get_mut(database).ok_or(Damaged("a database that is gone"))?;
        let (here, is) = known.catalog.field(name, text, *field_type, numbers);
        let named = is == FieldIs::Named;
        self.known_fields.insert(key, named.then_some(here));
        Ok((here, *field_type, named))
    }

    /// The number here of a shape of the file.
    fn shape(&mut self, number: u64) -> Result<u32, Damaged> {
        if let Some(known) = self.known_shapes.get(&number) {
            return Ok(*known);
        }
        let (measurement, fields) =
            self.shapes.get(&number).cloned().ok_or(Damaged("a shape that is not defined"))?;
        let mut here = Vec::with_capacity(fields.len());
        for field in fields {
            let (number, field_type, _) = self.field(measurement, field)?;
            here.push((number, field_type));
        }
        let shape = self.state.head.intern(measurement, &here);
        self.known_shapes.insert(number, shape);
        Ok(shape)
    }

    fn row(&mut self, number: u64, row: &[u8]) -> Result<(), Damaged> {
        let Some(place) = self.series(number)? else {
            self.report.points_refused += 1;
            return Ok(());
        };
        let mut reader = Reader::new(row);
        let control = reader.varint()?;
        let anew = control & 1 == 1;
        let time = if anew {
            self.begin_anew(place, control >> 1, &mut reader)?
        } else {
            let change = unzigzag(control >> 2);
            let change = if control & 2 == 2 { change.wrapping_mul(MILLISECOND) } else { change };
            let known = &mut self.known[place];
            let (last, step) = known.last.ok_or(Damaged("a row without a row before it"))?;
            let time = last.wrapping_add(step).wrapping_add(change);
            known.last = Some((time, time.wrapping_sub(last)));
            time
        };
        self.note_span(place, time);
        let head = &mut self.state.head;
        let bytes = if anew { &self.scratch[..] } else { row };
        head.series_mut(self.known[place].id).push_raw(bytes, time);
        head.count(1);
        self.report.points_replayed += 1;
        Ok(())
    }

    /// A row that begins anew, with the shape's number here, goes to `scratch`.
    fn begin_anew(&mut self, place: usize, shape: u64, reader: &mut Reader<'_>) -> Result<i64, Damaged> {
        let rest = reader.rest();
        let time = reader.zigzag()?;
        let here = self.shape(shape)?;
        self.scratch.clear();
        put_varint(&mut self.scratch, u64::from(here) << 1 | 1);
        self.scratch.extend_from_slice(rest);
        self.known[place].last = Some((time, 0));
        let shapes = Arc::clone(&self.state.head.shapes);
        let fields = shapes.get(here).map_or(&[][..], |shape: &Shape| &shape.fields);
        self.mark_live(place, fields);
        Ok(time)
    }

    fn mark_live(&mut self, place: usize, fields: &[(u32, FieldType)]) {
        let known = &self.known[place];
        if let Some(database) = self.state.databases.get_mut(&*self.databases[known.database as usize]) {
            database.catalog.mark_live(known.id, fields.iter().map(|(field, _)| *field));
        }
    }

    #[inline]
    fn note_span(&mut self, place: usize, time: i64) {
        let database = self.known[place].database;
        if self.span.as_ref().is_some_and(|(of, span)| *of == database && span.contains(&time)) {
            return;
        }
        let start_s = partition_of(time, self.partition_seconds);
        if let Some(known) = self.state.databases.get_mut(&*self.databases[database as usize]) {
            known.spans.insert(start_s);
        }
        let (first, last) = partition_span(start_s, self.partition_seconds);
        self.span = Some((database, first..=last));
    }

    fn row_v1(&mut self, number: u64, time: i64, row: &[u8]) -> Result<(), Damaged> {
        let measurement = self.series.get(&number).ok_or(Damaged("a series that is not defined"))?.0;
        let Some(place) = self.series(number)? else {
            self.report.points_refused += 1;
            return Ok(());
        };
        let (mut fields, mut values) = (Vec::new(), Vec::new());
        for field in Fields::of(row) {
            let (field, value) = field?;
            let (here, field_type, named) = self.field(measurement, field)?;
            if value.field_type() != field_type {
                return Err(Damaged("a value of another type than its field"));
            }
            if named && let Some(at) = fields.iter().position(|(known, _)| *known == here) {
                values[at] = value;
            } else if named {
                fields.push((here, field_type));
                values.push(value);
            }
        }
        if fields.is_empty() {
            self.report.points_refused += 1;
            return Ok(());
        }
        let head = &mut self.state.head;
        let shape_number = head.intern(measurement, &fields);
        let shape = Shape::new(measurement, fields.as_slice().into());
        let mut base = crate::row::Base::default();
        let (mut bytes, mut rest) = (Vec::new(), Vec::new());
        let mut writer = RowWriter::new(&mut rest, &mut base, &shape, true);
        values.iter().for_each(|value| writer.value(*value));
        writer.finish();
        put_time(&mut bytes, &mut base, time, Some(shape_number));
        bytes.extend_from_slice(&rest);
        head.series_mut(self.known[place].id).push_raw(&bytes, time);
        head.count(1);
        self.mark_live(place, &fields);
        self.note_span(place, time);
        self.report.points_replayed += 1;
        Ok(())
    }

    fn drop(&mut self, database: &str, before: i64) {
        if let Some(known) = self.state.databases.get_mut(database) {
            known.catalog.settle();
        }
        self.state.drop_rows_before(database, before);
        self.state.recount(database, self.partition_seconds);
        // What has lost its last value has lost its number too.
        self.known_series.clear();
        self.dense.clear();
        self.known_fields.clear();
        self.known_shapes.clear();
        self.span = None;
    }
}
