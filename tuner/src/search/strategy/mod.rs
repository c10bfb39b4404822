//! Strategies: which point of a space to try next, by what is known of the others.
//!
//! A strategy is asked for points and told what became of them; it never sees who evaluates them. [`build`] makes
//! one by its name. What all of them share is in [`driver`]: no point is proposed twice, points given as seeds come
//! first, and none stops before every point was proposed.

mod annealing;
mod driver;
mod exhaustive;
mod features;
mod genetic;
mod ledger;
mod local;
mod model;
mod random;
mod surrogate;
#[cfg(test)]
mod tests;
mod trees;

use std::sync::Arc;

use self::driver::Driver;
use super::space::{PointId, Space};

/// What became of a point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Outcome {
    /// It was measured; lower is better. Positive and finite; anything else counts as a failure.
    Cost(f64),
    /// It could not be built, was wrong, or gave out.
    Failed,
}

/// A way to search a space.
pub(crate) trait Strategy {
    /// Returns the name it is chosen by.
    fn name(&self) -> &'static str;

    /// Returns up to `most` points to evaluate next, never one that was asked for or told before. Empty: the strategy
    /// has nothing more to try.
    fn ask(&mut self, most: usize) -> Vec<PointId>;

    /// Takes the outcome of a point, asked for or not.
    fn tell(&mut self, point: PointId, outcome: Outcome);
}

/// What a strategy starts from.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// The space searched.
    pub(crate) space: Arc<Space>,
    /// Seed of every random choice: same seed and outcomes, same points.
    pub(crate) seed: u64,
    /// Evaluations planned, as far as known: what cools down does so by then.
    pub(crate) budget: Option<usize>,
    /// Points to try first: the nearest known profile, the default.
    pub(crate) seeds: Vec<PointId>,
    /// Cost a model expects of each point, in the order of the space, in any unit; not a number where it cannot say.
    /// Cheap ones are tried earlier.
    pub(crate) prior: Option<Arc<[f64]>>,
}

impl Setup {
    /// Makes a setup without seeds and prior.
    pub(crate) fn new(space: Arc<Space>, seed: u64) -> Self {
        Self { space, seed, budget: None, seeds: Vec::new(), prior: None }
    }
}

/// Name, one line of help, and constructor of a strategy.
type Entry = (&'static str, &'static str, fn(Setup) -> Box<dyn Strategy>);

/// Name of the strategy of whoever chooses none.
pub(crate) const DEFAULT: &str = "default";
/// What it stands for: the best over public measurements, see docs/search.md.
const BEST: &str = "greedy";

/// Every strategy.
const STRATEGIES: &[Entry] = &[
    ("exhaustive", "every point in the order of the space, cheapest by the prior first", |setup| {
        Driver::boxed(exhaustive::Exhaustive::new(&setup), setup)
    }),
    ("random", "points drawn evenly", |setup| Driver::boxed(random::Random, setup)),
    ("greedy", "local search with restarts: to the first better neighbour", |setup| {
        Driver::boxed(local::Local::new(local::Descent::Greedy), setup)
    }),
    ("guided", "the greedy search, half of its neighbours chosen by a model", |setup| {
        Driver::boxed(local::Local::guided(&setup), setup)
    }),
    ("steepest", "local search with restarts: to the best neighbour", |setup| {
        Driver::boxed(local::Local::new(local::Descent::Steepest), setup)
    }),
    ("annealing", "simulated annealing, cooled by the end of the budget", |setup| {
        Driver::boxed(annealing::Annealing::new(), setup)
    }),
    ("genetic", "mixtures and mutations of the best points", |setup| {
        Driver::boxed(genetic::Genetic::new(), setup)
    }),
    ("surrogate", "where a model of the measurements expects the largest improvement", |setup| {
        Driver::boxed(surrogate::Surrogate::new(&setup), setup)
    }),
];

/// Returns the names of all strategies with a line of help each, the default first.
pub(crate) fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    let listed = STRATEGIES.iter().map(|(name, help, _)| (*name, *help));
    [(DEFAULT, "the best over public measurements: the greedy search")].into_iter().chain(listed)
}

/// No strategy has the name.
#[derive(Debug, thiserror::Error)]
#[error("expected a strategy ({}), got '{name}'", names().map(|(name, _)| name).collect::<Vec<_>>().join(", "))]
pub(crate) struct UnknownStrategy {
    name: String,
}

/// Says what is wrong with a name that no strategy has.
pub(crate) fn unknown(name: &str) -> Option<UnknownStrategy> {
    let known = names().any(|(known, _)| known == name);
    (!known).then(|| UnknownStrategy { name: name.to_owned() })
}

/// Makes a strategy by its name.
///
/// # Errors
/// When there is none of that name.
pub(crate) fn build(name: &str, setup: Setup) -> Result<Box<dyn Strategy>, UnknownStrategy> {
    let name = if name == DEFAULT { BEST } else { name };
    let found = STRATEGIES.iter().find(|(known, ..)| *known == name);
    let (.., make) = found.ok_or_else(|| UnknownStrategy { name: name.to_owned() })?;
    let strategy = make(setup);
    debug_assert_eq!(strategy.name(), name, "the list and the strategy call it differently");
    Ok(strategy)
}
