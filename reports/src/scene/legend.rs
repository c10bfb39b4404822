//! Legends stand beside the plot, never on it.

use super::marker::{Marker, interval};
use super::palette::{Color, INK, MUTED};
use super::{Point, Scene, Shape, Text, font};

const SIZE: f64 = 12.5;
const LINE: f64 = 22.0;
const SWATCH: f64 = 30.0;

/// What stands before a legend's text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Swatch {
    /// Nothing: a heading over the entries that follow.
    Heading,
    /// A solid mark with an interval.
    Solid(Marker, Color),
    /// An outlined mark.
    Hollow(Marker, Color),
    /// A small faint dot.
    Faint(Color),
    /// A line, dashed or not.
    Line(Color, Option<(f64, f64)>),
    /// A line with marks.
    LineMarked(Marker, Color, Option<(f64, f64)>),
    /// A dashed line with outlined marks.
    LineHollow(Marker, Color, (f64, f64)),
    /// A filled square.
    Box(Color),
    /// A number in a circle.
    Number(usize, Color),
}

/// Returns the height of a legend with so many entries.
pub(crate) fn height(entries: usize) -> f64 {
    entries as f64 * LINE
}

/// Draws entries below each other; texts wider than `room` are shortened.
pub(crate) fn draw(scene: &mut Scene, (x, top): Point, room: f64, entries: &[(Swatch, String)]) {
    for (n, (swatch, label)) in entries.iter().enumerate() {
        let y = top + (n as f64 + 0.5) * LINE;
        let (center, ends) = ((x + SWATCH / 2.0, y), vec![(x + 2.0, y), (x + SWATCH - 2.0, y)]);
        let stroke = |scene: &mut Scene, color, dash: Option<(f64, f64)>| match dash {
            Some(dash) => scene.dashed(ends.clone(), 2.0, color, dash),
            None => scene.line(ends.clone(), 2.0, color),
        };
        match *swatch {
            Swatch::Heading => {
                let label = font::shorten(label, SIZE, true, room);
                scene.text(Text::new(label, (x, y + 0.36 * SIZE), SIZE).bold());
                continue;
            }
            Swatch::Solid(marker, color) => {
                interval(scene, center.0, y - 8.0, y + 8.0, color);
                marker.solid(scene, center, 4.5, color);
            }
            Swatch::Hollow(marker, color) => marker.hollow(scene, center, 4.5, color),
            Swatch::Faint(color) => {
                scene.shapes.push(Shape::Disc { center, radius: 2.2, color, opacity: 0.45 });
            }
            Swatch::Line(color, dash) => stroke(scene, color, dash),
            Swatch::LineMarked(marker, color, dash) => {
                stroke(scene, color, dash);
                marker.solid(scene, center, 4.5, color);
            }
            Swatch::LineHollow(marker, color, dash) => {
                stroke(scene, color, Some(dash));
                marker.hollow(scene, center, 4.5, color);
            }
            Swatch::Box(color) => scene.rect((center.0 - 8.0, y - 7.0), (16.0, 14.0), color),
            Swatch::Number(number, color) => {
                let text =
                    Text::new(number.to_string(), (center.0, y + 0.36 * SIZE), SIZE).bold().color(color);
                scene.text(text.anchor(super::Anchor::Middle));
            }
        }
        let label = font::shorten(label, SIZE, false, room - SWATCH - 4.0);
        scene.text(Text::new(label, (x + SWATCH + 4.0, y + 0.36 * SIZE), SIZE).color(INK));
    }
}

/// Draws a remark under a legend in lesser text, a line per entry.
pub(crate) fn remark(scene: &mut Scene, (x, top): Point, room: f64, lines: &[String]) {
    for (n, line) in lines.iter().enumerate() {
        let line = font::shorten(line, 11.5, false, room);
        scene.text(Text::new(line, (x, top + (n as f64 + 1.0) * 16.0), 11.5).color(MUTED));
    }
}
