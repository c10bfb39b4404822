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
        let w = if pairs { (-8f64).exp2() } else { 0.0 };
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

#[test]
fn tiles_split_and_merge_blocks() {
    for (block_m, block_n) in [(16, 8), (16, 2048), (32, 24), (48, 96), (64, 128), (64, 200), (512, 64)] {
        let tile = Tile { block_m, block_n };
        check(Case { tile, ..CASE });
        check(Case { tile, one_in: 0, ..CASE });
    }
}

#[test]
fn ragged_blocks_are_computed_anywhere() {
    let layouts: [(&[usize], &[usize]); 5] = [
        (&[1], &[1]),
        (&[64, 40, 64, 40, 40, 25], &[64, 40, 64, 40, 40, 25]),
        (&[5, 3, 1, 17, 2], &[7, 1, 1, 3, 5, 9, 2, 31]),
        (&[0, 30, 0], &[0, 13, 0, 8]),
        (&[128, 96], &[32, 32, 20, 32]),
    ];
    for (q_lengths, kv_lengths) in layouts {
        for one_in in [1, 2, 3] {
            let tile = Tile { block_m: 32, block_n: 40 };
            check(Case { q_lengths, kv_lengths, one_in, tile, head_dim: 24, heads: 3, ..CASE });
        }
    }
}

#[test]
fn rows_without_keys_are_zero_with_lse_minus_infinity() {
    // Every third query block of the two heads lists nothing: 7 i + 3 j + h = 0 mod 3 is free of j.
    check(Case { q_lengths: &[20, 20, 20, 20], one_in: 3, ..CASE });
    check(Case { kv_lengths: &[], one_in: 0, ..CASE });
    check(Case { kv_lengths: &[], one_in: 1, ..CASE });
}

#[test]
fn large_scores_do_not_overflow() {
    check(Case { magnitude: 100.0, ..CASE });
    check(Case { magnitude: 100.0, one_in: 0, tile: Tile { block_m: 64, block_n: 8 }, ..CASE });
    check(Case { magnitude: 2000.0, head_dim: 128, ..CASE });
}

#[test]
fn any_scale_is_computed() {
    let shape = Shape { batch_heads: 1, seqlen_q: 40, seqlen_k: 70, head_dim: 16 };
    for isa in Isa::available() {
        for scale in [0.0, -0.0, -0.7, 1e-30, 3.0] {
            let mut inputs = Inputs::<bf16>::new(shape, 1.0, 5);
            inputs.softmax_scale = scale;
            let (out, lse) = inputs.run(isa, 1, Pattern::Dense, CASE.tile);
            inputs.verify(isa, None, &out, &lse, &format!("bf16 {isa:?} scale {scale}"));
            let mut inputs = Inputs::<f32>::new(shape, 1.0, 5);
            inputs.softmax_scale = scale;
            let (out, lse) = inputs.run(isa, 1, Pattern::Dense, CASE.tile);
            inputs.verify(isa, None, &out, &lse, &format!("f32 {isa:?} scale {scale}"));
        }
    }
}

/// Keys whose score is -inf weigh nothing, also when a whole first tile of them comes before any other.
fn scores_of_minus_infinity<T: Element>(isa: Isa) {
    let (d, seqlen_k, masked) = (8, 80, 40);
    let shape = Shape { batch_heads: 1, seqlen_q: 20, seqlen_k, head_dim: d };
    let mut inputs = Inputs::<T>::new(shape, 1.0, 9);
    inputs.q.iter_mut().step_by(d).for_each(|q| *q = T::from_f32(1.0));
    let all = inputs.clone();
    inputs.k[..masked * d].iter_mut().step_by(d).for_each(|k| *k = T::from_f32(f32::NEG_INFINITY));
    let tile = Tile { block_m: 32, block_n: 16 };
    let (out, lse) = inputs.run(isa, 1, Pattern::Dense, tile);
    let lists = Lists::new(1, &[20], &[masked, seqlen_k - masked], |_, _, j| j == 1);
    all.verify(isa, Some(&lists), &out, &lse, &format!("{isa:?} -inf"));

    inputs.k.iter_mut().step_by(d).for_each(|k| *k = T::from_f32(f32::NEG_INFINITY));
    let (out, lse) = inputs.run(isa, 1, Pattern::Dense, tile);
    assert!(out.iter().all(|&x| x == 0.0) && lse.iter().all(|&x| x == f32::NEG_INFINITY), "{isa:?}");
}

#[test]
fn scores_of_minus_infinity_weigh_nothing() {
    for isa in Isa::available() {
        scores_of_minus_infinity::<f32>(isa);
        scores_of_minus_infinity::<f16>(isa);
        scores_of_minus_infinity::<bf16>(isa);
    }
}

#[test]
fn nan_in_a_listed_block_reaches_the_output() {
    let shape = Shape { batch_heads: 1, seqlen_q: 3, seqlen_k: 30, head_dim: 8 };
    for isa in Isa::available() {
        let mut inputs = Inputs::<f32>::new(shape, 1.0, 1);
        inputs.k[100] = f32::NAN;
        let (out, lse) = inputs.run(isa, 1, Pattern::Dense, CASE.tile);
        assert!(out.iter().chain(&lse).all(|x| x.is_nan()), "{isa:?}");
    }
}

#[test]
fn full_lists_give_the_bits_of_dense() {
    let shape = Shape { batch_heads: 2, seqlen_q: 150, seqlen_k: 192, head_dim: 40 };
    let lists = Lists::new(2, &[64, 64, 22], &[64, 64, 64], |_, _, _| true);
    for isa in Isa::available() {
        let inputs = Inputs::<bf16>::new(shape, 1.0, 2);
        let dense = inputs.run(isa, 2, Pattern::Dense, CASE.tile);
        assert_eq!(dense, inputs.run(isa, 2, lists.pattern(), CASE.tile), "{isa:?}");
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let shape = Shape { batch_heads: 3, seqlen_q: 150, seqlen_k: 175, head_dim: 64 };
    let lists = Lists::new(3, &[64, 64, 22], &[64, 40, 64, 7], |h, i, j| (i + j + h) % 2 == 0);
    for isa in Isa::available() {
        let inputs = Inputs::<bf16>::new(shape, 1.0, 3);
        let one = inputs.run(isa, 1, lists.pattern(), CASE.tile);
        for threads in [2, 3, 8] {
            assert_eq!(one, inputs.run(isa, threads, lists.pattern(), CASE.tile), "{isa:?} {threads}");
        }
    }
}

#[test]
fn an_executor_can_be_used_again_and_at_once() {
    let shape = Shape { batch_heads: 2, seqlen_q: 64, seqlen_k: 64, head_dim: 64 };
    let executor = Executor::new(2, Isa::detect(), false).unwrap();
    let inputs = Inputs::<f16>::new(shape, 1.0, 4);
    let run = || {
        let Inputs { shape, q, k, v, softmax_scale } = &inputs;
        let (pattern, tile) = (Pattern::Dense, CASE.tile);
        let args = AttentionArgs { shape: *shape, q, k, v, softmax_scale: *softmax_scale, pattern, tile };
        let (mut out, mut lse) = (vec![f32::NAN; q.len()], vec![f32::NAN; 128]);
        attention_forward(&executor, &args, &mut out, &mut lse).unwrap();
        (out, lse)
    };
    let expected = run();
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..20).map(|_| run()).collect::<Vec<_>>())).collect();
        for thread in threads {
            assert!(thread.join().unwrap().iter().all(|got| *got == expected));
        }
    });
}

/// Runs a launch of zeros after `change`, and returns the message of its error.
fn refusal(change: impl FnOnce(&mut Lists, &mut AttentionArgs<'_, f32>, &mut Vec<f32>)) -> String {
    let shape = Shape { batch_heads: 1, seqlen_q: 64, seqlen_k: 64, head_dim: 8 };
    let zeros = [0.0; 512];
    let mut lists = Lists::new(1, &[32, 32], &[32, 32], |_, _, _| true);
    let (pattern, tile) = (Pattern::Dense, Tile { block_m: 32, block_n: 64 });
    let mut args =
        AttentionArgs { shape, q: &zeros, k: &zeros, v: &zeros, softmax_scale: 1.0, pattern, tile };
    let mut out = vec![0.0; 512];
    change(&mut lists, &mut args, &mut out);
    args.pattern = lists.pattern();
    let executor = Executor::new(1, Isa::Portable, false).unwrap();
    attention_forward(&executor, &args, &mut out, &mut [0.0; 64]).unwrap_err().to_string()
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let expect = |got: String, part: &str| assert!(got.contains(part), "{got:?} lacks {part:?}");
    expect(refusal(|_, args, _| args.q = &args.q[1..]), "q: expected 512 elements, got 511");
    expect(refusal(|_, args, _| args.k = &[]), "k: expected 512 elements, got 0");
    expect(refusal(|_, args, _| args.v = &args.v[3..]), "v: expected 512 elements, got 509");
    expect(refusal(|_, _, out| out.truncate(9)), "out: expected 512 elements, got 9");
    expect(refusal(|_, args, _| args.shape.seqlen_q = usize::MAX), "more elements than can be addressed");
    expect(refusal(|_, args, _| args.softmax_scale = f32::NAN), "softmax_scale = NaN: must be finite");
    expect(refusal(|_, args, _| args.tile.block_m = 20), "block_m = 20: must be a multiple of the portable");
    expect(refusal(|_, args, _| args.tile.block_n = 4), "block_n = 4: must be a multiple of 8");
    expect(refusal(|lists, _, _| lists.q_starts[2] = 63), "q_starts = 0..63: must span 0..64");
    expect(refusal(|lists, _, _| lists.kv_starts[1] = 65), "kv_starts = 65, 64 at block 1: must not descend");
    expect(refusal(|lists, _, _| lists.kv_starts.clear()), "kv_starts: expected 1 elements, got 0");
    expect(refusal(|lists, _, _| lists.counts[1] = 4), "kv_num_blocks = 4: row 1");
    expect(refusal(|lists, _, _| lists.counts[1] = -1), "kv_num_blocks = -1: row 1");
    expect(refusal(|lists, _, _| lists.indices[1] = 2), "kv_indices = 2: row 0");
    expect(refusal(|lists, _, _| lists.indices[0] = -1), "kv_indices = -1: row 0");
    expect(refusal(|lists, _, _| lists.indices[1] = 0), "kv_indices = 0: row 0 must list ascending");
    expect(refusal(|lists, _, _| lists.max_blocks = 7), "kv_indices: expected 14 elements, got 6");
}

#[test]
fn tiles_are_refused_with_a_reason() {
    let refused = |tile: (usize, usize), q_block, kv_block, head_dim, part: &str| {
        let tile = Tile { block_m: tile.0, block_n: tile.1 };
        let got = check_tile(tile, q_block, kv_block, head_dim, Isa::Avx512).unwrap_err().to_string();
        assert!(got.contains(part), "{got:?} lacks {part:?}");
    };
    refused((24, 64), None, None, 64, "multiple of the avx512 vector width 16");
    refused((0, 64), None, None, 64, "block_m = 0");
    refused((1024, 64), None, None, 64, "up to 512");
    refused((64, 4096), None, None, 64, "up to 2048");
    refused((128, 64), Some(64), None, 64, "must not exceed the query block of 64");
    refused((64, 64), Some(0), None, 64, "q_block = 0");
    refused((64, 64), None, Some(0), 64, "kv_block = 0");
    refused((64, 64), None, None, 0, "head_dim = 0");
    refused((512, 64), None, None, 1 << 20, "to bound a thread's memory");
    for (block_m, q_block) in [(64, Some(64)), (48, Some(40)), (512, None)] {
        let tile = Tile { block_m, block_n: 2048 };
        assert_eq!(check_tile(tile, q_block, Some(1), 128, Isa::Avx512), Ok(()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn random_lists_and_layouts_are_computed(
        q_lengths in prop::collection::vec(0usize..70, 1..5),
        kv_lengths in prop::collection::vec(0usize..70, 1..7),
        heads in 1usize..4,
        head_dim in 1usize..70,
        vectors in 1usize..6,
        steps in 1usize..20,
        seed: u64,
    ) {
        let (seqlen_q, seqlen_k) = (q_lengths.iter().sum(), kv_lengths.iter().sum());
        let shape = Shape { batch_heads: heads, seqlen_q, seqlen_k, head_dim };
        let tile = Tile { block_m: 16 * vectors, block_n: 8 * steps };
        for isa in Isa::available() {
            let mut random = Random(seed);
            let lists = Lists::new(heads, &q_lengths, &kv_lengths, |_, _, _| random.below(3) > 0);
            let mut f32s = Inputs::<f32>::new(shape, 1.0, seed);
            f32s.poison(&lists);
            let (out, lse) = f32s.run(isa, 2, lists.pattern(), tile);
            f32s.verify(isa, Some(&lists), &out, &lse, "f32");
            let mut bf16s = Inputs::<bf16>::new(shape, 1.0, seed);
            bf16s.poison(&lists);
            let (out, lse) = bf16s.run(isa, 2, lists.pattern(), tile);
            bf16s.verify(isa, Some(&lists), &out, &lse, "bf16");
        }
    }
}

#[test]
fn only_listed_blocks_are_packed_and_every_tile_is_planned_once() {
    let lists = Lists::new(2, &[64, 22], &[64, 130, 7, 9], |h, i, j| j == h || (i == 1 && j == 3));
    let shape = Shape { batch_heads: 2, seqlen_q: 86, seqlen_k: 210, head_dim: 8 };
    let Inputs { q, k, v, .. } = Inputs::<bf16>::new(shape, 1.0, 6);
    let (pattern, tile) = (lists.pattern(), Tile { block_m: 32, block_n: 64 });
    let args = AttentionArgs { shape, q: &q, k: &k, v: &v, softmax_scale: 1.0, pattern, tile };
    for word in [1, 2] {
        let plan = plan::Plan::new(&args, word);
        let packed: Vec<_> =
            plan.waves.iter().flat_map(|w| &w.chunks).map(|c| (c.head, c.start, c.len)).collect();
        let expected = [(0, 0, 64), (0, 201, 9), (1, 64, 64), (1, 128, 64), (1, 192, 2), (1, 201, 9)];
        assert_eq!(packed, expected, "words of {word}");
        let mut tiles: Vec<_> =
            plan.waves.iter().flat_map(|w| &w.tiles).map(|t| (t.head, t.start, t.len)).collect();
        tiles.sort_unstable();
        assert_eq!(tiles, [(0, 0, 32), (0, 32, 32), (0, 64, 22), (1, 0, 32), (1, 32, 32), (1, 64, 22)]);
    }
}
