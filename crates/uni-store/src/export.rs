//! Rows as line protocol, page by page, in a fixed order: measurement, (field,) series, time.
//!
//! Owns where a page ends and where the next one begins. A page knows nothing of the ones before, so that whoever reads
//! slowly holds nothing up; rows written meanwhile may or may not be on later pages.

use crate::error::ScanError;
use crate::matcher::{Matcher, Op};
use crate::read::SeriesInfo;
use crate::store::Store;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use uni_wire::line::{Framing, LineWriter};
use uni_wire::{FieldValue, Timestamp};

/// Most series that are looked at for one page: without it, a page of a database in which nothing is wanted takes as
/// long as reading all of it.
const MAX_SERIES: usize = 10_000;

/// Which rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ExportSelection {
    /// Of this database.
    pub database: String,
    /// Of this measurement; all if there is none.
    pub measurement: Option<String>,
    /// Whose tag `vm` has this value.
    pub vm: Option<String>,
    /// From this time on, in nanoseconds since the Unix epoch; the earliest if there is none.
    pub from_ns: Option<i64>,
    /// To this time, included.
    pub to_ns: Option<i64>,
    /// Field by field, each line with one, instead of row by row.
    pub by_field: bool,
}

/// Where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ExportCursor {
    measurement: String,
    /// With [`ExportSelection::by_field`].
    field: Option<String>,
    tags: Vec<(Box<str>, Box<str>)>,
    /// In this series only rows after this time; all rows of later ones.
    after_ns: i64,
}

/// Lines of one or more series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ExportPage {
    /// Line protocol; each line ends with `\n`, each has its time in nanoseconds.
    pub lines: String,
    /// Lines on the page.
    pub count: u64,
    /// Where to go on; `None` after the last page.
    pub next: Option<ExportCursor>,
    /// What could not be read: its rows are missing.
    pub damaged: Vec<String>,
}

/// What a measurement is made of: for formats whose columns have to be known before the first row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MeasurementSchema {
    /// The measurement.
    pub name: String,
    /// Keys of all tags that a series of it has, sorted.
    pub tags: Vec<String>,
    /// Its fields, sorted, each with its type as InfluxDB calls it.
    pub fields: Vec<(String, String)>,
}

/// What has to be visited, in order.
struct Part<'a> {
    measurement: &'a str,
    fields: Vec<&'a str>,
}

impl Store {
    /// The rows from `cursor` on, about `max_bytes` of them.
    ///
    /// # Errors
    /// [`ScanError::NoDatabase`]. Damage is no error, but noted on the page.
    pub fn export(
        &self,
        selection: &ExportSelection,
        cursor: Option<&ExportCursor>,
        max_bytes: usize,
    ) -> Result<ExportPage, ScanError> {
        if !self.has_database(&selection.database) {
            return Err(ScanError::NoDatabase { database: selection.database.clone() });
        }
        let mut page = ExportPage::default();
        let begins_at = cursor.map_or("", |cursor| &cursor.measurement);
        let measurements = self.measurements(&selection.database).into_iter();
        let wanted = |name: &String| selection.measurement.as_ref().is_none_or(|wanted| wanted == name);
        for measurement in measurements.filter(|name| wanted(name) && &**name >= begins_at) {
            let cursor = cursor.filter(|cursor| cursor.measurement == measurement);
            page.next = self.export_measurement(selection, &measurement, cursor, max_bytes, &mut page)?;
            if page.next.is_some() {
                break;
            }
        }
        Ok(page)
    }

    /// The measurements of a database.
    ///
    /// # Errors
    /// [`ScanError::NoDatabase`].
    pub fn schema(&self, database: &str) -> Result<Vec<MeasurementSchema>, ScanError> {
        if !self.has_database(database) {
            return Err(ScanError::NoDatabase { database: database.to_owned() });
        }
        let schema = |name: String| {
            let tags = self.series(database, &name, &[]).into_iter().flat_map(|series| series.tags);
            let tags: BTreeSet<String> = tags.map(|(key, _)| key.into_string()).collect();
            let fields = self.fields(database, &name).into_iter();
            let fields = fields.map(|(field, kind)| (field, kind.name().to_owned())).collect();
            MeasurementSchema { name, tags: tags.into_iter().collect(), fields }
        };
        Ok(self.measurements(database).into_iter().map(schema).collect())
    }

    fn export_measurement(
        &self,
        selection: &ExportSelection,
        measurement: &str,
        cursor: Option<&ExportCursor>,
        max_bytes: usize,
        page: &mut ExportPage,
    ) -> Result<Option<ExportCursor>, ScanError> {
        let vm = selection.vm.as_deref().and_then(|vm| Matcher::new("vm", Op::Equal, vm).ok());
        let series = self.series(&selection.database, measurement, vm.as_slice());
        let fields = self.fields(&selection.database, measurement);
        let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        let groups: Vec<Vec<&str>> = match selection.by_field {
            true => names.iter().map(|name| vec![*name]).collect(),
            false => vec![names],
        };
        for fields in groups {
            let field = selection.by_field.then(|| fields[0].to_owned());
            // Cursors of other fields: those before are done, those after begin at the first series.
            let cursor = cursor.filter(|cursor| cursor.field >= field);
            if cursor.is_some_and(|cursor| cursor.field > field) {
                continue;
            }
            let part = Part { measurement, fields };
            let begins_at = cursor.map_or(&[][..], |cursor| &cursor.tags);
            let left = series.iter().filter(|one| &one.tags[..] >= begins_at);
            for (n, one) in left.enumerate() {
                let after = cursor.filter(|cursor| cursor.tags == one.tags).map(|cursor| cursor.after_ns);
                let full_at = self.export_series(selection, &part, one, after, max_bytes, page)?;
                if let Some(after_ns) = full_at.or_else(|| (n > MAX_SERIES).then_some(i64::MAX)) {
                    let (measurement, tags) = (measurement.to_owned(), one.tags.clone());
                    return Ok(Some(ExportCursor { measurement, field, tags, after_ns }));
                }
            }
        }
        Ok(None)
    }

    /// The time of the last row that found room on the page; `None` if all did.
    fn export_series(
        &self,
        selection: &ExportSelection,
        part: &Part<'_>,
        series: &SeriesInfo,
        after_ns: Option<i64>,
        max_bytes: usize,
        page: &mut ExportPage,
    ) -> Result<Option<i64>, ScanError> {
        let from = selection.from_ns.unwrap_or(i64::MIN);
        let Some(from) = after_ns.map_or(Some(from), |after| after.checked_add(1)) else { return Ok(None) };
        let to = selection.to_ns.unwrap_or(i64::MAX);
        let mut full_at = None;
        let mut visit = |time: Timestamp, values: &[Option<FieldValue>]| {
            put_line(page, part, &series.tags, time, values);
            if page.lines.len() < max_bytes {
                return ControlFlow::Continue(());
            }
            full_at = Some(time.nanos());
            ControlFlow::Break(())
        };
        let scanned = self.scan(
            &selection.database,
            series.id,
            &part.fields,
            Timestamp(from),
            Timestamp(to),
            &mut visit,
        );
        match scanned {
            Err(error @ ScanError::NoDatabase { .. }) => return Err(error),
            Err(error) => page.damaged.push(error.to_string()),
            Ok(()) => {}
        }
        Ok(full_at)
    }
}

fn put_line(
    page: &mut ExportPage,
    part: &Part<'_>,
    tags: &[(Box<str>, Box<str>)],
    time: Timestamp,
    values: &[Option<FieldValue>],
) {
    let tags = tags.iter().map(|(key, value)| (&**key, &**value));
    let mut line = LineWriter::new(&mut page.lines, part.measurement, tags).framing(Framing::Body);
    for (name, value) in part.fields.iter().zip(values) {
        if let Some(value) = value {
            // a string takes all
            let _ = line.field(name, value.as_value());
        }
    }
    page.count += u64::from(line.finish(Some(time)) == Ok(true));
}
