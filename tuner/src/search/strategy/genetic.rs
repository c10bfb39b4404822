//! A genetic algorithm: good points are mixed axis by axis and changed a little.

use super::{
    Outcome, PointId,
    driver::{Propose, View},
};
use crate::search::space::Neighbourhood;

/// Points kept.
const POPULATION: usize = 20;
/// Children thrown away, as known or not feasible, before a fresh point is drawn instead.
const MOST_TRIES: usize = 100;

/// The best points of late, and their children.
pub(super) struct Genetic {
    /// With their costs, cheapest first.
    population: Vec<(PointId, f64)>,
    size: usize,
    /// Random points before there are children.
    first: usize,
}

impl Genetic {
    pub(super) fn new() -> Self {
        Self { population: Vec::new(), size: POPULATION, first: POPULATION }
    }

    /// Draws the cheaper of two.
    fn parent(&self, view: &mut View<'_>) -> PointId {
        let draw = view.below(self.population.len()).min(view.below(self.population.len()));
        self.population[draw].0
    }

    fn child(&self, view: &mut View<'_>) -> Option<PointId> {
        let space = &view.setup.space;
        let (mother, father) = (self.parent(view), self.parent(view));
        let mut coordinates = space.coordinates(mother).to_vec();
        for (axis, coordinate) in coordinates.iter_mut().enumerate() {
            if view.unit() < 0.5 {
                *coordinate = space.coordinates(father)[axis];
            }
        }
        let rate = 1.0 / coordinates.len() as f64;
        for (axis, coordinate) in space.axes().iter().zip(&mut coordinates) {
            if view.unit() < rate {
                *coordinate = view.below(axis.values.len()) as u16;
            }
        }
        space.locate(&coordinates)
    }
}

impl Propose for Genetic {
    fn name(&self) -> &'static str {
        "genetic"
    }

    fn propose(&mut self, view: &mut View<'_>) -> Option<PointId> {
        self.size = POPULATION.min(view.budget() / 4).max(4);
        if self.first > 0 && self.population.len() < self.size {
            self.first -= 1;
            return view.draw();
        }
        if self.population.len() < 2 {
            return None;
        }
        for _ in 0..MOST_TRIES {
            let child = self.child(view);
            if let Some(child) = child.filter(|child| view.ledger.is_fresh(*child)) {
                return Some(child);
            }
        }
        // All mixtures are known: look beside a parent.
        let mut around = Vec::new();
        let parent = self.parent(view);
        view.setup.space.neighbours(parent, Neighbourhood::Hamming, &mut around);
        around.retain(|point| view.ledger.is_fresh(*point));
        (!around.is_empty()).then(|| around[view.below(around.len())])
    }

    fn learn(&mut self, _: &mut View<'_>, point: PointId, outcome: Outcome) {
        if let Outcome::Cost(cost) = outcome {
            let place = self.population.partition_point(|&(_, known)| known <= cost);
            self.population.insert(place, (point, cost));
            self.population.truncate(self.size);
        }
    }
}
