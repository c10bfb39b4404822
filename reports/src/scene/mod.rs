//! A picture as plain data: shapes and texts at positions, in pixels from the top left.
//!
//! Figures build a [`Scene`]; [`render`] alone knows the drawing backends. A scene can be tested without looking:
//! every text knows its box.

pub(crate) mod axis;
pub(crate) mod font;
pub(crate) mod legend;
pub(crate) mod marker;
pub(crate) mod palette;
pub(crate) mod plot;
pub(crate) mod render;

use palette::Color;

/// A position: x to the right, y down, in pixels.
pub(crate) type Point = (f64, f64);

/// Where a text hangs on its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// One line of text on a baseline.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Text {
    pub(crate) content: String,
    /// Where the baseline starts, has its middle or ends, by `anchor`.
    pub(crate) at: Point,
    pub(crate) anchor: Anchor,
    pub(crate) size: f64,
    pub(crate) bold: bool,
    pub(crate) color: Color,
    /// Written upwards.
    pub(crate) vertical: bool,
}

impl Text {
    pub(crate) fn new(content: impl Into<String>, at: Point, size: f64) -> Self {
        Self {
            content: content.into(),
            at,
            anchor: Anchor::Start,
            size,
            bold: false,
            color: palette::INK,
            vertical: false,
        }
    }

    pub(crate) fn anchor(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }

    pub(crate) fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    pub(crate) fn color(self, color: Color) -> Self {
        Self { color, ..self }
    }

    pub(crate) fn vertical(self) -> Self {
        Self { vertical: true, ..self }
    }

    /// Returns left, top, right and bottom of the room the text takes.
    #[cfg(test)]
    pub(crate) fn bounds(&self) -> [f64; 4] {
        let width = font::width(&self.content, self.size, self.bold);
        let before = match self.anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => width / 2.0,
            Anchor::End => width,
        };
        let (x, y) = self.at;
        // Capitals reach 0.73 em above the baseline, descenders 0.2 em below.
        if self.vertical {
            [x - 0.73 * self.size, y - (width - before), x + 0.2 * self.size, y + before]
        } else {
            [x - before, y - 0.73 * self.size, x - before + width, y + 0.2 * self.size]
        }
    }
}

/// Something drawn.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shape {
    /// A line through points; `dash` is the length of a dash and of a gap.
    Line { points: Vec<Point>, width: f64, color: Color, dash: Option<(f64, f64)> },
    /// A filled polygon.
    Polygon { points: Vec<Point>, color: Color, opacity: f64 },
    /// A filled circle.
    Disc { center: Point, radius: f64, color: Color, opacity: f64 },
    /// A filled rectangle.
    Rect { at: Point, size: (f64, f64), color: Color },
    /// A text.
    Text(Text),
}

/// A picture: later shapes lie over earlier ones.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scene {
    pub(crate) width: f64,
    pub(crate) height: f64,
    /// What the picture shows, for those who cannot see it.
    pub(crate) description: String,
    pub(crate) shapes: Vec<Shape>,
    /// Exactly what is plotted, for a CSV file beside the picture.
    pub(crate) plotted: Plotted,
}

/// The plotted numbers: names of columns, and rows of cells.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Plotted {
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Plotted {
    pub(crate) fn new<const N: usize>(columns: [&'static str; N]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Appends a row, a cell for each column.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells.to_vec());
    }
}

/// Returns a cell for a number: empty when there is none.
pub(crate) fn cell(value: impl Into<Option<f64>>) -> String {
    value.into().map(|v| v.to_string()).unwrap_or_default()
}

impl Scene {
    pub(crate) fn new(width: f64, height: f64, description: impl Into<String>) -> Self {
        Self {
            width,
            height,
            description: description.into(),
            shapes: Vec::new(),
            plotted: Plotted::default(),
        }
    }

    pub(crate) fn text(&mut self, text: Text) {
        self.shapes.push(Shape::Text(text));
    }

    pub(crate) fn line(&mut self, points: Vec<Point>, width: f64, color: Color) {
        self.shapes.push(Shape::Line { points, width, color, dash: None });
    }

    pub(crate) fn dashed(&mut self, points: Vec<Point>, width: f64, color: Color, dash: (f64, f64)) {
        self.shapes.push(Shape::Line { points, width, color, dash: Some(dash) });
    }

    pub(crate) fn rect(&mut self, at: Point, size: (f64, f64), color: Color) {
        self.shapes.push(Shape::Rect { at, size, color });
    }

    /// Draws the outline of a rectangle.
    pub(crate) fn frame(&mut self, (x, y): Point, (w, h): (f64, f64), width: f64, color: Color) {
        self.line(vec![(x, y), (x + w, y), (x + w, y + h), (x, y + h), (x, y)], width, color);
    }

    /// Fills a rectangle with diagonal strokes.
    pub(crate) fn hatch(&mut self, (x, y): Point, (w, h): (f64, f64), color: Color) {
        const STEP: f64 = 7.0;
        let mut offset = STEP;
        while offset < w + h {
            // The line x' + y' = offset within [0, w] x [0, h].
            let (x0, x1) = ((offset - h).max(0.0), offset.min(w));
            self.line(vec![(x + x0, y + offset - x0), (x + x1, y + offset - x1)], 1.0, color);
            offset += STEP;
        }
    }

    /// Draws the heading every figure has and returns the height it takes.
    pub(crate) fn heading(&mut self, title: &str, subtitle: &str) -> f64 {
        let room = self.width - 2.0 * MARGIN;
        self.text(Text::new(font::shorten(title, 18.0, true, room), (MARGIN, 32.0), 18.0).bold());
        let subtitle = font::shorten(subtitle, 12.5, false, room);
        self.text(Text::new(subtitle, (MARGIN, 53.0), 12.5).color(palette::MUTED));
        68.0
    }

    /// Adds a line of lesser text under everything.
    pub(crate) fn foot(&mut self, text: &str) {
        let text = font::shorten(text, 10.5, false, self.width - 2.0 * MARGIN);
        self.height += 20.0;
        self.text(Text::new(text, (MARGIN, self.height - 8.0), 10.5).color(palette::MUTED));
    }

    #[cfg(test)]
    pub(crate) fn texts(&self) -> impl Iterator<Item = &Text> {
        self.shapes.iter().filter_map(|shape| match shape {
            Shape::Text(text) => Some(text),
            _ => None,
        })
    }
}

/// Room left free at the edges of a figure.
pub(crate) const MARGIN: f64 = 20.0;
/// Width of every figure.
pub(crate) const FIGURE_WIDTH: f64 = 960.0;
