//! Points drawn evenly: what every other strategy has to beat.

use super::{
    PointId,
    driver::{Propose, View},
};

/// Draws without memory.
pub(super) struct Random;

impl Propose for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn propose(&mut self, view: &mut View<'_>) -> Option<PointId> {
        view.draw()
    }
}
