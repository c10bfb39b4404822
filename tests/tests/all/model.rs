//! The performance model against what the emulator counts.

use nabla_host::{
    backend::{EmulatedArch, EmulatorOptions, emulator_backend},
    codegen::{
        instances::{INSTANCES, Instance},
        variant_id,
    },
    model::{Extent, Fit, Work, analytic, measure},
};
use nabla_tests::nabla;

fn measured(id: &str, arch: EmulatedArch) -> (Instance, Fit) {
    let instance = *INSTANCES.iter().find(|instance| variant_id(instance) == id).unwrap();
    let options = EmulatorOptions { arch, races: false, ..EmulatorOptions::default() };
    let backend = emulator_backend(&options).unwrap();
    (instance, measure(&*backend, &instance).unwrap())
}

/// Costs from constants have to be within these shares of costs from counts, on a launch of usual lists.
#[track_caller]
fn assert_constants_agree_with_counts(id: &str, arch: EmulatedArch) {
    let (instance, fit) = measured(id, arch);
    // Counts are linear in the units, exactly so without warps that wait for each other: how often they ask differs.
    let hopper = arch == EmulatedArch::Sm90a;
    assert!(fit.residual < if hopper { 0.05 } else { 0.001 }, "{id}: residual {}", fit.residual);
    let cluster = f64::from(instance.constants.cluster);
    // Half of what neighbours could share of their lists.
    let shared = if hopper { f64::from(instance.constants.lists()) } else { 1.0 };
    let sharing = if instance.kernel.is_sparse() { 1.0 + (shared - 1.0) / 2.0 } else { shared } / cluster;
    let extent = Extent { blocks: 100.0, loads: 10_000.0, tiles: 10_000.0 * sharing };
    let counted = fit.costs.total(&extent);
    let derived = analytic(&instance).unwrap().total(&extent);
    type Of = fn(&Work) -> f64;
    let parts: [(&str, Of, f64); 6] = [
        ("matrix products", |work| work.tensor_flops, 0.001),
        ("special functions", |work| work.special, 0.02),
        ("L2 bytes", |work| work.l2_bytes, 0.05),
        ("shared memory", |work| work.shared_bytes, 0.05),
        // The emulator counts both paths of a warp whose lanes part at the end of the loop: see docs/model.md.
        ("f32", |work| work.fp32, if hopper { 0.35 } else { 0.10 }),
        ("instructions", |work| work.instructions, if hopper { 0.25 } else { 0.15 }),
    ];
    for (name, of, within) in parts {
        let ratio = of(&derived) / of(&counted);
        assert!((ratio - 1.0).abs() < within, "{id}: {name} from constants is {ratio:.4} of those counted");
    }
}

#[test]
fn costs_from_constants_agree_with_counts_of_portable_kernels() {
    assert_constants_agree_with_counts("bsfwd_sm80_m64_n64_d128_bf16_s2_w4_c3", EmulatedArch::Sm80);
    assert_constants_agree_with_counts("bsfwd_sm80_m128_n64_d64_bf16_s2_w8_c2", EmulatedArch::Sm80);
    assert_constants_agree_with_counts("dnfwd_sm80_m128_n64_d128_bf16_s2_w8", EmulatedArch::Sm80);
}

#[test]
fn costs_from_constants_agree_with_counts_of_hopper_kernels() {
    assert_constants_agree_with_counts("bsfwd_sm90a_m128_n64_d128_bf16_s6_w12", EmulatedArch::Sm90a);
    assert_constants_agree_with_counts("bsfwd_sm90a_m192_n64_d64_bf16_s6_w16", EmulatedArch::Sm90a);
    assert_constants_agree_with_counts("bsfwd_sm90a_m64_n64_d128_bf16_s3_w4_c2", EmulatedArch::Sm90a);
    assert_constants_agree_with_counts("dnfwd_sm90a_m128_n128_d128_bf16_s2_w12", EmulatedArch::Sm90a);
    assert_constants_agree_with_counts("bsfwd_sm90a_m128_n64_d128_bf16_s6_w12_l2", EmulatedArch::Sm90a);
    assert_constants_agree_with_counts(
        "bsfwd_sm90a_m128_n128_d128_bf16_s3_w12_r8_t1_b1",
        EmulatedArch::Sm90a,
    );
}

#[test]
fn a_kernel_without_a_model_says_so() {
    let id = "reorder_sm80_d64_bf16_w4";
    let instance = INSTANCES.iter().find(|instance| variant_id(instance) == id).unwrap();
    let backend = emulator_backend(&EmulatorOptions::default()).unwrap();
    let message = measure(&*backend, instance).unwrap_err().to_string();
    assert!(message.contains(id) && message.contains("no model"), "{message}");
}

#[test]
fn the_program_prints_the_model_of_a_kernel() {
    let id = "bsfwd_sm80_m64_n64_d64_bf16_s2_w4_c4";
    let inspect =
        |more: &[&str]| nabla().args(["kernels", "inspect", id, "--model"]).args(more).output().unwrap();
    let output = inspect(&["--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let model: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let tile = &model["costs_from_counts"]["tile"];
    assert_eq!(tile["tensor_flops"].as_f64(), Some(4.0 * 64.0 * 64.0 * 64.0));
    let predictions = model["predictions"].as_array().unwrap();
    // Four lengths and six densities on the one GPU whose code it is.
    assert_eq!(predictions.len(), 24);
    for prediction in predictions {
        let of_part = &prediction["seconds_by_part"][prediction["limiter"].as_str().unwrap()];
        assert_eq!(of_part, &prediction["seconds"]);
        assert!(prediction["tflops_executed"].as_f64().unwrap() < 312.0, "beyond the peak: {prediction}");
    }
    let output = inspect(&["--arch", "sm_90a"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("H100 SXM") && text.contains("left out"), "{text}");
    let refused =
        nabla().args(["kernels", "inspect", "reorder_sm80_d64_bf16_w4", "--model"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
}
