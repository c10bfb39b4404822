//! Block selection: which key blocks each query block attends to.

use super::{
    check_len, check_multiple, check_positive,
    map::{MapKernel, Panels, TILE_ROWS},
    row::RowKernel,
};
use crate::{ArgumentError, Executor, queue, simd};

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
    /// All heads share it.
    pub always: Option<&'a [u64]>,
    /// Blocks allowed at all, same layout; `None` allows every block. The softmax runs over allowed blocks only.
    pub allowed: Option<&'a [u64]>,
}

/// Selects, for every pooled query row, the key blocks whose ascending cumulative softmax reaches `1 - mass`.
///
/// `bitmap` is `[batch_heads, q_blocks, ceil(kv_blocks / 64)]`, `counts` is `[batch_heads, q_blocks]`; both are
/// written in full, bits past the last key block are 0. The order is that of a stable ascending sort: of equal
/// probabilities the lower key block is dropped first. The largest allowed block always stays, so that a row is
/// empty only if nothing is allowed. Blocks of `always` are added, and nothing outside `allowed` is kept.
///
/// With `mass` `None` no map is computed: the result is `always & allowed`, and a row that this leaves empty is
/// empty (count 0). A row with an allowed pooled score of NaN or infinity keeps every allowed block.
///
/// Probabilities are f32, sums are accurate to 1e-6 of a row: a selection differs from one in exact arithmetic
/// only where a cumulative sum is that close to `1 - mass`. It is the same for any number of threads. Memory
/// beyond the outputs is a copy of `pooled_k` and 24 rows of scores a thread.
///
/// # Errors
/// When a slice does not fit the sizes, `mass` lies outside 0..=1 or `softmax_scale` is not finite.
pub fn select_blocks(
    executor: &Executor,
    args: &SelectArgs<'_>,
    bitmap: &mut [u64],
    counts: &mut [i32],
) -> Result<(), ArgumentError> {
    let (q_blocks, kv_blocks) = check(args, bitmap, counts)?;
    let words = kv_blocks.div_ceil(64);
    let Some(mass) = args.mass else {
        let rows = bitmap.chunks_exact_mut(words).zip(counts).enumerate();
        rows.for_each(|(row, (bits, count))| {
            bits.fill(0);
            *count = finish(args, row % q_blocks, kv_blocks, bits);
        });
        return Ok(());
    };

    let mut buffer = executor.borrow_buffer();
    let panels = Panels::pack(executor, &mut buffer, args.pooled_k, kv_blocks, args.head_dim);
    let tiles = bitmap
        .chunks_exact_mut(q_blocks * words)
        .zip(counts.chunks_exact_mut(q_blocks))
        .zip(args.pooled_q.chunks_exact(q_blocks * args.head_dim))
        .enumerate()
        .flat_map(|(head, ((bitmap, counts), queries))| {
            let tiles = bitmap.chunks_mut(TILE_ROWS * words).zip(counts.chunks_mut(TILE_ROWS));
            tiles.zip(queries.chunks(TILE_ROWS * args.head_dim)).enumerate().map(move |tile| (head, tile))
        });
    let scratch = || (executor.borrow_buffer(), Vec::new());
    queue::for_each(
        executor,
        tiles,
        scratch,
        |(loan, candidates), (head, (tile, ((bitmap, counts), queries)))| {
            let scores = loan.words(TILE_ROWS * panels.row_len());
            let kernel = MapKernel {
                queries,
                panels: panels.head(head),
                head_dim: args.head_dim,
                scale: args.softmax_scale,
                scores: &mut *scores,
            };
            simd::dispatch(executor, kernel);
            let rows =
                bitmap.chunks_exact_mut(words).zip(counts).zip(scores.chunks_exact_mut(panels.row_len()));
            for (i, ((bits, count), scores)) in rows.enumerate() {
                let row = tile * TILE_ROWS + i;
                let allowed = args.allowed.map(|allowed| &allowed[row * words..][..words]);
                let mass = f64::from(mass);
                let kernel = RowKernel { scores, blocks: kv_blocks, mass, allowed, bits, candidates };
                simd::dispatch(executor, kernel);
                *count = finish(args, row, kv_blocks, bits);
            }
        },
    );
    Ok(())
}

/// Checks all sizes and returns the numbers of query and key blocks.
fn check(args: &SelectArgs<'_>, bitmap: &[u64], counts: &[i32]) -> Result<(usize, usize), ArgumentError> {
    check_positive("batch_heads", args.batch_heads)?;
    check_positive("head_dim", args.head_dim)?;
    let q_blocks =
        check_multiple("pooled_q", args.pooled_q.len(), args.batch_heads.saturating_mul(args.head_dim))?;
    let kv_blocks =
        check_multiple("pooled_k", args.pooled_k.len(), args.batch_heads.saturating_mul(args.head_dim))?;
    let words = kv_blocks.div_ceil(64);
    for (name, bits) in [("always", args.always), ("allowed", args.allowed)] {
        if let Some(bits) = bits {
            check_len(name, bits.len(), q_blocks * words)?;
        }
    }
    check_len("bitmap", bitmap.len(), args.batch_heads * q_blocks * words)?;
    check_len("counts", counts.len(), args.batch_heads * q_blocks)?;
    if let Some(mass) = args.mass
        && !(0.0..=1.0).contains(&mass)
    {
        let requirement = "the share of attention to keep lies in 0..=1".into();
        return Err(ArgumentError::Value { name: "mass", got: mass.to_string(), requirement });
    }
    if !args.softmax_scale.is_finite() {
        let (got, requirement) = (args.softmax_scale.to_string(), "a finite factor is needed".into());
        return Err(ArgumentError::Value { name: "softmax_scale", got, requirement });
    }
    // Block numbers are i32 in lists and 32 bits wide in the selection.
    if kv_blocks > i32::MAX as usize {
        let requirement = format!("at most {} key blocks are supported", i32::MAX);
        return Err(ArgumentError::Value { name: "pooled_k", got: kv_blocks.to_string(), requirement });
    }
    Ok((q_blocks, kv_blocks))
}

/// Adds `always`, removes what is not allowed or past the last block, and returns how many blocks are left.
fn finish(args: &SelectArgs<'_>, row: usize, kv_blocks: usize, bits: &mut [u64]) -> i32 {
    let words = bits.len();
    if let Some(always) = args.always {
        bits.iter_mut().zip(&always[row * words..]).for_each(|(word, &always)| *word |= always);
    }
    if let Some(allowed) = args.allowed {
        bits.iter_mut().zip(&allowed[row * words..]).for_each(|(word, &allowed)| *word &= allowed);
    }
    if !kv_blocks.is_multiple_of(64) {
        bits[words - 1] &= (1 << (kv_blocks % 64)) - 1;
    }
    bits.iter().map(|word| word.count_ones() as i32).sum()
}
