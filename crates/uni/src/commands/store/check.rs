//! `uni store check`: what is damaged, where, and what it costs.
//!
//! Owns the report. Never changes anything without `--isolate`, and then moves.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Serialize;
use uni_store::{Damage, FileReport};

use super::files::Files;
use super::manifest::{self, Manifest};
use crate::args::{CheckArgs, Format};
use crate::client::Client;
use crate::moment;
use crate::output;
use crate::render::bytes as sized;
use crate::text::one_line;

/// What was found in all files, for programs.
#[derive(Debug, Default, Serialize)]
struct Report {
    files: u64,
    bytes: u64,
    points: u64,
    /// Points that cannot be read, as far as is known.
    lost_points: u64,
    /// Files that are not whole, and why.
    damaged: Vec<Found>,
}

/// A file with damage, or a log with a torn end.
#[derive(Debug, Serialize)]
struct Found {
    path: String,
    #[serde(flatten)]
    report: FileReport,
    /// Where the damaged part is now.
    isolated: Option<PathBuf>,
}

/// Checks.
///
/// # Errors
/// What failed, or that something is damaged.
pub(super) fn run(client: &mut Client, args: &CheckArgs, format: Format) -> anyhow::Result<()> {
    let report = match &args.backup {
        Some(dir) => backup(dir)?,
        None => store(client, args)?,
    };
    match format {
        Format::Json => output::json(&report)?,
        Format::Table => output::text(&table(&report))?,
    }
    match report.damaged.iter().filter(|found| found.report.is_damaged()).count() {
        0 => Ok(()),
        1 => bail!("1 file is damaged"),
        count => bail!("{count} files are damaged"),
    }
}

fn store(client: &mut Client, args: &CheckArgs) -> anyhow::Result<Report> {
    let mut files = Files::open(client, args.state_dir.as_deref(), true)?;
    let list = files.list().to_vec();
    let bar = super::bytes_bar(list.iter().map(|file| file.bytes).sum(), "check");
    let mut all = Report::default();
    for (n, file) in list.into_iter().enumerate() {
        let report = files.check(n)?;
        bar.inc(file.bytes);
        let isolated = match &files {
            Files::Folder(snapshot) if args.isolate && report.is_damaged() => {
                let moved = snapshot.isolate(n, &report);
                Some(moved.with_context(|| format!("isolate {}", file.path))?)
            }
            _ => None,
        };
        all.put(file.path, file.bytes, report, isolated);
    }
    bar.finish_and_clear();
    Ok(all)
}

fn backup(dir: &Path) -> anyhow::Result<Report> {
    let manifest = Manifest::load(dir)?;
    let manifest = manifest.with_context(|| format!("there is no whole backup in {}", dir.display()))?;
    let bar = super::bytes_bar(manifest.bytes(), "check");
    let mut all = Report::default();
    for (path, entry) in &manifest.files {
        let place = entry.place(dir, path);
        let fault = match manifest::read_whole(&place, |_| Ok(())) {
            Ok(read) if read == (entry.bytes, entry.crc32) => None,
            Ok((bytes, crc32)) => Some(format!(
                "it has {bytes} bytes and checksum {crc32:08x}, the manifest says {} and {:08x}",
                entry.bytes, entry.crc32
            )),
            Err(error) => Some(error.to_string()),
        };
        let damage = fault.map(|what| Damage { what, at_least: true, ..Damage::default() });
        let report =
            FileReport { kind: "copy".into(), damage: damage.into_iter().collect(), ..FileReport::default() };
        bar.inc(entry.bytes);
        all.put(place.display().to_string(), entry.bytes, report, None);
    }
    bar.finish_and_clear();
    Ok(all)
}

impl Report {
    fn put(&mut self, path: String, bytes: u64, report: FileReport, isolated: Option<PathBuf>) {
        self.files += 1;
        self.bytes += bytes;
        self.points += report.points;
        self.lost_points += report.lost_points();
        if report.is_damaged() || report.torn_bytes > 0 {
            self.damaged.push(Found { path, report, isolated });
        }
    }
}

fn table(all: &Report) -> String {
    let mut out = String::new();
    for found in &all.damaged {
        out.push_str(&one_line(&found.path));
        out.push('\n');
        found.report.damage.iter().for_each(|damage| out.push_str(&line(damage)));
        if found.report.more_damage > 0 {
            out.push_str(&format!("  and {} more places\n", found.report.more_damage));
        }
        if found.report.torn_bytes > 0 {
            out.push_str(&format!(
                "  the last {} bytes are the beginning of a write that was cut short; it was never acknowledged\n",
                found.report.torn_bytes
            ));
        }
        if let Some(isolated) = &found.isolated {
            out.push_str(&format!("  is now in {}\n", one_line(&isolated.to_string_lossy())));
        }
    }
    let points = if all.points > 0 { format!(", {} points can be read", all.points) } else { String::new() };
    let lost = match all.lost_points {
        0 => String::new(),
        lost => format!(", {lost} cannot"),
    };
    out + &format!("{} files, {}{points}{lost}\n", all.files, sized(all.bytes))
}

fn line(damage: &Damage) -> String {
    let mut line = format!("  byte {}: {}", damage.offset, one_line(&damage.what));
    if damage.points > 0 || !damage.at_least {
        let at_least = if damage.at_least { "at least " } else { "" };
        line.push_str(&format!("; {at_least}{} points", damage.points));
    } else {
        line.push_str("; how many points is not known");
    }
    if !damage.series.is_empty() {
        line.push_str(&format!(" of {}", one_line(&damage.series)));
    }
    if let (Some(first), Some(last)) = (damage.first_ns, damage.last_ns) {
        line.push_str(&format!(", {} to {}", moment::show(first), moment::show(last)));
    }
    line + "\n"
}
