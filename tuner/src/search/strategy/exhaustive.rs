//! Every point, in order.

use super::{
    PointId, Setup,
    driver::{Propose, View},
};

/// Goes through the space; with a prior, from the point expected cheapest.
pub(super) struct Exhaustive {
    order: Vec<PointId>,
    next: usize,
}

impl Exhaustive {
    pub(super) fn new(setup: &Setup) -> Self {
        let mut order: Vec<PointId> = setup.space.ids().collect();
        if let Some(prior) = &setup.prior {
            let expected = |point: &PointId| {
                prior.get(point.index()).copied().filter(|cost| cost.is_finite()).unwrap_or(f64::INFINITY)
            };
            order.sort_by(|a, b| expected(a).total_cmp(&expected(b)));
        }
        Self { order, next: 0 }
    }
}

impl Propose for Exhaustive {
    fn name(&self) -> &'static str {
        "exhaustive"
    }

    fn propose(&mut self, view: &mut View<'_>) -> Option<PointId> {
        while let Some(&point) = self.order.get(self.next) {
            self.next += 1;
            if view.ledger.is_fresh(point) {
                return Some(point);
            }
        }
        None
    }
}
