//! A request from its text to its answer.
//!
//! Owns the order of statements and what happens after one that fails. Never touches points itself.

use crate::ast::Statement;
use crate::delete;
use crate::error::{ParseError, RunError};
use crate::limits::{Budget, Limits};
use crate::parse::parse;
use crate::response::{Response, StatementResult, Table};
use crate::select::{self, Context};
use crate::show;
use crate::source::{Change, Source};
use uni_wire::Timestamp;

/// The error of the statements after one that failed.
const NOT_EXECUTED: &str = "not executed";

/// What is asked, and on what terms.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// One or more statements, `;` between them.
    pub text: &'a str,
    /// The database of the statements that name none.
    pub db: Option<&'a str>,
    /// What `now()` is, and where a grouped query without an end ends.
    pub now: Timestamp,
    /// Bounds on what the request may cost.
    pub limits: Limits<'a>,
    /// Which statements that change something are executed; the others are refused.
    pub changes: Changes,
}

/// Which statements that change something a request may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Changes {
    /// None.
    #[default]
    None,
    /// `CREATE DATABASE` and `CREATE RETENTION POLICY`: nothing is lost by them. Meant for requests by GET, which a page
    /// from elsewhere can make a browser send.
    Additions,
    /// All.
    All,
}

impl Changes {
    fn check(self, statement: &'static str, adds: bool) -> Result<(), RunError> {
        match self {
            Self::All => Ok(()),
            Self::Additions if adds => Ok(()),
            Self::Additions => Err(RunError::AddsOnly(statement)),
            Self::None => Err(RunError::ReadOnly(statement)),
        }
    }
}

/// Executes the statements of a request one after the other.
///
/// A statement that fails puts its error into its result; those after it are not executed. As in InfluxDB, they
/// are listed as `not executed`, but for the last.
///
/// # Differences from InfluxDB 1.x
/// - Not supported, and refused with an error: subqueries, `INTO`, `DROP SHARD`, users and grants, continuous queries, `tz()` other than UTC, `top`, `bottom`, `sample`, `mode`, `integral`, mathematical functions.
/// - Rows of one measurement in several policies or databases are several series of the answer.
/// - By GET nothing is dropped or deleted ([`Changes::Additions`]); InfluxDB warns.
/// - `ORDER BY time DESC` computes rates and `fill(previous)` in ascending time and then turns the rows round, with
///   those of `distinct`; in InfluxDB rates change their sign.
/// - A condition on time under `OR` is refused; InfluxDB takes it as `AND`.
/// - Integer sums and products that leave 64 bits go on as larger types; InfluxDB wraps round.
/// - In `SHOW ... WHERE`, conditions on time are ignored (InfluxDB: whole shards), and every name is a tag.
///
/// # Errors
/// The text does not parse, or is too long or too deep; then nothing was executed.
pub fn execute(source: &dyn Source, request: &Request<'_>) -> Result<Response, ParseError> {
    let statements = parse(request.text, &request.limits)?;
    let mut budget = Budget::new(request.limits);
    let mut results = Vec::new();
    for (id, statement) in statements.iter().enumerate() {
        let result = StatementResult::new(id, run(source, request, statement, &mut budget));
        let failed = result.outcome.is_err();
        results.push(result);
        if failed {
            let skipped = id + 1..statements.len().saturating_sub(1);
            results.extend(
                skipped.map(|id| StatementResult { statement_id: id, outcome: Err(NOT_EXECUTED.to_owned()) }),
            );
            break;
        }
    }
    Ok(Response { results })
}

fn run(
    source: &dyn Source,
    request: &Request<'_>,
    statement: &Statement,
    budget: &mut Budget<'_>,
) -> Result<Vec<Table>, RunError> {
    let db = request.db.filter(|db| !db.is_empty());
    match statement {
        Statement::Select(select) => {
            select::run(select, &mut Context { source, db, now: request.now, budget })
        }
        Statement::Change(change) => {
            let adds = matches!(change, Change::CreateDatabase { .. } | Change::CreatePolicy { .. });
            request.changes.check(change.name(), adds)?;
            source.change(change)?;
            Ok(Vec::new())
        }
        Statement::DropMeasurement { name } => {
            request.changes.check("DROP MEASUREMENT", false)?;
            delete::drop_measurement(source, db, name).map(|()| Vec::new())
        }
        Statement::DropSeries(what) => {
            request.changes.check("DROP SERIES", false)?;
            delete::drop_series(source, db, what, request.now).map(|()| Vec::new())
        }
        Statement::Delete(what) => {
            request.changes.check("DELETE", false)?;
            delete::delete(source, db, what, request.now).map(|()| Vec::new())
        }
        Statement::Unsupported(what) => Err(RunError::Unsupported(what.clone())),
        other => show::run(other, source, db, request.now),
    }
}
