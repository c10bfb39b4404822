//! The unit of a comparison: a block of four launches.

/// Times of one A-B-B-A block in microseconds, in the order taken.
///
/// Within it, a drift of the clock that is linear over four launches falls on both alike and cancels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Quad {
    /// A's first and last launch.
    pub(crate) a: [f64; 2],
    /// B's two launches between them.
    pub(crate) b: [f64; 2],
}

/// Pairs in a block.
pub(crate) const PAIRS: usize = 2;

/// Returns the log ratios ln(time of B / time of A) of both pairs of each block, in order; blocks with a time that is no
/// positive number are left out.
///
/// The pairs of a block stand A-B and B-A: a drift within them has opposite signs and cancels in whatever treats
/// [`PAIRS`] neighbours alike. Pairs and not blocks are averaged, since a spike then spoils half as much.
pub(crate) fn log_ratios(blocks: &[Quad]) -> Vec<f64> {
    let usable = |quad: &&Quad| quad.a.iter().chain(&quad.b).all(|t| t.is_finite() && *t > 0.0);
    let ratios = |quad: &Quad| [(quad.b[0] / quad.a[0]).ln(), (quad.b[1] / quad.a[1]).ln()];
    blocks.iter().filter(usable).flat_map(ratios).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_drift_cancels_in_a_block() {
        // Log time grows by 0.01 a launch; B takes 5 % longer.
        let at = |i: f64, factor: f64| 100.0 * factor * (0.01 * i).exp();
        let block = Quad { a: [at(0.0, 1.0), at(3.0, 1.0)], b: [at(1.0, 1.05), at(2.0, 1.05)] };
        let ratios = log_ratios(&[block, Quad { a: [1.0, f64::NAN], b: [1.0, 1.0] }]);
        assert_eq!(ratios.len(), 2);
        assert!(((ratios[0] + ratios[1]) / 2.0 - 1.05f64.ln()).abs() < 1e-12, "{ratios:?}");
    }
}
