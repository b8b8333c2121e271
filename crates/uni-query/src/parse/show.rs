//! `SHOW ...`.
//!
//! Owns the order of its clauses. Which clauses mean something for which statement is the parser's to say here.

use super::{Parser, Result};
use crate::ast::{NameTest, Op, Show, Statement};
use crate::lex::Token;

const KINDS: &str = "DATABASES, FIELD, MEASUREMENTS, RETENTION, SERIES, TAG";
/// What InfluxDB can show and this engine cannot.
const UNSUPPORTED: &[&str] = &[
    "CONTINUOUS",
    "DIAGNOSTICS",
    "GRANTS",
    "MEASUREMENT",
    "QUERIES",
    "SHARD",
    "SHARDS",
    "STATS",
    "SUBSCRIPTIONS",
    "USERS",
];

/// Which clauses a `SHOW` statement has.
#[derive(Clone, Copy)]
struct Clauses {
    from: bool,
    /// The word after `WITH`, and whether the clause has to be there.
    with: Option<(&'static str, bool)>,
    condition: bool,
}

const PLAIN: Clauses = Clauses { from: true, with: None, condition: true };

impl Parser<'_> {
    pub(super) fn show(&mut self) -> Result<Statement> {
        if self.eat_word("DATABASES")? {
            return Ok(Statement::ShowDatabases);
        }
        if self.eat_word("MEASUREMENTS")? {
            let with = Some(("MEASUREMENT", false));
            let clauses = Clauses { from: false, with, ..PLAIN };
            return Ok(Statement::ShowMeasurements(self.clauses(clauses)?));
        }
        if self.eat_word("TAG")? {
            return self.show_tag();
        }
        if self.eat_word("FIELD")? {
            if !self.eat_word("KEYS")? {
                return self.unsupported("SHOW FIELD");
            }
            return Ok(Statement::ShowFieldKeys(self.clauses(Clauses { condition: false, ..PLAIN })?));
        }
        if self.eat_word("SERIES")? {
            return self.show_series();
        }
        if self.eat_word("RETENTION")? {
            self.expect_word("POLICIES")?;
            return Ok(Statement::ShowPolicies { db: self.on()? });
        }
        if UNSUPPORTED.iter().any(|word| self.at_word(word)) {
            return self.unsupported("SHOW");
        }
        Err(self.expected(KINDS))
    }

    fn show_tag(&mut self) -> Result<Statement> {
        if self.eat_word("KEYS")? {
            let clauses = Clauses { with: Some(("KEY", false)), ..PLAIN };
            return Ok(Statement::ShowTagKeys(self.clauses(clauses)?));
        }
        if !self.eat_word("VALUES")? {
            return if self.at_word("KEY") {
                self.unsupported("SHOW TAG")
            } else {
                Err(self.expected("KEYS, VALUES"))
            };
        }
        if self.at_word("CARDINALITY") || self.at_word("EXACT") {
            return self.unsupported("SHOW TAG VALUES");
        }
        Ok(Statement::ShowTagValues(self.clauses(Clauses { with: Some(("KEY", true)), ..PLAIN })?))
    }

    fn show_series(&mut self) -> Result<Statement> {
        if self.at_word("EXACT") {
            return self.unsupported("SHOW SERIES");
        }
        if self.eat_word("CARDINALITY")? {
            return Ok(Statement::ShowSeriesCardinality(self.clauses(PLAIN)?));
        }
        Ok(Statement::ShowSeries(self.clauses(PLAIN)?))
    }

    fn on(&mut self) -> Result<Option<String>> {
        if self.eat_word("ON")? { Ok(Some(self.name()?)) } else { Ok(None) }
    }

    fn clauses(&mut self, has: Clauses) -> Result<Show> {
        let mut show = Show { db: self.on()?, ..Show::default() };
        if has.from && self.eat_word("FROM")? {
            show.from = self.from()?;
        }
        if let Some((word, needed)) = has.with
            && (needed || self.at_word("WITH"))
        {
            self.expect_word("WITH")?;
            self.expect_word(word)?;
            show.with = Some(self.name_test()?);
        }
        if has.condition {
            show.condition = self.condition()?;
        }
        self.order()?;
        show.page = self.page()?;
        Ok(show)
    }

    /// `= name`, `!= name`, `=~ /pattern/`, `!~ /pattern/`, `IN (name, ...)`.
    fn name_test(&mut self) -> Result<NameTest> {
        if self.eat_word("IN")? {
            return self.name_list();
        }
        let Token::Op(op @ (Op::Eq | Op::Ne | Op::Match | Op::MatchNot)) = self.peek.token else {
            return Err(self.expected("=, !=, =~, !~, IN"));
        };
        self.take()?;
        Ok(match op {
            Op::Match => NameTest::Matches(self.pattern()?),
            Op::MatchNot => NameTest::MatchesNot(self.pattern()?),
            Op::Ne => NameTest::NotIn(vec![self.name()?]),
            _ => NameTest::In(vec![self.name()?]),
        })
    }

    fn name_list(&mut self) -> Result<NameTest> {
        self.expect(&Token::LeftParen, "(")?;
        let mut names = vec![self.name()?];
        while self.eat(&Token::Comma)? {
            names.push(self.name()?);
        }
        self.expect(&Token::RightParen, ")")?;
        Ok(NameTest::In(names))
    }
}
