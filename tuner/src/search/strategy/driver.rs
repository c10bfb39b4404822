//! What every strategy does alike: seeds first, nothing twice, no end before the space is exhausted.

use std::collections::VecDeque;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Outcome, PointId, Setup, Strategy, ledger::Ledger};

/// Fresh points the prior chooses among when one is drawn: enough to prefer cheap ones, few enough to stay random.
const PRIOR_DRAWS: usize = 8;

/// What a strategy sees when it proposes.
pub(super) struct View<'d> {
    pub(super) setup: &'d Setup,
    pub(super) ledger: &'d Ledger,
    pub(super) rng: &'d mut ChaCha8Rng,
}

impl View<'_> {
    /// Draws a fresh point; with a prior, the one expected cheapest of a few.
    pub(super) fn draw(&mut self) -> Option<PointId> {
        let Some(prior) = &self.setup.prior else { return self.ledger.draw(self.rng) };
        let expected = |point: PointId| prior.get(point.index()).copied().filter(|cost| cost.is_finite());
        let draws: Vec<PointId> = (0..PRIOR_DRAWS).filter_map(|_| self.ledger.draw(self.rng)).collect();
        draws.into_iter().min_by(|&a, &b| {
            let (a, b) = (expected(a).unwrap_or(f64::INFINITY), expected(b).unwrap_or(f64::INFINITY));
            a.total_cmp(&b)
        })
    }

    /// Draws a number below `end`, which is not 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.rng.random_range(0..end)
    }

    /// Draws a number from 0 up to 1.
    pub(super) fn unit(&mut self) -> f64 {
        self.rng.random()
    }

    /// Returns the number of evaluations planned, or a guess.
    pub(super) fn budget(&self) -> usize {
        let points = self.ledger.points().len();
        self.setup.budget.unwrap_or_else(|| (points / 50).clamp(50, 500)).clamp(1, points.max(1))
    }
}

/// The part of a strategy that is its own.
pub(super) trait Propose {
    /// Returns the name it is chosen by.
    fn name(&self) -> &'static str;

    /// Returns a fresh point; `None`, or a point that is not fresh: one is drawn instead. There is a fresh point.
    fn propose(&mut self, view: &mut View<'_>) -> Option<PointId>;

    /// Takes the outcome of a point, whoever proposed it; the ledger has it already.
    fn learn(&mut self, view: &mut View<'_>, point: PointId, outcome: Outcome) {
        let _ = (view, point, outcome);
    }
}

/// A strategy made of its own part and what all share.
pub(super) struct Driver<P> {
    setup: Setup,
    ledger: Ledger,
    rng: ChaCha8Rng,
    seeds: VecDeque<PointId>,
    own: P,
}

impl<P: Propose + 'static> Driver<P> {
    pub(super) fn boxed(own: P, setup: Setup) -> Box<dyn Strategy> {
        let (ledger, rng) = (Ledger::new(&setup.space), ChaCha8Rng::seed_from_u64(setup.seed));
        let seeds = setup.seeds.iter().copied().filter(|seed| seed.index() < setup.space.len()).collect();
        Box::new(Self { setup, ledger, rng, seeds, own })
    }

    fn next(&mut self) -> Option<PointId> {
        while let Some(seed) = self.seeds.pop_front() {
            if self.ledger.is_fresh(seed) {
                return Some(seed);
            }
        }
        if self.ledger.fresh().is_empty() {
            return None;
        }
        let mut view = View { setup: &self.setup, ledger: &self.ledger, rng: &mut self.rng };
        let own = self.own.propose(&mut view).filter(|point| view.ledger.is_fresh(*point));
        own.or_else(|| view.draw())
    }
}

impl<P: Propose + 'static> Strategy for Driver<P> {
    fn name(&self) -> &'static str {
        self.own.name()
    }

    fn ask(&mut self, most: usize) -> Vec<PointId> {
        let mut points = Vec::new();
        while points.len() < most
            && let Some(point) = self.next()
        {
            self.ledger.propose(point);
            points.push(point);
        }
        points
    }

    fn tell(&mut self, point: PointId, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Cost(cost) if !(cost.is_finite() && cost > 0.0) => Outcome::Failed,
            other => other,
        };
        if point.index() < self.setup.space.len() && self.ledger.tell(point, outcome) {
            let mut view = View { setup: &self.setup, ledger: &self.ledger, rng: &mut self.rng };
            self.own.learn(&mut view, point, outcome);
        }
    }
}
