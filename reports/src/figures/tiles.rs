//! Heat map of tile sizes: which BLOCK_M x BLOCK_N is fastest for each mask block?

use std::collections::BTreeMap;

use crate::best::{by_policy, median, positive};
use crate::collection::is_contended;
use crate::figures::{Figure, mask_block, nothing_timed};
use crate::format::plural;
use crate::problem::Problem;
use crate::record::{Record, Status};
use crate::scene::palette::{HATCH, INK, MUTED, PAPER, sequential, text_on};
use crate::scene::{Anchor, FIGURE_WIDTH, MARGIN, Plotted, Scene, Text, cell, font};

/// What is known of a tile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Cell {
    /// Median over problems and policies of its time relative to the best tile of the same mask block.
    Timed(f64),
    /// Ran into an error or missed its budget every time.
    Failed,
    /// Cannot run with this mask block.
    Ineligible,
    /// No trial.
    Absent,
}

/// One mask block.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Panel {
    pub(crate) q_block: u64,
    pub(crate) kv_block: u64,
    /// BLOCK_M of each row, ascending.
    pub(crate) rows: Vec<u64>,
    /// BLOCK_N of each column, ascending.
    pub(crate) columns: Vec<u64>,
    pub(crate) cells: Vec<Vec<Cell>>,
    /// Problems and policies the medians are over.
    pub(crate) groups: usize,
}

impl Panel {
    fn timed(&self) -> impl Iterator<Item = f64> {
        self.cells.iter().flatten().filter_map(|cell| match cell {
            Cell::Timed(ratio) => Some(*ratio),
            _ => None,
        })
    }
}

/// Times of one mask block: of each problem and policy, the fastest of each tile.
type Times<'a> = BTreeMap<(Problem, &'a str), BTreeMap<(u64, u64), f64>>;

/// Prepares the data, or says why there is none. The time is that of attention alone: the tile has no part in the mask.
pub(crate) fn data(records: &[Record]) -> Result<Vec<Panel>, String> {
    let sparse = || records.iter().filter(|r| r.policy != "dense");
    let mut blocks: BTreeMap<(u64, u64), Vec<&Record>> = BTreeMap::new();
    for record in sparse() {
        blocks.entry((record.q_block, record.kv_block)).or_default().push(record);
    }
    let panels: Vec<_> = blocks.iter().map(|((q, kv), records)| panel(*q, *kv, records)).collect();
    if panels.iter().all(|p| p.timed().next().is_none()) {
        return Err(nothing_timed());
    }
    if panels.iter().all(|p| p.timed().count() <= 1) {
        return Err(
            "At most one tile was timed for each mask block, so there is nothing to compare.".to_owned()
        );
    }
    Ok(panels.into_iter().filter(|p| p.timed().next().is_some()).collect())
}

fn panel(q_block: u64, kv_block: u64, records: &[&Record]) -> Panel {
    let mut times: Times<'_> = BTreeMap::new();
    let timed = records.iter().copied().filter(|r| r.status == Status::Ok && !is_contended(r));
    for (key, records) in by_policy(timed) {
        for record in records {
            if let Some(time) = positive(record.time_us_median) {
                let group = times.entry(key.clone()).or_default();
                let best = group.entry((record.block_m, record.block_n)).or_insert(f64::INFINITY);
                *best = best.min(time);
            }
        }
    }
    let axis = |side: fn(&Record) -> u64| {
        let mut sizes: Vec<_> = records.iter().map(|r| side(r)).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    };
    let (rows, columns) = (axis(|r| r.block_m), axis(|r| r.block_n));
    let mut tried: BTreeMap<(u64, u64), Vec<&Record>> = BTreeMap::new();
    for record in records {
        tried.entry((record.block_m, record.block_n)).or_default().push(record);
    }
    let cell = |m: u64, n: u64| {
        let ratios = times.values().filter_map(|group| {
            let best = group.values().copied().fold(f64::INFINITY, f64::min);
            Some(group.get(&(m, n))? / best)
        });
        if let Some(ratio) = median(ratios) {
            return Cell::Timed(ratio);
        }
        let trials = tried.get(&(m, n)).map(Vec::as_slice).unwrap_or_default();
        match trials.iter().all(|r| r.status == Status::Ineligible) {
            _ if trials.is_empty() => Cell::Absent,
            true => Cell::Ineligible,
            false => Cell::Failed,
        }
    };
    let cells = rows.iter().map(|&m| columns.iter().map(|&n| cell(m, n)).collect()).collect();
    Panel { q_block, kv_block, rows, columns, cells, groups: times.len() }
}

/// Makes the figure.
pub(crate) fn figure(records: &[Record]) -> Figure {
    Figure {
        name: "tile_heatmap",
        title: "Tile sizes",
        caption: "Look for the framed cell of each panel, the best tile for that mask block, and for how many dark cells \
                  surround it: a wide dark region means the choice matters little."
            .to_owned(),
        picture: data(records).map(|panels| draw(&panels)),
    }
}

const CELL_HEIGHT: f64 = 34.0;
const ROW_LABELS: f64 = 62.0;
const PANEL_HEAD: f64 = 30.0;
const PANEL_FOOT: f64 = 48.0;
const GAP: f64 = 26.0;

fn draw(panels: &[Panel]) -> Scene {
    let room = FIGURE_WIDTH - 2.0 * MARGIN;
    let widest = panels.iter().map(|p| p.columns.len()).max().unwrap_or(1) as f64;
    // As many panels abreast as leave cells wide enough for their numbers.
    let cell_width = |abreast: usize| (((room + GAP) / abreast as f64 - GAP - ROW_LABELS) / widest).min(64.0);
    let abreast = (1..=panels.len().max(1)).rev().find(|&n| cell_width(n) >= 46.0).unwrap_or(1);
    let width = cell_width(abreast);

    let worst = panels.iter().flat_map(Panel::timed).fold(1.0, f64::max);
    // The scale ends at the worst tile, but not so near that noise looks like a difference, nor so far that one
    // hopeless tile makes the others look alike.
    let end = worst.clamp(1.25, 3.0);
    let mut scene = Scene::new(FIGURE_WIDTH, 0.0, describe(panels));
    let groups = panels.iter().map(|p| p.groups).max().unwrap_or(0);
    let medians = plural(groups, "problem and policy", "problems and policies");
    let mut top = scene.heading(
        "Tile sizes",
        &format!(
            "Attention time relative to the best tile of the same mask block; median over up to {medians}."
        ),
    );
    for row in panels.chunks(abreast) {
        let tallest = row.iter().map(|p| p.rows.len()).max().unwrap_or(0) as f64;
        for (n, panel) in row.iter().enumerate() {
            let left = MARGIN + n as f64 * (ROW_LABELS + widest * width + GAP);
            draw_panel(&mut scene, panel, (left, top), width, end);
        }
        top += PANEL_HEAD + tallest * CELL_HEIGHT + PANEL_FOOT;
    }
    draw_scale(&mut scene, top + 6.0, end, worst > end);
    scene.height = top + 60.0;
    scene.plotted = plotted(panels);
    scene
}

fn draw_panel(scene: &mut Scene, panel: &Panel, (left, top): (f64, f64), width: f64, end: f64) {
    let (x0, y0) = (left + ROW_LABELS, top + PANEL_HEAD);
    let (columns, rows) = (panel.columns.len() as f64, panel.rows.len() as f64);
    let title = format!("mask block {}", mask_block(panel.q_block, panel.kv_block));
    scene.text(Text::new(title, (x0, top + 18.0), 13.5).bold());
    let best = panel.timed().fold(f64::INFINITY, f64::min);
    let mut framed = None;
    for (r, cells) in panel.cells.iter().enumerate() {
        for (c, cell) in cells.iter().enumerate() {
            let at = (x0 + c as f64 * width, y0 + r as f64 * CELL_HEIGHT);
            let size = (width - 1.5, CELL_HEIGHT - 1.5);
            let middle = (at.0 + size.0 / 2.0, at.1 + size.1 / 2.0 + 4.5);
            match *cell {
                Cell::Timed(ratio) => {
                    let color = sequential((ratio - 1.0) / (end - 1.0));
                    scene.rect(at, size, color);
                    let number = if ratio < 9.995 { format!("{ratio:.2}") } else { format!("{ratio:.0}") };
                    let mut text =
                        Text::new(number, middle, 12.5).anchor(Anchor::Middle).color(text_on(color));
                    if ratio == best && framed.is_none() {
                        framed = Some((at, size));
                        text = text.bold();
                    }
                    scene.text(text);
                }
                Cell::Ineligible => scene.hatch(at, size, HATCH),
                Cell::Failed => {
                    scene.hatch(at, size, HATCH);
                    scene.rect((middle.0 - 9.0, at.1 + 7.0), (18.0, size.1 - 14.0), PAPER);
                    scene.text(Text::new("✗", middle, 14.0).anchor(Anchor::Middle).bold());
                }
                Cell::Absent => {}
            }
        }
    }
    if let Some(((x, y), (w, h))) = framed {
        scene.frame((x - 0.75, y - 0.75), (w + 1.5, h + 1.5), 3.0, INK);
    }
    for (c, n) in panel.columns.iter().enumerate() {
        let x = x0 + (c as f64 + 0.5) * width - 0.75;
        scene
            .text(Text::new(n.to_string(), (x, y0 + rows * CELL_HEIGHT + 15.0), 12.0).anchor(Anchor::Middle));
    }
    for (r, m) in panel.rows.iter().enumerate() {
        let y = y0 + (r as f64 + 0.5) * CELL_HEIGHT + 3.5;
        scene.text(Text::new(m.to_string(), (x0 - 7.0, y), 12.0).anchor(Anchor::End));
    }
    let under = (x0 + columns * width / 2.0, y0 + rows * CELL_HEIGHT + 33.0);
    scene.text(Text::new("BLOCK_N", under, 12.5).anchor(Anchor::Middle));
    let beside = (left + 14.0, y0 + rows * CELL_HEIGHT / 2.0);
    scene.text(Text::new("BLOCK_M", beside, 12.5).anchor(Anchor::Middle).vertical());
}

fn draw_scale(scene: &mut Scene, top: f64, end: f64, clipped: bool) {
    const WIDTH: f64 = 260.0;
    const STEPS: usize = 130;
    let left = MARGIN + ROW_LABELS;
    for i in 0..STEPS {
        let x = left + WIDTH * i as f64 / STEPS as f64;
        scene.rect((x, top), (WIDTH / STEPS as f64 + 0.25, 12.0), sequential(i as f64 / (STEPS - 1) as f64));
    }
    let ends =
        ["1.00 (best)".to_owned(), format!("{}{end:.2} times the best", if clipped { "≥ " } else { "" })];
    scene.text(Text::new(&ends[0], (left, top + 27.0), 12.0));
    scene.text(Text::new(&ends[1], (left + WIDTH, top + 27.0), 12.0).anchor(Anchor::End));
    let mut x = left + WIDTH + 40.0;
    for (failed, label) in [(false, "cannot run"), (true, "failed its check or launch")] {
        scene.hatch((x, top - 2.0), (30.0, 18.0), HATCH);
        if failed {
            scene.rect((x + 8.0, top), (14.0, 14.0), PAPER);
            scene.text(Text::new("✗", (x + 15.0, top + 12.0), 13.0).anchor(Anchor::Middle).bold());
        }
        scene.text(Text::new(label, (x + 38.0, top + 11.5), 12.5).color(MUTED));
        x += 38.0 + font::width(label, 12.5, false) + 28.0;
    }
}

fn plotted(panels: &[Panel]) -> Plotted {
    let mut rows =
        Plotted::new(["q_block", "kv_block", "block_m", "block_n", "state", "relative_time", "groups"]);
    for panel in panels {
        for (m, cells) in panel.rows.iter().zip(&panel.cells) {
            for (n, value) in panel.columns.iter().zip(cells) {
                let (state, ratio) = match value {
                    Cell::Timed(ratio) => ("timed", Some(*ratio)),
                    Cell::Failed => ("failed", None),
                    Cell::Ineligible => ("ineligible", None),
                    Cell::Absent => continue,
                };
                let [q, kv, m, n, groups] =
                    [panel.q_block, panel.kv_block, *m, *n, panel.groups as u64].map(|size| size.to_string());
                rows.row([q, kv, m, n, state.to_owned(), cell(ratio), groups]);
            }
        }
    }
    rows
}

fn describe(panels: &[Panel]) -> String {
    let all: Vec<_> = panels
        .iter()
        .filter_map(|panel| {
            let best = panel.timed().fold(f64::INFINITY, f64::min);
            let worst = panel.timed().fold(1.0, f64::max);
            let (m, n) = panel.rows.iter().zip(&panel.cells).find_map(|(m, cells)| {
                let n = cells.iter().position(|cell| *cell == Cell::Timed(best))?;
                Some((*m, panel.columns[n]))
            })?;
            let block = mask_block(panel.q_block, panel.kv_block);
            Some(format!(
                "mask block {block}: best BLOCK_M {m}, BLOCK_N {n}; the worst takes {worst:.2} times as long"
            ))
        })
        .collect();
    format!("Heat maps of attention time by tile size. {}.", all.join(". "))
}
