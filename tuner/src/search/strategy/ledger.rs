//! What is known of each point of a space.

use rand::Rng;

use super::{Outcome, PointId};
use crate::search::space::Space;

/// What is known of one point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Knowledge {
    /// Never proposed.
    Fresh,
    /// Proposed, not yet told.
    Pending,
    /// Told.
    Known(Outcome),
}

/// The state of every point, and the points nobody has proposed yet.
#[derive(Debug)]
pub(super) struct Ledger {
    points: Vec<PointId>,
    known: Vec<Knowledge>,
    /// Fresh points in no order; `place` says where each one is.
    fresh: Vec<PointId>,
    place: Vec<u32>,
    /// Measured points in the order told.
    measured: Vec<(PointId, f64)>,
    failed: Vec<PointId>,
    best: Option<(PointId, f64)>,
}

impl Ledger {
    pub(super) fn new(space: &Space) -> Self {
        let points: Vec<PointId> = space.ids().collect();
        Self {
            known: vec![Knowledge::Fresh; points.len()],
            place: (0..points.len() as u32).collect(),
            fresh: points.clone(),
            points,
            measured: Vec::new(),
            failed: Vec::new(),
            best: None,
        }
    }

    /// Returns every point of the space.
    pub(super) fn points(&self) -> &[PointId] {
        &self.points
    }

    /// Returns the points never proposed, in an order that means nothing.
    pub(super) fn fresh(&self) -> &[PointId] {
        &self.fresh
    }

    pub(super) fn is_fresh(&self, point: PointId) -> bool {
        self.known[point.index()] == Knowledge::Fresh
    }

    pub(super) fn get(&self, point: PointId) -> Knowledge {
        self.known[point.index()]
    }

    /// Returns what a point costs: infinite where it failed, `None` while that is not known.
    pub(super) fn cost(&self, point: PointId) -> Option<f64> {
        match self.get(point) {
            Knowledge::Known(Outcome::Cost(cost)) => Some(cost),
            Knowledge::Known(Outcome::Failed) => Some(f64::INFINITY),
            Knowledge::Fresh | Knowledge::Pending => None,
        }
    }

    /// Returns measured points with their costs, in the order told.
    pub(super) fn measured(&self) -> &[(PointId, f64)] {
        &self.measured
    }

    /// Returns the points that failed, in the order told.
    pub(super) fn failed(&self) -> &[PointId] {
        &self.failed
    }

    /// Returns the cheapest point, the first of equals.
    pub(super) fn best(&self) -> Option<(PointId, f64)> {
        self.best
    }

    /// Draws a fresh point.
    pub(super) fn draw(&self, rng: &mut impl Rng) -> Option<PointId> {
        (!self.fresh.is_empty()).then(|| self.fresh[rng.random_range(0..self.fresh.len())])
    }

    /// Notes that a point is proposed; false when it was before.
    pub(super) fn propose(&mut self, point: PointId) -> bool {
        let fresh = self.is_fresh(point);
        if fresh {
            self.take(point);
            self.known[point.index()] = Knowledge::Pending;
        }
        fresh
    }

    /// Notes an outcome; false when one was noted before, which then stays.
    pub(super) fn tell(&mut self, point: PointId, outcome: Outcome) -> bool {
        match self.get(point) {
            Knowledge::Known(_) => return false,
            Knowledge::Fresh => self.take(point),
            Knowledge::Pending => {}
        }
        self.known[point.index()] = Knowledge::Known(outcome);
        match outcome {
            Outcome::Failed => self.failed.push(point),
            Outcome::Cost(cost) => {
                self.measured.push((point, cost));
                if self.best.is_none_or(|(_, best)| cost < best) {
                    self.best = Some((point, cost));
                }
            }
        }
        true
    }

    fn take(&mut self, point: PointId) {
        let place = self.place[point.index()] as usize;
        self.fresh.swap_remove(place);
        if let Some(moved) = self.fresh.get(place) {
            self.place[moved.index()] = place as u32;
        }
    }
}
