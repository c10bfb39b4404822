//! Matrix products of a warp.
//!
//! With fast numerics the 16x8 result is summed in order of k by fused multiply-adds of f32, starting from zero, and the
//! accumulator is added last. Tensor cores sum otherwise, see [`super::tensor_core`]; the difference is a few units in the
//! last place of the largest term.

use super::lanes::LANES;
use super::product::{a_of_registers, multiply_block};
use super::tensor_core::{Model, Octet, Term, accumulate};
use crate::launch::Numerics;
use crate::program::Mma;

/// A half-precision number as f32, by arithmetic that vectorises; subnormals, infinities and NaN included.
#[inline(always)]
pub(crate) fn half_to_f32(x: u32) -> f32 {
    let magnitude = x & 0x7fff;
    // Exponents move by 112; multiplying does it for subnormals, too.
    let scaled = f32::from_bits(magnitude << 13) * f32::from_bits((254 - 15) << 23);
    let bits = if magnitude >= 0x7c00 { magnitude << 13 | 0x7f80_0000 } else { scaled.to_bits() };
    f32::from_bits(bits | (x & 0x8000) << 16)
}

#[inline(always)]
fn widen<const BF16: bool>(x: u32) -> f32 {
    if BF16 { f32::from_bits(x << 16) } else { half_to_f32(x & 0xffff) }
}

/// Registers of the operands, in the order the instruction names them.
pub(crate) struct Fragments<'a> {
    pub(crate) a: [&'a [u32; LANES]; 4],
    pub(crate) b: [&'a [u32; LANES]; 2],
    pub(crate) c: [&'a [u32; LANES]; 4],
}

#[inline(always)]
fn multiply<const BF16: bool>(f: &Fragments<'_>) -> [[u32; LANES]; 4] {
    let a = a_of_registers(BF16, f.a);
    // Lane 4 g + t holds rows 2 t, 2 t + 1 of column g of B.
    let mut b = [[0.0_f32; 8]; 16];
    for (i, register) in f.b.iter().enumerate() {
        for t in 0..4 {
            for g in 0..8 {
                b[i * 8 + 2 * t][g] = widen::<BF16>(register[4 * g + t] & 0xffff);
                b[i * 8 + 2 * t + 1][g] = widen::<BF16>(register[4 * g + t] >> 16);
            }
        }
    }
    let mut sums = [[0.0; 8]; 16];
    multiply_block(&a, &b, &mut sums, false);
    let mut out = [[0; LANES]; 4];
    for (i, (out, c)) in out.iter_mut().zip(f.c).enumerate() {
        for g in 0..8 {
            for t in 0..4 {
                let (lane, sum) = (4 * g + t, sums[i / 2 * 8 + g][2 * t + i % 2]);
                out[lane] = (f32::from_bits(c[lane]) + sum).to_bits();
            }
        }
    }
    out
}

/// The same as the tensor cores of a generation do it.
#[inline(always)]
fn multiply_as<const BF16: bool>(model: Model, f: &Fragments<'_>) -> [[u32; LANES]; 4] {
    // The layout is that of `multiply`.
    let mut a = [[Term::new::<BF16>(0); 16]; 16];
    let mut b = [Octet::ZERO; 16];
    for (i, register) in f.a.iter().enumerate() {
        let (row, column) = ((i & 1) * 8, (i >> 1) * 8);
        for lane in 0..LANES {
            let (g, t) = (lane / 4, lane % 4 * 2);
            a[row + g][column + t] = Term::new::<BF16>(register[lane] & 0xffff);
            a[row + g][column + t + 1] = Term::new::<BF16>(register[lane] >> 16);
        }
    }
    for (i, register) in f.b.iter().enumerate() {
        for lane in 0..LANES {
            let (g, t) = (lane / 4, lane % 4 * 2);
            b[i * 8 + t].set(g, Term::new::<BF16>(register[lane] & 0xffff));
            b[i * 8 + t + 1].set(g, Term::new::<BF16>(register[lane] >> 16));
        }
    }
    let mut out = [[0; LANES]; 4];
    for (row, factors) in a.iter().enumerate() {
        let place = |column: usize| ((row / 8) * 2 + column % 2, (row % 8) * 4 + column / 2);
        let mut sums = [0; 8];
        for (column, sum) in sums.iter_mut().enumerate() {
            let (register, lane) = place(column);
            *sum = f.c[register][lane];
        }
        accumulate(model, factors, &b, &mut sums);
        for (column, sum) in sums.iter().enumerate() {
            let (register, lane) = place(column);
            out[register][lane] = *sum;
        }
    }
    out
}

/// The four registers of the result.
#[inline(always)]
pub(crate) fn mma(op: &Mma, fragments: &Fragments<'_>, numerics: Numerics) -> [[u32; LANES]; 4] {
    match (Model::of(numerics), op.bf16) {
        (None, true) => multiply::<true>(fragments),
        (None, false) => multiply::<false>(fragments),
        (Some(model), true) => multiply_as::<true>(model, fragments),
        (Some(model), false) => multiply_as::<false>(model, fragments),
    }
}
