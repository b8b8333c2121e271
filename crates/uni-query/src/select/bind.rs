//! A plan bound to one measurement: names become places in the rows that the source gives.
//!
//! Owns the rule what a name means: a field if the measurement has it, else a tag; a cast says which.

use super::calls::CallPlan;
use super::fill::Kind;
use super::plan::{Plan, Shape};
use crate::ast::{Cast, Expr, Op, Ref};
use crate::error::{RunError, invalid};
use crate::eval::Node;
use crate::names::Schema;
use crate::source::{Series, TagMatcher, TagOp};
use uni_wire::{FieldType, FieldValue};

/// What the points of a measurement are read and evaluated with.
#[derive(Debug)]
pub(crate) struct Bound {
    /// The fields to read; a place is an index into them.
    pub(crate) fields: Vec<String>,
    /// How many of `fields`, from the first, are selected; the rest only appear in the condition.
    pub(crate) selected: usize,
    pub(crate) condition: Option<Node>,
    /// The columns after that of the times. Places are those of `fields` for raw rows; else the calls, then what
    /// stands beside them.
    pub(crate) outputs: Vec<Node>,
    /// The place of each call's field; `None` if the measurement lacks it.
    pub(crate) call_fields: Vec<Option<usize>>,
    /// The types of each call's windows, and of what it gives.
    pub(crate) call_kinds: Vec<(Kind, Kind)>,
    /// What is read beside a lone selector, over `fields`.
    pub(crate) beside: Vec<Node>,
    /// Their types.
    pub(crate) beside_kinds: Vec<Kind>,
}

impl Bound {
    pub(crate) fn new(plan: &Plan, schema: &Schema) -> Result<Self, RunError> {
        let mut binder = Binder { schema, fields: Vec::new() };
        let call_fields: Vec<_> = plan.calls.iter().map(|call| binder.call_field(call)).collect();
        let beside: Vec<_> = plan.beside.iter().map(|name| binder.reference(name, true)).collect();
        let outputs = match plan.shape {
            Shape::Raw => {
                plan.outputs.iter().map(|expr| binder.expr(expr, true)).collect::<Result<_, _>>()?
            }
            Shape::Aggregate => {
                let mut seen_beside = plan.calls.len();
                let outputs = plan.outputs.iter().map(|expr| output(expr, plan, &mut seen_beside));
                outputs.collect::<Result<_, _>>()?
            }
        };
        let selected = binder.fields.len();
        let condition = plan.condition.as_ref().map(|expr| binder.expr(expr, false)).transpose()?;
        let types = |name: &Ref| schema.types(&name.name);
        Ok(Self {
            fields: binder.fields,
            selected,
            condition,
            outputs,
            call_fields,
            call_kinds: plan.calls.iter().map(|call| Kind::of_call(call, types(&call.field))).collect(),
            beside,
            beside_kinds: plan.beside.iter().map(|name| Kind::of_types(types(name))).collect(),
        })
    }

    /// Whether any selected name is a field here; without one there are no rows.
    pub(crate) fn reads_fields(&self) -> bool {
        self.selected > 0 && (self.call_fields.is_empty() || self.call_fields.iter().any(Option::is_some))
    }

    /// Whether the condition does not already refuse the series by its tags.
    pub(crate) fn may_match(&self, series: &Series) -> bool {
        self.condition.as_ref().is_none_or(|node| node.decide(&series.tags) != Some(false))
    }

    /// The conditions on tags that every row must meet.
    pub(crate) fn matchers(&self) -> Vec<TagMatcher> {
        let mut matchers = Vec::new();
        if let Some(node) = &self.condition {
            collect_matchers(node, &mut matchers);
        }
        matchers
    }
}

/// The conditions on tags that hold whenever `node` does.
pub(crate) fn collect_matchers(node: &Node, matchers: &mut Vec<TagMatcher>) {
    let mut add = |key: &str, op, value: &str| {
        matchers.push(TagMatcher { key: key.to_owned(), op, value: value.to_owned() });
    };
    match node {
        Node::Binary(Op::And, left, right) => {
            collect_matchers(left, matchers);
            collect_matchers(right, matchers);
        }
        Node::Binary(op @ (Op::Eq | Op::Ne), left, right) => {
            if let (Node::Tag { key, .. }, Node::Const(FieldValue::String(text))) = (&**left, &**right) {
                add(key, if *op == Op::Eq { TagOp::Equal } else { TagOp::NotEqual }, text);
            }
        }
        Node::Match { pattern, wanted, operand } => {
            if let Node::Tag { key, .. } = &**operand {
                add(key, if *wanted { TagOp::Regex } else { TagOp::NotRegex }, pattern.as_str());
            }
        }
        _ => {}
    }
}

/// A condition over tags alone, for the `SHOW` statements: every name is a tag.
pub(crate) fn tag_condition(expr: &Expr) -> Result<Node, RunError> {
    let schema = Schema::default();
    Binder { schema: &schema, fields: Vec::new() }.expr(expr, false)
}

struct Binder<'a> {
    schema: &'a Schema,
    fields: Vec<String>,
}

impl Binder<'_> {
    fn place(&mut self, name: &str) -> usize {
        self.fields.iter().position(|field| field == name).unwrap_or_else(|| {
            self.fields.push(name.to_owned());
            self.fields.len() - 1
        })
    }

    fn call_field(&mut self, call: &CallPlan) -> Option<usize> {
        let known = call.field.cast != Some(Cast::Tag) && self.schema.has_field(&call.field.name);
        known.then(|| self.place(&call.field.name))
    }

    fn reference(&mut self, name: &Ref, null_if_absent: bool) -> Node {
        let tag = || Node::Tag { key: name.name.clone(), null_if_absent };
        match name.cast {
            Some(Cast::Tag) => tag(),
            None | Some(Cast::Field) if self.schema.has_field(&name.name) => {
                Node::Slot(self.place(&name.name))
            }
            None => tag(),
            Some(cast) if self.schema.types(&name.name).iter().any(|kind| fits(cast, *kind)) => {
                Node::Cast(cast, Box::new(Node::Slot(self.place(&name.name))))
            }
            Some(_) => Node::Null,
        }
    }

    fn expr(&mut self, expr: &Expr, null_if_absent: bool) -> Result<Node, RunError> {
        Ok(match expr {
            Expr::Ref(name) if name.is_time() => return invalid("time cannot be used in an expression"),
            Expr::Ref(name) => self.reference(name, null_if_absent),
            Expr::Binary { op: op @ (Op::Match | Op::MatchNot), left, right } => {
                let Expr::Regex(pattern) = &**right else {
                    return invalid("a pattern must follow =~ and !~");
                };
                let operand = Box::new(self.expr(left, null_if_absent)?);
                Node::Match { pattern: pattern.clone(), wanted: *op == Op::Match, operand }
            }
            Expr::Binary { op, left, right } => {
                let left = self.expr(left, null_if_absent)?;
                Node::Binary(*op, Box::new(left), Box::new(self.expr(right, null_if_absent)?))
            }
            other => constant(other)?,
        })
    }
}

/// Whether a cast makes something of values of a type: numbers of numbers, else only of its own.
fn fits(cast: Cast, kind: FieldType) -> bool {
    match kind {
        FieldType::String => matches!(cast, Cast::String | Cast::Field),
        FieldType::Boolean => matches!(cast, Cast::Boolean | Cast::Field),
        _ => !matches!(cast, Cast::String | Cast::Boolean),
    }
}

fn constant(expr: &Expr) -> Result<Node, RunError> {
    Ok(Node::Const(match expr {
        Expr::Integer(n) | Expr::Duration(n) => FieldValue::Integer(*n),
        Expr::Number(n) => FieldValue::Float(*n),
        Expr::Text(text) => FieldValue::String(text.as_str().into()),
        Expr::Bool(truth) => FieldValue::Boolean(*truth),
        Expr::Call(call) => return Err(RunError::Unsupported(format!("{}() in this place", call.name))),
        _ => return invalid("a wildcard or a pattern cannot stand in this place"),
    }))
}

/// A column of computed values. Names beside calls are met here in the order in which the plan lists them.
fn output(expr: &Expr, plan: &Plan, seen_beside: &mut usize) -> Result<Node, RunError> {
    Ok(match expr {
        Expr::Call(call) => {
            let wanted = CallPlan::new(call, plan.window)?;
            plan.calls.iter().position(|call| *call == wanted).map_or(Node::Null, Node::Slot)
        }
        Expr::Ref(_) => {
            let place = *seen_beside;
            *seen_beside += 1;
            Node::Slot(place)
        }
        Expr::Binary { op, left, right } => {
            let left = output(left, plan, seen_beside)?;
            Node::Binary(*op, Box::new(left), Box::new(output(right, plan, seen_beside)?))
        }
        other => constant(other)?,
    })
}
