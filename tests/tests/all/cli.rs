//! The program as a user meets it: outputs, messages, exit codes.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Output, Stdio},
};

use nabla_tests::{data, nabla, root};
use safetensors::SafeTensors;

const SMALL: &str = "video:2,16,20,2,32";

fn run(args: &[&str]) -> Output {
    nabla().args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs a command that must succeed and returns its stdout.
fn done(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "nabla {args:?}: {}\n{}", output.status, stderr(&output));
    stdout(&output)
}

/// Runs a command that must fail with one message and a given exit code, and returns the message.
fn fails(args: &[&str], code: i32) -> String {
    let output = run(args);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "nabla {args:?}: {message}");
    assert!(!message.contains("panicked"), "{message}");
    assert_eq!(message.matches("error:").count(), 1, "one message expected: {message}");
    message
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn help_texts() {
    insta::assert_snapshot!("help", done(&["--help"]));
    for command in [
        "info",
        "inputs",
        "mask",
        "run",
        "sweep",
        "tune",
        "compare",
        "profile",
        "check",
        "kernels",
        "report",
        "completions",
    ] {
        insta::assert_snapshot!(format!("help_{command}"), done(&[command, "--help"]));
    }
    for command in ["list", "build", "inspect"] {
        insta::assert_snapshot!(format!("help_kernels_{command}"), done(&["kernels", command, "--help"]));
    }
}

#[test]
fn check_writes_what_it_found_for_people_scripts_and_servers() {
    let folder = tempfile::tempdir().unwrap();
    let (json, junit) = (folder.path().join("check.json"), folder.path().join("check.xml"));
    let printed = done(&[
        "check",
        "--backend",
        "cpu",
        "--isa",
        "portable",
        "--filter",
        "one-token-past,nothing has this name",
        "--json",
        text(&json),
        "--junit",
        text(&junit),
    ]);
    let report: serde_json::Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let suite = &report["suites"][0];
    let checks = suite["checks"].as_array().unwrap();
    assert!(checks.len() > 20 && suite["passed"].as_u64() == Some(checks.len() as u64), "{printed}");
    assert!(printed.contains(&format!("{} passed, 0 failed, 0 skipped", checks.len())), "{printed}");
    for check in checks {
        let error = |name: &str| check["errors"][name].as_f64().unwrap();
        assert!(check["case"].as_str().unwrap().starts_with("one-token-past"), "{check}");
        assert!(error("kernel_rel_rmse") <= error("kernel_rel_rmse_budget"), "{check}");
    }
    let xml = fs::read_to_string(&junit).unwrap();
    assert_eq!(xml.matches("<testcase ").count(), checks.len());
    assert!(xml.contains("failures=\"0\""), "{xml}");
}

#[test]
fn what_cannot_be_checked_says_why() {
    let message = fails(&["check", "--backend", "cpu", "--filter", "no such kernel"], 2);
    assert!(message.contains("no such kernel") && message.contains("nabla kernels list"), "{message}");
    let message = fails(&["check", "--arch", "sm_70"], 2);
    assert!(message.contains("sm_80 or sm_90a") && message.contains("sm_70"), "{message}");
    let message =
        fails(&["check", "--backend", "cpu", "--filter", "one-token", "--json", "/nowhere/x.json"], 6);
    assert!(message.contains("/nowhere/x.json"), "{message}");
    let message = fails(&["sweep", "--backend", "emulator"], 2);
    assert!(message.contains("nabla check --backend emulator"), "{message}");
}

#[test]
fn the_emulator_runs_kernels_and_tells_no_time() {
    let args =
        ["run", "--backend", "emulator", "--generate", "video:1,16,20,1,64,bf16", "--policy", "nabla-0.6"];
    let printed = done(&args);
    for words in ["device           the emulator of sm_80", "attention        not timed", "kernel error"] {
        assert!(printed.contains(words), "{words} is missing in\n{printed}");
    }
    assert!(!printed.contains("NaN") && !printed.contains("TFLOP"), "{printed}");
}

#[test]
fn info_names_the_machine_and_the_build() {
    let text = done(&["info"]);
    for name in ["nabla", "toolchain", "sources", "backend    cpu", "device", "threads", "isa", "f32 peak"] {
        assert!(text.contains(name), "{name} is missing in\n{text}");
    }
}

#[test]
fn completions_are_written_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(done(&["completions", shell]).contains("nabla"), "{shell}");
    }
}

#[test]
fn a_mask_has_the_published_format_and_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let (out, png) = (folder.path().join("m.safetensors"), folder.path().join("m.png"));
    let printed = done(&["mask", "--policy", "nabla-0.5", "--out", text(&out), "--png", text(&png)]);
    assert!(printed.contains("head 0") && printed.contains("head 1"), "{printed}");
    let bytes = fs::read(&out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let shape = |name: &str| file.tensor(name).unwrap().shape().to_vec();
    assert_eq!(shape("kv_num_blocks"), [1, 2, 64]);
    assert_eq!(shape("mask"), [1, 2, 64, 64]);
    assert_eq!(shape("density"), [1, 2]);
    let max = shape("kv_indices")[3];
    let i32s = |name: &str| -> Vec<i32> {
        let data = file.tensor(name).unwrap().data();
        data.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    };
    let (counts, indices) = (i32s("kv_num_blocks"), i32s("kv_indices"));
    let mask = file.tensor("mask").unwrap().data();
    for (row, &count) in counts.iter().enumerate() {
        let listed: Vec<usize> = indices[row * max..][..count as usize].iter().map(|&j| j as usize).collect();
        let kept: Vec<usize> = (0..64).filter(|j| mask[row * 64 + j] == 1).collect();
        assert_eq!(listed, kept, "row {row}");
    }
    assert_eq!(&fs::read(&png).unwrap()[1..4], b"PNG");
}

#[test]
fn run_writes_output_in_the_order_of_the_input() {
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str, policy: &str, block: &str| {
        let out = folder.path().join(name);
        let printed = done(&[
            "run",
            "--generate",
            SMALL,
            "--policy",
            policy,
            "--block",
            block,
            "--repeat",
            "1",
            "--out",
            text(&out),
        ]);
        for fact in ["attention", "density", "kernel error", "sparsity error"] {
            assert!(printed.contains(fact), "{fact} is missing in\n{printed}");
        }
        let bytes = fs::read(&out).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("out").unwrap().shape(), [1, 2, 640, 32]);
        assert_eq!(file.tensor("lse").unwrap().shape(), [1, 2, 640]);
        let data = file.tensor("out").unwrap().data().to_vec();
        data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect::<Vec<f32>>()
    };
    // A policy that keeps everything equals dense attention, whatever the order inside: only rounding differs.
    let dense = read("dense", "dense", "64");
    let largest = dense.iter().fold(0f32, |m, x| m.max(x.abs()));
    for block in ["32", "64", "128"] {
        let full = read("full", "nabla-1", block);
        assert!(dense.iter().zip(&full).all(|(a, b)| (a - b).abs() < largest * 0.02), "block {block}");
    }
}

#[test]
fn a_long_sequence_runs_in_little_memory() {
    // 67,200 tokens: the scores alone would be 18 GB a head.
    let printed = done(&[
        "run",
        "--generate",
        "video:21,40,80,2,128",
        "--policy",
        "nabla-0.1",
        "--repeat",
        "1",
        "--error-rows",
        "128",
    ]);
    let peak = printed.lines().find_map(|line| line.strip_prefix("peak memory")).unwrap();
    let mib: u64 = peak.trim().trim_end_matches(" MiB").parse().unwrap();
    assert!(mib < 2048, "{printed}");
}

#[test]
fn bad_usage_is_told_in_one_message() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("m");
    for (args, expected) in [
        (vec!["run", "--policy", "topk-5"], "nabla-MASS"),
        (vec!["run", "--policy", "dense", "--generate", "video:1,2"], "video:"),
        (vec!["run", "--policy", "dense", "--threads", "0"], "threads"),
        (vec!["mask", "--policy", "dense", "--block", "48", "--out", text(&out)], "32, 64 or 128"),
        (vec!["run", "--policy", "nabla-0.5", "--block-m", "7"], "tile 7x"),
        (vec!["run", "--policy", "nabla-0.5", "--block-m", "128"], "tile 128x"),
        (vec!["sweep", "--frames", "5"], "1 to 4 frames"),
        (vec!["sweep", "--thresholds", "1.5"], "shares in 0..=1"),
        (vec!["sweep", "--resume", "x", "--rounds", "3"], "--resume"),
        (vec!["sweep", "--resume", "x", "--budget-seconds", "3", "--seed", "1"], "--resume"),
    ] {
        let message = fails(&args, 2);
        assert!(message.contains(expected), "{args:?}: {message}");
    }
}

#[test]
fn bad_input_is_told_in_one_message() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.safetensors");
    fs::write(&broken, [255u8; 64]).unwrap();
    let missing = folder.path().join("missing.safetensors");
    for path in [&broken, &missing] {
        let message = fails(&["run", "--input", text(path), "--policy", "dense"], 3);
        assert!(message.contains(text(path)), "{message}");
    }
    let clip = data("bbb_t4h32w32_n2d64.safetensors");
    let message = fails(&["run", "--input", text(&clip), "--grid", "4,32,31", "--policy", "dense"], 3);
    assert!(message.contains("4096"), "{message}");
    fails(&["report", text(folder.path())], 3);
    // Which folder would the report of two runs belong to?
    let message = fails(&["report", "a", "b"], 2);
    assert!(message.contains("--out"), "{message}");
    let message = fails(&["report", "--compare", "a"], 2);
    assert!(message.contains("two runs") && message.contains("got 1"), "{message}");
    fails(&["report", "a", "--markdown", "--out", "b"], 2);
    fails(&["sweep", "--resume", text(folder.path())], 3);
    fails(&["sweep", "--resume", text(folder.path()), "--budget-seconds", "3"], 3);
}

#[test]
fn results_that_cannot_be_written_are_told_in_one_message() {
    let out = "/nonexistent/folder/out.safetensors";
    fails(&["run", "--generate", SMALL, "--policy", "dense", "--out", out], 6);
    fails(&["sweep", "--generate", SMALL, "--out", "/proc/nabla"], 6);
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let mut child =
        nabla().args(["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(&output));
}

#[test]
fn a_sweep_writes_records_csv_plots_and_report() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let printed = done(&[
        "sweep",
        "--generate",
        SMALL,
        "--thresholds",
        "0.3,0.6",
        "--policies",
        "sta-1-3-3",
        "--rounds",
        "3",
        "--out",
        text(&out),
    ]);
    assert!(printed.contains("nabla-0.3") && printed.contains("report.html"), "{printed}");
    let csv = fs::read_to_string(out.join("records.csv")).unwrap();
    let header = "status,reason,backend,device,variant,dtype,batch,heads,seqlen,head_dim,grid,policy,threshold,q_block,\
                  kv_block,block_m,block_n,density,time_us_median,time_us_ci_low,time_us_ci_high,samples,mask_us_median,\
                  total_us_median,dense_us_median,speedup_vs_dense,speedup_total_vs_dense,tflops_executed,\
                  tflops_dense_equivalent,kernel_rel_rmse,kernel_max_abs,sparsity_rel_l1,sparsity_rel_rmse,\
                  sparsity_cosine,seed,input_hash,source_hash,toolchain,git_commit,timestamp";
    assert!(csv.starts_with(header), "{}", csv.lines().next().unwrap_or_default());
    let statuses: BTreeMap<&str, usize> = csv.lines().skip(1).fold(BTreeMap::new(), |mut counts, line| {
        *counts.entry(line.split(',').next().unwrap_or_default()).or_default() += 1;
        counts
    });
    // Tiles that do not fit a mask block are rows with a reason, not silence.
    assert!(statuses["ok"] > 0 && statuses["ineligible"] > 0, "{statuses:?}");
    assert_eq!(statuses.len(), 2, "{statuses:?}");
    let figures: Vec<String> = fs::read_dir(out.join("figures"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for name in ["speedup", "latency", "error", "heatmap", "pareto"] {
        for ending in [".png", ".svg"] {
            assert!(
                figures.iter().any(|f| f.contains(name) && f.ends_with(ending)),
                "{name}{ending}: {figures:?}"
            );
        }
    }
    assert!(out.join("report.html").is_file());
    // The same folder is not overwritten.
    let message = fails(&["sweep", "--generate", SMALL, "--out", text(&out)], 2);
    assert!(message.contains("--resume"), "{message}");
    // A report can be drawn again elsewhere.
    let again = folder.path().join("again");
    let mask = folder.path().join("mask.safetensors");
    done(&["mask", "--generate", SMALL, "--policy", "nabla-0.5", "--out", text(&mask)]);
    done(&["report", text(&out), text(&out), "--out", text(&again), "--mask", text(&mask)]);
    assert!(again.join("report.html").is_file());
    assert!(again.join("figures/block_masks.csv").is_file());
    let message = fails(&["report", text(&out), "--mask", text(&out.join("records.csv"))], 3);
    assert!(message.contains("nabla mask --out"), "{message}");
    // In text, nothing is drawn and stdout holds nothing else.
    let line = done(&["report", text(&out), "--one-line"]);
    assert!(line.starts_with("nabla: ") && line.trim_end().lines().count() == 1, "{line}");
    assert!(done(&["report", text(&out), "--markdown"]).contains("| problem | policy |"));
    let same = done(&["report", "--compare", text(&out), text(&out)]);
    assert!(same.contains("**1.000x**"), "{same}");
}

#[test]
fn a_foreign_run_is_not_continued() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let args = ["--thresholds", "0.5", "--blocks", "64", "--rounds", "1", "--no-report"];
    done(&[&["sweep", "--generate", "video:1,16,16,1,32", "--out", text(&out)], &args[..]].concat());
    let log = out.join("records.jsonl");
    let changed = fs::read_to_string(&log).unwrap().replacen("\"isa\":\"", "\"isa\":\"other-", 1);
    fs::write(&log, changed).unwrap();
    let message = fails(&["sweep", "--resume", text(&out)], 3);
    assert!(message.contains("isa") && message.contains("other-"), "{message}");
}

#[test]
fn every_policy_is_listed_explained_and_documented() {
    let listed = nabla().args(["policies", "--json"]).output().unwrap();
    let all: Vec<serde_json::Value> = serde_json::from_slice(&listed.stdout).unwrap();
    assert!(all.len() >= 17, "{}", all.len());
    let document = fs::read_to_string(root().join("docs/policies.md")).unwrap();
    for entry in &all {
        let name = entry["name"].as_str().unwrap();
        assert!(document.contains(&format!("| `{name}")), "docs/policies.md has no row for {name}");
        let one = nabla().args(["policies", name]).output().unwrap();
        assert!(one.status.success() && String::from_utf8_lossy(&one.stdout).contains("source"), "{name}");
    }
    let unknown = nabla().args(["policies", "nothing"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
}

#[test]
fn policies_of_the_host_run_like_those_of_kernels_and_files_go_round() {
    let folder = tempfile::tempdir().unwrap();
    let mask = folder.path().join("mask.safetensors");
    let input = ["--generate", "video:2,16,24,2,32"];
    let run = |command: &str, policy: &str, more: &[&str]| {
        let output = nabla().arg(command).args(input).args(["--policy", policy]).args(more).output().unwrap();
        assert!(output.status.success(), "{policy}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    run("mask", "vsa-0.3@stac-3-3-3_xattn-8-0.2", &["--out", mask.to_str().unwrap()]);
    let again = run("run", &format!("lists:{}", mask.display()), &["--repeat", "1"]);
    assert!(again.contains("density"), "{again}");
    for backend in ["cpu", "emulator"] {
        let on = ["--backend", backend, "--repeat", "1", "--dtype", "bf16"];
        run("run", "nabla-0.5@sta-3-3-3", &on);
    }
    let missing = nabla().args(["run", "--policy", "lists:nowhere.safetensors"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(2));
}
