//! AVX2 with FMA and F16C.

use std::arch::x86_64::*;

use super::{EXP2, EXP2_MIN, Job, Simd};

/// AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn enter<J: Job>(job: J) -> J::Output {
    // SAFETY: this function is only entered where the CPU has its features.
    unsafe { job.run::<Avx2>() }
}

impl Simd for Avx2 {
    const LANES: usize = 8;
    const NV: usize = 2;
    const WORD: usize = 1;
    type V = __m256;

    operations! {
        fn splat(x: f32) -> __m256 { _mm256_set1_ps(x) }
        fn splat_word(p: *const u32) -> __m256 { _mm256_set1_ps(f32::from_bits(p.read_unaligned())) }
        fn load(p: *const f32) -> __m256 { _mm256_loadu_ps(p) }
        fn load_f16(p: *const u16) -> __m256 { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
        fn load_bf16(p: *const u16) -> __m256 {
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()))))
        }
        fn store(p: *mut f32, v: __m256) -> () { _mm256_storeu_ps(p, v) }
        fn add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        fn sub(a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
        fn mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        fn div(a: __m256, b: __m256) -> __m256 { _mm256_div_ps(a, b) }
        fn fma(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
        fn max(a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) }
        fn any_ne(a: __m256, b: __m256) -> bool { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NEQ_UQ>(a, b)) != 0 }
        fn lt(a: __m256, b: __m256) -> u32 { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(a, b)) as u32 }
        fn where_lt(a: __m256, limit: __m256, value: __m256) -> __m256 {
            _mm256_and_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(a, limit), value)
        }
        fn dot(acc: __m256, a: __m256, b: __m256) -> __m256 { _mm256_fmadd_ps(a, b, acc) }
    }

    #[inline(always)]
    unsafe fn sum(a: __m256) -> f64 {
        // SAFETY: register operations; the caller vouches for the instruction set.
        unsafe {
            let (low, high) = (_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let four = _mm256_add_pd(_mm256_cvtps_pd(low), _mm256_cvtps_pd(high));
            let two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd::<1>(four));
            _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)))
        }
    }
    #[inline(always)]
    unsafe fn pair(first: __m256, _second: __m256) -> __m256 {
        first
    }
    #[inline(always)]
    unsafe fn exp2(x: __m256) -> __m256 {
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            // `max` with x second and "not less than" both let a NaN through.
            let normal = _mm256_cmp_ps::<_CMP_NLT_UQ>(x, _mm256_set1_ps(EXP2_MIN));
            let x = _mm256_max_ps(_mm256_set1_ps(EXP2_MIN), x);
            let n = _mm256_floor_ps(x);
            let f = _mm256_sub_ps(x, n);
            let mut p = _mm256_set1_ps(EXP2[6]);
            for &c in EXP2[..6].iter().rev() {
                p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(c));
            }
            let exponent = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(n));
            let p = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent));
            _mm256_and_ps(p, normal)
        }
    }
    #[inline(always)]
    unsafe fn transpose(src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize) {
        // SAFETY: the caller vouches for the instruction set and for 8 rows of 8 words on both sides.
        unsafe {
            let zero = _mm256_setzero_ps();
            let mut half = [[zero; 4]; 2];
            // Rows 4a..4a+4 become, in 128-bit lane l, columns 4l + i of those rows.
            for (a, quad) in half.iter_mut().enumerate() {
                let row = src.add(4 * a * src_stride);
                let (r0, r1) = (_mm256_loadu_ps(row), _mm256_loadu_ps(row.add(src_stride)));
                let (r2, r3) =
                    (_mm256_loadu_ps(row.add(2 * src_stride)), _mm256_loadu_ps(row.add(3 * src_stride)));
                let (a, b) = (_mm256_unpacklo_ps(r0, r1), _mm256_unpackhi_ps(r0, r1));
                let (c, d) = (_mm256_unpacklo_ps(r2, r3), _mm256_unpackhi_ps(r2, r3));
                *quad = [
                    _mm256_shuffle_ps::<0x44>(a, c),
                    _mm256_shuffle_ps::<0xEE>(a, c),
                    _mm256_shuffle_ps::<0x44>(b, d),
                    _mm256_shuffle_ps::<0xEE>(b, d),
                ];
            }
            let [low, high] = half;
            for (i, (low, high)) in low.into_iter().zip(high).enumerate() {
                _mm256_storeu_ps(dst.add(i * dst_stride), _mm256_permute2f128_ps::<0x20>(low, high));
                _mm256_storeu_ps(dst.add((4 + i) * dst_stride), _mm256_permute2f128_ps::<0x31>(low, high));
            }
        }
    }
}
