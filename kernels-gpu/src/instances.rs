//! Which kernels there are, and the one list of those that are built, tested and shipped.
//!
//! An [`Instance`] is a kernel and its constants. Everything the host must know to compile and launch it is derived
//! here; adding a kernel is a file under `kernels`, an entry point, and a line in [`INSTANCES`].

use core::fmt;

use crate::{
    config::{
        Constants, Dtype, MAX_POLYNOMIALS, MAX_SELECT_ROWS, MAX_SIDE, MAX_SLACK, MAX_STAGES, WARP_ROWS, Work,
    },
    hopper::{self, GROUP_ROWS, GROUP_WARPS, SharedMap, TensorMap},
};

mod list;
pub mod space;

pub use list::INSTANCES;

/// Bytes of shared memory a block of threads may have on compute capability 8.0.
pub const MAX_SHARED_BYTES: u32 = 163 * 1024;
/// Bytes of shared memory a block of threads may have on compute capability 9.0.
pub const MAX_SHARED_BYTES_HOPPER: u32 = 227 * 1024;
/// Bytes of shared memory of the largest multiprocessor (compute capability 9.0); each block also takes 1 KiB of it.
const MULTIPROCESSOR_SHARED_BYTES: u32 = 228 * 1024;

/// A device source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kernel {
    /// Attention over lists of key blocks.
    AttentionSparse,
    /// Attention over all keys: the same body without lists.
    AttentionDense,
    /// Attention over lists of key blocks, by tensor copies and `wgmma`.
    HopperSparse,
    /// Attention over all keys: the same body without lists.
    HopperDense,
    /// Attention over lists, slow and obviously right.
    AttentionPlain,
    /// Reorder of tokens, fused with the mean of each block.
    ReorderPool,
    /// Selection of key blocks from pooled queries and keys.
    Select,
}

impl Kernel {
    /// All kernels.
    pub const ALL: [Self; 7] = [
        Self::AttentionSparse,
        Self::AttentionDense,
        Self::HopperSparse,
        Self::HopperDense,
        Self::AttentionPlain,
        Self::ReorderPool,
        Self::Select,
    ];

    /// Returns the value of `nabla_kernel` that compiles it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AttentionSparse => "attention_sparse",
            Self::AttentionDense => "attention_dense",
            Self::HopperSparse => "hopper_sparse",
            Self::HopperDense => "hopper_dense",
            Self::AttentionPlain => "attention_plain",
            Self::ReorderPool => "reorder_pool",
            Self::Select => "select",
        }
    }

    /// Returns the symbol it exports.
    pub const fn entry(self) -> &'static str {
        match self {
            Self::AttentionSparse => "nabla_attention_sparse",
            Self::AttentionDense => "nabla_attention_dense",
            Self::HopperSparse => "nabla_hopper_sparse",
            Self::HopperDense => "nabla_hopper_dense",
            Self::AttentionPlain => "nabla_attention_plain",
            Self::ReorderPool => "nabla_reorder_pool",
            Self::Select => "nabla_select",
        }
    }

    /// Returns the instruction set it is written for: the portable one, or one that no other architecture has.
    pub const fn arch(self) -> Arch {
        match self {
            Self::HopperSparse | Self::HopperDense => Arch::Sm90a,
            _ => Arch::Sm80,
        }
    }

    /// Says whether it attends to listed key blocks only.
    pub const fn is_sparse(self) -> bool {
        matches!(self, Self::AttentionSparse | Self::HopperSparse | Self::AttentionPlain)
    }
}

/// The instruction set of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arch {
    /// What compute capability 8.0 has, and every later one.
    Sm80,
    /// What compute capability 9.0 alone has.
    Sm90a,
}

impl Arch {
    /// Returns the name in variant ids.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sm80 => "sm80",
            Self::Sm90a => "sm90a",
        }
    }

    /// Says whether kernels for it can be built for an architecture, named as a compiler names it.
    ///
    /// # Errors
    /// Why they cannot, as a sentence.
    pub fn builds_for(self, arch: &str) -> Result<(), &'static str> {
        match self {
            Self::Sm80 => Ok(()),
            Self::Sm90a if arch == "sm_90a" => Ok(()),
            Self::Sm90a => Err("it uses instructions that only sm_90a has"),
        }
    }
}

/// Sizes of a launch, known at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Batch size times heads.
    pub batch_heads: u32,
    /// Queries; tokens, for the reorder.
    pub seqlen_q: u32,
    /// Query blocks; blocks, for the reorder.
    pub q_blocks: u32,
    /// Tokens of the longest query block.
    pub q_block: u32,
}

/// A kernel with its constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Instance {
    /// What is compiled.
    pub kernel: Kernel,
    /// What it is compiled with.
    pub constants: Constants,
}

impl Instance {
    /// Makes a tensor-core attention kernel; one warp per 16 query rows.
    pub const fn attention(
        kernel: Kernel,
        [block_m, block_n, head_dim, stages]: [u32; 4],
        dtype: Dtype,
    ) -> Self {
        let warps = block_m / WARP_ROWS;
        let constants = Constants {
            block_m,
            block_n,
            head_dim,
            stages,
            dtype,
            warps,
            value_stages: stages,
            ..Constants::DEFAULT
        };
        Self { kernel, constants }
    }

    /// Makes an attention kernel for compute capability 9.0a: a warpgroup per 64 query rows, and one that loads.
    pub const fn hopper(
        kernel: Kernel,
        [block_m, block_n, head_dim, stages]: [u32; 4],
        dtype: Dtype,
    ) -> Self {
        let warps = (block_m / GROUP_ROWS + 1) * GROUP_WARPS;
        let constants = Constants {
            block_m,
            block_n,
            head_dim,
            stages,
            dtype,
            warps,
            value_stages: stages,
            ..Constants::DEFAULT
        };
        Self { kernel, constants }
    }

    /// Lets the only warpgroup that computes load for itself.
    pub const fn without_producer(self) -> Self {
        let warps = self.constants.block_m / GROUP_ROWS * GROUP_WARPS;
        Self { constants: Constants { warps, ..self.constants }, ..self }
    }

    /// Makes a kernel that goes through tokens: the plain attention or the reorder.
    pub const fn tokens(kernel: Kernel, head_dim: u32, dtype: Dtype) -> Self {
        Self { kernel, constants: Constants { head_dim, dtype, ..Constants::DEFAULT } }
    }

    /// Makes a selection of `rows` rows a block of threads, of at most `max_kv_blocks` key blocks.
    ///
    /// Warps are as many as rows may be: all compute scores, also where only few rows have room.
    pub const fn select(rows: u32, max_kv_blocks: u32, head_dim: u32) -> Self {
        let warps = MAX_SELECT_ROWS;
        let constants = Constants { block_m: rows, warps, max_kv_blocks, head_dim, ..Constants::DEFAULT };
        Self { kernel: Kernel::Select, constants }
    }

    /// Asks for `ctas_per_sm` blocks on a multiprocessor at once: the compiler then leaves registers for them.
    pub const fn with_ctas(self, ctas_per_sm: u32) -> Self {
        Self { constants: Constants { ctas_per_sm, ..self.constants }, ..self }
    }

    /// Corrects what was accumulated only where weights would exceed 2^`slack`.
    pub const fn with_slack(self, slack: u32) -> Self {
        Self { constants: Constants { slack, ..self.constants }, ..self }
    }

    /// Computes so many of eight exponentials by polynomials.
    pub const fn with_polynomials(self, polynomials: u32) -> Self {
        Self { constants: Constants { polynomials, ..self.constants }, ..self }
    }

    /// Chooses which query tiles a block of threads computes.
    pub const fn with_work(self, work: Work) -> Self {
        Self { constants: Constants { work, ..self.constants }, ..self }
    }

    /// Keeps `value_stages` value tiles in shared memory, where it is not as many as key tiles.
    pub const fn with_value_stages(self, value_stages: u32) -> Self {
        Self { constants: Constants { value_stages, ..self.constants }, ..self }
    }

    /// Lets the warpgroups that compute take turns at the tensor cores.
    pub const fn with_ping_pong(self, ping_pong: bool) -> Self {
        Self { constants: Constants { ping_pong, ..self.constants }, ..self }
    }

    /// Puts two listed key blocks into one tile, a half each.
    pub const fn with_pairs(self, pairs: bool) -> Self {
        Self { constants: Constants { pairs, ..self.constants }, ..self }
    }

    /// Lets clusters of so many blocks of threads share what they load.
    pub const fn with_cluster(self, cluster: u32) -> Self {
        Self { constants: Constants { cluster, ..self.constants }, ..self }
    }

    /// Says whether the constants go together.
    ///
    /// # Errors
    /// What is not met, as a sentence.
    pub const fn check(&self) -> Result<(), &'static str> {
        let c = &self.constants;
        if c.warps == 0 || self.threads() > 1024 {
            return Err("a block of threads has 1 to 32 warps");
        }
        if c.head_dim == 0 || !c.head_dim.is_multiple_of(32) || c.head_dim > MAX_SIDE {
            return Err("head_dim is 32, 64, 96 or 128");
        }
        if c.ctas_per_sm == 0 || self.threads() * c.ctas_per_sm > 2048 {
            return Err("a multiprocessor holds 1 to 2048 threads");
        }
        if c.slack > MAX_SLACK || c.polynomials > MAX_POLYNOMIALS {
            return Err("slack is at most 8 powers of two, polynomials at most 4 of 8");
        }
        if !(c.block_n * c.polynomials).is_multiple_of(64) {
            return Err(
                "a tile has whole fragments of 8 keys by polynomials: block_n times polynomials is a multiple of 64",
            );
        }
        if c.work.is_persistent() && !(matches!(self.kernel.arch(), Arch::Sm90a) && c.has_producer()) {
            return Err("only Hopper kernels with a warpgroup that loads go on to more work");
        }
        if matches!(c.work, Work::Listed) && matches!(self.kernel, Kernel::HopperDense) {
            return Err("all lists of dense attention are equally long: there is no order to choose");
        }
        if matches!(self.kernel.arch(), Arch::Sm80) && (c.ping_pong || c.pairs || c.cluster != 1) {
            return Err("only Hopper kernels take turns, pair key blocks or form clusters");
        }
        match self.kernel {
            Kernel::AttentionSparse | Kernel::AttentionDense => {
                if c.value_stages != c.stages {
                    return Err("a stage is a key tile and a value tile: there are as many of each");
                }
                if c.block_m < WARP_ROWS || !c.block_m.is_power_of_two() || c.block_m > MAX_SIDE {
                    return Err("block_m is 16, 32, 64 or 128");
                }
                if c.warps * WARP_ROWS != c.block_m {
                    return Err("a warp owns 16 query rows: warps = block_m / 16");
                }
                if c.block_n == 0 || !c.block_n.is_multiple_of(16) || c.block_n > MAX_SIDE {
                    return Err("block_n is a multiple of 16 up to 128");
                }
                if c.stages < 2 || c.stages > MAX_STAGES {
                    return Err("stages is 2 to 4: one slot in use, the others on their way");
                }
            }
            Kernel::HopperSparse | Kernel::HopperDense => {
                if c.head_dim != 64 && c.head_dim != 96 && c.head_dim != 128 {
                    return Err("head_dim is 64, 96 or 128");
                }
                if c.block_m == 0
                    || !c.block_m.is_multiple_of(GROUP_ROWS)
                    || c.consumers() > hopper::MAX_CONSUMERS
                {
                    return Err("block_m is 64, 128 or 192: 64 for each warpgroup that computes");
                }
                if c.block_n != 64 && c.block_n != 128 {
                    return Err("block_n is 64 or 128");
                }
                if c.stages < 2 || c.stages > hopper::MAX_STAGES {
                    return Err("stages is 2 to 8: one slot in use, the others on their way");
                }
                let alone = c.warps == GROUP_WARPS && c.consumers() == 1;
                if alone && c.stages < 3 {
                    return Err(
                        "a warpgroup that loads for itself has 3 stages or more: it fills a slot an iteration late",
                    );
                }
                if c.warps != (c.consumers() + 1) * GROUP_WARPS && !alone {
                    return Err(
                        "warps are 4 for each 64 rows and 4 that load; a single warpgroup may load for itself",
                    );
                }
                if let Err(reason) = c.check_sharing(self.kernel.is_sparse()) {
                    return Err(reason);
                }
                if c.needed_registers() > c.consumer_registers() {
                    return Err(
                        "registers do not hold scores, weights and output: take smaller tiles, fewer warpgroups or \
                         fewer blocks of threads per multiprocessor",
                    );
                }
            }
            Kernel::AttentionPlain => {}
            Kernel::ReorderPool => {
                if c.reorder_tokens() == 0 {
                    return Err("a block of threads reads one token at least");
                }
            }
            Kernel::Select => {
                if c.block_m == 0 || c.block_m > MAX_SELECT_ROWS {
                    return Err("the selection takes 1 to 8 rows");
                }
                if c.warps < c.block_m {
                    return Err("the selection gives each row a warp: warps are at least block_m");
                }
                if c.max_kv_blocks == 0 || !c.max_kv_blocks.is_multiple_of(256) {
                    return Err("max_kv_blocks is a multiple of 256: eight per lane are summed at a time");
                }
            }
        }
        match self.kernel.arch() {
            Arch::Sm80 if self.shared_bytes() > MAX_SHARED_BYTES => {
                return Err("shared memory of a block of threads exceeds 163 KiB");
            }
            Arch::Sm90a if self.shared_bytes() > MAX_SHARED_BYTES_HOPPER => {
                return Err("shared memory of a block of threads exceeds 227 KiB");
            }
            _ => {}
        }
        // On a smaller multiprocessor fewer blocks are resident, with registers to spare.
        if (self.shared_bytes() + 1024) * c.ctas_per_sm > MULTIPROCESSOR_SHARED_BYTES {
            return Err("shared memory of ctas_per_sm blocks of threads exceeds a multiprocessor's 228 KiB");
        }
        Ok(())
    }

    /// Returns the symbol the device source exports.
    pub const fn entry(&self) -> &'static str {
        self.kernel.entry()
    }

    /// Writes the stable name, such as `bsfwd_sm80_m64_n64_d64_bf16_s2_w4`.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn id(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let Constants {
            block_m,
            block_n,
            head_dim,
            stages,
            dtype,
            warps,
            max_kv_blocks,
            ctas_per_sm,
            slack,
            polynomials,
            work,
            value_stages,
            ping_pong,
            pairs,
            cluster,
        } = self.constants;
        let (arch, dtype) = (self.kernel.arch().name(), dtype.name());
        match self.kernel {
            Kernel::AttentionSparse | Kernel::AttentionDense | Kernel::HopperSparse | Kernel::HopperDense => {
                let kind = if self.kernel.is_sparse() { "bsfwd" } else { "dnfwd" };
                write!(out, "{kind}_{arch}_m{block_m}_n{block_n}_d{head_dim}_{dtype}_s{stages}_w{warps}")?;
            }
            Kernel::AttentionPlain => write!(out, "plain_{arch}_d{head_dim}_{dtype}_w{warps}")?,
            Kernel::ReorderPool => write!(out, "reorder_{arch}_d{head_dim}_{dtype}_w{warps}")?,
            Kernel::Select => write!(out, "select_{arch}_m{block_m}_k{max_kv_blocks}_d{head_dim}_w{warps}")?,
        }
        // What is usual stays unsaid.
        let usual = Constants::DEFAULT;
        for (letter, value, usual) in [
            ('c', ctas_per_sm, usual.ctas_per_sm),
            ('r', slack, usual.slack),
            ('e', polynomials, usual.polynomials),
            ('p', work.code(), usual.work.code()),
            // As many as stages of keys, unless told otherwise.
            ('v', value_stages, stages),
            ('t', ping_pong as u32, usual.ping_pong as u32),
            ('b', pairs as u32, usual.pairs as u32),
            ('l', cluster, usual.cluster),
        ] {
            if value != usual {
                write!(out, "_{letter}{value}")?;
            }
        }
        Ok(())
    }

    /// Returns the environment of the device compilation.
    pub const fn env(&self) -> [(&'static str, u32); 15] {
        let Constants {
            block_m,
            block_n,
            head_dim,
            stages,
            dtype,
            warps,
            max_kv_blocks,
            ctas_per_sm,
            slack,
            polynomials,
            work,
            value_stages,
            ping_pong,
            pairs,
            cluster,
        } = self.constants;
        [
            ("NABLA_BLOCK_M", block_m),
            ("NABLA_BLOCK_N", block_n),
            ("NABLA_HEAD_DIM", head_dim),
            ("NABLA_STAGES", stages),
            ("NABLA_DTYPE", dtype.code()),
            ("NABLA_WARPS", warps),
            ("NABLA_MAX_KV_BLOCKS", max_kv_blocks),
            ("NABLA_CTAS_PER_SM", ctas_per_sm),
            ("NABLA_SLACK", slack),
            ("NABLA_POLYNOMIALS", polynomials),
            ("NABLA_WORK", work.code()),
            ("NABLA_VALUE_STAGES", value_stages),
            ("NABLA_PING_PONG", ping_pong as u32),
            ("NABLA_PAIRS", pairs as u32),
            ("NABLA_CLUSTER", cluster),
        ]
    }

    /// Returns the threads of a block.
    pub const fn threads(&self) -> u32 {
        self.constants.threads()
    }

    /// Returns the dynamic shared memory of a block.
    pub const fn shared_bytes(&self) -> u32 {
        match self.kernel {
            Kernel::AttentionSparse | Kernel::AttentionDense => self.constants.attention_shared_bytes(),
            Kernel::HopperSparse | Kernel::HopperDense => SharedMap::of(&self.constants).bytes(),
            Kernel::AttentionPlain => 0,
            Kernel::ReorderPool => self.constants.reorder_shared_bytes(),
            Kernel::Select => self.constants.select_shared_bytes(),
        }
    }

    /// Returns how many blocks must fit a multiprocessor at once.
    pub const fn min_blocks_per_sm(&self) -> u32 {
        self.constants.ctas_per_sm
    }

    /// Returns the blocks of a launch along x, y, z.
    pub const fn grid(&self, sizes: &Sizes) -> [u32; 3] {
        let x = match self.kernel {
            Kernel::AttentionSparse => sizes.q_blocks * sizes.q_block.div_ceil(self.constants.block_m),
            Kernel::AttentionDense | Kernel::HopperDense => sizes.seqlen_q.div_ceil(self.constants.block_m),
            // Query tiles are 64 rows; those of neighbouring blocks share a block of threads.
            Kernel::HopperSparse => {
                (sizes.q_blocks * sizes.q_block.div_ceil(GROUP_ROWS)).div_ceil(self.constants.consumers())
            }
            Kernel::AttentionPlain | Kernel::ReorderPool => sizes.q_blocks,
            Kernel::Select => sizes.q_blocks.div_ceil(self.constants.block_m),
        };
        // Clusters are whole.
        [x.next_multiple_of(self.constants.cluster), sizes.batch_heads, 1]
    }

    /// Returns the blocks of a launch along x, y, z on a device with so many multiprocessors: those of the grid, or as
    /// many as run at once where they go on to more work.
    pub const fn launch_grid(&self, sizes: &Sizes, multiprocessors: u32) -> [u32; 3] {
        let [x, y, z] = self.grid(sizes);
        if !self.constants.work.is_persistent() {
            return [x, y, z];
        }
        let cluster = self.constants.cluster;
        let clusters = multiprocessors * self.constants.ctas_per_sm / cluster;
        let room = if clusters == 0 { cluster } else { clusters * cluster };
        [if x * y < room { x * y } else { room }, 1, 1]
    }

    /// Returns the most query rows of one mask block that one tile of the kernel takes: query blocks are no shorter.
    pub const fn query_rows(&self) -> u32 {
        match self.kernel.arch() {
            Arch::Sm80 => self.constants.block_m,
            Arch::Sm90a => GROUP_ROWS,
        }
    }

    /// Returns the groups of warps of a block of threads that meet by themselves, each at a barrier of its own; 0 where
    /// only whole blocks meet.
    pub const fn groups_that_meet(&self) -> u32 {
        match self.kernel.arch() {
            Arch::Sm80 => 0,
            Arch::Sm90a => self.constants.consumers(),
        }
    }

    /// Returns how the host must describe Q, K and V, in this order, for kernels that read them through tensor maps:
    /// those take three pointers more, to copies of the maps in global memory, aligned to 64 bytes.
    pub const fn tensor_maps(&self) -> Option<[TensorMap; 3]> {
        match self.kernel {
            Kernel::HopperSparse | Kernel::HopperDense => {
                let keys = TensorMap::of(self.constants.key_box());
                Some([TensorMap::of(self.constants.query_tile()), keys, keys])
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
