//! Attention on one case: the launch, held against float64 on the same mask.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Verdict, catalogue::Case};
use crate::{
    Dtype, ParseError,
    backend::{BackendError, Orders, Pattern, Workspace},
    reference::{Arithmetic, OrderedMask, Reference, RowSample, attention},
    tensor::Qkv,
    variant::{MaskBlock, Rounding},
    verify::{Accuracy, Oracle, verify},
};

/// A case made concrete, with what is right for it.
#[derive(Debug)]
pub(super) struct AttentionCase {
    pub(super) qkv: Arc<Qkv>,
    pub(super) orders: Arc<Orders>,
    pub(super) pattern: Pattern,
    oracle: Oracle,
    dense: Reference,
}

/// What an [`AttentionCase`] is made of.
type Key = (&'static str, usize, Dtype, Option<MaskBlock>);

/// Cases made last: the same ones are run on several devices, one after the other.
static MADE: Mutex<Vec<(Key, Arc<AttentionCase>)>> = Mutex::new(Vec::new());
/// Of so many, a megabyte or so each, the oldest goes.
const KEPT: usize = 64;

impl AttentionCase {
    /// Makes a case, or takes it from those made last.
    ///
    /// # Errors
    /// When it is impossible.
    pub(super) fn get(
        case: &Case,
        head_dim: usize,
        dtype: Dtype,
        block: Option<MaskBlock>,
    ) -> Result<Arc<Self>, ParseError> {
        let key = (case.name, head_dim, dtype, block);
        let made = || MADE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, found)) = made().iter().find(|(known, _)| *known == key) {
            return Ok(Arc::clone(found));
        }
        let new = Arc::new(Self::new(case, head_dim, dtype, block)?);
        let mut made = made();
        if made.len() >= KEPT {
            made.remove(0);
        }
        made.push((key, Arc::clone(&new)));
        Ok(new)
    }

    /// Makes tensors, mask (`block` of `None`: dense) and float64 results.
    fn new(case: &Case, head_dim: usize, dtype: Dtype, block: Option<MaskBlock>) -> Result<Self, ParseError> {
        let qkv = case.qkv(head_dim, dtype);
        let problem = qkv.problem();
        let (orders, pattern) = case.mask(&problem, block.unwrap_or(MaskBlock::square(64)))?;
        let pattern = if block.is_some() { pattern } else { Pattern::Dense };
        let scale = problem.softmax_scale;
        let sample = Arc::new(RowSample::all(problem.seqlen_q));
        let ordered =
            pattern.mask().map(|mask| OrderedMask { mask, q_order: &orders.q, kv_order: &orders.kv });
        let oracle = Oracle::new(&qkv, scale, ordered, &sample);
        let dense = attention(&qkv, scale, None, &sample, Arithmetic::Float64);
        Ok(Self { qkv: Arc::new(qkv), orders: Arc::new(orders), pattern, oracle, dense })
    }

    /// Poisons the output, launches, and judges output and lse.
    ///
    /// # Errors
    /// When the device gives out; a launch that fails is a verdict.
    pub(super) fn check<W: Workspace + ?Sized>(
        &self,
        workspace: &mut W,
        rounding: Rounding,
        launch: impl FnOnce(&mut W, &Pattern) -> Result<f64, BackendError>,
    ) -> Result<(Verdict, Option<Accuracy>), BackendError> {
        let run = || {
            workspace.poison()?;
            launch(workspace, &self.pattern)?;
            workspace.output()
        };
        match run() {
            Err(error) => Ok((Verdict::of(error)?, None)),
            Ok(output) => {
                let (accuracy, verdict) =
                    verify(&output, &self.orders.q, &self.oracle, &self.dense, rounding);
                Ok((verdict.into(), Some(accuracy)))
            }
        }
    }
}
