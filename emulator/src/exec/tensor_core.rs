//! Sums of products as tensor cores make them, bit by bit.
//!
//! One step adds up to `terms` products to an f32 accumulator:
//!
//! 1. A product is exact. Its exponent is the sum of its factors' exponents, its significand, in [1, 4), is not normalised.
//!    Factors that are subnormal keep the least exponent of their format and a significand below one.
//! 2. Every product and the accumulator are shifted to the largest exponent of the step, and their magnitudes are cut off
//!    after `fraction` bits, toward zero. Zeros count with the exponent `floor`, which is below that of every f32.
//! 3. The integers that remain are added without error; the sum is cut off to f32, toward zero, subnormals included. A sum
//!    of 2^128 or more is infinite, a sum of zero is +0.
//! 4. A NaN, a product of zero and infinity, or infinities of both signs make the NaN 0x7fffffff; other infinities win.
//!
//! Longer products chain steps. The numbers are those of the paper MMA-Sim (arXiv 2511.10909), which found them on devices;
//! the golden file of the tests comes from its package `mmasim`. This module knows nothing of fragments.

use super::convert::f16_nearest;
use crate::launch::Numerics;

/// Columns that are summed together.
pub(crate) const WIDTH: usize = 8;

/// Bits behind the point of a product's significand: twice the ten of f16; the seven of bf16 are padded to ten.
const PRODUCT: u32 = 20;
/// Exponent of a factor zero: even with the largest exponent beside it the sum is below that of every number.
const ZERO: i32 = -1 << 12;
/// Exponents of infinite factors and of NaN; with any other exponent they are still above [`SPECIAL`].
const INFINITE: i32 = 1 << 20;
const NAN: i32 = 1 << 24;
const SPECIAL: i32 = 1 << 19;
/// What the hardware writes for every NaN.
const NAN_BITS: u32 = 0x7fff_ffff;

/// Numbers that tell one generation's tensor core from another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Model {
    /// Products of one step.
    terms: usize,
    /// Bits that are kept behind the point of the largest exponent.
    fraction: u32,
    /// The exponent that zeros count with.
    floor: i32,
}

impl Model {
    /// The model of a generation; `None` for the fast sums, which model none.
    pub(crate) fn of(numerics: Numerics) -> Option<Self> {
        match numerics {
            Numerics::Fast => None,
            Numerics::Ampere => Some(Self { terms: 8, fraction: 24, floor: -132 }),
            Numerics::Hopper => Some(Self { terms: 16, fraction: 25, floor: -133 }),
        }
    }
}

/// A factor taken apart: `significand * 2^(exponent - 10)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Term {
    significand: i32,
    exponent: i32,
}

impl Term {
    /// Takes apart the 16 bits of a bf16 or f16.
    #[inline(always)]
    pub(crate) fn new<const BF16: bool>(bits: u32) -> Self {
        let (fraction_bits, bias, top) = if BF16 { (7, 127, 255) } else { (10, 15, 31) };
        let field = (bits >> fraction_bits & top) as i32;
        let fraction = bits & ((1 << fraction_bits) - 1);
        let one = if field == 0 { 0 } else { 1 << fraction_bits };
        let magnitude = ((fraction | one) << (10 - fraction_bits)) as i32;
        let finite = if magnitude == 0 { ZERO } else { field.max(1) - bias };
        let special = if fraction == 0 { INFINITE } else { NAN };
        let sign = -((bits >> 15 & 1) as i32);
        Self {
            significand: (magnitude ^ sign) - sign,
            exponent: if field == top as i32 { special } else { finite },
        }
    }
}

/// Factors of eight columns in one row of B.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub(crate) struct Octet {
    significands: [i32; WIDTH],
    exponents: [i32; WIDTH],
}

impl Octet {
    pub(crate) const ZERO: Self = Self { significands: [0; WIDTH], exponents: [ZERO; WIDTH] };

    #[inline(always)]
    pub(crate) fn set(&mut self, column: usize, term: Term) {
        self.significands[column] = term.significand;
        self.exponents[column] = term.exponent;
    }

    fn get(&self, column: usize) -> Term {
        Term { significand: self.significands[column], exponent: self.exponents[column] }
    }
}

/// `c + a b` for a row of A and eight columns of B, all of one length k, in steps of the model; `c` are the bits of f32.
#[inline(always)]
pub(crate) fn accumulate(model: Model, a: &[Term], b: &[Octet], c: &mut [u32; WIDTH]) {
    for (a, b) in a.chunks(model.terms).zip(b.chunks(model.terms)) {
        step(model, a, b, c);
    }
}

/// `c + a b` of two vectors of bf16 or f16 values held as f32: one element of a matrix product.
#[cfg_attr(not(test), expect(dead_code, reason = "the plain form, by which the vector form is tested"))]
pub(crate) fn dot<const BF16: bool>(numerics: Numerics, a: &[f32], b: &[f32], c: f32) -> f32 {
    let Some(model) = Model::of(numerics) else {
        return c + a.iter().zip(b).fold(0.0_f32, |sum, (x, y)| x.mul_add(*y, sum));
    };
    let term = |x: f32| {
        let bits = x.to_bits();
        Term::new::<BF16>(if BF16 { bits >> 16 } else { f16_nearest(bits) })
    };
    let row: Vec<Term> = a.iter().map(|x| term(*x)).collect();
    let mut column = vec![Octet::ZERO; b.len()];
    for (octet, x) in column.iter_mut().zip(b) {
        octet.set(0, term(*x));
    }
    let mut sums = [0; WIDTH];
    sums[0] = c.to_bits();
    accumulate(model, &row, &column, &mut sums);
    f32::from_bits(sums[0])
}

// Loops and no closures, so that they are compiled for the vector instructions of the function they are inlined in.
#[inline(always)]
fn step(model: Model, a: &[Term], b: &[Octet], c: &mut [u32; WIDTH]) {
    let mut top = [model.floor; WIDTH];
    for (top, c) in top.iter_mut().zip(c.iter()) {
        *top = (*top).max(exponent(*c));
    }
    for (x, y) in a.iter().zip(b) {
        for (top, exponent) in top.iter_mut().zip(&y.exponents) {
            *top = (*top).max(x.exponent + exponent);
        }
    }
    // At most 16 products below 2^(fraction + 2) - 2^fraction / 500: below 2^31 together. Those of special values mean
    // nothing and may wrap around.
    let up = model.fraction - PRODUCT;
    let mut sums = [0_i32; WIDTH];
    for (x, y) in a.iter().zip(b) {
        for column in 0..WIDTH {
            let product = x.significand * y.significands[column];
            let down = (top[column] - x.exponent - y.exponents[column]).min(31);
            let magnitude = ((product.unsigned_abs() << up) >> down) as i32;
            let sign = product >> 31;
            sums[column] = sums[column].wrapping_add((magnitude ^ sign) - sign);
        }
    }
    for column in 0..WIDTH {
        c[column] = if top[column] >= SPECIAL {
            special(a, b, column, c[column])
        } else {
            let sum = i64::from(sums[column]) + aligned(model, c[column], top[column]);
            toward_zero(sum, top[column] - model.fraction as i32)
        };
    }
}

/// Exponent of an f32's bits; subnormals have that of the least normal number.
#[inline(always)]
fn exponent(bits: u32) -> i32 {
    let field = (bits >> 23 & 255) as i32;
    let finite = if bits << 1 == 0 { ZERO } else { field.max(1) - 127 };
    if field == 255 { INFINITE } else { finite }
}

/// The accumulator as a multiple of `2^(top - fraction)`.
#[inline(always)]
fn aligned(model: Model, bits: u32, top: i32) -> i64 {
    let fraction = bits & 0x7f_ffff;
    let magnitude = if bits >> 23 & 255 == 0 { fraction } else { fraction | 0x80_0000 };
    let down = (top - exponent(bits)).min(31);
    let kept = i64::from((magnitude << (model.fraction - 23)) >> down);
    if bits >> 31 == 1 { -kept } else { kept }
}

/// Bits of the f32 nearest to `sum * 2^exponent` that is no larger in magnitude, or of infinity.
#[inline(always)]
fn toward_zero(sum: i64, exponent: i32) -> u32 {
    let magnitude = sum.unsigned_abs();
    if magnitude == 0 {
        return 0;
    }
    let sign = ((sum < 0) as u32) << 31;
    let length = 63 - magnitude.leading_zeros() as i32;
    let power = (length + exponent).max(-126);
    // The last place of the result lies 23 below its power.
    let down = power - 23 - exponent;
    let kept = if down >= 0 { magnitude >> down.min(63) } else { magnitude << -down } as u32;
    let infinity = 0x7f80_0000;
    // The leading one of a normal number adds one to the exponent field; a subnormal has none.
    sign | if power > 127 { infinity } else { (((power + 126) as u32) << 23) + kept }
}

/// The result of a step that has an infinity or a NaN among its operands.
#[cold]
fn special(a: &[Term], b: &[Octet], column: usize, c: u32) -> u32 {
    let (mut positive, mut negative) = (c == 0x7f80_0000, c == 0xff80_0000);
    let mut nan = c << 1 > 0xff00_0000;
    for (x, y) in a.iter().zip(b) {
        let y = y.get(column);
        nan |= x.exponent == NAN || y.exponent == NAN;
        if x.exponent == INFINITE || y.exponent == INFINITE {
            nan |= x.exponent == ZERO || y.exponent == ZERO;
            let minus = (x.significand < 0) != (y.significand < 0);
            negative |= minus;
            positive |= !minus;
        }
    }
    match (nan, positive, negative) {
        (true, ..) | (_, true, true) => NAN_BITS,
        (_, true, _) => 0x7f80_0000,
        _ => 0xff80_0000,
    }
}

#[cfg(test)]
mod tests {
    use super::super::mma::half_to_f32;
    use super::dot;
    use crate::launch::Numerics;

    /// The golden file is read by an integration test through `mma`; here it stands for the plain form.
    #[test]
    fn a_single_element_has_the_bits_of_the_published_models() {
        let golden = include_str!("../../tests/fixtures/tensor_core.txt");
        let bits = |text: &str| u32::from_str_radix(text, 16).expect("hexadecimal");
        for line in golden.lines().filter(|line| !line.starts_with('#')) {
            let [kind, a, b, c, ampere, hopper] =
                line.split(' ').collect::<Vec<_>>().try_into().expect("six fields");
            let bf16 = kind == "bf16";
            let factors = |text: &str| -> Vec<f32> {
                let parts = (0..16).map(|i| bits(&text[4 * i..4 * i + 4]));
                parts.map(|x| if bf16 { f32::from_bits(x << 16) } else { half_to_f32(x) }).collect()
            };
            let (a, b, c) = (factors(a), factors(b), f32::from_bits(bits(c)));
            for (numerics, expected) in [(Numerics::Ampere, ampere), (Numerics::Hopper, hopper)] {
                let got =
                    if bf16 { dot::<true>(numerics, &a, &b, c) } else { dot::<false>(numerics, &a, &b, c) };
                assert_eq!(got.to_bits(), bits(expected), "{numerics:?} {line}");
            }
        }
    }

    #[test]
    fn fast_sums_add_the_accumulator_last() {
        // Products first: 2^24 + 1 - 2^24 = 0 in f32, in order of k; then the accumulator.
        let got = dot::<true>(Numerics::Fast, &[16_777_216.0, 1.0, -16_777_216.0], &[1.0; 3], 0.5);
        assert_eq!(got, 0.5);
    }
}
