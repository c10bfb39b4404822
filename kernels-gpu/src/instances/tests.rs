use std::{collections::BTreeSet, string::String, vec::Vec};

use super::{
    list::{dense, hopper_dense, hopper_sparse, sparse},
    space::{Axes, SPACES},
    *,
};

fn id(instance: &Instance) -> String {
    let mut id = String::new();
    instance.id(&mut id).unwrap();
    id
}

fn sparse_with(change: impl FnOnce(&mut Constants)) -> Instance {
    let mut instance = sparse([64, 64, 128, 2], Dtype::Bf16);
    change(&mut instance.constants);
    instance
}

#[test]
fn every_instance_passes_its_check() {
    for instance in INSTANCES {
        assert_eq!(instance.check(), Ok(()), "{}", id(instance));
    }
}

#[test]
fn names_are_stable_and_different() {
    assert_eq!(id(&sparse([64, 64, 64, 2], Dtype::Bf16)), "bsfwd_sm80_m64_n64_d64_bf16_s2_w4");
    assert_eq!(id(&dense([128, 64, 96, 3], Dtype::F16)), "dnfwd_sm80_m128_n64_d96_f16_s3_w8");
    assert_eq!(id(&Instance::select(8, 2048, 64)), "select_sm80_m8_k2048_d64_w8");
    let hopper = hopper_sparse([128, 64, 128, 5], Dtype::Bf16);
    assert_eq!(id(&hopper), "bsfwd_sm90a_m128_n64_d128_bf16_s5_w12");
    let alone = hopper_dense([64, 64, 64, 3], Dtype::F16).without_producer().with_ctas(2);
    assert_eq!(id(&alone), "dnfwd_sm90a_m64_n64_d64_f16_s3_w4_c2");
    assert_eq!(id(&hopper.with_slack(8).with_polynomials(1)), "bsfwd_sm90a_m128_n64_d128_bf16_s5_w12_r8_e1");
    let last = hopper.with_slack(8).with_work(Work::Listed);
    assert_eq!(id(&last), "bsfwd_sm90a_m128_n64_d128_bf16_s5_w12_r8_p2");
    assert_eq!(Work::from_code(Work::Stride.code()), Work::Stride);
    assert_eq!(Work::from_code(Work::Listed.code()), Work::Listed);
    let shared = hopper.with_value_stages(4).with_ping_pong(true);
    assert_eq!(id(&shared), "bsfwd_sm90a_m128_n64_d128_bf16_s5_w12_v4_t1");
    let wide = hopper_sparse([128, 128, 128, 3], Dtype::Bf16).with_pairs(true).with_cluster(2);
    assert_eq!(id(&wide), "bsfwd_sm90a_m128_n128_d128_bf16_s3_w12_b1_l2");
    assert_eq!(id(&alone.with_slack(4)), "dnfwd_sm90a_m64_n64_d64_f16_s3_w4_c2_r4");
    assert_eq!(id(&sparse_with(|c| c.ctas_per_sm = 2)), "bsfwd_sm80_m64_n64_d128_bf16_s2_w4_c2");
    let spaces = SPACES.iter().flat_map(|(_, axes)| axes.instances());
    let all: Vec<Instance> = INSTANCES.iter().copied().chain(spaces).collect();
    let distinct: BTreeSet<&Instance> = all.iter().collect();
    let names: BTreeSet<String> = all.iter().map(id).collect();
    assert_eq!(names.len(), distinct.len());
    let listed: BTreeSet<&Instance> = INSTANCES.iter().collect();
    assert_eq!(listed.len(), INSTANCES.len(), "an instance is listed twice");
}

#[test]
fn every_kernel_dtype_and_head_dim_of_attention_is_listed() {
    for kernel in [Kernel::AttentionSparse, Kernel::HopperSparse, Kernel::AttentionPlain] {
        for dtype in [Dtype::Bf16, Dtype::F16] {
            for head_dim in [64, 96, 128] {
                let listed = INSTANCES.iter().any(|i| {
                    (i.kernel, i.constants.dtype, i.constants.head_dim) == (kernel, dtype, head_dim)
                });
                assert!(listed, "{} {} {head_dim}", kernel.name(), dtype.name());
            }
        }
    }
    for kernel in Kernel::ALL {
        assert!(INSTANCES.iter().any(|i| i.kernel == kernel), "{}", kernel.name());
    }
}

#[test]
fn constants_that_do_not_go_together_are_refused() {
    let hopper_with = |change: fn(&mut Constants)| {
        let mut instance = hopper_sparse([128, 64, 128, 3], Dtype::Bf16);
        change(&mut instance.constants);
        instance
    };
    let refused: [(&str, Instance); 42] = [
        ("head_dim", sparse_with(|c| c.head_dim = 80)),
        ("head_dim", sparse_with(|c| c.head_dim = 256)),
        ("block_m", sparse_with(|c| c.block_m = 40)),
        ("block_m", sparse([48, 64, 64, 2], Dtype::F16)),
        ("warps = block_m / 16", sparse_with(|c| c.warps = 8)),
        ("1 to 32 warps", sparse_with(|c| c.warps = 0)),
        ("block_n", sparse_with(|c| c.block_n = 8)),
        ("stages", sparse_with(|c| (c.stages, c.value_stages) = (1, 1))),
        ("stages", sparse_with(|c| (c.stages, c.value_stages) = (5, 5))),
        ("as many of each", sparse_with(|c| c.value_stages = 3)),
        ("only Hopper", sparse_with(|c| c.ping_pong = true)),
        ("only Hopper", sparse_with(|c| c.pairs = true)),
        ("only Hopper", sparse_with(|c| c.cluster = 2)),
        ("or one less", hopper_with(|c| c.value_stages = 4)),
        ("or one less", hopper_with(|c| (c.stages, c.value_stages) = (2, 1))),
        ("as many of each", hopper_with(|c| (c.block_m, c.warps, c.value_stages) = (64, 4, 2))),
        ("turns are taken", hopper_with(|c| (c.block_m, c.warps, c.ping_pong) = (64, 8, true))),
        ("dense attention has no lists", hopper_dense([128, 128, 64, 3], Dtype::F16).with_pairs(true)),
        ("block_n is 128", hopper_with(|c| c.pairs = true)),
        ("1 or 2 blocks", hopper_with(|c| c.cluster = 4)),
        ("4 warpgroups", hopper_sparse([192, 64, 64, 3], Dtype::F16).with_cluster(2)),
        ("slack", sparse_with(|c| c.slack = 9)),
        ("polynomials", sparse_with(|c| c.polynomials = 5)),
        ("whole fragments", sparse_with(|c| (c.block_n, c.polynomials) = (32, 1))),
        ("registers", hopper_dense([192, 128, 64, 3], Dtype::Bf16)),
        ("registers", hopper_dense([192, 64, 128, 5], Dtype::Bf16).with_work(Work::Stride)),
        ("go on to more work", sparse_with(|c| c.work = Work::Stride)),
        ("go on to more work", hopper_with(|c| (c.block_m, c.warps, c.work) = (64, 4, Work::Listed))),
        ("no order to choose", hopper_dense([128, 64, 64, 3], Dtype::F16).with_work(Work::Listed)),
        ("163 KiB", sparse([128, 128, 128, 3], Dtype::F16)),
        ("228 KiB", sparse_with(|c| c.ctas_per_sm = 4)),
        ("multiple of 256", Instance::select(8, 2048 + 64, 64)),
        ("1 to 8 rows", Instance::select(16, 2048, 64)),
        ("head_dim is 64, 96 or 128", hopper_with(|c| c.head_dim = 32)),
        ("block_m is 64, 128 or 192", hopper_with(|c| c.block_m = 96)),
        ("block_m is 64, 128 or 192", hopper_with(|c| (c.block_m, c.warps) = (256, 20))),
        ("block_n is 64 or 128", hopper_with(|c| c.block_n = 96)),
        ("2 to 8", hopper_with(|c| (c.stages, c.value_stages) = (9, 9))),
        ("warps are 4 for each 64 rows", hopper_with(|c| c.warps = 8)),
        ("3 stages or more", hopper_with(|c| (c.block_m, c.warps, c.stages) = (64, 4, 2))),
        ("227 KiB", hopper_with(|c| (c.stages, c.value_stages) = (7, 7))),
        ("228 KiB", hopper_sparse([64, 64, 128, 6], Dtype::F16).with_ctas(2)),
    ];
    for (expected, instance) in refused {
        let reason = instance.check().unwrap_err();
        assert!(reason.contains(expected), "{expected:?} expected, got {reason:?}");
    }
}

#[test]
fn shared_memory_is_what_the_tiles_take() {
    // Two stages of K and V, 64 x 128 x 2 bytes each; the queries pass through the last.
    assert_eq!(sparse([64, 64, 128, 2], Dtype::Bf16).shared_bytes(), 4 * 64 * 128 * 2);
    // A query tile larger than a stage needs room of its own: 128 x 64 x 2 against 2 x 32 x 64 x 2.
    assert_eq!(sparse([128, 32, 64, 2], Dtype::Bf16).shared_bytes(), 8192 + 16384);
    // Scores of 8 rows, four words between them.
    assert_eq!(Instance::select(8, 2048, 64).shared_bytes(), 4 * 8 * (2048 + 4));
    assert_eq!(Instance::tokens(Kernel::ReorderPool, 96, Dtype::F16).shared_bytes(), 10 * 96 * 4);
}

#[test]
fn the_grid_covers_ragged_ends() {
    let sizes = Sizes { batch_heads: 6, seqlen_q: 1000, q_blocks: 16, q_block: 64 };
    assert_eq!(sparse([64, 64, 64, 2], Dtype::Bf16).grid(&sizes), [16, 6, 1]);
    assert_eq!(sparse([32, 32, 64, 3], Dtype::Bf16).grid(&sizes), [32, 6, 1]);
    assert_eq!(dense([128, 64, 64, 3], Dtype::Bf16).grid(&sizes), [8, 6, 1]);
    assert_eq!(Instance::select(8, 2048, 64).grid(&Sizes { q_blocks: 17, ..sizes }), [3, 6, 1]);
    assert_eq!(Instance::tokens(Kernel::ReorderPool, 64, Dtype::Bf16).grid(&sizes), [16, 6, 1]);
    // Query tiles of 64 rows, two or three to a block of threads.
    assert_eq!(hopper_sparse([192, 64, 64, 3], Dtype::Bf16).grid(&sizes), [6, 6, 1]);
    let long = Sizes { q_blocks: 7, q_block: 128, ..sizes };
    assert_eq!(hopper_sparse([192, 64, 64, 3], Dtype::Bf16).grid(&long), [5, 6, 1]);
    assert_eq!(hopper_dense([192, 64, 64, 3], Dtype::Bf16).grid(&sizes), [6, 6, 1]);
}

#[test]
fn blocks_that_go_on_to_more_work_are_no_more_than_run_at_once() {
    let sizes = Sizes { batch_heads: 6, seqlen_q: 1000, q_blocks: 16, q_block: 64 };
    let once = hopper_sparse([64, 64, 64, 6], Dtype::Bf16).with_ctas(2);
    assert_eq!(once.launch_grid(&sizes, 4), [16, 6, 1]);
    let stride = once.with_work(Work::Stride);
    assert_eq!(stride.launch_grid(&sizes, 4), [8, 1, 1]);
    assert_eq!(stride.launch_grid(&sizes, 132), [96, 1, 1]);
    // Clusters are whole, in the grid and on the device.
    let odd = Sizes { q_blocks: 15, ..sizes };
    let cluster = once.with_cluster(2);
    assert_eq!((once.grid(&odd), cluster.grid(&odd)), ([15, 6, 1], [16, 6, 1]));
    let cluster = cluster.with_ctas(1).with_work(Work::Stride);
    assert_eq!(cluster.launch_grid(&odd, 5), [4, 1, 1]);
    assert_eq!(cluster.launch_grid(&odd, 1), [2, 1, 1]);
}

#[test]
fn the_environment_says_all_constants() {
    let mut names = BTreeSet::new();
    let instance = Instance {
        kernel: Kernel::Select,
        constants: Constants {
            block_m: 1,
            block_n: 2,
            head_dim: 3,
            stages: 4,
            dtype: Dtype::F16,
            warps: 6,
            max_kv_blocks: 7,
            ctas_per_sm: 8,
            slack: 9,
            polynomials: 10,
            work: Work::Listed,
            value_stages: 11,
            ping_pong: true,
            pairs: false,
            cluster: 14,
        },
    };
    let values: Vec<u32> = instance
        .env()
        .map(|(name, value)| {
            assert!(names.insert(name) && name.starts_with("NABLA_"));
            value
        })
        .to_vec();
    assert_eq!(values, [1, 2, 3, 4, 1, 6, 7, 8, 9, 10, 2, 11, 1, 0, 14]);
    assert_eq!(Dtype::from_code(Dtype::F16.code()), Dtype::F16);
    assert_eq!(Dtype::from_code(Dtype::Bf16.code()), Dtype::Bf16);
}

#[test]
fn a_space_is_the_product_of_its_axes_without_what_cannot_be() {
    let axes = Axes { head_dim: &[128], dtype: &[Dtype::Bf16], ctas_per_sm: &[1], ..SPACES[2].1 };
    let points: Vec<Instance> = axes.instances().collect();
    // 3 x 3 x 3, less 128-key tiles in 3 and 4 stages, and 64-key tiles in 4 stages only where a query tile asks more.
    let refused = |c: &Constants| c.attention_shared_bytes() > MAX_SHARED_BYTES;
    assert!(points.iter().all(|i| i.check().is_ok() && !refused(&i.constants)));
    assert_eq!(points.len(), 27 - 6);
    for (name, axes) in SPACES {
        assert!(axes.instances().count() > 20, "{name}");
    }
}

#[test]
fn a_part_of_a_space_is_what_has_the_values() {
    let keep = |axis: &str, value: i64| match axis {
        "kernels" => value == Kernel::HopperSparse as i64,
        "head_dim" => value == 96,
        "dtype" => value == i64::from(Dtype::F16.code()),
        "stages" => [3, 6].contains(&value),
        "ping_pong" | "producer" => value == 1,
        "less_values" => value == 1,
        "work" => value == i64::from(Work::Listed.code()),
        _ => true,
    };
    let has = |instance: &Instance| {
        let c = &instance.constants;
        instance.kernel == Kernel::HopperSparse
            && (c.head_dim, c.dtype, c.work, c.ping_pong) == (96, Dtype::F16, Work::Listed, true)
            && c.has_producer()
            && [3, 6].contains(&c.stages)
            && c.value_stages + 1 == c.stages
    };
    let part: Vec<Instance> = Axes::HOPPER.instances_where(keep).collect();
    assert!(part.len() > 20, "{}", part.len());
    assert_eq!(part, Axes::HOPPER.instances().filter(has).collect::<Vec<_>>());
    assert_eq!(Axes::HOPPER.instances_where(|axis, _| axis != "pairs").count(), 0);
}

#[test]
fn polynomials_are_spread_evenly_over_fragments() {
    let of = |polynomials| {
        let c = Constants { polynomials, ..Constants::DEFAULT };
        (0..16).filter(|&fragment| c.is_polynomial(fragment)).collect::<Vec<u32>>()
    };
    assert_eq!(of(0), [0; 0]);
    assert_eq!(of(1), [7, 15]);
    assert_eq!(of(2), [3, 7, 11, 15]);
    assert_eq!(of(3), [2, 5, 7, 10, 13, 15]);
}

#[test]
fn hopper_has_hundreds_of_variants_for_each_head_dim() {
    for head_dim in [64, 96, 128] {
        let of = |instance: &Instance| instance.constants.head_dim == head_dim;
        let all: Vec<Instance> = Axes::HOPPER.instances().filter(of).collect();
        let distinct: BTreeSet<String> = all.iter().map(id).collect();
        assert_eq!(distinct.len(), all.len());
        for kernel in [Kernel::HopperSparse, Kernel::HopperDense] {
            let count = all.iter().filter(|i| i.kernel == kernel && i.constants.dtype == Dtype::Bf16).count();
            assert!(count >= 100, "{} {head_dim}: {count}", kernel.name());
        }
        assert!(all.len() >= 400, "{head_dim}: {}", all.len());
    }
}

#[test]
fn what_only_hopper_has_is_built_for_hopper() {
    for instance in INSTANCES {
        let maps = instance.tensor_maps();
        match instance.kernel.arch() {
            Arch::Sm80 => {
                assert!(["sm_80", "sm_90a", "sm_120"].iter().all(|arch| Arch::Sm80.builds_for(arch).is_ok()));
                assert_eq!(maps, None, "{}", id(instance));
            }
            Arch::Sm90a => {
                assert!(
                    ["sm_80", "sm_90", "sm_100a"].iter().all(|arch| Arch::Sm90a.builds_for(arch).is_err())
                );
                let [q, k, v] = maps.unwrap();
                let c = &instance.constants;
                assert_eq!((k, q.box_elements[1], k.box_elements[1]), (v, 64, c.block_n / c.parts()));
            }
        }
    }
}
