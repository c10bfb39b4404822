//! The columns of a trial in CSV.

use super::{Record, Tuning};

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
    ("strategy", |r| tuned(r, |t| t.strategy.clone())),
    ("evaluation", |r| tuned(r, |t| t.evaluation.to_string())),
    ("stage", |r| tuned(r, |t| t.stage.name().to_owned())),
    ("config", |r| tuned(r, Tuning::config_text)),
    ("rejected_samples", |r| tuned(r, |t| t.rejected_samples.to_string())),
    ("contended", |r| tuned(r, |t| t.contended.to_string())),
];

/// Returns a cell of a trial that tuning asked for, empty for others.
fn tuned(record: &Record, cell: impl Fn(&Tuning) -> String) -> String {
    record.tuning.as_ref().map(cell).unwrap_or_default()
}

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
}
