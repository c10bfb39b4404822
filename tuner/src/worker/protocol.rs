//! JSON lines between the program and its workers.
//!
//! A worker says [`Hello`] first. Each request has one reply, but for `round` and `build`, which have one an item, in the
//! order of the request for `round`: how many have come says which item was in flight when a worker was lost.

use std::{collections::BTreeMap, path::PathBuf};

use nabla_host::{
    Policy, Problem,
    conditions::Conditions,
    error_measures::ErrorMeasures,
    parameters::{ParameterSpace, Parameters},
    verify::{Accuracy, Budget},
};
use nabla_reports::{Identity, Machine, Status};
use serde::{Deserialize, Serialize};

use crate::measure::{Item, On};

/// Version of the protocol: `compare` talks to workers of other builds.
pub(crate) const PROTOCOL: u32 = 2;

/// One tuning problem of an input: a length, a policy and the mask block it is cut with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Target {
    /// Frames kept of the input; `None` is all of it.
    pub(crate) frames: Option<usize>,
    /// Mask policy.
    pub(crate) policy: String,
    /// Tokens of a mask block; `None` for dense.
    pub(crate) block: Option<usize>,
}

/// What a worker is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(crate) enum Request {
    /// Load a problem. Answered by [`Reply::Opened`].
    Open {
        /// Which.
        target: Target,
    },
    /// Launch a candidate twice on poisoned outputs and hold it against float64. Answered by [`Reply::Verified`].
    Verify {
        /// Number to know it by.
        number: usize,
        /// Its configuration.
        config: Parameters,
        /// On which input.
        on: On,
    },
    /// Know a candidate that was verified by another worker. Answered by [`Reply::Prepared`].
    Prepare {
        /// Number to know it by.
        number: usize,
        /// Its configuration.
        config: Parameters,
    },
    /// Say what the device can do and how it is set. Answered by [`Reply::Machine`].
    Machine,
    /// Time each item once. Answered by a [`Reply::Sample`] or [`Reply::Failed`] for each.
    Round {
        /// The items, in the order to time them in.
        order: Vec<WireItem>,
    },
    /// Launch a prepared candidate and write mask, order, output and lse to a safetensors file. Answered by
    /// [`Reply::Saved`].
    Save {
        /// Number of the candidate.
        number: usize,
        /// The file.
        path: PathBuf,
        /// Heads whose output and lse are written, from the first.
        heads: usize,
    },
    /// Build kernels ahead of their launch. Answered by a [`Reply::Built`] for each, in any order.
    Build {
        /// Their configurations.
        configs: Vec<Parameters>,
        /// How many at once; 0 for one each core.
        jobs: usize,
    },
}

/// An item as it is written: a number for a candidate, else a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WireItem {
    /// A candidate.
    Candidate(usize),
    /// Dense attention with the default configuration.
    Dense,
    /// The building of the mask.
    Mask,
    /// The reorder.
    Reorder,
}

impl From<Item> for WireItem {
    fn from(item: Item) -> Self {
        match item {
            Item::Candidate(number) => Self::Candidate(number),
            Item::Dense => Self::Dense,
            Item::Mask => Self::Mask,
            Item::Reorder => Self::Reorder,
        }
    }
}

/// The first line of a worker: who it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// [`PROTOCOL`].
    pub(crate) protocol: u32,
    /// Version of the program.
    pub(crate) nabla: String,
    /// Commit it was built from.
    pub(crate) commit: String,
    /// Hash of the kernel sources.
    pub(crate) sources: String,
    /// Compiler that built the kernels.
    pub(crate) toolchain: String,
    /// `cpu` or `cuda`.
    pub(crate) backend: String,
    /// Device model.
    pub(crate) device: String,
    /// Driver, for a GPU.
    pub(crate) driver: Option<String>,
    /// Instruction set or architecture.
    pub(crate) isa: String,
    /// Threads, for a CPU.
    pub(crate) threads: Option<u64>,
    /// What the input is.
    pub(crate) input: String,
    /// Hash of the input tensors.
    pub(crate) input_hash: String,
    /// The input as a problem, whole.
    pub(crate) problem: Problem,
}

impl Hello {
    /// What is known before it was said.
    pub(super) fn unknown() -> Self {
        let blank = String::new;
        Self {
            protocol: 0,
            nabla: blank(),
            commit: blank(),
            sources: blank(),
            toolchain: blank(),
            backend: blank(),
            device: blank(),
            driver: None,
            isa: blank(),
            threads: None,
            input: blank(),
            input_hash: blank(),
            problem: Problem {
                batch: 0,
                heads: 0,
                seqlen_q: 0,
                seqlen_k: 0,
                head_dim: 0,
                dtype: nabla_host::Dtype::F32,
                softmax_scale: 0.0,
                grid: None,
            },
        }
    }
}

/// A problem that is loaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Opened {
    /// Its sizes.
    pub(crate) problem: Problem,
    /// Its axes and what can run.
    pub(crate) space: ParameterSpace,
    /// The configuration of whoever chooses none.
    pub(crate) default: Parameters,
    /// Kept blocks over all blocks.
    pub(crate) density: f64,
    /// Kept query-key pairs, all heads together.
    pub(crate) pairs: u64,
    /// What neighbouring rows of the mask share.
    pub(crate) overlap: f64,
    /// Seconds that a model expects of each configuration of the space; absent where there is no model, `null` where it
    /// does not cover one.
    #[serde(default)]
    pub(crate) expected_seconds: Option<Vec<Option<f64>>>,
}

/// Errors of a launch, finite or absent: JSON has no infinity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Errors {
    /// Kernel error: relative L1, RMSE, relative RMSE, maximum, cosine.
    kernel: [Option<f64>; 5],
    /// Sparsity error, the same.
    sparsity: [Option<f64>; 5],
    lse_max_abs: Option<f64>,
    /// Budgets of the kernel's relative RMSE and of lse.
    budget: [Option<f64>; 2],
    rows: usize,
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

impl From<&Accuracy> for Errors {
    fn from(accuracy: &Accuracy) -> Self {
        let fields = |e: &ErrorMeasures| [e.rel_l1, e.rmse, e.rel_rmse, e.max_abs, e.cosine].map(finite);
        Self {
            kernel: fields(&accuracy.kernel),
            sparsity: fields(&accuracy.sparsity),
            lse_max_abs: finite(accuracy.lse_max_abs),
            budget: [accuracy.budget.rel_rmse, accuracy.budget.lse_max_abs].map(finite),
            rows: accuracy.rows,
        }
    }
}

impl Errors {
    /// Returns the errors as they were; what was not finite is infinite.
    pub(crate) fn accuracy(&self) -> Accuracy {
        let number = |value: Option<f64>| value.unwrap_or(f64::INFINITY);
        let measures = |fields: [Option<f64>; 5]| {
            let [rel_l1, rmse, rel_rmse, max_abs, cosine] = fields.map(number);
            ErrorMeasures { rel_l1, rmse, rel_rmse, max_abs, cosine }
        };
        let [rel_rmse, lse_max_abs] = self.budget.map(number);
        Accuracy {
            kernel: measures(self.kernel),
            lse_max_abs: number(self.lse_max_abs),
            sparsity: measures(self.sparsity),
            budget: Budget { rel_rmse, lse_max_abs },
            rows: self.rows,
        }
    }
}

/// How the building of a kernel went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Build {
    /// Which of the request's configurations.
    pub(crate) index: usize,
    /// Why it is not there, with the status that says so.
    pub(crate) failed: Option<(Status, String)>,
}

/// What a worker answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub(crate) enum Reply {
    /// The first line.
    Hello(Box<Hello>),
    /// A problem is loaded.
    Opened {
        /// What it is.
        opened: Box<Opened>,
        /// Microseconds spent on it.
        work_us: f64,
    },
    /// What the device can do and how it is set.
    Machine {
        /// As a run's header has it.
        machine: Option<Machine>,
        /// Microseconds spent on it.
        work_us: f64,
    },
    /// A candidate is right.
    Verified {
        /// Name of its variant.
        variant: String,
        /// Its errors.
        errors: Errors,
        /// Microseconds spent on it.
        work_us: f64,
    },
    /// A candidate is known.
    Prepared,
    /// An item was timed.
    Sample {
        /// Its time in microseconds.
        time_us: f64,
        /// What went on meanwhile.
        #[serde(default)]
        conditions: Conditions,
        /// Microseconds spent on it, the launch's host side and the reading of the conditions included.
        #[serde(default)]
        work_us: f64,
    },
    /// The results are in their file.
    Saved {
        /// Microseconds spent on it.
        work_us: f64,
    },
    /// A kernel was built, or not.
    Built(Build),
    /// It did not work; the worker goes on unless `lost`.
    Failed {
        /// What kind of failure.
        status: Status,
        /// Why.
        reason: String,
        /// Errors, where there was an output.
        #[serde(default)]
        errors: Option<Errors>,
        /// Whether nothing more runs on the device in this process.
        #[serde(default)]
        lost: bool,
        /// Microseconds spent on it.
        #[serde(default)]
        work_us: f64,
    },
    /// The request itself cannot be served: the input, the policy or the options are wrong. The worker ends.
    Refused {
        /// Exit code for it.
        code: u8,
        /// Why.
        reason: String,
    },
}

/// Parameters as records write them.
pub(crate) fn config_of(parameters: &Parameters) -> BTreeMap<String, serde_json::Value> {
    let value = |value| serde_json::to_value(value).unwrap_or_default();
    parameters.0.iter().map(|(name, v)| (name.clone(), value(v))).collect()
}

/// Writes the policies that a file decides, with what the files say.
pub(crate) fn policy_files(policies: &[Policy]) -> Vec<String> {
    policies.iter().filter(|policy| policy.has_file()).map(Policy::to_string).collect()
}

impl Hello {
    /// Returns the identity of a run on this worker.
    pub(crate) fn identity(&self, space_hash: String, policies: &[Policy], seed: u64) -> Identity {
        Identity {
            backend: self.backend.clone(),
            device: self.device.clone(),
            driver: self.driver.clone(),
            isa: self.isa.clone(),
            threads: self.threads,
            platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
            toolchain: self.toolchain.clone(),
            source_hash: self.sources.clone(),
            git_commit: self.commit.clone(),
            input: self.input.clone(),
            input_hash: self.input_hash.clone(),
            space_hash,
            policy_files: policy_files(policies),
            seed,
        }
    }
}
