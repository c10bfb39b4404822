//! Mask policies side by side: what does each cost in accuracy at the same density?

use std::path::Path;

use crate::figures::replay::{PictureFiles, write_scene};
use crate::format::percent;
use crate::scene::axis::Axis;
use crate::scene::legend::{self, Swatch};
use crate::scene::marker::Marker;
use crate::scene::palette::series;
use crate::scene::plot::{BOTTOM_ROOM, LEFT_ROOM, Plot};
use crate::scene::{FIGURE_WIDTH, MARGIN, Scene};
use crate::write::ReportError;

/// One family of policies.
#[derive(Debug, Clone, PartialEq)]
pub struct QualitySeries {
    /// Its name.
    pub name: String,
    /// Density, 0 to 1, and sparsity error (relative RMSE against dense) of each of its settings.
    pub points: Vec<(f64, f64)>,
}

/// Policies on one input.
#[derive(Debug, Clone, PartialEq)]
pub struct QualityPlot {
    /// What was attended to.
    pub input: String,
    /// Families.
    pub series: Vec<QualitySeries>,
}

/// Writes `STEM.png` and `STEM.svg` into an existing folder.
///
/// # Errors
/// When there is nothing to draw or a file cannot be written.
pub fn write_quality(plot: &QualityPlot, folder: &Path, stem: &str) -> Result<PictureFiles, ReportError> {
    write_scene(draw(plot).ok_or("no policy has an error to show"), folder, stem)
}

/// Densities further apart than this ratio are not joined: a line would say what nobody computed.
const WIDEST: f64 = 3.0;

/// Returns the stroke of the n-th family: patterns change when the colours start again.
fn dash(n: usize) -> Option<(f64, f64)> {
    [None, Some((6.0, 3.0)), Some((2.0, 3.0))][(n / 6) % 3]
}

fn draw(data: &QualityPlot) -> Option<Scene> {
    const LEGEND_ROOM: f64 = 190.0;
    let points = || data.series.iter().flat_map(|family| family.points.iter().copied());
    let x = Axis::log("density (kept blocks / all blocks)", points().map(|(density, _)| density), percent)?;
    let most = points().map(|(_, error)| error).fold(0.0, f64::max);
    if !(most > 0.0 && most.is_finite()) {
        return None;
    }
    let y = Axis::linear("sparsity error (relative RMSE)", 0.0, most * 1.05, |v| format!("{v}"));
    let entry = |(n, family): (usize, &QualitySeries)| {
        (Swatch::LineMarked(Marker::series(n), series(n), dash(n)), family.name.clone())
    };
    let entries: Vec<_> = data.series.iter().enumerate().map(entry).collect();
    let plot_height = legend::height(entries.len()).max(380.0);
    let mut scene = Scene::new(FIGURE_WIDTH, 0.0, describe(data));
    let subtitle =
        format!("{}. Each setting against dense attention in float64; lower is better.", data.input);
    let top = scene.heading("What each mask policy costs at its density", &subtitle);
    scene.height = top + plot_height + BOTTOM_ROOM;
    let width = FIGURE_WIDTH - MARGIN / 2.0 - LEFT_ROOM - LEGEND_ROOM - MARGIN;
    let plot = Plot { at: (MARGIN / 2.0 + LEFT_ROOM, top), size: (width, plot_height), x, y };
    plot.draw(&mut scene);
    for (n, family) in data.series.iter().enumerate() {
        for near in family.points.chunk_by(|a, b| b.0 <= WIDEST * a.0) {
            let line: Vec<_> = near.iter().map(|&(density, error)| plot.point(density, error)).collect();
            for &at in &line {
                Marker::series(n).solid(&mut scene, at, 3.5, series(n));
            }
            match dash(n) {
                None => scene.line(line, 1.5, series(n)),
                Some(dash) => scene.dashed(line, 1.5, series(n), dash),
            }
        }
    }
    legend::draw(&mut scene, (plot.at.0 + width + MARGIN, top), LEGEND_ROOM, &entries);
    Some(scene)
}

fn describe(data: &QualityPlot) -> String {
    let all: Vec<String> = data
        .series
        .iter()
        .filter_map(|family| {
            let (density, error) = family.points.first()?;
            Some(format!("{} {error:.3} at {}", family.name, percent(*density)))
        })
        .collect();
    format!("Sparsity error over density on {}: {}.", data.input, all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_is_drawn_and_nothing_to_show_is_an_error() {
        let family = |n: usize| QualitySeries {
            name: format!("family-{n}"),
            points: (1..6).map(|d| (f64::from(d) * 0.15, 1.0 / (f64::from(d) + n as f64))).collect(),
        };
        let folder = tempfile::tempdir().expect("a folder");
        let plot = QualityPlot { input: "a clip".into(), series: (0..13).map(family).collect() };
        let files = write_quality(&plot, folder.path(), "quality").expect("files");
        let svg = std::fs::read_to_string(files.svg).expect("text");
        assert!((0..13).all(|n| svg.contains(&format!("family-{n}"))));
        let none = QualityPlot { series: Vec::new(), ..plot };
        let error = write_quality(&none, folder.path(), "quality").expect_err("an error");
        assert!(error.to_string().contains("no policy"), "{error}");
    }
}
