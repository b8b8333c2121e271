//! Statements that change something: `CREATE`, `ALTER`, `DROP`, `DELETE`.
//!
//! Owns their clauses. What may be changed by whom is `run`'s to say.

use super::{Parser, Result};
use crate::ast::{Delete, Statement};
use crate::lex::Token;
use crate::source::{Change, PolicyChange};
use std::time::Duration;

const CREATED: &str = "CONTINUOUS, DATABASE, USER, RETENTION, SUBSCRIPTION";
const DROPPED: &str = "CONTINUOUS, DATABASE, MEASUREMENT, RETENTION, SERIES, SHARD, SUBSCRIPTION, USER";
const OF_DATABASE: &str = "DURATION, NAME, REPLICATION, SHARD";
const OF_POLICY: &str = "DURATION, REPLICATION, SHARD, DEFAULT";

impl Parser<'_> {
    pub(super) fn create(&mut self) -> Result<Statement> {
        if self.eat_word("DATABASE")? {
            return self.create_database();
        }
        if self.eat_word("RETENTION")? {
            return self.create_policy();
        }
        if ["CONTINUOUS", "USER", "SUBSCRIPTION"].iter().any(|word| self.at_word(word)) {
            return self.unsupported("CREATE");
        }
        Err(self.expected(CREATED))
    }

    fn create_database(&mut self) -> Result<Statement> {
        let name = self.name()?;
        if !self.eat_word("WITH")? {
            return Ok(Statement::Change(Change::CreateDatabase { name, with: None }));
        }
        let mut change = PolicyChange::default();
        let mut policy = None;
        let start = self.peek.start;
        self.duration_clause(&mut change)?;
        self.replication_clause(&mut change)?;
        self.shard_clause(&mut change)?;
        if self.eat_word("NAME")? {
            policy = Some(self.name()?);
        }
        if self.peek.start == start {
            return Err(self.expected(OF_DATABASE));
        }
        Ok(Statement::Change(Change::CreateDatabase { name, with: Some((policy, change)) }))
    }

    fn create_policy(&mut self) -> Result<Statement> {
        let (name, db) = self.policy_on()?;
        let mut change = PolicyChange::default();
        if !self.duration_clause(&mut change)? {
            return Err(self.expected("DURATION"));
        }
        if !self.replication_clause(&mut change)? {
            return Err(self.expected("REPLICATION"));
        }
        self.shard_clause(&mut change)?;
        let default = self.eat_word("DEFAULT")?;
        Ok(Statement::Change(Change::CreatePolicy { db, name, change, default }))
    }

    pub(super) fn alter(&mut self) -> Result<Statement> {
        self.expect_word("RETENTION")?;
        let (name, db) = self.policy_on()?;
        let (mut change, mut default, mut any) = (PolicyChange::default(), false, false);
        loop {
            let found = self.duration_clause(&mut change)?
                || self.replication_clause(&mut change)?
                || self.shard_clause(&mut change)?;
            let is_default = !found && self.eat_word("DEFAULT")?;
            default |= is_default;
            if !found && !is_default {
                break;
            }
            any = true;
        }
        if !any {
            return Err(self.expected(OF_POLICY));
        }
        Ok(Statement::Change(Change::AlterPolicy { db, name, change, default }))
    }

    pub(super) fn drop_statement(&mut self) -> Result<Statement> {
        if self.eat_word("DATABASE")? {
            return Ok(Statement::Change(Change::DropDatabase { name: self.name()? }));
        }
        if self.eat_word("MEASUREMENT")? {
            return Ok(Statement::DropMeasurement { name: self.name()? });
        }
        if self.eat_word("SERIES")? {
            return Ok(Statement::DropSeries(self.delete()?));
        }
        if self.eat_word("RETENTION")? {
            let (name, db) = self.policy_on()?;
            return Ok(Statement::Change(Change::DropPolicy { db, name }));
        }
        if ["CONTINUOUS", "SHARD", "SUBSCRIPTION", "USER"].iter().any(|word| self.at_word(word)) {
            return self.unsupported("DROP");
        }
        Err(self.expected(DROPPED))
    }

    /// What follows `DELETE` and `DROP SERIES`.
    pub(super) fn delete(&mut self) -> Result<Delete> {
        let from = if self.eat_word("FROM")? { self.from()? } else { Vec::new() };
        if from.is_empty() && !self.at_word("WHERE") {
            return Err(self.expected("FROM, WHERE"));
        }
        for (named, what) in [
            (from.iter().any(|from| from.policy.is_some()), "retention policy not supported"),
            (from.iter().any(|from| from.db.is_some()), "database not supported"),
        ] {
            if named {
                return Err(self.lexer.invalid(what, 0));
            }
        }
        Ok(Delete { from, condition: self.condition()? })
    }

    /// `POLICY name ON database`.
    fn policy_on(&mut self) -> Result<(String, String)> {
        self.expect_word("POLICY")?;
        let name = self.name()?;
        self.expect_word("ON")?;
        Ok((name, self.name()?))
    }

    fn duration_clause(&mut self, change: &mut PolicyChange) -> Result<bool> {
        let there = self.eat_word("DURATION")?;
        if there {
            change.duration = Some(self.policy_duration()?);
        }
        Ok(there)
    }

    fn shard_clause(&mut self, change: &mut PolicyChange) -> Result<bool> {
        let there = self.eat_word("SHARD")?;
        if there {
            self.expect_word("DURATION")?;
            change.shard_duration = Some(self.policy_duration()?);
        }
        Ok(there)
    }

    fn replication_clause(&mut self, change: &mut PolicyChange) -> Result<bool> {
        let there = self.eat_word("REPLICATION")?;
        if there {
            let Token::Integer(n) = self.peek.token else { return Err(self.expected("integer")) };
            let count = u32::try_from(n).ok().filter(|count| (1..=2_147_483_647).contains(count));
            let Some(count) = count else {
                let reason = format!("invalid value {n}: must be 1 <= n <= 2147483647");
                return Err(self.lexer.invalid(&reason, self.peek.start));
            };
            self.take()?;
            change.replicas = Some(count);
        }
        Ok(there)
    }

    /// A duration, or `INF` for ever, which is zero.
    fn policy_duration(&mut self) -> Result<Duration> {
        if self.eat_word("INF")? {
            return Ok(Duration::ZERO);
        }
        let Token::Duration(nanos) = self.peek.token else { return Err(self.expected("duration")) };
        self.take()?;
        Ok(Duration::from_nanos(nanos.unsigned_abs()))
    }
}
