//! Simulated annealing: steps to neighbours, uphill ones too while it is hot.

use super::{
    Outcome, PointId,
    driver::{Propose, View},
    ledger::Knowledge,
};
use crate::search::space::Neighbourhood;

/// Relative rise in cost that is taken one time in e at the start and at the end.
const HOT: f64 = 0.5;
const COLD: f64 = 0.005;
/// Steps over known points before a fresh one is drawn instead.
const MOST_STEPS: usize = 500;

/// A walk.
pub(super) struct Annealing {
    current: Option<PointId>,
    /// Points the walk has proposed and not heard of.
    asked: Vec<PointId>,
    around: Vec<PointId>,
}

impl Annealing {
    pub(super) fn new() -> Self {
        Self { current: None, asked: Vec::new(), around: Vec::new() }
    }

    /// Steps to a point, or not, by its cost.
    fn consider(&mut self, view: &mut View<'_>, point: PointId) {
        let Some(cost) = view.ledger.cost(point).filter(|cost| cost.is_finite()) else { return };
        let here = self.current.and_then(|current| view.ledger.cost(current)).unwrap_or(f64::INFINITY);
        let told = view.ledger.measured().len() + view.ledger.failed().len();
        let progress = (told as f64 / view.budget() as f64).min(1.0);
        let temperature = HOT * (COLD / HOT).powf(progress);
        let rise = (cost / here).ln();
        if here.is_infinite() || rise <= 0.0 || view.unit() < (-rise / temperature).exp() {
            self.current = Some(point);
            view.setup.space.neighbours(point, Neighbourhood::Hamming, &mut self.around);
        }
    }
}

impl Propose for Annealing {
    fn name(&self) -> &'static str {
        "annealing"
    }

    fn propose(&mut self, view: &mut View<'_>) -> Option<PointId> {
        if self.current.is_none() {
            let point = view.draw();
            self.asked.extend(point);
            return point;
        }
        for _ in 0..MOST_STEPS {
            if self.around.is_empty() {
                break;
            }
            let point = self.around[view.below(self.around.len())];
            match view.ledger.get(point) {
                Knowledge::Fresh => {
                    self.asked.push(point);
                    return Some(point);
                }
                Knowledge::Pending => {}
                Knowledge::Known(_) => self.consider(view, point),
            }
        }
        // The whole neighbourhood is known: begin again at a fresh point.
        self.current = None;
        let point = view.draw();
        self.asked.extend(point);
        point
    }

    fn learn(&mut self, view: &mut View<'_>, point: PointId, _: Outcome) {
        let asked = self.asked.iter().position(|&asked| asked == point);
        if let Some(place) = asked {
            self.asked.swap_remove(place);
        }
        if asked.is_some() || self.current.is_none() {
            self.consider(view, point);
        }
    }
}
