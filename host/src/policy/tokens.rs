//! Rules that look at every token.

use rayon::prelude::*;

use super::{
    Bits, Misfit, Rule, Scene,
    scene::{Side, descending, softmax},
};

/// XAttention: antidiagonals of each block at a stride stand for the block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Antidiagonal {
    /// Tokens to the next antidiagonal.
    pub(super) stride: usize,
    /// Share of each row's estimate to keep.
    pub(super) mass: f64,
}

/// Groups of tokens of one block: numbers of `stride` tokens side by side.
type Groups = Vec<Vec<f64>>;

impl Antidiagonal {
    /// Cuts every block's tokens into runs of `stride`, those of queries backwards, so that the product of two runs is the
    /// sum over an antidiagonal. What a run at a ragged end lacks is 0.
    fn groups(
        self,
        scene: &Scene<'_>,
        side: Side,
        head: usize,
        blocks: usize,
    ) -> Result<Vec<Groups>, Misfit> {
        let d = scene.head_dim()?;
        (0..blocks)
            .map(|block| {
                let tokens = scene.tokens(side, head, block)?;
                let run = |tokens: &[Vec<f64>]| {
                    let mut run = vec![0.0; self.stride * d];
                    for (n, token) in tokens.iter().enumerate() {
                        let at = if side == Side::Queries { self.stride - 1 - n } else { n };
                        run[at * d..(at + 1) * d].copy_from_slice(token);
                    }
                    run
                };
                Ok(tokens.chunks(self.stride).map(run).collect())
            })
            .collect()
    }

    /// Returns the estimate of one query block: for each key block the attention of its runs, summed.
    fn estimate(queries: &Groups, keys: &[Groups], scale: f64) -> Vec<f64> {
        let mut sums = vec![0.0; keys.len()];
        for query in queries {
            let product = |key: &Vec<f64>| query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>() * scale;
            let scores: Vec<f64> = keys.iter().flatten().map(product).collect();
            let mut probabilities = softmax(&scores).into_iter();
            for (sum, groups) in sums.iter_mut().zip(keys) {
                *sum += probabilities.by_ref().take(groups.len()).sum::<f64>();
            }
        }
        sums
    }
}

impl Rule for Antidiagonal {
    fn decide(&self, scene: &Scene<'_>, kept: &mut Bits) -> Result<(), Misfit> {
        if !scene.block().is_multiple_of(self.stride) {
            let needs = format!("mask blocks of a multiple of its stride of {}", self.stride);
            return Err(Misfit::new(needs, format!("blocks of {}", scene.block())));
        }
        // A run has as many products as the stride says, so their sum is that much larger than one score.
        let scale = scene.scale()? / self.stride as f64;
        for head in 0..scene.heads() {
            let queries = self.groups(scene, Side::Queries, head, scene.q_blocks())?;
            let keys = self.groups(scene, Side::Keys, head, scene.kv_blocks())?;
            let rows: Vec<Vec<f64>> =
                queries.par_iter().map(|queries| Self::estimate(queries, &keys, scale)).collect();
            for (i, row) in rows.iter().enumerate() {
                let total: f64 = row.iter().sum();
                let mut sum = 0.0;
                for j in descending(row) {
                    kept.set(head, i, j);
                    sum += row[j];
                    if sum >= self.mass * total {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}
