//! The catalogue: problems and masks on which every kernel has to be right.
//!
//! Small on purpose: what breaks kernels is edges, empty rows and extreme numbers, not size. Values are seeded by the
//! case's name, so that a case is the same whichever others run.

use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    BlockMask, Dtype, Grid, ParseError, Problem,
    backend::{Orders, Pattern},
    tensor::{Qkv, Tensor, TensorData},
    token_order::{Arrangement, AxisOrder},
    variant::MaskBlock,
};

/// Which tokens there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tokens {
    /// A video's, in fractal order: edge blocks are ragged where the block's side does not divide the grid.
    Video(Grid),
    /// Plain sequences of queries and keys.
    Plain(usize, usize),
}

/// What the numbers are like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Values {
    /// Normal numbers; queries and keys times the factor. Logits have its square as standard deviation.
    Normal(f32),
    /// Keys grow along the sequence: every tile raises the running maximum.
    Rising,
    /// Keys shrink along the sequence: the first tile has the maximum of all.
    Falling,
    /// Values times the factor: the output is as large or small.
    Scaled(f32),
    /// One key has almost all of the probability.
    OneKey,
}

/// Which blocks a mask keeps; `None` in [`Case::mask`] is a case for dense kernels alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Full,
    /// Full, scattered and nearly empty rows in turn; rows of the first head may be empty.
    Mixed,
    Checkerboard,
    Diagonal,
    /// The last block alone, which is the ragged one.
    Last,
    /// One block in one row of each head; every other row is empty.
    Single,
    /// First row only the last block, last row every second one, the rows between only the first.
    Corners,
}

impl Rule {
    fn keeps(self, [q_blocks, kv_blocks]: [usize; 2], [head, i, j]: [usize; 3]) -> bool {
        let (last_i, last_j) = (q_blocks - 1, kv_blocks - 1);
        match self {
            Self::Full => true,
            Self::Mixed => match i % 3 {
                0 => true,
                1 => (i + j + head) % 2 == 0,
                _ => head == 1 && j == i,
            },
            Self::Checkerboard => (i + j + head) % 2 == 0,
            Self::Diagonal => i.min(last_j) == j,
            Self::Last => j == last_j,
            Self::Single => i == (head + 1).min(last_i) && j == last_j,
            Self::Corners if i == 0 => j == last_j,
            Self::Corners if i == last_i => j % 2 == 1,
            Self::Corners => j == 0,
        }
    }
}

/// One problem with one mask.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) tokens: Tokens,
    pub(super) batch: usize,
    pub(super) heads: usize,
    pub(super) values: Values,
    pub(super) rule: Rule,
    /// Tokens of a block where no kernel's tile has a say: for reorder and selection.
    pub(super) block: usize,
    /// Orders of axes that tokens are sorted by, one for each of `batch * heads`; none: blocks are patches.
    pub(super) sorted_by: &'static [AxisOrder],
    /// Factor on the scores, if it is not the usual one.
    pub(super) scale: Option<f32>,
    /// Whether it says something about dense kernels that no other case says.
    pub(super) dense: bool,
    /// Whether every mask block is tried, and not that of 64 tokens alone.
    pub(super) all_blocks: bool,
}

const fn case(name: &'static str, tokens: Tokens, values: Values, rule: Rule) -> Case {
    Case {
        name,
        tokens,
        batch: 1,
        heads: 2,
        values,
        rule,
        block: 64,
        sorted_by: &[],
        scale: None,
        dense: false,
        all_blocks: false,
    }
}

const NORMAL: Values = Values::Normal(1.0);
// 8 divides neither 12 nor 19: edge blocks of every size are ragged.
const RAGGED: Tokens = Tokens::Video(Grid { t: 1, h: 12, w: 19 });

/// The cases of attention kernels.
#[rustfmt::skip]
pub(super) const ATTENTION: &[Case] = &[
    Case { dense: true, all_blocks: true, ..case("ragged-grid", RAGGED, NORMAL, Rule::Mixed) },
    Case { all_blocks: true, ..case("corners", RAGGED, NORMAL, Rule::Corners) },
    Case { dense: true, ..case("one-block", Tokens::Plain(40, 40), NORMAL, Rule::Full) },
    Case { dense: true, ..case("one-token", Tokens::Plain(1, 1), NORMAL, Rule::Full) },
    Case { dense: true, ..case("whole-blocks", Tokens::Plain(256, 256), NORMAL, Rule::Checkerboard) },
    Case { dense: true, ..case("one-token-past", Tokens::Plain(129, 129), NORMAL, Rule::Full) },
    Case { dense: true, ..case("more-keys", Tokens::Plain(70, 300), NORMAL, Rule::Mixed) },
    Case { dense: true, ..case("more-queries", Tokens::Plain(300, 70), NORMAL, Rule::Mixed) },
    // Rings go round so often that a count off by one in eight arrivals comes to a whole round; of blocks of 128 rows the
    // last has half its rows.
    Case { dense: true, heads: 1, ..case("many-tiles", Tokens::Plain(150, 4400), NORMAL, Rule::Mixed) },
    // The first query block skips all but the last, while its neighbours go on.
    Case { dense: true, heads: 1, ..case("far-apart", Tokens::Plain(200, 1100), NORMAL, Rule::Corners) },
    Case { dense: true, batch: 3, heads: 1, ..case("batch", Tokens::Plain(90, 90), NORMAL, Rule::Full) },
    case("diagonal", Tokens::Plain(250, 250), NORMAL, Rule::Diagonal),
    case("ragged-last", Tokens::Plain(200, 200), NORMAL, Rule::Last),
    case("nearly-empty", Tokens::Plain(200, 200), NORMAL, Rule::Single),
    Case { dense: true, ..case("flat", Tokens::Plain(150, 150), Values::Normal(0.01), Rule::Checkerboard) },
    Case { dense: true, ..case("large-logits", Tokens::Plain(150, 150), Values::Normal(8.0), Rule::Checkerboard) },
    Case { dense: true, scale: Some(-0.25), ..case("negative-scale", Tokens::Plain(150, 150), NORMAL, Rule::Checkerboard) },
    Case { dense: true, scale: Some(0.0), ..case("no-scale", Tokens::Plain(100, 100), NORMAL, Rule::Full) },
    Case { dense: true, ..case("rising", Tokens::Plain(280, 280), Values::Rising, Rule::Full) },
    Case { dense: true, ..case("falling", Tokens::Plain(280, 280), Values::Falling, Rule::Full) },
    Case { dense: true, ..case("one-key", Tokens::Plain(150, 150), Values::OneKey, Rule::Full) },
    Case { dense: true, ..case("large-values", Tokens::Plain(100, 100), Values::Scaled(300.0), Rule::Full) },
    Case { dense: true, ..case("small-values", Tokens::Plain(100, 100), Values::Scaled(0.003), Rule::Full) },
];

const SORTED: [AxisOrder; 4] = [AxisOrder::Hwt, AxisOrder::Wth, AxisOrder::Thw, AxisOrder::Hwt];

/// The cases of reorder and pooling.
#[rustfmt::skip]
pub(super) const REORDER: &[Case] = &[
    case("ragged-grid", Tokens::Video(Grid { t: 2, h: 13, w: 18 }), NORMAL, Rule::Full),
    case("whole-grid", Tokens::Video(Grid { t: 1, h: 16, w: 16 }), NORMAL, Rule::Full),
    // 4 heads of 3 orders, and blocks of tokens of several frames, the last one ragged.
    Case { batch: 2, sorted_by: &SORTED, ..case("sorted-heads", Tokens::Video(Grid { t: 3, h: 7, w: 11 }), NORMAL, Rule::Full) },
    case("one-token", Tokens::Plain(1, 1), NORMAL, Rule::Full),
    case("cross", Tokens::Plain(70, 200), Values::Scaled(1.0), Rule::Full),
];

/// The cases of the selection.
#[rustfmt::skip]
pub(super) const SELECTION: &[Case] = &[
    case("video", Tokens::Video(Grid { t: 3, h: 20, w: 30 }), NORMAL, Rule::Full),
    // Bitmaps of several words, and more keys than a block of threads has threads.
    Case { heads: 1, block: 16, ..case("many-blocks", Tokens::Plain(40, 4700), NORMAL, Rule::Full) },
    case("one-block", Tokens::Plain(20, 20), NORMAL, Rule::Full),
    case("flat", Tokens::Plain(640, 640), Values::Normal(0.0), Rule::Full),
    case("large-logits", Tokens::Plain(640, 640), Values::Normal(40.0), Rule::Full),
];

impl Case {
    fn lengths(&self) -> (usize, usize, Option<Grid>) {
        match self.tokens {
            Tokens::Video(grid) => (grid.tokens(), grid.tokens(), Some(grid)),
            Tokens::Plain(q, k) => (q, k, None),
        }
    }

    /// Returns the query-key pairs of a head.
    pub(super) fn pairs(&self) -> usize {
        let (seqlen_q, seqlen_k, _) = self.lengths();
        seqlen_q * seqlen_k
    }

    /// Makes the tensors.
    pub(super) fn qkv(&self, head_dim: usize, dtype: Dtype) -> Qkv {
        let (seqlen_q, seqlen_k, grid) = self.lengths();
        let seed = blake3::hash(self.name.as_bytes());
        let mut rng = ChaCha8Rng::from_seed(*seed.as_bytes());
        let mut tensor = |seqlen: usize, value: &dyn Fn(usize, f32) -> f32| {
            let shape = [self.batch, self.heads, seqlen, head_dim];
            let numbers: Vec<f32> = (0..shape.iter().product())
                .map(|i: usize| value(i / head_dim % seqlen, normal(&mut rng)))
                .collect();
            Tensor { shape, data: TensorData::from_f32(&numbers, dtype) }
        };
        let slope = |token: usize| token as f32 / seqlen_k as f32;
        let (factor, values) = match self.values {
            Values::Normal(factor) => (factor, 1.0),
            Values::Scaled(factor) => (1.0, factor),
            Values::Rising | Values::Falling | Values::OneKey => (1.0, 1.0),
        };
        // A common direction of all queries, for keys to point along.
        let aligned = matches!(self.values, Values::Rising | Values::Falling | Values::OneKey);
        let q = tensor(seqlen_q, &|_, x| if aligned { 1.0 + 0.25 * x } else { factor * x });
        let k = tensor(seqlen_k, &|token, x| match self.values {
            Values::Rising => 2.0 * slope(token) + 0.1 * x,
            Values::Falling => 2.0 * (1.0 - slope(token)) + 0.1 * x,
            Values::OneKey if token == seqlen_k / 3 => 2.0,
            _ => factor * x,
        });
        let v = tensor(seqlen_k, &|_, x| values * x);
        Qkv { q, k, v, grid, softmax_scale: self.scale, source: format!("case {}", self.name) }
    }

    /// Returns what decides the order of the tokens.
    pub(super) fn arrangement(&self) -> Arrangement {
        if self.sorted_by.is_empty() {
            Arrangement::Patches
        } else {
            Arrangement::sorted(self.sorted_by.to_vec())
        }
    }

    /// Cuts the tokens into blocks and makes the mask.
    pub(super) fn mask(&self, problem: &Problem, block: MaskBlock) -> Result<(Orders, Pattern), ParseError> {
        let orders = Orders::arranged(problem, block, &self.arrangement())?;
        let (q, kv) = (orders.q.layout(), orders.kv.layout());
        let blocks = [q.blocks(), kv.blocks()];
        let keep = |head: usize, i, j| self.rule.keeps(blocks, [head % 2, i, j]);
        let mask = BlockMask::from_fn(problem.batch_heads(), Arc::clone(q), Arc::clone(kv), keep);
        Ok((orders, Pattern::Mask(Arc::new(mask))))
    }
}

/// Draws from the normal distribution (Box and Muller).
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    ((-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_tell_the_cases_of_a_kernel_apart() {
        for cases in [ATTENTION, REORDER, SELECTION] {
            let names: BTreeSet<&str> = cases.iter().map(|case| case.name).collect();
            assert_eq!(names.len(), cases.len());
        }
    }

    #[test]
    fn masks_are_what_their_names_say() {
        let problem = ATTENTION[0].qkv(64, Dtype::Bf16).problem();
        let rows = |rule| {
            let case = Case { rule, ..ATTENTION[0] };
            let (_, pattern) = case.mask(&problem, MaskBlock::square(64)).unwrap();
            let mask = pattern.mask().unwrap().clone();
            (0..mask.q_layout().blocks()).map(|i| mask.row(1, i).to_vec()).collect::<Vec<_>>()
        };
        let full: Vec<i32> = (0..6).collect();
        assert_eq!(rows(Rule::Full), vec![full.clone(); 6]);
        assert_eq!(rows(Rule::Last), vec![vec![5]; 6]);
        assert_eq!(rows(Rule::Single), [vec![], vec![], vec![5], vec![], vec![], vec![]]);
        assert_eq!(rows(Rule::Corners), [vec![5], vec![0], vec![0], vec![0], vec![0], vec![1, 3, 5]]);
        assert_eq!(rows(Rule::Diagonal)[3], [3]);
        assert_eq!(rows(Rule::Mixed)[..2], [full, vec![0, 2, 4]]);
    }

    #[test]
    fn every_case_is_finite_in_both_device_types() {
        for case in ATTENTION.iter().chain(REORDER).chain(SELECTION) {
            for dtype in [Dtype::Bf16, Dtype::F16] {
                let qkv = case.qkv(64, dtype);
                for tensor in [&qkv.q, &qkv.k, &qkv.v] {
                    assert!(tensor.data.to_f32().iter().all(|x| x.is_finite()), "{} {dtype}", case.name);
                }
            }
        }
    }
}
