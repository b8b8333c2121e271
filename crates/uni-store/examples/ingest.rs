//! What the store costs by itself, without sockets: bodies of line protocol in, one thread, then flush, merge and
//! a replay of the log. Prints one line a step.
//!
//!     cargo run --release -p uni-store --example ingest -- FOLDER_WITH_BODIES STORE_FOLDER [always|never]
//!
//! FOLDER_WITH_BODIES holds `*.lp` or `lp-*.dat`, each line protocol; they are cut into bodies of some 5,000 lines and
//! fed in turn.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use uni_store::{Durability, LineOptions, Options, Store};
use uni_wire::Timestamp;
use uni_wire::line::{Mode, Precision};

const BODY_LINES: usize = 5000;
const DATABASE: &str = "bench";

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(bodies), Some(folder)) = (args.next(), args.next()) else {
        return Err("usage: ingest FOLDER_WITH_BODIES STORE_FOLDER [always|never]".into());
    };
    let always = args.next().is_none_or(|word| word == "always");
    let durability = if always { Durability::Always } else { Durability::Never };
    let options = Options { durability, ..Options::default() };
    let files = files(Path::new(&bodies))?;
    let store = Store::open(Path::new(&folder), options.clone(), now())?;
    store.create_database(DATABASE)?;
    let lines = feed(&store, &files)?;
    step("log at the end", store.stats().wal_bytes, lines, || Ok(()))?;
    drop(store);
    let begun = Instant::now();
    let store = Store::open(Path::new(&folder), options, now())?;
    println!("replay: {:.3} s, {} points", begun.elapsed().as_secs_f64(), store.recovery().points_replayed);
    step("flush", 0, lines, || Ok(store.flush()?))?;
    println!("segments: {:.1} MB", mb(store.stats().segment_bytes));
    let later = Timestamp(now().nanos() + 86_400_000_000_000 * 400);
    step("merge", 0, lines, || {
        while store.merge(later, &mut || {})? {}
        Ok(())
    })?;
    println!(
        "merged: {:.2} MB, {:.2} bytes a line",
        mb(store.stats().segment_bytes),
        ratio(store.stats().segment_bytes, lines)
    );
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "lp" || extension == "dat"));
    paths.sort();
    Ok(paths.iter().map(std::fs::read).collect::<Result<_, _>>()?)
}

fn feed(store: &Store, files: &[Vec<u8>]) -> Result<u64, Box<dyn Error>> {
    let mut rests: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let (mut lines, mut bytes) = (0, 0);
    let options = LineOptions {
        mode: Mode::Strict,
        precision: Precision::Nanoseconds,
        now: now(),
        tag: None,
        max_line_bytes: None,
        watched: None,
    };
    let mut last = Instant::now();
    while rests.iter().any(|rest| !rest.is_empty()) {
        for rest in &mut rests {
            let end = body_end(rest);
            let (body, tail) = rest.split_at(end);
            *rest = tail;
            let appended = store.append_lines(DATABASE, body, &options, &mut |_| {})?;
            store.wait_durable(&appended)?;
            lines += appended.accepted as u64;
            bytes += body.len() as u64;
        }
        if last.elapsed().as_millis() >= 200 {
            store.maintain(now())?;
            last = Instant::now();
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "ingest: {lines} lines, {:.1} MB in {seconds:.3} s: {:.2} M lines/s, {:.0} MB/s, {:.3} s CPU",
        mb(bytes),
        lines as f64 / seconds / 1e6,
        mb(bytes) / seconds,
        cpu_seconds() - cpu
    );
    Ok(lines)
}

fn body_end(rest: &[u8]) -> usize {
    let ends = memchr::memchr_iter(b'\n', rest);
    ends.map(|at| at + 1).take(BODY_LINES).last().unwrap_or(rest.len())
}

fn step(
    what: &str,
    bytes: u64,
    lines: u64,
    work: impl FnOnce() -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    work()?;
    let seconds = begun.elapsed().as_secs_f64();
    println!("{what}: {seconds:.3} s, {:.3} s CPU, {:.1} MB, {lines} lines", cpu_seconds() - cpu, mb(bytes));
    Ok(())
}

fn now() -> Timestamp {
    Timestamp::from_seconds(1_735_693_200)
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b as f64
}

/// User and system time of this process, from `/proc/self/stat` in ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
