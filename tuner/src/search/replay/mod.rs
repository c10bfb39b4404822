//! Replays: finished measurements of a whole space stand in for the device, so that strategies can be compared in
//! seconds and tested without one.
//!
//! [`read`] takes Kernel Tuner's cache files, T4 files and runs of this program; [`simulate`] lets a strategy loose
//! on a [`Recording`]; [`Curve`] sums up many such runs.

mod curve;
mod export;
mod kernel_tuner;
mod records;
mod source;
mod t4;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub(crate) use curve::Curve;
pub(crate) use export::t4 as export_t4;
pub(crate) use source::{ReplayError, read};

use super::{
    space::{PointId, Space, Value},
    strategy::{Outcome, Setup, Strategy, UnknownStrategy, build},
};

/// The outcome of every point of a space.
#[derive(Debug, Clone)]
pub(crate) struct Recording {
    /// What was measured, in a few words.
    pub(crate) name: String,
    /// Its points.
    pub(crate) space: Arc<Space>,
    /// What a search starts from, where the recording says: the configuration of whoever chooses none.
    pub(crate) default: Option<PointId>,
    outcomes: Vec<Outcome>,
    best: f64,
}

impl Recording {
    /// Makes a recording of rows: values in the order of `names`, and what became of them. Of two rows with the same
    /// values the later counts.
    ///
    /// # Errors
    /// A sentence when there is nothing to search: no row, or none with a cost.
    pub(crate) fn new(
        name: String,
        names: &[String],
        rows: Vec<(Vec<Value>, Outcome)>,
    ) -> Result<Self, String> {
        let (values, outcomes): (Vec<Vec<Value>>, Vec<Outcome>) = rows.into_iter().unzip();
        let (space, points) = Space::from_rows(&name, names, &values).ok_or_else(|| {
            format!("expected at least one configuration with {} values, got none", names.len())
        })?;
        let mut by_point = vec![Outcome::Failed; space.len()];
        for (point, outcome) in points.into_iter().zip(outcomes) {
            let usable = cost(&outcome).is_none_or(|cost| cost.is_finite() && cost > 0.0);
            by_point[point.index()] = if usable { outcome } else { Outcome::Failed };
        }
        let best = by_point.iter().filter_map(cost).fold(f64::INFINITY, f64::min);
        if !best.is_finite() {
            return Err(format!(
                "expected at least one configuration with a time, got {} without",
                space.len()
            ));
        }
        Ok(Self { name, space: Arc::new(space), default: None, outcomes: by_point, best })
    }

    /// Says which values are those of the default.
    pub(crate) fn with_default(mut self, names: &[String], values: &[Value]) -> Self {
        self.default = self.space.find(names.iter().map(String::as_str).zip(values));
        self
    }

    /// Returns how many evaluations of points drawn evenly reach a fraction of the optimum in half of all cases:
    /// exact, from the number of points that good.
    pub(crate) fn random_median(&self, fraction: f64) -> usize {
        let good = self.outcomes.iter().filter_map(cost).filter(|cost| self.best / cost >= fraction).count();
        let (points, mut missed) = (self.outcomes.len(), 1.0);
        for drawn in 0..points {
            missed *= (points - drawn - good.min(points - drawn)) as f64 / (points - drawn) as f64;
            if missed <= 0.5 {
                return drawn + 1;
            }
        }
        points
    }

    /// Returns the cheapest point and its cost.
    pub(crate) fn optimum(&self) -> Option<(PointId, f64)> {
        let costs =
            self.space.ids().zip(&self.outcomes).filter_map(|(point, outcome)| Some((point, cost(outcome)?)));
        costs.min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Returns the fraction of the optimum that a point reaches, 0 for one that failed.
    pub(crate) fn fraction(&self, point: PointId) -> f64 {
        cost(&self.outcomes[point.index()]).map_or(0.0, |cost| self.best / cost)
    }

    /// Returns the share of points that failed.
    pub(crate) fn failed_share(&self) -> f64 {
        let failed = self.outcomes.iter().filter(|outcome| cost(outcome).is_none()).count();
        failed as f64 / self.outcomes.len() as f64
    }
}

fn cost(outcome: &Outcome) -> Option<f64> {
    match outcome {
        Outcome::Cost(cost) => Some(*cost),
        Outcome::Failed => None,
    }
}

/// Lets a strategy evaluate up to `budget` points, one at a time, and returns after each the fraction of the optimum
/// reached: cost of the best point there is over cost of the best found, 0 while none is found. It starts from the
/// recording's default, if there is one, as tuning does.
///
/// # Errors
/// When there is no strategy of that name.
pub(crate) fn simulate(
    recording: &Recording,
    strategy: &str,
    budget: usize,
    seed: u64,
) -> Result<Vec<f64>, UnknownStrategy> {
    let seeds = recording.default.into_iter().collect();
    let setup = Setup { budget: Some(budget), seeds, ..Setup::new(Arc::clone(&recording.space), seed) };
    Ok(run(recording, &mut *build(strategy, setup)?, budget))
}

fn run(recording: &Recording, strategy: &mut dyn Strategy, budget: usize) -> Vec<f64> {
    let (mut best, mut fractions) = (f64::INFINITY, Vec::with_capacity(budget));
    while fractions.len() < budget {
        let Some(&point) = strategy.ask(1).first() else { break };
        let outcome = recording.outcomes[point.index()];
        strategy.tell(point, outcome);
        best = cost(&outcome).map_or(best, |cost| best.min(cost));
        fractions.push(recording.best / best);
    }
    fractions
}
