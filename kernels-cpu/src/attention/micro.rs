//! The two products of attention, blocked for registers.
//!
//! Both compute transposed: a vector holds one key (or one channel) of `LANES` queries. So the softmax over keys
//! needs no horizontal operation, and K and V enter as broadcast words straight from their row-major tensors;
//! only Q is transposed, once per query tile.
//!
//! ```text
//!   scores                                        values
//!            NV vectors of queries                         NV vectors of queries
//!            ┌──────────────────┐ Qᵀ[c]                    ┌──────────────────┐ Pᵀ[key]
//!            └──────────────────┘  c = 0.. depth           └──────────────────┘  key = 0.. keys
//!   K[key]   ┌──────────────────┐                 V[key]   ┌──────────────────┐
//!   R keys   │ R x NV           │ += K[key][c]    R words  │ R x NV           │ += V[key][c]
//!   (words c)│ accumulators     │    * Qᵀ[c]      (c..c+R) │ accumulators Oᵀ  │    * Pᵀ[key]
//!            └──────────────────┘                          └──────────────────┘
//! ```

#![expect(
    clippy::needless_range_loop,
    reason = "constant index loops unroll, which is what keeps the accumulators in registers"
)]

use crate::simd::Simd;

/// Rows of the larger register block: 6 x NV accumulators leave room for NV operands and one broadcast in the
/// 32 (AVX-512, NV = 4) or 16 (AVX2, NV = 2) registers.
const ROWS: usize = 6;
/// Rows of the smaller one: with both, every even number from 4 on is covered without waste.
const ROWS_SMALL: usize = 4;

/// Rounds a number of rows up to what register blocks cover.
pub(super) fn padded_rows(rows: usize) -> usize {
    rows.next_multiple_of(2).max(ROWS_SMALL)
}

/// Splits padded rows into full blocks, then small ones; returns how many full ones.
#[inline(always)]
fn full_blocks(rows: usize) -> usize {
    debug_assert!(rows >= ROWS_SMALL && rows.is_multiple_of(2));
    match rows % ROWS {
        2 => rows / ROWS - 1,
        _ => rows / ROWS,
    }
}

/// Computes `s[key][query] = K[key] . Q[query]` for `keys` (padded) keys; returns the largest score per query.
///
/// `q` is `[depth][NV * LANES]` words, key `i` starts at word `k_rows[i]` of `k`, `s` is `[keys][NV * LANES]`.
///
/// # Safety
/// The CPU has the instruction set; every row of `depth` words and both matrices are in bounds.
#[inline(always)]
pub(super) unsafe fn scores<S: Simd, const NV: usize>(
    depth: usize,
    q: *const f32,
    k: *const u32,
    k_rows: &[usize],
    s: *mut f32,
) -> [S::V; NV] {
    let keys = k_rows.len();
    let full = full_blocks(keys) * ROWS;
    // SAFETY: blocks tile 0..keys; the caller vouches for the rest.
    unsafe {
        let mut largest = [S::splat(f32::NEG_INFINITY); NV];
        let mut key = 0;
        while key < full {
            let rows = k_rows.as_ptr().add(key);
            scores_block::<S, ROWS, NV>(depth, q, k, rows, s.add(key * NV * S::LANES), &mut largest);
            key += ROWS;
        }
        while key < keys {
            let rows = k_rows.as_ptr().add(key);
            scores_block::<S, ROWS_SMALL, NV>(depth, q, k, rows, s.add(key * NV * S::LANES), &mut largest);
            key += ROWS_SMALL;
        }
        largest
    }
}

#[inline(always)]
unsafe fn scores_block<S: Simd, const R: usize, const NV: usize>(
    depth: usize,
    q: *const f32,
    k: *const u32,
    k_rows: *const usize,
    s: *mut f32,
    largest: &mut [S::V; NV],
) {
    // SAFETY: the caller vouches for R rows of `depth` words, `depth` rows of `q` and R rows of `s`.
    unsafe {
        let mut acc = [[S::splat(0.0); NV]; R];
        let mut a = [k; R];
        for i in 0..R {
            a[i] = k.add(*k_rows.add(i));
        }
        for c in 0..depth {
            let row = q.add(c * NV * S::LANES);
            let mut b = [S::splat(0.0); NV];
            for j in 0..NV {
                b[j] = S::load(row.add(j * S::LANES));
            }
            for i in 0..R {
                let x = S::splat_word(a[i].add(c));
                for j in 0..NV {
                    acc[i][j] = S::dot(acc[i][j], x, b[j]);
                }
            }
        }
        for i in 0..R {
            for j in 0..NV {
                largest[j] = S::max(largest[j], acc[i][j]);
                S::store(s.add((i * NV + j) * S::LANES), acc[i][j]);
            }
        }
    }
}

/// Adds `o[c][query] += sum over keys of V[key][c] * p[key][query]` for `channels` (padded) channels.
///
/// `p` is `[keys][NV * LANES]` words, key `i` starts at word `v_rows[i]` of `v`, `o` is `[channels][NV * LANES]`.
/// With bf16 pairs, "key" means a pair of keys.
///
/// # Safety
/// The CPU has the instruction set; every row of `channels` words and both matrices are in bounds.
#[inline(always)]
pub(super) unsafe fn values<S: Simd, const NV: usize>(
    channels: usize,
    p: *const f32,
    v: *const u32,
    v_rows: &[usize],
    o: *mut f32,
) {
    let full = full_blocks(channels) * ROWS;
    // SAFETY: blocks tile 0..channels; the caller vouches for the rest.
    unsafe {
        let mut c = 0;
        while c < full {
            values_block::<S, ROWS, NV>(p, v.add(c), v_rows, o.add(c * NV * S::LANES));
            c += ROWS;
        }
        while c < channels {
            values_block::<S, ROWS_SMALL, NV>(p, v.add(c), v_rows, o.add(c * NV * S::LANES));
            c += ROWS_SMALL;
        }
    }
}

#[inline(always)]
unsafe fn values_block<S: Simd, const R: usize, const NV: usize>(
    p: *const f32,
    v: *const u32,
    v_rows: &[usize],
    o: *mut f32,
) {
    // SAFETY: the caller vouches for R words of every row of `v`, for `p` and for R rows of `o`.
    unsafe {
        let mut acc = [[S::splat(0.0); NV]; R];
        for i in 0..R {
            for j in 0..NV {
                acc[i][j] = S::load(o.add((i * NV + j) * S::LANES));
            }
        }
        for (key, &row) in v_rows.iter().enumerate() {
            let (a, row) = (v.add(row), p.add(key * NV * S::LANES));
            let mut b = [S::splat(0.0); NV];
            for j in 0..NV {
                b[j] = S::load(row.add(j * S::LANES));
            }
            for i in 0..R {
                let x = S::splat_word(a.add(i));
                for j in 0..NV {
                    acc[i][j] = S::dot(acc[i][j], x, b[j]);
                }
            }
        }
        for i in 0..R {
            for j in 0..NV {
                S::store(o.add((i * NV + j) * S::LANES), acc[i][j]);
            }
        }
    }
}
