//! Rows that are points.
//!
//! Owns their order (time, then series) and the paging, which ends the reading early where it can.

use super::Context;
use super::bind::Bound;
use super::plan::Plan;
use super::scan::scan;
use crate::error::RunError;
use crate::response::Cell;
use crate::source::Series;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use uni_wire::Timestamp;

/// A row and its time.
type Timed = (i64, Vec<Cell>);

/// The rows of a group of series.
pub(crate) fn rows(
    plan: &Plan,
    bound: &Bound,
    db: &str,
    series: &[Series],
    context: &mut Context<'_, '_>,
) -> Result<Vec<Vec<Cell>>, RunError> {
    let wanted = match plan.page.limit {
        0 => usize::MAX,
        limit => limit.saturating_add(plan.page.offset),
    };
    let mut all: Vec<Timed> = Vec::new();
    for one in series {
        all.extend(series_rows(plan, bound, db, one, wanted, context)?);
    }
    // series come sorted and their rows ascending: a stable sort merges them and keeps the order of equal times
    all.sort_by_key(|(time, _)| *time);
    if plan.descending {
        all.reverse();
    }
    let limit = if plan.page.limit == 0 { usize::MAX } else { plan.page.limit };
    Ok(all.into_iter().skip(plan.page.offset).take(limit).map(|(_, row)| row).collect())
}

/// The first `wanted` rows of a series, or the last if the order is descending; ascending in either case.
fn series_rows(
    plan: &Plan,
    bound: &Bound,
    db: &str,
    series: &Series,
    wanted: usize,
    context: &mut Context<'_, '_>,
) -> Result<VecDeque<Timed>, RunError> {
    let mut kept: VecDeque<Timed> = VecDeque::new();
    let range = (plan.range.start(), plan.range.end());
    scan(bound, db, series, range, context, |time, row, context| {
        if row.values.iter().take(bound.selected).all(Option::is_none) {
            return Ok(ControlFlow::Continue(()));
        }
        context.budget.row()?;
        let mut cells = vec![Cell::Time(Timestamp(time))];
        cells.extend(bound.outputs.iter().map(|node| Cell::Value(node.owned(row))));
        kept.push_back((time, cells));
        if kept.len() < wanted {
            return Ok(ControlFlow::Continue(()));
        }
        if !plan.descending {
            return Ok(ControlFlow::Break(()));
        }
        if kept.len() > wanted {
            kept.pop_front();
            context.budget.release_row();
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(kept)
}
