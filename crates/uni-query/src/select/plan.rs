//! The plan of a `SELECT`: checked, wildcards replaced, calls found, time range known.
//!
//! Owns the rules that hold for all measurements. Names are bound to one measurement's fields by `bind`.

use super::Context;
use super::calls::{CallPlan, Func};
use super::window::Window;
use crate::ast::{Call, Cast, Expr, Fill, Op, Page, Ref, Select, Wildcard};
use crate::error::{RunError, invalid};
use crate::names::{self, Schema};
use crate::range::{self, Range};
use regex::Regex;
use std::collections::BTreeSet;
use uni_wire::FieldType;

/// Whether rows are points or values computed from points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Raw,
    Aggregate,
}

/// What is to be done for each measurement.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) shape: Shape,
    /// The names of all columns, that of the times first.
    pub(crate) columns: Vec<String>,
    /// What the columns after the first hold.
    pub(crate) outputs: Vec<Expr>,
    /// The distinct calls in the columns, in the order they appear.
    pub(crate) calls: Vec<CallPlan>,
    /// Fields and tags beside a lone selector.
    pub(crate) beside: Vec<Ref>,
    pub(crate) condition: Option<Expr>,
    pub(crate) range: Range,
    pub(crate) window: Option<Window>,
    pub(crate) fill: Fill,
    /// The tags of `GROUP BY`, sorted.
    pub(crate) dimensions: Vec<String>,
    pub(crate) descending: bool,
    pub(crate) page: Page,
}

/// What `GROUP BY` says.
#[derive(Default)]
struct Grouping<'a> {
    window: Option<Window>,
    tags: BTreeSet<String>,
    all: bool,
    patterns: Vec<&'a Regex>,
}

/// Whether the statement cannot be planned without the list of all tags.
pub(crate) fn needs_tags(select: &Select) -> bool {
    let many = |expr: &Expr| matches!(expr, Expr::Wildcard(_) | Expr::Regex(_));
    select.dimensions.iter().any(many) || select.fields.iter().any(|field| many(&field.expr))
}

/// Checks a statement and makes its plan. `schema` is that of all its measurements together.
pub(crate) fn plan(select: &Select, schema: &Schema, context: &Context<'_, '_>) -> Result<Plan, RunError> {
    let mut grouping = grouping(&select.dimensions)?;
    let matching = schema.tags().filter(|tag| grouping.patterns.iter().any(|pattern| pattern.is_match(tag)));
    let every = if grouping.all { schema.tags().collect() } else { Vec::new() };
    let more: Vec<String> = matching.chain(every).map(str::to_owned).collect();
    grouping.tags.extend(more);
    let (columns, time_name) = names::expand(&select.fields, schema, &|tag| grouping.tags.contains(tag))?;
    let mut names = vec![time_name];
    names.extend(names::column_names(&columns));
    let (condition, range) = range::split(select.condition.as_ref(), context.now)?;
    let mut plan = Plan {
        shape: Shape::Raw,
        columns: names,
        outputs: columns.into_iter().map(|column| column.expr).collect(),
        calls: Vec::new(),
        beside: Vec::new(),
        condition,
        range,
        window: grouping.window,
        fill: select.fill,
        dimensions: grouping.tags.into_iter().collect(),
        descending: select.descending,
        page: select.page,
    };
    plan.find_calls(select)?;
    plan.close_range(context)?;
    Ok(plan)
}

impl Plan {
    /// Finds the calls of the columns, and with them the shape.
    fn find_calls(&mut self, select: &Select) -> Result<(), RunError> {
        let (mut calls, mut refs) = (Vec::new(), Vec::new());
        for output in &self.outputs {
            let before = calls.len() + refs.len();
            operands(output, &mut calls, &mut refs)?;
            if calls.len() + refs.len() == before {
                return invalid("field must contain at least one variable");
            }
        }
        for call in calls {
            let plan = CallPlan::new(call, self.window)?;
            if !self.calls.contains(&plan) {
                self.calls.push(plan);
            }
        }
        self.beside = refs.into_iter().cloned().collect();
        if self.calls.is_empty() { self.check_raw(select) } else { self.check_aggregate() }
    }

    fn check_raw(&self, select: &Select) -> Result<(), RunError> {
        if self.window.is_some() && !select.fields.iter().any(|field| names_call(&field.expr)) {
            return invalid("GROUP BY requires at least one aggregate function");
        }
        if self.outputs.is_empty()
            && !needs_tags(select)
            && !select.fields.iter().any(|f| names_call(&f.expr))
        {
            return invalid("at least 1 non-time field must be queried");
        }
        match self.fill {
            Fill::None => invalid("fill(none) must be used with a function"),
            Fill::Linear => invalid("fill(linear) must be used with a function"),
            _ => Ok(()),
        }
    }

    fn check_aggregate(&mut self) -> Result<(), RunError> {
        self.shape = Shape::Aggregate;
        let distinct = self.calls.iter().any(|call| call.func() == Some(Func::Distinct));
        if distinct && (self.calls.len() > 1 || !self.beside.is_empty()) {
            return invalid(
                "aggregate function distinct() cannot be combined with other functions or fields",
            );
        }
        if self.beside.is_empty() {
            return Ok(());
        }
        match self.calls.as_slice() {
            [call] if call.steps.is_empty() && call.func().is_some_and(Func::keeps_point) => Ok(()),
            [call] if call.steps.is_empty() && call.func().is_some_and(Func::is_selector) => {
                Err(RunError::Unsupported("percentile() with other fields or tags".into()))
            }
            calls
                if calls
                    .iter()
                    .all(|call| call.steps.is_empty() && call.func().is_some_and(Func::is_selector)) =>
            {
                invalid("mixing multiple selector functions with tags or fields is not supported")
            }
            _ => invalid("mixing aggregate and non-aggregate queries is not supported"),
        }
    }

    /// A grouped query without an end ends now. More windows than allowed are refused before a point is read.
    fn close_range(&mut self, context: &Context<'_, '_>) -> Result<(), RunError> {
        let Some(window) = self.window else { return Ok(()) };
        let to = *self.range.to.get_or_insert(context.now.0);
        match self.range.from {
            Some(from) if from <= to && self.fill != Fill::None => {
                context.budget.check_buckets(window.count(window.start(from), window.start(to)))
            }
            _ => Ok(()),
        }
    }

    /// Refuses functions over fields of a type that they do not take.
    pub(crate) fn check_types(&self, schema: &Schema) -> Result<(), RunError> {
        self.calls.iter().try_for_each(|call| call.check_types(schema.types(&call.field.name)))?;
        self.outputs.iter().try_for_each(|output| check_arithmetic(output, schema))
    }

    /// Whether a row has the time of the point that was picked, not that of its window or range.
    pub(crate) fn keeps_point_time(&self) -> bool {
        let lone = matches!(self.calls.as_slice(), [call] if call.func().is_some_and(Func::is_selector));
        lone && self.window.is_none()
    }
}

/// Refuses arithmetic with texts: with fields that are nothing else, and with tags.
fn check_arithmetic(expr: &Expr, schema: &Schema) -> Result<(), RunError> {
    let Expr::Binary { left, right, .. } = expr else { return Ok(()) };
    for side in [left, right] {
        check_arithmetic(side, schema)?;
        let text = match &**side {
            Expr::Text(_) => true,
            Expr::Ref(name) => match schema.types(&name.name) {
                [] => name.cast == Some(Cast::Tag),
                types => types.iter().all(|kind| *kind == FieldType::String),
            },
            _ => false,
        };
        if text {
            return invalid("type error: incompatible types: a text cannot be computed with");
        }
    }
    Ok(())
}

fn names_call(expr: &Expr) -> bool {
    match expr {
        Expr::Call(_) => true,
        Expr::Binary { left, right, .. } => names_call(left) || names_call(right),
        _ => false,
    }
}

/// The calls and names in a column; what is inside a call is the call's.
fn operands<'a>(expr: &'a Expr, calls: &mut Vec<&'a Call>, refs: &mut Vec<&'a Ref>) -> Result<(), RunError> {
    match expr {
        Expr::Call(call) => calls.push(call),
        Expr::Ref(name) if name.is_time() => return invalid("time cannot be used in an expression"),
        Expr::Ref(name) => refs.push(name),
        Expr::Binary { op, left, right } => {
            if matches!(op, Op::And | Op::Or) || op.precedence() == Op::Eq.precedence() {
                return invalid("comparisons and logic are not supported in SELECT, only + - * / % & | ^");
            }
            operands(left, calls, refs)?;
            operands(right, calls, refs)?;
        }
        _ => {}
    }
    Ok(())
}

fn grouping(dimensions: &[Expr]) -> Result<Grouping<'_>, RunError> {
    let mut grouping = Grouping::default();
    for dimension in dimensions {
        match dimension {
            Expr::Ref(name) if name.is_time() => {
                return invalid("time() is a function and expects at least one argument");
            }
            Expr::Ref(name) => {
                grouping.tags.insert(name.name.clone());
            }
            Expr::Wildcard(Wildcard::All | Wildcard::Tags) => grouping.all = true,
            Expr::Regex(pattern) => grouping.patterns.push(pattern),
            Expr::Call(call) if call.name == "time" => {
                if grouping.window.is_some() {
                    return invalid("multiple time dimensions not allowed");
                }
                grouping.window = Some(window(call)?);
            }
            Expr::Call(_) => return invalid("only time() calls allowed in dimensions"),
            _ => return invalid("only time and tag dimensions allowed"),
        }
    }
    Ok(grouping)
}

fn window(call: &Call) -> Result<Window, RunError> {
    let duration = |expr: &Expr| match expr {
        Expr::Duration(nanos) => Ok(*nanos),
        _ => invalid("time dimension must have duration argument"),
    };
    let (every, offset) = match call.args.as_slice() {
        [every] => (duration(every)?, 0),
        [every, offset] => (duration(every)?, duration(offset)?),
        _ => return invalid("time dimension expected 1 or 2 arguments"),
    };
    match Window::new(every, offset) {
        Some(window) => Ok(window),
        None => invalid("time dimension must have a duration above zero"),
    }
}
