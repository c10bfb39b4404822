//! Local search with restarts: downhill from neighbour to neighbour, then on from elsewhere.
//!
//! From a point no neighbour of which is better, the search goes on from a few random steps off the best point and from
//! anywhere in turn. A guided search lets a model choose the neighbour to try next.

use rand::seq::SliceRandom;

use super::{
    Outcome, PointId, Setup,
    driver::{Propose, View},
    ledger::Knowledge,
    model::Model,
};
use crate::search::space::Neighbourhood;

/// Which neighbour is moved to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Descent {
    /// The first that is better.
    Greedy,
    /// The best of all.
    Steepest,
}

/// Moves and restarts over known points before a fresh one is drawn instead.
const MOST_MOVES: usize = 200;
/// Random steps from the best point that begin a descent elsewhere.
const KICK: usize = 3;

/// Deviations of the model a neighbour is given the benefit of: what is little known is worth a look.
const HOPE: f64 = 2.0;

/// Share of neighbours that the model chooses. One that is wrong about a switch would never try it.
const GUIDED: f64 = 0.5;

/// A descent.
pub(super) struct Local {
    descent: Descent,
    current: Option<PointId>,
    /// A point that will be the current one when its cost is known.
    start: Option<PointId>,
    /// Neighbours of the current point in the order they are looked at.
    neighbours: Vec<PointId>,
    /// Every other restart is near the best point.
    restarts: usize,
    /// Chooses the neighbour to try, once it knows enough.
    guide: Option<Model>,
}

/// What looking at the neighbours says.
enum Look {
    Try(PointId),
    Move(PointId),
    Wait,
    Minimum,
}

impl Local {
    pub(super) fn new(descent: Descent) -> Self {
        Self { descent, current: None, start: None, neighbours: Vec::new(), restarts: 0, guide: None }
    }

    /// Makes a greedy search that asks a model which neighbour to try next.
    pub(super) fn guided(setup: &Setup) -> Self {
        Self { guide: Some(Model::new(setup)), ..Self::new(Descent::Greedy) }
    }

    fn arrive(&mut self, view: &mut View<'_>, point: PointId) {
        self.current = Some(point);
        view.setup.space.neighbours(point, Neighbourhood::Hamming, &mut self.neighbours);
        self.neighbours.shuffle(view.rng);
    }

    fn look(&self, view: &View<'_>, cost: f64) -> Look {
        let mut fresh = None;
        let (mut best, mut pending) = (None, false);
        for &neighbour in &self.neighbours {
            match view.ledger.get(neighbour) {
                Knowledge::Fresh => fresh = fresh.or(Some(neighbour)),
                Knowledge::Pending => pending = true,
                Knowledge::Known(_) => {
                    let there = view.ledger.cost(neighbour).unwrap_or(f64::INFINITY);
                    if there < best.map_or(cost, |(_, best)| best) {
                        best = Some((neighbour, there));
                    }
                }
            }
        }
        match (self.descent, best, fresh) {
            (Descent::Greedy, Some((better, _)), _) => Look::Move(better),
            (_, _, Some(fresh)) => Look::Try(fresh),
            _ if pending => Look::Wait,
            (_, Some((better, _)), None) => Look::Move(better),
            (_, None, None) => Look::Minimum,
        }
    }

    /// Returns the fresh neighbour that may be cheapest by the model.
    fn guess(&mut self, view: &mut View<'_>) -> Option<PointId> {
        let guide = self.guide.as_mut()?;
        if !guide.refresh(view) || view.unit() >= GUIDED {
            return None;
        }
        let fresh = self.neighbours.iter().copied().filter(|point| view.ledger.is_fresh(*point));
        let hoped = fresh.map(|point| {
            let (mean, deviation) = guide.predict(point);
            (mean - HOPE * deviation, point)
        });
        hoped.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, point)| point)
    }

    /// Chooses where to go on: a few steps off the best point, or anywhere.
    fn restart(&mut self, view: &mut View<'_>) -> Option<PointId> {
        self.restarts += 1;
        let near = self.restarts % 2 == 1;
        let Some((best, _)) = view.ledger.best().filter(|_| near) else { return view.draw() };
        let (mut point, mut around) = (best, Vec::new());
        for _ in 0..KICK {
            view.setup.space.neighbours(point, Neighbourhood::Hamming, &mut around);
            if around.is_empty() {
                break;
            }
            point = around[view.below(around.len())];
        }
        Some(point)
    }
}

impl Propose for Local {
    fn name(&self) -> &'static str {
        match self.descent {
            _ if self.guide.is_some() => "guided",
            Descent::Greedy => "greedy",
            Descent::Steepest => "steepest",
        }
    }

    fn propose(&mut self, view: &mut View<'_>) -> Option<PointId> {
        for _ in 0..MOST_MOVES {
            if let Some(start) = self.start {
                match view.ledger.cost(start) {
                    // Its outcome is on the way.
                    None => return None,
                    Some(cost) => {
                        self.start = None;
                        if cost.is_finite() {
                            self.arrive(view, start);
                        }
                    }
                }
            }
            let here = self.current.and_then(|point| view.ledger.cost(point));
            let look = here.map_or(Look::Minimum, |cost| self.look(view, cost));
            match look {
                Look::Try(point) => return Some(self.guess(view).unwrap_or(point)),
                Look::Move(point) => self.arrive(view, point),
                Look::Wait => return None,
                Look::Minimum => {
                    let start = self.restart(view)?;
                    self.current = None;
                    self.start = Some(start);
                    if view.ledger.is_fresh(start) {
                        return Some(start);
                    }
                }
            }
        }
        None
    }

    fn learn(&mut self, view: &mut View<'_>, point: PointId, _: Outcome) {
        // Seeds are where to begin.
        if self.current.is_none()
            && self.start.is_none()
            && view.ledger.best().is_some_and(|(best, _)| best == point)
        {
            self.arrive(view, point);
        }
    }
}
