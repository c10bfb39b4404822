//! Speedup over sparsity: does skipping blocks save the time it should?

use std::collections::HashSet;

use crate::best::{TimeInterval, best_settings, positive, timed_sparse};
use crate::figures::{Figure, nothing_timed, thin_out, thinned};
use crate::format::{plural, round};
use crate::problem::{self, Problem};
use crate::record::Record;
use crate::scene::axis::Axis;
use crate::scene::legend::{self, Swatch};
use crate::scene::marker::{Marker, interval};
use crate::scene::palette::{INK, MUTED, series};
use crate::scene::plot::{BOTTOM_ROOM, LEFT_ROOM, Plot};
use crate::scene::{FIGURE_WIDTH, MARGIN, Plotted, Scene, Shape, cell};

/// A ratio of times with its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Speedup {
    pub(crate) middle: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Speedup {
    fn new(dense_us: f64, time: TimeInterval) -> Self {
        Self { middle: dense_us / time.median_us, low: dense_us / time.high_us, high: dense_us / time.low_us }
    }
}

/// The best setting for one policy.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Point {
    pub(crate) sparsity: f64,
    pub(crate) attention: Speedup,
    pub(crate) total: Option<Speedup>,
}

/// One problem.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) best: Vec<Point>,
    /// Sparsity and speedup (attention only) of every other setting.
    pub(crate) others: Vec<(f64, f64)>,
}

/// Prepares the data, or says why there is none.
pub(crate) fn data(records: &[Record]) -> Result<Vec<Series>, String> {
    if timed_sparse(records).next().is_none() {
        return Err(nothing_timed());
    }
    let best = best_settings(records);
    let groups = problem::grouped(timed_sparse(records));
    let problems: Vec<Problem> = groups.keys().cloned().collect();
    let names = problem::names(&problems);
    let mut all: Vec<Series> =
        names.into_iter().map(|name| Series { name, best: vec![], others: vec![] }).collect();
    let winners: HashSet<*const Record> =
        best.iter().map(|setting| std::ptr::from_ref(setting.record)).collect();
    let place = |problem: &Problem| problems.binary_search(problem).ok();
    let sparsity = |r: &Record| r.density.filter(|d| (0.0..=1.0).contains(d)).map(|d| 1.0 - d);
    for setting in &best {
        let (Some(n), Some(dense), Some(sparsity), Some(attention)) = (
            place(&setting.problem),
            setting.dense_us,
            sparsity(setting.record),
            TimeInterval::attention(setting.record),
        ) else {
            continue;
        };
        let total = TimeInterval::total(setting.record).map(|time| Speedup::new(dense, time));
        all[n].best.push(Point { sparsity, attention: Speedup::new(dense, attention), total });
    }
    for (series, records) in all.iter_mut().zip(groups.values()) {
        let others = records.iter().filter(|r| !winners.contains(&std::ptr::from_ref::<Record>(r)));
        series.others.extend(others.filter_map(|r| {
            Some((sparsity(r)?, positive(r.dense_us_median)? / positive(r.time_us_median)?))
        }));
    }
    all.retain(|series| !series.best.is_empty());
    for series in &mut all {
        series.best.sort_by(|a, b| a.sparsity.total_cmp(&b.sparsity));
        series.others.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    }
    // What is between the shortest and the longest can be seen in the table.
    thin_out(&mut all, MAX_SERIES);
    if all.is_empty() {
        return Err("No trial has both a density and a dense time to compare with.".to_owned());
    }
    Ok(all)
}

/// Problems drawn at most: more marks cannot be told apart.
const MAX_SERIES: usize = 8;

/// How far above the ideal a speedup must lie to be remarked on: less is noise of the dense time.
const ABOVE_IDEAL: f64 = 1.1;

/// Makes the figure.
pub(crate) fn figure(records: &[Record]) -> Figure {
    let data = data(records);
    let mut caption = "Look at how far the marks stay below the dashed line: on it, skipping a block would save all of \
                       its time. The gap between an outlined mark and the solid one under it is the cost of building \
                       the mask."
        .to_owned();
    let above = |p: &Point| p.attention.middle * (1.0 - p.sparsity) > ABOVE_IDEAL;
    if data.as_ref().is_ok_and(|data| data.iter().flat_map(|s| &s.best).any(above)) {
        caption.push_str(
            " Marks clearly above the line owe that to more than sparsity: dense attention was slowed by something \
             else, such as its tile or a busy machine.",
        );
    }
    let problems = problem::grouped(timed_sparse(records)).len();
    if let Ok(data) = &data
        && problems > data.len()
    {
        let others = plural(problems - data.len(), "problem is", "problems are");
        caption.push_str(&format!(" {others} not drawn; the table has them all."));
    }
    Figure {
        name: "speedup_over_sparsity",
        title: "Speedup over sparsity",
        caption,
        picture: data.and_then(|data| draw(&data).ok_or_else(nothing_timed)),
    }
}

/// Faint dots at most, over all problems.
const MAX_DOTS: usize = 900;

fn draw(data: &[Series]) -> Option<Scene> {
    const LEGEND_ROOM: f64 = 250.0;
    let points = || data.iter().flat_map(|series| &series.best);
    let sparsities =
        || points().map(|p| p.sparsity).chain(data.iter().flat_map(|s| s.others.iter().map(|(x, _)| *x)));
    let (low, high) = sparsities().fold((f64::INFINITY, 0.0f64), |(l, h), x| (l.min(x), h.max(x)));
    // Whole steps of 10 % around what was measured; 100 % itself has no ideal.
    let (low, high) =
        (((low - 0.02) * 10.0).floor().max(0.0) / 10.0, ((high + 0.02) * 10.0).ceil().min(10.0) / 10.0);
    let x = Axis::linear("sparsity (share of blocks skipped)", low, high, |v| format!("{:.0} %", v * 100.0));
    let speedups = points().flat_map(|p| {
        [Some(p.attention), p.total]
            .into_iter()
            .flatten()
            .flat_map(|s| [s.low, s.high])
            .chain([1.0 / (1.0 - p.sparsity)])
    });
    let others = data.iter().flat_map(|s| s.others.iter().map(|(_, y)| *y));
    let values: Vec<f64> =
        speedups.chain(others).chain([1.0]).filter(|v| positive(Some(*v)).is_some()).collect();
    let y = Axis::log("speedup over dense attention", values, |v| format!("{}×", round(v)))?;

    let mut entries = vec![(Swatch::Heading, "best setting of each policy".to_owned())];
    for (n, series_data) in data.iter().enumerate() {
        entries.push((Swatch::Solid(Marker::series(n), series(n)), series_data.name.clone()));
    }
    entries.push((Swatch::Heading, "marks".to_owned()));
    entries.push((Swatch::LineMarked(Marker::Circle, MUTED, None), "mask + attention, 95 %".to_owned()));
    entries.push((Swatch::LineHollow(Marker::Circle, MUTED, (2.0, 3.0)), "attention only".to_owned()));
    let most = data.iter().map(|s| s.others.len()).max().unwrap_or(0);
    if most > MAX_DOTS / data.len() {
        entries.push((Swatch::Faint(MUTED), "some of the other settings".to_owned()));
    } else if most > 0 {
        entries.push((Swatch::Faint(MUTED), "other settings, attention".to_owned()));
    }
    entries.push((Swatch::Line(INK, Some((7.0, 4.0))), "ideal: 1 / density".to_owned()));
    entries.push((Swatch::Line(MUTED, None), "as fast as dense".to_owned()));

    let plot_height = legend::height(entries.len()).max(400.0);
    let mut scene = Scene::new(FIGURE_WIDTH, 0.0, describe(data));
    let top = scene.heading(
        "Speedup over sparsity",
        "Time of dense attention divided by time on the mask; same device, same rounds. Logarithmic scale.",
    );
    scene.height = top + plot_height + BOTTOM_ROOM;
    scene.plotted = plotted(data);
    let width = FIGURE_WIDTH - MARGIN / 2.0 - LEFT_ROOM - LEGEND_ROOM - MARGIN;
    let plot = Plot { at: (MARGIN / 2.0 + LEFT_ROOM, top), size: (width, plot_height), x, y };
    plot.draw(&mut scene);
    scene.line(vec![plot.point(plot.x.low, 1.0), plot.point(plot.x.high, 1.0)], 1.5, MUTED);
    for (n, series_data) in data.iter().enumerate() {
        for &(x, y) in thinned(&series_data.others, MAX_DOTS / data.len()) {
            let center = plot.point(x, y);
            scene.shapes.push(Shape::Disc { center, radius: 2.2, color: series(n), opacity: 0.45 });
        }
    }
    let ideal = (0..=200)
        .map(|i| plot.x.low + (plot.x.high - plot.x.low) * f64::from(i) / 200.0)
        .map(|x| (x, 1.0 / (1.0 - x)))
        .take_while(|(_, y)| *y <= plot.y.high);
    scene.dashed(ideal.map(|(x, y)| plot.point(x, y)).collect(), 2.0, INK, (7.0, 4.0));

    for (n, series_data) in data.iter().enumerate() {
        let line = |y: fn(&Point) -> Option<f64>| {
            let points = series_data.best.iter().filter_map(|p| Some((p.sparsity, y(p)?)));
            points.map(|(x, y)| plot.point(x, y)).collect::<Vec<_>>()
        };
        scene.line(line(|p| p.total.map(|t| t.middle)), 1.5, series(n));
        scene.dashed(line(|p| Some(p.attention.middle)), 1.2, series(n), (2.0, 3.0));
    }
    for (n, series_data) in data.iter().enumerate() {
        let (color, marker) = (series(n), Marker::series(n));
        for point in &series_data.best {
            let x = plot.x_at(point.sparsity);
            if let Some(total) = point.total {
                marker.hollow(&mut scene, (x, plot.y_at(point.attention.middle)), 5.0, color);
                interval(&mut scene, x, plot.y_at(total.low), plot.y_at(total.high), color);
                marker.solid(&mut scene, (x, plot.y_at(total.middle)), 4.5, color);
            } else {
                interval(
                    &mut scene,
                    x,
                    plot.y_at(point.attention.low),
                    plot.y_at(point.attention.high),
                    color,
                );
                marker.hollow(&mut scene, (x, plot.y_at(point.attention.middle)), 5.0, color);
            }
        }
    }
    legend::draw(&mut scene, (plot.at.0 + width + MARGIN, top), LEGEND_ROOM, &entries);
    Some(scene)
}

/// Returns the curves and the dots; the ideal is 1 / (1 - sparsity).
fn plotted(data: &[Series]) -> Plotted {
    let mut rows =
        Plotted::new(["problem", "kind", "sparsity", "speedup", "speedup_low", "speedup_high", "ideal"]);
    let mut row = |problem: &str, kind: &str, sparsity: f64, s: Speedup| {
        let ideal = cell(1.0 / (1.0 - sparsity));
        rows.row([
            problem.into(),
            kind.into(),
            cell(sparsity),
            cell(s.middle),
            cell(s.low),
            cell(s.high),
            ideal,
        ]);
    };
    for series in data {
        for point in &series.best {
            if let Some(total) = point.total {
                row(&series.name, "best, mask + attention", point.sparsity, total);
            }
            row(&series.name, "best, attention only", point.sparsity, point.attention);
        }
        for &(sparsity, middle) in thinned(&series.others, MAX_DOTS / data.len()) {
            let speedup = Speedup { middle, low: middle, high: middle };
            row(&series.name, "other setting, attention only", sparsity, speedup);
        }
    }
    rows
}

fn describe(data: &[Series]) -> String {
    let ends: Vec<_> = data
        .iter()
        .filter_map(|series| {
            let last = series.best.last()?;
            let speedup = last.total.unwrap_or(last.attention).middle;
            Some(format!(
                "{}: {:.2} times as fast at {:.0} % sparsity",
                series.name,
                speedup,
                last.sparsity * 100.0
            ))
        })
        .collect();
    format!("Speedup over dense attention against sparsity, with the ideal line. {}.", ends.join("; "))
}
