//! Forest plot of comparisons: which kernel is faster, and do the samples show it?

use std::collections::BTreeSet;

use crate::figures::Figure;
use crate::format::{count, plural, round};
use crate::record::{Comparison, Verdict};
use crate::scene::axis::Axis;
use crate::scene::marker::Marker;
use crate::scene::palette::{Color, GRID, INK, MUTED, series};
use crate::scene::plot::{BOTTOM_ROOM, Plot};
use crate::scene::{Anchor, FIGURE_WIDTH, MARGIN, Plotted, Scene, Text, cell, font};

/// Comparisons drawn at most.
const MAX_ROWS: usize = 40;

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row<'a> {
    pub(crate) detail: String,
    pub(crate) comparison: &'a Comparison,
}

/// Prepares the rows, or says why there are none. The number counts comparisons that are not drawn.
pub(crate) fn data(comparisons: &[Comparison]) -> Result<(Vec<Row<'_>>, usize), String> {
    let good = |c: &&Comparison| {
        [c.ratio, c.ratio_low, c.ratio_high].iter().all(|r| r.is_finite() && *r > 0.0)
            && c.ratio_low <= c.ratio_high
    };
    let mut sound: Vec<&Comparison> = comparisons.iter().filter(good).collect();
    if sound.is_empty() {
        return Err("No comparison has a ratio above zero with an interval.".to_owned());
    }
    sound.truncate(MAX_ROWS);
    let varies =
        |fact: fn(&Comparison) -> String| sound.iter().map(|c| fact(c)).collect::<BTreeSet<_>>().len() > 1;
    let shown: Vec<fn(&Comparison) -> String> = [
        (|c: &Comparison| c.policy.clone()) as fn(&Comparison) -> String,
        |c| format!("{} tokens", count(c.seqlen)),
        |c| c.dtype.clone(),
        |c| format!("{} heads", c.heads),
        |c| format!("D {}", c.head_dim),
        |c| c.stage.clone(),
    ]
    .into_iter()
    .enumerate()
    // Policy and length are always named.
    .filter(|(n, fact)| *n < 2 || varies(*fact))
    .map(|(_, fact)| fact)
    .collect();
    let rows = sound.into_iter().map(|comparison| Row {
        detail: shown.iter().map(|fact| fact(comparison)).collect::<Vec<_>>().join(" · "),
        comparison,
    });
    let rows: Vec<_> = rows.collect();
    let left_out = comparisons.len() - rows.len();
    Ok((rows, left_out))
}

/// Makes the figure.
pub(crate) fn figure(comparisons: &[Comparison]) -> Figure {
    let data = data(comparisons);
    let mut caption = "Look at the bars: one that lies wholly left of the shaded margin is shown to be faster, one wholly right of it \
                       slower, one inside it the same; one that reaches over an edge is not decided."
        .to_owned();
    if let Ok((_, left_out @ 1..)) = &data {
        caption.push_str(&format!(" {} not drawn.", plural(*left_out, "comparison is", "comparisons are")));
    }
    Figure {
        name: "comparisons",
        title: "Comparisons",
        caption,
        picture: data.and_then(|(rows, _)| draw(&rows).ok_or_else(|| "No comparison to draw.".to_owned())),
    }
}

fn color(verdict: Verdict) -> Color {
    match verdict {
        Verdict::Faster => series(0),
        Verdict::Slower => series(1),
        Verdict::Same => INK,
        Verdict::Ambiguous => MUTED,
    }
}

fn marker(verdict: Verdict) -> Marker {
    match verdict {
        Verdict::Faster => Marker::Down,
        Verdict::Slower => Marker::Up,
        Verdict::Same => Marker::Square,
        Verdict::Ambiguous => Marker::Circle,
    }
}

const ROW: f64 = 54.0;
const LABELS: f64 = 300.0;
const VALUES: f64 = 200.0;

fn draw(rows: &[Row<'_>]) -> Option<Scene> {
    let comparisons = || rows.iter().map(|r| r.comparison);
    let widest = comparisons().map(|c| c.margin).fold(0.0, f64::max).clamp(0.0, 0.5);
    let values = comparisons().flat_map(|c| [c.ratio_low, c.ratio_high]).chain([1.0 - widest, 1.0 + widest]);
    let x = Axis::log(
        "ratio of times (logarithmic; below 1 the first named is faster)",
        values.collect::<Vec<_>>(),
        round,
    )?;
    let mut scene = Scene::new(FIGURE_WIDTH, 0.0, describe(rows));
    let top = scene.heading(
        "Comparisons",
        "Ratio of times from pairs of samples taken together, with 95 % intervals; shaded: differences that do not matter.",
    );
    let (left, width) = (MARGIN + LABELS, FIGURE_WIDTH - 2.0 * MARGIN - LABELS - VALUES);
    let height = rows.len() as f64 * ROW + 8.0;
    let y = Axis { title: String::new(), low: 0.0, high: 1.0, log: false, ticks: vec![] };
    let plot = Plot { at: (left, top), size: (width, height), x, y };
    for (n, row) in rows.iter().enumerate() {
        let c = row.comparison;
        let margin = c.margin.clamp(0.0, 0.5);
        let (x0, x1) = (plot.x_at(1.0 - margin), plot.x_at(1.0 + margin));
        scene.rect((x0, top + 4.0 + n as f64 * ROW), (x1 - x0, ROW), GRID);
    }
    plot.draw(&mut scene);
    let one = plot.x_at(1.0);
    scene.dashed(vec![(one, top), (one, top + height)], 1.2, MUTED, (4.0, 4.0));
    for (n, row) in rows.iter().enumerate() {
        let c = row.comparison;
        let y = top + 4.0 + (n as f64 + 0.5) * ROW;
        let against = format!("against {}", c.a);
        for (n, (text, bold, color)) in
            [(&c.b, true, INK), (&against, false, INK), (&row.detail, false, MUTED)].into_iter().enumerate()
        {
            let text = font::shorten(text, 11.0, bold, LABELS - 10.0);
            let at = (MARGIN, y - 11.0 + 15.0 * n as f64);
            let text = Text::new(text, at, 11.0).color(color);
            scene.text(if bold { text.bold() } else { text });
        }
        let (low, high) = (plot.x_at(c.ratio_low), plot.x_at(c.ratio_high));
        scene.line(vec![(low, y), (high, y)], 1.8, color(c.verdict));
        for x in [low, high] {
            scene.line(vec![(x, y - 4.0), (x, y + 4.0)], 1.8, color(c.verdict));
        }
        marker(c.verdict).solid(&mut scene, (plot.x_at(c.ratio), y), 5.0, color(c.verdict));
        let value = format!("{:.3} [{:.3}, {:.3}]", c.ratio, c.ratio_low, c.ratio_high);
        let right = FIGURE_WIDTH - MARGIN;
        scene.text(Text::new(value, (right, y), 11.5).anchor(Anchor::End));
        let verdict = format!("{} · {}", c.verdict.name(), plural(c.pairs as usize, "pair", "pairs"));
        scene.text(Text::new(verdict, (right, y + 15.0), 11.5).anchor(Anchor::End).color(MUTED));
    }
    scene.height = top + height + BOTTOM_ROOM;
    scene.plotted = plotted(rows);
    Some(scene)
}

fn plotted(rows: &[Row<'_>]) -> Plotted {
    let mut out = Plotted::new([
        "a",
        "b",
        "policy",
        "seqlen",
        "dtype",
        "stage",
        "pairs",
        "ratio",
        "ratio_low",
        "ratio_high",
        "p_value",
        "margin",
        "verdict",
    ]);
    for c in rows.iter().map(|r| r.comparison) {
        let [ratio, low, high, p, margin] =
            [c.ratio, c.ratio_low, c.ratio_high, c.p_value, c.margin].map(cell);
        out.row([
            c.a.clone(),
            c.b.clone(),
            c.policy.clone(),
            c.seqlen.to_string(),
            c.dtype.clone(),
            c.stage.clone(),
            c.pairs.to_string(),
            ratio,
            low,
            high,
            p,
            margin,
            c.verdict.name().to_owned(),
        ]);
    }
    out
}

fn describe(rows: &[Row<'_>]) -> String {
    let all: Vec<_> = rows
        .iter()
        .map(|r| {
            let c = r.comparison;
            format!("{} against {}, {}: {:.3}, {}", c.b, c.a, r.detail, c.ratio, c.verdict.name())
        })
        .collect();
    format!("Ratios of times. {}.", all.join("; "))
}
