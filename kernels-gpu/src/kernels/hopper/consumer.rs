//! A consumer: a warpgroup that owns 64 query rows, from their copy to the store of their output.

use super::{
    Job, Ring,
    producer::{Feeder, copy_tile},
};
use crate::{
    config::{Config, WARP_ROWS},
    hopper::{GROUP_WARPS, MAX_CONSUMERS, MAX_PARTS, Note, Turn, Turns},
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

/// Threads at the barrier of a turn: those of the consumer whose turn it is, and of the one before.
const TURN_THREADS: u32 = 2 * GROUP_WARPS * 32;

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
    turns: Turns,
    /// Parity of the phase that ends when the next queries are there.
    queries_parity: u32,
}

impl<C: Config> Consumer<C> {
    #[inline(always)]
    pub(super) fn new(ring: Ring<C>, job: Job, scale: Scale, index: u32, warp: u32) -> Self {
        Self { ring, index, warp, job, scale, turns: Turns::FIRST, queries_parity: 0 }
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
            let mut turns = self.turns;
            loop {
                // A number the compiler does not know: it would make a loop of each of its values, with its own products,
                // and the assembler would no longer see what is the same in all lanes.
                holds = ptx::opaque(holds);
                let (keys, values) = (turns.keys(), turns.values(&c));
                let note = ring.wait_for_keys(keys);
                if self.wants(note) {
                    self.wait_for_turn(note);
                    let mut scores = self.start_scores(keys);
                    // Behind S of this tile, O += P V of the one before.
                    if holds != 0 {
                        self.start_output(held, &mut out, &weights);
                        feeder.refill();
                    } else {
                        wgmma::commit_nothing();
                    }
                    self.pass_turn(note);
                    wgmma::wait_accumulators::<1>(c.block_n, &mut scores);
                    ring.leave_keys(keys);
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
                    (held, holds) = (values, 1);
                } else {
                    // Before tiles are skipped: the producer may need the held slot for them.
                    if holds != 0 {
                        self.start_output(held, &mut out, &weights);
                        wgmma::wait_accumulators::<0>(c.head_dim, &mut out);
                        // Behind the last tile nobody waits for room.
                        if c.work.is_persistent() || W::SKIPS && !note.is_end() {
                            ring.leave_values(held);
                        }
                        holds = 0;
                    }
                    if !c.work.is_persistent() && note.is_end() {
                        break;
                    }
                    ring.leave_keys(keys);
                    ring.wait_for_values(values);
                    ring.leave_values(values);
                    if note.is_end() {
                        self.turns = turns.next(&c);
                        break;
                    }
                }
                turns = turns.next(&c);
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
        // Nobody lists what nobody wants: a single list is of what is wanted.
        !note.is_end() && (const { C::CONSTANTS.lists() } == 1 || note.wanted() >> self.index & 1 != 0)
    }

    /// Says whether turns are taken at a tile, as 0 or 1: if all consumers want it.
    #[inline(always)]
    fn takes_turns(note: Note) -> u32 {
        u32::from(note.wanted() == (1 << const { C::CONSTANTS.consumers() }) - 1)
    }

    /// Returns the barrier of a consumer's turn, behind those where warpgroups meet.
    #[inline(always)]
    fn turn_barrier(consumer: u32) -> u32 {
        1 + MAX_CONSUMERS + consumer
    }

    /// Gives the first turn to the first consumer, as if the last had had one.
    ///
    /// # Safety
    /// All threads of the warpgroup come here, before its first tile.
    #[inline(always)]
    pub(super) unsafe fn give_first_turn(&self) {
        let c = const { C::CONSTANTS };
        if c.ping_pong {
            let last = u32::from(self.index + 1 == c.consumers());
            // SAFETY: the caller's.
            unsafe { hopper::pass_turn(last, Self::turn_barrier(0), TURN_THREADS) }
        }
    }

    /// Waits until it is this consumer's turn to start products.
    ///
    /// # Safety
    /// As for [`Consumer::run`], at a tile that it wants.
    #[inline(always)]
    unsafe fn wait_for_turn(&self, note: Note) {
        if const { C::CONSTANTS.ping_pong } {
            // SAFETY: the caller's; the consumer before comes here for the same tile, or did for the one before.
            unsafe {
                hopper::wait_for_turn(Self::takes_turns(note), Self::turn_barrier(self.index), TURN_THREADS);
            }
        }
    }

    /// Lets the next consumer start its products.
    ///
    /// # Safety
    /// As for [`Consumer::wait_for_turn`], after it.
    #[inline(always)]
    unsafe fn pass_turn(&self, note: Note) {
        let c = const { C::CONSTANTS };
        if c.ping_pong {
            let next = if self.index + 1 == c.consumers() { 0 } else { self.index + 1 };
            // SAFETY: the caller's.
            unsafe { hopper::pass_turn(Self::takes_turns(note), Self::turn_barrier(next), TURN_THREADS) }
        }
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
        let lane = ptx::thread() % 32;
        if c.pairs {
            let columns = c.block_n / MAX_PARTS;
            for part in 0..MAX_PARTS {
                let keys = note.keys_for(part, self.index);
                if keys < columns {
                    rows::mask(scores, part * columns, columns, keys, lane);
                }
            }
        } else if note.keys() < c.block_n {
            rows::mask(scores, 0, c.block_n, note.keys(), lane);
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
