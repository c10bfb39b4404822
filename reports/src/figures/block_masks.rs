//! Block masks head by head: what does each head attend to, and how densely?

use crate::figures::{Figure, thin_out};
use crate::format::{count, percent};
use crate::masks::{MaskPicture, averaged, shade};
use crate::scene::palette::{GRID, MUTED};
use crate::scene::{Anchor, FIGURE_WIDTH, MARGIN, Plotted, Scene, Text, cell, font};

/// Heads drawn at most.
const MAX_HEADS: usize = 12;
/// Panels side by side.
const ABREAST: usize = 4;
/// Cells of a panel's side at most: more blocks are averaged.
const MAX_CELLS: usize = 96;
/// Shades between skipped and computed.
const SHADES: f64 = 8.0;

/// Makes the figure.
pub(crate) fn figure(masks: &[MaskPicture]) -> Figure {
    let sound =
        |m: &&MaskPicture| m.q_blocks > 0 && m.kv_blocks > 0 && m.kept.len() == m.q_blocks * m.kv_blocks;
    let mut shown: Vec<&MaskPicture> = masks.iter().filter(sound).collect();
    thin_out(&mut shown, MAX_HEADS);
    let mut caption =
        "Look at how much heads differ in density and in form: work is shared out by head, and the densest \
                       one decides when all are done."
            .to_owned();
    if shown.len() < masks.len() {
        caption.push_str(&format!(" {} of {} heads are drawn.", shown.len(), masks.len()));
    }
    let picture = if shown.is_empty() { Err("No mask has any block.".to_owned()) } else { Ok(draw(&shown)) };
    Figure { name: "block_masks", title: "Block masks", caption, picture }
}

fn draw(masks: &[&MaskPicture]) -> Scene {
    const GAP: f64 = 20.0;
    const HEAD: f64 = 24.0;
    const FOOT: f64 = 36.0;
    const LEFT: f64 = 30.0;
    let columns = masks.len().clamp(1, ABREAST);
    let side = ((FIGURE_WIDTH - 2.0 * MARGIN + GAP) / columns as f64 - GAP - LEFT).min(420.0);
    let mut scene = Scene::new(FIGURE_WIDTH, 0.0, describe(masks));
    let top = scene.heading(
        "Block masks",
        "Rows are query blocks, columns key blocks, dark is computed, light skipped; per cent: density of the head.",
    );
    // A mask much wider than tall keeps its form down to a strip.
    let height_of = |m: &MaskPicture| (side * m.q_blocks as f64 / m.kv_blocks as f64).clamp(24.0, side);
    let mut y = top;
    for row in masks.chunks(columns) {
        let tallest = row.iter().map(|m| height_of(m)).fold(0.0, f64::max);
        for (n, mask) in row.iter().enumerate() {
            let at = (MARGIN + LEFT + n as f64 * (side + GAP + LEFT), y + HEAD);
            panel(&mut scene, mask, at, (side, height_of(mask)));
        }
        y += HEAD + tallest + FOOT;
    }
    scene.height = y;
    scene.plotted = plotted(masks);
    scene
}

fn panel(scene: &mut Scene, mask: &MaskPicture, (x, y): (f64, f64), (w, h): (f64, f64)) {
    let density = percent(mask.density);
    let room = w - font::width(&density, 11.5, false) - 10.0;
    scene.text(Text::new(font::shorten(&mask.title, 12.5, true, room), (x, y - 8.0), 12.5).bold());
    scene.text(Text::new(density, (x + w, y - 8.0), 11.5).anchor(Anchor::End).color(MUTED));
    scene.rect((x, y), (w, h), shade(0.0));
    let (columns, rows) = (mask.kv_blocks.min(MAX_CELLS), mask.q_blocks.min(MAX_CELLS));
    let shares = averaged(mask, (columns, rows));
    let (cw, ch) = (w / columns as f64, h / rows as f64);
    for (r, line) in shares.chunks_exact(columns).enumerate() {
        let level = |share: f64| (share * SHADES).ceil();
        let mut from = 0;
        // Neighbours of one shade are one rectangle: a picture of a mask has thousands of blocks.
        for run in line.chunk_by(|a, b| level(*a) == level(*b)) {
            if run[0] > 0.0 {
                let at = (x + from as f64 * cw, y + r as f64 * ch);
                scene.rect(at, (run.len() as f64 * cw, ch), shade(level(run[0]) / SHADES));
            }
            from += run.len();
        }
    }
    scene.frame((x - 0.5, y - 0.5), (w + 1.0, h + 1.0), 1.0, GRID);
    let small = |text: String, at| Text::new(text, at, 10.5);
    scene.text(small("0".to_owned(), (x, y + h + 13.0)));
    scene.text(small(count(mask.kv_blocks as u64 - 1), (x + w, y + h + 13.0)).anchor(Anchor::End));
    scene.text(small("0".to_owned(), (x - 5.0, y + 8.0)).anchor(Anchor::End));
    scene.text(small(count(mask.q_blocks as u64 - 1), (x - 5.0, y + h)).anchor(Anchor::End));
}

fn plotted(masks: &[&MaskPicture]) -> Plotted {
    let mut rows = Plotted::new(["head", "query_block", "kept_key_blocks", "key_blocks", "density_of_head"]);
    for mask in masks {
        for (q, line) in mask.kept.chunks_exact(mask.kv_blocks).enumerate() {
            let kept: Vec<String> =
                (0..).zip(line).filter(|(_, kept)| **kept).map(|(k, _): (usize, _)| k.to_string()).collect();
            rows.row([
                mask.title.clone(),
                q.to_string(),
                kept.join(" "),
                mask.kv_blocks.to_string(),
                cell(mask.density),
            ]);
        }
    }
    rows
}

fn describe(masks: &[&MaskPicture]) -> String {
    let all: Vec<_> = masks.iter().map(|m| format!("{}: {}", m.title, percent(m.density))).collect();
    format!("Kept blocks of each head. Densities: {}.", all.join(", "))
}
