//! Fuzzing: every target of `fuzz/`, each for its time.
//!
//! Owns the list's order, the time and where inputs are: `fuzz/seeds` is kept, `fuzz/corpus` grows with each run. The
//! targets' own workspace needs compiler flags that are unstable; the pinned compiler takes them when told to.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use black_box::workspace;

use crate::{step, tools};

/// The longest input, in bytes: parsers are cut off above their own limits, which are tested elsewhere.
const MAX_INPUT_BYTES: &str = "-max_len=16384";

/// The targets that need the feature `vmm`.
const OF_VMM: [&str; 3] = ["image", "proc", "qmp"];

/// Runs the named targets, or all, each for `time`.
///
/// # Errors
/// When a target is unknown, or finds a fault; cargo-fuzz says where the input is.
pub(crate) fn run(wanted: &[String], time: Duration) -> anyhow::Result<()> {
    let all = targets()?;
    for name in wanted {
        ensure!(all.contains(name), "no fuzz target {name:?}; there are: {}", all.join(" "));
    }
    for target in if wanted.is_empty() { &all } else { wanted } {
        let mut fuzz = tools::command(tools::FUZZ)?;
        fuzz.args(["run", target]);
        if OF_VMM.contains(&target.as_str()) {
            fuzz.args(["--features", "vmm"]);
        }
        fuzz.args(corpora(target)?).args(["--", MAX_INPUT_BYTES]);
        fuzz.arg(format!("-max_total_time={}", time.as_secs()));
        step::run(&format!("fuzz {target}"), fuzz.env("RUSTC_BOOTSTRAP", "1"))?;
    }
    Ok(())
}

/// The folders of a target's inputs: first the one that new ones go to.
fn corpora(target: &str) -> anyhow::Result<Vec<PathBuf>> {
    let grown = workspace().join("fuzz/corpus").join(target);
    std::fs::create_dir_all(&grown).with_context(|| format!("make {}", grown.display()))?;
    let seeds = workspace().join("fuzz/seeds").join(target);
    Ok([grown].into_iter().chain(seeds.is_dir().then_some(seeds)).collect())
}

/// The targets by name, as the folder lists them.
fn targets() -> anyhow::Result<Vec<String>> {
    let dir = workspace().join("fuzz/fuzz_targets");
    let entries = std::fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".rs").map(str::to_owned))
        .collect();
    names.sort();
    Ok(names)
}
