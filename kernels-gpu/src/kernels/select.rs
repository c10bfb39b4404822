//! Selection of key blocks: pooled scores, softmax, threshold, bitmap and lists, without a row leaving the chip.
//!
//! ```text
//! s_j = scale q · k_j      p_j = exp(s_j - max)      dropped: the longest ascending prefix with sum < keep_from sum(p)
//! ```
//! Ascending is by `p`, equal ones by block number; the largest always stays. Then `always` is added and what is not
//! `allowed` removed. (Cumulative threshold of NABLA, arXiv:2507.13546, section 3.)
//!
//! Memory: pooled queries and keys `[bh, blocks, D]` f32; bitmaps of `words = ceil(kv_blocks / 64)` u64 a row, bit
//! `j % 64` of word `j / 64`; lists ascending.
//!
//! ```text
//!   a block of threads = ROWS query rows
//!   1  scores    each thread one key x all rows     keys in slices of 32 elements ─ cp.async ─► shared memory
//!                                                   queries in shared memory, read by all lanes at once
//!   2  select    each warp one row                  [ROWS][max_kv_blocks] scores in shared memory, in place p
//!                bisection over the encodings of p, 30 steps; then one pass writes bitmap, list and count
//! ```
//! No sort: non-negative floats order as their encodings, so bisection ends at the one value `cut` where the prefix
//! ends, with `sum(p < cut) < bound <= sum(p <= cut)`; of those equal to `cut` the first few are dropped.
//! Sums are f64 over f32 sums of eight: off by at most 3 roundings of 2^-24.

use super::lanes::{warp_max, warp_sum_f64};
use crate::{
    config::{Config, SELECT_SLICE, SELECT_STRIDE},
    ptx::{self, Device},
    softmax::Math,
};

/// Most rows of a block of threads: what a block of 1024 threads has warps.
const MAX_ROWS: usize = 32;
/// Scores a lane sums in f32.
const GROUP: u32 = 8;
/// Above this, `keep_from` selects nothing by threshold.
const NO_THRESHOLD: f32 = 1.5;

/// What is read, for the first row of one head.
#[derive(Clone, Copy)]
pub struct Inputs {
    pub pooled_q: *const f32,
    pub pooled_k: *const f32,
    pub always: *const u64,
    pub allowed: *const u64,
}

/// What is written, for the first row of one head.
#[derive(Clone, Copy)]
pub struct Outputs {
    pub bitmap: *mut u64,
    pub counts: *mut i32,
    pub indices: *mut i32,
}

/// Sizes and the rule.
#[derive(Clone, Copy)]
pub struct Rule {
    pub q_blocks: u32,
    pub kv_blocks: u32,
    /// Entries of a list; further blocks are counted, not listed.
    pub max: u32,
    pub scale: f32,
    /// Share of the sum that is dropped at most.
    pub keep_from: f32,
}

/// Selects the key blocks of rows `first_row..first_row + ROWS`.
///
/// # Safety
/// Buffers have the shapes above and are aligned to 16 bytes; `kv_blocks <= max_kv_blocks`; all threads of the block
/// call it with the same arguments, with the shared memory of `Instance::shared_bytes`.
#[inline(always)]
pub unsafe fn select<C: Config>(inputs: Inputs, outputs: Outputs, rule: Rule, first_row: u32) {
    let c = const { C::CONSTANTS };
    let (warp, lane) = (ptx::thread() / 32, ptx::thread() % 32);
    let threshold = rule.keep_from <= NO_THRESHOLD;
    // SAFETY: the caller's; rows past the last are neither read nor written. `threshold` is the same in all threads,
    // `row` in all lanes of a warp.
    unsafe {
        if threshold {
            score::<C>(&inputs, &rule, first_row);
            ptx::barrier();
        }
        let row = first_row + warp;
        if row >= rule.q_blocks {
            return;
        }
        let scores = ptx::shared_base() + warp * c.max_kv_blocks * 4 + lane * 4;
        let words = rule.kv_blocks.div_ceil(64);
        let mask = |bits: *const u64| {
            if bits.is_null() { bits } else { bits.add(row as usize * words as usize) }
        };
        let (always, allowed) = (mask(inputs.always), mask(inputs.allowed));
        let cut = if threshold { Some(Cut::find(scores, allowed, &rule)) } else { None };
        write(cut, scores, always, allowed, &outputs, &rule, row);
    }
}

/// Computes the scores of ROWS rows and all keys into shared memory.
///
/// # Safety
/// As for [`select`].
#[inline(always)]
unsafe fn score<C: Config>(inputs: &Inputs, rule: &Rule, first_row: u32) {
    let c = const { C::CONSTANTS };
    let thread = ptx::thread();
    let scores = ptx::shared_base();
    let queries = scores + c.block_m * c.max_kv_blocks * 4;
    let keys = queries + c.block_m * c.head_dim * 4;
    let own_key = keys + thread * SELECT_STRIDE * 4;
    // SAFETY: rows and keys past the last are copied as zeros from nowhere; regions lie within `select_shared_bytes`.
    unsafe {
        // Queries, in the first group of copies.
        let mut i = thread;
        while i < c.block_m * c.head_dim / 4 {
            let present = first_row + i / (c.head_dim / 4) < rule.q_blocks;
            let at = if present { (first_row * (c.head_dim / 4) + i) as usize * 4 } else { 0 };
            let bytes = if present { 16 } else { 0 };
            ptx::copy_async_16(queries + i * 16, inputs.pooled_q.add(at).cast(), bytes);
            i += c.threads();
        }

        let mut first_key = 0;
        while first_key < rule.kv_blocks {
            let mut sums = [0.0f32; MAX_ROWS];
            let mut column = 0;
            while column < c.head_dim {
                // A slice of a key for each thread: eight lanes copy 128 bytes of one.
                ptx::barrier();
                for i in 0..SELECT_SLICE / 4 {
                    let index = i * c.threads() + thread;
                    let (key, chunk) = (index / (SELECT_SLICE / 4), index % (SELECT_SLICE / 4));
                    let present = first_key + key < rule.kv_blocks;
                    let at = (first_key + key) as usize * c.head_dim as usize + (column + chunk * 4) as usize;
                    let from = inputs.pooled_k.add(if present { at } else { 0 });
                    let bytes = if present { 16 } else { 0 };
                    ptx::copy_async_16(keys + key * SELECT_STRIDE * 4 + chunk * 16, from.cast(), bytes);
                }
                ptx::copy_commit();
                ptx::copy_wait(0);
                ptx::barrier();

                // Not unrolled: LLVM would place all loads before the first sum, for which there are no registers.
                let mut i = 0;
                while i < ptx::opaque(SELECT_SLICE / 4) {
                    let k = ptx::load_shared_4(own_key + i * 16);
                    for r in 0..c.block_m {
                        let q = ptx::load_shared_4(queries + (r * c.head_dim + column + i * 4) * 4);
                        for e in 0..4 {
                            sums[r as usize] = Device::fma(q[e], k[e], sums[r as usize]);
                        }
                    }
                    i += 1;
                }
                column += SELECT_SLICE;
            }
            let key = first_key + thread;
            if key < rule.kv_blocks {
                for r in 0..c.block_m {
                    ptx::store_shared(
                        scores + (r * c.max_kv_blocks + key) * 4,
                        sums[r as usize] * rule.scale,
                    );
                }
            }
            first_key += c.threads();
        }
    }
}

/// Where a row is cut: what is below `value` is dropped, and of what equals it the first blocks.
struct Cut {
    /// Encoding of the value; 0 drops nothing.
    value: u32,
    /// Sum below `value`.
    sum: f64,
    /// The dropped blocks' sum stays below it.
    bound: f64,
    /// Blocks equal to `value` that may be dropped.
    most: u32,
}

impl Cut {
    const NOTHING: Self = Self { value: 0, sum: 0.0, bound: 0.0, most: 0 };

    /// Replaces a row's scores by `exp(score - max)` and finds its cut. `scores` is the lane's first of the row.
    ///
    /// # Safety
    /// As for [`select`]; all lanes of the warp come here.
    #[inline(always)]
    unsafe fn find(scores: u32, allowed: *const u64, rule: &Rule) -> Self {
        let lane = ptx::thread() % 32;
        let chunks = rule.kv_blocks.div_ceil(32);
        // SAFETY: the caller's. A lane reads what it wrote itself, or what was written before the barrier.
        unsafe {
            // Blocks that are not allowed have no part in the softmax.
            let mut max = f32::NEG_INFINITY;
            let mut i = 0;
            while i < chunks {
                let present = i * 32 + lane < rule.kv_blocks;
                if present && (allowed.is_null() || bits_of(allowed, i) >> lane & 1 != 0) {
                    max = max.max(ptx::load_shared(scores + i * 128));
                } else {
                    ptx::store_shared(scores + i * 128, f32::NEG_INFINITY);
                }
                i += 1;
            }
            let max = warp_max(max);

            // exp(score - max), 0 up to a whole number of groups.
            let mut total = 0.0;
            let mut i = 0;
            while i < chunks.next_multiple_of(GROUP) {
                let mut p = 0.0;
                if i < chunks {
                    let score = ptx::load_shared(scores + i * 128);
                    p = Device::exp2((score - max) * core::f32::consts::LOG2_E);
                }
                ptx::store_shared(scores + i * 128, p);
                total += f64::from(p);
                i += 1;
            }
            let total = warp_sum_f64(total);
            let bound = f64::from(rule.keep_from) * total;
            // A row with a score that is not finite has no order: keep it whole, so that attention shows the NaN.
            if !(bound > 0.0 && total < f64::INFINITY) {
                return Self::NOTHING;
            }

            let one = 1f32.to_bits();
            let (mut low, mut high, mut sum) = (0, one + 1, 0.0);
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                let below = sum_below(scores, chunks, middle);
                if below < bound {
                    (low, sum) = (middle, below);
                } else {
                    high = middle;
                }
            }

            // The largest block stays, also when rounding leaves the sum of all below the bound.
            let mut most = u32::MAX;
            if low == one {
                most = 0;
                let mut i = 0;
                while i < chunks {
                    most += ptx::ballot(ptx::load_shared(scores + i * 128).to_bits() == one).count_ones();
                    i += 1;
                }
                most -= 1;
            }
            Self { value: low, sum, bound, most }
        }
    }
}

/// Writes bitmap, list and count of a row.
///
/// # Safety
/// As for [`Cut::find`].
#[inline(always)]
unsafe fn write(
    cut: Option<Cut>,
    scores: u32,
    always: *const u64,
    allowed: *const u64,
    outputs: &Outputs,
    rule: &Rule,
    row: u32,
) {
    let lane = ptx::thread() % 32;
    let lanes_before = (1u32 << lane) - 1;
    let words = rule.kv_blocks.div_ceil(64) as usize;
    // SAFETY: rows, words and list entries lie within the outputs.
    unsafe {
        let bitmap = outputs.bitmap.add(row as usize * words).cast::<u32>();
        let indices = outputs.indices.add(row as usize * rule.max as usize);
        let (mut count, mut equal_before) = (0, 0);
        let mut i = 0;
        // Both halves of each word, also one past the last block.
        while i < 2 * words as u32 {
            let block = i * 32 + lane;
            let mut kept = false;
            if let Some(cut) = &cut {
                let present = block < rule.kv_blocks;
                let p = if present { ptx::load_shared(scores + i * 128).to_bits() } else { 0 };
                let equal = ptx::ballot(present && p == cut.value);
                let rank = equal_before + (equal & lanes_before).count_ones();
                let sum = cut.sum + f64::from(rank + 1) * f64::from(f32::from_bits(cut.value));
                let dropped = p < cut.value || (p == cut.value && rank < cut.most && sum < cut.bound);
                kept = present && !dropped;
                equal_before += equal.count_ones();
            }
            let mut bits = ptx::ballot(kept);
            if !always.is_null() {
                bits |= bits_of(always, i);
            }
            if !allowed.is_null() {
                bits &= bits_of(allowed, i);
            }
            bits &= ptx::ballot(block < rule.kv_blocks);
            if lane == 0 {
                *bitmap.add(i as usize) = bits;
            }
            let place = count + (bits & lanes_before).count_ones();
            if bits >> lane & 1 != 0 && place < rule.max {
                *indices.add(place as usize) = block as i32;
            }
            count += bits.count_ones();
            i += 1;
        }
        if lane == 0 {
            *outputs.counts.add(row as usize) = count as i32;
        }
    }
}

/// Returns bits `32 i..32 i + 32` of a bitmap.
///
/// # Safety
/// They exist.
#[inline(always)]
unsafe fn bits_of(bitmap: *const u64, i: u32) -> u32 {
    // SAFETY: the caller's; words are little-endian.
    unsafe { *bitmap.cast::<u32>().add(i as usize) }
}

/// Returns the sum of the row's elements with an encoding below `pivot`.
///
/// # Safety
/// As for [`Cut::find`].
#[inline(always)]
unsafe fn sum_below(scores: u32, chunks: u32, pivot: u32) -> f64 {
    let mut total = 0.0;
    let mut i = 0;
    while i < chunks {
        let mut x = [0.0f32; GROUP as usize];
        for (j, x) in x.iter_mut().enumerate() {
            // SAFETY: the caller's; rows are 0 up to a whole number of groups.
            let p = unsafe { ptx::load_shared(scores + (i + j as u32) * 128) };
            *x = if p.to_bits() < pivot { p } else { 0.0 };
        }
        total += f64::from(((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7])));
        i += GROUP;
    }
    // SAFETY: the caller's.
    unsafe { warp_sum_f64(total) }
}
