//! What several commands measure on: lengths, mask blocks and policies.

use clap::Args;
use nabla_host::Policy;

use crate::failure::{Failure, Kind};

/// Problems that are measured one by one.
#[derive(Debug, Clone, Args)]
pub(crate) struct ProblemArgs {
    /// Sequence lengths, as numbers of frames cut from the start of the input [default: all of it].
    #[arg(long, value_delimiter = ',', value_name = "N,..")]
    pub(crate) frames: Option<Vec<usize>>,
    /// Mask block sizes in tokens; each is a problem of its own.
    #[arg(long, value_delimiter = ',', value_name = "TOKENS,..", default_values_t = [64])]
    pub(crate) blocks: Vec<usize>,
    /// Seconds after which a launch counts as one that does not end.
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) launch_timeout: u32,
}

/// Policies to look at: thresholds, and any others.
#[derive(Debug, Clone, Args)]
pub(crate) struct PoliciesToTryArgs {
    /// Thresholds: shares of pooled attention to keep, each the policy nabla-MASS.
    #[arg(long, value_delimiter = ',', value_name = "MASS,..", default_values_t = [0.2, 0.4, 0.6, 0.8])]
    thresholds: Vec<f64>,
    /// Further policies, by their strings; `dense` is one of them.
    #[arg(long, value_delimiter = ',', value_name = "POLICY,..")]
    policies: Vec<Policy>,
}

impl PoliciesToTryArgs {
    /// Returns the thresholds' policies, then the others.
    ///
    /// # Errors
    /// When a threshold is no share.
    pub(crate) fn all(&self) -> Result<Vec<Policy>, Failure> {
        let of_thresholds = self.thresholds.iter().map(|mass| {
            format!("nabla-{mass}").parse().map_err(|_| {
                let message = format!("--thresholds: expected shares in 0..=1, got {mass}");
                Failure::new(Kind::Usage, message)
            })
        });
        of_thresholds.chain(self.policies.iter().cloned().map(Ok)).collect()
    }
}
