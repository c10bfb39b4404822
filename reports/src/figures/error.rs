//! Error over threshold: what does sparsity cost, and is the kernel's own error far below it?

use std::collections::BTreeMap;

use crate::best::{median, positive, timed_sparse};
use crate::figures::{Figure, mask_block, nothing_timed, policy_family};
use crate::format::{plural, power_of_ten, round, significant};
use crate::record::Record;
use crate::scene::axis::Axis;
use crate::scene::legend::{self, Swatch};
use crate::scene::marker::{Marker, interval};
use crate::scene::palette::{MUTED, series};
use crate::scene::plot::{BOTTOM_ROOM, LEFT_ROOM, Plot};
use crate::scene::{FIGURE_WIDTH, MARGIN, Plotted, Scene, cell};

/// The errors at one threshold.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Point {
    pub(crate) threshold: f64,
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// One policy and mask block.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<Point>,
}

/// What the figure shows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Errors {
    /// Error against dense attention, a series per policy and mask block.
    pub(crate) sparsity: Vec<Series>,
    /// Error against the same mask, over all of them.
    pub(crate) kernel: Vec<Point>,
    /// Trials that a logarithmic scale cannot hold: error zero, or a policy without a threshold.
    pub(crate) left_out: usize,
}

/// Prepares the data, or says why there is none.
pub(crate) fn data(records: &[Record]) -> Result<Errors, String> {
    let mut sparsity: BTreeMap<(String, u64, u64), Vec<(f64, f64)>> = BTreeMap::new();
    let mut kernel = Vec::new();
    let (mut left_out, mut any) = (0, false);
    for record in timed_sparse(records) {
        any = true;
        let (Some(threshold), Some(error)) = (record.threshold, positive(record.sparsity_rel_rmse)) else {
            left_out += 1;
            continue;
        };
        let key = (policy_family(record), record.q_block, record.kv_block);
        sparsity.entry(key).or_default().push((threshold, error));
        kernel.extend(positive(record.kernel_rel_rmse).map(|error| (threshold, error)));
    }
    if sparsity.is_empty() {
        let why = "No timed trial has both a threshold and a sparsity error above zero.";
        return Err(if any { why.to_owned() } else { nothing_timed() });
    }
    let one_family = sparsity.keys().all(|(family, ..)| Some(family) == sparsity.keys().next().map(|k| &k.0));
    let sparsity = sparsity
        .into_iter()
        .map(|((family, q, kv), values)| {
            let block = format!("mask block {}", mask_block(q, kv));
            let name = if one_family { block } else { format!("{family}, {block}") };
            Series { name, points: per_threshold(values) }
        })
        .collect();
    Ok(Errors { sparsity, kernel: per_threshold(kernel), left_out })
}

fn per_threshold(mut values: Vec<(f64, f64)>) -> Vec<Point> {
    values.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    values
        .chunk_by(|a, b| a.0 == b.0)
        .filter_map(|group| {
            let (low, high) = (group.first()?.1, group.last()?.1);
            Some(Point { threshold: group[0].0, median: median(group.iter().map(|v| v.1))?, low, high })
        })
        .collect()
}

/// Makes the figure.
pub(crate) fn figure(records: &[Record]) -> Figure {
    let data = data(records);
    let mut caption = "Look for the threshold where the error becomes acceptable, and at the distance to the kernel's own \
                       error: as long as that lies far below, what you see is the price of sparsity, not of arithmetic."
        .to_owned();
    if let Ok(Errors { left_out: left_out @ 1.., .. }) = &data {
        let trials = plural(*left_out, "trial is", "trials are");
        caption.push_str(&format!(" {trials} not shown: without a threshold, or without any error."));
    }
    Figure {
        name: "error_over_threshold",
        title: "Error over threshold",
        caption,
        picture: data.and_then(|data| draw(&data).ok_or_else(nothing_timed)),
    }
}

/// From this ratio on the kernel's error gets an axis of its own: on a common one, nothing could be read.
const FAR_BELOW: f64 = 30.0;
const LEGEND_ROOM: f64 = 262.0;

/// Returns how many times the sparsity error is the kernel's, by the nearest of their points.
fn distance(data: &Errors) -> Option<f64> {
    let lowest = data.sparsity.iter().flat_map(|s| &s.points).map(|p| p.low).reduce(f64::min)?;
    let highest = data.kernel.iter().map(|p| p.high).reduce(f64::max)?;
    Some(lowest / highest)
}

fn draw(data: &Errors) -> Option<Scene> {
    let distance = distance(data);
    let apart = distance.filter(|d| *d >= FAR_BELOW);
    let mut entries = vec![(Swatch::Heading, "sparsity error, against dense".to_owned())];
    for (n, series_data) in data.sparsity.iter().enumerate() {
        entries.push((Swatch::LineMarked(Marker::series(n), series(n), None), series_data.name.clone()));
    }
    if !data.kernel.is_empty() {
        entries.push((Swatch::Heading, "kernel error, against same mask".to_owned()));
        entries
            .push((Swatch::LineMarked(Marker::Diamond, MUTED, Some((5.0, 4.0))), "all settings".to_owned()));
    }
    let upper = (legend::height(entries.len()) + 20.0).max(330.0);
    const LOWER: f64 = 90.0;
    const BREAK: f64 = 26.0;

    let mut scene = Scene::new(FIGURE_WIDTH, 0.0, describe(data));
    let top = scene.heading(
        "Error over threshold",
        "Median over all settings and lengths; bars reach from the smallest to the largest. Logarithmic scale.",
    );
    let width = FIGURE_WIDTH - MARGIN / 2.0 - LEFT_ROOM - LEGEND_ROOM - MARGIN;
    let left = MARGIN / 2.0 + LEFT_ROOM;
    let sparsity = data.sparsity.iter().flat_map(|s| &s.points);
    let values =
        |points: &mut dyn Iterator<Item = &Point>| points.flat_map(|p| [p.low, p.high]).collect::<Vec<_>>();
    let bottom = if apart.is_some() {
        let y = Axis::log("sparsity error", values(&mut sparsity.clone()), round)?;
        let bare = Axis { title: String::new(), ..x_axis(data) };
        let bare = Axis { ticks: bare.ticks.into_iter().map(|(v, _)| (v, String::new())).collect(), ..bare };
        let plot = Plot { at: (left, top), size: (width, upper), x: bare, y };
        plot.draw(&mut scene);
        draw_sparsity(&mut scene, &plot, data);
        let y = whole_decades("kernel err.", &values(&mut data.kernel.iter()))?;
        let plot = Plot { at: (left, top + upper + BREAK), size: (width, LOWER), x: x_axis(data), y };
        plot.draw(&mut scene);
        draw_kernel(&mut scene, &plot, data);
        top + upper + BREAK + LOWER
    } else {
        let y = Axis::log("relative RMSE", values(&mut sparsity.chain(&data.kernel)), round)?;
        let plot = Plot { at: (left, top), size: (width, upper), x: x_axis(data), y };
        plot.draw(&mut scene);
        draw_kernel(&mut scene, &plot, data);
        draw_sparsity(&mut scene, &plot, data);
        top + upper
    };
    scene.height = bottom + BOTTOM_ROOM;
    scene.plotted = plotted(data);
    legend::draw(&mut scene, (left + width + MARGIN, top), LEGEND_ROOM, &entries);
    if let Some(times) = apart {
        let lines = [
            "Errors are relative RMSE. The lower panel".to_owned(),
            format!("lies {} times or more below the upper.", significant_floor(times)),
        ];
        let at = (left + width + MARGIN, top + legend::height(entries.len()) + 4.0);
        legend::remark(&mut scene, at, LEGEND_ROOM, &lines);
    }
    Some(scene)
}

/// Makes an axis from one power of ten to another: on the small panel scatter must not look like a trend.
fn whole_decades(title: &str, values: &[f64]) -> Option<Axis> {
    let axis = Axis::log(title, values.iter().copied(), round)?;
    let (first, last) = (axis.low.log10().floor() as i32, axis.high.log10().ceil() as i32);
    let stride = (last - first + 2) / 3;
    let ticks =
        (first..=last).step_by(stride.max(1) as usize).map(|e| (10f64.powi(e), power_of_ten(e))).collect();
    Some(Axis { low: 10f64.powi(first), high: 10f64.powi(last), ticks, ..axis })
}

/// Returns a number rounded down to one digit: `100,000` for 123,456.
fn significant_floor(value: f64) -> String {
    let unit = 10f64.powf(value.log10().floor());
    round((value / unit).floor() * unit)
}

/// Sweeps have few thresholds: the axis names those, not round numbers between them.
fn x_axis(data: &Errors) -> Axis {
    let points = data.sparsity.iter().flat_map(|s| &s.points).chain(&data.kernel);
    let mut thresholds: Vec<f64> = points.map(|p| p.threshold).collect();
    thresholds.sort_by(f64::total_cmp);
    thresholds.dedup();
    let (low, high) = (thresholds.first().copied().unwrap_or(0.0), thresholds.last().copied().unwrap_or(1.0));
    let room = ((high - low) * 0.06).max(0.02);
    let axis = Axis::linear("threshold (probability mass kept)", low - room, high + room, |v| format!("{v}"));
    Axis { ticks: thresholds.into_iter().map(|v| (v, format!("{v}"))).collect(), ..axis }
}

fn draw_kernel(scene: &mut Scene, plot: &Plot, data: &Errors) {
    let at = |p: &Point| plot.point(p.threshold, p.median);
    scene.dashed(data.kernel.iter().map(at).collect(), 2.0, MUTED, (5.0, 4.0));
    for point in &data.kernel {
        interval(scene, plot.x_at(point.threshold), plot.y_at(point.low), plot.y_at(point.high), MUTED);
        Marker::Diamond.solid(scene, at(point), 4.5, MUTED);
    }
}

fn draw_sparsity(scene: &mut Scene, plot: &Plot, data: &Errors) {
    let count = data.sparsity.len() as f64;
    for (n, series_data) in data.sparsity.iter().enumerate() {
        // Series of one threshold stand side by side, so that their bars can be told apart.
        let aside = (n as f64 - (count - 1.0) / 2.0) * (24.0 / count).min(7.0);
        let at = |p: &Point| (plot.x_at(p.threshold) + aside, plot.y_at(p.median));
        scene.line(series_data.points.iter().map(at).collect(), 1.5, series(n));
        for point in &series_data.points {
            interval(scene, at(point).0, plot.y_at(point.low), plot.y_at(point.high), series(n));
            Marker::series(n).solid(scene, at(point), 4.5, series(n));
        }
    }
}

fn plotted(data: &Errors) -> Plotted {
    let mut rows = Plotted::new(["error", "series", "threshold", "median", "low", "high"]);
    let mut row = |error: &str, series: &str, p: &Point| {
        let [threshold, median, low, high] = [p.threshold, p.median, p.low, p.high].map(cell);
        rows.row([error.into(), series.into(), threshold, median, low, high]);
    };
    for series in &data.sparsity {
        series.points.iter().for_each(|p| row("sparsity_rel_rmse", &series.name, p));
    }
    data.kernel.iter().for_each(|p| row("kernel_rel_rmse", "all settings", p));
    rows
}

fn describe(data: &Errors) -> String {
    let series = data.sparsity.iter().filter_map(|series| {
        let (first, last) = (series.points.first()?, series.points.last()?);
        Some(format!(
            "{}: {} at threshold {} to {} at {}",
            series.name,
            significant(first.median),
            first.threshold,
            significant(last.median),
            last.threshold
        ))
    });
    let mut text = format!("Relative RMSE against threshold. {}", series.collect::<Vec<_>>().join("; "));
    if let Some(kernel) = median(data.kernel.iter().map(|p| p.median)) {
        text.push_str(&format!("; kernel error about {}", significant(kernel)));
    }
    text + "."
}
