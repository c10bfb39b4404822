//! One trial, as stored: a line of `records.jsonl`.

use serde::{Deserialize, Serialize};

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
}

impl Status {
    /// Returns the name used in CSV and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Incorrect => "incorrect",
            Status::Ineligible => "ineligible",
            Status::LaunchError => "launch_error",
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
}

/// What a run is: the first line of `records.jsonl`. Runs whose identities differ are never mixed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunHeader {
    /// Line format, [`SCHEMA_VERSION`].
    pub schema: u32,
    /// Version of the program.
    pub nabla_version: String,
    /// What must agree for a run to be resumed.
    pub identity: Identity,
    /// When the run started, RFC 3339, UTC.
    pub started: String,
    /// The command line.
    pub command: Vec<String>,
    /// How samples were taken.
    pub protocol: Protocol,
    /// Cautions for whoever reads the numbers, such as "no GPU".
    pub warnings: Vec<String>,
}

/// The facts that make two runs comparable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// `cpu`, `cuda` or `emulator`.
    pub backend: String,
    /// Device model name.
    pub device: String,
    /// Driver version, for a GPU.
    pub driver: Option<String>,
    /// Instruction set or GPU architecture.
    pub isa: String,
    /// Threads of the CPU backend.
    pub threads: Option<u64>,
    /// Operating system and architecture.
    pub platform: String,
    /// Compiler that built the kernels.
    pub toolchain: String,
    /// Hash of the kernel sources.
    pub source_hash: String,
    /// Commit the program was built from.
    pub git_commit: String,
    /// What the input is, for people.
    pub input: String,
    /// Hash of the input tensors.
    pub input_hash: String,
    /// Hash of the swept space.
    pub space_hash: String,
    /// Seed of inputs, order and sampling.
    pub seed: u64,
}

/// How samples were taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Protocol {
    /// Untimed launches before the first round.
    pub warmup: u64,
    /// Interleaved rounds: samples per configuration.
    pub rounds: u64,
    /// One sentence: how rounds are made, what an interval is.
    pub description: String,
}

/// A line of `records.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Line {
    /// The first line.
    Header(Box<RunHeader>),
    /// One trial.
    Trial(Box<Record>),
}

/// A CSV column: its name and how a record fills it.
type Column = (&'static str, fn(&Record) -> String);

/// Every CSV column. The first forty names are a contract with whoever reads the files; new ones go to the end.
const COLUMNS: &[Column] = &[
    ("status", |r| r.status.name().to_owned()),
    ("reason", |r| r.reason.clone()),
    ("backend", |r| r.backend.clone()),
    ("device", |r| r.device.clone()),
    ("variant", |r| r.variant.clone()),
    ("dtype", |r| r.dtype.clone()),
    ("batch", |r| r.batch.to_string()),
    ("heads", |r| r.heads.to_string()),
    ("seqlen", |r| r.seqlen.to_string()),
    ("head_dim", |r| r.head_dim.to_string()),
    ("grid", |r| r.grid.map(|[t, h, w]| format!("{t}x{h}x{w}")).unwrap_or_default()),
    ("policy", |r| r.policy.clone()),
    ("threshold", |r| num(r.threshold)),
    ("q_block", |r| r.q_block.to_string()),
    ("kv_block", |r| r.kv_block.to_string()),
    ("block_m", |r| r.block_m.to_string()),
    ("block_n", |r| r.block_n.to_string()),
    ("density", |r| num(r.density)),
    ("time_us_median", |r| num(r.time_us_median)),
    ("time_us_ci_low", |r| num(r.time_us_ci_low)),
    ("time_us_ci_high", |r| num(r.time_us_ci_high)),
    ("samples", |r| r.samples_us.len().to_string()),
    ("mask_us_median", |r| num(r.mask_us_median)),
    ("total_us_median", |r| num(r.total_us_median)),
    ("dense_us_median", |r| num(r.dense_us_median)),
    ("speedup_vs_dense", |r| num(r.speedup_vs_dense)),
    ("speedup_total_vs_dense", |r| num(r.speedup_total_vs_dense)),
    ("tflops_executed", |r| num(r.tflops_executed)),
    ("tflops_dense_equivalent", |r| num(r.tflops_dense_equivalent)),
    ("kernel_rel_rmse", |r| num(r.kernel_rel_rmse)),
    ("kernel_max_abs", |r| num(r.kernel_max_abs)),
    ("sparsity_rel_l1", |r| num(r.sparsity_rel_l1)),
    ("sparsity_rel_rmse", |r| num(r.sparsity_rel_rmse)),
    ("sparsity_cosine", |r| num(r.sparsity_cosine)),
    ("seed", |r| r.seed.to_string()),
    ("input_hash", |r| r.input_hash.clone()),
    ("source_hash", |r| r.source_hash.clone()),
    ("toolchain", |r| r.toolchain.clone()),
    ("git_commit", |r| r.git_commit.clone()),
    ("timestamp", |r| r.timestamp.clone()),
    ("threads", |r| r.threads.map(|t| t.to_string()).unwrap_or_default()),
    ("reorder_us_median", |r| num(r.reorder_us_median)),
    ("kernel_rel_rmse_budget", |r| num(r.kernel_rel_rmse_budget)),
    ("lse_max_abs", |r| num(r.lse_max_abs)),
    ("error_rows", |r| r.error_rows.map(|r| r.to_string()).unwrap_or_default()),
];

/// Returns a cell for a number, empty when it was not measured.
fn num(value: Option<f64>) -> String {
    value.map(|v| v.to_string()).unwrap_or_default()
}

impl Record {
    /// Returns the names of the CSV columns in order.
    pub fn column_names() -> impl Iterator<Item = &'static str> {
        COLUMNS.iter().map(|(name, _)| *name)
    }

    /// Returns the CSV columns in order, each with this record's cell.
    pub fn columns(&self) -> Vec<(&'static str, String)> {
        COLUMNS.iter().map(|(name, cell)| (*name, cell(self))).collect()
    }

    /// Returns what names this trial within a run: a later line with the same key replaces the earlier one.
    pub fn key(&self) -> String {
        format!(
            "{}|{}|{}|b{}|h{}|s{}|d{}|{:?}|{}x{}|{}x{}",
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
