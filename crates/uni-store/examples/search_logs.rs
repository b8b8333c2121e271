//! How long a search of a gibibyte of log lines takes: `cargo run --release -p uni-store --example search_logs [MiB]`.
//!
//! Makes lines as web servers, databases and kernels write them, of 100 VMs over a day; keeps them in a folder of its own
//! (`UNI_BENCH_DIR`, else the system's for temporary files), and prints a table. Beside each search stand the CPU seconds
//! it took, for on a machine that does other things too the wall clock says little; and the time that unpacking the same
//! blocks takes, which no search of packed lines can go below.

use std::path::PathBuf;
use std::time::{Duration, Instant};
use uni_store::{Durability, LogEntry, LogPattern, LogSearch, Logs, Options, Order, Store};
use uni_wire::Timestamp;

const START: Timestamp = Timestamp::from_seconds(1_780_876_800);
const DAY_SECONDS: u64 = 86_400;
const VMS: u64 = 100;
const BATCH: usize = 2_000;

/// A sequence of numbers that is the same in every run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

const PATHS: [&str; 8] = [
    "/",
    "/api/v1/items",
    "/api/v1/users",
    "/static/app.js",
    "/login",
    "/health",
    "/images/logo.png",
    "/search",
];
const AGENTS: [&str; 3] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "curl/8.9.1",
    "kube-probe/1.30",
];

fn line(numbers: &mut Numbers) -> (u8, &'static str, String) {
    let (a, b) = (numbers.below(256), numbers.below(256));
    match numbers.below(100) {
        0..55 => {
            let path = PATHS[numbers.below(8) as usize];
            let agent = AGENTS[numbers.below(3) as usize];
            let status = [200, 200, 200, 200, 304, 404, 200, 500][numbers.below(8) as usize];
            let (bytes, ms) = (numbers.below(60_000), numbers.below(900));
            let item = numbers.below(1_000_000);
            (
                6,
                "httpd",
                format!(
                    "10.{a}.{b}.7 \"GET {path}?id={item} HTTP/1.1\" {status} {bytes} \"-\" \"{agent}\" {ms}ms"
                ),
            )
        }
        55..75 => {
            let (rows, us) = (numbers.below(5_000), numbers.below(90_000));
            let user = numbers.below(100_000);
            (
                7,
                "db",
                format!(
                    "query select name, mail from users where id = {user} took {us} us, {rows} rows, plan index scan"
                ),
            )
        }
        75..90 => {
            let (port, session) = (1024 + numbers.below(60_000), numbers.0);
            (6, "net", format!("connection from 10.{a}.{b}.9 port {port} accepted, session {session:016x}"))
        }
        90..97 => {
            let (heap, live) = (numbers.below(64) << 20, numbers.below(64) << 19);
            (
                7,
                "gc",
                format!(
                    "major collection done: heap {heap} bytes, live {live} bytes, pause {} us",
                    numbers.below(9_000)
                ),
            )
        }
        97..99 => (4, "net", format!("retransmission to 10.{a}.{b}.9, attempt {}", numbers.below(5))),
        _ => (
            3,
            "httpd",
            format!("upstream 10.{a}.{b}.3 timed out after {} ms: connection refused", numbers.below(30_000)),
        ),
    }
}

/// Makes as many lines; keeps them if there is somewhere to.
fn fill(logs: Option<&Logs>, bytes: usize) -> (u64, Duration) {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let (mut written, mut count, mut spent) = (0, 0u64, Duration::ZERO);
    let step = DAY_SECONDS * 1_000_000_000 / (bytes as u64 / 100);
    let mut batch = Vec::with_capacity(BATCH);
    while written < bytes {
        let (severity, app, mut text) = line(&mut numbers);
        if count == 4_000_000 || count == 1_234_567 {
            text.push_str(" needle7c0ffee");
        }
        written += text.len();
        batch.push(LogEntry {
            time: Timestamp(START.nanos() + (count * step).cast_signed()),
            vm: format!("vm{:03}", numbers.below(VMS)).into(),
            severity,
            facility: 3,
            app: app.into(),
            host: "guest".into(),
            text: text.into(),
            ..LogEntry::default()
        });
        count += 1;
        if batch.len() == BATCH || written >= bytes {
            let start = Instant::now();
            if let Some(logs) = logs {
                assert_eq!(logs.append(&batch).expect("an append").accepted, batch.len());
            }
            spent += start.elapsed();
            batch.clear();
        }
    }
    let start = Instant::now();
    logs.map_or(Ok(()), Logs::flush).expect("a flush");
    (count, spent + start.elapsed())
}

/// CPU time of this process, in ticks of 10 ms.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn main() {
    let mib: usize = std::env::args().nth(1).and_then(|mib| mib.parse().ok()).unwrap_or(1024);
    let dir = std::env::var_os("UNI_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("uni-search-logs-{}", std::process::id()));
    let options = Options { durability: Durability::Never, ..Options::default() };
    let store = Store::open(&dir, options, START).expect("a store");
    let logs = store.logs();
    println!("| what | measured |\n|---|---|");
    fill(None, mib << 20);
    let making = cpu();
    let (count, spent) = fill(Some(logs), mib << 20);
    println!(
        "| ingest: append and pack {count} lines | {:.0} s, {:.1} s of CPU: {:.0} MB of text a CPU second |",
        spent.as_secs_f64(),
        cpu() - 2.0 * making,
        (mib << 20) as f64 / 1e6 / (cpu() - 2.0 * making)
    );
    let stats = logs.stats();
    let before = cpu();
    let now = Timestamp(START.nanos() + (DAY_SECONDS * 3_000_000_000).cast_signed());
    while store.merge(now, &mut || {}).expect("a merge") {}
    let merged = logs.stats();
    println!(
        "| on disk | {:.1} MB in {} files, {} blocks; merged in {:.1} s of CPU: {:.1} MB in {} files, {} blocks, {:.3} of the text |",
        stats.file_bytes as f64 / 1e6,
        stats.files,
        stats.blocks,
        cpu() - before,
        merged.file_bytes as f64 / 1e6,
        merged.files,
        merged.blocks,
        merged.file_bytes as f64 / merged.raw_bytes as f64
    );
    searches(logs, count);
    drop(store);
    let _ = std::fs::remove_dir_all(&dir);
}

fn searches(logs: &Logs, count: u64) {
    let word = |word: &str| vec![word.to_owned()];
    let (rare, frequent, absent) = (word("needle7c0ffee"), word("connection"), word("zebra"));
    let pattern = |pattern: &str| LogPattern::new(pattern).expect("a pattern");
    let (literal, loose, anchored) =
        (pattern(r"needle[0-9]c0f+e"), pattern(r"[a-z]+7c0f{2}e{2}"), pattern(r"needle\w+$"));
    let (from, to) = (START.nanos() + 36_000_000_000_000, START.nanos() + 36_600_000_000_000);
    let vms = ["vm042"];
    let base = LogSearch { threads: 2, limit: 1000, ..LogSearch::default() };
    let everything = LogSearch { contains: Some("\u{1}\u{2}never"), ..base };
    let cases: [(&str, LogSearch<'_>); 11] = [
        ("unpack and look at everything (an absent text)", everything),
        ("a rare word (2 lines)", LogSearch { words: &rare, ..base }),
        ("an absent word", LogSearch { words: &absent, ..base }),
        ("a frequent word, the first 1000", LogSearch { words: &frequent, ..base }),
        ("a frequent word, the newest 1000", LogSearch { words: &frequent, order: Order::Newest, ..base }),
        ("a part of a word (2 lines)", LogSearch { contains: Some("edle7c0ff"), ..base }),
        ("a pattern that begins with letters (2 lines)", LogSearch { pattern: Some(&literal), ..base }),
        ("a pattern that begins with a class (2 lines)", LogSearch { pattern: Some(&loose), ..base }),
        ("a pattern with an end (2 lines)", LogSearch { pattern: Some(&anchored), ..base }),
        ("errors of all VMs, the newest 1000", LogSearch { severity: 3, order: Order::Newest, ..base }),
        (
            "ten minutes of one VM",
            LogSearch { vms: Some(&vms), from: Timestamp(from), to: Timestamp(to), ..base },
        ),
    ];
    println!("| (of {count} lines) | wall, median of 5; CPU; found; blocks read, ruled out |");
    for (name, search) in cases {
        let (mut walls, before) = (Vec::new(), cpu());
        let mut found = logs.search(&search);
        for _ in 0..5 {
            let start = Instant::now();
            found = logs.search(&search);
            walls.push(start.elapsed().as_secs_f64());
        }
        walls.sort_by(f64::total_cmp);
        assert!(found.fault.is_none(), "{:?}", found.fault);
        println!(
            "| {name} | {:.3} s; {:.2} s; {}{}; {}, {} |",
            walls[2],
            (cpu() - before) / 6.0,
            found.entries.len(),
            if found.more { " and more" } else { "" },
            found.places_read,
            found.places_ruled_out
        );
    }
}
