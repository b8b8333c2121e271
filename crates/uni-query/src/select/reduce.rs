//! One value out of the points of a window.
//!
//! Owns the functions' arithmetic. Most of them keep a few numbers; `median`, `percentile` and `stddev` keep the
//! samples, `distinct` keeps the values it has seen, both counted as rows by the caller.

use super::calls::Func;
use crate::eval::{float, from_wide};
use crate::summary::WindowSum;
use std::cmp::Ordering;
use std::collections::HashMap;
use uni_wire::{FieldValue, Value};

/// A value with its time, and what stands beside it in the point it was picked from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) time: i64,
    pub(crate) value: Option<FieldValue>,
    pub(crate) beside: Vec<Option<FieldValue>>,
}

impl Sample {
    pub(crate) fn new(time: i64, value: Option<FieldValue>) -> Self {
        Self { time, value, beside: Vec::new() }
    }
}

/// A sum that stays an integer as long as it is given integers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sum {
    whole: i128,
    rest: f64,
    is_float: bool,
}

impl Sum {
    const ZERO: Self = Self { whole: 0, rest: 0.0, is_float: false };

    fn add(&mut self, value: Value<'_>) {
        match value {
            Value::Integer(n) => self.whole = self.whole.saturating_add(n.into()),
            Value::Unsigned(n) => self.whole = self.whole.saturating_add(n.into()),
            Value::Float(n) => {
                self.rest += n;
                self.is_float = true;
            }
            Value::String(_) | Value::Boolean(_) => {}
        }
    }

    pub(super) fn add_window(&mut self, sum: &WindowSum) {
        match sum {
            WindowSum::Exact(value) => self.add(value.as_value()),
            WindowSum::About(value) => self.add(Value::Float(*value)),
        }
    }

    /// What floats have added up to.
    pub(super) const fn rest(self) -> f64 {
        self.rest
    }

    fn as_float(self) -> f64 {
        self.whole as f64 + self.rest
    }

    fn value(self) -> FieldValue {
        if self.is_float { FieldValue::Float(self.as_float()) } else { from_wide(self.whole).into() }
    }
}

/// What a function remembers of a window.
#[derive(Debug)]
pub(crate) enum Reducer {
    Count(i64),
    Sum(Sum),
    Mean { sum: Sum, count: u64 },
    Pick(Option<Sample>),
    Spread { low: Option<FieldValue>, high: Option<FieldValue> },
    Samples(Vec<(i64, FieldValue)>),
    Seen(HashMap<Key, (i64, FieldValue)>),
}

/// A value as far as `distinct` tells values apart: its type, its bits or text.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(u8, u64, Box<str>);

impl Key {
    fn of(value: Value<'_>) -> Self {
        match value {
            Value::Float(n) => Self(0, n.to_bits(), "".into()),
            Value::Integer(n) => Self(1, n.cast_unsigned(), "".into()),
            Value::Unsigned(n) => Self(2, n, "".into()),
            Value::Boolean(b) => Self(3, b.into(), "".into()),
            Value::String(text) => Self(4, 0, text.into()),
        }
    }
}

impl Reducer {
    pub(crate) fn new(func: Func) -> Self {
        match func {
            Func::Count => Self::Count(0),
            Func::Sum => Self::Sum(Sum::ZERO),
            Func::Mean => Self::Mean { sum: Sum::ZERO, count: 0 },
            Func::Min | Func::Max | Func::First | Func::Last => Self::Pick(None),
            Func::Spread => Self::Spread { low: None, high: None },
            Func::Median | Func::Stddev | Func::Percentile(_) => Self::Samples(Vec::new()),
            Func::Distinct | Func::CountDistinct => Self::Seen(HashMap::new()),
        }
    }

    /// Takes one more point. Says whether it keeps it, beyond a fixed size.
    pub(crate) fn push(
        &mut self,
        func: Func,
        time: i64,
        value: Value<'_>,
        beside: impl FnOnce() -> Vec<Option<FieldValue>>,
    ) -> bool {
        match self {
            Self::Count(count) => *count += 1,
            Self::Sum(sum) => sum.add(value),
            Self::Mean { sum, count } => {
                sum.add(value);
                *count += 1;
            }
            Self::Pick(best) => {
                if best.as_ref().is_none_or(|best| better(func, time, value, best)) {
                    *best = Some(Sample { time, value: Some(value.into()), beside: beside() });
                }
            }
            Self::Spread { low, high } => {
                keep(low, value, Ordering::Less);
                keep(high, value, Ordering::Greater);
            }
            Self::Samples(samples) => {
                samples.push((time, value.into()));
                return true;
            }
            Self::Seen(seen) => return see(seen, time, value),
        }
        false
    }

    /// The results, in the order of their times; `distinct` may have several.
    pub(crate) fn finish(self, func: Func) -> Vec<Sample> {
        let untimed = |value| vec![Sample::new(0, value)];
        match self {
            Self::Count(count) => untimed(Some(FieldValue::Integer(count))),
            Self::Sum(sum) => untimed(Some(sum.value())),
            Self::Mean { sum, count } => untimed(Some(FieldValue::Float(sum.as_float() / count as f64))),
            Self::Pick(best) => best.into_iter().collect(),
            Self::Spread { low, high } => {
                untimed(low.zip(high).and_then(|(low, high)| difference(&high, &low)))
            }
            Self::Samples(samples) => match func {
                Func::Percentile(rank) => percentile(samples, rank).into_iter().collect(),
                Func::Median => untimed(median(&samples)),
                _ => untimed(stddev(&samples)),
            },
            Self::Seen(seen) if func == Func::CountDistinct => {
                untimed(Some(from_wide(i128::try_from(seen.len()).unwrap_or(i128::MAX)).into()))
            }
            Self::Seen(seen) => in_order(seen),
        }
    }
}

/// Which of two values is larger; of two types that do not compare, neither.
pub(crate) fn order(a: Value<'_>, b: Value<'_>) -> Ordering {
    match (a, b) {
        (Value::Integer(a), Value::Integer(b)) => a.cmp(&b),
        (Value::Unsigned(a), Value::Unsigned(b)) => a.cmp(&b),
        (Value::Boolean(a), Value::Boolean(b)) => a.cmp(&b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (a, b) => float(a).zip(float(b)).map_or(Ordering::Equal, |(a, b)| a.total_cmp(&b)),
    }
}

/// `high - low` of two numbers.
pub(crate) fn difference(high: &FieldValue, low: &FieldValue) -> Option<FieldValue> {
    let wide = |value: &FieldValue| match value {
        FieldValue::Integer(n) => Some(i128::from(*n)),
        FieldValue::Unsigned(n) => Some(i128::from(*n)),
        _ => None,
    };
    match (wide(high), wide(low)) {
        (Some(high), Some(low)) => Some(from_wide(high - low).into()),
        _ => Some(FieldValue::Float(float(high.as_value())? - float(low.as_value())?)),
    }
}

/// Whether a point takes the place of the best so far. Of equal values the earliest counts, of points at the same
/// time the larger.
pub(super) fn better(func: Func, time: i64, value: Value<'_>, best: &Sample) -> bool {
    let larger = best.value.as_ref().map_or(Ordering::Greater, |best| order(value, best.as_value()));
    let later = time.cmp(&best.time);
    match func {
        Func::Min => larger.is_lt() || (larger.is_eq() && later.is_lt()),
        Func::Max => larger.is_gt() || (larger.is_eq() && later.is_lt()),
        Func::First => later.is_lt() || (later.is_eq() && larger.is_gt()),
        _ => later.is_gt() || (later.is_eq() && larger.is_gt()),
    }
}

pub(super) fn keep(extreme: &mut Option<FieldValue>, value: Value<'_>, wanted: Ordering) {
    if extreme.as_ref().is_none_or(|extreme| order(value, extreme.as_value()) == wanted) {
        *extreme = Some(value.into());
    }
}

fn see(seen: &mut HashMap<Key, (i64, FieldValue)>, time: i64, value: Value<'_>) -> bool {
    let before = seen.len();
    let first = seen.entry(Key::of(value)).or_insert_with(|| (time, value.into()));
    first.0 = first.0.min(time);
    seen.len() > before
}

fn in_order(seen: HashMap<Key, (i64, FieldValue)>) -> Vec<Sample> {
    let mut values: Vec<_> = seen.into_values().collect();
    values.sort_by(|(a_time, a), (b_time, b)| {
        a_time.cmp(b_time).then_with(|| order(a.as_value(), b.as_value()))
    });
    values.into_iter().map(|(time, value)| Sample::new(time, Some(value))).collect()
}

/// The sample at rank `len * rank / 100`, rounded; none when that is before the first.
fn percentile(mut samples: Vec<(i64, FieldValue)>, rank: f64) -> Option<Sample> {
    samples.sort_by(|(a_time, a), (b_time, b)| order(a.as_value(), b.as_value()).then(a_time.cmp(b_time)));
    let place = (samples.len() as f64 * rank / 100.0 + 0.5).floor() as i64;
    let (time, value) = samples.into_iter().nth(usize::try_from(place - 1).ok()?)?;
    Some(Sample::new(time, Some(value)))
}

fn floats(samples: &[(i64, FieldValue)]) -> Vec<f64> {
    samples.iter().filter_map(|(_, value)| float(value.as_value())).collect()
}

fn median(samples: &[(i64, FieldValue)]) -> Option<FieldValue> {
    let mut values = floats(samples);
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let high = *values.get(middle)?;
    let even = values.len().is_multiple_of(2);
    Some(FieldValue::Float(if even { f64::midpoint(values[middle - 1], high) } else { high }))
}

/// Of a sample (divided by one less than the count), null for a single value; in two passes, as InfluxDB does.
fn stddev(samples: &[(i64, FieldValue)]) -> Option<FieldValue> {
    let values = floats(samples);
    if values.len() < 2 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some(FieldValue::Float((squares / (values.len() - 1) as f64).sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reduce(func: Func, points: &[(i64, Value<'_>)]) -> Vec<Sample> {
        let mut reducer = Reducer::new(func);
        for (time, value) in points {
            reducer.push(func, *time, *value, Vec::new);
        }
        reducer.finish(func)
    }

    fn value(func: Func, points: &[(i64, Value<'_>)]) -> Option<FieldValue> {
        reduce(func, points).first().and_then(|sample| sample.value.clone())
    }

    #[test]
    fn points_at_one_time_are_told_apart_by_value() {
        let points =
            [(1, Value::Integer(5)), (2, Value::Integer(3)), (2, Value::Integer(9)), (1, Value::Integer(7))];
        assert_eq!(value(Func::Last, &points), Some(FieldValue::Integer(9)));
        assert_eq!(value(Func::First, &points), Some(FieldValue::Integer(7)));
        let equal = [(5, Value::Float(1.0)), (3, Value::Float(1.0))];
        assert_eq!(reduce(Func::Max, &equal)[0].time, 3);
    }

    #[test]
    fn a_sum_of_integers_does_not_wrap() {
        let points = [(1, Value::Integer(i64::MAX)), (2, Value::Integer(i64::MAX))];
        assert_eq!(value(Func::Sum, &points), Some(FieldValue::Unsigned(u64::MAX - 1)));
        let mixed = [(1, Value::Integer(1)), (2, Value::Float(0.5))];
        assert_eq!(value(Func::Sum, &mixed), Some(FieldValue::Float(1.5)));
    }

    #[test]
    fn a_single_value_has_no_deviation_and_no_low_percentile() {
        let one = [(1, Value::Integer(5))];
        assert_eq!(value(Func::Stddev, &one), None);
        assert!(reduce(Func::Percentile(10.0), &one).is_empty());
        assert_eq!(value(Func::Percentile(100.0), &one), Some(FieldValue::Integer(5)));
        assert_eq!(value(Func::Median, &one), Some(FieldValue::Float(5.0)));
    }

    #[test]
    fn distinct_values_come_in_the_order_of_their_first_appearance() {
        let points = [(1, Value::Integer(5)), (2, Value::Integer(3)), (3, Value::Integer(5))];
        let values: Vec<_> = reduce(Func::Distinct, &points).into_iter().map(|sample| sample.value).collect();
        assert_eq!(values, [Some(FieldValue::Integer(5)), Some(FieldValue::Integer(3))]);
        assert_eq!(value(Func::CountDistinct, &points), Some(FieldValue::Integer(2)));
    }
}
