//! Copies of keys and values as the kernels read them.

use super::plan::{Chunk, Layout};
use crate::Element;
use crate::simd::Simd;

/// Writes `factor * src` as f32 to the start of `dst`, and zeros to the rest.
///
/// # Safety
/// The CPU has the instruction set; `dst` is at least as long as `src`.
#[inline(always)]
pub(super) unsafe fn widen<S: Simd, T: Element>(src: &[T], factor: f32, dst: &mut [f32]) {
    debug_assert!(dst.len() >= src.len());
    let whole = src.len() - src.len() % S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        // SAFETY: i + LANES <= src.len() <= dst.len().
        unsafe {
            let x = S::mul(T::load::<S>(src.as_ptr().add(i)), S::splat(factor));
            S::store(dst.as_mut_ptr().add(i), x);
        }
    }
    for i in whole..src.len() {
        dst[i] = factor * src[i].to_f32();
    }
    dst[src.len()..].fill(0.0);
}

/// Packs `src` as words of two: elements `2i` and `2i + 1`, a missing last one as 0; zeros to the rest of `dst`.
#[inline(always)]
pub(super) fn join<T: Element>(src: &[T], dst: &mut [f32]) {
    let src: &[u16] = bytemuck::cast_slice(src);
    let words = src.len().div_ceil(2);
    for (word, pair) in dst.iter_mut().zip(src.chunks(2)) {
        let high = pair.get(1).copied().unwrap_or(0);
        *word = f32::from_bits(u32::from(pair[0]) | u32::from(high) << 16);
    }
    dst[words..].fill(0.0);
}

/// Packs two rows as words of two: element `i` of both; zeros to the rest of `dst`.
#[inline(always)]
fn interleave<T: Element>(first: &[T], second: Option<&[T]>, dst: &mut [f32]) {
    let first: &[u16] = bytemuck::cast_slice(first);
    let (head, tail) = dst.split_at_mut(first.len());
    match second {
        Some(second) => {
            let second: &[u16] = bytemuck::cast_slice(second);
            for ((word, &a), &b) in head.iter_mut().zip(first).zip(second) {
                *word = f32::from_bits(u32::from(a) | u32::from(b) << 16);
            }
        }
        None => head.iter_mut().zip(first).for_each(|(word, &a)| *word = f32::from_bits(u32::from(a))),
    }
    tail.fill(0.0);
}

/// Packs the keys of a chunk. `k` and `v` are its rows, `k_out` and `v_out` the rows of the packed copies (empty
/// where the original is read).
///
/// # Safety
/// The CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn pack_chunk<S: Simd, T: Element>(
    layout: &Layout,
    head_dim: usize,
    k: &[T],
    v: &[T],
    k_out: &mut [f32],
    v_out: &mut [f32],
) {
    if layout.pack_k {
        for (src, dst) in k.chunks_exact(head_dim).zip(k_out.chunks_exact_mut(layout.k_stride)) {
            if layout.word == 1 {
                // SAFETY: k_stride >= head_dim; the caller vouches for the instruction set.
                unsafe { widen::<S, T>(src, 1.0, dst) };
            } else {
                join(src, dst);
            }
        }
    }
    if layout.pack_v {
        let rows = v.chunks(layout.word * head_dim).zip(v_out.chunks_exact_mut(layout.channels));
        for (src, dst) in rows {
            if layout.word == 1 {
                // SAFETY: channels >= head_dim; the caller vouches for the instruction set.
                unsafe { widen::<S, T>(src, 1.0, dst) };
            } else {
                let (first, second) = src.split_at(head_dim);
                interleave(first, (!second.is_empty()).then_some(second), dst);
            }
        }
    }
}

/// Returns how many rows of V a chunk has.
pub(super) fn v_rows(layout: &Layout, chunk: &Chunk) -> usize {
    chunk.len.div_ceil(layout.word)
}
