use nabla_kernels_gpu::{
    config::Dtype as Stored,
    instances::{Arch, Instance, Kernel},
};

use super::*;
use crate::{Dtype, Problem, variant::MaskBlock};

const BLOCK: MaskBlock = MaskBlock { q_block: 64, kv_block: 64 };

fn h100() -> Machine {
    Machine::named("h100 sxm").unwrap()
}

fn problem(seqlen: usize, head_dim: usize) -> Problem {
    Problem {
        batch: 1,
        heads: 32,
        seqlen_q: seqlen,
        seqlen_k: seqlen,
        head_dim,
        dtype: Dtype::Bf16,
        softmax_scale: Problem::default_scale(head_dim),
        grid: None,
    }
}

fn of_tile(shape: [u32; 4]) -> [f64; 6] {
    let instance = Instance::hopper(Kernel::HopperSparse, shape, Stored::Bf16);
    clocks(&analytic(&instance).unwrap().tile, &h100(), Arch::Sm90a)
}

#[test]
fn a_64_by_64_tile_takes_the_clocks_worked_out_by_hand() {
    // 4 x 64 x 64 x 128 FLOP at 4096 a clock; 64 x 64 exponentials at 16, and 256 for corrections.
    let [tensor, special, fp32, ..] = of_tile([64, 64, 128, 3]);
    assert_eq!(tensor, 512.0);
    assert_eq!(special, 256.0 + 16.0);
    assert!((150.0..250.0).contains(&fp32), "{fp32}");
    // At D = 64 exponentials take as long as products.
    let [tensor, special, ..] = of_tile([64, 64, 64, 3]);
    assert_eq!((tensor, special), (256.0, 272.0));
}

#[test]
fn peaks_are_the_published_ones() {
    let tflops = |name: &str| Machine::named(name).unwrap().peak_flops() / 1e12;
    assert!((tflops("H100 SXM") - 989.4).abs() < 1.0);
    assert!((tflops("A100") - 312.0).abs() < 1.0);
    assert_eq!(Machine::named("abacus"), None);
}

#[test]
fn loads_of_one_query_block_meet_the_l2_cache_before_the_tensor_cores() {
    // K and V of a tile are 32 KB; each query block that loads them for itself is held to 61 % of the peak.
    let alone = Instance::hopper(Kernel::HopperSparse, [64, 64, 128, 3], Stored::Bf16);
    let costs = analytic(&alone).unwrap();
    let (load, tile) = (clocks(&costs.load, &h100(), Arch::Sm90a), clocks(&costs.tile, &h100(), Arch::Sm90a));
    assert!((tile[0] / load[5] - 0.61).abs() < 0.01, "{}", tile[0] / load[5]);
    // Two that share it are not.
    assert!(2.0 * tile[0] / load[5] > 1.0);
}

#[test]
fn limits_of_dense_attention_are_those_reported_for_it() {
    let limiter = |d: usize, shape: [u32; 4]| {
        let instance = Instance::hopper(Kernel::HopperDense, shape, Stored::Bf16);
        let load = MaskLoad::independent(BLOCK, 1.0);
        let costs = analytic(&instance).unwrap();
        predict(&costs, &h100(), &instance, &problem(16384, d), &load, 1)
    };
    // FlashAttention-3: at D = 128 products dominate, at D = 64 exponentials catch up with them.
    let wide = limiter(128, [128, 128, 128, 2]);
    assert_eq!(wide.limiter(), Part::Tensor, "{wide:?}");
    let narrow = limiter(64, [128, 128, 64, 4]);
    let of = |part| narrow.seconds_of(part) / narrow.seconds_of(Part::Tensor);
    assert!(of(Part::Special) > 1.0 && narrow.limiter() != Part::Tensor, "{narrow:?}");
    assert!(wide.seconds_of(Part::Special) < 0.6 * wide.seconds_of(Part::Tensor));
    // FlashAttention-2's way on Hopper is held by `mma.sync`: it reaches 360 to 376 TFLOPS.
    let portable = Instance::attention(Kernel::AttentionDense, [128, 64, 128, 2], Stored::Bf16);
    let load = MaskLoad::independent(BLOCK, 1.0);
    let costs = analytic(&portable).unwrap();
    let bound = predict(&costs, &h100(), &portable, &problem(16384, 128), &load, 1).tflops();
    assert!((376.0..640.0).contains(&bound), "{bound}");
}

#[test]
fn unions_run_from_one_list_to_all() {
    let union = |density, overlap, lists| MaskLoad { block: BLOCK, density, overlap }.union(lists);
    assert_eq!(union(0.3, 0.0, 1), 0.3);
    assert!((union(0.3, 0.0, 2) - (1.0 - 0.7f64.powi(2))).abs() < 1e-12);
    assert!((union(0.3, 0.0, 3) - (1.0 - 0.7f64.powi(3))).abs() < 1e-12);
    assert_eq!(union(0.3, 1.0, 3), 0.3);
    assert_eq!(union(1.0, 0.0, 3), 1.0);
}

#[test]
fn a_mask_is_measured_by_what_neighbours_share() {
    use std::sync::Arc;

    use crate::{BlockMask, token_order::BlockLayout};
    let layout = Arc::new(BlockLayout::linear(64 * 8, 64).unwrap());
    let mask = |keep: fn(usize, usize, usize) -> bool| {
        MaskLoad::of(&BlockMask::from_fn(2, Arc::clone(&layout), Arc::clone(&layout), keep))
    };
    let stripes = mask(|_, _, j| j % 4 == 0);
    assert_eq!((stripes.density, stripes.overlap, stripes.block), (0.25, 1.0, BLOCK));
    let apart = mask(|_, i, j| (i + j) % 2 == 0);
    assert_eq!((apart.density, apart.overlap), (0.5, 0.0));
    assert_eq!(mask(|_, _, _| false).density, 0.0);
}

#[test]
fn units_of_a_launch_follow_from_problem_and_mask() {
    let sparse = Instance::hopper(Kernel::HopperSparse, [128, 64, 128, 3], Stored::Bf16);
    let units = extent(&sparse, &problem(64 * 100, 128), &MaskLoad::independent(BLOCK, 0.1));
    assert_eq!(units.blocks, 32.0 * 50.0);
    assert!((units.tiles - 32.0 * 100.0 * 10.0).abs() < 1e-6);
    assert!((units.loads - 32.0 * 50.0 * 19.0).abs() < 1e-6);
    // A mask block of 128 keys is two tiles, one of 128 queries two tiles with the same list.
    let long = MaskBlock::square(128);
    let units = extent(&sparse, &problem(64 * 100, 128), &MaskLoad::independent(long, 0.1));
    assert!((units.tiles - 32.0 * 100.0 * 10.0).abs() < 1e-6);
    assert!((units.loads - 32.0 * 50.0 * 10.0).abs() < 1e-6);
    let dense = Instance::attention(Kernel::AttentionDense, [64, 64, 128, 2], Stored::Bf16);
    let units = extent(&dense, &problem(64 * 100, 128), &MaskLoad::independent(BLOCK, 1.0));
    assert_eq!((units.blocks, units.tiles), (32.0 * 100.0, 32.0 * 100.0 * 100.0));
}

#[test]
fn machines_are_known_by_the_names_drivers_give() {
    let of = |name| Machine::of_device(name).map(|machine| machine.name);
    assert_eq!(of("NVIDIA H100 80GB HBM3"), Some("H100 SXM"));
    assert_eq!(of("NVIDIA H200"), Some("H200"));
    assert_eq!(of("NVIDIA A100-SXM4-80GB"), Some("A100"));
    assert_eq!(of("NVIDIA GeForce RTX 4090"), None);
}

#[test]
fn costs_fall_with_density_and_rise_with_length() {
    let sparse = Instance::hopper(Kernel::HopperSparse, [128, 64, 128, 6], Stored::Bf16);
    let at = |seqlen, density| {
        cost(&problem(seqlen, 128), &MaskLoad::independent(BLOCK, density), &sparse, &h100()).unwrap()
    };
    assert!(at(65536, 0.1) < at(65536, 0.2) && at(65536, 0.2) < at(65536, 1.0));
    assert!(at(65536, 0.2) > 3.5 * at(32768, 0.2));
    let a100 = Machine::named("A100").unwrap();
    let load = MaskLoad::independent(BLOCK, 0.5);
    assert_eq!(cost(&problem(4096, 128), &load, &sparse, &a100), None, "it runs no Hopper code");
    let reorder = Instance::tokens(Kernel::ReorderPool, 128, Stored::Bf16);
    assert_eq!(cost(&problem(4096, 128), &load, &reorder, &h100()), None);
}
