//! Draws the block masks of all heads as one picture.

use std::path::{Path, PathBuf};

use crate::format::{count, percent};
use crate::scene::palette::{Color, GRID, INK, MUTED, PAPER, mix, series};
use crate::scene::render::{self, DrawError};
use crate::scene::{Anchor, MARGIN, Scene, Text, font};

/// The mask of one head.
#[derive(Debug, Clone, PartialEq)]
pub struct MaskPicture {
    /// Name of the panel, such as `head 3`.
    pub title: String,
    /// Rows: query blocks.
    pub q_blocks: usize,
    /// Columns: key blocks.
    pub kv_blocks: usize,
    /// Kept blocks over all blocks, written behind the title.
    pub density: f64,
    /// Whether each block is kept, row by row: `q_blocks * kv_blocks` values.
    pub kept: Vec<bool>,
}

/// Why masks could not be drawn.
#[derive(Debug, thiserror::Error)]
pub enum MaskPictureError {
    /// Another kind of picture was asked for.
    #[error("{path}: masks are drawn as PNG; give a name that ends in .png")]
    NotPng {
        /// The path given.
        path: PathBuf,
    },
    /// Nothing to draw.
    #[error("no mask to draw: expected at least one head with at least one block on either side")]
    Empty,
    /// More heads than can be shown.
    #[error("{heads} masks are too many for one picture; draw at most {MAX_MASKS} at a time")]
    TooMany {
        /// How many were given.
        heads: usize,
    },
    /// Sizes disagree.
    #[error("{title}: {q_blocks} x {kv_blocks} blocks need {expected} values, got {got}")]
    WrongLength {
        /// The mask's title.
        title: String,
        /// Its rows.
        q_blocks: usize,
        /// Its columns.
        kv_blocks: usize,
        /// Their product.
        expected: usize,
        /// Values given.
        got: usize,
    },
    /// The file could not be written.
    #[error("{path}: cannot draw: {source}; check that the folder exists and can be written")]
    Draw {
        /// The file.
        path: PathBuf,
        /// What the drawing backend said.
        source: DrawError,
    },
}

/// Heads in one picture at most: beyond that it is larger than viewers open.
const MAX_MASKS: usize = 1024;

/// Writes one PNG with a panel per mask: titles, densities, block numbers on both axes.
///
/// Kept blocks are dark, skipped ones light. Masks with more blocks than a panel has pixels are averaged over areas: a
/// pixel's shade is the share of its blocks that are kept.
pub fn write_block_masks(path_png: &Path, masks: &[MaskPicture]) -> Result<(), MaskPictureError> {
    if !path_png.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")) {
        return Err(MaskPictureError::NotPng { path: path_png.to_owned() });
    }
    if masks.is_empty() || masks.iter().any(|m| m.q_blocks == 0 || m.kv_blocks == 0) {
        return Err(MaskPictureError::Empty);
    }
    if masks.len() > MAX_MASKS {
        return Err(MaskPictureError::TooMany { heads: masks.len() });
    }
    for mask in masks {
        let expected = mask.q_blocks.saturating_mul(mask.kv_blocks);
        if mask.kept.len() != expected {
            return Err(MaskPictureError::WrongLength {
                title: mask.title.clone(),
                q_blocks: mask.q_blocks,
                kv_blocks: mask.kv_blocks,
                expected,
                got: mask.kept.len(),
            });
        }
    }
    let layout = Layout::new(masks);
    let scene = layout.scene(masks);
    let images = masks.iter().enumerate().map(|(n, mask)| layout.image(n, mask)).collect::<Vec<_>>();
    render::png_with_images(&scene, &images, path_png)
        .map_err(|source| MaskPictureError::Draw { path: path_png.to_owned(), source })
}

const TITLE_ROOM: f64 = 30.0;
const LEFT_ROOM: f64 = 46.0;
const BELOW_ROOM: f64 = 40.0;
const GAP: f64 = 14.0;
const HEAD: f64 = 66.0;

/// Where panels stand; lengths in pixels of the scene, of which a PNG has two each way.
struct Layout {
    columns: usize,
    /// Longest side an image may have.
    side: f64,
    /// Room of a panel for its image: the largest of them, and a title's width.
    room: (f64, f64),
}

/// Room a title with its density needs.
const MIN_WIDTH: f64 = 150.0;

impl Layout {
    fn new(masks: &[MaskPicture]) -> Self {
        // Wide rather than tall, as screens are.
        let columns = ((masks.len() as f64 * 1.6).sqrt().ceil() as usize).clamp(1, masks.len());
        let side = match columns {
            1 => 460.0,
            2..=3 => 340.0,
            4..=6 => 230.0,
            _ => 160.0,
        };
        let mut layout = Self { columns, side, room: (MIN_WIDTH, 0.0) };
        for (width, height) in masks.iter().map(|mask| layout.size(mask)).collect::<Vec<_>>() {
            layout.room = (layout.room.0.max(width), layout.room.1.max(height));
        }
        layout
    }

    fn cell(&self) -> (f64, f64) {
        (LEFT_ROOM + self.room.0 + GAP, TITLE_ROOM + self.room.1 + BELOW_ROOM)
    }

    /// Returns where the image of the n-th panel starts.
    fn corner(&self, n: usize) -> (f64, f64) {
        let (width, height) = self.cell();
        let (column, row) = ((n % self.columns) as f64, (n / self.columns) as f64);
        (MARGIN + column * width + LEFT_ROOM, HEAD + row * height + TITLE_ROOM)
    }

    /// Returns how many pixels of the PNG an axis with so many blocks takes: a whole number each, or fewer than one.
    fn length(&self, blocks: usize) -> usize {
        let most = (self.side * render::PNG_SCALE as f64) as usize;
        if blocks <= most { most / blocks * blocks } else { most }
    }

    fn size(&self, mask: &MaskPicture) -> (f64, f64) {
        let scale = render::PNG_SCALE as f64;
        (self.length(mask.kv_blocks) as f64 / scale, self.length(mask.q_blocks) as f64 / scale)
    }

    fn scene(&self, masks: &[MaskPicture]) -> Scene {
        let (width, height) = self.cell();
        let rows = masks.len().div_ceil(self.columns) as f64;
        let width = (MARGIN + self.columns as f64 * width).max(640.0);
        let mut scene = Scene::new(width, HEAD + rows * height, "");
        scene.text(Text::new("Block masks", (MARGIN, 30.0), 17.0).bold());
        let mut x = MARGIN;
        for (share, label) in [(1.0, "computed"), (0.0, "skipped")] {
            scene.rect((x, 42.0), (13.0, 13.0), shade(share));
            scene.frame((x, 42.0), (13.0, 13.0), 1.0, MUTED);
            scene.text(Text::new(label, (x + 20.0, 53.0), 12.0).color(MUTED));
            x += 34.0 + font::width(label, 12.0, false);
        }
        let most = (self.side * render::PNG_SCALE as f64) as usize;
        let averaged = masks.iter().any(|m| m.q_blocks.max(m.kv_blocks) > most);
        let shades = if averaged { "shades between: share of the blocks under one pixel;  " } else { "" };
        let label = format!("{shades}per cent: density");
        scene.text(Text::new(label, (x, 53.0), 12.0).color(MUTED));
        for (n, mask) in masks.iter().enumerate() {
            self.panel(&mut scene, n, mask);
        }
        scene
    }

    fn panel(&self, scene: &mut Scene, n: usize, mask: &MaskPicture) {
        let (x, y) = self.corner(n);
        let (w, h) = self.size(mask);
        let density = percent(mask.density);
        let density_room = font::width(&density, 12.0, false) + 10.0;
        let title = font::shorten(&mask.title, 13.0, true, self.room.0 - density_room);
        let after = x + font::width(&title, 13.0, true) + 10.0;
        scene.text(Text::new(title, (x, y - 8.0), 13.0).bold());
        scene.text(Text::new(density, (after, y - 8.0), 12.0).color(MUTED));
        scene.rect((x, y), (w, h), GRID);
        scene.frame((x - 0.5, y - 0.5), (w + 1.0, h + 1.0), 1.0, MUTED);

        // Numbers stand at the middle of the first and the last block.
        let last = |blocks: usize| count(blocks as u64 - 1);
        let half = |length: f64, blocks: usize| length / blocks as f64 / 2.0;
        let (half_w, half_h) = (half(w, mask.kv_blocks), half(h, mask.q_blocks));
        let below = y + h + 14.0;
        let small = |text: String, at| Text::new(text, at, 11.0);
        scene.text(small("0".to_owned(), (x + half_w.max(4.0), below)).anchor(Anchor::Middle));
        scene.text(small("0".to_owned(), (x - 5.0, y + half_h.max(4.0) + 4.0)).anchor(Anchor::End));
        if mask.kv_blocks > 1 {
            let text = last(mask.kv_blocks);
            let half_text = font::width(&text, 11.0, false) / 2.0;
            let at = x + w - half_w.max(half_text - 3.0);
            scene.text(small(text, (at, below)).anchor(Anchor::Middle));
        }
        if mask.q_blocks > 1 {
            scene.text(
                small(last(mask.q_blocks), (x - 5.0, y + h - half_h.max(4.0) + 4.0)).anchor(Anchor::End),
            );
        }
        let title = Text::new("key block", (x + w / 2.0, y + h + 28.0), 11.5).anchor(Anchor::Middle);
        scene.text(title.color(INK));
        let title = Text::new("query block", (x - 32.0, y + h / 2.0), 11.5).anchor(Anchor::Middle);
        if h > 70.0 {
            scene.text(title.vertical());
        }
    }

    fn image(&self, n: usize, mask: &MaskPicture) -> render::Image {
        let (x, y) = self.corner(n);
        let scale = render::PNG_SCALE as f64;
        let size = (self.length(mask.kv_blocks), self.length(mask.q_blocks));
        let shares = averaged(mask, size);
        let rgb = shares.into_iter().flat_map(|share| {
            let Color(r, g, b) = shade(share);
            [r, g, b]
        });
        render::Image { at: ((x * scale) as usize, (y * scale) as usize), size, rgb: rgb.collect() }
    }
}

pub(crate) fn shade(share: f64) -> Color {
    mix(PAPER, mix(series(0), INK, 0.45), share)
}

/// Returns the kept share under each of `width` x `height` pixels, row by row.
pub(crate) fn averaged(mask: &MaskPicture, (width, height): (usize, usize)) -> Vec<f64> {
    // Sums over each row of blocks by pixel column, then over pixel rows: every block is read a bounded number of times.
    let columns = weights(mask.kv_blocks, width);
    let rows = weights(mask.q_blocks, height);
    let mut out = Vec::with_capacity(width * height);
    let mut before: Option<(&[(usize, f64)], usize)> = None;
    for row in &rows {
        // Enlarged masks repeat whole pixel rows.
        if let Some((same, start)) = before
            && same == row.as_slice()
        {
            out.extend_from_within(start..start + width);
            before = Some((same, start));
            continue;
        }
        let start = out.len();
        for column in &columns {
            let mut sum = 0.0;
            for &(q, share) in row {
                let line = &mask.kept[q * mask.kv_blocks..][..mask.kv_blocks];
                sum +=
                    share * column.iter().map(|&(k, share)| if line[k] { share } else { 0.0 }).sum::<f64>();
            }
            out.push(sum.clamp(0.0, 1.0));
        }
        before = Some((row, start));
    }
    out
}

/// Returns, for each pixel of an axis, the blocks it covers with their shares, which sum to one.
fn weights(blocks: usize, pixels: usize) -> Vec<Vec<(usize, f64)>> {
    let per_pixel = blocks as f64 / pixels as f64;
    (0..pixels)
        .map(|pixel| {
            if pixels >= blocks {
                return vec![(pixel * blocks / pixels, 1.0)];
            }
            let (from, to) = (pixel as f64 * per_pixel, (pixel + 1) as f64 * per_pixel);
            (from as usize..(to.ceil() as usize).min(blocks))
                .map(|block| {
                    let covered = to.min(block as f64 + 1.0) - from.max(block as f64);
                    (block, covered.max(0.0) / per_pixel)
                })
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(q_blocks: usize, kv_blocks: usize, kept: impl Fn(usize, usize) -> bool) -> MaskPicture {
        let kept: Vec<_> = (0..q_blocks * kv_blocks).map(|i| kept(i / kv_blocks, i % kv_blocks)).collect();
        let density = kept.iter().filter(|k| **k).count() as f64 / kept.len() as f64;
        MaskPicture { title: "head 0".to_owned(), q_blocks, kv_blocks, density, kept }
    }

    #[test]
    fn enlarging_repeats_blocks() {
        let shares = averaged(&mask(2, 2, |q, k| q == k), (4, 4));
        let expected = [1., 1., 0., 0., 1., 1., 0., 0., 0., 0., 1., 1., 0., 0., 1., 1.];
        assert_eq!(shares, expected);
    }

    #[test]
    fn shrinking_keeps_the_density() {
        for (q, k, size) in [(4000, 4000, (460, 460)), (301, 977, (460, 300)), (7, 5000, (300, 14))] {
            let mask = mask(q, k, |q, k| (q * 31 + k * 17) % 5 == 0 || q.abs_diff(k) < 3);
            let shares = averaged(&mask, size);
            let mean = shares.iter().sum::<f64>() / shares.len() as f64;
            assert!((mean - mask.density).abs() < 1e-9, "{q} x {k}: {mean} for {}", mask.density);
        }
    }

    #[test]
    fn other_extensions_and_bad_sizes_are_refused_with_a_clear_error() {
        let good = mask(2, 2, |_, _| true);
        let error = |path: &str, masks: &[MaskPicture]| {
            write_block_masks(Path::new(path), masks).unwrap_err().to_string()
        };
        assert_eq!(
            error("m.svg", std::slice::from_ref(&good)),
            "m.svg: masks are drawn as PNG; give a name that ends in .png"
        );
        assert_eq!(
            error("m.png", &[]),
            "no mask to draw: expected at least one head with at least one block on either side"
        );
        let short = MaskPicture { kept: vec![true; 3], ..good.clone() };
        assert_eq!(error("m.png", &[short]), "head 0: 2 x 2 blocks need 4 values, got 3");
        assert_eq!(
            error("m.png", &vec![good.clone(); 1025]),
            "1025 masks are too many for one picture; draw at most 1024 at a time"
        );
        let nowhere = error("/nonexistent-folder/m.png", &[good]);
        assert!(nowhere.starts_with("/nonexistent-folder/m.png: cannot draw: "), "{nowhere}");
    }
}
