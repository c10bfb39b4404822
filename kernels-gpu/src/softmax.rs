//! Online softmax: rows of `softmax(scale * s)` for scores that come tile by tile.
//!
//! ```text
//! m' = max(m, max(tile))    c = 2^((m - m') scale log2 e)    p = 2^(s scale log2 e - m' scale log2 e)
//! l' = c l + sum(p)         acc' = c acc + p V               lse = m scale + ln l
//! ```
//! Scores stay unscaled: the scale, and the change from e to 2, are folded into one multiply-add per score.
//! (Milakov and Gimelshein, "Online normalizer calculation for softmax"; Dao et al., FlashAttention, algorithm 1.)

use crate::exponential::exp2_polynomial;

/// What online softmax needs of a machine.
pub trait Math {
    /// Returns `2^x`.
    fn exp2(x: f32) -> f32;
    /// Returns `log2(x)`.
    fn log2(x: f32) -> f32;
    /// Returns `a * b + c`, rounded once.
    fn fma(a: f32, b: f32, c: f32) -> f32;
    /// Returns the larger of two numbers, NaN if one of them is.
    fn at_least(x: f32, least: f32) -> f32;
}

/// The state of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OnlineRow {
    /// Unscaled score the weights are relative to (`m_i`): the largest yet, or one that is less by the slack of
    /// [`OnlineRow::raise`] at most; -inf before the first.
    pub max: f32,
    /// Sum of the weights yet (`l_i`), relative to `max`. Several lanes may each hold a part of a row's sum.
    pub sum: f32,
}

impl OnlineRow {
    /// The row before any score.
    pub const EMPTY: Self = Self { max: f32::NEG_INFINITY, sum: 0.0 };

    /// Takes the largest score of a tile and returns what the tile's weights are relative to.
    ///
    /// `scale_log2` is the softmax scale times log2(e), positive. The sum is corrected here, the caller corrects its
    /// accumulators.
    ///
    /// With a `slack`, in powers of two, weights stay relative to what they were while none exceeds 2^slack: then the
    /// correction is exactly 1. Nothing is lost: numbers keep their precision whatever they are relative to, and what is
    /// divided by in the end is relative to the same.
    #[inline(always)]
    pub fn raise<M: Math>(&mut self, tile_max: f32, scale_log2: f32, slack: f32) -> Step {
        let mut max = self.max.max(tile_max);
        // The first score of all is infinitely larger than none; -inf - -inf is NaN, which is not less.
        if slack != 0.0 && (max - self.max) * scale_log2 <= slack {
            max = self.max;
        }
        // Without any score but -inf, -inf - -inf would be NaN where a weight of 0 is meant.
        let base = if max == f32::NEG_INFINITY { 0.0 } else { max };
        // Weights are relative to the ROUNDED product, the same for all scores of a row: for large scores it is off by
        // more than the weights may be. So is the correction, and so is the lse in `finish`: no multiply-add there.
        let shift = base * scale_log2;
        let correction = M::exp2(self.max * scale_log2 - shift);
        self.max = max;
        self.sum *= correction;
        Step { correction, scale_log2, shift }
    }

    /// Returns what to multiply accumulators by, and the natural logarithm of the row's sum of exponentials.
    ///
    /// `sum` is the whole row's. An empty row gives 0 and -inf.
    #[inline(always)]
    pub fn finish<M: Math>(max: f32, sum: f32, scale_log2: f32) -> (f32, f32) {
        if max == f32::NEG_INFINITY && sum == 0.0 {
            return (0.0, f32::NEG_INFINITY);
        }
        let lse = (max * scale_log2 + M::log2(sum)) * core::f32::consts::LN_2;
        (1.0 / sum, lse)
    }
}

/// What the weights of a tile are relative to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Factor on what was accumulated before this tile.
    pub correction: f32,
    scale_log2: f32,
    shift: f32,
}

impl Step {
    /// Returns the weight of a score: one multiply-add and one exponential.
    #[inline(always)]
    pub fn weight<M: Math>(&self, score: f32) -> f32 {
        M::exp2(self.exponent::<M>(score))
    }

    /// Returns the weight of a score without the special function unit.
    #[inline(always)]
    pub fn weight_polynomial<M: Math>(&self, score: f32) -> f32 {
        exp2_polynomial::<M>(self.exponent::<M>(score))
    }

    /// Returns the logarithm of a score's weight to base 2.
    #[inline(always)]
    fn exponent<M: Math>(&self, score: f32) -> f32 {
        M::fma(score, self.scale_log2, -self.shift)
    }
}

#[cfg(test)]
pub(crate) mod tests;
