//! How much of each site was alive, over time.
//!
//! Owns the steps: a bounded number of equal length, which doubles when the trace goes on. A step has the values at its
//! end of those sites that changed in it. They are summed up when it ends, of the stacks that changed.

use crate::stacks::Stacks;

/// Most values that all steps have together; above, the steps become longer.
const MAX_VALUES: usize = 1 << 20;
/// The shortest step, in microseconds.
const SHORTEST_MICROS: u64 = 1000;

#[derive(Debug, Default)]
pub(crate) struct Step {
    /// Sampled words alive, by site; sorted by site.
    pub(crate) changed: Vec<(u32, u64)>,
}

#[derive(Debug)]
pub(crate) struct Series {
    /// Sampled words alive at the end of the last step, by site.
    sites: Vec<u64>,
    /// Stacks that changed in the step in the making.
    touched: Vec<u32>,
    /// Sites that did so in a step that became this one.
    reopened: Vec<u32>,
    /// The number of the step in the making; none was ever used before.
    number: u32,
    steps: Vec<Step>,
    values: usize,
    step_micros: u64,
    max_steps: usize,
    /// The end of the step in the making, since the start of the trace.
    end_micros: u64,
}

impl Series {
    /// At most `max_steps` steps, at least two.
    pub(crate) fn new(max_steps: usize) -> Self {
        Self {
            sites: Vec::new(),
            touched: Vec::new(),
            reopened: Vec::new(),
            number: 1,
            steps: Vec::new(),
            values: 0,
            step_micros: SHORTEST_MICROS,
            max_steps: max_steps.max(2),
            end_micros: SHORTEST_MICROS,
        }
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    pub(crate) const fn step_micros(&self) -> u64 {
        self.step_micros
    }

    /// Something happens `time_micros` after the start: before a stack changes.
    #[inline]
    pub(crate) fn reach(&mut self, time_micros: u64, stacks: &mut Stacks) {
        if time_micros >= self.end_micros {
            self.advance(time_micros, stacks);
        }
    }

    /// The stack at `at` changes, of which `step` says when it did last.
    #[inline]
    pub(crate) fn change(&mut self, at: u32, step: &mut u32) {
        if *step != self.number {
            *step = self.number;
            self.touched.push(at);
        }
    }

    /// Ends the step in the making.
    pub(crate) fn finish(&mut self, stacks: &mut Stacks) {
        self.end_step(stacks);
    }

    #[cold]
    fn advance(&mut self, time_micros: u64, stacks: &mut Stacks) {
        self.end_step(stacks);
        while self.step_of(time_micros) >= self.max_steps as u64
            || (self.values > MAX_VALUES && self.steps.len() > 2)
        {
            self.halve();
        }
        if (self.steps.len() as u64) > self.step_of(time_micros) {
            self.reopen();
        }
        while (self.steps.len() as u64) < self.step_of(time_micros) {
            self.steps.push(Step::default());
        }
        self.end_micros = (self.steps.len() as u64 + 1).saturating_mul(self.step_micros);
    }

    const fn step_of(&self, time_micros: u64) -> u64 {
        time_micros / self.step_micros
    }

    fn end_step(&mut self, stacks: &mut Stacks) {
        let mut sites = std::mem::take(&mut self.reopened);
        for at in self.touched.drain(..) {
            let Some((site, before, now)) = stacks.tell(at) else { continue };
            let place = site as usize;
            if place >= self.sites.len() {
                self.sites.resize(place + 1, 0);
            }
            if let Some(live) = self.sites.get_mut(place) {
                *live = (*live - before).saturating_add(now);
            }
            sites.push(site);
        }
        sites.sort_unstable();
        sites.dedup();
        let live = |site: &u32| self.sites.get(*site as usize).copied().unwrap_or_default();
        let changed: Vec<(u32, u64)> = sites.iter().map(|site| (*site, live(site))).collect();
        self.number = self.number.wrapping_add(1);
        self.values += changed.len();
        self.steps.push(Step { changed });
    }

    /// The last step, now longer, goes on.
    fn reopen(&mut self) {
        let last = self.steps.pop().unwrap_or_default();
        self.values -= last.changed.len();
        self.reopened.extend(last.changed.iter().map(|(site, _)| *site));
    }

    /// Makes the steps twice as long.
    fn halve(&mut self) {
        self.step_micros = self.step_micros.saturating_mul(2);
        let old = std::mem::take(&mut self.steps);
        let mut pairs = old.into_iter();
        while let Some(first) = pairs.next() {
            let second = pairs.next().unwrap_or_default();
            self.steps.push(Step { changed: later_wins(&first.changed, &second.changed) });
        }
        self.values = self.steps.iter().map(|step| step.changed.len()).sum();
    }
}

fn later_wins(first: &[(u32, u64)], second: &[(u32, u64)]) -> Vec<(u32, u64)> {
    let mut out = Vec::with_capacity(first.len().max(second.len()));
    let mut rest = second.iter().peekable();
    for value in first {
        while let Some(later) = rest.next_if(|later| later.0 < value.0) {
            out.push(*later);
        }
        match rest.next_if(|later| later.0 == value.0) {
            Some(later) => out.push(*later),
            None => out.push(*value),
        }
    }
    out.extend(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// At the end of every step the values are those of the events up to there.
        #[test]
        fn steps_have_the_values_at_their_end(
            events in prop::collection::vec((0_u64..30_000, 0_u32..8, 1_u64..9), 1..80),
        ) {
            let mut series = Series::new(8);
            let mut stacks = Stacks::new();
            // each site has two
            let places: Vec<u32> = (0..8).map(|n| stacks.add(n % 4)).collect();
            let mut time = 0;
            let mut done = Vec::new();
            for (pause, n, samples) in events {
                time += pause;
                series.reach(time, &mut stacks);
                let place = places[n as usize];
                let sums = stacks.get_mut(place).expect("a stack");
                let freed = samples % 3 == 0;
                let change = if freed { samples.min(sums.live) } else { samples };
                sums.live = if freed { sums.live - change } else { sums.live + change };
                series.change(place, &mut sums.step);
                done.push((time, n % 4, if freed { -change.cast_signed() } else { change.cast_signed() }));
            }
            series.finish(&mut stacks);
            prop_assert!(series.steps().len() <= 8);
            let mut now = [0_u64; 4];
            for (n, step) in series.steps().iter().enumerate() {
                step.changed.iter().for_each(|(site, value)| now[*site as usize] = *value);
                let end = (n as u64 + 1) * series.step_micros();
                let mut model = [0_u64; 4];
                for (_, site, change) in done.iter().filter(|(time, _, _)| *time < end) {
                    model[*site as usize] = model[*site as usize].strict_add_signed(*change);
                }
                prop_assert_eq!(now, model, "step {}", n);
            }
        }
    }
}
