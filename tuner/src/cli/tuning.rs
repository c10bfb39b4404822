//! Options of `nabla tune`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{DeviceArgs, ErrorArgs, InputArgs, PoliciesToTryArgs, ProblemArgs, SearchArgs};

/// How much is tried and how long it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Effort {
    /// A twentieth of the configurations, few rounds.
    Quick,
    /// A tenth of the configurations.
    Default,
    /// Every configuration.
    Exhaustive,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct TuneArgs {
    #[command(flatten)]
    pub(crate) search: SearchArgs,
    #[command(flatten)]
    pub(crate) input: InputArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) errors: ErrorArgs,
    #[command(flatten)]
    pub(crate) problems: ProblemArgs,
    #[command(flatten)]
    pub(crate) policies: PoliciesToTryArgs,
    /// How much is tried and how long it is measured.
    #[arg(long, value_enum, default_value = "default")]
    pub(crate) effort: Effort,
    /// Search strategy, several for a replay: default, exhaustive, random, greedy, guided, steepest, annealing, genetic or
    /// surrogate [default: default, exhaustive with --effort exhaustive; default and random for a replay].
    #[arg(long, value_delimiter = ',', value_name = "NAME,..")]
    pub(crate) strategy: Vec<String>,
    /// Configurations to try on each problem [default: by the effort].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) evaluations: Option<u32>,
    /// Stop searching after this time and finish with what is known; shared evenly by the problems.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) budget_seconds: Option<u32>,
    /// Start from the nearest entry of this profile.
    #[arg(long, value_name = "FILE")]
    pub(crate) profile: Option<PathBuf>,
    /// Kernels to compile at once, ahead of their measurement [default: one for each core].
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) jobs: usize,
    /// Memory a worker may take, in MiB [default: nine tenths of what is available].
    #[arg(long, value_name = "MIB")]
    pub(crate) memory_mib: Option<u64>,
    /// Print events as JSON lines instead of tables.
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the run, or the curves of a replay, to this folder [default: nabla-runs/tune-DATE-TIME; a replay prints
    /// only].
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Continue a run that was cut short, with the settings it was started with.
    #[arg(long, value_name = "DIR", exclusive = true)]
    pub(crate) resume: Option<PathBuf>,
}
