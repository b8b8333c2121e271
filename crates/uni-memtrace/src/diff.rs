//! Two traces side by side.
//!
//! Owns the matching of rows: by name, file and library, for sites also by line.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::analysis::Analysis;
use crate::report::{Grouping, Row, Totals};

/// What one site, function or library has in both traces.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DiffRow {
    /// The function, or the library.
    pub name: String,
    /// The source file; empty if not known, or if it is a library.
    pub file: String,
    /// The line; 0 if not known.
    pub line: u32,
    /// The library.
    pub library: String,
    /// Alive at the end of the first trace.
    pub live_before_bytes: u64,
    /// Alive at the end of the second.
    pub live_after_bytes: u64,
    /// How much more that is.
    pub live_change_bytes: i64,
    /// Allocated in the first trace.
    pub allocated_before_bytes: u64,
    /// Allocated in the second.
    pub allocated_after_bytes: u64,
}

/// What changed from one trace to another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diff {
    /// Sums of the first.
    pub before: Totals,
    /// Sums of the second.
    pub after: Totals,
    /// The largest change of live bytes first, then of allocated ones.
    pub rows: Vec<DiffRow>,
    /// How many rows were left out.
    pub rows_left_out: usize,
}

impl Diff {
    /// Compares two traces; at most `top` rows.
    #[must_use]
    pub fn new(before: &Analysis, after: &Analysis, grouping: Grouping, top: usize) -> Self {
        let mut pairs: BTreeMap<(String, String, u32, String), [Row; 2]> = BTreeMap::new();
        for (side, analysis) in [before, after].into_iter().enumerate() {
            for row in analysis.rows(grouping) {
                let key = (row.library.clone(), row.name.clone(), row.line, row.file.clone());
                pairs.entry(key).or_default()[side] = row;
            }
        }
        let mut rows: Vec<DiffRow> = pairs
            .into_iter()
            .map(|((library, name, line, file), [before, after])| DiffRow {
                name,
                file,
                line,
                library,
                live_before_bytes: before.live_bytes,
                live_after_bytes: after.live_bytes,
                live_change_bytes: change(before.live_bytes, after.live_bytes),
                allocated_before_bytes: before.allocated_bytes,
                allocated_after_bytes: after.allocated_bytes,
            })
            .filter(|row| row.allocated_before_bytes > 0 || row.allocated_after_bytes > 0)
            .collect();
        rows.sort_by_key(|row| {
            let allocated = change(row.allocated_before_bytes, row.allocated_after_bytes);
            std::cmp::Reverse((row.live_change_bytes.unsigned_abs(), allocated.unsigned_abs()))
        });
        let rows_left_out = rows.len().saturating_sub(top);
        rows.truncate(top);
        Self { before: before.totals(), after: after.totals(), rows, rows_left_out }
    }
}

fn change(before: u64, after: u64) -> i64 {
    let side = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    side(after).saturating_sub(side(before))
}
