//! Windows without points: what stands in them.
//!
//! Owns `fill(...)`. A group without any point gets no rows at all, whatever the fill.

use super::calls::{CallPlan, Func, Step};
use super::reduce::Sample;
use super::window::Window;
use crate::ast::Fill;
use crate::error::RunError;
use crate::eval::float;
use crate::limits::Budget;
use uni_wire::{FieldType, FieldValue};

/// One sample for each window, fillers in the type `kind`, from the one that holds `from` (or the first with points) to the one that holds `to`.
pub(crate) fn fill(
    samples: Vec<Sample>,
    window: Window,
    (from, to): (Option<i64>, i64),
    with: Fill,
    kind: Kind,
    budget: &mut Budget<'_>,
) -> Result<Vec<Sample>, RunError> {
    let Some(first_sample) = samples.first() else { return Ok(samples) };
    if with == Fill::None {
        return Ok(samples);
    }
    let first = from.map_or(first_sample.time, |from| window.start(from));
    let last = window.start(to);
    let count = window.count(first, last);
    budget.check_buckets(count)?;
    budget.buckets(count.saturating_sub(samples.len() as u128))?;
    let mut out: Vec<Sample> = Vec::with_capacity(samples.len());
    let mut rest = samples.into_iter().peekable();
    // the place in `out` of the last sample that is no filler
    let mut real = None;
    let mut at = first;
    loop {
        let before = out.len();
        while let Some(sample) = rest.next_if(|sample| sample.time <= at) {
            real = Some(out.len());
            out.push(sample);
        }
        if out.len() == before {
            let last_real = real.and_then(|place: usize| out.get(place));
            let value = filler(with, at, last_real, rest.peek(), kind);
            out.push(Sample::new(at, value));
        }
        let next = window.after(at);
        if next > last || next <= at {
            return Ok(out);
        }
        at = next;
    }
}

/// The type of a column, as far as fillers must fit it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Whole,
    Float,
    /// Texts and truth values: no number fits.
    Other,
}

impl Kind {
    /// That of a field or tag; a name without types is a tag.
    pub(crate) fn of_types(types: &[FieldType]) -> Self {
        let any = |wanted: &[FieldType]| types.iter().any(|kind| wanted.contains(kind));
        if any(&[FieldType::Float]) {
            Self::Float
        } else if any(&[FieldType::Integer, FieldType::Unsigned]) {
            Self::Whole
        } else {
            Self::Other
        }
    }

    /// That of what a function gives for a window of a field of these types.
    fn of_func(func: Func, types: &[FieldType]) -> Self {
        match func {
            Func::Mean | Func::Median | Func::Stddev => Self::Float,
            Func::Count | Func::CountDistinct => Self::Whole,
            _ => Self::of_types(types),
        }
    }

    /// Those of a call over a field of these types: of the windows inside, and of what comes out.
    pub(crate) fn of_call(call: &CallPlan, types: &[FieldType]) -> (Self, Self) {
        let inside = call.func().map_or_else(|| Self::of_types(types), |func| Self::of_func(func, types));
        let averages = |step: &Step| matches!(step, Step::Derivative { .. } | Step::MovingAverage(_));
        (inside, if call.steps.iter().any(averages) { Self::Float } else { inside })
    }

    /// A filler's number in this type.
    pub(crate) fn number(self, n: f64) -> Option<FieldValue> {
        match self {
            Self::Whole => Some(FieldValue::Integer(n as i64)),
            Self::Float => Some(FieldValue::Float(n)),
            Self::Other => None,
        }
    }
}

/// What stands in the window at `time`, between the sample before and the next.
fn filler(
    with: Fill,
    time: i64,
    before: Option<&Sample>,
    next: Option<&Sample>,
    kind: Kind,
) -> Option<FieldValue> {
    match with {
        Fill::Null | Fill::None => None,
        Fill::Number(n) => kind.number(n),
        Fill::Previous => before.and_then(|sample| sample.value.clone()),
        Fill::Linear => linear(time, before?, next?, kind),
    }
}

/// The point at `time` on the line through both.
fn linear(time: i64, before: &Sample, next: &Sample, kind: Kind) -> Option<FieldValue> {
    let low = float(before.value.as_ref()?.as_value())?;
    let high = float(next.value.as_ref()?.as_value())?;
    let part = (i128::from(time) - i128::from(before.time)) as f64;
    let span = (i128::from(next.time) - i128::from(before.time)) as f64;
    kind.number(low + (high - low) * (part / span))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    fn filled(with: Fill, from: Option<i64>, to: i64) -> Vec<(i64, Option<FieldValue>)> {
        let samples = vec![
            Sample::new(20, Some(FieldValue::Float(1.0))),
            Sample::new(50, Some(FieldValue::Float(4.0))),
        ];
        let window = Window::new(10, 0).expect("above zero");
        let mut budget = Budget::new(Limits::default());
        let out = fill(samples, window, (from, to), with, Kind::Float, &mut budget).expect("within limits");
        out.into_iter().map(|sample| (sample.time, sample.value)).collect()
    }

    fn values(with: Fill) -> Vec<Option<f64>> {
        let value = |(_, value): (i64, Option<FieldValue>)| value.and_then(|value| float(value.as_value()));
        filled(with, Some(15), 65).into_iter().map(value).collect()
    }

    #[test]
    fn every_window_of_the_range_has_a_row() {
        let times: Vec<i64> = filled(Fill::Null, Some(15), 65).iter().map(|(time, _)| *time).collect();
        assert_eq!(times, [10, 20, 30, 40, 50, 60]);
        assert_eq!(filled(Fill::None, Some(15), 65).len(), 2);
        assert_eq!(filled(Fill::Null, None, 55).len(), 4);
    }

    #[test]
    fn fillers_stand_where_no_points_are() {
        assert_eq!(values(Fill::Null), [None, Some(1.0), None, None, Some(4.0), None]);
        assert_eq!(values(Fill::Previous), [None, Some(1.0), Some(1.0), Some(1.0), Some(4.0), Some(4.0)]);
        assert_eq!(values(Fill::Linear), [None, Some(1.0), Some(2.0), Some(3.0), Some(4.0), None]);
        assert_eq!(values(Fill::Number(7.0))[0], Some(7.0));
    }

    #[test]
    fn fillers_have_the_type_of_their_column() {
        let filler = |types: &[FieldType]| Kind::of_types(types).number(3.7);
        assert_eq!(filler(&[FieldType::Integer]), Some(FieldValue::Integer(3)));
        assert_eq!(filler(&[FieldType::Integer, FieldType::Float]), Some(FieldValue::Float(3.7)));
        assert_eq!(filler(&[FieldType::String]), None);
        assert_eq!(filler(&[]), None);
    }

    #[test]
    fn too_many_windows_are_refused() {
        let window = Window::new(1, 0).expect("above zero");
        let mut budget = Budget::new(Limits { max_buckets: 100, ..Limits::default() });
        let samples = vec![Sample::new(20, None)];
        let error = fill(samples, window, (Some(0), i64::MAX), Fill::Null, Kind::Float, &mut budget)
            .expect_err("too many");
        assert!(matches!(error, RunError::Buckets { .. }));
    }
}
