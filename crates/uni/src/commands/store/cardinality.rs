//! `uni store cardinality`: how many series there are, and of what.
//!
//! Owns the tables.

use std::fmt::Write as _;

use uni_api::rpc::method;
use uni_api::store::CardinalityParams;
use uni_store::{Cardinality, Counted, DatabaseCardinality};

use crate::args::{CardinalityArgs, Format};
use crate::client::{ANSWER_WAIT, Client};
use crate::output;
use crate::render::columns;
use crate::text::one_line;

/// Counts.
///
/// # Errors
/// What failed.
pub(super) fn run(client: &mut Client, args: &CardinalityArgs, format: Format) -> anyhow::Result<()> {
    let counted: Cardinality = match &args.state_dir {
        None => client.call(method::STORE_CARDINALITY, &CardinalityParams { top: args.top }, ANSWER_WAIT)?,
        Some(state_dir) => super::read_only(state_dir)?.cardinality(args.top),
    };
    match format {
        Format::Json => output::json(&counted),
        Format::Table => output::text(&table(&counted)),
    }
}

fn table(counted: &Cardinality) -> String {
    let mut out = match counted.max_series {
        // read from a folder: the daemon's limit is not known
        limit if limit > u64::from(u32::MAX) => format!("Series: {}\n", counted.series),
        limit => format!("Series: {} of {limit}\n", counted.series),
    };
    counted.databases.iter().for_each(|database| section(&mut out, database));
    out
}

fn section(out: &mut String, database: &DatabaseCardinality) {
    let _a_string_takes_all =
        writeln!(out, "\nDatabase {}: {} series", one_line(&database.name), database.series);
    let of_series = |all: &[Counted]| -> Vec<[String; 3]> {
        all.iter().map(|one| [one_line(&one.name), one.series.to_string(), one.columns.to_string()]).collect()
    };
    let tags = database.tags.iter();
    let tags = tags.map(|tag| [one_line(&tag.key), tag.series.to_string(), tag.values.to_string()]).collect();
    for (head, rows, total) in [
        (
            ["MEASUREMENT", "SERIES", "COLUMNS"],
            of_series(&database.measurements),
            database.measurements_total,
        ),
        (["TAG", "SERIES", "VALUES"], tags, database.tags_total),
        (["VM", "SERIES", "COLUMNS"], of_series(&database.vms), database.vms_total),
    ] {
        if rows.is_empty() {
            continue;
        }
        let more = total.saturating_sub(rows.len() as u64);
        out.push('\n');
        out.push_str(&columns(std::iter::once(head.map(str::to_owned)).chain(rows)));
        if more > 0 {
            let _a_string_takes_all = writeln!(out, "and {more} more");
        }
    }
}
