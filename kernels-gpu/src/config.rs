//! The constants a kernel is compiled with.

use crate::layout::CHUNK_ELEMENTS;

/// Rows of the tensor core's tile: one warp owns 16 query rows.
pub const WARP_ROWS: u32 = 16;
/// Most key tiles in flight that a kernel keeps registers for.
pub const MAX_STAGES: u32 = 4;
/// Longest side of a tile, and the largest head dimension: what register arrays are dimensioned for.
pub const MAX_SIDE: u32 = 128;
/// Largest slack of the softmax: weights stay far below what f16 holds.
pub const MAX_SLACK: u32 = 8;
/// Most of eight exponentials that are polynomials: more would cost more than the special function unit does.
pub const MAX_POLYNOMIALS: u32 = 4;
/// Most rows of the map of a block of threads that selects: the width of `mma`.
pub const MAX_SELECT_ROWS: u32 = 8;
/// Words between rows of scores in shared memory beyond the scores: the eight rows that a warp writes four words of lie in
/// different banks.
const SELECT_PADDING: u32 = 4;

/// Storage type of Q, K, V and the output; accumulation is f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dtype {
    /// bfloat16.
    Bf16,
    /// IEEE 754 half precision.
    F16,
}

impl Dtype {
    /// Returns the name in variant ids.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// Returns the number that stands for the type in a device compilation.
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// Returns the type a number stands for; what is not a code is bf16.
    pub const fn from_code(code: u32) -> Self {
        if code == Self::F16.code() { Self::F16 } else { Self::Bf16 }
    }
}

/// Which query tiles a block of threads computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// Those of its place in the grid.
    Once,
    /// Its share of all, one group after the other: no more blocks of threads are launched than run at once.
    Stride,
    /// The same, in the order of a list that the host makes: longest first.
    Listed,
}

impl Work {
    /// Returns the number that stands for it in a device compilation and in variant ids.
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// Returns what a number stands for; what is not a code is [`Work::Once`].
    pub const fn from_code(code: u32) -> Self {
        match code {
            1 => Self::Stride,
            2 => Self::Listed,
            _ => Self::Once,
        }
    }

    /// Says whether a block of threads goes on to more work.
    pub const fn is_persistent(self) -> bool {
        !matches!(self, Self::Once)
    }
}

/// All compile-time constants; a kernel reads those it has a use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Constants {
    /// Query rows of a block of threads (`BLOCK_M`); rows of the map for the selection.
    pub block_m: u32,
    /// Keys of a tile (`BLOCK_N`).
    pub block_n: u32,
    /// Elements per token and head.
    pub head_dim: u32,
    /// Key tiles in shared memory: one being used, the others on their way.
    pub stages: u32,
    /// Storage type.
    pub dtype: Dtype,
    /// Warps of a block of threads.
    pub warps: u32,
    /// Most key blocks the selection can hold a row of.
    pub max_kv_blocks: u32,
    /// Blocks of threads that must fit a multiprocessor at once; more leave fewer registers to each.
    pub ctas_per_sm: u32,
    /// Powers of two by which scores may exceed what weights are relative to, before what was accumulated is corrected;
    /// 0 corrects with each tile.
    pub slack: u32,
    /// Of eight exponentials so many are polynomials, the others the special function unit's.
    pub polynomials: u32,
    /// Which query tiles a block of threads computes.
    pub work: Work,
    /// Value tiles in shared memory; Hopper kernels may have one less than key tiles.
    pub value_stages: u32,
    /// Whether the warpgroups that compute take turns at the tensor cores.
    pub ping_pong: bool,
    /// Whether a key tile is two listed key blocks, a half each.
    pub pairs: bool,
    /// Blocks of threads that share what they load: a cluster.
    pub cluster: u32,
}

impl Constants {
    /// Where an instance says nothing else.
    pub const DEFAULT: Self = Self {
        block_m: 64,
        block_n: 64,
        head_dim: 128,
        stages: 2,
        dtype: Dtype::Bf16,
        warps: 4,
        max_kv_blocks: 2048,
        ctas_per_sm: 1,
        slack: 0,
        polynomials: 0,
        work: Work::Once,
        value_stages: 2,
        ping_pong: false,
        pairs: false,
        cluster: 1,
    };

    /// Returns the threads of a block.
    pub const fn threads(&self) -> u32 {
        self.warps * 32
    }

    /// Returns the 16-byte chunks of a token.
    pub const fn chunks(&self) -> u32 {
        self.head_dim / CHUNK_ELEMENTS
    }

    /// Returns the bytes of a token.
    pub const fn row_bytes(&self) -> u32 {
        self.head_dim * 2
    }

    /// Returns the bytes of a key tile, which are those of a value tile.
    pub const fn key_tile_bytes(&self) -> u32 {
        self.block_n * self.row_bytes()
    }

    /// Returns the bytes of a stage: a key tile and a value tile.
    pub const fn stage_bytes(&self) -> u32 {
        2 * self.key_tile_bytes()
    }

    /// Says whether the exponentials of a fragment, eight columns of scores, are polynomials: `polynomials` of eight in a
    /// row, as far apart as can be.
    pub const fn is_polynomial(&self, fragment: u32) -> bool {
        fragment * self.polynomials % 8 + self.polynomials >= 8
    }

    /// Returns the shared memory of attention.
    ///
    /// The query tile is staged where the last stage will be: that one is filled only after the queries have moved to
    /// registers.
    pub const fn attention_shared_bytes(&self) -> u32 {
        let query = self.block_m * self.row_bytes();
        let last = if query > self.stage_bytes() { query } else { self.stage_bytes() };
        (self.stages - 1) * self.stage_bytes() + last
    }

    /// Returns how many tokens the reorder reads at a time: each takes as many threads as it has chunks.
    pub const fn reorder_tokens(&self) -> u32 {
        self.threads() / self.chunks()
    }

    /// Returns the shared memory of the reorder: f32 sums of each of the tokens it reads at a time.
    pub const fn reorder_shared_bytes(&self) -> u32 {
        self.reorder_tokens() * self.head_dim * 4
    }

    /// Returns the words from one row of scores to the next in the shared memory of the selection.
    pub const fn select_stride(&self) -> u32 {
        self.max_kv_blocks + SELECT_PADDING
    }

    /// Returns the shared memory of the selection: rows of scores.
    pub const fn select_shared_bytes(&self) -> u32 {
        4 * self.block_m * self.select_stride()
    }
}

/// The constants of a device compilation, as a type that a kernel is generic over.
pub trait Config {
    /// The constants.
    const CONSTANTS: Constants;
}
