//! What is stored: the lines of `records.jsonl`, a header, then trials and comparisons.

mod columns;
mod comparison;
mod header;
mod tuning;

use serde::{Deserialize, Serialize};

pub use comparison::{Comparison, Verdict};
pub use header::{Identity, Machine, Protocol, RunHeader};
pub use tuning::{Stage, Tuning};

/// Version of the line format; readers refuse others.
pub const SCHEMA_VERSION: u32 = 1;

/// How a trial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Verified and timed.
    Ok,
    /// The output missed its error budget; not timed.
    Incorrect,
    /// The configuration cannot run on this problem; nothing was launched.
    Ineligible,
    /// The launch itself failed.
    LaunchError,
    /// The kernel could not be compiled.
    CompileError,
    /// A rule of the search turned the configuration down before it was compiled.
    Rejected,
    /// It did not end within its time.
    Timeout,
    /// It took the process that ran it down.
    Crashed,
    /// Something else used the device for too long: verified, without a time to rely on.
    Contended,
}

impl Status {
    /// Every status, in the order tables list them.
    pub const ALL: [Self; 9] = [
        Status::Ok,
        Status::Incorrect,
        Status::Ineligible,
        Status::LaunchError,
        Status::CompileError,
        Status::Rejected,
        Status::Timeout,
        Status::Crashed,
        Status::Contended,
    ];

    /// Returns the name used in CSV and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Incorrect => "incorrect",
            Status::Ineligible => "ineligible",
            Status::LaunchError => "launch_error",
            Status::CompileError => "compile_error",
            Status::Rejected => "rejected",
            Status::Timeout => "timeout",
            Status::Crashed => "crashed",
            Status::Contended => "contended",
        }
    }
}

/// One trial: a configuration on a problem, its timings and both errors, with provenance.
///
/// Fields named `*_us*` are microseconds; densities, errors and speedups are plain ratios. `None` means "not
/// measured" (a trial that failed before timing, a policy without a threshold) and becomes an empty CSV cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// How the trial ended.
    pub status: Status,
    /// Why it ended so; empty when `status` is ok.
    pub reason: String,
    /// `cpu`, `cuda` or `emulator`.
    pub backend: String,
    /// Device model name.
    pub device: String,
    /// Stable name of the compiled kernel, such as `bsfwd_cpu_avx512_m64_n64_d64_f32_t2`.
    pub variant: String,
    /// `f32`, `f16` or `bf16`.
    pub dtype: String,
    /// Batch size.
    pub batch: u64,
    /// Heads.
    pub heads: u64,
    /// Tokens per head.
    pub seqlen: u64,
    /// Elements per token and head.
    pub head_dim: u64,
    /// Frames, rows, columns of the token grid, if the input is a video.
    pub grid: Option<[u64; 3]>,
    /// Mask policy string, such as `nabla-0.7` or `dense`.
    pub policy: String,
    /// Probability mass the policy keeps, if it has a threshold.
    pub threshold: Option<f64>,
    /// Queries per mask block.
    pub q_block: u64,
    /// Keys per mask block.
    pub kv_block: u64,
    /// Query rows of the compute tile.
    pub block_m: u64,
    /// Keys of the compute tile.
    pub block_n: u64,
    /// Kept blocks over all blocks.
    pub density: Option<f64>,
    /// Median time of the attention launch.
    pub time_us_median: Option<f64>,
    /// Lower end of the median's 95 % confidence interval.
    pub time_us_ci_low: Option<f64>,
    /// Upper end of the median's 95 % confidence interval.
    pub time_us_ci_high: Option<f64>,
    /// Every timing sample of the attention launch, in the order taken.
    pub samples_us: Vec<f64>,
    /// Median time of building the mask: pooling, map, selection, lists.
    pub mask_us_median: Option<f64>,
    /// Mask building plus attention.
    pub total_us_median: Option<f64>,
    /// Median time of dense attention, measured in the same rounds.
    pub dense_us_median: Option<f64>,
    /// `dense_us_median / time_us_median`.
    pub speedup_vs_dense: Option<f64>,
    /// `dense_us_median / total_us_median`.
    pub speedup_total_vs_dense: Option<f64>,
    /// 4·B·H·D·(kept pairs) / time, in 10¹² FLOP/s.
    pub tflops_executed: Option<f64>,
    /// 4·B·H·D·S² / time, in 10¹² FLOP/s.
    pub tflops_dense_equivalent: Option<f64>,
    /// Kernel error: relative RMSE against float64 attention on the same mask.
    pub kernel_rel_rmse: Option<f64>,
    /// Kernel error: largest absolute difference, against the same reference.
    pub kernel_max_abs: Option<f64>,
    /// Sparsity error: relative L1 against dense float64 attention.
    pub sparsity_rel_l1: Option<f64>,
    /// Sparsity error: relative RMSE against dense float64 attention.
    pub sparsity_rel_rmse: Option<f64>,
    /// Sparsity error: cosine similarity with dense float64 attention.
    pub sparsity_cosine: Option<f64>,
    /// Seed of the run.
    pub seed: u64,
    /// Hash of the input tensors.
    pub input_hash: String,
    /// Hash of the kernel sources.
    pub source_hash: String,
    /// Compiler that built the kernels.
    pub toolchain: String,
    /// Commit the program was built from, `-dirty` appended when the tree had changes; `unknown` without git.
    pub git_commit: String,
    /// When the trial ended, RFC 3339, UTC.
    pub timestamp: String,
    /// Threads of the CPU backend.
    pub threads: Option<u64>,
    /// Median time of reordering Q, K, V to block order and the output back; paid once per model pass, not in
    /// `total_us_median`.
    pub reorder_us_median: Option<f64>,
    /// What `kernel_rel_rmse` had to stay under.
    pub kernel_rel_rmse_budget: Option<f64>,
    /// Largest absolute difference of lse against float64 on the same mask.
    pub lse_max_abs: Option<f64>,
    /// Query rows per head the errors were computed on (all, or a seeded sample on long sequences).
    pub error_rows: Option<u64>,
    /// Every timing sample of the dense baseline, in the order taken.
    pub dense_samples_us: Vec<f64>,
    /// Every timing sample of mask building, in the order taken.
    pub mask_samples_us: Vec<f64>,
    /// What tuning adds; `None` in a sweep, and in files from before tuning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuning: Option<Tuning>,
}

/// A line of `records.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Line {
    /// The first line.
    Header(Box<RunHeader>),
    /// One trial.
    Trial(Box<Record>),
    /// Two kernels against each other.
    Comparison(Box<Comparison>),
}

impl Record {
    /// Returns what names this trial within a run: a later line with the same key replaces the earlier one.
    ///
    /// Each evaluation of a tuning run is a trial of its own, also when a configuration comes up again.
    pub fn key(&self) -> String {
        let evaluation = self
            .tuning
            .as_ref()
            .map_or_else(String::new, |t| format!("|{}|{}|e{}", t.strategy, t.stage.name(), t.evaluation));
        format!(
            "{}|{}|{}|b{}|h{}|s{}|d{}|{:?}|{}x{}|{}x{}{evaluation}",
            self.variant,
            self.dtype,
            self.policy,
            self.batch,
            self.heads,
            self.seqlen,
            self.head_dim,
            self.grid,
            self.q_block,
            self.kv_block,
            self.block_m,
            self.block_n
        )
    }
}
