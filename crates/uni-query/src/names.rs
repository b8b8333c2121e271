//! Names of columns, and what `*` and patterns in a `SELECT` stand for.
//!
//! Owns [`Schema`] (the fields and tags of one or more measurements), the expansion and InfluxDB's naming rules.

use crate::ast::{Call, Cast, Expr, Field, Ref, Wildcard};
use crate::error::{RunError, invalid};
use crate::source::Source;
use regex::Regex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uni_wire::FieldType;

/// The fields and tags of measurements.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    fields: BTreeMap<String, Vec<FieldType>>,
    tags: BTreeSet<String>,
}

impl Schema {
    /// Adds the fields of a measurement.
    pub(crate) fn add_fields(&mut self, source: &dyn Source, db: &str, measurement: &str) {
        for (name, kind) in source.fields(db, measurement) {
            self.fields.entry(name).or_default().push(kind);
        }
    }

    /// Adds the tags of a measurement; looks at each of its series.
    pub(crate) fn add_tags(&mut self, source: &dyn Source, db: &str, measurement: &str) {
        for series in source.series(db, measurement, &[]) {
            self.tags.extend(series.tags.into_iter().map(|(key, _)| key));
        }
    }

    pub(crate) fn has_field(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// The types of a field; empty for none.
    pub(crate) fn types(&self, name: &str) -> &[FieldType] {
        self.fields.get(name).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn tags(&self) -> impl Iterator<Item = &str> {
        self.tags.iter().map(String::as_str)
    }

    /// Fields and tags together, by name, as `*` lists them. A name that is both appears twice.
    fn all(&self) -> Vec<(&str, Wildcard)> {
        let fields = self.fields.keys().map(|name| (name.as_str(), Wildcard::Fields));
        let mut all: Vec<_> = fields.chain(self.tags().map(|name| (name, Wildcard::Tags))).collect();
        all.sort_by_key(|(name, _)| *name);
        all
    }
}

/// A column with its final name, if the statement gives it one.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) expr: Expr,
    alias: Option<String>,
}

/// The columns of a `SELECT`, wildcards replaced, and the name of the column of times. `grouped` says which tags
/// are dimensions: they are not columns too.
pub(crate) fn expand(
    fields: &[Field],
    schema: &Schema,
    grouped: &dyn Fn(&str) -> bool,
) -> Result<(Vec<Column>, String), RunError> {
    let mut columns = Vec::new();
    let mut time_name = "time".to_owned();
    for field in fields {
        match &field.expr {
            Expr::Ref(name) if name.is_time() => time_name = field.alias.clone().unwrap_or(time_name),
            Expr::Wildcard(kind) => columns.extend(names_of(schema, *kind, None, grouped)),
            Expr::Regex(pattern) => columns.extend(names_of(schema, Wildcard::All, Some(pattern), grouped)),
            Expr::Call(call) if innermost_is_many(call) => columns.extend(calls_of(call, field, schema)?),
            expr if has_many(expr) => return invalid("unsupported expression with wildcard"),
            expr => columns.push(Column { expr: expr.clone(), alias: field.alias.clone() }),
        }
    }
    Ok((columns, time_name))
}

/// The fields and tags that a wildcard or pattern means, as columns.
fn names_of(
    schema: &Schema,
    kind: Wildcard,
    pattern: Option<&Regex>,
    grouped: &dyn Fn(&str) -> bool,
) -> Vec<Column> {
    let wanted = |(name, found): &(&str, Wildcard)| {
        (kind == Wildcard::All || kind == *found)
            && (*found == Wildcard::Fields || !grouped(name))
            && pattern.is_none_or(|pattern| pattern.is_match(name))
    };
    let column = |(name, found): (&str, Wildcard)| {
        let cast = if found == Wildcard::Tags { Cast::Tag } else { Cast::Field };
        Column { expr: Expr::Ref(Ref { name: name.to_owned(), cast: Some(cast) }), alias: None }
    };
    schema.all().into_iter().filter(wanted).map(column).collect()
}

/// The calls that `mean(*)` or `mean(/x/)` means: one for each field of a type that the function takes.
fn calls_of(call: &Call, field: &Field, schema: &Schema) -> Result<Vec<Column>, RunError> {
    let (function, pattern) = innermost(call);
    if matches!(function.args.first(), Some(Expr::Wildcard(Wildcard::Tags))) {
        return invalid(format!("unable to use tag wildcard in {}()", function.name));
    }
    let takes = |kind: &FieldType| match kind {
        FieldType::Float | FieldType::Integer | FieldType::Unsigned => true,
        FieldType::Boolean => {
            matches!(function.name.as_str(), "count" | "first" | "last" | "distinct" | "min" | "max")
        }
        FieldType::String => matches!(function.name.as_str(), "count" | "first" | "last" | "distinct"),
    };
    let wanted = |(name, types): &(&String, &Vec<FieldType>)| {
        types.iter().any(takes) && pattern.is_none_or(|pattern| pattern.is_match(name))
    };
    let prefix = field.alias.as_deref().unwrap_or(&call.name);
    let column = |(name, _): (&String, &Vec<FieldType>)| {
        let argument = Ref { name: name.clone(), cast: Some(Cast::Field) };
        Column { expr: Expr::Call(with_innermost(call, &argument)), alias: Some(format!("{prefix}_{name}")) }
    };
    Ok(schema.fields.iter().filter(wanted).map(column).collect())
}

/// The call deepest in first arguments, and the pattern that is its argument.
fn innermost(call: &Call) -> (&Call, Option<&Regex>) {
    match call.args.first() {
        Some(Expr::Call(inner)) => innermost(inner),
        Some(Expr::Regex(pattern)) => (call, Some(pattern)),
        _ => (call, None),
    }
}

fn innermost_is_many(call: &Call) -> bool {
    matches!(innermost(call).0.args.first(), Some(Expr::Wildcard(_) | Expr::Regex(_)))
}

fn with_innermost(call: &Call, argument: &Ref) -> Call {
    let mut changed = call.clone();
    if let Some(first) = changed.args.first_mut() {
        *first = match first {
            Expr::Call(inner) => Expr::Call(with_innermost(inner, argument)),
            _ => Expr::Ref(argument.clone()),
        };
    }
    changed
}

fn has_many(expr: &Expr) -> bool {
    match expr {
        Expr::Wildcard(_) | Expr::Regex(_) => true,
        Expr::Binary { left, right, .. } => has_many(left) || has_many(right),
        Expr::Call(call) => call.args.iter().any(has_many),
        _ => false,
    }
}

/// The names of the columns: aliases first, then names by content; a name already taken gets `_1`, `_2`, ...
pub(crate) fn column_names(columns: &[Column]) -> Vec<String> {
    let mut seen: HashMap<String, usize> =
        columns.iter().filter_map(|column| column.alias.clone()).map(|alias| (alias, 1)).collect();
    columns
        .iter()
        .map(|column| column.alias.clone().unwrap_or_else(|| unused(&name_of(&column.expr), &mut seen)))
        .collect()
}

fn unused(name: &str, seen: &mut HashMap<String, usize>) -> String {
    let Some(&count) = seen.get(name) else {
        seen.insert(name.to_owned(), 1);
        return name.to_owned();
    };
    let (free, next) = (count..)
        .map(|n| (format!("{name}_{n}"), n + 1))
        .find(|(candidate, _)| !seen.contains_key(candidate))
        .unwrap_or_default();
    seen.insert(name.to_owned(), next);
    seen.insert(free.clone(), 1);
    free
}

/// A field's name, a call's function, those of an operation joined by `_`.
fn name_of(expr: &Expr) -> String {
    let mut parts = Vec::new();
    collect_names(expr, &mut parts);
    parts.join("_")
}

fn collect_names<'a>(expr: &'a Expr, parts: &mut Vec<&'a str>) {
    match expr {
        Expr::Ref(reference) => parts.push(&reference.name),
        Expr::Call(call) => parts.push(&call.name),
        Expr::Binary { left, right, .. } => {
            collect_names(left, parts);
            collect_names(right, parts);
        }
        _ => {}
    }
}
