//! Marks of single measurements: form tells series apart where colour does not.

use std::f64::consts::TAU;

use super::palette::{Color, PAPER};
use super::{Point, Scene, Shape};

/// The form of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marker {
    Circle,
    Square,
    Up,
    Diamond,
    Down,
}

impl Marker {
    /// Returns the form of the n-th series; they repeat after five.
    pub(crate) fn series(n: usize) -> Self {
        [Self::Circle, Self::Square, Self::Up, Self::Diamond, Self::Down][n % 5]
    }

    /// Returns corners around the origin; all forms have about the area of a circle of the radius.
    fn corners(self, radius: f64) -> Vec<Point> {
        let regular = |n: usize, start: f64, r: f64| {
            (0..n)
                .map(|i| (start + i as f64 / n as f64) * TAU)
                .map(|a| (a.cos() * r, a.sin() * r))
                .collect::<Vec<_>>()
        };
        match self {
            Self::Circle => regular(24, 0.0, radius),
            Self::Square => regular(4, 0.125, radius * 1.25),
            Self::Up => regular(3, -0.25, radius * 1.4),
            Self::Diamond => regular(4, 0.0, radius * 1.3),
            Self::Down => regular(3, 0.25, radius * 1.4),
        }
    }

    /// Draws a solid mark with a rim of paper, so that marks that touch stay apart.
    pub(crate) fn solid(self, scene: &mut Scene, center: Point, radius: f64, color: Color) {
        self.fill(scene, center, radius + 1.2, PAPER);
        self.fill(scene, center, radius, color);
    }

    /// Draws an outlined mark.
    pub(crate) fn hollow(self, scene: &mut Scene, center: Point, radius: f64, color: Color) {
        self.fill(scene, center, radius + 0.8, color);
        self.fill(scene, center, radius - 1.2, PAPER);
    }

    fn fill(self, scene: &mut Scene, (x, y): Point, radius: f64, color: Color) {
        scene.shapes.push(if self == Self::Circle {
            Shape::Disc { center: (x, y), radius, color, opacity: 1.0 }
        } else {
            let points = self.corners(radius).iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
            Shape::Polygon { points, color, opacity: 1.0 }
        });
    }
}

/// Draws a vertical bar with short ends, for an interval.
pub(crate) fn interval(scene: &mut Scene, x: f64, low: f64, high: f64, color: Color) {
    const HALF_CAP: f64 = 3.0;
    scene.line(vec![(x, low), (x, high)], 1.5, color);
    for y in [low, high] {
        scene.line(vec![(x - HALF_CAP, y), (x + HALF_CAP, y)], 1.5, color);
    }
}
