//! Rows that are computed: points into windows, windows into sequences, sequences side by side into rows.
//!
//! Owns the windows while points stream through them. Points are not kept, but by the functions that need them all
//! (see `reduce`) and by functions over points without windows.

use super::Context;
use super::bind::Bound;
use super::calls::{CallPlan, Func, Input};
use super::fill::{Kind, fill};
use super::plan::Plan;
use super::reduce::{Reducer, Sample};
use super::scan::{filters_points, scan, scan_summed};
use super::steps;
use super::window::Window;
use super::windows;
use crate::ast::Fill;
use crate::error::RunError;
use crate::eval::{Node, Row, cast_value};
use crate::limits::Budget;
use crate::response::Cell;
use crate::source::Series;
use crate::summary::{FieldSummary, Summed, WindowSummary};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use uni_wire::{FieldValue, Timestamp, Value};

/// The rows of a group of series.
pub(crate) fn rows(
    plan: &Plan,
    bound: &Bound,
    db: &str,
    series: &[Series],
    context: &mut Context<'_, '_>,
) -> Result<Vec<Vec<Cell>>, RunError> {
    let mut collectors: Vec<Collector<'_>> = plan
        .calls
        .iter()
        .zip(&bound.call_fields)
        .map(|(call, field)| Collector::new(plan, call, *field))
        .collect();
    let from = collectors.iter().map(|collector| collector.from).min().unwrap_or_else(|| plan.range.start());
    let takes_windows = collectors.iter().any(|collector| collector.call.func().is_some_and(windows::knows));
    let may_replace = collectors.iter().all(|collector| windows::may_replace(plan, collector.call));
    for one in series {
        if takes_windows && !filters_points(bound, one) {
            let grid = plan.window.map(Window::grid);
            scan_summed(bound, db, one, (from, plan.range.end()), grid, context, |item, context| {
                gather_summed(&mut collectors, item, may_replace, (&one.tags, bound), context.budget)
            })?;
            continue;
        }
        scan(bound, db, one, (from, plan.range.end()), context, |time, row, context| {
            for collector in &mut collectors {
                collector.push(time, row, &bound.beside, context.budget)?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
    }
    let mut sequences = Vec::new();
    for (collector, (kind, _)) in collectors.into_iter().zip(&bound.call_kinds) {
        sequences.push(collector.finish(plan, *kind, context.budget)?);
    }
    Ok(page(plan, join(plan, bound, sequences)))
}

/// Gives a point, or a window that all can take in place of its points, to the collectors. Answers whether they did.
fn gather_summed(
    collectors: &mut [Collector<'_>],
    item: Summed<'_>,
    may_replace: bool,
    (tags, bound): (&[(String, String)], &Bound),
    budget: &mut Budget<'_>,
) -> Result<bool, RunError> {
    match item {
        Summed::Point(time, values) => {
            for collector in collectors {
                collector.push(time.0, Row { tags, values }, &bound.beside, budget)?;
            }
            Ok(true)
        }
        Summed::Window(window) => {
            let stays_exact = || may_replace && collectors.iter().all(|one| one.may_take(window));
            if !(window.is_all || stays_exact()) {
                return Ok(false);
            }
            for collector in collectors {
                collector.push_window(window, budget)?;
            }
            Ok(true)
        }
    }
}

/// What one call gathers from the points of a group.
struct Collector<'q> {
    call: &'q CallPlan,
    field: Option<usize>,
    window: Option<Window>,
    /// Points before are for other calls.
    from: i64,
    gathered: Gathered,
}

enum Gathered {
    /// Windows by their starts; the one that points went to last is apart.
    Windows {
        func: Func,
        closed: BTreeMap<i64, Reducer>,
        open: Option<Open>,
    },
    Points(Vec<Sample>),
}

struct Open {
    start: i64,
    /// The first time after it.
    end: i64,
    reducer: Reducer,
}

impl<'q> Collector<'q> {
    fn new(plan: &Plan, call: &'q CallPlan, field: Option<usize>) -> Self {
        let before = plan.window.map_or(0, |window| window.every().saturating_mul(call.windows_before()));
        let gathered = match call.input {
            Input::Reduced(func) => Gathered::Windows { func, closed: BTreeMap::new(), open: None },
            Input::Points => Gathered::Points(Vec::new()),
        };
        let from = plan.range.start().saturating_sub(before);
        Self { call, field, window: plan.window, from, gathered }
    }

    fn push(
        &mut self,
        time: i64,
        row: Row<'_>,
        beside: &[Node],
        budget: &mut Budget<'_>,
    ) -> Result<(), RunError> {
        let value = self.field.and_then(|field| row.values.get(field)?.as_ref()).map(FieldValue::as_value);
        let value = match (value, self.call.field.cast) {
            (Some(value), Some(cast)) => cast_value(value, cast),
            (value, _) => value,
        };
        match value {
            Some(value) if time >= self.from => self.gather(time, value, row, beside, budget),
            _ => Ok(()),
        }
    }

    fn gather(
        &mut self,
        time: i64,
        value: Value<'_>,
        row: Row<'_>,
        beside: &[Node],
        budget: &mut Budget<'_>,
    ) -> Result<(), RunError> {
        match &mut self.gathered {
            Gathered::Points(points) => {
                points.push(Sample::new(time, Some(value.into())));
                budget.row()
            }
            Gathered::Windows { func, closed, open } => {
                let current = match open {
                    Some(current) if (current.start..current.end).contains(&time) => current,
                    _ => reopen(*func, self.window, time, closed, open, budget)?,
                };
                let others = || beside.iter().map(|node| node.owned(row)).collect();
                if current.reducer.push(*func, time, value, others) { budget.row() } else { Ok(()) }
            }
        }
    }

    /// Whether a window leads to what its points would.
    fn may_take(&self, window: &WindowSummary) -> bool {
        let Gathered::Windows { closed, open, .. } = &self.gathered else { return false };
        // One in which the call begins is taken apart.
        if window.span.0.0 < self.from && self.from <= window.span.1.0 {
            return false;
        }
        let Some(summary) = self.summary(window) else { return true };
        let time = windows::time_of(window);
        let start = self.window.map_or(i64::MIN, |grid| grid.start(time));
        let open = open.as_ref().filter(|open| open.start == start).map(|open| &open.reducer);
        match open.or_else(|| closed.get(&start)) {
            Some(reducer) => reducer.is_exact_with(summary),
            None => self.call.func().is_some_and(|func| Reducer::new(func).is_exact_with(summary)),
        }
    }

    fn summary<'w>(&self, window: &'w WindowSummary) -> Option<&'w FieldSummary> {
        window.fields.get(self.field?)?.as_ref()
    }

    /// Takes a window in place of its points.
    fn push_window(&mut self, window: &WindowSummary, budget: &mut Budget<'_>) -> Result<(), RunError> {
        let time = windows::time_of(window);
        let Some(summary) = self.summary(window).filter(|_| time >= self.from) else { return Ok(()) };
        let Gathered::Windows { func, closed, open } = &mut self.gathered else { return Ok(()) };
        if !windows::knows(*func) {
            return Ok(());
        }
        let current = match open {
            Some(current) if (current.start..current.end).contains(&time) => current,
            _ => reopen(*func, self.window, time, closed, open, budget)?,
        };
        current.reducer.push_window(*func, time, summary);
        Ok(())
    }

    /// The call's sequence: ascending, filled, all steps made.
    fn finish(self, plan: &Plan, kind: Kind, budget: &mut Budget<'_>) -> Result<Vec<Sample>, RunError> {
        let mut samples = match self.gathered {
            Gathered::Points(mut points) => {
                points.sort_by_key(|sample| sample.time);
                points
            }
            Gathered::Windows { func, mut closed, open } => {
                closed.extend(open.map(|open| (open.start, open.reducer)));
                let samples = results(plan, func, closed);
                match plan.window {
                    Some(window) => {
                        let range = (plan.range.from.map(|_| self.from), plan.range.end());
                        fill(samples, window, range, fill_of(plan, func), kind, budget)?
                    }
                    None => samples,
                }
            }
        };
        for step in &self.call.steps {
            samples = steps::apply(*step, samples);
        }
        Ok(samples)
    }
}

/// Closes the open window and opens the one that holds `time`.
fn reopen<'a>(
    func: Func,
    window: Option<Window>,
    time: i64,
    closed: &mut BTreeMap<i64, Reducer>,
    open: &'a mut Option<Open>,
    budget: &mut Budget<'_>,
) -> Result<&'a mut Open, RunError> {
    closed.extend(open.take().map(|open| (open.start, open.reducer)));
    let (start, end) = match window {
        Some(window) => {
            let start = window.start(time);
            (start, window.after(start))
        }
        None => (i64::MIN, i64::MAX),
    };
    let reducer = match closed.remove(&start) {
        Some(reducer) => reducer,
        None => {
            budget.buckets(1)?;
            Reducer::new(func)
        }
    };
    Ok(open.insert(Open { start, end, reducer }))
}

/// The results of all windows, with the times that rows show.
fn results(plan: &Plan, func: Func, windows: BTreeMap<i64, Reducer>) -> Vec<Sample> {
    let mut samples = Vec::with_capacity(windows.len());
    for (start, reducer) in windows {
        for mut sample in reducer.finish(func) {
            if plan.window.is_some() {
                sample.time = start;
            } else if !plan.keeps_point_time() {
                sample.time = plan.range.from.unwrap_or(0);
            }
            samples.push(sample);
        }
    }
    samples
}

/// A count of nothing is known: it is zero.
fn fill_of(plan: &Plan, func: Func) -> Fill {
    let counts = matches!(func, Func::Count | Func::CountDistinct);
    if counts && plan.fill == Fill::Null { Fill::Number(0.0) } else { plan.fill }
}

/// Rows out of the calls' sequences: one for each time that any of them has.
fn join(plan: &Plan, bound: &Bound, sequences: Vec<Vec<Sample>>) -> Vec<Vec<Cell>> {
    if let [samples] = sequences.as_slice() {
        let fillers: Vec<_> = bound.beside_kinds.iter().map(|kind| missing(plan, *kind)).collect();
        return samples.iter().map(|sample| row_of(bound, sample, &fillers)).collect();
    }
    let mut times: Vec<i64> = sequences.iter().flatten().map(|sample| sample.time).collect();
    times.sort_unstable();
    times.dedup();
    let mut missing: Vec<_> = bound.call_kinds.iter().map(|(_, kind)| missing(plan, *kind)).collect();
    let mut heads: Vec<_> = sequences.into_iter().map(|sequence| sequence.into_iter().peekable()).collect();
    let carry = plan.fill == Fill::Previous && plan.window.is_some();
    let values_at = |time: i64| {
        let value = heads.iter_mut().zip(&mut missing).map(|(head, missing)| {
            let Some(sample) = head.next_if(|sample| sample.time == time) else { return missing.clone() };
            if carry {
                missing.clone_from(&sample.value);
            }
            sample.value
        });
        value.collect::<Vec<_>>()
    };
    let values: Vec<_> = times.iter().copied().map(values_at).collect();
    times.into_iter().zip(values).map(|(time, values)| row(bound, time, &values)).collect()
}

/// What stands where a sequence has nothing at a time that another has, and beside a lone selector where the
/// picked point, or the whole window, has nothing.
fn missing(plan: &Plan, kind: Kind) -> Option<FieldValue> {
    match plan.fill {
        Fill::Number(n) if plan.window.is_some() => kind.number(n),
        _ => None,
    }
}

fn row_of(bound: &Bound, sample: &Sample, fillers: &[Option<FieldValue>]) -> Vec<Cell> {
    let beside = fillers
        .iter()
        .enumerate()
        .map(|(place, filler)| sample.beside.get(place).cloned().flatten().or_else(|| filler.clone()));
    let values: Vec<_> = std::iter::once(sample.value.clone()).chain(beside).collect();
    row(bound, sample.time, &values)
}

fn row(bound: &Bound, time: i64, values: &[Option<FieldValue>]) -> Vec<Cell> {
    let row = Row { tags: &[], values };
    let mut cells = vec![Cell::Time(Timestamp(time))];
    cells.extend(bound.outputs.iter().map(|node| Cell::Value(node.owned(row))));
    cells
}

/// Order, offset and limit.
fn page(plan: &Plan, mut rows: Vec<Vec<Cell>>) -> Vec<Vec<Cell>> {
    if plan.descending {
        rows.reverse();
    }
    let limit = if plan.page.limit == 0 { usize::MAX } else { plan.page.limit };
    rows.into_iter().skip(plan.page.offset).take(limit).collect()
}
