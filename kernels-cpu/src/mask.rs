//! Mask building: block mean pooling, pooled map, threshold selection, list building.

use crate::{ArgumentError, Element, Executor};

/// Averages each block of `x` over its tokens.
///
/// `x` is `[batch_heads, seqlen, head_dim]`, `starts` has `blocks + 1` entries, `pooled` is
/// `[batch_heads, blocks, head_dim]` f32.
///
/// # Errors
/// When a slice does not fit the sizes.
pub fn pool_blocks<T: Element>(
    executor: &Executor,
    x: &[T],
    head_dim: usize,
    starts: &[u32],
    pooled: &mut [f32],
) -> Result<(), ArgumentError> {
    let _ = (executor, x, head_dim, starts, pooled);
    unimplemented!()
}

/// Arguments of [`select_blocks`].
#[derive(Debug, Clone, Copy)]
pub struct SelectArgs<'a> {
    /// Batch size times heads.
    pub batch_heads: usize,
    /// Elements per pooled row.
    pub head_dim: usize,
    /// Pooled queries `[batch_heads, q_blocks, head_dim]`.
    pub pooled_q: &'a [f32],
    /// Pooled keys `[batch_heads, kv_blocks, head_dim]`.
    pub pooled_k: &'a [f32],
    /// Factor on the pooled scores before the softmax.
    pub softmax_scale: f32,
    /// Share of each row's pooled attention to keep, 0..=1; `None` selects nothing by threshold.
    pub mass: Option<f32>,
    /// Blocks kept whatever the map says: bit `j % 64` of word `i * words + j / 64`, `words = ceil(kv_blocks / 64)`.
    pub always: Option<&'a [u64]>,
    /// Blocks allowed at all, same layout; `None` allows every block.
    pub allowed: Option<&'a [u64]>,
}

/// Selects, for every pooled query row, the key blocks whose ascending cumulative softmax reaches `1 - mass`.
///
/// `bitmap` is `[batch_heads, q_blocks, ceil(kv_blocks / 64)]`, `counts` is `[batch_heads, q_blocks]`.
///
/// # Errors
/// When a slice does not fit the sizes.
pub fn select_blocks(
    executor: &Executor,
    args: &SelectArgs<'_>,
    bitmap: &mut [u64],
    counts: &mut [i32],
) -> Result<(), ArgumentError> {
    let _ = (executor, args, bitmap, counts);
    unimplemented!()
}

/// Expands a bitmap into ascending lists: `kv_indices` is `[rows, max_blocks]`, unused entries become 0.
///
/// # Errors
/// When a row has more than `max_blocks` bits or a slice does not fit the sizes.
pub fn expand_lists(
    executor: &Executor,
    bitmap: &[u64],
    words_per_row: usize,
    max_blocks: usize,
    kv_indices: &mut [i32],
) -> Result<(), ArgumentError> {
    let _ = (executor, bitmap, words_per_row, max_blocks, kv_indices);
    unimplemented!()
}
