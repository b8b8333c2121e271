//! What is acknowledged outlives SIGKILL, and damage is kept to itself. `cargo xtask crash` does the same for longer.

use black_box::crash::{Plan, run};

#[test]
fn what_is_acknowledged_outlives_thirty_kills_under_load() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let plan = Plan { kills: 30, damage_every: 3, seed: 20 };
    let outcome = run(&state.path().join("state"), plan, &mut |_| {})?;
    println!("{outcome:?}");
    anyhow::ensure!(
        outcome.kills == 30 && outcome.acknowledged > 30 && outcome.damaged_logs > 0,
        "{outcome:?}"
    );
    Ok(())
}
