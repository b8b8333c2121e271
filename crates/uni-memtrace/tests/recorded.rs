//! Recorded traces of OCaml programs: the report's numbers against those computed here from the original tool's dump.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use uni_memtrace::{Analysis, Grouping, Options, ShortLived, read};

mod properties;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn recorded(name: &str) -> Vec<u8> {
    std::fs::read(workspace().join("crates/uni-wire/tests/data/memtrace").join(name)).expect("recorded")
}

/// Sums of the dump, in samples.
#[derive(Debug, Default)]
struct Model {
    allocated: u64,
    live: u64,
    peak: u64,
    freed: u64,
    /// By name and file: allocated, live, cumulative allocated, cumulative live.
    functions: BTreeMap<(String, String), [u64; 4]>,
}

/// `NAME@FILE:LINE:START-END`, or `$CODE`.
fn function(frame: &str) -> (String, String) {
    match frame.strip_prefix('$') {
        Some(code) => (format!("{:#x}", code.parse::<i64>().expect("a code").cast_unsigned()), String::new()),
        None => {
            let (name, place) = frame.split_once('@').expect("a place");
            let file = place.rsplitn(3, ':').nth(2).expect("a file");
            (name.to_owned(), file.to_owned())
        }
    }
}

fn model(dump: &str, at: Option<u64>) -> Model {
    let mut model = Model::default();
    let mut blocks: BTreeMap<u64, (u64, Vec<(String, String)>)> = BTreeMap::new();
    for line in dump.lines() {
        let mut words = line.split_ascii_whitespace();
        let mut number = || words.next().expect("a word").parse::<u64>().expect("a number");
        let (time, id) = (number(), number());
        if at.is_some_and(|at| time > at) {
            break;
        }
        match words.next().expect("a verb") {
            "promote" => {}
            "collect" => {
                let (samples, stack) = blocks.remove(&id).expect("allocated before");
                model.live -= samples;
                model.freed += 1;
                model.add(&stack, |sums, own| {
                    sums[3] -= samples;
                    sums[1] -= if own { samples } else { 0 };
                });
            }
            _ => {
                let samples: u64 = words.next().expect("samples").parse().expect("a number");
                let (_, frames) = line.split_once(": ").unwrap_or((line, ""));
                let stack: Vec<_> = frames.split_ascii_whitespace().map(function).collect();
                model.allocated += samples;
                model.live += samples;
                model.peak = model.peak.max(model.live);
                model.add(&stack, |sums, own| {
                    sums[2] += samples;
                    sums[3] += samples;
                    if own {
                        sums[0] += samples;
                        sums[1] += samples;
                    }
                });
                blocks.insert(id, (samples, stack));
            }
        }
    }
    model
}

impl Model {
    fn add(&mut self, stack: &[(String, String)], mut change: impl FnMut(&mut [u64; 4], bool)) {
        let nowhere = ("(no stack)".to_owned(), String::new());
        let innermost = stack.last().unwrap_or(&nowhere).clone();
        let all: BTreeSet<_> = stack.iter().cloned().chain([innermost.clone()]).collect();
        for function in all {
            let own = function == innermost;
            change(self.functions.entry(function).or_default(), own);
        }
    }
}

/// The dump without the blocks that lived less than so many microseconds.
fn without_short_lived(dump: &str, min: u64) -> String {
    let event = |line: &str| -> (u64, u64) {
        let mut words = line.split_ascii_whitespace().map(|word| word.parse().expect("a number"));
        (words.next().expect("a time"), words.next().expect("an id"))
    };
    let end = dump.lines().map(|line| event(line).0).max().unwrap_or(0);
    let mut lives: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for line in dump.lines() {
        let (time, id) = event(line);
        let life = lives.entry(id).or_insert((time, end));
        if line.ends_with("collect") {
            life.1 = time;
        }
    }
    let is_kept = |line: &&str| lives.get(&event(line).1).is_some_and(|(born, dead)| dead - born >= min);
    dump.lines().filter(is_kept).flat_map(|line| [line, "\n"]).collect()
}

fn check(name: &str, at: Option<u64>, min_lifetime: Option<u64>) {
    let mut dump = String::from_utf8(recorded(&format!("{name}.txt"))).expect("text");
    let trace = recorded(&format!("{name}.ctf"));
    let mut options = Options { at_micros: at, ..Options::default() };
    if let Some(min) = min_lifetime {
        dump = without_short_lived(&dump, min);
        options.short_lived = Some(ShortLived::find(&trace[..], min, |_| {}).expect("memory"));
    }
    let model = model(&dump, at);
    let analysis = read(&trace[..], &options, |_| {}).expect("memory");
    assert_eq!(analysis.faults(), []);
    let report = analysis.report(Grouping::Function, usize::MAX);
    let info = report.info.as_ref().expect("an info");
    let words = |samples: u64| samples as f64 * 8.0 / info.sample_rate;
    let bytes = |samples: u64| format!("{:.0}", words(samples)).parse::<u64>().expect("a whole number");
    let totals = &report.totals;
    assert_eq!(totals.allocated_bytes, bytes(model.allocated), "{name}");
    assert_eq!(totals.live_bytes, bytes(model.live), "{name}");
    assert_eq!(totals.peak_live_bytes, bytes(model.peak), "{name}");
    assert_eq!(totals.sampled_frees, model.freed, "{name}");
    let mut rows = BTreeMap::new();
    for row in &report.rows {
        let sums =
            [row.allocated_bytes, row.live_bytes, row.cumulative_allocated_bytes, row.cumulative_live_bytes];
        assert_eq!(rows.insert((row.name.clone(), row.file.clone()), sums), None);
    }
    let expected: BTreeMap<_, _> =
        model.functions.into_iter().map(|(function, sums)| (function, sums.map(bytes))).collect();
    assert_eq!(rows, expected, "{name}");
    check_timeline(&analysis, bytes(model.live));
}

/// At the end of the last step, all libraries together have what is alive.
fn check_timeline(analysis: &Analysis, live: u64) {
    let report = analysis.report(Grouping::Library, 3);
    for lines in [&report.timeline.libraries, &report.timeline.sites] {
        let last: u64 = lines.iter().filter_map(|(_, values)| values.last()).sum();
        assert!(last.abs_diff(live) <= 2 * lines.len() as u64, "{last} instead of {live}");
        assert!(lines.iter().all(|(_, values)| values.len() <= Options::default().steps));
    }
}

#[test]
fn totals_and_functions_are_those_of_the_dump() {
    for name in ["tiny-v2", "edges-v2", "domains-v3", "lists-v2", "lists-v3", "unikernel-v2"] {
        check(name, None, None);
    }
}

#[test]
fn the_state_at_a_time_is_that_of_the_events_up_to_it() {
    for (name, at) in
        [("tiny-v2", 3000), ("edges-v2", 60_000_000), ("lists-v2", 4000), ("unikernel-v2", 5000)]
    {
        check(name, Some(at), None);
    }
}

#[test]
fn short_lived_blocks_are_left_out() {
    for name in ["tiny-v2", "edges-v2", "domains-v3", "lists-v2", "unikernel-v2"] {
        for min in [1, 900, 5000, 1_000_000_000] {
            check(name, None, Some(min));
            check(name, Some(6000), Some(min));
        }
    }
}

#[test]
fn ocaml_programs_have_their_libraries() {
    let libraries = |name: &str| -> BTreeSet<String> {
        let analysis = read(&recorded(name)[..], &Options::default(), |_| {}).expect("memory");
        let rows = analysis.report(Grouping::Library, usize::MAX).rows;
        rows.into_iter().filter(|row| row.allocated_bytes > 0).map(|row| row.name).collect()
    };
    // what the language's own library allocates is the caller's
    assert_eq!(libraries("lists-v2.ctf"), BTreeSet::from(["Lists".to_owned()]));
    assert_eq!(libraries("unikernel-v2.ctf"), BTreeSet::from(["Main".to_owned()]));
    // an executable's modules, none of which is called as the folder that they are in
    let edges = libraries("edges-v2.ctf");
    assert!(edges.contains("File00") && !edges.contains("src"), "{edges:?}");
}

#[test]
fn damaged_traces_have_reports_too() {
    let trace = recorded("unikernel-v2.ctf");
    for cut in (0..trace.len()).step_by(97) {
        properties::check_report(&trace[..cut]);
        properties::check_report(&trace[cut..]);
    }
    let cut = read(&trace[..trace.len() - 5], &Options::default(), |_| {}).expect("memory");
    let faults = cut.faults();
    assert_eq!(faults.len(), 1);
    assert!(faults[0].what.contains("ends inside a packet"), "{faults:?}");
}

/// Where packets end, by their headers alone.
fn packet_ends(trace: &[u8]) -> BTreeSet<usize> {
    let mut ends = BTreeSet::new();
    let mut at = 0;
    while let Some(size) = trace.get(at + 4..at + 8) {
        at += u32::from_le_bytes(size.try_into().expect("four bytes")) as usize / 8;
        ends.insert(at);
    }
    ends
}

#[test]
fn a_trace_cut_anywhere_has_a_report_that_says_what_was_skipped() {
    for (name, step) in [
        ("tiny-v2.ctf", 1),
        ("unikernel-v2.ctf", 3),
        ("lists-v2.ctf", 9),
        ("lists-v3.ctf", 9),
        ("domains-v3.ctf", 61),
        ("edges-v2.ctf", 499),
    ] {
        let trace = recorded(name);
        let (ends, mut before) = (packet_ends(&trace), 0);
        for cut in (0..trace.len()).step_by(step) {
            let analysis = read(&trace[..cut], &Options::default(), |_| {}).expect("memory");
            let report = analysis.report(Grouping::Function, 5);
            assert_eq!(
                report.faults.is_empty(),
                ends.contains(&cut),
                "{name} cut at {cut}: {:?}",
                report.faults
            );
            assert!(report.faults.iter().all(|fault| fault.first_offset <= cut as u64));
            // the longer, the more
            let events = report.totals.sampled_allocations + report.totals.sampled_frees;
            assert!(events >= before, "{name} cut at {cut}");
            before = events;
        }
        assert!(before > 0);
    }
}

#[test]
fn seeds_of_the_fuzz_target_hold() {
    let seeds = workspace().join("fuzz/seeds/memtrace_report");
    let mut count = 0;
    for seed in std::fs::read_dir(seeds).expect("seeds") {
        properties::check_report(&std::fs::read(seed.expect("seeds").path()).expect("a seed"));
        count += 1;
    }
    assert!(count > 3);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn changed_traces_have_reports_too(
        name in prop::sample::select(vec!["tiny-v2.ctf", "unikernel-v2.ctf", "domains-v3.ctf"]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut trace = recorded(name);
        for (at, byte) in edits {
            let at = at.index(trace.len());
            trace[at] = byte;
        }
        properties::check_report(&trace);
    }
}
