//! Search strategies on a replay: how near the optimum does each come, and how soon?

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::format::{count, plural};
use crate::scene::axis::Axis;
use crate::scene::legend::{self, Swatch};
use crate::scene::marker::{Marker, interval};
use crate::scene::palette::series;
use crate::scene::plot::{BOTTOM_ROOM, LEFT_ROOM, Plot};
use crate::scene::render::{self, DrawError};
use crate::scene::{FIGURE_WIDTH, MARGIN, Scene};
use crate::write::ReportError;

/// Runs of one strategy.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplaySeries {
    /// Name of the strategy.
    pub name: String,
    /// First quartile, median and third quartile over the repeats of the fraction of the optimum reached, 0 to 1,
    /// after each evaluation.
    pub quartiles: Vec<[f64; 3]>,
    /// Number of repeats.
    pub repeats: usize,
}

/// Strategies on one recording.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayPlot {
    /// What was recorded.
    pub recording: String,
    /// Points of its space.
    pub points: usize,
    /// Strategies.
    pub series: Vec<ReplaySeries>,
}

/// The pictures of a figure that stands by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PictureFiles {
    /// Pixels.
    pub png: PathBuf,
    /// Vectors.
    pub svg: PathBuf,
}

/// Writes `STEM.png` and `STEM.svg` into an existing folder.
///
/// # Errors
/// When there is nothing to draw or a file cannot be written.
pub fn write_replay(plot: &ReplayPlot, folder: &Path, stem: &str) -> Result<PictureFiles, ReportError> {
    write_scene(draw(plot).ok_or("there is no evaluation to show"), folder, stem)
}

/// Writes a scene as pixels and as vectors, or fails with why there is none.
pub(crate) fn write_scene(
    scene: Result<Scene, &'static str>,
    folder: &Path,
    stem: &str,
) -> Result<PictureFiles, ReportError> {
    let (png, svg) = (folder.join(stem).with_extension("png"), folder.join(stem).with_extension("svg"));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ReportError::Draw { path, source }
    };
    let scene = scene.map_err(|why| failed(&svg)(DrawError::new(why)))?;
    let text = render::svg(&scene).map_err(failed(&svg))?;
    fs::write(&svg, text).map_err(|source| ReportError::Io { path: svg.clone(), source })?;
    render::png(&scene, &png).map_err(failed(&png))?;
    Ok(PictureFiles { png, svg })
}

/// Returns the stroke of the n-th strategy: patterns change when the colours start again.
fn dash(n: usize) -> Option<(f64, f64)> {
    [None, Some((6.0, 3.0)), Some((2.0, 3.0))][(n / 6) % 3]
}

/// Returns evaluations, counted from 1, at which the spread is drawn: about eight, evenly on a logarithmic scale.
fn spread_at(length: usize) -> Vec<usize> {
    let mut at: Vec<usize> =
        (1..=8).map(|n| (length as f64).powf(f64::from(n) / 8.0).round() as usize).collect();
    at.dedup();
    at
}

fn draw(data: &ReplayPlot) -> Option<Scene> {
    const LEGEND_ROOM: f64 = 190.0;
    let length = data.series.iter().map(|series| series.quartiles.len()).max().filter(|&n| n > 0)?;
    let x = Axis::log("evaluations", [1.0, length as f64], |v| count(v as u64))?;
    let y = Axis::linear("fraction of the optimum", 0.0, 1.0, |v| format!("{v}"));

    let entry = |(n, of): (usize, &ReplaySeries)| {
        (Swatch::LineMarked(Marker::series(n), series(n), dash(n)), of.name.clone())
    };
    let entries: Vec<_> = data.series.iter().enumerate().map(entry).collect();
    let plot_height = legend::height(entries.len()).max(380.0);
    let mut scene = Scene::new(FIGURE_WIDTH, 0.0, describe(data));
    let repeats = data.series.first().map_or(0, |series| series.repeats);
    let subtitle = format!(
        "{}, {} points. Best time there is over best time found: median and quartiles of {}.",
        data.recording,
        count(data.points as u64),
        plural(repeats, "repeat", "repeats")
    );
    let top = scene.heading("How soon each strategy comes near the optimum", &subtitle);
    scene.height = top + plot_height + BOTTOM_ROOM;
    let width = FIGURE_WIDTH - MARGIN / 2.0 - LEFT_ROOM - LEGEND_ROOM - MARGIN;
    let plot = Plot { at: (MARGIN / 2.0 + LEFT_ROOM, top), size: (width, plot_height), x, y };
    plot.draw(&mut scene);

    for (n, strategy) in data.series.iter().enumerate() {
        // Steps: nothing changes between two evaluations.
        let mut line = Vec::new();
        for (at, [_, median, _]) in strategy.quartiles.iter().enumerate() {
            let (x, y) = plot.point((at + 1) as f64, *median);
            if let Some(&(_, before)) = line.last() {
                line.push((x, before));
            }
            line.push((x, y));
        }
        match dash(n) {
            None => scene.line(line, 2.0, series(n)),
            Some(dash) => scene.dashed(line, 2.0, series(n), dash),
        }
    }
    let strategies = data.series.len() as f64;
    for (n, strategy) in data.series.iter().enumerate() {
        let aside = (n as f64 - (strategies - 1.0) / 2.0) * (24.0 / strategies).min(6.0);
        for at in spread_at(strategy.quartiles.len()) {
            let [low, median, high] = strategy.quartiles[at - 1];
            let x = plot.x_at(at as f64) + aside;
            interval(&mut scene, x, plot.y_at(low), plot.y_at(high), series(n));
            Marker::series(n).solid(&mut scene, (x, plot.y_at(median)), 4.0, series(n));
        }
    }
    legend::draw(&mut scene, (plot.at.0 + width + MARGIN, top), LEGEND_ROOM, &entries);
    Some(scene)
}

fn describe(data: &ReplayPlot) -> String {
    let last = |series: &ReplaySeries| {
        let median = series.quartiles.last().map_or(0.0, |quartiles| quartiles[1]);
        format!("{} {median:.3} after {} evaluations", series.name, series.quartiles.len())
    };
    let all: Vec<String> = data.series.iter().map(last).collect();
    format!("Median fraction of the optimum over evaluations on {}: {}.", data.recording, all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(series: usize, evaluations: usize) -> ReplayPlot {
        let quartiles = |n: usize| -> Vec<[f64; 3]> {
            let median = |at: usize| 1.0 - 1.0 / (2.0 + at as f64 / (n + 1) as f64);
            (0..evaluations).map(|at| [median(at) * 0.9, median(at), median(at) * 0.5 + 0.5]).collect()
        };
        let series = (0..series).map(|n| ReplaySeries {
            name: format!("strategy {n}"),
            quartiles: quartiles(n),
            repeats: 50,
        });
        ReplayPlot { recording: "a kernel on a device".into(), points: 4362, series: series.collect() }
    }

    #[test]
    fn no_two_texts_overlap_and_none_is_cut_off() {
        for (series, evaluations) in [(1, 1), (2, 7), (8, 50), (3, 20_000)] {
            let scene = draw(&plot(series, evaluations)).expect("a scene");
            let texts: Vec<_> = scene.texts().filter(|text| !text.content.is_empty()).collect();
            assert!(texts.len() >= 8, "{series} {evaluations}");
            for (i, text) in texts.iter().enumerate() {
                let [left, top, right, bottom] = text.bounds();
                let inside = left >= 0.0 && top >= 0.0 && right <= scene.width && bottom <= scene.height;
                assert!(inside, "{:?} is cut off at {:?}", text.content, text.bounds());
                for other in &texts[..i] {
                    let [l, t, r, b] = other.bounds();
                    assert!(
                        left >= r || l >= right || top >= b || t >= bottom,
                        "{text:?} overlaps {other:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_spread_is_drawn_at_evaluations_there_are() {
        for length in [1, 2, 3, 87, 20_000] {
            let at = spread_at(length);
            assert!(!at.is_empty() && at.iter().all(|n| (1..=length).contains(n)), "{length}: {at:?}");
            assert_eq!(at.last(), Some(&length));
        }
    }

    #[test]
    fn nothing_to_show_is_an_error_and_no_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = write_replay(&plot(0, 0), folder.path(), "replay").expect_err("an error");
        assert!(error.to_string().contains("there is no evaluation to show"), "{error}");
        write_replay(&plot(3, 40), folder.path(), "replay").expect("files");
        let size = |name: &str| fs::metadata(folder.path().join(name)).map_or(0, |meta| meta.len());
        assert!(size("replay.png") > 5_000 && size("replay.svg") > 5_000);
    }
}
