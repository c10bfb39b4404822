//! The campaign from the packing to the report, on the CPU and without PyTorch: cut in the middle and gone on with.

#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn xtask() -> Command {
    Command::new(env!("CARGO_BIN_EXE_xtask"))
}

/// Returns the program that the test run has built, or builds it.
fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("NABLA_TEST_PROGRAM") {
        return PathBuf::from(program);
    }
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "nabla-tuner"]).current_dir(root());
    assert!(build.status().expect("cargo runs").success(), "the program does not build");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join("debug/nabla")
}

/// A folder for one test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("nabla-campaign-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder for temporary files");
        Self(folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Tells whether there is a Python, and says so where there is none.
fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        println!("SKIPPED: python3 is not on this machine, and the campaign runs on it");
    }
    found
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A packed campaign on this machine.
struct Pack {
    folder: PathBuf,
    /// Holds a `torch` that cannot be imported.
    python: PathBuf,
}

impl Pack {
    fn new(scratch: &Path) -> Self {
        let folder = scratch.join("pack");
        let packed = xtask()
            .args(["campaign", "--backend", "cpu", "--smoke", "--program"])
            .arg(program())
            .arg("--out")
            .arg(&folder)
            .output()
            .expect("xtask runs");
        assert!(packed.status.success(), "{}", text(&packed));
        let python = scratch.join("without-torch");
        fs::create_dir(&python).expect("a writable folder");
        fs::write(python.join("torch.py"), "raise ImportError('no torch in this test')\n").expect("writable");
        Self { folder, python }
    }

    /// Puts a program before the packed one that lets each problem of a worker wait, so that times are known on any machine.
    fn slowed(self, seconds: f64) -> Self {
        let program = self.folder.join("nabla");
        fs::rename(&program, self.folder.join("nabla-itself")).expect("a writable folder");
        let slow = SLOW.replace("SECONDS", &seconds.to_string());
        fs::write(&program, slow).expect("a writable folder");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
        self
    }

    fn run(&self, results: &Path, options: &[&str]) -> Command {
        let mut command = Command::new(self.folder.join("run.sh"));
        command.arg("--results").arg(results).args(options).env("PYTHONPATH", &self.python);
        command
    }
}

/// Passes everything on to the program; requests of a worker that open a problem wait first.
const SLOW: &str = r#"#!/usr/bin/env python3
import os, subprocess, sys, time
program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "nabla-itself")
if sys.argv[1] != "worker":
    os.execv(program, [program, *sys.argv[1:]])
worker = subprocess.Popen([program, *sys.argv[1:]], stdin=subprocess.PIPE, text=True)
for line in sys.stdin:
    time.sleep(SECONDS if '"ask": "open"' in line else 0)
    worker.stdin.write(line)
    worker.stdin.flush()
worker.stdin.close()
sys.exit(worker.wait())
"#;

/// Reads how often a unit was tried and how it ended from the campaign's state, which names each on a line of its own.
fn unit(state: &str, name: &str) -> Option<(u32, String)> {
    let (_, entry) = state.split_once(&format!("\"{name}\": {{"))?;
    let (entry, _) = entry.split_once('}')?;
    let value = |key: &str| {
        let (_, rest) = entry.split_once(&format!("\"{key}\": "))?;
        Some(rest.split([',', '\n']).next()?.trim_matches('"').to_owned())
    };
    Some((value("attempts")?.parse().ok()?, value("status")?))
}

#[test]
fn a_campaign_that_is_killed_goes_on_and_ends_with_its_report() {
    if !has_python() {
        return;
    }
    let scratch = Scratch::new("whole");
    let pack = Pack::new(&scratch.0);
    let results = scratch.0.join("results/cpu/today");

    // Killed as soon as it works on the sweep of the clip.
    let mut first = pack.run(&results, &["--budget", "300"]).stdout(Stdio::null()).spawn().expect("sh runs");
    let started = Instant::now();
    let state = results.join("campaign.json");
    while !fs::read_to_string(&state).is_ok_and(|state| unit(&state, "sweep-clip").is_some()) {
        assert!(started.elapsed() < Duration::from_secs(120), "the sweep never started");
        assert!(first.try_wait().expect("it is ours").is_none(), "the campaign ended by itself");
        std::thread::sleep(Duration::from_millis(5));
    }
    first.kill().expect("it is ours");
    first.wait().expect("it is ours");
    assert_eq!(unit(&read(&state), "sweep-clip"), Some((1, "cut".to_owned())));
    assert!(!results.join("report.html").exists());

    let second = pack.run(&results, &["--budget", "300"]).output().expect("sh runs");
    assert!(second.status.success(), "{}", text(&second));
    let state = read(&state);
    assert_eq!(
        unit(&state, "check-usual"),
        Some((1, "done".to_owned())),
        "what is finished is not run again"
    );
    assert_eq!(unit(&state, "sweep-clip"), Some((2, "done".to_owned())));
    assert_eq!(unit(&state, "tune-clip"), Some((1, "done".to_owned())));
    assert_eq!(unit(&state, "sanitizer-memcheck"), Some((0, "skipped".to_owned())));

    let checks = read(&results.join("check/check-usual.json"));
    assert!(checks.contains("\"failed\": 0") && !checks.contains("\"passed\": 0,"), "{checks}");
    for name in ["sweep-clip", "sweep-small", "sweep-ragged", "tune-clip"] {
        assert!(results.join("runs").join(name).join("records.csv").is_file(), "{name}");
    }
    assert!(results.join("runs/tune-clip/profile.json").is_file());
    let split = read(&results.join("time_split.csv"));
    assert_eq!(split.lines().count(), 1 + 2 * 3, "two shapes, three policies: {split}");
    let ratios = read(&results.join("ratios.md"));
    assert!(ratios.contains("No peer was measured") && ratios.contains("no torch in this test"), "{ratios}");
    let report = read(&results.join("report.html"));
    for part in ["Where our time goes", "sweeps/report.html", "compute-sanitizer watches GPUs", "tiny inputs"]
    {
        assert!(report.contains(part), "no {part} in the report");
    }
    assert!(results.join("sweeps/report.html").is_file());
    assert!(results.parent().expect("a folder").join("cpu-today.tar.gz").is_file());

    // All is done: a third run has nothing left to run.
    let third = pack.run(&results, &["--budget", "60"]).output().expect("sh runs");
    assert!(third.status.success(), "{}", text(&third));
    assert!(!text(&third).contains("done in"), "{}", text(&third));

    let shown = xtask().arg("headline").arg(&results).arg("--print").output().expect("xtask runs");
    assert!(!shown.status.success() && text(&shown).contains("tiny inputs"), "{}", text(&shown));
}

#[test]
fn a_budget_that_is_used_up_is_told_from_a_campaign_that_is_done() {
    if !has_python() {
        return;
    }
    let scratch = Scratch::new("budget");
    let pack = Pack::new(&scratch.0);
    let results = scratch.0.join("results");
    let short = pack.run(&results, &["--budget", "1"]).output().expect("sh runs");
    assert_eq!(short.status.code(), Some(9), "{}", text(&short));
    assert!(read(&results.join("report.html")).contains("not reached"));
    let wrong = pack.run(&results, &["--only", "reviews"]).output().expect("sh runs");
    assert_eq!(wrong.status.code(), Some(2), "{}", text(&wrong));
    assert!(text(&wrong).contains("reviews") && text(&wrong).contains("same-ptx"), "{}", text(&wrong));
}

#[test]
fn a_short_call_brings_a_part_of_everything_and_the_next_one_goes_deeper() {
    if !has_python() {
        return;
    }
    let scratch = Scratch::new("bounded");
    // Three policies a shape, of which a share of some ten seconds has room for two at most.
    let pack = Pack::new(&scratch.0).slowed(5.0);
    let results = scratch.0.join("results");
    let short = pack.run(&results, &["--budget", "46", "--only", "field"]).output().expect("sh runs");
    let told = text(&short);
    assert!(short.status.success(), "every unit has results: {told}");
    assert!(
        told.contains("0 done, 2 bounded, 0 failed, 0 skipped, 0 left; 2 ended by their share"),
        "{told}"
    );
    let state = read(&results.join("campaign.json"));
    for name in ["field-small", "field-ragged"] {
        assert_eq!(unit(&state, name), Some((1, "bounded".to_owned())), "{told}");
        assert!(told.contains("1 of 3 policies") || told.contains("2 of 3 policies"), "{told}");
    }
    let split = |results: &Path| read(&results.join("time_split.csv"));
    assert!(split(&results).contains("small,nabla-0.5,"), "what tells most comes first: {}", split(&results));
    let ratios = read(&results.join("ratios.md"));
    assert!(ratios.contains("| all of them | small | dense | not reached within its share |"), "{ratios}");
    assert!(read(&results.join("report.html")).contains("of 3 policies"));
    assert!(!results.join("inputs").exists(), "inputs are gone with their shape");

    let further = pack.run(&results, &["--budget", "300", "--only", "field"]).output().expect("sh runs");
    let told = text(&further);
    assert!(further.status.success(), "{told}");
    assert!(told.contains("2 done, 0 bounded"), "{told}");
    let state = read(&results.join("campaign.json"));
    assert_eq!(unit(&state, "field-small"), Some((2, "done".to_owned())));
    assert_eq!(split(&results).lines().count(), 1 + 2 * 3, "{}", split(&results));
    assert!(!read(&results.join("ratios.md")).contains("not reached"));
}

#[test]
fn the_parts_written_in_python_pass_their_own_tests() {
    if !has_python() {
        return;
    }
    let mut tests = Command::new("python3");
    tests.args(["-m", "unittest", "discover", "bench/campaign"]).current_dir(root());
    // Compiled files would lie among the sources.
    let output = tests.env("PYTHONDONTWRITEBYTECODE", "1").output().expect("python3 runs");
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("OK"), "{}", text(&output));
}
