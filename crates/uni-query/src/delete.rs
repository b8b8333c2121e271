//! `DELETE`, `DROP SERIES` and `DROP MEASUREMENT`: which rows of which series are meant.
//!
//! Owns that choice. Deleting is the source's business.

use crate::ast::{Delete, Expr, MeasurementName, Ref};
use crate::error::{RunError, invalid};
use crate::range::{self, Range};
use crate::select::TagFilter;
use crate::source::{Doomed, Source};
use uni_wire::Timestamp;

type Done = Result<(), RunError>;

/// `DROP MEASUREMENT`.
pub(crate) fn drop_measurement(source: &dyn Source, db: Option<&str>, name: &str) -> Done {
    let every = |space| Doomed { space, measurement: name.to_owned(), series: None };
    let doomed: Vec<Doomed> = spaces(source, db)?.into_iter().map(every).collect();
    Ok(source.delete((Timestamp(i64::MIN), Timestamp(i64::MAX)), &doomed)?)
}

/// `DROP SERIES`.
pub(crate) fn drop_series(source: &dyn Source, db: Option<&str>, what: &Delete, now: Timestamp) -> Done {
    let (_, range) = range::split(what.condition.as_ref(), now)?;
    if range != Range::default() {
        return invalid("DROP SERIES doesn't support time in WHERE clause");
    }
    delete(source, db, what, now)
}

/// `DELETE`, in all policies.
pub(crate) fn delete(source: &dyn Source, db: Option<&str>, what: &Delete, now: Timestamp) -> Done {
    let spaces = spaces(source, db)?;
    let (condition, range) = range::split(what.condition.as_ref(), now)?;
    let mut names = Vec::new();
    condition.iter().for_each(|condition| references(condition, &mut names));
    let filter = TagFilter::new(condition.as_ref())?;
    let mut doomed = Vec::new();
    for space in spaces {
        for measurement in source.measurements(&space).into_iter().filter(|name| is_meant(what, name)) {
            let all = source.series(&space, &measurement, filter.matchers());
            let is_field = |name: &&Ref| {
                source.fields(&space, &measurement).iter().any(|(field, _)| *field == name.name)
                    && !all.iter().any(|series| series.tags.iter().any(|(key, _)| *key == name.name))
            };
            if names.iter().any(is_field) {
                return invalid("fields not supported in WHERE clause during deletion");
            }
            let series: Option<Vec<u64>> = condition.is_some().then(|| {
                all.iter().filter(|series| filter.accepts(series)).map(|series| series.id).collect()
            });
            if series.as_ref().is_none_or(|series| !series.is_empty()) {
                doomed.push(Doomed { space: space.clone(), measurement, series });
            }
        }
    }
    Ok(source.delete((Timestamp(range.start()), Timestamp(range.end())), &doomed)?)
}

fn spaces(source: &dyn Source, db: Option<&str>) -> Result<Vec<String>, RunError> {
    let db = db.unwrap_or_default();
    if source.has_database(db) {
        Ok(source.spaces(db))
    } else {
        Err(RunError::DatabaseNotFound(db.to_owned()))
    }
}

fn is_meant(what: &Delete, measurement: &str) -> bool {
    let names = |from: &crate::ast::From| match &from.measurement {
        MeasurementName::Exact(name) => name == measurement,
        MeasurementName::Pattern(pattern) => pattern.is_match(measurement),
    };
    what.from.is_empty() || what.from.iter().any(names)
}

/// The names in an expression.
fn references<'a>(expr: &'a Expr, names: &mut Vec<&'a Ref>) {
    match expr {
        Expr::Ref(name) => names.push(name),
        Expr::Binary { left, right, .. } => {
            references(left, names);
            references(right, names);
        }
        _ => {}
    }
}
