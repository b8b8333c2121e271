//! `cargo xtask crash`: the rounds of `tests/crash.rs`, as many as one likes.
//!
//! Owns its options and the progress that is shown. Never decides what is right: the harness does.

use anyhow::Context as _;
use black_box::crash::{Outcome, Plan};
use indicatif::{ProgressBar, ProgressStyle};

use crate::build;

/// How long it goes on.
#[derive(Debug, clap::Args)]
pub(crate) struct Rounds {
    /// How many times unid is killed
    #[arg(long, default_value_t = 500)]
    kills: u32,
    /// After every how many kills a copy of the store is damaged; 0 for never
    #[arg(long, default_value_t = 2)]
    damage_every: u32,
    /// Repeat what chance decided in another run
    #[arg(long)]
    seed: Option<u64>,
}

/// Kills, damages, looks; prints what it came to.
pub(crate) fn run(rounds: &Rounds) -> anyhow::Result<()> {
    build::binaries()?;
    let state = tempfile::tempdir()?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let seed = rounds.seed.unwrap_or(now.as_secs());
    let plan = Plan { kills: rounds.kills, damage_every: rounds.damage_every, seed };
    let bar = ProgressBar::new(u64::from(plan.kills));
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} kills, {msg}, {eta} left")?);
    let mut show = |outcome: &Outcome| {
        bar.set_position(u64::from(outcome.kills));
        bar.set_message(format!("{} bodies acknowledged", outcome.acknowledged));
        // Without a terminal there is no bar.
        if bar.is_hidden() && outcome.kills.is_multiple_of(50) {
            eprintln!("   {} kills, {} bodies acknowledged", outcome.kills, outcome.acknowledged);
        }
    };
    let outcome = black_box::crash::run(&state.path().join("state"), plan, &mut show).with_context(|| {
        format!("repeat with --kills {} --damage-every {} --seed {seed}", plan.kills, plan.damage_every)
    })?;
    bar.finish_and_clear();
    println!("seed {seed}: {} kills under load, all that was acknowledged is there", outcome.kills);
    println!("  {} bodies acknowledged, {} rows compared", outcome.acknowledged, outcome.rows);
    println!(
        "  {} bodies under way at a kill: {} there whole, the others not at all",
        outcome.under_way, outcome.under_way_kept
    );
    println!(
        "  {} damaged logs and {} damaged segments: kept to themselves, and told",
        outcome.damaged_logs, outcome.damaged_segments
    );
    Ok(())
}
