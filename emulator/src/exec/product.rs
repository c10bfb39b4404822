//! Numbers of `wgmma`: one warp's 16 rows of the result.
//!
//! With fast numerics products are summed in order of k by fused multiply-adds of f32, starting from zero, and the
//! accumulator is added last, as in `mma.rs`; otherwise as `tensor_core.rs` says. Accumulators of f16 are rounded to
//! nearest after each `wgmma`.

use super::convert::{f16_nearest, pack_one};
use super::lanes::LANES;
use super::mma::half_to_f32;
use super::tensor_core::{Model, Octet, Term, accumulate};
use crate::program::Rounding;

/// Rows of A, each with its 16 elements along k.
pub(super) type PanelA = [[f32; 16]; 16];
/// For each eight columns of the result, its sixteen rows.
pub(crate) type TileD = Vec<[[f32; 8]; 16]>;

#[inline(always)]
fn widen(bf16: bool, x: u16) -> f32 {
    if bf16 { f32::from_bits(u32::from(x) << 16) } else { half_to_f32(u32::from(x)) }
}

#[inline(always)]
fn halves(bf16: bool, chunk: &[u8; 16]) -> [f32; 8] {
    std::array::from_fn(|i| widen(bf16, u16::from_le_bytes([chunk[2 * i], chunk[2 * i + 1]])))
}

/// A from registers, for `mma` m16n8k16, too: lane `4 g + t` holds columns `2 t`, `2 t + 1` of rows `g` and `g + 8`.
#[inline(always)]
pub(super) fn a_of_registers(bf16: bool, registers: [&[u32; LANES]; 4]) -> PanelA {
    let mut a = [[0.0; 16]; 16];
    for (i, register) in registers.iter().enumerate() {
        let (row, column) = ((i & 1) * 8, (i >> 1) * 8);
        for (g, lanes) in register.chunks_exact(4).enumerate() {
            let eight = &mut a[row + g][column..column + 8];
            for (at, value) in eight.iter_mut().enumerate() {
                *value = widen(bf16, (lanes[at / 2] >> (at % 2 * 16)) as u16);
            }
        }
    }
    a
}

/// A from chunks of a K-major matrix: two for each of 16 rows.
#[inline(always)]
fn a_of_rows(bf16: bool, chunks: &[[u8; 16]]) -> PanelA {
    let mut a = [[0.0; 16]; 16];
    for (row, pair) in a.iter_mut().zip(chunks.chunks_exact(2)) {
        row[..8].copy_from_slice(&halves(bf16, &pair[0]));
        row[8..].copy_from_slice(&halves(bf16, &pair[1]));
    }
    a
}

/// A from chunks of an M-major matrix: two for each of 16 columns.
#[inline(always)]
fn a_of_columns(bf16: bool, chunks: &[[u8; 16]]) -> PanelA {
    let mut a = [[0.0; 16]; 16];
    for (k, pair) in chunks.chunks_exact(2).enumerate() {
        for (half, chunk) in pair.iter().enumerate() {
            for (i, value) in halves(bf16, chunk).into_iter().enumerate() {
                a[half * 8 + i][k] = value;
            }
        }
    }
    a
}

/// Eight columns of B from chunks of a K-major matrix: two for each column.
#[inline(always)]
fn b_of_columns(bf16: bool, chunks: &[[u8; 16]]) -> [[f32; 8]; 16] {
    let mut block = [[0.0; 8]; 16];
    for (half, rows) in block.chunks_exact_mut(8).enumerate() {
        for (i, row) in rows.iter_mut().enumerate() {
            for (column, value) in row.iter_mut().enumerate() {
                let chunk = &chunks[2 * column + half];
                *value = widen(bf16, u16::from_le_bytes([chunk[2 * i], chunk[2 * i + 1]]));
            }
        }
    }
    block
}

/// Eight columns of B from chunks of an N-major matrix: one for each k.
#[inline(always)]
fn b_of_rows(bf16: bool, chunks: &[[u8; 16]]) -> [[f32; 8]; 16] {
    let mut block = [[0.0; 8]; 16];
    for (row, chunk) in block.iter_mut().zip(chunks) {
        *row = halves(bf16, chunk);
    }
    block
}

/// Matrix A as it is found.
pub(crate) enum SideA<'a> {
    Registers([&'a [u32; LANES]; 4]),
    /// K-major: two chunks for each row.
    Rows(&'a [[u8; 16]]),
    /// M-major: two chunks for each k.
    Columns(&'a [[u8; 16]]),
}

/// One `wgmma` of a warp.
pub(crate) struct Product<'a> {
    /// Sums as the tensor cores of a generation make them, bit by bit; `None` sums fast.
    pub(crate) model: Option<Model>,
    pub(crate) bf16: bool,
    pub(crate) negative: bool,
    pub(crate) accumulate: bool,
    pub(crate) a: SideA<'a>,
    /// Sixteen chunks for each eight columns.
    pub(crate) b: &'a [[u8; 16]],
    pub(crate) b_transposed: bool,
}

#[inline(always)]
fn multiply_of<const BF16: bool>(product: &Product<'_>, d: &mut TileD) {
    let mut a = match product.a {
        SideA::Registers(registers) => a_of_registers(BF16, registers),
        SideA::Rows(chunks) => a_of_rows(BF16, chunks),
        SideA::Columns(chunks) => a_of_columns(BF16, chunks),
    };
    if product.negative {
        a.iter_mut().flatten().for_each(|value| *value = -*value);
    }
    let mut terms = [[Term::new::<BF16>(0); 16]; 16];
    if product.model.is_some() {
        terms = a.map(|row| row.map(term::<BF16>));
    }
    for (chunks, out) in product.b.chunks_exact(16).zip(d) {
        let block = if product.b_transposed { b_of_rows(BF16, chunks) } else { b_of_columns(BF16, chunks) };
        match product.model {
            None => multiply_block(&a, &block, out, product.accumulate),
            Some(model) => multiply_block_as::<BF16>(model, &terms, &block, out, product.accumulate),
        }
    }
}

/// Takes a value of 16 bits apart, after taking back what widened it.
#[inline(always)]
fn term<const BF16: bool>(x: f32) -> Term {
    let bits = x.to_bits();
    Term::new::<BF16>(if BF16 { bits >> 16 } else { f16_nearest(bits) })
}

#[inline(always)]
fn multiply_block_as<const BF16: bool>(
    model: Model,
    a: &[[Term; 16]; 16],
    block: &[[f32; 8]; 16],
    out: &mut [[f32; 8]; 16],
    keep: bool,
) {
    let mut columns = [Octet::ZERO; 16];
    for (octet, row) in columns.iter_mut().zip(block) {
        for (column, value) in row.iter().enumerate() {
            octet.set(column, term::<BF16>(*value));
        }
    }
    for (terms, target) in a.iter().zip(out.iter_mut()) {
        let mut sums = if keep { target.map(f32::to_bits) } else { [0; 8] };
        accumulate(model, terms, &columns, &mut sums);
        *target = sums.map(f32::from_bits);
    }
}

/// Puts A times B there, or adds it; the order of the sums is that of k, from zero.
#[inline(always)]
pub(super) fn multiply_block(a: &PanelA, block: &[[f32; 8]; 16], out: &mut [[f32; 8]; 16], accumulate: bool) {
    for half in 0..2 {
        let mut sums = [[0.0_f32; 8]; 8];
        for (k, factors) in block.iter().enumerate() {
            for (row, sum) in sums.iter_mut().enumerate() {
                let factor = a[half * 8 + row][k];
                for column in 0..8 {
                    sum[column] = factor.mul_add(factors[column], sum[column]);
                }
            }
        }
        for (row, sum) in sums.iter().enumerate() {
            let target = &mut out[half * 8 + row];
            for column in 0..8 {
                target[column] = if accumulate { target[column] + sum[column] } else { sum[column] };
            }
        }
    }
}

#[inline(always)]
fn multiply_body(product: &Product<'_>, d: &mut TileD) {
    if product.bf16 { multiply_of::<true>(product, d) } else { multiply_of::<false>(product, d) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn multiply_avx2(product: &Product<'_>, d: &mut TileD) {
    multiply_body(product, d);
}

/// Adds A times B to D, or puts it there.
pub(crate) fn multiply(product: &Product<'_>, d: &mut TileD) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the two features that `multiply_avx2` is compiled for were just detected.
        unsafe { multiply_avx2(product, d) };
        return;
    }
    multiply_body(product, d);
}

/// The result's tile from f32 registers: register `4 j + 2 h + i` of lane `4 g + t` holds row `8 h + g`, column
/// `8 j + 2 t + i`.
pub(crate) fn tile_of_singles<'r>(n: u32, register: impl Fn(usize) -> &'r [u32; LANES]) -> TileD {
    let mut d = vec![[[0.0; 8]; 16]; n as usize / 8];
    for (j, block) in d.iter_mut().enumerate() {
        for h in 0..2 {
            let (even, odd) = (register(4 * j + 2 * h), register(4 * j + 2 * h + 1));
            for lane in 0..LANES {
                let row = &mut block[8 * h + lane / 4];
                row[lane % 4 * 2] = f32::from_bits(even[lane]);
                row[lane % 4 * 2 + 1] = f32::from_bits(odd[lane]);
            }
        }
    }
    d
}

/// The registers of a tile in f32, in their order.
pub(crate) fn singles_of_tile(d: &TileD, mut put: impl FnMut(usize, &[u32; LANES])) {
    for (j, block) in d.iter().enumerate() {
        for h in 0..2 {
            let (mut even, mut odd) = ([0; LANES], [0; LANES]);
            for lane in 0..LANES {
                let row = &block[8 * h + lane / 4];
                even[lane] = row[lane % 4 * 2].to_bits();
                odd[lane] = row[lane % 4 * 2 + 1].to_bits();
            }
            put(4 * j + 2 * h, &even);
            put(4 * j + 2 * h + 1, &odd);
        }
    }
}

/// The result's tile from registers of two f16: register `2 j + h` holds what two registers of f32 would.
pub(crate) fn tile_of_halves<'r>(n: u32, register: impl Fn(usize) -> &'r [u32; LANES]) -> TileD {
    let mut d = vec![[[0.0; 8]; 16]; n as usize / 8];
    for (j, block) in d.iter_mut().enumerate() {
        for h in 0..2 {
            for (lane, value) in register(2 * j + h).iter().enumerate() {
                let row = &mut block[8 * h + lane / 4];
                row[lane % 4 * 2] = half_to_f32(*value & 0xffff);
                row[lane % 4 * 2 + 1] = half_to_f32(*value >> 16);
            }
        }
    }
    d
}

/// The registers of a tile in f16.
pub(crate) fn halves_of_tile(d: &TileD, mut put: impl FnMut(usize, &[u32; LANES])) {
    let round = |x: f32| pack_one(false, Rounding::Nearest, false, x.to_bits()) & 0xffff;
    for (j, block) in d.iter().enumerate() {
        for h in 0..2 {
            let mut out = [0; LANES];
            for (lane, value) in out.iter_mut().enumerate() {
                let row = &block[8 * h + lane / 4];
                *value = round(row[lane % 4 * 2]) | round(row[lane % 4 * 2 + 1]) << 16;
            }
            put(2 * j + h, &out);
        }
    }
}
