//! When to look, when to stop, and what a look at several comparisons says.

use super::{
    Estimate, Margin, Quad, Verdict, estimate, holm, log_ratios, permutation::sign_flip_p, verdict::verdict,
};

/// Looks at a comparison: at 32, 64 and 128 pairs. Whoever looks thrice errs thrice as often: each look gets a third of
/// the level.
pub(crate) const LOOKS: u32 = 3;
/// Blocks at the first look: 32 pairs.
const FIRST_BLOCKS: usize = 16;
/// Chance of a false claim over all looks of a family of comparisons.
const ALPHA: f64 = 0.05;

/// What a look at one comparison says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Finding {
    /// Pairs it rests on.
    pub(crate) pairs: u64,
    /// Estimate of ln(time of B / time of A).
    pub(crate) estimate: Estimate,
    /// p-value, adjusted for the other comparisons of the family.
    pub(crate) p_value: f64,
    /// The difference that counts, as a ratio's distance from 1.
    pub(crate) margin: f64,
    /// The word for it.
    pub(crate) verdict: Verdict,
}

impl Finding {
    /// Returns the ratio of B's time to A's, with its interval's ends.
    pub(crate) fn ratio(&self) -> [f64; 3] {
        [self.estimate.centre, self.estimate.low, self.estimate.high].map(f64::exp)
    }
}

/// Returns the blocks to have at a look, counted from 0: each doubles the one before.
pub(crate) fn blocks_at(look: u32) -> usize {
    FIRST_BLOCKS << look
}

/// Looks at a family of comparisons at once; `None` for one with too few usable blocks.
pub(crate) fn findings(family: &[&[Quad]], margin: Margin, seed: u64) -> Vec<Option<Finding>> {
    let ratios: Vec<Vec<f64>> = family.iter().map(|blocks| log_ratios(blocks)).collect();
    let p_values: Vec<f64> = ratios.iter().map(|ratios| sign_flip_p(ratios, seed)).collect();
    let found = ratios.iter().zip(holm(&p_values)).map(|(ratios, p_value)| {
        let estimate = estimate(ratios, seed)?;
        Some(Finding {
            pairs: ratios.len() as u64,
            verdict: verdict(&estimate, p_value, margin, ALPHA / f64::from(LOOKS)),
            estimate,
            p_value,
            margin: margin.relative(),
        })
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_double_the_pairs() {
        let at: Vec<u64> =
            (0..LOOKS).map(|look| super::super::blocks::PAIRS as u64 * blocks_at(look) as u64).collect();
        assert_eq!(at, [32, 64, 128]);
    }

    #[test]
    fn a_family_of_many_asks_more_of_each() {
        let quad = |i: usize, by: f64| {
            let noise = 1.0 + 0.001 * (i as f64 * 1.7).sin();
            Quad { a: [100.0, 100.0 * noise], b: [100.0 * by, 100.0 * by * noise] }
        };
        let slow: Vec<Quad> = (0..16).map(|i| quad(i, 1.05)).collect();
        let same: Vec<Quad> = (0..16).map(|i| quad(i, 1.0 + 0.001 * (i as f64 * 2.9).cos())).collect();
        let margin = Margin::from_noise(0.0);
        let alone = findings(&[&slow], margin, 1)[0].unwrap();
        let among = findings(&[&slow, &same, &same], margin, 1)[0].unwrap();
        assert!((among.p_value / alone.p_value - 3.0).abs() < 1e-9);
        assert_eq!((alone.verdict, alone.pairs), (Verdict::Slower, 32));
        assert!((alone.ratio()[0] - 1.05).abs() < 1e-3);
        assert_eq!(findings(&[&slow[..2]], margin, 1), [None]);
    }
}
