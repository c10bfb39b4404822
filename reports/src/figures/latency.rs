//! Latency over sequence length: how does the time a user waits for grow?

use std::collections::BTreeMap;

use crate::best::{BestSetting, TimeInterval, best_settings, median, positive, timed_sparse};
use crate::figures::{Figure, nothing_timed, thin_out};
use crate::format::{count, plural, round, time};
use crate::problem::{self, Problem};
use crate::record::Record;
use crate::scene::axis::Axis;
use crate::scene::legend::{self, Swatch};
use crate::scene::marker::{Marker, interval};
use crate::scene::palette::{INK, series};
use crate::scene::plot::{BOTTOM_ROOM, LEFT_ROOM, Plot};
use crate::scene::{FIGURE_WIDTH, MARGIN, Plotted, Scene, cell};

/// Times over sequence length for one policy.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// Sequence length and time of the best setting, shortest first.
    pub(crate) points: Vec<(u64, TimeInterval)>,
}

/// What the figure shows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Latency {
    /// Heads, head size and element type of what is shown.
    pub(crate) family: String,
    /// Sequence length and time of dense attention.
    pub(crate) dense: Vec<(u64, f64)>,
    /// Policies, the densest first.
    pub(crate) policies: Vec<Series>,
    /// Whether the times include building the mask.
    pub(crate) total: bool,
    /// Families not shown.
    pub(crate) other_families: usize,
    /// Policies not shown.
    pub(crate) other_policies: usize,
}

/// Policies drawn at most.
const MAX_POLICIES: usize = 12;

/// Prepares the data, or says why there is none.
///
/// Lengths are compared within one family of problems (same heads, head size, type, device): the one with the most
/// lengths, and of those the one with the most trials.
pub(crate) fn data(records: &[Record]) -> Result<Latency, String> {
    let (family, settings, other_families) = largest_family(best_settings(records))?;
    let mut dense: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for (problem, records) in problem::grouped(timed_sparse(records)) {
        if problem.family() == family {
            let times = records.iter().filter_map(|r| positive(r.dense_us_median));
            dense.entry(problem.seqlen).or_default().extend(times);
        }
    }
    let mut policies: Vec<(f64, Series)> = Vec::new();
    for setting in &settings {
        let policy = &setting.record.policy;
        let threshold = setting.record.threshold.unwrap_or(f64::NEG_INFINITY);
        let point = (setting.problem.seqlen, setting.time);
        match policies.iter_mut().find(|(_, series)| series.name == *policy) {
            // Grids of equal length: the faster stands for the length.
            Some((_, series)) => match series.points.last_mut() {
                Some(last) if last.0 == point.0 => {
                    if point.1.median_us < last.1.median_us {
                        *last = point;
                    }
                }
                _ => series.points.push(point),
            },
            None => policies.push((threshold, Series { name: policy.clone(), points: vec![point] })),
        }
    }
    policies.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.name.cmp(&b.1.name)));
    let found = policies.len();
    thin_out(&mut policies, MAX_POLICIES);
    let policies_drawn = policies.len();
    Ok(Latency {
        family: family_name(&family),
        dense: dense.into_iter().filter_map(|(s, times)| Some((s, median(times)?))).collect(),
        policies: policies.into_iter().map(|(_, series)| series).collect(),
        total: settings.iter().all(|s| s.basis == crate::best::TimeBasis::Total),
        other_families,
        other_policies: found - policies_drawn,
    })
}

/// Returns the family of problems with the most lengths, its best settings, and how many families there are besides.
///
/// Errors: a sentence for a figure that is not drawn, where there are no two lengths to compare.
pub(super) fn largest_family(
    best: Vec<BestSetting<'_>>,
) -> Result<(Problem, Vec<BestSetting<'_>>, usize), String> {
    let mut families: BTreeMap<Problem, Vec<BestSetting<'_>>> = BTreeMap::new();
    for setting in best {
        families.entry(setting.problem.family()).or_default().push(setting);
    }
    let lengths = |settings: &[BestSetting<'_>]| {
        let mut lengths: Vec<_> = settings.iter().map(|s| s.problem.seqlen).collect();
        lengths.dedup();
        lengths
    };
    let other_families = families.len().saturating_sub(1);
    let (family, settings) =
        families.into_iter().max_by_key(|(_, s)| (lengths(s).len(), s.len())).ok_or_else(nothing_timed)?;
    match lengths(&settings)[..] {
        [] => return Err(nothing_timed()),
        [only] => return Err(format!("All timed trials have one sequence length, {} tokens.", count(only))),
        _ => {}
    }
    Ok((family, settings, other_families))
}

/// Returns the words for a family.
pub(super) fn family_name(family: &Problem) -> String {
    format!(
        "batch {}, {}, D {}, {}",
        family.batch,
        plural(family.heads as usize, "head", "heads"),
        family.head_dim,
        family.dtype
    )
}

/// Makes the figure.
pub(crate) fn figure(records: &[Record]) -> Figure {
    let data = data(records);
    let mut caption =
        "Look at where a line crosses that of dense attention and at the distance between them: parallel \
                       lines keep their speedup at any length, a flatter one gains with length."
            .to_owned();
    if let Ok(Latency { other_families: others @ 1.., family, .. }) = &data {
        let others = plural(*others, "other combination", "other combinations");
        caption
            .push_str(&format!(" Shown is {family}; {others} of heads, size and type are in the CSV file."));
    }
    if let Ok(Latency { other_policies: others @ 1.., .. }) = &data {
        caption.push_str(&format!(" {} not drawn.", plural(*others, "policy is", "policies are")));
    }
    Figure {
        name: "latency_over_seqlen",
        title: "Latency over sequence length",
        caption,
        picture: data.and_then(|data| draw(&data).ok_or_else(nothing_timed)),
    }
}

/// Returns the stroke of the n-th policy: patterns change when the colours start again.
pub(super) fn dash(n: usize) -> Option<(f64, f64)> {
    [None, Some((6.0, 3.0)), Some((2.0, 3.0))][(n / 6) % 3]
}

fn draw(data: &Latency) -> Option<Scene> {
    const LEGEND_ROOM: f64 = 220.0;
    let points = || data.policies.iter().flat_map(|series| &series.points);
    let lengths: Vec<f64> =
        points().map(|(s, _)| *s as f64).chain(data.dense.iter().map(|(s, _)| *s as f64)).collect();
    let x = Axis::log_at("sequence length (tokens)", &lengths, |v| count(v as u64))?;
    let times = points().flat_map(|(_, t)| [t.low_us, t.high_us]).chain(data.dense.iter().map(|(_, us)| *us));
    let title = if data.total { "time of mask + attention" } else { "time of attention" };
    let y = Axis::log(title, times, tick)?;

    let mut entries = Vec::new();
    if !data.dense.is_empty() {
        entries.push((Swatch::LineMarked(Marker::Circle, INK, None), "dense attention".to_owned()));
    }
    for (n, policy) in data.policies.iter().enumerate() {
        entries.push((Swatch::LineMarked(Marker::series(n), series(n), dash(n)), policy.name.clone()));
    }
    let plot_height = legend::height(entries.len()).max(380.0);
    let mut scene = Scene::new(FIGURE_WIDTH, 0.0, describe(data));
    let top = scene.heading(
        "Latency over sequence length",
        &format!("Best setting of each policy with 95 % intervals; {}. Logarithmic scales.", data.family),
    );
    scene.height = top + plot_height + BOTTOM_ROOM;
    scene.plotted = plotted(data);
    let width = FIGURE_WIDTH - MARGIN / 2.0 - LEFT_ROOM - LEGEND_ROOM - MARGIN;
    let plot = Plot { at: (MARGIN / 2.0 + LEFT_ROOM, top), size: (width, plot_height), x, y };
    plot.draw(&mut scene);

    // Policies stand a little aside of each other, so that their intervals can be told apart.
    let count = data.policies.len() as f64;
    let aside = |n: usize| (n as f64 - (count - 1.0) / 2.0) * (24.0 / count).min(5.0);
    let x_at = |n: usize, seqlen: u64| plot.x_at(seqlen as f64) + aside(n);
    for (n, policy) in data.policies.iter().enumerate() {
        let at = |(s, time): &(u64, TimeInterval)| (x_at(n, *s), plot.y_at(time.median_us));
        let line: Vec<_> = policy.points.iter().map(at).collect();
        match dash(n) {
            None => scene.line(line, 2.0, series(n)),
            Some(dash) => scene.dashed(line, 2.0, series(n), dash),
        }
    }
    let dense: Vec<_> = data.dense.iter().map(|(s, us)| plot.point(*s as f64, *us)).collect();
    scene.line(dense.clone(), 2.0, INK);
    for point in dense {
        Marker::Circle.solid(&mut scene, point, 4.5, INK);
    }
    for (n, policy) in data.policies.iter().enumerate() {
        for (s, time) in &policy.points {
            let x = x_at(n, *s);
            interval(&mut scene, x, plot.y_at(time.low_us), plot.y_at(time.high_us), series(n));
            Marker::series(n).solid(&mut scene, (x, plot.y_at(time.median_us)), 4.5, series(n));
        }
    }
    legend::draw(&mut scene, (plot.at.0 + width + MARGIN, top), LEGEND_ROOM, &entries);
    Some(scene)
}

/// Returns a tick's time: round values need no third digit.
pub(super) fn tick(us: f64) -> String {
    match us {
        ..1e3 => format!("{} µs", round(us)),
        ..1e6 => format!("{} ms", round(us / 1e3)),
        _ => format!("{} s", round(us / 1e6)),
    }
}

fn plotted(data: &Latency) -> Plotted {
    let mut rows = Plotted::new(["series", "seqlen", "time_us", "time_us_low", "time_us_high"]);
    for &(seqlen, us) in &data.dense {
        rows.row(["dense attention".into(), seqlen.to_string(), cell(us), String::new(), String::new()]);
    }
    for policy in &data.policies {
        for (seqlen, t) in &policy.points {
            let times = [t.median_us, t.low_us, t.high_us].map(cell);
            let [median, low, high] = times;
            rows.row([policy.name.clone(), seqlen.to_string(), median, low, high]);
        }
    }
    rows
}

fn describe(data: &Latency) -> String {
    let ends = |points: &mut dyn Iterator<Item = (u64, f64)>| {
        let all: Vec<_> = points.map(|(s, us)| format!("{} at {} tokens", time(us), count(s))).collect();
        all.join(", ")
    };
    let mut text = format!("Time against sequence length. Dense: {}", ends(&mut data.dense.iter().copied()));
    for policy in &data.policies {
        let times = ends(&mut policy.points.iter().map(|(s, t)| (*s, t.median_us)));
        text.push_str(&format!("; {}: {times}", policy.name));
    }
    text + "."
}
