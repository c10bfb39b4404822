//! A plot area: frame, grid, two axes with titles.

use super::axis::{Axis, TICK_SIZE};
use super::palette::{GRID, MUTED};
use super::{Anchor, Point, Scene, Text};

/// Size of axis titles.
const TITLE_SIZE: f64 = 13.0;
/// Room for tick labels and title left of the frame.
pub(crate) const LEFT_ROOM: f64 = 84.0;
/// Room for tick labels and title below the frame.
pub(crate) const BOTTOM_ROOM: f64 = 52.0;

/// A plot area whose frame has its upper left corner at `at`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plot {
    pub(crate) at: Point,
    pub(crate) size: (f64, f64),
    pub(crate) x: Axis,
    pub(crate) y: Axis,
}

impl Plot {
    /// Returns where a pair of values lies in the scene.
    pub(crate) fn point(&self, x: f64, y: f64) -> Point {
        (self.x_at(x), self.y_at(y))
    }

    pub(crate) fn x_at(&self, value: f64) -> f64 {
        self.at.0 + self.x.place(value) * self.size.0
    }

    pub(crate) fn y_at(&self, value: f64) -> f64 {
        self.at.1 + (1.0 - self.y.place(value)) * self.size.1
    }

    /// Draws grid, frame, ticks and titles.
    pub(crate) fn draw(&self, scene: &mut Scene) {
        let (left, top) = self.at;
        let (right, bottom) = (left + self.size.0, top + self.size.1);
        for (place, label) in self.x.horizontal_ticks(self.size.0) {
            let x = left + place;
            scene.line(vec![(x, top), (x, bottom)], 1.0, GRID);
            scene.line(vec![(x, bottom), (x, bottom + 4.0)], 1.0, MUTED);
            if !label.is_empty() {
                scene.text(Text::new(label, (x, bottom + 18.0), TICK_SIZE).anchor(Anchor::Middle));
            }
        }
        for (place, label) in self.y.vertical_ticks(self.size.1) {
            let y = bottom - place;
            scene.line(vec![(left, y), (right, y)], 1.0, GRID);
            scene.line(vec![(left - 4.0, y), (left, y)], 1.0, MUTED);
            if !label.is_empty() {
                scene.text(
                    Text::new(label, (left - 8.0, y + 0.36 * TICK_SIZE), TICK_SIZE).anchor(Anchor::End),
                );
            }
        }
        scene.line(vec![(left, top), (left, bottom), (right, bottom)], 1.0, MUTED);
        // A panel above another that has the ticks and the title for both.
        if !self.x.title.is_empty() {
            let title = Text::new(&self.x.title, ((left + right) / 2.0, bottom + 40.0), TITLE_SIZE);
            scene.text(title.anchor(Anchor::Middle));
        }
        let y_title = Text::new(&self.y.title, (left - LEFT_ROOM + 20.0, (top + bottom) / 2.0), TITLE_SIZE);
        scene.text(y_title.anchor(Anchor::Middle).vertical());
    }
}
