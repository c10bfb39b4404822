//! Mask building against plain float64 with a real stable sort, on every instruction set of this CPU.

use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use crate::{Element, Executor, Isa};

/// Rounding of one f32 operation.
const UNIT: f64 = 1.0 / (1u64 << 24) as f64;

fn executors() -> Vec<Executor> {
    Isa::available().into_iter().map(|isa| Executor::new(2, isa, false).unwrap()).collect()
}

/// Returns seeded numbers in -1..1 (splitmix64).
fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn bit(bits: &[u64], j: usize) -> bool {
    bits[j / 64] >> (j % 64) & 1 == 1
}

/// One selection problem with a single head or several.
#[derive(Debug, Clone)]
struct Case {
    heads: usize,
    dim: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    scale: f32,
    mass: Option<f32>,
    always: Option<Vec<u64>>,
    allowed: Option<Vec<u64>>,
}

impl Case {
    fn new(q_blocks: usize, kv_blocks: usize, mass: f32) -> Self {
        let (heads, dim) = (2, 20);
        let q = noise(1, heads * q_blocks * dim);
        let k = noise(2, heads * kv_blocks * dim);
        Self { heads, dim, q, k, scale: 1.0, mass: Some(mass), always: None, allowed: None }
    }

    fn kv_blocks(&self) -> usize {
        self.k.len() / (self.heads * self.dim)
    }

    fn rows(&self) -> usize {
        self.q.len() / self.dim
    }

    fn words(&self) -> usize {
        self.kv_blocks().div_ceil(64)
    }

    fn args(&self) -> SelectArgs<'_> {
        SelectArgs {
            batch_heads: self.heads,
            head_dim: self.dim,
            pooled_q: &self.q,
            pooled_k: &self.k,
            softmax_scale: self.scale,
            mass: self.mass,
            always: self.always.as_deref(),
            allowed: self.allowed.as_deref(),
        }
    }

    /// Selects, starting from garbage in the outputs.
    fn select(&self, executor: &Executor) -> Vec<u64> {
        let mut bitmap = vec![0xdead_beef_dead_beef; self.rows() * self.words()];
        let mut counts = vec![-1; self.rows()];
        select_blocks(executor, &self.args(), &mut bitmap, &mut counts).unwrap();
        for (bits, count) in bitmap.chunks(self.words()).zip(counts) {
            assert_eq!(count as u32, bits.iter().map(|w| w.count_ones()).sum::<u32>());
            assert!(
                (self.kv_blocks()..self.words() * 64).all(|j| !bit(bits, j)),
                "a bit past the last block"
            );
        }
        bitmap
    }

    /// Compares a bitmap with float64 and a stable sort; returns how many blocks rounding left open.
    fn check(&self, bitmap: &[u64]) -> usize {
        let (n, d, words) = (self.kv_blocks(), self.dim, self.words());
        let q_blocks = self.rows() / self.heads;
        let mut open = 0;
        for (row, got) in bitmap.chunks(words).enumerate() {
            let static_bits = |bits: &Option<Vec<u64>>, j: usize, default: bool| {
                bits.as_ref().map_or(default, |b| bit(&b[row % q_blocks * words..][..words], j))
            };
            let allowed: Vec<usize> = (0..n).filter(|&j| static_bits(&self.allowed, j, true)).collect();
            assert!(
                allowed.is_empty() || self.mass.is_none() || got.iter().any(|&w| w != 0),
                "row {row} is empty"
            );
            let q = &self.q[row * d..][..d];
            let key = |j: usize| &self.k[(row / q_blocks * n + j) * d..][..d];
            let products = |j: usize| q.iter().zip(key(j)).map(|(&a, &b)| f64::from(a) * f64::from(b));
            let scale = f64::from(self.scale);
            let score = |j: usize| scale * products(j).sum::<f64>();

            let max = allowed.iter().map(|&j| score(j)).fold(f64::NEG_INFINITY, f64::max);
            let mut p: Vec<(f64, usize)> = allowed.iter().map(|&j| ((score(j) - max).exp(), j)).collect();
            let total: f64 = p.iter().map(|p| p.0).sum();
            p.iter_mut().for_each(|p| p.0 /= total);
            let cut = self.mass.map(|mass| 1.0 - f64::from(mass));

            // A score rounds at each of its d multiply-adds and the scaling; its maximum does as well; then the
            // difference, the product with log2(e) and the exponential round.
            let magnitude = allowed
                .iter()
                .map(|&j| scale.abs() * products(j).map(f64::abs).sum::<f64>())
                .fold(0.0, f64::max);
            let eps = (2.0 * (d + 2) as f64 + 8.0) * UNIT * magnitude + 8.0 * UNIT;
            // Bound of the sums, see `VECTORS_PER_SUM`, of the row and of its prefix.
            let slack = 4.0 * eps + 2e-6;

            let mut sorted = p.clone();
            sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mut sum = 0.0;
            let mut kept = vec![false; n];
            for (i, &(x, j)) in sorted.iter().enumerate() {
                sum += x;
                kept[j] = cut.is_some_and(|cut| sum >= cut || i == sorted.len() - 1);
            }
            for &(x, j) in &p {
                let always = static_bits(&self.always, j, false);
                let expected = kept[j] || always;
                if bit(got, j) == expected {
                    continue;
                }
                assert!(!always, "row {row} lacks block {j}, which is always kept");
                // Which blocks come before j whatever the rounding, and which may.
                let same = |i: usize| key(i) == key(j);
                let before =
                    |&&(y, i): &&(f64, usize)| if same(i) { i <= j } else { y < x * (1.0 - 2.0 * eps) };
                let maybe =
                    |&&(y, i): &&(f64, usize)| if same(i) { i <= j } else { y <= x * (1.0 + 2.0 * eps) };
                let low: f64 = p.iter().filter(before).map(|p| p.0).sum();
                let high: f64 = p.iter().filter(maybe).map(|p| p.0).sum();
                let cut = cut.expect("without a threshold nothing is open");
                assert!(
                    low < cut + slack && high > cut - slack,
                    "row {row}, block {j}: expected {expected}, cumulative {low}..{high}, cut {cut}, slack {slack}"
                );
                open += 1;
            }
            assert!(
                (0..n).all(|j| allowed.binary_search(&j).is_ok() || !bit(got, j)),
                "a forbidden block in {row}"
            );
        }
        open
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let bits = |rows: usize, words: usize| proptest::collection::vec(any::<u64>(), rows * words);
    let mass = prop_oneof![Just(None), Just(Some(0.0)), Just(Some(1.0)), (0.0..=1.0f32).prop_map(Some)];
    (1..4usize, 1..70usize, 1..300usize, 1..70usize, any::<u64>(), mass, 0..5usize)
        .prop_flat_map(move |(heads, q_blocks, kv_blocks, dim, seed, mass, copies)| {
            let words = kv_blocks.div_ceil(64);
            let always = proptest::option::weighted(0.3, bits(q_blocks, words));
            let allowed = proptest::option::weighted(0.3, bits(q_blocks, words));
            (Just((heads, q_blocks, kv_blocks, dim, seed, mass, copies)), always, allowed, -4.0..8.0f32)
        })
        .prop_map(|((heads, q_blocks, kv_blocks, dim, seed, mass, copies), always, allowed, scale)| {
            let q = noise(seed, heads * q_blocks * dim);
            let mut k = noise(!seed, heads * kv_blocks * dim);
            // Equal keys: exact ties.
            for i in 0..kv_blocks * copies / 4 {
                let (from, to) = (i * 7 % kv_blocks, i * 13 % kv_blocks);
                k.copy_within(from * dim..(from + 1) * dim, to * dim);
            }
            Case { heads, dim, q, k, scale, mass, always, allowed }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn selections_differ_from_a_stable_sort_only_within_rounding(case in cases()) {
        for executor in executors() {
            case.check(&case.select(&executor));
        }
    }

    #[test]
    fn lists_hold_the_bits_in_order(rows in 1..40usize, words in 1..5usize, seed in any::<u64>(), spare in 0..9usize) {
        let bitmap: Vec<u64> =
            noise(seed, rows * words).iter().map(|x| u64::from(x.to_bits()).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        let expected: Vec<Vec<i32>> = bitmap
            .chunks(words)
            .map(|bits| (0..words * 64).filter(|&j| bit(bits, j)).map(|j| j as i32).collect())
            .collect();
        let max = expected.iter().map(Vec::len).max().unwrap().max(1) + spare;
        let mut lists = vec![-1; rows * max];
        expand_lists(&executors()[0], &bitmap, words, max, &mut lists).unwrap();
        for (list, mut row) in lists.chunks(max).zip(expected) {
            row.resize(max, 0);
            prop_assert_eq!(list, row);
        }
    }
}

#[test]
fn rounding_leaves_next_to_nothing_open() {
    for executor in executors() {
        for mass in [0.3, 0.5, 0.9] {
            let case = Case::new(100, 1000, mass);
            let open = case.check(&case.select(&executor));
            assert!(open <= 5, "{open} of {} blocks differ", 200 * 1000);
        }
    }
}

#[test]
fn of_equal_blocks_the_first_are_dropped() {
    for executor in executors() {
        for (mass, expected) in
            [(0.5, 0b1111_1000), (0.25, 0b1110_0000), (0.0, 0b1000_0000), (1.0, 0b1111_1111)]
        {
            let mut case = Case::new(3, 8, mass);
            case.k.fill(0.25);
            assert!(case.select(&executor).iter().all(|&bits| bits == expected), "mass {mass}");
        }
    }
}

#[test]
fn many_equal_blocks_are_cut_at_the_right_one() {
    for executor in executors() {
        let mut case = Case::new(1, 1024, 0.25);
        case.k.fill(1.0);
        for bits in case.select(&executor).chunks(16) {
            // Cumulative sums are (j + 1) / 1024: block 767 reaches 0.75.
            assert!((0..1024).all(|j| bit(bits, j) == (j >= 767)));
        }
    }
}

#[test]
fn no_mass_keeps_the_largest_and_full_mass_keeps_all() {
    for executor in executors() {
        let one = Case::new(30, 777, 0.0);
        assert_eq!(one.check(&one.select(&executor)), 0);
        assert!(
            one.select(&executor)
                .chunks(one.words())
                .all(|b| b.iter().map(|w| w.count_ones()).sum::<u32>() == 1)
        );
        let all = Case::new(30, 777, 1.0);
        assert!(all.select(&executor).chunks(13).all(|bits| (0..777).all(|j| bit(bits, j))));
    }
}

#[test]
fn probabilities_that_underflow_are_dropped() {
    for executor in executors() {
        for scale in [200.0, -200.0, 1e30] {
            let mut case = Case::new(40, 130, 0.999);
            case.scale = scale;
            case.k.iter_mut().step_by(3).for_each(|x| *x = -*x);
            let bitmap = case.select(&executor);
            if scale != 1e30 {
                case.check(&bitmap);
            }
            assert!(
                bitmap
                    .chunks(3)
                    .all(|bits| (1..60).contains(&bits.iter().map(|w| w.count_ones()).sum::<u32>()))
            );
        }
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let case = Case::new(301, 517, 0.6);
    for isa in Isa::available() {
        let one = case.select(&Executor::new(1, isa, false).unwrap());
        for threads in 2..5 {
            assert_eq!(one, case.select(&Executor::new(threads, isa, false).unwrap()), "{threads} threads");
        }
    }
}

#[test]
fn without_a_threshold_the_static_blocks_are_the_selection() {
    let executor = &executors()[0];
    let mut case = Case::new(2, 70, 0.5);
    case.mass = None;
    assert!(case.select(executor).iter().all(|&w| w == 0));
    case.always = Some(vec![0b1101, u64::MAX, 0, 0]);
    assert_eq!(case.select(executor), [0b1101, 0b11_1111, 0, 0, 0b1101, 0b11_1111, 0, 0]);
    case.allowed = Some(vec![0b0111, 0b1, u64::MAX, u64::MAX]);
    assert_eq!(case.select(executor), [0b0101, 0b1, 0, 0, 0b0101, 0b1, 0, 0]);
}

#[test]
fn a_row_that_may_attend_to_nothing_is_empty() {
    for executor in executors() {
        let mut case = Case::new(2, 70, 0.5);
        case.always = Some(vec![u64::MAX; 4]);
        case.allowed = Some(vec![0, 0, 0, 0b10_0000]);
        assert_eq!(case.select(&executor), [0, 0, 0, 0b10_0000, 0, 0, 0, 0b10_0000]);
    }
}

#[test]
fn a_row_with_a_score_that_is_not_finite_keeps_what_is_allowed() {
    for executor in executors() {
        for poison in [f32::NAN, f32::INFINITY] {
            let mut case = Case::new(3, 70, 0.2);
            case.q[case.dim] = poison; // row 1 of head 0
            let bitmap = case.select(&executor);
            assert_eq!(bitmap[2..4], [u64::MAX, 0b11_1111]);
            case.allowed = Some(vec![0b1011; 6]);
            assert_eq!(case.select(&executor)[2..4], [0b1011, 0b1011]);
            assert_ne!(bitmap[..2], [u64::MAX, 0b11_1111]);
        }
    }
}

#[test]
fn a_key_that_is_not_a_number_keeps_every_row_of_its_head_whole() {
    for executor in executors() {
        let mut case = Case::new(3, 70, 0.2);
        case.k[5 * case.dim] = f32::NAN; // block 5 of head 0
        let bitmap = case.select(&executor);
        assert_eq!(bitmap[..6], [u64::MAX, 0b11_1111].repeat(3));
        assert_ne!(bitmap[6..], [u64::MAX, 0b11_1111].repeat(3));
        // Where the block is not allowed, its score plays no part.
        case.allowed = Some([!(1 << 5), 0b11_1111].repeat(3));
        assert_ne!(case.select(&executor)[..2], [!(1 << 5), 0b11_1111]);
    }
}

fn check_pooling<T: Element>(executor: &Executor, dim: usize, starts: &[u32]) {
    let seqlen = *starts.last().unwrap() as usize;
    let x: Vec<T> = noise(dim as u64, 3 * seqlen * dim).into_iter().map(T::from_f32).collect();
    let blocks = starts.len() - 1;
    let mut pooled = vec![f32::NAN; 3 * blocks * dim];
    pool_blocks(executor, &x, dim, starts, &mut pooled).unwrap();
    for (i, &got) in pooled.iter().enumerate() {
        let (head, block, column) = (i / dim / blocks, i / dim % blocks, i % dim);
        let tokens = starts[block] as usize..starts[block + 1] as usize;
        let count = tokens.len() as f64;
        let values = tokens.map(|t| f64::from(x[(head * seqlen + t) * dim + column].to_f32()));
        let (sum, magnitude) = values.fold((0.0, 0.0), |(s, m), x| (s + x, m + x.abs()));
        let bound = count * UNIT * magnitude / count;
        assert!((f64::from(got) - sum / count).abs() <= bound, "{:?} dim {dim}: {got}", executor.isa());
    }
}

#[test]
fn pooling_averages_ragged_blocks_of_every_type_and_width() {
    let ragged = [0, 1, 2, 66, 67, 131, 200, 207];
    let regular: Vec<u32> = (0..=6).map(|b| b * 64).collect();
    for executor in executors() {
        for dim in [1, 7, 16, 40, 64, 80, 128, 200, 256] {
            for starts in [&ragged[..], &regular, &[0, 5]] {
                check_pooling::<f32>(&executor, dim, starts);
                check_pooling::<f16>(&executor, dim, starts);
                check_pooling::<bf16>(&executor, dim, starts);
            }
        }
    }
}

#[test]
fn blocks_of_one_token_are_copied() {
    let x = noise(9, 5 * 24);
    let mut pooled = vec![0.0; 5 * 24];
    for executor in executors() {
        pool_blocks(&executor, &x, 24, &[0, 1, 2, 3, 4, 5], &mut pooled).unwrap();
        assert_eq!(pooled, x);
    }
}

/// Asserts that a call fails with a message that starts with the name of the argument at fault.
fn refused<T: std::fmt::Debug>(result: Result<T, ArgumentError>, name: &str) {
    let message = result.unwrap_err().to_string();
    assert!(message.starts_with(name), "expected a complaint about {name}, got: {message}");
}

#[test]
fn pooling_names_the_argument_that_does_not_fit() {
    let executor = &executors()[0];
    let pool = |x: usize, dim: usize, starts: &[u32], pooled: usize| {
        pool_blocks(executor, &vec![0f32; x], dim, starts, &mut vec![0.0; pooled])
    };
    pool(48, 4, &[0, 2, 6], 16).unwrap();
    refused(pool(47, 4, &[0, 2, 6], 16), "x:");
    refused(pool(0, 4, &[0, 2, 6], 0), "x:");
    refused(pool(48, 4, &[0, 2, 6], 15), "pooled:");
    refused(pool(48, 0, &[0, 2, 6], 16), "head_dim");
    refused(pool(48, 4, &[6], 16), "starts:");
    refused(pool(48, 4, &[], 16), "starts:");
    refused(pool(48, 4, &[1, 2, 6], 16), "starts");
    refused(pool(48, 4, &[0, 6, 6], 16), "starts");
    refused(pool(48, 4, &[0, 9, 6], 16), "starts");
}

#[test]
fn selection_names_the_argument_that_does_not_fit() {
    let executor = &executors()[0];
    let bits = vec![0; 200];
    let run = |change: &dyn Fn(&mut SelectArgs<'_>), bitmap: usize, counts: usize| {
        let case = Case::new(5, 70, 0.5);
        let mut args = case.args();
        change(&mut args);
        select_blocks(executor, &args, &mut vec![0; bitmap], &mut vec![0; counts])
    };
    run(&|_| (), 20, 10).unwrap();
    refused(run(&|_| (), 19, 10), "bitmap:");
    refused(run(&|_| (), 20, 11), "counts:");
    refused(run(&|a| a.pooled_q = &a.pooled_q[1..], 20, 10), "pooled_q:");
    refused(run(&|a| a.pooled_k = &a.pooled_k[1..], 20, 10), "pooled_k:");
    refused(run(&|a| a.pooled_k = &[], 20, 10), "pooled_k:");
    refused(run(&|a| a.batch_heads = 0, 20, 10), "batch_heads");
    refused(run(&|a| a.head_dim = 0, 20, 10), "head_dim");
    for mass in [-0.1, 1.1, f32::NAN] {
        refused(run(&|a| a.mass = Some(mass), 20, 10), "mass");
    }
    refused(run(&|a| a.softmax_scale = f32::NAN, 20, 10), "softmax_scale");
    let case = Case::new(5, 70, 0.5);
    for len in [9, 11] {
        let call = |args: SelectArgs<'_>| select_blocks(executor, &args, &mut [0; 20], &mut [0; 10]);
        refused(call(SelectArgs { always: Some(&bits[..len]), ..case.args() }), "always:");
        refused(call(SelectArgs { allowed: Some(&bits[..len]), ..case.args() }), "allowed:");
    }
}

#[test]
fn lists_name_the_argument_that_does_not_fit() {
    let executor = &executors()[0];
    let expand = |bitmap: &[u64], words: usize, max: usize, len: usize| {
        expand_lists(executor, bitmap, words, max, &mut vec![0; len])
    };
    expand(&[0b111, 0, 0, 0b1], 2, 3, 6).unwrap();
    refused(expand(&[0b111, 0, 0, 0b1], 2, 2, 4), "max_blocks");
    refused(expand(&[0b111, 0, 0, 0b1], 2, 3, 7), "kv_indices:");
    refused(expand(&[0b111, 0, 0], 2, 3, 6), "bitmap:");
    refused(expand(&[], 2, 3, 0), "bitmap:");
    refused(expand(&[0], 0, 3, 3), "words_per_row");
    refused(expand(&[0], 1, 0, 0), "max_blocks");
}
