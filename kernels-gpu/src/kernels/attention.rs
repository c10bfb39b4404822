//! Attention forward on tensor cores, over listed key blocks or all keys, with the log-sum-exp of each row.
//!
//! ```text
//! S = Q Kᵀ      P = softmax(scale S)      O = P V      lse = ln sum exp(scale S)
//! ```
//! Memory: Q, K, V, O are `[batch_heads, seqlen, D]` of 16-bit T, tokens of a block contiguous. `lse` is
//! `[batch_heads, seqlen_q]` f32.
//!
//! A block of threads computes BLOCK_M query rows; each warp owns 16 of them from load to store.
//!
//! ```text
//!             shared memory, STAGES slots                        registers of a warp
//!   global ─ cp.async ─► │K V│K V│K V│  ─ ldmatrix ───────► S 16 x BLOCK_N ─ softmax ─► P (same registers)
//!                          ▲       ▲                         ▲                          │
//!                      in use   in flight               Q 16 x D                   O 16 x D += P V
//!   Q passes once through the last slot, before that slot is needed.
//! ```
//! One barrier a tile: it says both that the tile has landed for everyone, and that everyone has left the slot which
//! is refilled next. A tile is never a mix of two blocks, so keys past a block's end are masked in its last tile only.
//!
//! Source: Dao, "FlashAttention-2", algorithm 1; the layout of fragments is that of the PTX ISA (see `layout`).

use super::{
    lanes::quad_sum,
    rows::{self, Fragments, Scale},
    walk::KeyWalk,
};
use crate::{
    config::{Config, MAX_SIDE, MAX_STAGES, WARP_ROWS},
    layout::{
        CHUNK_BYTES, SWIZZLE_PERIOD, accumulator_element, advance, ldmatrix_columns_last, ldmatrix_rows_last,
        tile_offset,
    },
    ptx::{self, Device},
    softmax::OnlineRow,
};

/// Query rows of a block of threads: `first..first + rows` of the sequence, at most BLOCK_M.
#[derive(Clone, Copy)]
pub struct QueryTile {
    pub first: u32,
    pub rows: u32,
}

/// The tensors of one head: each pointer is at the head's first token.
#[derive(Clone, Copy)]
pub struct Head {
    pub q: *const u16,
    pub k: *const u16,
    pub v: *const u16,
    pub out: *mut u16,
    pub lse: *mut f32,
}

impl Head {
    /// Finds head `bh` in tensors of all heads, sequences `seqlen` tokens long.
    ///
    /// # Safety
    /// The head lies within the tensors.
    #[inline(always)]
    pub unsafe fn of(all: Self, bh: u32, seqlen_q: u32, seqlen_k: u32, head_dim: u32) -> Self {
        let q_token = bh as usize * seqlen_q as usize;
        let (at_q, at_k) = (q_token * head_dim as usize, bh as usize * seqlen_k as usize * head_dim as usize);
        // SAFETY: the caller's.
        unsafe {
            Self {
                q: all.q.add(at_q),
                k: all.k.add(at_k),
                v: all.v.add(at_k),
                out: all.out.add(at_q),
                lse: all.lse.add(q_token),
            }
        }
    }
}

/// Computes the attention of one query tile; all threads of the block call it.
///
/// `softmax_scale` is any finite number.
///
/// # Safety
/// The query tile lies within the head's queries and the tiles of `keys` within its keys; tensors are aligned to 16
/// bytes; `C::CONSTANTS` passed `Instance::check`, and the launch has its threads and shared memory.
#[inline(always)]
pub unsafe fn forward<C: Config>(head: Head, queries: QueryTile, mut keys: impl KeyWalk, softmax_scale: f32) {
    let c = const { C::CONSTANTS };
    let stages = c.stages as usize;
    let thread = ptx::thread();
    let (warp, lane) = (thread / 32, thread % 32);
    let shared = ptx::shared_base();
    let slot_at = |slot: u32| shared + slot * c.stage_bytes();

    // SAFETY: pointers stay within the tiles (the caller's); every access to shared memory lies within
    // `attention_shared_bytes`, and reads follow a wait and a barrier. Control flow depends on values that are the
    // same in all threads, so that all reach each warp and block operation.
    unsafe {
        // Copies into flight: Q, then all tiles but the last slot's. `staged` is the keys of each, oldest first.
        let q = head.q.add(queries.first as usize * c.head_dim as usize);
        copy_tiles::<C, 1>([slot_at(c.stages - 1)], [q], c.block_m, queries.rows, thread);
        ptx::copy_commit();
        let mut staged = [0u32; MAX_STAGES as usize];
        for i in 0..stages - 1 {
            staged[i] = load_stage::<C>(slot_at(i as u32), &head, &mut keys, thread);
        }

        // Q to registers, as A operands.
        ptx::copy_wait(c.stages - 1);
        ptx::barrier();
        let mut q = [[0u32; 4]; MAX_SIDE as usize / 16];
        let (row, chunk) = ldmatrix_columns_last(lane);
        let q_at = slot_at(c.stages - 1) + tile_offset(c.chunks(), warp * WARP_ROWS + row, chunk);
        let scale = Scale::new(softmax_scale);
        let sign = if scale.negated { 0x8000_8000 } else { 0 };
        for k in 0..c.head_dim as usize / 16 {
            q[k] = ptx::ldmatrix(advance(c.chunks(), q_at, 2 * k as u32));
            for i in 0..4 {
                q[k][i] ^= sign;
            }
        }

        // What a lane adds to a slot to address its row of an operand.
        let (row, chunk) = ldmatrix_rows_last(lane);
        let k_offset = tile_offset(c.chunks(), row, chunk);
        let (row, chunk) = ldmatrix_columns_last(lane);
        let v_offset = c.key_tile_bytes() + tile_offset(c.chunks(), row, chunk);

        let mut out: Fragments = [[0.0; 4]; MAX_SIDE as usize / 8];
        let mut rows = [OnlineRow::EMPTY; 2];
        let mut slot = 0;
        while staged[0] != 0 {
            ptx::copy_wait(c.stages - 2);
            ptx::barrier();
            // The slot left last.
            let refill = if slot == 0 { c.stages - 1 } else { slot - 1 };
            let next = load_stage::<C>(slot_at(refill), &head, &mut keys, thread);

            // S = Q Kᵀ, unscaled.
            let mut scores: Fragments = [[0.0; 4]; MAX_SIDE as usize / 8];
            let k_at = slot_at(slot) + k_offset;
            for k in 0..c.head_dim as usize / 16 {
                let column = advance(c.chunks(), k_at, 2 * k as u32);
                for n in 0..c.block_n as usize / 16 {
                    let b = ptx::ldmatrix(column + n as u32 * 16 * c.row_bytes());
                    ptx::mma(c.dtype, &mut scores[2 * n], &q[k], [b[0], b[1]]);
                    ptx::mma(c.dtype, &mut scores[2 * n + 1], &q[k], [b[2], b[3]]);
                }
            }
            if staged[0] < c.block_n {
                rows::mask(&mut scores, 0, c.block_n, staged[0], lane);
            }
            rows::weigh(c, &mut scores, &mut rows, scale, |r, correction| {
                rows::rescale(c, &mut out, r, correction);
            });

            // O += P V.
            let v_at = slot_at(slot) + v_offset;
            for k in 0..c.block_n as usize / 16 {
                let p = rows::operand(c.dtype, &scores, k);
                for n in 0..c.head_dim as usize / 16 {
                    let column = advance(c.chunks(), v_at, 2 * n as u32);
                    let b = ptx::ldmatrix_transposed(column + k as u32 * 16 * c.row_bytes());
                    ptx::mma(c.dtype, &mut out[2 * n], &p, [b[0], b[1]]);
                    ptx::mma(c.dtype, &mut out[2 * n + 1], &p, [b[2], b[3]]);
                }
            }

            for i in 0..stages - 2 {
                staged[i] = staged[i + 1];
            }
            staged[stages - 2] = next;
            slot = if slot + 1 == c.stages { 0 } else { slot + 1 };
        }

        // O / l and lse.
        for r in 0..2 {
            let (row, column) = accumulator_element(lane, 2 * r as u32);
            let row = warp * WARP_ROWS + row;
            let (factor, lse) = OnlineRow::finish::<Device>(rows[r].max, quad_sum(rows[r].sum), scale.log2);
            if row < queries.rows {
                let token = (queries.first + row) as usize;
                let to = head.out.add(token * c.head_dim as usize + column as usize).cast::<u32>();
                for n in 0..c.head_dim as usize / 8 {
                    *to.add(4 * n) = ptx::pack(c.dtype, out[n][2 * r] * factor, out[n][2 * r + 1] * factor);
                }
                if lane % 4 == 0 {
                    *head.lse.add(token) = lse;
                }
            }
        }
    }
}

/// Puts the next tile of keys and values into flight, as one group, and returns its number of keys.
///
/// # Safety
/// As for [`forward`]; nobody reads the slot any more.
#[inline(always)]
unsafe fn load_stage<C: Config>(slot: u32, head: &Head, keys: &mut impl KeyWalk, thread: u32) -> u32 {
    let c = const { C::CONSTANTS };
    // SAFETY: the caller's.
    unsafe {
        let tile = keys.next(c.block_n);
        if tile.keys != 0 {
            let at = tile.first as usize * c.head_dim as usize;
            let from = [head.k.add(at), head.v.add(at)];
            copy_tiles::<C, 2>([slot, slot + c.key_tile_bytes()], from, c.block_n, tile.keys, thread);
        }
        // Also without a tile: waiting counts groups.
        ptx::copy_commit();
        tile.keys
    }
}

/// Starts copying `N` tiles of `height` rows, of which `rows` exist; the others become 0.
///
/// # Safety
/// As for [`forward`].
#[inline(always)]
unsafe fn copy_tiles<C: Config, const N: usize>(
    to: [u32; N],
    from: [*const u16; N],
    height: u32,
    rows: u32,
    thread: u32,
) {
    // SAFETY: the caller's.
    unsafe {
        // Nearly every tile is whole, and then needs no comparison per row.
        if rows == height {
            copy_rows::<C, N, true>(to, from, height, rows, thread);
        } else {
            copy_rows::<C, N, false>(to, from, height, rows, thread);
        }
    }
}

/// Copies as [`copy_tiles`]; `WHOLE` says that all rows exist.
///
/// # Safety
/// As for [`forward`].
#[inline(always)]
unsafe fn copy_rows<C: Config, const N: usize, const WHOLE: bool>(
    to: [u32; N],
    from: [*const u16; N],
    height: u32,
    rows: u32,
    thread: u32,
) {
    let c = const { C::CONSTANTS };
    // Lanes side by side copy chunks side by side: 128 bytes of a row, or 64 where a row is 192.
    let width = if c.chunks().is_multiple_of(8) && c.threads() >= 64 { 8 } else { 4 };
    let step = c.threads() / width;
    // The rows of a thread are a whole number of swizzle periods apart, its chunks a whole number of swizzled groups:
    // all its copies are at constant distances from the first.
    const { assert!(C::CONSTANTS.threads() == 32 || C::CONSTANTS.threads().is_multiple_of(8 * SWIZZLE_PERIOD)) };
    let (first_row, first_chunk) = (thread / width, thread % width);
    let offset = ((first_row * c.chunks() + first_chunk) * CHUNK_BYTES) as usize;
    let place = tile_offset(c.chunks(), first_row, first_chunk);
    for i in 0..height.div_ceil(step) {
        let row = first_row + i * step;
        if height.is_multiple_of(step) || row < height {
            for j in 0..c.chunks() / width {
                let distance = (i * step * c.chunks() + j * width) * CHUNK_BYTES;
                let present = WHOLE || row < rows;
                // Also an address from which nothing is read stays within the tensor: that of the first chunk.
                let at = if present { offset + distance as usize } else { 0 };
                let bytes = if present { CHUNK_BYTES } else { 0 };
                for n in 0..N {
                    // SAFETY: a chunk of contiguous rows exists if its row does, and chunk 0 always.
                    unsafe {
                        ptx::copy_async_16(to[n] + place + distance, from[n].cast::<u8>().add(at), bytes)
                    };
                }
            }
        }
    }
}
