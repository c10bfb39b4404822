//! A surrogate: the point of the whole space where a model expects the largest improvement.
//!
//! After Jones, Schonlau, Welch: Efficient global optimization of expensive black-box functions (1998), with trees
//! instead of a Gaussian process.

use std::{collections::HashSet, f64::consts};

use super::{
    PointId, Setup,
    driver::{Propose, View},
    model::Model,
};
use crate::search::space::Neighbourhood;

/// Fresh points drawn as candidates; in spaces not much larger all are.
const CANDIDATES: usize = 600;
/// Best points whose neighbours are candidates.
const PARENTS: usize = 5;

/// A model asked about many points.
pub(super) struct Surrogate {
    model: Model,
}

impl Surrogate {
    pub(super) fn new(setup: &Setup) -> Self {
        Self { model: Model::new(setup) }
    }

    fn candidates(view: &mut View<'_>) -> Vec<PointId> {
        let fresh = view.ledger.fresh();
        if fresh.len() <= CANDIDATES * 2 {
            return fresh.to_vec();
        }
        let mut best: Vec<(PointId, f64)> = view.ledger.measured().to_vec();
        best.sort_by(|a, b| a.1.total_cmp(&b.1));
        let (mut seen, mut around, mut candidates) = (HashSet::new(), Vec::new(), Vec::new());
        for (parent, _) in best.into_iter().take(PARENTS) {
            view.setup.space.neighbours(parent, Neighbourhood::Hamming, &mut around);
            candidates.extend(around.iter().filter(|p| view.ledger.is_fresh(**p) && seen.insert(**p)));
        }
        for _ in 0..CANDIDATES {
            candidates.extend(view.draw().filter(|point| seen.insert(*point)));
        }
        candidates
    }
}

impl Propose for Surrogate {
    fn name(&self) -> &'static str {
        "surrogate"
    }

    fn propose(&mut self, view: &mut View<'_>) -> Option<PointId> {
        let (_, best) = view.ledger.best().filter(|_| self.model.refresh(view))?;
        let best = best.ln();
        let scored = Self::candidates(view).into_iter().map(|point| {
            let (mean, deviation) = self.model.predict(point);
            (expected_improvement(best - mean, deviation), point)
        });
        scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, point)| point)
    }
}

/// Returns by how much a normal variable of this mean and deviation exceeds 0 on average.
fn expected_improvement(mean: f64, deviation: f64) -> f64 {
    if deviation < 1e-9 {
        // Without doubt the mean is it; of those that are no improvement the nearest to one is best.
        return mean.max(0.0) + mean.min(0.0) * 1e-6;
    }
    let score = mean / deviation;
    let density = (-0.5 * score * score).exp() / (2.0 * consts::PI).sqrt();
    let below = 0.5 * statrs::function::erf::erfc(-score * consts::FRAC_1_SQRT_2);
    deviation * (score * below + density)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expected_improvement_is_that_of_a_normal_variable() {
        // Mean of max(0, X): 0.398942 for a standard normal X, 1.083315 at mean 1, and the mean when there is no doubt.
        assert!((expected_improvement(0.0, 1.0) - 0.398_942_28).abs() < 1e-7);
        assert!((expected_improvement(1.0, 1.0) - 1.083_315_47).abs() < 1e-7);
        assert!((expected_improvement(-2.0, 2.0) - 2.0 * 0.083_315_47).abs() < 1e-7);
        assert_eq!(expected_improvement(0.5, 0.0), 0.5);
        assert!(expected_improvement(-0.1, 0.0) > expected_improvement(-0.5, 0.0));
    }
}
