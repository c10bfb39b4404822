//! Options of `nabla tune`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use nabla_host::Policy;

use super::{DeviceArgs, ErrorArgs, InputArgs, SearchArgs};

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
    /// Sequence lengths, as numbers of frames cut from the start of the input [default: all of it].
    #[arg(long, value_delimiter = ',', value_name = "N,..")]
    pub(crate) frames: Option<Vec<usize>>,
    /// Thresholds: shares of pooled attention to keep, each the policy nabla-MASS.
    #[arg(long, value_delimiter = ',', value_name = "MASS,..", default_values_t = [0.2, 0.4, 0.6, 0.8])]
    pub(crate) thresholds: Vec<f64>,
    /// Further policies, by their strings; `dense` among them.
    #[arg(long, value_delimiter = ',', value_name = "POLICY,..")]
    pub(crate) policies: Vec<Policy>,
    /// Mask block sizes in tokens; each is a problem of its own.
    #[arg(long, value_delimiter = ',', value_name = "TOKENS,..", default_values_t = [64])]
    pub(crate) blocks: Vec<usize>,
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
    /// Seconds after which a launch counts as one that does not end.
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) launch_timeout: u32,
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
