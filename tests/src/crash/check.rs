//! What must be in the store: everything acknowledged, and of each body all rows or none.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::Outcome;
use super::senders::{SENDERS, Sent, body_at, rows_of, time_of};
use crate::Daemon;

/// Bodies that are known to be there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    /// For each sender the number of the next body: those below are there.
    next: [u64; SENDERS],
    /// For each sender the rows of those bodies.
    rows: [u64; SENDERS],
}

impl Kept {
    /// The body with which each sender goes on. One that was under way and is lost is sent again: nobody had
    /// acknowledged it.
    pub(crate) const fn next(&self) -> [u64; SENDERS] {
        self.next
    }

    /// Looks for the bodies of a round, and for those that may have been under way.
    pub(crate) fn look(&mut self, daemon: &Daemon, sent: &Sent, outcome: &mut Outcome) -> anyhow::Result<()> {
        for sender in 0..SENDERS {
            let (first, count) = (sent.first[sender], sent.acknowledged[sender]);
            let found = bodies(daemon, sender, first, first + count + 1)?;
            for body in first..first + count {
                let rows = found.get(&body).copied().unwrap_or(0);
                let whole = rows_of(sender, body);
                ensure!(
                    rows == whole,
                    "body {body} of sender {sender} was acknowledged: {rows} of {whole} rows"
                );
                self.rows[sender] += whole;
                outcome.rows += whole;
            }
            outcome.acknowledged += count;
            self.next[sender] = first + count;
            self.look_at_last(sender, &found, outcome)?;
        }
        Ok(())
    }

    /// The body that was under way when `unid` died: all of it, or nothing.
    fn look_at_last(
        &mut self,
        sender: usize,
        found: &BTreeMap<u64, u64>,
        outcome: &mut Outcome,
    ) -> anyhow::Result<()> {
        let body = self.next[sender];
        let (rows, whole) = (found.get(&body).copied().unwrap_or(0), rows_of(sender, body));
        ensure!(rows == 0 || rows == whole, "half of body {body} of sender {sender}: {rows} of {whole} rows");
        outcome.under_way += 1;
        if rows == whole {
            outcome.under_way_kept += 1;
            self.next[sender] += 1;
            self.rows[sender] += whole;
        }
        Ok(())
    }

    /// Counts the rows of all rounds.
    pub(crate) fn look_at_all(&self, daemon: &Daemon, outcome: &mut Outcome) -> anyhow::Result<()> {
        for sender in 0..SENDERS {
            let rows = daemon
                .number(&format!("SELECT count(body) FROM crash WHERE sender='{sender}'"))
                .context("all rows at the end")?;
            let known = self.rows[sender];
            ensure!(rows == known as f64, "sender {sender}: {rows} rows at the end, {known} were there");
            outcome.rows += known;
        }
        Ok(())
    }
}

/// The bodies from `from` up to `to` (included) of a sender that are there, with how many rows each has. Every row is
/// compared with what was sent.
pub(crate) fn bodies(
    daemon: &Daemon,
    sender: usize,
    from: u64,
    to: u64,
) -> anyhow::Result<BTreeMap<u64, u64>> {
    let (start, end) = (time_of(from), time_of(to));
    // Without a row there is no series in the answer.
    let mut answer = daemon.query(&format!(
        "SELECT body, row FROM crash WHERE sender='{sender}' AND time >= {start} AND time <= {end}"
    ))?;
    let rows = answer.pointer_mut("/results/0/series/0/values").map(Value::take);
    let mut found: BTreeMap<u64, u64> = BTreeMap::new();
    for row in rows.as_ref().and_then(Value::as_array).into_iter().flatten() {
        let number = |column: usize| row.get(column).and_then(Value::as_u64);
        let (time, body) = (number(0).context("no time")?, number(1).context("no body")?);
        ensure!(
            body_at(time * 1_000_000) == body,
            "row {row:?} of sender {sender} has another time than it was sent with"
        );
        *found.entry(body).or_default() += 1;
    }
    Ok(found)
}
