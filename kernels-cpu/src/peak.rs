//! Peaks of this machine, measured: the ceilings the kernels are judged by.

use std::hint::black_box;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::simd::{self, Job, Simd};
use crate::{Executor, Isa};

/// How long each thread multiplies in a round.
const ROUND: Duration = Duration::from_millis(16);
/// Rounds; the best counts, since interruptions only ever slow one down.
const ROUNDS: usize = 3;
/// Steps between two looks at the clock.
const STEPS: usize = 4096;

/// Multiplies registers for [`ROUND`]; returns GFLOP/s.
struct Spin<const PAIRS: bool>;

impl<const PAIRS: bool> Job for Spin<PAIRS> {
    type Output = f64;
    const PAIRS: bool = PAIRS;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f64 {
        // As many independent accumulators as the kernels keep in registers: enough to hide the latency.
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            match S::NV {
                1 => multiply::<S, 6>(),
                2 => multiply::<S, 12>(),
                _ => multiply::<S, 24>(),
            }
        }
    }
}

/// Multiplies and adds on `CHAINS` accumulators for [`ROUND`]; returns GFLOP/s.
///
/// # Safety
/// The CPU must have the instruction set of `S`.
#[inline(always)]
unsafe fn multiply<S: Simd, const CHAINS: usize>() -> f64 {
    // SAFETY: register operations only; the caller vouches for the instruction set.
    unsafe {
        // Adding 1/2 * 1 for ever stops at 2^24: accumulators stay finite and normal.
        let half = S::splat(black_box(0.5));
        let one = S::splat(black_box(1.0));
        let mut acc = [one; CHAINS];
        let mut steps = 0u64;
        let start = Instant::now();
        let elapsed = loop {
            for _ in 0..STEPS {
                for a in &mut acc {
                    *a = S::dot(*a, half, one);
                }
            }
            steps += STEPS as u64;
            let elapsed = start.elapsed();
            if elapsed >= ROUND {
                break elapsed;
            }
        };
        black_box(acc);
        let flops = 2 * S::WORD * S::LANES * CHAINS;
        steps as f64 * flops as f64 / elapsed.as_secs_f64() / 1e9
    }
}

fn spin<const PAIRS: bool>(executor: &Executor) -> f64 {
    let mut best = 0.0f64;
    for _ in 0..ROUNDS {
        let sum = Mutex::new(0.0);
        executor.run(|_| {
            let gflops = simd::dispatch(executor, Spin::<PAIRS>);
            *sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += gflops;
        });
        best = best.max(sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
    best
}

/// Measures the f32 multiply-add peak of all threads of `executor`, in GFLOP/s; takes about 50 ms.
///
/// A register-only loop in the executor's instruction set: no kernel can be faster.
pub fn fma_peak_gflops(executor: &Executor) -> f64 {
    spin::<false>(executor)
}

/// Measures the bf16 dot-product peak of all threads of `executor`, in GFLOP/s; takes about 50 ms.
///
/// Returns `None` when the executor's instruction set has no bf16 dot product.
pub fn bf16_dot_peak_gflops(executor: &Executor) -> Option<f64> {
    (executor.isa() == Isa::Avx512Bf16).then(|| spin::<true>(executor))
}

/// Bytes copied in a round, all threads together: many times what caches hold.
const COPIED: usize = 128 << 20;
/// Least bytes of a thread's share.
const LEAST_SHARE: usize = 8 << 20;

/// Measures how fast all threads of `executor` copy memory, in 10⁹ byte/s, bytes read and bytes written both counted;
/// takes a tenth of a second and a quarter of a gigabyte.
pub fn copy_bandwidth_gb_per_s(executor: &Executor) -> f64 {
    let share = (COPIED / executor.threads()).max(LEAST_SHARE);
    // Bytes that are not zero: pages of zeros may be one page.
    let buffers: Vec<Mutex<(Vec<u8>, Vec<u8>)>> =
        (0..executor.threads()).map(|_| Mutex::new((vec![1; share], vec![2; share]))).collect();
    let round = || {
        let start = Instant::now();
        executor.run(|thread| {
            let mut buffers = buffers[thread].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let (from, to) = &mut *buffers;
            to.copy_from_slice(black_box(from));
            black_box(to);
        });
        2.0 * (share * executor.threads()) as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    (0..ROUNDS).map(|_| round()).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_copied_at_some_rate() {
        let executor = Executor::new(2, Isa::detect(), false).unwrap();
        let rate = copy_bandwidth_gb_per_s(&executor);
        assert!(rate > 0.05 && rate < 1e5, "{rate}");
    }

    #[test]
    fn peaks_are_positive_and_dot_products_only_exist_with_bf16() {
        for isa in Isa::available() {
            let executor = Executor::new(1, isa, false).unwrap();
            assert!(fma_peak_gflops(&executor) > 0.0);
            assert_eq!(bf16_dot_peak_gflops(&executor).is_some(), isa == Isa::Avx512Bf16);
        }
    }
}
