//! The commands, one a file.

pub(crate) mod check;
pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod info;
pub(crate) mod inputs;
pub(crate) mod kernels;
pub(crate) mod mask;
mod model;
pub(crate) mod policies;
pub(crate) mod profile;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod sweep;
pub(crate) mod tune;
pub(crate) mod worker;

use std::path::Path;

use clap::Parser;
use nabla_reports::RunHeader;

use crate::{
    cli::{Cli, Command},
    failure::{Failure, Kind},
};

/// Reads the options that a run was started with from its header: those that `pick` finds in its command. `what` names the
/// kind of run for people.
fn started_with<T>(
    header: &RunHeader,
    folder: &Path,
    what: &str,
    pick: impl Fn(Command) -> Option<T>,
) -> Result<T, Failure> {
    let command = Cli::try_parse_from(&header.command).map(|cli| cli.command);
    command.ok().and_then(pick).ok_or_else(|| {
        let folder = folder.display();
        let message = format!("the log in {folder} was not started by a {what} this program understands");
        Failure::new(Kind::Input, message)
    })
}
