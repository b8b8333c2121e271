//! What tiers cost and what they save: thirty days of some VMs, a point every ten seconds, packed and summed up; then the
//! same queries with tiers and without, in turn. Prints one line a step.
//!
//!     cargo run --release -p uni-store --example tiers -- STORE_FOLDER [VMS [minutes]]
//!
//! `minutes`: minutes are summed up too, though a minute has six points here.

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use uni_query::{
    Change, Changes, Doomed, FieldSummary, Limits, Policy, Request, Series, Source, SourceError,
    SummedVisitor, TagMatcher, Visitor, WindowSum, execute,
};
use uni_store::{Durability, LineOptions, Options, SeriesId, Store, TierRetention, TierSum};
use uni_wire::line::{Mode, Precision};
use uni_wire::{FieldType, Timestamp};

const DATABASE: &str = "bench";
const DAYS: i64 = 30;
const STEP_S: i64 = 10;
const DAY_S: i64 = 86_400;
/// The beginning of a day.
const START_S: i64 = 1_735_689_600;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let Some(folder) = args.next() else { return Err("usage: tiers STORE_FOLDER [VMS [minutes]]".into()) };
    let vms: u64 = args.next().map_or(Ok(10), |text| text.parse())?;
    let minute_tier = if args.next().is_some() { TierRetention::Forever } else { TierRetention::WithRows };
    let options = Options { durability: Durability::Never, minute_tier, ..Options::default() };
    let now = Timestamp::from_seconds(START_S + (DAYS + 2) * DAY_S);
    let store = Store::open(Path::new(&folder), options, now)?;
    store.create_database(DATABASE)?;
    fill(&store, vms)?;
    store.flush()?;
    let begun = Instant::now();
    while store.stats().tier_bytes == 0 && store.merge(now, &mut || {})? {}
    let merged = begun.elapsed();
    while store.merge(now, &mut || {})? {}
    let stats = store.stats();
    println!(
        "{vms} VMs, {DAYS} days, {} points: segments {:.2} MB, tiers {:.2} MB ({:.1} % more); merges {:.2} s, tiers {:.2} s",
        stats.appended_total,
        mb(stats.segment_bytes),
        mb(stats.tier_bytes),
        100.0 * stats.tier_bytes as f64 / stats.segment_bytes as f64,
        merged.as_secs_f64(),
        (begun.elapsed() - merged).as_secs_f64()
    );
    sizes(Path::new(&folder))?;
    for text in [
        "SELECT mean(used) FROM memory WHERE vm = 'vm3' AND time < now() GROUP BY time(1h)",
        "SELECT max(used), last(total) FROM memory WHERE vm = 'vm3' AND time < now() GROUP BY time(1h)",
        "SELECT max(load) FROM memory WHERE vm = 'vm3' AND time < now() GROUP BY time(1h)",
        "SELECT mean(load) FROM memory WHERE vm = 'vm3' AND time < now() GROUP BY time(1h)",
        "SELECT non_negative_derivative(last(received), 1s) FROM memory WHERE vm = 'vm3' AND time < now() GROUP BY time(10m)",
        "SELECT mean(used) FROM memory WHERE time < now() GROUP BY time(1h), vm",
    ] {
        compare(&store, text, now)?;
    }
    Ok(())
}

/// Whole numbers that wander, counters that grow, a float with two places, and what never changes.
fn fill(store: &Store, vms: u64) -> Result<(), Box<dyn Error>> {
    let options = LineOptions {
        mode: Mode::Strict,
        precision: Precision::Nanoseconds,
        now: Timestamp(0),
        tag: None,
        max_line_bytes: None,
        watched: None,
    };
    let mut state = 88_172_645_463_325_252u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut used = vec![300_000_000u64; vms as usize];
    let (mut received, mut sent) = (vec![0u64; vms as usize], vec![0u64; vms as usize]);
    let mut body = String::new();
    for n in 0..DAYS * DAY_S / STEP_S {
        for vm in 0..vms as usize {
            used[vm] = (used[vm] + random(2_000_000)).saturating_sub(random(2_000_000)) / 4096 * 4096;
            received[vm] += random(100_000);
            sent[vm] += random(20_000);
            let time = (START_S + n * STEP_S) * 1_000_000_000 + random(3_000_000).cast_signed();
            let line = format!(
                "memory,vm=vm{vm},host=node used={}i,total=536870912i,received={}i,sent={}i,load={:.2},cpu={:.1} {time}\n",
                used[vm],
                received[vm],
                sent[vm],
                random(400) as f64 / 100.0,
                random(1000) as f64 / 10.0
            );
            body.push_str(&line);
        }
        if body.len() > 1 << 20 {
            store.append_lines(DATABASE, body.as_bytes(), &options, &mut |_| {})?;
            store.maintain(Timestamp::from_seconds(START_S))?;
            body.clear();
        }
    }
    store.append_lines(DATABASE, body.as_bytes(), &options, &mut |_| {})?;
    Ok(())
}

/// Bytes by the ends of names.
fn sizes(folder: &Path) -> Result<(), Box<dyn Error>> {
    for extension in ["seg", "1m", "1h"] {
        let mut bytes = 0;
        for partition in std::fs::read_dir(folder.join("data").join(DATABASE))? {
            for file in std::fs::read_dir(partition?.path())? {
                let file = file?;
                if file.path().extension().is_some_and(|found| found == extension) {
                    bytes += file.metadata()?.len();
                }
            }
        }
        println!("  .{extension}: {:.2} MB", mb(bytes));
    }
    Ok(())
}

/// Asks in turn and compares the middle times, and the answers.
fn compare(store: &Store, text: &str, now: Timestamp) -> Result<(), Box<dyn Error>> {
    let mut times = [Vec::new(), Vec::new()];
    let mut answers = [String::new(), String::new()];
    for _ in 0..11 {
        for (way, tiers) in [true, false].into_iter().enumerate() {
            let begun = Instant::now();
            let limits = Limits { max_points: u64::MAX, ..Limits::default() };
            let request = Request { text, db: Some(DATABASE), now, limits, changes: Changes::None };
            answers[way] = execute(&Adapter { store, tiers }, &request)?.to_json(None, false);
            times[way].push(begun.elapsed());
        }
    }
    let [with, without] = times.map(middle);
    println!(
        "{text}\n  with tiers {:.2} ms, without {:.2} ms: {:.1} times; {}",
        with.as_secs_f64() * 1e3,
        without.as_secs_f64() * 1e3,
        without.as_secs_f64() / with.as_secs_f64(),
        if answers[0] == answers[1] { "the same answer" } else { "ANOTHER ANSWER" }
    );
    Ok(())
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// The store for the query engine, with its tiers or without.
struct Adapter<'a> {
    store: &'a Store,
    tiers: bool,
}

impl Source for Adapter<'_> {
    fn databases(&self) -> Vec<String> {
        self.store.databases()
    }

    fn has_database(&self, db: &str) -> bool {
        self.store.has_database(db)
    }

    fn measurements(&self, db: &str) -> Vec<String> {
        self.store.measurements(db)
    }

    fn fields(&self, db: &str, measurement: &str) -> Vec<(String, FieldType)> {
        self.store.fields(db, measurement)
    }

    fn series(&self, db: &str, measurement: &str, _matchers: &[TagMatcher]) -> Vec<Series> {
        let owned = |(key, value): (Box<str>, Box<str>)| (key.into_string(), value.into_string());
        let found = self.store.series(db, measurement, &[]).into_iter();
        found
            .map(|one| Series { id: one.id.number(), tags: one.tags.into_iter().map(owned).collect() })
            .collect()
    }

    fn scan(
        &self,
        db: &str,
        series: u64,
        fields: &[&str],
        from: Timestamp,
        to: Timestamp,
        visit: Visitor<'_>,
    ) -> Result<(), SourceError> {
        let scanned = self.store.scan(db, SeriesId::from_number(series), fields, from, to, visit);
        scanned.map_err(|error| SourceError::new(error.to_string()))
    }

    fn scan_summed(
        &self,
        db: &str,
        series: u64,
        fields: &[&str],
        (from, to): (Timestamp, Timestamp),
        grid: Option<uni_query::Grid>,
        visit: SummedVisitor<'_>,
    ) -> Result<(), SourceError> {
        if !self.tiers {
            return self.scan(db, series, fields, from, to, &mut |time, values| match visit(
                uni_query::Summed::Point(time, values),
            ) {
                ControlFlow::Break(()) => ControlFlow::Break(()),
                ControlFlow::Continue(_) => ControlFlow::Continue(()),
            });
        }
        let grid = grid.map(|grid| uni_store::Grid { every: grid.every, offset: grid.offset });
        let mut visit = |item: uni_store::Summed<'_>| match item {
            uni_store::Summed::Row(time, values) => visit(uni_query::Summed::Point(time, values)),
            uni_store::Summed::Window(window) => visit(uni_query::Summed::Window(&translated(window))),
        };
        let id = SeriesId::from_number(series);
        let scanned = self.store.scan_summed(db, id, fields, (from, to), grid, &mut visit);
        scanned.map_err(|error| SourceError::new(error.to_string()))
    }

    fn policies(&self, _db: &str) -> Vec<Policy> {
        Vec::new()
    }

    fn change(&self, _change: &Change) -> Result<(), SourceError> {
        Err(SourceError::new("this source is only read".to_owned()))
    }

    fn delete(&self, _range: (Timestamp, Timestamp), _doomed: &[Doomed]) -> Result<(), SourceError> {
        Err(SourceError::new("this source is only read".to_owned()))
    }
}

fn translated(window: &uni_store::WindowSummary) -> uni_query::WindowSummary {
    let field = |one: &uni_store::FieldSummary| FieldSummary {
        count: one.count,
        min: one.min.clone(),
        max: one.max.clone(),
        first: one.first.clone(),
        last: one.last.clone(),
        sum: match &one.sum {
            TierSum::Exact(sum) => WindowSum::Exact(sum.clone()),
            TierSum::About(sum) => WindowSum::About(*sum),
        },
    };
    uni_query::WindowSummary {
        start: window.start,
        span: window.span,
        is_all: window.is_all,
        fields: window.fields.iter().map(|one| one.as_ref().map(field)).collect(),
    }
}
