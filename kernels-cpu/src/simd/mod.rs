//! Vector operations, one trait with an implementation per instruction set.
//!
//! A kernel is written once as a [`Job`], generic over [`Simd`]; [`dispatch`] enters it through a function
//! compiled for the instruction set, and everything below is inlined into that function. The trait works on
//! 32-bit *words*: a word is an f32, or a pair of bf16 where the CPU multiplies pairs (`WORD == 2`).

/// Writes operations of [`Simd`]: each body relies on the contract of the trait and on nothing else.
#[cfg(target_arch = "x86_64")]
macro_rules! operations {
    ($(fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty { $body:expr })*) => {$(
        #[inline(always)]
        unsafe fn $name($($arg: $type),*) -> $out {
            // SAFETY: the caller vouches for the instruction set and for whole vectors behind pointers.
            unsafe { $body }
        }
    )*};
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
mod storage;
#[cfg(test)]
mod tests;

pub(crate) use storage::Storage;

use crate::{Executor, Isa};

/// Coefficients of 2^f on [0, 1], lowest first: minimax in relative error, 1.9e-9 before rounding.
///
/// Degree 6 keeps f32 evaluation below 1 ulp; degree 5 would save one of nine operations for 2.2 ulp.
#[expect(clippy::approx_constant, reason = "a minimax coefficient, close to but not ln 2")]
pub(crate) const EXP2: [f32; 7] =
    [1.0, 0.693_147, 0.240_229_83, 0.055_483_34, 0.009_678_841, 0.001_243_968_7, 0.000_217_022_55];

/// Below this, 2^x counts as 0: the weight of such a key is beneath f32's normal range.
pub(crate) const EXP2_MIN: f32 = -126.0;

/// Vector operations of one instruction set.
///
/// # Safety
/// Every function may only be called where the CPU has the instruction set, and pointers must be valid for the
/// whole vector they name (no alignment needed).
pub trait Simd: Copy + 'static {
    /// 32-bit words of a vector.
    const LANES: usize;
    /// Vectors a row of a micro kernel holds: 6 x `NV` accumulators, `NV` operands and one broadcast fit the
    /// register file.
    const NV: usize;
    /// Elements per word of [`Simd::dot`]: 1 (f32) or 2 (bf16 pairs).
    const WORD: usize;
    /// A vector.
    type V: Copy;

    /// Repeats `x`.
    unsafe fn splat(x: f32) -> Self::V;
    /// Repeats the word at `p`.
    unsafe fn splat_word(p: *const u32) -> Self::V;
    /// Loads a vector.
    unsafe fn load(p: *const f32) -> Self::V;
    /// Loads and widens as many f16 as a vector has lanes.
    unsafe fn load_f16(p: *const u16) -> Self::V;
    /// Loads and widens as many bf16 as a vector has lanes.
    unsafe fn load_bf16(p: *const u16) -> Self::V;
    /// Stores a vector.
    unsafe fn store(p: *mut f32, v: Self::V);
    /// `a + b`.
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`.
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`.
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger; `b` where either is NaN.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// Whether any lane of `a` differs from `b`; NaN differs from everything.
    unsafe fn any_ne(a: Self::V, b: Self::V) -> bool;
    /// A bit per lane, lowest first: `a < b`, clear for NaN.
    unsafe fn lt(a: Self::V, b: Self::V) -> u32;
    /// `value` where `a < limit`, 0 elsewhere and where `a` is NaN.
    unsafe fn where_lt(a: Self::V, limit: Self::V, value: Self::V) -> Self::V;
    /// The sum of the lanes, in double precision.
    unsafe fn sum(a: Self::V) -> f64;
    /// Multiplies words and accumulates in f32: `acc + a * b`, or `acc + a.0 * b.0 + a.1 * b.1`.
    unsafe fn dot(acc: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// Makes words for [`Simd::dot`] of two successive elements; called only where `WORD == 2`.
    unsafe fn pair(first: Self::V, second: Self::V) -> Self::V;
    /// 2^x for x <= 0 within 1 ulp; 0 below [`EXP2_MIN`], NaN stays NaN.
    unsafe fn exp2(x: Self::V) -> Self::V;
    /// Transposes `LANES x LANES` words from rows of `src_stride` words to rows of `dst_stride` words.
    unsafe fn transpose(src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize);
}

/// Work written once for every instruction set.
pub(crate) trait Job {
    /// What it returns.
    type Output;
    /// Whether [`Simd::dot`] multiplies bf16 pairs where [`Isa::Avx512Bf16`] is chosen.
    const PAIRS: bool = false;

    /// Does the work; implementations are `#[inline(always)]`, so that they compile for the instruction set.
    ///
    /// # Safety
    /// The CPU must have the instruction set of `S`.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// Runs `job` compiled for the instruction set of `executor`.
pub(crate) fn dispatch<J: Job>(executor: &Executor, job: J) -> J::Output {
    match executor.isa() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => {
            // SAFETY: an executor only exists for an instruction set that this CPU has.
            unsafe { avx2::enter(job) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Bf16 if J::PAIRS => {
            // SAFETY: as above.
            unsafe { avx512::enter_bf16(job) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Bf16 => {
            // SAFETY: as above.
            unsafe { avx512::enter(job) }
        }
        _ => {
            // SAFETY: plain Rust needs no instruction set.
            unsafe { job.run::<portable::Portable>() }
        }
    }
}

/// Returns the 32-bit lanes of a vector of `isa`.
pub(crate) fn lanes(isa: Isa) -> usize {
    match isa {
        Isa::Portable | Isa::Avx2 => 8,
        Isa::Avx512 | Isa::Avx512Bf16 => 16,
    }
}
