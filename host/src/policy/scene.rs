//! What a rule may look at.

use std::sync::OnceLock;

use rayon::prelude::*;

use super::{Bits, Misfit};
use crate::{Grid, backend::Orders, tensor::Qkv, token_order::BlockLayout};

/// A problem cut into blocks, with its numbers where a rule looks at them.
#[derive(Debug)]
pub struct Scene<'a> {
    heads: usize,
    q: &'a BlockLayout,
    kv: &'a BlockLayout,
    numbers: Option<Numbers<'a>>,
}

#[derive(Debug)]
struct Numbers<'a> {
    qkv: &'a Qkv,
    orders: &'a Orders,
    pooled: OnceLock<[Vec<f64>; 2]>,
}

/// Queries or keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Queries,
    Keys,
}

impl<'a> Scene<'a> {
    /// Makes a scene without numbers.
    pub(super) fn of_blocks(heads: usize, q: &'a BlockLayout, kv: &'a BlockLayout) -> Self {
        Self { heads, q, kv, numbers: None }
    }

    /// Makes a scene of a problem.
    pub(super) fn of_problem(qkv: &'a Qkv, orders: &'a Orders) -> Self {
        Self {
            heads: qkv.problem().batch_heads(),
            q: orders.q.layout(),
            kv: orders.kv.layout(),
            numbers: Some(Numbers { qkv, orders, pooled: OnceLock::new() }),
        }
    }

    /// Returns batch times heads.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Returns the number of query blocks.
    pub fn q_blocks(&self) -> usize {
        self.q.blocks()
    }

    /// Returns the number of key blocks.
    pub fn kv_blocks(&self) -> usize {
        self.kv.blocks()
    }

    /// Returns the number of queries.
    pub(super) fn tokens_of_q(&self) -> usize {
        self.q.tokens()
    }

    /// Returns the nominal tokens of a key block.
    pub(super) fn block(&self) -> usize {
        self.kv.block()
    }

    pub(super) fn nothing(&self) -> Bits {
        Bits::new(self.heads, self.q_blocks(), self.kv_blocks())
    }

    pub(super) fn everything(&self) -> Bits {
        let mut bits = self.nothing();
        bits.set_where(|_, _| true);
        bits
    }

    /// Returns the grid of blocks.
    ///
    /// # Errors
    /// When the tokens have no grid, or queries and keys are cut differently.
    pub(super) fn grid(&self) -> Result<Grid, Misfit> {
        match (self.q.block_grid(), self.kv.block_grid()) {
            (Some(a), Some(b)) if a == b => Ok(a),
            (Some(a), Some(b)) => {
                Err(Misfit::new("queries and keys cut into the same blocks", format!("{a} and {b} blocks")))
            }
            _ => {
                Err(Misfit::new("a token grid (T,H,W in the file's metadata or --grid)", "a plain sequence"))
            }
        }
    }

    fn numbers(&self) -> Result<&Numbers<'a>, Misfit> {
        self.numbers.as_ref().ok_or_else(|| Misfit::new("queries and keys", "their sizes alone"))
    }

    /// Returns the factor on scores.
    pub(super) fn scale(&self) -> Result<f64, Misfit> {
        Ok(f64::from(self.numbers()?.qkv.problem().softmax_scale))
    }

    /// Returns the elements of a token.
    pub(super) fn head_dim(&self) -> Result<usize, Misfit> {
        Ok(self.numbers()?.qkv.problem().head_dim)
    }

    /// Returns a head's tokens of one block, each of `head_dim` numbers, in block order.
    pub(super) fn tokens(&self, side: Side, head: usize, block: usize) -> Result<Vec<Vec<f64>>, Misfit> {
        let numbers = self.numbers()?;
        let (tensor, order) = match side {
            Side::Queries => (&numbers.qkv.q, &numbers.orders.q),
            Side::Keys => (&numbers.qkv.k, &numbers.orders.kv),
        };
        let [_, _, seqlen, d] = tensor.shape;
        let token = |position: usize| {
            let at = (head * seqlen + order.source(head)[position] as usize) * d;
            tensor.data.iter_f32(at..at + d).map(f64::from).collect()
        };
        Ok(order.layout().range(block).map(token).collect())
    }

    /// Returns the mean of each block, `[heads, blocks, head_dim]`.
    pub(super) fn pooled(&self, side: Side) -> Result<&[f64], Misfit> {
        let numbers = self.numbers()?;
        let d = self.head_dim()?;
        let means = |side: Side, blocks: usize| -> Vec<f64> {
            (0..self.heads * blocks)
                .into_par_iter()
                .flat_map_iter(|row| {
                    let tokens = self.tokens(side, row / blocks, row % blocks).unwrap_or_default();
                    let mut mean = vec![0.0; d];
                    for token in &tokens {
                        mean.iter_mut().zip(token).for_each(|(sum, x)| *sum += x);
                    }
                    mean.iter_mut().for_each(|sum| *sum /= tokens.len().max(1) as f64);
                    mean
                })
                .collect()
        };
        let both = numbers
            .pooled
            .get_or_init(|| [means(Side::Queries, self.q_blocks()), means(Side::Keys, self.kv_blocks())]);
        Ok(match side {
            Side::Queries => &both[0],
            Side::Keys => &both[1],
        })
    }

    /// Calls `row(head, query block, scores of its key blocks)` for every row: products of means, without a scale.
    pub(super) fn pooled_rows(&self, mut row: impl FnMut(usize, usize, &[f64])) -> Result<(), Misfit> {
        let (q, k, d) = (self.pooled(Side::Queries)?, self.pooled(Side::Keys)?, self.head_dim()?);
        let mut scores = vec![0.0; self.kv_blocks()];
        for head in 0..self.heads {
            for i in 0..self.q_blocks() {
                let query = &q[(head * self.q_blocks() + i) * d..][..d];
                for (j, score) in scores.iter_mut().enumerate() {
                    let key = &k[(head * self.kv_blocks() + j) * d..][..d];
                    *score = query.iter().zip(key).map(|(a, b)| a * b).sum();
                }
                row(head, i, &scores);
            }
        }
        Ok(())
    }
}

/// Turns scores into probabilities.
pub(super) fn softmax(scores: &[f64]) -> Vec<f64> {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut all: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
    let sum: f64 = all.iter().sum();
    all.iter_mut().for_each(|p| *p /= sum);
    all
}

/// Returns the indices of values from the largest down; of equal ones the earlier first.
pub(super) fn descending(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    order
}
