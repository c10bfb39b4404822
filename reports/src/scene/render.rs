//! Draws a scene as SVG or PNG through plotters' backends.

use std::path::Path;

use plotters::backend::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color as _, FontDesc, FontStyle, FontTransform, RGBColor, ShapeStyle, TextStyle};

use super::palette::{Color, PAPER};
use super::{Anchor, Point, Scene, Shape, Text, font};

/// A backend refused to draw; the text is its own.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DrawError(pub(crate) String);

impl DrawError {
    pub(crate) fn new(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// Backends place whole pixels. SVG is drawn this much larger, and its view box scales it back.
const SVG_ZOOM: f64 = 8.0;
/// Pixels of a PNG per pixel of the scene.
pub(crate) const PNG_SCALE: usize = 2;
/// PNG is drawn this much larger still and averaged down, which smooths every edge.
const PNG_SAMPLES: usize = 2;

/// Returns the scene as one SVG document with a title for screen readers.
pub(crate) fn svg(scene: &Scene) -> Result<String, DrawError> {
    let (width, height) = (scene.width.ceil(), scene.height.ceil());
    let size = ((width * SVG_ZOOM) as u32, (height * SVG_ZOOM) as u32);
    let mut body = String::new();
    let mut canvas = Canvas {
        backend: SVGBackend::with_string(&mut body, size),
        zoom: SVG_ZOOM,
        // plotters writes font-size = size / 1.24 and hangs a text 0.76 em below its top.
        text_scale: 1.24,
        baseline_em: 0.76,
        smooth_joints: false,
    };
    canvas.scene(scene)?;
    drop(canvas);
    let old = format!("<svg width=\"{}\" height=\"{}\"", size.0, size.1);
    let new = format!("<svg role=\"img\" width=\"{width}\" height=\"{height}\"");
    let body = body.replacen(&old, &new, 1);
    // The title is the first child of the root element.
    let (root, rest) =
        body.split_once('\n').ok_or_else(|| DrawError("the SVG backend wrote nothing".into()))?;
    Ok(format!("{root}\n<title>{}</title>\n{rest}", escape(&scene.description)))
}

/// Pixels laid over a picture as they are. Positions and sizes are in pixels of the PNG.
pub(crate) struct Image {
    pub(crate) at: (usize, usize),
    pub(crate) size: (usize, usize),
    /// Row by row.
    pub(crate) rgb: Vec<u8>,
}

/// Writes the scene as a PNG of twice its size.
pub(crate) fn png(scene: &Scene, path: &Path) -> Result<(), DrawError> {
    png_with_images(scene, &[], path)
}

/// Writes the scene as a PNG of twice its size with images over it; what lies outside is cut off.
pub(crate) fn png_with_images(scene: &Scene, images: &[Image], path: &Path) -> Result<(), DrawError> {
    let zoom = PNG_SCALE * PNG_SAMPLES;
    let size = ((scene.width.ceil() as usize) * PNG_SCALE, (scene.height.ceil() as usize) * PNG_SCALE);
    let large = (size.0 * PNG_SAMPLES, size.1 * PNG_SAMPLES);
    let mut pixels = vec![0u8; large.0 * large.1 * 3];
    let mut canvas = Canvas {
        backend: BitMapBackend::with_buffer(&mut pixels, (large.0 as u32, large.1 as u32)),
        zoom: zoom as f64,
        text_scale: font::LINE_HEIGHT_EM,
        // plotters puts the baseline half a line height below the top.
        baseline_em: font::LINE_HEIGHT_EM / 2.0,
        smooth_joints: true,
    };
    canvas.scene(scene)?;
    drop(canvas);
    let mut pixels = halve(&pixels, large);
    for Image { at, size: (width, height), rgb } in images {
        let width_inside = (*width).min(size.0.saturating_sub(at.0));
        for row in 0..(*height).min(size.1.saturating_sub(at.1)) {
            let target = ((at.1 + row) * size.0 + at.0) * 3;
            pixels[target..][..width_inside * 3].copy_from_slice(&rgb[row * width * 3..][..width_inside * 3]);
        }
    }
    write_png(path, size, &pixels)
}

/// Writes RGB pixels, row by row, as PNG.
fn write_png(path: &Path, (width, height): (usize, usize), rgb: &[u8]) -> Result<(), DrawError> {
    let size = (width as u32, height as u32);
    let mut file = BitMapBackend::new(path, size);
    file.blit_bitmap((0, 0), size, rgb).map_err(DrawError::new)?;
    file.present().map_err(DrawError::new)
}

/// Averages blocks of 2 x 2 pixels.
fn halve(pixels: &[u8], (width, height): (usize, usize)) -> Vec<u8> {
    const { assert!(PNG_SAMPLES == 2) };
    let mut out = Vec::with_capacity(pixels.len() / 4);
    for y in (0..height).step_by(2) {
        let (upper, lower) =
            (&pixels[y * width * 3..][..width * 3], &pixels[(y + 1) * width * 3..][..width * 3]);
        for (a, b) in upper.chunks_exact(6).zip(lower.chunks_exact(6)) {
            for c in 0..3 {
                let sum = u16::from(a[c]) + u16::from(a[c + 3]) + u16::from(b[c]) + u16::from(b[c + 3]);
                out.push(((sum + 2) / 4) as u8);
            }
        }
    }
    out
}

/// A backend and how it is to be spoken to.
struct Canvas<B> {
    backend: B,
    zoom: f64,
    text_scale: f64,
    baseline_em: f64,
    smooth_joints: bool,
}

impl<B: DrawingBackend> Canvas<B> {
    fn scene(&mut self, scene: &Scene) -> Result<(), DrawError> {
        if !font::register() {
            return Err(DrawError("the embedded font cannot be read: this build is broken".into()));
        }
        self.rect((0.0, 0.0), (scene.width.ceil(), scene.height.ceil()), PAPER)?;
        for shape in &scene.shapes {
            match shape {
                Shape::Line { points, width, color, dash: None } => self.line(points, *width, *color)?,
                Shape::Line { points, width, color, dash: Some(dash) } => {
                    for dash in dashes(points, *dash) {
                        self.line(&dash, *width, *color)?;
                    }
                }
                Shape::Polygon { points, color, opacity } => {
                    let points: Vec<_> = points.iter().map(|p| self.pixel(*p)).collect();
                    self.backend.fill_polygon(points, &style(*color, *opacity)).map_err(DrawError::new)?;
                }
                Shape::Disc { center, radius, color, opacity } => {
                    let (center, radius) = (self.pixel(*center), (radius * self.zoom).round() as u32);
                    let style = style(*color, *opacity);
                    self.backend.draw_circle(center, radius, &style, true).map_err(DrawError::new)?;
                }
                Shape::Rect { at, size, color } => self.rect(*at, *size, *color)?,
                Shape::Text(text) => self.text(text)?,
            }
        }
        self.backend.present().map_err(DrawError::new)
    }

    fn pixel(&self, (x, y): Point) -> (i32, i32) {
        ((x * self.zoom).round() as i32, (y * self.zoom).round() as i32)
    }

    fn rect(&mut self, (x, y): Point, (w, h): (f64, f64), color: Color) -> Result<(), DrawError> {
        let (from, to) = (self.pixel((x, y)), self.pixel((x + w, y + h)));
        self.backend.draw_rect(from, to, &style(color, 1.0), true).map_err(DrawError::new)
    }

    fn line(&mut self, points: &[Point], width: f64, color: Color) -> Result<(), DrawError> {
        let style =
            ShapeStyle { stroke_width: (width * self.zoom).round().max(1.0) as u32, ..style(color, 1.0) };
        let points: Vec<_> = points.iter().map(|p| self.pixel(*p)).collect();
        if !self.smooth_joints {
            return self.backend.draw_path(points, &style).map_err(DrawError::new);
        }
        // The rasteriser's own joints have spikes: draw each stretch by itself and round the corners.
        for pair in points.windows(2) {
            self.backend.draw_line(pair[0], pair[1], &style).map_err(DrawError::new)?;
        }
        for &corner in points.iter().skip(1).take(points.len().saturating_sub(2)) {
            self.backend.draw_circle(corner, style.stroke_width / 2, &style, true).map_err(DrawError::new)?;
        }
        Ok(())
    }

    fn text(&mut self, text: &Text) -> Result<(), DrawError> {
        let em = text.size * self.zoom;
        let face = if text.bold { FontStyle::Bold } else { FontStyle::Normal };
        let mut description = FontDesc::new(font::FAMILY, em * self.text_scale, face);
        let h_pos = match text.anchor {
            Anchor::Start => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::End => HPos::Right,
        };
        let (x, y) = text.at;
        let up = self.baseline_em * text.size;
        let top = if text.vertical {
            description = description.transform(FontTransform::Rotate270);
            self.pixel((x - up, y))
        } else {
            self.pixel((x, y - up))
        };
        let color = rgb(text.color);
        let style = TextStyle::from(description).color(&color).pos(Pos::new(h_pos, VPos::Top));
        self.backend.draw_text(&text.content, &style, top).map_err(DrawError::new)
    }
}

fn rgb(color: Color) -> RGBColor {
    RGBColor(color.0, color.1, color.2)
}

fn style(color: Color, opacity: f64) -> ShapeStyle {
    ShapeStyle { color: rgb(color).mix(opacity), filled: true, stroke_width: 1 }
}

/// Cuts a line into dashes; the pattern runs on around corners.
fn dashes(points: &[Point], (dash, gap): (f64, f64)) -> Vec<Vec<Point>> {
    let mut out = Vec::new();
    let mut current = Vec::new();
    let (mut drawing, mut left) = (true, dash);
    for pair in points.windows(2) {
        let ((mut x, mut y), (x1, y1)) = (pair[0], pair[1]);
        loop {
            let length = (x1 - x).hypot(y1 - y);
            if drawing && current.is_empty() {
                current.push((x, y));
            }
            if length <= left {
                left -= length;
                if drawing {
                    current.push((x1, y1));
                }
                break;
            }
            x += (x1 - x) * left / length;
            y += (y1 - y) * left / length;
            if drawing {
                current.push((x, y));
                out.push(std::mem::take(&mut current));
            }
            drawing = !drawing;
            left = if drawing { dash } else { gap };
        }
    }
    if current.len() > 1 {
        out.push(current);
    }
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_run_on_around_corners() {
        let dashes = dashes(&[(0.0, 0.0), (10.0, 0.0), (10.0, 10.0)], (6.0, 3.0));
        assert_eq!(
            dashes,
            [
                vec![(0.0, 0.0), (6.0, 0.0)],
                vec![(9.0, 0.0), (10.0, 0.0), (10.0, 5.0)],
                vec![(10.0, 8.0), (10.0, 10.0)]
            ]
        );
    }

    #[test]
    fn halving_averages() {
        let pixels = [0, 0, 0, 40, 40, 40, 80, 80, 80, 120, 120, 120];
        assert_eq!(halve(&pixels, (2, 2)), [60, 60, 60]);
    }
}
