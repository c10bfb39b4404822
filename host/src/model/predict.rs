//! From units and rates to the time each part of a GPU takes, and the part that takes longest.

use std::fmt;

use nabla_kernels_gpu::{
    hopper::GROUP_ROWS,
    instances::{Arch, Instance, Kernel},
};

use super::{
    analytic::analytic,
    machine::Machine,
    work::{Extent, UnitCosts, Work},
};
use crate::{BlockMask, Problem, variant::MaskBlock};

/// What no part's time knows of. A launch takes longer by these.
pub const LEFT_OUT: [&str; 7] = [
    "latency: filling the pipeline of a block of threads, loads of lists that depend on each other",
    "waits at barriers, beyond the dependency of products and softmax within a warpgroup",
    "imbalance: lists of different lengths, the last wave of blocks of threads",
    "clocks below the published one when tensor cores draw full power",
    "launch, and tensor maps on their way",
    "instructions the assembler adds or saves against PTX, bank conflicts of asynchronous copies",
    "hits of L1, and misses of the L2 cache that its capacity does not explain",
];

/// Key blocks of a tile of the selection.
pub(super) const SELECT_KEYS: usize = 256;

/// A mask, as far as the work of a kernel depends on it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MaskLoad {
    /// Size of its blocks.
    pub block: MaskBlock,
    /// Share of the blocks that are kept, 0 to 1.
    pub density: f64,
    /// How alike the lists of neighbouring query blocks are: 0 as independent ones, 1 the same list.
    pub overlap: f64,
}

impl MaskLoad {
    /// Describes a mask whose lists are independent.
    pub fn independent(block: MaskBlock, density: f64) -> Self {
        Self { block, density, overlap: 0.0 }
    }

    /// Describes attention to all keys.
    pub fn dense(block: MaskBlock) -> Self {
        Self { block, density: 1.0, overlap: 1.0 }
    }

    /// Measures a mask: its density, and how many blocks of a list the next one has, too.
    pub fn of(mask: &BlockMask) -> Self {
        let (q, kv) = (mask.q_layout(), mask.kv_layout());
        let density = mask.density();
        let (mut shared, mut listed) = (0usize, 0usize);
        for head in 0..mask.batch_heads() {
            for i in 1..q.blocks() {
                let (before, row) = (mask.row(head, i - 1), mask.row(head, i));
                listed += row.len();
                shared += row.iter().filter(|block| before.binary_search(block).is_ok()).count();
            }
        }
        let share = if listed == 0 { density } else { shared as f64 / listed as f64 };
        let overlap = if density < 1.0 { ((share - density) / (1.0 - density)).clamp(0.0, 1.0) } else { 1.0 };
        Self { block: MaskBlock { q_block: q.block(), kv_block: kv.block() }, density, overlap }
    }

    /// Returns the share of key blocks that any of `lists` neighbouring lists has.
    pub fn union(&self, lists: u32) -> f64 {
        let new = (1.0 - self.overlap) * (1.0 - self.density);
        (0..lists).map(|before| self.density * new.powi(before as i32)).sum()
    }
}

/// A part of a GPU that can limit a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Matrix products.
    Tensor,
    /// Special functions: the exponentials.
    Special,
    /// f32 arithmetic.
    Fp32,
    /// Issue of instructions.
    Issue,
    /// Banks of shared memory.
    Shared,
    /// Bytes from the L2 cache.
    L2,
    /// Bytes from device memory.
    Memory,
    /// The products and the softmax of a tile come one after the other: what other warps do not fill.
    Chain,
}

impl Part {
    /// Every part, in order.
    pub const ALL: [Self; 8] = [
        Self::Tensor,
        Self::Special,
        Self::Fp32,
        Self::Issue,
        Self::Shared,
        Self::L2,
        Self::Memory,
        Self::Chain,
    ];

    /// Returns its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tensor => "tensor",
            Self::Special => "special",
            Self::Fp32 => "fp32",
            Self::Issue => "issue",
            Self::Shared => "shared",
            Self::L2 => "l2",
            Self::Memory => "memory",
            Self::Chain => "chain",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How long a launch takes at least.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Seconds of each part, in the order of [`Part::ALL`].
    pub parts: [f64; Part::ALL.len()],
    /// Floating-point operations of kept query-key pairs.
    pub flops: f64,
}

impl Prediction {
    /// Returns the seconds of a part.
    pub fn seconds_of(&self, part: Part) -> f64 {
        self.parts[part as usize]
    }

    /// Returns the part that takes longest.
    pub fn limiter(&self) -> Part {
        let longest =
            Part::ALL.into_iter().max_by(|&a, &b| self.seconds_of(a).total_cmp(&self.seconds_of(b)));
        longest.unwrap_or(Part::Tensor)
    }

    /// Returns the seconds of that part: the launch takes no less.
    pub fn seconds(&self) -> f64 {
        self.seconds_of(self.limiter())
    }

    /// Returns 10¹² executed FLOP/s at best.
    pub fn tflops(&self) -> f64 {
        self.flops / self.seconds() / 1e12
    }
}

/// Counts the units of a launch on average. `load` is the mask; dense kernels do not need one.
pub fn extent(instance: &Instance, problem: &Problem, load: &MaskLoad) -> Extent {
    let c = &instance.constants;
    let heads = problem.batch_heads() as f64;
    let q_blocks = problem.seqlen_q.div_ceil(load.block.q_block) as f64;
    let kv_blocks = problem.seqlen_k.div_ceil(load.block.kv_block) as f64;
    if instance.kernel == Kernel::Select {
        let blocks = heads * (q_blocks / f64::from(c.block_m)).ceil();
        let tiles = blocks * (kv_blocks / SELECT_KEYS as f64).ceil();
        return Extent { blocks, loads: tiles, tiles };
    }
    // Query tiles of a block of threads, those that share what is loaded, and their rows.
    let (of_block, shared_by, rows) = match instance.kernel.arch() {
        Arch::Sm80 => (1, 1, c.block_m),
        Arch::Sm90a => (c.consumers(), c.lists(), GROUP_ROWS),
    };
    let (query_tiles, key_tiles, union) = if instance.kernel.is_sparse() {
        let query_tiles = q_blocks * load.block.q_block.div_ceil(rows as usize) as f64;
        // Tiles of a query block are neighbours with the same list.
        let lists = shared_by.div_ceil(load.block.q_block.div_ceil(rows as usize) as u32);
        let union = load.union(lists);
        let step = if instance.tensor_maps().is_some() { c.walk_step() } else { c.block_n };
        let pieces = kv_blocks * load.block.kv_block.div_ceil(step as usize) as f64;
        if c.pairs {
            // Two entries of the union are a tile, which a query tile computes that wants either.
            let wanted = if union == 0.0 { 0.0 } else { load.density / union };
            let either = wanted * (2.0 - wanted) * union;
            (query_tiles, pieces / 2.0, [either, union])
        } else {
            (query_tiles, pieces, [load.density, union])
        }
    } else {
        (
            problem.seqlen_q.div_ceil(rows as usize) as f64,
            problem.seqlen_k.div_ceil(c.block_n as usize) as f64,
            [1.0, 1.0],
        )
    };
    let clusters = heads * (query_tiles / f64::from(shared_by)).ceil();
    let blocks = clusters * f64::from(shared_by / of_block);
    Extent { blocks, loads: blocks * key_tiles * union[1], tiles: heads * query_tiles * key_tiles * union[0] }
}

/// Predicts a launch of `instance`, of which `resident` blocks fit a multiprocessor, on a machine.
pub fn predict(
    costs: &UnitCosts,
    machine: &Machine,
    instance: &Instance,
    problem: &Problem,
    load: &MaskLoad,
    resident: u32,
) -> Prediction {
    let extent = extent(instance, problem, load);
    let work = costs.total(&extent);
    let arch = instance.kernel.arch();
    // A launch of few blocks leaves multiprocessors idle.
    let busy = f64::from(machine.multiprocessors).min(extent.blocks.max(1.0));
    let clocks = busy * machine.clock_hz;
    let tensor = work.tensor_flops / machine.tensor_flops_of(arch) / clocks;
    let special = work.special / machine.special / clocks;
    let fp32 = work.fp32 / machine.fp32 / clocks;
    let issue = work.instructions / machine.issue / clocks;
    let shared = work.shared_bytes / machine.shared_bytes / clocks;
    let l2 = work.l2_bytes / machine.l2_bytes / machine.clock_hz;
    let memory =
        memory_bytes(machine, instance, problem, load, &extent, resident) / machine.memory_bytes_per_second;
    let chain = chain(instance, resident, tensor.max(shared), special.max(fp32).max(issue), l2);
    let density = if instance.kernel.is_sparse() { load.density } else { 1.0 };
    let pairs = problem.batch_heads() as f64 * problem.seqlen_q as f64 * problem.seqlen_k as f64;
    Prediction {
        parts: [tensor, special, fp32, issue, shared, l2, memory, chain],
        flops: if instance.kernel == Kernel::Select {
            work.tensor_flops
        } else {
            4.0 * problem.head_dim as f64 * pairs * density
        },
    }
}

/// Returns how long products and softmax take where they wait for each other: four warps, one a scheduler, alternate
/// between the two; others resident fill the gaps.
///
/// A selection first reads all keys, then looks at its rows: only another block of threads overlaps the two.
fn chain(instance: &Instance, resident: u32, products: f64, softmax: f64, reading: f64) -> f64 {
    let c = &instance.constants;
    let (warps, alone) = match instance.kernel {
        Kernel::AttentionSparse | Kernel::AttentionDense => (c.warps, products + softmax),
        // P V of the tile before runs while the softmax does.
        Kernel::HopperSparse | Kernel::HopperDense => {
            (4 * c.consumers(), products / 2.0 + softmax.max(products / 2.0))
        }
        Kernel::Select => return (reading + softmax) / f64::from(resident.max(1)),
        Kernel::AttentionPlain | Kernel::ReorderPool => return 0.0,
    };
    alone * 4.0 / f64::from((warps * resident).max(1))
}

/// Returns the bytes of device memory: each tensor once, keys and values once more for each wave of blocks that sweeps
/// them, where those of the heads in flight outgrow the L2 cache.
fn memory_bytes(
    machine: &Machine,
    instance: &Instance,
    problem: &Problem,
    load: &MaskLoad,
    extent: &Extent,
    resident: u32,
) -> f64 {
    let heads = problem.batch_heads() as f64;
    let (sq, sk, d) = (problem.seqlen_q as f64, problem.seqlen_k as f64, problem.head_dim as f64);
    let q_blocks = problem.seqlen_q.div_ceil(load.block.q_block) as f64;
    let kv_blocks = problem.seqlen_k.div_ceil(load.block.kv_block) as f64;
    let (once, keys) = if instance.kernel == Kernel::Select {
        // Means in; bitmaps and lists out.
        let written = q_blocks * kv_blocks * (1.0 / 8.0 + 4.0 * load.density);
        (heads * (4.0 * d * q_blocks + written), 4.0 * d * kv_blocks)
    } else {
        (heads * sq * (4.0 * d + 4.0), 4.0 * d * sk)
    };
    let in_flight = f64::from(machine.multiprocessors * resident.max(1));
    let of_head = (extent.blocks / heads).max(1.0);
    let heads_in_flight = (in_flight / of_head).ceil().min(heads);
    // The cache holds other things, too.
    let fits = keys * heads_in_flight <= machine.l2_capacity / 2.0;
    let sweeps = if fits { 1.0 } else { (of_head / in_flight).ceil().max(1.0) };
    once + heads * keys * sweeps
}

/// Estimates the seconds of a launch from constants alone: for search, before anything is compiled. `None` for kernels
/// without formulas, and for machines that do not run the kernel.
///
/// Takes the blocks a multiprocessor holds to be those that the instance asks for.
pub fn cost(problem: &Problem, load: &MaskLoad, instance: &Instance, machine: &Machine) -> Option<f64> {
    let costs = analytic(instance).filter(|_| machine.runs(instance))?;
    let resident = instance.min_blocks_per_sm();
    Some(predict(&costs, machine, instance, problem, load, resident).seconds())
}

/// Returns clocks of a multiprocessor that each part takes for some work, in the order of [`Part::ALL`] without memory and
/// chain.
pub fn clocks(work: &Work, machine: &Machine, arch: Arch) -> [f64; 6] {
    [
        work.tensor_flops / machine.tensor_flops_of(arch),
        work.special / machine.special,
        work.fp32 / machine.fp32,
        work.instructions / machine.issue,
        work.shared_bytes / machine.shared_bytes,
        work.l2_bytes / machine.l2_bytes * f64::from(machine.multiprocessors),
    ]
}
