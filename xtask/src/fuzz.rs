//! Fuzzing: every target of `fuzz/`, each for its time.
//!
//! Owns the list's order and the time. The targets' own workspace needs compiler flags that are unstable; the pinned
//! compiler takes them when told to.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use black_box::workspace;

use crate::{step, tools};

/// The longest input, in bytes: parsers are cut off above their own limits, which are tested elsewhere.
const MAX_INPUT_BYTES: &str = "-max_len=16384";

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
        fuzz.args(["run", target, "--", MAX_INPUT_BYTES]).arg(format!("-max_total_time={}", time.as_secs()));
        step::run(&format!("fuzz {target}"), fuzz.env("RUSTC_BOOTSTRAP", "1"))?;
    }
    Ok(())
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
