//! The pooled map: a tile of rows of `scale * pooled_q pooled_kᵀ` at a time.
//!
//! Keys are packed once into panels `[panel][head_dim][width]`, so that the microkernel reads them in order:
//! 6 query rows times one panel, accumulators in registers. Every score is the same chain of multiply-adds over
//! `head_dim` wherever it stands in a panel, so equal keys have bitwise equal scores.

use crate::simd::{self, Job, Simd};
use crate::{Executor, executor::Buffer, queue};

/// Rows of the microkernel, see [`Simd::NV`].
const ROWS: usize = 6;
/// Rows of a tile: a panel read from the second-level cache is used four times from the first.
pub(super) const TILE_ROWS: usize = 4 * ROWS;

/// Pooled keys of all heads, packed.
pub(super) struct Panels<'a> {
    packed: &'a [f32],
    width: usize,
    head_dim: usize,
    per_head: usize,
}

impl<'a> Panels<'a> {
    /// Packs `pooled_k`, `[batch_heads, kv_blocks, head_dim]`, into `buffer`; what stands past the last key is 0.
    pub(super) fn pack(
        executor: &Executor,
        buffer: &'a mut Buffer,
        pooled_k: &[f32],
        kv_blocks: usize,
        head_dim: usize,
    ) -> Self {
        let width = simd::dispatch(executor, Width);
        let per_head = kv_blocks.div_ceil(width);
        let heads = pooled_k.len() / (kv_blocks * head_dim);
        let packed = buffer.words(heads * per_head * width * head_dim);
        let items = packed.chunks_exact_mut(width * head_dim).enumerate();
        queue::for_each(
            executor,
            items,
            || (),
            |(), (item, panel)| {
                let (head, first) = (item / per_head, item % per_head * width);
                let keys = first..kv_blocks.min(first + width);
                let keys = &pooled_k
                    [(head * kv_blocks + keys.start) * head_dim..(head * kv_blocks + keys.end) * head_dim];
                if keys.len() < panel.len() {
                    panel.fill(0.0);
                }
                for (j, key) in keys.chunks_exact(head_dim).enumerate() {
                    for (&x, to) in key.iter().zip(panel[j..].iter_mut().step_by(width)) {
                        *to = x;
                    }
                }
            },
        );
        Self { packed, width, head_dim, per_head }
    }

    /// Returns the scores of a row, those past the last key included.
    pub(super) fn row_len(&self) -> usize {
        self.per_head * self.width
    }

    /// Returns the panels of one head.
    pub(super) fn head(&self, head: usize) -> &[f32] {
        let len = self.row_len() * self.head_dim;
        &self.packed[head * len..][..len]
    }
}

/// Writes the scores of up to [`TILE_ROWS`] rows: `scores` is `[TILE_ROWS, row_len]`.
pub(super) struct MapKernel<'a> {
    /// Pooled queries `[rows, head_dim]`.
    pub(super) queries: &'a [f32],
    /// Panels of the head.
    pub(super) panels: &'a [f32],
    /// Elements per pooled token.
    pub(super) head_dim: usize,
    /// Factor on the scores.
    pub(super) scale: f32,
    /// Where the scores go.
    pub(super) scores: &'a mut [f32],
}

impl MapKernel<'_> {
    /// Computes the panels of width `N * S::LANES`.
    ///
    /// # Safety
    /// The instruction set of `S` must be present.
    #[inline(always)]
    unsafe fn panels_of<S: Simd, const N: usize>(self) {
        let Self { queries, panels, head_dim, scale, scores } = self;
        let width = N * S::LANES;
        let row_len = panels.len() / head_dim;
        let rows = queries.len() / head_dim;
        assert!(rows <= TILE_ROWS && scores.len() == TILE_ROWS * row_len && row_len.is_multiple_of(width));
        for (p, panel) in panels.chunks_exact(width * head_dim).enumerate() {
            for first in (0..rows).step_by(ROWS) {
                // A short last group repeats its last row; the copies land in rows that nobody reads.
                let q: [*const f32; ROWS] = std::array::from_fn(|r| {
                    queries[(first + r).min(rows - 1) * head_dim..][..head_dim].as_ptr()
                });
                // SAFETY: each `q` has `head_dim` elements and the panel `head_dim * width`; `first + r` is below
                // TILE_ROWS, a multiple of ROWS, so the stores lie within `scores` by the assertion above.
                unsafe {
                    let mut acc = [[S::splat(0.0); N]; ROWS];
                    for c in 0..head_dim {
                        let k: [S::V; N] =
                            std::array::from_fn(|n| S::load(panel.as_ptr().add(c * width + n * S::LANES)));
                        for r in 0..ROWS {
                            let x = S::splat(*q[r].add(c));
                            for n in 0..N {
                                acc[r][n] = S::fma(x, k[n], acc[r][n]);
                            }
                        }
                    }
                    for (r, row) in acc.iter().enumerate() {
                        for (n, &x) in row.iter().enumerate() {
                            let at = (first + r) * row_len + p * width + n * S::LANES;
                            S::store(scores.as_mut_ptr().add(at), S::mul(x, S::splat(scale)));
                        }
                    }
                }
            }
        }
    }
}

/// Returns the elements of a panel.
struct Width;

impl Job for Width {
    type Output = usize;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> usize {
        S::NV * S::LANES
    }
}

impl Job for MapKernel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the instruction set is the caller's. `S::NV` is a constant: one branch is compiled.
        unsafe {
            match S::NV {
                4 => self.panels_of::<S, 4>(),
                2 => self.panels_of::<S, 2>(),
                _ => self.panels_of::<S, 1>(),
            }
        }
    }
}
