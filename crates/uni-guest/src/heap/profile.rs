//! What each library holds of the heap: the source `heap_by_library`.
//!
//! Owns the sums over the samples and their names. Never samples.

use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::SAMPLER;
use super::chance::whole;
use super::sampler::{Sample, Sampler};
use crate::metrics::Registry;
use crate::rows::{Row, Rows};

/// Libraries that have a row of their own; what the others hold is added up in `other`.
pub const MAX_LIBRARIES_SHOWN: usize = 20;
/// Who holds what was taken by no library that is known.
const UNKNOWN: &str = "unknown";
const OTHER: &str = "other";

/// What is held, by the samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Holding {
    pub(super) bytes: f64,
    pub(super) objects: f64,
}

impl Holding {
    fn add(&mut self, more: Self) {
        self.bytes += more.bytes;
        self.objects += more.objects;
    }
}

/// Registers `heap_by_library`, with the tag `library`: bytes and blocks that are live, by the crate whose code asked for
/// them. The largest [`MAX_LIBRARIES_SHOWN`] have a row each; one that had a row has one until it holds nothing, and
/// then says so once. Without [`start_profile`](super::start_profile), and while nothing was sampled, there is no row.
pub fn register_heap_by_library(registry: &mut Registry) {
    let mut shown = BTreeSet::new();
    let rows = Rows::new("heap_by_library", "library", move || {
        SAMPLER.end_round();
        let rows = rows(&by_library(&SAMPLER));
        let named: BTreeSet<&'static str> = rows.iter().map(|(name, _)| *name).collect();
        let gone: Vec<_> = shown.difference(&named).map(|name| (*name, Holding::default())).collect();
        shown = named;
        rows.into_iter().chain(gone).map(|(name, holding)| to_row(name, holding)).collect()
    });
    registry.register_rows(rows.doc("live heap by the library whose code asked for it, estimated"));
}

fn to_row(name: &str, holding: Holding) -> Row {
    let fields = vec![("live_bytes", whole(holding.bytes)), ("live_objects", whole(holding.objects))];
    Row { label: name.into(), fields }
}

/// What each library holds.
pub(super) fn by_library(sampler: &Sampler) -> Vec<(&'static str, Holding)> {
    let names = sampler.map().map_or_else(Vec::new, |map| map.names().collect());
    let mut held = vec![Holding::default(); names.len() + 1];
    let mut weights = Weights::new();
    sampler.for_each(|sample| {
        let place = usize::from(sample.library).min(names.len());
        held[place].add(weights.estimate(sample));
    });
    names.into_iter().chain([UNKNOWN]).zip(held).filter(|(_, holding)| holding.objects > 0.0).collect()
}

/// How many blocks samples stand for. Few sizes are live at a time, and an exponential is dear where the processor is
/// emulated: each is taken once.
struct Weights(Vec<(Option<(u64, u32)>, f64)>);

impl Weights {
    const PLACES: usize = 256;

    fn new() -> Self {
        Self(vec![(None, 0.0); Self::PLACES])
    }

    fn estimate(&mut self, sample: Sample) -> Holding {
        let key = (sample.size, sample.interval);
        // Sizes are mostly multiples of eight.
        let place =
            ((sample.size / 8) ^ (sample.size / 2048) ^ u64::from(sample.interval)) as usize % Self::PLACES;
        let (known, objects) = &mut self.0[place];
        if *known != Some(key) {
            (*known, *objects) = (Some(key), sample.objects());
        }
        Holding { bytes: sample.size as f64 * *objects, objects: *objects }
    }
}

/// The largest, and the rest together.
fn rows(held: &[(&'static str, Holding)]) -> Vec<(&'static str, Holding)> {
    let mut rows = held.to_vec();
    rows.sort_by_key(|(name, holding)| (Reverse(whole(holding.bytes)), *name));
    let mut other = Holding::default();
    rows.drain(rows.len().min(MAX_LIBRARIES_SHOWN)..).for_each(|(_, holding)| other.add(holding));
    if other != Holding::default() {
        rows.push((OTHER, other));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_have_rows_and_the_rest_is_added_up() {
        let names: Vec<&'static str> = (0..30).map(|n| &*alloc::format!("l{n:02}").leak()).collect();
        let held: Vec<_> = (1..=30_u32)
            .zip(names)
            .map(|(n, name)| (name, Holding { bytes: f64::from(n) * 100.0, objects: 1.0 }))
            .collect();
        let rows = rows(&held);
        assert_eq!(rows.len(), MAX_LIBRARIES_SHOWN + 1);
        assert_eq!((rows[0].0, rows[19].0), ("l29", "l10"));
        assert_eq!(rows[20], ("other", Holding { bytes: 5500.0, objects: 10.0 }));
        assert_eq!(super::rows(&held[..3]).len(), 3);
    }
}
