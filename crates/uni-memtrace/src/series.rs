//! How much of each site was alive, over time.
//!
//! Owns the steps: a bounded number of equal length, which doubles when the trace goes on. A step has the values at its
//! end of those sites that changed in it.

/// Most values that all steps have together; above, the steps become longer.
const MAX_VALUES: usize = 1 << 20;
/// The shortest step, in microseconds.
const SHORTEST_MICROS: u64 = 1000;

#[derive(Debug, Default)]
pub(crate) struct Step {
    /// Sampled words alive, by site; sorted by site.
    pub(crate) changed: Vec<(u32, u64)>,
}

/// A site in the step in the making.
#[derive(Clone, Copy, Debug, Default)]
struct SiteNow {
    /// Sampled words alive.
    live: u64,
    /// The step in which that changed last, plus one.
    stamp: u32,
}

#[derive(Debug)]
pub(crate) struct Series {
    sites: Vec<SiteNow>,
    touched: Vec<u32>,
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

    /// `samples` more of `site` are alive (or, if `freed`, less), `time_micros` after the start.
    #[inline]
    pub(crate) fn change(&mut self, time_micros: u64, site: u32, samples: u64, freed: bool) {
        if time_micros >= self.end_micros {
            self.advance(time_micros);
        }
        let at = site as usize;
        if at >= self.sites.len() {
            self.sites.resize(at + 1, SiteNow::default());
        }
        let stamp = self.stamp();
        if let Some(now) = self.sites.get_mut(at) {
            now.live =
                if freed { now.live.saturating_sub(samples) } else { now.live.saturating_add(samples) };
            if now.stamp != stamp {
                now.stamp = stamp;
                self.touched.push(site);
            }
        }
    }

    fn stamp(&self) -> u32 {
        u32::try_from(self.steps.len() + 1).unwrap_or(u32::MAX)
    }

    /// Ends the step in the making.
    pub(crate) fn finish(&mut self) {
        self.end_step();
    }

    fn advance(&mut self, time_micros: u64) {
        self.end_step();
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

    fn end_step(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        let changed: Vec<(u32, u64)> = touched
            .drain(..)
            .map(|site| (site, self.sites.get(site as usize).map_or(0, |now| now.live)))
            .collect();
        self.touched = touched;
        self.values += changed.len();
        self.steps.push(Step { changed });
    }

    /// The last step, now longer, goes on.
    fn reopen(&mut self) {
        let last = self.steps.pop().unwrap_or_default();
        self.values -= last.changed.len();
        let stamp = self.stamp();
        for (site, _) in last.changed {
            if let Some(now) = self.sites.get_mut(site as usize) {
                now.stamp = stamp;
            }
            self.touched.push(site);
        }
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
        // the numbers of steps have changed
        self.sites.iter_mut().for_each(|now| now.stamp = 0);
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
            events in prop::collection::vec((0_u64..30_000, 0_u32..4, 1_u64..9), 1..80),
        ) {
            let mut series = Series::new(8);
            let mut time = 0;
            let mut done = Vec::new();
            for (pause, site, samples) in events {
                time += pause;
                series.change(time, site, samples, samples % 3 == 0);
                done.push((time, site, samples));
            }
            series.finish();
            prop_assert!(series.steps().len() <= 8);
            let mut now = [0_u64; 4];
            for (n, step) in series.steps().iter().enumerate() {
                step.changed.iter().for_each(|(site, value)| now[*site as usize] = *value);
                let end = (n as u64 + 1) * series.step_micros();
                let mut model = [0_u64; 4];
                for (_, site, samples) in done.iter().filter(|(time, _, _)| *time < end) {
                    let value = &mut model[*site as usize];
                    *value = if samples % 3 == 0 { value.saturating_sub(*samples) } else { *value + samples };
                }
                prop_assert_eq!(now, model, "step {}", n);
            }
        }
    }
}
