//! Command line of the program.

#![expect(
    rustdoc::broken_intra_doc_links,
    reason = "doc comments of options are help texts, brackets and all"
)]

mod comparing;
mod problems;
mod search;
mod tuning;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use nabla_host::{
    Dtype, Grid, Policy, backend::EmulatedArch, codegen::DEFAULT_ARCHS, generate::GenerateSpec,
};

pub(crate) use comparing::{CompareArgs, ProfileCommand, ProfileLookupArgs};
pub(crate) use problems::{PoliciesToTryArgs, ProblemArgs};
pub(crate) use search::{SearchArgs, Setting};
pub(crate) use tuning::{Effort, TuneArgs};

const EXIT_CODES: &str = "\
Exit codes: 0 done; 2 bad usage; 3 an input or record file cannot be used; 4 the device is missing or gave \
out; 5 a kernel is wrong or a check failed; 6 a result could not be written; 7 a device kernel could not be built; \
8 something became slower; 130 interrupted.";

const EXAMPLES: &str = "\
Examples:
  nabla sweep                                        sweep the bundled clip, write plots and a report
  nabla sweep --generate video:5,40,80,2,128         sweep generated inputs of any size
  nabla run --input clip.safetensors --policy nabla-0.7 --out out.safetensors
  nabla mask --input clip.safetensors --policy sta-11-3-3 --out mask.safetensors --png mask.png
  nabla report nabla-runs/20260101-120000            draw the plots of a run again";

/// Finds the best block and tile settings of NABLA block-sparse attention, and what they cost in accuracy.
#[derive(Debug, Parser)]
#[command(name = "nabla", version, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the machine, its backends, and what this program was built from.
    Info(DeviceArgs),
    /// Write an input, made up, read or bundled, to a safetensors file.
    Inputs(InputsArgs),
    /// Build the block mask of an input and write it in FlexAttention's format.
    Mask(MaskArgs),
    /// Run attention once on an input and print time, density and both errors.
    Run(RunArgs),
    /// Sweep mask blocks, tiles, thresholds and lengths; write records, CSV, plots and a report.
    ///
    /// Without arguments it sweeps the bundled clip. Every configuration is verified before it is timed; a failing
    /// one becomes a row with its reason. Configurations of one length and threshold are timed in interleaved rounds,
    /// in an order drawn afresh each round, together with the dense baseline.
    Sweep(SweepArgs),
    /// Find the configuration to use for each length and threshold, and prove it.
    ///
    /// Each kernel is verified before it is timed, and both in a process of its own: one that hangs or crashes costs its
    /// row. A strategy chooses what to try; the best meet the default in pairs, and the winner is measured afresh. Writes
    /// records.jsonl and profile.json.
    ///
    /// Without a device: --print-space shows what a space holds and what its constraints took away, --replay lets
    /// strategies loose on finished measurements and prints how many evaluations each needs.
    Tune(Box<TuneArgs>),
    /// Tell whether one build is slower than another, on this machine and now.
    ///
    /// Both take turns in processes of their own, pair by pair. Exit code 8 only where head is slower by more than the noise,
    /// and again in fresh processes.
    Compare(Box<CompareArgs>),
    /// Look into the profiles that `tune` writes, and merge them.
    #[command(subcommand)]
    Profile(ProfileCommand),
    /// Check every kernel on a catalogue of problems against float64.
    ///
    /// Ragged grids and lengths, empty and full rows, extreme numbers, adversarial masks: each kernel's output and lse
    /// have to stay within the budget derived from the inputs, everything it must write has to be written and nothing
    /// else. On the emulator the very PTX that GPUs run is executed, and each access and wait of it is checked.
    Check(CheckArgs),
    /// List, compile and inspect the kernels for NVIDIA GPUs.
    #[command(subcommand)]
    Kernels(KernelsCommand),
    /// Draw figures and an HTML page of recorded runs, summarise or compare them.
    Report(ReportArgs),
    /// Measure for another process of this program: JSON lines on stdin and stdout.
    #[command(hide = true)]
    Worker(WorkerArgs),
    /// List every mask policy with its arguments, meaning and source, or compare them at equal density.
    Policies(PoliciesArgs),
    /// Print a completion script for your shell.
    Completions {
        /// Shell to write the script for.
        shell: clap_complete::Shell,
    },
}

/// Where kernels run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendName {
    /// The first CUDA device that will do, else the CPU; stderr says which.
    Auto,
    /// The kernels of this program on the CPU.
    Cpu,
    /// The kernels of this program on an NVIDIA GPU.
    Cuda,
    /// The kernels for NVIDIA GPUs on this machine, instruction by instruction and without times.
    Emulator,
}

/// Instruction set of the CPU backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum IsaName {
    /// Plain Rust.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512.
    Avx512,
    /// AVX-512 with bf16 dot products.
    Avx512bf16,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DeviceArgs {
    /// Where to run.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) backend: BackendName,
    /// CUDA device, counted from 0.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) device: usize,
    /// Folder of the CUDA backend's kernels: prebuilt ones, or where they are built [default: NABLA_KERNEL_CACHE, else
    /// the user's cache folder].
    #[arg(long, value_name = "DIR")]
    pub(crate) kernel_cache: Option<PathBuf>,
    /// Architecture that the emulator stands for: sm_80 or sm_90a.
    #[arg(long, value_name = "ARCH", default_value = "sm_80")]
    pub(crate) emulated_arch: EmulatedArch,
    /// Threads of the CPU backend [default: every core this process may use].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) threads: Option<u32>,
    /// Instruction set of the CPU backend [default: the strongest this CPU has].
    #[arg(long, value_enum)]
    pub(crate) isa: Option<IsaName>,
    /// Let the operating system move threads between cores.
    #[arg(long)]
    pub(crate) no_pin: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct InputArgs {
    /// Read q, k, v of shape [B,H,S,D] from a .safetensors or .npz file, or from a folder with q.npy, k.npy, v.npy
    /// [default: the bundled clip].
    #[arg(long, value_name = "FILE", conflicts_with = "generate")]
    pub(crate) input: Option<PathBuf>,
    /// Make smooth seeded inputs instead: video:T,H,W,HEADS,D[,DTYPE][,peak=SCORE]; peak=7 makes masks as sparse as those of a
    /// long video [default: 4.5, as the bundled clip].
    #[arg(long, value_name = "SPEC")]
    pub(crate) generate: Option<GenerateSpec>,
    /// Token grid of the input as T,H,W, when its file does not say.
    #[arg(long, value_name = "T,H,W", conflicts_with = "generate")]
    pub(crate) grid: Option<Grid>,
    /// Round the input to this type first: f32, f16 or bf16 [default: as stored].
    #[arg(long)]
    pub(crate) dtype: Option<Dtype>,
    /// Seed of generated inputs, sampling and order.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct InputsArgs {
    #[command(flatten)]
    pub(crate) input: InputArgs,
    /// Write q, k and v to this safetensors file, the token grid in its metadata.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ErrorArgs {
    /// Query rows per head that errors are computed on, in whole blocks [default: all, or as many as keep the
    /// float64 reference short].
    #[arg(long, value_name = "N")]
    pub(crate) error_rows: Option<usize>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    pub(crate) input: InputArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) errors: ErrorArgs,
    /// Memory this process may take, in MiB [default: nine tenths of what is available].
    #[arg(long, value_name = "MIB")]
    pub(crate) memory_mib: Option<u64>,
    /// Workers beside this one on the device.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) peers: u32,
}

#[derive(Debug, Args)]
pub(crate) struct PoliciesArgs {
    /// Explain this one.
    pub(crate) name: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Compare all families on an input: the sparsity error of the setting nearest to each density.
    #[arg(long, conflicts_with_all = ["name", "json"])]
    pub(crate) quality: bool,
    #[command(flatten)]
    pub(crate) input: InputArgs,
    #[command(flatten)]
    pub(crate) errors: ErrorArgs,
    /// Tokens per mask block.
    #[arg(long, default_value_t = 64, value_name = "TOKENS")]
    pub(crate) block: usize,
    /// Densities to compare at.
    #[arg(long, value_delimiter = ',', default_values_t = [0.05, 0.1, 0.2, 0.3, 0.5, 0.7], value_name = "SHARE,..")]
    pub(crate) densities: Vec<f64>,
    /// Folder for the figure and its CSV.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct PolicyArgs {
    /// Mask policy: dense, nabla-MASS, sta-T-H-W, nabla-MASS_sta-T-H-W or any other of nabla policies.
    #[arg(long)]
    pub(crate) policy: Policy,
    /// Tokens per mask block: 32, 64 or 128 on a grid, any size on a plain sequence or of sorted tokens (paro).
    #[arg(long, default_value_t = 64, value_name = "TOKENS")]
    pub(crate) block: usize,
}

#[derive(Debug, Args)]
pub(crate) struct MaskArgs {
    #[command(flatten)]
    pub(crate) input: InputArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) mask: PolicyArgs,
    /// Write kv_num_blocks, kv_indices, mask and density to this safetensors file.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Draw every head's mask into this picture.
    #[arg(long, value_name = "FILE.png")]
    pub(crate) png: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) input: InputArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) mask: PolicyArgs,
    /// Query rows of the compute tile [default: the backend's].
    #[arg(long, value_name = "ROWS")]
    pub(crate) block_m: Option<usize>,
    /// Keys of the compute tile [default: the backend's].
    #[arg(long, value_name = "KEYS")]
    pub(crate) block_n: Option<usize>,
    /// Take the configuration from this profile, for the nearest problem it knows.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["block_m", "block_n"])]
    pub(crate) profile: Option<PathBuf>,
    /// Timed launches.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) repeat: u32,
    #[command(flatten)]
    pub(crate) errors: ErrorArgs,
    /// Write out and lse, in the token order of the input, to this safetensors file.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// What a continued sweep takes from the run that it continues.
#[rustfmt::skip]
const SET_BY_THE_RUN: [&str; 22] = [
    "input", "generate", "grid", "dtype", "seed", "backend", "device", "kernel_cache", "emulated_arch", "threads", "isa",
    "no_pin", "frames", "thresholds", "policies", "blocks", "block_m", "block_n", "rounds", "error_rows", "out",
    "no_report",
];

#[derive(Debug, Clone, Args)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    pub(crate) input: InputArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Sequence lengths, as numbers of frames cut from the start of the input [default: 1, 2, 4, ... and all].
    #[arg(long, value_delimiter = ',', value_name = "N,..")]
    pub(crate) frames: Option<Vec<usize>>,
    #[command(flatten)]
    pub(crate) policies: PoliciesToTryArgs,
    /// Mask block sizes in tokens.
    #[arg(long, value_delimiter = ',', value_name = "TOKENS,..", default_values_t = [32, 64, 128])]
    pub(crate) blocks: Vec<usize>,
    /// Query rows of the compute tile [default: every size of the backend].
    #[arg(long, value_delimiter = ',', value_name = "ROWS,..")]
    pub(crate) block_m: Option<Vec<usize>>,
    /// Keys of the compute tile [default: every size of the backend].
    #[arg(long, value_delimiter = ',', value_name = "KEYS,..")]
    pub(crate) block_n: Option<Vec<usize>>,
    /// Interleaved rounds: timing samples per configuration.
    #[arg(long, default_value_t = 11, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rounds: u32,
    #[command(flatten)]
    pub(crate) errors: ErrorArgs,
    /// End after about so many seconds with what is measured until then: fewer rounds first, then fewer configurations,
    /// the backend's default tiles before others; --resume goes on.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) budget_seconds: Option<u32>,
    /// Write the run to this folder [default: nabla-runs/DATE-TIME].
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Continue a run that was cut short, with the settings it was started with; only --budget-seconds is given anew.
    #[arg(long, value_name = "DIR", conflicts_with_all = SET_BY_THE_RUN)]
    pub(crate) resume: Option<PathBuf>,
    /// Write records and CSV only.
    #[arg(long)]
    pub(crate) no_report: bool,
}

/// Where kernels are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckBackend {
    /// Device kernels, as PTX on this machine.
    Emulator,
    /// The CPU's own kernels.
    Cpu,
    /// Device kernels on an NVIDIA GPU.
    Cuda,
}

/// What a device is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Against {
    /// The same PTX on this machine.
    Emulator,
}

/// When the emulator completes asynchronous work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompletionName {
    /// At the latest moment allowed: a missing wait shows.
    Late,
    /// At once: a buffer overwritten too early shows.
    Eager,
}

/// How the emulator sums matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NumericsName {
    /// By fused multiply-adds: quickest, and right to float32 rounding.
    Fast,
    /// Bit by bit as the architecture's tensor cores.
    Chip,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CheckArgs {
    /// Where to run the kernels.
    #[arg(long, value_enum, default_value = "emulator")]
    pub(crate) backend: CheckBackend,
    /// Check the checker: drop or weaken each wait, fence, barrier, commit and arrival of the kernels' code in turn; every
    /// such mutant has to be reported.
    #[arg(long, conflicts_with = "junit")]
    pub(crate) mutants: bool,
    /// Check only what has one of these texts in "KERNEL on CASE", as the table and failures name them.
    #[arg(long, value_delimiter = ',', value_name = "TEXT,..")]
    pub(crate) filter: Vec<String>,
    /// Architectures whose kernels the emulator runs.
    #[arg(long, value_delimiter = ',', value_name = "ARCH,..", default_value = "sm_80,sm_90a")]
    pub(crate) arch: Vec<EmulatedArch>,
    /// When the emulator completes asynchronous work.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHEN,..", default_value = "late,eager")]
    pub(crate) completion: Vec<CompletionName>,
    /// How the emulator sums matrix products.
    #[arg(long, value_enum, default_value = "fast")]
    pub(crate) numerics: NumericsName,
    /// Run each check on the emulator under so many orders of the warps, drawn from seeds 1 to N [default: once, in the
    /// order of their numbers].
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) seeds: u32,
    /// CUDA device, counted from 0.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) device: usize,
    /// Compare with this device instead of float64: both run the same PTX on each case, and everything they write has to
    /// agree. Only the emulator can be compared with.
    #[arg(long, value_enum, value_name = "DEVICE", conflicts_with_all = ["mutants", "seeds"])]
    pub(crate) against: Option<Against>,
    /// Folder of the device kernels: prebuilt ones, or where they are built [default: NABLA_KERNEL_CACHE, else the
    /// user's cache folder].
    #[arg(long, value_name = "DIR")]
    pub(crate) kernel_cache: Option<PathBuf>,
    /// Instruction set of the CPU backend [default: the strongest this CPU has].
    #[arg(long, value_enum)]
    pub(crate) isa: Option<IsaName>,
    /// Write every outcome, with errors and counts, to this JSON file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write every outcome to this JUnit file.
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
}

impl CheckArgs {
    /// The options of the CPU backend among them.
    pub(crate) fn cpu(&self) -> DeviceArgs {
        DeviceArgs {
            backend: BackendName::Cpu,
            device: 0,
            kernel_cache: None,
            emulated_arch: EmulatedArch::Sm80,
            threads: None,
            isa: self.isa,
            no_pin: true,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum KernelsCommand {
    /// List kernels: threads and shared memory of a block, architectures.
    List(KernelsListArgs),
    /// Compile kernels to PTX and show what each takes of a GPU.
    ///
    /// Needs a Rust toolchain with library sources (`cargo xtask setup`). A kernel that spills registers, uses local
    /// memory or makes ptxas warn of lost performance is a failure.
    Build(KernelsBuildArgs),
    /// Show resources, occupancy and instructions of one kernel.
    Inspect(KernelsInspectArgs),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct KernelCacheArgs {
    /// Keep compiled kernels in this folder, or take prebuilt ones from it [default: NABLA_KERNEL_CACHE, else nabla in
    /// the user's cache folder].
    #[arg(long, value_name = "DIR")]
    pub(crate) kernel_cache: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct KernelsListArgs {
    /// Kernels to list: default (those shipped), or every point of tiles, dense, sparse or all.
    #[arg(long, value_name = "SPACE", default_value = "default")]
    pub(crate) space: String,
}

#[derive(Debug, Args)]
pub(crate) struct KernelsBuildArgs {
    /// Kernels to build: default (those shipped), or every point of tiles, dense, sparse or all.
    #[arg(long, value_name = "SPACE", default_value = "default")]
    pub(crate) space: String,
    /// Architectures to build for.
    #[arg(long, value_delimiter = ',', value_name = "ARCH,..", default_values_t = DEFAULT_ARCHS.map(str::to_owned))]
    pub(crate) arch: Vec<String>,
    /// Write PTX, its machine code where ptxas is there, and a manifest to this folder, for --kernel-cache on a machine
    /// without Rust [default: the cache alone].
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Leave the machine code out of that folder: smaller, and drivers compile the PTX at the first launch.
    #[arg(long, requires = "out")]
    pub(crate) no_cubin: bool,
    /// Kernels to compile at once [default: one for each core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) jobs: Option<u32>,
    #[command(flatten)]
    pub(crate) cache: KernelCacheArgs,
}

#[derive(Debug, Args)]
pub(crate) struct KernelsInspectArgs {
    /// Name of a kernel, as listed.
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Architecture.
    #[arg(long, default_value = DEFAULT_ARCHS[0])]
    pub(crate) arch: String,
    /// Print the PTX instead.
    #[arg(long, conflicts_with = "sass")]
    pub(crate) ptx: bool,
    /// Print the machine code instead; needs ptxas and nvdisasm.
    #[arg(long)]
    pub(crate) sass: bool,
    /// Print a performance model instead: what the kernel needs of each part of a GPU, and what that allows at best.
    #[arg(long, conflicts_with_all = ["ptx", "sass"])]
    pub(crate) model: bool,
    /// Print the model as JSON.
    #[arg(long, requires = "model")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) cache: KernelCacheArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Folders of runs, or their records.jsonl; devices are kept apart.
    #[arg(value_name = "RUN", required = true)]
    pub(crate) runs: Vec<PathBuf>,
    /// Write figures and page to this folder [default: the run's; needed for several].
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Draw the masks of this file too, as nabla mask --out writes it.
    #[arg(long, value_name = "FILE")]
    pub(crate) mask: Option<PathBuf>,
    /// Compare the second of two runs with the first, in Markdown on stdout; nothing is drawn.
    #[arg(long, conflicts_with_all = ["out", "mask"])]
    pub(crate) compare: bool,
    /// Print a summary in Markdown, for a pull request; nothing is drawn.
    #[arg(long, conflicts_with_all = ["out", "mask"])]
    pub(crate) markdown: bool,
    /// Print one line, for a badge or a log; nothing is drawn.
    #[arg(long, conflicts_with_all = ["out", "mask", "markdown"])]
    pub(crate) one_line: bool,
    /// Write the records in the T4 format of auto-tuners to this JSON file instead of a report.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["out", "mask", "compare", "markdown", "one_line"])]
    pub(crate) t4: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn a_continued_sweep_takes_every_setting_from_its_run() {
        let command = Cli::command();
        let sweep = command.find_subcommand("sweep").expect("there is one");
        let mut settings: Vec<&str> = sweep.get_arguments().map(|arg| arg.get_id().as_str()).collect();
        settings.retain(|id| !["resume", "budget_seconds", "help"].contains(id));
        settings.sort_unstable();
        let mut listed = SET_BY_THE_RUN;
        listed.sort_unstable();
        assert_eq!(settings, listed);
    }
}
