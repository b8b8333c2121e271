//! What guests send as traces, sound and damaged, on its way into a file with names.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

#[path = "properties/naming.rs"]
mod naming;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn recorded(name: &str) -> Vec<u8> {
    std::fs::read(workspace().join("crates/uni-wire/tests/data/memtrace").join(name)).expect("recorded")
}

#[test]
fn recorded_traces_come_out_as_they_went_in_wherever_they_are_cut() {
    for name in ["tiny-v2.ctf", "unikernel-v2.ctf", "lists-v2.ctf", "domains-v3.ctf"] {
        let trace = recorded(name);
        naming::check_naming(&trace);
        for cut in (0..trace.len()).step_by(1 + trace.len() / 60) {
            naming::check_naming(&trace[..cut]);
            naming::check_naming(&trace[cut..]);
        }
    }
}

#[test]
fn seeds_of_the_fuzz_target_hold() {
    let mut count = 0;
    for seed in std::fs::read_dir(workspace().join("fuzz/seeds/memtrace_naming")).expect("seeds") {
        naming::check_naming(&std::fs::read(seed.expect("seeds").path()).expect("a seed"));
        count += 1;
    }
    assert!(count > 3);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn damage_is_told_and_what_comes_out_can_be_read(
        name in prop::sample::select(vec!["tiny-v2.ctf", "unikernel-v2.ctf", "domains-v3.ctf"]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut trace = recorded(name);
        for (at, byte) in edits {
            let at = at.index(trace.len());
            trace[at] = byte;
        }
        naming::check_naming(&trace);
    }
}
