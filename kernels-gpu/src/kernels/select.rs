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
//!   a block of threads = ROWS <= 8 query rows
//!   1  scores    each warp 16 keys x all rows       keys ─ 16-byte loads ─► A, three parts of bf16     ┐ mma
//!                                                   queries ─ once ───────► B, three parts, registers ─┘
//!   2  select    each warp one row                  [ROWS][max_kv_blocks] scores in shared memory, in place p
//!                bisection over the encodings of p; then one pass writes bitmap, list and count
//! ```
//! A number of f32 is the sum of three of bf16, x = x0 + x1 + x2, of 8 bits each: |x1| <= 2^-9 |x|, |x2| <= 2^-18 |x|.
//! Of the nine products of parts six are computed. The others, x1 y2 + x2 y1 + x2 y2, are at most 2^-25.9 |x y|, half a
//! rounding of f32. The five small ones have a sum of their own, so that what tensor cores cut off counts for x0 y0 alone:
//! at most 11 roundings for 8 elements (see `check::selection` of the host). (Henry, Tang, Heinecke, "Leveraging the bfloat16
//! Artificial Intelligence Datatype", arXiv:1904.06376.)
//!
//! No sort: non-negative floats order as their encodings, so bisection ends at the one value `cut` where the prefix
//! ends, with `sum(p < cut) < bound <= sum(p <= cut)`; of those equal to `cut` the first few are dropped. Once few
//! values are left between the ends, each step also moves them to the next values that there are.
//! Sums are f64 over f32 sums of eight: off by at most 3 roundings of 2^-24.

use super::lanes::{warp_max, warp_sum_f64};
use crate::{
    config::{Config, Constants, Dtype, MAX_SIDE},
    layout::accumulator_element,
    ptx::{self, Device},
    softmax::Math,
};

/// Keys of a tile: the height of `mma`.
const KEYS: u32 = 16;
/// Elements of a step of `mma`.
const STEP: u32 = 16;
/// Parts of a number.
const PARTS: usize = 3;
/// Steps of the bisection before values between its ends are looked at, which costs half as much again. Of rows of 500 to
/// 4,000 normal scores, simulated, few are left then, and 14 steps are enough; 8 to 12 differ little.
const COARSE_STEPS: u32 = 10;
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
        if warp >= c.block_m || row >= rule.q_blocks {
            return;
        }
        let scores = ptx::shared_base() + (warp * c.select_stride() + lane) * 4;
        let words = rule.kv_blocks.div_ceil(64);
        let mask = |bits: *const u64| {
            if bits.is_null() { bits } else { bits.add(row as usize * words as usize) }
        };
        let (always, allowed) = (mask(inputs.always), mask(inputs.allowed));
        let cut = if threshold { Some(Cut::find(scores, allowed, &rule)) } else { None };
        write(cut, scores, always, allowed, &outputs, &rule, row);
    }
}

/// Four numbers that load as one.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Quad([f32; 4]);

/// Splits two numbers into parts of bf16, the largest first; each is a pair for `mma`.
#[inline(always)]
fn split(low: f32, high: f32) -> [u32; PARTS] {
    let (mut low, mut high) = (low, high);
    let mut parts = [0; PARTS];
    for part in &mut parts {
        *part = ptx::pack(Dtype::Bf16, low, high);
        let [rounded_low, rounded_high] = ptx::unpack(Dtype::Bf16, *part);
        // Exact: what is left has fewer bits.
        (low, high) = (low - rounded_low, high - rounded_high);
    }
    parts
}

/// Computes the scores of ROWS rows and all keys into shared memory.
///
/// Of the 16 elements of a step a lane holds four side by side, for A and B alike: the sum over them does not depend on
/// their order, and one load fetches them.
///
/// # Safety
/// As for [`select`].
#[inline(always)]
unsafe fn score<C: Config>(inputs: &Inputs, rule: &Rule, first_row: u32) {
    const STEPS: usize = (MAX_SIDE / STEP) as usize;
    let c: Constants = const { C::CONSTANTS };
    let (warp, lane) = (ptx::thread() / 32, ptx::thread() % 32);
    let (line, quarter) = (lane / 4, lane % 4);
    let steps = (c.head_dim / STEP) as usize;
    let row_of = |of: *const f32, row: u32| {
        let at = row as usize * c.head_dim as usize + quarter as usize * 4;
        // SAFETY: callers name rows that exist; the offset stays within the row.
        unsafe { of.add(at).cast::<Quad>() }
    };
    // SAFETY: rows and keys past the last are read as the last, and not written; scores lie within
    // `select_shared_bytes`. `tile` is the same in all lanes of a warp.
    unsafe {
        let from = row_of(inputs.pooled_q, (first_row + line).min(rule.q_blocks - 1));
        let mut queries = [[[0u32; 2]; PARTS]; STEPS];
        for k in 0..steps {
            let Quad(q) = *from.add(4 * k);
            let (left, right) = (split(q[0], q[1]), split(q[2], q[3]));
            for p in 0..PARTS {
                queries[k][p] = [left[p], right[p]];
            }
        }

        let last = rule.kv_blocks - 1;
        let mut tile = warp;
        while tile * KEYS < rule.kv_blocks {
            let first_key = tile * KEYS;
            let upper = row_of(inputs.pooled_k, (first_key + line).min(last));
            let lower = row_of(inputs.pooled_k, (first_key + 8 + line).min(last));
            let (mut large, mut small) = ([0.0f32; 4], [0.0f32; 4]);
            for k in 0..steps {
                let (Quad(x), Quad(y)) = (*upper.add(4 * k), *lower.add(4 * k));
                let parts = [split(x[0], x[1]), split(y[0], y[1]), split(x[2], x[3]), split(y[2], y[3])];
                let keys = |p: usize| parts.map(|part| part[p]);
                let mut add = |sum: &mut [f32; 4], i: usize, j: usize| {
                    ptx::mma(Dtype::Bf16, sum, &keys(i), queries[k][j]);
                };
                for (i, j) in [(0, 2), (1, 1), (2, 0), (0, 1), (1, 0)] {
                    add(&mut small, i, j);
                }
                add(&mut large, 0, 0);
            }
            for i in 0..4 {
                let (key, row) = accumulator_element(lane, i as u32);
                let key = first_key + key;
                if key < rule.kv_blocks && row < c.block_m {
                    let at = ptx::shared_base() + (row * c.select_stride() + key) * 4;
                    ptx::store_shared(at, (large[i] + small[i]) * rule.scale);
                }
            }
            tile += c.warps;
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

            // All values below `least` together are less than the bound: the cut is none of them, nor `least` itself.
            let least = bound as f32 / (rule.kv_blocks + 1) as f32 * 0.99;
            let one = 1f32.to_bits();
            let (mut low, mut high, mut sum) = (least.to_bits(), one + 1, 0.0);
            let mut step = 0;
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                let found = if step < COARSE_STEPS {
                    Split::at::<false>(scores, chunks, middle)
                } else {
                    Split::at::<true>(scores, chunks, middle)
                };
                if found.below < bound {
                    (low, sum) = (found.next, found.below);
                } else {
                    high = found.last + 1;
                }
                step += 1;
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

/// A row's elements on both sides of an encoding.
struct Split {
    /// Sum of those below it.
    below: f64,
    /// Encoding of the largest of those, or of what is just below; the sum does not change from there on.
    last: u32,
    /// Encoding of the least of the others, or the encoding itself; the sum does not change up to there.
    next: u32,
}

impl Split {
    /// Splits a row at `pivot`, which is above 0 and not above the largest; with `NEIGHBOURS`, looks for its neighbours.
    ///
    /// # Safety
    /// As for [`Cut::find`].
    #[inline(always)]
    unsafe fn at<const NEIGHBOURS: bool>(scores: u32, chunks: u32, pivot: u32) -> Self {
        let (mut total, mut last, mut next) = (0.0, 0.0f32, f32::INFINITY);
        let mut i = 0;
        while i < chunks {
            let mut x = [0.0f32; GROUP as usize];
            for (j, x) in x.iter_mut().enumerate() {
                // SAFETY: the caller's; rows are 0 up to a whole number of groups.
                let p = unsafe { ptx::load_shared(scores + (i + j as u32) * 128) };
                let is_below = p.to_bits() < pivot;
                *x = if is_below { p } else { 0.0 };
                if NEIGHBOURS {
                    last = last.max(*x);
                    next = next.min(if is_below { f32::INFINITY } else { p });
                }
            }
            total += f64::from(((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7])));
            i += GROUP;
        }
        // SAFETY: the caller's.
        unsafe {
            let below = warp_sum_f64(total);
            if NEIGHBOURS {
                Self { below, last: warp_max(last).to_bits(), next: (-warp_max(-next)).to_bits() }
            } else {
                Self { below, last: pivot - 1, next: pivot }
            }
        }
    }
}
