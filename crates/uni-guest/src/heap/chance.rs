//! Chance: where the next sample falls, and how many there are.
//!
//! Owns the generator and the distributions. Never decides what a sample means. The generator is splitmix64: one
//! addition and a mix, no state but a number, good enough for sampling and for nothing else.

/// A random number; `state` moves on.
pub(super) const fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Above 0 and at most 1.
pub(super) fn unit(state: &mut u64) -> f64 {
    const STEP: f64 = 1.0 / (1_u64 << 53) as f64;
    ((next(state) >> 11) + 1) as f64 * STEP
}

/// True with this probability.
pub(super) fn coin(state: &mut u64, probability: f64) -> bool {
    unit(state) <= probability
}

/// The whole part; 0 of what is negative.
#[expect(clippy::cast_sign_loss, reason = "the cast saturates")]
pub(super) const fn whole(number: f64) -> u64 {
    number as u64
}

/// The way to the next point of a Poisson process that has one in `mean`.
pub(super) fn exponential(state: &mut u64, mean: f64) -> f64 {
    -libm::log(unit(state)) * mean
}

/// The probability that a stretch of `length` has a point of a process that has one in `mean`.
pub(super) fn hit_probability(length: f64, mean: f64) -> f64 {
    -libm::expm1(-length / mean)
}

/// How many of `trials` succeed, each with `probability` (0 to 1). Exact where few are expected; where there are
/// many, by the normal distribution.
pub(super) fn binomial(state: &mut u64, trials: u64, probability: f64) -> u64 {
    /// Successes expected, up to which each is drawn.
    const FEW: f64 = 32.0;
    if trials == 0 || probability <= 0.0 {
        return 0;
    }
    if probability >= 1.0 {
        return trials;
    }
    let expected = trials as f64 * probability;
    if expected > FEW {
        // Twelve uniform numbers: mean 6, variance 1.
        let normal = (0..12).map(|_| unit(state)).sum::<f64>() - 6.0;
        let drawn = libm::round(expected + normal * libm::sqrt(expected * (1.0 - probability)));
        return whole(drawn).min(trials);
    }
    // The failures before each success are distributed geometrically.
    let (mut successes, mut left) = (0, trials);
    loop {
        let drawn = unit(state);
        // By Bernoulli's inequality all that are left fail then: mostly, and without a logarithm.
        if drawn <= 1.0 - left as f64 * probability {
            return successes;
        }
        let failures = whole(libm::log(drawn) / libm::log1p(-probability));
        if failures >= left {
            return successes;
        }
        left -= failures + 1;
        successes += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUNDS: u32 = 20_000;

    /// Mean and variance of what is drawn.
    fn moments(mut draw: impl FnMut(&mut u64) -> f64) -> (f64, f64) {
        let mut state = 7;
        let drawn: std::vec::Vec<f64> = (0..ROUNDS).map(|_| draw(&mut state)).collect();
        let mean = drawn.iter().sum::<f64>() / f64::from(ROUNDS);
        let variance = drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(ROUNDS);
        (mean, variance)
    }

    fn assert_near(found: f64, expected: f64, what: &str) {
        assert!((found / expected - 1.0).abs() < 0.05, "{what}: {found} instead of {expected}");
    }

    #[test]
    fn gaps_have_the_mean_and_the_spread_of_a_poisson_process() {
        let (mean, variance) = moments(|state| exponential(state, 1000.0));
        assert_near(mean, 1000.0, "mean");
        assert_near(variance, 1e6, "variance");
    }

    #[test]
    fn few_and_many_successes_are_distributed_alike() {
        for (trials, probability) in [(10, 0.3), (1000, 0.01), (1 << 40, 1e-10), (1000, 0.9), (100, 0.31)] {
            let (mean, variance) = moments(|state| binomial(state, trials, probability) as f64);
            let expected = trials as f64 * probability;
            assert_near(mean, expected, "mean");
            assert_near(variance, expected * (1.0 - probability), "variance");
        }
        assert_eq!((binomial(&mut 1, 7, 1.0), binomial(&mut 1, 7, 0.0), binomial(&mut 1, 0, 0.5)), (7, 0, 0));
    }
}
