//! Rules that know the grid of blocks and nothing else.

use super::{Bits, Blocks, Misfit, Rule, Scene};
use crate::Grid;

/// Frame, block row and block column of a block.
fn place(grid: Grid, block: usize) -> [usize; 3] {
    [block / (grid.h * grid.w), block / grid.w % grid.h, block % grid.w]
}

/// Sliding Tile Attention: |dt| <= t/2, |dh| <= h/2, |dw| <= w/2 with integer division.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// Extents over frames, block rows, block columns.
    pub(super) extents: [usize; 3],
    /// Whether the window of a block near an edge is moved inwards until it lies within the grid.
    pub(super) clamped: bool,
}

impl Rule for Window {
    fn decide(&self, scene: &Scene<'_>, kept: &mut Bits) -> Result<(), Misfit> {
        let grid = scene.grid()?;
        let sizes = [grid.t, grid.h, grid.w];
        kept.set_where(|i, j| {
            let (query, key) = (place(grid, i), place(grid, j));
            (0..3).all(|axis| {
                let half = (self.extents[axis] / 2) as i64;
                let (mut centre, key) = (query[axis] as i64, key[axis] as i64);
                if self.clamped {
                    // The upper bound wins where a window is larger than the grid, as in the reference implementation.
                    centre = centre.max(half).min(sizes[axis] as i64 - 1 - half);
                }
                (centre - key).abs() <= half
            })
        });
        Ok(())
    }

    fn needs_numbers(&self) -> bool {
        false
    }
}

/// Radial attention: the nearer two frames, the wider the band around the same place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Radial {
    /// Factor on the width of every band.
    pub(super) decay: f64,
}

impl Radial {
    /// Returns the width of the band between frames `distance` apart in tokens, with frames of `tokens` and blocks of
    /// `block`; `None` where the two frames do not attend to each other.
    pub(super) fn width(self, distance: usize, tokens: usize, block: usize) -> Option<f64> {
        match distance {
            0 => Some(tokens as f64),
            1 => Some((tokens / 2) as f64),
            _ => {
                let bits = |n: usize| (usize::BITS - n.leading_zeros()) as i32;
                // Between frames 2^(k-1) to 2^k - 1 apart the band is 2^-k of a frame.
                let halved = 2f64.powi(bits(tokens) - bits(distance));
                // A band narrower than a block is thinned out instead: every so many frames, one block wide.
                let every = if halved >= block as f64 { 1 } else { (block as f64 / halved) as usize };
                distance.is_multiple_of(every).then(|| (halved * self.decay).max(block as f64))
            }
        }
    }
}

impl Rule for Radial {
    fn decide(&self, scene: &Scene<'_>, kept: &mut Bits) -> Result<(), Misfit> {
        let grid = scene.grid()?;
        let (of_frame, block) = (grid.h * grid.w, scene.block());
        let widths: Vec<Option<f64>> =
            (0..grid.t).map(|distance| self.width(distance, scene.tokens_of_q() / grid.t, block)).collect();
        kept.set_where(|i, j| {
            let (query, key) = (i / of_frame, j / of_frame);
            let apart = (i % of_frame).abs_diff(j % of_frame) * block;
            // The first frame is a sink: every query attends to it.
            key == 0 || widths[query.abs_diff(key)].is_some_and(|width| apart as f64 <= width)
        });
        Ok(())
    }

    fn needs_numbers(&self) -> bool {
        false
    }
}

/// Sparse VideoGen: a band over frames or over places, and the first frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Svg {
    /// Blocks fewer than so many frames away in the sequence.
    Spatial(usize),
    /// Places nearer than that width of a band in an order of places first, frames second.
    Temporal(usize),
}

impl Rule for Svg {
    fn decide(&self, scene: &Scene<'_>, kept: &mut Bits) -> Result<(), Misfit> {
        let grid = scene.grid()?;
        let of_frame = grid.h * grid.w;
        kept.set_where(|i, j| {
            let near = match self {
                Self::Spatial(frames) => i.abs_diff(j) < frames * of_frame,
                // Of `frames * of_frame` neighbours in that order, T stand at each place.
                Self::Temporal(frames) => {
                    (i % of_frame).abs_diff(j % of_frame) < (frames * of_frame / grid.t).max(1)
                }
            };
            near || j < of_frame
        });
        Ok(())
    }

    fn needs_numbers(&self) -> bool {
        false
    }
}

/// Patterns of Sparse-vDiT that know no numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vdit {
    /// Every block.
    Full,
    /// No block: the head is skipped and its output is 0.
    Skip,
    /// Blocks at most so far along the sequence.
    Diagonal(usize),
    /// Blocks whose place in their frame is at most so far, in every frame: a diagonal for each pair of frames.
    Diagonals(usize),
}

impl Rule for Vdit {
    fn decide(&self, scene: &Scene<'_>, kept: &mut Bits) -> Result<(), Misfit> {
        match *self {
            Self::Full => kept.set_where(|_, _| true),
            Self::Skip => {}
            Self::Diagonal(width) => kept.set_where(|i, j| i.abs_diff(j) <= width),
            Self::Diagonals(width) => {
                let grid = scene.grid()?;
                let of_frame = grid.h * grid.w;
                kept.set_where(|i, j| (i % of_frame).abs_diff(j % of_frame) <= width);
            }
        }
        Ok(())
    }

    fn needs_numbers(&self) -> bool {
        false
    }

    fn blocks(&self, _: usize) -> Result<Blocks, Misfit> {
        Ok(if matches!(self, Self::Full | Self::Skip) { Blocks::Any } else { Blocks::Patches })
    }
}

/// Iwin: windows after rows and columns were interleaved, so that a window holds every `stride`-th of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Iwin {
    pub(super) stride: usize,
}

impl Rule for Iwin {
    fn decide(&self, scene: &Scene<'_>, kept: &mut Bits) -> Result<(), Misfit> {
        let grid = scene.grid()?;
        let class = |block: usize| {
            let [t, h, w] = place(grid, block);
            (t, h % self.stride, w % self.stride)
        };
        kept.set_where(|i, j| class(i) == class(j));
        Ok(())
    }

    fn needs_numbers(&self) -> bool {
        false
    }
}
