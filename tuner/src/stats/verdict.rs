//! From an estimate and a p-value to a word.

use super::Estimate;

/// Smallest difference that counts, whatever the noise: below it the choice does not matter to anybody.
const LEAST_MARGIN: f64 = 0.01;

/// Largest margin within which two things are called the same: on a noisier machine nothing is shown.
const MOST_MARGIN: f64 = 0.05;

/// What a comparison of B with A came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// B takes less time, by more than the margin.
    Faster,
    /// B takes more time, by more than the margin.
    Slower,
    /// The whole interval lies inside the margin.
    Same,
    /// Neither is shown.
    Ambiguous,
}

/// The difference that counts, as a natural logarithm of a ratio.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Margin(f64);

impl Margin {
    /// Makes it from the session's noise floor: max(1 %, 2 f).
    pub(crate) fn from_noise(floor: f64) -> Self {
        let floor = if floor.is_finite() { floor } else { 0.0 };
        Self(LEAST_MARGIN.max(2.0 * floor).ln_1p())
    }

    /// Returns it as a ratio's distance from 1.
    pub(crate) fn relative(self) -> f64 {
        self.0.exp_m1()
    }
}

/// Returns the noise floor: how far from 1 the ratio of a thing with itself may seem to be, the further end of the A/A
/// interval. Infinite noise counts as none known.
pub(crate) fn noise_floor(of_itself: &Estimate) -> f64 {
    of_itself.low.abs().max(of_itself.high.abs()).exp_m1()
}

/// Judges B against A from the estimate of ln(time of B / time of A) and its p-value, adjusted for other tests of its
/// kind, at the level `alpha`.
///
/// A difference is claimed when chance does not explain it, the interval excludes zero and the estimate lies beyond the
/// margin; sameness when the interval lies within, and that says something: a margin of 50 % holds anything.
pub(crate) fn verdict(of: &Estimate, p_value: f64, margin: Margin, alpha: f64) -> Verdict {
    let significant = p_value <= alpha;
    match of {
        Estimate { centre, high, .. } if significant && *high < 0.0 && *centre < -margin.0 => Verdict::Faster,
        Estimate { centre, low, .. } if significant && *low > 0.0 && *centre > margin.0 => Verdict::Slower,
        Estimate { low, high, .. }
            if -margin.0 < *low && *high < margin.0 && margin.relative() <= MOST_MARGIN =>
        {
            Verdict::Same
        }
        _ => Verdict::Ambiguous,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(low: f64, centre: f64, high: f64, p: f64) -> Verdict {
        verdict(&Estimate { centre, low, high }, p, Margin::from_noise(0.0), 0.05)
    }

    #[test]
    fn every_verdict_has_its_interval() {
        assert_eq!(judged(-0.05, -0.03, -0.02, 0.001), Verdict::Faster);
        assert_eq!(judged(0.02, 0.03, 0.05, 0.001), Verdict::Slower);
        assert_eq!(judged(-0.005, 0.0, 0.005, 0.8), Verdict::Same);
        // Surely different, and surely by less than what counts.
        assert_eq!(judged(0.002, 0.004, 0.006, 0.001), Verdict::Same);
        assert_eq!(judged(-0.02, 0.005, 0.03, 0.5), Verdict::Ambiguous);
        // Within the noise, on a machine where that says nothing.
        let noisy = Estimate { centre: 0.0, low: -0.1, high: 0.1 };
        assert_eq!(verdict(&noisy, 0.9, Margin::from_noise(0.3), 0.05), Verdict::Ambiguous);
        // Far off, but chance may have done it.
        assert_eq!(judged(0.01, 0.03, 0.05, 0.2), Verdict::Ambiguous);
    }

    #[test]
    fn the_margin_grows_with_the_noise() {
        assert!((Margin::from_noise(0.0).relative() - 0.01).abs() < 1e-12);
        assert!((Margin::from_noise(0.02).relative() - 0.04).abs() < 1e-12);
        assert!((Margin::from_noise(f64::NAN).relative() - 0.01).abs() < 1e-12);
        let floor = noise_floor(&Estimate { centre: 0.0, low: -0.03, high: 0.01 });
        assert!((floor - 0.03f64.exp_m1()).abs() < 1e-12);
    }
}
