//! What the measurements so far say of points not measured.

use super::{PointId, Setup, driver::View, features::Features, trees::Trees};

/// Measurements before a model is worth asking.
const FEWEST: usize = 12;
/// Trees of a model.
const TREES: usize = 24;
/// A model is made anew when it lacks one of so many outcomes.
const STALE: usize = 24;

/// Trees over the logarithms of costs, made anew as outcomes come in.
pub(super) struct Model {
    features: Features,
    trees: Trees,
    /// Outcomes it knows.
    known: usize,
}

impl Model {
    pub(super) fn new(setup: &Setup) -> Self {
        Self { features: Features::new(&setup.space), trees: Trees::default(), known: 0 }
    }

    /// Takes in the outcomes since it was last made; false while there are too few.
    ///
    /// A point that failed counts as the worst that was measured: as far as is known it is no better.
    pub(super) fn refresh(&mut self, view: &mut View<'_>) -> bool {
        let (measured, failed) = (view.ledger.measured(), view.ledger.failed());
        if measured.len() < FEWEST || self.features.width() == 0 {
            return false;
        }
        let outcomes = measured.len() + failed.len();
        if self.known > 0 && outcomes - self.known <= self.known / STALE {
            return true;
        }
        let worst = measured.iter().fold(f64::MIN, |worst, &(_, cost)| worst.max(cost.ln())) as f32;
        let rows: Vec<&[f32]> = measured
            .iter()
            .map(|&(point, _)| point)
            .chain(failed.iter().copied())
            .map(|point| self.features.of(point))
            .collect();
        let costs = measured.iter().map(|(_, cost)| cost.ln() as f32);
        let targets: Vec<f32> = costs.chain(failed.iter().map(|_| worst)).collect();
        self.trees = Trees::fit(TREES, &rows, &targets, view.rng);
        self.known = outcomes;
        true
    }

    /// Returns the expected logarithm of a point's cost, and how far the trees disagree.
    pub(super) fn predict(&self, point: PointId) -> (f64, f64) {
        self.trees.predict(self.features.of(point))
    }
}
