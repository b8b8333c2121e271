//! `SHOW ...`: what databases, measurements, tags, fields and series there are.
//!
//! Owns these answers. Reads names and series, never points; conditions on time therefore do not count.

use crate::ast::{Page, Show, Statement};
use crate::error::RunError;
use crate::range;
use crate::response::{Cell, Table};
use crate::select::{Place, TagFilter, resolve_in};
use crate::source::{Policy, Series, Source};
use crate::time::format_duration;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use uni_wire::{FieldValue, Timestamp};

type Tables = Result<Vec<Table>, RunError>;

/// Answers a `SHOW` statement.
pub(crate) fn run(statement: &Statement, source: &dyn Source, db: Option<&str>, now: Timestamp) -> Tables {
    let lister = |show| Lister::new(show, source, db, now, true);
    match statement {
        Statement::ShowDatabases => Ok(vec![databases(source)]),
        Statement::ShowPolicies { db: named } => policies(source, named.as_deref().or(db)),
        Statement::ShowMeasurements(show) => lister(show)?.measurements(),
        Statement::ShowTagKeys(show) => lister(show)?.tag_keys(),
        Statement::ShowTagValues(show) => lister(show)?.tag_values(),
        Statement::ShowFieldKeys(show) => Lister::new(show, source, db, now, false)?.field_keys(),
        Statement::ShowSeries(show) => lister(show)?.series_keys(),
        Statement::ShowSeriesCardinality(show) => lister(show)?.cardinality(),
        _ => Ok(Vec::new()),
    }
}

fn table(name: &str, columns: &[&str], rows: Vec<Vec<Cell>>) -> Table {
    let columns = columns.iter().map(|&column| column.to_owned()).collect();
    Table { name: name.to_owned(), tags: Vec::new(), columns, rows }
}

fn databases(source: &dyn Source) -> Table {
    let rows = source.databases().into_iter().map(|name| vec![Cell::text(name)]).collect();
    table("databases", &["name"], rows)
}

fn policies(source: &dyn Source, db: Option<&str>) -> Tables {
    let policies = source.policies(check_database(source, db)?);
    let row = |policy: Policy| {
        vec![
            Cell::text(policy.name),
            Cell::text(format_duration(policy.duration)),
            Cell::text(format_duration(policy.shard_duration)),
            Cell::Value(Some(FieldValue::Integer(policy.replicas.into()))),
            Cell::Value(Some(FieldValue::Boolean(policy.is_default))),
        ]
    };
    let rows = policies.into_iter().map(row).collect();
    Ok(vec![table("", &["name", "duration", "shardGroupDuration", "replicaN", "default"], rows)])
}

fn check_database<'a>(source: &dyn Source, db: Option<&'a str>) -> Result<&'a str, RunError> {
    let db = db.ok_or(RunError::DatabaseRequired)?;
    if source.has_database(db) { Ok(db) } else { Err(RunError::DatabaseNotFound(db.to_owned())) }
}

/// What the `SHOW` statements over measurements have in common.
struct Lister<'a> {
    show: &'a Show,
    source: &'a dyn Source,
    places: Vec<Place>,
    filter: TagFilter,
}

impl<'a> Lister<'a> {
    /// `every`: in all policies where none is named, as series and tags are listed; fields are those of the default one.
    fn new(
        show: &'a Show,
        source: &'a dyn Source,
        db: Option<&str>,
        now: Timestamp,
        every: bool,
    ) -> Result<Self, RunError> {
        let db = show.db.as_deref().or(db);
        let (condition, _) = range::split(show.condition.as_ref(), now)?;
        let filter = TagFilter::new(condition.as_ref())?;
        let places = if show.from.is_empty() {
            let db = check_database(source, db)?;
            let inside = |space: String| {
                let names = source.measurements(&space).into_iter();
                names.map(move |name| (space.clone(), name)).collect::<Vec<_>>()
            };
            let spaces = if every { source.spaces(db) } else { source.space(db, None).into_iter().collect() };
            spaces.into_iter().flat_map(inside).collect()
        } else {
            resolve_in(source, db, &show.from, every)?
        };
        Ok(Self { show, source, places, filter })
    }

    /// The series of a measurement that meet the condition.
    fn series(&self, (db, measurement): &Place) -> impl Iterator<Item = Series> {
        let found = self.source.series(db, measurement, self.filter.matchers());
        found.into_iter().filter(|series| self.filter.accepts(series))
    }

    fn wanted(&self, name: &str) -> bool {
        self.show.with.as_ref().is_none_or(|test| test.accepts(name))
    }

    fn measurements(&self) -> Tables {
        let listed = |place: &&Place| {
            self.wanted(&place.1) && (self.show.condition.is_none() || self.series(place).next().is_some())
        };
        let names: BTreeSet<&str> =
            self.places.iter().filter(listed).map(|(_, name)| name.as_str()).collect();
        let rows = paged(names.into_iter().map(|name| vec![Cell::text(name)]), self.show.page);
        Ok(if rows.is_empty() { vec![] } else { vec![table("measurements", &["name"], rows)] })
    }

    fn tag_keys(&self) -> Tables {
        self.each_measurement(&["tagKey"], |place| {
            let keys: BTreeSet<String> =
                self.series(place).flat_map(|s| s.tags).map(|(key, _)| key).collect();
            keys.into_iter().filter(|key| self.wanted(key)).map(|key| vec![key]).collect()
        })
    }

    fn tag_values(&self) -> Tables {
        self.each_measurement(&["key", "value"], |place| {
            let tags = self.series(place).flat_map(|series| series.tags);
            let pairs: BTreeSet<_> =
                tags.filter(|(key, value)| self.wanted(key) && !value.is_empty()).collect();
            pairs.into_iter().map(|(key, value)| vec![key, value]).collect()
        })
    }

    fn field_keys(&self) -> Tables {
        self.each_measurement(&["fieldKey", "fieldType"], |(db, measurement)| {
            let fields: BTreeSet<_> = self
                .source
                .fields(db, measurement)
                .into_iter()
                .map(|(name, kind)| (name, kind.name()))
                .collect();
            fields.into_iter().map(|(name, kind)| vec![name, kind.to_owned()]).collect()
        })
    }

    fn series_keys(&self) -> Tables {
        let keys: BTreeSet<String> = self
            .places
            .iter()
            .flat_map(|place| self.series(place).map(|series| series_key(&place.1, &series)))
            .collect();
        let rows = paged(keys.into_iter().map(|key| vec![Cell::text(key)]), self.show.page);
        Ok(if rows.is_empty() { vec![] } else { vec![table("", &["key"], rows)] })
    }

    fn cardinality(&self) -> Tables {
        let keys: BTreeSet<(&str, Vec<(String, String)>)> = self
            .places
            .iter()
            .flat_map(|place| self.series(place).map(|series| (place.1.as_str(), series.tags)))
            .collect();
        let count = i64::try_from(keys.len()).unwrap_or(i64::MAX);
        let row = vec![Cell::Value(Some(FieldValue::Integer(count)))];
        Ok(vec![table("", &["cardinality estimation"], vec![row])])
    }

    /// One series for each measurement that has rows; `LIMIT` counts rows in each, `SLIMIT` series.
    fn each_measurement(&self, columns: &[&str], rows: impl Fn(&Place) -> Vec<Vec<String>>) -> Tables {
        let mut by_name: BTreeMap<&str, BTreeSet<Vec<String>>> = BTreeMap::new();
        for place in &self.places {
            by_name.entry(&place.1).or_default().extend(rows(place));
        }
        let page = self.show.page;
        let tables = by_name.into_iter().filter_map(|(name, rows)| {
            let cells = |row: Vec<String>| row.into_iter().map(Cell::text).collect();
            let rows: Vec<Vec<Cell>> = paged(rows.into_iter().map(cells), page);
            (!rows.is_empty()).then(|| table(name, columns, rows))
        });
        let by_series = Page { limit: page.series_limit, offset: page.series_offset, ..page };
        Ok(paged(tables, by_series))
    }
}

fn paged<T>(items: impl Iterator<Item = T>, page: Page) -> Vec<T> {
    let limit = if page.limit == 0 { usize::MAX } else { page.limit };
    items.skip(page.offset).take(limit).collect()
}

/// Measurement and tags as line protocol writes them.
fn series_key(measurement: &str, series: &Series) -> String {
    let mut tags: Vec<_> = series.tags.iter().filter(|(_, value)| !value.is_empty()).collect();
    tags.sort();
    let mut key = escaped(measurement, &[',', ' ']);
    for (name, value) in tags {
        let _ = write!(key, ",{}={}", escaped(name, &[',', '=', ' ']), escaped(value, &[',', '=', ' ']));
    }
    key
}

fn escaped(text: &str, special: &[char]) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if special.contains(&c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
