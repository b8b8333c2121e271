//! The sampler as a whole, on blocks that are only numbers: seeds instead of chance, no clock, no allocator.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::format;
use std::vec::Vec;

use proptest::prelude::*;

use super::chance::{exponential, next, unit, whole};
use super::events::{Event, TraceMemory};
use super::libraries::LibraryMap;
use super::local::Local;
use super::profile::by_library;
use super::sampler::{Sampler, Walk};
use super::table::{Filter, Table};
use super::{PROFILE_PLACES, SamplingRate};

const LIBRARIES: [&str; 4] = ["big", "small", "tiny", "never"];

/// Code of library N lies at 1000 N + 1000.
fn map() -> LibraryMap {
    let mut table = Vec::new();
    table.extend([4_u32, 4].into_iter().flat_map(u32::to_le_bytes));
    table.extend([1000_u32, 2000, 3000, 4000].into_iter().flat_map(u32::to_le_bytes));
    table.extend([0_u16, 1, 2, 3].into_iter().flat_map(u16::to_le_bytes));
    for name in LIBRARIES {
        table.push(u8::try_from(name.len()).expect("short"));
        table.extend(name.as_bytes());
    }
    LibraryMap::new(table.leak(), 0).expect("a table")
}

fn called_by(library: usize) -> impl Walk {
    move |_: usize, each: &mut dyn FnMut(usize) -> bool| {
        each(1500 + 1000 * library);
    }
}

/// A heap of numbers, beside what is truly live.
struct Heap {
    sampler: Sampler,
    local: Local,
    live: BTreeMap<usize, (usize, usize)>,
    next_address: usize,
    free: Vec<usize>,
}

impl Heap {
    fn new(places: usize, seed: u64) -> Self {
        let sampler = Sampler::new();
        sampler.set_map(map());
        assert!(sampler.start(places, seed));
        let (live, free) = (BTreeMap::new(), Vec::new());
        Self { sampler, local: Local::new(), live, next_address: 0x10_0000, free }
    }

    /// Takes an address that was freed before, if there is one: heaps do.
    fn allocate(&mut self, library: usize, size: usize) -> usize {
        let address = self.free.pop().unwrap_or_else(|| {
            self.next_address += 16;
            self.next_address
        });
        self.live.insert(address, (library, size));
        if self.local.spend(size) {
            self.sampler.record(&self.local, address, size, called_by(library));
        }
        address
    }

    fn free(&mut self, address: usize) {
        self.live.remove(&address).expect("live");
        if self.sampler.may_be_sampled(address) {
            self.sampler.freed(self.sampler.take(address));
        }
        self.free.push(address);
    }

    fn truth(&self, library: usize) -> f64 {
        self.live.values().filter(|(of, _)| *of == library).map(|(_, size)| *size as f64).sum()
    }

    fn told(&self, library: usize) -> f64 {
        let told = by_library(&self.sampler);
        told.iter().find(|(name, _)| *name == LIBRARIES[library]).map_or(0.0, |(_, holding)| holding.bytes)
    }
}

/// Sizes as programs have them: from 8 bytes to some hundred KiB, the larger the rarer.
fn size(chance: &mut u64) -> usize {
    8 + usize::try_from(whole(exponential(chance, 1200.0))).expect("64 bits")
        * if unit(chance) < 0.02 { 30 } else { 1 }
}

/// Fills a heap up to `bytes`, in the same shares as [`churn`].
fn grow(heap: &mut Heap, bytes: f64, chance: &mut u64) {
    let mut live: f64 = heap.live.values().map(|(_, size)| *size as f64).sum();
    while live < bytes {
        let library = match unit(chance) {
            big if big < 0.9 => 0,
            small if small < 0.95 => 1,
            _ => 2,
        };
        let size = size(chance);
        live += size as f64;
        heap.allocate(library, size);
    }
}

/// Fills a heap with `bytes`, 90 % of `big`, 5 % of `small`, the rest `tiny`, while a share of what is there is freed in
/// disorder.
fn churn(heap: &mut Heap, bytes: f64, freed_share: f64, chance: &mut u64) {
    let shares = [0.9, 0.05, 0.05];
    let mut addresses = Vec::new();
    let mut live = [0.0; 3];
    while live.iter().sum::<f64>() < bytes {
        let library =
            (0..3).min_by(|a, b| (live[*a] / shares[*a]).total_cmp(&(live[*b] / shares[*b]))).expect("three");
        let size = size(chance);
        live[library] += size as f64;
        addresses.push(heap.allocate(library, size));
        if unit(chance) < freed_share {
            let victim = addresses.swap_remove((next(chance) % addresses.len() as u64) as usize);
            let (library, size) = heap.live[&victim];
            live[library] -= size as f64;
            heap.free(victim);
        }
    }
}

/// Of 100 runs, how many tell a library of about 5 % within 10 %; and the mean of what they tell, over what is true.
fn accuracy(fill: impl Fn(&mut Heap, &mut u64)) -> (usize, f64) {
    const RUNS: u64 = 100;
    let ratios: Vec<f64> = (0..RUNS)
        .map(|run| {
            let mut chance = run.wrapping_mul(0x1234_5678_9abc_def1) + 1;
            let mut heap = Heap::new(PROFILE_PLACES, next(&mut chance));
            fill(&mut heap, &mut chance);
            heap.told(1) / heap.truth(1)
        })
        .collect();
    let near = ratios.iter().filter(|ratio| (*ratio - 1.0).abs() <= 0.1).count();
    (near, ratios.iter().sum::<f64>() / RUNS as f64)
}

#[track_caller]
fn assert_accurate(fill: impl Fn(&mut Heap, &mut u64)) {
    let (near, mean) = accuracy(fill);
    std::println!("{near} of 100 runs within a tenth, {mean} on average");
    assert!(near >= 95, "{near} of 100 runs, {mean} on average");
    assert!((mean - 1.0).abs() < 0.015, "{near} of 100 runs, {mean} on average");
}

const LARGE: f64 = 16.0 * 1_048_576.0;

#[test]
fn a_twentieth_of_a_heap_of_16_mib_is_told_within_a_tenth() {
    assert_accurate(|heap, chance| churn(heap, LARGE, 0.0, chance));
}

#[test]
fn and_of_one_that_grew_while_blocks_were_freed_in_disorder() {
    assert_accurate(|heap, chance| churn(heap, LARGE, 0.6, chance));
}

#[test]
fn and_of_one_of_small_blocks_alone() {
    assert_accurate(|heap, _| {
        for block in 0..66_000 {
            heap.allocate(usize::from(block % 20 == 0), 256);
        }
    });
}

/// In holes of every size new blocks lie, at addresses that were others' before; each was replaced twice.
#[test]
fn and_of_one_that_is_full_of_holes() {
    assert_accurate(|heap, chance| {
        churn(heap, LARGE, 0.2, chance);
        let mut addresses: Vec<_> = heap.live.keys().copied().collect();
        let mut missing = [0; 3];
        for _ in 0..2 * addresses.len() {
            let at = (next(chance) % addresses.len() as u64) as usize;
            let (library, old) = heap.live[&addresses[at]];
            heap.free(addresses.swap_remove(at));
            missing[library] += old;
            // Of other sizes, but as many bytes, so that the shares stay.
            while missing[library] > 0 {
                let size = size(chance).min(missing[library] + 8);
                missing[library] = missing[library].saturating_sub(size);
                addresses.push(heap.allocate(library, size));
            }
        }
    });
}

/// A program that is busy from the start, so that the profile is coarse while the heap is small.
#[test]
fn and_of_one_that_grew_in_a_busy_program() {
    assert_accurate(|heap, chance| {
        for megabytes in 1..=16 {
            for _ in 0..400 {
                let address = heap.allocate(2, 20_000);
                heap.free(address);
            }
            heap.sampler.end_round();
            grow(heap, f64::from(megabytes) * 1_048_576.0, chance);
        }
    });
}

/// Every block is freed by another thread than asked for it.
#[test]
fn and_of_one_whose_blocks_are_freed_elsewhere() {
    assert_accurate(|heap, chance| {
        churn(heap, LARGE / 2.0, 0.0, chance);
        let sampler = &heap.sampler;
        let (sender, receiver) = std::sync::mpsc::channel::<usize>();
        let kept = std::thread::scope(|scope| {
            scope.spawn(move || {
                for address in receiver {
                    if sampler.may_be_sampled(address) {
                        sampler.freed(sampler.take(address));
                    }
                }
            });
            let mut chance = next(chance);
            let allocate = scope.spawn(move || {
                let (local, mut kept, mut bytes) = (Local::new(), Vec::new(), 0.0);
                for address in (1..).map(|block| (1 << 40) + (block << 4)) {
                    let (library, size) = (usize::from(unit(&mut chance) < 0.05), size(&mut chance));
                    if local.spend(size) {
                        sampler.record(&local, address, size, called_by(library));
                    }
                    if unit(&mut chance) < 0.5 {
                        // Nobody is there any more to take it only if the other thread panicked.
                        let _ = sender.send(address);
                    } else {
                        bytes += size as f64;
                        kept.push((address, (library, size)));
                    }
                    if bytes > LARGE / 2.0 {
                        break;
                    }
                }
                kept
            });
            allocate.join().expect("no panic")
        });
        heap.live.extend(kept);
    });
}

#[test]
fn samples_follow_a_heap_that_grows_and_shrinks() {
    let mut chance = 99;
    let mut heap = Heap::new(PROFILE_PLACES, 5);
    churn(&mut heap, 64.0 * 1048576.0, 0.3, &mut chance);
    let addresses: Vec<_> = heap.live.keys().copied().collect();
    // All but one in twenty goes, of whatever library.
    addresses.into_iter().filter(|address| address % 320 != 0).for_each(|address| heap.free(address));
    churn(&mut heap, 16.0 * 1048576.0, 0.5, &mut chance);
    for (library, name) in LIBRARIES.into_iter().enumerate().take(3) {
        let (told, truth) = (heap.told(library), heap.truth(library));
        assert!((told / truth - 1.0).abs() < 0.15, "{name}: {told} of {truth}");
    }
    let addresses: Vec<_> = heap.live.keys().copied().collect();
    addresses.into_iter().for_each(|address| heap.free(address));
    assert!(by_library(&heap.sampler).is_empty(), "nothing is live, nothing is told");
}

#[test]
fn a_busy_program_with_a_small_heap_is_sampled_less_until_it_rests_or_grows() {
    let mut heap = Heap::new(PROFILE_PLACES, 21);
    let mut chance = 4;
    churn(&mut heap, 1e6, 0.3, &mut chance);
    heap.sampler.end_round();
    // In each round 40 MB come and go.
    let busy = |heap: &mut Heap| {
        for _ in 0..20_000 {
            let address = heap.allocate(2, 2000);
            heap.free(address);
        }
        heap.sampler.end_round()
    };
    let rounds: Vec<u64> = (0..8).map(|_| busy(&mut heap)).collect();
    assert!(rounds[7] < 6000 && rounds[7] * 4 < rounds[0], "{rounds:?}");
    let truth = heap.truth(0);
    assert!((heap.told(0) / truth - 1.0).abs() < 0.25, "{} of {truth}", heap.told(0));
    // At rest it is sampled as finely as before: nearly every block of 4 KiB.
    for _ in 0..10 {
        heap.sampler.end_round();
    }
    let before = heap.told(1);
    for _ in 0..200 {
        heap.allocate(1, 4096);
    }
    let told = heap.told(1) - before;
    assert!((told / (200.0 * 4096.0) - 1.0).abs() < 0.1, "{told}");
    // However busy it is, a large heap is told as exactly.
    for _ in 0..4 {
        busy(&mut heap);
    }
    churn(&mut heap, 32.0 * 1_048_576.0, 0.3, &mut chance);
    let truth = heap.truth(1);
    assert!((heap.told(1) / truth - 1.0).abs() < 0.15, "{} of {truth}", heap.told(1));
}

#[test]
fn a_small_table_tells_more_coarsely_but_not_falsely() {
    let ratios: Vec<f64> = (1..40)
        .map(|run| {
            let mut heap = Heap::new(256, run);
            churn(&mut heap, 4.0 * 1048576.0, 0.3, &mut (run * 77));
            heap.told(0) / heap.truth(0)
        })
        .collect();
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    assert!((mean - 1.0).abs() < 0.05, "{mean}: {ratios:?}");
}

#[test]
fn the_profile_ends_and_begins_anew() {
    let mut heap = Heap::new(PROFILE_PLACES, 1);
    churn(&mut heap, 1e6, 0.0, &mut 3);
    assert!(heap.told(0) > 0.0);
    heap.sampler.stop();
    assert!(by_library(&heap.sampler).is_empty());
    let before: Vec<_> = heap.live.keys().copied().collect();
    assert!(before.iter().all(|address| !heap.sampler.may_be_sampled(*address)), "the filter is empty too");
    churn(&mut heap, 1e6, 0.0, &mut 4);
    assert!(by_library(&heap.sampler).is_empty());
    assert!(heap.sampler.start(PROFILE_PLACES, 1));
    churn(&mut heap, 2e6, 0.0, &mut 5);
    let told = heap.told(0);
    assert!(told > 0.5e6 && told < 2.2e6, "{told}: only what came later is known");
}

/// Events as `(serial, words hit)`, and of what was freed the serial.
fn events(memory: &TraceMemory) -> (Vec<(u32, u64, u64)>, Vec<u32>) {
    let (mut allocated, mut freed) = (Vec::new(), Vec::new());
    while memory.read(|_, event| {
        match event {
            Event::Allocated { serial, size, samples, .. } => allocated.push((serial, size, samples)),
            Event::Freed { serial } => freed.push(serial),
        }
        true
    }) {}
    (allocated, freed)
}

fn memory() -> Option<TraceMemory> {
    TraceMemory::new(8192, 1 << 17, || 0)
}

#[test]
fn a_trace_estimates_what_was_allocated_and_what_lives() {
    for (rate, words, rounds) in [(1e-3, 7, 40_000), (0.3, 1, 3000), (0.9, 100, 100), (1e-2, 20_000, 40)] {
        let mut heap = Heap::new(64, 11);
        heap.sampler.stop();
        let memory = heap.sampler.begin_trace(rate, 8192, memory).expect("memory") as *const TraceMemory;
        // SAFETY: it is leaked.
        let memory = unsafe { &*memory };
        let mut truth = 0.0;
        let mut addresses = Vec::new();
        for _ in 0..rounds {
            addresses.push(heap.allocate(0, words * 8));
            truth += words as f64;
        }
        addresses.drain(..rounds / 2).for_each(|address| heap.free(address));
        let (allocated, freed) = events(memory);
        assert_eq!(memory.dropped(), 0);
        let told = allocated.iter().map(|(_, _, samples)| *samples as f64).sum::<f64>() / rate;
        assert!((told / truth - 1.0).abs() < 0.2, "rate {rate}, {words} words: {told} of {truth}");
        assert!(
            allocated.iter().all(|(_, size, samples)| *size == words as u64 * 8 && *samples <= words as u64)
        );
        let half = allocated.len() as f64 / 2.0;
        assert!(
            (freed.len() as f64 - half).abs() < half * 0.4 + 5.0,
            "{} of {}",
            freed.len(),
            allocated.len()
        );
    }
}

#[test]
fn at_rate_1_a_trace_has_every_word_of_every_block_and_every_end() {
    let mut heap = Heap::new(64, 3);
    let memory = heap.sampler.begin_trace(1.0, 8192, memory).expect("memory") as *const TraceMemory;
    // SAFETY: it is leaked.
    let memory = unsafe { &*memory };
    let sizes = [1, 8, 9, 800, 3, 64];
    let addresses: Vec<_> = sizes.iter().map(|size| heap.allocate(1, *size)).collect();
    addresses.iter().for_each(|address| heap.free(*address));
    let (allocated, freed) = events(memory);
    let expected: Vec<_> =
        (0..).zip(sizes).map(|(n, size)| (n, size as u64, (size as u64).div_ceil(8))).collect();
    assert_eq!(allocated, expected);
    assert_eq!(freed, [0, 1, 2, 3, 4, 5]);
    heap.sampler.end_trace();
    heap.allocate(1, 1 << 20);
    assert_eq!(events(memory), (Vec::new(), Vec::new()), "no trace, no event");
}

#[test]
fn a_second_trace_knows_nothing_of_the_first() {
    let mut heap = Heap::new(64, 3);
    heap.sampler.begin_trace(1.0, 8192, memory).expect("memory");
    let old = heap.allocate(0, 64);
    heap.sampler.end_trace();
    let memory = heap.sampler.begin_trace(1.0, 8192, memory).expect("memory") as *const TraceMemory;
    // SAFETY: it is leaked.
    let memory = unsafe { &*memory };
    heap.free(old);
    heap.allocate(0, 24);
    assert_eq!(events(memory), (Vec::from([(0, 24, 3)]), Vec::new()));
}

#[test]
fn two_threads_hammering_leave_nothing_behind() {
    let sampler = Sampler::new();
    sampler.set_map(map());
    assert!(sampler.start(1024, 17));
    sampler.begin_trace(0.01, 256, || TraceMemory::new(256, 1024, || 0)).expect("memory");
    std::thread::scope(|scope| {
        for thread in 0..2_usize {
            let sampler = &sampler;
            scope.spawn(move || {
                let (local, mut chance) = (Local::new(), thread as u64 + 1);
                let mut live = Vec::new();
                for round in 0..60_000_usize {
                    let (address, size) = (((round * 2 + thread) + 1) << 4, size(&mut chance));
                    if local.spend(size) {
                        sampler.record(&local, address, size, called_by(thread));
                    }
                    live.push(address);
                    if live.len() > 3000 || (round > 50_000 && !live.is_empty()) {
                        let address = live.swap_remove((next(&mut chance) % live.len() as u64) as usize);
                        if sampler.may_be_sampled(address) {
                            sampler.freed(sampler.take(address));
                        }
                    }
                }
                for address in live {
                    sampler.freed(sampler.take(address));
                }
            });
        }
    });
    assert!(by_library(&sampler).is_empty(), "{:?}", by_library(&sampler));
    assert!((1..200_000_usize).all(|n| !sampler.may_be_sampled(n << 4)), "no count of the filter is left");
}

#[derive(Clone, Debug)]
enum Step {
    Insert(usize, u64),
    Remove(usize),
    /// Takes out odd values and halves even ones.
    Retain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_usize..400, any::<u32>()).prop_map(|(at, value)| Step::Insert(at << 4, u64::from(value))),
        3 => (1_usize..400).prop_map(|at| Step::Remove(at << 4)),
        1 => Just(Step::Retain),
    ]
}

proptest! {
    /// The table is a map that may refuse when it is full.
    #[test]
    fn the_table_is_a_map(steps in prop::collection::vec(step(), 0..400)) {
        let (table, filter) = (Table::new(128).expect("memory"), Filter::new());
        let mut model = BTreeMap::new();
        for step in steps {
            match step {
                Step::Insert(address, value) => {
                    let known = model.len();
                    if let Entry::Vacant(place) = model.entry(address) {
                        filter.add(address);
                        if table.insert(address, || Some(value)) {
                            place.insert(value);
                        } else {
                            prop_assert!(known >= 64, "refused at {known}");
                            filter.subtract(address);
                        }
                    }
                }
                Step::Remove(address) => {
                    let removed = table.remove(address);
                    prop_assert_eq!(removed, model.remove(&address));
                    if removed.is_some() {
                        filter.subtract(address);
                    }
                }
                Step::Retain => {
                    table.retain(|value| (value % 2 == 0).then_some(value / 2), |address, _, after| {
                        if after.is_none() {
                            filter.subtract(address);
                        }
                    });
                    model.retain(|_, value| *value % 2 == 0);
                    model.values_mut().for_each(|value| *value /= 2);
                }
            }
            prop_assert!(model.keys().all(|address| filter.may_have(*address)));
        }
        let mut values = Vec::new();
        table.for_each(|value| values.push(value));
        values.sort_unstable();
        let mut expected: Vec<_> = model.values().copied().collect();
        expected.sort_unstable();
        prop_assert_eq!(values, expected);
        model.keys().for_each(|address| filter.subtract(*address));
        prop_assert!((1_usize..400).all(|at| !filter.may_have(at << 4)));
    }
}

#[test]
fn a_place_that_is_not_filled_is_free_again() {
    let table = Table::new(64).expect("memory");
    assert!(!table.insert(16, || None));
    assert_eq!(table.remove(16), None);
    assert!(table.insert(16, || Some(1)));
    assert_eq!(table.remove(16), Some(1));
}

#[test]
fn the_default_rate_is_written_as_it_was_read() {
    assert_eq!(SamplingRate::parse(&format!("{}", SamplingRate::DEFAULT)), Some(SamplingRate::DEFAULT));
}
