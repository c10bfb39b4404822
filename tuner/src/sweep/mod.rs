//! A sweep: space in, verified and timed records out.

mod group;
mod progress;
mod rounds;
mod row;
mod space;
#[cfg(test)]
mod tests;

pub(crate) use group::{Context, Ends, Length, Ran};
pub(crate) use progress::{Progress, work};
pub(crate) use row::{Facts, Outcome, Shared, now, record};
pub(crate) use space::{Config, Space, lengths};
