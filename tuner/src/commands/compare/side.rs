//! What can be compared: a program, a folder of prebuilt kernels, a git revision.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nabla_host::codegen::MANIFEST;
use tempfile::TempDir;

use crate::{
    cli::CompareArgs,
    commands::worker,
    failure::{Failure, Kind},
    worker::Start,
};

/// One of the two.
#[derive(Debug)]
pub(super) struct Side {
    /// As it was given.
    pub(super) name: String,
    /// How to start its workers.
    pub(super) start: Start,
    /// Where a revision was built.
    _folder: Option<TempDir>,
}

impl Side {
    /// Finds or builds what a name stands for.
    pub(super) fn find(name: &str, args: &CompareArgs) -> Result<Self, Failure> {
        let path = Path::new(name);
        let mut device = args.device.clone();
        let (program, folder) = if path.is_file() {
            // A bare name would be looked for in PATH.
            (Some(fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())), None)
        } else if path.join(MANIFEST).is_file() {
            device.kernel_cache = Some(path.to_owned());
            (None, None)
        } else {
            let folder = tempfile::tempdir().map_err(|e| Failure::write(&std::env::temp_dir(), &e))?;
            (Some(build(name, folder.path())?), Some(folder))
        };
        // The other side's worker is on the device as well.
        let start = worker::start(program.as_deref(), (&args.input, &device, args.errors), 1)?;
        Ok(Self { name: name.to_owned(), start, _folder: folder })
    }
}

/// Builds the program of a git revision in a worktree of its own, which is removed again.
fn build(revision: &str, folder: &Path) -> Result<PathBuf, Failure> {
    let neither = |why: &str| {
        let message = format!(
            "expected a nabla program, a folder of prebuilt kernels with {MANIFEST}, or a git revision, got '{revision}': {why}"
        );
        Failure::new(Kind::Usage, message)
    };
    let commit = git(&["rev-parse", "--verify", "--quiet", &format!("{revision}^{{commit}}")])
        .map_err(|_| neither("there is no such file and no such revision here"))?;
    let root = git(&["rev-parse", "--show-toplevel"]).map_err(|why| neither(&why))?;
    let tree = folder.join("tree");
    let tree_text = tree.to_string_lossy().into_owned();
    anstream::eprintln!("building {revision} ({})", &commit[..commit.len().min(12)]);
    git(&["worktree", "add", "--detach", "--quiet", &tree_text, &commit])
        .map_err(|why| Failure::new(Kind::Build, format!("cannot check {revision} out: {why}")))?;
    let built = cargo(&tree, &Path::new(&root).join("target").join("compare"), folder, revision);
    // Whatever came of it, git must not keep a worktree whose folder goes away.
    let removed = git(&["worktree", "remove", "--force", &tree_text]);
    let program = built?;
    removed.map_err(|why| {
        Failure::new(Kind::Build, format!("cannot remove the worktree of {revision}: {why}"))
    })?;
    Ok(program)
}

fn cargo(tree: &Path, target: &Path, folder: &Path, revision: &str) -> Result<PathBuf, Failure> {
    let failed = |why: &dyn std::fmt::Display| {
        Failure::new(Kind::Build, format!("{revision} does not build as a nabla program: {why}"))
    };
    let output = Command::new("cargo")
        .args(["build", "--release", "--quiet", "--package", "nabla-tuner"])
        .current_dir(tree)
        .env("CARGO_TARGET_DIR", target)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| failed(&e))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let first = text.lines().find(|line| line.starts_with("error")).unwrap_or("cargo failed");
        return Err(failed(&first));
    }
    // Taken away at once: the other side is built into the same folder.
    let name = format!("nabla{}", std::env::consts::EXE_SUFFIX);
    let program = folder.join(&name);
    fs::copy(target.join("release").join(&name), &program).map_err(|e| failed(&e))?;
    Ok(program)
}

fn git(arguments: &[&str]) -> Result<String, String> {
    let output =
        Command::new("git").args(arguments).stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
