//! Two kernels against each other: a line of `records.jsonl`.

use serde::{Deserialize, Serialize};

/// What a comparison came to, about `a` as seen from `b`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// `b` is faster than `a` by more than the margin.
    Faster,
    /// `b` is slower than `a` by more than the margin.
    Slower,
    /// They differ by less than the margin.
    Same,
    /// The samples do not tell.
    Ambiguous,
}

impl Verdict {
    /// Returns the name used in CSV and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Faster => "faster",
            Verdict::Slower => "slower",
            Verdict::Same => "same",
            Verdict::Ambiguous => "ambiguous",
        }
    }
}

/// Two kernels timed in pairs on one problem.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// `cpu`, `cuda` or `emulator`.
    pub backend: String,
    /// Device model name.
    pub device: String,
    /// `f32`, `f16` or `bf16`.
    pub dtype: String,
    /// Batch size.
    pub batch: u64,
    /// Heads.
    pub heads: u64,
    /// Tokens per head.
    pub seqlen: u64,
    /// Elements per token and head.
    pub head_dim: u64,
    /// Frames, rows, columns of the token grid, if the input is a video.
    pub grid: Option<[u64; 3]>,
    /// Mask policy string.
    pub policy: String,
    /// Queries per mask block; 0 for dense.
    pub q_block: u64,
    /// Keys per mask block; 0 for dense.
    pub kv_block: u64,
    /// The kernel compared with: the ratio's denominator.
    pub a: String,
    /// The kernel compared: the ratio's numerator.
    pub b: String,
    /// Pairs of samples the ratio is taken from.
    pub pairs: u64,
    /// Time of `b` over time of `a`: below 1, `b` is faster.
    pub ratio: f64,
    /// Lower end of the ratio's 95 % interval.
    pub ratio_low: f64,
    /// Upper end of the ratio's 95 % interval.
    pub ratio_high: f64,
    /// Probability of so large a difference if there were none.
    pub p_value: f64,
    /// Relative difference below which two times count as the same: 0.01 is one per cent.
    pub margin: f64,
    /// What it came to.
    pub verdict: Verdict,
    /// Where in a run it was made, such as `runoff` or `final`.
    pub stage: String,
}
