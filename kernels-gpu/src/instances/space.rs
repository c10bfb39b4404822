//! Spaces of instances: axes, and every point of theirs that passes its check.

use super::{Instance, Kernel};
use crate::config::{Constants, Dtype, WARP_ROWS};

/// The values each constant takes; a space is their product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axes {
    /// Attention kernels with tensor cores.
    pub kernels: &'static [Kernel],
    /// Query rows of a block of threads; warps follow.
    pub block_m: &'static [u32],
    /// Keys of a tile.
    pub block_n: &'static [u32],
    /// Elements per token and head.
    pub head_dim: &'static [u32],
    /// Key tiles in shared memory.
    pub stages: &'static [u32],
    /// Storage types.
    pub dtype: &'static [Dtype],
    /// Blocks of threads per multiprocessor.
    pub ctas_per_sm: &'static [u32],
}

/// The named spaces.
pub const SPACES: &[(&str, Axes)] = &[
    (
        "tiles",
        Axes { kernels: &[Kernel::AttentionSparse], dtype: &[Dtype::Bf16], ctas_per_sm: &[1], ..Axes::ALL },
    ),
    ("dense", Axes { kernels: &[Kernel::AttentionDense], dtype: &[Dtype::Bf16], ..Axes::ALL }),
    ("sparse", Axes { kernels: &[Kernel::AttentionSparse], dtype: &[Dtype::Bf16], ..Axes::ALL }),
    ("all", Axes::ALL),
];

impl Axes {
    /// Everything attention can be compiled with that a tuner may want to try.
    pub const ALL: Self = Self {
        kernels: &[Kernel::AttentionSparse, Kernel::AttentionDense],
        block_m: &[32, 64, 128],
        block_n: &[32, 64, 128],
        head_dim: &[64, 96, 128],
        stages: &[2, 3, 4],
        dtype: &[Dtype::Bf16, Dtype::F16],
        ctas_per_sm: &[1, 2, 3, 4],
    };

    /// Returns the points that pass [`Instance::check`], in the order of the axes, the last fastest.
    pub fn instances(self) -> impl Iterator<Item = Instance> {
        let lengths = [
            self.kernels.len(),
            self.block_m.len(),
            self.block_n.len(),
            self.head_dim.len(),
            self.stages.len(),
            self.dtype.len(),
            self.ctas_per_sm.len(),
        ];
        (0..lengths.iter().product()).filter_map(move |point: usize| {
            let mut rest = point;
            let mut at = [0; 7];
            for (at, length) in at.iter_mut().zip(lengths).rev() {
                *at = rest % length;
                rest /= length;
            }
            let block_m = self.block_m[at[1]];
            let constants = Constants {
                block_m,
                block_n: self.block_n[at[2]],
                head_dim: self.head_dim[at[3]],
                stages: self.stages[at[4]],
                dtype: self.dtype[at[5]],
                warps: block_m / WARP_ROWS,
                ctas_per_sm: self.ctas_per_sm[at[6]],
                ..Constants::DEFAULT
            };
            let instance = Instance { kernel: self.kernels[at[0]], constants };
            instance.check().is_ok().then_some(instance)
        })
    }
}
