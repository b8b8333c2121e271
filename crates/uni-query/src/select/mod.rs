//! `SELECT`: from a statement to series of rows.
//!
//! Owns the order of the work: check and plan, then for each measurement bind names, choose and group series, and
//! hand each group to `raw` or `aggregate`. Reads points only through `Scan`.

mod aggregate;
mod bind;
mod calls;
mod fill;
mod plan;
mod raw;
mod reduce;
mod scan;
mod steps;
mod window;
mod windows;

use crate::ast::{Expr, From, MeasurementName, Page, Select};
use crate::error::RunError;
use crate::eval::Node;
use crate::limits::Budget;
use crate::names::Schema;
use crate::response::Table;
use crate::source::{Series, Source, TagMatcher};
use bind::Bound;
use plan::{Plan, Shape};
use std::collections::{BTreeMap, BTreeSet};
use uni_wire::Timestamp;

/// What a statement is executed with.
pub(crate) struct Context<'a, 'b> {
    pub(crate) source: &'a dyn Source,
    pub(crate) db: Option<&'a str>,
    pub(crate) now: Timestamp,
    pub(crate) budget: &'a mut Budget<'b>,
}

/// A measurement in a space: the points of a policy of a database.
pub(crate) type Place = (String, String);

/// The measurements that a `FROM` means, by name.
pub(crate) fn resolve(source: &dyn Source, db: Option<&str>, from: &[From]) -> Result<Vec<Place>, RunError> {
    resolve_in(source, db, from, false)
}

/// As [`resolve`]; where no policy is named, `every` means all.
pub(crate) fn resolve_in(
    source: &dyn Source,
    db: Option<&str>,
    from: &[From],
    every: bool,
) -> Result<Vec<Place>, RunError> {
    let mut places = BTreeSet::new();
    for item in from {
        let db = item.db.as_deref().filter(|db| !db.is_empty()).or(db).ok_or(RunError::DatabaseRequired)?;
        if !source.has_database(db) {
            return Err(RunError::DatabaseNotFound(db.to_owned()));
        }
        let policy = item.policy.as_deref().filter(|policy| !policy.is_empty());
        let spaces = match policy {
            None if every => source.spaces(db),
            policy => vec![source.space(db, policy).map_err(RunError::PolicyNotFound)?],
        };
        for space in spaces {
            match &item.measurement {
                MeasurementName::Exact(name) => {
                    places.insert((name.clone(), space));
                }
                MeasurementName::Pattern(pattern) => {
                    let names = source.measurements(&space).into_iter().filter(|name| pattern.is_match(name));
                    places.extend(names.map(|name| (name, space.clone())));
                }
            }
        }
    }
    Ok(places.into_iter().map(|(name, db)| (db, name)).collect())
}

/// Executes a `SELECT`.
pub(crate) fn run(select: &Select, context: &mut Context<'_, '_>) -> Result<Vec<Table>, RunError> {
    if let Some(what) = &select.unsupported {
        return Err(RunError::Unsupported(what.clone()));
    }
    let places = resolve(context.source, context.db, &select.from)?;
    let mut schema = Schema::default();
    for (db, measurement) in &places {
        schema.add_fields(context.source, db, measurement);
        if plan::needs_tags(select) {
            schema.add_tags(context.source, db, measurement);
        }
    }
    let plan = plan::plan(select, &schema, context)?;
    let mut tables = Vec::new();
    if plan.range.start() > plan.range.end() {
        return Ok(tables);
    }
    for place in &places {
        run_measurement(&plan, place, context, &mut tables)?;
    }
    if plan.descending {
        tables.reverse();
    }
    Ok(tables)
}

/// A condition of a `SHOW` statement: over tags alone.
pub(crate) struct TagFilter {
    node: Option<Node>,
    matchers: Vec<TagMatcher>,
}

impl TagFilter {
    pub(crate) fn new(condition: Option<&Expr>) -> Result<Self, RunError> {
        let node = condition.map(bind::tag_condition).transpose()?;
        let mut matchers = Vec::new();
        if let Some(node) = &node {
            bind::collect_matchers(node, &mut matchers);
        }
        Ok(Self { node, matchers })
    }

    pub(crate) fn matchers(&self) -> &[TagMatcher] {
        &self.matchers
    }

    pub(crate) fn accepts(&self, series: &Series) -> bool {
        self.node.as_ref().is_none_or(|node| node.decide(&series.tags) == Some(true))
    }
}

/// The series of one output series.
struct Group {
    tags: Vec<(String, String)>,
    series: Vec<Series>,
}

fn run_measurement(
    plan: &Plan,
    (db, measurement): &Place,
    context: &mut Context<'_, '_>,
    tables: &mut Vec<Table>,
) -> Result<(), RunError> {
    let mut schema = Schema::default();
    schema.add_fields(context.source, db, measurement);
    plan.check_types(&schema)?;
    let bound = Bound::new(plan, &schema)?;
    if !bound.reads_fields() {
        return Ok(());
    }
    let mut series = context.source.series(db, measurement, &bound.matchers());
    series.retain(|series| bound.may_match(series));
    for group in groups(series, plan) {
        context.budget.check_cancelled()?;
        let rows = match plan.shape {
            Shape::Raw => raw::rows(plan, &bound, db, &group.series, context)?,
            Shape::Aggregate => aggregate::rows(plan, &bound, db, &group.series, context)?,
        };
        if !rows.is_empty() {
            tables.push(Table {
                name: measurement.clone(),
                tags: group.tags,
                columns: plan.columns.clone(),
                rows,
            });
        }
    }
    Ok(())
}

/// The series by the values of their dimensions, sorted, and of these the page that `SLIMIT` and `SOFFSET` ask for.
fn groups(mut series: Vec<Series>, plan: &Plan) -> Vec<Group> {
    series.sort_by(|a, b| a.tags.cmp(&b.tags));
    let mut by_values: BTreeMap<Vec<String>, Vec<Series>> = BTreeMap::new();
    for one in series {
        let values = plan.dimensions.iter().map(|key| one.tag(key).to_owned()).collect();
        by_values.entry(values).or_default().push(one);
    }
    let mut groups: Vec<Group> = by_values
        .into_iter()
        .map(|(values, series)| Group { tags: plan.dimensions.iter().cloned().zip(values).collect(), series })
        .collect();
    let Page { series_limit, series_offset, .. } = plan.page;
    if series_limit > 0 || series_offset > 0 {
        // InfluxDB counts in the order of the tags that are there, and shows in the order of all
        groups.sort_by_cached_key(Group::key);
        let limit = if series_limit == 0 { usize::MAX } else { series_limit };
        groups = groups.into_iter().skip(series_offset).take(limit).collect();
        groups.sort_by(|a, b| a.tags.cmp(&b.tags));
    }
    groups
}

impl Group {
    /// The keys of the tags that the series have, then their values.
    fn key(&self) -> String {
        let present = || self.tags.iter().filter(|(_, value)| !value.is_empty());
        let parts: Vec<&str> = present()
            .map(|(key, _)| key.as_str())
            .chain(present().map(|(_, value)| value.as_str()))
            .collect();
        parts.join("|")
    }
}
