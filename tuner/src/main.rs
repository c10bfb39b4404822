//! The `nabla` program: block masks, single runs, sweeps and reports of NABLA block-sparse attention.
//!
//! Data goes to stdout, messages to stderr. Exit codes are those of [`failure::Kind`].

mod cli;
mod commands;
mod failure;
mod input;
mod lock;
mod machine;
mod measure;
mod output;
mod search;
mod spaces;
mod stats;
mod store;
mod sweep;
mod tune;
mod worker;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    cli::{Cli, Command},
    failure::Failure,
};

fn dispatch(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Info(args) => commands::info::run(&args),
        Command::Inputs(args) => commands::inputs::run(&args),
        Command::Mask(args) => commands::mask::run(&args),
        Command::Run(args) => commands::run::run(&args),
        Command::Sweep(args) => commands::sweep::run(args),
        Command::Tune(args) => commands::tune::run(*args),
        Command::Compare(args) => commands::compare::run(&args),
        Command::Profile(command) => commands::profile::run(&command),
        Command::Check(args) => commands::check::run(&args),
        Command::Kernels(command) => commands::kernels::run(&command),
        Command::Report(args) => commands::report::run(&args),
        Command::Worker(args) => commands::worker::run(&args),
        Command::Policies(args) => commands::policies::run(&args),
        Command::Completions { shell } => commands::completions::run(shell),
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    output::start_logs();
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever closed the pipe has seen enough: `nabla ... | head` is no failure.
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            anstream::eprintln!("{} {failure}", failure::label());
            failure.exit_code()
        }
    }
}
