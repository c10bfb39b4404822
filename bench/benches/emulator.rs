//! The emulator on one attention launch, as code for sm_80 and for Hopper: alone, with races looked for, and with products
//! summed as tensor cores do. One core: `RAYON_NUM_THREADS=1 cargo bench -p nabla-bench --bench emulator`.

use std::{sync::Arc, time::Duration};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use nabla_host::{
    backend::{EmulatedArch, EmulatorOptions, Orders, Pattern, emulator_backend},
    codegen::{instances::INSTANCES, variant_id},
    generate::{GenerateSpec, generate_video},
    variant::MaskBlock,
};

/// 1,024 tokens, 2 heads, head dimension 64.
const PROBLEM: &str = "video:1,32,32,2,64,bf16";

fn launches(c: &mut Criterion) {
    let mut group = c.benchmark_group("emulator_s1024_h2_d64");
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(8));
    let spec: GenerateSpec = PROBLEM.parse().expect("the problem is one");
    let qkv = Arc::new(generate_video(&spec, 0));
    let orders = Arc::new(Orders::new(&qkv.problem(), MaskBlock::square(64)).expect("64 suits the grid"));
    for (kernel, arch) in [
        ("dnfwd_sm80_m64_n64_d64_bf16_s2_w4_c4", EmulatedArch::Sm80),
        ("dnfwd_sm90a_m128_n128_d64_bf16_s4_w12", EmulatedArch::Sm90a),
    ] {
        let instance = INSTANCES.iter().find(|i| variant_id(i) == kernel).expect("the instance is listed");
        for (name, races, chip_numerics) in
            [("plain", false, false), ("races", true, false), ("chip", false, true)]
        {
            let options = EmulatorOptions { arch, races, chip_numerics, ..EmulatorOptions::default() };
            let backend = emulator_backend(&options).expect("the cache of kernels can be used");
            let mut workspace =
                backend.open(Arc::clone(&qkv), Arc::clone(&orders)).expect("kernels build and run");
            group.bench_function(BenchmarkId::new(name, kernel), |b| {
                b.iter(|| {
                    workspace.attention_of(instance, &Pattern::Dense).expect("the kernel is clean");
                    // Counts of each launch would pile up.
                    workspace.take_counts()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, launches);
criterion_main!(benches);
