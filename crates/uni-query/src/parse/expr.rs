//! Expressions: operators by precedence, names with casts, calls, literals, patterns.
//!
//! Owns the height limit: no expression leaves here that is deeper than allowed, so that what walks it may recurse.

use super::{MAX_PATTERNS, Parser, Result, is_reserved};
use crate::ast::{Call, Cast, Expr, Op, Ref, Wildcard};
use crate::lex::Token;

/// An expression and its height.
type Tall = (Expr, usize);

impl Parser<'_> {
    pub(super) fn expr(&mut self) -> Result<Expr> {
        Ok(self.binary(1, 0)?.0)
    }

    /// Operands joined by operators that bind at least as tightly as `lowest`.
    fn binary(&mut self, lowest: u8, depth: usize) -> Result<Tall> {
        let (mut left, mut height) = self.unary(depth)?;
        while let Some(op) = self.operator().filter(|op| op.precedence() >= lowest) {
            if matches!(op, Op::And | Op::Or) {
                (left, height) = self.chain(op, (left, height), depth)?;
                continue;
            }
            self.take()?;
            let (right, right_height) = match op {
                Op::Match | Op::MatchNot => (Expr::Regex(self.pattern()?), 1),
                _ => self.binary(op.precedence() + 1, depth + 1)?,
            };
            height = self.checked_height(height.max(right_height) + 1)?;
            left = Expr::Binary { op, left: Box::new(left), right: Box::new(right) };
        }
        Ok((left, height))
    }

    /// `first AND b AND c ...`: as a tree of little height, for such chains may be long.
    fn chain(&mut self, op: Op, first: Tall, depth: usize) -> Result<Tall> {
        let mut operands = vec![first];
        while self.operator() == Some(op) {
            self.take()?;
            operands.push(self.binary(op.precedence() + 1, depth + 1)?);
        }
        while operands.len() > 1 {
            let mut pairs = Vec::with_capacity(operands.len().div_ceil(2));
            let mut rest = operands.into_iter();
            while let Some((left, height)) = rest.next() {
                pairs.push(match rest.next() {
                    None => (left, height),
                    Some((right, right_height)) => {
                        let height = self.checked_height(height.max(right_height) + 1)?;
                        (Expr::Binary { op, left: Box::new(left), right: Box::new(right) }, height)
                    }
                });
            }
            operands = pairs;
        }
        operands.pop().ok_or_else(|| self.expected("identifier, string, number, bool"))
    }

    fn operator(&self) -> Option<Op> {
        match &self.peek.token {
            Token::Op(op) => Some(*op),
            Token::Bare(word) if word.eq_ignore_ascii_case("and") => Some(Op::And),
            Token::Bare(word) if word.eq_ignore_ascii_case("or") => Some(Op::Or),
            _ => None,
        }
    }

    fn checked_height(&self, height: usize) -> Result<usize> {
        if height > self.max_nesting {
            let reason = format!("expression nested deeper than {}", self.max_nesting);
            return Err(self.lexer.invalid(&reason, self.peek.start));
        }
        Ok(height)
    }

    fn unary(&mut self, depth: usize) -> Result<Tall> {
        self.checked_height(depth)?;
        match &self.peek.token {
            Token::LeftParen => {
                self.take()?;
                let (inner, height) = self.binary(1, depth + 1)?;
                self.expect(&Token::RightParen, ")")?;
                Ok((inner, self.checked_height(height + 1)?))
            }
            Token::Op(Op::Sub | Op::Add) => self.signed(depth),
            Token::Op(Op::Mul) => Ok((Expr::Wildcard(self.wildcard()?), 1)),
            Token::Op(Op::Div) => Ok((Expr::Regex(self.pattern()?), 1)),
            Token::Bare(_) | Token::Quoted(_) => self.named(depth),
            _ => Ok((self.literal()?, 1)),
        }
    }

    /// A sign: part of a literal, else a multiplication by minus one, as in InfluxDB.
    fn signed(&mut self, depth: usize) -> Result<Tall> {
        let negative = self.take()? == Token::Op(Op::Sub);
        let (operand, height) = self.unary(depth + 1)?;
        let signed = match operand {
            operand if !negative => operand,
            Expr::Integer(n) => Expr::Integer(n.saturating_neg()),
            Expr::Duration(n) => Expr::Duration(n.saturating_neg()),
            Expr::Number(n) => Expr::Number(-n),
            other => {
                let left = Box::new(Expr::Integer(-1));
                Expr::Binary { op: Op::Mul, left, right: Box::new(other) }
            }
        };
        Ok((signed, self.checked_height(height + 1)?))
    }

    fn literal(&mut self) -> Result<Expr> {
        let expr = match &self.peek.token {
            Token::Integer(n) => Expr::Integer(*n),
            Token::Number(n) => Expr::Number(*n),
            Token::Duration(n) => Expr::Duration(*n),
            Token::Text(text) => Expr::Text(text.clone()),
            _ => return Err(self.expected("identifier, string, number, bool")),
        };
        self.take()?;
        Ok(expr)
    }

    /// `*`, `*::field`, `*::tag`.
    fn wildcard(&mut self) -> Result<Wildcard> {
        self.take()?;
        if !self.eat(&Token::Cast)? {
            return Ok(Wildcard::All);
        }
        if self.eat_word("field")? {
            return Ok(Wildcard::Fields);
        }
        self.expect_word("tag")?;
        Ok(Wildcard::Tags)
    }

    /// The pattern whose first slash is the token ahead.
    pub(super) fn pattern(&mut self) -> Result<regex::Regex> {
        if self.peek.token != Token::Op(Op::Div) {
            return Err(self.expected("regex"));
        }
        self.patterns_left = self.patterns_left.checked_sub(1).ok_or_else(|| {
            self.lexer.invalid(&format!("more than {MAX_PATTERNS} patterns in one text"), self.peek.start)
        })?;
        self.lexer.seek(self.peek.start);
        let pattern = self.lexer.pattern()?;
        self.peek = self.lexer.next()?;
        Ok(pattern)
    }

    /// What begins with a name: a truth value, a call, `DISTINCT x`, a field or tag.
    fn named(&mut self, depth: usize) -> Result<Tall> {
        if self.eat_word("true")? {
            return Ok((Expr::Bool(true), 1));
        }
        if self.eat_word("false")? {
            return Ok((Expr::Bool(false), 1));
        }
        if self.eat_word("distinct")? {
            let parens = self.eat(&Token::LeftParen)?;
            let args = vec![Expr::Ref(self.reference()?)];
            if parens {
                self.expect(&Token::RightParen, ")")?;
            }
            return Ok((Expr::Call(Call { name: "distinct".into(), args }), 2));
        }
        let bare = matches!(self.peek.token, Token::Bare(_));
        let reference = self.reference()?;
        if bare && reference.cast.is_none() && self.peek.token == Token::LeftParen {
            return self.call(&reference.name, depth);
        }
        Ok((Expr::Ref(reference), 1))
    }

    fn call(&mut self, name: &str, depth: usize) -> Result<Tall> {
        self.take()?;
        let (mut args, mut height) = (Vec::new(), 1);
        while self.peek.token != Token::RightParen {
            let (arg, arg_height) = self.binary(1, depth + 1)?;
            height = height.max(arg_height + 1);
            args.push(arg);
            if !self.eat(&Token::Comma)? {
                break;
            }
        }
        self.expect(&Token::RightParen, ")")?;
        Ok((Expr::Call(Call { name: name.to_ascii_lowercase(), args }), self.checked_height(height)?))
    }

    /// A field or tag: names joined by dots, and perhaps a cast.
    fn reference(&mut self) -> Result<Ref> {
        let mut name = match &self.peek.token {
            Token::Quoted(_) => self.name()?,
            Token::Bare(word) if !is_reserved(word) => self.name()?,
            _ => return Err(self.expected("identifier, string, number, bool")),
        };
        while self.eat(&Token::Dot)? {
            name.push('.');
            name.push_str(&self.name()?);
        }
        let cast = if self.eat(&Token::Cast)? { Some(self.cast()?) } else { None };
        Ok(Ref { name, cast })
    }

    fn cast(&mut self) -> Result<Cast> {
        const CASTS: [(&str, Cast); 7] = [
            ("field", Cast::Field),
            ("tag", Cast::Tag),
            ("float", Cast::Float),
            ("integer", Cast::Integer),
            ("unsigned", Cast::Unsigned),
            ("string", Cast::String),
            ("boolean", Cast::Boolean),
        ];
        for (word, cast) in CASTS {
            if self.eat_word(word)? {
                return Ok(cast);
            }
        }
        Err(self.expected("float, integer, unsigned, string, boolean, field, tag"))
    }
}
