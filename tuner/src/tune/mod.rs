//! Tuning: from problems to the configuration each is to use, with proof.
//!
//! ```text
//! plan     which problems, how much effort
//! problem  one problem: search, run-off, the winner measured afresh
//! builder  kernels compiled ahead in a process of their own
//! journal  rounds of the race in flight
//! row      records of trials and comparisons
//! view     what a person or a script sees meanwhile
//! ```
//!
//! Strategies know points and costs, benches know kernels; only this module knows both.

mod builder;
mod journal;
mod plan;
mod problem;
mod row;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use builder::Builder;
pub(crate) use journal::Journal;
pub(crate) use plan::{Settings, targets};
pub(crate) use problem::{Earlier, Tuned, Tuner};
pub(crate) use row::{Subject, comparison_row};
pub(crate) use view::{View, name_of, standing};
