//! Functions over a sequence of values: rates, differences, sums so far, averages of neighbours.
//!
//! Owns their arithmetic. Sequences are ascending in time; nulls are passed over; of values at one time the first
//! counts.

use super::calls::Step;
use super::reduce::{Sample, difference};
use crate::eval::{float, from_wide};
use std::collections::VecDeque;
use uni_wire::FieldValue;

/// The sequence after a step.
pub(crate) fn apply(step: Step, samples: Vec<Sample>) -> Vec<Sample> {
    let values = samples.into_iter().filter_map(|sample| Some((sample.time, sample.value?)));
    match step {
        Step::Derivative { unit, non_negative } => pairs(values, |gap, change| {
            let change = float(change.as_value())?;
            let rate = change / (gap as f64 / unit as f64);
            (!non_negative || change >= 0.0).then_some(FieldValue::Float(rate))
        }),
        Step::Difference { non_negative } => pairs(values, |_, change| {
            let negative = float(change.as_value())? < 0.0;
            (!non_negative || !negative).then_some(change)
        }),
        Step::Elapsed(unit) => elapsed(values, unit),
        Step::MovingAverage(count) => moving_average(values, count),
        Step::CumulativeSum => cumulative_sum(values),
    }
}

/// `of` for each value and the one before, given the time between and the change; at the time of the later.
fn pairs(
    values: impl Iterator<Item = (i64, FieldValue)>,
    of: impl Fn(i128, FieldValue) -> Option<FieldValue>,
) -> Vec<Sample> {
    let mut before: Option<(i64, FieldValue)> = None;
    let mut out = Vec::new();
    for (time, value) in values {
        if let Some((earlier, low)) = &before {
            let gap = i128::from(time) - i128::from(*earlier);
            if gap == 0 {
                continue;
            }
            if let Some(result) = difference(&value, low).and_then(|change| of(gap, change)) {
                out.push(Sample::new(time, Some(result)));
            }
        }
        before = Some((time, value));
    }
    out
}

fn elapsed(values: impl Iterator<Item = (i64, FieldValue)>, unit: i64) -> Vec<Sample> {
    let times: Vec<i64> = values.map(|(time, _)| time).collect();
    let gap = |pair: &[i64]| (i128::from(pair[1]) - i128::from(pair[0])) / i128::from(unit);
    times.windows(2).map(|pair| Sample::new(pair[1], Some(from_wide(gap(pair)).into()))).collect()
}

fn moving_average(values: impl Iterator<Item = (i64, FieldValue)>, count: usize) -> Vec<Sample> {
    let mut last: VecDeque<f64> = VecDeque::new();
    let mut out = Vec::new();
    for (time, value) in values {
        let Some(number) = float(value.as_value()) else { continue };
        last.push_back(number);
        if last.len() > count {
            last.pop_front();
        }
        if last.len() == count {
            let mean = last.iter().sum::<f64>() / count as f64;
            out.push(Sample::new(time, Some(FieldValue::Float(mean))));
        }
    }
    out
}

fn cumulative_sum(values: impl Iterator<Item = (i64, FieldValue)>) -> Vec<Sample> {
    let (mut whole, mut rest, mut is_float) = (0_i128, 0.0, false);
    let mut out = Vec::new();
    for (time, value) in values {
        match value {
            FieldValue::Integer(n) => whole = whole.saturating_add(n.into()),
            FieldValue::Unsigned(n) => whole = whole.saturating_add(n.into()),
            FieldValue::Float(n) => {
                rest += n;
                is_float = true;
            }
            FieldValue::String(_) | FieldValue::Boolean(_) => continue,
        }
        let sum = if is_float { FieldValue::Float(whole as f64 + rest) } else { from_wide(whole).into() };
        out.push(Sample::new(time, Some(sum)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[(i64, Option<i64>)]) -> Vec<Sample> {
        values.iter().map(|(time, value)| Sample::new(*time, value.map(FieldValue::Integer))).collect()
    }

    fn after(step: Step, values: &[(i64, Option<i64>)]) -> Vec<(i64, Option<FieldValue>)> {
        apply(step, samples(values)).into_iter().map(|sample| (sample.time, sample.value)).collect()
    }

    #[test]
    fn a_rate_passes_over_nulls_and_divides_by_the_real_distance() {
        let step = Step::Derivative { unit: 10, non_negative: false };
        assert_eq!(
            after(step, &[(0, Some(1)), (10, None), (20, Some(5)), (30, Some(2))]),
            [(20, Some(FieldValue::Float(2.0))), (30, Some(FieldValue::Float(-3.0)))]
        );
    }

    #[test]
    fn a_counter_that_was_reset_leaves_one_hole() {
        let step = Step::Derivative { unit: 1, non_negative: true };
        let times: Vec<i64> = after(step, &[(0, Some(5)), (1, Some(7)), (2, Some(1)), (3, Some(4))])
            .iter()
            .map(|(t, _)| *t)
            .collect();
        assert_eq!(times, [1, 3]);
    }

    #[test]
    fn of_values_at_one_time_the_first_counts() {
        let step = Step::Difference { non_negative: false };
        assert_eq!(
            after(step, &[(0, Some(1)), (0, Some(9)), (1, Some(4))]),
            [(1, Some(FieldValue::Integer(3)))]
        );
    }

    #[test]
    fn averages_begin_when_enough_values_are_there() {
        assert_eq!(
            after(Step::MovingAverage(2), &[(0, Some(1)), (1, Some(2)), (2, Some(6))]),
            [(1, Some(FieldValue::Float(1.5))), (2, Some(FieldValue::Float(4.0)))]
        );
    }
}
