//! Rules that look at the mean of each block.

use super::{
    Bits, Misfit, Rule, Scene,
    scene::{Side, descending, softmax},
};

/// NABLA: the blocks that carry a share of each row's pooled attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Nabla {
    /// Share to keep, 0..=1.
    pub(super) mass: f64,
}

impl Rule for Nabla {
    fn decide(&self, scene: &Scene<'_>, kept: &mut Bits) -> Result<(), Misfit> {
        let scale = scene.scale()?;
        scene.pooled_rows(|head, i, scores| {
            let scaled: Vec<f64> = scores.iter().map(|score| score * scale).collect();
            let probabilities = softmax(&scaled);
            // From the least up: kept from where the sum reaches what may be dropped.
            let mut order = descending(&probabilities);
            order.reverse();
            let mut sum = 0.0;
            for (n, j) in order.iter().enumerate() {
                sum += probabilities[*j];
                if sum >= 1.0 - self.mass || n + 1 == order.len() {
                    kept.set(head, i, *j);
                }
            }
        })
    }

    fn mass(&self) -> Option<f64> {
        Some(self.mass)
    }
}

/// The best blocks of each row by pooled scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TopShare {
    /// Share of the blocks.
    pub(super) share: f64,
    /// Whether a fraction of a block is rounded up, as VSA does, or down, as SLA does. At least one block stays.
    pub(super) up: bool,
}

impl Rule for TopShare {
    fn decide(&self, scene: &Scene<'_>, kept: &mut Bits) -> Result<(), Misfit> {
        let exact = self.share * scene.kv_blocks() as f64;
        let count = if self.up { exact.ceil() } else { exact.floor() };
        let count = (count as usize).clamp(1, scene.kv_blocks());
        scene.pooled_rows(|head, i, scores| {
            descending(scores).into_iter().take(count).for_each(|j| kept.set(head, i, j));
        })
    }
}

/// SpargeAttn: the best blocks whose pooled attention together stays within a share; blocks whose tokens differ are kept whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sparge {
    /// Share of the pooled attention of blocks that a mean stands for.
    pub(super) mass: f64,
    /// Least mean cosine of the tokens of such a block.
    pub(super) similarity: f64,
}

impl Sparge {
    /// Says of each block whether its mean stands for its tokens.
    fn is_alike(self, scene: &Scene<'_>, side: Side, blocks: usize) -> Result<Vec<bool>, Misfit> {
        let d = scene.head_dim()?;
        let mut alike = Vec::with_capacity(scene.heads() * blocks);
        for head in 0..scene.heads() {
            for block in 0..blocks {
                let tokens = scene.tokens(side, head, block)?;
                // The mean of all cosines is the squared length of the mean of unit vectors.
                let mut sum = vec![0.0; d];
                for token in &tokens {
                    let length = token.iter().map(|x| x * x).sum::<f64>().sqrt();
                    if length > 0.0 {
                        sum.iter_mut().zip(token).for_each(|(sum, x)| *sum += x / length);
                    }
                }
                let count = tokens.len().max(1) as f64;
                alike.push(sum.iter().map(|x| x * x).sum::<f64>() / (count * count) > self.similarity);
            }
        }
        Ok(alike)
    }
}

impl Rule for Sparge {
    fn decide(&self, scene: &Scene<'_>, kept: &mut Bits) -> Result<(), Misfit> {
        let (q_blocks, kv_blocks) = (scene.q_blocks(), scene.kv_blocks());
        let queries = self.is_alike(scene, Side::Queries, q_blocks)?;
        let keys = self.is_alike(scene, Side::Keys, kv_blocks)?;
        let scale = scene.scale()?;
        scene.pooled_rows(|head, i, scores| {
            let alike = &keys[head * kv_blocks..][..kv_blocks];
            if !queries[head * q_blocks + i] {
                kept.set_row(head, i);
                return;
            }
            (0..kv_blocks).filter(|&j| !alike[j]).for_each(|j| kept.set(head, i, j));
            let of = |(score, alike): (&f64, &bool)| if *alike { score * scale } else { f64::NEG_INFINITY };
            let probabilities = softmax(&scores.iter().zip(alike).map(of).collect::<Vec<_>>());
            let mut sum = 0.0;
            for (n, j) in descending(&probabilities).into_iter().filter(|&j| alike[j]).enumerate() {
                sum += probabilities[j];
                // As published, the one that crosses the share is not kept; here the best one always is.
                if n > 0 && sum > self.mass {
                    break;
                }
                kept.set(head, i, j);
            }
        })
    }
}

/// VMoBA by blocks: the best pairs of a head, all rows together, until they reach a share of its pooled attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Vmoba {
    pub(super) mass: f64,
}

impl Rule for Vmoba {
    fn decide(&self, scene: &Scene<'_>, kept: &mut Bits) -> Result<(), Misfit> {
        let (rows, columns, scale) = (scene.q_blocks(), scene.kv_blocks(), scene.scale()?);
        let mut head_map = Vec::with_capacity(rows * columns);
        scene.pooled_rows(|head, i, scores| {
            if i == 0 {
                head_map.clear();
            }
            let scaled: Vec<f64> = scores.iter().map(|score| score * scale).collect();
            head_map.extend(softmax(&scaled));
            // No row is left without its best block.
            if let Some(&best) = descending(scores).first() {
                kept.set(head, i, best);
            }
            if i + 1 == rows {
                let mut sum = 0.0;
                for cell in descending(&head_map) {
                    if sum >= self.mass * rows as f64 {
                        break;
                    }
                    sum += head_map[cell];
                    kept.set(head, cell / columns, cell % columns);
                }
            }
        })
    }
}

/// A vertical stripe of Sparse-vDiT: the key blocks that get the most pooled attention of all queries of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stripe {
    pub(super) blocks: usize,
}

impl Rule for Stripe {
    fn decide(&self, scene: &Scene<'_>, kept: &mut Bits) -> Result<(), Misfit> {
        let (rows, columns, scale) = (scene.q_blocks(), scene.kv_blocks(), scene.scale()?);
        let mut sums = vec![0.0; columns];
        scene.pooled_rows(|head, i, scores| {
            if i == 0 {
                sums.fill(0.0);
            }
            let scaled: Vec<f64> = scores.iter().map(|score| score * scale).collect();
            sums.iter_mut().zip(softmax(&scaled)).for_each(|(sum, p)| *sum += p);
            if i + 1 == rows {
                for j in descending(&sums).into_iter().take(self.blocks) {
                    (0..rows).for_each(|row| kept.set(head, row, j));
                }
            }
        })
    }
}
