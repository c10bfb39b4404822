//! Pareto front of latency and error: which settings are worth considering at all?

use std::collections::BTreeMap;

use crate::best::{TimeBasis, TimeInterval, common_basis, median, positive, timed_sparse};
use crate::figures::latency::tick;
use crate::figures::{Figure, nothing_timed, setting, thin_out, thinned};
use crate::format::{plural, round, significant, time};
use crate::problem::{self, Problem};
use crate::record::Record;
use crate::scene::axis::Axis;
use crate::scene::legend::{self, Swatch};
use crate::scene::palette::{INK, MUTED, series};
use crate::scene::plot::{BOTTOM_ROOM, LEFT_ROOM, Plot};
use crate::scene::{Anchor, FIGURE_WIDTH, MARGIN, Plotted, Scene, Shape, Text, cell, font};

/// Problems drawn at most; more would be smaller than anyone can read.
const MAX_PANELS: usize = 4;

/// A setting that no other beats in both time and error.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FrontPoint {
    pub(crate) error: f64,
    pub(crate) time_us: f64,
    pub(crate) name: String,
}

/// One problem.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Panel {
    pub(crate) name: String,
    /// Whether times include building the mask.
    pub(crate) basis: TimeBasis,
    /// Error and time of every setting.
    pub(crate) all: Vec<(f64, f64)>,
    /// The front, from the most accurate to the fastest.
    pub(crate) front: Vec<FrontPoint>,
    pub(crate) dense_us: Option<f64>,
}

/// What the figure shows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fronts {
    pub(crate) panels: Vec<Panel>,
    /// Problems with a front that is not shown.
    pub(crate) other_problems: usize,
}

/// Prepares the data, or says why there is none.
pub(crate) fn data(records: &[Record]) -> Result<Fronts, String> {
    if timed_sparse(records).next().is_none() {
        return Err(nothing_timed());
    }
    let groups = problem::grouped(timed_sparse(records));
    let problems: Vec<Problem> = groups.keys().cloned().collect();
    let mut panels: Vec<Panel> = problem::names(&problems)
        .into_iter()
        .zip(groups.into_values())
        .filter_map(|(name, records)| panel(name, records.into_iter()))
        .collect();
    if panels.is_empty() {
        return Err(
            "No timed trial has a sparsity error above zero, so nothing stands against time.".to_owned()
        );
    }
    let found = panels.len();
    thin_out(&mut panels, MAX_PANELS);
    Ok(Fronts { other_problems: found - panels.len(), panels })
}

fn panel<'a>(name: String, records: impl Iterator<Item = &'a Record>) -> Option<Panel> {
    let records: Vec<_> = records.filter(|r| positive(r.sparsity_rel_rmse).is_some()).collect();
    let basis = common_basis(records.iter().copied());
    let timed = || records.iter().filter_map(|&r| Some((TimeInterval::by(basis, r)?.median_us, r)));
    // The sparsity error belongs to the mask, whatever the tile: of each mask only the fastest tile can be on the front.
    // Comparing every trial's own error would fill the front with tiles that differ in rounding.
    let mut masks: BTreeMap<_, Vec<(f64, &Record)>> = BTreeMap::new();
    for (time_us, record) in timed() {
        masks
            .entry((record.policy.as_str(), record.q_block, record.kv_block))
            .or_default()
            .push((time_us, record));
    }
    let mut candidates: Vec<_> = masks
        .values()
        .filter_map(|trials| {
            let error = median(trials.iter().filter_map(|(_, r)| positive(r.sparsity_rel_rmse)))?;
            let (time_us, record) = trials.iter().min_by(|a, b| a.0.total_cmp(&b.0))?;
            Some((error, *time_us, *record))
        })
        .collect();
    candidates.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut front: Vec<FrontPoint> = Vec::new();
    for (error, time_us, record) in candidates {
        if front.last().is_none_or(|last| time_us < last.time_us) {
            front.push(FrontPoint {
                error,
                time_us,
                name: format!("{} · {}", record.policy, setting(record)),
            });
        }
    }
    if front.is_empty() {
        return None;
    }
    let dense_us = median(records.iter().filter_map(|r| positive(r.dense_us_median)));
    let mut all: Vec<_> =
        timed().filter_map(|(time_us, r)| Some((positive(r.sparsity_rel_rmse)?, time_us))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    Some(Panel { name, basis, all, front, dense_us })
}

/// Makes the figure.
pub(crate) fn figure(records: &[Record]) -> Figure {
    let data = data(records);
    let mut caption =
        "Look along the line: every setting above and to the right of it is both slower and less accurate \
                       than one on it. Take the numbered setting whose error you can accept."
            .to_owned();
    if let Ok(Fronts { other_problems: others @ 1.., .. }) = &data {
        let others = plural(*others, "problem is", "problems are");
        caption.push_str(&format!(" {others} not drawn; the best-settings table has them all."));
    }
    Figure {
        name: "pareto_front",
        title: "Latency against error",
        caption,
        picture: data.and_then(|data| draw(&data.panels).ok_or_else(nothing_timed)),
    }
}

const LIST_ROOM: f64 = 330.0;
const PLOT_HEIGHT: f64 = 250.0;
/// Faint dots of a panel at most.
const MAX_DOTS: usize = 400;
/// Entries of the list beside a panel that fit its height.
const MAX_NAMED: usize = 11;

fn draw(panels: &[Panel]) -> Option<Scene> {
    let mut scene = Scene::new(FIGURE_WIDTH, 0.0, describe(panels));
    let mut top = scene.heading(
        "Latency against error",
        "A dot is a setting; the line joins those that no other beats in both. Logarithmic scales.",
    );
    for (n, panel) in panels.iter().enumerate() {
        let name = font::shorten(&panel.name, 13.5, true, FIGURE_WIDTH - 2.0 * MARGIN);
        scene.text(Text::new(name, (MARGIN, top + 16.0), 13.5).bold());
        top += 26.0;
        draw_panel(&mut scene, panel, top, n)?;
        top += PLOT_HEIGHT + BOTTOM_ROOM + 8.0;
    }
    scene.height = top;
    scene.plotted = plotted(panels);
    Some(scene)
}

fn draw_panel(scene: &mut Scene, panel: &Panel, top: f64, n: usize) -> Option<()> {
    let errors = panel.all.iter().map(|p| p.0).chain(panel.front.iter().map(|p| p.error));
    let x = Axis::log("sparsity error (relative RMSE against dense)", errors, round)?;
    // The number of the fastest setting hangs below its dot.
    let below = panel.front.last().map(|p| p.time_us / 1.15);
    let times = panel.all.iter().map(|p| p.1).chain(panel.dense_us).chain(below);
    let y = Axis::log(panel.basis.name(), times, tick)?;
    let width = FIGURE_WIDTH - MARGIN / 2.0 - LEFT_ROOM - LIST_ROOM - MARGIN;
    let plot = Plot { at: (MARGIN / 2.0 + LEFT_ROOM, top), size: (width, PLOT_HEIGHT), x, y };
    plot.draw(scene);
    if let Some(us) = panel.dense_us {
        let y = plot.y_at(us);
        scene.dashed(vec![(plot.at.0, y), (plot.at.0 + width, y)], 1.5, MUTED, (7.0, 4.0));
    }
    for &(error, us) in thinned(&panel.all, MAX_DOTS) {
        let center = plot.point(error, us);
        scene.shapes.push(Shape::Disc { center, radius: 2.4, color: series(n), opacity: 0.4 });
    }
    // From one front point to the next the best known time is that of the more accurate one: steps, not slopes.
    let mut steps = Vec::new();
    for point in &panel.front {
        let (x, y) = plot.point(point.error, point.time_us);
        steps.extend(steps.last().map(|&(_, before)| (x, before)));
        steps.push((x, y));
    }
    scene.line(steps, 1.5, INK);
    let (named, unnamed) = choose_named(panel, &plot);
    let mut entries = vec![(Swatch::Heading, "on the front".to_owned())];
    for (i, point) in panel.front.iter().enumerate() {
        let center @ (px, py) = plot.point(point.error, point.time_us);
        scene.shapes.push(Shape::Disc { center, radius: 4.0, color: INK, opacity: 1.0 });
        if let Some(number) = named.iter().position(|&k| k == i).map(|k| k + 1) {
            // Below and left of a front point there is no other point.
            let text = Text::new(number.to_string(), (px - 6.0, py + 14.0), 12.5).bold().anchor(Anchor::End);
            scene.text(text);
            entries.push((Swatch::Number(number, INK), point.name.clone()));
        }
    }
    let list = (plot.at.0 + width + MARGIN, top - 6.0);
    let room = LIST_ROOM - MARGIN / 2.0;
    if let Some(us) = panel.dense_us {
        let label = format!("dense attention, {}", time(us));
        entries.push((Swatch::Line(MUTED, Some((7.0, 4.0))), label));
    }
    legend::draw(scene, list, room, &entries);
    if unnamed > 0 {
        let remark = format!("and {unnamed} between these, too close to number");
        legend::remark(scene, (list.0, list.1 + legend::height(entries.len())), room, &[remark]);
    }
    Some(())
}

/// Returns which front points get a number, and how many do not: those whose number would touch another's.
fn choose_named(panel: &Panel, plot: &Plot) -> (Vec<usize>, usize) {
    const NEAR: f64 = 17.0;
    let at = |i: usize| plot.point(panel.front[i].error, panel.front[i].time_us);
    let apart = |i: usize, j: usize| {
        let ((ax, ay), (bx, by)) = (at(i), at(j));
        (ax - bx).abs() >= NEAR || (ay - by).abs() >= NEAR
    };
    let mut named: Vec<usize> = Vec::new();
    // Both ends first: whatever lies near them can do without.
    let last = panel.front.len().saturating_sub(1);
    for i in [0, last].into_iter().chain(1..last) {
        if !named.contains(&i) && named.iter().all(|&j| apart(i, j)) {
            named.push(i);
        }
    }
    named.sort_unstable();
    if named.len() > MAX_NAMED {
        let last = named.len() - 1;
        named = (0..MAX_NAMED).map(|i| named[i * last / (MAX_NAMED - 1)]).collect();
    }
    let unnamed = panel.front.len() - named.len();
    (named, unnamed)
}

/// Returns fronts and dots, and the time of dense attention.
fn plotted(panels: &[Panel]) -> Plotted {
    let mut rows = Plotted::new(["problem", "kind", "sparsity_rel_rmse", "time_us", "time_of", "setting"]);
    for panel in panels {
        let mut row = |kind: &str, error: Option<f64>, time_us: f64, setting: &str| {
            let basis = panel.basis.name().to_owned();
            rows.row([panel.name.clone(), kind.into(), cell(error), cell(time_us), basis, setting.into()]);
        };
        for point in &panel.front {
            row("front", Some(point.error), point.time_us, &point.name);
        }
        for &(error, time_us) in thinned(&panel.all, MAX_DOTS) {
            row("setting", Some(error), time_us, "");
        }
        if let Some(time_us) = panel.dense_us {
            row("dense", None, time_us, "");
        }
    }
    rows
}

fn describe(panels: &[Panel]) -> String {
    let all: Vec<_> = panels
        .iter()
        .map(|panel| {
            let front: Vec<_> = panel
                .front
                .iter()
                .map(|p| format!("{} takes {} with error {}", p.name, time(p.time_us), significant(p.error)))
                .collect();
            format!("{}: {}", panel.name, front.join("; "))
        })
        .collect();
    format!("Time against error; settings no other beats in both. {}.", all.join(". "))
}
