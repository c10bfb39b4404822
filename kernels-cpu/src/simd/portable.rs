//! Plain Rust on arrays of eight; the compiler vectorises it for the baseline of the target.

use half::{bf16, f16};

use super::{EXP2, EXP2_MIN, Simd};
use crate::Element;

/// No instruction set beyond the target's baseline.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

const LANES: usize = 8;

/// Adding and subtracting it rounds to an integer, half to even, without a call; valid for |x| < 2^22.
const ROUND: f32 = 12_582_912.0;

#[inline(always)]
fn zip(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    let mut out = a;
    for (o, b) in out.iter_mut().zip(b) {
        *o = f(*o, b);
    }
    out
}

impl Simd for Portable {
    const LANES: usize = LANES;
    const NV: usize = 1;
    const WORD: usize = 1;
    type V = [f32; LANES];

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn splat_word(p: *const u32) -> Self::V {
        // SAFETY: the caller vouches for the pointer.
        [f32::from_bits(unsafe { p.read_unaligned() }); LANES]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        // SAFETY: the caller vouches for 8 words.
        unsafe { p.cast::<Self::V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self::V {
        // SAFETY: the caller vouches for 8 halves.
        unsafe { p.cast::<[u16; LANES]>().read_unaligned() }.map(|bits| Element::to_f32(f16::from_bits(bits)))
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::V {
        // SAFETY: the caller vouches for 8 halves.
        unsafe { p.cast::<[u16; LANES]>().read_unaligned() }
            .map(|bits| Element::to_f32(bf16::from_bits(bits)))
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        // SAFETY: the caller vouches for 8 words.
        unsafe { p.cast::<Self::V>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // Not `mul_add`: without hardware FMA that is a call for every lane.
        zip(zip(a, b, |a, b| a * b), c, |ab, c| ab + c)
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn any_ne(a: Self::V, b: Self::V) -> bool {
        a != b
    }
    #[inline(always)]
    unsafe fn lt(a: Self::V, b: Self::V) -> u32 {
        (0..LANES).fold(0, |bits, i| bits | u32::from(a[i] < b[i]) << i)
    }
    #[inline(always)]
    unsafe fn where_lt(a: Self::V, limit: Self::V, value: Self::V) -> Self::V {
        std::array::from_fn(|i| if a[i] < limit[i] { value[i] } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn sum(a: Self::V) -> f64 {
        a.iter().map(|&x| f64::from(x)).sum()
    }
    #[inline(always)]
    unsafe fn dot(acc: Self::V, a: Self::V, b: Self::V) -> Self::V {
        zip(acc, zip(a, b, |a, b| a * b), |acc, ab| acc + ab)
    }
    #[inline(always)]
    unsafe fn pair(first: Self::V, _second: Self::V) -> Self::V {
        first
    }
    #[inline(always)]
    unsafe fn exp2(x: Self::V) -> Self::V {
        let mut out = x;
        for o in &mut out {
            let x = *o;
            let clamped = if x < EXP2_MIN { EXP2_MIN } else { x };
            // round(x - 1/2) is floor(x), or one less at integers: then f is 1, which the polynomial covers.
            let shifted = clamped - 0.5 + ROUND;
            let f = clamped - (shifted - ROUND);
            let p = EXP2[..6].iter().rev().fold(EXP2[6], |p, c| p * f + c);
            // The low bits of `shifted` hold the integer, so its difference to ROUND is the exponent.
            let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()) << 23;
            let scaled = f32::from_bits(p.to_bits().wrapping_add(exponent));
            *o = if x < EXP2_MIN {
                0.0
            } else if x.is_nan() {
                x
            } else {
                scaled
            };
        }
        out
    }
    #[inline(always)]
    unsafe fn transpose(src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize) {
        for r in 0..LANES {
            for c in 0..LANES {
                // SAFETY: the caller vouches for 8 rows of 8 words on both sides.
                unsafe { *dst.add(c * dst_stride + r) = *src.add(r * src_stride + c) };
            }
        }
    }
}
