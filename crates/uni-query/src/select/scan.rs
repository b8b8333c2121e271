//! Reading the points of series: only the fields bound, only the range asked for, only rows the condition lets
//! through, counted against the limits.
//!
//! Owns the call of the source. What is done with a row is the caller's.

use super::Context;
use super::bind::Bound;
use crate::error::RunError;
use crate::eval::Row;
use crate::source::Series;
use crate::summary::{Grid, Summed};
use std::ops::ControlFlow;
use uni_wire::Timestamp;

/// Visits the rows of one series that meet the condition, in ascending time, from `from` to `to`, both included.
pub(crate) fn scan(
    bound: &Bound,
    db: &str,
    series: &Series,
    (from, to): (i64, i64),
    context: &mut Context<'_, '_>,
    mut visit: impl FnMut(i64, Row<'_>, &mut Context<'_, '_>) -> Result<ControlFlow<()>, RunError>,
) -> Result<(), RunError> {
    let fields: Vec<&str> = bound.fields.iter().map(String::as_str).collect();
    let filter = bound.condition.as_ref().filter(|node| node.decide(&series.tags).is_none());
    let source = context.source;
    let mut failed = None;
    source.scan(db, series.id, &fields, Timestamp(from), Timestamp(to), &mut |time, values| {
        let row = Row { tags: &series.tags, values };
        let step = context.budget.point().and_then(|()| {
            if filter.is_none_or(|node| node.is_true(row)) {
                visit(time.0, row, context)
            } else {
                Ok(ControlFlow::Continue(()))
            }
        });
        step.unwrap_or_else(|error| {
            failed = Some(error);
            ControlFlow::Break(())
        })
    })?;
    failed.map_or(Ok(()), Err)
}

/// As [`scan`], for who takes windows too; not to be called where the condition reads fields.
pub(crate) fn scan_summed(
    bound: &Bound,
    db: &str,
    series: &Series,
    (from, to): (i64, i64),
    grid: Option<Grid>,
    context: &mut Context<'_, '_>,
    mut visit: impl FnMut(Summed<'_>, &mut Context<'_, '_>) -> Result<bool, RunError>,
) -> Result<(), RunError> {
    let fields: Vec<&str> = bound.fields.iter().map(String::as_str).collect();
    let source = context.source;
    let mut failed = None;
    let range = (Timestamp(from), Timestamp(to));
    source.scan_summed(db, series.id, &fields, range, grid, &mut |item| match context
        .budget
        .point()
        .and_then(|()| visit(item, context))
    {
        Ok(taken) => ControlFlow::Continue(taken),
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    })?;
    failed.map_or(Ok(()), Err)
}

/// Whether the condition looks at the fields of each point.
pub(crate) fn filters_points(bound: &Bound, series: &Series) -> bool {
    bound.condition.as_ref().is_some_and(|node| node.decide(&series.tags).is_none())
}
