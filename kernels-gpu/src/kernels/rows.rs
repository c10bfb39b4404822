//! Softmax of the rows that a lane has in accumulators: what attention does between its two products, whichever
//! instructions compute those.
//!
//! Scores and output are fragments of eight columns: registers `2r` and `2r + 1` of each belong to row `r` of two, and
//! four lanes side by side share a row (`layout::accumulator_element`).

use super::lanes::quad_max;
use crate::{
    config::{Constants, Dtype, MAX_SIDE},
    layout::accumulator_element,
    ptx::{self, Device},
    softmax::OnlineRow,
};

/// Fragments of a row as wide as any.
pub type Fragments = [[f32; 4]; MAX_SIDE as usize / 8];

/// The softmax of a kernel's scale.
///
/// Scores are those of Q or, if `negated`, of -Q: the largest score is then the largest weight for any scale.
#[derive(Clone, Copy)]
pub struct Scale {
    pub log2: f32,
    pub negated: bool,
}

impl Scale {
    /// Makes it of the softmax scale, any finite number.
    #[inline(always)]
    pub fn new(softmax_scale: f32) -> Self {
        // A scale of 0 must not meet the -inf of masked keys: the least normal number gives the same weights.
        let log2 = (softmax_scale.abs() * core::f32::consts::LOG2_E).max(f32::MIN_POSITIVE);
        Self { log2, negated: softmax_scale < 0.0 }
    }
}

/// Removes the keys from `keys` on from the scores of each row that are columns `first..first + columns`.
#[inline(always)]
pub fn mask(scores: &mut Fragments, first: u32, columns: u32, keys: u32, lane: u32) {
    for n in first as usize / 8..(first + columns) as usize / 8 {
        for i in 0..4 {
            let (_, column) = accumulator_element(lane, i as u32);
            if n as u32 * 8 + column >= first + keys {
                scores[n][i] = f32::NEG_INFINITY;
            }
        }
    }
}

/// Takes a tile of scores of each row into its softmax: they become weights. `correct` is told each row and the factor on
/// what was accumulated of it before.
///
/// # Safety
/// All lanes of the warp come here.
#[inline(always)]
pub unsafe fn weigh(
    c: Constants,
    scores: &mut Fragments,
    rows: &mut [OnlineRow; 2],
    scale: Scale,
    mut correct: impl FnMut(usize, f32),
) {
    for r in 0..2 {
        let mut max = f32::NEG_INFINITY;
        for n in 0..c.block_n as usize / 8 {
            max = max.max(scores[n][2 * r]).max(scores[n][2 * r + 1]);
        }
        // SAFETY: the caller's.
        let step = rows[r].raise::<Device>(unsafe { quad_max(max) }, scale.log2, c.slack as f32);
        for n in 0..c.block_n as usize / 8 {
            let (left, right) = (scores[n][2 * r], scores[n][2 * r + 1]);
            (scores[n][2 * r], scores[n][2 * r + 1]) = if c.is_polynomial(n as u32) {
                (step.weight_polynomial::<Device>(left), step.weight_polynomial::<Device>(right))
            } else {
                (step.weight::<Device>(left), step.weight::<Device>(right))
            };
            // In pairs: a chain of additions half as long.
            rows[r].sum += scores[n][2 * r] + scores[n][2 * r + 1];
        }
        correct(r, step.correction);
    }
}

/// Multiplies the accumulators of row `r` by a factor; with slack, unless it is 1 for all rows of the warp.
///
/// # Safety
/// All lanes of the warp come here.
#[inline(always)]
pub unsafe fn rescale(c: Constants, out: &mut Fragments, r: usize, factor: f32) {
    // SAFETY: the caller's.
    if c.slack != 0 && unsafe { ptx::ballot(factor != 1.0) } == 0 {
        return;
    }
    for n in 0..c.head_dim as usize / 8 {
        out[n][2 * r] *= factor;
        out[n][2 * r + 1] *= factor;
    }
}

/// Rounds the weights of 16 keys to an A operand: two fragments side by side are one.
#[inline(always)]
pub fn operand(dtype: Dtype, weights: &Fragments, step: usize) -> [u32; 4] {
    let (left, right) = (weights[2 * step], weights[2 * step + 1]);
    [
        ptx::pack(dtype, left[0], left[1]),
        ptx::pack(dtype, left[2], left[3]),
        ptx::pack(dtype, right[0], right[1]),
        ptx::pack(dtype, right[2], right[3]),
    ]
}
