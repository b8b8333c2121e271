//! The guest `http`: its instructions, counted by QEMU.
//!
//! Owns the counting plugin and what is marked as the sampler's: all code of the sampler, of logarithms and of the trace's
//! format, and the functions by which programs allocate. Those are there without it too, so a little too much is marked.

use std::fmt::Write as _;
use std::fs::File;
use std::net::TcpStream;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use black_box::free_port;
use object::{Object as _, ObjectSymbol as _, SymbolKind};

use super::{Extent, Running, ask, collector, mean, order, ratio, take_all, until_serving};
use crate::bench::to_f64;
use crate::step;

/// Three reports: by then the profile's interval is that of a busy program.
const WARM_UP: Duration = Duration::from_secs(35);
/// Parts of names, as the compiler writes them.
const SAMPLERS: [&str; 6] = [
    "9uni_guest4heap",
    "uni_guest..heap",
    "4libm4math",
    "8uni_wire8memtrace",
    "uni_wire..memtrace",
    "7___rustc1",
];

struct Guest {
    name: &'static str,
    _qemu: Running,
    counts: File,
    port: u16,
    all: Vec<f64>,
    marked: Vec<f64>,
}

pub(super) fn run(programs: &Path, extent: &Extent) -> anyhow::Result<()> {
    let dir = tempfile::Builder::new().prefix("uni-bench-").tempdir()?;
    compile(dir.path())?;
    let mut guests = Vec::new();
    for (name, image, arguments, traced) in [
        ("bare allocator", "http.bare", "--heap-profile=off", false),
        ("sampled, `--heap-profile=off`", "http", "--heap-profile=off", false),
        ("`heap_by_library`", "http", "", false),
        ("`heap_by_library` and a trace at 1e-4", "http", "", true),
    ] {
        let place = dir.path().join(guests.len().to_string());
        std::fs::create_dir(&place)?;
        guests.push(Guest::boot(dir.path(), &place, &programs.join(image), name, arguments, traced)?);
    }
    let started = Instant::now();
    while started.elapsed() < WARM_UP {
        guests.iter().try_for_each(|guest| ask(guest.port, 200))?;
    }
    for round in 0..extent.rounds {
        for at in order(round, guests.len()) {
            guests[at].window(extent.requests)?;
        }
    }
    print(&guests);
    Ok(())
}

fn print(guests: &[Guest]) {
    println!("| guest `http` | instructions a request | to the bare allocator's | the sampler's | share |");
    println!("|---|---|---|---|---|");
    for guest in guests {
        let (all, marked) = (mean(&guest.all), mean(&guest.marked));
        let to_bare = ratio(&guest.all, &guests[0].all);
        println!("| {} | {all:.0} | {to_bare} | {marked:.0} | {:.2} % |", guest.name, marked / all * 100.0);
    }
    println!();
}

/// Makes the plugin.
fn compile(dir: &Path) -> anyhow::Result<()> {
    let source = dir.join("count.c");
    std::fs::write(&source, include_str!("count.c"))?;
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O2", "-o"]).arg(dir.join("count.so")).arg(source);
    step::run("build the counting plugin", &mut cc)
}

/// Where the sampler's code lies, for the plugin.
fn marks(image: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::read(image)?;
    let file = object::File::parse(&*bytes)?;
    let is_sampler = |name: &str| {
        let is_call =
            ["_alloc", "_dealloc", "_realloc", "_alloc_zeroed"].iter().any(|end| name.ends_with(end));
        SAMPLERS.iter().any(|part| name.contains(part) && (is_call || !part.contains("rustc")))
    };
    let mut ranges: Vec<_> = file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.name().is_ok_and(is_sampler))
        .map(|symbol| (symbol.address(), symbol.address() + symbol.size()))
        .collect();
    ensure!(ranges.len() > 3, "{} has no symbols", image.display());
    ranges.sort_unstable();
    let mut text = String::new();
    ranges.iter().try_for_each(|(start, end)| writeln!(text, "{start:x} {end:x}"))?;
    Ok(text)
}

impl Guest {
    fn boot(
        plugin: &Path,
        dir: &Path,
        image: &Path,
        name: &'static str,
        arguments: &str,
        traced: bool,
    ) -> anyhow::Result<Self> {
        let (port, trace, monitor) = (free_port()?, free_port()?, collector()?);
        let (shown, marked) = (dir.join("count"), dir.join("marks"));
        std::fs::write(&shown, [0; 4096])?;
        std::fs::write(&marked, marks(image)?)?;
        let plugin = plugin.join("count.so");
        let plugin = format!("{},count={},marks={}", plugin.display(), shown.display(), marked.display());
        let qemu = Running::start(
            Command::new("qemu-system-x86_64")
                .args(["-M", "microvm", "-accel", "tcg", "-cpu", "max", "-m", "32M"])
                .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
                .args(["-serial", &format!("file:{}", dir.join("console").display())])
                .args(["-netdev", &format!("user,id=service,hostfwd=tcp:127.0.0.1:{port}-:80")])
                .args(["-device", "virtio-net-device,netdev=service,mac=02:75:6e:00:00:01"])
                .args(["-netdev"])
                .arg(format!("user,id=management,net=10.0.3.0/24,hostfwd=tcp:127.0.0.1:{trace}-:4242"))
                .args(["-device", "virtio-net-device,netdev=management,mac=02:75:6e:01:00:01"])
                .args(["-plugin", &plugin, "-kernel"])
                .arg(image)
                .arg("-append")
                .arg(format!(
                    "--name=bench --ipv4=10.0.2.15/24 --management-ipv4=10.0.3.15/24 \
                     --monitor=10.0.3.2:{monitor} {arguments}"
                ))
                .stdin(Stdio::null()),
        )?;
        until_serving(port)?;
        if traced {
            take_all(TcpStream::connect(("127.0.0.1", trace))?);
        }
        let counts = File::open(shown)?;
        Ok(Self { name, _qemu: qemu, counts, port, all: Vec::new(), marked: Vec::new() })
    }

    /// All instructions so far, and the sampler's.
    fn counted(&self) -> anyhow::Result<[f64; 2]> {
        let mut bytes = [0; 16];
        self.counts.read_exact_at(&mut bytes, 0).context("what the plugin counted")?;
        let (counts, _) = bytes.as_chunks::<8>();
        Ok([0, 1].map(|at| to_f64(u64::from_le_bytes(counts[at]))))
    }

    fn window(&mut self, requests: u32) -> anyhow::Result<()> {
        let before = self.counted()?;
        ask(self.port, requests)?;
        let after = self.counted()?;
        self.all.push((after[0] - before[0]) / f64::from(requests));
        self.marked.push((after[1] - before[1]) / f64::from(requests));
        Ok(())
    }
}
