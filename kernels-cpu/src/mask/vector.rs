//! The few SIMD operations of mask building, and the one place that picks their instruction set.

use half::{bf16, f16};

use crate::{Element, Isa};

/// A vector of f32 lanes of one instruction set.
///
/// # Safety
/// Every method needs the instruction set to be present, and every pointer to be valid for `LANES` elements;
/// alignment is not needed.
pub(super) trait Vector: Copy {
    /// Elements of a vector.
    const LANES: usize;
    /// Vectors side by side in the microkernel of the pooled map: as many as the registers hold for 6 rows.
    const PANEL: usize;

    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn load_f16(from: *const f16) -> Self;
    unsafe fn load_bf16(from: *const bf16) -> Self;
    unsafe fn store(x: Self, to: *mut f32);
    unsafe fn add(a: Self, b: Self) -> Self;
    unsafe fn sub(a: Self, b: Self) -> Self;
    unsafe fn mul(a: Self, b: Self) -> Self;
    unsafe fn div(a: Self, b: Self) -> Self;
    /// Returns `a * b + c`, rounded once where the instruction set can.
    unsafe fn mul_add(a: Self, b: Self, c: Self) -> Self;
    /// Returns the larger lane, and that of `b` when either is NaN.
    unsafe fn max(a: Self, b: Self) -> Self;
    /// Returns a bit per lane: `a < b`, clear for NaN.
    unsafe fn lt(a: Self, b: Self) -> u32;
    /// Returns `value` where `a < limit`, and 0 elsewhere (also where `a` is NaN).
    unsafe fn where_lt(a: Self, limit: Self, value: Self) -> Self;
    /// Returns `2^n` of the integers `n`, -126..=127, that stand in the low bits of the lanes' encodings.
    unsafe fn pow2_of_low_bits(a: Self) -> Self;
    /// Returns the sum of the lanes in double precision.
    unsafe fn sum(a: Self) -> f64;
}

/// A storage type that vectors can be loaded from.
pub(super) trait Storage: Element {
    /// Widens `V::LANES` elements.
    ///
    /// # Safety
    /// As for [`Vector`].
    unsafe fn load<V: Vector>(from: *const Self) -> V;
}

macro_rules! storage {
    ($($element:ty => $load:ident),*) => {$(
        impl Storage for $element {
            #[inline(always)]
            unsafe fn load<V: Vector>(from: *const Self) -> V {
                // SAFETY: the caller upholds the contract of `Vector`.
                unsafe { V::$load(from) }
            }
        }
    )*};
}
storage!(f32 => load, f16 => load_f16, bf16 => load_bf16);

/// Work written once for every instruction set.
pub(super) trait Kernel {
    /// Does the work. Implementations are `#[inline(always)]`, so that they compile to the instruction set of `V`.
    ///
    /// # Safety
    /// The instruction set of `V` must be present.
    unsafe fn run<V: Vector>(self);
}

/// Runs `kernel` with the vectors of `isa`, which an [`Executor`](crate::Executor) has found to be present.
pub(super) fn dispatch<K: Kernel>(isa: Isa, kernel: K) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Bf16 => {
            // SAFETY: an `Executor` is only made for an instruction set that this CPU has.
            unsafe { x86::with_avx512(kernel) }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => {
            // SAFETY: as above.
            unsafe { x86::with_avx2(kernel) }
        }
        _ => {
            // SAFETY: plain Rust needs no instruction set.
            unsafe { kernel.run::<Portable>() }
        }
    }
}

/// Returns the elements of a panel for `isa`: see [`Vector::PANEL`].
pub(super) fn panel_width(isa: Isa) -> usize {
    struct Width<'a>(&'a mut usize);
    impl Kernel for Width<'_> {
        #[inline(always)]
        unsafe fn run<V: Vector>(self) {
            *self.0 = V::PANEL * V::LANES;
        }
    }
    let mut width = 0;
    dispatch(isa, Width(&mut width));
    width
}

/// Writes the methods of a [`Vector`]: each body relies on the contract of the trait alone, or on nothing.
macro_rules! methods {
    (safe $(fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty { $body:expr })*) => {$(
        #[inline(always)]
        unsafe fn $name($($arg: $type),*) -> $out {
            $body
        }
    )*};
    ($(fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty { $body:expr })*) => {$(
        #[inline(always)]
        unsafe fn $name($($arg: $type),*) -> $out {
            // SAFETY: the caller upholds the contract of `Vector`: instruction set present, pointers valid.
            unsafe { $body }
        }
    )*};
}

/// Plain Rust: eight lanes, which compilers turn into whatever the target has.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; 8]);

impl Portable {
    #[inline(always)]
    fn zip(self, b: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], b.0[i])))
    }
}

impl Vector for Portable {
    const LANES: usize = 8;
    const PANEL: usize = 1;

    methods! {
        fn load(from: *const f32) -> Self { Self(from.cast::<[f32; 8]>().read_unaligned()) }
        fn load_f16(from: *const f16) -> Self { Self(from.cast::<[f16; 8]>().read_unaligned().map(f16::to_f32)) }
        fn load_bf16(from: *const bf16) -> Self {
            Self(from.cast::<[bf16; 8]>().read_unaligned().map(Element::to_f32))
        }
        fn store(x: Self, to: *mut f32) -> () { to.cast::<[f32; 8]>().write_unaligned(x.0) }
    }
    methods! {
        safe
        fn splat(x: f32) -> Self { Self([x; 8]) }
        fn add(a: Self, b: Self) -> Self { a.zip(b, |a, b| a + b) }
        fn sub(a: Self, b: Self) -> Self { a.zip(b, |a, b| a - b) }
        fn mul(a: Self, b: Self) -> Self { a.zip(b, |a, b| a * b) }
        fn div(a: Self, b: Self) -> Self { a.zip(b, |a, b| a / b) }
        // Not `f32::mul_add`: where the instruction is missing that is a call.
        fn mul_add(a: Self, b: Self, c: Self) -> Self { Self(std::array::from_fn(|i| a.0[i] * b.0[i] + c.0[i])) }
        fn max(a: Self, b: Self) -> Self { a.zip(b, |a, b| if a > b { a } else { b }) }
        fn lt(a: Self, b: Self) -> u32 { (0..8).fold(0, |bits, i| bits | (u32::from(a.0[i] < b.0[i]) << i)) }
        fn where_lt(a: Self, limit: Self, value: Self) -> Self {
            Self(std::array::from_fn(|i| if a.0[i] < limit.0[i] { value.0[i] } else { 0.0 }))
        }
        fn pow2_of_low_bits(a: Self) -> Self {
            Self(a.0.map(|x| f32::from_bits((x.to_bits() << 23).wrapping_add(127 << 23))))
        }
        fn sum(a: Self) -> f64 { a.0.iter().map(|&x| f64::from(x)).sum() }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use half::{bf16, f16};

    use super::{Kernel, Vector};

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) unsafe fn with_avx2<K: Kernel>(kernel: K) {
        // SAFETY: the caller has AVX2, FMA and F16C.
        unsafe { kernel.run::<Avx2>() }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    pub(super) unsafe fn with_avx512<K: Kernel>(kernel: K) {
        // SAFETY: the caller has AVX-512 F, BW, DQ and VL.
        unsafe { kernel.run::<Avx512>() }
    }

    #[derive(Clone, Copy)]
    struct Avx2(__m256);

    impl Vector for Avx2 {
        const LANES: usize = 8;
        // 6 x 2 accumulators, 2 panel vectors and a broadcast: 15 of 16 registers.
        const PANEL: usize = 2;

        methods! {
            fn splat(x: f32) -> Self { Self(_mm256_set1_ps(x)) }
            fn load(from: *const f32) -> Self { Self(_mm256_loadu_ps(from)) }
            fn load_f16(from: *const f16) -> Self { Self(_mm256_cvtph_ps(_mm_loadu_si128(from.cast()))) }
            fn load_bf16(from: *const bf16) -> Self {
                Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())))))
            }
            fn store(x: Self, to: *mut f32) -> () { _mm256_storeu_ps(to, x.0) }
            fn add(a: Self, b: Self) -> Self { Self(_mm256_add_ps(a.0, b.0)) }
            fn sub(a: Self, b: Self) -> Self { Self(_mm256_sub_ps(a.0, b.0)) }
            fn mul(a: Self, b: Self) -> Self { Self(_mm256_mul_ps(a.0, b.0)) }
            fn div(a: Self, b: Self) -> Self { Self(_mm256_div_ps(a.0, b.0)) }
            fn mul_add(a: Self, b: Self, c: Self) -> Self { Self(_mm256_fmadd_ps(a.0, b.0, c.0)) }
            fn max(a: Self, b: Self) -> Self { Self(_mm256_max_ps(a.0, b.0)) }
            fn lt(a: Self, b: Self) -> u32 { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(a.0, b.0)) as u32 }
            fn where_lt(a: Self, limit: Self, value: Self) -> Self {
                Self(_mm256_and_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(a.0, limit.0), value.0))
            }
            fn pow2_of_low_bits(a: Self) -> Self {
                Self(_mm256_castsi256_ps(_mm256_add_epi32(
                    _mm256_slli_epi32::<23>(_mm256_castps_si256(a.0)),
                    _mm256_set1_epi32(127 << 23),
                )))
            }
            fn sum(a: Self) -> f64 {{
                let halves = _mm256_add_pd(
                    _mm256_cvtps_pd(_mm256_castps256_ps128(a.0)),
                    _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(a.0)),
                );
                let pair = _mm_add_pd(_mm256_castpd256_pd128(halves), _mm256_extractf128_pd::<1>(halves));
                _mm_cvtsd_f64(_mm_add_sd(pair, _mm_unpackhi_pd(pair, pair)))
            }}
        }
    }

    #[derive(Clone, Copy)]
    struct Avx512(__m512);

    impl Vector for Avx512 {
        const LANES: usize = 16;
        // 6 x 4 accumulators and 4 panel vectors of 32 registers; the broadcast is a memory operand.
        const PANEL: usize = 4;

        methods! {
            fn splat(x: f32) -> Self { Self(_mm512_set1_ps(x)) }
            fn load(from: *const f32) -> Self { Self(_mm512_loadu_ps(from)) }
            fn load_f16(from: *const f16) -> Self { Self(_mm512_cvtph_ps(_mm256_loadu_si256(from.cast()))) }
            fn load_bf16(from: *const bf16) -> Self {
                Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast())))))
            }
            fn store(x: Self, to: *mut f32) -> () { _mm512_storeu_ps(to, x.0) }
            fn add(a: Self, b: Self) -> Self { Self(_mm512_add_ps(a.0, b.0)) }
            fn sub(a: Self, b: Self) -> Self { Self(_mm512_sub_ps(a.0, b.0)) }
            fn mul(a: Self, b: Self) -> Self { Self(_mm512_mul_ps(a.0, b.0)) }
            fn div(a: Self, b: Self) -> Self { Self(_mm512_div_ps(a.0, b.0)) }
            fn mul_add(a: Self, b: Self, c: Self) -> Self { Self(_mm512_fmadd_ps(a.0, b.0, c.0)) }
            fn max(a: Self, b: Self) -> Self { Self(_mm512_max_ps(a.0, b.0)) }
            fn lt(a: Self, b: Self) -> u32 { u32::from(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a.0, b.0)) }
            fn where_lt(a: Self, limit: Self, value: Self) -> Self {
                Self(_mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a.0, limit.0), value.0))
            }
            fn pow2_of_low_bits(a: Self) -> Self {
                Self(_mm512_castsi512_ps(_mm512_add_epi32(
                    _mm512_slli_epi32::<23>(_mm512_castps_si512(a.0)),
                    _mm512_set1_epi32(127 << 23),
                )))
            }
            fn sum(a: Self) -> f64 {
                _mm512_reduce_add_pd(_mm512_add_pd(
                    _mm512_cvtps_pd(_mm512_castps512_ps256(a.0)),
                    _mm512_cvtps_pd(_mm512_extractf32x8_ps::<1>(a.0)),
                ))
            }
        }
    }
}
