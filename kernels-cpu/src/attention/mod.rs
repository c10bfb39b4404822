//! Attention forward, dense and block-sparse.
//!
//! ```text
//!   S = softmax_scale * Q Kᵀ      P = exp(S - max S)      out = P V / sum P      lse = max S + ln(sum P)
//! ```
//!
//! A work item is one query tile of one head: at most `block_m` queries of one query block, and every key they
//! attend to, `block_n` keys at a time with an online softmax (Milakov and Gimelshein, arXiv 1805.02867). No
//! item shares a result with another, so the output does not depend on the number of threads.
//!
//! - `check`: what an argument must satisfy
//! - `plan`: query tiles in the order they are worked on, and where packed keys and values lie
//! - `pack`: widened, padded or interleaved copies of keys and values, where the kernels need them
//! - `tile`: the body, one query tile
//! - `micro`: the two products, register blocked

mod check;
pub(crate) mod launch;
mod micro;
mod pack;
mod plan;
#[cfg(test)]
mod tests;
mod tile;

pub use check::check_tile;

use crate::{ArgumentError, Element, Executor};

/// Sizes of one attention launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Batch size times heads: the kernels treat both alike.
    pub batch_heads: usize,
    /// Query tokens per head.
    pub seqlen_q: usize,
    /// Key tokens per head.
    pub seqlen_k: usize,
    /// Elements per token and head.
    pub head_dim: usize,
}

/// Which key blocks each query block attends to.
///
/// Row `(bh, i)` lists `kv_num_blocks[bh * q_blocks + i]` key blocks, ascending, at
/// `kv_indices[(bh * q_blocks + i) * max_blocks ..]`; what stands past the count is never read.
#[derive(Debug, Clone, Copy)]
pub struct BlockLists<'a> {
    /// First token of every query block, and the end: `q_blocks + 1` entries.
    pub q_starts: &'a [u32],
    /// First token of every key block, and the end: `kv_blocks + 1` entries.
    pub kv_starts: &'a [u32],
    /// Listed key blocks per row: `[batch_heads, q_blocks]`.
    pub kv_num_blocks: &'a [i32],
    /// Listed key blocks: `[batch_heads, q_blocks, max_blocks]`.
    pub kv_indices: &'a [i32],
    /// Entries per row of `kv_indices`.
    pub max_blocks: usize,
}

/// The part of the score matrix a launch computes.
#[derive(Debug, Clone, Copy)]
pub enum Pattern<'a> {
    /// Every query attends to every key.
    Dense,
    /// Only listed blocks are computed, and only their keys and values are read.
    Blocks(BlockLists<'a>),
}

/// The compute tile: how many queries and keys are worked on at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Query rows of a tile (`BLOCK_M`).
    pub block_m: usize,
    /// Keys of a tile (`BLOCK_N`).
    pub block_n: usize,
}

/// Arguments of one forward launch. Tensors are `[batch_heads, seqlen, head_dim]`, contiguous, in block order.
#[derive(Debug, Clone, Copy)]
pub struct AttentionArgs<'a, T> {
    /// Sizes.
    pub shape: Shape,
    /// Queries `[batch_heads, seqlen_q, head_dim]`.
    pub q: &'a [T],
    /// Keys `[batch_heads, seqlen_k, head_dim]`.
    pub k: &'a [T],
    /// Values `[batch_heads, seqlen_k, head_dim]`.
    pub v: &'a [T],
    /// Factor on the scores before the softmax, usually `1 / sqrt(head_dim)`.
    pub softmax_scale: f32,
    /// What is computed.
    pub pattern: Pattern<'a>,
    /// How it is cut.
    pub tile: Tile,
}

/// Computes `out = softmax(softmax_scale * Q Kᵀ) V` and `lse`, the natural log of the sum of exponentials.
///
/// `out` is `[batch_heads, seqlen_q, head_dim]` and `lse` is `[batch_heads, seqlen_q]`, both f32 and both
/// written in full. A query without listed keys gets `out = 0`, `lse = -inf`. Scores, weights and sums are f32;
/// with [`crate::Isa::Avx512Bf16`] and bf16 inputs the weights are rounded to bf16 before they meet `V`.
///
/// A tile ends where its query block ends, so `block_m` is an upper bound; blocks of keys are split or merged to
/// make `block_n`. Keys and values of unlisted blocks are not read. The result is the same bit for bit for any
/// number of threads.
///
/// # Errors
/// When a slice does not fit the shape, a list points outside or does not ascend, or the tile is not supported
/// (see [`check_tile`]).
pub fn attention_forward<T: Element>(
    executor: &Executor,
    args: &AttentionArgs<'_, T>,
    out: &mut [f32],
    lse: &mut [f32],
) -> Result<(), ArgumentError> {
    check::check(executor.isa(), args, out, lse)?;
    T::launch(executor, args, out, lse);
    Ok(())
}
