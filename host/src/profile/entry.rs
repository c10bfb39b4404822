//! One configuration, how sure it is, how it was found.

use serde::{Deserialize, Serialize};

use super::{Key, Shape};
use crate::parameters::Parameters;

/// What an entry may claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// No other configuration was shown to be faster: the default.
    Tied,
    /// Faster than the default in pairs, and again when measured afresh.
    Proven,
}

/// How the configuration stands against the default.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Margin {
    /// What it may claim.
    pub standing: Standing,
    /// Its time over the default's: below 1, it is faster.
    pub ratio: f64,
    /// Lower end of the ratio's 95 % interval.
    pub ratio_low: f64,
    /// Upper end of the ratio's 95 % interval.
    pub ratio_high: f64,
    /// Pairs it rests on; 0 where the default was chosen without a rival.
    pub pairs: u64,
}

impl Margin {
    /// The default, against itself.
    pub const DEFAULT: Self =
        Self { standing: Standing::Tied, ratio: 1.0, ratio_low: 1.0, ratio_high: 1.0, pairs: 0 };
}

/// Where a configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Found {
    /// Search strategy.
    pub strategy: String,
    /// Configurations it tried.
    pub evaluations: u64,
    /// Configurations there are.
    pub space: u64,
    /// Seed of the run.
    pub seed: u64,
    /// When, RFC 3339, UTC.
    pub when: String,
    /// Hash of the kernel sources.
    pub sources: String,
    /// Compiler that built the kernels.
    pub toolchain: String,
}

/// One entry of a profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What it is for.
    pub key: Key,
    /// The very problem it was tuned on.
    pub shape: Shape,
    /// The configuration to use.
    pub config: Parameters,
    /// How it stands against the default.
    pub margin: Margin,
    /// Where it comes from.
    pub found: Found,
}

impl Entry {
    /// Says whether it is to replace another of its key: the later one, for kernels change; of two at a time the proven.
    pub(super) fn outranks(&self, other: &Self) -> bool {
        (&self.found.when, self.margin.standing) >= (&other.found.when, other.margin.standing)
    }

    /// Finds what no profile of ours can have.
    pub(super) fn fault(&self) -> Option<String> {
        let Margin { standing, ratio, ratio_low, ratio_high, .. } = self.margin;
        if self.shape.key(&self.key.device) != self.key {
            return Some(format!(
                "the key of an entry for {} tokens is not that of its shape",
                self.shape.seqlen
            ));
        }
        if !(ratio_low <= ratio && ratio <= ratio_high) {
            return Some(format!("a ratio of {ratio} is outside its interval {ratio_low} to {ratio_high}"));
        }
        (standing == Standing::Proven && ratio_high >= 1.0)
            .then(|| format!("an entry claims to be proven with a ratio of up to {ratio_high}"))
    }
}
