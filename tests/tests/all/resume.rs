//! A sweep killed at any time loses no finished row and doubles none.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use nabla_reports::read_run;
use nabla_tests::nabla;

/// 3 lengths x (dense + 3 thresholds x 2 mask blocks) x 4 tiles.
const ROWS: usize = 3 * (1 + 3 * 2) * 4;

fn start(out: &Path) -> Command {
    let mut command = nabla();
    command.args([
        "sweep",
        "--generate",
        "video:3,16,24,2,64",
        "--frames",
        "1,2,3",
        "--thresholds",
        "0.2,0.5,0.8",
    ]);
    command.args([
        "--blocks",
        "32,64",
        "--block-m",
        "32,64",
        "--block-n",
        "32,64",
        "--rounds",
        "60",
        "--no-report",
    ]);
    command.arg("--out").arg(out);
    command
}

fn resume(out: &Path) -> Command {
    let mut command = nabla();
    command.arg("sweep").arg("--resume").arg(out);
    command
}

fn whole_lines(log: &Path) -> Vec<String> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let end = text.rfind('\n').map_or(0, |i| i + 1);
    text[..end].lines().map(str::to_owned).collect()
}

/// Kills the command with SIGKILL once the log has more lines than `lines`; says whether it was still running.
fn kill_after(mut command: Command, log: &Path, lines: usize) -> bool {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while whole_lines(log).len() <= lines && Instant::now() < deadline {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    let status = child.wait().unwrap();
    !status.success()
}

/// Writes which of 2 x 2 blocks are kept, for all heads.
fn write_mask(path: &Path, cells: [u8; 4]) {
    let mask = safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![1, 2, 2], &cells).unwrap();
    safetensors::serialize_to_file([("mask", mask)], None, path).unwrap();
}

#[test]
fn a_run_goes_on_with_the_masks_it_was_started_with() {
    let folder = tempfile::tempdir().unwrap();
    let (out, mask) = (folder.path().join("run"), folder.path().join("mask.safetensors"));
    let policy = format!("lists:{}", mask.display());
    write_mask(&mask, [1, 0, 0, 1]);
    let mut command = nabla();
    command.args(["sweep", "--generate", "video:1,8,16,2,32", "--thresholds", "0.5", "--policies", &policy]);
    command.args(["--blocks", "64", "--block-m", "32", "--block-n", "32", "--rounds", "2", "--no-report"]);
    let output = command.arg("--out").arg(&out).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let run = read_run(&out).unwrap();
    let [named] = &run.header.identity.policy_files[..] else { panic!("{:?}", run.header.identity) };
    assert!(named.starts_with(&format!("{policy}#")), "{named}");
    assert_eq!(run.records.iter().filter(|record| record.policy == *named).count(), 1);
    assert!(resume(&out).output().unwrap().status.success(), "nothing has changed");

    write_mask(&mask, [1, 1, 0, 1]);
    let output = resume(&out).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{message}");
    assert!(message.contains("policy_files") && message.contains(named), "{message}");
}

#[test]
fn kill_and_resume_lose_nothing_and_double_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let log = out.join("records.jsonl");
    let mut kills = 0;
    let mut before: Vec<String> = Vec::new();
    for attempt in 0..4 {
        let command = if attempt == 0 { start(&out) } else { resume(&out) };
        if !kill_after(command, &log, before.len() + 5) {
            break;
        }
        kills += 1;
        let after = whole_lines(&log);
        assert!(after.starts_with(&before), "a finished row changed or vanished");
        before = after;
        // A kill may tear the line in flight; make sure one is torn at least once.
        if attempt == 1 {
            let torn = &before[before.len() - 1][..40];
            fs::OpenOptions::new().append(true).open(&log).unwrap().write_all(torn.as_bytes()).unwrap();
        }
    }
    assert!(kills >= 2, "the sweep ended before it could be killed");
    let output = resume(&out).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let after = whole_lines(&log);
    assert!(after.starts_with(&before), "a finished row changed or vanished");
    assert_eq!(after.len(), 1 + ROWS);
    let run = read_run(&out).unwrap();
    assert!(!run.torn);
    let keys: BTreeSet<String> = run.records.iter().map(nabla_reports::Record::key).collect();
    assert_eq!((run.records.len(), keys.len()), (ROWS, ROWS), "a row is doubled");
    // A finished run has nothing left to do.
    assert!(resume(&out).output().unwrap().status.success());
    assert_eq!(whole_lines(&log), after);
}
