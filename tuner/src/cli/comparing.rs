//! Options of `nabla compare` and `nabla profile`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use nabla_host::Policy;

use super::{DeviceArgs, ErrorArgs, InputArgs, PolicyArgs, ProblemArgs};

#[derive(Debug, Clone, Args)]
pub(crate) struct CompareArgs {
    /// What to compare with: a nabla program, a folder of prebuilt kernels, or a git revision.
    #[arg(value_name = "BASE")]
    pub(crate) base: String,
    /// What to compare, the same kinds.
    #[arg(value_name = "HEAD", required_unless_present = "aa")]
    pub(crate) head: Option<String>,
    /// Compare BASE with itself so many times and tell how often that seems to differ.
    #[arg(long, value_name = "N", conflicts_with = "head", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) aa: Option<u32>,
    #[command(flatten)]
    pub(crate) input: InputArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) errors: ErrorArgs,
    #[command(flatten)]
    pub(crate) problems: ProblemArgs,
    /// Mask policies.
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "POLICY,..",
        default_value = "nabla-0.4,nabla-0.8,dense"
    )]
    pub(crate) policies: Vec<Policy>,
    /// Write the comparisons to this JSON file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the comparisons to a log in this folder, for `nabla report`.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProfileCommand {
    /// Print the configuration a profile has for an input and policy, and how well it fits.
    Lookup(Box<ProfileLookupArgs>),
    /// List the entries of a profile.
    Show {
        /// Profile to list.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Put several profiles into one; of two entries for the same the later tuned one stays.
    Merge {
        /// Profiles to merge.
        #[arg(value_name = "FILE", required = true, num_args = 1..)]
        files: Vec<PathBuf>,
        /// Write to this file.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ProfileLookupArgs {
    /// Profile to look in.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) input: InputArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) mask: PolicyArgs,
    /// Print one JSON object instead.
    #[arg(long)]
    pub(crate) json: bool,
}
