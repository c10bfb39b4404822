//! Runs a plan on the threads of an executor.

use super::AttentionArgs;
use super::pack;
use super::plan::{Chunk, KeyTile, Plan, QueryTile, Wave};
use super::tile::{self, Operands, Workspace};
use crate::simd::{self, Job, Simd};
use crate::{Element, Executor, Isa, queue};

/// Runs a launch whose arguments have been checked.
pub(crate) fn launch<T: Element>(
    executor: &Executor,
    args: &AttentionArgs<'_, T>,
    out: &mut [f32],
    lse: &mut [f32],
) {
    let pairs = T::PAIRS && executor.isa() == Isa::Avx512Bf16;
    let plan = Plan::new(args, if pairs { 2 } else { 1 });
    let mut packed = executor.borrow_buffer();
    let packed_words = packed.words(plan.packed_words_per_wave());
    let launch = Launch {
        args,
        plan: &plan,
        packed: packed_words.as_mut_ptr(),
        out: out.as_mut_ptr(),
        lse: lse.as_mut_ptr(),
    };
    // Each step returns when all its items are done: tiles find all chunks packed, and the packed copies of a wave
    // are overwritten only when its tiles are finished.
    for wave in &plan.waves {
        if !wave.chunks.is_empty() {
            let pack = |(): &mut (), chunk| simd::dispatch(executor, Pack { launch: &launch, wave, chunk });
            queue::for_each(executor, wave.chunks.iter(), || (), pack);
        }
        let workspace = || Workspace { buffer: executor.borrow_buffer(), key_tile: KeyTile::default() };
        queue::for_each(executor, wave.tiles.iter(), workspace, |work, tile| {
            simd::dispatch(executor, Compute { launch: &launch, wave, tile, work });
        });
    }
}

/// A launch, as all threads see it.
struct Launch<'a, T> {
    args: &'a AttentionArgs<'a, T>,
    plan: &'a Plan<'a>,
    packed: *mut f32,
    out: *mut f32,
    lse: *mut f32,
}

// SAFETY: the pointers are used for parts that only one thread at a time holds: `packed` by chunk while packing and
// for reading only once all chunks are done, `out` and `lse` by query tile.
unsafe impl<T: Sync> Sync for Launch<'_, T> {}

/// Packs one chunk, which no other thread has.
struct Pack<'a, T> {
    launch: &'a Launch<'a, T>,
    wave: &'a Wave,
    chunk: &'a Chunk,
}

impl<T: Element> Job for Pack<'_, T> {
    type Output = ();
    const PAIRS: bool = T::PAIRS;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the queue hands a chunk out once; the caller vouches for the instruction set.
        unsafe { self.launch.pack::<S>(self.wave, self.chunk) }
    }
}

/// Computes one query tile, which no other thread has, after all chunks of the wave are packed.
struct Compute<'a, 'b, T> {
    launch: &'a Launch<'a, T>,
    wave: &'a Wave,
    tile: &'a QueryTile,
    work: &'a mut Workspace<'b>,
}

impl<T: Element> Job for Compute<'_, '_, T> {
    type Output = ();
    const PAIRS: bool = T::PAIRS;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the queue hands a tile out once, after the chunks; the caller vouches for the instruction set.
        unsafe { self.launch.compute::<S>(self.wave, self.tile, self.work) }
    }
}

impl<T: Element> Launch<'_, T> {
    /// Packed K and V of a head.
    #[inline(always)]
    unsafe fn packed(&self, wave: &Wave, head: usize) -> (*mut f32, *mut f32) {
        let (k, v) = self.plan.packed_words();
        // SAFETY: the buffer holds k + v words for every head of a wave.
        unsafe {
            let base = self.packed.add((head - wave.first_head) * (k + v));
            (base, base.add(k))
        }
    }

    /// Packs one chunk.
    ///
    /// # Safety
    /// The CPU has the instruction set, and no other thread touches this chunk.
    #[inline(always)]
    unsafe fn pack<S: Simd>(&self, wave: &Wave, chunk: &Chunk) {
        let layout = &self.plan.layout;
        let shape = self.args.shape;
        let first = (chunk.head * shape.seqlen_k + chunk.start) * shape.head_dim;
        let elements = first..first + chunk.len * shape.head_dim;
        // SAFETY: rows of a chunk are inside the packed head, and no other chunk has them.
        unsafe {
            let (k_out, v_out) = self.packed(wave, chunk.head);
            let k_out: &mut [f32] = if layout.pack_k {
                let first = k_out.add(chunk.start * layout.k_stride);
                std::slice::from_raw_parts_mut(first, chunk.len * layout.k_stride)
            } else {
                &mut []
            };
            let v_out: &mut [f32] = if layout.pack_v {
                let first = v_out.add(chunk.v_row * layout.channels);
                std::slice::from_raw_parts_mut(first, pack::v_rows(layout, chunk) * layout.channels)
            } else {
                &mut []
            };
            let (k, v) = (&self.args.k[elements.clone()], &self.args.v[elements]);
            pack::pack_chunk::<S, T>(layout, shape.head_dim, k, v, k_out, v_out);
        }
    }

    /// Computes one query tile.
    ///
    /// # Safety
    /// The CPU has the instruction set, all chunks of the wave are packed, and no other thread has this tile.
    #[inline(always)]
    unsafe fn compute<S: Simd>(&self, wave: &Wave, query_tile: &QueryTile, work: &mut Workspace<'_>) {
        let layout = &self.plan.layout;
        let shape = self.args.shape;
        let head_dim = shape.head_dim;
        let first = query_tile.head * shape.seqlen_q + query_tile.start;
        let head = query_tile.head * shape.seqlen_k * head_dim;
        // SAFETY: the tile's rows lie in `out` and `lse`, which the check sized, and belong to no other tile. Keys
        // of a plan lie in the head's K and V: packed as `packed_words` sized them, or `seqlen_k` rows in place.
        unsafe {
            let (k, v) = self.packed(wave, query_tile.head);
            let op = Operands {
                q: &self.args.q[first * head_dim..][..query_tile.len * head_dim],
                head_dim,
                k: if layout.pack_k { k.cast() } else { self.args.k.as_ptr().add(head).cast() },
                v: if layout.pack_v { v.cast() } else { self.args.v.as_ptr().add(head).cast() },
                softmax_scale: self.args.softmax_scale,
                tile: self.args.tile,
            };
            let out =
                std::slice::from_raw_parts_mut(self.out.add(first * head_dim), query_tile.len * head_dim);
            let lse = std::slice::from_raw_parts_mut(self.lse.add(first), query_tile.len);
            let keys = self.plan.keys(query_tile);
            tile::query_tile::<S, T>(&op, layout, keys, work, out, lse);
        }
    }
}
