//! `uni memtrace report` and `diff`: what a heap trace says.
//!
//! Owns files, the progress bar and tables. What a trace means is for `uni-memtrace` to say; no daemon is asked.

use std::fs::File;
use std::io::{IsTerminal as _, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use uni_memtrace::{
    Analysis, Diff, DiffRow, FlameGraph, Grouping, Options, Report, Row, ShortLived, Timeline, Totals,
};

use super::program;
use crate::args::{Format, MemtraceBy, MemtraceCommand, MemtraceDiffArgs, MemtraceReportArgs, MemtraceRows};
use crate::render::{bytes, columns};
use crate::text::one_line;
use crate::{complain, output};

/// From this size on a bar says how far reading has come, in bytes.
const LONG_BYTES: u64 = 32 << 20;

/// Reads traces and prints what they say.
pub(super) fn run(command: &MemtraceCommand, format: Format) -> anyhow::Result<()> {
    match command {
        MemtraceCommand::Report(args) => report(args, format),
        MemtraceCommand::Diff(args) => diff(args, format),
    }
}

/// The name of stdout where a file is named.
const STDOUT: &str = "-";

fn report(args: &MemtraceReportArgs, format: Format) -> anyhow::Result<()> {
    ensure!(
        args.pprof.is_none() || args.folded.is_none() || args.pprof != args.folded,
        "--pprof and --folded cannot be the same"
    );
    let picture = args.flamegraph.as_deref().map(Picture::of).transpose()?;
    let analysis = read(&args.file, &args.rows)?;
    if let (Some(path), Some(picture)) = (&args.flamegraph, picture) {
        write(path, picture.draw(&FlameGraph::new(&analysis))?.as_bytes())?;
    }
    if let Some(path) = &args.pprof {
        write(path, &uni_memtrace::pprof(&analysis)?)?;
    }
    if let Some(path) = &args.folded {
        write(path, analysis.folded(analysis.totals().live_bytes > 0).as_bytes())?;
    }
    if [&args.pprof, &args.folded].into_iter().flatten().any(|path| path == Path::new(STDOUT)) {
        return Ok(());
    }
    let report = analysis.report(args.rows.grouping(), args.rows.top());
    match format {
        Format::Table => output::text(&report_text(&report, args.rows.by)),
        Format::Json => output::json(&report),
    }
}

fn diff(args: &MemtraceDiffArgs, format: Format) -> anyhow::Result<()> {
    let stdin = Path::new("-");
    ensure!(args.before != stdin || args.after != stdin, "stdin can be one of the two traces only");
    let before = read(&args.before, &args.rows)?;
    let after = read(&args.after, &args.rows)?;
    if let [Some(one), Some(other)] = [before.program(), after.program()]
        && one != other
    {
        complain(&format!("uni: the traces are of two programs: {} and {}", one_line(one), one_line(other)));
    }
    let diff = Diff::new(&before, &after, args.rows.grouping(), args.rows.top());
    match format {
        Format::Table => output::text(&diff_text(&diff, args.rows.by)),
        Format::Json => output::json(&diff),
    }
}

impl MemtraceRows {
    const fn grouping(&self) -> Grouping {
        match self.by {
            MemtraceBy::Site => Grouping::Site,
            MemtraceBy::Library => Grouping::Library,
            MemtraceBy::Function => Grouping::Function,
        }
    }

    fn top(&self) -> usize {
        usize::try_from(self.top).unwrap_or(usize::MAX)
    }
}

/// The forms of a flame graph.
#[derive(Clone, Copy)]
enum Picture {
    Svg,
    Html,
}

impl Picture {
    fn of(path: &Path) -> anyhow::Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("svg") => Ok(Self::Svg),
            Some("html") => Ok(Self::Html),
            _ => bail!("cannot draw {}: its name must end in .svg or .html", path.display()),
        }
    }

    fn draw(self, graph: &FlameGraph) -> anyhow::Result<String> {
        Ok(match self {
            Self::Svg => uni_memtrace::svg(graph)?,
            Self::Html => uni_memtrace::html(graph)?,
        })
    }
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if path == Path::new(STDOUT) {
        return std::io::stdout().lock().write_all(bytes).context("writing to stdout");
    }
    std::fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}

/// Reads a trace as far as it can be read, and says on stderr what could not be.
fn read(path: &Path, rows: &MemtraceRows) -> anyhow::Result<Analysis> {
    let names = rows.symbols.as_deref().map(program::names).transpose()?;
    let options = Options { at_micros: rows.at.map(micros), names, ..Options::default() };
    let analysis = read_as(path, options, rows.min_lifetime)
        .with_context(|| format!("reading the heap trace {}", path.display()))?;
    for fault in analysis.faults() {
        let times = if fault.count == 1 { String::new() } else { format!(", {} times", fault.count) };
        let skipped = if fault.skipped_bytes == 0 {
            String::new()
        } else {
            format!(", {} bytes skipped", fault.skipped_bytes)
        };
        complain(&format!(
            "uni: {}: {}{times}, first at byte {}{skipped}",
            path.display(),
            fault.what,
            fault.first_offset
        ));
    }
    for limit in analysis.limits_reached() {
        complain(&format!("uni: {}: {limit}", path.display()));
    }
    complain_of_view(path, &analysis, rows);
    ensure!(!analysis.is_empty(), "{} is no heap trace, or nothing of it can be read", path.display());
    Ok(analysis)
}

/// Says where what is shown is not what one may think.
fn complain_of_view(path: &Path, analysis: &Analysis, rows: &MemtraceRows) {
    let totals = analysis.totals();
    if !analysis.is_empty() && !analysis.has_info() {
        complain(&format!(
            "uni: {}: its beginning is missing, and with it how much was sampled: sizes are those of the samples alone",
            path.display()
        ));
    }
    if let Some(at) = rows.at.filter(|at| at.as_secs_f64() > totals.duration_seconds)
        && !analysis.is_empty()
    {
        complain(&format!(
            "uni: {}: nothing happened from {:.3} s to {:.3} s after the start",
            path.display(),
            totals.duration_seconds,
            at.as_secs_f64()
        ));
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn read_as(path: &Path, mut options: Options, min_lifetime: Option<Duration>) -> anyhow::Result<Analysis> {
    if path == Path::new("-") {
        ensure!(min_lifetime.is_none(), "--min-lifetime reads it twice: stdin cannot be, name a file");
        return Ok(uni_memtrace::read(std::io::stdin().lock(), &options, |_| {})?);
    }
    let mut file = File::open(path)?;
    // what is written meanwhile is for the next report
    let size = file.metadata()?.len();
    if let Some(min) = min_lifetime {
        let bar = bar(size);
        let found = ShortLived::find((&mut file).take(size), micros(min), progress(bar.as_ref()))?;
        bar.inspect(ProgressBar::finish_and_clear);
        options.short_lived = Some(found);
        file.rewind().context("read it a second time; only a file can be")?;
    }
    let bar = bar(size);
    let analysis = match min_lifetime {
        Some(_) => uni_memtrace::read(file.take(size), &options, progress(bar.as_ref()))?,
        None => uni_memtrace::read(file, &options, progress(bar.as_ref()))?,
    };
    bar.inspect(ProgressBar::finish_and_clear);
    Ok(analysis)
}

fn progress(bar: Option<&ProgressBar>) -> impl FnMut(u64) {
    move |done| {
        if let Some(bar) = bar {
            bar.set_position(done);
        }
    }
}

/// A bar on a terminal, for files that take a while.
fn bar(len: u64) -> Option<ProgressBar> {
    if len < LONG_BYTES || !std::io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::new(len);
    let style = "{bar:30} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
    Some(match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    })
}

fn report_text(report: &Report, by: MemtraceBy) -> String {
    let mut out = String::new();
    if let Some(info) = &report.info {
        let rows = [
            ["Program".to_owned(), one_line(&info.executable_name)],
            ["Host".to_owned(), one_line(&info.host_name)],
            ["Rate".to_owned(), format!("{:e} of all words", info.sample_rate)],
        ];
        out += &columns(rows);
    }
    out += &totals_text(&report.totals);
    out.push('\n');
    let head = ["LIVE", "LIVE CUM", "ALLOCATED", "ALLOCATED CUM", "SAMPLES"];
    let head = head.map(str::to_owned).into_iter().chain(name_head(by)).collect();
    out += &table(head, report.rows.iter().map(|row| cells(row, by)));
    out += &left_out(report.rows_left_out);
    out + &over_time(&report.timeline, by)
}

/// Moments that are shown of what was alive over time, and how many sites or libraries; JSON has all.
const MOMENTS: usize = 6;
const CURVES: usize = 5;

/// Live bytes over time of those who had the most: by library, else by site.
fn over_time(timeline: &Timeline, by: MemtraceBy) -> String {
    let curves = if by == MemtraceBy::Library { &timeline.libraries } else { &timeline.sites };
    let steps = curves.first().map_or(0, |(_, values)| values.len());
    if steps < 2 {
        return String::new();
    }
    let count = MOMENTS.min(steps);
    let moments: Vec<usize> = (1..=count).map(|n| (n * steps).div_ceil(count) - 1).collect();
    let time = |step: &usize| format!("AT {:.3} s", (*step as f64 + 1.0) * timeline.step_seconds);
    let head = moments.iter().map(time).chain(["LIVE BYTES OF".to_owned()]).collect();
    let row = |(name, values): &(String, Vec<u64>)| {
        let at = |step: &usize| bytes(values.get(*step).copied().unwrap_or_default());
        moments.iter().map(at).chain([shortened(&one_line(name))]).collect()
    };
    format!("\n{}", table(head, curves.iter().take(CURVES).map(row)))
}

fn totals_text(totals: &Totals) -> String {
    columns([
        ["Duration".to_owned(), format!("{:.3} s", totals.duration_seconds)],
        ["Allocated".to_owned(), bytes(totals.allocated_bytes)],
        ["Live".to_owned(), bytes(totals.live_bytes)],
        ["Peak".to_owned(), format!("{} at {:.3} s", bytes(totals.peak_live_bytes), totals.peak_seconds)],
        [
            "Samples".to_owned(),
            format!("{} allocations, {} freed", totals.sampled_allocations, totals.sampled_frees),
        ],
    ])
}

fn name_head(by: MemtraceBy) -> Vec<String> {
    match by {
        MemtraceBy::Library => vec!["LIBRARY".to_owned()],
        _ => ["LIBRARY", "FUNCTION", "FILE"].map(str::to_owned).to_vec(),
    }
}

fn cells(row: &Row, by: MemtraceBy) -> Vec<String> {
    let sizes =
        [row.live_bytes, row.cumulative_live_bytes, row.allocated_bytes, row.cumulative_allocated_bytes];
    let numbers = sizes.map(bytes).into_iter().chain([row.sampled_allocations.to_string()]);
    numbers.chain(names(by, &row.library, &row.name, &row.file, row.line)).collect()
}

fn names(by: MemtraceBy, library: &str, name: &str, file: &str, line: u32) -> Vec<String> {
    if by == MemtraceBy::Library {
        return vec![one_line(library)];
    }
    let place = if line == 0 { one_line(file) } else { format!("{}:{line}", one_line(file)) };
    vec![one_line(library), shortened(&one_line(name)), place]
}

/// Longer names of functions are cut in tables; JSON has them whole.
const MAX_NAME_CHARS: usize = 72;

fn shortened(name: &str) -> String {
    match name.char_indices().nth(MAX_NAME_CHARS) {
        Some((at, _)) => format!("{}...", &name[..at]),
        None => name.to_owned(),
    }
}

fn diff_text(diff: &Diff, by: MemtraceBy) -> String {
    let both = |before: u64, after: u64| format!("{} -> {}", bytes(before), bytes(after));
    let (before, after) = (&diff.before, &diff.after);
    let mut out = columns([
        ["Allocated".to_owned(), both(before.allocated_bytes, after.allocated_bytes)],
        ["Live".to_owned(), both(before.live_bytes, after.live_bytes)],
        ["Peak".to_owned(), both(before.peak_live_bytes, after.peak_live_bytes)],
    ]);
    out.push('\n');
    let head = ["LIVE CHANGE", "LIVE BEFORE", "LIVE AFTER", "ALLOCATED BEFORE", "ALLOCATED AFTER"];
    let head = head.map(str::to_owned).into_iter().chain(name_head(by)).collect();
    out += &table(head, diff.rows.iter().map(|row| diff_cells(row, by)));
    out + &left_out(diff.rows_left_out)
}

fn diff_cells(row: &DiffRow, by: MemtraceBy) -> Vec<String> {
    let sign = if row.live_change_bytes < 0 { "-" } else { "+" };
    let change = format!("{sign}{}", bytes(row.live_change_bytes.unsigned_abs()));
    let sizes =
        [row.live_before_bytes, row.live_after_bytes, row.allocated_before_bytes, row.allocated_after_bytes];
    let names = names(by, &row.library, &row.name, &row.file, row.line);
    std::iter::once(change).chain(sizes.map(bytes)).chain(names).collect()
}

fn left_out(rows: usize) -> String {
    if rows == 0 { String::new() } else { format!("({rows} more rows: --top)\n") }
}

/// A table of rows that all have as many cells as the head.
fn table(head: Vec<String>, rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut out = Vec::new();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let count = rows.first().map_or(0, Vec::len);
    let wide = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(wide).collect();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line += &format!("{cell:<width$}  ");
        }
        let _memory_takes_all = writeln!(out, "{}", line.trim_end());
    }
    String::from_utf8_lossy(&out).into_owned()
}
