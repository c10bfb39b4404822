//! The browser that the page of a report is tested in: Chromium, as the system has it, else Debian's package.

use std::process::Command;

use anyhow::{Result, bail};

use crate::command::{output_of, run};

/// Names Chromium goes by; the tests look for the same.
const PROGRAMS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];

/// Installs Chromium unless it is there.
///
/// Errors: why it could not be installed, with what to do.
pub(crate) fn install() -> Result<()> {
    if let Some(program) = find() {
        println!("browser: {program}");
        return Ok(());
    }
    println!("installing chromium by Debian's packages");
    if output_of(Command::new("apt-get").arg("--version")).is_none() {
        bail!("this system has no apt-get; install Chromium, or name its program in the variable CHROMIUM");
    }
    if output_of(Command::new("id").arg("-u")).is_none_or(|id| id.trim() != "0") {
        bail!("only root may run `apt-get install --no-install-recommends chromium`");
    }
    run(Command::new("apt-get").args(["update", "--quiet"]))?;
    run(Command::new("apt-get")
        .args(["install", "-y", "--quiet", "--no-install-recommends", "chromium"])
        .env("DEBIAN_FRONTEND", "noninteractive"))?;
    match find() {
        Some(_) => Ok(()),
        None => bail!("chromium was installed but does not start"),
    }
}

/// Returns the program that the tests will start.
fn find() -> Option<String> {
    let named = std::env::var("CHROMIUM").ok();
    let mut programs = named.into_iter().chain(PROGRAMS.map(str::to_owned));
    programs.find(|program| output_of(Command::new(program).arg("--version")).is_some())
}
