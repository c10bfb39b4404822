//! The same PTX on two devices: what both write has to agree, bit for bit or within what the hardware may round.
//!
//! Only the reorder uses no approximate instruction and no tensor core, so its results have to be equal. Attention
//! exponentiates by `ex2.approx` and sums products in the order of the tensor cores; selection compares such
//! exponentials.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use nabla_kernels_gpu::{
    config,
    instances::{Instance, Kernel},
};

use super::{
    CheckError, Filter, Outcome, Rules, Sink, USUAL_BLOCK, Verdict,
    attention::AttentionCase,
    blocks_of, case_name,
    catalogue::{ATTENTION, Case, REORDER, SELECTION},
    host_dtype, is_for, reorder, rounding, selection,
};
use crate::{
    Dtype,
    backend::{AttentionOutput, BackendError, KernelBackend, KernelWorkspace, Pattern, Reordered, Selected},
    codegen::variant_id,
    tensor::{Qkv, Tensor},
    variant::Rounding,
};

/// What a comparison counts besides its verdict.
const ELEMENTS: &str = "elements compared";
/// See [`ELEMENTS`].
const DIFFERING: &str = "elements that differ in any bit";

/// Runs every instance that both devices can run on the catalogue, and compares what they write.
///
/// # Errors
/// When a device gives out. A difference is an outcome, not an error.
pub fn check_against(
    device: &dyn KernelBackend,
    other: &dyn KernelBackend,
    instances: &[Instance],
    filter: Filter<'_>,
    sink: Sink<'_>,
) -> Result<(), CheckError> {
    let mut pair = Pair { devices: [device, other], filter, sink };
    let runnable: Vec<Instance> = instances
        .iter()
        .filter(|instance| device.fits(instance).is_ok() && other.fits(instance).is_ok())
        .copied()
        .collect();
    for instance in &runnable {
        match instance.kernel {
            Kernel::ReorderPool => REORDER.iter().try_for_each(|case| pair.reorder(instance, case))?,
            Kernel::Select => SELECTION.iter().try_for_each(|case| pair.selection(instance, case))?,
            _ => ATTENTION.iter().try_for_each(|case| pair.attention(instance, case))?,
        }
    }
    Ok(())
}

/// How far two runs of the same code may lie apart.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// On each output: relative to the larger of both, for the rounding of the output.
    relative: f64,
    /// On each output: absolute, for the rounding of probabilities and the sums of products.
    absolute: f64,
    /// On lse: absolute.
    lse: f64,
}

impl Bounds {
    /// Derives the bounds from the inputs.
    fn of(qkv: &Qkv, rounding: Rounding) -> Self {
        let problem = qkv.problem();
        let longest = |tensor: &Tensor| {
            let norm = |row: &[f32]| row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            tensor.data.to_f32().chunks(problem.head_dim).map(norm).fold(0.0, f64::max)
        };
        // The terms of q . k sum to no more than |q| |k| in size. A sum in another order is off by a rounding a term,
        // one on tensor cores by 11/8 of that (see the selection's bound).
        let float32 = Dtype::F32.unit_roundoff();
        let size = longest(&qkv.q) * longest(&qkv.k) * f64::from(problem.softmax_scale.abs());
        let logit = size * (problem.head_dim as f64 * 11.0 / 8.0 + 8.0) * float32;
        // ex2.approx and lg2.approx are within two units of the last place.
        let approximate = 8.0 * float32;
        let sum = problem.seqlen_k as f64 * float32;
        let largest = qkv.v.data.to_f32().iter().fold(0f64, |m, &x| m.max(f64::from(x.abs())));
        let probability = rounding.probabilities.unit_roundoff();
        Self {
            relative: 2.0 * rounding.output.unit_roundoff(),
            absolute: 2.0 * (probability + logit + approximate + sum) * largest,
            lse: 2.0 * (logit + approximate + sum) + 8.0 * float32 * (1.0 + size),
        }
    }
}

/// Says where two outputs lie further apart than their bounds; counts what differs at all.
fn outputs_agree(
    a: &AttentionOutput,
    b: &AttentionOutput,
    bounds: Bounds,
    counts: &mut BTreeMap<String, u64>,
) -> Result<(), String> {
    let within_out =
        |x: f64, y: f64| (x - y).abs() <= bounds.relative * x.abs().max(y.abs()) + bounds.absolute;
    // Rows without a key are equal by their infinity, whose difference is none.
    let within_lse = |x: f64, y: f64| x == y || (x - y).abs() <= bounds.lse;
    numbers_agree("output", &a.out, &b.out, within_out, counts)?;
    numbers_agree("lse", &a.lse, &b.lse, within_lse, counts)
}

fn numbers_agree(
    what: &str,
    a: &[f32],
    b: &[f32],
    within: impl Fn(f64, f64) -> bool,
    counts: &mut BTreeMap<String, u64>,
) -> Result<(), String> {
    if a.len() != b.len() {
        return Err(format!("{what}: {} numbers on one device, {} on the other", a.len(), b.len()));
    }
    let differing = a.iter().zip(b).filter(|(x, y)| x.to_bits() != y.to_bits()).count();
    *counts.entry(ELEMENTS.to_owned()).or_default() += a.len() as u64;
    *counts.entry(DIFFERING.to_owned()).or_default() += differing as u64;
    // NaN, the poison, is within no bound.
    let wrong = |(x, y): (&f32, &f32)| !within(f64::from(*x), f64::from(*y));
    match a.iter().zip(b).position(wrong) {
        None => Ok(()),
        Some(i) => Err(format!(
            "{what} {i} is {} here and {} there, further apart than the same code may round; {differing} of {} differ \
             in any bit",
            a[i],
            b[i],
            a.len()
        )),
    }
}

/// Says where two reorders differ in any bit.
fn reorders_agree(a: &Reordered, b: &Reordered, counts: &mut BTreeMap<String, u64>) -> Result<(), String> {
    for (what, a, b) in [("queries", &a.q, &b.q), ("keys", &a.k, &b.k)] {
        *counts.entry(ELEMENTS.to_owned()).or_default() += a.len() as u64;
        if a.len() != b.len() {
            return Err(format!("{what}: {} bytes here, {} there", a.len(), b.len()));
        }
        if let Some(i) = a.iter().zip(b).position(|(x, y)| x != y) {
            return Err(format!("{what}: byte {i} is {} here and {} there", a[i], b[i]));
        }
    }
    let equal = |x: f64, y: f64| x == y;
    numbers_agree("mean of queries", &a.pooled_q, &b.pooled_q, equal, counts)?;
    numbers_agree("mean of keys", &a.pooled_k, &b.pooled_k, equal, counts)
}

/// Says where two selections differ.
fn selections_agree(a: &Selected, b: &Selected, counts: &mut BTreeMap<String, u64>) -> Result<(), String> {
    *counts.entry(ELEMENTS.to_owned()).or_default() += a.bitmap.len() as u64;
    let differing = a.bitmap.iter().zip(&b.bitmap).filter(|(x, y)| x != y).count();
    *counts.entry(DIFFERING.to_owned()).or_default() += differing as u64;
    if (&a.bitmap, &a.counts, &a.indices) == (&b.bitmap, &b.counts, &b.indices) {
        return Ok(());
    }
    let row = a.counts.iter().zip(&b.counts).position(|(x, y)| x != y);
    Err(match row {
        Some(row) => format!("row {row} keeps {} blocks here and {} there", a.counts[row], b.counts[row]),
        None => format!("{differing} words of the bitmaps or some lists differ"),
    })
}

/// Two devices under comparison.
struct Pair<'a> {
    devices: [&'a dyn KernelBackend; 2],
    filter: Filter<'a>,
    sink: Sink<'a>,
}

/// What two runs came to; the counts fill on the way.
type Compared = Result<Result<(), String>, BackendError>;

impl Pair<'_> {
    fn wants(&self, instance: &Instance, case: &str) -> bool {
        (self.filter)(&variant_id(instance), case)
    }

    /// Compares one instance on one case and hands the outcome over.
    fn one(
        &mut self,
        instance: &Instance,
        case: &str,
        compare: impl FnOnce([&dyn KernelBackend; 2], &mut BTreeMap<String, u64>) -> Compared,
    ) -> Result<(), BackendError> {
        let started = Instant::now();
        let mut counts = BTreeMap::new();
        let verdict = match compare(self.devices, &mut counts) {
            Ok(Ok(())) => same_code(self.devices, instance)?.into(),
            Ok(different) => different.into(),
            Err(error) => Verdict::of(error)?,
        };
        let seconds = started.elapsed().as_secs_f64();
        let (subject, case) = (variant_id(instance), case.to_owned());
        (self.sink)(Outcome { subject, case, verdict, accuracy: None, counts, seconds });
        Ok(())
    }

    fn attention(&mut self, instance: &Instance, case: &Case) -> Result<(), CheckError> {
        for block in blocks_of(case).filter(|block| is_for(instance, case, *block)) {
            let name = case_name(case, block);
            if !self.wants(instance, &name) {
                continue;
            }
            let constants = instance.constants;
            let dtype = host_dtype(constants.dtype);
            let made = AttentionCase::get(case, constants.head_dim as usize, dtype, block)?;
            let bounds = Bounds::of(&made.qkv, rounding(instance));
            self.one(instance, &name, |devices, counts| {
                let [a, b] = on_both(devices, |device| {
                    let mut workspace = device.open(Arc::clone(&made.qkv), Arc::clone(&made.orders))?;
                    attend(&mut *workspace, instance, &made.pattern)
                })?;
                Ok(outputs_agree(&a, &b, bounds, counts))
            })?;
        }
        Ok(())
    }

    fn reorder(&mut self, instance: &Instance, case: &Case) -> Result<(), CheckError> {
        if !self.wants(instance, case.name) {
            return Ok(());
        }
        let constants = instance.constants;
        let (qkv, orders) = reorder::inputs(case, constants.head_dim as usize, host_dtype(constants.dtype))?;
        let (qkv, orders) = (Arc::new(qkv), Arc::new(orders));
        self.one(instance, case.name, |devices, counts| {
            let [a, b] = on_both(devices, |device| {
                device.open(Arc::clone(&qkv), Arc::clone(&orders))?.reorder_of(instance)
            })?;
            Ok(reorders_agree(&a, &b, counts))
        })?;
        Ok(())
    }

    fn selection(&mut self, instance: &Instance, case: &Case) -> Result<(), CheckError> {
        let (_, orders) = reorder::inputs(case, USUAL_BLOCK, Dtype::Bf16)?;
        let rules = Rules::new(&orders)?;
        let head_dim = instance.constants.head_dim;
        let (qkv, orders) = reorder::inputs(case, head_dim as usize, Dtype::Bf16)?;
        let scale = qkv.problem().softmax_scale;
        let (qkv, orders) = (Arc::new(qkv), Arc::new(orders));
        let [q_blocks, kv_blocks] = [orders.q.layout().blocks(), orders.kv.layout().blocks()];
        for (name, rule) in rules.named(case.name) {
            if !self.wants(instance, &name) {
                continue;
            }
            self.one(instance, &name, |devices, counts| {
                let [(means, a), (_, b)] = on_both(devices, |device| {
                    let mut workspace = device.open(Arc::clone(&qkv), Arc::clone(&orders))?;
                    let pool = Instance::tokens(Kernel::ReorderPool, head_dim, config::Dtype::Bf16);
                    Ok((workspace.reorder_of(&pool)?, workspace.select_of(instance, &rule)?))
                })?;
                let Err(difference) = selections_agree(&a, &b, counts) else { return Ok(Ok(())) };
                // Where the threshold lies within float32 roundings of a sum, either answer is right.
                let map = selection::Map {
                    batch_heads: a.counts.len() / q_blocks,
                    q_blocks,
                    kv_blocks,
                    head_dim: head_dim as usize,
                    scale,
                    pooled_q: &means.pooled_q,
                    pooled_k: &means.pooled_k,
                };
                let right = |got| selection::judge(&map, &rule, got) == Verdict::Passed;
                Ok(if right(&a) && right(&b) { Ok(()) } else { Err(difference) })
            })?;
        }
        Ok(())
    }
}

/// Poisons the output, launches and fetches.
fn attend(
    workspace: &mut dyn KernelWorkspace,
    instance: &Instance,
    pattern: &Pattern,
) -> Result<AttentionOutput, BackendError> {
    workspace.poison()?;
    workspace.attention_of(instance, pattern)?;
    workspace.output()
}

fn on_both<T>(
    [a, b]: [&dyn KernelBackend; 2],
    run: impl Fn(&dyn KernelBackend) -> Result<T, BackendError>,
) -> Result<[T; 2], BackendError> {
    Ok([run(a)?, run(b)?])
}

/// Says whether both devices run the same PTX: else their agreement says nothing of either.
fn same_code(
    [a, b]: [&dyn KernelBackend; 2],
    instance: &Instance,
) -> Result<Result<(), String>, BackendError> {
    let (a, b) = (a.code(instance)?, b.code(instance)?);
    Ok(match a == b {
        true => Ok(()),
        false => Err(format!("the devices run different PTX: one for {}, the other for {}", a.arch, b.arch)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { relative: 0.01, absolute: 0.001, lse: 0.001 };

    fn output(out: &[f32], lse: &[f32]) -> AttentionOutput {
        AttentionOutput { out: out.to_vec(), lse: lse.to_vec() }
    }

    fn judged(a: &AttentionOutput, b: &AttentionOutput) -> Result<(), String> {
        outputs_agree(a, b, BOUNDS, &mut BTreeMap::new())
    }

    #[test]
    fn outputs_within_their_bounds_agree_and_are_counted() {
        let mut counts = BTreeMap::new();
        let a = output(&[1.0, 0.0, -2.0], &[f32::NEG_INFINITY, 3.0]);
        let b = output(&[1.01, 0.0009, -2.0], &[f32::NEG_INFINITY, 3.0005]);
        assert_eq!(outputs_agree(&a, &b, BOUNDS, &mut counts), Ok(()));
        assert_eq!((counts[ELEMENTS], counts[DIFFERING]), (5, 3));
    }

    #[test]
    fn each_planted_difference_is_found() {
        let a = output(&[1.0, 0.0], &[f32::NEG_INFINITY, 3.0]);
        for (out, lse, named) in [
            ([1.02, 0.0], [f32::NEG_INFINITY, 3.0], "output 0"),
            ([1.0, 0.002], [f32::NEG_INFINITY, 3.0], "output 1"),
            ([1.0, f32::NAN], [f32::NEG_INFINITY, 3.0], "output 1"),
            ([1.0, 0.0], [0.0, 3.0], "lse 0"),
            ([1.0, 0.0], [f32::NEG_INFINITY, 3.01], "lse 1"),
        ] {
            let reason = judged(&a, &output(&out, &lse)).unwrap_err();
            assert!(reason.starts_with(named), "{reason}");
        }
        assert!(judged(&a, &output(&[1.0], &[])).unwrap_err().contains("2 numbers"));
    }

    #[test]
    fn reorders_have_to_be_equal_bit_for_bit() {
        let a = Reordered { q: vec![1, 2], pooled_q: vec![0.5], k: vec![3, 4], pooled_k: vec![0.25] };
        let judged = |b: &Reordered| reorders_agree(&a, b, &mut BTreeMap::new());
        assert_eq!(judged(&a.clone()), Ok(()));
        let b = Reordered { k: vec![3, 5], ..a.clone() };
        assert!(judged(&b).unwrap_err().contains("keys: byte 1"));
        let b = Reordered { pooled_q: vec![0.5 + f32::EPSILON], ..a.clone() };
        assert!(judged(&b).unwrap_err().contains("mean of queries 0"));
    }

    #[test]
    fn selections_that_differ_are_told_with_a_row() {
        let a = Selected { bitmap: vec![3], counts: vec![2], indices: vec![0, 1], time_us: 0.0 };
        let judged = |b: &Selected| selections_agree(&a, b, &mut BTreeMap::new());
        assert_eq!(judged(&Selected { time_us: 5.0, ..a.clone() }), Ok(()));
        let b = Selected { bitmap: vec![1], counts: vec![1], indices: vec![0, -1], time_us: 0.0 };
        assert!(judged(&b).unwrap_err().contains("row 0 keeps 2 blocks here and 1 there"));
        let b = Selected { bitmap: vec![5], indices: vec![0, 2], ..a.clone() };
        assert!(judged(&b).unwrap_err().contains("1 words"));
    }
}
