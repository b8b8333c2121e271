//! Live bytes by library over time, of one VM or of all together, as the page stacks them.
//!
//! Owns the query, the common moments of all libraries and the choice of the largest. Never draws.

use std::collections::BTreeMap;
use std::time::Duration;

use uni_api::heap_trace::{HeapLibraries, LibraryBytes};

use super::App;
use super::charts::{answer, step_seconds};
use crate::clock;

/// Waiting for a place takes no longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Libraries with a line of their own.
const MAX_LIBRARIES: usize = 8;
/// Moments of all VMs together: a query has a bound, and there may be hundreds of VMs with dozens of libraries.
const MAX_FLEET_POINTS: i64 = 60;
/// What the others have together.
const OTHERS: &str = "(others)";
/// A guest that tells nothing for so many steps holds nothing any more.
const CARRIED_STEPS: i64 = 3;
/// So long at least: guests may tell every ten seconds.
const CARRIED_SECONDS: i64 = 30;

/// The last `range` seconds of one VM, or of all VMs of this daemon.
pub(super) fn libraries(app: &App, vm: Option<&str>, range: i64) -> HeapLibraries {
    let to = clock::now().nanos().div_euclid(1_000_000);
    let finest = if vm.is_some() { 1 } else { range / MAX_FLEET_POINTS };
    let interval = i64::try_from(app.interval.as_secs()).unwrap_or(i64::MAX);
    let step = step_seconds(range, interval.max(finest)) * 1000;
    let from = to - range * 1000;
    let which = vm.map_or_else(String::new, |vm| format!("vm = '{vm}' AND "));
    // names of VMs hold no quote
    let query = format!(
        "SELECT last(live_bytes) FROM heap_by_library WHERE {which}time >= {from}ms AND time <= {to}ms \
         GROUP BY time({}s), vm, library fill(none)",
        step / 1000
    );
    let mut sums = Sums::new(from, to, step);
    let carried = (CARRIED_SECONDS * 1000 / step).max(CARRIED_STEPS);
    for series in
        answer(app, &query).pointer("/results/0/series").and_then(|all| all.as_array()).into_iter().flatten()
    {
        let tag = |name: &str| series["tags"][name].as_str().unwrap_or_default();
        if vm.is_some() || app.manager.has_name(tag("vm")) {
            let rows = series["values"].as_array().into_iter().flatten();
            let points = rows.filter_map(|row| Some((row.get(0)?.as_i64()?, row.get(1)?.as_f64()?)));
            sums.add(tag("library"), points, carried);
        }
    }
    sums.finish(MAX_LIBRARIES)
}

/// Bytes by library at common moments.
struct Sums {
    from: i64,
    to: i64,
    step: i64,
    first: i64,
    known: Vec<bool>,
    by_library: BTreeMap<String, Vec<f64>>,
}

impl Sums {
    fn new(from: i64, to: i64, step: i64) -> Self {
        let first = from.div_euclid(step);
        let count = usize::try_from(to.div_euclid(step) - first + 1).unwrap_or(0);
        Self { from, to, step, first, known: vec![false; count], by_library: BTreeMap::new() }
    }

    /// Adds the points of one library of one guest; between them, and for `carried` steps after one, its value stays.
    fn add(&mut self, library: &str, points: impl Iterator<Item = (i64, f64)>, carried: i64) {
        let count = self.known.len();
        let sums = self.by_library.entry(library.to_owned()).or_insert_with(|| vec![0.0; count]);
        let mut last: Option<(i64, f64)> = None;
        let mut put = |at: i64, value: f64| {
            let at = usize::try_from(at).ok().filter(|at| *at < count);
            if let Some(at) = at {
                sums[at] += value;
                self.known[at] = true;
            }
        };
        for (time, value) in points {
            let at = time.div_euclid(self.step) - self.first;
            if let Some((before, held)) = last {
                (before + 1..at.min(before + carried + 1)).for_each(|between| put(between, held));
            }
            put(at, value);
            last = Some((at, value));
        }
        if let Some((before, held)) = last {
            (before + 1..=before + carried).for_each(|after| put(after, held));
        }
    }

    fn finish(self, most: usize) -> HeapLibraries {
        let is_known = |(at, value): (usize, &f64)| self.known[at].then_some(*value);
        let mut libraries: Vec<LibraryBytes> = self
            .by_library
            .into_iter()
            .map(|(library, sums)| LibraryBytes {
                library,
                bytes: sums.iter().enumerate().filter_map(is_known).collect(),
            })
            .collect();
        let peak = |library: &LibraryBytes| library.bytes.iter().copied().fold(0.0, f64::max);
        libraries.sort_by(|a, b| peak(b).total_cmp(&peak(a)));
        let rest = libraries.split_off(libraries.len().min(most));
        if let Some(count) = rest.first().map(|library| library.bytes.len()) {
            let sum = |at: usize| rest.iter().filter_map(|library| library.bytes.get(at)).sum();
            libraries.push(LibraryBytes { library: OTHERS.to_owned(), bytes: (0..count).map(sum).collect() });
        }
        let moments = (self.first..).zip(&self.known).filter(|(_, known)| **known);
        let times = moments.map(|(at, _)| at * self.step).collect();
        HeapLibraries { from: self.from, to: self.to, step: self.step, times, libraries }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_add_up_at_common_moments_and_what_falls_silent_goes() {
        let mut sums = Sums::new(0, 9_000, 1000);
        sums.add("http", [(0, 10.0), (2_000, 20.0)].into_iter(), 2);
        sums.add("http", [(1_000, 1.0)].into_iter(), 2);
        sums.add("json", [(2_000, 5.0)].into_iter(), 2);
        sums.add("tiny", [(2_000, 2.0)].into_iter(), 2);
        let made = sums.finish(1);
        assert_eq!(made.times, [0, 1000, 2000, 3000, 4000]);
        let of = |at: usize| (made.libraries[at].library.as_str(), made.libraries[at].bytes.clone());
        assert_eq!(of(0), ("http", vec![10.0, 11.0, 21.0, 21.0, 20.0]));
        assert_eq!(of(1), (OTHERS, vec![0.0, 0.0, 7.0, 7.0, 7.0]));
        assert_eq!(made.libraries.len(), 2);
    }

    #[test]
    fn points_outside_the_range_are_nothing() {
        let mut sums = Sums::new(5_000, 6_000, 1000);
        sums.add("http", [(-1, 1.0), (99_000, 1.0)].into_iter(), 2);
        assert_eq!(sums.finish(8).times, [] as [i64; 0]);
    }
}
