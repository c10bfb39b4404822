//! Measuring: what is timed when, which samples count, who is out, and who has won.
//!
//! ```text
//! bench    the trait: something that verifies candidates and times them
//! series   samples of one thing, with marks on those taken under bad conditions
//! race     interleaved rounds; what cannot win leaves early
//! pairs    A-B-B-A blocks: the noise floor, the run-off, the winner measured afresh
//! choose   from findings to the configuration to use
//! ```
//!
//! Owns no process and no device. Everything random comes from a seed.

mod bench;
mod choose;
#[cfg(test)]
pub(crate) mod fake;
mod pairs;
mod race;
mod series;
#[cfg(test)]
mod tests;

pub(crate) use bench::{Bench, Failed, Item, On, Sample, Timed, Verified};
pub(crate) use choose::{Finalist, ranked};
pub(crate) use pairs::{Paired, Pairing};
pub(crate) use race::{Race, Rounds};
pub(crate) use series::{Clocks, MOST_MARKED, Series};
