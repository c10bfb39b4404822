//! What the arguments of a launch must satisfy.

use super::{AttentionArgs, BlockLists, Pattern, Tile};
use crate::{ArgumentError, Element, Isa, simd};

/// Most queries of a tile: beyond this a query tile no longer fits the second-level cache.
const MAX_BLOCK_M: usize = 512;
/// Most keys of a tile, for the same reason.
const MAX_BLOCK_N: usize = 2048;
/// `block_n` is a multiple of this: whole pairs for dot products, and few half-filled register blocks.
const STEP_N: usize = 8;
/// Most elements of a query tile, so that the scratch of a thread stays below 64 MiB.
const MAX_TILE_ELEMENTS: usize = 1 << 22;

fn value(name: &'static str, got: impl ToString, requirement: impl Into<String>) -> ArgumentError {
    ArgumentError::Value { name, got: got.to_string(), requirement: requirement.into() }
}

fn length(name: &'static str, expected: usize, got: usize) -> Result<(), ArgumentError> {
    if expected == got { Ok(()) } else { Err(ArgumentError::Length { name, expected, got }) }
}

/// Says whether kernels compiled for `isa` support `tile`.
///
/// Supported are `block_m` in multiples of the vector width (16 words with AVX-512, else 8) up to 512 and, with
/// a mask, up to the query block rounded up to whole vectors, because a tile has one list of key blocks;
/// `block_n` in multiples of 8 up to 2048 whatever the key block, because key blocks are split and merged.
/// Pass the nominal block sizes of the mask: single blocks may be smaller, and end their tiles early.
///
/// # Errors
/// When the tile is not supported, with the reason.
pub fn check_tile(
    tile: Tile,
    q_block: Option<usize>,
    kv_block: Option<usize>,
    head_dim: usize,
    isa: Isa,
) -> Result<(), ArgumentError> {
    let lanes = simd::lanes(isa);
    let Tile { block_m, block_n } = tile;
    if head_dim == 0 {
        return Err(value("head_dim", 0, "must be at least 1"));
    }
    if block_m == 0 || block_m % lanes != 0 || block_m > MAX_BLOCK_M {
        let requirement =
            format!("must be a multiple of the {} vector width {lanes}, up to {MAX_BLOCK_M}", isa.name());
        return Err(value("block_m", block_m, requirement));
    }
    if block_n == 0 || block_n % STEP_N != 0 || block_n > MAX_BLOCK_N {
        return Err(value(
            "block_n",
            block_n,
            format!("must be a multiple of {STEP_N}, up to {MAX_BLOCK_N}"),
        ));
    }
    if block_m.checked_mul(head_dim).is_none_or(|n| n > MAX_TILE_ELEMENTS) {
        let requirement =
            format!("block_m * head_dim must not exceed {MAX_TILE_ELEMENTS} to bound a thread's memory");
        return Err(value("head_dim", head_dim, requirement));
    }
    if let Some(q_block) = q_block {
        if q_block == 0 {
            return Err(value("q_block", 0, "must be at least 1"));
        }
        if block_m > q_block.next_multiple_of(lanes) {
            let requirement = format!(
                "must not exceed the query block of {q_block} tokens: a tile has one list of key blocks"
            );
            return Err(value("block_m", block_m, requirement));
        }
    }
    if kv_block == Some(0) {
        return Err(value("kv_block", 0, "must be at least 1"));
    }
    Ok(())
}

/// Checks everything the kernels rely on; past this, every index they compute is in bounds.
pub(super) fn check<T: Element>(
    isa: Isa,
    args: &AttentionArgs<'_, T>,
    out: &[f32],
    lse: &[f32],
) -> Result<(), ArgumentError> {
    let s = args.shape;
    let elements = |name: &'static str, factors: [usize; 3]| {
        factors
            .iter()
            .try_fold(1usize, |n, &f| n.checked_mul(f))
            .ok_or_else(|| value(name, format!("{factors:?}"), "more elements than can be addressed"))
    };
    let q = elements("shape", [s.batch_heads, s.seqlen_q, s.head_dim])?;
    let k = elements("shape", [s.batch_heads, s.seqlen_k, s.head_dim])?;
    length("q", q, args.q.len())?;
    length("k", k, args.k.len())?;
    length("v", k, args.v.len())?;
    length("out", q, out.len())?;
    length("lse", s.batch_heads * s.seqlen_q, lse.len())?;
    for (name, tokens) in [("seqlen_q", s.seqlen_q), ("seqlen_k", s.seqlen_k)] {
        if u32::try_from(tokens).is_err() {
            return Err(value(name, tokens, "must fit 32 bits"));
        }
    }
    if !args.softmax_scale.is_finite() {
        return Err(value("softmax_scale", args.softmax_scale, "must be finite"));
    }
    check_tile(args.tile, None, None, s.head_dim, isa)?;
    match &args.pattern {
        Pattern::Dense => Ok(()),
        Pattern::Blocks(lists) => {
            check_starts("q_starts", lists.q_starts, s.seqlen_q)?;
            check_starts("kv_starts", lists.kv_starts, s.seqlen_k)?;
            check_lists(s.batch_heads, lists)
        }
    }
}

fn check_starts(name: &'static str, starts: &[u32], seqlen: usize) -> Result<(), ArgumentError> {
    let (Some(&first), Some(&last)) = (starts.first(), starts.last()) else {
        return Err(ArgumentError::Length { name, expected: 1, got: 0 });
    };
    if first != 0 || last as usize != seqlen {
        return Err(value(name, format!("{first}..{last}"), format!("must span 0..{seqlen}")));
    }
    match starts.windows(2).position(|w| w[0] > w[1]) {
        None => Ok(()),
        Some(b) => {
            let got = format!("{}, {} at block {b}", starts[b], starts[b + 1]);
            Err(value(name, got, "must not descend"))
        }
    }
}

fn check_lists(batch_heads: usize, lists: &BlockLists<'_>) -> Result<(), ArgumentError> {
    let rows = batch_heads * (lists.q_starts.len() - 1);
    let kv_blocks = lists.kv_starts.len() - 1;
    length("kv_num_blocks", rows, lists.kv_num_blocks.len())?;
    let entries = rows
        .checked_mul(lists.max_blocks)
        .ok_or_else(|| value("max_blocks", lists.max_blocks, "more entries than can be addressed"))?;
    length("kv_indices", entries, lists.kv_indices.len())?;
    for (row, &count) in lists.kv_num_blocks.iter().enumerate() {
        let Some(count) = usize::try_from(count).ok().filter(|&n| n <= lists.max_blocks) else {
            let requirement = format!("row {row} must list between 0 and max_blocks = {}", lists.max_blocks);
            return Err(value("kv_num_blocks", count, requirement));
        };
        let mut next = 0;
        for &block in &lists.kv_indices[row * lists.max_blocks..][..count] {
            match usize::try_from(block) {
                Ok(b) if (next..kv_blocks).contains(&b) => next = b + 1,
                _ => {
                    let requirement = format!("row {row} must list ascending key blocks below {kv_blocks}");
                    return Err(value("kv_indices", block, requirement));
                }
            }
        }
    }
    Ok(())
}
