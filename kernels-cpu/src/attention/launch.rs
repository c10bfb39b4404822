//! Runs a plan on the threads of an executor.

use std::sync::atomic::{AtomicUsize, Ordering::*};

use super::AttentionArgs;
use super::pack;
use super::plan::{Chunk, KeyTile, Plan, QueryTile, Wave};
use super::tile::{self, Operands, ScratchSizes, Workspace};
use crate::simd::{self, Job, Simd};
use crate::{Element, Executor, Isa};

/// Runs a launch whose arguments have been checked.
pub(super) fn launch<T: Element>(
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
        executor,
        args,
        plan: &plan,
        packed: packed_words.as_mut_ptr(),
        out: out.as_mut_ptr(),
        lse: lse.as_mut_ptr(),
        queues: plan.waves.iter().map(|_| Queues::default()).collect(),
    };
    executor.run(|_| simd::dispatch(executor, Worker(&launch)));
}

/// Work handed out one by one, and how much of it is finished.
#[derive(Debug, Default)]
struct Queue {
    next: AtomicUsize,
    done: AtomicUsize,
}

impl Queue {
    /// Takes the next of `items` nobody has taken; it counts as finished when the guard is dropped.
    ///
    /// Not a function that takes a closure: closures do not inherit the instruction set they are written in.
    #[inline(always)]
    fn take<'a, I>(&'a self, items: &'a [I]) -> Option<(&'a I, Done<'a>)> {
        let item = items.get(self.next.fetch_add(1, Relaxed))?;
        // The guard counts even when the work panics: other threads wait, and the panic reaches the caller anyway.
        Some((item, Done(&self.done)))
    }

    /// Waits until all `items` are finished: those left are in the hands of running threads.
    #[inline(always)]
    fn wait<I>(&self, items: &[I]) {
        while self.done.load(Acquire) < items.len() {
            std::thread::yield_now();
        }
    }
}

/// Counts an item as finished when dropped.
struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Release);
    }
}

/// The queues of a wave.
#[derive(Debug, Default)]
struct Queues {
    chunks: Queue,
    tiles: Queue,
}

/// A launch, as all threads see it.
struct Launch<'a, T> {
    executor: &'a Executor,
    args: &'a AttentionArgs<'a, T>,
    plan: &'a Plan<'a>,
    packed: *mut f32,
    out: *mut f32,
    lse: *mut f32,
    queues: Vec<Queues>,
}

// SAFETY: the pointers are used for parts that only one thread at a time holds: `packed` by chunk while packing and
// for reading only once all chunks are done, `out` and `lse` by query tile.
unsafe impl<T: Sync> Sync for Launch<'_, T> {}

/// What each thread runs.
struct Worker<'a, T>(&'a Launch<'a, T>);

impl<T: Element> Job for Worker<'_, T> {
    type Output = ();
    const PAIRS: bool = T::PAIRS;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Launch { executor, args, plan, queues, .. } = self.0;
        let sizes = ScratchSizes::of::<S>(&plan.layout, args.tile.block_m, args.tile.block_n);
        let mut buffer = executor.borrow_buffer();
        let words = buffer.words(sizes.total());
        let mut work = Workspace { sizes, words, key_tile: KeyTile::default() };
        for (i, (wave, queue)) in plan.waves.iter().zip(queues).enumerate() {
            if i > 0 {
                // The packed copies of the last wave are about to be overwritten.
                queues[i - 1].tiles.wait(&plan.waves[i - 1].tiles);
            }
            // SAFETY: every chunk and tile is worked on once, chunks before tiles; the caller vouches for the
            // instruction set.
            unsafe {
                while let Some((chunk, _done)) = queue.chunks.take(&wave.chunks) {
                    self.0.pack::<S>(wave, chunk);
                }
                queue.chunks.wait(&wave.chunks);
                while let Some((tile, _done)) = queue.tiles.take(&wave.tiles) {
                    self.0.compute::<S>(wave, tile, &mut work);
                }
            }
        }
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
                block_n: self.args.tile.block_n,
            };
            let out =
                std::slice::from_raw_parts_mut(self.out.add(first * head_dim), query_tile.len * head_dim);
            let lse = std::slice::from_raw_parts_mut(self.lse.add(first), query_tile.len);
            let keys = self.plan.keys(query_tile);
            tile::query_tile::<S, T>(&op, layout, keys, work, out, lse);
        }
    }
}
