//! One group of a sweep: every configuration of one length and policy, verified, then timed together.

use std::{cell::RefCell, sync::Arc, time::Instant};

use nabla_host::{
    Policy, Problem,
    backend::{Backend, BackendError, Orders, Pattern, Workspace},
    reference::{Arithmetic, OrderedMask, Reference, RowSample, attention},
    tensor::Qkv,
    variant::{MaskBlock, TileConfig, Variant},
    verify::{Oracle, verify},
};
use nabla_reports::{Identity, Record, Status};

use super::{
    progress::Progress,
    rounds::{Series, interleave},
    row::{Facts, Outcome, Shared, record},
    space::{Config, Space},
};
use crate::{failure::Failure, stats::median};

/// Rounds that a group gets even past its share, while the sweep has time: fewer samples have no median to speak of.
const LEAST_ROUNDS: u32 = 3;

/// When to come to an end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    /// The group, by its share of the time.
    pub(crate) group: Instant,
    /// The sweep.
    pub(crate) sweep: Instant,
}

/// What stays the same over a sweep.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) backend: &'a dyn Backend,
    pub(crate) identity: &'a Identity,
    pub(crate) space: &'a Space,
    pub(crate) rounds: u32,
}

/// One sequence length: tensors on the device in the order of each mask block, and the dense oracle.
///
/// Policies that are about the same order of tokens share the workspaces; dense launches, for which none matters, take the
/// first. Those in another order than the first ones' go when a policy comes that is about yet another.
pub(crate) struct Length<'a> {
    context: Context<'a>,
    qkv: Arc<Qkv>,
    problem: Problem,
    sample: Arc<RowSample>,
    dense: Reference,
    pub(super) workspaces: Vec<(MaskBlock, Box<dyn Workspace + 'a>)>,
    dense_records: Vec<Record>,
    baseline: Option<Variant>,
}

/// What is computed for one mask block of the group, with the oracle that goes with it, or why there is none.
struct Masked {
    block: Option<MaskBlock>,
    workspace: usize,
    computed: Result<(Pattern, Oracle), BackendError>,
}

impl Masked {
    fn pattern(&self) -> Option<&Pattern> {
        self.computed.as_ref().ok().map(|(pattern, _)| pattern)
    }
}

struct Trial {
    config: Config,
    masked: usize,
    variant: Option<Variant>,
    outcome: Outcome,
}

/// What a group came to.
#[derive(Debug)]
pub(crate) struct Ran {
    /// One record for each configuration, in the order given; fewer where the device gave out.
    pub(crate) records: Vec<Record>,
    /// Why nothing more runs on the device, if it gave out.
    pub(crate) lost: Option<String>,
}

/// Why a trial failed.
type Failed = (Status, String);

/// An error of the device as the failure of a trial; notes in `lost` when nothing more can run.
fn failed(error: &BackendError, lost: &RefCell<Option<String>>) -> Failed {
    let reason = error.to_string();
    if matches!(error, BackendError::Lost { .. }) {
        lost.borrow_mut().get_or_insert_with(|| reason.clone());
    }
    (Status::LaunchError, reason)
}

/// What is timed once a round: the dense baseline, the building of a mask, a reorder, the launch of a trial.
enum Item {
    Baseline(Variant),
    MaskBuild(usize),
    Reorder(usize),
    Attention(usize, Variant),
}

/// An item with its samples and what ended them early.
type Timed = (Item, Series<BackendError>);

impl<'a> Length<'a> {
    /// Loads the tensors and computes dense float64 attention.
    pub(crate) fn new(context: Context<'a>, qkv: Arc<Qkv>, sample: Arc<RowSample>) -> Result<Self, Failure> {
        let problem = qkv.problem();
        let mut workspaces = Vec::new();
        let arrangement = context.space.first_arrangement(&problem)?;
        for &block in &context.space.blocks {
            let orders = Arc::new(Orders::arranged(&problem, block, &arrangement)?);
            workspaces.push((block, context.backend.load(Arc::clone(&qkv), orders)?));
        }
        let dense = attention(&qkv, problem.softmax_scale, None, &sample, Arithmetic::Float64);
        Ok(Self {
            context,
            qkv,
            problem,
            sample,
            dense,
            workspaces,
            dense_records: Vec::new(),
            baseline: None,
        })
    }

    /// Makes the fastest dense record of this length the baseline of the groups to come.
    pub(crate) fn adopt_baseline(&mut self, records: &[Record]) {
        let dense =
            records.iter().filter(|r| r.policy == "dense" && r.seqlen == self.problem.seqlen_q as u64);
        self.dense_records.extend(dense.cloned());
        if let Some(best) = fastest(&self.dense_records) {
            let tile = TileConfig { block_m: best.block_m as usize, block_n: best.block_n as usize };
            self.baseline = self.context.backend.variant(&self.problem, None, tile).ok();
        }
    }

    /// Verifies and times the configurations of one policy.
    ///
    /// With a time to end by, a quarter of the group's is for verifying: configurations that it does not reach have no
    /// record, the first excepted. The rest is for rounds, each about as long as the verifying: three at least, or one where
    /// the sweep itself has to end.
    ///
    /// What fails becomes a record that says so: it costs its row, never the sweep. A device that gives out ends the
    /// group: the configuration at which it did is recorded, those that have no result yet are not, so that a continued
    /// run tries them again.
    pub(crate) fn run(
        &mut self,
        policy: &Policy,
        configs: &[Config],
        ends: Option<Ends>,
        progress: &Progress,
    ) -> Ran {
        let start = Instant::now();
        let quarter =
            ends.map(|ends| start + ends.group.saturating_duration_since(start) / (LEAST_ROUNDS + 1));
        let is_past = |end: Option<Instant>| end.is_some_and(|end| Instant::now() >= end);
        let goes_on = |before: u32| match before {
            0 => true,
            1..LEAST_ROUNDS => !is_past(ends.map(|ends| ends.sweep)),
            _ => !is_past(ends.map(|ends| ends.group)),
        };
        let lost = RefCell::new(None);
        let masks = self.masks(policy, configs);
        let mut trials: Vec<Trial> = Vec::with_capacity(configs.len());
        for &config in configs {
            if is_past(quarter) && trials.iter().any(|trial| trial.variant.is_some()) {
                break;
            }
            progress.verifying(&self.problem, policy, &config);
            trials.push(self.verified(&masks, config, &lost));
            if lost.borrow().is_some() {
                break;
            }
        }
        let mut timed = Vec::new();
        if lost.borrow().is_none() {
            timed = self.time(policy, &masks, &mut trials, (&goes_on, progress), &lost);
        }
        let lost = lost.into_inner();
        if lost.is_some() {
            trials.retain(|trial| trial.outcome.failure.is_some());
            timed.clear();
        }
        let records = self.records(policy, &masks, trials, timed);
        if !policy.is_dense() {
            return Ran { records, lost };
        }
        // The first dense group has no baseline while it runs: its best is known only now. A continued one has.
        let records = if self.baseline.is_none() { with_best_dense(records) } else { records };
        self.adopt_baseline(&records);
        Ran { records, lost }
    }

    /// Returns the workspace that has the tokens in the order of a policy and a mask block; loads them where none has.
    fn workspace_of(&mut self, policy: &Policy, block: Option<MaskBlock>) -> Result<usize, BackendError> {
        let Some(block) = block else { return Ok(0) };
        let arrangement = policy.arrangement(&self.problem)?;
        let is_so = |workspace: &dyn Workspace| *workspace.orders().q.arrangement() == arrangement;
        if let Some(found) = self.workspaces.iter().position(|(b, w)| *b == block && is_so(&**w)) {
            return Ok(found);
        }
        // All orders together may not fit.
        let first = self.context.space.blocks.len();
        let mut number = 0;
        self.workspaces.retain(|(_, workspace)| {
            number += 1;
            number <= first || is_so(&**workspace)
        });
        let orders = Orders::arranged(&self.problem, block, &arrangement).map_err(|error| {
            BackendError::Launch { what: "token reorder".to_owned(), reason: error.to_string() }
        })?;
        let workspace = self.context.backend.load(Arc::clone(&self.qkv), Arc::new(orders))?;
        self.workspaces.push((block, workspace));
        Ok(self.workspaces.len() - 1)
    }

    fn masks(&mut self, policy: &Policy, configs: &[Config]) -> Vec<Masked> {
        let mut blocks: Vec<Option<MaskBlock>> = configs.iter().map(|c| c.block).collect();
        blocks.dedup();
        let scale = self.problem.softmax_scale;
        let mut masks = Vec::new();
        for block in blocks {
            let (workspace, missing) = match self.workspace_of(policy, block) {
                Ok(workspace) => (workspace, None),
                Err(error) => (0, Some(error)),
            };
            let computed = match (missing, block) {
                (Some(error), _) => Err(error),
                (None, None) => Ok((Pattern::Dense, Oracle::new(&self.qkv, scale, None, &self.sample))),
                (None, Some(_)) => self.workspaces[workspace].1.build_mask(policy).map(|(mask, _)| {
                    let orders = self.workspaces[workspace].1.orders();
                    let ordered = OrderedMask { mask: &mask, q_order: &orders.q, kv_order: &orders.kv };
                    let oracle = Oracle::new(&self.qkv, scale, Some(ordered), &self.sample);
                    (Pattern::Mask(mask), oracle)
                }),
            };
            masks.push(Masked { block, workspace, computed });
        }
        masks
    }

    fn verified(&mut self, masks: &[Masked], config: Config, lost: &RefCell<Option<String>>) -> Trial {
        let masked = masks.iter().position(|m| m.block == config.block).unwrap_or_default();
        let mut trial = Trial { config, masked, variant: None, outcome: Outcome::default() };
        match self.context.backend.variant(&self.problem, config.block, config.tile) {
            Err(ineligible) => {
                trial.outcome.variant = format!("{}_{}", self.context.identity.backend, config.tile);
                trial.outcome.failure = Some((Status::Ineligible, ineligible.reason));
            }
            Ok(variant) => {
                trial.outcome.variant = variant.id.to_string();
                match self.launch_and_verify(&masks[masked], &variant, &mut trial.outcome, lost) {
                    Ok(()) => trial.variant = Some(variant),
                    Err(failure) => trial.outcome.failure = Some(failure),
                }
            }
        }
        trial
    }

    fn launch_and_verify(
        &mut self,
        masked: &Masked,
        variant: &Variant,
        outcome: &mut Outcome,
        lost: &RefCell<Option<String>>,
    ) -> Result<(), Failed> {
        let (pattern, oracle) = masked.computed.as_ref().map_err(|e| failed(e, lost))?;
        let workspace = &mut self.workspaces[masked.workspace].1;
        let mut launch = || {
            workspace.poison()?;
            workspace.attention(variant, pattern)?;
            workspace.output()
        };
        let output = launch().map_err(|e: BackendError| failed(&e, lost))?;
        let orders = workspace.orders();
        let (accuracy, verdict) = verify(&output, &orders.q, oracle, &self.dense, variant.rounding());
        outcome.accuracy = Some(accuracy);
        verdict.map_err(|reason| (Status::Incorrect, reason))
    }

    fn time(
        &mut self,
        policy: &Policy,
        masks: &[Masked],
        trials: &mut [Trial],
        (goes_on, progress): (&dyn Fn(u32) -> bool, &Progress),
        lost: &RefCell<Option<String>>,
    ) -> Vec<Timed> {
        let live = trials.iter().enumerate().filter_map(|(t, trial)| Some((t, trial.variant.clone()?)));
        let attention: Vec<Item> = live.map(|(t, variant)| Item::Attention(t, variant)).collect();
        if attention.is_empty() {
            return Vec::new();
        }
        let mut items: Vec<Item> = self.baseline.iter().cloned().map(Item::Baseline).collect();
        let built = (0..masks.len()).filter(|&m| masks[m].pattern().is_some_and(|p| p.mask().is_some()));
        items.extend(built.flat_map(|m| [Item::MaskBuild(m), Item::Reorder(m)]));
        items.extend(attention);

        // Every group draws its own orders, and the same ones when the run is repeated.
        let label = format!("{} {policy}", self.problem.seqlen_q);
        let salt = u64::from_str_radix(&nabla_host::provenance::short_hash(label.as_bytes()), 16)
            .unwrap_or_default();
        let seed = self.context.identity.seed ^ salt;
        let samples = items.len() as u64 * u64::from(self.context.rounds);
        let workspaces = &mut self.workspaces;
        let mut culprit = None;
        let series = interleave(items.len(), self.context.rounds, seed, goes_on, |item| {
            progress.timing(samples);
            let on = |masked: usize| masks[masked].workspace;
            let sample = match &items[item] {
                Item::Baseline(variant) => workspaces[0].1.attention(variant, &Pattern::Dense),
                Item::MaskBuild(m) => workspaces[on(*m)].1.build_mask(policy).map(|(_, us)| us),
                Item::Reorder(m) => workspaces[on(*m)].1.time_reorder(),
                Item::Attention(t, variant) => {
                    let masked = trials[*t].masked;
                    let pattern = masks[masked].pattern().unwrap_or(&Pattern::Dense);
                    workspaces[on(masked)].1.attention(variant, pattern)
                }
            };
            sample.inspect_err(|error| {
                let before = lost.borrow().is_some();
                let failure = failed(error, lost);
                if !before && lost.borrow().is_some() {
                    culprit = Some((item, failure));
                }
            })
        });
        if let Some((item, failure)) = culprit
            && let Item::Attention(t, _) = &items[item]
        {
            trials[*t].outcome.failure = Some(failure);
        }
        items.into_iter().zip(series).collect()
    }

    fn records(
        &self,
        policy: &Policy,
        masks: &[Masked],
        mut trials: Vec<Trial>,
        timed: Vec<Timed>,
    ) -> Vec<Record> {
        let mut dense = Vec::new();
        let mut mask_builds = vec![Vec::new(); masks.len()];
        let mut reorders = vec![Vec::new(); masks.len()];
        for (item, (samples, failure)) in timed {
            match item {
                Item::Baseline(_) => dense = samples,
                Item::MaskBuild(m) => mask_builds[m] = samples,
                Item::Reorder(m) => reorders[m] = samples,
                Item::Attention(t, _) => {
                    let outcome = &mut trials[t].outcome;
                    outcome.samples_us = samples;
                    outcome.failure = failure.map(|e| (Status::LaunchError, e.to_string()));
                }
            }
        }
        trials
            .into_iter()
            .map(|trial| {
                let shared = Shared {
                    identity: self.context.identity,
                    problem: &self.problem,
                    policy,
                    facts: masks[trial.masked].pattern().map(|pattern| Facts::of(&self.problem, pattern)),
                    dense_samples_us: &dense,
                    mask_samples_us: &mask_builds[trial.masked],
                    reorder_samples_us: &reorders[trial.masked],
                    counting_us: None,
                };
                record(shared, trial.config, trial.outcome)
            })
            .collect()
    }
}

fn fastest(records: &[Record]) -> Option<&Record> {
    let time = |r: &Record| r.time_us_median.unwrap_or(f64::INFINITY);
    records.iter().filter(|r| r.status == Status::Ok).min_by(|a, b| time(a).total_cmp(&time(b)))
}

fn with_best_dense(mut records: Vec<Record>) -> Vec<Record> {
    let Some(samples) = fastest(&records).map(|r| r.samples_us.clone()) else { return records };
    let dense_us = median(&samples).map(|m| m.median);
    for record in records.iter_mut().filter(|r| r.status == Status::Ok) {
        record.dense_us_median = dense_us;
        record.speedup_vs_dense = dense_us.zip(record.time_us_median).map(|(dense, t)| dense / t);
        record.speedup_total_vs_dense = record.speedup_vs_dense;
        record.dense_samples_us.clone_from(&samples);
    }
    records
}
