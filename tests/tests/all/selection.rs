//! The device's selection: scores that only float32 tells apart keep their order, and what it may keep at all is not what a
//! policy's intersection keeps.

use std::sync::Arc;

use half::bf16;
use nabla_host::{
    Dtype, Grid, Policy,
    backend::{Backend, EmulatedArch, EmulatorOptions, Isa, Orders, SelectionRule, emulator_backend},
    codegen::{
        instances::{INSTANCES, Instance},
        variant_id,
    },
    tensor::{Qkv, Tensor, TensorData},
    variant::MaskBlock,
};
use nabla_tests::{cpu, generated};

const HEADS: usize = 12;
const KEYS: usize = 256;
const D: usize = 64;
/// Tokens of a block: three parts of a mean, and a zero.
const BLOCK: usize = 4;
/// The only elements that are not 0: in steps of `mma` of their own.
const ELEMENTS: [usize; 2] = [5, 40];

/// Makes tokens of bf16 whose means by blocks are the given numbers of float32, exactly.
fn tokens_of(means: &[[f32; 2]]) -> Tensor {
    let blocks = means.len() / HEADS;
    let mut numbers = vec![0f32; HEADS * blocks * BLOCK * D];
    for (block, pair) in means.iter().enumerate() {
        for (element, &mean) in ELEMENTS.into_iter().zip(pair) {
            let mut left = mean * BLOCK as f32;
            for part in 0..3 {
                let rounded = bf16::from_f32(left).to_f32();
                numbers[(block * BLOCK + part) * D + element] = rounded;
                left -= rounded;
            }
            assert_eq!(left, 0.0, "three parts of eight bits are a float32");
        }
    }
    Tensor { shape: [1, HEADS, blocks * BLOCK, D], data: TensorData::from_f32(&numbers, Dtype::Bf16) }
}

#[test]
fn a_selection_orders_scores_as_float32_does() {
    // A linear congruence (Numerical Recipes), of which the upper bits make numbers of 24 bits from 1 to 2.
    let mut state = 7u32;
    let mut number = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1.0 + (state >> 9) as f32 / (1 << 23) as f32
    };
    // Two products that add up to nearly the same for all keys of a head: a score's parts vary far more than scores do.
    let queries: Vec<[f32; 2]> = (0..HEADS).map(|_| [number(), number()]).collect();
    let keys: Vec<[f32; 2]> = (0..HEADS * KEYS)
        .map(|key| {
            let [a, b] = queries[key / KEYS].map(f64::from);
            let first = number();
            let sum = 5.0 + 1e-4 * f64::from(number() - 1.5);
            [first, ((sum - a * f64::from(first)) / b) as f32]
        })
        .collect();
    let qkv = Qkv {
        q: tokens_of(&queries),
        k: tokens_of(&keys),
        v: tokens_of(&keys),
        grid: None,
        softmax_scale: Some(1.0),
        source: "close scores".to_owned(),
    };
    let orders = Arc::new(Orders::new(&qkv.problem(), MaskBlock::square(BLOCK)).unwrap());
    let qkv = Arc::new(qkv);
    for (arch, chip_numerics) in
        [(EmulatedArch::Sm80, false), (EmulatedArch::Sm80, true), (EmulatedArch::Sm90a, true)]
    {
        let options = EmulatorOptions { arch, chip_numerics, ..EmulatorOptions::default() };
        let backend = emulator_backend(&options).unwrap();
        let mut workspace = backend.open(Arc::clone(&qkv), Arc::clone(&orders)).unwrap();
        let pool = INSTANCES.iter().find(|instance| variant_id(instance) == "reorder_sm80_d64_bf16_w4");
        let means = workspace.reorder_of(pool.unwrap()).unwrap();
        for (block, pair) in keys.iter().enumerate() {
            assert_eq!(ELEMENTS.map(|element| means.pooled_k[block * D + element]), *pair);
        }
        let rule = SelectionRule { mass: Some(0.5), ..SelectionRule::default() };
        let selected = workspace.select_of(&Instance::select(8, 256, D as u32), &rule).unwrap();
        for head in 0..HEADS {
            let list = &selected.indices[head * KEYS..][..selected.counts[head] as usize];
            assert!((KEYS / 2..=KEYS / 2 + 1).contains(&list.len()), "all weigh alike: {}", list.len());
            let score = |key: usize| -> f64 {
                let terms = queries[head].iter().zip(&keys[head * KEYS + key]);
                terms.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
            };
            let (kept, dropped): (Vec<usize>, Vec<usize>) =
                (0..KEYS).partition(|&key| list.contains(&(key as i32)));
            let least = kept.into_iter().map(score).fold(f64::INFINITY, f64::min);
            let most = dropped.into_iter().map(score).fold(f64::NEG_INFINITY, f64::max);
            // Two roundings of float32 for each of the two.
            let band = 2.0 * 2.0 * 5.0 * Dtype::F32.unit_roundoff();
            assert!(
                most <= least + band,
                "{arch:?}, head {head}: a score of {most} is dropped, one of {least} is kept"
            );
        }
    }
}

/// The threshold of an intersection is one over all keys, that of a selection among allowed blocks over those alone: where
/// these are a row's best ones, the first keeps more of them.
#[test]
fn an_intersection_is_no_selection_among_allowed_blocks() {
    let policy: Policy = "nabla-0.3@sta-1-1-3".parse().unwrap();
    let window: Policy = "sta-1-1-3".parse().unwrap();
    let backend = emulator_backend(&EmulatorOptions::default()).unwrap();
    let mut differing = 0;
    for (grid, seed) in [(Grid { t: 3, h: 12, w: 20 }, 1), (Grid { t: 2, h: 9, w: 33 }, 2)] {
        let qkv = generated(grid, 2, D, Dtype::Bf16, seed);
        let orders = Arc::new(Orders::new(&qkv.problem(), MaskBlock::square(64)).unwrap());
        let expected = policy.build(&qkv, &orders).unwrap();
        let mut workspace = backend.open(Arc::clone(&qkv), Arc::clone(&orders)).unwrap();
        assert_eq!(*workspace.build_mask(&policy).unwrap().0, expected, "on the emulator, {grid}");
        let on_cpu = cpu(Isa::Portable);
        let mut loaded = on_cpu.load(Arc::clone(&qkv), Arc::clone(&orders)).unwrap();
        assert_eq!(*loaded.build_mask(&policy).unwrap().0, expected, "on the CPU, {grid}");

        let pool = INSTANCES.iter().find(|instance| variant_id(instance) == "reorder_sm80_d64_bf16_w4");
        workspace.reorder_of(pool.unwrap()).unwrap();
        let allowed = window.static_bitmap(&orders).unwrap();
        let rule = SelectionRule { mass: Some(0.3), allowed: allowed.as_deref(), ..SelectionRule::default() };
        let selected = workspace.select_of(&Instance::select(8, 256, D as u32), &rule).unwrap();
        assert!(selected.counts.iter().all(|&count| count > 0), "some block of a row is always kept");
        differing += expected.kv_num_blocks().iter().zip(&selected.counts).filter(|(a, b)| a != b).count();
    }
    assert!(differing > 0, "no row tells the two apart");
}
