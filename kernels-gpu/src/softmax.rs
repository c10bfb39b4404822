//! Online softmax: rows of `softmax(scale * s)` for scores that come tile by tile.
//!
//! ```text
//! m' = max(m, max(tile))    c = 2^((m - m') scale log2 e)    p = 2^(s scale log2 e - m' scale log2 e)
//! l' = c l + sum(p)         acc' = c acc + p V               lse = m scale + ln l
//! ```
//! Scores stay unscaled: the scale, and the change from e to 2, are folded into one multiply-add per score.
//! (Milakov and Gimelshein, "Online normalizer calculation for softmax"; Dao et al., FlashAttention, algorithm 1.)

/// What online softmax needs of a machine.
pub trait Math {
    /// Returns `2^x`.
    fn exp2(x: f32) -> f32;
    /// Returns `log2(x)`.
    fn log2(x: f32) -> f32;
    /// Returns `a * b + c`, rounded once.
    fn fma(a: f32, b: f32, c: f32) -> f32;
}

/// The state of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OnlineRow {
    /// Largest unscaled score yet (`m_i`); -inf before the first.
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
    #[inline(always)]
    pub fn raise<M: Math>(&mut self, tile_max: f32, scale_log2: f32) -> Step {
        let max = self.max.max(tile_max);
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
        M::exp2(M::fma(score, self.scale_log2, -self.shift))
    }
}

#[cfg(test)]
mod tests;
