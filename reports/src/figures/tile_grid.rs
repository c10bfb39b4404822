//! Tile heat maps, one for each length and policy: does the best tile stay the best?

use std::collections::{BTreeMap, BTreeSet};

use crate::best::{by_policy, positive, timed_sparse};
use crate::figures::{Figure, mask_block, nothing_timed, thin_out};
use crate::format::plural;
use crate::problem;
use crate::record::Record;
use crate::scene::palette::{GRID, INK, ON_DARK, sequential, text_on};
use crate::scene::{Anchor, FIGURE_WIDTH, MARGIN, Plotted, Scene, Text, cell, font};

/// One problem and policy.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Panel {
    pub(crate) problem: String,
    pub(crate) policy: String,
    /// Attention time by BLOCK_M and BLOCK_N, each with the mask block it was fastest with.
    pub(crate) times: BTreeMap<(u64, u64), (f64, String)>,
}

impl Panel {
    fn best_us(&self) -> f64 {
        self.times.values().map(|(us, _)| *us).fold(f64::INFINITY, f64::min)
    }
}

/// What the figure shows: rows of panels, a row for each problem.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Grid {
    pub(crate) rows: Vec<Vec<Panel>>,
    pub(crate) sides: [Vec<u64>; 2],
    pub(crate) left_out: usize,
}

const MAX_ROWS: usize = 5;
const MAX_COLUMNS: usize = 6;

/// Prepares the data, or says why there is none.
pub(crate) fn data(records: &[Record]) -> Result<Grid, String> {
    let groups = by_policy(timed_sparse(records));
    if groups.is_empty() {
        return Err(nothing_timed());
    }
    let mut rows: BTreeMap<_, Vec<(f64, Panel)>> = BTreeMap::new();
    for ((problem, policy), records) in groups {
        let mut times: BTreeMap<(u64, u64), (f64, String)> = BTreeMap::new();
        for record in &records {
            let Some(us) = positive(record.time_us_median) else { continue };
            let block = || mask_block(record.q_block, record.kv_block);
            let best = times.entry((record.block_m, record.block_n)).or_insert_with(|| (us, block()));
            if us < best.0 {
                *best = (us, block());
            }
        }
        let threshold = records[0].threshold.unwrap_or(f64::INFINITY);
        let panel = Panel { problem: String::new(), policy: policy.to_owned(), times };
        rows.entry(problem).or_default().push((threshold, panel));
    }
    let found: usize = rows.values().map(Vec::len).sum();
    let tiles: BTreeSet<_> = rows.values().flatten().flat_map(|(_, p)| p.times.keys().copied()).collect();
    if tiles.len() < 2 {
        return Err("One tile alone was timed, so there is nothing to compare.".to_owned());
    }
    let problems: Vec<_> = rows.keys().cloned().collect();
    let mut rows: Vec<_> = problem::names(&problems).into_iter().zip(rows.into_values()).collect();
    thin_out(&mut rows, MAX_ROWS);
    let rows: Vec<Vec<Panel>> = rows
        .into_iter()
        .map(|(name, mut panels)| {
            panels.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.policy.cmp(&b.1.policy)));
            thin_out(&mut panels, MAX_COLUMNS);
            panels.into_iter().map(|(_, panel)| Panel { problem: name.clone(), ..panel }).collect()
        })
        .collect();
    let shown = || rows.iter().flatten().flat_map(|p| p.times.keys());
    let sides = [shown().map(|t| t.0).collect::<BTreeSet<_>>(), shown().map(|t| t.1).collect()]
        .map(|sizes| sizes.into_iter().collect());
    Ok(Grid { left_out: found - rows.iter().map(Vec::len).sum::<usize>(), sides, rows })
}

/// Makes the figure.
pub(crate) fn figure(records: &[Record]) -> Figure {
    let data = data(records);
    let mut caption = "Look at whether the framed cell, the best tile, stays in its place from panel to panel: where it does, \
                       one tile serves all; where it moves, tuning for each length pays."
        .to_owned();
    if let Ok(Grid { left_out: left_out @ 1.., .. }) = &data {
        let panels = plural(*left_out, "panel is", "panels are");
        caption.push_str(&format!(" {panels} not drawn; choose any length and policy in the explorer."));
    }
    Figure {
        name: "tiles_by_problem",
        title: "Tile sizes by length and policy",
        caption,
        picture: data.map(|grid| draw(&grid)),
    }
}

const GAP: f64 = 14.0;
const ROW_LABELS: f64 = 44.0;
const HEAD: f64 = 24.0;
const FOOT: f64 = 40.0;

fn draw(grid: &Grid) -> Scene {
    let mut scene = Scene::new(FIGURE_WIDTH, 0.0, describe(grid));
    let mut top = scene.heading(
        "Tile sizes by length and policy",
        "Attention time relative to the best tile of the panel, over all mask blocks. Rows BLOCK_M, columns BLOCK_N.",
    );
    let abreast = grid.rows.iter().map(Vec::len).max().unwrap_or(1) as f64;
    let [ms, ns] = &grid.sides;
    let room = FIGURE_WIDTH - 2.0 * MARGIN - ROW_LABELS;
    let panel_width = ((room + GAP) / abreast - GAP).min(ns.len() as f64 * 60.0);
    let width = panel_width / ns.len() as f64;
    let height = if ms.len() > 8 { 18.0 } else { 22.0 };
    let ratios = || {
        grid.rows.iter().flatten().flat_map(|p| {
            let best = p.best_us();
            p.times.values().map(move |(us, _)| us / best)
        })
    };
    let end = ratios().fold(1.0, f64::max).clamp(1.25, 3.0);
    for row in &grid.rows {
        let name = font::shorten(&row[0].problem, 13.0, true, FIGURE_WIDTH - 2.0 * MARGIN);
        scene.text(Text::new(name, (MARGIN, top + 15.0), 13.0).bold());
        top += HEAD;
        let y0 = top + 18.0;
        for (r, m) in ms.iter().enumerate() {
            let y = y0 + (r as f64 + 0.5) * height + 4.0;
            scene.text(Text::new(m.to_string(), (MARGIN + ROW_LABELS - 8.0, y), 11.0).anchor(Anchor::End));
        }
        for (n, panel) in row.iter().enumerate() {
            let x0 = MARGIN + ROW_LABELS + n as f64 * (panel_width + GAP);
            let policy = font::shorten(&panel.policy, 12.0, false, panel_width);
            scene.text(Text::new(policy, (x0, top + 11.0), 12.0));
            draw_panel(&mut scene, panel, &grid.sides, (x0, y0), (width, height), end);
        }
        top = y0 + ms.len() as f64 * height + FOOT;
    }
    draw_scale(&mut scene, top - 6.0, end, ratios().any(|r| r > end));
    scene.height = top + 36.0;
    scene.plotted = plotted(grid);
    scene
}

fn draw_panel(
    scene: &mut Scene,
    panel: &Panel,
    [ms, ns]: &[Vec<u64>; 2],
    (x0, y0): (f64, f64),
    (width, height): (f64, f64),
    end: f64,
) {
    let best = panel.best_us();
    let mut framed = None;
    for (r, m) in ms.iter().enumerate() {
        for (c, n) in ns.iter().enumerate() {
            let at = (x0 + c as f64 * width, y0 + r as f64 * height);
            let size = (width - 1.0, height - 1.0);
            let Some((us, _)) = panel.times.get(&(*m, *n)) else {
                scene.frame((at.0 + 0.5, at.1 + 0.5), (size.0 - 1.0, size.1 - 1.0), 1.0, GRID);
                continue;
            };
            let ratio = us / best;
            let color = sequential((ratio - 1.0) / (end - 1.0));
            scene.rect(at, size, color);
            let label = if ratio < 9.995 { format!("{ratio:.2}") } else { format!("{ratio:.0}") };
            if font::width(&label, 10.5, false) + 4.0 <= size.0 {
                let middle = (at.0 + size.0 / 2.0, at.1 + size.1 / 2.0 + 3.8);
                scene.text(Text::new(label, middle, 10.5).anchor(Anchor::Middle).color(text_on(color)));
            }
            if *us == best && framed.is_none() {
                framed = Some((at, size));
            }
        }
    }
    if let Some(((x, y), (w, h))) = framed {
        // The best tile is the darkest: a dark frame alone would not be seen.
        scene.frame((x - 0.5, y - 0.5), (w + 1.0, h + 1.0), 2.0, INK);
        scene.frame((x + 1.5, y + 1.5), (w - 3.0, h - 3.0), 1.6, ON_DARK);
    }
    let mut free_from = f64::NEG_INFINITY;
    for (c, n) in ns.iter().enumerate() {
        let (label, x) = (n.to_string(), x0 + (c as f64 + 0.5) * width);
        let half = font::width(&label, 11.0, false) / 2.0;
        if x - half >= free_from {
            let y = y0 + ms.len() as f64 * height + 13.0;
            scene.text(Text::new(label, (x, y), 11.0).anchor(Anchor::Middle));
            free_from = x + half + 6.0;
        }
    }
}

fn draw_scale(scene: &mut Scene, top: f64, end: f64, clipped: bool) {
    const WIDTH: f64 = 260.0;
    const STEPS: usize = 130;
    let left = MARGIN + ROW_LABELS;
    for i in 0..STEPS {
        let x = left + WIDTH * i as f64 / STEPS as f64;
        scene.rect((x, top), (WIDTH / STEPS as f64 + 0.25, 12.0), sequential(i as f64 / (STEPS - 1) as f64));
    }
    scene.text(Text::new("1.00 (best)", (left, top + 27.0), 12.0));
    let high = format!("{}{end:.2} times the best", if clipped { "≥ " } else { "" });
    scene.text(Text::new(high, (left + WIDTH, top + 27.0), 12.0).anchor(Anchor::End));
    let remark = "framed: best tile; outlined: not timed";
    scene
        .text(Text::new(remark, (left + WIDTH + 30.0, top + 11.0), 12.0).color(crate::scene::palette::MUTED));
}

fn plotted(grid: &Grid) -> Plotted {
    let mut rows =
        Plotted::new(["problem", "policy", "block_m", "block_n", "mask_block", "time_us", "relative_time"]);
    for panel in grid.rows.iter().flatten() {
        let best = panel.best_us();
        for ((m, n), (us, block)) in &panel.times {
            rows.row([
                panel.problem.clone(),
                panel.policy.clone(),
                m.to_string(),
                n.to_string(),
                block.clone(),
                cell(*us),
                cell(us / best),
            ]);
        }
    }
    rows
}

fn describe(grid: &Grid) -> String {
    let all: Vec<_> = grid
        .rows
        .iter()
        .flatten()
        .filter_map(|panel| {
            let best = panel.best_us();
            let ((m, n), _) = panel.times.iter().find(|(_, (us, _))| *us == best)?;
            Some(format!("{}, {}: best {m} x {n}", panel.problem, panel.policy))
        })
        .collect();
    format!("Heat maps of attention time by tile for each length and policy. {}.", all.join("; "))
}
