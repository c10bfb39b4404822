//! What measuring needs of the thing that runs kernels.

use nabla_host::{conditions::Conditions, parameters::Parameters};
use nabla_reports::Status;
use serde::{Deserialize, Serialize};

use crate::{failure::Failure, worker::Errors};

/// What can be timed on a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Item {
    /// A candidate, by the number it was verified under.
    Candidate(usize),
    /// Dense attention with the default configuration.
    Dense,
    /// The building of the mask.
    Mask,
    /// The reorder of tokens.
    Reorder,
}

/// What a candidate is verified on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum On {
    /// The input that is tuned for.
    Input,
    /// Numbers of another seed, whose tokens fill no whole number of blocks.
    OtherInput,
}

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failed {
    /// The status of its row.
    pub(crate) status: Status,
    /// The reason in its row.
    pub(crate) reason: String,
}

/// A candidate whose output is right.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verified {
    /// Name of the variant.
    pub(crate) variant: String,
    /// Its errors.
    pub(crate) errors: Errors,
}

/// One timed launch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Time in microseconds.
    pub(crate) time_us: f64,
    /// What went on meanwhile.
    pub(crate) conditions: Conditions,
}

/// What came of timing one item.
pub(crate) type Timed = Result<Sample, Failed>;

/// A problem on a device. An outer error means that nothing more can be measured at all; an inner one costs a candidate.
pub(crate) trait Bench {
    /// Launches a candidate on poisoned outputs, twice, and holds the result against float64.
    fn verify(
        &mut self,
        number: usize,
        parameters: &Parameters,
        on: On,
    ) -> Result<Result<Verified, (Failed, Option<Errors>)>, Failure>;

    /// Times each item once, in this order.
    fn round(&mut self, order: &[Item]) -> Result<Vec<Timed>, Failure>;

    /// Makes everything anew, as after a restart: what a last measurement is to rest on.
    fn renew(&mut self) -> Result<(), Failure>;
}
