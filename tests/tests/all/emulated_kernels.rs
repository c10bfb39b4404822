//! Every listed kernel instance, executed: the shipped PTX on the emulator, on every case of the catalogue.

use std::{collections::BTreeSet, fmt::Write as _};

use nabla_host::{
    backend::{EmulatedArch, EmulatorOptions, KernelBackend, emulator_backend},
    check::{
        MutantOutcome, MutantResult, Outcome, Verdict, check_kernels, check_mutants, check_tiles,
        run_usual_case,
    },
    codegen::{
        instances::{INSTANCES, Instance},
        variant_id,
    },
};

const SM80: EmulatedArch = EmulatedArch::Sm80;
const SM90A: EmulatedArch = EmulatedArch::Sm90a;

fn options(arch: EmulatedArch) -> EmulatorOptions {
    EmulatorOptions { arch, ..EmulatorOptions::default() }
}

fn outcomes(options: &EmulatorOptions, filter: &dyn Fn(&str, &str) -> bool) -> Vec<Outcome> {
    let backend = emulator_backend(options).unwrap();
    let mut outcomes = Vec::new();
    check_kernels(&*backend, INSTANCES, filter, &mut |outcome| outcomes.push(outcome)).unwrap();
    outcomes
}

/// Fails with every reason at once.
fn assert_all_passed(outcomes: &[Outcome]) {
    let bad: Vec<String> = outcomes
        .iter()
        .filter(|outcome| outcome.verdict != Verdict::Passed)
        .map(|Outcome { subject, case, verdict, .. }| format!("{subject} on {case}: {verdict:?}"))
        .collect();
    assert!(bad.is_empty(), "{} of {} checks:\n{}", bad.len(), outcomes.len(), bad.join("\n"));
}

fn is_attention(subject: &str) -> bool {
    subject.starts_with("bsfwd") || subject.starts_with("dnfwd")
}

fn is_hopper(subject: &str) -> bool {
    subject.contains("_sm90a_")
}

/// Ids of the instances of which `wanted` holds.
fn listed(wanted: impl Fn(&str) -> bool) -> BTreeSet<String> {
    INSTANCES.iter().map(variant_id).filter(|id| wanted(id)).collect()
}

fn subjects(outcomes: &[Outcome]) -> BTreeSet<String> {
    outcomes.iter().map(|outcome| outcome.subject.clone()).collect()
}

#[test]
fn every_portable_instance_is_right_on_the_whole_catalogue() {
    let outcomes = outcomes(&options(SM80), &|subject, _| !is_hopper(subject));
    assert_all_passed(&outcomes);
    assert_eq!(subjects(&outcomes), listed(|id| !is_hopper(id)), "each listed instance has to be executed");
    // Every one of these does its arithmetic on the device: a check that launches nothing counts nothing.
    let idle: Vec<&str> = outcomes
        .iter()
        .filter(|outcome| outcome.counts.get("warp_instructions").is_none_or(|&n| n == 0))
        .map(|outcome| outcome.subject.as_str())
        .collect();
    assert!(idle.is_empty(), "nothing was executed for {idle:?}");
}

#[test]
fn every_hopper_instance_is_right_on_the_whole_catalogue() {
    let outcomes = outcomes(&options(SM90A), &|subject, _| is_hopper(subject));
    assert_all_passed(&outcomes);
    assert_eq!(subjects(&outcomes), listed(is_hopper), "each listed instance has to be executed");
    let idle = outcomes.iter().any(|outcome| outcome.counts.get("wgmma").is_none_or(|&n| n == 0));
    assert!(!idle, "a Hopper kernel computes by wgmma");
}

#[test]
fn a_hopper_backend_chooses_hopper_kernels_for_their_tiles_and_portable_ones_for_others() {
    let backend = emulator_backend(&options(SM90A)).unwrap();
    let mut outcomes = Vec::new();
    let wanted = |subject: &str, case: &str| {
        subject.contains("_d64_bf16") && (case.starts_with("corners block") || case == "whole-blocks dense")
    };
    check_tiles(&*backend, &wanted, &mut |outcome| outcomes.push(outcome)).unwrap();
    assert_all_passed(&outcomes);
    let tiles = |case: &str, hopper: bool| {
        let of = |o: &&Outcome| o.case == case && is_hopper(&o.subject) == hopper;
        outcomes.iter().filter(of).count()
    };
    // Of mask blocks of 32 a warpgroup would have half its rows for nothing.
    assert_eq!((tiles("corners block 32", true), tiles("corners block 32", false)), (0, 3));
    // One to three query blocks, key tiles of 64 and 128, but for three with 128; the rest are key tiles of 32 and query
    // tiles of 32.
    assert_eq!((tiles("corners block 64", true), tiles("corners block 64", false)), (5, 4));
    assert_eq!((tiles("whole-blocks dense", true), tiles("whole-blocks dense", false)), (5, 5));
}

#[test]
fn every_instance_is_right_when_asynchronous_work_completes_at_once() {
    // What copies asynchronously. Tiles that go round rings and lists that end are in these cases.
    let cases = ["ragged-grid", "corners", "many-tiles", "one-token", "many-blocks mass 0.8"];
    for arch in [SM80, SM90A] {
        let eager = EmulatorOptions { eager: true, ..options(arch) };
        let filter = |subject: &str, case: &str| {
            is_hopper(subject) == (arch == SM90A)
                && (is_attention(subject) || subject.starts_with("select"))
                && cases.iter().any(|name| case.starts_with(name))
        };
        let outcomes = outcomes(&eager, &filter);
        assert_all_passed(&outcomes);
        assert!(outcomes.len() > 100, "{} checks", outcomes.len());
    }
}

#[test]
fn portable_instances_are_right_as_hopper_code_and_as_tensor_cores_sum() {
    for (arch, chip_numerics) in [(SM90A, false), (SM80, true)] {
        let options = EmulatorOptions { chip_numerics, ..options(arch) };
        // The selection's own cases: one with windows and documents, and one of which rounding decides.
        let cases = ["ragged-grid", "video mass 0.8", "large-logits mass 0.95"];
        let outcomes = outcomes(&options, &|subject, case| {
            !is_hopper(subject) && cases.iter().any(|name| case.starts_with(name))
        });
        assert_all_passed(&outcomes);
        assert!(outcomes.len() > 30, "{} checks", outcomes.len());
    }
}

#[test]
fn clean_kernels_are_never_reported_whatever_the_order_of_their_warps() {
    let kernels = [
        ("bsfwd_sm80_m64_n64_d64_bf16_s2_w4_c4", SM80, 100),
        ("bsfwd_sm90a_m128_n64_d64_bf16_s6_w12", SM90A, 100),
        ("bsfwd_sm90a_m128_n64_d64_f16_s6_w12_p2_t1_l2", SM90A, 20),
    ];
    for (kernel, arch, seeds) in kernels {
        for seed in 1..=seeds {
            let seeded = EmulatorOptions { eager: seed % 2 == 0, schedule_seed: Some(seed), ..options(arch) };
            let outcomes =
                outcomes(&seeded, &|id, case| id == kernel && case.starts_with("corners block 64"));
            assert_eq!(outcomes.len(), 1, "{kernel}");
            assert_eq!(outcomes[0].verdict, Verdict::Passed, "{kernel} seed {seed}");
        }
    }
}

/// Plants every mutant of a kernel.
fn mutants_of(kernel: &str, arch: EmulatedArch) -> Vec<MutantOutcome> {
    let instance = INSTANCES.iter().find(|instance| variant_id(instance) == kernel).unwrap();
    let ways = [(false, None), (true, None), (false, Some(1)), (true, Some(2))];
    let backends: Vec<Box<dyn KernelBackend>> = ways
        .into_iter()
        .map(|(eager, schedule_seed)| {
            let usual = options(arch);
            let instruction_budget = Some(30_000_000);
            emulator_backend(&EmulatorOptions { eager, schedule_seed, instruction_budget, ..usual }).unwrap()
        })
        .collect();
    let backends: Vec<&dyn KernelBackend> = backends.iter().map(|backend| &**backend).collect();
    check_mutants(&backends, instance, &mut |_| {}).unwrap()
}

#[track_caller]
fn assert_none_missed(kernel: &str, arch: EmulatedArch, at_least: usize) {
    let outcomes = mutants_of(kernel, arch);
    let missed: Vec<String> = outcomes
        .iter()
        .filter(|outcome| outcome.result == MutantResult::Missed)
        .map(|outcome| format!("line {}: {}: {}", outcome.line, outcome.text, outcome.change))
        .collect();
    assert!(
        missed.is_empty(),
        "{kernel}: {} of {} missed:\n{}",
        missed.len(),
        outcomes.len(),
        missed.join("\n")
    );
    let reported: Vec<&str> = outcomes
        .iter()
        .filter_map(|outcome| match &outcome.result {
            MutantResult::Reported(reason) => Some(reason.as_str()),
            _ => None,
        })
        .collect();
    let all = outcomes.len();
    assert!(reported.len() >= at_least, "{kernel}: only {} of {all} were reported", reported.len());
    // All but wrong results and barriers nobody comes to are at a place, and that is in a kernel's source.
    let placed = reported.iter().filter(|reason| reason.contains("kernels-gpu/src/")).count();
    assert!(
        2 * placed > reported.len(),
        "{kernel}: only {placed} reports name a source line:\n{}",
        reported.join("\n")
    );
}

#[test]
fn every_mutant_of_portable_kernels_is_reported() {
    assert_none_missed("bsfwd_sm80_m64_n64_d64_bf16_s2_w4_c4", SM80, 9);
    assert_none_missed("dnfwd_sm80_m128_n64_d64_bf16_s3_w8_c2", SM80, 9);
    assert_none_missed("select_sm80_m8_k2048_d64_w8_c2", SM80, 1);
    assert_none_missed("reorder_sm80_d64_bf16_w4", SM80, 1);
}

#[test]
fn every_mutant_of_a_hopper_kernel_is_reported() {
    assert_none_missed("bsfwd_sm90a_m64_n64_d64_bf16_s3_w4_c3", SM90A, 80);
}

#[test]
fn every_mutant_of_a_hopper_kernel_with_clusters_turns_and_a_list_of_work_is_reported() {
    assert_none_missed("bsfwd_sm90a_m128_n64_d64_f16_s6_w12_p2_t1_l2", SM90A, 140);
}

#[test]
fn what_the_main_kernels_execute_stays_as_it_is() {
    let mut text = String::new();
    for (id, arch) in [
        ("bsfwd_sm80_m64_n64_d128_bf16_s2_w4_c3", SM80),
        ("dnfwd_sm80_m128_n64_d128_bf16_s2_w8", SM80),
        ("reorder_sm80_d128_bf16_w4", SM80),
        ("select_sm80_m8_k2048_d128_w8_c2", SM80),
        ("bsfwd_sm90a_m128_n64_d128_bf16_s6_w12", SM90A),
        ("dnfwd_sm90a_m128_n128_d128_bf16_s2_w12", SM90A),
    ] {
        let instance: &Instance = INSTANCES.iter().find(|instance| variant_id(instance) == id).unwrap();
        let backend = emulator_backend(&options(arch)).unwrap();
        let outcome = run_usual_case(&*backend, instance).unwrap().unwrap();
        assert_eq!(outcome.verdict, Verdict::Passed, "{id}");
        writeln!(text, "{id} on {}", outcome.case).unwrap();
        // What the compiler decides moves with its version; what the algorithm decides must not.
        for (name, count) in outcome.counts.iter().filter(|(name, _)| ALGORITHM.contains(&name.as_str())) {
            writeln!(text, "  {name:<24} {count}").unwrap();
        }
    }
    insta::assert_snapshot!("counts", text);
}

/// Counts that follow from the kernels' source and not from the compiler's choices.
const ALGORITHM: [&str; 14] = [
    "barriers",
    "bulk_load_bytes",
    "ctas",
    "ex2",
    "global_load_bytes",
    "global_load_sectors",
    "global_store_bytes",
    "global_store_sectors",
    "ldmatrix",
    "local_bytes",
    "mma_operations",
    "shared_conflicts",
    "unwaited_copies",
    "wgmma_flops",
];
