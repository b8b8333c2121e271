//! Whatever a trace says, reading it takes a bounded amount of memory: a hostile one, made to fill everything there is,
//! read under an allocator that counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use uni_memtrace::{Grouping, Options, read};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// Counts what all threads hold.
struct Counting;

// SAFETY: hands everything to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller keeps to the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps to the contract.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const START_MICROS: u64 = 1 << 40;
/// As many as are followed.
const DOMAINS: u16 = 512;
const DEEP_CODES: u16 = 150;
const PREDICTED: u8 = 255;
const CODE: u32 = 25;

fn event(code: u32) -> Vec<u8> {
    (code << CODE).to_le_bytes().to_vec()
}

/// A packet of version 3.
fn packet(domain: u16, ids: std::ops::Range<u64>, events: &[u8]) -> Vec<u8> {
    let bits = u32::try_from((68 + events.len()) * 8).expect("small");
    let fields: [&[u8]; 14] = [
        &0xC1FC_1FC1_u32.to_le_bytes(),
        &bits.to_le_bytes(),
        &START_MICROS.to_le_bytes(),
        &START_MICROS.to_le_bytes(),
        &[0; 4],
        &3_u16.to_le_bytes(),
        &1_u64.to_le_bytes(),
        &domain.to_le_bytes(),
        &u16::MAX.to_le_bytes(),
        &[0; 2],
        &[0; 8],
        &ids.start.to_le_bytes(),
        &ids.end.to_le_bytes(),
        events,
    ];
    fields.concat()
}

fn info() -> Vec<u8> {
    let mut events = event(0);
    events.extend(0.5_f64.to_le_bytes());
    events.push(64);
    events.extend([0; 3]);
    events.extend(1_u64.to_le_bytes());
    events.push(0);
    packet(0, 0..0, &events)
}

/// Frames with names that are all different, as long as they may be, in as many files as a table has.
fn names(domain: u16) -> Vec<u8> {
    let mut events = Vec::new();
    for n in 0..31 {
        events.extend(event(1));
        events.extend((1 + u64::from(domain) * 31 + n).to_le_bytes());
        events.push(1);
        events.extend((31_u64 << 38 | 31 << 43).to_le_bytes().into_iter().take(6));
        events.extend(
            format!("{:>1000}\0{:>1000}\0", format!("f{domain}.{n}"), format!("n{domain}.{n}")).bytes(),
        );
    }
    packet(domain, 0..0, &events)
}

/// A backtrace of forty thousand frames in some hundred bytes.
fn deep(domain: u16) -> Vec<u8> {
    let mut events = event(2);
    events.extend([1, 1, 0, 0]);
    events.extend(DEEP_CODES.to_le_bytes());
    for _ in 0..DEEP_CODES {
        events.extend([2, 0, PREDICTED]);
    }
    packet(domain, 0..1, &events)
}

/// Stacks that are all different, of 200 frames each.
fn stacks(number: u64) -> Vec<u8> {
    const STACKS: u64 = 250;
    const FRAMES: u8 = 200;
    let mut events = Vec::new();
    for stack in 0..STACKS {
        events.extend(event(101));
        events.extend([0, FRAMES]);
        for frame in 0..u64::from(FRAMES) {
            let slot = u16::try_from(frame).expect("small");
            events.extend((slot << 2 | 3).to_le_bytes());
            events.extend(
                (1000 + ((number * STACKS + stack) * 7919 + frame * 104_729) % 300_000).to_le_bytes(),
            );
        }
    }
    let first = (1 << 40) + number * STACKS;
    packet(0, first..first + STACKS, &events)
}

/// Blocks that are never freed.
fn blocks(number: u64) -> Vec<u8> {
    const BLOCKS: u64 = 100_000;
    let events = [event(101), vec![0, 0]].concat().repeat(100_000);
    let first = (1 << 50) + number * BLOCKS;
    packet(0, first..first + BLOCKS, &events)
}

/// A trace that is made while it is read.
struct Made<I>(I, std::io::Cursor<Vec<u8>>);

impl<I: Iterator<Item = Vec<u8>>> Read for Made<I> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.1.read(out)? {
                0 if !out.is_empty() => match self.0.next() {
                    Some(packet) => self.1 = std::io::Cursor::new(packet),
                    None => return Ok(0),
                },
                count => return Ok(count),
            }
        }
    }
}

#[test]
fn a_hostile_trace_takes_a_bounded_amount_of_memory() {
    let hostile = std::iter::once(info())
        .chain((0..DOMAINS).map(names))
        .chain((0..DOMAINS + 9).map(deep))
        .chain((0..24).map(stacks))
        .chain((0..40).map(blocks));
    let analysis =
        read(Made(hostile, std::io::Cursor::default()), &Options::default(), |_| {}).expect("read");
    let report = analysis.report(Grouping::Site, 20);
    let peak = PEAK.load(Relaxed) >> 20;
    assert!(report.totals.sampled_allocations > 4_000_000, "{:?}", report.totals);
    // everything was filled
    assert_eq!(report.limits_reached.len(), 2, "{:?}", report.limits_reached);
    for expected in ["too many domains", "too many names", "too deep"] {
        assert!(
            analysis.faults().iter().any(|fault| fault.what.contains(expected)),
            "{:?}",
            analysis.faults()
        );
    }
    println!("{peak} MiB");
    assert!((100..400).contains(&peak), "{peak} MiB");
}
