//! One query tile: the body of attention.
//!
//! ```text
//!   for every group of NV x LANES queries (vectors hold queries, see `micro`)
//!       Qᵀ  [depth][queries]        transposed once
//!       m, l [queries]              running maximum (times scale * log2 e) and sum
//!       Oᵀ  [channels][queries]     unnormalised output
//!   for every tile of block_n keys
//!       for every group
//!           S = K Qᵀ                scores, and their maximum per query
//!           P = 2^(S c - m)         online softmax; Oᵀ and l are rescaled when m grows
//!           Oᵀ += Vᵀ P
//!   out = Oᵀ / l, transposed back; lse = (m + log2 l) ln 2
//! ```

use std::f32::consts::LN_2;

use super::plan::{KeyTile, Keys, Layout};
use super::{Tile, micro, pack};
use crate::Element;
use crate::executor::Loan;
use crate::simd::Simd;

/// Where the operands of one query tile are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operands<'a, T> {
    /// Queries `[len, head_dim]`.
    pub(super) q: &'a [T],
    pub(super) head_dim: usize,
    /// Words of K and V of this head.
    pub(super) k: *const u32,
    pub(super) v: *const u32,
    pub(super) softmax_scale: f32,
    pub(super) tile: Tile,
}

/// Sizes of the scratch memory of a thread, in words.
#[derive(Debug, Clone, Copy)]
struct ScratchSizes {
    q: usize,
    o: usize,
    s: usize,
    stage: usize,
    queries: usize,
}

impl ScratchSizes {
    /// Sizes for the instruction set `S`.
    #[inline(always)]
    fn of<S: Simd>(layout: &Layout, tile: Tile) -> Self {
        Self::new(layout, tile, S::LANES, S::NV)
    }

    /// Sizes for vectors of `lanes` and groups of `nv`.
    fn new(layout: &Layout, tile: Tile, lanes: usize, nv: usize) -> Self {
        let queries = tile.block_m.next_multiple_of(lanes);
        let depth = layout.depth.next_multiple_of(lanes);
        let channels = layout.channels.next_multiple_of(lanes);
        Self {
            q: depth * queries,
            o: channels * queries,
            s: micro::padded_rows(tile.block_n) * nv * lanes,
            stage: lanes * depth.max(channels),
            queries,
        }
    }

    /// All of it.
    fn total(&self) -> usize {
        self.q + self.o + self.s + self.stage + 2 * self.queries
    }

    /// Cuts `words` up.
    fn cut<'a>(&self, words: &'a mut [f32]) -> Scratch<'a> {
        let (q, words) = words.split_at_mut(self.q);
        let (o, words) = words.split_at_mut(self.o);
        let (s, words) = words.split_at_mut(self.s);
        let (stage, words) = words.split_at_mut(self.stage);
        let (m, words) = words.split_at_mut(self.queries);
        Scratch { q, o, s, stage, m, l: &mut words[..self.queries] }
    }
}

/// Scratch memory of a thread. `q` and `o` are group after group, each `[rows][vectors * LANES]`.
struct Scratch<'a> {
    q: &'a mut [f32],
    o: &'a mut [f32],
    s: &'a mut [f32],
    stage: &'a mut [f32],
    m: &'a mut [f32],
    l: &'a mut [f32],
}

/// Queries worked on together: vectors `first..first + count` of the tile.
#[derive(Debug, Clone, Copy)]
struct Group {
    first: usize,
    count: usize,
}

/// Cuts `vectors` into groups of at most `nv`, as even as possible.
#[inline(always)]
fn groups(vectors: usize, nv: usize) -> impl Iterator<Item = Group> {
    let n = vectors.div_ceil(nv);
    (0..n).map(move |i| {
        let first = i * vectors / n;
        Group { first, count: (i + 1) * vectors / n - first }
    })
}

/// What a thread works in.
#[derive(Debug)]
pub(super) struct Workspace<'a> {
    pub(super) buffer: Loan<'a>,
    pub(super) key_tile: KeyTile,
}

/// Computes `out` `[len, head_dim]` and `lse` `[len]` of one query tile.
///
/// # Safety
/// The CPU has the instruction set, `keys` names rows inside `op.k` and `op.v`, and the tile was checked.
#[inline(always)]
pub(super) unsafe fn query_tile<S: Simd, T: Element>(
    op: &Operands<'_, T>,
    layout: &Layout,
    mut keys: Keys<'_>,
    work: &mut Workspace<'_>,
    out: &mut [f32],
    lse: &mut [f32],
) {
    let Workspace { buffer, key_tile } = work;
    let sizes = ScratchSizes::of::<S>(layout, op.tile);
    let scratch = &mut sizes.cut(buffer.words(sizes.total()));
    let vectors = lse.len().div_ceil(S::LANES);
    let depth = layout.depth.next_multiple_of(S::LANES);
    let channels = layout.channels.next_multiple_of(S::LANES);
    // The softmax wants a positive factor, so that the largest score has the largest exponent.
    let (sign, factor) = match op.softmax_scale {
        s if s > 0.0 => (1.0, s),
        s if s < 0.0 => (-1.0, -s),
        _ => (0.0, 1.0),
    };
    let factor = (f64::from(factor) * std::f64::consts::LOG2_E) as f32;
    // SAFETY: `cut` gave every part the size its use below needs: groups of `count` vectors follow each other, so
    // group `first` starts at `first * LANES` times the rows of a vector.
    unsafe {
        scratch.o[..channels * vectors * S::LANES].fill(0.0);
        scratch.m.fill(f32::NEG_INFINITY);
        scratch.l.fill(0.0);
        for group in groups(vectors, S::NV) {
            load_queries::<S, T>(op, layout, sign, group, depth, scratch);
        }
        while keys.next_tile(op.tile.block_n, key_tile) {
            for group in groups(vectors, S::NV) {
                let at = group.first * S::LANES;
                let step = Step {
                    layout,
                    factor,
                    keys: key_tile,
                    k: op.k,
                    v: op.v,
                    q: scratch.q.as_ptr().add(at * depth),
                    s: scratch.s.as_mut_ptr(),
                    o: scratch.o.as_mut_ptr().add(at * channels),
                    m: scratch.m.as_mut_ptr().add(at),
                    l: scratch.l.as_mut_ptr().add(at),
                };
                // Instances for more vectors than `S::NV` are never reached.
                match group.count {
                    1 => step.run::<S, 1>(),
                    2 => step.run::<S, 2>(),
                    3 => step.run::<S, 3>(),
                    _ => step.run::<S, 4>(),
                }
            }
        }
        for group in groups(vectors, S::NV) {
            store_outputs::<S>(op.head_dim, group, channels, scratch, out, lse);
        }
    }
}

/// Transposes the queries of a group into `scratch.q`.
#[inline(always)]
unsafe fn load_queries<S: Simd, T: Element>(
    op: &Operands<'_, T>,
    layout: &Layout,
    sign: f32,
    group: Group,
    depth: usize,
    scratch: &mut Scratch<'_>,
) {
    let width = group.count * S::LANES;
    for j in 0..group.count {
        let first = (group.first + j) * S::LANES;
        for (i, row) in scratch.stage.chunks_exact_mut(depth).take(S::LANES).enumerate() {
            let src = op.q.get((first + i) * op.head_dim..).unwrap_or_default();
            let src = &src[..src.len().min(op.head_dim)];
            if layout.word == 1 {
                // SAFETY: depth >= head_dim; the caller vouches for the instruction set.
                unsafe { pack::widen::<S, T>(src, sign, row) };
            } else {
                pack::join(src, row);
                // The sign of both halves of a word; a factor of 0 clears it.
                let (keep, flip) = match sign {
                    s if s > 0.0 => (u32::MAX, 0),
                    s if s < 0.0 => (u32::MAX, 0x8000_8000),
                    _ => (0, 0),
                };
                row.iter_mut().for_each(|w| *w = f32::from_bits(w.to_bits() & keep ^ flip));
            }
        }
        for c in (0..depth).step_by(S::LANES) {
            let at = group.first * S::LANES * depth + c * width + j * S::LANES;
            // SAFETY: the stage has LANES rows of `depth` words, the group `depth` rows of `width` words.
            unsafe {
                let dst = scratch.q.as_mut_ptr().add(at);
                S::transpose(scratch.stage.as_ptr().add(c), depth, dst, width);
            }
        }
    }
}

/// Normalises the outputs of a group and transposes them back.
#[inline(always)]
unsafe fn store_outputs<S: Simd>(
    head_dim: usize,
    group: Group,
    channels: usize,
    scratch: &mut Scratch<'_>,
    out: &mut [f32],
    lse: &mut [f32],
) {
    let width = group.count * S::LANES;
    for j in 0..group.count {
        let first = (group.first + j) * S::LANES;
        let rows = S::LANES.min(lse.len() - first);
        for i in first..first + S::LANES {
            let (m, l) = (scratch.m[i], scratch.l[i]);
            // No key (or only keys of score -inf): out = 0 and lse = -inf, not 0 / 0.
            let empty = l == 0.0;
            scratch.l[i] = if empty { 0.0 } else { 1.0 / l };
            if let Some(lse) = lse.get_mut(i) {
                *lse = if empty { f32::NEG_INFINITY } else { m * LN_2 + l.ln() };
            }
        }
        // SAFETY: the group has `channels` rows of `width` words, the stage LANES rows of `channels` words.
        unsafe {
            let inverse = S::load(scratch.l.as_ptr().add(first));
            let o = scratch.o.as_mut_ptr().add(group.first * S::LANES * channels + j * S::LANES);
            for c in 0..channels {
                let o = o.add(c * width);
                S::store(o, S::mul(S::load(o), inverse));
            }
            for c in (0..channels).step_by(S::LANES) {
                S::transpose(o.add(c * width), width, scratch.stage.as_mut_ptr().add(c), channels);
            }
        }
        for (i, row) in scratch.stage.chunks_exact(channels).take(rows).enumerate() {
            out[(first + i) * head_dim..][..head_dim].copy_from_slice(&row[..head_dim]);
        }
    }
}

/// One tile of keys for one group of queries.
struct Step<'a> {
    layout: &'a Layout,
    /// `softmax_scale * log2 e`, not negative.
    factor: f32,
    keys: &'a KeyTile,
    k: *const u32,
    v: *const u32,
    q: *const f32,
    s: *mut f32,
    o: *mut f32,
    m: *mut f32,
    l: *mut f32,
}

impl Step<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const NV: usize>(&self) {
        if NV > S::NV {
            return;
        }
        // SAFETY: `query_tile` built the pointers for groups of NV vectors.
        unsafe {
            // S = K Qᵀ
            let largest =
                micro::scores::<S, NV>(self.layout.depth, self.q, self.k, &self.keys.k_rows, self.s);
            // Online softmax
            let m = self.rescale::<S, NV>(largest);
            self.exponentials::<S, NV>(m);
            // Oᵀ += Vᵀ P
            micro::values::<S, NV>(self.layout.channels, self.s, self.v, &self.keys.v_rows, self.o);
        }
    }

    /// Raises the running maximum to `largest` and rescales what was summed relative to the old one.
    ///
    /// Returns what to subtract: the maximum, or a huge negative number where all scores so far are -inf, so that
    /// they get the weight 2^-inf = 0 and not NaN.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "constant index loops unroll")]
    unsafe fn rescale<S: Simd, const NV: usize>(&self, largest: [S::V; NV]) -> [S::V; NV] {
        // SAFETY: as for `run`.
        unsafe {
            let mut m = largest;
            let mut alpha = largest;
            let mut grew = false;
            for j in 0..NV {
                let at = j * S::LANES;
                let old = S::load(self.m.add(at));
                let new = S::max(old, S::mul(largest[j], S::splat(self.factor)));
                grew |= S::any_ne(old, new);
                S::store(self.m.add(at), new);
                m[j] = S::max(S::splat(f32::MIN), new);
                alpha[j] = S::exp2(S::sub(old, m[j]));
                S::store(self.l.add(at), S::mul(S::load(self.l.add(at)), alpha[j]));
            }
            if grew {
                for c in 0..self.layout.channels {
                    for j in 0..NV {
                        let o = self.o.add((c * NV + j) * S::LANES);
                        S::store(o, S::mul(S::load(o), alpha[j]));
                    }
                }
            }
            m
        }
    }

    /// Turns scores into weights, in place; pairs of rows become one row of words where products take pairs.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "constant index loops unroll")]
    unsafe fn exponentials<S: Simd, const NV: usize>(&self, m: [S::V; NV]) {
        // SAFETY: as for `run`; with pairs, row i is written after rows 2i and 2i + 1 are read.
        unsafe {
            let factor = S::splat(self.factor);
            let mut minus_m = m;
            let mut sum = m;
            for j in 0..NV {
                minus_m[j] = S::sub(S::splat(0.0), m[j]);
                sum[j] = S::load(self.l.add(j * S::LANES));
            }
            for i in 0..self.keys.v_rows.len() {
                let row = self.s.add(i * S::WORD * NV * S::LANES);
                let dst = self.s.add(i * NV * S::LANES);
                if S::WORD == 1 {
                    for j in 0..NV {
                        let e = S::exp2(S::fma(S::load(row.add(j * S::LANES)), factor, minus_m[j]));
                        sum[j] = S::add(sum[j], e);
                        S::store(dst.add(j * S::LANES), e);
                    }
                } else {
                    let single = *self.keys.single.get_unchecked(i);
                    for j in 0..NV {
                        let first = S::exp2(S::fma(S::load(row.add(j * S::LANES)), factor, minus_m[j]));
                        let second = row.add((NV + j) * S::LANES);
                        let second = if single {
                            S::splat(0.0)
                        } else {
                            S::exp2(S::fma(S::load(second), factor, minus_m[j]))
                        };
                        sum[j] = S::add(sum[j], S::add(first, second));
                        S::store(dst.add(j * S::LANES), S::pair(first, second));
                    }
                }
            }
            for j in 0..NV {
                S::store(self.l.add(j * S::LANES), sum[j]);
            }
        }
    }
}
