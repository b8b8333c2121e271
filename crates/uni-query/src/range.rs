//! The time range of a condition: what it says about `time`, taken out of it.
//!
//! Owns the split of `WHERE` into a range and the rest. What `now()` is, the request says.

use crate::ast::{Expr, Op};
use crate::error::{RunError, invalid};
use crate::time::parse_time;
use uni_wire::Timestamp;

/// From and to, both included, in nanoseconds; `None` is unbounded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) from: Option<i64>,
    pub(crate) to: Option<i64>,
}

impl Range {
    fn intersect(self, other: Self) -> Self {
        let from = self.from.max(other.from);
        let to = match (self.to, other.to) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Self { from, to }
    }

    pub(crate) fn start(self) -> i64 {
        self.from.unwrap_or(i64::MIN)
    }

    pub(crate) fn end(self) -> i64 {
        self.to.unwrap_or(i64::MAX)
    }
}

/// The condition without what it says about time, and the range that said.
pub(crate) fn split(condition: Option<&Expr>, now: Timestamp) -> Result<(Option<Expr>, Range), RunError> {
    condition.map_or_else(|| Ok((None, Range::default())), |expr| split_expr(expr, now))
}

fn split_expr(expr: &Expr, now: Timestamp) -> Result<(Option<Expr>, Range), RunError> {
    let Expr::Binary { op, left, right } = expr else {
        return Ok((Some(expr.clone()), Range::default()));
    };
    match op {
        Op::And | Op::Or => {
            let (left, left_range) = split_expr(left, now)?;
            let (right, right_range) = split_expr(right, now)?;
            let range = left_range.intersect(right_range);
            if *op == Op::Or && range != Range::default() {
                return invalid("a condition on time cannot be one side of OR");
            }
            Ok((join(*op, left, right), range))
        }
        _ if is_time(left) => Ok((None, bound(*op, time_value(right, now)?)?)),
        _ if is_time(right) => Ok((None, bound(op.mirrored(), time_value(left, now)?)?)),
        _ => Ok((Some(expr.clone()), Range::default())),
    }
}

fn join(op: Op, left: Option<Expr>, right: Option<Expr>) -> Option<Expr> {
    match (left, right) {
        (Some(left), Some(right)) => Some(Expr::Binary { op, left: Box::new(left), right: Box::new(right) }),
        (left, right) => left.or(right),
    }
}

fn is_time(expr: &Expr) -> bool {
    matches!(expr, Expr::Ref(name) if name.is_time())
}

fn bound(op: Op, nanos: i128) -> Result<Range, RunError> {
    let from = |n: i128| Range { from: Some(clamp(n)), to: None };
    let to = |n: i128| Range { from: None, to: Some(clamp(n)) };
    Ok(match op {
        Op::Eq => from(nanos).intersect(to(nanos)),
        Op::Ge => from(nanos),
        Op::Gt => from(nanos + 1),
        Op::Le => to(nanos),
        Op::Lt => to(nanos - 1),
        Op::Ne => return invalid("invalid time comparison operator: !="),
        _ => return invalid("invalid time comparison operator; use =, <, <=, > or >="),
    })
}

fn clamp(nanos: i128) -> i64 {
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

/// Nanoseconds since the epoch of `now() - 6h`, `1600000000000ms`, `'2020-09-13T12:26:40Z'`, `1600000000000000000`.
fn time_value(expr: &Expr, now: Timestamp) -> Result<i128, RunError> {
    match expr {
        Expr::Integer(n) | Expr::Duration(n) => Ok((*n).into()),
        // numbers past 64 bits arrive here, and are clamped
        Expr::Number(n) => Ok(*n as i128),
        Expr::Text(text) => match parse_time(text) {
            Some(nanos) => Ok(nanos),
            None => invalid(format!("invalid time '{text}'; use RFC 3339, as '2020-09-13T12:26:40Z'")),
        },
        Expr::Call(call) if call.name == "now" && call.args.is_empty() => Ok(now.0.into()),
        Expr::Binary { op: Op::Add, left, right } => {
            Ok(time_value(left, now)?.saturating_add(time_value(right, now)?))
        }
        Expr::Binary { op: Op::Sub, left, right } => {
            Ok(time_value(left, now)?.saturating_sub(time_value(right, now)?))
        }
        _ => {
            invalid("time can be compared with times only: now(), durations, integers, and texts in RFC 3339")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ast::Statement;
    use crate::limits::Limits;
    use crate::parse::parse;

    fn range(condition: &str) -> Result<(bool, Range), String> {
        let text = format!("SELECT x FROM y WHERE {condition}");
        let statements = parse(&text, &Limits::default()).map_err(|e| e.to_string())?;
        let Some(Statement::Select(select)) = statements.first() else { return Err("no select".into()) };
        let (rest, range) = split(select.condition.as_ref(), Timestamp(1000)).map_err(|e| e.to_string())?;
        Ok((rest.is_some(), range))
    }

    #[test]
    fn bounds_of_all_kinds_are_taken_out() {
        let is = |from, to| Ok((false, Range { from, to }));
        assert_eq!(range("time >= 5 and time <= 9"), is(Some(5), Some(9)));
        assert_eq!(range("time > 5ms AND (time < 9ms)"), is(Some(5_000_001), Some(8_999_999)));
        assert_eq!(range("TIME > now() - 10ns"), is(Some(991), None));
        assert_eq!(range("'1970-01-01T00:00:01Z' > time"), is(None, Some(999_999_999)));
        assert_eq!(range("time = 7 AND time > 99999999999999999999"), is(Some(i64::MAX), Some(7)));
        assert_eq!(range("a = 1 AND time > -5s"), Ok((true, Range { from: Some(-4_999_999_999), to: None })));
    }

    #[test]
    fn what_cannot_be_a_range_is_an_error() {
        for bad in ["time > 5 OR a = 1", "time != 5", "time > 'yesterday'", "time > a", "time =~ /5/"] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }
}
