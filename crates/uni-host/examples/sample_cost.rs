//! What looking at VMs from outside costs: `cargo run --release -p uni-host --example sample_cost`.
//!
//! Real child processes of four threads each stand in for VMs: one works a little 100 times a second, as a
//! guest's timer makes QEMU do, one sleeps 10 times a second, two sleep throughout. Prints rows of Markdown:
//! processor time of a look for 1, 10 and 100 of them, allocations, system calls (counted by strace, where it
//! is installed), and the cost of one dump of the host's links.
//!
//! Rounds are 100 ms apart, so that threads have run in between and caches are cold, as in the daemon. Each
//! begins with a look at one more stand-in: waking up costs more than a look, once a round however many VMs
//! there are, and is told apart that way.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::{black_box, spin_loop};
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use uni_host::sampler::start_ticks;
use uni_host::{LinkTable, Machine, ProcessSampler, points};

type Failure = Box<dyn std::error::Error>;

/// Numbers of stand-ins measured.
const COUNTS: [usize; 3] = [1, 10, 100];
/// Threads of a stand-in, the first included.
const THREADS: u64 = 4;
/// Rounds looked at, after one that opens the files.
const ROUNDS: usize = 30;
/// Rounds looked at without a pause.
const WARM_ROUNDS: usize = 2000;
/// Time between rounds.
const PAUSE: Duration = Duration::from_millis(100);
/// Rounds in the two runs whose system calls are compared.
const TRACED_ROUNDS: [usize; 2] = [10, 30];

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above with this `layout`, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => report(),
        ["links"] => links(),
        ["stand-in"] => stand_in(),
        ["look-at", pid, rounds] => look_at(pid.parse()?, rounds.parse()?),
        _ => Err("no argument measures all, `links` the dump alone; `stand-in` and `look-at PID ROUNDS` are for itself".into()),
    }
}

fn report() -> Result<(), Failure> {
    for count in COUNTS {
        measure(count)?;
    }
    measure_warm()?;
    match system_calls() {
        Ok(calls) => row("system calls of a look at such a VM (strace)", &format!("{calls:.1}")),
        Err(reason) => row("system calls of a look at such a VM", &format!("not counted: {reason}")),
    }
    links()
}

fn row(figure: &str, measured: &str) {
    println!("| {figure} | {measured} |");
}

/// A process that does little in four threads until its standard input ends.
fn stand_in() -> Result<(), Failure> {
    let every = |period: Duration, work: Duration| {
        std::thread::spawn(move || {
            loop {
                sleep(period);
                let start = Instant::now();
                while start.elapsed() < work {
                    spin_loop();
                }
            }
        })
    };
    every(Duration::from_millis(10), Duration::from_micros(20));
    every(PAUSE, Duration::ZERO);
    every(Duration::from_secs(3600), Duration::ZERO);
    std::io::stdout().write_all(b"+")?;
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// A stand-in, ended with this value.
struct StandIn(Child);

impl StandIn {
    fn start() -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("stand-in")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut ready = [0];
        child.stdout.take().ok_or("no stdout")?.read_exact(&mut ready)?;
        Ok(Self(child))
    }

    fn sampler(&self) -> Result<ProcessSampler, Failure> {
        let pid = self.0.id();
        Ok(ProcessSampler::open(pid, start_ticks(pid)?, Machine::host()))
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _already_ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn clock(id: ClockId) -> Duration {
    Duration::try_from(clock_gettime(id)).unwrap_or_default()
}

/// One look at each, its points made.
fn look(samplers: &mut [ProcessSampler], fields: &mut points::Fields) -> Result<u64, Failure> {
    let mut threads = 0;
    for sampler in samplers {
        let sample = sampler.sample(clock(ClockId::Boottime))?;
        fields.clear();
        points::resource_usage(&sample, points::Units::Right, fields);
        points::kinfo_mem(&sample, points::Units::Right, fields);
        black_box(&fields);
        threads += sample.threads;
    }
    Ok(threads)
}

fn measure(count: usize) -> Result<(), Failure> {
    let stand_ins = (0..=count).map(|_| StandIn::start()).collect::<Result<Vec<_>, _>>()?;
    let mut samplers = stand_ins.iter().map(StandIn::sampler).collect::<Result<Vec<_>, _>>()?;
    let mut fields = points::Fields::with_capacity(64);
    sleep(PAUSE);
    let threads = look(&mut samplers, &mut fields)?;
    if threads != THREADS * u64::try_from(stand_ins.len())? {
        return Err(format!("{threads} threads in {} stand-ins", stand_ins.len()).into());
    }
    let (first, others) = samplers.split_at_mut(1);
    let (mut first_spent, mut spent) = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
    let allocations = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..ROUNDS {
        sleep(PAUSE);
        let start = clock(ClockId::ThreadCPUTime);
        look(first, &mut fields)?;
        let awake = clock(ClockId::ThreadCPUTime);
        look(others, &mut fields)?;
        spent.push(clock(ClockId::ThreadCPUTime) - awake);
        first_spent.push(awake - start);
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - allocations;
    let all = median(spent);
    let measured = format!(
        "{:.1} us each ({:.2} ms in all), {:.0} us for the first after the pause; {allocations} allocations in \
         {ROUNDS} rounds",
        micros(all / u32::try_from(count)?),
        all.as_secs_f64() * 1e3,
        micros(median(first_spent)),
    );
    row(&format!("a look at each of {count} VMs of {THREADS} threads, points made"), &measured);
    Ok(())
}

/// The same without pauses: nothing is cold, and most threads have not run since.
fn measure_warm() -> Result<(), Failure> {
    let stand_in = StandIn::start()?;
    let mut samplers = [stand_in.sampler()?];
    let mut fields = points::Fields::with_capacity(64);
    let mut spent = Vec::with_capacity(WARM_ROUNDS);
    for _ in 0..WARM_ROUNDS {
        let start = clock(ClockId::ThreadCPUTime);
        look(&mut samplers, &mut fields)?;
        spent.push(clock(ClockId::ThreadCPUTime) - start);
    }
    let measured = format!("{:.1} us", micros(median(spent)));
    row("the same at one VM again and again, caches warm", &measured);
    Ok(())
}

/// The inner half of [`system_calls`].
fn look_at(pid: u32, rounds: usize) -> Result<(), Failure> {
    let mut samplers = [ProcessSampler::open(pid, start_ticks(pid)?, Machine::host())];
    let mut fields = points::Fields::with_capacity(64);
    for _ in 0..rounds {
        look(&mut samplers, &mut fields)?;
        sleep(PAUSE);
    }
    Ok(())
}

/// System calls of one look in the steady state: two runs under strace differ by their rounds alone. Of each
/// round one call, the pause, is not the look's.
fn system_calls() -> Result<f64, Failure> {
    let stand_in = StandIn::start()?;
    let [few, many] = TRACED_ROUNDS.map(|rounds| traced(stand_in.0.id(), rounds));
    let (few, many) = (few?, many?);
    let rounds = u32::try_from(TRACED_ROUNDS[1] - TRACED_ROUNDS[0])?;
    Ok(f64::from(many.saturating_sub(few)) / f64::from(rounds) - 1.0)
}

/// All system calls of a run of [`look_at`].
fn traced(pid: u32, rounds: usize) -> Result<u32, Failure> {
    let output = Command::new("strace")
        .args(["-f", "-c", "-U", "calls,name"])
        .arg(std::env::current_exe()?)
        .args(["look-at", &pid.to_string(), &rounds.to_string()])
        .output()
        .map_err(|error| format!("starting strace: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if std::env::var_os("SAMPLE_COST_TRACE").is_some() {
        eprintln!("{rounds} rounds:\n{text}");
    }
    let total = text.lines().find_map(|line| line.trim().strip_suffix("total"));
    Ok(total.ok_or_else(|| format!("strace said {text:?}"))?.trim().parse()?)
}

/// One dump of all links of the host.
fn links() -> Result<(), Failure> {
    let mut table = LinkTable::new();
    table.refresh()?;
    let mut spent = Vec::with_capacity(ROUNDS);
    let allocations = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..ROUNDS {
        sleep(PAUSE);
        let start = clock(ClockId::ThreadCPUTime);
        table.refresh()?;
        spent.push(clock(ClockId::ThreadCPUTime) - start);
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - allocations;
    let measured = format!("{:.1} us, {allocations} allocations in {ROUNDS} rounds", micros(median(spent)));
    row(&format!("one dump of the host's {} links", table.links().len()), &measured);
    Ok(())
}

fn median(mut spent: Vec<Duration>) -> Duration {
    spent.sort();
    spent.get(spent.len() / 2).copied().unwrap_or_default()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
