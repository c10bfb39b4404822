//! The tools that are no part of the Rust toolchain: which versions, and where they come from.
//!
//! Each is installed into `target/tools/` unless exactly the pinned version is there, or on the `PATH`, already: a
//! second set-up is done in milliseconds, and a raised pin here is all that an upgrade takes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::command::{cargo_in, line_of, output_of, run};
use crate::context::Context;

/// One tool at one version.
pub(crate) struct Tool {
    /// The program's name.
    pub(crate) program: &'static str,
    /// The version that every machine uses, so that a check means the same everywhere.
    pub(crate) version: &'static str,
    /// The crate to compile it from.
    krate: &'static str,
    /// Whether a Python package of the program's name carries it compiled, which saves compiling it.
    is_python_package: bool,
}

/// Checks licences, bans and sources, and advisories.
pub(crate) const CARGO_DENY: Tool =
    Tool { program: "cargo-deny", version: "0.20.2", krate: "cargo-deny", is_python_package: false };

/// Checks spelling.
pub(crate) const TYPOS: Tool =
    Tool { program: "typos", version: "1.52.0", krate: "typos-cli", is_python_package: true };

impl Tool {
    /// Finds the tool: under `target/tools/`, else on the `PATH`; only in the pinned version.
    pub(crate) fn find(&self, context: &Context) -> Option<PathBuf> {
        let file = format!("{}{}", self.program, std::env::consts::EXE_SUFFIX);
        let tools = context.tools_dir();
        [programs_of(&tools.join("venv")).join(&file), tools.join("bin").join(&file), PathBuf::from(file)]
            .into_iter()
            .find(|program| self.is_pinned_version(program))
    }

    /// Installs the tool under `target/tools/` unless it is to be found.
    ///
    /// Errors: what was tried and how it ended; the programs tried have said why on the terminal.
    pub(crate) fn install(&self, context: &Context) -> Result<()> {
        if self.find(context).is_some() {
            println!("{} {} is there", self.program, self.version);
            return Ok(());
        }
        println!("installing {} {} into target/tools/", self.program, self.version);
        if self.is_python_package {
            match self.install_from_python_package(&context.tools_dir()) {
                Ok(()) if self.find(context).is_some() => return Ok(()),
                Ok(()) => {
                    println!("its Python package has no program for this machine: compiling it instead")
                }
                Err(error) => println!("{error:#}: compiling it instead"),
            }
        }
        self.install_from_source(context)?;
        if self.find(context).is_none() {
            bail!("{} was installed but does not say it is version {}", self.program, self.version);
        }
        Ok(())
    }

    fn is_pinned_version(&self, program: &Path) -> bool {
        let said = output_of(Command::new(program).arg("--version"));
        said.is_some_and(|said| said.split_whitespace().any(|word| word == self.version))
    }

    fn install_from_python_package(&self, tools: &Path) -> Result<()> {
        let python = if cfg!(windows) { "python" } else { "python3" };
        let venv = tools.join("venv");
        run(Command::new(python).args(["-m", "venv", "--clear"]).arg(&venv))?;
        run(Command::new(programs_of(&venv).join(python))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            // Never a source package: that would compile with whatever toolchain it fetches.
            .args(["--only-binary", ":all:"])
            .arg(format!("{}=={}", self.program, self.version)))
    }

    /// Compiles the tool. What is compiled stays until it succeeds, so that an interrupted set-up goes on.
    fn install_from_source(&self, context: &Context) -> Result<()> {
        let mut command = cargo_in(&context.root);
        command
            .args([
                "install",
                "--locked",
                "--force",
                "--root",
                "target/tools",
                "--target-dir",
                "target/tools/build",
            ])
            .arg(format!("{}@{}", self.krate, self.version))
            // The tools publish with fat link-time optimisation: minutes of compiling for a check of one second.
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "64");
        println!("{}", line_of(&command));
        run(&mut command)?;
        let build = context.tools_dir().join("build");
        if build.exists() {
            std::fs::remove_dir_all(&build)?;
        }
        Ok(())
    }
}

/// Names the folder of a Python environment that holds its programs.
pub(crate) fn programs_of(venv: &Path) -> PathBuf {
    venv.join(if cfg!(windows) { "Scripts" } else { "bin" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cargo_at(version: &'static str) -> Tool {
        Tool { program: env!("CARGO"), version, krate: "cargo", is_python_package: false }
    }

    #[test]
    fn only_the_pinned_version_counts() {
        let said = output_of(Command::new(env!("CARGO")).arg("--version")).expect("cargo runs");
        let version: &'static str = said.split_whitespace().nth(1).expect("a version").to_owned().leak();
        assert!(cargo_at(version).is_pinned_version(Path::new(env!("CARGO"))));
        assert!(!cargo_at("0.0.1").is_pinned_version(Path::new(env!("CARGO"))));
        assert!(!cargo_at(version).is_pinned_version(Path::new("nabla-no-such-program")));
    }
}
