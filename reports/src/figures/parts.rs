//! Where the time goes: reordering, building the mask and attention, stacked.

use std::collections::BTreeMap;

use crate::best::{best_settings, positive};
use crate::figures::{Figure, thin_out};
use crate::format::{plural, time};
use crate::problem;
use crate::record::Record;
use crate::scene::axis::Axis;
use crate::scene::legend::{self, Swatch};
use crate::scene::palette::{INK, MUTED, series};
use crate::scene::plot::{BOTTOM_ROOM, Plot};
use crate::scene::{Anchor, FIGURE_WIDTH, MARGIN, Plotted, Scene, Text, cell, font};

/// One bar: the best setting of a policy on a problem.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bar {
    pub(crate) problem: String,
    pub(crate) policy: String,
    pub(crate) reorder_us: Option<f64>,
    pub(crate) mask_us: f64,
    pub(crate) attention_us: f64,
    pub(crate) dense_us: f64,
}

impl Bar {
    fn parts(&self) -> [f64; 3] {
        [self.reorder_us.unwrap_or(0.0), self.mask_us, self.attention_us]
    }

    fn sum_us(&self) -> f64 {
        self.parts().iter().sum()
    }
}

/// Names of the parts, in the order they are paid.
const PARTS: [&str; 3] = ["reorder (once a pass)", "mask", "attention"];
/// Problems drawn at most, and policies of each.
const MAX_PROBLEMS: usize = 5;
const MAX_POLICIES: usize = 5;

/// Prepares the data, or says why there is none. The number counts bars that are not drawn.
pub(crate) fn data(records: &[Record]) -> Result<(Vec<Bar>, usize), String> {
    let best = best_settings(records);
    let mut problems: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for setting in &best {
        let record = setting.record;
        let (Some(mask_us), Some(attention_us), Some(dense_us)) =
            (record.mask_us_median, positive(record.time_us_median), positive(setting.dense_us))
        else {
            continue;
        };
        let bar = Bar {
            problem: String::new(),
            policy: record.policy.clone(),
            reorder_us: positive(record.reorder_us_median),
            mask_us: mask_us.max(0.0),
            attention_us,
            dense_us,
        };
        problems.entry(&setting.problem).or_default().push(bar);
    }
    let found: usize = problems.values().map(Vec::len).sum();
    if found == 0 {
        return Err("No trial has the times of dense attention, mask and attention.".to_owned());
    }
    let keys: Vec<_> = problems.keys().map(|p| (*p).clone()).collect();
    let mut named: Vec<_> = problem::names(&keys).into_iter().zip(problems.into_values()).collect();
    thin_out(&mut named, MAX_PROBLEMS);
    let mut bars = Vec::new();
    for (name, mut own) in named {
        thin_out(&mut own, MAX_POLICIES);
        bars.extend(own.into_iter().map(|bar| Bar { problem: name.clone(), ..bar }));
    }
    let left_out = found - bars.len();
    Ok((bars, left_out))
}

/// Makes the figure.
pub(crate) fn figure(records: &[Record]) -> Figure {
    let data = data(records);
    let mut caption = "Look at the share of the middle part: it is paid for every mask, and limits what a sparser mask can \
                       gain. Reordering is paid once a model pass, not once a layer, and is in no speedup."
        .to_owned();
    if let Ok((_, left_out @ 1..)) = &data {
        caption.push_str(&format!(" {} not drawn.", plural(*left_out, "bar is", "bars are")));
    }
    Figure {
        name: "time_parts",
        title: "Where the time goes",
        caption,
        picture: data.map(|(bars, _)| draw(&bars)),
    }
}

const BAR: f64 = 20.0;
const STEP: f64 = 26.0;
const GROUP_HEAD: f64 = 30.0;

fn draw(bars: &[Bar]) -> Scene {
    let groups: Vec<&[Bar]> = bars.chunk_by(|a, b| a.problem == b.problem).collect();
    let mut scene = Scene::new(FIGURE_WIDTH, 0.0, describe(bars));
    let top = scene.heading(
        "Where the time goes",
        "Best setting of each policy, its parts one after the other, relative to dense attention on the same problem.",
    );
    let label_room = 170.0;
    let value_room = 84.0;
    let left = MARGIN + label_room;
    let width = FIGURE_WIDTH - left - value_room - MARGIN;
    let ratio = |bar: &Bar| bar.sum_us() / bar.dense_us;
    let longest = bars.iter().map(ratio).fold(1.0, f64::max);
    let x = Axis::linear("time / time of dense attention", 0.0, longest * 1.02, |v| {
        format!("{:.0} %", v * 100.0)
    });
    let legend_top = top;
    let height = groups.iter().map(|g| GROUP_HEAD + g.len() as f64 * STEP).sum::<f64>() + 6.0;
    let plot_top = legend_top + 30.0;
    let y = Axis { title: String::new(), low: 0.0, high: 1.0, log: false, ticks: vec![] };
    let plot = Plot { at: (left, plot_top), size: (width, height), x, y };
    plot.draw(&mut scene);
    let one = plot.x_at(1.0);
    scene.dashed(vec![(one, plot_top), (one, plot_top + height)], 1.5, INK, (7.0, 4.0));

    let mut x_legend = left;
    for (n, name) in PARTS.iter().enumerate() {
        legend::draw(
            &mut scene,
            (x_legend, legend_top),
            240.0,
            &[(Swatch::Box(color(n)), (*name).to_owned())],
        );
        x_legend += 62.0 + font::width(name, 12.5, false);
    }
    let dense = [(Swatch::Line(INK, Some((7.0, 4.0))), "dense attention".to_owned())];
    legend::draw(&mut scene, (x_legend, legend_top), 240.0, &dense);

    let mut at = plot_top;
    for group in groups {
        let name = font::shorten(&group[0].problem, 12.5, true, FIGURE_WIDTH - 2.0 * MARGIN);
        scene.text(Text::new(name, (MARGIN, at + 20.0), 12.5).bold());
        at += GROUP_HEAD;
        for bar in group {
            let policy = font::shorten(&bar.policy, 12.0, false, label_room - 12.0);
            scene.text(Text::new(policy, (left - 8.0, at + 14.0), 12.0).anchor(Anchor::End));
            let mut from = 0.0;
            for (n, part) in bar.parts().into_iter().enumerate() {
                let to = from + part / bar.dense_us;
                let (x0, x1) = (plot.x_at(from), plot.x_at(to));
                scene.rect((x0, at), ((x1 - x0).max(0.0), BAR), color(n));
                from = to;
            }
            scene.text(Text::new(time(bar.sum_us()), (left + width + 8.0, at + 14.0), 12.0).color(MUTED));
            at += STEP;
        }
    }
    scene.height = plot_top + height + BOTTOM_ROOM;
    scene.plotted = plotted(bars);
    scene
}

/// Returns the colour of the n-th part; attention, the part of interest, has that of a first series.
fn color(n: usize) -> crate::scene::palette::Color {
    series([5, 4, 0][n])
}

fn plotted(bars: &[Bar]) -> Plotted {
    let mut rows = Plotted::new(["problem", "policy", "reorder_us", "mask_us", "attention_us", "dense_us"]);
    for bar in bars {
        let [mask, attention, dense] = [bar.mask_us, bar.attention_us, bar.dense_us].map(cell);
        rows.row([bar.problem.clone(), bar.policy.clone(), cell(bar.reorder_us), mask, attention, dense]);
    }
    rows
}

fn describe(bars: &[Bar]) -> String {
    let all: Vec<_> = bars
        .iter()
        .map(|bar| {
            let share = |part: f64| format!("{:.0} %", part / bar.sum_us() * 100.0);
            let [reorder, mask, attention] = bar.parts().map(share);
            format!(
                "{}, {}: {} in all, reorder {reorder}, mask {mask}, attention {attention}",
                bar.problem,
                bar.policy,
                time(bar.sum_us())
            )
        })
        .collect();
    format!("Parts of the time. {}.", all.join("; "))
}
