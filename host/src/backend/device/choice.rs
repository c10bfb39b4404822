//! From a problem and a tile to the instance of a kernel.

use nabla_kernels_gpu::{
    config::{self, Constants},
    instances::{INSTANCES, Instance, Kernel},
};

use crate::{
    Dtype, Problem,
    variant::{Ineligible, MaskBlock, TileConfig},
};

/// Rows of the pooled map that the selection gives a block of threads, and blocks of threads on a multiprocessor, best
/// first: fewer rows leave each more room, and two blocks overlap what one does in turn, which is worth two rows of eight.
const SELECT_ROWS: [(u32, u32); 7] = [(8, 2), (7, 2), (6, 2), (8, 1), (4, 1), (2, 1), (1, 1)];

/// Returns the type the kernels know a dtype by.
pub(super) fn device_dtype(dtype: Dtype) -> Result<config::Dtype, Ineligible> {
    match dtype {
        Dtype::Bf16 => Ok(config::Dtype::Bf16),
        Dtype::F16 => Ok(config::Dtype::F16),
        Dtype::F32 => Err(Ineligible {
            reason:
                "tensor cores take bf16 or f16 inputs, these are f32: round them with --dtype bf16, or use \
                     --backend cpu"
                    .to_owned(),
        }),
    }
}

/// Finds the instance of attention with a tile: a listed one, else the defaults with that tile.
pub(super) fn attention_instance(
    problem: &Problem,
    block: Option<MaskBlock>,
    tile: TileConfig,
) -> Result<Instance, Ineligible> {
    let dtype = device_dtype(problem.dtype)?;
    let kernel = if block.is_some() { Kernel::AttentionSparse } else { Kernel::AttentionDense };
    let refuse = |reason: String| Err(Ineligible { reason });
    let small = |size: usize| u32::try_from(size).ok();
    let (Some(block_m), Some(block_n), Some(head_dim)) =
        (small(tile.block_m), small(tile.block_n), small(problem.head_dim))
    else {
        return refuse(format!("tile {tile} or head dimension {} is out of all range", problem.head_dim));
    };
    if let Some(block) = block.filter(|block| tile.block_m > block.q_block) {
        return refuse(format!(
            "BLOCK_M must be at most the mask's query block of {}, got {block_m}: a tile never spans two query blocks",
            block.q_block
        ));
    }
    let listed = listed(kernel, problem)
        .find(|instance| instance.constants.block_m == block_m && instance.constants.block_n == block_n);
    let stages = Constants::DEFAULT.stages;
    let made = Instance::attention(kernel, [block_m, block_n, head_dim, stages], dtype);
    let instance = listed.copied().unwrap_or(made);
    match instance.check() {
        Ok(()) => Ok(instance),
        Err(reason) => refuse(format!("tile {tile}, head dimension {head_dim}: {reason}")),
    }
}

/// Lists the instances of a kernel that fit a problem.
fn listed(kernel: Kernel, problem: &Problem) -> impl Iterator<Item = &'static Instance> {
    let (dtype, head_dim) = (device_dtype(problem.dtype).ok(), problem.head_dim);
    INSTANCES.iter().filter(move |instance| {
        instance.kernel == kernel
            && Some(instance.constants.dtype) == dtype
            && instance.constants.head_dim as usize == head_dim
    })
}

/// Finds the selection with room for rows of `kv_blocks`: the listed one with the least to spare, else one made for it.
pub(super) fn select_instance(head_dim: u32, kv_blocks: u32) -> Option<Instance> {
    let listed = INSTANCES
        .iter()
        .filter(|i| {
            i.kernel == Kernel::Select
                && i.constants.head_dim == head_dim
                && i.constants.max_kv_blocks >= kv_blocks
        })
        .min_by_key(|i| i.constants.max_kv_blocks);
    let made = || {
        let room = kv_blocks.checked_next_multiple_of(256)?;
        let sized = |(rows, ctas)| Instance::select(rows, room, head_dim).with_ctas(ctas);
        SELECT_ROWS.into_iter().map(sized).find(|i| i.check().is_ok())
    };
    listed.copied().or_else(made)
}
