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

fn exp2(isa: Isa, x: &[f32]) -> Vec<f32> {
    assert_eq!(x.len() % 16, 0);
    // SAFETY: tests pass instruction sets this CPU has.
    unsafe { dispatch(isa, false, Exp2(x)) }
}

#[test]
fn exp2_is_within_one_and_a_half_ulp() {
    let x: Vec<f32> = (0..1 << 20).map(|i| -(i as f32) * (126.0 / (1 << 20) as f32)).collect();
    for isa in Isa::available() {
        for (x, y) in x.iter().zip(exp2(isa, &x)) {
            let exact = f64::from(*x).exp2();
            let ulp = (exact.log2().floor() - 23.0).exp2();
            assert!((f64::from(y) - exact).abs() <= 1.5 * ulp, "{isa:?}: 2^{x} = {exact}, got {y}");
        }
    }
}

#[test]
fn exp2_of_minus_infinity_is_zero_and_nan_stays() {
    for isa in Isa::available() {
        let mut x = [f32::NEG_INFINITY; 16];
        x[3] = f32::NAN;
        x[4] = -1e30;
        x[5] = 0.0;
        x[6] = -200.0;
        let y = exp2(isa, &x);
        assert_eq!(y[0], 0.0, "{isa:?}");
        assert!(y[3].is_nan(), "{isa:?}");
        assert_eq!(y[4], 0.0, "{isa:?}");
        assert_eq!(y[5], 1.0, "{isa:?}");
        assert_eq!(y[6], 0.0, "{isa:?}");
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
    for isa in Isa::available() {
        // SAFETY: `available` lists what this CPU has.
        let (lanes, y) = unsafe { dispatch(isa, false, Transpose(&x, stride)) };
        assert_eq!(lanes, super::lanes(isa));
        for r in 0..lanes {
            for c in 0..lanes {
                assert_eq!(y[c * lanes + r], x[r * stride + c], "{isa:?} ({r}, {c})");
            }
        }
    }
}
