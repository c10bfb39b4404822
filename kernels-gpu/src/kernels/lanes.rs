//! Reductions over the lanes of a warp by butterflies: every lane gets the result.
//!
//! All are unsafe for one reason: all lanes of the warp must come to a shuffle together.

use crate::ptx::shuffle_xor;

/// Returns the value of the lane whose number differs in the bits of `MASK`.
///
/// # Safety
/// All lanes of the warp come here.
#[inline(always)]
unsafe fn other<const MASK: u32>(x: f32) -> f32 {
    // SAFETY: the caller's.
    f32::from_bits(unsafe { shuffle_xor::<MASK>(x.to_bits()) })
}

/// Returns the value of the lane whose number differs in the bits of `MASK`.
///
/// # Safety
/// All lanes of the warp come here.
#[inline(always)]
unsafe fn other_f64<const MASK: u32>(x: f64) -> f64 {
    let bits = x.to_bits();
    // SAFETY: the caller's.
    let (low, high) = unsafe { (shuffle_xor::<MASK>(bits as u32), shuffle_xor::<MASK>((bits >> 32) as u32)) };
    f64::from_bits(u64::from(high) << 32 | u64::from(low))
}

/// Returns the largest of the four lanes that share rows of a fragment.
///
/// # Safety
/// All lanes of the warp come here.
#[inline(always)]
pub unsafe fn quad_max(x: f32) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        let x = x.max(other::<1>(x));
        x.max(other::<2>(x))
    }
}

/// Returns the least of four lanes side by side.
///
/// # Safety
/// All lanes of the warp come here.
#[inline(always)]
pub unsafe fn quad_min(x: u32) -> u32 {
    // SAFETY: the caller's.
    unsafe {
        let x = x.min(shuffle_xor::<1>(x));
        x.min(shuffle_xor::<2>(x))
    }
}

/// Returns the sum over the four lanes that share rows of a fragment.
///
/// # Safety
/// All lanes of the warp come here.
#[inline(always)]
pub unsafe fn quad_sum(x: f32) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        let x = x + other::<1>(x);
        x + other::<2>(x)
    }
}

/// Returns the largest over the warp.
///
/// # Safety
/// All lanes of the warp come here.
#[inline(always)]
pub unsafe fn warp_max(x: f32) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        let x = x.max(other::<16>(x));
        let x = x.max(other::<8>(x));
        quad_max(x.max(other::<4>(x)))
    }
}

/// Returns the sum over the warp.
///
/// # Safety
/// All lanes of the warp come here.
#[inline(always)]
pub unsafe fn warp_sum(x: f32) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        let x = x + other::<16>(x);
        let x = x + other::<8>(x);
        quad_sum(x + other::<4>(x))
    }
}

/// Returns the sum over the warp, in f64.
///
/// # Safety
/// All lanes of the warp come here.
#[inline(always)]
pub unsafe fn warp_sum_f64(x: f64) -> f64 {
    // SAFETY: the caller's.
    unsafe {
        let x = x + other_f64::<16>(x);
        let x = x + other_f64::<8>(x);
        let x = x + other_f64::<4>(x);
        let x = x + other_f64::<2>(x);
        x + other_f64::<1>(x)
    }
}
