//! Properties that hold for any grid, mask block and instruction set.

use std::sync::Arc;

use nabla_host::{
    BlockMask, Dtype, Grid, Policy,
    backend::{AttentionOutput, Backend, Isa, Orders, Pattern, Workspace},
    reference::{Arithmetic, OrderedMask, RowSample, attention},
    tensor::Qkv,
    token_order::BlockLayout,
    variant::{MaskBlock, TileConfig},
    verify::{Oracle, verify},
};
use nabla_tests::{cpu, generated};
use proptest::prelude::*;

fn isas() -> impl Strategy<Value = Isa> {
    prop::sample::select(Isa::available())
}

fn grids() -> impl Strategy<Value = Grid> {
    (1usize..4, 1usize..27, 1usize..27).prop_map(|(t, h, w)| Grid { t, h, w })
}

fn blocks() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![32usize, 64, 128])
}

fn dtypes() -> impl Strategy<Value = Dtype> {
    prop::sample::select(vec![Dtype::F32, Dtype::F16, Dtype::Bf16])
}

const TILE: TileConfig = TileConfig { block_m: 32, block_n: 64 };

fn run(
    backend: &dyn Backend,
    workspace: &mut dyn Workspace,
    qkv: &Qkv,
    pattern: &Pattern,
) -> AttentionOutput {
    let block = pattern.mask().map(|_| workspace.orders().mask_block());
    let variant = backend.variant(&qkv.problem(), block, TILE).unwrap();
    workspace.poison().unwrap();
    workspace.attention(&variant, pattern).unwrap();
    workspace.output().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn mask_rows_are_never_empty(grid in grids(), block in blocks(), mass in 0.0f64..=1.0, isa in isas(), seed: u64) {
        let backend = cpu(isa);
        let qkv = generated(grid, 2, 16, Dtype::F32, seed);
        let orders = Arc::new(Orders::new(&qkv.problem(), MaskBlock::square(block)).unwrap());
        let mut workspace = backend.load(qkv, orders).unwrap();
        let (mask, _) = workspace.build_mask(&Policy::nabla(mass)).unwrap();
        prop_assert!(mask.kv_num_blocks().iter().all(|&n| n >= 1));
        if mass == 1.0 {
            prop_assert_eq!(mask.density(), 1.0);
        }
    }

    #[test]
    fn a_denser_threshold_keeps_every_block_of_a_sparser_one(grid in grids(), block in blocks(), isa in isas(), seed: u64) {
        let backend = cpu(isa);
        let qkv = generated(grid, 1, 16, Dtype::F32, seed);
        let orders = Arc::new(Orders::new(&qkv.problem(), MaskBlock::square(block)).unwrap());
        let mut workspace = backend.load(qkv, orders).unwrap();
        let mut less = workspace.build_mask(&Policy::nabla(0.0)).unwrap().0.to_bytes();
        for mass in [0.25, 0.5, 0.75, 1.0] {
            let more = workspace.build_mask(&Policy::nabla(mass)).unwrap().0.to_bytes();
            prop_assert!(less.iter().zip(&more).all(|(a, b)| a <= b));
            less = more;
        }
    }

    #[test]
    fn sparse_with_a_full_mask_equals_dense(grid in grids(), block in blocks(), dtype in dtypes(), isa in isas(), seed: u64) {
        let backend = cpu(isa);
        let qkv = generated(grid, 2, 64, dtype, seed);
        let orders = Arc::new(Orders::new(&qkv.problem(), MaskBlock::square(block)).unwrap());
        let mut workspace = backend.load(Arc::clone(&qkv), Arc::clone(&orders)).unwrap();
        let (q, kv) = (orders.q.layout(), orders.kv.layout());
        let full = Arc::new(BlockMask::from_fn(2, Arc::clone(q), Arc::clone(kv), |_, _, _| true));
        let dense = run(&backend, &mut *workspace, &qkv, &Pattern::Dense);
        let sparse = run(&backend, &mut *workspace, &qkv, &Pattern::Mask(full));
        let sample = Arc::new(RowSample::all(grid.tokens()));
        let oracle = Oracle::new(&qkv, qkv.problem().softmax_scale, None, &sample);
        let variant = backend.variant(&qkv.problem(), None, TILE).unwrap();
        for output in [dense, sparse] {
            let (_, verdict) = verify(&output, &orders.q, &oracle, oracle.reference(), variant.rounding());
            prop_assert_eq!(verdict, Ok(()));
        }
    }

    #[test]
    fn kernels_stay_within_budget_on_random_masks(
        grid in grids(), block in blocks(), dtype in dtypes(), isa in isas(), seed: u64, keep in 1u64..8
    ) {
        let backend = cpu(isa);
        let qkv = generated(grid, 2, 64, dtype, seed);
        let orders = Arc::new(Orders::new(&qkv.problem(), MaskBlock::square(block)).unwrap());
        let mut workspace = backend.load(Arc::clone(&qkv), Arc::clone(&orders)).unwrap();
        let (q, kv) = (orders.q.layout(), orders.kv.layout());
        let chosen = |head: usize, i: usize, j: usize| {
            let mut x = seed ^ ((head as u64) << 40 | (i as u64) << 20 | j as u64);
            x = (x ^ (x >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            // Some rows stay empty.
            (x >> 40) % 8 < keep
        };
        let mask = Arc::new(BlockMask::from_fn(2, Arc::clone(q), Arc::clone(kv), chosen));
        let output = run(&backend, &mut *workspace, &qkv, &Pattern::Mask(Arc::clone(&mask)));
        let sample = Arc::new(RowSample::all(grid.tokens()));
        let ordered = OrderedMask { mask: &mask, q_order: &orders.q, kv_order: &orders.kv };
        let scale = qkv.problem().softmax_scale;
        let oracle = Oracle::new(&qkv, scale, Some(ordered), &sample);
        let dense = attention(&qkv, scale, None, &sample, Arithmetic::Float64);
        let variant = backend.variant(&qkv.problem(), Some(MaskBlock::square(block)), TILE).unwrap();
        let (_, verdict) = verify(&output, &orders.q, &oracle, &dense, variant.rounding());
        prop_assert_eq!(verdict, Ok(()));
    }

    #[test]
    fn permuting_key_blocks_leaves_the_output_and_permuting_query_blocks_permutes_it(
        n in 2usize..9, isa in isas(), seed: u64, shift in 1usize..8
    ) {
        // A plain sequence of whole blocks; the permutation rotates them.
        let backend = cpu(isa);
        let grid = Grid { t: 1, h: n, w: 64 };
        let mut qkv = Qkv::clone(&generated(grid, 1, 32, Dtype::F32, seed));
        qkv.grid = None;
        let shift = shift % n;
        let rotate = |qkv: &Qkv, which: [bool; 3]| {
            let mut rotated = qkv.clone();
            let tensors = [&mut rotated.q, &mut rotated.k, &mut rotated.v];
            for (tensor, _) in tensors.into_iter().zip(which).filter(|(_, on)| *on) {
                tensor.data.bytes_mut().rotate_left(shift * 64 * 32 * 4);
            }
            Arc::new(rotated)
        };
        let layout = Arc::new(BlockLayout::linear(n * 64, 64).unwrap());
        let keep = |i: usize, j: usize| !(i * 7 + j * 3 + seed as usize % 5).is_multiple_of(3) || i == j;
        let attend = |qkv: Arc<Qkv>, keep: &dyn Fn(usize, usize) -> bool| {
            let mask = BlockMask::from_fn(1, Arc::clone(&layout), Arc::clone(&layout), |_, i, j| keep(i, j));
            let orders = Arc::new(Orders::new(&qkv.problem(), MaskBlock::square(64)).unwrap());
            let mut workspace = backend.load(Arc::clone(&qkv), orders).unwrap();
            run(&backend, &mut *workspace, &qkv, &Pattern::Mask(Arc::new(mask))).out
        };
        let plain = attend(Arc::new(qkv.clone()), &keep);
        let keys_moved = attend(rotate(&qkv, [false, true, true]), &|i, j| keep(i, (j + shift) % n));
        let queries_moved = attend(rotate(&qkv, [true, false, false]), &|i, j| keep((i + shift) % n, j));
        let largest = plain.iter().fold(0f32, |m, x| m.max(x.abs()));
        // Only the order of float32 sums changes.
        let bound = largest * (n * 64) as f32 * f32::EPSILON;
        prop_assert!(plain.iter().zip(&keys_moved).all(|(a, b)| (a - b).abs() <= bound));
        let mut expected = plain;
        expected.rotate_left(shift * 64 * 32);
        prop_assert_eq!(queries_moved, expected);
    }
}
