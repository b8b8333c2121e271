//! Windows that a source has summed up: when a function may take one, and what it makes of it.
//!
//! Owns the rule that an answer is the same, bit for bit, with windows and without, as long as the points are there.
//! Where they are gone, a window counts for what it is worth.

use super::calls::{CallPlan, Func};
use super::plan::Plan;
use super::reduce::{Reducer, Sample, better, keep};
use crate::ast::Cast;
use crate::eval::float;
use crate::summary::{FieldSummary, WindowSum, WindowSummary};
use std::cmp::Ordering;
use uni_wire::FieldValue;

/// Floats that are whole and below this magnitude are added without rounding.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Whether a function can be computed from windows at all.
pub(super) fn knows(func: Func) -> bool {
    matches!(
        func,
        Func::Count
            | Func::Sum
            | Func::Mean
            | Func::Min
            | Func::Max
            | Func::First
            | Func::Last
            | Func::Spread
    )
}

/// Whether a call's answer can come out of windows in place of points that are there.
pub(super) fn may_replace(plan: &Plan, call: &CallPlan) -> bool {
    let takes_time = plan.keeps_point_time() && matches!(call.func(), Some(Func::Min | Func::Max));
    call.func().is_some_and(knows)
        && matches!(call.field.cast, None | Some(Cast::Field))
        && plan.beside.is_empty()
        && !takes_time
}

/// The time at which a window counts: where points are gone, its start; else that of its first point.
pub(super) fn time_of(window: &WindowSummary) -> i64 {
    if window.is_all { window.start.0 } else { window.span.0.0 }
}

impl Reducer {
    /// Whether a window leads to what its points would.
    pub(super) fn is_exact_with(&self, summary: &FieldSummary) -> bool {
        let (Self::Sum(sum) | Self::Mean { sum, .. }) = self else { return true };
        match &summary.sum {
            WindowSum::About(_) => false,
            WindowSum::Exact(FieldValue::Float(_)) => {
                // Every step on the way is whole and small: then none of them rounds.
                let magnitude = |value: &FieldValue| float(value.as_value()).map_or(f64::INFINITY, f64::abs);
                let most = magnitude(&summary.min).max(magnitude(&summary.max)) * summary.count as f64;
                sum.rest().fract() == 0.0 && sum.rest().abs() + most < EXACT
            }
            WindowSum::Exact(_) => true,
        }
    }

    /// Takes a window in place of its points.
    pub(super) fn push_window(&mut self, func: Func, time: i64, summary: &FieldSummary) {
        match self {
            Self::Count(count) => *count = count.saturating_add_unsigned(summary.count),
            Self::Sum(sum) => sum.add_window(&summary.sum),
            Self::Mean { sum, count } => {
                sum.add_window(&summary.sum);
                *count = count.saturating_add(summary.count);
            }
            Self::Pick(best) => {
                let (time, value) = match func {
                    Func::Min => (time, &summary.min),
                    Func::Max => (time, &summary.max),
                    Func::First => (summary.first.0.0, &summary.first.1),
                    _ => (summary.last.0.0, &summary.last.1),
                };
                if best.as_ref().is_none_or(|best| better(func, time, value.as_value(), best)) {
                    *best = Some(Sample::new(time, Some(value.clone())));
                }
            }
            Self::Spread { low, high } => {
                keep(low, summary.min.as_value(), Ordering::Less);
                keep(high, summary.max.as_value(), Ordering::Greater);
            }
            Self::Samples(_) | Self::Seen(_) => {}
        }
    }
}
