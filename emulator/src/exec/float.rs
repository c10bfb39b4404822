//! Floating-point arithmetic on all lanes. Sums, products, quotients and roots are rounded to nearest as IEEE 754 says;
//! the `.approx` functions are at least as exact as PTX promises of the hardware, whatever the numerics of matrix products.
//! The bounds, of PTX ISA 9.1, section 9.7.3, in the last place of the result, relative to it, or absolute:
//!
//! | function | the ISA's bound | here |
//! |---|---|---|
//! | `rcp` | 1 last place | rounded to nearest |
//! | `ex2` | 2 last places | 1 last place |
//! | `rsqrt` | 2^-22.9 relative | rounded to nearest |
//! | `lg2` | 2^-22 absolute in (0.5, 2), relative elsewhere | rounded to nearest |
//! | `sin`, `cos` | 2^-20.5 absolute up to 2 pi, 2^-14.7 up to 100 pi, none beyond | rounded to nearest |
//! | `tanh` | 2^-11 relative, subnormal inputs come back | rounded to nearest |
//!
//! With `.ftz` subnormal inputs and results become zeros of their sign. A NaN result has the CPU's bits.

use super::lanes::{LANES, map1, map2};
use crate::program::{Compare, Float1, Float2};

/// What the hardware writes for any NaN that `min` or `max` yields.
const NAN: u32 = 0x7fff_ffff;

/// Replaces a subnormal by a zero of its sign.
#[inline(always)]
pub(crate) fn flush(x: u32) -> u32 {
    if x & 0x7f80_0000 == 0 { x & 0x8000_0000 } else { x }
}

#[inline(always)]
fn saturate(x: f32) -> f32 {
    // NaN becomes zero, too.
    if x > 0.0 { if x < 1.0 { x } else { 1.0 } } else { 0.0 }
}

#[inline(always)]
fn max32(a: u32, b: u32) -> u32 {
    let (x, y) = (f32::from_bits(a), f32::from_bits(b));
    let larger = if x > y { a } else { b };
    // Of two zeros the positive one is larger.
    let result = if x == y { a & b } else { larger };
    let result = if x.is_nan() { b } else { result };
    let both = if x.is_nan() { NAN } else { a };
    if y.is_nan() { both } else { result }
}

#[inline(always)]
fn min32(a: u32, b: u32) -> u32 {
    let (x, y) = (f32::from_bits(a), f32::from_bits(b));
    let smaller = if x < y { a } else { b };
    let result = if x == y { a | b } else { smaller };
    let result = if x.is_nan() { b } else { result };
    let both = if x.is_nan() { NAN } else { a };
    if y.is_nan() { both } else { result }
}

#[inline(always)]
fn nan_or(a: u32, b: u32, value: u32) -> u32 {
    if f32::from_bits(a).is_nan() || f32::from_bits(b).is_nan() { NAN } else { value }
}

/// Two operands of `.f32`, as bits.
#[inline(always)]
pub(crate) fn two32(f: Float2, ftz: bool, sat: bool, a: &[u32; LANES], b: &[u32; LANES]) -> [u32; LANES] {
    let plain = |a: &[u32; LANES], b: &[u32; LANES]| match f {
        Float2::Add => map2(a, b, |x, y| (f32::from_bits(x) + f32::from_bits(y)).to_bits()),
        Float2::Sub => map2(a, b, |x, y| (f32::from_bits(x) - f32::from_bits(y)).to_bits()),
        Float2::Mul => map2(a, b, |x, y| (f32::from_bits(x) * f32::from_bits(y)).to_bits()),
        Float2::Div => map2(a, b, |x, y| (f32::from_bits(x) / f32::from_bits(y)).to_bits()),
        Float2::Min => map2(a, b, min32),
        Float2::Max => map2(a, b, max32),
        Float2::MinNan => map2(a, b, |x, y| nan_or(x, y, min32(x, y))),
        Float2::MaxNan => map2(a, b, |x, y| nan_or(x, y, max32(x, y))),
        Float2::CopySign => map2(a, b, |x, y| x & 0x7fff_ffff | y & 0x8000_0000),
    };
    let result = if ftz { map1(&plain(&map1(a, flush), &map1(b, flush)), flush) } else { plain(a, b) };
    if sat { map1(&result, |x| saturate(f32::from_bits(x)).to_bits()) } else { result }
}

/// `a * b + c`, rounded once.
#[inline(always)]
pub(crate) fn fma32(
    ftz: bool,
    sat: bool,
    a: &[u32; LANES],
    b: &[u32; LANES],
    c: &[u32; LANES],
) -> [u32; LANES] {
    let result = if ftz {
        map1(&fused(&map1(a, flush), &map1(b, flush), &map1(c, flush)), flush)
    } else {
        fused(a, b, c)
    };
    if sat { map1(&result, |x| saturate(f32::from_bits(x)).to_bits()) } else { result }
}

// A loop and no closure: a closure would not be compiled for the vector instructions of the function it stands in, and
// `mul_add` would be a call.
#[inline(always)]
fn fused(a: &[u32; LANES], b: &[u32; LANES], c: &[u32; LANES]) -> [u32; LANES] {
    let mut out = [0; LANES];
    for lane in 0..LANES {
        out[lane] =
            f32::from_bits(a[lane]).mul_add(f32::from_bits(b[lane]), f32::from_bits(c[lane])).to_bits();
    }
    out
}

/// Two operands of `.f64`.
pub(crate) fn two64(f: Float2, x: f64, y: f64) -> f64 {
    let nan = x.is_nan() || y.is_nan();
    match f {
        Float2::Add => x + y,
        Float2::Sub => x - y,
        Float2::Mul => x * y,
        Float2::Div => x / y,
        Float2::MinNan | Float2::MaxNan if nan => f64::NAN,
        Float2::Min | Float2::MinNan if x == y => f64::from_bits(x.to_bits() | y.to_bits()),
        Float2::Max | Float2::MaxNan if x == y => f64::from_bits(x.to_bits() & y.to_bits()),
        Float2::Min | Float2::MinNan => x.min(y),
        Float2::Max | Float2::MaxNan => x.max(y),
        Float2::CopySign => x.copysign(y),
    }
}

/// Two to the power `x` within one unit in the last place: the whole part goes to the exponent, a polynomial of degree
/// seven covers the fraction, whose magnitude is at most a half.
#[inline(always)]
fn exp2(x: f32) -> f32 {
    // Beyond these the result is zero or infinite; NaN passes.
    let clamped = x.clamp(-151.0, 128.0);
    // Adding and taking away 1.5 * 2^23 rounds to a whole number.
    let whole = (clamped + 12_582_912.0) - 12_582_912.0;
    let fraction = clamped - whole;
    // ln(2)^k / k!
    let coefficients = [
        1.525_273_4e-5,
        1.540_353e-4,
        1.333_355_8e-3,
        9.618_129e-3,
        5.550_411e-2,
        0.240_226_5,
        6.931_472e-1,
        1.0,
    ];
    let mut power = coefficients[0];
    for coefficient in &coefficients[1..] {
        power = fraction.mul_add(power, *coefficient);
    }
    // Two factors, so that subnormal results come out right; for NaN the cast gives zero and the product stays NaN.
    let exponent = whole as i32;
    let half = exponent >> 1;
    let scale = |exponent: i32| f32::from_bits(((exponent + 127) as u32) << 23);
    power * scale(half) * scale(exponent - half)
}

/// Functions of one `.f32`.
#[inline(always)]
pub(crate) fn one32(f: Float1, ftz: bool, a: &[u32; LANES]) -> [u32; LANES] {
    if f == Float1::Exp2 {
        let input = if ftz { map1(a, flush) } else { *a };
        let mut out = [0; LANES];
        for lane in 0..LANES {
            out[lane] = exp2(f32::from_bits(input[lane])).to_bits();
        }
        return if ftz { map1(&out, flush) } else { out };
    }
    if ftz { map1(&simple32(f, &map1(a, flush)), flush) } else { simple32(f, a) }
}

/// The functions that need no fused multiply-add.
fn simple32(f: Float1, a: &[u32; LANES]) -> [u32; LANES] {
    let through = |f: fn(f64) -> f64| map1(a, |x| (f(f64::from(f32::from_bits(x))) as f32).to_bits());
    match f {
        Float1::Neg => map1(a, |x| x ^ 0x8000_0000),
        Float1::Abs => map1(a, |x| x & 0x7fff_ffff),
        Float1::Rcp => map1(a, |x| (1.0 / f32::from_bits(x)).to_bits()),
        Float1::Sqrt => map1(a, |x| f32::from_bits(x).sqrt().to_bits()),
        Float1::Exp2 => through(f64::exp2),
        Float1::Rsqrt => through(|x| 1.0 / x.sqrt()),
        Float1::Log2 => through(f64::log2),
        Float1::Sin => through(f64::sin),
        Float1::Cos => through(f64::cos),
        Float1::Tanh => through(f64::tanh),
    }
}

/// Functions of one `.f64`; the decoder lets no other through.
pub(crate) fn one64(f: Float1, x: f64) -> f64 {
    match f {
        Float1::Neg => -x,
        Float1::Abs => x.abs(),
        Float1::Rcp => 1.0 / x,
        _ => x.sqrt(),
    }
}

/// Compares; the forms without U are false when either operand is NaN, those with U true.
#[inline(always)]
#[expect(
    clippy::double_comparisons,
    clippy::neg_cmp_op_on_partial_ord,
    reason = "with NaN these are neither `!=` nor the opposite comparison"
)]
pub(crate) fn compare<T: PartialOrd>(how: Compare, a: T, b: T) -> bool {
    match how {
        Compare::Eq => a == b,
        Compare::Ne => a < b || a > b,
        Compare::Lt => a < b,
        Compare::Le => a <= b,
        Compare::Gt => a > b,
        Compare::Ge => a >= b,
        Compare::EqU => !(a < b || a > b),
        Compare::NeU => a != b,
        Compare::LtU => !(a >= b),
        Compare::LeU => !(a > b),
        Compare::GtU => !(a <= b),
        Compare::GeU => !(a < b),
        Compare::Num => a.partial_cmp(&b).is_some(),
        Compare::Nan => a.partial_cmp(&b).is_none(),
    }
}
