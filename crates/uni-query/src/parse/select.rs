//! `SELECT ... FROM ... WHERE ... GROUP BY ... fill() ORDER BY ... LIMIT ...`.
//!
//! Owns the order of the clauses and the clauses that `SHOW` shares (`FROM`, `WHERE`, paging).

use super::{Parser, Result};
use crate::ast::{Expr, Field, Fill, From, MeasurementName, Op, Page, Select};
use crate::lex::Token;

impl Parser<'_> {
    pub(super) fn select(&mut self) -> Result<Select> {
        let mut select = Select { fields: self.fields()?, ..Select::default() };
        if self.at_word("INTO") {
            select.unsupported = Some("SELECT INTO".into());
            while !self.at_word("FROM") && self.peek.token != Token::Eof {
                self.take()?;
            }
        }
        self.expect_word("FROM")?;
        if self.peek.token == Token::LeftParen {
            self.skip_statement()?;
            select.unsupported = Some("a query inside FROM".into());
            return Ok(select);
        }
        select.from = self.from()?;
        select.condition = self.condition()?;
        if self.eat_word("GROUP")? {
            self.expect_word("BY")?;
            select.dimensions = self.dimensions()?;
        }
        if self.at_word("fill") {
            select.fill = self.fill()?;
        }
        select.descending = self.order()?;
        select.page = self.page()?;
        if self.eat_word("tz")? {
            select.unsupported = self.time_zone()?;
        }
        Ok(select)
    }

    fn skip_statement(&mut self) -> Result<()> {
        while !matches!(self.peek.token, Token::Semicolon | Token::Eof) {
            self.take()?;
        }
        Ok(())
    }

    fn fields(&mut self) -> Result<Vec<Field>> {
        let mut fields = Vec::new();
        loop {
            let expr = self.expr()?;
            let alias = if self.eat_word("AS")? { Some(self.name()?) } else { None };
            fields.push(Field { expr, alias });
            if !self.eat(&Token::Comma)? {
                return Ok(fields);
            }
        }
    }

    /// The sources after `FROM`.
    pub(super) fn from(&mut self) -> Result<Vec<From>> {
        let mut sources = Vec::new();
        loop {
            sources.push(self.source()?);
            if !self.eat(&Token::Comma)? {
                return Ok(sources);
            }
        }
    }

    /// `m`, `rp.m`, `db.rp.m`, `db..m`, each with a pattern in place of `m`.
    fn source(&mut self) -> Result<From> {
        let mut before: Vec<Option<String>> = Vec::new();
        let measurement = loop {
            if self.peek.token == Token::Op(Op::Div) {
                break MeasurementName::Pattern(self.pattern()?);
            }
            if before.len() == 1 && self.eat(&Token::Dot)? {
                before.push(None);
                continue;
            }
            let name = self.name()?;
            if before.len() == 2 || !self.eat(&Token::Dot)? {
                break MeasurementName::Exact(name);
            }
            before.push(Some(name));
        };
        let policy = before.pop().flatten();
        let db = before.pop().flatten();
        Ok(From { db, policy, measurement })
    }

    /// `WHERE ...`, if there.
    pub(super) fn condition(&mut self) -> Result<Option<Expr>> {
        if self.eat_word("WHERE")? { Ok(Some(self.expr()?)) } else { Ok(None) }
    }

    fn dimensions(&mut self) -> Result<Vec<Expr>> {
        let mut dimensions = Vec::new();
        loop {
            dimensions.push(self.expr()?);
            if !self.eat(&Token::Comma)? {
                return Ok(dimensions);
            }
        }
    }

    fn fill(&mut self) -> Result<Fill> {
        self.take()?;
        self.expect(&Token::LeftParen, "(")?;
        let negative = self.eat(&Token::Op(Op::Sub))?;
        let fill = match &self.peek.token {
            Token::Integer(n) => Fill::Number(signed(*n as f64, negative)),
            Token::Number(n) => Fill::Number(signed(*n, negative)),
            Token::Bare(word) if !negative => match word.to_ascii_lowercase().as_str() {
                "null" => Fill::Null,
                "none" => Fill::None,
                "previous" => Fill::Previous,
                "linear" => Fill::Linear,
                _ => return Err(self.expected("null, none, previous, linear or a number")),
            },
            _ => return Err(self.expected("null, none, previous, linear or a number")),
        };
        self.take()?;
        self.expect(&Token::RightParen, ")")?;
        Ok(fill)
    }

    /// `ORDER BY time [ASC|DESC]`; whether it says descending.
    pub(super) fn order(&mut self) -> Result<bool> {
        if !self.eat_word("ORDER")? {
            return Ok(false);
        }
        self.expect_word("BY")?;
        let named =
            matches!(&self.peek.token, Token::Bare(n) | Token::Quoted(n) if n.eq_ignore_ascii_case("time"));
        if named {
            self.take()?;
        } else if !self.at_word("ASC") && !self.at_word("DESC") {
            return Err(self.expected("time (only ORDER BY time is supported)"));
        }
        if self.eat_word("DESC")? {
            return Ok(true);
        }
        self.eat_word("ASC")?;
        Ok(false)
    }

    /// `LIMIT`, `OFFSET`, `SLIMIT`, `SOFFSET`, those that are there.
    pub(super) fn page(&mut self) -> Result<Page> {
        Ok(Page {
            limit: self.count("LIMIT")?,
            offset: self.count("OFFSET")?,
            series_limit: self.count("SLIMIT")?,
            series_offset: self.count("SOFFSET")?,
        })
    }

    fn count(&mut self, word: &str) -> Result<usize> {
        if !self.eat_word(word)? {
            return Ok(0);
        }
        let Token::Integer(n) = self.peek.token else {
            return Err(self.expected("integer"));
        };
        self.take()?;
        // more rows than can be counted is no limit
        Ok(usize::try_from(n).unwrap_or(0))
    }

    /// `('...')` after `tz`; what is not supported, if it is not UTC.
    fn time_zone(&mut self) -> Result<Option<String>> {
        self.expect(&Token::LeftParen, "(")?;
        let Token::Text(zone) = self.take()? else {
            return Err(self.expected("the name of a time zone in single quotes"));
        };
        self.expect(&Token::RightParen, ")")?;
        let utc = zone.eq_ignore_ascii_case("UTC") || zone == "Etc/UTC";
        Ok((!utc).then(|| format!("tz('{zone}'): times are in UTC, any other zone")))
    }
}

fn signed(number: f64, negative: bool) -> f64 {
    if negative { -number } else { number }
}
