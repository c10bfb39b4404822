//! Which order of tokens a policy is about.
//!
//! Blocks of a launch end at the same places in every head, whatever token each head has there. So heads may sort their
//! tokens by orders of their own, but patches of a frame, whose ends follow the frame's edges, fit none of them.

use std::fmt;

use super::{Misfit, Policy, PolicyError};
use crate::{
    Problem,
    backend::Orders,
    token_order::{Arrangement, AxisOrder},
};

/// The blocks that a rule is about in one head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocks {
    /// Whatever blocks there are: it keeps all of them, or none.
    Any,
    /// Patches of one frame; without a grid, tokens as they stand.
    Patches,
    /// Runs of the tokens, sorted by an order of axes.
    Sorted(AxisOrder),
}

impl Blocks {
    /// Returns the blocks that two rules of a head are about.
    fn and(self, other: Self) -> Result<Self, Misfit> {
        match (self, other) {
            (Self::Any, blocks) | (blocks, Self::Any) => Ok(blocks),
            (a, b) if a == b => Ok(a),
            (a, b) => {
                Err(Misfit::new("rules of the same blocks", format!("{a} and {b}: they hold other tokens")))
            }
        }
    }
}

impl fmt::Display for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any blocks"),
            Self::Patches => f.write_str("patches of one frame"),
            Self::Sorted(order) => write!(f, "runs of tokens sorted by {order}"),
        }
    }
}

impl Policy {
    /// Returns the order of tokens that the policy is about: what [`Orders::arranged`] has to be given, for a mask to be
    /// built and launched on them.
    ///
    /// # Errors
    /// When rules or heads are about blocks that do not go together, or tokens are to be sorted that have no grid.
    pub fn arrangement(&self, problem: &Problem) -> Result<Arrangement, PolicyError> {
        match self.wanted(problem.batch_heads()).map_err(|misfit| self.error(misfit))? {
            Some(arrangement @ Arrangement::Sorted(_)) if problem.grid.is_none() => {
                let needs =
                    format!("a token grid (T,H,W in the file's metadata or --grid) for {arrangement}");
                Err(self.error(Misfit::new(needs, "a plain sequence")))
            }
            wanted => Ok(wanted.unwrap_or(Arrangement::Patches)),
        }
    }

    /// Looks whether tokens are in the order that the policy is about.
    pub(super) fn check_order(&self, heads: usize, orders: &Orders) -> Result<(), PolicyError> {
        let wanted = self.wanted(heads).map_err(|misfit| self.error(misfit))?;
        let Some(wanted) = wanted else { return Ok(()) };
        let got = [&orders.q, &orders.kv].map(|order| order.arrangement());
        match got.into_iter().find(|got| **got != wanted) {
            Some(got) => Err(self.error(Misfit::new(wanted.to_string(), got.to_string()))),
            None => Ok(()),
        }
    }

    /// Returns the blocks that the policy is about in a head.
    pub(super) fn blocks(&self, head: usize) -> Result<Blocks, Misfit> {
        let mut terms = self.any.iter().flatten();
        terms.try_fold(Blocks::Any, |blocks, term| blocks.and(term.rule.blocks(head)?))
    }

    /// Returns the order of tokens that the heads' blocks come from; `None` where any serves.
    fn wanted(&self, heads: usize) -> Result<Option<Arrangement>, Misfit> {
        let of_heads: Vec<Blocks> = (0..heads).map(|head| self.blocks(head)).collect::<Result<_, _>>()?;
        let sorted = of_heads.iter().position(|blocks| matches!(blocks, Blocks::Sorted(_)));
        let patches = of_heads.iter().position(|blocks| *blocks == Blocks::Patches);
        match (sorted, patches) {
            (None, None) => Ok(None),
            (None, Some(_)) => Ok(Some(Arrangement::Patches)),
            (Some(_), None) => {
                // A head of which any blocks will do takes those of raster order.
                let order = |blocks: &Blocks| match blocks {
                    Blocks::Sorted(order) => *order,
                    Blocks::Any | Blocks::Patches => AxisOrder::Thw,
                };
                Ok(Some(Arrangement::sorted(of_heads.iter().map(order).collect())))
            }
            (Some(sorted), Some(patches)) => Err(Misfit::new(
                "blocks that end at the same places in every head, as all of one launch do",
                format!("{} in head {sorted} and {} in head {patches}", of_heads[sorted], of_heads[patches]),
            )),
        }
    }
}
