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
//! A block of threads may go on to more query tiles, a place after the other. The ring then goes round from one place to
//! the next, with a slot for the end of each: copies for the next are under way while the last output is stored.
//!
//! Consumers may take turns at the tensor cores (`ping_pong`): while one has its products computed, the other computes its
//! softmax. A turn is one of a tile that all of them want, so that each knows from the notes alone whose it is.
//!
//! A tile may be a pair of blocks (`pairs`), a half each, of which a consumer may want one: the other's scores are masked.
//!
//! Two blocks of threads may be a cluster (`cluster`): both walk the union of all their lists, each copies one half of
//! every tile, to both.
//!
//! Without pairs a tile is never a mix of two blocks. A copy may read past a block's end, into tokens of the next: their scores are
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
    config::{Config, Work},
    hopper::{GROUP_WARPS, Turns},
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

/// Where results go: pointers at the first token of the first head.
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
    pub seqlen_q: u32,
    pub softmax_scale: f32,
}

/// The query tiles of a block of threads.
#[derive(Clone, Copy)]
pub struct Place {
    /// Which of the groups of a head.
    pub group: u32,
    /// Batch entry and head, the outermost coordinate of the tensor maps.
    pub bh: u32,
}

impl Place {
    /// Returns the number of the block of threads in its cluster: groups side by side are one's.
    #[inline(always)]
    pub fn rank<C: Config>(self) -> u32 {
        self.group % const { C::CONSTANTS.cluster }
    }

    /// Returns the place of the first block of threads of the cluster.
    #[inline(always)]
    pub fn of_cluster<C: Config>(self) -> Self {
        Self { group: self.group - self.rank::<C>(), bh: self.bh }
    }
}

/// What is computed at each place.
pub trait Task: Copy {
    /// The walk of the keys.
    type Walk: SharedWalk;

    /// Finds the query tile of a consumer, which may have no rows.
    ///
    /// # Safety
    /// The place is one of the launch's.
    unsafe fn queries(&self, place: Place, consumer: u32) -> QueryTile;

    /// Makes the walk of the keys of all query tiles that share what is loaded: those of a block of threads, or of a
    /// cluster.
    ///
    /// # Safety
    /// As for [`Task::queries`]; all lanes of a warp come here.
    unsafe fn walk(&self, place: Place) -> Self::Walk;
}

/// All places of a launch, head after head.
#[derive(Clone, Copy)]
pub struct Places {
    pub order: *const u32,
    pub groups: u32,
    pub heads: u32,
}

impl Places {
    /// Does the work of this block of threads, place after place: the same ones in the same order in all its warps.
    ///
    /// # Safety
    /// All lanes of the warp come here. Groups are whole clusters; `order`, if the work is listed, has an entry below
    /// `groups / cluster * heads` for each.
    #[inline(always)]
    unsafe fn each<C: Config>(self, mut work: impl FnMut(Place)) {
        let c = const { C::CONSTANTS };
        if !c.work.is_persistent() {
            return work(Place { group: ptx::block_x(), bh: ptx::block_y() });
        }
        // A cluster takes the groups of its blocks of threads together. At least 1: division by zero would call a panic.
        let (rank, clusters) = (ptx::block_x() % c.cluster, (self.groups / c.cluster).max(1));
        let mut at = ptx::block_x() / c.cluster;
        while at < clusters * self.heads {
            // SAFETY: the caller's.
            let index = if c.work == Work::Listed {
                unsafe { ptx::uniform(*self.order.add(at as usize)) }
            } else {
                at
            };
            work(Place { group: index % clusters * c.cluster + rank, bh: index / clusters });
            at += ptx::blocks_x() / c.cluster;
        }
    }
}

/// Computes the attention of the query tiles of a block of threads; all its threads call it.
///
/// # Safety
/// Query tiles lie within the queries and the tiles of walks within the keys; a walk names, for each consumer with
/// rows, what it attends to, and nothing for others; places are as [`Places::each`] wants them. Tensor maps are those of `Instance::tensor_maps`, results are
/// aligned to 16 bytes; `C::CONSTANTS` passed `Instance::check`, and the launch has its threads and shared memory.
#[inline(always)]
pub unsafe fn forward<C: Config, T: Task>(job: Job, task: T, places: Places) {
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
        meet::<C>();

        if !c.has_producer() {
            places.each::<C>(|place| {
                let producer = Producer::new(ring, job, place, task.walk(place), Turns::FIRST);
                let mut consumer = Consumer::<C>::new(ring, job, scale, 0, warp);
                consumer.run::<T::Walk>(place.bh, task.queries(place, 0), Inline::new(warp == 0, producer));
            });
        } else if warp < GROUP_WARPS {
            give_registers::<C>();
            if warp == 0 {
                let mut turns = Turns::FIRST;
                places.each::<C>(|place| {
                    turns = Producer::<C, T::Walk>::new(ring, job, place, task.walk(place), turns).run();
                });
            }
        } else {
            take_registers::<C>();
            let index = warp / GROUP_WARPS - 1;
            let mut consumer = Consumer::<C>::new(ring, job, scale, index, warp % GROUP_WARPS);
            consumer.give_first_turn();
            places.each::<C>(|place| {
                consumer.run::<T::Walk>(place.bh, task.queries(place, index), Separate);
            });
        }
        if c.cluster > 1 {
            // Shared memory stays until nobody of the cluster arrives at its barriers any more.
            hopper::cluster_barrier();
        }
    }
}

/// Waits for all threads that share what is loaded.
///
/// # Safety
/// All threads of the block come here, and those of its cluster.
#[inline(always)]
unsafe fn meet<C: Config>() {
    // SAFETY: the caller's.
    unsafe {
        if const { C::CONSTANTS.cluster > 1 } {
            hopper::cluster_barrier();
        } else {
            ptx::barrier();
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
