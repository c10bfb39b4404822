//! Cost model: floating-point operations and the fewest bytes a launch can move.

use crate::{BlockMask, Problem};

/// Returns the FLOPs of attention over `pairs` query-key pairs, all heads together: 4 · D · pairs (a multiply and an
/// add for each of Q Kᵀ and P V; the softmax is not counted, as is usual).
pub fn attention_flops(pairs: u64, head_dim: usize) -> f64 {
    4.0 * pairs as f64 * head_dim as f64
}

/// Returns the query-key pairs of dense attention, all heads together.
pub fn dense_pairs(problem: &Problem) -> u64 {
    problem.batch_heads() as u64 * problem.seqlen_q as u64 * problem.seqlen_k as u64
}

/// Returns the pairs a launch computes: all, or those the mask keeps.
pub fn pairs(problem: &Problem, mask: Option<&BlockMask>) -> u64 {
    mask.map_or_else(|| dense_pairs(problem), BlockMask::kept_pairs)
}

/// Returns the fewest bytes of one launch: Q, K and V read once, f32 output and lse written once, lists read once.
pub fn attention_bytes(problem: &Problem, mask: Option<&BlockMask>) -> f64 {
    let heads = problem.batch_heads() as f64;
    let (sq, sk, d) = (problem.seqlen_q as f64, problem.seqlen_k as f64, problem.head_dim as f64);
    let tensors = heads * d * (sq + 2.0 * sk) * problem.dtype.size_bytes() as f64;
    let outputs = heads * sq * (d + 1.0) * 4.0;
    let lists = mask.map_or(0.0, |m| {
        4.0 * (m.kv_num_blocks().len() as f64 + m.kv_num_blocks().iter().map(|&n| f64::from(n)).sum::<f64>())
    });
    tensors + outputs + lists
}

/// Returns 10¹² FLOP/s for a number of FLOPs done in `time_us` microseconds.
pub fn tflops(flops: f64, time_us: f64) -> f64 {
    flops / time_us / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dtype;

    #[test]
    fn dense_attention_of_the_bundled_clip() {
        let problem = Problem {
            batch: 1,
            heads: 2,
            seqlen_q: 4096,
            seqlen_k: 4096,
            head_dim: 64,
            dtype: Dtype::Bf16,
            softmax_scale: 0.125,
            grid: None,
        };
        let flops = attention_flops(pairs(&problem, None), 64);
        assert_eq!(flops, 4.0 * 2.0 * 4096.0 * 4096.0 * 64.0);
        assert_eq!(attention_bytes(&problem, None), 2.0 * 4096.0 * (3.0 * 64.0 * 2.0 + 65.0 * 4.0));
        assert!((tflops(flops, 1e6) - flops / 1e12).abs() < 1e-15);
    }
}
