//! Several runs together: devices stay apart, and what differs is said.

use std::fs;

use nabla_reports::{Collection, Record, Run, Status, write_report};

use crate::{synthetic, synthetic_tuning};

fn sweep() -> Run {
    synthetic::Sweep { grids: vec![[4, 32, 32], [8, 32, 32]], ..synthetic::Sweep::default() }.run()
}

/// Makes the same run an hour later, changed.
fn later(change: impl Fn(&mut Run)) -> Run {
    let mut run = sweep();
    run.header.started = "2026-01-02T04:00:00Z".into();
    change(&mut run);
    run
}

#[test]
fn devices_never_share_a_figure_and_the_page_says_so() {
    let all = Collection::new(vec![sweep(), synthetic_tuning::run()]);
    let devices: Vec<_> = all.devices.iter().map(|d| (d.device.as_str(), d.records.len())).collect();
    assert_eq!(devices, [(synthetic::DEVICE, 270), (synthetic_tuning::GPU, 1440)]);
    let out = tempfile::tempdir().unwrap();
    let files = write_report(&all, out.path()).unwrap();
    for figure in &files.figures {
        let svg = fs::read_to_string(&figure.svg).unwrap();
        let named = |device: &str| svg.contains(device);
        let on_gpu = figure.svg.parent().unwrap().ends_with("example-gpu-80gb-cuda");
        assert_eq!(
            (named(synthetic::DEVICE), named(synthetic_tuning::GPU)),
            (!on_gpu, on_gpu),
            "{}",
            figure.title
        );
        assert!(figure.title.ends_with(if on_gpu { synthetic_tuning::GPU } else { synthetic::DEVICE }));
    }
    let page = fs::read_to_string(&files.html).unwrap();
    assert!(
        page.contains("This report holds 2 devices") && page.contains("do not compare times across them")
    );
    assert!(page.contains("NABLA on Example CPU @ 3.0 GHz and Example GPU 80GB"));
    // One device later on: the folders of two are gone.
    write_report(&Collection::new(vec![sweep()]), out.path()).unwrap();
    assert!(!out.path().join("figures/example-gpu-80gb-cuda/roofline.svg").exists());
    assert!(out.path().join("figures/roofline.svg").exists());
}

#[test]
fn of_the_same_trial_in_two_runs_that_of_the_later_run_counts() {
    let faster = later(|run| {
        run.records.iter_mut().for_each(|r| r.time_us_median = r.time_us_median.map(|t| t / 2.0))
    });
    // Whatever the order they are named in.
    let all = Collection::new(vec![faster.clone(), sweep()]);
    assert_eq!(all.devices[0].records, faster.records);
    assert_eq!(all.replaced, 270);
    let warnings = all.warnings();
    assert!(
        warnings.iter().any(|w| w == "270 trials are in several runs; the run started last counts."),
        "{warnings:?}"
    );
    // On another input it is another trial.
    let elsewhere = later(|run| run.records.iter_mut().for_each(|r| r.input_hash = "other".into()));
    assert_eq!(Collection::new(vec![sweep(), elsewhere]).records().count(), 540);
}

#[test]
fn what_differs_between_runs_of_one_device_is_said() {
    let other = later(|run| {
        run.header.identity.toolchain = "rustc 1.96.0".into();
        run.header.identity.input_hash = "beef".into();
        run.header.warnings.push("threads were not pinned to cores".into());
        run.torn = true;
    });
    let warnings = Collection::new(vec![sweep(), other]).warnings().join("\n");
    for part in [
        "The runs differ in toolchain: rustc 1.95.0, rustc 1.96.0.",
        "The runs differ in input: ",
        "threads were not pinned to cores (1 of 2 runs)",
        "1 run was stopped in the middle of writing",
    ] {
        assert!(warnings.contains(part), "{part:?} is missing in {warnings}");
    }
    let same = Collection::new(vec![sweep()]).warnings();
    assert_eq!(same, ["These numbers come from a cost model, not from a machine."]);
}

#[test]
fn emulated_and_disturbed_trials_are_warned_of() {
    let run = later(|run| {
        run.header.identity.backend = "emulator".into();
        let emulated = |r: &Record| Record { backend: "emulator".into(), ..r.clone() };
        run.records = run.records.iter().map(emulated).collect();
        run.records[0].status = Status::Contended;
    });
    let warnings = Collection::new(vec![run]).warnings().join("\n");
    assert!(warnings.contains("their times say nothing about a GPU"), "{warnings}");
    assert!(warnings.contains("1 trial was timed while something else used the device"), "{warnings}");
}

#[test]
fn the_page_ends_with_where_each_number_came_from() {
    let out = tempfile::tempdir().unwrap();
    let files = write_report(&Collection::new(vec![synthetic_tuning::run()]), out.path()).unwrap();
    let page = fs::read_to_string(files.html).unwrap();
    let provenance = &page[page.find("id=\"provenance\"").unwrap()..];
    for fact in [
        "SM 1755 MHz locked, memory 2619 MHz",
        "bf16 989 TFLOP/s (data sheet)",
        "3,350 GB/s",
        "580.10",
        "<th scope=\"row\">Rejected samples</th><td>36</td>",
        "rustc 1.95.0",
        "0123456",
        "Each round times every setting once",
    ] {
        assert!(provenance.contains(fact), "{fact} is missing");
    }
}
