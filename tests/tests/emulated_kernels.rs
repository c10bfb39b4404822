//! Every listed kernel instance, executed: the shipped PTX on the emulator, on every case of the catalogue.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::collections::BTreeSet;

use nabla_host::{
    backend::{EmulatedArch, EmulatorOptions, emulator_backend},
    check::{Outcome, Verdict, check_kernels},
    codegen::{instances::INSTANCES, variant_id},
};

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

#[test]
fn every_instance_is_right_on_the_whole_catalogue() {
    let options = EmulatorOptions { arch: EmulatedArch::Sm80, ..EmulatorOptions::default() };
    let outcomes = outcomes(&options, &|_, _| true);
    assert_all_passed(&outcomes);
    let checked: BTreeSet<&str> = outcomes.iter().map(|outcome| outcome.subject.as_str()).collect();
    let listed: Vec<String> = INSTANCES.iter().map(variant_id).collect();
    assert_eq!(
        checked,
        listed.iter().map(String::as_str).collect(),
        "each listed instance has to be executed"
    );
    // Every one of these does its arithmetic on the device: a check that launches nothing counts nothing.
    let idle: Vec<&str> = outcomes
        .iter()
        .filter(|outcome| outcome.counts.get("warp_instructions").is_none_or(|&n| n == 0))
        .map(|outcome| outcome.subject.as_str())
        .collect();
    assert!(idle.is_empty(), "nothing was executed for {idle:?}");
}

#[test]
fn every_instance_is_right_when_copies_complete_at_once() {
    let options = EmulatorOptions { eager: true, ..EmulatorOptions::default() };
    // What copies asynchronously; the selection does, on its whole catalogue it is the longest of all.
    let filter = |subject: &str, case: &str| {
        subject.starts_with("bsfwd") || subject.starts_with("dnfwd") || case.starts_with("two-words mass 0.8")
    };
    let outcomes = outcomes(&options, &filter);
    assert_all_passed(&outcomes);
    assert!(outcomes.len() > 300, "{} checks", outcomes.len());
}
