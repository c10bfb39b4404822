//! `nabla completions`: a completion script for a shell.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{cli::Cli, failure::Failure};

/// Prints the script.
pub(crate) fn run(shell: Shell) -> Result<(), Failure> {
    // `generate` panics when the reader of a pipe has left; into memory it cannot.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "nabla", &mut script);
    io::stdout().write_all(&script)?;
    Ok(())
}
