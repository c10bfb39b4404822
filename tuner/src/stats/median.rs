//! Medians and their confidence intervals.

use statrs::distribution::{Binomial, DiscreteCDF};

/// A median with a distribution-free 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Median {
    pub(crate) median: f64,
    pub(crate) ci_low: f64,
    pub(crate) ci_high: f64,
}

/// Takes the median of samples; its interval runs between the order statistics that enclose the true median with
/// probability 95 % whatever the distribution (binomial in the number of samples below it). Under six samples no
/// such pair exists and the interval is the whole range.
///
/// Returns `None` without samples.
pub(crate) fn median(samples: &[f64]) -> Option<Median> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let middle = match n {
        0 => return None,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    };
    // The interval [x(k), x(n+1-k)] covers with probability 1 - 2 P(Bin(n, 1/2) <= k - 1).
    let below = Binomial::new(0.5, n as u64).ok()?;
    let k = (1..=n / 2).rev().find(|&k| 2.0 * below.cdf(k as u64 - 1) <= 0.05).unwrap_or(1);
    Some(Median { median: middle, ci_low: sorted[k - 1], ci_high: sorted[n - k] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_statistics_of_a_table() {
        // Ranks of the 95 % interval for the median from tables of the sign test: n = 11 -> (2, 10), 20 -> (6, 15).
        let eleven: Vec<f64> = (1..=11).map(f64::from).collect();
        assert_eq!(median(&eleven), Some(Median { median: 6.0, ci_low: 2.0, ci_high: 10.0 }));
        let twenty: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        assert_eq!(median(&twenty), Some(Median { median: 10.5, ci_low: 6.0, ci_high: 15.0 }));
    }

    #[test]
    fn few_samples_give_their_range() {
        assert_eq!(median(&[3.0, 1.0]), Some(Median { median: 2.0, ci_low: 1.0, ci_high: 3.0 }));
        assert_eq!(median(&[5.0]), Some(Median { median: 5.0, ci_low: 5.0, ci_high: 5.0 }));
        assert_eq!(median(&[]), None);
    }
}
