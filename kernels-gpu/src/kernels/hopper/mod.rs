//! Attention forward on compute capability 9.0a, over listed key blocks or all keys, with the log-sum-exp of each row.
//!
//! ```text
//! S = Q Kᵀ      P = softmax(scale S)      O = P V      lse = ln sum exp(scale S)
//! ```
//! Memory: Q, K, V, O are `[batch_heads, seqlen, D]` of 16-bit T, tokens of a block contiguous; Q, K, V are read through
//! tensor maps. `lse` is `[batch_heads, seqlen_q]` f32.
//!
//! A block of threads computes 64 query rows for each of its 1 to 3 consumers, warpgroups with a query tile each. The
//! tiles are neighbours, and what they attend to is loaded once for all:
//!
//! ```text
//!   producer: one warp                          shared memory, STAGES slots         consumer w: four warps
//!   union of the lists, ascending ── copies ──► │K│K│K│  │V│V│V│ ── wgmma ────────► S 64 x BLOCK_N ─► P (registers)
//!   note of each tile: its keys, ─────────────► │n│n│n│ ── "not for me" ─ skips          O 64 x D += P V
//!   and whose list names it                       ▲
//!               ◄──── all warps have left a slot ─┘
//! ```
//! A consumer that does not want a tile spends nothing on it but the wait. One that does starts S of tile n, then
//! P V of its tile before, and computes the softmax of n while that runs.
//!
//! With one consumer there may be no producer's warpgroup: the consumer's first warp then starts the copies for the
//! slots that were left an iteration ago, and several blocks of threads share a multiprocessor.
//!
//! A tile is never a mix of two blocks. A copy may read past a block's end, into tokens of the next: their scores are
//! masked, so that their values count 0 times (and make NaN of the rows if they are infinite or NaN).
//!
//! Sources: Shah et al., "FlashAttention-3" (warp specialisation, overlap of products and softmax); the layouts are those
//! of the PTX ISA (see `panels`).

mod consumer;
mod producer;
mod ring;

use consumer::Consumer;
use producer::{Inline, Producer, Separate};
use ring::Ring;

use super::{attention::QueryTile, rows::Scale, union::SharedWalk};
use crate::{
    config::Config,
    hopper::GROUP_WARPS,
    ptx::{self, hopper},
};

/// Tensor maps in global memory, as `Instance::tensor_maps` describes them.
#[derive(Clone, Copy)]
pub struct Maps {
    pub q: *const u8,
    pub k: *const u8,
    pub v: *const u8,
}

impl Maps {
    /// Starts fetching all three.
    ///
    /// # Safety
    /// They are tensor maps.
    #[inline(always)]
    unsafe fn prefetch(self) {
        for map in [self.q, self.k, self.v] {
            // SAFETY: the caller's.
            unsafe { hopper::prefetch_map(map) }
        }
    }
}

/// Where results go: pointers at the first token of the head.
#[derive(Clone, Copy)]
pub struct Results {
    pub out: *mut u16,
    pub lse: *mut f32,
}

/// What all threads of a block know.
#[derive(Clone, Copy)]
pub struct Job {
    pub maps: Maps,
    pub results: Results,
    /// Batch entry and head, the outermost coordinate of the tensor maps.
    pub bh: u32,
    pub softmax_scale: f32,
}

/// Computes the attention of the query tiles of a block of threads; all its threads call it.
///
/// `queries` finds the query tile of a consumer, which may have no rows; `walk` makes the walk of the keys.
///
/// # Safety
/// Query tiles lie within the queries and the tiles of the walk within the keys; the walk names, for each consumer with
/// rows, what it attends to, and nothing for others. Tensor maps are those of `Instance::tensor_maps`, results are
/// aligned to 16 bytes; `C::CONSTANTS` passed `Instance::check`, and the launch has its threads and shared memory.
/// `walk` may be called by all lanes of any warp.
#[inline(always)]
pub unsafe fn forward<C: Config, W: SharedWalk>(
    job: Job,
    queries: impl Fn(u32) -> QueryTile,
    walk: impl FnOnce() -> W,
) {
    let c = const { C::CONSTANTS };
    let ring = Ring::<C>::new();
    let scale = Scale::new(job.softmax_scale);
    // SAFETY: the caller's; roles are chosen by whole warpgroups.
    unsafe {
        let warp = ptx::uniform(ptx::thread() / 32);
        if warp == 0 {
            ring.make_barriers();
            job.maps.prefetch();
        }
        ptx::barrier();

        if !c.has_producer() {
            let consumer = Consumer::<C> { ring, index: 0, warp, job, scale };
            consumer.run::<W>(queries(0), Inline::new(warp == 0, Producer::new(ring, job, walk())));
        } else if warp < GROUP_WARPS {
            give_registers::<C>();
            if warp == 0 {
                Producer::<C, W>::new(ring, job, walk()).run();
            }
        } else {
            take_registers::<C>();
            let index = warp / GROUP_WARPS - 1;
            let consumer = Consumer::<C> { ring, index, warp: warp % GROUP_WARPS, job, scale };
            consumer.run::<W>(queries(index), Separate);
        }
    }
}

/// Leaves registers to the consumers.
///
/// # Safety
/// All warps of the producer's warpgroup come here, once.
#[inline(always)]
unsafe fn give_registers<C: Config>() {
    if const { C::CONSTANTS.register_split().is_some() } {
        // SAFETY: the caller's; a thread has as many as it was launched with.
        unsafe { hopper::release_registers::<C>() }
    }
}

/// Takes the registers the producer leaves.
///
/// # Safety
/// All warps of a consumer come here, once.
#[inline(always)]
unsafe fn take_registers<C: Config>() {
    if const { C::CONSTANTS.register_split().is_some() } {
        // SAFETY: the caller's; a thread has no more than it was launched with.
        unsafe { hopper::acquire_registers::<C>() }
    }
}
