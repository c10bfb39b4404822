//! Developer chores in Rust: `cargo xtask help` lists them.
//!
//! Owns which checks a change has to pass and which tools they need. Knows nothing of attention: it only starts
//! cargo and the tools, and counts what they report.

mod browser;
mod campaign;
mod checks;
mod cli;
mod command;
mod context;
mod device;
mod headline;
mod peers;
mod runner;
mod tally;
mod tools;

use std::process::ExitCode;

use cli::Chore;
use context::Context;

/// Runs the chore named on the command line; exits with 0 (done), 1 (a step failed) or 2 (not understood).
fn main() -> ExitCode {
    let chore = match cli::parse(std::env::args().skip(1)) {
        Ok(chore) => chore,
        Err(message) => {
            eprintln!("error: {message}\n\n{}", cli::HELP);
            return ExitCode::from(2);
        }
    };
    let context = Context::of_this_workspace(chore.is_strict() || is_ci());
    let succeeded = match chore {
        Chore::Help => {
            print!("{}", cli::HELP);
            true
        }
        Chore::Setup => runner::run(checks::SETUP, &context),
        Chore::Audit => runner::run(checks::AUDIT, &context),
        Chore::Peers => runner::run(peers::PEERS, &context),
        Chore::Campaign(campaign) => said(campaign.pack(&context)),
        Chore::Headline(headline) => said(headline.write(&context)),
        Chore::Test { .. } => {
            let succeeded = runner::run(checks::TEST, &context);
            // Alone on the last line, for people and for machines that read the counts.
            println!("{}", context.tally.borrow());
            succeeded
        }
    };
    if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says what went wrong, if anything did, and tells whether nothing did.
fn said(result: anyhow::Result<()>) -> bool {
    if let Err(error) = &result {
        eprintln!("error: {error:#}");
    }
    result.is_ok()
}

/// Tells whether a continuous-integration machine runs this; they set `CI=true`.
fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}
