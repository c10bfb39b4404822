//! From what tuning found to the lines of its log.

use nabla_host::{Policy, Problem, parameters::Parameters, variant::TileConfig};
use nabla_reports::{Comparison, Identity, Record, Stage, Status, Tuning, Verdict as Word};

use super::name_of;
use crate::{
    measure::{Clocks, Failed, Series, Verified},
    stats::{Finding, Verdict},
    sweep::{Facts, Outcome, Shared, record},
    worker::{Errors, Opened, Target, config_of},
};

/// What all lines of a problem share.
#[derive(Debug, Clone)]
pub(crate) struct Subject<'a> {
    /// Who measured what.
    pub(crate) identity: &'a Identity,
    /// Which problem.
    pub(crate) target: &'a Target,
    /// The same, parsed.
    pub(crate) policy: Policy,
    /// Its facts.
    pub(crate) opened: &'a Opened,
    /// Name of the strategy.
    pub(crate) strategy: &'a str,
}

impl Subject<'_> {
    /// Returns the problem's name for people.
    pub(crate) fn name(&self) -> String {
        name_of(self.target, self.opened.problem.seqlen_q)
    }
}

/// One trial on its way into the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trial<'a> {
    /// Its configuration.
    pub(crate) config: &'a Parameters,
    /// Which evaluation of the problem it is, from 1.
    pub(crate) evaluation: u64,
    /// Where in the run.
    pub(crate) stage: Stage,
    /// What verification found.
    pub(crate) verified: Result<&'a Verified, (&'a Failed, Option<&'a Errors>)>,
    /// Its samples.
    pub(crate) series: &'a Series,
}

/// Samples that stand beside those of trials.
#[derive(Debug, Clone, Default)]
pub(crate) struct Besides {
    /// Dense attention.
    pub(crate) dense_us: Vec<f64>,
    /// Mask building.
    pub(crate) mask_us: Vec<f64>,
    /// Reorder.
    pub(crate) reorder_us: Vec<f64>,
}

impl Subject<'_> {
    /// Makes the record of a trial.
    pub(crate) fn row(&self, trial: Trial<'_>, clocks: &Clocks, besides: &Besides) -> Record {
        let kept = trial.series.kept(clocks);
        let tile = trial.config.tile().unwrap_or(TileConfig { block_m: 0, block_n: 0 });
        let unnamed = format!("{}_{}", self.identity.backend, trial.config);
        let mut failure = trial.series.failed.clone();
        let (variant, accuracy) = match trial.verified {
            Ok(verified) => (verified.variant.clone(), Some(verified.errors.accuracy())),
            Err((failed, errors)) => {
                failure = Some(failed.clone());
                (unnamed, errors.map(Errors::accuracy))
            }
        };
        if failure.is_none() && kept.median().is_none() {
            let reason = format!(
                "{} of {} samples were taken while something else used the device or its clock was low",
                kept.marked,
                trial.series.samples.len()
            );
            failure = Some(Failed { status: Status::Contended, reason });
        }
        let outcome = Outcome {
            variant,
            failure: failure.map(|failed| (failed.status, failed.reason)),
            accuracy,
            samples_us: trial.series.times_us(),
        };
        let block = self.target.block.map(nabla_host::variant::MaskBlock::square);
        let shared = Shared {
            identity: self.identity,
            problem: &self.opened.problem,
            policy: &self.policy,
            facts: Some(Facts {
                masked: block.is_some(),
                density: self.opened.density,
                pairs: self.opened.pairs,
            }),
            dense_samples_us: &besides.dense_us,
            mask_samples_us: &besides.mask_us,
            reorder_samples_us: &besides.reorder_us,
            counting_us: Some(&kept.times_us),
        };
        let mut record = record(shared, crate::sweep::Config { block, tile }, outcome);
        record.tuning = Some(Tuning {
            strategy: self.strategy.to_owned(),
            evaluation: trial.evaluation,
            stage: trial.stage,
            config: config_of(trial.config),
            rejected_samples: kept.marked as u64,
            contended: kept.contended,
        });
        record
    }

    /// Makes the line of a comparison of `b` with `a`.
    pub(crate) fn comparison(&self, a: &str, b: &str, finding: &Finding, stage: &str) -> Comparison {
        comparison_row(
            (&self.identity.backend, &self.identity.device),
            (&self.opened.problem, self.target),
            (a, b),
            finding,
            stage,
        )
    }
}

/// Makes the line of a comparison.
pub(crate) fn comparison_row(
    (backend, device): (&str, &str),
    (problem, target): (&Problem, &Target),
    (a, b): (&str, &str),
    finding: &Finding,
    stage: &str,
) -> Comparison {
    let [ratio, ratio_low, ratio_high] = finding.ratio();
    let block = target.block.unwrap_or(0) as u64;
    Comparison {
        backend: backend.to_owned(),
        device: device.to_owned(),
        dtype: problem.dtype.to_string(),
        batch: problem.batch as u64,
        heads: problem.heads as u64,
        seqlen: problem.seqlen_q as u64,
        head_dim: problem.head_dim as u64,
        grid: problem.grid.map(|g| [g.t as u64, g.h as u64, g.w as u64]),
        policy: target.policy.clone(),
        q_block: block,
        kv_block: block,
        a: a.to_owned(),
        b: b.to_owned(),
        pairs: finding.pairs,
        ratio,
        ratio_low,
        ratio_high,
        p_value: finding.p_value,
        margin: finding.margin,
        verdict: word(finding.verdict),
        stage: stage.to_owned(),
    }
}

fn word(verdict: Verdict) -> Word {
    match verdict {
        Verdict::Faster => Word::Faster,
        Verdict::Slower => Word::Slower,
        Verdict::Same => Word::Same,
        Verdict::Ambiguous => Word::Ambiguous,
    }
}
