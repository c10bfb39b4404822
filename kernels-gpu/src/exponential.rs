//! `2^x` by multiply-adds: for a share of softmax's exponentials, where the special function unit is what limits.
//!
//! ```text
//! 2^x = 2^n 2^f      n = round(x)      f = x - n in [-1/2, 1/2]      2^f = 1 + c1 f + ... + c5 f^5
//! ```
//! The coefficients minimise the largest relative error with 1 for x = 0 kept exact (Lawson's iteration in float64,
//! then rounded). Degree 5 is the least whose error, 1.5 * 2^-24 before rounding, does not exceed that of the special
//! function unit; degree 4 is off by 44 * 2^-24. Rounding by addition of a large number: Cody and Waite, "Software
//! Manual for the Elementary Functions".

use crate::{config::MAX_SLACK, softmax::Math};

/// Coefficients of f, from that of the first power.
#[expect(clippy::approx_constant, reason = "the first is not ln 2 but what makes the largest error least")]
const COEFFICIENTS: [f32; 5] = [0.693_147, 0.240_222_42, 0.055_507_336, 0.009_671_513, 0.001_326_472_1];
/// 1.5 * 2^23: added to a small number it leaves the integer next to that in the lowest bits. With the bias of
/// exponents on top, these bits are the exponent of 2^n.
const TO_INTEGER: f32 = 12_582_912.0 + 127.0;
/// Bits of a float below its exponent.
const MANTISSA_BITS: u32 = 23;
/// Where the result is 0: the exponent of 2^n is then 0.
const LEAST: f32 = -127.0;
/// Largest argument: the exponent of 2^n stays below that of infinity.
pub const MOST: f32 = 127.0;

/// Logarithms of weights exceed 0 by the slack at most.
const _: () = assert!(MAX_SLACK < MOST as u32);

/// Returns `2^x` within 2^-22 of its value; below the normal numbers something between 0 and the least of them. NaN
/// stays NaN, -inf gives 0.
///
/// `x` is [`MOST`] at most.
#[inline(always)]
pub fn exp2_polynomial<M: Math>(x: f32) -> f32 {
    let x = M::at_least(x, LEAST);
    let shifted = x + TO_INTEGER;
    let part = x - (shifted - TO_INTEGER);
    let [c1, c2, c3, c4, c5] = COEFFICIENTS;
    let mut sum = c5;
    for c in [c4, c3, c2, c1, 1.0] {
        sum = M::fma(sum, part, c);
    }
    // A product and no addition of exponents: that would make a number of NaN.
    sum * f32::from_bits(shifted.to_bits() << MANTISSA_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::softmax::tests::Exact;

    fn exp2(x: f32) -> f32 {
        exp2_polynomial::<Exact>(x)
    }

    #[test]
    fn errors_are_those_of_the_special_function_unit() {
        let mut worst = 0f64;
        let mut x = -125.9f32;
        while x < 9.0 {
            let right = f64::from(x).exp2();
            worst = worst.max((f64::from(exp2(x)) / right - 1.0).abs());
            // Steps that share no factor with the period of 1.
            x += 0.000_371_3;
        }
        assert!(worst < 2f64.powi(-22), "{worst:e}");
        assert!(worst > 2f64.powi(-25), "{worst:e} is better than rounding allows: nothing was compared");
    }

    #[test]
    fn powers_of_whole_numbers_are_exact() {
        for n in -126..=127i32 {
            assert_eq!(exp2(n as f32), 2f32.powi(n), "{n}");
        }
    }

    #[test]
    fn what_is_too_small_vanishes() {
        for x in [f32::NEG_INFINITY, f32::MIN, -1.0e6, -150.0, -127.0] {
            assert_eq!(exp2(x).to_bits(), 0, "{x}");
        }
        for x in [-126.9, -126.6, -126.5, -126.4] {
            assert!((0.0..f32::MIN_POSITIVE).contains(&exp2(x)), "{x}");
        }
    }

    #[test]
    fn a_nan_stays_one() {
        assert!(exp2(f32::NAN).is_nan());
    }
}
