//! `uni store export`: points, page by page, in the format that is asked for.
//!
//! Owns the loop and what is said about it. Holds one page in memory.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;
use uni_store::{ExportPage, ExportSelection};
use uni_wire::line::{Framing, LineWriter, Mode, Point, Precision, lines, parse_point};
use uni_wire::{FieldValue, Timestamp, Value};

use super::lines::Pages;
use super::openmetrics::OpenMetrics;
use super::sink::Sink;
use crate::args::{ExportArgs, ExportFormat, Format, Unsigned};
use crate::client::Client;
use crate::commands::take::Stop;
use crate::moment::Moment;
use crate::output;
use crate::render::bytes as sized;

/// Complaints that are shown.
const MAX_COMPLAINTS: usize = 10;

/// What was written, for programs.
#[derive(Debug, Default, Serialize)]
pub(super) struct Written {
    pub(super) points: u64,
    pub(super) bytes: u64,
    /// Values that the format has no place for: texts in OpenMetrics, large unsigned integers as integers.
    pub(super) left_out_values: u64,
    /// Values of one series in the same millisecond, of which the last was kept.
    pub(super) same_millisecond_values: u64,
    /// Names that were changed so that they do not clash.
    pub(super) renamed: u64,
}

/// Turns pages into a format.
pub(super) trait Form {
    /// What stands first.
    fn begin(&mut self, sink: &mut Sink) -> anyhow::Result<()>;
    /// A page.
    fn page(&mut self, page: &ExportPage, sink: &mut Sink, written: &mut Written) -> anyhow::Result<()>;
    /// What stands last.
    fn end(&mut self, sink: &mut Sink, written: &mut Written) -> anyhow::Result<()>;
}

/// Exports.
///
/// # Errors
/// What failed, that it was interrupted, or that a part of the store is damaged and missing.
pub(super) fn run(client: &mut Client, args: &ExportArgs, format: Format) -> anyhow::Result<()> {
    let selection = selection(args, args.format == ExportFormat::Prom)?;
    let stop = Stop::watch()?;
    let mut form: Box<dyn Form> = match args.format {
        ExportFormat::Lp => Box::new(LineProtocol { database: &args.database, unsigned: args.unsigned }),
        ExportFormat::Prom => Box::new(OpenMetrics::default()),
        #[cfg(feature = "parquet")]
        ExportFormat::Parquet => return super::parquet::run(client, args, &selection, &stop, format),
    };
    let mut pages = Pages::open(client, args.state_dir.as_deref(), selection)?;
    // the first answer says whether there is such a database, before a file is made
    let mut next = pages.next()?;
    let mut sink = Sink::create(&args.file)?;
    let is_stdout = sink.is_stdout();
    let bar = super::spinner();
    let (mut written, mut damaged) = (Written::default(), BTreeSet::new());
    form.begin(&mut sink)?;
    while let Some(mut page) = next {
        ensure!(!stop.is_wanted(), "interrupted{}", unless(is_stdout, "; no file was written"));
        damaged.extend(page.damaged.drain(..).take(MAX_COMPLAINTS));
        form.page(&page, &mut sink, &mut written)?;
        bar.set_message(format!("{} points, {}", written.points, sized(sink.bytes())));
        bar.tick();
        next = pages.next()?;
    }
    form.end(&mut sink, &mut written)?;
    written.bytes = sink.bytes();
    sink.finish()?;
    bar.finish_and_clear();
    finish(&args.file, is_stdout, &written, &damaged, format)
}

const fn unless(is_stdout: bool, text: &str) -> &str {
    if is_stdout { "" } else { text }
}

/// Which points are asked for.
pub(super) fn selection(args: &ExportArgs, by_field: bool) -> anyhow::Result<ExportSelection> {
    let now = super::now_ns();
    let from_ns = args.from.map(|from: Moment| from.nanos(now));
    let to_ns = args.to.map(|to| to.nanos(now).saturating_sub(1));
    if let (Some(from), Some(to)) = (from_ns, to_ns)
        && from > to
    {
        bail!("--from is not before --to");
    }
    let (database, measurement, vm) = (args.database.clone(), args.measurement.clone(), args.vm.clone());
    Ok(ExportSelection { database, measurement, vm, from_ns, to_ns, by_field })
}

/// Says what was written: on stdout, unless the points are there.
pub(super) fn finish(
    file: &Path,
    is_stdout: bool,
    written: &Written,
    damaged: &BTreeSet<String>,
    format: Format,
) -> anyhow::Result<()> {
    for (count, what) in [
        (written.left_out_values, "values were left out: this format has no place for them"),
        (written.same_millisecond_values, "values were replaced by a later one of the same millisecond"),
        (written.renamed, "names were changed, so that they do not clash"),
    ] {
        if count > 0 && (is_stdout || format == Format::Table) {
            crate::complain(&format!("uni: store export: {count} {what}"));
        }
    }
    match format {
        _ if is_stdout => {}
        Format::Json => output::json(written)?,
        Format::Table => output::text(&format!(
            "{}: {} points, {}\n",
            crate::text::one_line(&file.to_string_lossy()),
            written.points,
            sized(written.bytes)
        ))?,
    }
    let list: Vec<&str> = damaged.iter().take(MAX_COMPLAINTS).map(String::as_str).collect();
    ensure!(list.is_empty(), "a part of the store is damaged, and missing here: {}", list.join("; "));
    Ok(())
}

/// The points of a page.
pub(super) fn points(page: &ExportPage) -> impl Iterator<Item = anyhow::Result<Point>> {
    lines(page.lines.as_bytes()).map(|line| {
        let point = parse_point(line, Mode::Strict, Timestamp(0), Precision::Nanoseconds);
        point.map_err(|error| anyhow::anyhow!("{}", error.reason(line))).context("a line of the store")
    })
}

/// Line protocol, with comments that tell `influx -import` and `uni store import` where it belongs.
struct LineProtocol<'a> {
    database: &'a str,
    unsigned: Unsigned,
}

impl Form for LineProtocol<'_> {
    fn begin(&mut self, sink: &mut Sink) -> anyhow::Result<()> {
        let database: String = self.database.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        sink.put(format!("# DDL\n# DML\n# CONTEXT-DATABASE: {database}\n").as_bytes())
    }

    fn page(&mut self, page: &ExportPage, sink: &mut Sink, written: &mut Written) -> anyhow::Result<()> {
        if self.unsigned == Unsigned::Keep {
            written.points += page.count;
            return sink.put(page.lines.as_bytes());
        }
        let mut out = String::with_capacity(page.lines.len());
        for point in points(page) {
            let point = point?;
            let tags = point.tags.iter().map(|(key, value)| (&**key, &**value));
            let mut line = LineWriter::new(&mut out, &point.measurement, tags).framing(Framing::Body);
            for (key, value) in &point.fields {
                let value = match value {
                    FieldValue::Unsigned(value) => match i64::try_from(*value) {
                        Ok(value) => Value::Integer(value),
                        Err(_) => {
                            written.left_out_values += 1;
                            continue;
                        }
                    },
                    other => other.as_value(),
                };
                line.field(key, value)?;
            }
            written.points += u64::from(line.finish(Some(point.time))?);
        }
        sink.put(out.as_bytes())
    }

    fn end(&mut self, _: &mut Sink, _: &mut Written) -> anyhow::Result<()> {
        Ok(())
    }
}
