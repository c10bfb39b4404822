//! Which problems are tuned, and how hard.

use std::time::Duration;

use nabla_host::{Policy, Problem};

use crate::{
    cli::{Effort, ProblemArgs, TuneArgs},
    failure::{Failure, Kind},
    measure::Race,
    search::strategy,
    sweep::lengths,
    worker::Target,
};

/// Configurations that race at once. They, and no others, are lost with a kill.
const BATCH: usize = 4;
/// Configurations that race at once where every one is tried.
const ALL_AT_ONCE: usize = 128;
/// The strategy that tries every one.
const EXHAUSTIVE: &str = "exhaustive";
/// Configurations tried at least, however small their share.
const LEAST_TRIED: usize = 16;

/// How a problem is tuned.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    /// Name of the strategy.
    pub(crate) strategy: String,
    /// Share of the space to try.
    pub(crate) share: f64,
    /// Configurations to try, where that is given.
    pub(crate) evaluations: Option<usize>,
    /// Time to search in.
    pub(crate) budget: Option<Duration>,
    /// Configurations that race at once.
    pub(crate) batch: usize,
    /// How long they race.
    pub(crate) race: Race,
    /// Seed of everything random.
    pub(crate) seed: u64,
    /// Kernels to compile at once.
    pub(crate) jobs: usize,
}

impl Settings {
    /// Makes the settings that options ask for, of `problems` problems.
    pub(crate) fn new(args: &TuneArgs, problems: usize) -> Result<Self, Failure> {
        let (share, rounds) = match args.effort {
            Effort::Quick => (0.05, 10),
            Effort::Default => (0.1, 25),
            Effort::Exhaustive => (1.0, 15),
        };
        let strategy = match (&args.strategy[..], args.effort) {
            ([name], _) => name.clone(),
            ([], Effort::Exhaustive) => EXHAUSTIVE.to_owned(),
            ([], _) => strategy::DEFAULT.to_owned(),
            (names, _) => {
                let message =
                    format!("--strategy: expected one, got {}: only a replay compares", names.join(", "));
                return Err(Failure::new(Kind::Usage, message));
            }
        };
        if !strategy::names().any(|(name, _)| name == strategy) {
            let known: Vec<&str> = strategy::names().map(|(name, _)| name).collect();
            let message = format!("--strategy: expected one of {}, got '{strategy}'", known.join(", "));
            return Err(Failure::new(Kind::Usage, message));
        }
        Ok(Self {
            share,
            evaluations: args.evaluations.map(|n| n as usize),
            budget: args
                .budget_seconds
                .map(|seconds| Duration::from_secs(u64::from(seconds)) / problems.max(1) as u32),
            // Where nothing depends on outcomes, all race each other: times of a whole recording are then of the same rounds.
            batch: if strategy == EXHAUSTIVE { ALL_AT_ONCE } else { BATCH },
            strategy,
            race: Race { rounds },
            seed: args.input.seed,
            jobs: args.jobs,
        })
    }

    /// Returns the configurations to try of a space of so many.
    pub(crate) fn evaluations(&self, space: usize) -> usize {
        let by_share = ((space as f64 * self.share).ceil() as usize).max(LEAST_TRIED);
        self.evaluations.unwrap_or(by_share).min(space)
    }
}

/// Lists problems: lengths, then policies, then mask blocks.
pub(crate) fn targets(
    problems: &ProblemArgs,
    policies: &[Policy],
    problem: &Problem,
) -> Result<Vec<Target>, Failure> {
    let usage = |message: String| Failure::new(Kind::Usage, message);
    let lengths = match (problems.frames.as_deref(), problem.grid) {
        (None, Some(grid)) => vec![Some(grid.t)],
        (frames, _) => lengths(frames, problem).map_err(usage)?,
    };
    let mut targets: Vec<Target> = Vec::new();
    for &frames in &lengths {
        for policy in policies {
            let blocks: Vec<Option<usize>> = match policy.is_dense() {
                true => vec![None],
                false => problems.blocks.iter().copied().map(Some).collect(),
            };
            for block in blocks {
                let target = Target { frames, policy: policy.to_string(), block };
                if !targets.contains(&target) {
                    targets.push(target);
                }
            }
        }
    }
    if targets.is_empty() {
        return Err(usage("nothing to measure: give at least one policy and one mask block".to_owned()));
    }
    Ok(targets)
}
