//! Accuracy of a launch: kernel error within a derived budget, sparsity error as a fact.

use std::sync::Arc;

use crate::{
    Dtype,
    backend::AttentionOutput,
    error_measures::ErrorMeasures,
    reference::{Arithmetic, OrderedMask, Reference, RowSample, attention},
    tensor::Qkv,
    token_order::TokenOrder,
    variant::Rounding,
};

/// Rows per head of the plain low-precision run a budget is derived from.
const BUDGET_ROWS: usize = 256;

/// What a launch's kernel error has to stay under.
///
/// Derived, never tuned: twice the error of a plain low-precision run of the same inputs, which has the same
/// operations to round, plus a band of four float32 roundings for the exponential and the final division.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// Bound on the relative RMSE of the output.
    pub rel_rmse: f64,
    /// Bound on the largest absolute error of lse.
    pub lse_max_abs: f64,
}

/// Float64 attention on one mask, and the budgets that follow from it.
#[derive(Debug)]
pub struct Oracle {
    reference: Reference,
    /// Of a kernel that rounds nothing below float32.
    full: Budget,
    rounded: Vec<(Rounding, Budget)>,
}

impl Oracle {
    /// Computes float64 attention on the sampled rows, dense or on a mask, and the error budgets for kernels that keep
    /// probabilities and output in float32 and in the dtype of the inputs.
    pub fn new(qkv: &Qkv, scale: f32, mask: Option<OrderedMask<'_>>, sample: &Arc<RowSample>) -> Self {
        let reference = attention(qkv, scale, mask, sample, Arithmetic::Float64);
        let thin = Arc::new(sample.thin(BUDGET_ROWS));
        let plain = |probabilities| attention(qkv, scale, mask, &thin, Arithmetic::Plain { probabilities });
        let run = plain(Dtype::F32);
        let full = budget_from(&run, &reference);
        let low = qkv.problem().dtype;
        let mut rounded = Vec::new();
        if low != Dtype::F32 {
            for (probabilities, run) in [(Dtype::F32, run), (low, plain(low))] {
                rounded.push((Rounding { probabilities, output: Dtype::F32 }, budget_from(&run, &reference)));
                let run = run.with_output_rounded_to(low);
                rounded.push((Rounding { probabilities, output: low }, budget_from(&run, &reference)));
            }
        }
        Self { reference, full, rounded }
    }

    /// Returns the float64 result.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Returns the budget of a kernel with this rounding; a type that is neither float32 nor that of the inputs
    /// earns no more than float32 does.
    pub fn budget(&self, rounding: Rounding) -> Budget {
        let found = self.rounded.iter().find(|(r, _)| *r == rounding);
        found.map_or(self.full, |(_, budget)| *budget)
    }
}

fn budget_from(plain: &Reference, exact: &Reference) -> Budget {
    let band = 4.0 * Dtype::F32.unit_roundoff();
    let d = exact.head_dim;
    let mut pairs = Vec::new();
    let mut lse_error = 0f64;
    let mut lse_size = 0f64;
    // The plain rows are a subsequence of the exact ones.
    let mut positions = Vec::with_capacity(plain.sample.rows().len());
    let mut next = 0;
    for row in plain.sample.rows() {
        while exact.sample.rows()[next] != *row {
            next += 1;
        }
        positions.push(next);
    }
    for head in 0..exact.batch_heads {
        for (i, &position) in positions.iter().enumerate() {
            let a = head * positions.len() + i;
            let b = head * exact.sample.rows().len() + position;
            pairs
                .extend(plain.out[a * d..][..d].iter().copied().zip(exact.out[b * d..][..d].iter().copied()));
            if exact.lse[b].is_finite() {
                lse_error = lse_error.max((plain.lse[a] - exact.lse[b]).abs());
                lse_size = lse_size.max(exact.lse[b].abs());
            }
        }
    }
    Budget {
        rel_rmse: 2.0 * ErrorMeasures::of(pairs).rel_rmse + band,
        lse_max_abs: 2.0 * lse_error + band * (1.0 + lse_size),
    }
}

/// Errors of one launch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Accuracy {
    /// Against float64 attention on the same mask: a kernel bug shows here.
    pub kernel: ErrorMeasures,
    /// Largest absolute lse error against the same; infinite where one is infinite and the other is not.
    pub lse_max_abs: f64,
    /// Against dense float64 attention: what sparsity costs.
    pub sparsity: ErrorMeasures,
    /// What the kernel error had to stay under.
    pub budget: Budget,
    /// Query rows per head the errors were computed on.
    pub rows: usize,
}

/// Measures a launch against the oracle of its mask and against dense attention.
///
/// # Errors
/// When an output element is not finite (NaN poison included), or the output or lse misses its budget; the text
/// says which, by how much, and where. The accuracy is returned beside the error when it could be computed.
pub fn verify(
    output: &AttentionOutput,
    q_order: &TokenOrder,
    oracle: &Oracle,
    dense: &Reference,
    rounding: Rounding,
) -> (Accuracy, Result<(), String>) {
    let exact = &oracle.reference;
    let (d, tokens) = (exact.head_dim, q_order.tables().tokens());
    let inverse = q_order.inverse();
    let place = |head: usize, row: u32| head * tokens + inverse.of(head)[row as usize] as usize;
    let against = |reference: &Reference| {
        let rows = reference.sample.rows();
        ErrorMeasures::of((0..reference.batch_heads).flat_map(|head| {
            rows.iter().enumerate().flat_map(move |(i, &row)| {
                let got = &output.out[place(head, row) * d..][..d];
                let want = &reference.out[(head * rows.len() + i) * d..][..d];
                got.iter().zip(want).map(|(&x, &y)| (f64::from(x), y))
            })
        }))
    };
    let mut lse_max_abs = 0f64;
    for head in 0..exact.batch_heads {
        for (i, &row) in exact.sample.rows().iter().enumerate() {
            let got = f64::from(output.lse[place(head, row)]);
            let want = exact.lse[head * exact.sample.rows().len() + i];
            let diff = if got == want { 0.0 } else { (got - want).abs() };
            if diff > lse_max_abs || diff.is_nan() {
                lse_max_abs = diff;
            }
        }
    }
    let budget = oracle.budget(rounding);
    let accuracy = Accuracy {
        kernel: against(exact),
        lse_max_abs,
        sparsity: against(dense),
        budget,
        rows: exact.sample.rows().len(),
    };
    (accuracy, judge(output, &accuracy, d, tokens))
}

fn judge(output: &AttentionOutput, accuracy: &Accuracy, d: usize, tokens: usize) -> Result<(), String> {
    let bad = output.out.iter().filter(|x| !x.is_finite()).count();
    if let Some(first) = output.out.iter().position(|x| !x.is_finite()) {
        let row = first / d;
        return Err(format!(
            "{bad} of {} outputs are not finite or were never written, the first at head {}, token {} (block order), \
             element {}",
            output.out.len(),
            row / tokens,
            row % tokens,
            first % d
        ));
    }
    if let Some(row) = output.lse.iter().position(|x| x.is_nan()) {
        return Err(format!(
            "lse is NaN or was never written at head {}, token {}",
            row / tokens,
            row % tokens
        ));
    }
    let Budget { rel_rmse, lse_max_abs } = accuracy.budget;
    // A NaN exceeds every budget.
    let exceeds = |error: f64, budget: f64| error.is_nan() || error > budget;
    if exceeds(accuracy.kernel.rel_rmse, rel_rmse) {
        return Err(format!(
            "kernel error {:.3e} (relative RMSE against float64 on the same mask) exceeds its budget {rel_rmse:.3e}",
            accuracy.kernel.rel_rmse
        ));
    }
    if exceeds(accuracy.lse_max_abs, lse_max_abs) {
        return Err(format!(
            "lse error {:.3e} (largest absolute difference) exceeds its budget {lse_max_abs:.3e}",
            accuracy.lse_max_abs
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{GenerateSpec, generate_video};

    /// A correct launch of a small dense problem with one thing spoilt.
    fn judged(spoil: impl FnOnce(&mut AttentionOutput)) -> Result<(), String> {
        let qkv = generate_video(&"video:1,16,16,2,16,f32".parse::<GenerateSpec>().unwrap(), 1);
        let problem = qkv.problem();
        let order = TokenOrder::new(problem.grid, 256, 64).unwrap();
        let sample = Arc::new(RowSample::all(256));
        let oracle = Oracle::new(&qkv, problem.softmax_scale, None, &sample);
        let exact = oracle.reference();
        let mut output = AttentionOutput { out: Vec::new(), lse: Vec::new() };
        for head in 0..2 {
            for &token in order.source(head) {
                let row = head * 256 + token as usize;
                output.out.extend(exact.out[row * 16..][..16].iter().map(|&x| x as f32));
                output.lse.push(exact.lse[row] as f32);
            }
        }
        spoil(&mut output);
        verify(&output, &order, &oracle, exact, Rounding::NONE).1
    }

    #[test]
    fn a_rounded_reference_passes() {
        assert_eq!(judged(|_| {}), Ok(()));
    }

    /// Judges the exact result of bf16 inputs, rounded to bf16 as a device stores it, by the budget of `rounding`.
    fn judged_in_bf16(rounding: Rounding) -> Result<(), String> {
        let qkv = generate_video(&"video:1,16,16,2,16,bf16".parse::<GenerateSpec>().unwrap(), 1);
        let order = TokenOrder::linear(256, 64).unwrap();
        let sample = Arc::new(RowSample::all(256));
        let oracle = Oracle::new(&qkv, qkv.problem().softmax_scale, None, &sample);
        let exact = oracle.reference();
        let stored = exact.clone().with_output_rounded_to(Dtype::Bf16);
        let output = AttentionOutput {
            out: stored.out.iter().map(|&x| x as f32).collect(),
            lse: stored.lse.iter().map(|&x| x as f32).collect(),
        };
        verify(&output, &order, &oracle, exact, rounding).1
    }

    #[test]
    fn an_output_stored_in_bf16_passes_only_as_such() {
        let rounding = |probabilities, output| Rounding { probabilities, output };
        assert_eq!(judged_in_bf16(rounding(Dtype::F32, Dtype::Bf16)), Ok(()));
        assert_eq!(judged_in_bf16(rounding(Dtype::Bf16, Dtype::Bf16)), Ok(()));
        // Neither float32 nor a type the inputs do not have earns that room.
        for output in [Dtype::F32, Dtype::F16] {
            let reason = judged_in_bf16(rounding(Dtype::F32, output)).unwrap_err();
            assert!(reason.contains("exceeds its budget"), "{reason}");
        }
    }

    #[test]
    fn rounding_more_never_tightens_a_budget() {
        let qkv = generate_video(&"video:1,16,16,2,16,bf16".parse::<GenerateSpec>().unwrap(), 1);
        let sample = Arc::new(RowSample::all(256));
        let oracle = Oracle::new(&qkv, qkv.problem().softmax_scale, None, &sample);
        let budget = |probabilities, output| oracle.budget(Rounding { probabilities, output }).rel_rmse;
        let (full, low) = (Dtype::F32, Dtype::Bf16);
        assert!(budget(full, full) < budget(low, full) && budget(low, full) < budget(low, low));
        assert!(budget(full, low) > 100.0 * budget(full, full));
    }

    #[test]
    fn every_planted_fault_is_found() {
        type Fault = Box<dyn FnOnce(&mut AttentionOutput)>;
        let faults: [(&str, Fault); 5] = [
            ("never written", Box::new(|o| o.out[4 * 16 + 3] = f32::NAN)),
            ("not finite", Box::new(|o| o.out[0] = f32::INFINITY)),
            ("exceeds its budget", Box::new(|o| o.out[777] += 0.01)),
            ("lse is NaN", Box::new(|o| o.lse[9] = f32::NAN)),
            ("lse error", Box::new(|o| o.lse[300] += 0.001)),
        ];
        for (words, spoil) in faults {
            let reason = judged(spoil).unwrap_err();
            assert!(reason.contains(words), "{reason}");
        }
    }

    #[test]
    fn two_swapped_rows_are_found() {
        let reason = judged(|o| {
            let (a, b) = o.out.split_at_mut(100 * 16);
            a[..16].swap_with_slice(&mut b[..16]);
        });
        assert!(reason.is_err());
    }
}
