//! Mask policies: which key blocks each query block attends to.
//!
//! A policy is written as text: terms such as `nabla-0.7`, joined by `@` where all have to keep a block and by `_` where
//! one is enough, `@` binding tighter. Every term is a [`Rule`] of the [`registry`], with its source and its arguments.
//!
//! ```text
//! registry     every rule by name: arguments, meaning, source, constructor
//! arrangement  which order of tokens a policy is about
//! scene        what a rule may look at: blocks, their grid, the numbers of Q and K
//! bits         a bit for each head, query block and key block
//! windows      rules that know the grid alone
//! pooled       rules that look at a mean of each block
//! tokens       rules that look at every token
//! files        rules that a file decides
//! ```
//!
//! Where a policy is decided: what knows the grid alone, on the host and before the tensors are; NABLA, alone or united with
//! such rules of one mask for all heads, by the backend's own kernels; everything else on the host in double precision from
//! the tensors as they were given, so that every backend gets the same mask.
//!
//! Intersections are the host's, too. A selection among `allowed` blocks is none: its softmax and threshold are over what is
//! allowed alone and it keeps a block of every row, whereas a term of an intersection decides as it would by itself.

mod arrangement;
mod bits;
mod files;
mod pooled;
mod registry;
mod scene;
#[cfg(test)]
mod sorted_tests;
#[cfg(test)]
mod tests;
mod tokens;
mod windows;

use std::{fmt, str::FromStr, sync::Arc, time::Instant};

pub use self::{
    arrangement::Blocks,
    bits::Bits,
    files::{ORDER, SORTED_BY},
    registry::{Entry, registry},
    scene::Scene,
};
use crate::{BlockMask, ParseError, backend::Orders, tensor::Qkv};

/// One term of a policy: decides by itself which blocks are kept.
pub trait Rule: fmt::Debug + Send + Sync {
    /// Sets the bits of the blocks that are kept; all are clear before.
    ///
    /// # Errors
    /// When the rule does not fit the problem.
    fn decide(&self, scene: &Scene<'_>, kept: &mut Bits) -> Result<(), Misfit>;

    /// Says whether it looks at the numbers of Q and K.
    fn needs_numbers(&self) -> bool {
        true
    }

    /// Says whether all heads have the same mask.
    fn is_alike_for_heads(&self) -> bool {
        !self.needs_numbers()
    }

    /// Returns the blocks that it is about in a head.
    ///
    /// # Errors
    /// When there is no such order of tokens.
    fn blocks(&self, head: usize) -> Result<Blocks, Misfit> {
        let _ = head;
        Ok(Blocks::Patches)
    }

    /// Returns the share of pooled attention it keeps, if it is NABLA.
    fn mass(&self) -> Option<f64> {
        None
    }

    /// Returns a [short hash](crate::provenance::short_hash) of what its file says, if a file decides it.
    fn file_hash(&self) -> Option<String> {
        None
    }
}

/// What a rule needs and did not get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// What it needs.
    pub needs: String,
    /// What there is.
    pub got: String,
}

impl Misfit {
    /// Makes a misfit.
    pub fn new(needs: impl Into<String>, got: impl Into<String>) -> Self {
        Self { needs: needs.into(), got: got.into() }
    }
}

/// A policy that does not fit the problem it is used on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy '{policy}' needs {needs}, got {got}")]
pub struct PolicyError {
    policy: String,
    needs: String,
    got: String,
}

/// A rule as it was written.
#[derive(Debug, Clone)]
struct Term {
    text: String,
    rule: Arc<dyn Rule>,
}

/// Decides which key blocks each query block attends to.
///
/// Strings: `dense`, `nabla-0.7` (keep the probability mass 0.7 of the pooled map, arXiv 2507.13546),
/// `sta-11-3-3` (a window of 11 frames, 3 block rows, 3 block columns, arXiv 2502.04507), the union
/// `nabla-0.6_sta-11-3-3`, the intersection `vsa-0.2@sta-5-5-5`, and every other rule of [`registry`].
///
/// Where a file decides, the text ends in a hash of what the file says, `lists:mask.safetensors#5f0c9a21d4e8b376`: equal
/// texts are equal policies. Read again, a text with a hash is refused when the file says something else by then.
#[derive(Debug, Clone)]
pub struct Policy {
    /// A block is kept where every term of one of these keeps it; none at all: every block is kept.
    any: Vec<Vec<Term>>,
}

impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Policy {
    /// Keeps every block.
    pub fn dense() -> Self {
        Self { any: Vec::new() }
    }

    /// Makes the plain NABLA policy that keeps the probability mass `mass`.
    pub fn nabla(mass: f64) -> Self {
        let term = Term { text: format!("nabla-{mass}"), rule: Arc::new(pooled::Nabla { mass }) };
        Self { any: vec![vec![term]] }
    }

    /// Says whether it keeps every block, whatever the problem.
    pub fn is_dense(&self) -> bool {
        self.any.is_empty()
    }

    /// Returns the share of pooled attention the policy keeps, if it has one such threshold in a union.
    pub fn mass(&self) -> Option<f64> {
        let alone = self.any.iter().filter(|all| all.len() == 1);
        alone.flatten().find_map(|term| term.rule.mass())
    }

    /// Says whether kernels can build its mask: a union of at most one NABLA term and terms that are known before the
    /// numbers are and alike for all heads.
    pub fn is_for_kernels(&self) -> bool {
        let terms = || self.any.iter().flatten();
        !self.is_dense()
            && self.any.iter().all(|all| all.len() == 1)
            && terms().filter(|term| term.rule.mass().is_some()).count() <= 1
            && terms().all(|term| term.rule.mass().is_some() || term.rule.is_alike_for_heads())
    }

    /// Says whether a file decides a part of it.
    pub fn has_file(&self) -> bool {
        self.any.iter().flatten().any(|term| term.rule.file_hash().is_some())
    }

    /// Says whether it looks at the numbers of Q and K.
    pub fn needs_numbers(&self) -> bool {
        self.any.iter().flatten().any(|term| term.rule.needs_numbers())
    }

    /// Returns the blocks that a policy [for kernels](Self::is_for_kernels) keeps whatever the data: bit `j % 64` of word
    /// `i * words + j / 64` for query block `i` and key block `j`, `words = ceil(kv_blocks / 64)`; `None` when it has no
    /// static part.
    ///
    /// # Errors
    /// When a static term does not fit: no grid, queries and keys cut differently, tokens in another order.
    pub fn static_bitmap(&self, orders: &Orders) -> Result<Option<Vec<u64>>, PolicyError> {
        self.check_order(1, orders)?;
        let mut terms = self.any.iter().flatten().filter(|term| term.rule.mass().is_none()).peekable();
        if terms.peek().is_none() || !self.is_for_kernels() {
            return Ok(None);
        }
        let scene = Scene::of_blocks(1, orders.q.layout(), orders.kv.layout());
        let mut kept = scene.nothing();
        for term in terms {
            let mut own = scene.nothing();
            term.rule.decide(&scene, &mut own).map_err(|misfit| self.error(misfit))?;
            kept.unite(&own);
        }
        Ok(Some(kept.into_words()))
    }

    /// Looks whether the policy fits, as far as that shows without numbers.
    ///
    /// # Errors
    /// When a term that knows the grid alone does not fit, or tokens are in another order than the policy is about.
    pub fn check(&self, heads: usize, orders: &Orders) -> Result<(), PolicyError> {
        self.check_order(heads, orders)?;
        let scene = Scene::of_blocks(heads, orders.q.layout(), orders.kv.layout());
        let known = self.any.iter().flatten().filter(|term| !term.rule.needs_numbers());
        for term in known {
            term.rule.decide(&scene, &mut scene.nothing()).map_err(|misfit| self.error(misfit))?;
        }
        Ok(())
    }

    /// Builds the mask on the host.
    ///
    /// # Errors
    /// When a term does not fit the problem, or tokens are in another order than the policy is about.
    pub fn build(&self, qkv: &Qkv, orders: &Orders) -> Result<BlockMask, PolicyError> {
        let problem = qkv.problem();
        let heads = problem.batch_heads();
        let (q, kv) = (orders.q.layout(), orders.kv.layout());
        if self.is_dense() {
            return Ok(BlockMask::from_fn(heads, q.clone(), kv.clone(), |_, _, _| true));
        }
        self.check_order(heads, orders)?;
        let scene = Scene::of_problem(qkv, orders);
        let kept = self.kept(&scene)?;
        Ok(BlockMask::from_fn(heads, q.clone(), kv.clone(), |head, i, j| kept.get(head, i, j)))
    }

    /// Builds the mask on the host; returns it with the microseconds that took, 0 where it is known before the numbers are.
    ///
    /// # Errors
    /// Those of [`Policy::build`].
    pub fn build_timed(&self, qkv: &Qkv, orders: &Orders) -> Result<(Arc<BlockMask>, f64), PolicyError> {
        let start = Instant::now();
        let mask = self.build(qkv, orders)?;
        let time_us = if self.needs_numbers() { start.elapsed().as_secs_f64() * 1e6 } else { 0.0 };
        Ok((Arc::new(mask), time_us))
    }

    /// Decides every term and joins them.
    fn kept(&self, scene: &Scene<'_>) -> Result<Bits, PolicyError> {
        let mut any = scene.nothing();
        for terms in &self.any {
            let mut all: Option<Bits> = None;
            for term in terms {
                let mut own = scene.nothing();
                term.rule.decide(scene, &mut own).map_err(|misfit| self.error(misfit))?;
                match &mut all {
                    Some(all) => all.intersect(&own),
                    None => all = Some(own),
                }
            }
            any.unite(&all.unwrap_or_else(|| scene.everything()));
        }
        if self.is_dense() { Ok(scene.everything()) } else { Ok(any) }
    }

    fn error(&self, misfit: Misfit) -> PolicyError {
        PolicyError { policy: self.to_string(), needs: misfit.needs, got: misfit.got }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_dense() {
            return f.write_str("dense");
        }
        for (i, all) in self.any.iter().enumerate() {
            f.write_str(if i > 0 { "_" } else { "" })?;
            for (j, term) in all.iter().enumerate() {
                f.write_str(if j > 0 { "@" } else { "" })?;
                f.write_str(&term.text)?;
            }
        }
        Ok(())
    }
}

impl FromStr for Policy {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text == "dense" {
            return Ok(Self::dense());
        }
        // The name of a file may hold anything, so it is the end of the text.
        let (before, file) = match text.split_once(':') {
            Some((before, file)) => (before, Some(file)),
            None => (text, None),
        };
        let groups: Vec<Vec<&str>> = before.split('_').map(|all| all.split('@').collect()).collect();
        let last = groups.iter().map(Vec::len).sum::<usize>() - 1;
        let mut number = 0;
        let mut any: Vec<Vec<Term>> = Vec::new();
        for group in groups {
            let mut all = Vec::new();
            for term in group {
                let file = file.filter(|_| number == last);
                number += 1;
                let (text, rule) = registry::parse(term, file)?;
                all.push(Term { text, rule });
            }
            any.push(all);
        }
        let policy = Self { any };
        let thresholds = policy.any.iter().flatten().filter(|term| term.rule.mass().is_some()).count();
        if thresholds > 1 {
            return Err(ParseError::new("at most one nabla term in a policy", text));
        }
        Ok(policy)
    }
}
