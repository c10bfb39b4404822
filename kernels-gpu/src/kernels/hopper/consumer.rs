//! A consumer: a warpgroup that owns 64 query rows, from their copy to the store of their output.

use super::{
    Job, Ring,
    producer::{Feeder, copy_tile},
};
use crate::{
    config::{Config, WARP_ROWS},
    hopper::{GROUP_WARPS, Note, Turn},
    kernels::{
        attention::QueryTile,
        lanes::quad_sum,
        rows::{self, Fragments, Scale},
        union::SharedWalk,
    },
    layout::{CHUNK_BYTES, CHUNK_ELEMENTS, accumulator_element},
    panels::STEP,
    ptx::{
        self, Device, hopper,
        wgmma::{self, Descriptors, Operands},
    },
    softmax::OnlineRow,
};

/// A warp of a consumer.
pub(super) struct Consumer<C> {
    ring: Ring<C>,
    /// Which consumer.
    index: u32,
    /// Which warp of it.
    warp: u32,
    job: Job,
    scale: Scale,
    /// Where the next walk starts.
    turn: Turn,
    /// Parity of the phase that ends when the next queries are there.
    queries_parity: u32,
}

impl<C: Config> Consumer<C> {
    #[inline(always)]
    pub(super) fn new(ring: Ring<C>, job: Job, scale: Scale, index: u32, warp: u32) -> Self {
        Self { ring, index, warp, job, scale, turn: Turn::FIRST, queries_parity: 0 }
    }

    /// Computes the attention of `queries`, of head `bh`, to what the walk `W` names.
    ///
    /// # Safety
    /// All threads of the warpgroup come here, with barriers made; see `forward`.
    #[inline(always)]
    pub(super) unsafe fn run<W: SharedWalk>(&mut self, bh: u32, queries: QueryTile, mut feeder: impl Feeder) {
        let c = const { C::CONSTANTS };
        let ring = self.ring;
        // SAFETY: the caller's. All branches are the same in the whole warpgroup: they depend on the query tile, which
        // is the warpgroup's, and on notes. A slot is touched between the wait for it and leaving it.
        unsafe {
            self.load_queries(bh, queries);
            feeder.start();
            if queries.rows != 0 {
                self.wait_for_queries();
            }

            let mut out = [[0.0; 4]; 16];
            let mut rows = [OnlineRow::EMPTY; 2];
            let mut weights: Operands = [[0; 4]; 8];
            // The tile whose weights are known and whose P V has not started, if any.
            let (mut held, mut holds) = (Turn::FIRST, 0);
            let mut turn = self.turn;
            loop {
                // A number the compiler does not know: it would make a loop of each of its values, with its own products,
                // and the assembler would no longer see what is the same in all lanes.
                holds = ptx::opaque(holds);
                let note = ring.wait_for_keys(turn);
                if self.wants(note) {
                    let mut scores = self.start_scores(turn);
                    // Behind S of this tile, O += P V of the one before.
                    if holds != 0 {
                        self.start_output(held, &mut out, &weights);
                        feeder.refill();
                    } else {
                        wgmma::commit_nothing();
                    }
                    wgmma::wait_accumulators::<1>(c.block_n, &mut scores);
                    ring.leave_keys(turn);
                    let corrections = self.weigh(&mut scores, note, &mut rows);
                    // The exponentials are for the time the product takes.
                    ptx::settle(rows[0].sum + rows[1].sum);

                    wgmma::wait_accumulators::<0>(c.head_dim, &mut out);
                    wgmma::keep_operands(c.block_n / STEP, &mut weights);
                    if holds != 0 {
                        ring.leave_values(held);
                        feeder.slot_is_left();
                    }
                    for r in 0..2 {
                        rows::rescale(c, &mut out, r, corrections[r]);
                    }
                    weights = self.round(&scores);
                    (held, holds) = (turn, 1);
                } else {
                    // Before tiles are skipped: the producer may need the held slot for them.
                    if holds != 0 {
                        self.start_output(held, &mut out, &weights);
                        wgmma::wait_accumulators::<0>(c.head_dim, &mut out);
                        // Behind the last tile nobody waits for room.
                        if c.work.is_persistent() || W::SKIPS && note.keys() != 0 {
                            ring.leave_values(held);
                        }
                        holds = 0;
                    }
                    if !c.work.is_persistent() && note.keys() == 0 {
                        break;
                    }
                    ring.leave_keys(turn);
                    ring.wait_for_values(turn);
                    ring.leave_values(turn);
                    if note.keys() == 0 {
                        self.turn = turn.next(c.stages);
                        break;
                    }
                }
                turn = turn.next(c.stages);
            }
            if queries.rows != 0 {
                self.store(bh, queries, &out, &rows);
            }
        }
    }

    /// Starts the copy of the query tile.
    ///
    /// # Safety
    /// As for [`Consumer::run`].
    #[inline(always)]
    unsafe fn load_queries(&self, bh: u32, queries: QueryTile) {
        let c = const { C::CONSTANTS };
        let (to, there) = (self.ring.queries(self.index), self.ring.queries_there(self.index));
        // SAFETY: the caller's; nobody else touches this tile or its barrier.
        unsafe {
            if c.work.is_persistent() {
                // The output of the place before passed through this tile: it was stored there and read.
                hopper::proxy_fence();
                self.meet();
            }
            if queries.rows != 0 && self.warp == 0 && hopper::elect() {
                copy_tile(c.query_tile(), to, self.job.maps.q, [0, queries.first, bh], there);
            }
        }
    }

    /// Waits for the queries, and negates them if the scale is negative.
    ///
    /// # Safety
    /// As for [`Consumer::run`].
    #[inline(always)]
    unsafe fn wait_for_queries(&mut self) {
        let c = const { C::CONSTANTS };
        let tile = self.ring.queries(self.index);
        // SAFETY: the caller's; the tile is a whole number of 16 bytes for each thread.
        unsafe {
            hopper::wait(self.ring.queries_there(self.index), self.queries_parity);
            self.queries_parity ^= 1;
            if self.scale.negated {
                let threads = GROUP_WARPS * 32;
                let mut at = tile + ptx::thread() % threads * 16;
                while at < tile + c.query_tile().bytes() {
                    let words = ptx::load_shared_words(at);
                    ptx::store_shared_words(at, words.map(|pair| pair ^ 0x8000_8000));
                    at += threads * 16;
                }
                // Tensor cores must see what was stored.
                hopper::proxy_fence();
                self.meet();
            }
        }
    }

    /// Waits for the other warps of this consumer.
    ///
    /// # Safety
    /// All threads of the warpgroup come here.
    #[inline(always)]
    unsafe fn meet(&self) {
        // Barrier 0 is the block's.
        // SAFETY: the caller's.
        unsafe { hopper::warpgroup_barrier(1 + self.index) }
    }

    /// Says whether this consumer has to do with a tile.
    #[inline(always)]
    fn wants(&self, note: Note) -> bool {
        // Nobody lists what nobody wants: a single consumer wants all.
        note.keys() != 0 && (const { C::CONSTANTS.consumers() } == 1 || note.is_for(self.index))
    }

    /// Starts S = Q Kᵀ, unscaled, and returns where it will be.
    ///
    /// # Safety
    /// As for [`Consumer::run`], with the keys there.
    #[inline(always)]
    unsafe fn start_scores(&self, turn: Turn) -> Fragments {
        let c = const { C::CONSTANTS };
        let steps = c.head_dim / STEP;
        let (queries, keys) = (self.ring.queries(self.index), self.ring.keys(turn));
        let (mut a, mut b): (Descriptors, Descriptors) = ([0; 8], [0; 8]);
        for k in 0..steps {
            a[k as usize] = c.query_tile().by_columns(queries, k);
            b[k as usize] = c.key_tile().by_columns(keys, k);
        }
        let mut scores = [[0.0; 4]; 16];
        // SAFETY: the caller's.
        unsafe { wgmma::multiply_shared(c.dtype, c.block_n, steps, &mut scores, &a, &b) };
        scores
    }

    /// Waits for the values of a tile and starts O += P V.
    ///
    /// # Safety
    /// As for [`Consumer::run`].
    #[inline(always)]
    unsafe fn start_output(&self, turn: Turn, out: &mut Fragments, weights: &Operands) {
        let c = const { C::CONSTANTS };
        let steps = c.block_n / STEP;
        let values = self.ring.values(turn);
        let mut b: Descriptors = [0; 8];
        for k in 0..steps {
            b[k as usize] = c.key_tile().by_rows(values, k);
        }
        // SAFETY: the caller's.
        unsafe {
            self.ring.wait_for_values(turn);
            wgmma::multiply_registers(c.dtype, c.head_dim, steps, out, weights, &b);
        }
    }

    /// Makes weights of scores; returns the factors on what was accumulated before.
    ///
    /// # Safety
    /// As for [`Consumer::run`].
    #[inline(always)]
    unsafe fn weigh(&self, scores: &mut Fragments, note: Note, rows: &mut [OnlineRow; 2]) -> [f32; 2] {
        let c = const { C::CONSTANTS };
        if note.keys() < c.block_n {
            rows::mask(scores, c.block_n, note.keys(), ptx::thread() % 32);
        }
        let mut corrections = [0.0; 2];
        // SAFETY: the caller's.
        unsafe { rows::weigh(c, scores, rows, self.scale, |r, factor| corrections[r] = factor) };
        corrections
    }

    /// Rounds weights to A operands.
    #[inline(always)]
    fn round(&self, weights: &Fragments) -> Operands {
        let c = const { C::CONSTANTS };
        let mut operands = [[0; 4]; 8];
        for k in 0..(c.block_n / STEP) as usize {
            operands[k] = rows::operand(c.dtype, weights, k);
        }
        operands
    }

    /// Writes O / l, by way of the query tile's place, and lse.
    ///
    /// # Safety
    /// As for [`Consumer::run`], with all products complete.
    #[inline(always)]
    unsafe fn store(&self, bh: u32, queries: QueryTile, out: &Fragments, rows: &[OnlineRow; 2]) {
        let c = const { C::CONSTANTS };
        let (tile, lane) = (c.query_tile(), ptx::thread() % 32);
        let (place, first_row) = (self.ring.queries(self.index), self.warp * WARP_ROWS);
        let first_token = bh as usize * self.job.seqlen_q as usize + queries.first as usize;
        // SAFETY: the caller's; rows that do not exist are not written.
        unsafe {
            // Other warps may still be in their last product, which reads all queries.
            self.meet();
            for r in 0..2 {
                let (row, column) = accumulator_element(lane, 2 * r as u32);
                let row = first_row + row;
                let (factor, lse) =
                    OnlineRow::finish::<Device>(rows[r].max, quad_sum(rows[r].sum), self.scale.log2);
                for n in 0..c.head_dim / CHUNK_ELEMENTS {
                    let [left, right] = [out[n as usize][2 * r], out[n as usize][2 * r + 1]];
                    let pair = ptx::pack(c.dtype, left * factor, right * factor);
                    ptx::store_shared_word(place + tile.chunk_offset(row, n) + column * 2, pair);
                }
                if lane % 4 == 0 && row < queries.rows {
                    *self.job.results.lse.add(first_token + row as usize) = lse;
                }
            }
            // A warp's rows are its own.
            ptx::warp_barrier();
            let chunks = c.chunks();
            for i in 0..WARP_ROWS * chunks / 32 {
                let (row, chunk) = ((i * 32 + lane) / chunks, (i * 32 + lane) % chunks);
                let row = first_row + row;
                if row < queries.rows {
                    let words = ptx::load_shared_words(place + tile.chunk_offset(row, chunk));
                    let at = (first_token + row as usize) * chunks as usize + chunk as usize;
                    *self.job.results.out.cast::<Chunk>().add(at) = Chunk(words);
                }
            }
        }
    }
}

/// Sixteen bytes that store as one.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Chunk([u32; 4]);

const _: () = assert!(size_of::<Chunk>() as u32 == CHUNK_BYTES);
