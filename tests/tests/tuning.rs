//! Tuning, comparing and profiles as a user meets them: kills, foreign logs, full disks, exit codes.
//!
//! In a program of its own, so that nothing else runs while builds are compared by their times.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use nabla_reports::{Stage, read_run};
use nabla_tests::nabla;

const SMALL: [&str; 4] = ["--backend", "cpu", "--generate", "video:1,16,32,2,64"];

fn tune(out: &Path, more: &[&str]) -> Command {
    let mut command = nabla();
    command.arg("tune").args(SMALL).args(["--thresholds", "0.5", "--seed", "3"]).args(more);
    command.arg("--out").arg(out);
    command
}

fn resume(out: &Path) -> Command {
    let mut command = nabla();
    command.args(["tune", "--resume"]).arg(out);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Checks the exit code and that there is one message, and returns it.
fn fails(output: &Output, code: i32) -> String {
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert!(!message.contains("panicked"), "{message}");
    assert_eq!(message.matches("error:").count(), 1, "one message expected: {message}");
    message
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}: {}", output.status, text(&output.stderr));
    text(&output.stdout)
}

fn lines(log: &Path) -> Vec<String> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let end = text.rfind('\n').map_or(0, |i| i + 1);
    text[..end].lines().map(str::to_owned).collect()
}

/// Waits until the log has more lines than `count`, or the child ends; says whether it still runs.
fn reaches(child: &mut std::process::Child, log: &Path, count: usize) -> bool {
    let deadline = Instant::now() + Duration::from_secs(300);
    while lines(log).len() <= count && Instant::now() < deadline {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        sleep(Duration::from_millis(5));
    }
    true
}

#[test]
fn a_killed_run_goes_on_where_it_was_and_writes_its_profile() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let log = out.join("records.jsonl");
    let mut command = tune(&out, &["--policies", "dense", "--evaluations", "12", "--effort", "quick"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert!(reaches(&mut child, &log, 5), "it ended before it could be killed");
    child.kill().unwrap();
    child.wait().unwrap();
    let before = lines(&log);
    // A kill may tear the line in flight.
    fs::OpenOptions::new().append(true).open(&log).unwrap().write_all(&before[1].as_bytes()[..60]).unwrap();

    done(&resume(&out).output().unwrap());
    let after = lines(&log);
    assert!(after.starts_with(&before), "a finished row changed or vanished");
    let run = read_run(&out).unwrap();
    assert!(!run.torn);
    let searched = run.records.iter().filter(|r| r.tuning.as_ref().unwrap().stage == Stage::Search);
    let evaluations: BTreeSet<(u64, u64)> =
        searched.map(|r| (r.q_block, r.tuning.as_ref().unwrap().evaluation)).collect();
    // Two problems, each with twelve evaluations and no two alike.
    assert_eq!(evaluations.len(), 24);
    let profile = fs::read_to_string(out.join("profile.json")).unwrap();
    assert_eq!(profile.matches("\"config\"").count(), 2);
    // A finished run has nothing left to do.
    done(&resume(&out).output().unwrap());
    assert_eq!(lines(&log), after);

    let file = out.join("profile.json");
    let found = done(
        &nabla()
            .args(["profile", "lookup"])
            .arg(&file)
            .args(SMALL)
            .args(["--policy", "nabla-0.5", "--json"])
            .output()
            .unwrap(),
    );
    assert!(found.contains("\"exact\"") && found.contains("block_m"), "{found}");
    let printed = done(
        &nabla().args(["run", "--policy", "nabla-0.5", "--profile"]).arg(&file).args(SMALL).output().unwrap(),
    );
    assert!(printed.contains("attention"), "{printed}");

    // The log of another input is not continued.
    let text = fs::read_to_string(&log).unwrap();
    let foreign = text.replacen("\"device\":\"", "\"device\":\"another ", 1);
    fs::write(&log, foreign).unwrap();
    let message = fails(&resume(&out).output().unwrap(), 3);
    assert!(message.contains("device") && message.contains("another "), "{message}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_what_is_finished_and_says_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let log = out.join("records.jsonl");
    let mut command = tune(&out, &["--effort", "exhaustive"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    assert!(reaches(&mut child, &log, 3));
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let message = fails(&output, 130);
    assert!(message.contains("--resume"), "{message}");
    assert!(lines(&log).len() > 3 && !read_run(&out).unwrap().torn);
}

#[cfg(unix)]
#[test]
fn a_disk_that_is_full_is_told_and_what_was_written_stays_readable() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let tune = tune(&out, &["--evaluations", "8", "--effort", "quick"]);
    // No file may grow beyond 4 KiB; the signal that would end the program is ignored, as on a full disk there is none.
    let mut command = Command::new("bash");
    command.args(["-c", "trap '' XFSZ; ulimit -f 4; exec \"$@\"", "bash"]).arg(tune.get_program());
    command.args(tune.get_args()).env("CUDA_VISIBLE_DEVICES", "");
    let message = fails(&command.output().unwrap(), 6);
    // Whichever grows past it first: the log, or the rounds of the race in flight.
    assert!(message.contains("cannot write") && message.contains(".jsonl"), "{message}");
    let run = read_run(&out).unwrap();
    assert_eq!(run.header.identity.backend, "cpu");
}

#[test]
fn what_cannot_be_tuned_or_compared_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    for (more, code, words) in [
        (&["--strategy", "magic"][..], 2, "--strategy: expected one of"),
        (&["--thresholds", "7"][..], 2, "shares in 0..=1"),
        (&["--frames", "9"][..], 2, "1 to 1 frames"),
        (&["--blocks", "48"][..], 2, "48"),
    ] {
        let message = fails(&tune(&out, more).output().unwrap(), code);
        assert!(message.contains(words), "{message}");
        let _ = fs::remove_dir_all(&out);
    }
    let missing = nabla().args(["tune", "--backend", "cpu", "--input", "/nowhere.npz"]).output().unwrap();
    assert!(fails(&missing, 3).contains("/nowhere.npz"));
    let emulated = nabla().args(["tune", "--backend", "emulator"]).output().unwrap();
    assert!(fails(&emulated, 2).contains("nabla check"));
    let unknown = nabla().args(["compare", "no-such-thing", "HEAD"]).output().unwrap();
    assert!(fails(&unknown, 2).contains("git revision"));
    let broken = folder.path().join("profile.json");
    fs::write(&broken, "{\"format\": 9}").unwrap();
    let shown = nabla().args(["profile", "show"]).arg(&broken).output().unwrap();
    assert!(fails(&shown, 3).contains("format 9"));
}

fn compare(base: &Path, head: &Path, json: &Path) -> Output {
    let mut command = nabla();
    command.arg("compare").args([base, head]).args(SMALL).args(["--policies", "nabla-0.5"]);
    command.arg("--json").arg(json).output().unwrap()
}

#[cfg(unix)]
#[test]
fn a_slower_build_fails_the_comparison_and_the_same_build_passes() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let program = nabla().get_program().to_owned();
    let program = Path::new(&program);
    let json = folder.path().join("compare.json");
    done(&compare(program, program, &json));
    let report: serde_json::Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let first = &report["problems"][0]["comparisons"][0];
    assert!(first["pairs"].as_u64().unwrap() >= 32, "{report}");
    assert_eq!(report["slower"], 0);

    // The same program with other instructions: plain Rust is many times slower than any vector unit's.
    let slower = folder.path().join("slower");
    fs::write(&slower, format!("#!/bin/sh\nexec '{}' \"$@\" --isa portable\n", program.display())).unwrap();
    fs::set_permissions(&slower, fs::Permissions::from_mode(0o755)).unwrap();
    let output = compare(program, &slower, &json);
    let report: serde_json::Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let message = fails(&output, 8);
    assert!(message.contains("is slower than"), "{message}");
    let comparisons = report["problems"][0]["comparisons"].as_array().unwrap();
    let stages: Vec<&str> = comparisons.iter().map(|c| c["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["compare", "confirm"], "slower counts once it is repeated in fresh processes");
    assert!(comparisons[0]["ratio"].as_f64().unwrap() > 1.2, "{report}");
}
