//! Every instruction set against f64.

use super::*;

/// exp2 over [-130, 0], in vectors.
struct Exp2<'a>(&'a [f32]);

impl Job for Exp2<'_> {
    type Output = Vec<f32>;
    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> Vec<f32> {
        let mut out = vec![0.0; self.0.len()];
        for (x, y) in self.0.chunks_exact(S::LANES).zip(out.chunks_exact_mut(S::LANES)) {
            // SAFETY: chunks have LANES words; the caller vouches for the instruction set.
            unsafe { S::store(y.as_mut_ptr(), S::exp2(S::load(x.as_ptr()))) };
        }
        out
    }
}

/// An executor of every instruction set this CPU has.
fn executors() -> impl Iterator<Item = Executor> {
    Isa::available().into_iter().map(|isa| Executor::new(1, isa, false).unwrap())
}

fn exp2(executor: &Executor, x: &[f32]) -> Vec<f32> {
    assert_eq!(x.len() % 16, 0);
    dispatch(executor, Exp2(x))
}

#[test]
fn exp2_is_within_one_and_a_half_ulp() {
    let x: Vec<f32> = (0..1 << 20).map(|i| -(i as f32) * (126.0 / (1 << 20) as f32)).collect();
    for executor in executors() {
        let isa = executor.isa();
        for (x, y) in x.iter().zip(exp2(&executor, &x)) {
            let exact = f64::from(*x).exp2();
            let ulp = (exact.log2().floor() - 23.0).exp2();
            assert!((f64::from(y) - exact).abs() <= 1.5 * ulp, "{isa:?}: 2^{x} = {exact}, got {y}");
        }
    }
}

#[test]
fn exp2_of_minus_infinity_is_zero_and_nan_stays() {
    for executor in executors() {
        let isa = executor.isa();
        let mut x = [f32::NEG_INFINITY; 16];
        x[3] = f32::NAN;
        x[4] = -1e30;
        x[5] = 0.0;
        x[6] = -200.0;
        let y = exp2(&executor, &x);
        assert_eq!(y[0], 0.0, "{isa:?}");
        assert!(y[3].is_nan(), "{isa:?}");
        assert_eq!(y[4], 0.0, "{isa:?}");
        assert_eq!(y[5], 1.0, "{isa:?}");
        assert_eq!(y[6], 0.0, "{isa:?}");
    }
}

#[test]
fn exp2_does_not_exceed_one() {
    let mut x: Vec<f32> = (0..1 << 12).map(|i| -f32::from_bits(i << 18)).collect();
    x.extend((0..1 << 16).map(|i| -(i as f32) * f32::EPSILON / 4.0));
    for executor in executors() {
        let y = exp2(&executor, &x);
        assert_eq!(y[0], 1.0, "{:?}", executor.isa());
        assert!(y.iter().all(|&y| y <= 1.0), "{:?}", executor.isa());
    }
}

/// What comparisons, quotients and sums make of two vectors: lanes, bits of `a < b`, `a / b`, `b` where `a < b`, the
/// sum of `a`.
struct Compare<'a>(&'a [f32; 16], &'a [f32; 16]);

impl Job for Compare<'_> {
    type Output = (usize, u32, [f32; 16], [f32; 16], f64);
    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> Self::Output {
        let (mut quotients, mut smaller) = ([0.0; 16], [0.0; 16]);
        // SAFETY: no vector has more than 16 lanes; the caller vouches for the instruction set.
        unsafe {
            let (a, b) = (S::load(self.0.as_ptr()), S::load(self.1.as_ptr()));
            S::store(quotients.as_mut_ptr(), S::div(a, b));
            S::store(smaller.as_mut_ptr(), S::where_lt(a, b, b));
            (S::LANES, S::lt(a, b), quotients, smaller, S::sum(a))
        }
    }
}

#[test]
fn comparisons_quotients_and_sums_agree_with_plain_rust() {
    // 2^24 + 1 + ... needs double precision.
    let mut a: [f32; 16] = std::array::from_fn(|i| (i * 7 % 16) as f32 + 1.0);
    let b: [f32; 16] = std::array::from_fn(|i| (i * 5 % 16) as f32 + 0.5);
    a[3] = 16_777_216.0;
    for executor in executors() {
        for nan in [false, true] {
            let mut a = a;
            if nan {
                a[5] = f32::NAN;
            }
            let (lanes, less, quotients, smaller, sum) = dispatch(&executor, Compare(&a, &b));
            assert_eq!(lanes, super::lanes(executor.isa()));
            for i in 0..lanes {
                assert_eq!(less >> i & 1 == 1, a[i] < b[i], "{:?} {i}", executor.isa());
                assert_eq!(smaller[i], if a[i] < b[i] { b[i] } else { 0.0 }, "{:?} {i}", executor.isa());
                assert!(quotients[i] == a[i] / b[i] || a[i].is_nan(), "{:?} {i}", executor.isa());
            }
            assert_eq!(less >> (lanes - 1) >> 1, 0);
            let exact: f64 = a[..lanes].iter().map(|&x| f64::from(x)).sum();
            assert!(sum == exact || nan && sum.is_nan(), "{:?}: {sum}", executor.isa());
        }
    }
}

/// One transposed square.
struct Transpose<'a>(&'a [f32], usize);

impl Job for Transpose<'_> {
    type Output = (usize, Vec<f32>);
    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> (usize, Vec<f32>) {
        let mut out = vec![0.0; S::LANES * S::LANES];
        // SAFETY: both sides have LANES rows; the caller vouches for the instruction set.
        unsafe { S::transpose(self.0.as_ptr(), self.1, out.as_mut_ptr(), S::LANES) };
        (S::LANES, out)
    }
}

#[test]
fn transpose_swaps_rows_and_columns() {
    let stride = 19;
    let x: Vec<f32> = (0..16 * stride).map(|i| i as f32).collect();
    for executor in executors() {
        let isa = executor.isa();
        let (lanes, y) = dispatch(&executor, Transpose(&x, stride));
        assert_eq!(lanes, super::lanes(isa));
        for r in 0..lanes {
            for c in 0..lanes {
                assert_eq!(y[c * lanes + r], x[r * stride + c], "{isa:?} ({r}, {c})");
            }
        }
    }
}
