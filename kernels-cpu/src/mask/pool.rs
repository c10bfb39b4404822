//! Block mean pooling: reads Q or K once, at the speed of memory.

use super::{check_len, check_multiple, check_positive};
use crate::simd::{self, Job, Simd};
use crate::{ArgumentError, Element, Executor, queue};

/// Blocks a thread takes at a time: 128 KiB of f32 at the usual 64 tokens of 128 elements, some 10 us of reading.
const BLOCKS_PER_ITEM: usize = 4;

/// Averages each block of `x` over its tokens: sums in f32, one division.
///
/// `x` is `[batch_heads, seqlen, head_dim]`, `starts` has `blocks + 1` entries, strictly ascending from 0 to
/// `seqlen`, `pooled` is `[batch_heads, blocks, head_dim]` f32.
///
/// # Errors
/// When a slice does not fit the sizes, or `starts` is not strictly ascending from 0.
pub fn pool_blocks<T: Element>(
    executor: &Executor,
    x: &[T],
    head_dim: usize,
    starts: &[u32],
    pooled: &mut [f32],
) -> Result<(), ArgumentError> {
    check_positive("head_dim", head_dim)?;
    if starts.len() < 2 {
        return Err(ArgumentError::Length { name: "starts", expected: 2, got: starts.len() });
    }
    if starts[0] != 0 || !starts.is_sorted_by(|a, b| a < b) {
        return Err(ArgumentError::Value {
            name: "starts",
            got: if starts[0] == 0 {
                "a block without tokens".into()
            } else {
                format!("{} first", starts[0])
            },
            requirement: "block starts ascend strictly from 0".into(),
        });
    }
    let blocks = starts.len() - 1;
    let seqlen = starts[blocks] as usize;
    let batch_heads = check_multiple("x", x.len(), seqlen.saturating_mul(head_dim))?;
    check_len("pooled", pooled.len(), batch_heads * blocks * head_dim)?;
    T::pool(executor, x, head_dim, starts, pooled);
    Ok(())
}

/// Averages blocks whose sizes have been checked.
pub(crate) fn pool<T: Element>(
    executor: &Executor,
    x: &[T],
    head_dim: usize,
    starts: &[u32],
    pooled: &mut [f32],
) {
    let blocks = starts.len() - 1;
    let seqlen = starts[blocks] as usize;
    let items = pooled.chunks_mut(BLOCKS_PER_ITEM * head_dim).enumerate();
    queue::for_each(
        executor,
        items,
        || (),
        |(), (item, means)| {
            for (i, mean) in means.chunks_exact_mut(head_dim).enumerate() {
                let row = item * BLOCKS_PER_ITEM + i;
                let (head, block) = (row / blocks, row % blocks);
                let tokens = starts[block] as usize..starts[block + 1] as usize;
                let at = |token: usize| (head * seqlen + token) * head_dim;
                let tokens = &x[at(tokens.start)..at(tokens.end)];
                simd::dispatch(executor, MeanKernel { tokens, mean });
            }
        },
    );
}

/// The mean of one block: `tokens` is `[n, mean.len()]`.
struct MeanKernel<'a, T> {
    tokens: &'a [T],
    mean: &'a mut [f32],
}

impl<T: Element> Job for MeanKernel<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { tokens, mean } = self;
        let dim = mean.len();
        let mut column = 0;
        // Eight vectors at a time hide the latency of the additions; at 128 x f32 on AVX-512 that is a whole token.
        while column + 8 * S::LANES <= dim {
            // SAFETY: the columns lie within the token; the instruction set is the caller's.
            unsafe { mean_of_columns::<S, T, 8>(tokens, mean, column) };
            column += 8 * S::LANES;
        }
        while column + 2 * S::LANES <= dim {
            // SAFETY: as above.
            unsafe { mean_of_columns::<S, T, 2>(tokens, mean, column) };
            column += 2 * S::LANES;
        }
        for column in column..dim {
            let sum: f32 = tokens[column..].iter().step_by(dim).map(|x| x.to_f32()).sum();
            mean[column] = sum / (tokens.len() / dim) as f32;
        }
    }
}

/// Averages `N` vectors of columns from `column` on.
///
/// # Safety
/// `column + N * S::LANES <= mean.len()`, and the instruction set of `S` is present.
#[inline(always)]
unsafe fn mean_of_columns<S: Simd, T: Element, const N: usize>(
    tokens: &[T],
    mean: &mut [f32],
    column: usize,
) {
    let count = (tokens.len() / mean.len()) as f32;
    // SAFETY: each token has `mean.len()` elements, so the vectors lie within it and within `mean`.
    unsafe {
        let mut sums = [S::splat(0.0); N];
        for token in tokens.chunks_exact(mean.len()) {
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = S::add(*sum, T::load::<S>(token.as_ptr().add(column + i * S::LANES)));
            }
        }
        for (i, sum) in sums.into_iter().enumerate() {
            S::store(mean.as_mut_ptr().add(column + i * S::LANES), S::div(sum, S::splat(count)));
        }
    }
}
