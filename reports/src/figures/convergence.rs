//! Tuning convergence: how many evaluations until a search has found what it finds?

use std::collections::BTreeMap;

use crate::best::{TimeInterval, by_policy, common_basis, median};
use crate::collection::is_contended;
use crate::figures::{Figure, thin_out};
use crate::format::{count, plural, round};
use crate::record::{Record, Stage, Status, Tuning};
use crate::scene::axis::Axis;
use crate::scene::legend::{self, Swatch};
use crate::scene::palette::{MUTED, series};
use crate::scene::plot::{BOTTOM_ROOM, LEFT_ROOM, Plot};
use crate::scene::{FIGURE_WIDTH, MARGIN, Plotted, Scene, Shape, cell};

/// Best so far after an evaluation, relative to the best that any search found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    pub(crate) evaluation: u64,
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

/// One strategy.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// Searches behind it: problems, policies, seeds.
    pub(crate) searches: usize,
    pub(crate) steps: Vec<Step>,
}

/// What the figure shows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Convergence {
    pub(crate) strategies: Vec<Series>,
    pub(crate) other_strategies: usize,
    /// Evaluations that gave no time: failed, turned down, disturbed. They count as evaluations.
    pub(crate) fruitless: usize,
}

const MAX_STRATEGIES: usize = 8;
/// Steps kept of a curve; a search of more evaluations is drawn at every n-th.
const MAX_STEPS: usize = 400;

/// Returns the tuning of a trial that a strategy asked for.
fn search(record: &Record) -> Option<&Tuning> {
    record.tuning.as_ref().filter(|t| t.stage == Stage::Search)
}

/// Evaluations with the time each found, if any.
type Trail = BTreeMap<u64, Option<f64>>;

/// Prepares the data, or says why there is none.
pub(crate) fn data(records: &[Record]) -> Result<Convergence, String> {
    let mut trails: BTreeMap<&str, Vec<Trail>> = BTreeMap::new();
    let mut fruitless = 0;
    for records in by_policy(records.iter().filter(|r| search(r).is_some())).into_values() {
        let useful = |r: &Record| r.status == Status::Ok && !is_contended(r);
        let basis = common_basis(records.iter().copied().filter(|r| useful(r)));
        let time = |r: &Record| TimeInterval::by(basis, r).filter(|_| useful(r)).map(|t| t.median_us);
        let best = records.iter().filter_map(|r| time(r)).fold(f64::INFINITY, f64::min);
        let mut own: BTreeMap<_, Trail> = BTreeMap::new();
        for record in records {
            let Some(tuning) = search(record) else { continue };
            let found = time(record).map(|us| us / best);
            fruitless += usize::from(found.is_none());
            own.entry((tuning.strategy.as_str(), record.seed)).or_default().insert(tuning.evaluation, found);
        }
        for ((strategy, _), trail) in own {
            trails.entry(strategy).or_default().push(trail);
        }
    }
    let mut strategies: Vec<Series> = trails
        .into_iter()
        .filter_map(|(name, trails)| {
            let series = Series { name: name.to_owned(), searches: trails.len(), steps: steps(&trails) };
            (!series.steps.is_empty()).then_some(series)
        })
        .collect();
    if strategies.is_empty() {
        return Err("No evaluation of a search was verified and timed.".to_owned());
    }
    let found = strategies.len();
    thin_out(&mut strategies, MAX_STRATEGIES);
    Ok(Convergence { other_strategies: found - strategies.len(), strategies, fruitless })
}

/// Returns the median of the best so far over searches, from where every search has found something.
fn steps(trails: &[Trail]) -> Vec<Step> {
    let last = trails.iter().filter_map(|t| t.keys().next_back()).max().copied().unwrap_or(0);
    let mut best: Vec<f64> = vec![f64::INFINITY; trails.len()];
    let mut steps = Vec::new();
    let stride = (last as usize).div_ceil(MAX_STEPS).max(1) as u64;
    for evaluation in 1..=last {
        for (best, trail) in best.iter_mut().zip(trails) {
            if let Some(Some(found)) = trail.get(&evaluation) {
                *best = best.min(*found);
            }
        }
        if best.iter().any(|b| b.is_infinite()) || (evaluation != last && !evaluation.is_multiple_of(stride))
        {
            continue;
        }
        if let Some(median) = median(best.iter().copied()) {
            let low = best.iter().copied().fold(f64::INFINITY, f64::min);
            let high = best.iter().copied().fold(0.0, f64::max);
            steps.push(Step { evaluation, low, median, high });
        }
    }
    steps
}

/// Makes the figure.
pub(crate) fn figure(records: &[Record]) -> Figure {
    let data = data(records);
    let mut caption = "Look at where a line reaches 1, the best that any search here found, and at how wide its band is: a narrow \
                       one finds its setting whatever the seed."
        .to_owned();
    if let Ok(data) = &data {
        if data.fruitless > 0 {
            let what = plural(data.fruitless, "evaluation", "evaluations");
            caption.push_str(&format!(
                " {what} gave no time (failed, turned down or disturbed) and are counted."
            ));
        }
        if data.other_strategies > 0 {
            caption.push_str(&format!(" {} strategies are not drawn.", data.other_strategies));
        }
    }
    Figure {
        name: "tuning_convergence",
        title: "Tuning convergence",
        caption,
        picture: data
            .and_then(|d| draw(&d).ok_or_else(|| "No evaluation of a search gave a time.".to_owned())),
    }
}

fn draw(data: &Convergence) -> Option<Scene> {
    const LEGEND_ROOM: f64 = 220.0;
    let steps = || data.strategies.iter().flat_map(|s| &s.steps);
    let last = steps().map(|s| s.evaluation).max()? as f64;
    let whole = |v: f64| if v.fract() == 0.0 { count(v as u64) } else { String::new() };
    let x = Axis::linear("evaluation", 0.0, last.max(2.0) * 1.02, whole);
    let y = Axis::log("best so far / best of all", steps().flat_map(|s| [s.low, s.high]), |v| {
        format!("{}×", round(v))
    })?;
    let mut entries = Vec::new();
    for (n, one) in data.strategies.iter().enumerate() {
        entries.push((Swatch::Line(series(n), dash(n)), one.name.clone()));
    }
    if data.strategies.iter().any(|s| s.searches > 1) {
        entries.push((Swatch::Heading, "line: median of the searches".to_owned()));
        entries.push((Swatch::Heading, "band: best to worst of them".to_owned()));
    }
    let plot_height = legend::height(entries.len()).max(340.0);
    let mut scene = Scene::new(FIGURE_WIDTH, 0.0, describe(data));
    let searches = data.strategies.iter().map(|s| s.searches).max().unwrap_or(0);
    let top = scene.heading(
        "Tuning convergence",
        &format!(
            "Time of the best setting found so far; up to {} a strategy. Logarithmic scale.",
            plural(searches, "search", "searches")
        ),
    );
    scene.height = top + plot_height + BOTTOM_ROOM;
    scene.plotted = plotted(data);
    let width = FIGURE_WIDTH - MARGIN / 2.0 - LEFT_ROOM - LEGEND_ROOM - MARGIN;
    let plot = Plot { at: (MARGIN / 2.0 + LEFT_ROOM, top), size: (width, plot_height), x, y };
    plot.draw(&mut scene);
    let floor = plot.y_at(1.0);
    scene.line(vec![(plot.at.0, floor), (plot.at.0 + width, floor)], 1.0, MUTED);
    for (n, one) in data.strategies.iter().enumerate().filter(|(_, s)| s.searches > 1) {
        let mut band = stairs(&plot, one, |s| s.low);
        band.extend(stairs(&plot, one, |s| s.high).into_iter().rev());
        scene.shapes.push(Shape::Polygon { points: band, color: series(n), opacity: 0.13 });
    }
    for (n, one) in data.strategies.iter().enumerate() {
        let line = stairs(&plot, one, |s| s.median);
        match dash(n) {
            None => scene.line(line, 2.0, series(n)),
            Some(dash) => scene.dashed(line, 2.0, series(n), dash),
        }
    }
    legend::draw(&mut scene, (plot.at.0 + width + MARGIN, top), LEGEND_ROOM, &entries);
    Some(scene)
}

/// Lines of strategies may lie on each other: patterns show both.
fn dash(n: usize) -> Option<(f64, f64)> {
    [None, Some((8.0, 4.0)), Some((3.0, 3.0))][n % 3]
}

/// Returns a line that stays level until the next step: nothing is found between evaluations.
fn stairs(plot: &Plot, series: &Series, value: fn(&Step) -> f64) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = Vec::new();
    for step in &series.steps {
        let at = plot.point(step.evaluation as f64, value(step));
        points.extend(points.last().map(|&(_, y)| (at.0, y)));
        points.push(at);
    }
    points
}

fn plotted(data: &Convergence) -> Plotted {
    let mut rows = Plotted::new(["strategy", "searches", "evaluation", "best_so_far", "lowest", "highest"]);
    for one in &data.strategies {
        for step in &one.steps {
            let [median, low, high] = [step.median, step.low, step.high].map(cell);
            let name = one.name.clone();
            rows.row([name, one.searches.to_string(), step.evaluation.to_string(), median, low, high]);
        }
    }
    rows
}

fn describe(data: &Convergence) -> String {
    let all: Vec<_> = data
        .strategies
        .iter()
        .filter_map(|one| {
            let last = one.steps.last()?;
            Some(format!("{}: {:.3} after {} evaluations", one.name, last.median, last.evaluation))
        })
        .collect();
    format!("Best so far relative to the best of all searches. {}.", all.join("; "))
}
