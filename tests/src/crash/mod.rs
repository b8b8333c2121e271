//! `unid` killed again and again under load, its files damaged: what it acknowledged must be there, whole.
//!
//! Owns the rounds and what they came to. Never looks into the store's files beyond cutting, overwriting and flipping
//! their bytes; what is there it asks of `/query`.

mod check;
mod damage;
mod senders;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::{Daemon, eventually};
use check::Kept;
use senders::{Senders, fill_log};

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many times `unid` is killed.
    pub kills: u32,
    /// After every how many kills a copy of the store is damaged and looked at; 0 for never.
    pub damage_every: u32,
    /// Decides about everything that is left to chance.
    pub seed: u64,
}

/// After every so many kills the log is filled, so that unid dies while it packs, and comes back to segments.
const FILL_EVERY: u32 = 6;

/// What was done, and found to be right.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// SIGKILLs.
    pub kills: u32,
    /// Bodies that were acknowledged; each is looked for whole after every restart that follows it closely, and all of
    /// them at the end.
    pub acknowledged: u64,
    /// Bodies that were under way when `unid` died, and of these those that are there, whole.
    pub under_way: u64,
    /// See [`Outcome::under_way`].
    pub under_way_kept: u64,
    /// Rows compared.
    pub rows: u64,
    /// Copies of the store with a damaged log.
    pub damaged_logs: u32,
    /// Copies of the store with a damaged segment.
    pub damaged_segments: u32,
}

/// Random numbers by SplitMix64 (Steele, Lea, Flood 2014): the same seed does the same again.
#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `end`, which is not 0.
    pub(crate) const fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

pub(crate) const fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Kills `unid` as often as the plan says, with its state in `state`; tells after each kill how far it is.
///
/// # Errors
/// Whatever should be in the store and is not, or is there by half, or is damaged and nobody says so; with the seed.
pub fn run(state: &Path, plan: Plan, progress: &mut dyn FnMut(&Outcome)) -> anyhow::Result<Outcome> {
    rounds(state, plan, progress).with_context(|| format!("seed {}", plan.seed))
}

fn rounds(state: &Path, plan: Plan, progress: &mut dyn FnMut(&Outcome)) -> anyhow::Result<Outcome> {
    let mut chance = Chance(plan.seed);
    let mut outcome = Outcome::default();
    let mut daemon = Daemon::start(state, &[])?;
    let mut kept = Kept::default();
    for kill in 1..=plan.kills {
        if kill % FILL_EVERY == 1 {
            fill_log(&daemon, kept.next()[0])?;
            // The first time until it is packed, later unid may die before, while or after.
            eventually("a segment", || {
                ensure!(!damage::files(&state.join("store"), "seg")?.is_empty());
                Ok(())
            })?;
        }
        let senders = Senders::start(&daemon, kept.next())?;
        std::thread::sleep(Duration::from_millis(20 + chance.below(380)));
        daemon.kill()?;
        let sent = senders.end()?;
        outcome.kills = kill;
        if plan.damage_every > 0 && kill % plan.damage_every == 0 {
            damage::look(state, &kept, &sent, &mut chance, &mut outcome)?;
        }
        daemon.restart()?;
        kept.look(&daemon, &sent, &mut outcome).with_context(|| format!("after kill {kill}"))?;
        progress(&outcome);
    }
    kept.look_at_all(&daemon, &mut outcome)?;
    Ok(outcome)
}
