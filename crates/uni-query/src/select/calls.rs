//! Function calls of a `SELECT`: which functions there are and what they may be given.
//!
//! Owns the step from a call as written to a [`CallPlan`]. Never sees points.

use super::window::Window;
use crate::ast::{Call, Expr, Ref};
use crate::error::{RunError, invalid};
use uni_wire::FieldType;

const SECOND: i64 = 1_000_000_000;
/// The longest `moving_average`: so many values are held.
const MAX_AVERAGED: i64 = 10_000;

/// Functions of InfluxDB that this engine does not have: named so that nobody looks for a typing error.
const KNOWN: &[&str] = &[
    "top",
    "bottom",
    "sample",
    "mode",
    "integral",
    "histogram",
    "holt_winters",
    "holt_winters_with_fit",
    "chande_momentum_oscillator",
    "exponential_moving_average",
    "double_exponential_moving_average",
    "kaufmans_efficiency_ratio",
    "kaufmans_adaptive_moving_average",
    "triple_exponential_moving_average",
    "triple_exponential_derivative",
    "relative_strength_index",
    "abs",
    "acos",
    "asin",
    "atan",
    "atan2",
    "ceil",
    "cos",
    "exp",
    "floor",
    "ln",
    "log",
    "log2",
    "log10",
    "pow",
    "round",
    "sin",
    "sqrt",
    "tan",
];

/// What is computed from the points of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Func {
    Count,
    CountDistinct,
    Sum,
    Mean,
    Min,
    Max,
    First,
    Last,
    Spread,
    Median,
    Stddev,
    /// A rank in percent; past 0 and 100 there is no sample.
    Percentile(f64),
    Distinct,
}

impl Func {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "count" => Self::Count,
            "sum" => Self::Sum,
            "mean" => Self::Mean,
            "min" => Self::Min,
            "max" => Self::Max,
            "first" => Self::First,
            "last" => Self::Last,
            "spread" => Self::Spread,
            "median" => Self::Median,
            "stddev" => Self::Stddev,
            "percentile" => Self::Percentile(0.0),
            "distinct" => Self::Distinct,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Count | Self::CountDistinct => "count",
            Self::Sum => "sum",
            Self::Mean => "mean",
            Self::Min => "min",
            Self::Max => "max",
            Self::First => "first",
            Self::Last => "last",
            Self::Spread => "spread",
            Self::Median => "median",
            Self::Stddev => "stddev",
            Self::Percentile(_) => "percentile",
            Self::Distinct => "distinct",
        }
    }

    /// Whether it gives one of the points it was given, with the time of that point.
    pub(crate) fn is_selector(self) -> bool {
        matches!(self, Self::Min | Self::Max | Self::First | Self::Last | Self::Percentile(_))
    }

    /// Whether a picked point's other fields can be had too.
    pub(crate) fn keeps_point(self) -> bool {
        matches!(self, Self::Min | Self::Max | Self::First | Self::Last)
    }

    fn takes(self, kind: FieldType) -> bool {
        match (self, kind) {
            (_, FieldType::Float | FieldType::Integer | FieldType::Unsigned)
            | (Self::Count | Self::CountDistinct | Self::First | Self::Last | Self::Distinct, _) => true,
            (Self::Min | Self::Max, kind) => kind == FieldType::Boolean,
            _ => false,
        }
    }
}

/// What is computed from the sequence of values that comes before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Step {
    /// Change per `unit` nanoseconds.
    Derivative {
        unit: i64,
        non_negative: bool,
    },
    Difference {
        non_negative: bool,
    },
    MovingAverage(usize),
    CumulativeSum,
    /// Time since the value before, in units of so many nanoseconds.
    Elapsed(i64),
}

/// Where the values of a call come from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Input {
    /// One value for each window.
    Reduced(Func),
    /// The points themselves.
    Points,
}

/// A call that can be computed: the field, what is made of it, and the steps after that, the innermost first.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CallPlan {
    pub(crate) field: Ref,
    pub(crate) input: Input,
    pub(crate) steps: Vec<Step>,
}

impl CallPlan {
    /// Checks a call and what it is given.
    pub(crate) fn new(call: &Call, window: Option<Window>) -> Result<Self, RunError> {
        match Func::from_name(&call.name) {
            Some(func) => Self::reduction(call, func),
            None => Self::sequence(call, window),
        }
    }

    fn reduction(call: &Call, func: Func) -> Result<Self, RunError> {
        let expected = if matches!(func, Func::Percentile(_)) { 2 } else { 1 };
        if call.args.len() != expected {
            return wrong_count(&call.name, &expected.to_string(), call.args.len());
        }
        let func = match (func, call.args.get(1)) {
            (Func::Percentile(_), Some(rank)) => Func::Percentile(percentile_rank(rank)?),
            _ => func,
        };
        let plan =
            |func, field: &Ref| Self { field: field.clone(), input: Input::Reduced(func), steps: vec![] };
        match &call.args[0] {
            Expr::Ref(field) if !field.is_time() => Ok(plan(func, field)),
            Expr::Call(inner) if func == Func::Count && inner.name == "distinct" => {
                match inner.args.as_slice() {
                    [Expr::Ref(field)] => Ok(plan(Func::CountDistinct, field)),
                    _ => invalid("expected field argument in distinct()"),
                }
            }
            _ => invalid(format!("expected field argument in {}()", call.name)),
        }
    }

    /// A function over a sequence; inside it a field, or with windows a call.
    fn sequence(call: &Call, window: Option<Window>) -> Result<Self, RunError> {
        let step = step(call, window)?;
        let mut plan = match &call.args[0] {
            Expr::Ref(field) if window.is_none() => {
                Self { field: field.clone(), input: Input::Points, steps: vec![] }
            }
            Expr::Call(inner) => {
                let plan = Self::new(inner, window)?;
                if window.is_none() && plan.input != Input::Points {
                    return invalid(format!("{} aggregate requires a GROUP BY interval", call.name));
                }
                if plan.input == Input::Reduced(Func::Distinct) {
                    return Err(RunError::Unsupported(format!("{}(distinct())", call.name)));
                }
                plan
            }
            Expr::Ref(_) => {
                return invalid(format!("aggregate function required inside the call to {}", call.name));
            }
            _ => return invalid(format!("expected field argument in {}()", call.name)),
        };
        plan.steps.push(step);
        Ok(plan)
    }

    pub(crate) fn func(&self) -> Option<Func> {
        match self.input {
            Input::Reduced(func) => Some(func),
            Input::Points => None,
        }
    }

    /// How many windows before the range are read, so that the range's first window has something before it. As
    /// in InfluxDB, one for a change however deep, and one for each average: an average of many begins later.
    pub(crate) fn windows_before(&self) -> i64 {
        let averages =
            self.steps.iter().map(|step| i64::from(matches!(step, Step::MovingAverage(_)))).sum::<i64>();
        let change = |step: &Step| {
            matches!(step, Step::Derivative { .. } | Step::Difference { .. } | Step::Elapsed(_))
        };
        averages + i64::from(self.steps.iter().any(change))
    }

    /// Refuses a field all of whose types the functions cannot take. An unknown field is none of them: no error.
    pub(crate) fn check_types(&self, types: &[FieldType]) -> Result<(), RunError> {
        let numeric_only = self.steps.iter().any(|step| !matches!(step, Step::Elapsed(_)));
        let counts = matches!(self.input, Input::Reduced(Func::Count | Func::CountDistinct));
        let fits = |kind: FieldType| {
            let numeric = !matches!(kind, FieldType::String | FieldType::Boolean);
            self.func().is_none_or(|func| func.takes(kind)) && (numeric || counts || !numeric_only)
        };
        match types.first() {
            Some(kind) if !types.iter().any(|kind| fits(*kind)) => {
                let function = self
                    .func()
                    .filter(|func| !func.takes(*kind))
                    .map_or_else(|| self.step_name(), Func::name);
                Err(RunError::FieldType { function, kind: kind.name() })
            }
            _ => Ok(()),
        }
    }

    fn step_name(&self) -> &'static str {
        match self.steps.first() {
            Some(Step::Derivative { .. }) => "derivative",
            Some(Step::Difference { .. }) => "difference",
            Some(Step::MovingAverage(_)) => "moving_average",
            Some(Step::CumulativeSum) => "cumulative_sum",
            Some(Step::Elapsed(_)) => "elapsed",
            None => "",
        }
    }
}

fn wrong_count<T>(name: &str, expected: &str, got: usize) -> Result<T, RunError> {
    invalid(format!("invalid number of arguments for {name}, expected {expected}, got {got}"))
}

fn percentile_rank(rank: &Expr) -> Result<f64, RunError> {
    match rank {
        Expr::Integer(n) => Ok(*n as f64),
        Expr::Number(n) => Ok(*n),
        _ => invalid("expected float argument in percentile()"),
    }
}

/// The step a function over a sequence makes, its other arguments checked.
fn step(call: &Call, window: Option<Window>) -> Result<Step, RunError> {
    let name = call.name.as_str();
    let second = call.args.get(1);
    let (step, most) = match name {
        "derivative" | "non_negative_derivative" => {
            let unit = duration(name, second)?.unwrap_or_else(|| window.map_or(SECOND, Window::every));
            (Step::Derivative { unit, non_negative: name != "derivative" }, 2)
        }
        "difference" | "non_negative_difference" => {
            (Step::Difference { non_negative: name != "difference" }, 1)
        }
        "cumulative_sum" => (Step::CumulativeSum, 1),
        "elapsed" => (Step::Elapsed(duration(name, second)?.unwrap_or(1)), 2),
        "moving_average" => (moving_average(call)?, 2),
        _ if KNOWN.contains(&name) => return Err(RunError::Unsupported(format!("{name}()"))),
        _ => return Err(RunError::UndefinedFunction(name.to_owned())),
    };
    if call.args.is_empty() || call.args.len() > most {
        let expected = if most == 1 { "1".to_owned() } else { format!("at least 1 but no more than {most}") };
        return wrong_count(name, &expected, call.args.len());
    }
    Ok(step)
}

fn duration(name: &str, argument: Option<&Expr>) -> Result<Option<i64>, RunError> {
    match argument {
        None => Ok(None),
        Some(Expr::Duration(n)) if *n > 0 => Ok(Some(*n)),
        Some(Expr::Duration(_)) => invalid(format!("the duration in {name}() must be positive")),
        Some(_) => invalid(format!("second argument to {name} must be a duration")),
    }
}

fn moving_average(call: &Call) -> Result<Step, RunError> {
    match call.args.as_slice() {
        [_, Expr::Integer(n @ 2..=MAX_AVERAGED)] => Ok(Step::MovingAverage(usize::try_from(*n).unwrap_or(2))),
        [_, Expr::Integer(n)] if *n < 2 => {
            invalid(format!("moving_average window must be greater than 1, got {n}"))
        }
        [_, Expr::Integer(_)] => invalid(format!("moving_average window must be at most {MAX_AVERAGED}")),
        [_, _] => invalid("second argument for moving_average must be an integer"),
        args => wrong_count("moving_average", "2", args.len()),
    }
}
