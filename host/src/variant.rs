//! A kernel made concrete: tile, eligibility, stable name.

use std::fmt;

use crate::{Dtype, parameters::Parameters};

/// The compute tile of a kernel, the constants it is generic over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TileConfig {
    /// Query rows of a tile (`BLOCK_M`).
    pub block_m: usize,
    /// Keys of a tile (`BLOCK_N`).
    pub block_n: usize,
}

impl fmt::Display for TileConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.block_m, self.block_n)
    }
}

/// The granularity of a block mask, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MaskBlock {
    /// Queries per block.
    pub q_block: usize,
    /// Keys per block.
    pub kv_block: usize,
}

impl MaskBlock {
    /// Makes a square mask block.
    pub fn square(block: usize) -> Self {
        Self { q_block: block, kv_block: block }
    }
}

/// The stable name of a variant, such as `bsfwd_cpu_avx512_m64_n64_d128_f32_t2`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VariantId(pub String);

impl fmt::Display for VariantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A compiled kernel a backend can launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// Stable name.
    pub id: VariantId,
    /// Compute tile.
    pub tile: TileConfig,
    /// What it was chosen by: at least the tile.
    pub parameters: Parameters,
    /// Type the probabilities are rounded to before they meet V; decides the error budget.
    pub probabilities: Dtype,
    /// Type the output is rounded to; decides the error budget too.
    pub output: Dtype,
}

impl Variant {
    /// Returns what the kernel rounds, which its error budget follows from.
    pub fn rounding(&self) -> Rounding {
        Rounding { probabilities: self.probabilities, output: self.output }
    }
}

/// What a kernel rounds to less than float32, by design.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rounding {
    /// Type of the probabilities when they meet V.
    pub probabilities: Dtype,
    /// Type of the output in memory.
    pub output: Dtype,
}

impl Rounding {
    /// Nothing below float32.
    pub const NONE: Self = Self { probabilities: Dtype::F32, output: Dtype::F32 };
}

/// Why a configuration cannot run on a problem. Whether it is fast is another question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Ineligible {
    /// What is not met.
    pub reason: String,
}

/// A variant, or why there is none.
pub type Eligibility = Result<Variant, Ineligible>;
