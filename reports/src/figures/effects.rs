//! Main effects: which knob matters, and which of its levels?

use std::collections::BTreeMap;

use crate::best::{TimeInterval, by_policy, common_basis, median, timed_sparse};
use crate::figures::{Figure, mask_block, nothing_timed, thin_out};
use crate::format::round;
use crate::record::{Record, value_text};
use crate::scene::axis::Axis;
use crate::scene::legend::{self, Swatch};
use crate::scene::marker::{Marker, interval};
use crate::scene::palette::{MUTED, series};
use crate::scene::plot::{LEFT_ROOM, Plot};
use crate::scene::{Anchor, FIGURE_WIDTH, MARGIN, Plotted, Scene, Text, cell, font};

/// One level of a knob: time relative to the best of the same problem and policy.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Level {
    pub(crate) name: String,
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
    /// Median over problems and policies of the best that can be had with this level.
    pub(crate) reachable: f64,
    pub(crate) trials: usize,
}

/// One knob.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Knob {
    pub(crate) name: String,
    /// Share of the spread of log time that its levels explain.
    pub(crate) explained: f64,
    pub(crate) levels: Vec<Level>,
}

/// What the figure shows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Effects {
    /// Those that explain most first.
    pub(crate) knobs: Vec<Knob>,
    pub(crate) groups: usize,
    pub(crate) left_out: usize,
}

const MAX_KNOBS: usize = 9;
const MAX_LEVELS: usize = 10;

/// Returns a record's knobs: those of its search, else those of a sweep.
fn knobs(record: &Record) -> Vec<(String, String)> {
    match &record.tuning {
        Some(tuning) if !tuning.config.is_empty() => {
            tuning.config.iter().map(|(knob, value)| (knob.clone(), value_text(value))).collect()
        }
        _ => vec![
            ("mask block".to_owned(), mask_block(record.q_block, record.kv_block)),
            ("BLOCK_M".to_owned(), record.block_m.to_string()),
            ("BLOCK_N".to_owned(), record.block_n.to_string()),
        ],
    }
}

/// One trial seen from one knob: which group it is in, its relative time.
type Seen = (usize, f64);

/// Prepares the data, or says why there is none.
pub(crate) fn data(records: &[Record]) -> Result<Effects, String> {
    let mut found: BTreeMap<String, BTreeMap<String, Vec<Seen>>> = BTreeMap::new();
    let groups = by_policy(timed_sparse(records));
    if groups.is_empty() {
        return Err(nothing_timed());
    }
    for (n, records) in groups.values().enumerate() {
        let basis = common_basis(records.iter().copied());
        let timed = || records.iter().filter_map(|r| Some((*r, TimeInterval::by(basis, r)?.median_us)));
        let best = timed().map(|(_, us)| us).fold(f64::INFINITY, f64::min);
        for (record, us) in timed() {
            for (knob, level) in knobs(record) {
                found.entry(knob).or_default().entry(level).or_default().push((n, us / best));
            }
        }
    }
    let mut knobs: Vec<Knob> = found
        .into_iter()
        .filter(|(_, levels)| levels.len() > 1)
        .map(|(name, levels)| knob(name, levels))
        .collect();
    if knobs.is_empty() {
        return Err("Every timed trial has the same setting, so no knob was turned.".to_owned());
    }
    knobs.sort_by(|a, b| b.explained.total_cmp(&a.explained).then_with(|| a.name.cmp(&b.name)));
    let left_out = knobs.len().saturating_sub(MAX_KNOBS);
    knobs.truncate(MAX_KNOBS);
    Ok(Effects { knobs, groups: groups.len(), left_out })
}

fn knob(name: String, levels: BTreeMap<String, Vec<Seen>>) -> Knob {
    let log_mean = |seen: &[Seen]| seen.iter().map(|(_, r)| r.ln()).sum::<f64>() / seen.len() as f64;
    let all: Vec<Seen> = levels.values().flatten().copied().collect();
    let mean = log_mean(&all);
    let total: f64 = all.iter().map(|(_, r)| (r.ln() - mean).powi(2)).sum();
    let between: f64 = levels.values().map(|s| s.len() as f64 * (log_mean(s) - mean).powi(2)).sum();
    let mut levels: Vec<_> = levels.into_iter().filter_map(|(name, seen)| level(name, seen)).collect();
    // Numbers by size, words by name.
    levels.sort_by(|a, b| {
        let number = |l: &Level| l.name.split('×').next().and_then(|n| n.parse::<f64>().ok());
        let (a_number, b_number) = (number(a).unwrap_or(f64::INFINITY), number(b).unwrap_or(f64::INFINITY));
        a_number.total_cmp(&b_number).then_with(|| a.name.cmp(&b.name))
    });
    thin_out(&mut levels, MAX_LEVELS);
    Knob { name, explained: if total > 0.0 { between / total } else { 0.0 }, levels }
}

fn level(name: String, seen: Vec<Seen>) -> Option<Level> {
    let mut ratios: Vec<f64> = seen.iter().map(|(_, ratio)| *ratio).collect();
    ratios.sort_by(f64::total_cmp);
    let quantile = |q: f64| ratios[((ratios.len() - 1) as f64 * q).round() as usize];
    let mut best: BTreeMap<usize, f64> = BTreeMap::new();
    for (group, ratio) in seen {
        let best = best.entry(group).or_insert(f64::INFINITY);
        *best = best.min(ratio);
    }
    Some(Level {
        name,
        low: quantile(0.25),
        median: median(ratios.iter().copied())?,
        high: quantile(0.75),
        reachable: median(best.into_values())?,
        trials: ratios.len(),
    })
}

/// Makes the figure.
pub(crate) fn figure(records: &[Record]) -> Figure {
    let data = data(records);
    let mut caption = "Look at the first panels: their knobs explain most of the spread. A solid mark high up is a level that is \
                       slow on average; an outlined mark near 1 says that it can still be part of a fast setting."
        .to_owned();
    if let Ok(Effects { left_out: left_out @ 1.., .. }) = &data {
        caption.push_str(&format!(" {left_out} knobs that explain less are not drawn."));
    }
    Figure {
        name: "main_effects",
        title: "Which knob matters",
        caption,
        picture: data.and_then(|data| draw(&data).ok_or_else(nothing_timed)),
    }
}

const ABREAST: usize = 3;
const PLOT_HEIGHT: f64 = 170.0;
const GAP: f64 = 16.0;

fn draw(data: &Effects) -> Option<Scene> {
    let mut scene = Scene::new(FIGURE_WIDTH, 0.0, describe(data));
    let top = scene.heading(
        "Which knob matters",
        "Time relative to the best setting of the same problem and policy, by level of each knob. Logarithmic scale.",
    );
    let values: Vec<f64> =
        data.knobs.iter().flat_map(|k| &k.levels).flat_map(|l| [l.low, l.high, l.reachable]).collect();
    let y = Axis::log("relative time", values, |v| format!("{}×", round(v)))?;
    let marks = [
        (Swatch::Solid(Marker::Circle, series(0)), "median and middle half of all trials"),
        (Swatch::Hollow(Marker::Circle, series(1)), "best reachable with the level"),
    ];
    let mut x = MARGIN;
    for (swatch, label) in marks {
        legend::draw(&mut scene, (x, top - 4.0), 320.0, &[(swatch, label.to_owned())]);
        x += 66.0 + font::width(label, 12.5, false);
    }
    let top = top + 24.0;
    let left = MARGIN / 2.0 + LEFT_ROOM;
    let width = (FIGURE_WIDTH - left - MARGIN - GAP * (ABREAST - 1) as f64) / ABREAST as f64;
    let step = PLOT_HEIGHT + 74.0;
    for (n, knob) in data.knobs.iter().enumerate() {
        let at = (left + (n % ABREAST) as f64 * (width + GAP), top + (n / ABREAST) as f64 * step + 26.0);
        draw_knob(&mut scene, knob, at, width, &y, n % ABREAST == 0);
    }
    scene.height = top + data.knobs.len().div_ceil(ABREAST) as f64 * step;
    scene.plotted = plotted(data);
    Some(scene)
}

fn draw_knob(scene: &mut Scene, knob: &Knob, at: (f64, f64), width: f64, y: &Axis, first: bool) {
    let explained = format!("{:.0} % of the spread", knob.explained * 100.0);
    let room = width - font::width(&explained, 11.5, false) - 12.0;
    let name = font::shorten(&knob.name, 13.0, true, room);
    scene.text(Text::new(name, (at.0, at.1 - 9.0), 13.0).bold());
    let text = Text::new(explained, (at.0 + width, at.1 - 9.0), 11.5).color(MUTED);
    scene.text(text.anchor(Anchor::End));
    let mut y = y.clone();
    if !first {
        y.title = String::new();
        y.ticks.iter_mut().for_each(|(_, label)| label.clear());
    }
    let count = knob.levels.len() as f64;
    let room = width / count - 6.0;
    let names = knob.levels.iter().map(|l| font::shorten(&l.name, 12.0, false, room));
    let ticks = (0..).map(f64::from).zip(names).collect();
    let x = Axis { title: String::new(), low: -0.5, high: count - 0.5, log: false, ticks };
    let plot = Plot { at, size: (width, PLOT_HEIGHT), x, y };
    plot.draw(scene);
    for (n, level) in knob.levels.iter().enumerate() {
        let x = plot.x_at(n as f64);
        interval(scene, x, plot.y_at(level.low), plot.y_at(level.high), series(0));
        Marker::Circle.hollow(scene, (x, plot.y_at(level.reachable)), 5.0, series(1));
        Marker::Circle.solid(scene, (x, plot.y_at(level.median)), 4.5, series(0));
    }
}

fn plotted(data: &Effects) -> Plotted {
    let mut rows = Plotted::new([
        "knob",
        "explained",
        "level",
        "trials",
        "relative_time_q1",
        "relative_time_median",
        "relative_time_q3",
        "best_reachable",
    ]);
    for knob in &data.knobs {
        for l in &knob.levels {
            let [low, median, high, reachable] = [l.low, l.median, l.high, l.reachable].map(cell);
            let (name, level) = (knob.name.clone(), l.name.clone());
            rows.row([name, cell(knob.explained), level, l.trials.to_string(), low, median, high, reachable]);
        }
    }
    rows
}

fn describe(data: &Effects) -> String {
    let all: Vec<_> = data
        .knobs
        .iter()
        .filter_map(|knob| {
            let best = knob.levels.iter().min_by(|a, b| a.median.total_cmp(&b.median))?;
            Some(format!(
                "{} explains {:.0} % of the spread, {} is its fastest level on average",
                knob.name,
                knob.explained * 100.0,
                best.name
            ))
        })
        .collect();
    format!(
        "Time relative to the best by level of each knob, over {} problems and policies. {}.",
        data.groups,
        all.join("; ")
    )
}
