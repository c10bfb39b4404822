//! How likely chance alone is.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Drawn sign patterns; patterns of up to [`EXACT`] values are all gone through instead.
const DRAWS: u32 = 20_000;
/// Values up to which every pattern is tried.
const EXACT: usize = 14;

/// Returns the two-sided p-value of "the values are symmetric about zero" by flipping signs.
///
/// If A and B are alike, a block's log ratio is as likely to have one sign as the other. The statistic is the sum of
/// signed ranks, which a spike moves by one rank's worth. 1 for no values.
pub(crate) fn sign_flip_p(values: &[f64], seed: u64) -> f64 {
    let mut order: Vec<usize> = (0..values.len()).filter(|&i| values[i] != 0.0).collect();
    order.sort_by(|&i, &j| values[i].abs().total_cmp(&values[j].abs()));
    let n = order.len();
    if n == 0 {
        return 1.0;
    }
    let ranks = mean_ranks(&order, values);
    let observed: f64 =
        order.iter().zip(&ranks).map(|(&i, rank)| rank * values[i].signum()).sum::<f64>().abs();
    // Sums of ranks are multiples of a half: what equals the observed must count.
    let reaches = |sum: f64| sum >= observed - 0.25;
    let sums = SignedSums::new(&ranks);
    if n <= EXACT {
        let patterns = 1u64 << n;
        let extreme = (0..patterns).filter(|pattern| reaches(sums.of(&[*pattern]).abs()));
        return extreme.count() as f64 / patterns as f64;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut signs = vec![0u64; n.div_ceil(64)];
    let extreme = (0..DRAWS).filter(|_| {
        rng.fill(&mut signs[..]);
        reaches(sums.of(&signs).abs())
    });
    let extreme = extreme.count();
    // The observed pattern is one of those that could have been drawn.
    (extreme as f64 + 1.0) / (f64::from(DRAWS) + 1.0)
}

/// Sums of ranks under patterns of signs: eight signs at a time, looked up.
struct SignedSums {
    /// For each eight ranks the sum under every pattern of their signs.
    groups: Vec<[f64; 256]>,
}

impl SignedSums {
    fn new(ranks: &[f64]) -> Self {
        let of_group = |ranks: &[f64]| {
            std::array::from_fn(|pattern| {
                let signed = ranks.iter().enumerate().map(|(bit, rank)| match pattern >> bit & 1 {
                    1 => *rank,
                    _ => -rank,
                });
                signed.sum()
            })
        };
        Self { groups: ranks.chunks(8).map(of_group).collect() }
    }

    /// Sums the ranks, rank `i` with a plus where bit `i % 64` of word `i / 64` is set.
    fn of(&self, signs: &[u64]) -> f64 {
        let bytes = signs.iter().flat_map(|word| word.to_le_bytes());
        self.groups.iter().zip(bytes).map(|(sums, byte)| sums[usize::from(byte)]).sum()
    }
}

/// Returns the rank of each value by size, from 1; equal sizes share their mean rank.
fn mean_ranks(order: &[usize], values: &[f64]) -> Vec<f64> {
    let mut ranks = Vec::with_capacity(order.len());
    while ranks.len() < order.len() {
        let first = ranks.len();
        let size = values[order[first]].abs();
        let ties = order[first..].iter().take_while(|&&i| values[i].abs() == size).count();
        let rank = first as f64 + (ties as f64 + 1.0) / 2.0;
        ranks.extend(std::iter::repeat_n(rank, ties));
    }
    ranks
}

/// Adjusts p-values of several tests so that the chance of one false rejection among them all stays that of a single
/// one (Holm 1979). In the order given, at most 1.
pub(crate) fn holm(p_values: &[f64]) -> Vec<f64> {
    let n = p_values.len();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| p_values[i].total_cmp(&p_values[j]));
    let mut adjusted = vec![1.0; n];
    let mut floor = 0f64;
    for (k, &i) in order.iter().enumerate() {
        floor = floor.max((n - k) as f64 * p_values[i]).min(1.0);
        adjusted[i] = floor;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_p_values_of_the_signed_rank_test() {
        // All of one sign: two of 2^n patterns reach the sum.
        let rising: Vec<f64> = (1..=8).map(f64::from).collect();
        assert_eq!(sign_flip_p(&rising, 0), 2.0 / 256.0);
        // W- = 3 at n = 6: P(W <= 3) = 5/64, two-sided 10/64 (tables of the signed-rank test).
        assert_eq!(sign_flip_p(&[1.0, 2.0, -3.0, 4.0, 5.0, 6.0], 0), 10.0 / 64.0);
        assert_eq!(sign_flip_p(&[0.0; 5], 0), 1.0);
        assert_eq!(sign_flip_p(&[], 0), 1.0);
    }

    #[test]
    fn drawn_p_values_are_near_the_exact_ones() {
        // n = 15, W- = 25: P(W <= 25) = 0.0240, two-sided 0.0479 (Wilcoxon's table).
        let mut values: Vec<f64> = (1..=15).map(f64::from).collect();
        for i in [9, 14] {
            values[i] = -values[i];
        }
        let p = sign_flip_p(&values, 5);
        assert!((p - 0.0479).abs() < 0.006, "{p}");
        assert_eq!(p, sign_flip_p(&values, 5));
    }

    #[test]
    fn holm_multiplies_the_smallest_most_and_keeps_the_order() {
        assert_eq!(holm(&[0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02]);
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
        assert_eq!(holm(&[]), [0.0; 0]);
    }
}
