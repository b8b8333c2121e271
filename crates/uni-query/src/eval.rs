//! Values of expressions: arithmetic, comparison, logic, with InfluxDB's rules.
//!
//! Owns [`Node`], an expression whose names are bound to places, and its evaluation. Never looks up a name.
//!
//! Rules: null with anything is null; null is not true. An integer and a float meet as floats. `/` of integers is
//! a float; division by zero gives 0. Integers that overflow go on as floats. A text compares only by `= !=` and
//! patterns, and with texts only.

use crate::ast::{Cast, Op};
use regex::Regex;
use uni_wire::{FieldValue, Value};

/// An expression ready to be evaluated.
#[derive(Debug)]
pub(crate) enum Node {
    Const(FieldValue),
    /// The value at this place of the row.
    Slot(usize),
    /// A tag of the row's series; an absent one is null if `null_if_absent`, else the empty text.
    Tag {
        key: String,
        null_if_absent: bool,
    },
    Cast(Cast, Box<Self>),
    Binary(Op, Box<Self>, Box<Self>),
    /// Whether the pattern is found in the text, or is not.
    Match {
        pattern: Regex,
        wanted: bool,
        operand: Box<Self>,
    },
    /// Always null: a name that is neither field nor tag.
    Null,
}

/// What an expression is evaluated over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) tags: &'a [(String, String)],
    pub(crate) values: &'a [Option<FieldValue>],
}

impl Node {
    pub(crate) fn value<'a>(&'a self, row: Row<'a>) -> Option<Value<'a>> {
        match self {
            Self::Const(value) => Some(value.as_value()),
            Self::Slot(place) => row.values.get(*place)?.as_ref().map(FieldValue::as_value),
            Self::Tag { key, null_if_absent } => tag_value(row.tags, key, *null_if_absent),
            Self::Cast(cast, operand) => cast_value(operand.value(row)?, *cast),
            Self::Binary(op, left, right) => binary(*op, left, right, row),
            Self::Match { pattern, wanted, operand } => match operand.value(row)? {
                Value::String(text) => Some(Value::Boolean(pattern.is_match(text) == *wanted)),
                _ => None,
            },
            Self::Null => None,
        }
    }

    pub(crate) fn owned(&self, row: Row<'_>) -> Option<FieldValue> {
        self.value(row).map(FieldValue::from)
    }

    pub(crate) fn is_true(&self, row: Row<'_>) -> bool {
        self.value(row) == Some(Value::Boolean(true))
    }

    /// What the node says for every row of a series with these tags; `None` if that depends on fields.
    pub(crate) fn decide(&self, tags: &[(String, String)]) -> Option<bool> {
        match self {
            Self::Binary(Op::And, left, right) => match (left.decide(tags), right.decide(tags)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Self::Binary(Op::Or, left, right) => match (left.decide(tags), right.decide(tags)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            other if other.reads_slots() => None,
            other => Some(other.is_true(Row { tags, values: &[] })),
        }
    }

    fn reads_slots(&self) -> bool {
        match self {
            Self::Slot(_) => true,
            Self::Const(_) | Self::Tag { .. } | Self::Null => false,
            Self::Cast(_, operand) | Self::Match { operand, .. } => operand.reads_slots(),
            Self::Binary(_, left, right) => left.reads_slots() || right.reads_slots(),
        }
    }
}

fn tag_value<'a>(tags: &'a [(String, String)], key: &str, null_if_absent: bool) -> Option<Value<'a>> {
    let text = tags.iter().find(|(k, _)| k == key).map_or("", |(_, value)| value.as_str());
    if text.is_empty() && null_if_absent { None } else { Some(Value::String(text)) }
}

fn binary<'a>(op: Op, left: &'a Node, right: &'a Node, row: Row<'a>) -> Option<Value<'a>> {
    match op {
        Op::And => Some(Value::Boolean(left.is_true(row) && right.is_true(row))),
        Op::Or => Some(Value::Boolean(left.is_true(row) || right.is_true(row))),
        _ => apply(op, left.value(row)?, right.value(row)?),
    }
}

fn apply<'a>(op: Op, left: Value<'a>, right: Value<'a>) -> Option<Value<'a>> {
    match (left, right) {
        (Value::String(a), Value::String(b)) => equality(op, a == b),
        (Value::Boolean(a), Value::Boolean(b)) => match op {
            Op::BitAnd => Some(Value::Boolean(a & b)),
            Op::BitOr => Some(Value::Boolean(a | b)),
            Op::BitXor => Some(Value::Boolean(a ^ b)),
            _ => equality(op, a == b),
        },
        (a, b) => match (integer(a), integer(b)) {
            (Some(a), Some(b)) => integers(op, a, b),
            _ => floats(op, float(a)?, float(b)?),
        },
    }
}

fn equality<'a>(op: Op, equal: bool) -> Option<Value<'a>> {
    match op {
        Op::Eq => Some(Value::Boolean(equal)),
        Op::Ne => Some(Value::Boolean(!equal)),
        _ => None,
    }
}

fn integer(value: Value<'_>) -> Option<i128> {
    match value {
        Value::Integer(n) => Some(n.into()),
        Value::Unsigned(n) => Some(n.into()),
        _ => None,
    }
}

/// The number as a float; `None` for texts and truth values.
pub(crate) fn float(value: Value<'_>) -> Option<f64> {
    match value {
        Value::Float(n) => Some(n),
        Value::Integer(n) => Some(n as f64),
        Value::Unsigned(n) => Some(n as f64),
        Value::String(_) | Value::Boolean(_) => None,
    }
}

/// The smallest type that holds the number.
pub(crate) fn from_wide<'a>(n: i128) -> Value<'a> {
    match (i64::try_from(n), u64::try_from(n)) {
        (Ok(n), _) => Value::Integer(n),
        (_, Ok(n)) => Value::Unsigned(n),
        _ => Value::Float(n as f64),
    }
}

fn integers<'a>(op: Op, a: i128, b: i128) -> Option<Value<'a>> {
    let number = match op {
        Op::Add => a.saturating_add(b),
        Op::Sub => a.saturating_sub(b),
        // two 64-bit numbers multiplied fit
        Op::Mul => a.saturating_mul(b),
        Op::Div if b == 0 => return Some(Value::Float(0.0)),
        Op::Div => return Some(Value::Float(a as f64 / b as f64)),
        Op::Mod if b == 0 => 0,
        Op::Mod => a % b,
        Op::BitAnd => a & b,
        Op::BitOr => a | b,
        Op::BitXor => a ^ b,
        _ => return compare(op, a.partial_cmp(&b)),
    };
    Some(from_wide(number))
}

fn floats<'a>(op: Op, a: f64, b: f64) -> Option<Value<'a>> {
    let number = match op {
        Op::Add => a + b,
        Op::Sub => a - b,
        Op::Mul => a * b,
        Op::Div | Op::Mod if b == 0.0 => 0.0,
        Op::Div => a / b,
        Op::Mod => a % b,
        Op::BitAnd | Op::BitOr | Op::BitXor => return None,
        _ => return compare(op, a.partial_cmp(&b)),
    };
    Some(Value::Float(number))
}

fn compare<'a>(op: Op, order: Option<std::cmp::Ordering>) -> Option<Value<'a>> {
    let order = order?;
    let truth = match op {
        Op::Eq => order.is_eq(),
        Op::Ne => order.is_ne(),
        Op::Lt => order.is_lt(),
        Op::Le => order.is_le(),
        Op::Gt => order.is_gt(),
        Op::Ge => order.is_ge(),
        _ => return None,
    };
    Some(Value::Boolean(truth))
}

/// The value as the type asked for; numbers turn into each other, other types do not.
pub(crate) fn cast_value(value: Value<'_>, cast: Cast) -> Option<Value<'_>> {
    match (cast, value) {
        (Cast::Field | Cast::Tag, value) => Some(value),
        (Cast::Float, value) => float(value).map(Value::Float),
        // `as` clamps, which is what is wanted
        (Cast::Integer, Value::Float(n)) => Some(Value::Integer(n as i64)),
        (Cast::Integer, value) => integer(value).and_then(|n| i64::try_from(n).ok()).map(Value::Integer),
        (Cast::Unsigned, Value::Float(n)) if n >= 0.0 => Some(from_wide(n as i128)),
        (Cast::Unsigned, value) => integer(value).and_then(|n| u64::try_from(n).ok()).map(Value::Unsigned),
        (Cast::String, Value::String(_)) | (Cast::Boolean, Value::Boolean(_)) => Some(value),
        (Cast::String | Cast::Boolean, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_stay_integers_but_for_division() {
        assert_eq!(apply(Op::Mul, Value::Integer(5), Value::Integer(8)), Some(Value::Integer(40)));
        assert_eq!(apply(Op::Div, Value::Integer(5), Value::Integer(2)), Some(Value::Float(2.5)));
        assert_eq!(apply(Op::Div, Value::Integer(5), Value::Integer(0)), Some(Value::Float(0.0)));
        assert_eq!(
            apply(Op::Mul, Value::Integer(i64::MAX), Value::Integer(4)),
            Some(Value::Float(4.0 * i64::MAX as f64))
        );
        assert_eq!(apply(Op::Add, Value::Integer(1), Value::Float(0.5)), Some(Value::Float(1.5)));
    }

    #[test]
    fn texts_compare_with_texts_only() {
        assert_eq!(apply(Op::Eq, Value::String("5"), Value::Integer(5)), None);
        assert_eq!(apply(Op::Ne, Value::String("a"), Value::String("b")), Some(Value::Boolean(true)));
        assert_eq!(apply(Op::Lt, Value::String("a"), Value::String("b")), None);
    }

    #[test]
    fn tags_decide_what_does_not_need_fields() {
        let tag = |value: &str| {
            let key = Box::new(Node::Tag { key: "vm".into(), null_if_absent: false });
            Node::Binary(Op::Eq, key, Box::new(Node::Const(FieldValue::String(value.into()))))
        };
        let field =
            || Node::Binary(Op::Gt, Box::new(Node::Slot(0)), Box::new(Node::Const(FieldValue::Integer(3))));
        let and = |a, b| Node::Binary(Op::And, Box::new(a), Box::new(b));
        let or = |a, b| Node::Binary(Op::Or, Box::new(a), Box::new(b));
        let tags = [("vm".to_owned(), "a".to_owned())];
        assert_eq!(and(tag("b"), field()).decide(&tags), Some(false));
        assert_eq!(and(tag("a"), field()).decide(&tags), None);
        assert_eq!(or(field(), tag("a")).decide(&tags), Some(true));
        assert_eq!(tag("").decide(&[]), Some(true));
    }
}
