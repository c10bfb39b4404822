//! `cargo xtask peers`: the campaign from end to end next to PyTorch, on this machine's CPU and on the emulator.
//!
//! No part of `cargo xtask test`: PyTorch takes gigabytes. Owns the Python environment and how a campaign is packed and run;
//! what has to come of it is bench/peers/check_campaign.py's.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::campaign::{Backend, Campaign};
use crate::command::{output_of, run};
use crate::context::Context;
use crate::runner::{Outcome, Step};
use crate::tools::programs_of;

/// `cargo xtask peers`
pub(crate) const PEERS: &[Step] = &[
    Step { name: "pytorch", what: "a Python environment with PyTorch", run: environment },
    Step {
        name: "cpu",
        what: "the campaign on the CPU, with times",
        run: |context| campaign(context, Backend::Cpu),
    },
    Step {
        name: "emulator",
        what: "the campaign on the emulator, results alone",
        run: |context| campaign(context, Backend::Emulator),
    },
];

/// What is installed into the environment.
const REQUIREMENTS: &str = "bench/peers/requirements.txt";

/// Seconds a campaign may take: all of it has to be measured, on a slow machine too.
const BUDGET: &str = "3000";

/// Names the Python to use: the one that `PYTHON` names, else that of the environment below target/.
fn python(context: &Context) -> PathBuf {
    match std::env::var_os("PYTHON") {
        Some(python) => python.into(),
        None => {
            programs_of(&folder(context).join("venv")).join(if cfg!(windows) { "python" } else { "python3" })
        }
    }
}

fn folder(context: &Context) -> PathBuf {
    context.root.join("target").join("peers")
}

fn environment(context: &Context) -> Outcome {
    match installed(context) {
        Ok(version) => {
            println!("{}: torch {version}", python(context).display());
            Outcome::Passed
        }
        Err(error) => Outcome::Failed(format!(
            "{error:#}; PYTHON=/path/to/python takes an existing one that has what {REQUIREMENTS} lists"
        )),
    }
}

/// Makes the environment unless it is there, and returns the version of PyTorch in it.
fn installed(context: &Context) -> Result<String> {
    let python = python(context);
    let torch = || {
        let mut asked = Command::new(&python);
        output_of(asked.args(["-c", "import torch; print(torch.__version__)"]))
            .map(|said| said.trim().to_owned())
    };
    if let Some(version) = torch() {
        return Ok(version);
    }
    if std::env::var_os("PYTHON").is_some() {
        bail!("{} cannot import torch", python.display());
    }
    let system = if cfg!(windows) { "python" } else { "python3" };
    run(Command::new(system).args(["-m", "venv", "--clear"]).arg(folder(context).join("venv")))?;
    run(Command::new(&python).current_dir(&context.root).args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
        REQUIREMENTS,
    ]))?;
    match torch() {
        Some(version) => Ok(version),
        None => bail!("torch was installed and cannot be imported by {}", python.display()),
    }
}

fn campaign(context: &Context, backend: Backend) -> Outcome {
    match measured(context, backend) {
        Ok(()) => Outcome::Passed,
        Err(error) => Outcome::Failed(format!(
            "{error:#}; {} has the logs",
            folder(context).join(backend.name()).display()
        )),
    }
}

/// Packs a campaign on tiny inputs, runs it afresh, and holds what came of it against what has to.
fn measured(context: &Context, backend: Backend) -> Result<()> {
    let folder = folder(context);
    let (out, results) = (folder.join(format!("pack-{}", backend.name())), folder.join(backend.name()));
    let campaign = Campaign {
        out: out.clone(),
        backend,
        smoke: true,
        // As the tests do: what is built already need not be built again.
        program: std::env::var_os("NABLA_TEST_PROGRAM").map(PathBuf::from),
        ..Campaign::default()
    };
    campaign.pack(context)?;
    if results.exists() {
        fs::remove_dir_all(&results)?;
    }
    let python = python(context);
    run(Command::new(&python)
        .arg(out.join("python/campaign.py"))
        .args(["--budget", BUDGET, "--results"])
        .arg(&results))?;
    run(Command::new(&python).arg(context.root.join("bench/peers/check_campaign.py")).arg(&results))
}
