//! Whether one thing is faster than another: pure functions of samples and a seed.
//!
//! ```text
//! blocks      A-B-B-A quadruples of times -> one log ratio each
//! estimate    Hodges-Lehmann, and its moving-block bootstrap interval
//! permutation sign-flip test, and Holm's correction over several of them
//! verdict     margin from the noise floor; faster, slower, same or ambiguous
//! sequential  looks at doubling numbers of pairs, until the verdict is clear
//! median      one thing's time, with a distribution-free interval
//! ```
//!
//! Owns no clock and no device: the same samples and the same seed give the same verdict everywhere.

mod blocks;
mod estimate;
mod median;
mod permutation;
mod sequential;
#[cfg(test)]
pub(crate) mod simulated;
#[cfg(test)]
mod tests;
mod verdict;

pub(crate) use blocks::{Quad, log_ratios};
pub(crate) use estimate::{Estimate, estimate};
pub(crate) use median::{Median, median};
use permutation::holm;
pub(crate) use sequential::{Finding, LOOKS, blocks_at, findings};
pub(crate) use verdict::{Margin, Verdict, noise_floor};
