//! A copy of the store with one damaged file: `unid` must come up on it, keep the rest, and say what is wrong.
//!
//! The store itself is not touched. Segments are linked, not copied: `unid` never writes to one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use super::check::{Kept, bodies};
use super::senders::{SENDERS, Sent, rows_of, time_of};
use super::{Chance, Outcome};
use crate::Daemon;

/// Bodies of earlier rounds that are looked for in a store with a damaged log.
const LOOK_BACK: u64 = 500;

/// What is done to a file, at a place left to chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    /// The end is missing.
    Cut,
    /// From some place on, or for some length, there are zeros.
    Zeros,
    /// One bit is another.
    Flip,
    /// Behind the end there is rubbish.
    Rubbish,
    /// Behind the end there are zeros, as after a power cut on some file systems.
    ZerosBehind,
    /// Behind the end there is a part of what was written before.
    Again,
}

/// For logs all of them, for segments the first three.
const HARMS: [Harm; 6] = [Harm::Cut, Harm::Zeros, Harm::Flip, Harm::Rubbish, Harm::ZerosBehind, Harm::Again];

impl Harm {
    /// Whether what was in the file is still there.
    const fn spares_contents(self) -> bool {
        matches!(self, Self::Rubbish | Self::ZerosBehind | Self::Again)
    }

    /// Does it to the bytes of a file; says at which byte.
    fn apply(self, bytes: &mut Vec<u8>, chance: &mut Chance) -> usize {
        let place = chance.below(bytes.len().max(1) as u64) as usize;
        let length = 1 + chance.below(8192) as usize;
        match self {
            Self::Cut => bytes.truncate(place),
            Self::Zeros => {
                let end = bytes.len().min(place + length);
                bytes[place..end].fill(0);
            }
            Self::Flip => {
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= 1 << chance.below(8);
                }
            }
            Self::Rubbish => bytes.extend((0..length).map(|_| chance.next() as u8)),
            Self::ZerosBehind => bytes.resize(bytes.len() + length, 0),
            Self::Again => {
                let end = bytes.len().min(place + length);
                bytes.extend_from_within(place..end);
            }
        }
        place
    }
}

/// Damages the newest log of a copy, and a segment of another one, if there is any.
pub(crate) fn look(
    state: &Path,
    kept: &Kept,
    sent: &Sent,
    chance: &mut Chance,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let store = state.join("store");
    if let Some(log) = files(&store, "wal")?.pop() {
        let harm = HARMS[chance.below(6) as usize];
        look_at_log(&store, &log, harm, sent, chance)?;
        outcome.damaged_logs += 1;
    }
    let mut segments = files(&store, "seg")?;
    // Those of unid's own figures have other partitions.
    segments.retain(|segment| {
        partition_of(segment).is_ok_and(|(from, _)| from <= time_of(*kept.next().iter().max().unwrap_or(&0)))
    });
    if !segments.is_empty() {
        let segment = &segments[chance.below(segments.len() as u64) as usize];
        let harm = HARMS[chance.below(3) as usize];
        look_at_segment(&store, segment, harm, (kept, sent), chance)?;
        outcome.damaged_segments += 1;
    }
    Ok(())
}

/// A state directory with a copy of the store in which `victim` is damaged, and at which byte; `None` where it was zeros
/// that zeros were written over.
fn copy_with(
    store: &Path,
    victim: &Path,
    harm: Harm,
    chance: &mut Chance,
) -> anyhow::Result<Option<(tempfile::TempDir, usize)>> {
    // Beside the store, so that files can be linked.
    let beside = store.parent().context("a store lies in a state directory")?;
    let state = tempfile::tempdir_in(beside.parent().unwrap_or(beside))?;
    let copy = state.path().join("store");
    copy_tree(store, &copy)?;
    let path = copy.join(victim.strip_prefix(store)?);
    let sound = fs::read(&path)?;
    let mut bytes = sound.clone();
    let place = harm.apply(&mut bytes, chance);
    fs::remove_file(&path)?;
    fs::write(&path, &bytes)?;
    Ok((bytes != sound).then_some((state, place)))
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        match path.extension().and_then(|extension| extension.to_str()) {
            _ if path.is_dir() => copy_tree(&path, &target)?,
            Some("seg") => fs::hard_link(&path, &target)?,
            _ => drop(fs::copy(&path, &target)?),
        }
    }
    Ok(())
}

/// Files with an extension, by path.
pub(crate) fn files(dir: &Path, extension: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path, extension)?);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// A damaged log costs at most its end: what each sender still has is whole bodies without a gap, and all of them where
/// the damage is behind what was written.
fn look_at_log(store: &Path, log: &Path, harm: Harm, sent: &Sent, chance: &mut Chance) -> anyhow::Result<()> {
    let Some((state, place)) = copy_with(store, log, harm, chance)? else { return Ok(()) };
    let what = || format!("{harm:?} at byte {place} of {}", log.display());
    let Some(daemon) = start(state.path(), log).with_context(what)? else { return Ok(()) };
    for sender in 0..SENDERS {
        let (first, count) = (sent.first[sender], sent.acknowledged[sender]);
        let mut whole = first.saturating_sub(LOOK_BACK);
        let found = bodies(&daemon, sender, whole, first + count + 1).with_context(what)?;
        for (body, rows) in &found {
            let all = rows_of(sender, *body);
            ensure!(*rows == all, "{}: half of body {body} of sender {sender}: {rows} of {all}", what());
            ensure!(
                *body == whole,
                "{}: body {whole} of sender {sender} is missing, {body} is there",
                what()
            );
            whole += 1;
        }
        let acknowledged = first + count;
        ensure!(
            !harm.spares_contents() || whole >= acknowledged,
            "{}: {whole} of {acknowledged} bodies of sender {sender}",
            what()
        );
    }
    Ok(())
}

/// A damaged segment costs nothing outside its partition, and is named.
fn look_at_segment(
    store: &Path,
    segment: &Path,
    harm: Harm,
    (kept, sent): (&Kept, &Sent),
    chance: &mut Chance,
) -> anyhow::Result<()> {
    let Some((state, place)) = copy_with(store, segment, harm, chance)? else { return Ok(()) };
    let what = || format!("{harm:?} at byte {place} of {}", segment.display());
    let Some(daemon) = start(state.path(), segment).with_context(what)? else { return Ok(()) };
    let (from, to) = partition_of(segment).with_context(what)?;
    for sender in 0..SENDERS {
        let acknowledged = kept.next()[sender].max(sent.first[sender] + sent.acknowledged[sender]);
        for body in [0, acknowledged / 2, acknowledged.saturating_sub(1)] {
            if acknowledged == 0 || (from..to).contains(&time_of(body)) {
                continue;
            }
            let found = bodies(&daemon, sender, body, body).with_context(what)?;
            let (rows, all) = (found.get(&body).copied().unwrap_or(0), rows_of(sender, body));
            ensure!(rows == all, "{}: body {body} of sender {sender} has {rows} of {all} rows", what());
        }
    }
    let fields = [("body, noise", "crash"), ("text", "filler")];
    let mut noticed = fields.iter().any(|(fields, measurement)| {
        let all =
            format!("SELECT {fields} FROM {measurement} WHERE time >= {from} AND time < {to} GROUP BY *");
        daemon.query(&all).is_err_and(|error| error.to_string().contains("damaged"))
    });
    let name = segment.file_name().unwrap_or_default().to_string_lossy();
    noticed |= daemon.log().iter().any(|line| line.contains(&*name));
    ensure!(noticed, "{}: nobody noticed", what());
    Ok(())
}

/// `unid` on a damaged store; `None` where it refuses to start and names the file, as it must where the damage makes
/// the file one of a later version.
fn start(state: &Path, victim: &Path) -> anyhow::Result<Option<Daemon>> {
    let name = victim.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match Daemon::start(state, &[]) {
        Ok(daemon) => Ok(Some(daemon)),
        Err(error) if format!("{error:#}").contains(&name) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The times of the partition that a segment is in, nanoseconds: it is named by its start.
fn partition_of(segment: &Path) -> anyhow::Result<(u64, u64)> {
    let name = segment.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    let start: u64 = name.and_then(|name| name.parse().ok()).context("a partition is named by its start")?;
    Ok((start * 1_000_000_000, (start + 86_400) * 1_000_000_000))
}
