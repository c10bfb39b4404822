//! From a problem and a tile to the instances of a kernel that could compute it.
//!
//! Pure: what the device at hand can load is for `DeviceBackend::choose` to find out.

use nabla_kernels_gpu::{
    config::{self, Constants},
    hopper::GROUP_ROWS,
    instances::{Arch, INSTANCES, Instance, Kernel, space::Axes},
};

use crate::{
    Dtype, Problem,
    variant::{Ineligible, MaskBlock, TileConfig},
};

/// Rows of the pooled map that the selection gives a block of threads, and blocks of threads on a multiprocessor, best
/// first: fewer rows leave each more room, and two blocks overlap what one does in turn, which is worth two rows of eight.
const SELECT_ROWS: [(u32, u32); 7] = [(8, 2), (7, 2), (6, 2), (8, 1), (4, 1), (2, 1), (1, 1)];
/// Key tiles in shared memory of Hopper instances that nobody listed, most first.
const HOPPER_STAGES: [u32; 5] = [6, 5, 4, 3, 2];
/// Blocks of threads per multiprocessor of a single warpgroup that nobody listed, most first.
const HOPPER_CTAS: [u32; 3] = [3, 2, 1];

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

/// Lists the instances of attention with a tile, one for each of the instruction sets that has any, in their order; at
/// least one.
///
/// # Errors
/// Why the last of the instruction sets has none, where no other has one.
pub(super) fn attention_candidates(
    problem: &Problem,
    block: Option<MaskBlock>,
    tile: TileConfig,
    instruction_sets: &[Arch],
) -> Result<Vec<Instance>, Ineligible> {
    let (mut found, mut refused) = (Vec::new(), None);
    for &arch in instruction_sets {
        match attention_instance(problem, block, tile, arch) {
            Ok(instance) => found.push(instance),
            Err(ineligible) => refused = Some(ineligible),
        }
    }
    match refused {
        Some(ineligible) if found.is_empty() => Err(ineligible),
        _ => Ok(found),
    }
}

/// Returns the axes of an instruction set's own kernels.
pub(super) fn axes_of(arch: Arch) -> Axes {
    if arch == Arch::Sm90a { Axes::HOPPER } else { Axes::ALL }
}

/// Lists every tile that instances of some instruction set have for a problem, whatever its mask.
pub(super) fn tiles(problem: &Problem, instruction_sets: &[Arch]) -> Vec<TileConfig> {
    let product = instruction_sets.iter().flat_map(|&arch| {
        let Axes { block_m, block_n, .. } = axes_of(arch);
        block_m.iter().flat_map(move |&block_m| {
            let tile = move |&block_n| TileConfig { block_m: block_m as usize, block_n: block_n as usize };
            block_n.iter().map(tile)
        })
    });
    // Any point can be compiled: listed instances are the ones that tests build, not all there are.
    let mut tiles: Vec<TileConfig> =
        product.filter(|&tile| attention_candidates(problem, None, tile, instruction_sets).is_ok()).collect();
    tiles.sort_unstable();
    tiles.dedup();
    tiles
}

/// The tiles to give a user who chooses none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Preference {
    /// The one for the device's own kernels, if it has such.
    pub(super) preferred: Option<TileConfig>,
    /// The one for portable kernels.
    pub(super) portable: TileConfig,
}

/// Chooses the tiles to give a user who chooses none.
///
/// On Hopper two query tiles share what is loaded: alone, each would load its keys and values for itself, and the
/// second-level cache cannot feed the tensor cores so (`docs/kernel-notes.md`). Dense attention, and masks of longer
/// blocks, halve the number of softmax rounds by key tiles twice as long.
pub(super) fn default_tiles(block: Option<MaskBlock>, instruction_sets: &[Arch]) -> Preference {
    let Constants { block_m, block_n, .. } = Constants::DEFAULT;
    let (block_m, block_n) = (block_m as usize, block_n as usize);
    let portable = TileConfig { block_m: block.map_or(block_m, |block| block.q_block.min(block_m)), block_n };
    let long = block.is_none_or(|block| block.kv_block.is_multiple_of(128));
    let hopper = TileConfig { block_m: 128, block_n: if long { 128 } else { 64 } };
    let fits = instruction_sets.contains(&Arch::Sm90a)
        && block.is_none_or(|block| block.q_block.is_multiple_of(GROUP_ROWS as usize));
    Preference { preferred: fits.then_some(hopper), portable }
}

/// Finds the instance of attention with a tile for an instruction set: a listed one, else one made with that tile.
fn attention_instance(
    problem: &Problem,
    block: Option<MaskBlock>,
    tile: TileConfig,
    arch: Arch,
) -> Result<Instance, Ineligible> {
    let dtype = device_dtype(problem.dtype)?;
    let refuse = |reason: String| Err(Ineligible { reason });
    let small = |size: usize| u32::try_from(size).ok();
    let (Some(block_m), Some(block_n), Some(head_dim)) =
        (small(tile.block_m), small(tile.block_n), small(problem.head_dim))
    else {
        return refuse(format!("tile {tile} or head dimension {} is out of all range", problem.head_dim));
    };
    let kernel = match (arch, block) {
        (Arch::Sm80, Some(_)) => Kernel::AttentionSparse,
        (Arch::Sm80, None) => Kernel::AttentionDense,
        (Arch::Sm90a, Some(_)) => Kernel::HopperSparse,
        (Arch::Sm90a, None) => Kernel::HopperDense,
    };
    if let Some(MaskBlock { q_block, .. }) = block {
        if arch == Arch::Sm90a && !q_block.is_multiple_of(GROUP_ROWS as usize) {
            return refuse(format!(
                "a warpgroup takes {GROUP_ROWS} query rows: the mask's query block must be a multiple of that, got \
                 {q_block}"
            ));
        }
        if arch == Arch::Sm80 && tile.block_m > q_block {
            return refuse(format!(
                "BLOCK_M must be at most the mask's query block of {q_block}, got {block_m}: a tile never spans two \
                 query blocks"
            ));
        }
    }
    // Blocks that fill no tile share one, where the kernel can.
    let shorter = block.is_some_and(|block| block.kv_block < tile.block_n);
    let listed: Vec<Instance> = listed(kernel, problem)
        .filter(|instance| instance.constants.block_m == block_m && instance.constants.block_n == block_n)
        .copied()
        .collect();
    let made: Vec<Instance> = made(kernel, [block_m, block_n, head_dim], dtype).collect();
    let all = || listed.iter().chain(&made).filter(|instance| instance.check().is_ok());
    match all().find(|instance| instance.constants.pairs == shorter).or_else(|| all().next()) {
        Some(&instance) => Ok(instance),
        None => {
            // The least demanding says why.
            let stages = Constants::DEFAULT.stages;
            let instance = match arch {
                Arch::Sm80 => Instance::attention(kernel, [block_m, block_n, head_dim, stages], dtype),
                Arch::Sm90a => Instance::hopper(kernel, [block_m, block_n, head_dim, stages], dtype),
            };
            let reason = instance.check().err().unwrap_or("no instance has these constants");
            refuse(format!("tile {tile}, head dimension {head_dim}: {reason}"))
        }
    }
}

/// Makes instances with a tile, the most promising first; not all pass their check.
fn made(
    kernel: Kernel,
    [block_m, block_n, head_dim]: [u32; 3],
    dtype: config::Dtype,
) -> Box<dyn Iterator<Item = Instance>> {
    let shape = move |stages| [block_m, block_n, head_dim, stages];
    if kernel.arch() == Arch::Sm80 {
        return Box::new([Instance::attention(kernel, shape(Constants::DEFAULT.stages), dtype)].into_iter());
    }
    // A single warpgroup leaves the tensor cores idle during its softmax: others have to share the multiprocessor.
    let alone =
        HOPPER_CTAS.map(|ctas| Instance::hopper(kernel, shape(3), dtype).without_producer().with_ctas(ctas));
    let several = HOPPER_STAGES.map(|stages| Instance::hopper(kernel, shape(stages), dtype));
    let single = alone.into_iter().filter(move |_| block_m == GROUP_ROWS).chain(several);
    Box::new(single.flat_map(|instance| [instance, instance.with_pairs(true)]))
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

#[cfg(test)]
mod tests {
    use super::*;

    const HOPPER: [Arch; 2] = [Arch::Sm90a, Arch::Sm80];
    const TILE: TileConfig = TileConfig { block_m: 64, block_n: 64 };

    fn problem(head_dim: usize, dtype: Dtype) -> Problem {
        Problem {
            batch: 1,
            heads: 2,
            seqlen_q: 512,
            seqlen_k: 512,
            head_dim,
            dtype,
            softmax_scale: 0.125,
            grid: None,
        }
    }

    fn kernels(block: Option<MaskBlock>, tile: TileConfig, sets: &[Arch]) -> Vec<Kernel> {
        let found = attention_candidates(&problem(64, Dtype::Bf16), block, tile, sets);
        found.unwrap().iter().map(|instance| instance.kernel).collect()
    }

    #[test]
    fn hopper_comes_first_where_it_fits_and_the_portable_kernel_behind_it() {
        let square = |block| Some(MaskBlock::square(block));
        assert_eq!(kernels(square(64), TILE, &HOPPER), [Kernel::HopperSparse, Kernel::AttentionSparse]);
        assert_eq!(kernels(None, TILE, &HOPPER), [Kernel::HopperDense, Kernel::AttentionDense]);
        assert_eq!(kernels(square(64), TILE, &[Arch::Sm80]), [Kernel::AttentionSparse]);
        // Two query blocks in one block of threads, which only Hopper kernels take.
        let wide = TileConfig { block_m: 128, ..TILE };
        assert_eq!(kernels(square(64), wide, &HOPPER), [Kernel::HopperSparse]);
        // A query block that is no number of warpgroups, and a tile that none computes.
        let short = TileConfig { block_m: 32, ..TILE };
        assert_eq!(kernels(square(32), short, &HOPPER), [Kernel::AttentionSparse]);
        assert_eq!(kernels(None, TileConfig { block_n: 32, ..TILE }, &HOPPER), [Kernel::AttentionDense]);
    }

    #[test]
    fn key_blocks_shorter_than_the_tile_share_it() {
        let pairs = |block, [block_m, block_n]: [usize; 2]| {
            let tile = TileConfig { block_m, block_n };
            let found = attention_candidates(&problem(64, Dtype::Bf16), block, tile, &HOPPER).unwrap();
            found[0].constants.pairs
        };
        let square = |block| Some(MaskBlock::square(block));
        assert!(pairs(square(64), [128, 128]) && pairs(square(64), [64, 128]));
        assert!(!pairs(square(128), [128, 128]) && !pairs(None, [128, 128]));
        // Halves of 32 keys are none that a kernel has.
        assert!(!pairs(Some(MaskBlock { q_block: 64, kv_block: 32 }), [64, 64]));
    }

    #[test]
    fn what_nobody_has_is_told_as_the_portable_kernel_tells_it() {
        let refused = |head_dim, dtype, tile| {
            let block = Some(MaskBlock::square(64));
            attention_candidates(&problem(head_dim, dtype), block, tile, &HOPPER).unwrap_err().reason
        };
        assert!(refused(64, Dtype::F32, TILE).contains("--dtype bf16"));
        assert!(refused(80, Dtype::F16, TILE).contains("head_dim"));
        assert!(refused(64, Dtype::F16, TileConfig { block_m: 256, ..TILE }).contains("at most"));
    }

    #[test]
    fn tiles_are_those_of_both_instruction_sets_once() {
        let tiles = |sets: &[Arch]| tiles(&problem(128, Dtype::Bf16), sets);
        let (portable, both) = (tiles(&[Arch::Sm80]), tiles(&HOPPER));
        assert!(portable.iter().all(|tile| both.contains(tile)));
        let three = TileConfig { block_m: 192, block_n: 64 };
        assert!(both.contains(&three) && !portable.contains(&three));
        assert_eq!(both.iter().filter(|&&tile| tile == TILE).count(), 1);
    }

    #[test]
    fn the_default_tile_has_an_instance_for_every_dtype_head_dim_and_mask_block() {
        for sets in [&HOPPER[..], &[Arch::Sm80]] {
            for (dtype, head_dim) in
                [Dtype::Bf16, Dtype::F16].into_iter().flat_map(|t| [64, 96, 128].map(|d| (t, d)))
            {
                for block in [None, Some(32), Some(64), Some(96), Some(128)] {
                    let block = block.map(MaskBlock::square);
                    let Preference { preferred, portable } = default_tiles(block, sets);
                    let hopper = sets.len() == 2 && block.is_none_or(|block| block.q_block % 64 == 0);
                    assert_eq!(preferred.is_some(), hopper, "{dtype} {head_dim} {block:?}");
                    let candidates =
                        |tile| attention_candidates(&problem(head_dim, dtype), block, tile, sets).unwrap();
                    if let Some(tile) = preferred {
                        assert_eq!(
                            candidates(tile)[0].kernel.arch(),
                            Arch::Sm90a,
                            "{dtype} {head_dim} {block:?}"
                        );
                    }
                    let last = candidates(portable).pop().unwrap();
                    assert_eq!(last.kernel.arch(), Arch::Sm80, "{dtype} {head_dim} {block:?}");
                }
            }
        }
    }
}
