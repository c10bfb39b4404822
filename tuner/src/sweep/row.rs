//! From a measured configuration to its record.

use nabla_host::{BlockMask, Policy, Problem, backend::Pattern, cost, verify::Accuracy};
use nabla_reports::{Identity, Record, Status};

use super::space::Config;
use crate::stats::median;

/// What one trial came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Name of the variant, or of what it would have been.
    pub(crate) variant: String,
    /// Why it was not timed, with the status that says so.
    pub(crate) failure: Option<(Status, String)>,
    /// Errors, once a launch worked.
    pub(crate) accuracy: Option<Accuracy>,
    /// Timing samples in microseconds.
    pub(crate) samples_us: Vec<f64>,
}

/// What all trials of a group share, or those on one mask.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shared<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) problem: &'a Problem,
    pub(crate) policy: &'a Policy,
    /// What is computed; `None` where its mask could not be built.
    pub(crate) facts: Option<Facts>,
    pub(crate) dense_samples_us: &'a [f64],
    pub(crate) mask_samples_us: &'a [f64],
    pub(crate) reorder_samples_us: &'a [f64],
    /// The attention samples that count for the median, where not all do.
    pub(crate) counting_us: Option<&'a [f64]>,
}

/// What a record says of the mask.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Facts {
    /// Whether there is one.
    pub(crate) masked: bool,
    /// Kept blocks over all blocks.
    pub(crate) density: f64,
    /// Kept query-key pairs, all heads together.
    pub(crate) pairs: u64,
}

impl Facts {
    /// Describes what is computed on a problem.
    pub(crate) fn of(problem: &Problem, pattern: &Pattern) -> Self {
        let mask = pattern.mask();
        Self {
            masked: mask.is_some(),
            density: mask.map_or(1.0, BlockMask::density),
            pairs: cost::pairs(problem, mask),
        }
    }
}

/// Makes the record of a trial.
pub(crate) fn record(shared: Shared<'_>, config: Config, outcome: Outcome) -> Record {
    let Shared { identity, problem, policy, facts, .. } = shared;
    let masked = facts.is_some_and(|facts| facts.masked);
    let (status, reason) = outcome.failure.unwrap_or((Status::Ok, String::new()));
    // A time of something that failed would pass for a result.
    let time = median(shared.counting_us.unwrap_or(&outcome.samples_us)).filter(|_| status == Status::Ok);
    let time_us = time.map(|t| t.median);
    let middle = |samples: &[f64]| median(samples).map(|m| m.median);
    let dense_us = middle(shared.dense_samples_us);
    // Dense attention needs no mask.
    let mask_us = if masked { middle(shared.mask_samples_us) } else { Some(0.0) };
    let timed = time_us.is_some();
    let total_us = time_us.zip(mask_us).map(|(a, b)| a + b);
    let rate = |pairs: u64| time_us.map(|t| cost::tflops(cost::attention_flops(pairs, problem.head_dim), t));
    let accuracy = outcome.accuracy;
    Record {
        status,
        reason,
        backend: identity.backend.clone(),
        device: identity.device.clone(),
        variant: outcome.variant,
        dtype: problem.dtype.to_string(),
        batch: problem.batch as u64,
        heads: problem.heads as u64,
        seqlen: problem.seqlen_q as u64,
        head_dim: problem.head_dim as u64,
        grid: problem.grid.map(|g| [g.t as u64, g.h as u64, g.w as u64]),
        policy: policy.to_string(),
        threshold: policy.mass(),
        q_block: config.block.map_or(0, |b| b.q_block as u64),
        kv_block: config.block.map_or(0, |b| b.kv_block as u64),
        block_m: config.tile.block_m as u64,
        block_n: config.tile.block_n as u64,
        density: facts.map(|facts| facts.density),
        time_us_median: time_us,
        time_us_ci_low: time.map(|t| t.ci_low),
        time_us_ci_high: time.map(|t| t.ci_high),
        samples_us: outcome.samples_us,
        mask_us_median: mask_us.filter(|_| timed),
        total_us_median: total_us,
        dense_us_median: dense_us.filter(|_| timed),
        speedup_vs_dense: dense_us.zip(time_us).map(|(dense, t)| dense / t),
        speedup_total_vs_dense: dense_us.zip(total_us).map(|(dense, t)| dense / t),
        tflops_executed: facts.and_then(|facts| rate(facts.pairs)),
        tflops_dense_equivalent: rate(cost::dense_pairs(problem)),
        kernel_rel_rmse: accuracy.map(|a| a.kernel.rel_rmse),
        kernel_max_abs: accuracy.map(|a| a.kernel.max_abs),
        sparsity_rel_l1: accuracy.map(|a| a.sparsity.rel_l1),
        sparsity_rel_rmse: accuracy.map(|a| a.sparsity.rel_rmse),
        sparsity_cosine: accuracy.map(|a| a.sparsity.cosine),
        seed: identity.seed,
        input_hash: identity.input_hash.clone(),
        source_hash: identity.source_hash.clone(),
        toolchain: identity.toolchain.clone(),
        git_commit: identity.git_commit.clone(),
        timestamp: now(),
        threads: identity.threads,
        reorder_us_median: middle(shared.reorder_samples_us).filter(|_| timed),
        kernel_rel_rmse_budget: accuracy.map(|a| a.budget.rel_rmse),
        lse_max_abs: accuracy.map(|a| a.lse_max_abs),
        error_rows: accuracy.map(|a| a.rows as u64),
        dense_samples_us: if timed { shared.dense_samples_us.to_vec() } else { Vec::new() },
        mask_samples_us: if timed { shared.mask_samples_us.to_vec() } else { Vec::new() },
        tuning: None,
    }
}

/// Returns the time of day as RFC 3339, UTC, to the second.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
