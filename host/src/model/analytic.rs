//! Costs of a kernel's units from its constants alone: what a search can ask of thousands of points.
//!
//! Owns formulas; tests hold them against counts of the emulator.

use nabla_kernels_gpu::{
    config::{Constants, WARP_ROWS},
    hopper::GROUP_ROWS,
    instances::{Instance, Kernel},
};

use super::work::{UnitCosts, Work};

/// Bytes of a stored number.
const STORED: f64 = 2.0;
/// Lanes of a warp.
const WARP: f64 = 32.0;
/// Bytes of a sector of the L2 cache.
const SECTOR: f64 = 32.0;
/// Floating-point operations of one `mma` m16n8k16.
const MMA_FLOPS: f64 = 2.0 * 16.0 * 8.0 * 16.0;
/// Instructions a warp spends on a tile besides arithmetic, copies and operands: addresses, waits, the walk of the list.
const TILE_OVERHEAD: f64 = 100.0;

/// Derives the costs of a kernel's units; `None` for kernels that are not attention on tensor cores.
pub fn analytic(instance: &Instance) -> Option<UnitCosts> {
    let c = &instance.constants;
    match instance.kernel {
        Kernel::AttentionSparse | Kernel::AttentionDense => Some(portable(c, instance.kernel.is_sparse())),
        Kernel::HopperSparse | Kernel::HopperDense => Some(hopper(c)),
        Kernel::AttentionPlain | Kernel::ReorderPool | Kernel::Select => None,
    }
}

/// What a tile of `rows x columns` scores takes of arithmetic: products apart from their operands, and the softmax.
fn scores(rows: f64, columns: f64, head_dim: f64) -> Work {
    let scores = rows * columns;
    // A weight is an exponential; each row's correction is computed by the four lanes that share the row.
    let special = scores + 4.0 * rows;
    // Maximum, scale and sum of each score; accumulators times the correction; some dozen for each lane of a row.
    let fp32 = 3.0 * scores + rows * head_dim + 4.0 * 12.0 * rows;
    // Weights are rounded in pairs.
    let rounded = scores / 2.0;
    Work {
        tensor_flops: 4.0 * scores * head_dim,
        special,
        fp32,
        instructions: (special + fp32 + rounded) / WARP,
        ..Work::default()
    }
}

/// What `rows` query rows take once: queries in, output and lse out, by way of shared memory.
fn rows(rows: f64, head_dim: f64) -> Work {
    let tile = rows * head_dim * STORED;
    Work {
        special: 8.0 * rows,
        fp32: rows * head_dim + 4.0 * 12.0 * rows,
        // Scaled, rounded in pairs, stored.
        instructions: 3.0 * rows * head_dim / WARP,
        shared_bytes: 2.0 * tile,
        l2_bytes: 2.0 * tile + 4.0 * rows,
        ..Work::default()
    }
}

/// `mma.sync`: each warp reads all keys and values of the block's tile for its 16 rows.
fn portable(c: &Constants, has_lists: bool) -> UnitCosts {
    let (m, n, d) = (f64::from(c.block_m), f64::from(c.block_n), f64::from(c.head_dim));
    let (warps, stage) = (m / f64::from(WARP_ROWS), f64::from(c.stage_bytes()));
    let arithmetic = scores(m, n, d);
    let operands = warps * stage;
    // Each warp reads an entry and the two bounds of its block, a sector each.
    let lists = if has_lists { warps * 3.0 * SECTOR } else { 0.0 };
    // Four matrices of 8 x 16 bytes an `ldmatrix`, 16 bytes a lane a copy.
    let moves = operands / 512.0 + stage / 16.0 / WARP;
    let tile = Work {
        instructions: arithmetic.instructions
            + arithmetic.tensor_flops / MMA_FLOPS
            + moves
            + warps * TILE_OVERHEAD,
        shared_bytes: operands + stage,
        l2_bytes: stage + lists,
        ..arithmetic
    };
    UnitCosts { block: rows(m, d), load: Work::default(), tile }
}

/// `wgmma`: a warpgroup reads its queries and the keys from shared memory for S, the values for O; the weights are in
/// registers.
fn hopper(c: &Constants) -> UnitCosts {
    let (m, n, d) = (f64::from(GROUP_ROWS), f64::from(c.block_n), f64::from(c.head_dim));
    let stage = f64::from(c.stage_bytes());
    let arithmetic = scores(m, n, d);
    let tile = Work {
        instructions: arithmetic.instructions + 4.0 * TILE_OVERHEAD,
        shared_bytes: m * d * STORED + stage,
        ..arithmetic
    };
    // A block of threads reads its share of what its cluster loads, and has all of it written to its shared memory.
    let l2_bytes = stage / f64::from(c.cluster);
    let load = Work { instructions: TILE_OVERHEAD, shared_bytes: stage, l2_bytes, ..Work::default() };
    UnitCosts { block: rows(m, d) * f64::from(c.consumers()), load, tile }
}
