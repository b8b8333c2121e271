//! How fast a large trace is read, and in how much memory: `cargo bench -p uni-memtrace -- [MEGABYTES]`. The trace alone:
//! `cargo bench -p uni-memtrace -- make FILE MEGABYTES`.
//!
//! The trace is made by Uni's writer: calls of some thousand different stacks, most blocks die young. Each figure comes
//! from a process of its own, so that the peak of memory is that figure's; reading alone is the baseline.

use std::fs::File;
use std::io::{BufWriter, Read as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use uni_memtrace::{Grouping, Options};
use uni_wire::memtrace::{
    Allocation, Busy, Decoder, Info, Item, Locate, Mode, Position, Source, Version, Writer,
};

const DEFAULT_MEGABYTES: u64 = 256;
/// Different stacks of the program, and those of them where most is allocated.
const STACKS: u64 = 20_000;
const HOT: u64 = 400;

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match &args[..] {
        [what, file, megabytes] if what == "make" => {
            let megabytes: u64 = megabytes.parse().map_err(std::io::Error::other)?;
            make(Path::new(file), megabytes * 1_000_000)
        }
        [what, file] => measure(what, Path::new(file)),
        _ => {
            let megabytes = args.first().and_then(|arg| arg.parse().ok()).unwrap_or(DEFAULT_MEGABYTES);
            all(megabytes)
        }
    }
}

fn all(megabytes: u64) -> std::io::Result<()> {
    let file = std::env::temp_dir().join(format!("uni-memtrace-{}.ctf", std::process::id()));
    make(&file, megabytes * 1_000_000)?;
    println!(
        "| {megabytes} MB of trace | MB/s | MB per second of processor time | peak memory |\n|---|---|---|---|"
    );
    for what in ["read", "decode", "report"] {
        Command::new(std::env::current_exe()?).arg(what).arg(&file).status()?;
    }
    std::fs::remove_file(&file)
}

fn measure(what: &str, path: &Path) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let start = Instant::now();
    let found = match what {
        "read" => {
            let mut buffer = vec![0; 1 << 16];
            let mut sum = 0_u64;
            loop {
                match file.read(&mut buffer)? {
                    0 => break sum,
                    n => sum += n as u64,
                }
            }
        }
        "decode" => {
            let mut decoder = Decoder::new(Mode::Strict);
            let mut buffer = vec![0; 1 << 16];
            let mut events = 0_u64;
            loop {
                let count = file.read(&mut buffer)?;
                if count == 0 {
                    break events;
                }
                decoder
                    .handle_bytes(&buffer[..count], |item| match item {
                        Item::Alloc(alloc) => events += 1 + (alloc.backtrace.len() as u64 & 1),
                        Item::Collect(_) | Item::Promote(_) => events += 1,
                        _ => {}
                    })
                    .map_err(std::io::Error::other)?;
            }
        }
        _ => {
            let analysis = uni_memtrace::read(file, &Options::default(), |_| {})?;
            let report = analysis.report(Grouping::Site, 20);
            for limit in &report.limits_reached {
                println!("{limit}");
            }
            report.totals.sampled_allocations
        }
    };
    let rate = bytes as f64 / 1e6 / start.elapsed().as_secs_f64();
    let own = bytes as f64 / 1e6 / processor_seconds().max(0.01);
    println!("| {what} ({found}) | {rate:.0} | {own:.0} | {} |", peak_memory());
    Ok(())
}

/// What this process has used: other programs of the machine do not count.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or("?", str::trim).to_owned()
}

struct Symbols;

impl Locate for Symbols {
    fn locate(&self, code: u64, each: &mut dyn FnMut(Position<'_>)) {
        let n = code >> 4;
        let name = format!("lib{}::module{}::function{n}", n % 23, n % 101);
        let file = format!("lib{}/src/module{}.rs", n % 23, n % 101);
        let line = (n % 900).cast_signed();
        let (name, file) = (name.as_bytes(), file.as_bytes());
        each(Position { name, file, line, start_column: 4, end_column: 30 });
    }
}

/// A small generator of numbers: the same trace every time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn make(path: &Path, bytes: u64) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut writer = Box::new(Writer::new(vec![0; 1024]));
    let mut written = 0;
    let info = Info {
        sample_rate: 1e-4,
        word_size_bits: 64,
        executable_name: b"bench",
        host_name: b"vm",
        runtime_params: b"",
        pid: u64::MAX,
        start_micros: 1_700_000_000_000_000,
        context: b"",
        initial_domain: 0,
    };
    writer.start(Version::V2, &info).map_err(std::io::Error::other)?;
    let mut random = Random(88_172_645_463_325_252);
    let (stacks, mut young, mut old) = (stacks(&mut random), Vec::new(), Vec::new());
    let mut here = 0;
    let mut now = info.start_micros;
    while written < bytes {
        now += random.below(60);
        match random.below(100) {
            0..46 if !young.is_empty() => {
                let id = young.swap_remove(recent(young.len(), &mut random));
                offer(&mut writer, &mut file, &mut written, |writer| writer.handle_collect(now, id))?;
            }
            46..49 if !young.is_empty() => {
                let id = young.swap_remove(recent(young.len(), &mut random));
                old.push(id);
                offer(&mut writer, &mut file, &mut written, |writer| writer.handle_promote(now, id))?;
            }
            49..51 if !old.is_empty() => {
                let id = old.swap_remove(random.below(old.len() as u64) as usize);
                offer(&mut writer, &mut file, &mut written, |writer| writer.handle_collect(now, id))?;
            }
            _ => {
                // a server does the same again and again: most calls are near the last one or in a few hundred
                // stacks, some are anywhere
                here = match random.below(50) {
                    0 => random.below(STACKS),
                    1..10 => random.below(HOT),
                    _ if here < HOT => (here + random.below(5)) % HOT,
                    _ => (here + random.below(5)) % STACKS,
                };
                let length_words = 1 + random.below(24);
                let alloc = Allocation {
                    length_words,
                    samples: 1,
                    source: Source::Minor,
                    backtrace: &stacks[here as usize],
                };
                let id =
                    offer(&mut writer, &mut file, &mut written, |writer| writer.handle_alloc(now, &alloc))?;
                young.push(id);
            }
        }
    }
    offer(&mut writer, &mut file, &mut written, |writer| writer.close())?;
    drain(&mut writer, &mut file, &mut written)?;
    file.flush()
}

/// One of the newest of so many blocks: what a program has allocated lately dies first.
fn recent(count: usize, random: &mut Random) -> usize {
    count - 1 - random.below(count.min(4096) as u64) as usize
}

/// The stacks of the program: a few hundred where most memory is allocated, and thousands of others.
fn stacks(random: &mut Random) -> Vec<Vec<u64>> {
    let mut stack = vec![16];
    (0..STACKS)
        .map(|_| {
            walk(&mut stack, random);
            stack.clone()
        })
        .collect()
}

/// Returns from some calls and makes others.
fn walk(stack: &mut Vec<u64>, random: &mut Random) {
    let depth = stack.len() as u64;
    stack.truncate((depth - random.below(depth.min(6))) as usize);
    while stack.len() < 12 || (stack.len() < 30 && random.below(3) > 0) {
        let caller = stack.last().copied().unwrap_or(16) >> 4;
        let depth = stack.len() as u64;
        stack.push((1 + (caller * 7 + random.below(3) * 31 + depth) % 1500) << 4);
    }
}

fn offer<T>(
    writer: &mut Writer<Vec<u64>>,
    file: &mut impl std::io::Write,
    written: &mut u64,
    event: impl Fn(&mut Writer<Vec<u64>>) -> Result<T, Busy>,
) -> std::io::Result<T> {
    loop {
        match event(writer) {
            Ok(value) => return Ok(value),
            Err(Busy) => drain(writer, file, written)?,
        }
    }
}

fn drain(
    writer: &mut Writer<Vec<u64>>,
    file: &mut impl std::io::Write,
    written: &mut u64,
) -> std::io::Result<()> {
    while let Some(packet) = writer.poll_packet(&Symbols) {
        file.write_all(packet)?;
        let bytes = packet.len();
        *written += bytes as u64;
        writer.handle_sent(bytes);
    }
    Ok(())
}
