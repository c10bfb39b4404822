//! Float64 attention, dense or on a block mask: the oracle every kernel is held against.
//!
//! It works on tensors in raster order and finds the keys of a row through the mask and the token orders, so it
//! checks a reorder as well as a kernel. It gathers, computes and normalises in the plainest way; nothing is
//! shared with the kernels. Long sequences are computed on sampled query blocks.

use std::{
    ops::{AddAssign, Div, Mul, Sub},
    sync::Arc,
};

use half::{bf16, f16};
use rand::{SeedableRng, seq::index};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::{BlockMask, Dtype, tensor::Qkv, token_order::TokenOrder};

/// Query rows of one reference task; a row's scores over all keys are held at once.
const ROWS_PER_TASK: usize = 64;
/// Keys gathered at a time.
const KEYS_PER_CHUNK: usize = 256;

/// The query tokens (raster indices, ascending per block) a reference is computed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowSample {
    rows: Vec<u32>,
}

impl RowSample {
    /// Takes every query token.
    pub fn all(seqlen: usize) -> Self {
        Self { rows: (0..seqlen as u32).collect() }
    }

    /// Takes whole blocks of `order`, chosen by `seed`, until at least `min_rows` tokens are in; all tokens when
    /// there are no more than that.
    ///
    /// Blocks of 128 tokens contain whole blocks of 64 and 32, so a sample made with the largest order serves the
    /// smaller ones. All heads have the rows of the first one's blocks.
    pub fn blocks(order: &TokenOrder, min_rows: usize, seed: u64) -> Self {
        let layout = order.layout();
        if layout.tokens() <= min_rows {
            return Self::all(layout.tokens());
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut rows = Vec::with_capacity(min_rows + layout.block());
        for block in index::sample(&mut rng, layout.blocks(), layout.blocks()) {
            rows.extend_from_slice(&order.source(0)[layout.range(block)]);
            if rows.len() >= min_rows {
                break;
            }
        }
        Self { rows }
    }

    /// Keeps every `n`-th token so that about `rows` are left, spread over the whole sample.
    pub fn thin(&self, rows: usize) -> Self {
        let step = self.rows.len().div_ceil(rows.max(1));
        Self { rows: self.rows.iter().copied().step_by(step.max(1)).collect() }
    }

    /// Returns the raster indices.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }
}

/// A block mask together with the token orders its blocks are cut from.
#[derive(Debug, Clone, Copy)]
pub struct OrderedMask<'a> {
    /// Which blocks are kept.
    pub mask: &'a BlockMask,
    /// Order of the queries.
    pub q_order: &'a TokenOrder,
    /// Order of keys and values.
    pub kv_order: &'a TokenOrder,
}

/// Output and lse on sampled rows.
#[derive(Debug, Clone)]
pub struct Reference {
    /// Which query tokens.
    pub sample: Arc<RowSample>,
    /// Batch times heads.
    pub batch_heads: usize,
    /// Elements per token.
    pub head_dim: usize,
    /// Output `[batch_heads, rows, head_dim]`.
    pub out: Vec<f64>,
    /// Natural log of the sum of exponentials `[batch_heads, rows]`; -inf for a row without keys.
    pub lse: Vec<f64>,
}

impl Reference {
    /// Rounds the output to a type, as a kernel does that stores it so.
    #[must_use]
    pub fn with_output_rounded_to(mut self, dtype: Dtype) -> Self {
        for x in &mut self.out {
            *x = f64::from((*x as f32).store(dtype));
        }
        self
    }
}

/// Arithmetic of [`attention`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// Float64 throughout: the oracle.
    Float64,
    /// Float32 throughout, probabilities rounded to a dtype before they meet V: what a plain low-precision
    /// implementation does, the yardstick of error budgets.
    Plain {
        /// Type the probabilities are rounded to.
        probabilities: Dtype,
    },
}

/// Computes `softmax(scale Q Kᵀ) V` and lse on the sampled rows, dense or over the blocks a mask keeps.
///
/// A row without keys gets output 0 and lse -inf. Memory is O(rows x keys) per thread for 64 rows at a time.
pub fn attention(
    qkv: &Qkv,
    scale: f32,
    mask: Option<OrderedMask<'_>>,
    sample: &Arc<RowSample>,
    arithmetic: Arithmetic,
) -> Reference {
    match arithmetic {
        Arithmetic::Float64 => compute::<f64>(qkv, scale, mask, sample, Dtype::F32),
        Arithmetic::Plain { probabilities } => compute::<f32>(qkv, scale, mask, sample, probabilities),
    }
}

/// A floating-point type the reference computes in.
trait Real:
    Copy
    + Send
    + Sync
    + PartialOrd
    + From<f32>
    + Into<f64>
    + AddAssign
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
{
    const ZERO: Self;
    const LOWEST: Self;
    fn exp(self) -> Self;
    /// Rounds a probability as a plain implementation of this precision stores it.
    fn store(self, dtype: Dtype) -> Self;
}

impl Real for f64 {
    const ZERO: f64 = 0.0;
    const LOWEST: f64 = f64::NEG_INFINITY;
    fn exp(self) -> f64 {
        f64::exp(self)
    }
    fn store(self, _: Dtype) -> f64 {
        self
    }
}

impl Real for f32 {
    const ZERO: f32 = 0.0;
    const LOWEST: f32 = f32::NEG_INFINITY;
    fn exp(self) -> f32 {
        f32::exp(self)
    }
    fn store(self, dtype: Dtype) -> f32 {
        match dtype {
            Dtype::F32 => self,
            Dtype::F16 => f16::from_f32(self).to_f32(),
            Dtype::Bf16 => bf16::from_f32(self).to_f32(),
        }
    }
}

/// Rows that share their keys.
struct Task {
    head: usize,
    /// Positions in the sample.
    rows: Vec<usize>,
    /// Query block, when there is a mask.
    q_block: usize,
}

fn tasks(heads: usize, mask: Option<OrderedMask<'_>>, sample: &RowSample) -> Vec<Task> {
    // One list for each order of queries there is.
    let by_block: Vec<Vec<(usize, Vec<usize>)>> = match mask {
        None => {
            let all: Vec<usize> = (0..sample.rows().len()).collect();
            vec![all.chunks(ROWS_PER_TASK).map(|rows| (0, rows.to_vec())).collect()]
        }
        Some(m) => {
            (0..m.q_order.tables().count()).map(|head| rows_by_block(m.q_order, head, sample)).collect()
        }
    };
    (0..heads)
        .flat_map(|head| {
            let of_head = &by_block[head % by_block.len()];
            of_head.iter().map(move |(q_block, rows)| Task { head, rows: rows.clone(), q_block: *q_block })
        })
        .collect()
}

/// Sorts sampled rows by the query block that a head has them in, at most [`ROWS_PER_TASK`] together.
fn rows_by_block(order: &TokenOrder, head: usize, sample: &RowSample) -> Vec<(usize, Vec<usize>)> {
    let layout = order.layout();
    let mut block_of = vec![0; layout.tokens()];
    for block in 0..layout.blocks() {
        for &raster in &order.source(head)[layout.range(block)] {
            block_of[raster as usize] = block;
        }
    }
    let mut lists = vec![Vec::new(); layout.blocks()];
    for (position, &raster) in sample.rows().iter().enumerate() {
        lists[block_of[raster as usize]].push(position);
    }
    let lists = lists.iter().enumerate();
    lists
        .flat_map(|(block, list)| list.chunks(ROWS_PER_TASK).map(move |rows| (block, rows.to_vec())))
        .collect()
}

fn compute<R: Real>(
    qkv: &Qkv,
    scale: f32,
    mask: Option<OrderedMask<'_>>,
    sample: &Arc<RowSample>,
    probabilities: Dtype,
) -> Reference {
    let problem = qkv.problem();
    let (heads, d, rows) = (problem.batch_heads(), problem.head_dim, sample.rows().len());
    let results: Vec<(Task, Vec<R>, Vec<f64>)> = tasks(heads, mask, sample)
        .into_par_iter()
        .map(|task| {
            let keys: Vec<u32> = match mask {
                None => (0..problem.seqlen_k as u32).collect(),
                Some(m) => m
                    .mask
                    .row(task.head, task.q_block)
                    .iter()
                    .flat_map(|&block| {
                        &m.kv_order.source(task.head)[m.kv_order.layout().range(block as usize)]
                    })
                    .copied()
                    .collect(),
            };
            let queries: Vec<u32> = task.rows.iter().map(|&position| sample.rows()[position]).collect();
            let (out, lse) = rows_attention::<R>(qkv, scale, task.head, &queries, &keys, probabilities);
            (task, out, lse)
        })
        .collect();
    let mut reference = Reference {
        sample: Arc::clone(sample),
        batch_heads: heads,
        head_dim: d,
        out: vec![0.0; heads * rows * d],
        lse: vec![0.0; heads * rows],
    };
    for (task, out, lse) in results {
        for (i, &position) in task.rows.iter().enumerate() {
            let row = task.head * rows + position;
            reference.lse[row] = lse[i];
            for (to, &from) in reference.out[row * d..][..d].iter_mut().zip(&out[i * d..][..d]) {
                *to = from.into();
            }
        }
    }
    reference
}

/// Computes output `[queries, D]` and lse of some rows of one head over an explicit list of keys.
fn rows_attention<R: Real>(
    qkv: &Qkv,
    scale: f32,
    head: usize,
    queries: &[u32],
    keys: &[u32],
    probabilities: Dtype,
) -> (Vec<R>, Vec<f64>) {
    let d = qkv.problem().head_dim;
    let problem = qkv.problem();
    let q_at = |token: u32| (head * problem.seqlen_q + token as usize) * d;
    let k_at = |token: u32| (head * problem.seqlen_k + token as usize) * d;
    let scale = R::from(scale);

    // S = scale Q Kᵀ. Keys are gathered transposed, so that the inner loop runs over keys.
    let mut scores = vec![R::ZERO; queries.len() * keys.len()];
    let mut k_t = vec![R::ZERO; d * KEYS_PER_CHUNK];
    for (chunk, tokens) in keys.chunks(KEYS_PER_CHUNK).enumerate() {
        for (j, &token) in tokens.iter().enumerate() {
            for (c, value) in qkv.k.data.iter_f32(k_at(token)..k_at(token) + d).enumerate() {
                k_t[c * KEYS_PER_CHUNK + j] = R::from(value);
            }
        }
        for (i, &query) in queries.iter().enumerate() {
            let row = &mut scores[i * keys.len() + chunk * KEYS_PER_CHUNK..][..tokens.len()];
            for (c, value) in qkv.q.data.iter_f32(q_at(query)..q_at(query) + d).enumerate() {
                let q = R::from(value);
                for (s, &k) in row.iter_mut().zip(&k_t[c * KEYS_PER_CHUNK..]) {
                    *s += q * k;
                }
            }
            row.iter_mut().for_each(|s| *s = *s * scale);
        }
    }

    // P = exp(S - max), unnormalised; the sum is taken before P is rounded, as kernels do.
    let mut sums = vec![R::ZERO; queries.len()];
    let mut lse = vec![f64::NEG_INFINITY; queries.len()];
    if !keys.is_empty() {
        for (i, row) in scores.chunks_exact_mut(keys.len()).enumerate() {
            let max = row.iter().fold(R::LOWEST, |m, &s| if s > m { s } else { m });
            for s in row.iter_mut() {
                let p = (*s - max).exp();
                sums[i] += p;
                *s = p.store(probabilities);
            }
            let sum: f64 = sums[i].into();
            lse[i] = max.into() + sum.ln();
        }
    }

    // O = P V / sum.
    let mut out = vec![R::ZERO; queries.len() * d];
    let mut v = vec![R::ZERO; KEYS_PER_CHUNK * d];
    for (chunk, tokens) in keys.chunks(KEYS_PER_CHUNK).enumerate() {
        for (j, &token) in tokens.iter().enumerate() {
            for (to, value) in
                v[j * d..][..d].iter_mut().zip(qkv.v.data.iter_f32(k_at(token)..k_at(token) + d))
            {
                *to = R::from(value);
            }
        }
        for (i, o) in out.chunks_exact_mut(d).enumerate() {
            let row = &scores[i * keys.len() + chunk * KEYS_PER_CHUNK..][..tokens.len()];
            for (&p, values) in row.iter().zip(v.chunks_exact(d)) {
                for (to, &value) in o.iter_mut().zip(values) {
                    *to += p * value;
                }
            }
        }
    }
    if !keys.is_empty() {
        for (o, &sum) in out.chunks_exact_mut(d).zip(&sums) {
            o.iter_mut().for_each(|x| *x = *x / sum);
        }
    }
    (out, lse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Grid,
        generate::{GenerateSpec, generate_video},
    };

    fn problem(text: &str) -> Qkv {
        generate_video(&text.parse::<GenerateSpec>().unwrap(), 3)
    }

    /// One row by the formula, over explicit keys.
    fn row(qkv: &Qkv, head: usize, query: usize, keys: &[usize]) -> (Vec<f64>, f64) {
        let p = qkv.problem();
        let (q, k, v) = (qkv.q.data.to_f32(), qkv.k.data.to_f32(), qkv.v.data.to_f32());
        let at = |data: &[f32], token: usize, c: usize| {
            f64::from(data[(head * p.seqlen_q + token) * p.head_dim + c])
        };
        let scores: Vec<f64> = keys
            .iter()
            .map(|&j| {
                (0..p.head_dim).map(|c| at(&q, query, c) * at(&k, j, c)).sum::<f64>()
                    * f64::from(p.softmax_scale)
            })
            .collect();
        let sum: f64 = scores.iter().map(|s| s.exp()).sum();
        let out = (0..p.head_dim)
            .map(|c| keys.iter().zip(&scores).map(|(&j, s)| s.exp() / sum * at(&v, j, c)).sum())
            .collect();
        (out, sum.ln())
    }

    #[test]
    fn a_mask_on_a_ragged_grid_selects_the_tokens_of_its_patches() {
        let qkv = problem("video:1,9,20,2,8,f32");
        let grid = Grid { t: 1, h: 9, w: 20 };
        let order = TokenOrder::fractal(grid, 64).unwrap();
        let layout = Arc::clone(order.layout());
        let mask = BlockMask::from_fn(2, Arc::clone(&layout), layout, |head, i, j| {
            (i + j + head).is_multiple_of(2) && i != 4
        });
        let ordered = OrderedMask { mask: &mask, q_order: &order, kv_order: &order };
        let sample = Arc::new(RowSample::all(grid.tokens()));
        let scale = qkv.problem().softmax_scale;
        let got = attention(&qkv, scale, Some(ordered), &sample, Arithmetic::Float64);
        let block = |token: usize| token / 20 / 8 * 3 + token % 20 / 8;
        for head in 0..2 {
            for query in [0, 7, 8, 19, 160, 175, 179, 100] {
                let keys: Vec<usize> =
                    (0..180).filter(|&j| mask.row(head, block(query)).contains(&(block(j) as i32))).collect();
                let at = head * 180 + query;
                if keys.is_empty() {
                    assert_eq!(got.lse[at], f64::NEG_INFINITY);
                    assert!(got.out[at * 8..][..8].iter().all(|&x| x == 0.0));
                    continue;
                }
                let (out, lse) = row(&qkv, head, query, &keys);
                assert!((got.lse[at] - lse).abs() < 1e-12);
                assert!(got.out[at * 8..][..8].iter().zip(&out).all(|(a, b)| (a - b).abs() < 1e-12));
            }
        }
    }

    #[test]
    fn sampled_rows_equal_those_of_the_whole() {
        let qkv = problem("video:2,16,40,1,16,bf16");
        let order = TokenOrder::fractal(Grid { t: 2, h: 16, w: 40 }, 128).unwrap();
        let scale = qkv.problem().softmax_scale;
        let all = attention(&qkv, scale, None, &Arc::new(RowSample::all(1280)), Arithmetic::Float64);
        let sample = Arc::new(RowSample::blocks(&order, 200, 5));
        assert!((200..328).contains(&sample.rows().len()), "{}", sample.rows().len());
        let some = attention(&qkv, scale, None, &sample, Arithmetic::Float64);
        for (i, &token) in sample.rows().iter().enumerate() {
            assert_eq!(some.out[i * 16..][..16], all.out[token as usize * 16..][..16]);
        }
    }

    #[test]
    fn a_plain_run_is_near_but_not_exact() {
        let qkv = problem("video:1,16,16,1,32,bf16");
        let sample = Arc::new(RowSample::all(256));
        let scale = qkv.problem().softmax_scale;
        let exact = attention(&qkv, scale, None, &sample, Arithmetic::Float64);
        let error = |probabilities| {
            let plain = attention(&qkv, scale, None, &sample, Arithmetic::Plain { probabilities });
            let pairs = plain.out.iter().copied().zip(exact.out.iter().copied());
            crate::error_measures::ErrorMeasures::of(pairs).rel_rmse
        };
        let (f32_error, bf16_error) = (error(Dtype::F32), error(Dtype::Bf16));
        assert!(f32_error > 1e-9 && f32_error < 1e-5, "{f32_error}");
        assert!(bf16_error > 10.0 * f32_error && bf16_error < 2f64.powi(-8), "{bf16_error}");
    }
}
