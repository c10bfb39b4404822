//! Conversions of one value between any two types, and the vector form that packs two f32.

use super::float::flush;
use super::lanes::{LANES, map1};
use super::mma::half_to_f32;
use crate::program::{Convert, Rounding};
use crate::scalar::Scalar;

/// Rounds to a whole number.
fn whole(x: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::Nearest => x.round_ties_even(),
        Rounding::Zero => x.trunc(),
        Rounding::Down => x.floor(),
        Rounding::Up => x.ceil(),
        Rounding::Away => x.round(),
    }
}

/// Rounds to a binary format of at most 24 bits of precision: bits of the fraction, bits of the exponent.
pub(crate) fn narrow(x: f64, fraction: u32, exponent: u32, rounding: Rounding) -> u32 {
    let sign = u32::from(x.is_sign_negative()) << (fraction + exponent);
    let infinity = ((1 << exponent) - 1) << fraction;
    if x.is_nan() {
        return (1 << (fraction + exponent)) - 1;
    }
    let magnitude = x.abs();
    if magnitude == 0.0 {
        return sign;
    }
    if magnitude.is_infinite() {
        return sign | infinity;
    }
    let bias = (1 << (exponent - 1)) - 1;
    let directed = match (rounding, sign != 0) {
        (Rounding::Down, true) | (Rounding::Up, false) => Rounding::Up,
        (Rounding::Down, false) | (Rounding::Up, true) => Rounding::Zero,
        (other, _) => other,
    };
    let overflow = sign | if directed == Rounding::Zero { infinity - 1 } else { infinity };
    // An exact f64 subnormal is far below every format here; its logarithm only has to be small.
    let power = ((magnitude.to_bits() >> 52) as i32 - 1023).max(1 - bias);
    if power > bias {
        return overflow;
    }
    let step = 2.0_f64.powi(power - fraction as i32);
    let steps = whole(magnitude / step, directed) as u32;
    // A carry out of the fraction moves on to the exponent by itself.
    let bits = (((power + bias - 1) as u32) << fraction) + steps;
    if bits < infinity { sign | bits } else { overflow }
}

/// An f32 rounded to nearest as bf16; NaN is the hardware's 0x7fff.
#[inline(always)]
pub(crate) fn bf16_nearest(x: u32) -> u32 {
    let rounded = x.wrapping_add(0x7fff + (x >> 16 & 1)) >> 16;
    if x & 0x7fff_ffff > 0x7f80_0000 { 0x7fff } else { rounded }
}

/// An f32 rounded to nearest as f16, by arithmetic that vectorises.
#[inline(always)]
pub(crate) fn f16_nearest(x: u32) -> u32 {
    let sign = x >> 16 & 0x8000;
    let magnitude = x & 0x7fff_ffff;
    // Below 2^-14 the sum with 0.5 leaves the rounded subnormal in the low bits.
    let small = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5_f32.to_bits());
    let normal = magnitude.wrapping_add(0xfff + (magnitude >> 13 & 1)).wrapping_sub(112 << 23) >> 13;
    let finite = if magnitude < 113 << 23 { small } else { normal };
    let bounded = if magnitude >= 143 << 23 || finite > 0x7c00 { 0x7c00 } else { finite };
    (if magnitude > 0x7f80_0000 { 0x7fff } else { bounded }) | if magnitude > 0x7f80_0000 { 0 } else { sign }
}

/// One value of the pair that `cvt.f16x2` and `cvt.bf16x2` make.
#[inline(always)]
pub(crate) fn pack_one(bf16: bool, rounding: Rounding, relu: bool, x: u32) -> u32 {
    let x = if relu && x >> 31 == 1 && x & 0x7fff_ffff <= 0x7f80_0000 { 0 } else { x };
    match (bf16, rounding) {
        (true, Rounding::Nearest) => bf16_nearest(x),
        (false, Rounding::Nearest) => f16_nearest(x),
        (true, _) => narrow(f64::from(f32::from_bits(x)), 7, 8, rounding),
        (false, _) => narrow(f64::from(f32::from_bits(x)), 10, 5, rounding),
    }
}

/// The value of float bits.
fn float(bits: u64, scalar: Scalar) -> f64 {
    match scalar {
        Scalar::F16 => f64::from(half_to_f32(bits as u32)),
        Scalar::Bf16 => f64::from(f32::from_bits((bits as u32) << 16)),
        Scalar::F32 => f64::from(f32::from_bits(bits as u32)),
        _ => f64::from_bits(bits),
    }
}

fn to_float(x: f64, how: Convert) -> u64 {
    match how.to {
        Scalar::F16 => u64::from(narrow(x, 10, 5, how.rounding)),
        Scalar::Bf16 => u64::from(narrow(x, 7, 8, how.rounding)),
        Scalar::F32 => {
            let bits = narrow(x, 23, 8, how.rounding);
            u64::from(if how.ftz { flush(bits) } else { bits })
        }
        _ => x.to_bits(),
    }
}

/// The value of integer bits; 128 bits hold every one.
fn integer(bits: u64, scalar: Scalar) -> i128 {
    let shift = 64 - scalar.bits();
    if scalar.is_signed() {
        i128::from((bits << shift) as i64 >> shift)
    } else {
        i128::from(bits << shift >> shift)
    }
}

/// Bounds of an integer type.
fn bounds(scalar: Scalar) -> (i128, i128) {
    let bits = scalar.bits();
    if scalar.is_signed() { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

/// An integer as f64 such that rounding once more to the destination gives what rounding once would: a value too long
/// for f64 keeps an odd last bit for the part that was cut off.
fn odd_f64(value: i128) -> f64 {
    let magnitude = value.unsigned_abs();
    let bits = 128 - magnitude.leading_zeros();
    if bits <= 53 {
        return value as f64;
    }
    let cut = bits - 53;
    let kept = magnitude >> cut;
    let sticky = u128::from(magnitude & ((1 << cut) - 1) != 0);
    let result = (kept | sticky) as f64 * 2.0_f64.powi(cut as i32);
    if value < 0 { -result } else { result }
}

/// Converts all lanes at once where the conversion is one that kernels make for each element; `None` for the others.
#[inline(always)]
pub(crate) fn common(how: Convert, x: &[u32; LANES]) -> Option<[u32; LANES]> {
    if how.integral || how.saturate || how.relu || how.ftz {
        return None;
    }
    match (how.from, how.to, how.rounding) {
        (Scalar::F16, Scalar::F32, _) => Some(map1(x, |x| quiet(half_to_f32(x & 0xffff)))),
        (Scalar::Bf16, Scalar::F32, _) => Some(map1(x, |x| quiet(f32::from_bits(x << 16)))),
        (Scalar::F32, Scalar::F16, Rounding::Nearest) => Some(map1(x, f16_nearest)),
        (Scalar::F32, Scalar::Bf16, Rounding::Nearest) => Some(map1(x, bf16_nearest)),
        _ => None,
    }
}

/// NaN as the hardware makes it.
#[inline(always)]
fn quiet(x: f32) -> u32 {
    if x.is_nan() { 0x7fff_ffff } else { x.to_bits() }
}

/// Converts one value, held zero-extended.
pub(crate) fn convert(how: Convert, bits: u64) -> u64 {
    let filled = if how.to.is_signed() { u32::from(how.register) } else { how.to.bits() };
    let mask = u64::MAX >> (64 - filled);
    match (how.from.is_float(), how.to.is_float()) {
        (true, true) => {
            let source =
                if how.ftz && how.from == Scalar::F32 { u64::from(flush(bits as u32)) } else { bits };
            let mut x = float(source, how.from);
            if how.integral {
                x = whole(x, how.rounding);
            }
            if how.saturate {
                x = if x > 0.0 { x.min(1.0) } else { 0.0 };
            }
            if how.relu && x < 0.0 {
                x = 0.0;
            }
            to_float(x, how)
        }
        (true, false) => {
            let source =
                if how.ftz && how.from == Scalar::F32 { u64::from(flush(bits as u32)) } else { bits };
            let x = float(source, how.from);
            let (low, high) = bounds(how.to);
            // Integers saturate by themselves here; NaN becomes zero, or the sign bit where either side has 64 bits.
            if x.is_nan() {
                let long = how.to.bits() == 64 || how.from == Scalar::F64;
                let sign = if how.to.is_signed() { low } else { 1 << (how.to.bits() - 1) };
                return if long { sign as u64 & mask } else { 0 };
            }
            (whole(x, how.rounding) as i128).clamp(low, high) as u64 & mask
        }
        (false, true) => {
            let value = integer(bits, how.from);
            if how.to != Scalar::F64 {
                return to_float(odd_f64(value), how);
            }
            let nearest = value as f64;
            let error = value - nearest as i128;
            let adjusted = match how.rounding {
                Rounding::Down if error < 0 => nearest.next_down(),
                Rounding::Up if error > 0 => nearest.next_up(),
                Rounding::Zero if error != 0 && (error < 0) == (value > 0) => {
                    if value > 0 {
                        nearest.next_down()
                    } else {
                        nearest.next_up()
                    }
                }
                _ => nearest,
            };
            adjusted.to_bits()
        }
        (false, false) => {
            let (low, high) = bounds(how.to);
            let value = integer(bits, how.from);
            (if how.saturate { value.clamp(low, high) } else { value }) as u64 & mask
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vector_forms_are_the_general_ones_for_every_half_and_many_floats() {
        let plain = |from, to| Convert {
            to,
            register: to.bits() as u8,
            from,
            rounding: Rounding::Nearest,
            integral: false,
            ftz: false,
            saturate: false,
            relu: false,
        };
        let same = |how: Convert, x: u32| {
            let fast = common(how, &[x; LANES]).map(|values| u64::from(values[7]));
            assert_eq!(fast, Some(convert(how, u64::from(x))), "{how:?} of {x:#x}");
        };
        for x in 0..=u32::from(u16::MAX) {
            same(plain(Scalar::F16, Scalar::F32), x);
            same(plain(Scalar::Bf16, Scalar::F32), x);
        }
        for x in (0..=u32::MAX).step_by(65_521) {
            same(plain(Scalar::F32, Scalar::F16), x);
            same(plain(Scalar::F32, Scalar::Bf16), x);
        }
    }
}
