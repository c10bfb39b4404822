//! Attention forward over listed key blocks, slow and obviously right: what tensor-core kernels are checked against.
//!
//! ```text
//! s_j = q · k_j      m = max s_j      l = sum exp(scale (s_j - m))      o = sum exp(scale (s_j - m)) v_j / l
//! ```
//! Memory: as the tensor-core kernel's. All arithmetic is f32, nothing is rounded to 16 bits but the result.
//!
//! One warp per query row, two passes over the keys: the maximum, then weights and output. No tiles, no shared memory.
//!
//! ```text
//!   a block of threads = a query block        a warp = rows warp, warp + WARPS, ...
//!   lane l of it:  q[l], q[l + 32], ...  ·  k[l], k[l + 32], ...  ── sum over lanes ──► s_j
//!                  o[l], o[l + 32], ...  += weight * v[l], v[l + 32], ...
//! ```

use super::{
    attention::{Head, QueryTile},
    lanes::warp_sum,
    walk::{KeyTile, KeyWalk},
};
use crate::{
    config::{Config, MAX_SIDE},
    ptx::{self, Device},
    softmax::Math,
};

/// Columns of a row that a lane holds, at most.
const COLUMNS: usize = MAX_SIDE as usize / 32;

/// Computes the attention of a query block; `keys` makes the list of its key tiles anew for each pass.
///
/// # Safety
/// The query block lies within the head's queries and the tiles of `keys` within its keys; all threads of the block
/// call it with the same arguments.
#[inline(always)]
pub unsafe fn forward<C: Config, W: KeyWalk>(
    head: Head,
    queries: QueryTile,
    keys: impl Fn() -> W,
    softmax_scale: f32,
) {
    let c = const { C::CONSTANTS };
    let (warp, lane) = (ptx::thread() / 32, ptx::thread() % 32);
    let columns = c.head_dim as usize / 32;
    let at = |token: u32, i: usize| token as usize * c.head_dim as usize + lane as usize + 32 * i;
    // SAFETY: tokens lie within the tensors (the caller's), columns within a token; all lanes of a warp have the same
    // row and the same keys.
    unsafe {
        let mut row = warp;
        while row < queries.rows {
            let token = queries.first + row;
            let mut q = [0.0; COLUMNS];
            for i in 0..columns {
                q[i] = ptx::widen(c.dtype, *head.q.add(at(token, i)));
            }
            let score = |key: u32| {
                let mut products = 0.0;
                for i in 0..columns {
                    products += q[i] * ptx::widen(c.dtype, *head.k.add(at(key, i)));
                }
                warp_sum(products) * softmax_scale
            };

            // The largest score.
            let mut max = f32::NEG_INFINITY;
            for_each_key(keys(), |key| max = max.max(score(key)));

            // Weights, their sum, and the output.
            let mut sum = 0.0;
            let mut out = [0.0; COLUMNS];
            for_each_key(keys(), |key| {
                let weight = Device::exp2((score(key) - max) * core::f32::consts::LOG2_E);
                sum += weight;
                for i in 0..columns {
                    out[i] += weight * ptx::widen(c.dtype, *head.v.add(at(key, i)));
                }
            });

            let empty = max == f32::NEG_INFINITY && sum == 0.0;
            for i in 0..columns {
                let x = if empty { 0.0 } else { out[i] / sum };
                *head.out.add(at(token, i)) = ptx::pack(c.dtype, x, 0.0) as u16;
            }
            if lane == 0 {
                let lse = max + Device::log2(sum) * core::f32::consts::LN_2;
                *head.lse.add(token as usize) = if empty { f32::NEG_INFINITY } else { lse };
            }
            row += c.warps;
        }
    }
}

/// Calls `f` with each key, in order.
///
/// # Safety
/// As for [`KeyWalk::next`].
#[inline(always)]
unsafe fn for_each_key(mut keys: impl KeyWalk, mut f: impl FnMut(u32)) {
    loop {
        // SAFETY: the caller's.
        let KeyTile { first, keys } = unsafe { keys.next(u32::MAX) };
        if keys == 0 {
            return;
        }
        let mut i = 0;
        while i < keys {
            f(first + i);
            i += 1;
        }
    }
}
