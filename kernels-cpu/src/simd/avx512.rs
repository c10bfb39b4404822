//! AVX-512, with f32 words or, where the CPU has `vdpbf16ps`, words of two bf16.

use std::arch::x86_64::*;

use super::{EXP2, Job, Simd};

/// AVX-512 F/BW/DQ/VL; with `BF16`, words are pairs and the CPU has AVX512-BF16.
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const BF16: bool>;

/// Element 2i from the low half of 32, element 2i + 1 from the high half.
const INTERLEAVE: [u16; 32] = {
    let mut order = [0; 32];
    let mut i = 0;
    while i < 16 {
        order[2 * i] = i as u16;
        order[2 * i + 1] = (i + 16) as u16;
        i += 1;
    }
    order
};

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn enter<J: Job>(job: J) -> J::Output {
    // SAFETY: this function is only entered where the CPU has its features.
    unsafe { job.run::<Avx512<false>>() }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
pub(super) unsafe fn enter_bf16<J: Job>(job: J) -> J::Output {
    // SAFETY: this function is only entered where the CPU has its features.
    unsafe { job.run::<Avx512<true>>() }
}

/// Transposes the four 128-bit rows of `v` as a 4 x 4 matrix.
///
/// # Safety
/// The CPU must have AVX-512 F.
#[inline(always)]
unsafe fn transpose_quarters(v: [__m512; 4]) -> [__m512; 4] {
    // SAFETY: register operations; the caller vouches for AVX-512 F.
    unsafe {
        // Lanes 0 and 1 (resp. 2 and 3) of each pair, then the two halves joined.
        let a = _mm512_shuffle_f32x4::<0x44>(v[0], v[1]);
        let b = _mm512_shuffle_f32x4::<0xEE>(v[0], v[1]);
        let c = _mm512_shuffle_f32x4::<0x44>(v[2], v[3]);
        let d = _mm512_shuffle_f32x4::<0xEE>(v[2], v[3]);
        [
            _mm512_shuffle_f32x4::<0x88>(a, c),
            _mm512_shuffle_f32x4::<0xDD>(a, c),
            _mm512_shuffle_f32x4::<0x88>(b, d),
            _mm512_shuffle_f32x4::<0xDD>(b, d),
        ]
    }
}

/// Transposes each 4 x 4 block that four rows hold in their 128-bit lanes.
///
/// # Safety
/// The CPU must have AVX-512 F.
#[inline(always)]
unsafe fn transpose_within(v: [__m512; 4]) -> [__m512; 4] {
    // SAFETY: register operations; the caller vouches for AVX-512 F.
    unsafe {
        let a = _mm512_unpacklo_ps(v[0], v[1]);
        let b = _mm512_unpackhi_ps(v[0], v[1]);
        let c = _mm512_unpacklo_ps(v[2], v[3]);
        let d = _mm512_unpackhi_ps(v[2], v[3]);
        [
            _mm512_shuffle_ps::<0x44>(a, c),
            _mm512_shuffle_ps::<0xEE>(a, c),
            _mm512_shuffle_ps::<0x44>(b, d),
            _mm512_shuffle_ps::<0xEE>(b, d),
        ]
    }
}

impl<const BF16: bool> Simd for Avx512<BF16> {
    const LANES: usize = 16;
    const NV: usize = 4;
    const WORD: usize = if BF16 { 2 } else { 1 };
    type V = __m512;

    operations! {
        fn splat(x: f32) -> __m512 { _mm512_set1_ps(x) }
        fn splat_word(p: *const u32) -> __m512 { _mm512_set1_ps(f32::from_bits(p.read_unaligned())) }
        fn load(p: *const f32) -> __m512 { _mm512_loadu_ps(p) }
        fn load_f16(p: *const u16) -> __m512 { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
        fn load_bf16(p: *const u16) -> __m512 {
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()))))
        }
        fn store(p: *mut f32, v: __m512) -> () { _mm512_storeu_ps(p, v) }
        fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        fn fma(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn any_ne(a: __m512, b: __m512) -> bool { _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(a, b) != 0 }
        fn lt(a: __m512, b: __m512) -> u32 { u32::from(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b)) }
        fn where_lt(a: __m512, limit: __m512, value: __m512) -> __m512 {
            _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, limit), value)
        }
    }

    #[inline(always)]
    unsafe fn sum(a: __m512) -> f64 {
        // SAFETY: register operations; the caller vouches for the instruction set.
        unsafe {
            let (low, high) = (_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            _mm512_reduce_add_pd(_mm512_add_pd(_mm512_cvtps_pd(low), _mm512_cvtps_pd(high)))
        }
    }
    #[inline(always)]
    unsafe fn dot(acc: __m512, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller vouches for the instruction set; __m512 and __m512bh are the same 512 bits.
        unsafe {
            if BF16 {
                let a = std::mem::transmute::<__m512, __m512bh>(a);
                let b = std::mem::transmute::<__m512, __m512bh>(b);
                _mm512_dpbf16_ps(acc, a, b)
            } else {
                _mm512_fmadd_ps(a, b, acc)
            }
        }
    }
    #[inline(always)]
    unsafe fn pair(first: __m512, second: __m512) -> __m512 {
        if !BF16 {
            return first;
        }
        // SAFETY: the caller vouches for the instruction set; __m512bh and __m512i are the same 512 bits.
        unsafe {
            // Conversion leaves `first` in the low and `second` in the high half; the permutation interleaves.
            let halves: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(second, first));
            let order = _mm512_loadu_si512(INTERLEAVE.as_ptr().cast());
            _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, halves))
        }
    }
    #[inline(always)]
    unsafe fn exp2(x: __m512) -> __m512 {
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            // f = x - floor(x), and 0 for -inf; scalef multiplies by 2^floor(x), and gives 0 for -inf.
            let f = _mm512_reduce_ps::<1>(x);
            let mut p = _mm512_set1_ps(EXP2[6]);
            for &c in EXP2[..6].iter().rev() {
                p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(c));
            }
            _mm512_scalef_ps(p, x)
        }
    }
    #[inline(always)]
    unsafe fn transpose(src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize) {
        // SAFETY: the caller vouches for the instruction set and for 16 rows of 16 words on both sides.
        unsafe {
            let zero = _mm512_setzero_ps();
            let mut half = [[zero; 4]; 4];
            // Rows 4a..4a+4 become, in 128-bit lane l, columns 4l + i of those rows.
            for (a, quad) in half.iter_mut().enumerate() {
                let row = src.add(4 * a * src_stride);
                *quad = transpose_within([
                    _mm512_loadu_ps(row),
                    _mm512_loadu_ps(row.add(src_stride)),
                    _mm512_loadu_ps(row.add(2 * src_stride)),
                    _mm512_loadu_ps(row.add(3 * src_stride)),
                ]);
            }
            let [h0, h1, h2, h3] = half;
            for (i, (((r0, r1), r2), r3)) in h0.into_iter().zip(h1).zip(h2).zip(h3).enumerate() {
                let rows = transpose_quarters([r0, r1, r2, r3]);
                for (l, &row) in rows.iter().enumerate() {
                    _mm512_storeu_ps(dst.add((4 * l + i) * dst_stride), row);
                }
            }
        }
    }
}
