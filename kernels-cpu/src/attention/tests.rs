//! Every instruction set, element type and layout against attention in f64.

use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use crate::Isa;

/// A reproducible stream of numbers (splitmix64).
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// Uniform in [-1, 1).
    fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
    fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }
}

/// Block layout and lists of a problem.
#[derive(Debug, Clone)]
struct Lists {
    q_starts: Vec<u32>,
    kv_starts: Vec<u32>,
    counts: Vec<i32>,
    indices: Vec<i32>,
    max_blocks: usize,
}

fn starts(lengths: &[usize]) -> Vec<u32> {
    let ends = lengths.iter().scan(0, |end, &n| {
        *end += n as u32;
        Some(*end)
    });
    std::iter::once(0).chain(ends).collect()
}

impl Lists {
    /// Lists block `j` of row `i` where `keep(head, i, j)`. What stands past the counts points nowhere.
    fn new(
        heads: usize,
        q_lengths: &[usize],
        kv_lengths: &[usize],
        mut keep: impl FnMut(usize, usize, usize) -> bool,
    ) -> Self {
        let max_blocks = kv_lengths.len() + 1;
        let (mut counts, mut indices) = (vec![], vec![]);
        for h in 0..heads {
            for i in 0..q_lengths.len() {
                let row: Vec<i32> =
                    (0..kv_lengths.len()).filter(|&j| keep(h, i, j)).map(|j| j as i32).collect();
                counts.push(row.len() as i32);
                indices.extend(row.iter().copied().chain(std::iter::repeat(i32::MIN)).take(max_blocks));
            }
        }
        Self { q_starts: starts(q_lengths), kv_starts: starts(kv_lengths), counts, indices, max_blocks }
    }

    fn pattern(&self) -> Pattern<'_> {
        Pattern::Blocks(BlockLists {
            q_starts: &self.q_starts,
            kv_starts: &self.kv_starts,
            kv_num_blocks: &self.counts,
            kv_indices: &self.indices,
            max_blocks: self.max_blocks,
        })
    }

    fn listed(&self, head: usize, q_block: usize) -> &[i32] {
        let row = head * (self.q_starts.len() - 1) + q_block;
        &self.indices[row * self.max_blocks..][..self.counts[row] as usize]
    }

    /// Keys of query `i`.
    fn keys(&self, head: usize, i: usize) -> Vec<usize> {
        let block = self.q_starts.iter().rposition(|&s| s as usize <= i).unwrap();
        let spans = self
            .listed(head, block)
            .iter()
            .map(|&b| (self.kv_starts[b as usize], self.kv_starts[b as usize + 1]));
        spans.flat_map(|(a, b)| a as usize..b as usize).collect()
    }
}

/// Inputs of a launch.
#[derive(Debug, Clone)]
struct Inputs<T> {
    shape: Shape,
    q: Vec<T>,
    k: Vec<T>,
    v: Vec<T>,
    softmax_scale: f32,
}

impl<T: Element> Inputs<T> {
    fn new(shape: Shape, magnitude: f32, seed: u64) -> Self {
        let mut random = Random(seed);
        let mut tensor = |tokens: usize, magnitude: f32| -> Vec<T> {
            (0..shape.batch_heads * tokens * shape.head_dim)
                .map(|_| T::from_f32(magnitude * 1.7 * random.unit()))
                .collect()
        };
        let (q, k) = (tensor(shape.seqlen_q, magnitude), tensor(shape.seqlen_k, 1.0));
        let v = tensor(shape.seqlen_k, 1.0);
        Self { shape, q, k, v, softmax_scale: 1.0 / (shape.head_dim as f32).sqrt() }
    }

    fn run(&self, isa: Isa, threads: usize, pattern: Pattern<'_>, tile: Tile) -> (Vec<f32>, Vec<f32>) {
        let executor = Executor::new(threads, isa, false).unwrap();
        let Inputs { shape, q, k, v, softmax_scale } = self;
        let args = AttentionArgs { shape: *shape, q, k, v, softmax_scale: *softmax_scale, pattern, tile };
        let mut out = vec![f32::NAN; q.len()];
        let mut lse = vec![f32::NAN; shape.batch_heads * shape.seqlen_q];
        attention_forward(&executor, &args, &mut out, &mut lse).unwrap();
        (out, lse)
    }

    /// Fills keys and values of blocks that no row of a head lists with NaN.
    fn poison(&mut self, lists: &Lists) {
        let d = self.shape.head_dim;
        let q_blocks = lists.q_starts.len() - 1;
        for h in 0..self.shape.batch_heads {
            for b in 0..lists.kv_starts.len() - 1 {
                if (0..q_blocks).any(|i| lists.listed(h, i).contains(&(b as i32))) {
                    continue;
                }
                let first = (h * self.shape.seqlen_k + lists.kv_starts[b] as usize) * d;
                let last = (h * self.shape.seqlen_k + lists.kv_starts[b + 1] as usize) * d;
                self.k[first..last].fill(T::from_f32(f32::NAN));
                self.v[first..last].fill(T::from_f32(f32::NAN));
            }
        }
    }

    /// Compares with attention in f64, within bounds that follow from the roundings a kernel makes.
    ///
    /// With unit roundoff u = 2^-24 and D channels, a score computed in f32 is off by at most
    /// `(D + 2) u * scale * sum |q k|`, and its exponent by another `3 u |score|` (factor, product, maximum). All
    /// weights of a row are off by at most the largest such error, `e` (relative, to first order doubled
    /// because numerator and denominator carry it), plus `3 u` of exp2 for the weight and each rescaling, plus
    /// `n u` of summing n keys, plus the rounding of the weight itself to the type it is multiplied in (`w`).
    /// Weights below 2^-126 count as zero.
    fn verify(&self, isa: Isa, lists: Option<&Lists>, out: &[f32], lse: &[f32], what: &str) {
        let Shape { batch_heads, seqlen_q, seqlen_k, head_dim: d } = self.shape;
        let u = (-24f64).exp2();
        let pairs = isa == Isa::Avx512Bf16 && std::any::TypeId::of::<T>() == std::any::TypeId::of::<bf16>();
        let w = if pairs { (-9f64).exp2() } else { 0.0 };
        let wide = |x: &[T]| -> Vec<f64> { x.iter().map(|x| f64::from(x.to_f32())).collect() };
        let (q, k, v) = (wide(&self.q), wide(&self.k), wide(&self.v));
        let scale = f64::from(self.softmax_scale);
        for h in 0..batch_heads {
            for i in 0..seqlen_q {
                let row = h * seqlen_q + i;
                let (out, lse) = (&out[row * d..][..d], f64::from(lse[row]));
                let keys = lists.map_or_else(|| (0..seqlen_k).collect(), |l| l.keys(h, i));
                if keys.is_empty() {
                    assert!(out.iter().all(|&x| x == 0.0) && lse == f64::NEG_INFINITY, "{what}: row {row}");
                    continue;
                }
                let q = &q[row * d..][..d];
                let mut scores = Vec::with_capacity(keys.len());
                let mut error = 0f64;
                for &j in &keys {
                    let k = &k[(h * seqlen_k + j) * d..][..d];
                    let s: f64 = q.iter().zip(k).map(|(q, k)| q * k).sum();
                    let magnitude: f64 = q.iter().zip(k).map(|(q, k)| (q * k).abs()).sum();
                    scores.push(s * scale);
                    error = error.max(((d as f64 + 2.0) * magnitude + 3.0 * s.abs()) * scale.abs() * u);
                }
                let m = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - m).exp()).collect();
                let sum: f64 = weights.iter().sum();
                let n = keys.len() as f64;
                let sum_error = error + (n + 6.0) * u;
                let lse_exact = m + sum.ln();
                let lse_bound = sum_error + 2.0 * u * (m.abs() + sum.ln() + 1.0);
                assert!(
                    (lse - lse_exact).abs() <= lse_bound,
                    "{what}: row {row}: lse {lse}, exact {lse_exact}"
                );
                for c in 0..d {
                    let values = keys.iter().map(|&j| v[(h * seqlen_k + j) * d + c]);
                    let (exact, magnitude) = weights
                        .iter()
                        .zip(values)
                        .fold((0.0, 0.0), |(e, a), (p, v)| (e + p * v / sum, a + p * v.abs() / sum));
                    let bound = magnitude * (2.0 * sum_error + w) + n * f64::from(f32::MIN_POSITIVE);
                    let got = f64::from(out[c]);
                    assert!(
                        (got - exact).abs() <= bound,
                        "{what}: row {row}, channel {c}: {got}, exact {exact}, bound {bound}"
                    );
                }
            }
        }
    }
}

/// What a test varies.
#[derive(Debug, Clone, Copy)]
struct Case<'a> {
    heads: usize,
    head_dim: usize,
    q_lengths: &'a [usize],
    kv_lengths: &'a [usize],
    /// Block `j` of row `i` is kept where `(i * 7 + j * 3 + head) % one_in == 0`; 0: dense.
    one_in: usize,
    tile: Tile,
    magnitude: f32,
}

const CASE: Case<'static> = Case {
    heads: 2,
    head_dim: 64,
    q_lengths: &[64, 64, 22],
    kv_lengths: &[64, 40, 64, 7],
    one_in: 2,
    tile: Tile { block_m: 64, block_n: 64 },
    magnitude: 1.0,
};

fn check_typed<T: Element>(case: Case<'_>, isa: Isa) {
    let Case { heads, head_dim, q_lengths, kv_lengths, one_in, tile, magnitude } = case;
    let (seqlen_q, seqlen_k) = (q_lengths.iter().sum(), kv_lengths.iter().sum());
    let shape = Shape { batch_heads: heads, seqlen_q, seqlen_k, head_dim };
    let mut inputs = Inputs::<T>::new(shape, magnitude, head_dim as u64);
    let lists = (one_in > 0)
        .then(|| Lists::new(heads, q_lengths, kv_lengths, |h, i, j| (i * 7 + j * 3 + h) % one_in == 0));
    if let Some(lists) = &lists {
        inputs.poison(lists);
    }
    let pattern = lists.as_ref().map_or(Pattern::Dense, Lists::pattern);
    let (out, lse) = inputs.run(isa, 2, pattern, tile);
    let what = format!("{} {isa:?} {case:?}", std::any::type_name::<T>());
    inputs.verify(isa, lists.as_ref(), &out, &lse, &what);
}

/// Checks a case for every element type on every instruction set this CPU has.
fn check(case: Case<'_>) {
    for isa in Isa::available() {
        check_typed::<f32>(case, isa);
        check_typed::<f16>(case, isa);
        check_typed::<bf16>(case, isa);
    }
}

#[test]
fn every_head_dim_is_computed() {
    for head_dim in [1, 2, 3, 5, 8, 16, 40, 64, 80, 96, 128, 192, 256] {
        check(Case { head_dim, ..CASE });
        check(Case { head_dim, one_in: 0, ..CASE });
    }
}
