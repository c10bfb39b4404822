//! Token reorder: raster order to block order and back.

use crate::{ArgumentError, Executor};

/// Gathers tokens: `out[bh, i, :] = x[bh, source[i], :]` for tensors `[batch_heads, seqlen, row]`.
///
/// `source` has `seqlen` entries; with a permutation `p` this is the reorder, with its inverse the way back.
/// `E` is any plain element, so one function serves every dtype.
///
/// # Errors
/// When a slice does not fit the sizes or an index points outside.
pub fn gather_tokens<E: bytemuck::Pod + Send + Sync>(
    executor: &Executor,
    x: &[E],
    row: usize,
    source: &[u32],
    out: &mut [E],
) -> Result<(), ArgumentError> {
    let _ = (executor, x, row, source, out);
    unimplemented!()
}
