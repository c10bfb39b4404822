//! Spaces of instances: axes, and every point of theirs that passes its check.

use super::{Arch, Instance, Kernel};
use crate::config::{Dtype, Work};

/// The values each constant takes; a space is their product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axes {
    /// Attention kernels with tensor cores.
    pub kernels: &'static [Kernel],
    /// Query rows of a block of threads; warps that compute follow.
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
    /// Whether a warpgroup of its own loads; portable kernels have none.
    pub producer: &'static [bool],
    /// Powers of two that scores may grow by before what was accumulated is corrected.
    pub slack: &'static [u32],
    /// Polynomials among eight exponentials.
    pub polynomials: &'static [u32],
    /// Which query tiles a block of threads computes.
    pub work: &'static [Work],
    /// How many value tiles less than key tiles are in shared memory.
    pub less_values: &'static [u32],
    /// Whether warpgroups that compute take turns.
    pub ping_pong: &'static [bool],
    /// Whether a key tile is two listed key blocks.
    pub pairs: &'static [bool],
    /// Blocks of threads of a cluster.
    pub cluster: &'static [u32],
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
    (
        "hopper-tiles",
        Axes {
            dtype: &[Dtype::Bf16],
            slack: &[0],
            polynomials: &[0],
            work: &[Work::Once],
            ..Axes::HOPPER_PLAIN
        },
    ),
    ("hopper-dense", Axes { kernels: &[Kernel::HopperDense], dtype: &[Dtype::Bf16], ..Axes::HOPPER }),
    ("hopper-sparse", Axes { kernels: &[Kernel::HopperSparse], dtype: &[Dtype::Bf16], ..Axes::HOPPER }),
    ("hopper", Axes::HOPPER),
];

impl Axes {
    /// Everything portable attention can be compiled with that a tuner may want to try.
    pub const ALL: Self = Self {
        kernels: &[Kernel::AttentionSparse, Kernel::AttentionDense],
        block_m: &[32, 64, 128],
        block_n: &[32, 64, 128],
        head_dim: &[64, 96, 128],
        stages: &[2, 3, 4],
        dtype: &[Dtype::Bf16, Dtype::F16],
        ctas_per_sm: &[1, 2, 3, 4],
        producer: &[false],
        slack: &[0],
        polynomials: &[0],
        work: &[Work::Once],
        less_values: &[0],
        ping_pong: &[false],
        pairs: &[false],
        cluster: &[1],
    };

    /// The same for attention on compute capability 9.0a.
    pub const HOPPER: Self = Self {
        kernels: &[Kernel::HopperSparse, Kernel::HopperDense],
        block_m: &[64, 128, 192],
        block_n: &[64, 128],
        head_dim: &[64, 96, 128],
        stages: &[2, 3, 4, 5, 6],
        dtype: &[Dtype::Bf16, Dtype::F16],
        ctas_per_sm: &[1, 2, 3],
        producer: &[false, true],
        slack: &[0, 4, 8],
        polynomials: &[0, 1, 2],
        work: &[Work::Once, Work::Stride, Work::Listed],
        less_values: &[0, 1],
        ping_pong: &[false, true],
        pairs: &[false, true],
        cluster: &[1, 2],
    };

    /// The same without what is shared in more than one way: how many value tiles, turns, pairs, clusters.
    const HOPPER_PLAIN: Self =
        Self { less_values: &[0], ping_pong: &[false], pairs: &[false], cluster: &[1], ..Self::HOPPER };

    /// Returns the points that pass [`Instance::check`], in the order of the axes, the last fastest.
    pub fn instances(self) -> impl Iterator<Item = Instance> {
        self.instances_where(|_, _| true)
    }

    /// Returns those of [`Axes::instances`] with values that `keep` speaks for: it is asked for each value of an axis, with the
    /// axis's name, and not for each point. Names are those of fields of [`Axes`]; numbers are values, codes, or 0 and 1.
    pub fn instances_where(self, keep: impl Fn(&str, i64) -> bool) -> impl Iterator<Item = Instance> {
        // A bit for each value: no axis has as many as there are bits.
        let kept = |name: &str, values: &mut dyn Iterator<Item = i64>| -> u32 {
            values.enumerate().filter(|&(_, value)| keep(name, value)).map(|(at, _)| 1 << at).sum()
        };
        let numbers = |name, values: &[u32]| kept(name, &mut values.iter().map(|&value| value.into()));
        let truths = |name, values: &[bool]| kept(name, &mut values.iter().map(|&value| value.into()));
        let axes: [u32; 15] = [
            kept("kernels", &mut self.kernels.iter().map(|&kernel| kernel as i64)),
            numbers("block_m", self.block_m),
            numbers("block_n", self.block_n),
            numbers("head_dim", self.head_dim),
            numbers("stages", self.stages),
            kept("dtype", &mut self.dtype.iter().map(|dtype| dtype.code().into())),
            numbers("ctas_per_sm", self.ctas_per_sm),
            truths("producer", self.producer),
            numbers("slack", self.slack),
            numbers("polynomials", self.polynomials),
            kept("work", &mut self.work.iter().map(|work| work.code().into())),
            numbers("less_values", self.less_values),
            truths("ping_pong", self.ping_pong),
            truths("pairs", self.pairs),
            numbers("cluster", self.cluster),
        ];
        (0..axes.iter().map(|kept| kept.count_ones()).product()).filter_map(move |point: u32| {
            let mut rest = point;
            let mut at = [0; 15];
            for (at, kept) in at.iter_mut().zip(axes).rev() {
                *at = nth_bit(kept, rest % kept.count_ones());
                rest /= kept.count_ones();
            }
            let point = Point {
                kernel: self.kernels[at[0]],
                shape: [self.block_m[at[1]], self.block_n[at[2]], self.head_dim[at[3]], self.stages[at[4]]],
                dtype: self.dtype[at[5]],
                ctas_per_sm: self.ctas_per_sm[at[6]],
                producer: self.producer[at[7]],
                slack: self.slack[at[8]],
                polynomials: self.polynomials[at[9]],
                work: self.work[at[10]],
                less_values: self.less_values[at[11]],
                ping_pong: self.ping_pong[at[12]],
                pairs: self.pairs[at[13]],
                cluster: self.cluster[at[14]],
            };
            let instance = point.instance();
            instance.check().is_ok().then_some(instance)
        })
    }
}

/// Returns the place of the `n`-th bit that is set.
fn nth_bit(mut bits: u32, n: u32) -> usize {
    for _ in 0..n {
        bits &= bits.wrapping_sub(1);
    }
    bits.trailing_zeros() as usize
}

/// A value of each axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Of [`Axes::kernels`].
    pub kernel: Kernel,
    /// `block_m`, `block_n`, `head_dim` and `stages`.
    pub shape: [u32; 4],
    /// Of [`Axes::dtype`].
    pub dtype: Dtype,
    /// Of [`Axes::ctas_per_sm`].
    pub ctas_per_sm: u32,
    /// Of [`Axes::producer`].
    pub producer: bool,
    /// Of [`Axes::slack`].
    pub slack: u32,
    /// Of [`Axes::polynomials`].
    pub polynomials: u32,
    /// Of [`Axes::work`].
    pub work: Work,
    /// Of [`Axes::less_values`].
    pub less_values: u32,
    /// Of [`Axes::ping_pong`].
    pub ping_pong: bool,
    /// Of [`Axes::pairs`].
    pub pairs: bool,
    /// Of [`Axes::cluster`].
    pub cluster: u32,
}

impl Point {
    /// Returns its instance, which may not pass [`Instance::check`].
    pub fn instance(self) -> Instance {
        let Self { kernel, shape, dtype, .. } = self;
        let instance = match (kernel.arch(), self.producer) {
            (Arch::Sm80, _) => Instance::attention(kernel, shape, dtype),
            (Arch::Sm90a, true) => Instance::hopper(kernel, shape, dtype),
            (Arch::Sm90a, false) => Instance::hopper(kernel, shape, dtype).without_producer(),
        };
        instance
            .with_ctas(self.ctas_per_sm)
            .with_slack(self.slack)
            .with_polynomials(self.polynomials)
            .with_work(self.work)
            .with_value_stages(shape[3].saturating_sub(self.less_values))
            .with_ping_pong(self.ping_pong)
            .with_pairs(self.pairs)
            .with_cluster(self.cluster)
    }
}
